//! NATs with only what punching meets: mapping, filtering, choice of ports, and what an early packet does to
//! Linux's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

pub(crate) use Dependence::{
    AddressAndPortDependent as ByPort, AddressDependent as ByAddress, EndpointIndependent as ForAll,
};

use crate::ids::SockId;
use crate::nat::{Behaviour, Dependence, Finding};
use crate::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The inside port.
    Keep,
    Random,
    /// The last one and so many.
    Step(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) mapping: Dependence,
    pub(crate) filtering: Dependence,
    pub(crate) choice: Choice,
    /// Whether an early packet takes the port away, as with netfilter.
    pub(crate) is_harmed: bool,
    /// Whether the node knows nothing of it.
    pub(crate) is_unknown: bool,
    /// How many ports others took since it was measured.
    pub(crate) drift: i32,
}

pub(crate) const fn nat(mapping: Dependence, filtering: Dependence, choice: Choice) -> Kind {
    Kind { mapping, filtering, choice, is_harmed: false, is_unknown: false, drift: 0 }
}

pub(crate) const CONE: Kind = nat(ForAll, ByPort, Choice::Keep);
pub(crate) const LINUX: Kind = Kind { is_harmed: true, ..CONE };
pub(crate) const FULL_CONE: Kind = nat(ForAll, ForAll, Choice::Keep);
pub(crate) const ADDRESS_CONE: Kind = nat(ForAll, ByAddress, Choice::Keep);
pub(crate) const SYMMETRIC: Kind = nat(ByPort, ByPort, Choice::Random);
pub(crate) const REGULAR: Kind = nat(ByPort, ByPort, Choice::Step(1));

impl Kind {
    pub(crate) fn behaviour(&self, public: SocketAddr) -> Behaviour {
        let known = |is| Finding { is, confirmed: true };
        let public = Some(public);
        if self.is_unknown {
            return Behaviour { public, translated: Some(true), ..Behaviour::default() };
        }
        Behaviour {
            translated: Some(true),
            mapping: known(self.mapping),
            filtering: known(self.filtering),
            port_step: match self.choice {
                Choice::Step(step) => Some(step),
                Choice::Keep | Choice::Random => None,
            },
            preserves_port: self.choice == Choice::Keep,
            public,
            ..Behaviour::default()
        }
    }
}

pub(crate) struct Nat {
    pub(crate) kind: Kind,
    pub(crate) ip: IpAddr,
    /// Inside ports that were chosen.
    bound: BTreeMap<SockId, u16>,
    /// By inside socket and whom the mapping is for.
    mappings: BTreeMap<(SockId, Option<SocketAddr>), u16>,
    /// Outside port and who was written to from there.
    sessions: BTreeSet<(u16, SocketAddr)>,
    /// Those who came unasked, and to which port.
    early: BTreeSet<(u16, SocketAddr)>,
    /// The ports of sockets that have lost their own.
    latest: BTreeMap<SockId, u16>,
    pub(crate) last: u16,
    rng: Rng,
}

impl Nat {
    pub(crate) fn new(kind: Kind, ip: [u8; 4], rng: Rng) -> Self {
        let mut nat = Self {
            kind,
            ip: IpAddr::from(ip),
            bound: BTreeMap::new(),
            mappings: BTreeMap::new(),
            sessions: BTreeSet::new(),
            early: BTreeSet::new(),
            latest: BTreeMap::new(),
            last: 30_000,
            rng,
        };
        nat.outbound(MAIN, SERVER.parse().unwrap());
        nat
    }

    /// Where a server saw the main socket.
    pub(crate) fn public(&self) -> SocketAddr {
        SocketAddr::new(self.ip, *self.mappings.values().next().unwrap())
    }

    /// A socket behind it has this port, or any.
    pub(crate) fn bind(&mut self, socket: SockId, port: Option<u16>) {
        self.bound.extend(port.map(|port| (socket, port)));
    }

    /// The outside address of what leaves.
    pub(crate) fn outbound(&mut self, socket: SockId, to: SocketAddr) -> SocketAddr {
        let scope = match self.kind.mapping {
            ForAll => None,
            ByAddress => Some(SocketAddr::new(to.ip(), 0)),
            _ => Some(to),
        };
        let any = 40_000 + u16::try_from(socket.0).unwrap();
        let inside = self.bound.get(&socket).copied().unwrap_or(any);
        let keeps = self.kind.choice == Choice::Keep;
        // Netfilter shares a port where the peers tell the mappings apart; one that came early is in the way, and
        // what leaves the same socket for others from there on has the port that this one got.
        let latest = self.latest.get(&socket).copied();
        let wanted = if self.sessions.contains(&(inside, to)) { inside } else { latest.unwrap_or(inside) };
        let clashes = keeps && self.early.contains(&(wanted, to));
        let moved = clashes || (keeps && wanted != inside);
        let key = (socket, if moved { Some(to) } else { scope });
        let port = match self.mappings.get(&key) {
            Some(port) => *port,
            None => {
                let port = match self.kind.choice {
                    Choice::Keep if !clashes => wanted,
                    Choice::Keep | Choice::Random => loop {
                        let port = 1024 + u16::try_from(self.rng.below(64_512)).unwrap();
                        if !self.mappings.values().any(|taken| *taken == port) {
                            break port;
                        }
                    },
                    Choice::Step(step) => u16::try_from(i32::from(self.last) + step).unwrap(),
                };
                self.last = port;
                if clashes {
                    self.latest.insert(socket, port);
                }
                self.mappings.insert(key, port);
                port
            }
        };
        self.sessions.insert((port, to));
        SocketAddr::new(self.ip, port)
    }

    /// The inside socket of what comes in.
    pub(crate) fn inbound(&mut self, port: u16, from: SocketAddr) -> Option<SockId> {
        let found = self.mappings.iter().find(|((_, scope), outside)| {
            let covers =
                scope.is_none_or(|scope| scope == from || (scope.port() == 0 && scope.ip() == from.ip()));
            **outside == port && covers
        });
        let admitted = found.map(|((socket, _), _)| *socket).filter(|_| match self.kind.filtering {
            ForAll => true,
            ByAddress => self.sessions.iter().any(|(own, to)| *own == port && to.ip() == from.ip()),
            _ => self.sessions.contains(&(port, from)),
        });
        if admitted.is_none() && self.kind.is_harmed {
            self.early.insert((port, from));
        }
        admitted
    }
}

/// The node's own port.
pub(crate) const MAIN: SockId = SockId(0);
const SERVER: &str = "203.0.113.1:27182";
