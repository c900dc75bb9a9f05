//! Agents and a server, joined in memory.

mod alone;
mod better;
mod guesses;
mod relay;

use super::io::SessionNews;
use super::*;
use crate::ids::AttemptId;
use crate::path::{Outcome, Rung, Verdict};
use crate::server::io::{AdminReply, AdminRequest};
use crate::status::PeerState;
use crate::wire::message::MAX_PEERS;
use crate::world::{DELAY, Setup, World, key, outcome, secs};

fn state(world: &World, node: usize, peer: &str) -> Option<PeerState> {
    let status = world.nodes[node].agent.status();
    status.peers.iter().find(|status| status.node == peer).map(|status| status.state)
}

fn connected(world: &World, node: usize) -> bool {
    world.nodes[node].agent.status().server.connected
}

fn refusal(world: &World, node: usize) -> String {
    match &world.nodes[node].exit {
        Some(Exit::Refused(text)) => text.clone(),
        other => panic!("not refused but {other:?}"),
    }
}

fn down(reason: &str) -> SessionNews {
    SessionNews::Down { reason: reason.to_owned(), by_peer: false }
}

fn failed(attempt: AttemptId) -> SessionNews {
    SessionNews::AttemptDone { attempt, outcomes: vec![outcome(Verdict::Failed)] }
}

#[test]
fn a_node_logs_in_and_pins_the_server() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1));
    assert!(!connected(&world, a));
    world.run(secs(1));
    assert!(connected(&world, a));
    assert_eq!(world.server().online(), 1);
    let pins = String::from_utf8(world.nodes[a].pins.clone().unwrap()).unwrap();
    assert!(pins.contains(&key(200).to_string()) && pins.contains("server:27183"), "{pins}");
    assert_eq!(world.nodes[a].opens.len(), 1);
    // It stays, over many heartbeats.
    world.run(secs(3600));
    assert!(connected(&world, a));
    assert_eq!(world.nodes[a].agent.status().server.relogins, 0);
}

#[test]
fn a_wrong_token_ends_the_program_with_advice() {
    let mut world = World::new(1);
    let a = world.add(Setup { token: "87654321", ..Setup::new("a", 1) });
    world.run(secs(1));
    let text = refusal(&world, a);
    assert!(text.contains("wrong token") && text.contains("-token"), "{text}");
    let b = world.add(Setup { user: "nobody", ..Setup::new("b", 2) });
    world.run(secs(1));
    assert_eq!(refusal(&world, b).replace("as b", "as a"), text);
    assert_eq!(world.server().online(), 0);
}

#[test]
fn a_name_belongs_to_its_first_key_until_the_admin_frees_it() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1));
    world.run(secs(1));
    world.tell(a, Input::Shutdown);
    world.run(secs(1));
    let thief = world.add(Setup::new("a", 3));
    world.run(secs(1));
    let text = refusal(&world, thief);
    assert!(text.contains("DELETE /api/v1/nodes/default/a/key"), "{text}");

    let forget = AdminRequest::ForgetKey(Default::default(), "a".parse().unwrap());
    assert_eq!(world.ask_admin(forget), Ok(AdminReply::Done));
    let heir = world.add(Setup::new("a", 3));
    world.run(secs(1));
    assert!(connected(&world, heir));
}

#[test]
fn a_key_holds_one_name() {
    let mut world = World::new(1);
    world.add(Setup::new("a", 1));
    world.run(secs(1));
    let b = world.add(Setup::new("b", 1));
    world.run(secs(1));
    let text = refusal(&world, b);
    assert!(text.contains("DELETE /api/v1/nodes/default/a/key"), "{text}");
}

#[test]
fn another_server_than_the_pinned_one_gets_no_login() {
    let mut world = World::new(1);
    let a = world.add(Setup { server_pin: Some(key(201)), ..Setup::new("a", 1) });
    world.run(secs(1));
    let text = refusal(&world, a);
    assert!(text.contains(&format!("-server-key {}", key(200))), "{text}");
    assert_eq!(world.server().counters().logins, 0);

    // The pin file holds as well, and -server-key goes before it and replaces it.
    let b = world.add(Setup::new("b", 2));
    world.run(secs(1));
    let pins = world.nodes[b].pins.clone();
    world.kill_server();
    world.identity = crate::world::identity(202);
    world.state = None;
    world.start_server();
    let again = world.add(Setup { pins: pins.clone(), ..Setup::new("b", 2) });
    world.run(secs(1));
    assert!(refusal(&world, again).contains("-server-key"));
    let accepted = world.add(Setup { pins, server_pin: Some(key(202)), ..Setup::new("b", 2) });
    world.run(secs(1));
    assert!(connected(&world, accepted));
    let pins = world.nodes[accepted].pins.clone();
    let without_flag = world.add(Setup { pins, ..Setup::new("b", 2) });
    world.run(secs(1));
    assert!(connected(&world, without_flag));
    // The one that was logged in before goes on trying, and says why.
    world.run(secs(600));
    let status = world.nodes[b].agent.status().server;
    assert!(world.nodes[b].exit.is_none() && !status.connected);
    assert!(status.error.unwrap().contains("-server-key"));
}

