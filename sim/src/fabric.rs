//! Networks, the ports by which hosts and gateways are attached to them, and the way of a packet through.
//!
//! A network delivers to the port that has the destination address, to one that a route names, or else to
//! its gateway. The internet is a network without a gateway, so what has no public address ends there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::clock::Time;
use crate::host::{HostId, Power};
use crate::link::{DropCause, Link, Passage};
use crate::log::{Event, Place, Summary};
use crate::nat::{Nat, Side, Verdict};
use crate::packet::{Body, HOP_LIMIT, Packet, Transport};
use crate::queue::What;
use crate::state::State;

/// Names a network: the internet, or a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub(crate) u32);

/// Names a gateway between two networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub(crate) u32);

/// Names an attachment to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortId(pub(crate) u32);

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) addresses: BTreeMap<IpAddr, PortId>,
    /// Prefixes that lie behind a port.
    pub(crate) routes: Vec<(IpAddr, u8, PortId)>,
    /// Prefixes that lie in this network: what is not found here is nowhere.
    pub(crate) on_link: Vec<(IpAddr, u8)>,
    pub(crate) gateway: Option<PortId>,
    /// How many routers lie between any two ports, besides the gateways.
    pub(crate) routers: u8,
}

#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) owner: Owner,
    pub(crate) network: NetworkId,
    pub(crate) up: Link,
    pub(crate) down: Link,
    /// Whether the wire is cut: nothing passes, and nobody is told.
    pub(crate) offline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Host(HostId),
    Gateway(GatewayId, Side),
}

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    pub(crate) inside: PortId,
    pub(crate) outside: PortId,
    /// None only routes.
    pub(crate) nat: Option<Nat>,
}

