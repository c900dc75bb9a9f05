//! Relays: checked from outside, offered by tier and way, with permissions that fit.

use super::*;
use crate::relay::{Credential, RelayOffer, Tier};
use crate::wire::message::{
    PushRelayCheck, PushRelayKeys, PushRelayNews, PushRelayOffer, RelayLoad, RelayNodeReq, RelayNodeRsp,
    RelayReport, RelayRtt,
};

type Conn = (ConnId, crate::auth::SecureChannel);

const RELAY: &str = "192.0.2.50";

fn offering(port: u16, super_relay: bool) -> Report {
    Report { relay: Some(RelayReport { super_relay, port, bandwidth_mbps: 10 }), ..report(&[]) }
}

/// All messages of a kind that have come since.
fn pushed<M: Message>(world: &mut World, conn: &mut Conn) -> Vec<M> {
    let received = std::mem::take(&mut world.raw(conn.0).received);
    let opened: Vec<_> = received.iter().map(|message| conn.1.opener.open(message).unwrap()).collect();
    opened.iter().filter_map(|message| read(message)).collect()
}

/// A relay at an address of its own that answers there on port 27185.
fn relay(world: &mut World, ip: &str, (name, of): (&str, u8), super_relay: bool) -> Conn {
    world.relays.insert(format!("{ip}:27185").parse().unwrap(), key(of));
    let mut conn = world.log_in_raw(ip, (name, of, TOKEN)).unwrap();
    world.request_raw(&mut conn, &offering(27185, super_relay));
    world.run(secs(1));
    assert_eq!(pushed::<PushRelayCheck>(world, &mut conn).last().map(|check| check.reachable), Some(true));
    conn
}

fn node(world: &mut World, name: &str, of: u8) -> Conn {
    let mut conn = world.log_in_raw(HERE, (name, of, TOKEN)).unwrap();
    world.request_raw(&mut conn, &report(&[]));
    conn
}

/// What both sides of an attempt are offered.
fn offers(world: &mut World, a: &mut Conn, b: &mut Conn) -> (Vec<RelayOffer>, Vec<RelayOffer>) {
    world.run(secs(6));
    pushed::<PunchStart>(world, b);
    let sealed = a.1.sealer.seal(&encode(78, &connect("b")));
    let received = std::mem::take(&mut world.send_raw(a.0, &sealed).received);
    let opened: Vec<_> = received.iter().map(|message| a.1.opener.open(message).unwrap()).collect();
    let ours = opened.iter().find_map(|message| read::<PunchStart>(message)).unwrap();
    let received = std::mem::take(&mut world.raw(b.0).received);
    let opened: Vec<_> = received.iter().map(|message| b.1.opener.open(message).unwrap()).collect();
    let theirs = opened.iter().find_map(|message| read::<PunchStart>(message)).unwrap();
    (ours.relays, theirs.relays)
}

/// Lets time pass for nodes that stay.
fn wait(world: &mut World, nodes: &mut [&mut Conn], minutes: u32) {
    for _ in 0..minutes {
        world.run(secs(60));
        for conn in &mut *nodes {
            let sealed = conn.1.sealer.seal(&encode(79, &Heartbeat::default()));
            world.send_raw(conn.0, &sealed);
        }
    }
}

fn names(offers: &[RelayOffer]) -> Vec<String> {
    offers.iter().map(RelayOffer::via).collect()
}