#[test]
fn a_forward_brings_both_sides_the_same_attempt_and_a_link() {
    let (mut world, a, b) = World::pair();
    world.run(secs(1));
    assert_eq!(state(&world, a, "b"), Some(PeerState::Connected));
    assert_eq!(state(&world, b, "a"), Some(PeerState::Connected));
    let (_, peer, b_key, of_a) = &world.nodes[a].attempts[0];
    assert_eq!((peer.to_string().as_str(), *b_key), ("b", key(2)));
    let (_, peer, a_key, of_b) = &world.nodes[b].attempts[0];
    assert_eq!((peer.to_string().as_str(), *a_key), ("a", key(1)));
    assert_eq!((of_a.id, of_a.punch_key), (of_b.id, of_b.punch_key));
    assert_eq!(of_a.candidates[0].address, "198.51.100.7:4000".parse().unwrap());
    assert_eq!((world.nodes[a].attempts.len(), world.nodes[b].attempts.len()), (1, 1));
    assert_eq!(world.server().counters().attempts_connected, 2);
    assert!(world.nodes[a].unreachable.is_empty());
    // Nothing more is asked for while the link stands.
    world.run(secs(3600));
    assert_eq!(world.nodes[a].attempts.len(), 1);
}

#[test]
fn two_wishes_that_cross_are_one_attempt() {
    let (mut world, a, b) = World::pair();
    world.run(secs(9));
    world.links = false;
    for (node, peer) in [(a, "b"), (b, "a")] {
        world.news(node, peer, down("lost"));
        world.news(node, peer, SessionNews::Wanted);
    }
    world.run(DELAY * 4);
    assert_eq!((world.nodes[a].attempts.len(), world.nodes[b].attempts.len()), (2, 2));
    assert_eq!(world.nodes[a].attempts[1].3.id, world.nodes[b].attempts[1].3.id);
    assert_ne!(world.nodes[a].attempts[1].3.id, world.nodes[a].attempts[0].3.id);
    assert_ne!(world.nodes[a].attempts[1].3.punch_key, world.nodes[a].attempts[0].3.punch_key);
}

#[test]
fn a_peer_that_is_offline_is_reached_as_soon_as_it_comes() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1).forward("2222:b:22"));
    world.run(secs(1));
    assert_eq!(state(&world, a, "b"), Some(PeerState::Offline));
    assert_eq!(world.nodes[a].unreachable.len(), 1);
    // Whoever connects meanwhile learns it at once.
    world.news(a, "b", SessionNews::Wanted);
    world.run(DELAY * 3);
    let (peer, reason) = world.nodes[a].unreachable.last().unwrap();
    assert_eq!((peer.to_string().as_str(), world.nodes[a].unreachable.len()), ("b", 2));
    assert!(reason.contains("no node b"), "{reason}");

    world.run(secs(20));
    let before = world.server().counters().refused;
    let b = world.add(Setup::new("b", 2));
    world.run(secs(1));
    assert_eq!(state(&world, a, "b"), Some(PeerState::Connected));
    assert_eq!(state(&world, b, "a"), Some(PeerState::Connected));
    assert_eq!(world.server().counters().refused, before, "nobody asked in vain");
}

#[test]
fn wishes_come_at_most_once_a_second() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1));
    world.run(secs(1));
    for _ in 0..100 {
        world.news(a, "b", SessionNews::Wanted);
        world.run(Duration::from_millis(100));
    }
    let asked = world.server().counters().refused;
    assert!((9..=11).contains(&asked), "{asked}");
    assert_eq!(world.nodes[a].unreachable.len() as u64, asked);
}

