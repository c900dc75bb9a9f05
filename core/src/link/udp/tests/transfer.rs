//! Bytes arrive, whatever the network does.

use super::*;

/// Sends 1 MiB through each of `streams` streams from each side; how long that took.
fn transfer(weather: Weather, streams: u8) -> (World, Duration) {
    let mut world = World::up(weather);
    let began = world.now;
    for stream in 0..streams {
        world.a.send(&format!("a{stream}:1"), pattern(stream, 1 << 20));
        world.b.send(&format!("b{stream}:1"), pattern(!stream, 1 << 20));
    }
    let all = 2 * usize::from(streams);
    let done = world.run(Duration::from_secs(300), |world| world.a.closed == all && world.b.closed == all);
    assert!(done, "{:?} {:?}", world.a.link, world.b.link);
    for stream in 0..streams {
        let (from_a, from_b) = (format!("a{stream}:1"), format!("b{stream}:1"));
        assert!(world.b.received[&from_a] == pattern(stream, 1 << 20));
        assert!(world.a.received[&from_b] == pattern(!stream, 1 << 20));
        // And the answers, behind the other side's end.
        assert_eq!(world.a.received[&from_a], from_a.as_bytes());
        assert_eq!(world.b.received[&from_b], from_b.as_bytes());
    }
    let took = world.now - began;
    (world, took)
}

#[test]
fn streams_arrive_whole_where_nothing_is_lost() {
    let (world, took) = transfer(Weather::default(), 4);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!((world.a.link.dropped(), world.b.link.dropped()), (0, 0));
}

#[test]
fn streams_arrive_whole_at_5_percent_loss() {
    transfer(Weather { lost: 50, ..Weather::default() }, 3);
}

#[test]
fn streams_arrive_whole_at_20_percent_loss() {
    transfer(Weather { lost: 200, ..Weather::default() }, 2);
}

#[test]
fn streams_arrive_whole_in_any_order_and_twice() {
    transfer(Weather { lost: 20, late: 100, doubled: 100, ..Weather::default() }, 3);
}

#[test]
fn the_same_seed_gives_the_same_datagrams_at_the_same_times() {
    let weather = Weather { lost: 50, late: 20, doubled: 20, ..Weather::default() };
    let (first, _) = transfer(weather, 2);
    let (second, _) = transfer(weather, 2);
    assert!(first.sent == second.sent);
}

#[test]
fn the_client_is_up_after_one_round_trip_and_its_first_bytes_share_the_flight() {
    let mut world = World::new(Weather::default());
    assert!(world.run(Duration::from_secs(1), |world| world.a.link.is_up()));
    assert_eq!(world.elapsed(), DELAY * 2);
    assert!(world.run(Duration::from_secs(1), |world| world.b.link.is_up()));
    assert_eq!(world.elapsed(), DELAY * 3);
    assert_eq!(world.b.above.heard, b"hello");
    let first: Vec<usize> = world.sent.iter().take(4).map(|(_, _, _, length)| *length).collect();
    assert_eq!(first, [1200; 4], "two flights of two datagrams");
}

#[test]
fn a_larger_mtu_is_found_and_a_black_hole_falls_back() {
    let mut world = World::up(Weather::default());
    world.a.send("a:1", pattern(1, 1 << 20));
    assert!(
        world
            .run(Duration::from_secs(60), |world| world.b.received.get("a:1").map(Vec::len) == Some(1 << 20))
    );
    assert_eq!(world.a.link.mtu(), Some(1452));
    world.loses = Box::new(|_, _, length| length > 1300);
    world.a.send("again:1", pattern(1, 1 << 20));
    let done = world
        .run(Duration::from_secs(60), |world| world.b.received.get("again:1").map(Vec::len) == Some(1 << 20));
    assert!(done);
    assert!(world.a.link.mtu() < Some(1300));
}

#[test]
fn an_idle_link_sends_nothing_and_its_windows_are_64_kib() {
    let idle = Windows { receive: 64 * 1024, send: 64 * 1024 };
    let mut world = World::up(Weather::default());
    world.run(Duration::from_secs(10), |_| false);
    assert_eq!((world.a.link.windows(), world.b.link.windows()), (idle, idle));
    let sent = world.sent.len();
    world.run(Duration::from_secs(10), |_| false);
    assert_eq!(world.sent.len(), sent);

    world.a.send("a:1", pattern(1, 8 << 20));
    let mut most = idle;
    let done = world.run(Duration::from_secs(60), |world| {
        most.receive = most.receive.max(world.b.link.windows().receive);
        most.send = most.send.max(world.a.link.windows().send);
        world.a.closed == 1
    });
    assert!(done);
    assert!(most.receive > idle.receive && most.receive <= 8 << 20, "{most:?}");
    assert!(most.send > idle.send && most.send <= 8 << 20, "{most:?}");
    world.run(Duration::from_secs(15), |_| false);
    assert_eq!((world.a.link.windows(), world.b.link.windows()), (idle, idle));
    assert_eq!((world.a.link.lanes(), world.b.link.lanes()), (1, 1), "stream 0's is left");
}

#[test]
fn an_orderly_close_is_told_to_the_peer_with_what_came_before_it() {
    let mut world = World::up(Weather::default());
    world.a.above.say = b" and goodbye".to_vec();
    world.turn(true);
    world.a.link.close(world.now, "leaving");
    world.turn(true);
    assert!(world.run(Duration::from_secs(1), |world| world.b.link.ending().is_some()));
    assert_eq!(world.b.link.ending(), Some(&UdpError::ClosedByPeer("leaving".to_owned())));
    assert_eq!(world.b.above.heard, b"hello and goodbye");
    assert_eq!(world.a.link.ending(), Some(&UdpError::Closed));
}

#[test]
fn a_peer_that_falls_silent_is_given_up_behind_the_sessions_own_judgement() {
    let mut world = World::up(Weather::default());
    world.loses = Box::new(|_, _, _| true);
    let before = world.now;
    assert!(world.run(Duration::from_secs(60), |world| world.a.link.ending().is_some()));
    assert_eq!(world.a.link.ending(), Some(&UdpError::Silent));
    assert!(world.now - before > Duration::from_secs(25));
}
