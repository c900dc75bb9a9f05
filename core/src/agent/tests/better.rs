//! A link that could be better, and what is done about it.

use super::*;
use crate::agent::io::Input as AgentInput;
use crate::agent::peer::Basis;
use crate::path::RungSet;
use crate::session::Attempt;

/// When attempts began, in whole seconds since the start, and what they were for.
fn attempts(world: &World, node: usize) -> Vec<(u64, RungSet)> {
    let began =
        |(at, _, _, attempt): &(Instant, _, _, Attempt)| ((*at - world.start).as_secs(), attempt.rungs);
    world.nodes[node].attempts.iter().map(began).collect()
}

#[test]
fn better_rungs_than_the_links_are_tried_for_ever_more_seldom() {
    let (mut world, a, _) = World::pair();
    world.rung = Rung::TcpDirect;
    world.run(secs(1));
    // From now on attempts come to nothing, and are given up after two minutes.
    world.links = false;
    world.run(secs(1200));
    let began = attempts(&world, a);
    let better = RungSet::from_iter([Rung::UdpDirect, Rung::UdpPunch]);
    assert_eq!(began[0].1, RungSet::ALL);
    assert!(began.len() >= 5 && began[1..].iter().all(|(_, rungs)| *rungs == better), "{began:?}");
    assert!(began[1].0 <= 12, "{began:?}");
    let gaps: Vec<u64> = began.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.windows(2).all(|pair| pair[0] <= pair[1]) && gaps.iter().all(|gap| *gap <= 420), "{gaps:?}");
}

#[test]
fn a_change_of_network_has_everything_tried_at_once_even_with_the_best_link() {
    let (mut world, a, _) = World::pair();
    world.run(secs(100));
    assert_eq!(attempts(&world, a).len(), 1);
    world.tell(a, AgentInput::Interfaces(&["198.51.100.9".parse().unwrap()]));
    world.run(secs(20));
    let began = attempts(&world, a);
    assert_eq!(began.len(), 2, "{began:?}");
    assert_eq!(began[1].1, RungSet::ALL);
}

#[test]
fn a_node_that_may_use_no_better_rung_asks_for_none() {
    let mut world = World::new(1);
    world.rung = Rung::TcpDirect;
    world.add(Setup::new("b", 2));
    let mut setup = Setup::new("a", 1).forward("2222:b:22");
    setup.rungs = RungSet::from_iter([Rung::TcpDirect]);
    let a = world.add(setup);
    world.run(secs(600));
    assert_eq!(attempts(&world, a).len(), 1);
}

/// What was asked for on a connection that is lost is asked for anew on the next one.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn a_wish_for_better_that_the_server_never_heard_is_made_again() {
    use crate::agent::peer::{Link, Peer};
    let now = Instant::now();
    let mut rng = Rng::new([1; 32]);
    let mut peer = Peer::default();
    peer.forwarded = true;
    let remote = "192.0.2.1:5".parse().unwrap();
    peer.up(now, Link { rung: Rung::UdpPunch, remote, via: None }, &mut rng);
    peer.network_changed(now);
    assert_eq!(peer.wished_rungs(RungSet::ALL), RungSet::ALL);
    peer.asking(now);
    assert_eq!(peer.wish_due(now), None);
    peer.signal_lost(now + secs(1));
    peer.signal_back(now + secs(2));
    assert!(peer.wish_due(now + secs(2)).is_some());
    assert_eq!(peer.wished_rungs(RungSet::ALL), RungSet::ALL);
}

