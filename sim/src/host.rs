//! A host: its interfaces, its sockets by port, its wall clock and whether it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Time;
use crate::fabric::PortId;
use crate::net::SimNet;
use crate::packet::Transport;
use crate::slab::Key;
use crate::store::SimStore;

/// Names a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) u32);

pub(crate) struct Host {
    pub(crate) name: String,
    /// Counts its lives: what an earlier life left behind finds that it is no longer wanted.
    pub(crate) life: u32,
    pub(crate) power: Power,
    /// How far its wall clock is ahead of the world's, in nanoseconds.
    pub(crate) wall_ahead: i128,
    pub(crate) interfaces: Vec<Attachment>,
    pub(crate) bindings: BTreeMap<(Transport, u16), Vec<Binding>>,
    pub(crate) connections: BTreeMap<(SocketAddr, SocketAddr), Key>,
    pub(crate) unix: BTreeMap<PathBuf, Key>,
    pub(crate) store: Arc<SimStore>,
    /// What it runs when it starts.
    pub(crate) program: Option<Program>,
    next_port: u16,
}

pub(crate) type Program = Arc<dyn Fn(SimNet) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    /// Asleep since then: nothing runs, nothing is received.
    Suspended(Time),
    Off,
}

/// An interface of a host.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) name: String,
    pub(crate) port: PortId,
    pub(crate) up: bool,
    pub(crate) addresses: Vec<(IpAddr, u8)>,
}

/// A local port in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    /// None is all addresses of both families.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) share: bool,
    pub(crate) socket: Key,
    pub(crate) role: Role,
}

/// What a socket that is to be bound to `ip` takes: the unspecified IPv6 address means both families.
pub(crate) fn taken(ip: IpAddr) -> Option<IpAddr> {
    Some(ip).filter(|ip| ip.is_ipv4() || !ip.is_unspecified())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Datagrams,
    Listener,
    Connection,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            life: 0,
            power: Power::On,
            wall_ahead: 0,
            interfaces: Vec::new(),
            bindings: BTreeMap::new(),
            connections: BTreeMap::new(),
            unix: BTreeMap::new(),
            store: Arc::default(),
            program: None,
            next_port: FIRST_EPHEMERAL,
        }
    }

    /// Whether a packet to `address` stays in the host.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || is_unix(address) || self.owner(address).is_some()
    }

    /// The interface that is up and has the address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Attachment> {
        let mut up = self.interfaces.iter().filter(|interface| interface.up);
        up.find(|interface| interface.addresses.iter().any(|(own, _)| *own == address))
    }

    pub(crate) fn bound(&self, transport: Transport, port: u16) -> &[Binding] {
        self.bindings.get(&(transport, port)).map_or(&[], Vec::as_slice)
    }

    /// The socket of that role that takes what comes to `to`: the one bound to the address itself goes first.
    pub(crate) fn socket(&self, transport: Transport, role: Role, to: SocketAddr) -> Option<Key> {
        let bound = self.bound(transport, to.port()).iter().filter(|binding| binding.role == role);
        let rank = |binding: &Binding| match binding.ip {
            Some(ip) if ip == to.ip() => Some(0),
            Some(ip) if ip.is_unspecified() && to.is_ipv4() => Some(1),
            None if !is_unix(to.ip()) => Some(2),
            Some(_) | None => None,
        };
        bound.filter_map(|binding| Some((rank(binding)?, binding.socket))).min().map(|(_, socket)| socket)
    }

    pub(crate) fn conflicts(&self, transport: Transport, port: u16, ip: Option<IpAddr>, share: bool) -> bool {
        self.bound(transport, port).iter().any(|other| overlap(other.ip, ip) && !(share && other.share))
    }

    pub(crate) fn bind(&mut self, transport: Transport, port: u16, binding: Binding) {
        self.bindings.entry((transport, port)).or_default().push(binding);
    }

    /// Keys of sockets of different roles may be equal: they name places in different tables.
    pub(crate) fn unbind(&mut self, transport: Transport, port: u16, role: Role, socket: Key) {
        if let Some(bound) = self.bindings.get_mut(&(transport, port)) {
            bound.retain(|binding| (binding.role, binding.socket) != (role, socket));
            if bound.is_empty() {
                self.bindings.remove(&(transport, port));
            }
        }
    }

    /// The next free port of the ephemeral range; none if all are taken.
    pub(crate) fn ephemeral(&mut self, transport: Transport) -> Option<u16> {
        for _ in FIRST_EPHEMERAL..=LAST_EPHEMERAL {
            let port = self.next_port;
            self.next_port = if port == LAST_EPHEMERAL { FIRST_EPHEMERAL } else { port + 1 };
            if self.bound(transport, port).is_empty() {
                return Some(port);
            }
        }
        None
    }
}

fn overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (None, other) | (other, None) => !other.is_some_and(is_unix),
        (Some(a), Some(b)) => {
            // Of the unspecified addresses only IPv4's gets here.
            a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
        }
    }
}

/// A Unix socket is, inside the model, a TCP connection between addresses of the discard prefix (RFC 6666),
/// which no interface has.
pub(crate) fn unix_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)), port)
}

pub(crate) fn is_unix(address: IpAddr) -> bool {
    address == unix_address(0).ip()
}

pub(crate) fn loopback(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Linux's `ip_local_port_range`.
const FIRST_EPHEMERAL: u16 = 32_768;
const LAST_EPHEMERAL: u16 = 60_999;
