//! Partitions, roaming, names.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use common::*;
use inp2p_driver::net::Net;
use inp2p_sim::{Fault, HostId, LinkConfig, SimNet, World};

/// Sends a datagram and says whether an answer comes within a second.
async fn answers(net: &SimNet, to: std::net::SocketAddr) -> bool {
    use futures_util::future::{Either, select};
    let mut socket = net.bind_udp(at("0.0.0.0", 0)).unwrap();
    if send_to(&mut socket, to, b"ping").await.is_err() {
        return false;
    }
    let (wait, answer) = (net.sleep(Duration::from_secs(1)), receive(&mut socket));
    matches!(select(Box::pin(answer), Box::pin(wait)).await, Either::Left(_))
}

fn with_echo(world: &World, host: HostId) {
    world.program(host, |net| {
        let inner = net.clone();
        net.spawn("udp echo", async move {
            let mut socket = inner.bind_udp(at("0.0.0.0", 7)).unwrap();
            loop {
                for (from, bytes) in receive(&mut socket).await {
                    // One that has no way back any more is no reason to end.
                    let _ = send_to(&mut socket, from, &bytes).await;
                }
            }
        });
    });
}

fn reaches(world: &World, from: HostId, to: &str) -> bool {
    let (net, to) = (world.net(from), at(to, 7));
    world.block_on(from, LIMIT, async move { answers(&net, to).await })
}

#[test]
fn a_cut_in_one_direction_is_felt_in_that_direction() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    with_echo(&world, a);
    with_echo(&world, b);
    assert!(reaches(&world, a, B) && reaches(&world, b, A));
    world.inject(Fault::Cut { from: a, to: b });
    assert!(!reaches(&world, a, B));
    let received =
        |world: &World| world.log().iter().filter(|e| e.event.to_string().contains("receives")).count();
    let before = received(&world);
    assert!(!reaches(&world, b, A));
    assert_eq!(received(&world), before + 1, "b's ping still reaches a");
    world.inject(Fault::Heal { from: a, to: b });
    assert!(reaches(&world, a, B));
}

#[test]
fn an_offline_window_passes() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    with_echo(&world, b);
    world.inject(Fault::Offline(b));
    assert!(!reaches(&world, a, B));
    world.inject(Fault::Online(b));
    assert!(reaches(&world, a, B));
}

#[test]
fn a_host_that_roams_is_found_at_its_new_address_only() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    with_echo(&world, b);
    let addresses = |net: &SimNet| {
        let up = net.interfaces().unwrap().into_iter().filter(|interface| interface.name != "lo");
        up.map(|interface| interface.address).collect::<Vec<IpAddr>>()
    };
    assert_eq!(addresses(&world.net(b)), [at(B, 0).ip()]);
    world.inject(Fault::Roam {
        host: b,
        interface: "eth0".to_owned(),
        network: None,
        addresses: vec!["203.0.113.5/32".to_owned()],
    });
    assert_eq!(addresses(&world.net(b)), [at("203.0.113.5", 0).ip()]);
    assert!(!reaches(&world, a, B));
    assert!(reaches(&world, a, "203.0.113.5"));
}

#[test]
fn an_interface_that_is_down_has_no_addresses_and_the_next_one_is_used() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    with_echo(&world, b);
    world.attach(a, world.internet(), &["203.0.113.5/32"], LinkConfig::default());
    assert!(reaches(&world, a, B));
    world.inject(Fault::InterfaceDown(a, "eth0".to_owned()));
    assert!(reaches(&world, a, B));
    assert!(world.log().iter().any(|entry| entry.event.to_string().contains("-> 203.0.113.5")));
    world.inject(Fault::InterfaceDown(a, "eth1".to_owned()));
    assert!(!reaches(&world, a, B));
    assert_eq!(world.net(a).interfaces().unwrap().len(), 2, "loopback stays");
    world.inject(Fault::InterfaceUp(a, "eth0".to_owned()));
    assert!(reaches(&world, a, B));
}

#[test]
fn names_resolve_and_unknown_ones_say_so() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    world.name("server.example", &[at("2001:db8::1", 0).ip(), at(B, 0).ip()]);
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        assert_eq!(net.resolve("b", 1).await.unwrap(), [at(B, 1)]);
        assert_eq!(net.resolve(B, 2).await.unwrap(), [at(B, 2)]);
        assert_eq!(net.resolve("server.example", 3).await.unwrap(), [at("2001:db8::1", 3), at(B, 3)]);
        assert_eq!(net.resolve("localhost", 4).await.unwrap(), [at("::1", 4), at("127.0.0.1", 4)]);
        assert_eq!(net.resolve("nobody.example", 5).await.unwrap_err().kind(), ErrorKind::NotFound);
        net.inject(Fault::Offline(net.host()));
        net.sleep(Duration::from_millis(1)).await;
        assert_eq!(net.resolve("b", 6).await.unwrap_err().kind(), ErrorKind::TimedOut);
    });
    let _ = b;
}

#[test]
fn a_plain_router_passes_both_families_both_ways() {
    let world = World::new(1);
    let (a, b) = (world.host("a"), world.host("b"));
    let lan = world.lan("office");
    world.attach(a, lan, &["198.18.0.2/24", "2001:db8:1::2/64"], LinkConfig::lan());
    world.attach(b, world.internet(), &[&format!("{B}/32"), "2001:db8:2::2/128"], LinkConfig::default());
    world.gateway(
        "router",
        (lan, &["198.18.0.1/24", "2001:db8:1::1/64"]),
        (world.internet(), &["203.0.113.1/32", "2001:db8:3::1/128"]),
        None,
        LinkConfig::default(),
    );
    for (from, to, address) in
        [(a, b, B), (b, a, "198.18.0.2"), (a, b, "2001:db8:2::2"), (b, a, "2001:db8:1::2")]
    {
        let net = world.net(to);
        world.spawn(to, "echo", async move { echo(net, 7).await });
        let net = world.net(from);
        world.block_on(from, LIMIT, async move {
            let mut stream = connect(&net, at(address, 7)).await.unwrap();
            write_all(&mut stream, b"hello").await.unwrap();
            assert_eq!(read_exact(&mut stream, 5).await.unwrap(), b"hello");
        });
        world.inject(Fault::Kill(to));
    }
}