#[test]
fn a_relay_is_offered_only_once_the_server_has_reached_it() {
    let mut world = World::new(1);
    let (mut a, mut b) = (node(&mut world, "a", 1), node(&mut world, "b", 2));
    let mut r = world.log_in_raw(RELAY, ("r", 3, TOKEN)).unwrap();
    world.request_raw(&mut r, &offering(27185, false));
    world.run(secs(1));
    let told = pushed::<PushRelayCheck>(&mut world, &mut r);
    assert_eq!((told.len(), told[0].reachable, told[0].reason.as_str()), (1, false, "connection refused"));
    assert_eq!(names(&offers(&mut world, &mut a, &mut b).0), ["server"]);

    // It answers now, and is looked at again by itself; it is told once.
    world.relays.insert(format!("{RELAY}:27185").parse().unwrap(), key(3));
    wait(&mut world, &mut [&mut a, &mut b, &mut r], 1);
    let told = pushed::<PushRelayCheck>(&mut world, &mut r);
    assert_eq!((told.len(), told[0].reachable, told[0].reason.as_str()), (1, true, ""));
    assert_eq!(names(&offers(&mut world, &mut a, &mut b).0), ["r", "server"]);

    // One failure may be chance; the second one, seconds later, is not.
    world.relays.clear();
    wait(&mut world, &mut [&mut a, &mut b, &mut r], 7);
    assert!(!pushed::<PushRelayCheck>(&mut world, &mut r)[0].reachable);
    assert_eq!(names(&offers(&mut world, &mut a, &mut b).0), ["server"]);

    // One that proves another key is no better.
    world.relays.insert(format!("{RELAY}:27185").parse().unwrap(), key(9));
    wait(&mut world, &mut [&mut a, &mut b, &mut r], 7);
    assert_eq!(names(&offers(&mut world, &mut a, &mut b).0), ["server"]);
}

#[test]
fn only_the_observed_address_and_ports_above_1023_are_looked_at() {
    let mut world = World::new(1);
    for port in [0, 22, 80, 1023] {
        let mut r = world.log_in_raw(RELAY, ("r", 3, TOKEN)).unwrap();
        world.request_raw(&mut r, &offering(port, true));
        world.run(secs(700));
        let told = pushed::<PushRelayCheck>(&mut world, &mut r);
        // All that stays is the first word.
        assert!(told.is_empty() && world.checked.is_empty(), "{port}: {told:?}");
        world.tell_server(Input::Closed { conn: r.0 });
        world.run(secs(700));
    }
    let mut r = world.log_in_raw(RELAY, ("r", 3, TOKEN)).unwrap();
    world.request_raw(&mut r, &offering(1024, true));
    world.run(secs(1));
    assert_eq!(world.checked, ["192.0.2.50:1024".parse().unwrap()]);
    // A change is looked at at once, silence ends it.
    world.request_raw(&mut r, &offering(1025, true));
    world.run(secs(1));
    assert_eq!(world.checked.len(), 2);
    world.request_raw(&mut r, &report(&[]));
    world.run(secs(80));
    assert_eq!((world.checked.len(), world.server().relays.len()), (2, 0));
}

#[test]
fn private_goes_before_super_before_server_and_the_shorter_way_first() {
    let mut world = World::new(1);
    let (mut a, mut b) = (node(&mut world, "a", 1), node(&mut world, "b", 2));
    assert_eq!(names(&offers(&mut world, &mut a, &mut b).0), ["server"]);
    let mut far = relay(&mut world, "192.0.2.51", ("far", 11), false);
    let _near = relay(&mut world, "192.0.2.52", ("near", 12), false);
    let _super = relay(&mut world, "192.0.2.53", ("super", 13), true);
    for conn in [&mut a, &mut b] {
        let rtts = vec![RelayRtt { relay: key(11), ms: 90 }, RelayRtt { relay: key(12), ms: 5 }];
        world.request_raw(conn, &AttemptReport { attempt: AttemptId([1; 16]), outcomes: vec![], rtts });
    }
    let (ours, theirs) = offers(&mut world, &mut a, &mut b);
    // A super relay of the own user serves it as a private one.
    assert_eq!(names(&ours), ["near", "far", "server"]);
    assert_eq!(names(&theirs), names(&ours));
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a.key, &a.addresses) == (b.key, &b.addresses)));
    assert_eq!(ours[0].addresses, ["192.0.2.52:27185".parse().unwrap()]);

    // One that is full goes last.
    let load = RelayLoad { sessions: 3, mbps: 10, bytes: 0 };
    let mut near = _near;
    world.request_raw(&mut near, &Heartbeat { rtt_ms: None, relay: Some(load) });
    assert_eq!(names(&offers(&mut world, &mut a, &mut b).0), ["far", "super", "server"]);

    // One that is gone is not offered.
    world.request_raw(&mut far, &Goodbye {});
    assert_eq!(names(&offers(&mut world, &mut a, &mut b).0), ["super", "near", "server"]);
    // A relay is not offered for paths to itself.
    assert!(!names(&offers(&mut world, &mut near, &mut b).0).contains(&"near".to_owned()));
}

