//! The task of the port: receives, routes, wakes.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt as _;
use inp2p_core::ids::{AttemptId, SockId};
use inp2p_core::link::Role;
use inp2p_core::link::udp::probe::{Probe, ProbeKey};
use inp2p_core::link::udp::{Demux, Held, ProbeTag, Route};
use inp2p_core::session::{LinkId, UdpRoute};
use tracing::debug;

use super::answer::Answerer;
use super::{Command, Head, Parcel, Places, PortSocket, Stun};
use crate::net::{Net, RECV_BUFFER_BYTES, RecvBatch, TimerIo as _};

/// What the task talks through.
pub(super) struct Ends<N: Net> {
    pub(super) commands: mpsc::Receiver<Command<N>>,
    pub(super) recycled: mpsc::Receiver<Parcel>,
    pub(super) stun: mpsc::Sender<Stun>,
    pub(super) called: mpsc::Sender<AttemptId>,
    pub(super) stop: oneshot::Receiver<()>,
}

pub(super) struct Task<N: Net> {
    net: N,
    timer: N::Timer,
    places: Arc<Places>,
    /// By place.
    sockets: Vec<Option<Watched<N>>>,
    /// The places of sockets that may have something, in the order in which they are looked at.
    readable: VecDeque<usize>,
    demux: Demux<(u64, LinkId)>,
    /// Attempts that peers may begin without the server.
    expected: BTreeMap<ProbeTag, (ProbeKey, AttemptId)>,
    owners: BTreeMap<u64, Owner>,
    /// Those whose parcel has something.
    touched: Vec<u64>,
    batch: RecvBatch,
    main: Arc<PortSocket<N::Udp>>,
    ends: Ends<N>,
    /// None for a node that is no relay.
    answers: Option<Answerer>,
    dropped: Arc<AtomicU64>,
}

struct Watched<N: Net> {
    socket: Arc<PortSocket<N::Udp>>,
    /// None for the port's own.
    owner: Option<u64>,
    /// Errors since the last datagram.
    errors: u32,
    /// Whether it stands in line.
    queued: bool,
    /// It failed too often, and is looked at again then.
    resumes: Option<Instant>,
}

struct Owner {
    parcels: mpsc::Sender<Parcel>,
    routes: Vec<UdpRoute>,
    /// What has come with this batch; without room as long as that is nothing.
    parcel: Parcel,
}

impl<N: Net> Task<N> {
    pub(super) fn new(
        net: &N,
        main: &Arc<PortSocket<N::Udp>>,
        places: &Arc<Places>,
        ends: Ends<N>,
        answers: Option<Answerer>,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let mut task = Self {
            net: net.clone(),
            timer: net.timer(),
            places: Arc::clone(places),
            sockets: Vec::new(),
            readable: VecDeque::new(),
            demux: Demux::new(),
            expected: BTreeMap::new(),
            owners: BTreeMap::new(),
            touched: Vec::new(),
            batch: RecvBatch::new(BATCH, RECV_BUFFER_BYTES),
            main: Arc::clone(main),
            ends,
            answers,
            dropped,
        };
        task.watch(Arc::clone(main), None);
        task
    }

