//! The TCP of a host: finds the connection or listener that a segment is for, and carries what a connection
//! wants to say into packets.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::task::Waker;
use std::time::Duration;

use inp2p_driver::net::{LINK_UNSENT_BYTES, TcpConfig};

use super::conn::{Conn, Ends, State as TcpState};
use super::segment::{Segment, TCP_HEADER, Tag};
use super::send::SEND_BUFFER;
use crate::clock::Time;
use crate::host::{Binding, HostId, Power, Role, is_unix, loopback, taken, unix_address};
use crate::link::DropCause;
use crate::log::Place;
use crate::packet::{Body, HOP_LIMIT, Packet, Transport, header};
use crate::queue::{Due, What};
use crate::slab::Key;
use crate::state::State;

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) host: HostId,
    pub(crate) local: SocketAddr,
    pub(crate) unix: Option<PathBuf>,
    pub(crate) waker: Option<Waker>,
    link: bool,
    /// Open, and not accepted yet.
    backlog: VecDeque<Key>,
    /// In their handshake.
    half_open: usize,
}

impl State {
    pub(crate) fn tcp_listen(&mut self, id: HostId, config: &TcpConfig) -> io::Result<Key> {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let wanted = config.local.unwrap_or(all);
        let ip = taken(wanted.ip());
        let host = self.host_mut(id);
        if !wanted.ip().is_unspecified() && !host.is_local(wanted.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let port = host.choose_port(wanted.port(), ip, config.share_port)?;
        let local = SocketAddr::new(wanted.ip(), port);
        let key = self.listeners.insert(Listener::new(id, local, config.link));
        let binding = Binding { ip, share: config.share_port, socket: key, role: Role::Listener };
        self.host_mut(id).bind(Transport::Tcp, port, binding);
        Ok(key)
    }

    pub(crate) fn unix_listen(&mut self, id: HostId, path: &Path) -> io::Result<Key> {
        if self.host(id).unix.contains_key(path) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let local = unix_address(0);
        let port = self.host_mut(id).choose_port(0, Some(local.ip()), false)?;
        let mut listener = Listener::new(id, SocketAddr::new(local.ip(), port), false);
        listener.unix = Some(path.to_owned());
        let key = self.listeners.insert(listener);
        let host = self.host_mut(id);
        host.unix.insert(path.to_owned(), key);
        let binding = Binding { ip: Some(local.ip()), share: false, socket: key, role: Role::Listener };
        host.bind(Transport::Tcp, port, binding);
        Ok(key)
    }

    pub(crate) fn unix_connect(&mut self, id: HostId, path: &Path) -> io::Result<Key> {
        let listener = self.host(id).unix.get(path).and_then(|key| self.listeners.find(*key));
        let to = listener.ok_or(io::ErrorKind::NotFound)?.local;
        self.tcp_connect(id, &TcpConfig::default(), to)
    }

    pub(crate) fn tcp_connect(&mut self, id: HostId, config: &TcpConfig, to: SocketAddr) -> io::Result<Key> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let to = if to.ip().is_unspecified() { SocketAddr::new(loopback(to.ip()), to.port()) } else { to };
        let ip = self.connect_from(id, config, to.ip())?;
        let wanted = config.local.map_or(0, |local| local.port());
        let port = self.host_mut(id).choose_port(wanted, Some(ip), config.share_port)?;
        let local = SocketAddr::new(ip, port);
        if self.host(id).connections.contains_key(&(local, to)) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let ends = self.ends(id, local, to, config.link);
        let now = self.now();
        let key = self.start(|out| Conn::connect(ends, now, out));
        let binding = Binding { ip: Some(ip), share: config.share_port, socket: key, role: Role::Connection };
        self.host_mut(id).bind(Transport::Tcp, port, binding);
        Ok(key)
    }

    fn connect_from(&self, id: HostId, config: &TcpConfig, to: IpAddr) -> io::Result<IpAddr> {
        let host = self.host(id);
        let wanted = config.local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified());
        let ip = match wanted {
            Some(ip) if !host.is_local(ip) => return Err(io::ErrorKind::AddrNotAvailable.into()),
            Some(ip) => ip,
            None => self.source(id, to).ok_or(io::ErrorKind::NetworkUnreachable)?,
        };
        if ip.is_ipv4() != to.is_ipv4() || (ip.is_loopback() && !host.is_local(to)) {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        Ok(ip)
    }

