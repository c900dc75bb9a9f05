//! The node's UDP port: the sockets that serve STUN, probes and every link over UDP.
//!
//! ```text
//!              ┌──────── port task ────────┐  one parcel a batch   ┌─ session task ─┐
//!  datagrams ─▶│ receive ─▶ Demux ─▶ route │──────────────────────▶│ UdpLink        │
//!              └───────────────┬───────────┘                       └────────┬───────┘
//!                              └─▶ STUN: answers to whoever measures NATs   └─▶ sent at once
//!                                        requests answered by a relay
//! ```
//!
//! One task waits for all the sockets: for the main one, and for those that port guessing opens for a while
//! ([`SessionPort::open`]). It looks at the first bytes of a datagram and no further. What is a session's goes
//! there with the rest of its batch; a session that takes no more loses datagrams, as UDP may, and others do
//! not wait for it. Sending needs no task: whoever has a socket sends by it, and if that would block, has the
//! port's task wake it.
//!
//! What this leaves to others: what datagrams mean (`inp2p_core::link::udp`).

mod answer;
mod parcel;
mod socket;
mod task;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use futures_channel::{mpsc, oneshot};
use inp2p_core::agent::Expected;
use inp2p_core::ids::{AttemptId, SockId};
use inp2p_core::link::udp::ProbeTag;
use inp2p_core::link::udp::probe::ProbeKey;
use inp2p_core::session::UdpRoute;
use tracing::debug;

pub(crate) use self::parcel::{Head, Parcel};
pub(crate) use self::socket::PortSocket;
use crate::net::Net;
use crate::ready::ReadySet;

/// The port. A clone is the same port.
pub(crate) struct Port<N: Net> {
    net: N,
    main: Arc<PortSocket<N::Udp>>,
    commands: mpsc::Sender<Command<N>>,
    recycle: mpsc::Sender<Parcel>,
    places: Arc<Places>,
    next: Arc<Next>,
    dropped: Arc<AtomicU64>,
}

impl<N: Net> Clone for Port<N> {
    fn clone(&self) -> Self {
        Self {
            net: self.net.clone(),
            main: Arc::clone(&self.main),
            commands: self.commands.clone(),
            recycle: self.recycle.clone(),
            places: Arc::clone(&self.places),
            next: Arc::clone(&self.next),
            dropped: Arc::clone(&self.dropped),
        }
    }
}

/// A STUN message that came in.
#[derive(Debug, Clone)]
pub(crate) struct Stun {
    /// The socket that it came by.
    pub(crate) socket: SockId,
    /// Where it came from.
    pub(crate) from: SocketAddr,
    /// The message, not yet looked at.
    pub(crate) bytes: Box<[u8]>,
}

/// The main socket: the one whose mapping is measured, and by which everything goes but port guessing.
pub(crate) const MAIN: SockId = SockId(0);

impl<N: Net> Port<N> {
    /// Serves `socket` until the guard that is returned is dropped. STUN messages come out of the receiver; they
    /// are dropped where nobody takes them. With `answers` requests are answered.
    ///
    /// `called` is told when a probe comes that is of an expected attempt and of no known one.
    pub(crate) fn start(
        net: &N,
        socket: N::Udp,
        answers: bool,
        called: mpsc::Sender<AttemptId>,
    ) -> (Self, mpsc::Receiver<Stun>, oneshot::Sender<()>) {
        let places = Arc::new(Places::new());
        let place = places.take().unwrap_or_default();
        let main = Arc::new(PortSocket::new(MAIN, socket, place, Arc::clone(&places)));
        let (commands, queue) = mpsc::channel(0);
        let (recycle, recycled) = mpsc::channel(SPARE_PARCELS);
        let (stun, stuns) = mpsc::channel(STUNS);
        let (guard, stop) = oneshot::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let ends = task::Ends { commands: queue, recycled, stun, called, stop };
        let answers = answers.then(|| answer::Answerer::new(net.seed()));
        let task = task::Task::new(net, &main, &places, ends, answers, Arc::clone(&dropped));
        net.spawn("port", task.run());
        let next = Arc::new(Next { owner: AtomicU64::new(0), socket: AtomicU32::new(MAIN.0 + 1) });
        (Self { net: net.clone(), main, commands, recycle, places, next, dropped }, stuns, guard)
    }

    /// The main socket.
    pub(crate) fn main(&self) -> &Arc<PortSocket<N::Udp>> {
        &self.main
    }

    /// Datagrams that were dropped because a session or the STUN client took no more.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Peers may begin these attempts without the server, and no others.
    pub(crate) fn expect(&self, expected: &[Expected]) {
        let tag = |one: &Expected| {
            let key = &one.punch_key.0;
            (ProbeTag::new(one.attempt, key), (ProbeKey::of_attempt(one.attempt, key), one.attempt))
        };
        self.command(Command::Expect(expected.iter().map(tag).collect()));
    }

    fn command(&self, command: Command<N>) {
        // Each clone has room for one message, and few are sent: a session has as many as links and sockets.
        if self.commands.clone().try_send(command).is_err() {
            debug!("the UDP port is closed");
        }
    }

