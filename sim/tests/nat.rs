//! NATs behave as RFC 4787 and RFC 5382 say, and the presets as their names say.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use inp2p_driver::net::{ListenIo, Net, StreamIo, TcpConfig, Transmit, UdpIo};
use inp2p_sim::nat::Dependence::{self, AddressAndPortDependent, AddressDependent, EndpointIndependent};
use inp2p_sim::nat::{NatConfig, Ports, Preset, Unsolicited};
use inp2p_sim::{Fault, Home, HostId, LinkConfig, SimUdp, World};

/// One node behind a NAT, and two public hosts with two UDP ports each, which note who writes to them.
struct Lab {
    world: World,
    node: Home,
    peers: [HostId; 2],
    /// What the peers' sockets received: which socket, from where.
    seen: Arc<Mutex<Vec<(usize, SocketAddr)>>>,
    /// What the node's socket received: from where.
    arrived: Arc<Mutex<Vec<SocketAddr>>>,
}

const PEERS: [(&str, u16); 4] =
    [("198.18.0.10", 100), ("198.18.0.10", 200), ("198.18.0.11", 100), ("198.18.0.11", 200)];

impl Lab {
    fn new(nats: Vec<NatConfig>) -> Self {
        let world = World::new(1);
        let peers = [10, 11].map(|number| world.public_host("peer", number, LinkConfig::default()));
        let node = world.behind("node", 1, nats, LinkConfig::default());
        let (seen, arrived) = (Arc::default(), Arc::default());
        Self { world, node, peers, seen, arrived }
    }

    /// Sends from one of the node's ports to one of the peers, and returns how it was seen.
    fn out(&self, port: u16, peer: usize) -> Option<SocketAddr> {
        let (ip, to_port) = PEERS[peer];
        let host = self.peers[peer / 2];
        let mut socket = self.world.net(host).bind_udp(at(ip, to_port)).unwrap();
        let net = self.world.net(self.node.host);
        self.world.block_on(self.node.host, LIMIT, async move {
            let mut own = net.bind_udp(at("0.0.0.0", port)).unwrap();
            send_to(&mut own, at(ip, to_port), b"out").await.unwrap();
        });
        let seen = self.seen.clone();
        self.world.spawn(host, "peer", async move {
            for (from, _) in receive(&mut socket).await {
                seen.lock().unwrap().push((peer, from));
            }
        });
        self.world.run_for(Duration::from_millis(100));
        self.world.inject(Fault::Kill(host));
        self.seen.lock().unwrap().pop().map(|(_, from)| from)
    }

    /// Whether what a peer sends to an outside address reaches the node's socket on that port.
    fn comes_in(&self, port: u16, peer: usize, to: SocketAddr) -> bool {
        let (ip, from_port) = PEERS[peer];
        let mut own: SimUdp = self.world.net(self.node.host).bind_udp(at("0.0.0.0", port)).unwrap();
        let arrived = self.arrived.clone();
        self.world.spawn(self.node.host, "receiver", async move {
            for (from, _) in receive(&mut own).await {
                arrived.lock().unwrap().push(from);
            }
        });
        let net = self.world.net(self.peers[peer / 2]);
        self.world.block_on(self.peers[peer / 2], LIMIT, async move {
            let mut socket = net.bind_udp(at(ip, from_port)).unwrap();
            send_to(&mut socket, to, b"in").await.unwrap();
        });
        self.world.run_for(Duration::from_millis(100));
        self.world.inject(Fault::Kill(self.node.host));
        self.arrived.lock().unwrap().pop() == Some(at(ip, from_port))
    }

    /// Sends from the first peer to an outside address what goes so many hops only.
    fn open(&self, to: SocketAddr, hops: u8) {
        let net = self.world.net(self.peers[0]);
        self.world.block_on(self.peers[0], LIMIT, async move {
            let socket = net.bind_udp(at(PEERS[0].0, PEERS[0].1)).unwrap();
            let opener = Transmit { hops: Some(hops), ..Transmit::plain(to) };
            poll_fn(|cx| socket.poll_send(cx, &opener, b"opener")).await.unwrap();
        });
        self.world.run_for(Duration::from_millis(100));
    }
}

