//! Where datagrams go.

use super::*;

fn at_b(port: u16) -> UdpPath {
    UdpPath::new(SockId(0), address(2, port))
}

#[test]
fn the_handshake_goes_everywhere_and_ends_at_the_first_answer() {
    let mut world = World::new(Weather::default());
    for port in 2001..2006 {
        world.a.link.add_candidate(at_b(port), None);
    }
    world.a.link.add_candidate(at_b(2006), Some(1));
    let sent_to = |world: &World, port| {
        world.sent.iter().filter(|(_, is_a, to, _)| *is_a && *to == address(2, port)).count()
    };
    assert!(world.run(Duration::from_secs(5), |world| world.a.link.path().is_some()));
    assert_eq!(world.elapsed(), DELAY * 2);
    assert_eq!(world.a.link.path(), Some(at_b(2000)));
    // The hybrid ClientHello is two datagrams.
    for port in 2001..2006 {
        assert_eq!(sent_to(&world, port), 2);
    }
    assert_eq!(sent_to(&world, 2006), 1);
    world.a.link.add_candidate(at_b(2007), None);
    world.run(Duration::from_secs(5), |_| false);
    assert!((2001..2006).all(|port| sent_to(&world, port) == 2));
    assert_eq!((sent_to(&world, 2006), sent_to(&world, 2007)), (1, 0));
    assert!(world.a.link.is_up() && world.b.link.is_up());
}

#[test]
fn a_candidate_that_is_found_later_gets_the_whole_handshake_at_once() {
    let mut world = World::new(Weather::default());
    world.a.link.remove_candidate(at_b(2000));
    world.run(Duration::from_secs(1), |_| false);
    assert!(world.sent.is_empty());
    world.a.link.add_candidate(at_b(2001), None);
    world.run(Duration::from_millis(50), |_| false);
    let before = world.now;
    world.a.link.add_candidate(at_b(2000), None);
    assert!(world.run(Duration::from_secs(1), |world| world.a.link.is_up()));
    assert_eq!(world.now - before, DELAY * 2);
}

#[test]
fn an_authenticated_probe_before_the_handshake_names_a_candidate() {
    let mut world = World::new(Weather::default());
    world.a.link.remove_candidate(at_b(2000));
    world.b.link.probe_path(world.now, world.a.source);
    assert!(world.run(Duration::from_secs(1), |world| world.a.link.is_up() && world.b.link.is_up()));
    assert_eq!(world.a.link.path(), Some(at_b(2000)));
}

#[test]
fn a_rebinding_costs_no_byte_whoever_sends() {
    for (a_sends, b_sends) in [(true, false), (false, true), (true, true)] {
        for rebind_after in [30, 77, 150, 333] {
            let mut world = World::up(Weather { lost: 2, ..Weather::default() });
            if a_sends {
                world.a.send("a:1", pattern(1, 8 << 20));
            }
            if b_sends {
                world.b.send("b:1", pattern(2, 8 << 20));
            }
            world.run(Duration::from_millis(rebind_after), |_| false);
            assert_eq!(world.a.closed + world.b.closed, 0);
            world.rebind(1001);
            let before = world.now;
            let moved = world.run(Duration::from_secs(3), |world| {
                world.b.link.path() == Some(UdpPath::new(SockId(0), address(1, 1001)))
            });
            assert!(moved, "{a_sends} {b_sends} {rebind_after}");
            assert!(world.now - before <= Duration::from_millis(500), "{:?}", world.now - before);
            let streams = usize::from(a_sends) + usize::from(b_sends);
            assert!(world.run(Duration::from_secs(60), |world| {
                world.a.closed == streams && world.b.closed == streams
            }));
            assert!(!a_sends || world.b.received["a:1"] == pattern(1, 8 << 20));
            assert!(!b_sends || world.a.received["b:1"] == pattern(2, 8 << 20));
        }
    }
}

#[test]
fn the_path_moves_only_once_the_new_source_has_answered() {
    let mut world = World::up(Weather::default());
    world.a.send("a:1", pattern(1, 32 << 20));
    world.run(Duration::from_millis(300), |_| false);
    let old = UdpPath::new(SockId(0), address(1, 1000));
    assert_eq!(world.b.link.path(), Some(old));
    // The new source can send and hears nothing.
    world.rebind(1001);
    world.a.reached.clear();
    let before = world.sent.len();
    world.run(Duration::from_millis(2500), |_| false);
    assert_eq!(world.b.link.path(), Some(old));
    let asked: Vec<usize> = world.sent[before..]
        .iter()
        .filter(|(_, is_a, to, _)| !is_a && *to == address(1, 1001))
        .map(|(_, _, _, length)| *length)
        .collect();
    assert!((1..=6).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|length| *length == probe::LENGTH));
    world.a.reached = vec![address(1, 1001)];
    assert!(world.run(Duration::from_secs(60), |world| world.a.closed == 1));
    assert_eq!(world.b.link.path(), Some(UdpPath::new(SockId(0), address(1, 1001))));
}

#[test]
fn a_link_moves_to_a_better_path_that_the_peer_answers_on() {
    let mut world = World::up(Weather::default());
    world.a.send("a:1", pattern(1, 256 << 20));
    world.run(Duration::from_millis(300), |_| false);
    // Both have an address on another network, too.
    world.a.other = Some((address(2, 2500), address(1, 1500)));
    world.b.other = Some((address(1, 1500), address(2, 2500)));
    world.a.reached.push(address(1, 1500));
    world.b.reached.push(address(2, 2500));
    world.a.link.probe_path(world.now, at_b(2500));
    world.a.link.probe_path(world.now, at_b(2600));
    for _ in 0..5 {
        world.run(Duration::from_millis(300), |_| false);
        assert_eq!(world.a.link.path(), Some(at_b(2500)));
        assert_eq!(world.b.link.path(), Some(UdpPath::new(SockId(0), address(1, 1500))));
    }
}

#[test]
fn another_socket_and_address_keep_the_link() {
    let mut world = World::up(Weather::default());
    world.a.send("a:1", pattern(1, 4 << 20));
    world.run(Duration::from_millis(100), |_| false);
    world.rebind(1001);
    world.a.source.socket = SockId(9);
    world.a.link.replace_socket(SockId(0), SockId(9));
    assert!(world.run(Duration::from_secs(30), |world| world.a.closed == 1));
    assert_eq!(world.a.link.path(), Some(UdpPath::new(SockId(9), address(2, 2000))));
}
