//! The whole stack: a server and two nodes, the driver unchanged.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use inp2p_driver::agent::AgentHandle;
use inp2p_driver::net::{Net, StreamIo};
use inp2p_sim::nat::Preset;
use inp2p_sim::{Fault, HostId, LinkConfig, World, programs};

/// A server, node `a` with a forward to port 22 of node `b`, and an echo service there.
struct Trio {
    world: World,
    server: HostId,
    a: HostId,
    b: HostId,
    /// What asks node `a` for its status.
    agent: Arc<Mutex<Option<Arc<AgentHandle>>>>,
}

impl Trio {
    fn new(seed: u64, nats: [Preset; 2]) -> Self {
        let world = World::new(seed);
        let server = world.public_host("server", 10, LinkConfig::default());
        let a = world.home("a", 1, nats[0], LinkConfig::default()).host;
        let b = world.home("b", 2, nats[1], LinkConfig::default()).host;
        world.program(server, |net| {
            let inner = net.clone();
            net.spawn("main", async move {
                let setup = programs::server(&inner);
                let _server = inp2p_driver::server::start(inner, setup).await.unwrap();
                std::future::pending::<()>().await;
            });
        });
        let agent: Arc<Mutex<Option<Arc<AgentHandle>>>> = Arc::default();
        let slot = agent.clone();
        world.program(a, move |net| {
            let (inner, slot) = (net.clone(), slot.clone());
            net.spawn("main", async move {
                let setup = programs::node(&inner, "a", "server", &["2222:b:22"]);
                let handle = inp2p_driver::agent::start(inner, setup).await.unwrap();
                *slot.lock().unwrap() = Some(Arc::new(handle));
                std::future::pending::<()>().await;
            });
        });
        world.program(b, |net| {
            net.spawn("echo", echo(net.clone(), 22));
            let inner = net.clone();
            net.spawn("main", async move {
                let setup = programs::node(&inner, "b", "server", &[]);
                let _node = inp2p_driver::agent::start(inner, setup).await.unwrap();
                std::future::pending::<()>().await;
            });
        });
        Self { world, server, a, b, agent }
    }

    /// Sends so many bytes through the forward and checks that they come back.
    fn carries(&self, length: usize) {
        let net = self.world.net(self.a);
        self.world.block_on(self.a, LIMIT, async move { through(&net, length).await });
    }

    fn rung(&self) -> Option<String> {
        let agent = self.agent.lock().unwrap().clone().unwrap();
        let status = self.world.block_on(self.a, LIMIT, async move { agent.status().await });
        let peer = status.peers.first()?;
        peer.rung.map(|rung| rung.as_str().to_owned())
    }
}

#[test]
fn nodes_log_in_and_a_forward_carries_bytes_both_ways() {
    let trio = Trio::new(1, [Preset::Open, Preset::Open]);
    trio.world.run_for(Duration::from_secs(3));
    trio.carries(300_000);
    assert_eq!(trio.rung().as_deref(), Some("udp-direct"));
}

#[test]
fn one_side_behind_a_nat_is_enough_for_a_direct_link() {
    for nats in [[Preset::PortRestricted, Preset::Open], [Preset::Open, Preset::SymmetricRandom]] {
        let trio = Trio::new(1, nats);
        trio.world.run_for(Duration::from_secs(3));
        trio.carries(10_000);
        assert_eq!(trio.rung().as_deref(), Some("udp-direct"), "{nats:?}");
    }
}

