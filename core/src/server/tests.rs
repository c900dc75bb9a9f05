//! The server, with clients of the test's own.

mod relays;
mod shares;
mod state;

use proptest::prelude::*;

use super::*;
use crate::ids::{AttemptId, PeerName};
use crate::nat::NatReport;
use crate::path::{Candidate, CandidateKind, RungSet, Transport};
use crate::wire::message::{
    AttemptReport, Code, Connect, ConnectReply, Goodbye, Heartbeat, HeartbeatReply, MAX_PEERS, Message,
    PeerOnline, PunchStart, Refused, Report, ReportReply, kind,
};
use crate::wire::{Envelope, MAX_CLEAR, encode};
use crate::world::{World, key, secs};

const TOKEN: &str = "12345678";
const HERE: &str = "198.51.100.7";

fn report(peers: &[&str]) -> Report {
    Report {
        software: "0.1.0\u{1b}".to_owned(),
        platform: "linux x86_64".to_owned(),
        candidates: vec![candidate("198.51.100.7:4000"), candidate("10.0.0.1:4000")],
        rungs: RungSet::ALL,
        peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
        relay: None,
        nat: NatReport::default(),
    }
}

fn candidate(address: &str) -> Candidate {
    Candidate { kind: CandidateKind::Host, transport: Transport::Tcp, address: address.parse().unwrap() }
}

fn connect(peer: &str) -> Connect {
    Connect {
        peer: peer.parse().unwrap(),
        candidates: vec![candidate("198.51.100.7:4001")],
        rungs: RungSet::ALL,
        exclude: Vec::new(),
    }
}

fn read<M: Message>(message: &[u8]) -> Option<M> {
    Envelope::parse(message).unwrap().decode().ok()
}

fn code(answer: &[u8]) -> Option<Code> {
    read::<Refused>(answer).map(|refused| refused.code)
}

#[test]
fn every_kind_of_request_is_answered_and_none_ends_the_connection() {
    let mut world = World::new(1);
    let mut raw = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    for unknown in (0..kind::REPLY).step_by(7).chain([kind::LOGIN_HELLO, kind::PUNCH_START, 0x7fff]) {
        let known = [
            kind::HEARTBEAT,
            kind::REPORT,
            kind::CONNECT,
            kind::ATTEMPT_REPORT,
            kind::RELAY_NODE_REQ,
            kind::GOODBYE,
        ];
        if known.contains(&unknown) {
            continue;
        }
        let mut message = vec![1];
        message.extend(unknown.to_be_bytes());
        message.extend(77_u32.to_be_bytes());
        message.extend(b"any body");
        let answers = world.ask_raw(&mut raw, &message);
        assert_eq!((answers.len(), code(&answers[0])), (1, Some(Code::Unsupported)), "{unknown:#06x}");
        assert_eq!(Envelope::parse(&answers[0]).unwrap().request, 77);
    }
    for body in [&b""[..], b"\xc1", b"\x81\xa1a\x01", b"\xdf\xff\xff\xff\xff"] {
        for known in [kind::REPORT, kind::CONNECT, kind::ATTEMPT_REPORT, kind::GOODBYE] {
            if known == kind::GOODBYE && body.starts_with(b"\x81") {
                continue; // A goodbye has no field, and passes over those of later versions.
            }
            let mut message = vec![1];
            message.extend(known.to_be_bytes());
            message.extend(78_u32.to_be_bytes());
            message.extend(body);
            let answers = world.ask_raw(&mut raw, &message);
            assert_eq!(code(&answers[0]), Some(Code::BadRequest), "{known:#06x} {body:?}");
        }
    }
    let mut other_version = encode(79, &Heartbeat::default());
    other_version[0] = 9;
    assert_eq!(code(&world.ask_raw(&mut raw, &other_version)[0]), Some(Code::Version));
    let answer = world.request_raw(&mut raw, &Heartbeat::default());
    assert_eq!(read::<HeartbeatReply>(&answer).unwrap().server_time_ms, 1_700_000_000_000);
    assert!(world.raw(raw.0).closed.is_none());
}

