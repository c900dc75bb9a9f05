//! Relays and shares, agents and a server joined in memory.

use super::*;
use crate::agent::io::Via;
use crate::ids::PublicKey;
use crate::path::RungSet;
use crate::relay::{Credential, Proof, Tier};
use crate::wire::message::RelayReport;

/// Two nodes and a relay of the same user that the server reaches.
fn world() -> (World, usize, usize, usize) {
    let mut world = World::new(1);
    world.relays.insert("192.0.2.50:27185".parse().unwrap(), key(9));
    let mut setup = Setup::new("r", 9);
    setup.address = "192.0.2.50";
    setup.relay = Some(RelayReport { super_relay: false, port: 27185, bandwidth_mbps: 10 });
    let r = world.add(setup);
    let b = world.add(Setup::new("b", 2));
    world.run(secs(1));
    world.links = false;
    let a = world.add(Setup::new("a", 1).forward("2222:b:22"));
    world.run(secs(1));
    (world, a, b, r)
}

fn up(rung: Rung, relay: Option<(&str, u8)>) -> SessionNews {
    let via = relay.map(|(name, of)| Via { relay: key(of), name: Some(name.parse().unwrap()) });
    SessionNews::Up { rung, remote: ([192, 0, 2, 50], 27185).into(), via }
}

fn done(world: &World, node: usize, rung: Rung, verdict: Verdict) -> SessionNews {
    let attempt = world.latest_attempt(node, &"b".parse().unwrap());
    SessionNews::AttemptDone { attempt, outcomes: vec![Outcome { rung, ..outcome(verdict) }] }
}

/// `a` is linked to `b` through the relay.
fn relayed() -> (World, usize, usize, usize) {
    let (mut world, a, b, r) = world();
    world.news(a, "b", up(Rung::PrivateRelay, Some(("r", 9))));
    let done = done(&world, a, Rung::PrivateRelay, Verdict::Connected);
    world.news(a, "b", done);
    (world, a, b, r)
}

#[test]
fn an_attempt_carries_relays_for_both_sides() {
    let (world, a, b, r) = world();
    assert!(world.nodes[r].agent.status().relay.reachable);
    for node in [a, b] {
        let (.., attempt) = world.nodes[node].attempts.last().unwrap();
        let tiers: Vec<Tier> = attempt.relays.iter().map(|access| access.offer.tier).collect();
        assert_eq!(tiers, [Tier::Private, Tier::Server]);
        let [private, server] = [0, 1].map(|at| &attempt.relays[at]);
        assert_eq!((private.offer.key, &private.offer.credential), (key(9), &Credential::Totp));
        assert!(matches!(private.proof, Proof::Totp { .. }) && matches!(server.proof, Proof::Ticket(_)));
        assert_eq!(server.offer.addresses, ["203.0.113.1:27183".parse().unwrap()]);
        assert_eq!(world.nodes[node].secrets.as_ref().unwrap().user.len(), 1);
    }
    let secrets = |node: usize| world.nodes[node].secrets.clone().unwrap();
    assert_eq!(secrets(a).user, secrets(r).user);
    assert!(secrets(r).tickets.is_some() && secrets(a).tickets.is_none());
}

#[test]
fn on_a_relay_the_rungs_above_are_tried_again_and_again() {
    let (mut world, a, _, _) = relayed();
    let status = world.nodes[a].agent.status();
    assert_eq!((status.peers[0].via.as_deref(), status.peers[0].rung), (Some("r"), Some(Rung::PrivateRelay)));
    let begun = world.nodes[a].attempts.len();
    let mut gaps = Vec::new();
    for _ in 0..8 {
        let (since, before) = (world.now, world.nodes[a].attempts.len());
        while world.nodes[a].attempts.len() == before {
            world.run(secs(1) / 4);
            assert!(world.now - since < secs(42), "an upgrade within 40 s");
        }
        gaps.push(world.now - since);
        let (.., attempt) = world.nodes[a].attempts.last().unwrap();
        assert!(attempt.rungs.contains(Rung::UdpPunch) && attempt.relays.is_empty(), "only what is better");
        assert!(!attempt.rungs.contains(Rung::PrivateRelay) && !attempt.rungs.contains(Rung::ServerRelay));
        let failed = done(&world, a, Rung::UdpPunch, Verdict::Failed);
        world.news(a, "b", failed);
    }
    assert!(gaps[0] < secs(6) && gaps[7] > secs(19), "{gaps:?}");
    assert_eq!(world.nodes[a].attempts.len(), begun + 8);
    // What is known of the rungs that were not tried still shows.
    assert_eq!(world.nodes[a].agent.status().peers[0].rung, Some(Rung::PrivateRelay));

    // News are worth a try at once.
    world.run(secs(2));
    let before = world.nodes[a].attempts.len();
    world.tell(a, Input::Interfaces(&[[198, 51, 100, 8].into()]));
    world.run(secs(2));
    assert_eq!(world.nodes[a].attempts.len(), before + 1);

    // On a direct path there is nothing to look for.
    world.news(a, "b", up(Rung::UdpDirect, None));
    let connected = done(&world, a, Rung::UdpDirect, Verdict::Connected);
    world.news(a, "b", connected);
    let before = world.nodes[a].attempts.len();
    world.run(secs(3600));
    assert_eq!(world.nodes[a].attempts.len(), before);
    assert_eq!(world.nodes[a].agent.status().peers[0].via, None);
}

