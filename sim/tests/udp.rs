//! UDP, and what links do to it.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use common::*;
use inp2p_driver::net::{Net, RecvBatch, Transmit, UdpIo};
use inp2p_sim::{LinkConfig, Loss, World};

/// Sends `count` numbered datagrams, a millisecond apart, and returns the numbers as they arrive.
fn numbers(seed: u64, count: u32, link: LinkConfig) -> Vec<u32> {
    let world = World::new(seed);
    let (a, b) = (world.host("a"), world.host("b"));
    world.attach(a, world.internet(), &[&format!("{A}/32")], LinkConfig::default());
    world.attach(b, world.internet(), &[&format!("{B}/32")], link);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (net, slot) = (world.net(b), seen.clone());
    world.spawn(b, "receiver", async move {
        let mut socket = net.bind_udp(at("0.0.0.0", 9)).unwrap();
        loop {
            for (from, bytes) in receive(&mut socket).await {
                assert_eq!(from.ip(), at(A, 0).ip());
                slot.lock().unwrap().push(u32::from_be_bytes(bytes.try_into().unwrap()));
            }
        }
    });
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut socket = net.bind_udp(at("0.0.0.0", 0)).unwrap();
        for number in 0..count {
            send_to(&mut socket, at(B, 9), &number.to_be_bytes()).await.unwrap();
            net.sleep(Duration::from_millis(1)).await;
        }
    });
    world.run_for(Duration::from_secs(1));
    seen.lock().unwrap().clone()
}

#[test]
fn a_good_link_delivers_all_in_order_in_spite_of_jitter() {
    let link = LinkConfig { jitter: Duration::from_millis(5), ..LinkConfig::default() };
    assert_eq!(numbers(1, 1000, link), (0..1000).collect::<Vec<_>>());
}

#[test]
fn loss_is_as_frequent_as_asked_for() {
    let arrived = numbers(1, 10_000, LinkConfig::default().with_loss(0.1)).len();
    assert!((8_850..9_150).contains(&arrived), "{arrived}");
}

#[test]
fn bursts_lose_neighbours() {
    let loss = Loss::Bursts { enter: 0.01, leave: 0.2, good: 0.0, bad: 1.0 };
    let arrived = numbers(1, 20_000, LinkConfig { loss, ..LinkConfig::default() });
    let lost = 20_000 - arrived.len();
    // In the long run a fraction of 0.01 / 0.21 of the time is bad, in runs of 5.
    assert!((750..1_200).contains(&lost), "{lost}");
    let runs = arrived.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!((3.5..6.5).contains(&(lost as f64 / runs as f64)), "{lost} in {runs}");
}

#[test]
fn duplicates_are_as_frequent_as_asked_for() {
    let arrived = numbers(1, 10_000, LinkConfig { duplicate: 0.05, ..LinkConfig::default() });
    let distinct: BTreeSet<_> = arrived.iter().collect();
    assert_eq!(distinct.len(), 10_000);
    assert!((10_430..10_570).contains(&arrived.len()), "{}", arrived.len());
}

#[test]
fn reordering_is_as_frequent_as_asked_for() {
    let arrived = numbers(1, 10_000, LinkConfig { reorder: 0.05, ..LinkConfig::default() });
    let overtaken = arrived.windows(2).filter(|pair| pair[1] < pair[0]).count();
    // One that is held back by less than a millisecond, a fifth of them, is not overtaken.
    assert!((300..500).contains(&overtaken), "{overtaken}");
    assert_eq!(arrived.iter().collect::<BTreeSet<_>>().len(), 10_000);
}

#[test]
fn a_rate_delays_and_a_full_queue_drops_the_tail() {
    // 32 bytes each on the wire, one a millisecond: 256 kbit/s into half of that.
    let link = LinkConfig::default().with_rate(128_000, 3200);
    let arrived = numbers(1, 1000, link);
    // Half of them pass, and the hundred that fill the queue.
    assert!((595..=605).contains(&arrived.len()), "{}", arrived.len());
    assert_eq!(arrived[..100], (0..100).collect::<Vec<_>>());
}

#[test]
fn a_carrier_that_polices_udp_lets_its_rate_pass() {
    let link = LinkConfig { udp_rate: Some(64_000), ..LinkConfig::default() };
    let arrived = numbers(1, 4000, link).len();
    assert!((990..=1030).contains(&arrived), "{arrived}");
}

#[test]
fn corruption_changes_bytes_and_not_lengths() {
    let arrived = numbers(1, 1000, LinkConfig { corrupt: 0.1, ..LinkConfig::default() });
    let wrong = arrived.iter().enumerate().filter(|(i, number)| *i as u32 != **number).count();
    assert_eq!(arrived.len(), 1000);
    assert!((70..130).contains(&wrong), "{wrong}");
}