    pub(crate) fn tcp_receive(&mut self, id: HostId, from: SocketAddr, to: SocketAddr, segment: Segment) {
        if let Some(key) = self.connection_for(id, from, to, &segment) {
            self.drive(key, |conn, now, out| conn.receive(now, segment, out));
            return;
        }
        let listener = self.host(id).socket(Transport::Tcp, Role::Listener, to);
        if let (Segment::Syn { tag, mss }, Some(listener)) = (&segment, listener) {
            return self.half_open(id, listener, from, to, (*tag, *mss));
        }
        let packet = |body| Packet { origin: id, from: to, to: from, hops: HOP_LIMIT, body: Body::Tcp(body) };
        if let Some(reset) = segment.reset() {
            self.send(id, packet(reset));
        }
    }

    /// The connection between the two; one in TIME-WAIT makes room for a new one.
    fn connection_for(
        &mut self,
        id: HostId,
        from: SocketAddr,
        to: SocketAddr,
        segment: &Segment,
    ) -> Option<Key> {
        let key = *self.host(id).connections.get(&(to, from))?;
        let waits = matches!(self.conns.find(key)?.state(), TcpState::TimeWait { .. });
        if waits && matches!(segment, Segment::Syn { .. }) {
            self.forget(key);
            return None;
        }
        Some(key)
    }

    fn half_open(&mut self, id: HostId, key: Key, from: SocketAddr, to: SocketAddr, (tag, mss): (Tag, u16)) {
        let Some(listener) = self.listeners.find_mut(key) else { return };
        if listener.half_open + listener.backlog.len() >= BACKLOG {
            let body = Body::Tcp(Segment::Syn { tag, mss });
            let packet = Packet { origin: id, from, to, hops: HOP_LIMIT, body };
            return self.dropped(Place::Host(id), &packet, DropCause::ReceiverFull);
        }
        listener.half_open += 1;
        let link = listener.link;
        let ends = self.ends(id, to, from, link);
        let now = self.now();
        self.start(|out| Conn::accept(ends, key, tag, mss, now, out));
    }

    /// Takes the next connection of a listener, which the caller then holds.
    pub(crate) fn accept(&mut self, key: Key) -> Option<(Key, SocketAddr, SocketAddr)> {
        let listener = self.listeners.find_mut(key)?;
        while let Some(accepted) = listener.backlog.pop_front() {
            if let Some(conn) = self.conns.find_mut(accepted) {
                conn.listener = None;
                conn.held = true;
                return Some((accepted, conn.local, conn.remote));
            }
        }
        None
    }

    pub(crate) fn close_listener(&mut self, key: Key) {
        let Some(listener) = self.listeners.remove(key) else { return };
        let host = self.host_mut(listener.host);
        host.unbind(Transport::Tcp, listener.local.port(), Role::Listener, key);
        if let Some(path) = &listener.unix {
            host.unix.remove(path);
        }
        // Those that were reset while they waited are in the backlog only.
        let waiting = listener.backlog.into_iter().chain(self.connections_of(listener.host));
        for conn in waiting.collect::<Vec<_>>() {
            if self.conns.find(conn).is_some_and(|conn| conn.listener == Some(key)) {
                self.drive(conn, |conn, now, out| conn.release(now, true, out));
            }
        }
    }

    pub(crate) fn tcp_due(&mut self, key: Key, due: Due) {
        let Some(conn) = self.conns.find_mut(key) else { return };
        if conn.scheduled != Some(due) {
            return;
        }
        conn.scheduled = None;
        let host = conn.host;
        // A host that sleeps has sleeping timers; they are put off when it wakes.
        if self.host(host).power == Power::On {
            self.drive(key, Conn::expired);
        }
    }

    pub(crate) fn tcp_path_shrank(&mut self, id: HostId, from: SocketAddr, to: SocketAddr, mtu: u16) {
        if let Some(key) = self.host(id).connections.get(&(to, from)).copied() {
            let mss = mss(mtu, from.ip());
            self.drive(key, |conn, now, out| conn.path_shrank(now, mss, out));
        }
    }

    /// Lets a connection act, then does what follows from it: sends its segments, sets its timer, hands it
    /// to its listener, forgets it.
    pub(crate) fn drive<R>(
        &mut self,
        key: Key,
        act: impl FnOnce(&mut Conn, Time, &mut Vec<Segment>) -> R,
    ) -> Option<R> {
        let now = self.now();
        let mut out = mem::take(&mut self.outgoing);
        let conn = self.conns.find_mut(key)?;
        let was_open = conn.is_open();
        let result = act(conn, now, &mut out);
        let opened = conn.listener.filter(|_| conn.is_open() && !was_open);
        self.flush(key, out);
        if let Some(listener) = opened.and_then(|listener| self.listeners.find_mut(listener)) {
            listener.half_open -= 1;
            listener.backlog.push_back(key);
            if let Some(waker) = listener.waker.take() {
                waker.wake();
            }
        }
        self.tidy(key, opened.is_some() || was_open);
        Some(result)
    }