    pub(super) async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.places.ready.register(cx.waker());
        for _ in 0..TURNS {
            if Pin::new(&mut self.ends.stop).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let now = self.net.now();
            let mut worked = self.commands(cx);
            self.woken();
            worked |= self.receive(now);
            self.flush();
            self.demux.tick(now);
            self.resume(now);
            if !worked && self.readable.is_empty() {
                let resumes = self.sockets.iter().flatten().filter_map(|watched| watched.resumes).min();
                let held = self.demux.deadline().map(|(deadline, _)| deadline);
                let at = [resumes, held].into_iter().flatten().min();
                self.timer.wake_at(cx, at);
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        for _ in 0..COMMANDS {
            let Poll::Ready(Some(command)) = self.ends.commands.poll_next_unpin(cx) else { return any };
            any = true;
            match command {
                Command::Join { owner, parcels } => {
                    let entry = Owner { parcels, routes: Vec::new(), parcel: Parcel::default() };
                    self.owners.insert(owner, entry);
                }
                Command::Add { owner, route } => self.add(owner, route),
                Command::Remove { owner, route } => self.remove(owner, route),
                Command::Watch { owner, socket } => self.watch(socket, Some(owner)),
                Command::Unwatch { owner, socket } => {
                    self.unwatch(|watched| watched.owner == Some(owner) && watched.socket.id() == socket);
                }
                Command::Leave { owner } => self.leave(owner),
                Command::Expect(expected) => self.expected = expected,
            }
        }
        any
    }

    fn add(&mut self, owner: u64, route: UdpRoute) {
        let Some(entry) = self.owners.get_mut(&owner) else { return };
        entry.routes.push(route);
        let to = (owner, route.link);
        self.demux.add_tag(route.tag, to);
        for Held { socket, from, ecn, bytes, .. } in self.demux.add_link(route.label, route.initial, to) {
            self.hand(owner, Head::new(route.link, socket, from, ecn), &bytes, bytes.len());
        }
    }

    fn remove(&mut self, owner: u64, route: UdpRoute) {
        if let Some(entry) = self.owners.get_mut(&owner) {
            entry.routes.retain(|known| *known != route);
            self.demux.remove_link(route.label, route.initial);
            self.demux.remove_tag(route.tag);
        }
    }

    fn leave(&mut self, owner: u64) {
        if let Some(entry) = self.owners.remove(&owner) {
            for route in entry.routes {
                self.demux.remove_link(route.label, route.initial);
                self.demux.remove_tag(route.tag);
            }
        }
        self.unwatch(|watched| watched.owner == Some(owner));
    }

    fn watch(&mut self, socket: Arc<PortSocket<N::Udp>>, owner: Option<u64>) {
        let place = socket.place();
        if self.sockets.len() <= place {
            self.sockets.resize_with(place + 1, || None);
        }
        if let Some(free) = self.sockets.get_mut(place) {
            *free = Some(Watched { socket, owner, errors: 0, queued: true, resumes: None });
            self.readable.push_back(place);
        }
    }

    fn unwatch(&mut self, doomed: impl Fn(&Watched<N>) -> bool) {
        for place in &mut self.sockets {
            // Its place in the line leads to nothing, or to a socket that is looked at in vain once.
            drop(place.take_if(|watched| doomed(watched)));
        }
    }

    /// Takes note of which sockets were woken.
    fn woken(&mut self) {
        let Self { places, sockets, readable, .. } = self;
        places.ready.take(|bit| {
            let Some(Some(watched)) = sockets.get_mut(bit / 2) else { return };
            if bit % 2 == 1 {
                watched.socket.poll_blocked();
            } else if !std::mem::replace(&mut watched.queued, true) {
                readable.push_back(bit / 2);
            }
        });
    }

    /// Receives one batch of the socket whose turn it is.
    fn receive(&mut self, now: Instant) -> bool {
        let Some(place) = self.readable.pop_front() else { return false };
        let Some(Some(watched)) = self.sockets.get_mut(place) else { return true };
        match watched.socket.poll_recv(&mut self.batch) {
            Poll::Pending => watched.queued = false,
            Poll::Ready(Ok(filled)) => {
                watched.errors = 0;
                self.readable.push_back(place);
                let id = watched.socket.id();
                self.route(now, id, filled);
            }
            Poll::Ready(Err(error)) => {
                // Such as an ICMP error of an earlier datagram: it concerns one peer only.
                debug!(%error, "UDP receive");
                watched.errors += 1;
                if watched.errors < MAX_ERRORS {
                    self.readable.push_back(place);
                } else {
                    watched.resumes = Some(now + PAUSE);
                }
            }
        }
        true
    }

    fn resume(&mut self, now: Instant) {
        for (place, watched) in self.sockets.iter_mut().enumerate() {
            if let Some(watched) = watched
                && watched.resumes.take_if(|at| *at <= now).is_some()
            {
                self.readable.push_back(place);
            }
        }
    }

    fn route(&mut self, now: Instant, socket: SockId, filled: usize) {
        let batch = std::mem::replace(&mut self.batch, RecvBatch::new(0, 0));
        let bytes = batch.bytes(filled);
        for (meta, datagram) in batch.datagrams(filled) {
            match self.demux.route(now, socket, meta.from, meta.ecn, datagram) {
                Route::Probe((owner, link)) | Route::Quic((owner, link)) => {
                    self.hand(owner, Head::new(link, socket, meta.from, meta.ecn), datagram, bytes);
                }
                Route::Stun => {
                    let main = &self.main;
                    let answers = self.answers.as_mut().filter(|_| socket == main.id());
                    if answers.is_some_and(|answers| answers.take(now, main, meta, datagram)) {
                        continue;
                    }
                    let message = Stun { socket, from: meta.from, bytes: datagram.into() };
                    if self.ends.stun.try_send(message).is_err_and(|error| error.is_full()) {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Route::Held => {}
                Route::Dropped => self.call(datagram),
            }
        }
        self.batch = batch;
    }

    /// If nobody's datagram is a probe of an expected attempt, that has begun.
    fn call(&mut self, datagram: &[u8]) {
        let Some(probe) = Probe::parse(datagram) else { return };
        let Some((key, attempt)) = self.expected.get(&probe.tag) else { return };
        if probe.proves(key, Role::Controlling) || probe.proves(key, Role::Controlled) {
            // The next probe calls again.
            let _ = self.ends.called.try_send(*attempt);
        }
    }

    /// Puts a datagram into its owner's parcel, for which so many bytes may come in all.
    fn hand(&mut self, owner: u64, head: Head, datagram: &[u8], bytes: usize) {
        let Some(entry) = self.owners.get_mut(&owner) else { return };
        if entry.parcel.len() == 0 {
            self.touched.push(owner);
            entry.parcel = self.ends.recycled.try_recv().unwrap_or_default();
            entry.parcel.reserve(bytes);
        }
        entry.parcel.push(head, datagram);
    }

    /// Hands all parcels over.
    fn flush(&mut self) {
        while let Some(owner) = self.touched.pop() {
            let Some(entry) = self.owners.get_mut(&owner) else { continue };
            let count = entry.parcel.len();
            if entry.parcels.try_send(std::mem::take(&mut entry.parcel)).is_err() {
                self.dropped.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Buffers a system call, of 64 KiB each: a quarter of a megabyte a node. With receive offload each holds up to
/// 45 full datagrams, so more would save no time that can be measured.
const BATCH: usize = 4;

/// Batches before other tasks of the thread have their turn.
const TURNS: usize = 32;

/// Commands a turn.
const COMMANDS: usize = 64;

/// Errors in a row before a socket is left alone for a while.
const MAX_ERRORS: u32 = 16;

/// How long.
const PAUSE: Duration = Duration::from_secs(1);