fn nat(mapping: Dependence, filtering: Dependence) -> NatConfig {
    NatConfig::default().mapping(mapping).filtering(filtering)
}

#[test]
fn mapping_depends_on_what_it_should() {
    for (mapping, distinct) in [(EndpointIndependent, 1), (AddressDependent, 2), (AddressAndPortDependent, 4)]
    {
        for ports in [Ports::Random, Ports::Sequential { step: 3 }, Ports::Block { size: 100 }] {
            let config = NatConfig { ports, ..nat(mapping, EndpointIndependent) };
            let lab = Lab::new(vec![config]);
            let seen: Vec<_> = (0..4).map(|peer| lab.out(5000, peer).unwrap()).collect();
            assert!(seen.iter().all(|from| from.ip().to_string() == lab.node.public));
            assert_eq!(
                seen.iter().collect::<BTreeSet<_>>().len(),
                distinct,
                "{mapping:?} {ports:?} {seen:?}"
            );
            let again: Vec<_> = (0..4).map(|peer| lab.out(5000, peer).unwrap()).collect();
            assert_eq!(seen, again, "a mapping lasts");
        }
    }
}

#[test]
fn filtering_depends_on_what_it_should() {
    // The node has written to the first peer's first port only.
    for (filtering, admitted) in [
        (EndpointIndependent, [true, true, true, true]),
        (AddressDependent, [true, true, false, false]),
        (AddressAndPortDependent, [true, false, false, false]),
    ] {
        let lab = Lab::new(vec![nat(EndpointIndependent, filtering)]);
        let outside = lab.out(5000, 0).unwrap();
        let came_in = [3, 2, 1, 0].map(|peer| lab.comes_in(5000, peer, outside));
        assert_eq!(came_in, [admitted[3], admitted[2], admitted[1], admitted[0]], "{filtering:?}");
        assert!(!lab.comes_in(5000, 0, SocketAddr::new(outside.ip(), outside.port() + 1)), "no such mapping");
    }
}

#[test]
fn ports_are_assigned_as_asked_for() {
    let ports_of = |ports| {
        let lab = Lab::new(vec![NatConfig { ports, ..nat(AddressAndPortDependent, EndpointIndependent) }]);
        let of = |(port, peer)| i32::from(lab.out(port, peer).unwrap().port());
        [(5000, 0), (5000, 1), (5000, 2), (6000, 0), (80, 3)].map(of)
    };
    assert_eq!(ports_of(Ports::Preserving), [5000, 5000, 5000, 6000, 1024]);
    let sequential = ports_of(Ports::Sequential { step: 2 });
    assert!(sequential.windows(2).all(|pair| pair[1] - pair[0] == 2), "{sequential:?}");
    let random = ports_of(Ports::Random);
    assert!(random.windows(2).all(|pair| (pair[1] - pair[0]).abs() > 5), "{random:?}");
    assert_eq!(ports_of(Ports::Block { size: 100 }), [1024, 1025, 1026, 1027, 1028]);
}

#[test]
fn two_hosts_that_want_the_same_port_get_two() {
    let lab = Lab::new(vec![NatConfig::default()]);
    let other = lab.world.host("other");
    lab.world.attach(other, lab.node.network, &["192.168.1.3/24"], LinkConfig::lan());
    assert_eq!(lab.out(5000, 0).unwrap().port(), 5000);
    let lab = Lab { node: Home { host: other, ..lab.node.clone() }, ..lab };
    assert_eq!(lab.out(5000, 0).unwrap().port(), 5001);
}

#[test]
fn a_block_has_an_end() {
    let lab = Lab::new(vec![NatConfig { ports: Ports::Block { size: 2 }, ..NatConfig::default() }]);
    assert_eq!([5000, 5001, 5002].map(|port| lab.out(port, 0).is_some()), [true, true, false]);
}

#[test]
fn a_full_table_takes_nobody_new_until_something_expires() {
    let config = NatConfig { table_limit: 2, udp_expiry: Duration::from_secs(30), ..NatConfig::default() };
    let lab = Lab::new(vec![config]);
    assert_eq!([0, 1, 2].map(|peer| lab.out(5000, peer).is_some()), [true, true, false]);
    assert!(lab.out(5000, 1).is_some(), "who is in stays in");
    lab.world.run_for(Duration::from_secs(31));
    assert!(lab.out(5000, 2).is_some());
}