/// The first grievance with the original: reports were not answered, and what came of them nobody knew.
#[test]
fn every_report_is_answered() {
    let mut world = World::new(1);
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    let odd = Report {
        candidates: vec![candidate("0.0.0.0:0")],
        rungs: RungSet::NONE,
        ..report(&["a", "b@nobody"])
    };
    for report in [report(&[]), report(&["b"]), odd] {
        assert!(read::<ReportReply>(&world.request_raw(&mut a, &report)).is_some());
    }
    for attempt in [[0; 16], [9; 16]] {
        let report = AttemptReport { attempt: AttemptId(attempt), outcomes: vec![], rtts: vec![] };
        assert!(
            read::<crate::wire::message::AttemptReportReply>(&world.request_raw(&mut a, &report)).is_some()
        );
    }
    // One that cannot be read too.
    for kind in [kind::REPORT, kind::ATTEMPT_REPORT] {
        let mut message = vec![1];
        message.extend(kind.to_be_bytes());
        message.extend([0, 0, 0, 99, 0x80]);
        let answers = world.ask_raw(&mut a, &message);
        assert_eq!((answers.len(), code(&answers[0])), (1, Some(Code::BadRequest)));
    }
}

#[test]
fn replies_to_nothing_are_not_answered() {
    let mut world = World::new(1);
    let mut raw = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    for request in [0, 1, 5, u32::MAX] {
        assert!(world.ask_raw(&mut raw, &encode(request, &Refused::new(Code::Other, "no"))).is_empty());
        assert!(
            world
                .ask_raw(
                    &mut raw,
                    &encode(request, &HeartbeatReply { server_time_ms: 0, stun_relays: Vec::new() })
                )
                .is_empty()
        );
    }
    assert!(world.raw(raw.0).closed.is_none());
}

#[test]
fn what_cannot_be_opened_ends_the_connection() {
    let mut world = World::new(1);
    let raw = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    assert_eq!(world.send_raw(raw.0, b"not sealed").closed.unwrap().0, CLOSE_POLICY);
    assert_eq!(world.server().online(), 0);
    // Sealed, but no envelope.
    let mut raw = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    world.ask_raw(&mut raw, b"short");
    assert!(world.raw(raw.0).closed.is_some());
    // What still comes is passed over.
    world.send_raw(raw.0, b"more");
}

#[test]
fn a_login_has_ten_seconds() {
    let mut world = World::new(1);
    let conn = world.connect_raw(HERE);
    world.run(secs(9));
    assert!(world.raw(conn).closed.is_none());
    world.run(secs(1));
    assert_eq!(world.raw(conn).closed.unwrap().1, "login took too long");
    assert_eq!(world.server().door.len(), 0);
}

#[test]
fn a_message_that_is_no_login_ends_the_connection_with_a_reason() {
    let mut world = World::new(1);
    for message in [&b""[..], b"GET / HTTP/1.1", &encode(1, &Heartbeat::default()), &[1; MAX_CLEAR + 1]] {
        let conn = world.connect_raw(HERE);
        let raw = world.send_raw(conn, message);
        assert!(raw.closed.is_some());
        let refused: Refused = read(&raw.received[0]).unwrap();
        assert_eq!(refused.code, Code::BadRequest);
    }
    // They are no guesses, so they do not count as such.
    assert!(world.log_in_raw(HERE, ("a", 1, TOKEN)).is_ok());
}

#[test]
fn guessing_is_slowed_by_address_and_never_by_name() {
    let mut world = World::new(1);
    for _ in 0..5 {
        let error = world.log_in_raw(HERE, ("a", 1, "1")).unwrap_err();
        assert!(error.contains("wrong token"), "{error}");
    }
    let conn = world.connect_raw(HERE);
    let raw = world.send_raw(conn, b"anything");
    assert_eq!(code(&raw.received[0]), Some(Code::TooManyFailures));
    assert!(world.log_in_raw("198.51.100.8", ("a", 1, TOKEN)).is_ok());
    world.run(secs(60));
    assert!(world.log_in_raw(HERE, ("a", 1, TOKEN)).is_ok());
}

#[test]
fn visitors_are_bounded_in_all_and_by_address() {
    let mut world = World::new(1);
    let mut inside = Vec::new();
    let mut closed = 0;
    for _ in 0..100 {
        let conn = world.connect_raw(HERE);
        match world.raw(conn).closed {
            None => inside.push(conn),
            Some((code, _)) => {
                assert_eq!(code, CLOSE_TRY_LATER);
                closed += 1;
            }
        }
    }
    assert_eq!((inside.len(), closed), (64, 36));
    // The IPv4 address inside an IPv6 one is the same, another network is not.
    let same = world.connect_raw(&format!("::ffff:{HERE}"));
    assert!(world.raw(same).closed.is_some());
    let other = world.connect_raw("2001:db8::1");
    assert!(world.raw(other).closed.is_none());
    // Loopback has no bound of its own, but the one of all.
    for _ in 0..5000 {
        world.connect_raw("127.0.0.1");
    }
    assert_eq!(world.server().door.len(), Caps::default().unauthenticated);
    // Whoever leaves makes room.
    world.tell_server(Input::Closed { conn: inside[0] });
    let next = world.connect_raw(HERE);
    assert!(world.raw(next).closed.is_none());
}