#[test]
fn a_relay_that_died_is_declined_and_the_next_one_offered_at_once() {
    let (mut world, a, _, _) = relayed();
    world.run(secs(2));
    let before = world.now;
    world.news(a, "b", down("the connection was closed"));
    let begun = world.nodes[a].attempts.len();
    world.run(DELAY * 4);
    assert_eq!(world.nodes[a].attempts.len(), begun + 1);
    let (at, .., attempt) = world.nodes[a].attempts.last().unwrap();
    assert!(*at - before < secs(1));
    let tiers: Vec<Tier> = attempt.relays.iter().map(|access| access.offer.tier).collect();
    assert_eq!(tiers, [Tier::Server]);
    assert_eq!(attempt.rungs, RungSet::ALL);
    // The server looks at it again, and so learns that it is gone.
    world.relays.clear();
    world.run(secs(15));
    assert!(world.checked.len() >= 2);
}

#[test]
fn a_session_gets_more_relays_for_the_asking_on_both_sides() {
    let (mut world, a, b, _) = world();
    let attempt = world.latest_attempt(a, &"b".parse().unwrap());
    let reason = "the relay refused: busy".to_owned();
    world.news(a, "b", SessionNews::RelayFailed { relay: key(9), reason });
    world.news(a, "b", SessionNews::RelaysWanted { attempt });
    world.run(DELAY * 4);
    for (node, peer) in [(a, "b"), (b, "a")] {
        let (name, offers) = world.nodes[node].offers.last().unwrap();
        assert_eq!((name.to_string().as_str(), offers.len(), offers[0].offer.tier), (peer, 1, Tier::Server));
        assert_eq!(offers[0].offer.attempt, attempt);
    }
}

#[test]
fn a_node_that_is_shared_holds_its_sessions_to_the_share() {
    let mut world = World::new(1);
    for user in ["alice", "bob"] {
        world.users.insert(user.parse().unwrap(), crate::world::token("12345678"));
    }
    world.kill_server();
    world.start_server();
    let b = world.add(Setup { user: "bob", ..Setup::new("b", 2) });
    let a = world.add(Setup { user: "alice", ..Setup::new("a", 1).forward("2222:b@bob:22") });
    world.run(secs(30));
    assert!(world.nodes[a].attempts.is_empty() && world.nodes[b].attempts.is_empty());

    let share = |targets: Option<&[&str]>| AdminRequest::Share {
        user: "bob".parse().unwrap(),
        node: "b".parse().unwrap(),
        to: "alice".parse().unwrap(),
        targets: targets.map(|targets| targets.iter().map(|rule| rule.parse().unwrap()).collect()),
    };
    let since = world.now;
    world.ask_admin(share(Some(&["127.0.0.1:22"]))).unwrap();
    assert_eq!(state(&world, a, "b@bob"), Some(PeerState::Connected));
    assert!(world.nodes[a].attempts[0].0 - since < secs(2), "at once, and not at the next retry");
    assert_eq!(state(&world, b, "a@alice"), Some(PeerState::Connected));
    let told = |world: &World, node: usize| world.nodes[node].targets.last().unwrap().clone();
    assert_eq!(told(&world, b).unwrap().0, ["127.0.0.1:22".parse().unwrap()]);
    assert_eq!(told(&world, a).unwrap().0, []);

    world.ask_admin(share(Some(&["127.0.0.1:80"]))).unwrap();
    let (peer, targets, end) = world.nodes[b].restricted.last().unwrap();
    assert_eq!((peer.to_string().as_str(), targets.0.len(), *end), ("a@alice", 1, false));
    // What is revoked while the node is away holds when it is back.
    world.cut(b);
    world.ask_admin(share(None)).unwrap();
    world.run(secs(20));
    let (_, targets, end) = world.nodes[b].restricted.last().unwrap();
    assert_eq!((targets.0.len(), *end), (0, true));
    assert!(world.nodes[a].restricted.is_empty(), "who was let in shares nothing, before and after");
}