/// An attempt that looks for something better than the link cannot stand in for it.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn a_link_that_dies_while_a_better_one_is_tried_for_is_replaced_at_once() {
    use crate::agent::peer::{Link, Peer};
    let now = Instant::now();
    let mut rng = Rng::new([1; 32]);
    let all = [RungSet::from_iter([Rung::UdpDirect]), RungSet::ALL];
    let due = all.map(|rungs| {
        let mut peer = Peer::default();
        peer.forwarded = true;
        let remote = "192.0.2.1:5".parse().unwrap();
        peer.up(now, Link { rung: Rung::PrivateRelay, remote, via: None }, &mut rng);
        peer.asking(now);
        peer.start(now, AttemptId([1; 16]), key(2), (rungs, Basis::Sound));
        peer.down(now, "no answer".to_owned());
        peer.wish_due(now + secs(2))
    });
    // The other one may bring a link of any kind by itself, and has a moment for that.
    assert!(due[0].is_some_and(|at| at <= now + secs(2)));
    assert_eq!(due[1], Some(now + secs(3)));
}

/// What began before the NATs were measured is in vain where they are of the harder kinds.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn an_attempt_that_began_blindly_is_overtaken_when_more_is_known() {
    use crate::agent::peer::Peer;
    let now = Instant::now();
    let asked = || {
        let mut peer = Peer::default();
        peer.forwarded = true;
        peer.asking(now);
        peer
    };
    for (basis, due) in [(Basis::Blind, Some(now + secs(1))), (Basis::Sound, None)] {
        let mut peer = asked();
        peer.start(now, AttemptId([1; 16]), key(2), (RungSet::ALL, basis));
        assert_eq!(peer.wish_due(now), None);
        peer.news(now + Duration::from_millis(300));
        assert_eq!(peer.wish_due(now + Duration::from_millis(300)), due);
    }
    // The peer was told what this node knew when it asked.
    let mut peer = asked();
    peer.settled();
    peer.start(now, AttemptId([1; 16]), key(2), (RungSet::ALL, Basis::Sound));
    assert_eq!(peer.wish_due(now), Some(now + secs(1)));
}

/// A relay is there in any case: what was known in vain is not waited for. A better link is.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn an_attempt_that_is_overtaken_is_so_though_a_relay_carries_the_link() {
    use crate::agent::peer::{Link, Peer};
    let now = Instant::now();
    let soon = now + Duration::from_millis(300);
    let due = |basis, rung, has_news, is_over| {
        let mut rng = Rng::new([1; 32]);
        let mut peer = Peer::default();
        peer.forwarded = true;
        peer.asking(now);
        peer.start(now, AttemptId([1; 16]), key(2), (RungSet::ALL, basis));
        peer.up(now, Link { rung, remote: "192.0.2.1:5".parse().unwrap(), via: None }, &mut rng);
        if has_news {
            peer.news(soon);
        }
        if is_over {
            peer.done(soon, AttemptId([1; 16]), Vec::new(), &mut rng);
        }
        peer.wish_due(soon)
    };
    let again = Some(now + secs(1));
    for is_over in [false, true] {
        assert_eq!(due(Basis::Old, Rung::ServerRelay, false, is_over), again);
        assert_eq!(due(Basis::Blind, Rung::ServerRelay, true, is_over), again);
    }
    assert_eq!(due(Basis::Blind, Rung::ServerRelay, false, false), None);
    assert_eq!(due(Basis::Sound, Rung::ServerRelay, true, false), None);
    assert_eq!(due(Basis::Old, Rung::UdpPunch, false, false), None);
}

/// What is known since the server refused is in the attempt that the other side asks for afterwards.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn an_attempt_of_the_other_side_is_not_overtaken_for_an_earlier_wish_that_was_refused() {
    use crate::agent::peer::Peer;
    use crate::wire::message::{Code, Refused};
    let now = Instant::now();
    let mut peer = Peer::default();
    peer.forwarded = true;
    peer.asking(now);
    peer.settled();
    peer.refused(now, &Refused::new(Code::Busy, "later"), &mut Rng::new([1; 32]));
    peer.start(now, AttemptId([1; 16]), key(2), (RungSet::ALL, Basis::Sound));
    assert_eq!(peer.wish_due(now), None);
}