#[test]
fn segments_leave_as_datagrams_and_may_come_back_as_one_buffer() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let net = world.net(a);
    world.spawn(a, "sender", async move {
        let mut socket = net.bind_udp(at(A, 1000)).unwrap();
        assert!(socket.max_segments() >= 3);
        let transmit = Transmit { segment: Some(1000), ecn: 2, ..Transmit::plain(at(B, 9)) };
        poll_fn(|cx| socket.poll_send(cx, &transmit, &bytes(2500))).await.unwrap();
        send_to(&mut socket, at(B, 9), b"").await.unwrap();
    });
    let net = world.net(b);
    world.block_on(b, LIMIT, async move {
        let socket = net.bind_udp(at("0.0.0.0", 9)).unwrap();
        let mut batch = RecvBatch::new(4, 4096);
        let filled = poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        assert_eq!(filled, 2);
        let (_, metas) = batch.fill();
        assert_eq!((metas[0].len, metas[0].stride, metas[0].ecn), (2500, 1000, 2));
        assert_eq!((metas[0].from, metas[0].to), (at(A, 1000), Some(at(B, 0).ip())));
        assert_eq!((metas[1].len, metas[1].stride), (0, 0));
        let whole: Vec<u8> = batch.datagrams(1).flat_map(|(_, datagram)| datagram.to_vec()).collect();
        assert_eq!(whole, bytes(2500));
    });
}

#[test]
fn what_does_not_fit_the_interface_is_refused_and_what_does_not_fit_the_way_vanishes() {
    let world = World::new(1);
    let (a, b) = (world.host("a"), world.host("b"));
    world.attach(a, world.internet(), &[&format!("{A}/32")], LinkConfig::default());
    let narrow = LinkConfig { mtu: 1280, ..LinkConfig::default() };
    world.attach(b, world.internet(), &[&format!("{B}/32")], narrow);
    let net = world.net(b);
    let received = Arc::new(Mutex::new(Vec::new()));
    let slot = received.clone();
    world.spawn(b, "receiver", async move {
        let mut socket = net.bind_udp(at("0.0.0.0", 9)).unwrap();
        loop {
            let batch = receive(&mut socket).await;
            slot.lock().unwrap().extend(batch.into_iter().map(|(_, bytes)| bytes.len()));
        }
    });
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut socket = net.bind_udp(at("0.0.0.0", 0)).unwrap();
        let refused = send_to(&mut socket, at(B, 9), &[0; 1473]).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(if cfg!(target_os = "linux") { 90 } else { 40 }));
        for length in [1472, 1253, 1252] {
            send_to(&mut socket, at(B, 9), &vec![0; length]).await.unwrap();
        }
    });
    world.run_for(Duration::from_secs(1));
    assert_eq!(*received.lock().unwrap(), [1252]);
}

#[test]
fn a_slow_interface_holds_senders_back_and_wakes_all_of_them() {
    let slow = LinkConfig::default().with_rate(8_000_000, 4 << 20);
    let (world, a, _) = two_hosts(1, slow);
    let done = Arc::new(Mutex::new(0));
    for _ in 0..100 {
        let (net, done) = (world.net(a), done.clone());
        world.spawn(a, "sender", async move {
            let mut socket = net.bind_udp(at("0.0.0.0", 0)).unwrap();
            for _ in 0..20 {
                send_to(&mut socket, at(B, 9), &[0; 1200]).await.unwrap();
            }
            *done.lock().unwrap() += 1;
        });
    }
    world.run_for(Duration::from_millis(100));
    assert!(*done.lock().unwrap() < 20);
    // 2.4 MB at 1 MB/s.
    world.run_for(Duration::from_secs(3));
    assert_eq!(*done.lock().unwrap(), 100);
}

#[test]
fn a_receiver_that_does_not_read_loses_the_newest() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let net = world.net(a);
    let sink = world.net(b).bind_udp(at("0.0.0.0", 9)).unwrap();
    world.block_on(a, LIMIT, async move {
        let mut socket = net.bind_udp(at("0.0.0.0", 0)).unwrap();
        for _ in 0..500 {
            send_to(&mut socket, at(B, 9), &[0; 1000]).await.unwrap();
        }
    });
    world.run_for(Duration::from_secs(1));
    let full = world.log().iter().filter(|entry| entry.event.to_string().contains("receiver full")).count();
    assert_eq!(full, 500 - 212);
    drop(sink);
}

#[test]
fn sockets_are_told_apart_by_address_and_family() {
    let (world, a, _) = two_hosts(1, LinkConfig::default());
    let net = world.net(a);
    let _v4 = net.bind_udp(at("0.0.0.0", 9)).unwrap();
    let _v6 = net.bind_udp(at("::1", 9)).unwrap();
    assert_eq!(net.bind_udp(at("::", 9)).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(net.bind_udp(at(A, 9)).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(net.bind_udp(at(B, 10)).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    let (one, two) = (net.bind_udp(at(A, 0)).unwrap(), net.bind_udp(at("127.0.0.1", 0)).unwrap());
    assert_ne!(one.local_addr().unwrap().port(), two.local_addr().unwrap().port());
    world.block_on(a, LIMIT, async move {
        let mut two = two;
        let unreachable = send_to(&mut two, at(B, 9), b"x").await.unwrap_err();
        assert_eq!(unreachable.kind(), ErrorKind::NetworkUnreachable);
        let mut one = one;
        send_to(&mut one, at(A, 9), b"to itself").await.unwrap();
        let mut v4 = _v4;
        assert_eq!(receive(&mut v4).await[0].1, b"to itself");
        let mut batch = RecvBatch::new(1, 100);
        let nothing = poll_fn(|cx| Poll::Ready(v4.poll_recv(cx, &mut batch).is_pending())).await;
        assert!(nothing);
    });
}
