//! What a node says of the NATs before it, with the whole stack at work: by name, as `status` shows it.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use inp2p_core::status::{NatStatus, NatView, Status};
use inp2p_driver::agent::AgentHandle;
use inp2p_driver::net::Net;
use inp2p_sim::nat::{Dependence, NatConfig, Preset};
use inp2p_sim::{Fault, HostId, LinkConfig, World, programs};

type Agent = Arc<Mutex<Option<Arc<AgentHandle>>>>;

struct Here {
    world: World,
    server: HostId,
}

impl Here {
    fn new() -> Self {
        let world = World::new(3);
        let server = world.public_host("server", 10, LinkConfig::default());
        let here = Self { world, server };
        here.serve(None);
        here
    }

    /// With a server that has a second address for the whole of RFC 5780.
    fn with_two_addresses() -> Self {
        let world = World::new(3);
        let server = world.host("server");
        let both = ["198.18.0.10/32", "198.18.0.11/32"];
        world.attach(server, world.internet(), &both, LinkConfig::default());
        let here = Self { world, server };
        here.serve(Some("198.18.0.11"));
        here
    }

    fn serve(&self, second: Option<&'static str>) {
        self.world.program(self.server, move |net| {
            let inner = net.clone();
            net.spawn("main", async move {
                let mut setup = programs::server(&inner);
                setup.stun_ip2 = second.map(|ip| ip.parse().unwrap());
                let _server = inp2p_driver::server::start(inner, setup).await.unwrap();
                std::future::pending::<()>().await;
            });
        });
    }

    fn node(
        &self,
        name: &'static str,
        number: u16,
        nat: Preset,
        forwards: &'static [&'static str],
    ) -> Node<'_> {
        self.behind(name, number, nat.nats(), forwards)
    }

    fn behind(
        &self,
        name: &'static str,
        number: u16,
        nats: Vec<NatConfig>,
        forwards: &'static [&'static str],
    ) -> Node<'_> {
        let host = self.world.behind(name, number, nats, LinkConfig::default()).host;
        self.run(host, name, forwards, false)
    }

    fn run(
        &self,
        host: HostId,
        name: &'static str,
        forwards: &'static [&'static str],
        relays: bool,
    ) -> Node<'_> {
        let agent = Agent::default();
        let slot = agent.clone();
        self.world.program(host, move |net| {
            let (inner, slot) = (net.clone(), slot.clone());
            net.spawn("echo", echo(net.clone(), 22));
            net.spawn("main", async move {
                let node = programs::node(&inner, name, "server", forwards);
                let setup = if relays { programs::relaying(node, false) } else { node };
                let handle = inp2p_driver::agent::start(inner, setup).await.unwrap();
                *slot.lock().unwrap() = Some(Arc::new(handle));
                std::future::pending::<()>().await;
            });
        });
        Node { world: &self.world, host, agent }
    }
}

impl Here {
    /// A node in the open that relays.
    fn relay(&self) {
        let host = self.world.public_host("relay", 50, LinkConfig::default());
        self.run(host, "relay", &[], true);
    }
}

struct Node<'a> {
    world: &'a World,
    host: HostId,
    agent: Agent,
}

impl Node<'_> {
    fn status(&self) -> Status {
        let agent = self.agent.lock().unwrap().clone().unwrap();
        self.world.block_on(self.host, LIMIT, async move { agent.status().await })
    }

    fn nat(&self) -> NatStatus {
        self.status().nat
    }

    fn rung(&self) -> Option<String> {
        self.status().peers.first()?.rung.map(|rung| rung.as_str().to_owned())
    }
}

#[test]
fn every_kind_of_nat_is_told_by_name() {
    const ALL: &str = "endpoint-independent";
    const BY_PORT: &str = "address-and-port-dependent";
    // The server has one address, so there is none but its own to answer from: what lets its other port in may
    // be laxer still, and is not confirmed.
    const BY_ADDRESS: &str = "address-dependent";
    for (preset, kind, mapping, filtering) in [
        (Preset::Open, "none", ALL, BY_ADDRESS),
        (Preset::FullCone, "cone", ALL, BY_ADDRESS),
        (Preset::AddressRestricted, "cone", ALL, BY_ADDRESS),
        (Preset::PortRestricted, "cone", ALL, BY_PORT),
        (Preset::Bare, "cone", ALL, BY_PORT),
        (Preset::SymmetricSequential, "symmetric", BY_PORT, BY_PORT),
        (Preset::SymmetricRandom, "symmetric", BY_PORT, BY_PORT),
        (Preset::Cgnat, "cone", ALL, BY_PORT),
        (Preset::UdpBlocked, "blocked", "unknown", "unknown"),
    ] {
        let here = Here::new();
        let node = here.node("a", 1, preset, &[]);
        here.world.run_for(Duration::from_secs(15));
        let udp = node.nat().udp;
        let told = (udp.kind.as_str(), udp.mapping.as_str(), udp.filtering.as_str());
        assert_eq!(told, (kind, mapping, filtering), "{preset}: {udp:?}");
        assert_eq!(udp.public.is_some(), preset != Preset::UdpBlocked, "{preset}: {udp:?}");
        assert!(filtering != BY_ADDRESS || !udp.filtering_confirmed, "{preset}: {udp:?}");
        let step = (preset == Preset::SymmetricSequential).then_some(1);
        assert_eq!(udp.port_step, step, "{preset}");
        let tcp = node.nat().tcp;
        assert_eq!(tcp.kind.as_str(), if kind == "blocked" { "cone" } else { kind }, "{preset}: {tcp:?}");
    }
}

