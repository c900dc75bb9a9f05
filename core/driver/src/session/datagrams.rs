//! The session's share of the node's UDP port: datagrams in by the parcel, datagrams out by the batch.
//!
//! What the port's task routed here is taken a parcel at a time. Sending goes straight to the socket. If that
//! would block, the batch is kept, and nothing more is made until the socket takes it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_channel::mpsc;
use futures_util::StreamExt as _;
use inp2p_core::ids::SockId;
use inp2p_core::link::udp;
use inp2p_core::session::UdpRoute;
use rustix::io::Errno;
use tracing::{debug, trace};

use super::Task;
use crate::net::{Net, Transmit};
use crate::port::{Parcel, Port, PortSocket, SessionPort};

/// The port, and what is under way to and from it.
pub(super) struct Datagrams<N: Net> {
    port: SessionPort<N>,
    parcels: mpsc::Receiver<Parcel>,
    /// The batch that is to be sent next, if `kept` is some.
    out: Vec<u8>,
    /// Further sockets, for links that guess ports.
    sockets: BTreeMap<SockId, Arc<PortSocket<N::Udp>>>,
    /// What a socket would not take yet.
    kept: Option<udp::Transmit>,
    /// Whether the socket has yet to say that it takes something.
    blocked: bool,
    waker: Waker,
}

impl<N: Net> Datagrams<N> {
    pub(super) fn new(port: &Port<N>, waker: Waker) -> Self {
        let (port, parcels) = port.join();
        Self { port, parcels, out: Vec::new(), sockets: BTreeMap::new(), kept: None, blocked: false, waker }
    }

    /// The socket may take something again.
    pub(super) fn woken(&mut self) {
        self.blocked = false;
    }

    pub(super) fn add(&self, route: UdpRoute) {
        self.port.add(route);
    }

    /// The link is gone; its last words go as they can.
    pub(super) fn remove(&mut self, route: UdpRoute, farewell: Option<(udp::Transmit, Vec<u8>)>) {
        self.port.remove(route);
        if let Some((transmit, bytes)) = farewell {
            let _ = self.send(&transmit, &bytes);
        }
    }

    /// Whether the kernel has everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.kept.is_none()
    }

    /// Gives back what an idle session does not need.
    pub(super) fn relax(&mut self) {
        if self.kept.is_none() {
            self.out = Vec::new();
        }
    }

    fn socket(&self, id: SockId) -> Option<&Arc<PortSocket<N::Udp>>> {
        let main = self.port.main();
        if main.id() == id { Some(main) } else { self.sockets.get(&id) }
    }

    /// Opens a further socket, at this port or at any; none if there is none to be had.
    pub(super) fn open(&mut self, port: Option<u16>) -> Option<SockId> {
        let socket =
            self.port.open(port).inspect_err(|error| debug!(%error, "no further UDP socket")).ok()?;
        let id = socket.id();
        self.sockets.insert(id, socket);
        Some(id)
    }

    pub(super) fn close(&mut self, id: SockId) {
        if let Some(socket) = self.sockets.remove(&id) {
            self.port.close(&socket);
        }
        // What waits for a socket that is gone waits in vain.
        if self.kept.is_some_and(|kept| kept.socket == id) {
            (self.kept, self.blocked) = (None, false);
        }
    }

    fn send(&self, transmit: &udp::Transmit, bytes: &[u8]) -> io::Result<()> {
        let Some(socket) = self.socket(transmit.socket) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the socket is closed"));
        };
        let to = Transmit {
            segment: transmit.segment,
            ecn: transmit.ecn,
            hops: transmit.hops,
            ..Transmit::plain(transmit.to)
        };
        socket.try_send(&to, bytes)
    }

    fn block(&mut self, transmit: udp::Transmit) {
        self.kept = Some(transmit);
        if let Some(socket) = self.socket(transmit.socket) {
            socket.wait(&self.waker);
            self.blocked = true;
        }
    }
}

impl<N: Net> Task<N> {
    /// Takes the datagrams that came. Whether there may be more.
    pub(super) fn arrivals(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        for taken in 0..PARCELS {
            let Poll::Ready(Some(parcel)) = self.datagrams.parcels.poll_next_unpin(cx) else {
                return taken > 0;
            };
            if let Some(core) = &mut self.core {
                for (head, datagram) in parcel.datagrams() {
                    core.datagram(now, head.link, head.socket, head.from, head.ecn, datagram);
                }
                core.digest(now);
            }
            // An idle session has no use for room: what comes then is a few pings.
            if self.open > 0 {
                self.datagrams.port.recycle(parcel);
            }
        }
        true
    }

    /// Sends what the links over UDP have to send, as far as the socket takes it. Whether there is more.
    pub(super) fn depart(&mut self, now: Instant) -> bool {
        let Self { core: Some(core), datagrams, .. } = self else { return false };
        if datagrams.blocked {
            return false;
        }
        let segments = datagrams.port.main().max_segments().min(MAX_SEGMENTS);
        let mut share = SHARE;
        let mut filled = false;
        loop {
            let mut out = std::mem::take(&mut datagrams.out);
            let mut next = datagrams.kept.take();
            if next.is_none() {
                next = core.poll_transmit(now, segments, &mut out);
            }
            if next.is_none() && !filled {
                filled = true;
                core.fill(now);
                next = core.poll_transmit(now, segments, &mut out);
            }
            datagrams.out = out;
            let Some(transmit) = next else { return false };
            if share == 0 {
                datagrams.kept = Some(transmit);
                return true;
            }
            share = share.saturating_sub(datagrams.out.len());
            match datagrams.send(&transmit, &datagrams.out) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    datagrams.block(transmit);
                    return false;
                }
                // A probe of the path's MTU that is too long: its loss is what QUIC is to learn from.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {}
                Err(error) => {
                    trace!(to = %transmit.to, %error, "datagram not sent");
                    core.unsent(transmit.to, &super::target::explain(&error));
                }
            }
        }
    }
}

/// Parcels a turn: half a megabyte, as the links over TCP have.
const PARCELS: usize = 2;

/// Datagrams a batch: with an Ethernet's MTU as many as the longest UDP payload holds.
const MAX_SEGMENTS: usize = 44;

/// How many bytes the links over UDP may send a turn before others have theirs.
const SHARE: usize = 512 * 1024;