#[test]
fn mappings_expire_unless_they_are_refreshed() {
    for inbound_refreshes in [true, false] {
        let config = NatConfig {
            udp_expiry: Duration::from_secs(30),
            udp_inbound_refreshes: inbound_refreshes,
            ports: Ports::Random,
            ..NatConfig::default()
        };
        let lab = Lab::new(vec![config]);
        let outside = lab.out(5000, 0).unwrap();
        lab.world.run_for(Duration::from_secs(25));
        assert_eq!(lab.out(5000, 0), Some(outside), "what leaves refreshes");
        lab.world.run_for(Duration::from_secs(25));
        assert!(lab.comes_in(5000, 0, outside));
        lab.world.run_for(Duration::from_secs(25));
        assert_eq!(lab.comes_in(5000, 0, outside), inbound_refreshes);
        lab.world.run_for(Duration::from_secs(35));
        assert_ne!(lab.out(5000, 0), Some(outside), "a new mapping has another port");
    }
}

/// A home router without a firewall, whose mappings last longer than what it takes for its own.
fn bare() -> Lab {
    Lab::new(Preset::Bare.nats())
}

#[test]
fn what_comes_unasked_takes_the_port_for_that_peer() {
    let lab = bare();
    let kept = at(&lab.node.public, 5000);
    assert_eq!(lab.out(5000, 0), Some(kept));
    assert!(!lab.comes_in(5000, 1, kept), "it is for the router");
    let other = lab.out(5000, 1).unwrap();
    assert_ne!(other, kept);
    assert!(lab.comes_in(5000, 1, other) && !lab.comes_in(5000, 1, kept));
    assert_eq!(lab.out(6000, 1), Some(at(&lab.node.public, 6000)), "another port is not concerned");
}

#[test]
fn after_a_clash_every_later_flow_has_its_port() {
    let lab = bare();
    let kept = at(&lab.node.public, 5000);
    assert_eq!(lab.out(5000, 0), Some(kept));
    assert!(!lab.comes_in(5000, 1, kept));
    let other = lab.out(5000, 1).unwrap();
    let seen = [0, 1, 2, 3].map(|peer| lab.out(5000, peer).unwrap());
    assert_eq!(seen, [kept, other, other, other], "a flow that was there keeps its own");
    let came_in = [0, 1, 2, 3].map(|peer| lab.comes_in(5000, peer, seen[peer]));
    assert_eq!(came_in, [true; 4]);
}

#[test]
fn what_the_router_has_taken_it_gives_back_after_half_a_minute() {
    let lab = bare();
    let kept = at(&lab.node.public, 5000);
    for _ in 0..3 {
        assert!(!lab.comes_in(5000, 1, kept));
        lab.world.run_for(Duration::from_secs(29));
    }
    let claimed = lab.out(5000, 1);
    assert!(claimed.is_some() && claimed != Some(kept), "the last packet counts");
    lab.world.run_for(Duration::from_secs(121));
    assert_eq!(lab.out(5000, 1), Some(kept));
    // What the host has begun is its own.
    assert!(lab.comes_in(5000, 1, kept));
    assert_eq!(lab.out(5000, 1), Some(kept));
}

#[test]
fn what_the_router_takes_has_room_in_the_table() {
    let nats = Preset::Bare.nats().into_iter().map(|nat| NatConfig { table_limit: 2, ..nat });
    let lab = Lab::new(nats.collect());
    let kept = at(&lab.node.public, 5000);
    assert!(lab.out(5000, 0).is_some() && !lab.comes_in(5000, 1, kept));
    assert_eq!(lab.out(5000, 2), None, "it is full");
    lab.world.run_for(Duration::from_secs(31));
    assert!(lab.out(5000, 2).is_some());
}