#[test]
fn a_failed_attempt_is_retried_with_growing_delays_until_there_is_news() {
    let (mut world, a, b) = World::pair();
    world.links = false;
    let mut last = world.now;
    let mut delays = Vec::new();
    for attempt in 1..=8 {
        while world.nodes[a].attempts.len() < attempt {
            world.run(DELAY);
            assert!(world.now - last < secs(25), "attempt {attempt} does not come");
        }
        delays.push(world.now - last);
        assert_eq!(state(&world, a, "b"), Some(PeerState::Connecting));
        for (node, peer) in [(a, "b"), (b, "a")] {
            let attempt = world.latest_attempt(node, &peer.parse().unwrap());
            world.news(node, peer, failed(attempt));
        }
        assert_eq!(state(&world, a, "b"), Some(PeerState::Failed));
        last = world.now;
    }
    for (retry, delay) in delays.iter().skip(1).enumerate() {
        let most = secs(1 << retry).min(secs(20));
        // A round trip to the server and the step of this test come on top.
        assert!(*delay >= most / 2 && *delay <= most + DELAY * 4, "{delays:?}");
    }
    world.run(DELAY);
    assert_eq!(world.server().counters().attempts_failed, 16);
    let status = world.nodes[a].agent.status();
    assert_eq!(status.peers[0].error.as_deref(), Some("udp-direct: timeout"));
    assert_eq!(status.peers[0].attempts, [outcome(Verdict::Failed)]);

    // News: the peer comes back.
    world.cut(b);
    world.links = true;
    world.run(secs(9));
    assert_eq!(state(&world, a, "b"), Some(PeerState::Connected));
}

#[test]
fn loss_of_the_server_touches_no_link_and_all_are_back_in_time() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let b = world.add(Setup::new("b", 2));
        let a = world.add(Setup::new("a", 1).forward("2222:b:22"));
        world.run(secs(2));
        world.kill_server();
        world.run(secs(60));
        for node in [a, b] {
            assert!(!connected(&world, node) && world.nodes[node].exit.is_none());
            assert!(world.nodes[node].agent.status().server.error.is_some());
        }
        assert_eq!(state(&world, a, "b"), Some(PeerState::Connected));
        // The pins were kept: a thief of the name is refused.
        world.start_server();
        let thief = world.add(Setup::new("b", 9));
        world.run(secs(15));
        assert!(connected(&world, a) && connected(&world, b));
        assert!(refusal(&world, thief).contains("another key"));
        assert_eq!(world.nodes[a].attempts.len(), 1, "a link that stands is left alone");
        assert_eq!(world.nodes[a].agent.status().server.relogins, 1);
    }
}

#[test]
fn reconnecting_keeps_its_pace_through_an_outage() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        let a = world.add(Setup::new("a", 1));
        world.run(secs(1));
        world.kill_server();
        world.run(secs(1200));
        let opens = &world.nodes[a].opens;
        let outage = world.start + secs(1);
        for pair in opens.windows(2) {
            // The refusal takes a round trip.
            let delay = pair[1] - pair[0] - DELAY * 2;
            let bound = if pair[1] < outage + secs(600) { secs(10) } else { secs(25) };
            assert!(pair[0] == opens[0] || delay >= secs(2) && delay <= bound, "{delay:?}");
        }
        assert!(opens[1] - outage <= secs(8), "the first try comes soon");
    }
}

#[test]
fn a_change_of_network_brings_the_node_back_at_once() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1));
    world.run(secs(1));
    // The old connection is dead without a word.
    world.carrying = false;
    world.tell(a, Input::Interfaces(&[[192, 0, 2, 9].into()]));
    world.run(secs(2));
    world.carrying = true;
    world.run(secs(4));
    assert!(connected(&world, a));
    assert_eq!(world.nodes[a].agent.status().server.relogins, 1);

    // And while it waits, it does not wait on.
    world.kill_server();
    world.run(secs(1));
    world.start_server();
    world.tell(a, Input::Interfaces(&[[192, 0, 2, 8].into()]));
    world.run(DELAY * 6);
    assert!(connected(&world, a));
}

#[test]
fn a_server_that_falls_silent_is_given_up_after_three_heartbeats() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1));
    world.run(secs(1));
    world.carrying = false;
    world.run(secs(80));
    assert!(connected(&world, a));
    assert_eq!(world.server().online(), 1);
    world.run(secs(15));
    assert!(!connected(&world, a));
    assert_eq!(world.server().online(), 0);
    world.carrying = true;
    world.run(secs(11));
    assert!(connected(&world, a));
}

