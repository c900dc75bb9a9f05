//! Two sessions on a small network with UDP and TCP, on virtual time: races, promotion, loss, rebinding, cuts.

mod world;

use std::collections::BTreeSet;

use world::{DELAY, World, address, bytes};

use super::*;
use crate::link::udp::Demux;

#[test]
fn the_rungs_race_and_the_better_one_stays() {
    let mut world = World::new();
    world.attempt();
    world.run(Duration::from_secs(1));
    assert_eq!(world.rungs(), [Some(Rung::UdpDirect); 2]);
    assert_eq!(world.links(), [1, 1], "losers are closed");
    assert!(world.wires.iter().all(|wire| wire.ends == [None, None]));
    for at in 0..2 {
        let udp = world.outcome(at, Rung::UdpDirect).unwrap();
        assert_eq!((udp.outcome, udp.reason.as_str()), (Verdict::Connected, ""));
        assert_eq!(world.outcome(at, Rung::TcpPunch).unwrap().outcome, Verdict::Skipped);
    }
    world.transfer(100_000);
    world.completes(Duration::from_secs(5), 100_000);
}

#[test]
fn where_udp_does_not_pass_tcp_stays_and_the_reason_is_told() {
    let mut world = World::new();
    world.udp = false;
    world.attempt();
    world.transfer(10_000);
    world.completes(Duration::from_secs(1), 10_000);
    world.run(Duration::from_secs(20));
    assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
    assert_eq!(world.links(), [1, 1]);
    for at in 0..2 {
        let udp = world.outcome(at, Rung::UdpDirect).unwrap();
        let reason = format!("{}: no answer", address(1 - at, 4000));
        assert_eq!((udp.outcome, udp.reason), (Verdict::Failed, reason));
        assert_eq!(world.outcome(at, Rung::TcpDirect).unwrap().outcome, Verdict::Connected);
    }
}

/// Both sides dial at once, and both connections come about: the same one stays at either side, whichever is faster.
/// The other one, or the one that was to stay, may break at any moment of that.
#[test]
fn of_two_links_that_cross_one_stays_and_nothing_is_lost_whenever_either_breaks() {
    let ms = Duration::from_millis;
    let rungs = RungSet::from_iter([Rung::TcpDirect, Rung::TcpPunch]);
    let crossing = |detour: [u64; 2]| {
        let mut world = World::new();
        world.detour = detour.map(ms);
        world.attempt_with(rungs);
        world.transfer(20_000);
        world.run(Duration::ZERO);
        assert_eq!(world.wires.len(), 2);
        world
    };
    for detour in [[0, 0], [0, 7], [7, 0], [0, 45], [45, 0]] {
        let mut world = crossing(detour);
        world.completes(Duration::from_secs(1), 20_000);
        world.run(Duration::from_secs(1));
        assert_eq!(world.links(), [1, 1]);
        let stay = world.wires.iter().filter(|wire| wire.ends.iter().all(Option::is_some)).count();
        assert_eq!(stay, 1, "each side kept another one");
        assert!((0..2).all(|at| world.ups(at) == [Rung::TcpDirect] && world.downs(at) == 0), "{detour:?}");

        for (broken, after) in (0..2).flat_map(|broken| (0..260).step_by(5).map(move |after| (broken, after)))
        {
            let mut world = crossing(detour);
            world.run(ms(after));
            world.cut(broken);
            // The agent has another attempt made as long as there is no link.
            if !world.run_until(ms(500), |world| world.is_up()) {
                world.attempt_with(rungs);
            }
            let done = world.run_until(Duration::from_secs(3), |world| world.has_moved(20_000));
            assert!(done, "{detour:?}, {broken} broken after {after} ms: {:?}", world.links());
            world.completes(Duration::ZERO, 20_000);
            world.run(Duration::from_secs(1));
            assert_eq!(world.links(), [1, 1], "{detour:?}, {broken} broken after {after} ms");
        }
    }
}

#[test]
fn an_attempt_that_fails_on_both_transports_says_so_of_both() {
    let mut world = World::new();
    (world.udp, world.tcp) = (false, false);
    world.attempt();
    world.run(Duration::from_secs(60));
    for at in 0..2 {
        assert_eq!(world.outcome(at, Rung::UdpDirect).unwrap().outcome, Verdict::Failed);
        let tcp = world.outcome(at, Rung::TcpDirect).unwrap();
        assert_eq!(tcp.reason, format!("{}: connection refused", address(1 - at, 4000)));
    }
    assert_eq!(world.links(), [0, 0]);
}

#[test]
fn streams_move_from_tcp_to_udp_in_the_middle_of_a_transfer_and_lose_nothing() {
    let mut world = World::new();
    world.udp = false;
    world.attempt();
    world.transfer(4_000_000);
    // There is always something under way.
    let rest = [0, 1].map(|at| world.ends[at].sending.split_off(40_000));
    let mut rest = rest.map(|rest| rest.chunks(40_000).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter());
    for step in 0..100 {
        world.run(Duration::from_millis(30));
        if step == 30 {
            assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
            world.udp = true;
        }
        for (end, rest) in world.ends.iter_mut().zip(&mut rest) {
            end.sending.extend(rest.next().into_iter().flatten());
        }
    }
    assert_eq!(world.rungs(), [Some(Rung::UdpDirect); 2]);
    world.completes(Duration::from_secs(20), 4_000_000);
    world.run(Duration::from_secs(3));
    for at in 0..2 {
        assert_eq!(world.ups(at), [Rung::TcpDirect, Rung::UdpDirect]);
        assert_eq!(world.downs(at), 0);
    }
    assert_eq!(world.links(), [1, 1], "the worse one is closed");
}