#[test]
fn nodes_are_bounded_and_those_inside_stay() {
    let mut world = World::new(1);
    world.server().config.caps = Caps { nodes: 2, pins: 3, ..Caps::default() };
    let a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap();
    let error = world.log_in_raw(HERE, ("c", 3, TOKEN)).unwrap_err();
    assert!(error.contains("as many nodes online"), "{error}");
    // The same node again takes its own place.
    world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap();
    world.tell_server(Input::Closed { conn: a.0 });
    let c = world.log_in_raw(HERE, ("c", 3, TOKEN)).unwrap();
    world.tell_server(Input::Closed { conn: c.0 });
    let error = world.log_in_raw(HERE, ("d", 4, TOKEN)).unwrap_err();
    assert!(error.contains("knows as many nodes"), "{error}");
}

#[test]
fn the_newest_login_wins_until_it_goes_to_and_fro() {
    let mut world = World::new(1);
    let mut last = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    for _ in 0..3 {
        let next = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
        let raw = world.raw(last.0);
        let told = raw.received.pop().unwrap();
        assert_eq!(raw.closed, Some((4001, "replaced")));
        let told = last.1.opener.open(&told).unwrap();
        assert_eq!(code(&told), Some(Code::Replaced));
        last = next;
        world.run(secs(5));
    }
    let error = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap_err();
    assert!(error.contains("60 s"), "{error}");
    assert!(world.raw(last.0).closed.is_none());
    assert_eq!(world.server().online(), 1);
    // Once the one that is there has gone, nothing stands in the way.
    world.tell_server(Input::Closed { conn: last.0 });
    assert!(world.log_in_raw(HERE, ("a", 1, TOKEN)).is_ok());
}

#[test]
fn silence_of_three_periods_ends_a_connection_and_any_message_breaks_it() {
    let mut world = World::new(1);
    let mut raw = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    for _ in 0..5 {
        world.run(secs(89));
        assert_eq!(world.server().online(), 1);
        world.ask_raw(&mut raw, &encode(9, &Refused::new(Code::Other, "")));
    }
    world.run(secs(91));
    assert_eq!(world.raw(raw.0).closed.unwrap().1, "no heartbeat");
    assert_eq!(world.server().online(), 0);
}

#[test]
fn a_report_says_who_is_there_and_only_they_who_asked_hear_of_others() {
    let mut world = World::new(1);
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    let mut c = world.log_in_raw(HERE, ("c", 3, TOKEN)).unwrap();
    world.request_raw(&mut c, &report(&[]));
    let answer = world.request_raw(&mut a, &report(&["b", "c", "d@other", "c@default"]));
    let online: Vec<String> =
        read::<ReportReply>(&answer).unwrap().online.iter().map(PeerName::to_string).collect();
    assert_eq!(online, ["c", "c@default"]);

    // A login alone is no news: the node cannot be reached before it has reported.
    let mut b = world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap();
    world.run(secs(1));
    assert!(world.raw(a.0).received.is_empty());
    world.request_raw(&mut b, &report(&[]));
    world.request_raw(&mut b, &report(&[]));
    world.run(Duration::from_millis(249));
    assert!(world.raw(a.0).received.is_empty());
    world.run(Duration::from_millis(1));
    let told = world.raw(a.0).received.pop().unwrap();
    let told = a.1.opener.open(&told).unwrap();
    assert_eq!(read::<PeerOnline>(&told).unwrap().peers, ["b".parse().unwrap()]);
    assert!(world.raw(c.0).received.is_empty());
    world.run(secs(1));
    assert!(world.raw(a.0).received.is_empty(), "it is told once");
}

#[test]
fn news_of_a_herd_is_gathered() {
    let mut world = World::new(1);
    let names: Vec<String> = (10..60).map(|node| format!("n{node}")).collect();
    let peers: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    world.request_raw(&mut a, &report(&peers));
    for (name, key) in names.iter().zip(10..) {
        let mut raw = world.log_in_raw(HERE, (name, key, TOKEN)).unwrap();
        world.request_raw(&mut raw, &report(&[]));
    }
    world.run(secs(1));
    assert_eq!(world.raw(a.0).received.len(), 1);
}