#[test]
fn goodbye_is_answered_and_the_node_offline() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1));
    world.run(secs(1));
    world.tell(a, Input::Shutdown);
    assert!(world.nodes[a].exit.is_none());
    world.run(DELAY * 2);
    assert_eq!(world.nodes[a].exit, Some(Exit::Stopped));
    assert_eq!(world.server().online(), 0);

    // It does not wait for a server that is not there, nor for one that does not answer.
    let b = world.add(Setup::new("b", 2));
    let c = world.add(Setup::new("c", 3));
    world.run(secs(1));
    world.carrying = false;
    world.tell(b, Input::Shutdown);
    world.run(secs(1));
    assert_eq!(world.nodes[b].exit, Some(Exit::Stopped));
    world.kill_server();
    world.run(secs(1));
    world.tell(c, Input::Shutdown);
    assert_eq!(world.nodes[c].exit, Some(Exit::Stopped));
}

#[test]
fn a_peer_with_another_key_than_the_pinned_one_is_not_reached() {
    // Once given, once learnt.
    let (mut world, a, b) = World::pair();
    world.run(secs(1));
    let pins = world.nodes[a].pins.clone();
    for node in [a, b] {
        world.tell(node, Input::Shutdown);
    }
    world.run(secs(1));
    let forget = AdminRequest::ForgetKey(Default::default(), "b".parse().unwrap());
    world.ask_admin(forget).unwrap();
    let b = world.add(Setup::new("b", 7));
    world.run(secs(1));
    let given = Setup { peer_pins: vec![("b", key(2))], ..Setup::new("c", 3).forward("2222:b:22") };
    let learnt = Setup { pins, ..Setup::new("a", 1).forward("2222:b:22") };
    for setup in [given, learnt] {
        let node = world.add(setup);
        world.run(secs(1));
        assert!(world.nodes[node].attempts.is_empty());
        assert_eq!(state(&world, node, "b"), Some(PeerState::Failed));
        let error = world.nodes[node].agent.status().peers[0].error.clone().unwrap();
        assert!(error.contains(&format!("-peer-key b={}", key(7))), "{error}");
        assert_eq!(world.nodes[node].unreachable[0].1, error);
    }
    assert!(world.server().counters().attempts_declined >= 2);
    // The other way round: the one who is reached for holds to its pin as well.
    world.news(b, "a", SessionNews::Wanted);
    world.run(secs(1));
    assert_ne!(state(&world, b, "a"), Some(PeerState::Connected));

    // Accepted: the flag goes before the file, and the file follows.
    let pins = world.nodes.last().unwrap().pins.clone();
    let accepting = Setup { peer_pins: vec![("b@default", key(7))], pins, ..Setup::new("a", 1) };
    let a = world.add(accepting.forward("2222:b:22"));
    world.run(secs(2));
    assert_eq!(state(&world, a, "b"), Some(PeerState::Connected));
    let pins = String::from_utf8(world.nodes[a].pins.clone().unwrap()).unwrap();
    assert!(pins.contains(&key(7).to_string()) && !pins.contains(&key(2).to_string()), "{pins}");
}

#[test]
fn a_node_that_is_replaced_leaves_the_other_alone() {
    let mut world = World::new(1);
    let one = world.add(Setup::new("a", 1));
    world.run(secs(1));
    let two = world.add(Setup::new("a", 1));
    world.run(secs(1));
    assert!(!connected(&world, one) && connected(&world, two));
    let error = world.nodes[one].agent.status().server.error.unwrap();
    assert!(error.contains("logged in again"), "{error}");
    // Two clones for an hour: three swaps in any ten minutes, not more.
    world.run(secs(3600));
    let logins = world.server().counters().logins;
    assert!((2..=2 + 3 * 6 + 3).contains(&logins), "{logins}");
    assert_eq!(world.server().online(), 1);
}

fn push(world: &mut World, rule: Option<&str>) -> Result<AdminReply, (u16, String)> {
    let request = AdminRequest::PushForward {
        user: Default::default(),
        node: "a".parse().unwrap(),
        name: "web".to_owned(),
        rule: rule.map(str::to_owned),
    };
    world.ask_admin(request).map_err(|error| (error.status, error.message))
}

#[test]
fn forwards_are_pushed_as_far_as_the_policy_allows() {
    let local = Some("0:b:80");
    let open = Some("0.0.0.0:8080:b:80");
    for (policy, local_ok, open_ok) in
        [(PushPolicy::Off, false, false), (PushPolicy::Loopback, true, false), (PushPolicy::Any, true, true)]
    {
        let mut world = World::new(1);
        let a = world.add(Setup { push: policy, ..Setup::new("a", 1) });
        world.run(secs(1));
        for (rule, ok, listen) in [(local, local_ok, "127.0.0.1:50000"), (open, open_ok, "0.0.0.0:8080")] {
            match push(&mut world, rule) {
                Ok(reply) => assert_eq!((reply, ok), (AdminReply::Listening(listen.to_owned()), true)),
                Err((status, _)) => assert_eq!((status, ok), (403, false)),
            }
        }
        if local_ok {
            assert_eq!(world.nodes[a].agent.status().forwards.len(), 1);
            assert_eq!(push(&mut world, None), Ok(AdminReply::Done));
            assert!(world.nodes[a].listening.is_empty());
            assert_eq!(push(&mut world, None).unwrap_err().0, 404);
        }
    }
}

