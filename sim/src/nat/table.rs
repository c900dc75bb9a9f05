//! The mappings of a NAT and their sessions. What has expired is as good as gone, and is removed when it is
//! met or when the table is full.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Dependence, NatConfig, Phase, Ports, Unsolicited, is_reset, phase};
use crate::clock::Time;
use crate::link::DropCause;
use crate::packet::{Packet, Transport};
use crate::rng::Rng;
use crate::slab::{Key, Slab};

#[derive(Debug, Default)]
pub(super) struct Table {
    mappings: Slab<Mapping>,
    /// More than one where a port clashed with a claim: the one last is that of the newest session.
    by_inside: BTreeMap<(Transport, SocketAddr, Scope), Vec<Key>>,
    by_outside: BTreeMap<(Transport, SocketAddr), Vec<Key>>,
    sessions: usize,
    /// UDP that the NAT has taken to be for itself: outside address and peer, and when the last packet came.
    claims: BTreeMap<(SocketAddr, SocketAddr), Time>,
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
        let id = (transport, inside, scope);
        let key = match self.known(config, now, id, peer) {
            Some(key) => key,
            None => {
                self.forget_dead(config, now, id);
                self.make_room(config, now)?;
                self.map(config, outside, now, id, peer, rng)?
            }
        };
        let new = self.mappings.find(key).is_some_and(|mapping| !mapping.sessions.contains_key(&peer));
        if new {
            self.make_room(config, now)?;
            self.make_newest(id, key);
        }
        let mapping = self.mappings.find_mut(key).ok_or(DropCause::TableFull)?;
        if mapping.touch(peer, now, phase, true) {
            self.sessions += 1;
        }
        Ok(mapping.outside)
    }

    /// The mapping for a peer, if there is one: the one that the session with it has, or else that of the newest
    /// session, or an older one, whose port the NAT has not claimed.
    fn known(
        &self,
        config: &NatConfig,
        now: Time,
        id: (Transport, SocketAddr, Scope),
        peer: SocketAddr,
    ) -> Option<Key> {
        let keys = self.by_inside.get(&id)?;
        let find = |fits: &dyn Fn(&Mapping) -> bool| {
            let mut newest_first = keys.iter().rev().copied();
            newest_first.find(|key| self.mappings.find(*key).is_some_and(fits))
        };
        let has_session = |mapping: &Mapping| {
            mapping.sessions.get(&peer).is_some_and(|session| session.is_live(config, now))
        };
        let is_open = |mapping: &Mapping| {
            mapping.is_live(config, now) && !self.is_claimed(now, id.0, mapping.outside, peer)
        };
        find(&has_session).or_else(|| find(&is_open))
    }

    /// Forgets the mappings of an inside address that have expired.
    fn forget_dead(&mut self, config: &NatConfig, now: Time, id: (Transport, SocketAddr, Scope)) {
        let keys = self.by_inside.get(&id).cloned().unwrap_or_default();
        for key in keys.into_iter().filter(|key| !self.is_live(config, now, *key)).collect::<Vec<_>>() {
            self.remove(key);
        }
    }

    fn make_newest(&mut self, id: (Transport, SocketAddr, Scope), key: Key) {
        if let Some(keys) = self.by_inside.get_mut(&id)
            && keys.last() != Some(&key)
        {
            keys.retain(|other| *other != key);
            keys.push(key);
        }
    }

    /// Notes that what this packet's sender sends there is for the NAT itself, if there is room for that.
    pub(super) fn claim(&mut self, config: &NatConfig, now: Time, packet: &Packet) {
        let claim = (packet.to, packet.from);
        if self.claims.contains_key(&claim) || self.make_room(config, now).is_ok() {
            self.claims.insert(claim, now);
        }
    }

    fn is_claimed(&self, now: Time, transport: Transport, outside: SocketAddr, peer: SocketAddr) -> bool {
        let claimed = || self.claims.get(&(outside, peer)).is_some_and(|at| is_held(now, *at));
        transport == Transport::Udp && claimed()
    }

    /// Whether there is a mapping by which this packet may come in.
    pub(super) fn is_asked_for(&self, config: &NatConfig, now: Time, packet: &Packet) -> bool {
        let (transport, peer) = (packet.transport(), packet.from);
        let keys = self.by_outside.get(&(transport, packet.to)).into_iter().flatten();
        let mut mappings = keys.filter_map(|key| self.mappings.find(*key));
        mappings.any(|mapping| {
            mapping.is_live(config, now)
                && mapping.scope.covers(peer)
                && mapping.admits(config, now, peer, phase(&packet.body))
        })
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
        let keys = scopes.iter().find_map(|scope| self.by_inside.get(&(transport, inside, *scope)))?;
        let mut mappings = keys.iter().rev().filter_map(|key| self.mappings.find(*key));
        let newest = mappings.clone().next();
        mappings
            .find(|mapping| mapping.sessions.contains_key(&peer))
            .or(newest)
            .map(|mapping| mapping.outside)
    }

    fn map(
        &mut self,
        config: &NatConfig,
        outside: &[IpAddr],
        now: Time,
        (transport, inside, scope): (Transport, SocketAddr, Scope),
        peer: SocketAddr,
        rng: &mut Rng,
    ) -> Result<Key, DropCause> {
        let outside = if inside.is_ipv6() {
            inside
        } else {
            let pool: Vec<IpAddr> = outside.iter().copied().filter(IpAddr::is_ipv4).collect();
            let host = self.host(inside.ip());
            // All mappings of a host have the same address (RFC 4787 REQ-2, "paired").
            let ip = *pool.get(host % pool.len().max(1)).ok_or(DropCause::NoRoute)?;
            let port = self.port(config, now, (transport, ip, inside.port(), scope), (peer, host), rng);
            SocketAddr::new(ip, port.ok_or(DropCause::TableFull)?)
        };
        let sessions = BTreeMap::new();
        let key = self.mappings.insert(Mapping { transport, inside, outside, scope, sessions });
        self.by_inside.entry((transport, inside, scope)).or_default().push(key);
        self.by_outside.entry((transport, outside)).or_default().push(key);
        Ok(key)
    }

    fn port(
        &mut self,
        config: &NatConfig,
        now: Time,
        (transport, ip, wanted, scope): (Transport, IpAddr, u16, Scope),
        (peer, host): (SocketAddr, usize),
        rng: &mut Rng,
    ) -> Option<u16> {
        // A shared port needs peers that tell the mappings apart.
        let sharing = config.ports == Ports::Preserving;
        let free = |table: &Self, port: u16| {
            let outside = SocketAddr::new(ip, port);
            let taken = table.by_outside.get(&(transport, outside));
            let clashes = |key: &Key| {
                let other = table.mappings.find(*key);
                let clash = |other: &Mapping| !sharing || other.scope.overlaps(scope);
                other.is_some_and(clash) && table.is_live(config, now, *key)
            };
            !taken.is_some_and(|keys| keys.iter().any(clashes))
                && !table.is_claimed(now, transport, outside, peer)
        };
        let span = u32::from(u16::MAX - FIRST_PORT) + 1;
        let nth = |offset: u32| FIRST_PORT + u16::try_from(offset % span).unwrap_or(0);
        let mut ports: Box<dyn Iterator<Item = u16>> = match config.ports {
            Ports::Preserving if config.unsolicited == Unsolicited::Taken => {
                let start = rng.below(span);
                let others = (0..span).map(move |tried| nth(start + tried));
                Box::new(std::iter::once(wanted.max(FIRST_PORT)).chain(others))
            }
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
        if self.entries() < config.table_limit {
            return Ok(());
        }
        self.claims.retain(|_, at| is_held(now, *at));
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
        if self.entries() < config.table_limit { Ok(()) } else { Err(DropCause::TableFull) }
    }

    fn entries(&self) -> usize {
        self.sessions + self.claims.len()
    }

    fn is_live(&self, config: &NatConfig, now: Time, key: Key) -> bool {
        self.mappings.find(key).is_some_and(|mapping| mapping.is_live(config, now))
    }

    fn remove(&mut self, key: Key) {
        let Some(mapping) = self.mappings.remove(key) else { return };
        self.sessions -= mapping.sessions.len();
        let inside = (mapping.transport, mapping.inside, mapping.scope);
        if let Some(keys) = self.by_inside.get_mut(&inside) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_inside.remove(&inside);
            }
        }
        if let Some(keys) = self.by_outside.get_mut(&(mapping.transport, mapping.outside)) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_outside.remove(&(mapping.transport, mapping.outside));
            }
        }
    }
}

impl Mapping {
    fn is_live(&self, config: &NatConfig, now: Time) -> bool {
        self.sessions.values().any(|session| session.is_live(config, now))
    }

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
            // Netfilter's own time for that; others tell no difference.
            Phase::Datagrams if config.unsolicited == Unsolicited::Taken && !self.answered => {
                config.udp_expiry.min(UNANSWERED)
            }
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

/// Whether a claim still holds whose last packet came then.
fn is_held(now: Time, last: Time) -> bool {
    now - last < UNANSWERED
}

/// How long netfilter remembers UDP that nobody has answered.
const UNANSWERED: Duration = Duration::from_secs(30);

/// The lowest port that a NAT gives out (RFC 4787 REQ-3: none of the well-known ones).
const FIRST_PORT: u16 = 1024;
