//! Each stream has its lane.

use super::*;

#[test]
fn a_lost_packet_stalls_one_stream_only() {
    let mut world = World::up(Weather::default());
    for target in ["x:1", "y:1"] {
        let key = world.a.above.mux.open(Protocol::Tcp, target).unwrap();
        world.a.names.insert(key, target.to_owned());
        world.a.sending.push((key, b"1".to_vec(), false));
    }
    let has = |world: &World, target: &str, bytes: &[u8]| {
        world.b.received.get(target).is_some_and(|received| received == bytes)
    };
    assert!(world.run(Duration::from_secs(1), |world| has(world, "x:1", b"1") && has(world, "y:1", b"1")));
    world.run(Duration::from_secs(1), |_| false);

    let keys: Vec<Key> = world.a.names.keys().copied().collect();
    let before = world.now;
    let lost = world.sent.len();
    world.loses = Box::new(move |_, index, _| index == lost);
    world.a.sending.push((keys[0], b"2".to_vec(), false));
    world.turn(true);
    assert_eq!(world.sent.len(), lost + 1);
    world.a.sending.push((keys[1], b"2".to_vec(), false));
    assert!(world.run(Duration::from_secs(1), |world| has(world, "y:1", b"12")));
    assert_eq!(world.now - before, DELAY);
    assert!(has(&world, "x:1", b"1"));
    assert!(world.run(Duration::from_secs(1), |world| has(world, "x:1", b"12")));
}

#[test]
fn thousands_of_streams_at_once_each_have_a_lane_and_leave_none() {
    let mut world = World::up(Weather { lost: 5, late: 5, doubled: 5, ..Weather::default() });
    for stream in 0..2000 {
        world.a.send(&format!("{stream}:1"), pattern(stream as u8, 100));
        world.b.send(&format!("{stream}:2"), pattern(stream as u8, 100));
    }
    let mut most = 0;
    let done = world.run(Duration::from_secs(120), |world| {
        most = most.max(world.a.link.lanes());
        world.a.closed == 4000 && world.b.closed == 4000
    });
    assert!(done, "{} {}", world.a.closed, world.b.closed);
    assert!(most > 320, "{most}");
    assert!((0..2000).all(|stream| world.b.received[&format!("{stream}:1")] == pattern(stream as u8, 100)));
    world.run(Duration::from_secs(20), |_| false);
    assert_eq!((world.a.link.lanes(), world.b.link.lanes()), (1, 1));
}

#[test]
fn a_reader_that_stops_holds_up_its_own_stream_only() {
    let mut world = World::up(Weather::default());
    let stuck = world.a.above.mux.open(Protocol::Tcp, "stuck:1").unwrap();
    world.a.sending.push((stuck, pattern(1, 1 << 20), false));
    world.run(Duration::from_secs(2), |_| false);
    let key = *world.b.names.keys().next().unwrap();
    world.b.names.remove(&key);
    world.run(Duration::from_secs(2), |_| false);
    world.a.send("other:1", pattern(2, 1 << 20));
    let done = world
        .run(Duration::from_secs(20), |world| world.b.received.get("other:1").map(Vec::len) == Some(1 << 20));
    assert!(done);
}

#[test]
fn a_keystroke_overtakes_a_bulk_copy() {
    let mut world = World::up(Weather { rate: 5_000_000, ..Weather::default() });
    let key = world.a.above.mux.open(Protocol::Tcp, "terminal:1").unwrap();
    world.a.sending.push((key, b"ls".to_vec(), false));
    world.a.send("bulk:1", pattern(1, 64 << 20));
    world.run(Duration::from_secs(1), |_| false);
    let before = world.now;
    world.a.sending.push((key, b"x".to_vec(), false));
    let done = world.run(Duration::from_secs(5), |world| {
        world.b.received.get("terminal:1").is_some_and(|bytes| bytes == b"lsx")
    });
    assert!(done && world.b.received["bulk:1"].len() < 64 << 20);
    // Besides the way itself there is the network's queue of 13 ms, and a round trip where it overflows.
    assert!(world.now - before <= DELAY * 5, "{:?}", world.now - before);
}