/// The relays that a node declines now.
fn declined(world: &World, node: usize) -> Vec<PublicKey> {
    world.nodes[node].agent.relaying.excluded(world.now)
}

fn tiers(world: &World, node: usize) -> Vec<Tier> {
    let (.., attempt) = world.nodes[node].attempts.last().unwrap();
    attempt.relays.iter().map(|access| access.offer.tier).collect()
}

/// When the link through it broke the relay was suspected; but the peer was gone, which is why.
#[test]
fn a_relay_is_acquitted_by_the_servers_word_that_the_peer_is_offline() {
    let (mut world, a, b, _) = relayed();
    world.tell(b, Input::Shutdown);
    world.run(secs(1));
    world.news(a, "b", down("the connection was closed"));
    assert_eq!(declined(&world, a), [key(9)]);
    world.run(DELAY * 4);
    assert_eq!(declined(&world, a), []);
    // So it is offered as soon as the peer is back.
    world.add(Setup::new("b", 2));
    world.run(secs(1));
    assert_eq!(tiers(&world, a), [Tier::Private, Tier::Server]);
}

#[test]
fn a_relay_is_acquitted_by_news_of_the_peers_new_process() {
    let (mut world, a, ..) = relayed();
    let broke = world.now;
    world.news(a, "b", down("the connection was closed"));
    world.run(secs(1));
    // For all that anybody knows the peer is there, so it is the relay.
    assert_eq!((declined(&world, a), tiers(&world, a)), (vec![key(9)], vec![Tier::Server]));
    world.add(Setup::new("b", 2));
    world.run(secs(1));
    assert_eq!(declined(&world, a), []);
    let failed = done(&world, a, Rung::ServerRelay, Verdict::Failed);
    world.news(a, "b", failed);
    world.run(secs(5));
    assert_eq!(tiers(&world, a), [Tier::Private, Tier::Server]);
    assert!(world.now - broke < secs(20), "and not because it was declined for long enough");
}

#[test]
fn a_relay_is_acquitted_by_a_login_that_finds_the_peer_gone() {
    let (mut world, a, b, _) = relayed();
    world.cut(a);
    world.tell(b, Input::Shutdown);
    world.news(a, "b", down("the connection was closed"));
    world.run(DELAY * 4);
    assert_eq!(declined(&world, a), [key(9)]);
    world.run(secs(10));
    assert!(connected(&world, a));
    assert_eq!(declined(&world, a), []);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn a_relay_is_acquitted_of_nothing_but_the_link_to_that_peer() {
    use crate::agent::relay::Relaying;
    let now = Instant::now();
    let [b, c] = ["b", "c"].map(|name| name.parse::<PeerName>().unwrap());
    let suspects = || {
        let mut relaying = Relaying::new(crate::status::RelayStatus::default());
        relaying.died(now, key(1), Some(&b));
        relaying.died(now, key(2), Some(&c));
        // This one was of no use itself, and has no peer to blame.
        relaying.died(now, key(3), None);
        relaying
    };
    let mut keys = [key(1), key(2), key(3)];
    keys.sort();
    assert_eq!(suspects().excluded(now), keys);
    let mut relaying = suspects();
    relaying.acquit(&b);
    assert_eq!(relaying.excluded(now).len(), 2);
    assert!(!relaying.excluded(now).contains(&key(1)));
    // One that breaks again is suspected again, and of another peer's link.
    relaying.died(now, key(2), None);
    relaying.acquit(&c);
    assert!(relaying.excluded(now).contains(&key(2)));
    // The node's own network clears all of them, and so does time.
    relaying.network_changed();
    assert_eq!(relaying.excluded(now), []);
    assert_eq!(suspects().excluded(now + secs(20)), []);
}

/// Who ends a link in order has not been cut off by the relay.
#[test]
fn a_relay_is_not_suspected_where_the_peer_ended_the_link() {
    let (mut world, a, ..) = relayed();
    world.news(a, "b", SessionNews::Down { reason: "the peer is leaving".to_owned(), by_peer: true });
    assert_eq!(declined(&world, a), []);
}