/// A link that follows one that died is looked after by its own times.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn what_was_planned_for_a_link_ends_with_it() {
    use crate::agent::peer::{Link, Peer};
    let now = Instant::now();
    let mut rng = Rng::new([1; 32]);
    let mut peer = Peer::default();
    let link = || Link { rung: Rung::UdpPunch, remote: "192.0.2.1:5".parse().unwrap(), via: None };
    peer.forwarded = true;
    peer.up(now, link(), &mut rng);
    peer.down(now, "no answer".to_owned());
    // The other side was quicker to ask.
    peer.start(now, AttemptId([1; 16]), key(2), (RungSet::ALL, Basis::Blind));
    peer.up(now, link(), &mut rng);
    peer.news(now + secs(1));
    assert_eq!(peer.wish_due(now + secs(1)), None);
}

/// The link turns out to be bad when better ones have just been asked for, which are not what is wanted now.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn a_link_that_turns_bad_while_the_server_is_asked_for_better_ones_is_replaced_at_once() {
    use crate::agent::peer::{Link, Peer};
    let now = Instant::now();
    let better = RungSet::from_iter([Rung::UdpDirect]);
    let tcp = RungSet::from_iter(Rung::ALL.into_iter().filter(|rung| !rung.is_udp()));
    let turned = |turn: fn(&mut Peer, Instant), rungs: RungSet| {
        let mut rng = Rng::new([1; 32]);
        let mut peer = Peer::default();
        peer.forwarded = true;
        let remote = "192.0.2.1:5".parse().unwrap();
        peer.up(now, Link { rung: Rung::UdpPunch, remote, via: None }, &mut rng);
        peer.asking(now);
        turn(&mut peer, now);
        peer.promised(now);
        peer.start(now + secs(1), AttemptId([1; 16]), key(2), (rungs, Basis::Sound));
        (peer.wish_due(now + secs(1)), peer.wished_rungs(RungSet::ALL))
    };
    let poor: fn(&mut Peer, Instant) = |peer, now| peer.poor(now, "it loses".to_owned());
    let suspect: fn(&mut Peer, Instant) = |peer, now| peer.suspect(now);
    assert_eq!(turned(poor, better), (Some(now + secs(1)), tcp));
    assert_eq!(turned(suspect, better), (Some(now + secs(1)), RungSet::ALL));
    // These may bring what is wanted.
    assert_eq!(turned(poor, tcp).0, None);
    assert_eq!(turned(poor, RungSet::ALL).0, None);
    assert_eq!(turned(suspect, RungSet::ALL).0, None);
}

/// What began a moment before is given that moment, and no more.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn a_link_in_doubt_does_not_wait_for_the_end_of_an_attempt() {
    use crate::agent::peer::{Link, Peer};
    let now = Instant::now();
    let mut rng = Rng::new([1; 32]);
    let mut peer = Peer::default();
    let link = || Link { rung: Rung::UdpPunch, remote: "192.0.2.1:5".parse().unwrap(), via: None };
    peer.forwarded = true;
    peer.up(now, link(), &mut rng);
    peer.start(now, AttemptId([1; 16]), key(2), (RungSet::ALL, Basis::Sound));
    peer.suspect(now + secs(1));
    assert_eq!(peer.wish_due(now + secs(1)), Some(now + secs(3)));
    peer.up(now + secs(2), link(), &mut rng);
    assert_eq!(peer.wish_due(now + secs(2)), None);
}

/// The network has gone, or become another one: whichever connection notices first, the one to the server is made
/// anew at once.
#[test]
fn a_link_that_breaks_right_after_the_signalling_connection_has_that_made_anew_at_once() {
    for breaks in [true, false] {
        let (mut world, a, _) = World::pair();
        world.run(secs(100));
        world.cut(a);
        world.run(secs(1));
        if breaks {
            world.news(a, "b", down("connection reset"));
        }
        world.run(secs(1));
        // By itself it would wait for two seconds and a half at least.
        assert_eq!(world.nodes[a].opens.len(), if breaks { 2 } else { 1 });
    }
}
