//! The NATs of the model are seen as the table says that the kernel's are.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use inp2p_driver::net::{ListenIo, Net, TcpConfig};
use inp2p_sim::nat::{Numbers, Preset, SEEN, Seen, Unsolicited};
use inp2p_sim::{Fault, Home, HostId, LinkConfig, World};

#[test]
fn nats_are_seen_as_the_table_says() {
    for (preset, expected) in SEEN {
        assert_eq!(seen(preset), expected, "{preset}");
    }
}

fn seen(preset: Preset) -> Seen {
    let admitted = Bench::new(preset);
    let udp_admitted = admitted.udp_out(&[0]).first().map_or(0, |outside| admitted.comes_in(*outside));
    let around = Bench::new(preset);
    let hairpin = around.udp_out(&[0]).first().is_some_and(|outside| around.hairpins(*outside));
    let tcp: Vec<u16> = Bench::new(preset).tcp_out().iter().map(SocketAddr::port).collect();
    Seen {
        udp_ports: Bench::new(preset).udp_out(&[0, 1, 2, 3]).iter().collect::<BTreeSet<_>>().len(),
        udp_admitted,
        tcp_ports: tcp.iter().collect::<BTreeSet<_>>().len(),
        numbers: Numbers::of(INSIDE, &tcp),
        hairpin,
        unsolicited: Bench::new(preset).unsolicited(),
    }
}

/// A home with a node, and two public hosts.
struct Bench {
    world: World,
    home: Home,
    peers: [HostId; 2],
}

impl Bench {
    fn new(preset: Preset) -> Self {
        let world = World::new(1);
        let peers = [10, 11].map(|number| world.public_host("peer", number, LinkConfig::default()));
        let home = world.home("node", 1, preset, LinkConfig::default());
        Self { world, home, peers }
    }

    /// Sends to these peers from one port: the sources that they see.
    fn udp_out(&self, to: &[usize]) -> Vec<SocketAddr> {
        let seen: Vec<_> = to.iter().map(|peer| self.sources(self.peers[peer / 2], PEERS[*peer].1)).collect();
        let net = self.world.net(self.home.host);
        let to: Vec<_> = to.iter().map(|peer| at(PEERS[*peer].0, PEERS[*peer].1)).collect();
        self.world.block_on(self.home.host, LIMIT, async move {
            let mut socket = net.bind_udp(at("0.0.0.0", INSIDE)).unwrap();
            for to in to {
                send_to(&mut socket, to, b"out").await.unwrap();
            }
        });
        self.world.run_for(Duration::from_secs(1));
        // They leave their ports to others.
        self.peers.into_iter().for_each(|peer| self.world.inject(Fault::Kill(peer)));
        seen.iter().filter_map(|seen| seen.lock().unwrap().first().copied()).collect()
    }

    /// How many peers the node hears that write to this outside address.
    fn comes_in(&self, outside: SocketAddr) -> usize {
        let heard = self.sources(self.home.host, INSIDE);
        for (peer, (_, port)) in PEERS.into_iter().enumerate() {
            let net = self.world.net(self.peers[peer / 2]);
            self.world.block_on(self.peers[peer / 2], LIMIT, async move {
                let mut socket = net.bind_udp(at("0.0.0.0", port)).unwrap();
                send_to(&mut socket, outside, b"in").await.unwrap();
            });
        }
        self.world.run_for(Duration::from_secs(1));
        heard.lock().unwrap().len()
    }

    /// Whether another host of the home reaches the node by its outside address, and is seen by its own.
    fn hairpins(&self, outside: SocketAddr) -> bool {
        let other = self.world.host("other");
        self.world.attach(other, self.home.network, &["192.168.1.3/24"], LinkConfig::lan());
        let heard = self.sources(self.home.host, INSIDE);
        let net = self.world.net(other);
        self.world.block_on(other, LIMIT, async move {
            let mut socket = net.bind_udp(at("0.0.0.0", OTHER)).unwrap();
            send_to(&mut socket, outside, b"around").await.unwrap();
        });
        self.world.run_for(Duration::from_secs(1));
        heard.lock().unwrap().first() == Some(&at(&self.home.public, OTHER))
    }

    /// Connects to all peers from one port: the sources that they see.
    fn tcp_out(&self) -> Vec<SocketAddr> {
        let seen: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        for (peer, (_, port)) in PEERS.into_iter().enumerate() {
            let mut listener = listen(&self.world.net(self.peers[peer / 2]), port);
            let seen = seen.clone();
            self.world.spawn(self.peers[peer / 2], "peer", async move {
                let (stream, from) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
                seen.lock().unwrap().push(from);
                drop(stream);
            });
        }
        let net = self.world.net(self.home.host);
        self.world.block_on(self.home.host, LIMIT, async move {
            let config = TcpConfig {
                local: Some(at("192.168.1.2", INSIDE)),
                share_port: true,
                ..TcpConfig::default()
            };
            for (ip, port) in PEERS {
                connect_from(&net, &config, at(ip, port)).await.unwrap();
            }
        });
        self.world.run_for(Duration::from_secs(1));
        seen.lock().unwrap().clone()
    }

    fn unsolicited(&self) -> Unsolicited {
        let (net, to) = (self.world.net(self.peers[0]), at(&self.home.public, OTHER));
        let error = self.world.block_on(self.peers[0], LIMIT, async move {
            connect(&net, to).await.map(drop).unwrap_err().kind()
        });
        match error {
            ErrorKind::ConnectionRefused => Unsolicited::Reset,
            ErrorKind::TimedOut => Unsolicited::Drop,
            _ => panic!("{error}"),
        }
    }

    /// Who writes to a port of a host, from now on.
    fn sources(&self, host: HostId, port: u16) -> Arc<Mutex<Vec<SocketAddr>>> {
        let sources: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let noted = sources.clone();
        let mut socket = self.world.net(host).bind_udp(at("0.0.0.0", port)).unwrap();
        self.world.spawn(host, "receiver", async move {
            loop {
                let received = receive(&mut socket).await;
                noted.lock().unwrap().extend(received.iter().map(|(from, _)| *from));
            }
        });
        sources
    }
}

/// Two addresses with two ports each.
const PEERS: [(&str, u16); 4] =
    [("198.18.0.10", 100), ("198.18.0.10", 200), ("198.18.0.11", 100), ("198.18.0.11", 200)];
/// The node's port.
const INSIDE: u16 = 5000;
/// A port that nobody has written from.
const OTHER: u16 = 7000;