#[test]
fn interests_are_bounded_over_all_nodes() {
    let mut world = World::new(1);
    world.server().config.caps.interests = 10;
    let names: Vec<String> = (0..8).map(|node| format!("n{node}")).collect();
    let peers: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    let mut b = world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap();
    for raw in [&mut a, &mut b] {
        assert!(read::<ReportReply>(&world.request_raw(raw, &report(&peers))).is_some());
    }
    assert_eq!(world.server().news.len(), 10);
    world.tell_server(Input::Closed { conn: a.0 });
    assert_eq!(world.server().news.len(), 2);
    world.request_raw(&mut b, &report(&peers));
    assert_eq!(world.server().news.len(), 8);
}

#[test]
fn a_wish_is_refused_for_its_own_reason() {
    let mut world = World::new(1);
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    world.request_raw(&mut a, &report(&[]));
    let b = world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap();
    let mut refused = |world: &mut World, wish: Connect| code(&world.request_raw(&mut a, &wish));
    assert_eq!(refused(&mut world, connect("x")), Some(Code::UnknownNode));
    assert_eq!(refused(&mut world, connect("a")), Some(Code::Oneself));
    assert_eq!(refused(&mut world, connect("a@default")), Some(Code::Oneself));
    assert_eq!(refused(&mut world, connect("b@other")), Some(Code::NotAllowed));
    assert_eq!(refused(&mut world, connect("b")), Some(Code::Offline), "it has not reported");
    let mut b = b;
    world.request_raw(&mut b, &report(&[]));
    let nothing = Connect { rungs: RungSet::NONE, ..connect("b") };
    assert_eq!(refused(&mut world, nothing), Some(Code::NotAllowed));
    world.tell_server(Input::Closed { conn: b.0 });
    assert_eq!(refused(&mut world, connect("b")), Some(Code::Offline));
    assert_eq!(world.server().attempts.len(), 0);
}

#[test]
fn both_sides_are_told_of_each_other_as_each_may_know() {
    let mut world = World::new(1);
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    let mut b = world.log_in_raw("203.0.113.9", ("b", 2, TOKEN)).unwrap();
    world.request_raw(&mut b, &report(&[]));
    world.request_raw(&mut a, &report(&[]));

    let answers = world.ask_raw(&mut a, &encode(5, &connect("b@default")));
    let reply: ConnectReply = read(&answers[0]).unwrap();
    let to_a: PunchStart = read(&answers[1]).unwrap();
    let told = world.raw(b.0).received.pop().unwrap();
    let to_b: PunchStart = read(&b.1.opener.open(&told).unwrap()).unwrap();
    assert_eq!((to_a.attempt, to_b.attempt), (reply.attempt, reply.attempt));
    assert_eq!((to_a.punch_key, to_a.rungs), (to_b.punch_key, to_b.rungs));
    assert_eq!((to_a.peer.to_string(), to_a.key, to_a.asked), ("b".to_owned(), key(2), true));
    assert_eq!((to_b.peer.to_string(), to_b.key, to_b.asked), ("a".to_owned(), key(1), false));
    // What b claims it was not seen at; what a claims it was, and the wish goes before the report.
    assert_eq!(to_a.candidates, []);
    assert_eq!(to_b.candidates, [candidate("198.51.100.7:4001")]);

    // Another wish joins it while it is young and has not ended; then there is a new one.
    let again = |world: &mut World, raw: &mut (ConnId, crate::auth::SecureChannel), peer| {
        let answer = world.request_raw(raw, &connect(peer));
        read::<ConnectReply>(&answer).unwrap().attempt
    };
    assert_eq!(again(&mut world, &mut a, "b"), reply.attempt);
    world.run(secs(5));
    let second = again(&mut world, &mut a, "b");
    assert_ne!(second, reply.attempt);
    let stranger = AttemptReport { attempt: AttemptId([9; 16]), outcomes: vec![], rtts: vec![] };
    world.request_raw(&mut a, &stranger);
    assert_eq!(again(&mut world, &mut a, "b"), second);
    world.request_raw(&mut a, &AttemptReport { attempt: second, outcomes: vec![], rtts: vec![] });
    assert_ne!(again(&mut world, &mut a, "b"), second);
}