#[test]
fn within_a_user_no_ticket_is_needed_and_elsewhere_each_side_has_its_own() {
    let mut world = World::new(1);
    world.users.insert("other".parse().unwrap(), TOKEN.parse().unwrap());
    world.kill_server();
    world.start_server();
    let (mut a, mut b) = (node(&mut world, "a", 1), node(&mut world, "b", 2));
    let _private = relay(&mut world, "192.0.2.51", ("private", 11), false);
    world.relays.insert("192.0.2.52:27185".parse().unwrap(), key(12));
    let mut setup = crate::world::Setup { user: "other", ..crate::world::Setup::new("super", 12) };
    setup.address = "192.0.2.52";
    setup.relay = Some(RelayReport { super_relay: true, port: 27185, bandwidth_mbps: 10 });
    let s = world.add(setup);
    world.run(secs(2));
    assert!(world.nodes[s].agent.status().relay.reachable);

    let (ours, theirs) = offers(&mut world, &mut a, &mut b);
    assert_eq!(names(&ours), ["private", "super@other", "server"]);
    assert_eq!(
        ours.iter().map(|offer| offer.tier).collect::<Vec<_>>(),
        [Tier::Private, Tier::Super, Tier::Server]
    );
    assert_eq!(ours[0].credential, Credential::Totp);
    let keys = world.nodes[s].secrets.clone().unwrap().tickets.unwrap();
    let own = world.server().relay_tickets().unwrap().clone();
    for (at, key_of) in [(1, keys), (2, own)] {
        let open = |offer: &RelayOffer| match &offer.credential {
            Credential::Ticket(sealed) => key_of.open(sealed).unwrap(),
            Credential::Totp => panic!("no ticket"),
        };
        let (one, two) = (open(&ours[at]), open(&theirs[at]));
        assert_eq!((one.own, one.peer, one.attempt), (key(1), key(2), ours[at].attempt));
        assert_eq!((two.own, two.peer, two.attempt), (key(2), key(1), ours[at].attempt));
        assert_eq!((one.relay, one.account), (ours[at].key, two.account));
        assert_ne!(one.nonce, two.nonce);
    }
}

#[test]
fn each_login_of_a_relay_brings_a_fresh_key_and_all_nodes_of_a_user_have_its_secret() {
    let mut world = World::new(1);
    let keys = |world: &mut World, name: &str, of: u8, report: &Report| {
        let mut conn = world.log_in_raw(RELAY, (name, of, TOKEN)).unwrap();
        let reply = world.request_raw(&mut conn, report);
        (conn, read::<ReportReply>(&reply).unwrap().keys)
    };
    let (conn, first) = keys(&mut world, "r", 3, &offering(27185, false));
    world.tell_server(Input::Closed { conn: conn.0 });
    let (_, second) = keys(&mut world, "r", 3, &offering(27185, false));
    assert_ne!(first.tickets, second.tickets);
    let (_, plain) = keys(&mut world, "a", 1, &report(&[]));
    assert_eq!((plain.tickets, &plain.user), (None, &second.user));
    assert_eq!(first.user, second.user);

    // The secret outlives the server, and is replaced in time; nodes that are there hear of it.
    world.kill_server();
    world.start_server();
    world.run(secs(30 * 86_400 - 60));
    let (mut b, third) = keys(&mut world, "b", 2, &report(&[]));
    assert_eq!(third.user, first.user);
    world.run(secs(80));
    let push = pushed::<PushRelayKeys>(&mut world, &mut b).pop().unwrap();
    assert_eq!((push.keys.user.len(), &push.keys.user[1]), (2, &first.user[0]));
}

