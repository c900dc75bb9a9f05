//! What lines do to packets is felt: a protocol of this test, which copes with nothing, fails by each of them
//! in the way that is to be expected, and by nothing else.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use inp2p_driver::net::Net;
use inp2p_sim::{LinkConfig, Loss};

/// What a receiver that believes in its network finds wrong with numbered datagrams.
#[derive(Debug, Default, Clone, PartialEq)]
struct Found {
    missing: usize,
    doubled: usize,
    overtaken: usize,
    changed: usize,
    /// The longest run of neighbours that are missing.
    run: usize,
}

/// Sends a thousand numbered datagrams of `size` bytes over a line, one each `every`.
fn found(line: LinkConfig, size: usize, every: Duration) -> Found {
    let (world, a, b) = two_hosts(7, LinkConfig::default());
    world.inject(inp2p_sim::Fault::Links { host: b, interface: "eth0".to_owned(), config: line });
    let got: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let (net, kept) = (world.net(b), got.clone());
    world.spawn(b, "receiver", async move {
        let mut socket = net.bind_udp(at(B, 7)).unwrap();
        loop {
            let datagrams = receive(&mut socket).await;
            kept.lock().unwrap().extend(datagrams.into_iter().map(|(_, bytes)| bytes));
        }
    });
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut socket = net.bind_udp(at(A, 7)).unwrap();
        for number in 0..COUNT {
            send_to(&mut socket, at(B, 7), &datagram(number, size)).await.unwrap();
            net.sleep(every).await;
        }
    });
    world.run_for(Duration::from_secs(5));
    let got = got.lock().unwrap().clone();
    let mut found = Found::default();
    let mut times = vec![0_usize; usize::from(COUNT)];
    let mut last = 0;
    for bytes in &got {
        let number = u16::from_be_bytes([bytes[0], bytes[1]]);
        if *bytes != datagram(number, size) || number >= COUNT {
            found.changed += 1;
            continue;
        }
        times[usize::from(number)] += 1;
        found.overtaken += usize::from(number < last && times[usize::from(number)] == 1);
        last = last.max(number);
    }
    found.doubled = times.iter().filter(|times| **times > 1).count();
    found.missing = usize::from(COUNT) - times.iter().filter(|times| **times > 0).count();
    found.run = times.split(|times| *times > 0).map(<[usize]>::len).max().unwrap();
    found
}

fn datagram(number: u16, size: usize) -> Vec<u8> {
    number.to_be_bytes().into_iter().chain((2..size).map(|at| (at * usize::from(number)) as u8)).collect()
}

const COUNT: u16 = 1_000;
const SMALL: usize = 100;
const MS: Duration = Duration::from_millis(1);

fn line() -> LinkConfig {
    LinkConfig::default()
}

#[test]
fn a_good_line_changes_nothing_whatever_its_delay_and_jitter() {
    let slow = LinkConfig { delay: 300 * MS, jitter: 200 * MS, ..line() };
    assert_eq!([line(), slow].map(|line| found(line, SMALL, MS)), [Found::default(), Found::default()]);
}

#[test]
fn loss_takes_datagrams_away_one_by_one_or_in_bursts() {
    let single = found(line().with_loss(0.05), SMALL, MS);
    assert!((20..80).contains(&single.missing) && single.run <= 4, "{single:?}");
    let bursts = LinkConfig { loss: Loss::Bursts { enter: 0.01, leave: 0.1, good: 0.0, bad: 0.9 }, ..line() };
    let bursts = found(bursts, SMALL, MS);
    assert!(bursts.missing > 20 && bursts.run >= 6, "{bursts:?}");
    for found in [single, bursts] {
        assert_eq!((found.doubled, found.overtaken, found.changed), (0, 0, 0));
    }
}

#[test]
fn a_line_that_repeats_doubles_and_loses_nothing() {
    let found = found(LinkConfig { duplicate: 0.05, ..line() }, SMALL, MS);
    assert!((20..80).contains(&found.doubled) && found.missing == 0 && found.changed == 0, "{found:?}");
}

#[test]
fn a_line_that_reorders_loses_nothing() {
    let found = found(LinkConfig { reorder: 0.05, ..line() }, SMALL, MS);
    assert!(found.overtaken > 10 && found.missing == 0 && found.changed == 0, "{found:?}");
}

#[test]
fn a_line_that_corrupts_changes_bytes() {
    let found = found(LinkConfig { corrupt: 0.05, ..line() }, SMALL, MS);
    assert!((20..80).contains(&found.changed) && found.missing == found.changed, "{found:?}");
}

#[test]
fn a_rate_whose_queue_is_short_drops_what_comes_in_a_burst() {
    let narrow = line().with_rate(1_000_000, 10_000);
    assert_eq!(found(narrow.clone(), SMALL, 2 * MS), Found::default());
    let found = found(narrow, SMALL, MS / 10);
    assert!(found.missing > 500, "{found:?}");
}

#[test]
fn a_carrier_that_polices_udp_drops_above_its_rate_alone() {
    let policed = LinkConfig { udp_rate: Some(1_000_000), ..line() };
    assert_eq!(found(policed.clone(), SMALL, 2 * MS), Found::default());
    let found = found(policed, SMALL, MS / 10);
    assert!(found.missing > 500, "{found:?}");
}

#[test]
fn what_is_larger_than_the_mtu_does_not_get_through_with_icmp_or_without() {
    for too_big in [true, false] {
        let narrow = LinkConfig { mtu: 1_280, too_big, ..line() };
        assert_eq!(found(narrow.clone(), 1_252, MS), Found::default());
        assert_eq!(found(narrow, 1_253, MS).missing, usize::from(COUNT));
    }
}

#[test]
fn a_router_that_bounds_segments_saves_tcp_from_a_black_hole() {
    for (clamps_mss, carried) in [(false, false), (true, true)] {
        let narrow = LinkConfig { mtu: 1_280, too_big: false, clamps_mss, ..line() };
        let world = inp2p_sim::World::new(1);
        let (a, b) = (world.host("a"), world.host("b"));
        world.attach(a, world.internet(), &[&format!("{A}/32")], line());
        // Neither end sees that the line between its router and the internet is narrow.
        let lan = world.lan("office");
        world.attach(b, lan, &["198.18.0.2/24"], LinkConfig::lan());
        let outside: (_, &[&str]) = (world.internet(), &["203.0.113.1/32"]);
        world.gateway("router", (lan, &["198.18.0.1/24"]), outside, None, narrow);
        let net = world.net(b);
        world.spawn(b, "echo", echo(net, 7));
        let net = world.net(a);
        let done = Arc::new(Mutex::new(false));
        let slot = done.clone();
        world.spawn(a, "client", async move {
            let mut stream = connect(&net, at("198.18.0.2", 7)).await.unwrap();
            write_all(&mut stream, &bytes(20_000)).await.unwrap();
            *slot.lock().unwrap() = read_exact(&mut stream, 20_000).await.is_ok();
        });
        world.run_for(Duration::from_secs(60));
        assert_eq!(*done.lock().unwrap(), carried);
    }
}
