//! What those who are not the peer can do: nothing.

use super::*;
use crate::link::udp::probe::{Kind, Transaction};

#[test]
fn a_key_other_than_the_expected_one_is_refused_by_either_side() {
    let mut world = World::of(Weather::default(), (1, 3), (2, 1), &PUNCH);
    world.run(Duration::from_secs(2), |_| false);
    assert!(matches!(world.a.link.ending(), Some(UdpError::Quic(_))), "{:?}", world.a.link);
    assert!(!world.b.link.is_up());

    let mut world = World::of(Weather::default(), (1, 2), (2, 3), &PUNCH);
    world.run(Duration::from_secs(2), |_| false);
    assert!(matches!(world.a.link.ending(), Some(UdpError::Quic(_))), "{:?}", world.a.link);
    assert!(matches!(world.b.link.ending(), Some(UdpError::Quic(_))), "{:?}", world.b.link);
    assert_eq!(world.b.above.heard, b"");
}

#[test]
fn another_punch_key_never_reaches_quic() {
    let mut world = World::of(Weather::default(), (1, 2), (2, 1), &[3; 32]);
    world.run(Duration::from_secs(5), |_| false);
    let by_a = world.sent.iter().filter(|(_, is_a, ..)| *is_a).count();
    assert!(by_a >= 4);
    assert_eq!(world.b.link.dropped(), by_a as u64);
    assert!(world.b.link.quic.connection().is_none());
    assert_eq!(world.sent.len(), by_a, "and nobody is answered");
}

#[test]
fn a_hundred_thousand_forged_datagrams_change_nothing() {
    let mut world = World::up(Weather::default());
    world.a.send("a:1", pattern(1, 2 << 20));
    world.b.send("b:1", pattern(2, 2 << 20));
    world.run(Duration::from_millis(50), |_| false);
    let (path_a, path_b) = (world.a.link.path(), world.b.link.path());
    let mut rng = Rng::new([77; 32]);
    let before = world.sent.len();
    for n in 0..100_000_u32 {
        let mut bytes = rng.bytes::<64>().to_vec();
        let length = rng.below(64) as usize;
        bytes.truncate(length);
        let from = address(9, n as u16);
        let end = if n % 2 == 0 { &mut world.a } else { &mut world.b };
        // Half of them look like something: a probe with the right tag, a packet with the right label.
        let head = match n % 4 {
            0 => [&[0x20, 1, 1, 2][..], &end.link.probe_tag().0].concat(),
            1 => [&[0x40 | (n as u8 >> 3)][..], &end.link.label().0].concat(),
            _ => Vec::new(),
        };
        let forged = [head, bytes].concat();
        end.link.datagram(world.now, SockId(0), from, 0, &forged);
    }
    assert_eq!((world.a.link.path(), world.b.link.path()), (path_a, path_b));
    world.turn(true);
    world.turn(false);
    assert!(world.sent[before..].iter().all(|(_, _, to, _)| to.ip() != address(9, 0).ip()));
    assert!(world.run(Duration::from_secs(30), |world| world.a.closed == 2 && world.b.closed == 2));
    assert!(world.b.received["a:1"] == pattern(1, 2 << 20));
    assert!(world.a.received["b:1"] == pattern(2, 2 << 20));
    assert!(world.sent.iter().all(|(_, _, to, _)| to.ip() != address(9, 0).ip()));
}

#[test]
fn forged_probes_during_the_handshake_change_nothing() {
    let mut world = World::new(Weather::default());
    let tag = world.a.link.probe_tag();
    let wrong = ProbeKey::of_attempt(ATTEMPT, &[4; 32]);
    for n in 0..100_000_u32 {
        let from = address(9, n as u16);
        let mut transaction = [0; 12];
        transaction[..4].copy_from_slice(&n.to_be_bytes());
        let kind = if n % 2 == 0 { Kind::Request } else { Kind::Answer };
        let forged = probe::encode(kind, Role::Controlled, tag, Transaction(transaction), &wrong);
        world.a.link.datagram(world.now, SockId(0), from, 0, &forged);
    }
    assert_eq!(world.a.link.dropped(), 100_000);
    assert!(world.run(Duration::from_secs(1), |world| world.a.link.is_up() && world.b.link.is_up()));
    assert_eq!(world.elapsed(), DELAY * 3);
    assert!(world.sent.iter().all(|(_, _, to, _)| to.ip() != address(9, 0).ip()));
}

