//! The mappings of a NAT and their sessions. What has expired is as good as gone, and is removed when it is
//! met or when the table is full.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Dependence, NatConfig, Phase, Ports, is_reset};
use crate::clock::Time;
use crate::link::DropCause;
use crate::packet::{Packet, Transport};
use crate::rng::Rng;
use crate::slab::{Key, Slab};

#[derive(Debug, Default)]
pub(super) struct Table {
    mappings: Slab<Mapping>,
    by_inside: BTreeMap<(Transport, SocketAddr, Scope), Key>,
    by_outside: BTreeMap<(Transport, SocketAddr), Vec<Key>>,
    sessions: usize,
    /// The port given last.
    last_port: Option<u16>,
    /// Inside hosts, in the order in which they were first seen: it decides their address and their block.
    hosts: Vec<IpAddr>,
}

/// The peers that a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

#[derive(Debug)]
struct Mapping {
    transport: Transport,
    inside: SocketAddr,
    outside: SocketAddr,
    scope: Scope,
    /// By peer: who was written to, or has come in.
    sessions: BTreeMap<SocketAddr, Session>,
}

#[derive(Debug)]
struct Session {
    /// When it was last kept alive.
    refreshed: Time,
    phase: Phase,
    /// Whether the peer has been heard.
    answered: bool,
}

impl Table {
    /// The outside address of what leaves.
    pub(super) fn outbound(
        &mut self,
        config: &NatConfig,
        outside: &[IpAddr],
        now: Time,
        (packet, phase): (&Packet, Phase),
        rng: &mut Rng,
    ) -> Result<SocketAddr, DropCause> {
        let (transport, inside, peer) = (packet.transport(), packet.from, packet.to);
        let mapping = match transport {
            Transport::Udp => config.udp_mapping,
            Transport::Tcp => config.tcp_mapping,
        };
        // IPv6 keeps its address whoever the peer is.
        let scope = if inside.is_ipv6() { Scope::All } else { Scope::new(mapping, peer) };
        let known = self.by_inside.get(&(transport, inside, scope)).copied();
        let key = match known.filter(|key| self.is_live(config, now, *key)) {
            Some(key) => key,
            None => {
                known.into_iter().for_each(|key| self.remove(key));
                self.make_room(config, now)?;
                self.map(config, outside, now, (transport, inside, scope), rng)?
            }
        };
        let new = self.mappings.find(key).is_some_and(|mapping| !mapping.sessions.contains_key(&peer));
        if new {
            self.make_room(config, now)?;
        }
        let mapping = self.mappings.find_mut(key).ok_or(DropCause::TableFull)?;
        if mapping.touch(peer, now, phase, true) {
            self.sessions += 1;
        }
        Ok(mapping.outside)
    }

    /// The inside address of what comes in.
    pub(super) fn inbound(
        &mut self,
        config: &NatConfig,
        now: Time,
        packet: &Packet,
        phase: Option<Phase>,
    ) -> Result<SocketAddr, DropCause> {
        let (transport, peer) = (packet.transport(), packet.from);
        let keys = self.by_outside.get(&(transport, packet.to)).ok_or(DropCause::NoMapping)?;
        let mut live = keys.iter().copied().filter(|key| self.is_live(config, now, *key)).peekable();
        // Where no mapping is for this peer, the others stand for what it meets: a closed door.
        let cause = if live.peek().is_some() { DropCause::Filtered } else { DropCause::NoMapping };
        let key = live.find(|key| self.mappings.find(*key).is_some_and(|mapping| mapping.scope.covers(peer)));
        let mapping = self.mappings.find_mut(key.ok_or(cause)?).ok_or(cause)?;
        if !mapping.admits(config, now, peer, phase) {
            return Err(DropCause::Filtered);
        }
        // Whoever answers with nothing but a reset has never been there: netfilter forgets it at once.
        if is_reset(&packet.body) && mapping.sessions.get(&peer).is_some_and(|session| !session.answered) {
            mapping.sessions.remove(&peer);
            self.sessions -= 1;
            return Ok(mapping.inside);
        }
        let refreshes = transport == Transport::Tcp || config.udp_inbound_refreshes;
        if let Some(phase) = phase {
            if mapping.touch(peer, now, phase, refreshes) {
                self.sessions += 1;
            }
            mapping.sessions.entry(peer).and_modify(|session| session.answered = true);
        }
        Ok(mapping.inside)
    }