#[test]
fn nodes_of_different_users_do_not_see_each_other() {
    let mut world = World::new(1);
    world.users.insert("other".parse().unwrap(), TOKEN.parse().unwrap());
    world.kill_server();
    world.start_server();
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    world.request_raw(&mut a, &report(&[]));
    let other = world
        .add(crate::world::Setup { user: "other", ..crate::world::Setup::new("b", 2).forward("2222:a:22") });
    world.run(secs(1));
    assert!(world.nodes[other].agent.status().server.connected);
    assert!(world.nodes[other].attempts.is_empty());
    assert_eq!(code(&world.request_raw(&mut a, &connect("b"))), Some(Code::UnknownNode));
}

#[test]
fn a_node_that_answers_nothing_is_asked_no_more() {
    let mut world = World::new(1);
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    let mut b = world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap();
    world.request_raw(&mut a, &report(&[]));
    world.request_raw(&mut b, &report(&[]));
    for _ in 0..2 * asks::MAX_OPEN {
        assert!(read::<ConnectReply>(&world.request_raw(&mut a, &connect("b"))).is_some());
    }
    assert_eq!(world.server().asks.len(), 2 * asks::MAX_OPEN);
    assert_eq!(world.raw(b.0).received.len(), asks::MAX_OPEN);
    world.run(secs(11));
    assert_eq!(world.server().asks.len(), 0);
    assert!(world.server().counters().unanswered >= 2 * asks::MAX_OPEN as u64);
}

#[test]
fn goodbye_is_answered_before_the_connection_ends() {
    let mut world = World::new(1);
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    world.request_raw(&mut a, &Goodbye {});
    assert_eq!(world.raw(a.0).closed, Some((1000, "goodbye")));
    assert_eq!(world.server().online(), 0);
}

/// What to do, and with which kind, request id and body.
fn step() -> impl Strategy<Value = (usize, u16, u32, Vec<u8>)> {
    (0_usize..6, any::<u16>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..80))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_messages_harm_nobody(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(3);
        world.server().config.caps =
            Caps { unauthenticated: 8, nodes: 4, pins: 6, attempts: 3, interests: 12, ..Caps::default() };
        let mut inside = [
            world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap(),
            world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap(),
        ];
        world.request_raw(&mut inside[1], &report(&["a"]));
        let guest = world.connect_raw(HERE);
        for (what, kind, request, body) in steps {
            let mut message = vec![1];
            message.extend((kind & 0x80ff).to_be_bytes());
            message.extend(request.to_be_bytes());
            message.extend(&body);
            match what {
                0 => { world.send_raw(guest, &body); }
                1 => { let conn = world.connect_raw(HERE); world.send_raw(conn, &message); }
                // Well sealed nonsense, and requests that are nearly right.
                2 | 3 => {
                    if kind & 0x80ff == kind::GOODBYE && body.first().is_some_and(|first| first & 0xf0 == 0x80) {
                        continue;
                    }
                    let raw = &mut inside[what - 2];
                    let answers = world.ask_raw(raw, &message);
                    let asked = kind & 0x8000 == 0;
                    let answered = answers.iter().any(|answer| {
                        let envelope = Envelope::parse(answer).unwrap();
                        envelope.request == request && envelope.is_reply()
                    });
                    prop_assert_eq!(asked, answered);
                }
                4 => {
                    let peers: Vec<String> = body.iter().map(|peer| format!("n{peer}")).collect();
                    let peers: Vec<&str> = peers.iter().map(String::as_str).take(MAX_PEERS).collect();
                    world.request_raw(&mut inside[0], &report(&peers));
                    world.request_raw(&mut inside[0], &connect("b"));
                }
                _ => {
                    world.run(Duration::from_millis(request.into()).min(secs(20)));
                    world.request_raw(&mut inside[0], &Heartbeat::default());
                    world.request_raw(&mut inside[1], &Heartbeat::default());
                }
            }
            let server = world.server();
            prop_assert_eq!(server.online(), 2);
            prop_assert!(server.door.len() <= 8);
            prop_assert!(server.attempts.len() <= 3);
            prop_assert!(server.news.len() <= 12);
            server.news.check();
            prop_assert!(server.asks.len() <= 2 * asks::MAX_OPEN);
        }
    }

    #[test]
    fn arbitrary_state_is_read_or_refused(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = pins::Pins::load(Some(&content));
    }
}