#[test]
fn a_cut_of_udp_has_the_streams_go_on_over_tcp() {
    for cut_at in [0, 40, 150] {
        let mut world = World::up();
        world.transfer(3_000_000);
        world.run(Duration::from_millis(cut_at));
        world.udp = false;
        let noticed = |world: &mut World| world.downs(0) == 1;
        assert!(world.run_until(Duration::from_secs(6), noticed), "an active link is dead within 4 s");
        world.attempt();
        world.completes(Duration::from_secs(10), 3_000_000);
        assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
    }
}

#[test]
fn a_cut_that_one_side_alone_has_noticed_is_healed_over_a_worse_rung() {
    for notices in 0..2 {
        let mut world = World::up();
        world.run(Duration::from_secs(5));
        let key = world.ends[notices].session.mux().open(Protocol::Tcp, "127.0.0.1:22").unwrap();
        world.ends[notices].key = Some(key);
        world.udp = false;
        world.ends[notices].sending = bytes(notices, 100_000);
        let noticed = |world: &mut World| world.downs(notices) == 1;
        assert!(world.run_until(Duration::from_secs(6), noticed));
        assert_eq!(world.downs(1 - notices), 0);
        world.attempt();
        let arrived = |world: &mut World| world.ends[1 - notices].received.len() == 100_000;
        assert!(world.run_until(Duration::from_secs(2), arrived), "side {notices} noticed");
        assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
    }
}

#[test]
fn a_rebinding_on_either_side_keeps_the_link_and_every_byte() {
    for moves in 0..2 {
        let mut world = World::up();
        world.transfer(3_000_000);
        world.run(Duration::from_millis(200));
        world.ends[moves].address = address(moves, 5000);
        world.completes(Duration::from_secs(20), 3_000_000);
        for at in 0..2 {
            assert_eq!((world.downs(at), world.ups(at).len()), (0, 1), "side {moves} moved");
        }
        let moved = |news: &&SessionNews| matches!(news, SessionNews::Moved { .. });
        let news = world.ends[1 - moves].news.iter().find(moved);
        let Some(SessionNews::Moved { remote, .. }) = news else { panic!("nobody was told") };
        assert_eq!(*remote, address(moves, 5000));
    }
}

#[test]
fn a_filter_before_either_side_is_opened_by_that_side() {
    for filtered in [[true, false], [false, true], [true, true]] {
        let mut world = World::new();
        world.tcp = false;
        for (end, filtered) in world.ends.iter_mut().zip(filtered) {
            end.filter = filtered.then(BTreeSet::new);
        }
        world.attempt();
        let up = |world: &mut World| world.rungs() == [Some(Rung::UdpDirect); 2];
        assert!(world.run_until(Duration::from_millis(300), up), "{filtered:?}");
    }
}

#[test]
fn a_fifth_of_all_datagrams_lost_costs_no_byte() {
    let mut world = World::new();
    (world.lost, world.tcp) = (200, false);
    world.attempt();
    world.transfer(300_000);
    world.completes(Duration::from_secs(60), 300_000);
    assert!((0..2).all(|at| world.downs(at) == 0));
}

#[test]
fn a_peer_that_started_anew_is_known_at_once_over_udp() {
    for renewed in 0..2 {
        let mut world = World::up();
        world.transfer(1000);
        world.run(Duration::from_secs(1));
        let [low, high] = seeds();
        let (own, peer) = if renewed == 0 { (low, high) } else { (high, low) };
        world.ends[renewed].session = session(world.now, own, peer, 9);
        world.ends[renewed].demux = Demux::new();
        world.ends[renewed].key = None;
        world.attempt();
        let reset = |world: &mut World| world.ends[1 - renewed].resets == [mux::code::RESTARTED];
        assert!(world.run_until(Duration::from_millis(500), reset), "side {renewed} started anew");
        world.run(Duration::from_secs(1));
        assert_eq!(world.rungs(), [Some(Rung::UdpDirect); 2]);
        assert_eq!(world.links(), [1, 1]);
    }
}

#[test]
fn an_end_in_order_is_noticed_at_once() {
    let mut world = World::up();
    world.run(Duration::from_secs(20));
    let now = world.now;
    world.ends[0].session.leave("bye");
    world.run(Duration::from_millis(1));
    world.ends[0].session.close(now, "bye");
    let down = |world: &mut World| world.downs(1) == 1;
    assert!(world.run_until(DELAY * 2, down));
}

#[test]
fn an_idle_link_holds_small_windows_and_sleeps() {
    let mut world = World::up();
    world.transfer(2_000_000);
    world.completes(Duration::from_secs(20), 2_000_000);
    world.run(Duration::from_secs(60));
    for end in &world.ends {
        let windows = end.session.links.iter().find_map(|slot| match &slot.carrier {
            Carrier::Udp(udp) => Some(udp.link.windows()),
            _ => None,
        });
        let windows = windows.unwrap();
        assert!(windows.receive <= 64 * 1024 && windows.send <= 64 * 1024, "{windows:?}");
    }
    world.wakes = 0;
    world.run(Duration::from_secs(600));
    assert!((0..2).all(|at| world.downs(at) == 0));
    // A ping of each side every 15 s, and a few of QUIC's own timers with each.
    assert!(world.wakes <= 6 * 600 / 15, "{} wakes in ten minutes", world.wakes);
}

#[test]
fn what_must_not_be_used_is_not() {
    let mut world = World::new();
    world.attempt_with(RungSet::from_iter([Rung::TcpDirect]));
    world.run(Duration::from_secs(1));
    assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
    let mut world = World::new();
    world.attempt_with(RungSet::from_iter([Rung::UdpPunch]));
    world.run(Duration::from_secs(10));
    assert_eq!(world.rungs(), [None; 2], "the way is a direct one");
    assert!(world.now > world.began);
}