#[test]
fn with_two_addresses_of_the_server_every_behaviour_is_certain() {
    const ALL: &str = "endpoint-independent";
    const BY_ADDRESS: &str = "address-dependent";
    const BY_PORT: &str = "address-and-port-dependent";
    for (preset, kind, mapping, filtering, hairpin) in [
        (Preset::Open, "none", ALL, ALL, None),
        (Preset::FullCone, "cone", ALL, ALL, Some(true)),
        (Preset::AddressRestricted, "cone", ALL, BY_ADDRESS, Some(false)),
        (Preset::PortRestricted, "cone", ALL, BY_PORT, Some(false)),
        (Preset::Bare, "cone", ALL, BY_PORT, Some(false)),
        (Preset::SymmetricSequential, "symmetric", BY_PORT, BY_PORT, None),
        (Preset::SymmetricRandom, "symmetric", BY_PORT, BY_PORT, None),
        (Preset::Cgnat, "cone", ALL, BY_PORT, Some(true)),
    ] {
        let here = Here::with_two_addresses();
        let node = here.node("a", 1, preset, &[]);
        here.world.run_for(Duration::from_secs(15));
        let udp = node.nat().udp;
        let told = (udp.kind.as_str(), udp.mapping.as_str(), udp.filtering.as_str(), udp.hairpin);
        assert_eq!(told, (kind, mapping, filtering, hairpin), "{preset}: {udp:?}");
        assert!(udp.mapping_confirmed && udp.filtering_confirmed, "{preset}: {udp:?}");
    }
}

/// A NAT that keeps a mapping for each address that is written to.
fn symmetric_by_address() -> Vec<NatConfig> {
    Preset::SymmetricRandom.nats().into_iter().map(|nat| nat.mapping(Dependence::AddressDependent)).collect()
}

#[test]
fn a_relay_tells_a_nat_that_is_symmetric_by_address_where_the_server_has_one_address() {
    let here = Here::new();
    let node = here.behind("a", 1, symmetric_by_address(), &[]);
    here.world.run_for(Duration::from_secs(15));
    let udp = node.nat().udp;
    assert_eq!((udp.kind.as_str(), udp.mapping_confirmed), ("cone", false), "nothing can tell: {udp:?}");

    // A relay comes, and the node hears of it by one of its heartbeats.
    here.relay();
    here.world.run_for(Duration::from_secs(60));
    let udp = node.nat().udp;
    let told = (udp.kind.as_str(), udp.mapping.as_str(), udp.mapping_confirmed);
    assert_eq!(told, ("symmetric", "address-dependent", true), "{udp:?}");

    // One that comes later knows at once.
    let late = here.behind("b", 2, symmetric_by_address(), &[]);
    here.world.run_for(Duration::from_secs(10));
    assert_eq!(late.nat().udp.kind, "symmetric");
}

#[test]
fn with_a_relay_and_one_address_of_the_server_every_behaviour_is_certain() {
    const ALL: &str = "endpoint-independent";
    const BY_ADDRESS: &str = "address-dependent";
    const BY_PORT: &str = "address-and-port-dependent";
    for (preset, kind, mapping, filtering) in [
        (Preset::Open, "none", ALL, ALL),
        (Preset::FullCone, "cone", ALL, ALL),
        (Preset::AddressRestricted, "cone", ALL, BY_ADDRESS),
        (Preset::PortRestricted, "cone", ALL, BY_PORT),
        (Preset::Bare, "cone", ALL, BY_PORT),
        (Preset::SymmetricSequential, "symmetric", BY_PORT, BY_PORT),
        (Preset::SymmetricRandom, "symmetric", BY_PORT, BY_PORT),
        (Preset::Cgnat, "cone", ALL, BY_PORT),
    ] {
        let here = Here::new();
        here.relay();
        here.world.run_for(Duration::from_secs(15));
        let node = here.node("a", 1, preset, &[]);
        here.world.run_for(Duration::from_secs(15));
        let udp = node.nat().udp;
        let told = (udp.kind.as_str(), udp.mapping.as_str(), udp.filtering.as_str());
        assert_eq!(told, (kind, mapping, filtering), "{preset}: {udp:?}");
        assert!(udp.mapping_confirmed && udp.filtering_confirmed, "{preset}: {udp:?}");
    }
}