#[test]
fn the_punch_key_moves_nothing_once_a_link_is_up() {
    // The server knows it.
    let mut world = World::up(Weather::default());
    let key = ProbeKey::of_attempt(ATTEMPT, &PUNCH);
    let request =
        probe::encode(Kind::Request, Role::Controlled, world.a.link.probe_tag(), Transaction([1; 12]), &key);
    world.a.link.datagram(world.now, SockId(0), address(9, 1), 0, &request);
    world.run(Duration::from_secs(1), |_| false);
    assert_eq!(world.a.link.dropped(), 1);
    assert!(world.sent.iter().all(|(_, _, to, _)| *to != address(9, 1)));
}

#[test]
fn a_copied_datagram_sent_on_from_elsewhere_moves_nothing_and_earns_nothing_twice() {
    let mut world = World::up(Weather::default());
    world.a.send("a:1", pattern(1, 1 << 20));
    world.turn(true);
    // Somebody on the way is faster than the datagrams themselves, for all of them.
    let copies: Vec<Vec<u8>> = world.under_way.iter().map(|Reverse(flight)| flight.bytes.clone()).collect();
    assert!(copies.len() > 5);
    let path = world.b.link.path();
    for _ in 0..100 {
        for copy in &copies {
            world.b.link.datagram(world.now, SockId(0), address(9, 1), 0, copy);
        }
    }
    assert!(world.run(Duration::from_secs(10), |world| world.a.closed == 1 && world.b.closed == 1));
    assert_eq!(world.b.link.path(), path);
    let to_thief: Vec<_> = world.sent.iter().filter(|(_, _, to, _)| *to == address(9, 1)).collect();
    assert_eq!(to_thief.len(), 1);
    assert_eq!(to_thief[0].3, probe::LENGTH);
    assert!(world.b.received["a:1"] == pattern(1, 1 << 20));
}

#[test]
fn version_negotiation_retry_and_other_versions_end_nothing() {
    let mut world = World::new(Weather::default());
    world.turn(true);
    let label = world.a.link.label();
    for (first, version) in [(0xc0, 0_u32), (0xf0, 1), (0xc0, 2), (0xd0, 1)] {
        let mut bytes = vec![first];
        bytes.extend(version.to_be_bytes());
        bytes.push(12);
        bytes.extend([&label.0[..], &[0; 4], &[16], &[7; 16], &0xff00_001d_u32.to_be_bytes()].concat());
        bytes.resize(1200, 0);
        world.a.link.datagram(world.now, SockId(0), address(2, 2000), 0, &bytes);
    }
    assert!(world.run(Duration::from_secs(1), |world| world.a.link.is_up() && world.b.link.is_up()));
    assert_eq!(world.a.link.dropped(), 4);
}

#[test]
fn a_lane_that_breaks_a_rule_ends_the_link() {
    // The peer says that the lane belongs to a stream of this side's.
    let mut world = World::up(Weather::default());
    world.b.above.mux = Mux::new(Side::Controlling, Config::default());
    world.b.above.mux.attach(world.now, &Resume::default()).unwrap();
    world.b.above.mux.open(Protocol::Tcp, "x:1").unwrap();
    let conn = world.b.link.quic.connection().unwrap();
    let stream = conn.streams().open(quinn_proto::Dir::Bi).unwrap();
    let mut frame = [0; 2000];
    let syn = Frame::Syn { stream: 1, protocol: Protocol::Tcp, target: "x:1", limit: 1 << 14 };
    let n = syn.encode(&mut frame).unwrap();
    conn.send_stream(stream).write(&1_u32.to_be_bytes()).unwrap();
    conn.send_stream(stream).write(&frame[..n]).unwrap();
    let mut out = Vec::new();
    let transmit = world.b.link.poll_transmit(world.now, 1, &mut out).unwrap();
    world.a.link.datagram(world.now, SockId(0), world.b.source.remote, transmit.ecn, &out);
    let error = world.a.link.receive(world.now, &mut world.a.above).unwrap_err();
    assert!(matches!(error, UdpError::Lane(_)), "{error}");
}