#[test]
fn more_relays_are_had_for_the_asking_and_the_other_side_is_told() {
    let mut world = World::new(1);
    let (mut a, mut b) = (node(&mut world, "a", 1), node(&mut world, "b", 2));
    let _one = relay(&mut world, "192.0.2.51", ("one", 11), false);
    let _two = relay(&mut world, "192.0.2.52", ("two", 12), false);
    let attempt = AttemptId([5; 16]);
    let wish = RelayNodeReq {
        attempt,
        peer: "b".parse().unwrap(),
        rungs: RungSet::ALL,
        exclude: vec![key(11)],
        rtts: Vec::new(),
    };
    let server = world.identity.public();
    let reply = read::<RelayNodeRsp>(&world.request_raw(&mut a, &wish)).unwrap();
    assert_eq!(names(&reply.offers), ["two", "server"]);
    let told = pushed::<PushRelayOffer>(&mut world, &mut b);
    assert_eq!((told.len(), told[0].attempt, told[0].peer.to_string()), (1, attempt, "a".to_owned()));
    assert_eq!(names(&told[0].offers), ["two", "server"]);
    let none = RelayNodeReq { exclude: vec![key(11), key(12), server], ..wish.clone() };
    assert_eq!(code(&world.request_raw(&mut a, &none)), Some(Code::NotFound));
    let nobody = RelayNodeReq { peer: "c".parse().unwrap(), ..wish };
    assert_eq!(code(&world.request_raw(&mut a, &nobody)), Some(Code::Offline));
}

#[test]
fn those_on_a_worse_relay_hear_of_a_better_one() {
    let mut world = World::new(1);
    let (mut a, mut b) = (node(&mut world, "a", 1), node(&mut world, "b", 2));
    let outcomes = vec![crate::path::Outcome {
        rung: crate::path::Rung::ServerRelay,
        outcome: crate::path::Verdict::Connected,
        reason: String::new(),
        ms: 1,
    }];
    let report = AttemptReport { attempt: AttemptId([1; 16]), outcomes, rtts: vec![] };
    world.request_raw(&mut a, &report);
    let _relay = relay(&mut world, RELAY, ("r", 3), false);
    assert_eq!(pushed::<PushRelayNews>(&mut world, &mut a).len(), 1);
    assert!(pushed::<PushRelayNews>(&mut world, &mut b).is_empty());
    assert!(pushed::<PushRelayKeys>(&mut world, &mut b).is_empty());
}

/// A relay's report once the STUN ports have seen its UDP port at these addresses.
fn seen_at(world: &World, super_relay: bool, udp: &[&str]) -> Report {
    let unix = world.unix();
    let mut report = offering(27185, super_relay);
    for address in udp {
        let address = address.parse().unwrap();
        let proof = Some(crate::world::proofs().prove(Transport::Udp, address, unix));
        let seen = Some(crate::nat::Behaviour { public: Some(address), proof, ..Default::default() });
        let place = if address.is_ipv4() { &mut report.nat.udp4 } else { &mut report.nat.udp6 };
        *place = seen;
    }
    report
}

/// A relay at `ip` whose UDP port has been seen there, and answers STUN or not.
fn stun_relay(world: &mut World, ip: &str, (name, of): (&str, u8), super_relay: bool, answers: bool) -> Conn {
    let udp = format!("{ip}:4000");
    if answers {
        world.stun.insert(udp.parse().unwrap());
    }
    world.relays.insert(format!("{ip}:27185").parse().unwrap(), key(of));
    let mut conn = world.log_in_raw(ip, (name, of, TOKEN)).unwrap();
    let report = seen_at(world, super_relay, &[&udp]);
    world.request_raw(&mut conn, &report);
    world.run(secs(1));
    conn
}

/// Which relays a node may ask by STUN, as its heartbeat is answered.
fn told_stun(world: &mut World, conn: &mut Conn) -> Vec<String> {
    let reply = world.request_raw(conn, &Heartbeat::default());
    let relays = read::<HeartbeatReply>(&reply).unwrap().stun_relays;
    relays.iter().map(ToString::to_string).collect()
}