#[test]
fn a_relay_measures_its_own_nat_like_any_node() {
    for preset in [Preset::FullCone, Preset::PortRestricted, Preset::Cgnat] {
        let here = Here::new();
        let node = here.node("a", 1, preset, &[]);
        let host = here.world.home("r", 2, preset, LinkConfig::default()).host;
        let relay = here.run(host, "r", &[], true);
        here.world.run_for(Duration::from_secs(15));
        let (node, relay) = (node.nat().udp, relay.nat().udp);
        let told =
            |udp: &NatView| (udp.kind.clone(), udp.mapping.clone(), udp.filtering.clone(), udp.hairpin);
        assert_eq!(told(&node), told(&relay), "{preset}");
        assert!(relay.hairpin.is_some());
    }
}

#[test]
fn a_change_of_network_changes_the_report() {
    let here = Here::new();
    let lan = here.world.lan("elsewhere");
    let outside = (here.world.internet(), &["198.18.0.9/32"][..]);
    let nat = Preset::SymmetricRandom.nats().pop();
    here.world.gateway("elsewhere nat", (lan, &["192.168.7.1/24"]), outside, nat, LinkConfig::default());
    let node = here.node("a", 1, Preset::PortRestricted, &[]);
    here.world.run_for(Duration::from_secs(15));
    assert_eq!(node.nat().udp.kind, "cone");
    here.world.inject(Fault::Roam {
        host: node.host,
        interface: "eth0".to_owned(),
        network: Some(lan),
        addresses: vec!["192.168.7.2/24".to_owned()],
    });
    here.world.run_for(Duration::from_secs(60));
    let udp = node.nat().udp;
    assert_eq!(
        (udp.kind.as_str(), udp.public.map(|at| at.ip().to_string()).as_deref()),
        ("symmetric", Some("198.18.0.9"))
    );
}

#[test]
fn a_report_that_comes_minutes_later_still_tells_where_a_node_is() {
    let here = Here::new();
    let b = here.node("b", 2, Preset::PortRestricted, &[]);
    // Longer than a proof is good for; the lifetime of the mapping, found meanwhile, has been reported too.
    here.world.run_for(Duration::from_secs(900));
    assert!(b.nat().udp.lifetime_s.is_some());
    let a = here.node("a", 1, Preset::PortRestricted, &["2222:b:22"]);
    here.world.run_for(Duration::from_secs(10));
    assert_eq!(a.rung().as_deref(), Some("udp-punch"), "{:?}", a.status().peers);
}

#[test]
fn two_behind_cones_meet_at_what_the_server_saw() {
    for nats in [
        [Preset::PortRestricted, Preset::PortRestricted],
        [Preset::FullCone, Preset::Cgnat],
        [Preset::AddressRestricted, Preset::PortRestricted],
    ] {
        let here = Here::new();
        let _b = here.node("b", 2, nats[1], &[]);
        let a = here.node("a", 1, nats[0], &["2222:b:22"]);
        here.world.run_for(Duration::from_secs(10));
        assert_eq!(a.rung().as_deref(), Some("udp-punch"), "{nats:?}: {:?}", a.status().peers);
    }
}

#[test]
fn proofs_are_renewed_when_the_server_is_another_process() {
    let here = Here::new();
    let b = here.node("b", 2, Preset::PortRestricted, &[]);
    here.world.run_for(Duration::from_secs(10));
    here.world.inject(Fault::Crash(here.server));
    here.world.run_for(Duration::from_secs(3));
    here.world.inject(Fault::Restart(here.server));
    here.world.run_for(Duration::from_secs(40));
    assert!(b.status().server.connected);
    // One that comes new is told where `b` is, though all that `b` had shown was void.
    let a = here.node("a", 1, Preset::PortRestricted, &["2222:b:22"]);
    here.world.run_for(Duration::from_secs(10));
    assert_eq!(a.rung().as_deref(), Some("udp-punch"), "{:?}", a.status().peers);
}
