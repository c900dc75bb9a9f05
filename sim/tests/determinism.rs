//! The same seed gives the same run.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::time::Duration;

use common::*;
use inp2p_driver::net::Net;
use inp2p_sim::{Fault, LinkConfig, World};

/// Ten clients of one echo server, over links that do everything, with faults.
fn busy(seed: u64) -> World {
    let world = World::new(seed);
    let rough = LinkConfig {
        jitter: Duration::from_millis(7),
        duplicate: 0.01,
        reorder: 0.02,
        ..LinkConfig::default().with_loss(0.02).with_rate(20_000_000, 100_000)
    };
    let server = world.host("server");
    world.attach(server, world.internet(), &["198.51.100.1/32"], rough.clone());
    world.program(server, |net| {
        let inner = net.clone();
        net.spawn("echo server", echo(inner, 7));
    });
    for number in 0..10_u16 {
        let host = world.host("client");
        world.attach(host, world.internet(), &[&format!("203.0.113.{number}/32")], rough.clone());
        let net = world.net(host);
        world.spawn(host, "client", async move {
            loop {
                if let Ok(mut stream) = connect(&net, at("198.51.100.1", 7)).await {
                    let length = usize::from(net.seed()[0]) * 100 + 1;
                    let _ = write_all(&mut stream, &bytes(length)).await;
                    let _ = read_exact(&mut stream, length).await;
                }
                net.sleep(Duration::from_millis(50)).await;
            }
        });
    }
    world.inject_at(Duration::from_secs(5), Fault::Crash(server));
    world.inject_at(Duration::from_secs(8), Fault::Restart(server));
    world.run_for(Duration::from_secs(20));
    world
}

#[test]
fn the_same_seed_gives_the_same_hash() {
    let (first, second) = (busy(7), busy(7));
    assert_eq!(first.timeline(500), second.timeline(500));
    assert_eq!((first.hash(), first.events()), (second.hash(), second.events()));
    assert!(first.events() > 10_000, "{}", first.events());
}

#[test]
fn another_seed_gives_another_hash() {
    assert_ne!(busy(7).hash(), busy(8).hash());
}

#[test]
fn payload_does_not_enter_the_hash() {
    let hash = |payload: [u8; 5]| {
        let (world, a, b) = two_hosts(1, LinkConfig::default());
        let net = world.net(b);
        world.spawn(b, "echo server", echo(net, 7));
        let net = world.net(a);
        world.block_on(a, LIMIT, async move {
            let mut stream = connect(&net, at(B, 7)).await.unwrap();
            write_all(&mut stream, &payload).await.unwrap();
            read_exact(&mut stream, 5).await.unwrap();
        });
        world.hash()
    };
    assert_eq!(hash(*b"hello"), hash(*b"world"));
}