#[test]
fn a_relay_is_named_for_stun_only_where_its_own_port_was_seen_and_has_answered() {
    let mut world = World::new(1);
    let mut a = node(&mut world, "a", 1);
    let mut r = stun_relay(&mut world, RELAY, ("r", 3), false, true);
    assert_eq!(world.asked_by_stun, ["192.0.2.50:4000".parse().unwrap()]);
    assert_eq!(told_stun(&mut world, &mut a), ["192.0.2.50:4000"]);
    assert!(told_stun(&mut world, &mut r).is_empty(), "not itself");

    // An address that it claims without the proof is neither asked nor told.
    let mut lie = seen_at(&world, false, &["192.0.2.50:4000"]);
    lie.nat.udp4.as_mut().unwrap().public = "203.0.113.9:53".parse().ok();
    world.request_raw(&mut r, &lie);
    wait(&mut world, &mut [&mut a, &mut r], 7);
    assert_eq!(world.asked_by_stun, ["192.0.2.50:4000".parse().unwrap()]);
    assert!(told_stun(&mut world, &mut a).is_empty(), "it is there no more");

    // It moves, and is asked there, but not more often than every few seconds.
    world.stun.insert("192.0.2.50:4001".parse().unwrap());
    world.run(secs(6));
    let (first, second) =
        (seen_at(&world, false, &["192.0.2.50:4000"]), seen_at(&world, false, &["192.0.2.50:4001"]));
    for _ in 0..20 {
        world.request_raw(&mut r, &first);
        world.request_raw(&mut r, &second);
    }
    let before = world.asked_by_stun.len();
    world.run(secs(12));
    assert_eq!(told_stun(&mut world, &mut a), ["192.0.2.50:4001"]);
    assert!(world.asked_by_stun.len() <= before + 2, "{:?}", world.asked_by_stun);

    // Nobody answers any more at the next look.
    world.stun.clear();
    wait(&mut world, &mut [&mut a, &mut r], 6);
    assert!(told_stun(&mut world, &mut a).is_empty());
    // Gone is gone.
    world.stun.insert("192.0.2.50:4001".parse().unwrap());
    wait(&mut world, &mut [&mut a, &mut r], 6);
    assert_eq!(told_stun(&mut world, &mut a), ["192.0.2.50:4001"]);
    world.request_raw(&mut r, &Goodbye {});
    assert!(told_stun(&mut world, &mut a).is_empty());
}

#[test]
fn a_silent_one_one_that_is_unreachable_and_one_at_the_nodes_own_address_are_not_named_for_stun() {
    let mut world = World::new(1);
    let mut a = node(&mut world, "a", 1);
    let mut silent = stun_relay(&mut world, "192.0.2.51", ("silent", 11), false, false);
    let mut here = stun_relay(&mut world, HERE, ("here", 12), false, true);
    let mut unreachable = stun_relay(&mut world, "192.0.2.52", ("unreachable", 13), false, true);
    assert_eq!(told_stun(&mut world, &mut a), ["192.0.2.52:4000"]);
    world.relays.remove(&"192.0.2.52:27185".parse().unwrap());
    wait(&mut world, &mut [&mut a, &mut here, &mut silent, &mut unreachable], 7);
    assert!(told_stun(&mut world, &mut a).is_empty());
    // To a node elsewhere the second one is as good as any.
    let mut b = world.log_in_raw("203.0.113.5", ("b", 2, TOKEN)).unwrap();
    assert_eq!(told_stun(&mut world, &mut b), ["198.51.100.7:4000"]);
}

#[test]
fn only_the_own_users_relays_and_super_relays_are_named_for_stun_two_a_family() {
    let mut world = World::new(1);
    world.users.insert("other".parse().unwrap(), TOKEN.parse().unwrap());
    world.kill_server();
    world.start_server();
    let mut conns = Vec::new();
    for number in 0..6_u8 {
        let (ip, name) = (format!("192.0.2.{}", 60 + number), format!("r{number}"));
        // Private ones of the user, the others for all.
        conns.push(stun_relay(&mut world, &ip, (&name, 20 + number), number >= 1, true));
    }
    let mut a = node(&mut world, "a", 1);
    let told = told_stun(&mut world, &mut a);
    assert_eq!(told.len(), 2);
    let setup =
        crate::world::Setup { user: "other", address: "203.0.113.5", ..crate::world::Setup::new("o", 9) };
    let other = world.add(setup);
    world.run(secs(1));
    // By the login itself; none of them is of its own user.
    let theirs = world.nodes[other].stun_relays.clone();
    assert_eq!(theirs.len(), 2);
    assert!(
        !theirs.contains(&"192.0.2.60:4000".parse().unwrap()),
        "a private one of another user: {theirs:?}"
    );
    // It hears of changes by its heartbeats.
    world.stun.clear();
    let mut all: Vec<&mut Conn> = conns.iter_mut().chain([&mut a]).collect();
    wait(&mut world, &mut all, 7);
    assert!(world.nodes[other].stun_relays.is_empty());
}