/// A packet on its way, and where its link ends.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) packet: Packet,
    pub(crate) to: Hop,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Hop {
    Network(NetworkId),
    Port(PortId),
    Host(HostId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl State {
    /// Sends a packet from a host.
    pub(crate) fn send(&mut self, host: HostId, packet: Packet) {
        let now = self.now();
        let place = Place::Host(host);
        self.log.add(now, place, Event::Sent(Summary::from(&packet)));
        let sender = self.host(host);
        if sender.power != Power::On {
            return self.dropped(place, &packet, DropCause::HostDown);
        }
        if sender.is_local(packet.to.ip()) {
            if !sender.is_local(packet.from.ip()) {
                return self.dropped(place, &packet, DropCause::NoRoute);
            }
            return self.fly(now + crate::world::LOOPBACK_DELAY, packet, Hop::Host(host));
        }
        match sender.owner(packet.from.ip()).map(|interface| interface.port) {
            Some(port) => self.cross(port, Direction::Up, packet),
            None => self.dropped(place, &packet, DropCause::NoRoute),
        }
    }

    /// A packet has reached the end of its link.
    pub(crate) fn arrived(&mut self, flight: Flight) {
        let Flight { packet, to } = flight;
        match to {
            Hop::Network(network) => self.through_network(network, packet),
            Hop::Host(host) => self.reach_host(host, packet),
            Hop::Port(port) => match self.port(port).owner {
                Owner::Host(host) => self.reach_host(host, packet),
                Owner::Gateway(gateway, side) => self.through_gateway(gateway, side, packet),
            },
        }
    }

    fn cross(&mut self, id: PortId, direction: Direction, mut packet: Packet) {
        let now = self.now();
        let port = &mut self.ports[id.0 as usize];
        let network = port.network;
        let (place, owner) = match port.owner {
            Owner::Host(host) => (Place::Host(host), Some(host)),
            Owner::Gateway(gateway, _) => (Place::Gateway(gateway), None),
        };
        if port.offline {
            return self.dropped(place, &packet, DropCause::Offline);
        }
        let (link, to) = match direction {
            Direction::Up => (&mut port.up, Hop::Network(network)),
            Direction::Down => (&mut port.down, Hop::Port(id)),
        };
        let (mtu, answers) = (link.config.mtu, link.config.too_big);
        if link.config.clamps_mss {
            packet.clamp_mss(mtu);
        }
        let udp = packet.transport() == Transport::Udp;
        match link.pass(now, packet.size(), packet.largest(), udp, &mut self.rng) {
            Passage::Arrives { at, again, corrupted } => {
                if let Some(again) = again {
                    self.fly(again, packet.clone(), to);
                }
                let packet = if corrupted { self.corrupt(packet) } else { packet };
                self.fly(at, packet, to);
            }
            Passage::Dropped(cause) => {
                self.dropped(place, &packet, cause);
                if cause == DropCause::TooBig && answers && !matches!(packet.body, Body::TooBig { .. }) {
                    let back = too_big(&packet, mtu);
                    match (direction, owner) {
                        // The sender's own interface: its system knows at once.
                        (Direction::Up, Some(host)) => {
                            self.fly(now + crate::world::LOOPBACK_DELAY, back, Hop::Host(host));
                        }
                        (Direction::Up, None) => self.through_gateway_back(id, back),
                        (Direction::Down, _) => self.through_network(network, back),
                    }
                }
            }
        }
    }

    fn fly(&mut self, at: Time, packet: Packet, to: Hop) {
        let key = self.flights.insert(Flight { packet, to });
        self.queue.push(at, What::Packet(key));
    }

    fn through_network(&mut self, id: NetworkId, mut packet: Packet) {
        let network = &self.networks[id.0 as usize];
        let Some(hops) = packet.hops.checked_sub(network.routers).filter(|hops| *hops > 0) else {
            return self.dropped(Place::Network(id), &packet, DropCause::HopLimit);
        };
        packet.hops = hops;
        let to = packet.to.ip();
        let within = |(address, prefix): (IpAddr, u8)| in_prefix(to, address, prefix);
        let exact = network.addresses.get(&to).copied();
        let routed = || network.routes.iter().find(|route| within((route.0, route.1))).map(|route| route.2);
        let beyond = || network.gateway.filter(|_| !network.on_link.iter().copied().any(within));
        match exact.or_else(routed).or_else(beyond) {
            Some(port) => self.cross(port, Direction::Down, packet),
            None => self.dropped(Place::Network(id), &packet, DropCause::NoRoute),
        }
    }

    fn through_gateway(&mut self, id: GatewayId, side: Side, mut packet: Packet) {
        let now = self.now();
        let place = Place::Gateway(id);
        let Some(hops) = packet.hops.checked_sub(1).filter(|hops| *hops > 0) else {
            if let Some(nat) = &mut self.gateways[id.0 as usize].nat {
                nat.expire(now, side, &packet);
            }
            return self.dropped(place, &packet, DropCause::HopLimit);
        };
        packet.hops = hops;
        if self.is_for_gateway(id, side, &packet) {
            return self.dropped(place, &packet, DropCause::NoSocket);
        }
        let gateway = &mut self.gateways[id.0 as usize];
        let (inside, outside) = (gateway.inside, gateway.outside);
        let forward = |side: Side| match side {
            Side::Inside => outside,
            Side::Outside => inside,
        };
        let Some(nat) = &mut gateway.nat else {
            return self.cross(forward(side), Direction::Up, packet);
        };
        let before = Summary::from(&packet);
        match nat.pass(now, side, packet, &mut self.rng) {
            Verdict::Forward(packet) => {
                if packet.from != before.from {
                    self.log.add(now, place, Event::Translated(before, packet.from));
                } else if packet.to != before.to {
                    self.log.add(now, place, Event::Translated(before, packet.to));
                }
                self.cross(forward(side), Direction::Up, packet);
            }
            // Both ends lie inside: it leaves where it came from.
            Verdict::Hairpin(packet) => {
                self.log.add(now, place, Event::Translated(before, packet.to));
                self.cross(forward(Side::Outside), Direction::Up, packet);
            }
            Verdict::Drop(packet, cause) => self.dropped(place, &packet, cause),
            Verdict::Answer { packet, cause, answer } => {
                self.dropped(place, &packet, cause);
                self.log.add(now, place, Event::Sent(Summary::from(&answer)));
                self.cross(forward(opposite(side)), Direction::Up, answer);
            }
        }
    }

    /// Whether a packet is for the gateway itself, where nothing listens. What a NAT has given out as its
    /// address from outside may be anybody's inside.
    fn is_for_gateway(&self, id: GatewayId, side: Side, packet: &Packet) -> bool {
        let gateway = &self.gateways[id.0 as usize];
        let port = match side {
            Side::Inside => gateway.inside,
            Side::Outside if gateway.nat.is_some() && packet.to.is_ipv4() => return false,
            Side::Outside => gateway.outside,
        };
        let network = self.port(port).network;
        self.networks[network.0 as usize].addresses.get(&packet.to.ip()) == Some(&port)
    }

    /// The link beyond the gateway takes smaller packets only: tells the sender through the same gateway.
    fn through_gateway_back(&mut self, port: PortId, back: Packet) {
        if let Owner::Gateway(gateway, side) = self.port(port).owner {
            self.through_gateway(gateway, side, back);
        }
    }

    fn reach_host(&mut self, id: HostId, packet: Packet) {
        let now = self.now();
        let place = Place::Host(id);
        let host = self.host(id);
        if host.power != Power::On {
            return self.dropped(place, &packet, DropCause::HostDown);
        }
        if self.cut.contains(&(packet.origin, id)) {
            return self.dropped(place, &packet, DropCause::Partitioned);
        }
        if !host.is_local(packet.to.ip()) {
            return self.dropped(place, &packet, DropCause::NoRoute);
        }
        self.log.add(now, place, Event::Received(Summary::from(&packet)));
        match packet.body {
            Body::Udp { bytes, ecn } => self.udp_receive(id, packet.from, packet.to, bytes, ecn),
            Body::Tcp(segment) => self.tcp_receive(id, packet.from, packet.to, segment),
            Body::TooBig { transport: Transport::Tcp, mtu } => {
                self.tcp_path_shrank(id, packet.from, packet.to, mtu);
            }
            // Sockets probe their path MTU themselves (IP_PMTUDISC_PROBE), so the system keeps it from them.
            Body::TooBig { transport: Transport::Udp, .. } => {}
        }
    }

    pub(crate) fn dropped(&mut self, place: Place, packet: &Packet, cause: DropCause) {
        let now = self.now();
        self.log.add(now, place, Event::Dropped(Summary::from(packet), cause));
    }

    fn corrupt(&mut self, mut packet: Packet) -> Packet {
        if let Body::Udp { bytes, .. } = &mut packet.body
            && !bytes.is_empty()
        {
            let mut changed = bytes.to_vec();
            let at = self.rng.below(u32::try_from(changed.len()).unwrap_or(u32::MAX)) as usize;
            changed[at] ^= 1 << self.rng.below(8);
            *bytes = changed.into();
        }
        packet
    }
}

/// Whether `address` lies in `network/prefix`.
pub(crate) fn in_prefix(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (a, b, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let rest = width - u32::from(prefix).min(width);
    (a ^ b).checked_shr(rest).is_none_or(|differing| differing == 0)
}

fn opposite(side: Side) -> Side {
    match side {
        Side::Inside => Side::Outside,
        Side::Outside => Side::Inside,
    }
}

fn too_big(packet: &Packet, mtu: u16) -> Packet {
    Packet {
        origin: packet.origin,
        from: packet.to,
        to: packet.from,
        hops: HOP_LIMIT,
        body: Body::TooBig { transport: packet.transport(), mtu },
    }
}