    /// The outside address that an inside one has for a peer.
    pub(super) fn outside_of(
        &self,
        transport: Transport,
        inside: SocketAddr,
        peer: SocketAddr,
    ) -> Option<SocketAddr> {
        let scopes = [Scope::All, Scope::Address(peer.ip()), Scope::Endpoint(peer)];
        let key = scopes.iter().find_map(|scope| self.by_inside.get(&(transport, inside, *scope)))?;
        self.mappings.find(*key).map(|mapping| mapping.outside)
    }

    fn map(
        &mut self,
        config: &NatConfig,
        outside: &[IpAddr],
        now: Time,
        (transport, inside, scope): (Transport, SocketAddr, Scope),
        rng: &mut Rng,
    ) -> Result<Key, DropCause> {
        let outside = if inside.is_ipv6() {
            inside
        } else {
            let pool: Vec<IpAddr> = outside.iter().copied().filter(IpAddr::is_ipv4).collect();
            let host = self.host(inside.ip());
            // All mappings of a host have the same address (RFC 4787 REQ-2, "paired").
            let ip = *pool.get(host % pool.len().max(1)).ok_or(DropCause::NoRoute)?;
            let port = self.port(config, now, (transport, ip, inside.port(), scope), host, rng);
            SocketAddr::new(ip, port.ok_or(DropCause::TableFull)?)
        };
        let sessions = BTreeMap::new();
        let key = self.mappings.insert(Mapping { transport, inside, outside, scope, sessions });
        self.by_inside.insert((transport, inside, scope), key);
        self.by_outside.entry((transport, outside)).or_default().push(key);
        Ok(key)
    }

    fn port(
        &mut self,
        config: &NatConfig,
        now: Time,
        (transport, ip, wanted, scope): (Transport, IpAddr, u16, Scope),
        host: usize,
        rng: &mut Rng,
    ) -> Option<u16> {
        // A shared port needs peers that tell the mappings apart.
        let sharing = config.ports == Ports::Preserving;
        let free = |table: &Self, port: u16| {
            let taken = table.by_outside.get(&(transport, SocketAddr::new(ip, port)));
            let clashes = |key: &Key| {
                let other = table.mappings.find(*key);
                let clash = |other: &Mapping| !sharing || other.scope.overlaps(scope);
                other.is_some_and(clash) && table.is_live(config, now, *key)
            };
            !taken.is_some_and(|keys| keys.iter().any(clashes))
        };
        let span = u32::from(u16::MAX - FIRST_PORT) + 1;
        let nth = |offset: u32| FIRST_PORT + u16::try_from(offset % span).unwrap_or(0);
        let mut ports: Box<dyn Iterator<Item = u16>> = match config.ports {
            Ports::Preserving => {
                let start = u32::from(wanted.max(FIRST_PORT) - FIRST_PORT);
                Box::new((0..span).map(move |tried| nth(start + tried)))
            }
            Ports::Sequential { step } => {
                let start =
                    self.last_port.map_or_else(|| rng.below(span), |last| u32::from(last - FIRST_PORT));
                let step = u32::from(step.max(1));
                Box::new((1..=span).map(move |tried| nth(start + tried * step)))
            }
            Ports::Random => {
                let start = rng.below(span);
                Box::new((0..span).map(move |tried| nth(start + tried)))
            }
            Ports::Block { size } => {
                let start = u32::try_from(host).unwrap_or(0) * u32::from(size);
                Box::new((0..u32::from(size)).map(move |tried| nth(start + tried)))
            }
        };
        let port = ports.find(|port| free(self, *port))?;
        self.last_port = Some(port);
        Some(port)
    }

    /// The number of an inside host.
    fn host(&mut self, ip: IpAddr) -> usize {
        self.hosts.iter().position(|host| *host == ip).unwrap_or_else(|| {
            self.hosts.push(ip);
            self.hosts.len() - 1
        })
    }