/// Takes the streams from the links that are, which die with all that is in them, to new ones; as after SWITCH
/// and RESUME.
fn relink(world: &mut World, epoch: u32) {
    let mut fresh = World::new(world.weather);
    fresh.began = world.began;
    fresh.now = world.now;
    let (now, at_b) = (world.now, world.b.source.remote);
    world.a.link = link(now, 1, 2, &PUNCH, 21 + epoch as u8);
    world.b.link = link(now, 2, 1, &PUNCH, 121 + epoch as u8);
    world.a.link.add_candidate(UdpPath::new(SockId(0), at_b), None);
    world.under_way.clear();
    for end in [&mut world.a, &mut world.b] {
        end.above.epoch = None;
        end.above.mux.detach();
        end.above.heard = b"relinking".to_vec();
    }
    assert!(world.run(Duration::from_secs(10), |world| world.a.link.is_up() && world.b.link.is_up()));
    switch(world, epoch);
}

/// Nominates the links that are, under a new epoch.
fn switch(world: &mut World, epoch: u32) {
    for end in [&mut world.a, &mut world.b] {
        end.above.epoch = None;
        end.above.mux.detach();
    }
    let (a, b) = (world.a.above.mux.resume(), world.b.above.mux.resume());
    // One of them learns of it a little later: what comes before that waits in its lane.
    world.a.above.mux.attach(world.now, &b).unwrap();
    world.a.above.epoch = Some(epoch);
    world.run(DELAY * 3, |_| false);
    world.b.above.mux.attach(world.now, &a).unwrap();
    world.b.above.epoch = Some(epoch);
}

#[test]
fn streams_go_on_over_another_link_and_lose_no_byte() {
    let mut world = World::up(Weather { lost: 20, ..Weather::default() });
    for stream in 0..5 {
        world.a.send(&format!("{stream}:1"), pattern(stream, 2 << 20));
        world.b.send(&format!("{stream}:2"), pattern(stream, 2 << 20));
    }
    for epoch in 2..5 {
        world.run(Duration::from_millis(250), |_| false);
        relink(&mut world, epoch);
    }
    let done = world.run(Duration::from_secs(120), |world| world.a.closed == 10 && world.b.closed == 10);
    assert!(done, "{} {}", world.a.closed, world.b.closed);
    for stream in 0..5 {
        assert!(world.b.received[&format!("{stream}:1")] == pattern(stream, 2 << 20));
        assert!(world.a.received[&format!("{stream}:2")] == pattern(stream, 2 << 20));
    }
}

#[test]
fn the_same_link_may_be_nominated_again_and_lanes_of_the_lower_epoch_are_void() {
    let mut world = World::up(Weather { lost: 20, late: 50, ..Weather::default() });
    for stream in 0..5 {
        world.a.send(&format!("{stream}:1"), pattern(stream, 2 << 20));
        world.b.send(&format!("{stream}:2"), pattern(stream, 2 << 20));
    }
    for epoch in 2..6 {
        world.run(Duration::from_millis(150), |_| false);
        switch(&mut world, epoch);
    }
    let done = world.run(Duration::from_secs(120), |world| world.a.closed == 10 && world.b.closed == 10);
    assert!(done, "{} {}", world.a.closed, world.b.closed);
    for stream in 0..5 {
        assert!(world.b.received[&format!("{stream}:1")] == pattern(stream, 2 << 20));
        assert!(world.a.received[&format!("{stream}:2")] == pattern(stream, 2 << 20));
    }
    world.run(Duration::from_secs(5), |_| false);
    assert_eq!((world.a.link.lanes(), world.b.link.lanes()), (1, 1));
}