/// By IPv4 nothing is taken where there is a firewall, and by TCP nothing that the router has answered.
#[test]
fn a_firewall_takes_nothing_and_neither_does_a_reset() {
    let lab = Lab::new(Preset::PortRestricted.nats());
    let kept = at(&lab.node.public, 5000);
    assert!(!lab.comes_in(5000, 0, kept));
    assert_eq!(lab.out(5000, 0), Some(kept));

    let lab = bare();
    let kept = at(&lab.node.public, 5000);
    let (net, from) = (lab.world.net(lab.peers[0]), at(PEERS[0].0, 7));
    lab.world.block_on(lab.peers[0], LIMIT, async move {
        let config = TcpConfig { local: Some(from), ..TcpConfig::default() };
        let refused = connect_from(&net, &config, kept).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
    let net = lab.world.net(lab.peers[0]);
    lab.world.spawn(lab.peers[0], "peer", async move {
        let mut listener = listen(&net, 7);
        let (_stream, from) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        assert_eq!(from, kept);
    });
    let net = lab.world.net(lab.node.host);
    lab.world.block_on(lab.node.host, LIMIT, async move {
        let config =
            TcpConfig { local: Some(at("192.168.1.2", 5000)), share_port: true, ..TcpConfig::default() };
        connect_from(&net, &config, from).await.unwrap();
    });
    lab.world.run_for(Duration::from_secs(1));
}

/// A router passes nothing on whose last hop it is, but what is for itself has come far enough.
#[test]
fn an_opener_that_dies_on_the_way_takes_nothing() {
    // The first hop is the router in the middle.
    for (hops, takes) in [(1, false), (2, true), (3, true)] {
        let lab = bare();
        let kept = at(&lab.node.public, 5000);
        lab.open(kept, hops);
        assert_eq!(lab.out(5000, 0) != Some(kept), takes, "{hops}");
    }
    // What was asked for is not the router's, though it comes no further.
    let lab = bare();
    let kept = lab.out(5000, 0).unwrap();
    lab.open(kept, 2);
    assert_eq!(lab.out(5000, 0), Some(kept));
}

#[test]
fn a_reboot_forgets_all_mappings() {
    let lab =
        Lab::new(vec![NatConfig { ports: Ports::Random, ..nat(EndpointIndependent, EndpointIndependent) }]);
    let outside = lab.out(5000, 0).unwrap();
    lab.world.inject(Fault::GatewayReboot(lab.node.gateways[0]));
    assert!(!lab.comes_in(5000, 0, outside));
    assert_ne!(lab.out(5000, 0), Some(outside));
}

#[test]
fn hairpinning_shows_the_outside_address_and_is_optional() {
    for hairpin in [true, false] {
        let lab = Lab::new(vec![NatConfig { hairpin, ..nat(EndpointIndependent, EndpointIndependent) }]);
        let outside = lab.out(5000, 0).unwrap();
        let other = lab.world.host("other");
        lab.world.attach(other, lab.node.network, &["192.168.1.3/24"], LinkConfig::lan());
        let mut own = lab.world.net(lab.node.host).bind_udp(at("0.0.0.0", 5000)).unwrap();
        let arrived = lab.arrived.clone();
        lab.world.spawn(lab.node.host, "receiver", async move {
            let from = receive(&mut own).await[0].0;
            arrived.lock().unwrap().push(from);
        });
        let net = lab.world.net(other);
        lab.world.block_on(other, LIMIT, async move {
            let mut socket = net.bind_udp(at("0.0.0.0", 7000)).unwrap();
            send_to(&mut socket, outside, b"around").await.unwrap();
        });
        lab.world.run_for(Duration::from_secs(1));
        let expected = hairpin.then(|| at(&lab.node.public, 7000));
        assert_eq!(lab.arrived.lock().unwrap().first().copied(), expected);
    }
}

/// What the presets promise: how many distinct ports four peers see, and who of them may answer the first.
#[test]
fn presets_are_what_their_names_say() {
    let table = [
        (Preset::Open, 1, 4),
        (Preset::FullCone, 1, 4),
        (Preset::AddressRestricted, 1, 2),
        (Preset::PortRestricted, 1, 1),
        (Preset::Bare, 1, 1),
        (Preset::SymmetricSequential, 4, 1),
        (Preset::SymmetricRandom, 4, 1),
        (Preset::Cgnat, 1, 1),
    ];
    for (preset, ports, admitted) in table {
        let lab = Lab::new(preset.nats());
        let outside = lab.out(5000, 0).unwrap();
        let count = (0..4).filter(|peer| lab.comes_in(5000, *peer, outside)).count();
        assert_eq!(count, admitted, "{preset}");
        // Whom nobody has written to before.
        let lab = Lab::new(preset.nats());
        let seen: BTreeSet<_> = (0..4).filter_map(|peer| lab.out(5000, peer)).collect();
        assert_eq!(seen.len(), ports, "{preset}");
    }
    for preset in [Preset::UdpBlocked, Preset::Only443] {
        assert_eq!(Lab::new(preset.nats()).out(5000, 0), None, "{preset}");
    }
    for preset in Preset::ALL {
        assert_eq!(preset.name().parse(), Ok(preset));
    }
}

#[test]
fn tcp_leaves_where_it_may() {
    for preset in Preset::ALL {
        let world = World::new(1);
        let server = world.public_host("server", 10, LinkConfig::default());
        for port in [443, 27183] {
            let net = world.net(server);
            world.spawn(server, "echo", echo(net, port));
        }
        let node = world.home("node", 1, preset, LinkConfig::default());
        let net = world.net(node.host);
        let reached = world.block_on(node.host, LIMIT, async move {
            let mut reached = Vec::new();
            for port in [443, 27183] {
                let Ok(mut stream) = connect(&net, at("198.18.0.10", port)).await else { continue };
                write_all(&mut stream, b"hello").await.unwrap();
                assert_eq!(read_exact(&mut stream, 5).await.unwrap(), b"hello");
                reached.push(port);
            }
            reached
        });
        let expected: &[u16] = if preset == Preset::Only443 { &[443] } else { &[443, 27183] };
        assert_eq!(reached, expected, "{preset}");
    }
}

#[test]
fn an_unsolicited_syn_is_dropped_or_reset() {
    for (unsolicited, kind, seconds) in [
        (Unsolicited::Drop, ErrorKind::TimedOut, 127),
        (Unsolicited::Reset, ErrorKind::ConnectionRefused, 0),
        (Unsolicited::Taken, ErrorKind::ConnectionRefused, 0),
    ] {
        let lab = Lab::new(vec![NatConfig { unsolicited, ..NatConfig::default() }]);
        let net = lab.world.net(lab.peers[0]);
        let to = at(&lab.node.public, 5000);
        let (error, elapsed) = lab.world.block_on(lab.peers[0], LIMIT, async move {
            let start = net.now();
            (connect(&net, to).await.unwrap_err().kind(), (net.now() - start).as_secs())
        });
        assert_eq!((error, elapsed), (kind, seconds));
    }
}

/// Two nodes behind NATs open a connection to each other's mapping; the second begins later.
fn punch(nats: [NatConfig; 2], later: Duration) -> [Result<Vec<u8>, ErrorKind>; 2] {
    let world = World::new(1);
    let server = world.public_host("server", 10, LinkConfig::default());
    let net = world.net(server);
    world.spawn(server, "echo", echo(net, 7));
    let homes = [1, 2].map(|number| {
        let nat = nats[usize::from(number) - 1].clone();
        world.behind("node", number, vec![nat], LinkConfig::default())
    });
    let results = [0, 1].map(|index| {
        let slot = Arc::new(Mutex::new(None));
        let result = slot.clone();
        let (net, other) = (world.net(homes[index].host), at(&homes[1 - index].public, 5000));
        world.spawn(homes[index].host, "puncher", async move {
            let config =
                TcpConfig { local: Some(at("192.168.1.2", 5000)), share_port: true, ..TcpConfig::default() };
            // The connection to the server makes the mapping; ports are preserved, so it is known.
            let _signal = connect_from(&net, &config, at("198.18.0.10", 7)).await.unwrap();
            net.sleep(Duration::from_secs(1) + later * index as u32).await;
            let outcome = async {
                let mut stream = connect_from(&net, &config, other).await?;
                write_all(&mut stream, &[b'A' + index as u8]).await?;
                stream.shutdown()?;
                read_to_end(&mut stream).await
            };
            let outcome = outcome.await.map_err(|error| error.kind());
            *result.lock().unwrap() = Some(outcome);
        });
        slot
    });
    world.run_for(Duration::from_secs(200));
    results.map(|slot| slot.lock().unwrap().take().unwrap())
}

#[test]
fn tcp_is_punched_through_nats_that_drop_and_by_chance_through_those_that_reset() {
    let home = NatConfig::default();
    let resetting = NatConfig { unsolicited: Unsolicited::Reset, ..NatConfig::default() };
    let both = [Ok(b"B".to_vec()), Ok(b"A".to_vec())];
    let late = Duration::from_millis(500);
    assert_eq!(punch([home.clone(), home.clone()], Duration::ZERO), both);
    assert_eq!(punch([home.clone(), home.clone()], late), both, "the SYN that came too early is repeated");
    assert_eq!(punch([home.clone(), resetting.clone()], Duration::ZERO), both);
    // Once it was refused the first has no right to an answer any more, so that the second's SYN gets lost.
    let refused = punch([home, resetting], late);
    assert_eq!(refused, [ErrorKind::ConnectionRefused, ErrorKind::TimedOut].map(Err));
}

#[test]
fn a_nat_that_forgets_a_tcp_connection_breaks_it() {
    let config =
        NatConfig { tcp_expiry: Duration::from_secs(60), ports: Ports::Random, ..NatConfig::default() };
    let lab = Lab::new(vec![config]);
    let net = lab.world.net(lab.peers[0]);
    lab.world.spawn(lab.peers[0], "echo", echo(net, 7));
    let net = lab.world.net(lab.node.host);
    lab.world.block_on(lab.node.host, LIMIT, async move {
        let mut stream = connect(&net, at("198.18.0.10", 7)).await.unwrap();
        for pause in [1, 50, 50] {
            net.sleep(Duration::from_secs(pause)).await;
            write_all(&mut stream, b"hello").await.unwrap();
            assert_eq!(read_exact(&mut stream, 5).await.unwrap(), b"hello");
        }
        net.sleep(Duration::from_secs(61)).await;
        write_all(&mut stream, b"hello").await.unwrap();
        assert_eq!(read(&mut stream, &mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn an_ipv6_firewall_keeps_addresses_and_lets_answers_in() {
    let world = World::new(1);
    let (a, b) = (world.host("a"), world.host("b"));
    let lan = world.lan("home");
    world.attach(a, lan, &["2001:db8:1::2/64"], LinkConfig::lan());
    world.attach(b, world.internet(), &["2001:db8:2::2/128"], LinkConfig::default());
    world.gateway(
        "router",
        (lan, &["192.168.1.1/24", "2001:db8:1::1/64"]),
        (world.internet(), &["203.0.113.1/32", "2001:db8:3::1/128"]),
        Some(NatConfig::default()),
        LinkConfig::default(),
    );
    let (to_a, to_b) = (at("2001:db8:1::2", 5000), at("2001:db8:2::2", 6000));
    let net = world.net(b);
    world.spawn(b, "outside", async move {
        let mut socket = net.bind_udp(to_b).unwrap();
        send_to(&mut socket, to_a, b"uninvited").await.unwrap();
        assert_eq!(receive(&mut socket).await[0].0, to_a);
        send_to(&mut socket, to_a, b"welcome").await.unwrap();
    });
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut socket = net.bind_udp(to_a).unwrap();
        net.sleep(Duration::from_secs(1)).await;
        send_to(&mut socket, to_b, b"hello").await.unwrap();
        assert_eq!(receive(&mut socket).await, [(to_b, b"welcome".to_vec())]);
    });
}

#[test]
fn a_gateway_itself_answers_nobody() {
    let lab = Lab::new(vec![NatConfig::default()]);
    let net = lab.world.net(lab.node.host);
    lab.world.block_on(lab.node.host, LIMIT, async move {
        let mut socket = net.bind_udp(at("0.0.0.0", 5000)).unwrap();
        send_to(&mut socket, at("192.168.1.1", 53), b"question").await.unwrap();
    });
    lab.world.run_for(Duration::from_secs(1));
    assert!(lab.world.timeline(1).contains("node nat 0") && lab.world.timeline(1).contains("nobody listens"));
}