    /// A session's part of the port, and where its datagrams come out.
    pub(crate) fn join(&self) -> (SessionPort<N>, mpsc::Receiver<Parcel>) {
        let owner = self.next.owner.fetch_add(1, Ordering::Relaxed);
        let (parcels, queue) = mpsc::channel(PARCELS);
        let port = SessionPort { port: self.clone(), owner };
        self.command(Command::Join { owner, parcels });
        (port, queue)
    }
}

/// A session's part of the port. What it had there is gone when it is dropped.
pub(crate) struct SessionPort<N: Net> {
    port: Port<N>,
    owner: u64,
}

impl<N: Net> SessionPort<N> {
    /// The main socket.
    pub(crate) fn main(&self) -> &Arc<PortSocket<N::Udp>> {
        &self.port.main
    }

    /// Lets datagrams of a link come to this session, those first that came too early.
    pub(crate) fn add(&self, route: UdpRoute) {
        self.command(Command::Add { owner: self.owner, route });
    }

    /// The link is gone.
    pub(crate) fn remove(&self, route: UdpRoute) {
        self.command(Command::Remove { owner: self.owner, route });
    }

    /// Gives back an emptied parcel, for the next batch.
    pub(crate) fn recycle(&mut self, mut parcel: Parcel) {
        parcel.clear();
        // With enough of them at hand this one goes to the allocator.
        let _ = self.port.recycle.try_send(parcel);
    }

    /// Opens a further socket, at this port or at one that the system chooses. What comes by it is routed like
    /// everything; it lives until [`Self::close`], or as long as the session does.
    ///
    /// # Errors
    /// If the system gives none, the port is taken, or the port has [`MAX_SOCKETS`].
    pub(crate) fn open(&self, port: Option<u16>) -> io::Result<Arc<PortSocket<N::Udp>>> {
        let Some(place) = self.port.places.take() else {
            return Err(io::Error::other("too many UDP sockets are open"));
        };
        let at = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port.unwrap_or(0));
        let io = match self.port.net.bind_udp(at) {
            Ok(io) => io,
            Err(error) => {
                self.port.places.free(place);
                return Err(error);
            }
        };
        let id = SockId(self.port.next.socket.fetch_add(1, Ordering::Relaxed));
        let socket = Arc::new(PortSocket::new(id, io, place, Arc::clone(&self.port.places)));
        self.command(Command::Watch { owner: self.owner, socket: Arc::clone(&socket) });
        Ok(socket)
    }

    /// Closes a socket that [`Self::open`] gave, once the caller has dropped it too.
    pub(crate) fn close(&self, socket: &Arc<PortSocket<N::Udp>>) {
        self.command(Command::Unwatch { owner: self.owner, socket: socket.id() });
    }

    fn command(&self, command: Command<N>) {
        self.port.command(command);
    }
}

impl<N: Net> Drop for SessionPort<N> {
    fn drop(&mut self) {
        self.command(Command::Leave { owner: self.owner });
    }
}

/// What is asked of the port's task.
enum Command<N: Net> {
    Join { owner: u64, parcels: mpsc::Sender<Parcel> },
    Add { owner: u64, route: UdpRoute },
    Remove { owner: u64, route: UdpRoute },
    Watch { owner: u64, socket: Arc<PortSocket<N::Udp>> },
    Unwatch { owner: u64, socket: SockId },
    Leave { owner: u64 },
    Expect(BTreeMap<ProbeTag, (ProbeKey, AttemptId)>),
}

/// What is given out next.
struct Next {
    owner: AtomicU64,
    socket: AtomicU32,
}

/// The places of the task's table, and the bits that go with them.
pub(crate) struct Places {
    ready: Arc<ReadySet>,
    /// Those that are free; the last one is given out next.
    free: Mutex<Vec<usize>>,
}

impl Places {
    fn new() -> Self {
        Self { ready: ReadySet::new(MAX_SOCKETS * 2), free: Mutex::new((0..MAX_SOCKETS).rev().collect()) }
    }

    fn take(&self) -> Option<usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn free(&self, place: usize) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }

    /// What wakes the task to look at the socket in this place: to receive, to send.
    fn wakers(&self, place: usize) -> [Waker; 2] {
        [self.ready.waker(place * 2), self.ready.waker(place * 2 + 1)]
    }
}

/// Sockets at a time: the main one, and two peers that are being guessed with 512 each.
const MAX_SOCKETS: usize = 1025;

/// Batches that wait for a busy session: with four full buffers each, 8 MiB, as much as its windows let be
/// under way.
const PARCELS: usize = 32;

/// Emptied parcels that wait for their next use, beside the one that the channel gives each of its senders: one is
/// being filled while another is read. A parcel may have grown to a quarter of a megabyte, so more are not kept.
const SPARE_PARCELS: usize = 1;

/// STUN messages that wait: answers to a few requests each of a few servers.
const STUNS: usize = 64;