    /// Makes sure that one more session fits, if need be by removing what has expired.
    fn make_room(&mut self, config: &NatConfig, now: Time) -> Result<(), DropCause> {
        if self.sessions < config.table_limit {
            return Ok(());
        }
        let keys: Vec<Key> = self.mappings.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(mapping) = self.mappings.find_mut(key) else { continue };
            let before = mapping.sessions.len();
            mapping.sessions.retain(|_, session| session.is_live(config, now));
            self.sessions -= before - mapping.sessions.len();
            if mapping.sessions.is_empty() {
                self.remove(key);
            }
        }
        if self.sessions < config.table_limit { Ok(()) } else { Err(DropCause::TableFull) }
    }

    fn is_live(&self, config: &NatConfig, now: Time, key: Key) -> bool {
        let mapping = self.mappings.find(key);
        mapping.is_some_and(|mapping| mapping.sessions.values().any(|session| session.is_live(config, now)))
    }

    fn remove(&mut self, key: Key) {
        let Some(mapping) = self.mappings.remove(key) else { return };
        self.sessions -= mapping.sessions.len();
        self.by_inside.remove(&(mapping.transport, mapping.inside, mapping.scope));
        if let Some(keys) = self.by_outside.get_mut(&(mapping.transport, mapping.outside)) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_outside.remove(&(mapping.transport, mapping.outside));
            }
        }
    }
}

impl Mapping {
    /// Whether the filter lets this peer in.
    fn admits(&self, config: &NatConfig, now: Time, peer: SocketAddr, phase: Option<Phase>) -> bool {
        let filtering = match (self.inside, self.transport) {
            (SocketAddr::V6(_), _) => config.ipv6_filtering.unwrap_or(Dependence::EndpointIndependent),
            (SocketAddr::V4(_), Transport::Udp) => config.udp_filtering,
            (SocketAddr::V4(_), Transport::Tcp) => config.tcp_filtering,
        };
        let of_peer = || self.sessions.get(&peer).is_some_and(|session| session.is_live(config, now));
        // ICMP comes back about what has left; anything else of TCP than a SYN belongs to a connection.
        let follows = phase.is_none()
            || (self.transport == Transport::Tcp && phase.is_some_and(|phase| phase != Phase::Opening));
        match filtering {
            _ if follows => of_peer(),
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => {
                let all_ports = SocketAddr::new(peer.ip(), 0)..=SocketAddr::new(peer.ip(), u16::MAX);
                self.sessions.range(all_ports).any(|(_, session)| session.is_live(config, now))
            }
            Dependence::AddressAndPortDependent => of_peer(),
        }
    }

    /// Keeps the session with a peer alive; true if it is new.
    fn touch(&mut self, peer: SocketAddr, now: Time, phase: Phase, refreshes: bool) -> bool {
        let mut new = false;
        let session = self.sessions.entry(peer).or_insert_with(|| {
            new = true;
            Session { refreshed: now, phase, answered: false }
        });
        session.phase = match (session.phase, phase) {
            // What closes is over only when a new connection opens.
            (Phase::Closing, Phase::Opening) => Phase::Opening,
            (Phase::Closing, _) => Phase::Closing,
            // A SYN that comes late closes nothing.
            (Phase::Open, Phase::Opening) => Phase::Open,
            (_, phase) => phase,
        };
        if refreshes {
            session.refreshed = now;
        }
        new
    }
}

impl Session {
    fn is_live(&self, config: &NatConfig, now: Time) -> bool {
        now - self.refreshed < self.lifetime(config)
    }

    fn lifetime(&self, config: &NatConfig) -> Duration {
        match self.phase {
            Phase::Datagrams => config.udp_expiry,
            Phase::Open => config.tcp_expiry,
            Phase::Opening | Phase::Closing => config.tcp_transitory_expiry,
        }
    }
}

impl Scope {
    fn new(dependence: Dependence, peer: SocketAddr) -> Self {
        match dependence {
            Dependence::EndpointIndependent => Self::All,
            Dependence::AddressDependent => Self::Address(peer.ip()),
            Dependence::AddressAndPortDependent => Self::Endpoint(peer),
        }
    }

    fn covers(self, peer: SocketAddr) -> bool {
        match self {
            Self::All => true,
            Self::Address(address) => address == peer.ip(),
            Self::Endpoint(endpoint) => endpoint == peer,
        }
    }

    fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => true,
            (Self::Endpoint(endpoint), scope) | (scope, Self::Endpoint(endpoint)) => scope.covers(endpoint),
            (Self::Address(one), Self::Address(other)) => one == other,
        }
    }
}

/// The lowest port that a NAT gives out (RFC 4787 REQ-3: none of the well-known ones).
const FIRST_PORT: u16 = 1024;