    fn start(&mut self, make: impl FnOnce(&mut Vec<Segment>) -> Conn) -> Key {
        let mut out = mem::take(&mut self.outgoing);
        let conn = make(&mut out);
        let (host, ends) = (conn.host, (conn.local, conn.remote));
        let key = self.conns.insert(conn);
        self.host_mut(host).connections.insert(ends, key);
        self.flush(key, out);
        key
    }

    fn flush(&mut self, key: Key, mut out: Vec<Segment>) {
        if let Some(conn) = self.conns.find_mut(key) {
            if let Some(at) = conn.deadline()
                && conn.scheduled.is_none_or(|due| due.at > at)
            {
                conn.scheduled = Some(self.queue.push(at, What::Tcp(key)));
            }
            let (host, from, to) = (conn.host, conn.local, conn.remote);
            for segment in out.drain(..) {
                let body = Body::Tcp(segment);
                self.send(host, Packet { origin: host, from, to, hops: HOP_LIMIT, body });
            }
        }
        self.outgoing = out;
    }

    /// Gives back what a connection that is over no longer needs. One that a program holds, or will accept,
    /// stays until it lets go, since there may be bytes to read.
    fn tidy(&mut self, key: Key, was_open: bool) {
        let Some(conn) = self.conns.find_mut(key) else { return };
        match conn.state() {
            TcpState::Closed(_) => {
                let half_open = if was_open { None } else { conn.listener.take() };
                if let Some(listener) = half_open.and_then(|listener| self.listeners.find_mut(listener)) {
                    listener.half_open -= 1;
                }
                self.forget(key);
            }
            TcpState::TimeWait { .. } => {
                let (host, port) = (conn.host, conn.local.port());
                self.host_mut(host).unbind(Transport::Tcp, port, Role::Connection, key);
            }
            TcpState::SynSent { .. } | TcpState::SynReceived { .. } | TcpState::Open { .. } => {}
        }
    }

    fn forget(&mut self, key: Key) {
        let Some(conn) = self.conns.find(key) else { return };
        let (host, ends) = (conn.host, (conn.local, conn.remote));
        let wanted = conn.held || conn.listener.is_some();
        let host = self.host_mut(host);
        host.unbind(Transport::Tcp, ends.0.port(), Role::Connection, key);
        if host.connections.get(&ends) == Some(&key) {
            host.connections.remove(&ends);
        }
        if !wanted {
            self.conns.remove(key);
        }
    }

    fn ends(&mut self, host: HostId, local: SocketAddr, remote: SocketAddr, link: bool) -> Ends {
        let mtu = self.mtu(host, local.ip());
        let unsent = if link { LINK_UNSENT_BYTES as usize } else { SEND_BUFFER };
        let mss = mss(mtu, local.ip());
        let user_timeout = if link { LINK_USER_TIMEOUT } else { RETRANSMISSION_TIMEOUT };
        Ends { host, local, remote, tag: self.new_tag(), mss, unsent, user_timeout }
    }
}

impl Listener {
    fn new(host: HostId, local: SocketAddr, link: bool) -> Self {
        Self { host, local, unix: None, waker: None, link, backlog: VecDeque::new(), half_open: 0 }
    }
}

impl crate::host::Host {
    /// The port asked for, if it is free, or an ephemeral one.
    fn choose_port(&mut self, wanted: u16, ip: Option<IpAddr>, share: bool) -> io::Result<u16> {
        if wanted == 0 {
            return self.ephemeral(Transport::Tcp).ok_or(io::ErrorKind::AddrInUse.into());
        }
        if self.conflicts(Transport::Tcp, wanted, ip, share) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(wanted)
    }
}

fn mss(mtu: u16, ip: IpAddr) -> u16 {
    let headers = header(if is_unix(ip) { loopback(ip) } else { ip }) + TCP_HEADER;
    mtu.saturating_sub(u16::try_from(headers).unwrap_or(u16::MAX))
}

/// How long a link waits for an acknowledgement: the `TCP_USER_TIMEOUT` that the real sockets set.
const LINK_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long other connections wait: what Linux's `tcp_retries2` of 15 comes to.
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_secs(924);

/// Connections that a listener holds for its program, in their handshake or done: as `listen` is called.
const BACKLOG: usize = 1024;
