//! UDP sockets.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use inp2p_driver::net::{RecvBatch, RecvMeta, Transmit, UdpIo};

use crate::clock::Time;
use crate::executor::lock;
use crate::host::{Binding, HostId, Role, loopback, taken};
use crate::link::DropCause;
use crate::log::Place;
use crate::packet::{Body, HOP_LIMIT, Packet, Transport, UDP_HEADER, header};
use crate::queue::What;
use crate::slab::Key;
use crate::state::State;
use crate::tcp::{host_gone, pending};
use crate::world::Shared;

#[derive(Debug)]
pub(crate) struct UdpSocket {
    pub(crate) host: HostId,
    pub(crate) local: SocketAddr,
    received: VecDeque<Datagram>,
    bytes: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// When a send that was refused may succeed.
    blocked_until: Option<Time>,
}

#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    to: IpAddr,
    ecn: u8,
    bytes: Bytes,
}

impl UdpSocket {
    pub(crate) fn writable(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl State {
    pub(crate) fn udp_bind(&mut self, id: HostId, local: SocketAddr) -> io::Result<Key> {
        let host = self.host_mut(id);
        let ip = local.ip();
        if !ip.is_unspecified() && !host.is_local(ip) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let port = match local.port() {
            0 => host.ephemeral(Transport::Udp).ok_or(io::ErrorKind::AddrInUse)?,
            port if host.conflicts(Transport::Udp, port, taken(ip), false) => {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            port => port,
        };
        let socket = self.udp.insert(UdpSocket {
            host: id,
            local: SocketAddr::new(ip, port),
            received: VecDeque::new(),
            bytes: 0,
            reader: None,
            writer: None,
            blocked_until: None,
        });
        let binding = Binding { ip: taken(ip), share: false, socket, role: Role::Datagrams };
        self.host_mut(id).bind(Transport::Udp, port, binding);
        Ok(socket)
    }

    pub(crate) fn udp_close(&mut self, key: Key) {
        if let Some(socket) = self.udp.remove(key) {
            self.host_mut(socket.host).unbind(Transport::Udp, socket.local.port(), Role::Datagrams, key);
        }
    }

    pub(crate) fn udp_receive(
        &mut self,
        id: HostId,
        from: SocketAddr,
        to: SocketAddr,
        bytes: Bytes,
        ecn: u8,
    ) {
        let socket = self.host(id).socket(Transport::Udp, Role::Datagrams, to);
        let cause = match socket.and_then(|key| self.udp.find_mut(key)) {
            None => DropCause::NoSocket,
            Some(socket) if socket.bytes + bytes.len() > RECV_BUFFER => DropCause::ReceiverFull,
            Some(socket) => {
                socket.bytes += bytes.len();
                socket.received.push_back(Datagram { from, to: to.ip(), ecn, bytes });
                if let Some(waker) = socket.reader.take() {
                    waker.wake();
                }
                return;
            }
        };
        let packet = Packet { origin: id, from, to, hops: HOP_LIMIT, body: Body::Udp { bytes, ecn } };
        self.dropped(Place::Host(id), &packet, cause);
    }

    /// Sends, unless too much waits for the interface already.
    fn udp_send(&mut self, key: Key, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        let now = self.now();
        let socket = self.udp.find(key).ok_or_else(host_gone)?;
        let (host, local) = (socket.host, socket.local);
        let to = SocketAddr::new(transmit.to.ip().to_canonical(), transmit.to.port());
        let to = if to.ip().is_unspecified() { SocketAddr::new(loopback(to.ip()), to.port()) } else { to };
        let bound = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        let from = bound.or(transmit.from).or_else(|| self.source(host, to.ip()));
        let from = from.ok_or(io::ErrorKind::NetworkUnreachable)?;
        let sender = self.host(host);
        let family = from.is_ipv4() == to.is_ipv4() && (local.is_ipv6() || to.is_ipv4());
        let misfit = from.is_loopback() && !sender.is_local(to.ip());
        if !family || misfit || !sender.is_local(from) {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        let segment = transmit.segment.unwrap_or(bytes.len()).max(1);
        let largest = segment.min(bytes.len()) + UDP_HEADER + header(to.ip());
        if !sender.is_local(to.ip()) && largest > usize::from(self.mtu(host, from)) {
            return Err(io::Error::from_raw_os_error(MESSAGE_SIZE));
        }
        if let Some(owner) = sender.owner(from).filter(|_| !sender.is_local(to.ip())) {
            let link = &self.port(owner.port).up;
            if link.backlog(now) > SEND_BUFFER {
                let at = link.drained_at(now, SEND_BUFFER / 2);
                if let Some(socket) = self.udp.find_mut(key) {
                    socket.blocked_until = Some(at);
                }
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let from = SocketAddr::new(from, local.port());
        let bytes = Bytes::copy_from_slice(bytes);
        let mut start = 0;
        // An empty datagram is a datagram.
        while start < bytes.len().max(1) {
            let datagram = bytes.slice(start..bytes.len().min(start + segment));
            let body = Body::Udp { bytes: datagram, ecn: transmit.ecn };
            let hops = transmit.hops.unwrap_or(HOP_LIMIT);
            self.send(host, Packet { origin: host, from, to, hops, body });
            start += segment;
        }
        Ok(())
    }
}

/// A UDP socket of a simulated host.
#[derive(Debug)]
pub struct SimUdp {
    shared: Arc<Shared>,
    key: Key,
    local: SocketAddr,
}

impl SimUdp {
    pub(crate) fn new(shared: Arc<Shared>, key: Key, local: SocketAddr) -> Self {
        Self { shared, key, local }
    }
}

impl UdpIo for SimUdp {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.shared.state);
        let Some(socket) = state.udp.find_mut(self.key) else { return Poll::Ready(Err(host_gone())) };
        if socket.received.is_empty() {
            return pending(&mut socket.reader, cx);
        }
        let (buffers, metas) = batch.fill();
        let mut filled = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            if !socket.fill(buffer, meta) {
                break;
            }
            filled += 1;
        }
        Poll::Ready(Ok(filled))
    }

    fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        lock(&self.shared.state).udp_send(self.key, transmit, bytes)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.shared.state);
        let now = state.now();
        let Some(socket) = state.udp.find_mut(self.key) else { return Poll::Ready(Err(host_gone())) };
        match socket.blocked_until {
            Some(at) if now < at => {
                let waits = pending(&mut socket.writer, cx);
                state.queue.push(at, What::Writable(self.key));
                waits
            }
            Some(_) | None => Poll::Ready(Ok(())),
        }
    }

    fn max_segments(&self) -> usize {
        MAX_SEGMENTS
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        lock(&self.shared.state).udp_close(self.key);
    }
}

impl UdpSocket {
    /// Fills one buffer: with one datagram, and with those that follow it from the same source, as receive
    /// offload joins them: all of one length, but the last, which may be shorter.
    fn fill(&mut self, buffer: &mut [u8], meta: &mut RecvMeta) -> bool {
        let Some(first) = self.pop() else { return false };
        let stride = first.bytes.len().min(buffer.len());
        buffer[..stride].copy_from_slice(&first.bytes[..stride]);
        let mut filled = stride;
        let mut joined = 1;
        while stride > 0
            && filled == stride * joined
            && joined < MAX_SEGMENTS
            && let Some(next) = self.received.front()
            && (next.from, next.to, next.ecn) == (first.from, first.to, first.ecn)
            && (1..=stride).contains(&next.bytes.len())
            && let Some(space) = buffer.get_mut(filled..filled + next.bytes.len())
        {
            space.copy_from_slice(&next.bytes);
            filled += next.bytes.len();
            joined += 1;
            self.pop();
        }
        *meta = RecvMeta { from: first.from, to: Some(first.to), len: filled, stride, ecn: first.ecn };
        true
    }

    fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.received.pop_front()?;
        self.bytes -= datagram.bytes.len();
        Some(datagram)
    }
}

/// Linux's `rmem_default` and `wmem_default`.
const RECV_BUFFER: usize = 212_992;
const SEND_BUFFER: usize = 212_992;

/// As Linux's `UDP_MAX_SEGMENTS` was until 6.9.
const MAX_SEGMENTS: usize = 64;

/// EMSGSIZE: the standard library has no kind for it.
const MESSAGE_SIZE: i32 = if cfg!(target_os = "linux") { 90 } else { 40 };