#[test]
fn where_no_udp_passes_the_link_is_a_tcp_connection() {
    for nats in [[Preset::UdpBlocked, Preset::Open], [Preset::Open, Preset::UdpBlocked]] {
        let trio = Trio::new(1, nats);
        trio.world.run_for(Duration::from_secs(3));
        trio.carries(10_000);
        assert_eq!(trio.rung().as_deref(), Some("tcp-direct"), "{nats:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let trio = Trio::new(7, [Preset::Open, Preset::PortRestricted]);
        trio.world.run_for(Duration::from_secs(3));
        trio.carries(100_000);
        trio.world.run_for(Duration::from_secs(60));
        (trio.world.hash(), trio.world.timeline(10_000))
    };
    let (first, second) = (run(), run());
    for (a, b) in first.1.lines().zip(second.1.lines()) {
        assert_eq!(a, b);
    }
    assert_eq!(first.0, second.0);
}

/// Streams go on all the while; both nodes are back so many seconds after the server is.
fn server_outage(fault: fn(HostId) -> Fault, seconds: u64) {
    let trio = Trio::new(3, [Preset::Open, Preset::Open]);
    trio.world.run_for(Duration::from_secs(3));
    let net = trio.world.net(trio.a);
    let server = trio.server;
    trio.world.block_on(trio.a, LIMIT, async move {
        let mut stream = connect(&net, at("127.0.0.1", 2222)).await.unwrap();
        let start = net.now();
        for round in 0..15 + seconds {
            match round {
                5 => net.inject(fault(server)),
                15 => net.inject(Fault::Restart(server)),
                _ => {}
            }
            write_all(&mut stream, &[round as u8; 1000]).await.unwrap();
            assert_eq!(read_exact(&mut stream, 1000).await.unwrap(), [round as u8; 1000]);
            net.sleep_until(start + Duration::from_secs(round + 1)).await;
        }
    });
    let agent = trio.agent.lock().unwrap().clone().unwrap();
    let status = trio.world.block_on(trio.a, LIMIT, async move { agent.status().await });
    assert!(status.server.connected && status.server.relogins == 1, "{:?}", status.server);
}

#[test]
fn a_server_that_was_stopped_finds_its_nodes_again_and_streams_go_on_meanwhile() {
    server_outage(Fault::Kill, 15);
}

/// Nobody is told of a crash: the nodes find out by their next heartbeat.
#[test]
fn a_server_that_crashed_finds_its_nodes_again_and_streams_go_on_meanwhile() {
    server_outage(Fault::Crash, 60);
}

#[test]
fn a_node_that_crashes_is_reached_again_once_it_is_back() {
    let trio = Trio::new(4, [Preset::Open, Preset::Open]);
    trio.world.run_for(Duration::from_secs(3));
    trio.carries(1000);
    trio.world.inject(Fault::Crash(trio.b));
    trio.world.run_for(Duration::from_secs(10));
    trio.world.inject(Fault::Restart(trio.b));
    trio.world.run_for(Duration::from_secs(45));
    trio.carries(1000);
}

#[test]
fn nothing_is_left_of_programs_that_were_told_to_stop() {
    let world = World::new(5);
    let server = world.public_host("server", 10, LinkConfig::default());
    let nodes = [1, 2].map(|number| {
        world.home(["", "a", "b"][usize::from(number)], number, Preset::Open, LinkConfig::default())
    });
    let net = world.net(server);
    world.spawn(server, "main", async move {
        let mut handle = inp2p_driver::server::start(net.clone(), programs::server(&net)).await.unwrap();
        net.sleep(Duration::from_secs(20)).await;
        handle.shutdown();
        handle.wait().await.unwrap();
    });
    let [a, b] = nodes.map(|home| home.host);
    for (host, name, forwards) in [(a, "a", &["2222:b:22"][..]), (b, "b", &[])] {
        let net = world.net(host);
        world.spawn(host, "main", async move {
            let setup = programs::node(&net, name, "server", forwards);
            let mut handle = inp2p_driver::agent::start(net.clone(), setup).await.unwrap();
            net.sleep(Duration::from_secs(10)).await;
            handle.shutdown();
            handle.wait().await;
        });
    }
    let net = world.net(b);
    world.spawn(b, "service", async move {
        let mut stream = accept(&mut listen(&net, 22)).await;
        let all = read_to_end(&mut stream).await.unwrap();
        write_all(&mut stream, &all).await.unwrap();
    });
    world.run_for(Duration::from_secs(3));
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut stream = connect(&net, at("127.0.0.1", 2222)).await.unwrap();
        write_all(&mut stream, b"hello").await.unwrap();
        stream.shutdown().unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"hello");
    });
    // Longer than any wait for the end of a connection.
    world.run_for(Duration::from_secs(150));
    for host in [server, a, b] {
        assert_eq!(world.counts(host), inp2p_sim::Counts::default(), "tasks {:?}", world.tasks(host));
    }
}