#[test]
fn a_pushed_forward_is_answered_by_what_became_of_it() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1).forward("2222:b:22"));
    world.run(secs(1));
    world.nodes[a].taken.insert(81);
    let (status, message) = push(&mut world, Some("81:b:80")).unwrap_err();
    assert_eq!(status, 409);
    assert!(message.contains("address in use"), "{message}");
    assert_eq!(world.nodes[a].agent.status().forwards.len(), 1, "what failed is not there");
    assert_eq!(push(&mut world, Some("80:a:80")).unwrap_err().0, 400);
    assert_eq!(push(&mut world, Some("nonsense")).unwrap_err().0, 400);
    // The same again is the same, another rule takes its place.
    for rule in ["82:b:80", "82:b:80", "83:b:80"] {
        let listen = format!("127.0.0.1:{}", &rule[..2]);
        assert_eq!(push(&mut world, Some(rule)), Ok(AdminReply::Listening(listen)));
    }
    assert_eq!(world.nodes[a].listening.len(), 2);
    // What the user configured is the user's.
    let request = AdminRequest::PushForward {
        user: Default::default(),
        node: "a".parse().unwrap(),
        name: "2222:b:22".to_owned(),
        rule: None,
    };
    assert_eq!(world.ask_admin(request).unwrap_err().status, 403);
    // A node that is not there, or does not answer.
    world.carrying = false;
    assert_eq!(push(&mut world, Some("84:b:80")).unwrap_err().0, 504);
    world.carrying = true;
    world.tell(a, Input::Shutdown);
    world.run(secs(2));
    assert_eq!(push(&mut world, Some("84:b:80")).unwrap_err().0, 409);
}

#[test]
fn a_listener_that_failed_is_tried_again() {
    let mut world = World::new(1);
    let a = world.add(Setup::new("a", 1).forward("2222:b:22"));
    world.tell(a, Input::Forward { name: "2222:b:22", result: Err("address in use".to_owned()) });
    let forward = &world.nodes[a].agent.status().forwards[0];
    assert_eq!((forward.state.as_str(), forward.error.as_deref()), ("failed", Some("address in use")));
    world.run(secs(31));
    let forward = &world.nodes[a].agent.status().forwards[0];
    assert_eq!((forward.state.as_str(), forward.listen.as_str()), ("listening", "127.0.0.1:2222"));
}

#[test]
fn wrong_configurations_are_refused_with_their_reason() {
    let refused = |setup: Setup| {
        let now = World::new(1).now;
        Agent::new(setup.config(), setup.pins.as_deref(), [0; 32], now, secs(0)).unwrap_err()
    };
    let oneself = refused(Setup::new("a", 1).forward("2222:a@default:22"));
    assert_eq!(oneself, ConfigError::ForwardToOneself("2222:a@default:22".to_owned()));
    let twice = refused(Setup::new("a", 1).forward("2222:b:22").forward("2222:b:22"));
    assert_eq!(twice, ConfigError::ForwardNameTwice("2222:b:22".to_owned()));
    let pins = refused(Setup { pins: Some(b"{".to_vec()), ..Setup::new("a", 1) });
    assert!(matches!(pins, ConfigError::Pins(_)));
}

#[test]
fn a_link_that_comes_without_being_asked_for_shows_in_status() {
    let (mut world, a, b) = World::pair();
    world.run(secs(1));
    let status = world.nodes[b].agent.status();
    assert_eq!((status.peers.len(), status.peers[0].rung), (1, Some(Rung::UdpDirect)));
    assert_eq!((status.peers[0].switches, &status.peers[0].error), (1, &None));
    // The one without a forward does not reach back, and forgets.
    world.links = false;
    world.news(b, "a", down("lost"));
    world.run(secs(30));
    assert_eq!(world.nodes[b].attempts.len(), 1);
    // The one with it does.
    world.news(a, "b", down("lost"));
    world.run(secs(1));
    assert_eq!(world.nodes[a].attempts.len(), 2);
}
