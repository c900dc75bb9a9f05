//! The task of a session: one loop that moves bytes between local connections, the streams of the core's
//! `Session`, and the links of one peer.
//!
//! Everything of a session happens in this one task, so nothing here needs a lock. Sockets wake it through a
//! [`ReadySet`], which says which of them to try again; others talk to it by [`Command`].

mod datagrams;
mod flows;
mod links;
mod streams;
mod target;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_channel::mpsc;
use futures_util::StreamExt as _;
use inp2p_core::agent::io::SessionNews;
use inp2p_core::ids::{AttemptId, PeerName, PublicKey};
use inp2p_core::link::{LinkKeys, Preface};
use inp2p_core::mux::{Config, Key, code};
use inp2p_core::relay::Access;
use inp2p_core::session::{Attempt, LinkId, Session, SessionConfig};
use inp2p_core::tunnel::Allow;
use inp2p_core::wire::message::Targets;
use tracing::{debug, warn};

use self::datagrams::Datagrams;
use self::flows::Flow;
pub(crate) use self::flows::Origin;
use self::streams::refuse;
use self::target::{Dialled, Policy};
use self::wire::Wire;
use crate::DUE;
use crate::meter::SessionMeter;
use crate::net::{Net, TimerIo as _};
use crate::port::{MAIN, Port};
use crate::ready::ReadySet;
use crate::relay::{ByteStream, Carrier};
use crate::web::SignalServer;

/// What others ask of a session.
pub(crate) enum Command<N: Net> {
    /// Look for a path.
    Attempt {
        /// The peer's identity.
        key: PublicKey,
        /// What to try.
        attempt: Box<Attempt>,
        /// All that the peer may have dialled, for one of another user.
        targets: Option<Targets>,
    },
    /// More relays for an attempt.
    Offers {
        /// Which.
        attempt: AttemptId,
        /// The relays, the best first.
        relays: Vec<Access>,
    },
    /// The link has to show that it still works.
    Doubt,
    /// The host has these addresses now, and no others.
    Network(Arc<[IpAddr]>),
    /// What a peer of another user may have dialled has changed.
    Restrict {
        /// All of it.
        targets: Targets,
        /// Whether the session is to end at once, since nothing is left for it.
        end: bool,
    },
    /// How often idle links over UDP have to be used.
    Keepalive(Duration),
    /// A connection came in that names one of this session's attempts.
    Accepted {
        /// The connection, the preface already read from it.
        stream: N::Stream,
        /// The preface.
        preface: Preface,
        /// Where it comes from.
        remote: SocketAddr,
    },
    /// A local program connected to a forward.
    Open {
        /// Its connection.
        stream: N::Stream,
        /// The forward that it came through.
        origin: Origin,
    },
    /// There is no way to the peer for now: those who wait for one end with this reason.
    Unreachable(String),
    /// A target's name was looked up and dialled.
    Dialled {
        /// Which core of the session asked.
        generation: u64,
        /// The stream that it is for.
        key: Key,
        /// How far it came.
        dialled: Dialled<N>,
    },
    /// What came of a dial of the server's relay in a WebSocket.
    Entered {
        /// Which core of the session asked.
        generation: u64,
        /// The link that it is for.
        link: LinkId,
        /// The connection, or why there is none.
        stream: Result<Box<dyn ByteStream>, String>,
    },
    /// End in order.
    Leave,
}

/// What all sessions of a process share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) keys: LinkKeys,
    pub(crate) own: PublicKey,
    pub(crate) instance: [u8; 16],
    pub(crate) allow: Allow,
    /// The TCP port that this node listens on.
    pub(crate) listening: u16,
    /// How to reach the server, for its relay.
    pub(crate) server: SignalServer,
}

/// News for the control task.
pub(crate) type News = (PeerName, SessionNews);

/// Where commands wait for a session: as many as it takes up in one turn. Whoever sends more waits.
pub(crate) const COMMANDS: usize = 64;

/// Runs a session until it is told to leave, or until nobody can send it commands any more.
pub(crate) async fn run<N: Net>(
    net: N,
    peer: PeerName,
    number: u64,
    (common, port): (Arc<Common>, Port<N>),
    commands: (mpsc::Sender<Command<N>>, mpsc::Receiver<Command<N>>),
    news: mpsc::Sender<News>,
    meter: Arc<SessionMeter>,
) {
    let timer = net.timer();
    let streams = Config::default().max_streams;
    let ready = ReadySet::new(streams * 2 + WIRES * 2 + 1);
    let datagrams = Datagrams::new(&port, ready.waker(streams * 2 + WIRES * 2));
    let mut task = Task {
        net,
        peer,
        number,
        policy: Policy { common: Arc::clone(&common), share: None },
        common,
        own_commands: commands.0,
        commands: commands.1,
        news,
        meter,
        timer,
        core: None,
        datagrams,
        ready,
        wire_bits: streams * 2,
        wires: Vec::new(),
        flows: Vec::new(),
        open: 0,
        waiting: VecDeque::new(),
        deadlines: BTreeMap::new(),
        unreachable: None,
        refusal: None,
        scratch: Vec::new(),
        woken: Vec::new(),
        leaving: Leaving::No,
        generation: 0,
        keepalive: None,
        news_backlog: VecDeque::new(),
    };
    poll_fn(|cx| task.poll(cx)).await;
}

struct Task<N: Net> {
    net: N,
    peer: PeerName,
    number: u64,
    common: Arc<Common>,
    policy: Policy,
    own_commands: mpsc::Sender<Command<N>>,
    commands: mpsc::Receiver<Command<N>>,
    news: mpsc::Sender<News>,
    meter: Arc<SessionMeter>,
    timer: N::Timer,
    /// None until the peer's key is known.
    core: Option<Session>,
    /// Links over UDP have the node's port in common.
    datagrams: Datagrams<N>,
    ready: Arc<ReadySet>,
    /// The first bit of the links' connections.
    wire_bits: usize,
    wires: Vec<Wire<Carrier<N::Stream>>>,
    /// By the slot of the stream's key.
    flows: Vec<Option<Flow<N::Stream>>>,
    open: usize,
    /// Local connections that came before the peer's key was known.
    waiting: VecDeque<Waiting<N>>,
    /// When a dial or an opening is given up, by slot.
    deadlines: BTreeMap<(Instant, usize), Key>,
    /// Why there is no way to the peer, as last heard.
    unreachable: Option<String>,
    /// Why this node last did not dial for the peer, which the log has told then.
    refusal: Option<String>,
    /// What links are read into.
    scratch: Vec<u8>,
    /// The slots of the flows that were woken, while they are served.
    woken: Vec<usize>,
    leaving: Leaving,
    /// Counts the cores of this session: what belongs to an earlier one is void.
    generation: u64,
    /// How often idle links over UDP have to be used, where it was measured.
    keepalive: Option<Duration>,
    /// News that the control task has yet to take.
    news_backlog: VecDeque<SessionNews>,
}

/// How far the session is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Told to leave: open streams may finish until then, and nothing new begins.
    Draining(Instant),
    /// All has ended; the peer is being told, until then.
    Parting(Instant),
}

struct Waiting<N: Net> {
    stream: N::Stream,
    origin: Origin,
    until: Instant,
    /// Whether `until` has been brought forward.
    shortened: bool,
}

impl<N: Net> Task<N> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ready.register(cx.waker());
        let now = self.net.now();
        for _ in 0..TURNS {
            if self.commands(now, cx).is_ready() {
                return Poll::Ready(());
            }
            let mut more = self.woken(now);
            more |= self.receive(now);
            more |= self.arrivals(now, cx);
            // What was received counts as a sign of life; what time brings is acted on below.
            self.time(now);
            more |= self.act(now);
            more |= self.events(now);
            more |= self.transmit(now);
            more |= self.depart(now);
            // The last acknowledgement that went out may have ended a stream.
            more |= self.events(now);
            more |= self.act(now);
            if self.is_over(now) {
                self.end_links(now, STOPPING);
                return Poll::Ready(());
            }
            self.tell(cx);
            if !more {
                self.measure();
                return self.sleep(cx);
            }
        }
        // Others on this thread have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes what others ask for. Ready when nobody is left to ask.
    fn commands(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..COMMANDS {
            match self.commands.poll_next_unpin(cx) {
                Poll::Ready(Some(command)) => self.command(now, command),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn command(&mut self, now: Instant, command: Command<N>) {
        match command {
            Command::Attempt { key, attempt, targets } => {
                self.policy.share = targets.map(|targets| Arc::new(targets.0.into_iter().collect()));
                self.attempt(now, key, *attempt);
            }
            Command::Offers { attempt, relays } => {
                if let Some(core) = &mut self.core {
                    core.relays(now, attempt, relays);
                }
            }
            Command::Doubt => {
                if let Some(core) = &mut self.core {
                    core.doubt(now);
                }
            }
            Command::Network(addresses) => self.network_changed(now, &addresses),
            Command::Restrict { targets, end } => {
                self.restrict(targets);
                if end && self.leaving == Leaving::No {
                    self.leave(now);
                }
            }
            Command::Keepalive(every) => {
                self.keepalive = Some(every);
                if let Some(core) = &mut self.core {
                    core.keepalive(every);
                }
            }
            Command::Accepted { stream, preface, remote } => {
                let link = self.core.as_mut().and_then(|core| core.accepted(now, &preface, remote));
                match link {
                    Some(link) => self.add_wire(now, link, Carrier::Plain(stream), true),
                    None => debug!(peer = %self.peer, %remote, "turned a connection away"),
                }
            }
            Command::Open { stream, origin } => self.open_stream(now, stream, origin),
            Command::Unreachable(reason) => {
                self.unreachable = Some(reason);
                self.shorten_openings();
            }
            Command::Dialled { generation, key, dialled } if generation == self.generation => {
                self.dialled(now, key, dialled);
            }
            Command::Entered { generation, link, stream } if generation == self.generation => {
                self.entered(now, link, stream);
            }
            // For a peer that had another key: the connection closes unused.
            Command::Dialled { .. } | Command::Entered { .. } => {}
            Command::Leave => {
                if self.leaving == Leaving::No {
                    self.leaving = Leaving::Draining(now + DRAIN);
                }
            }
        }
    }

    fn attempt(&mut self, now: Instant, key: PublicKey, attempt: Attempt) {
        if self.core.as_ref().is_some_and(|core| core.peer() != key) {
            warn!(peer = %self.peer, "the peer has another key than before: its streams end");
            self.drop_core(now);
        }
        if self.core.is_none() {
            let config = SessionConfig {
                keys: self.common.keys.clone(),
                own: self.common.own,
                peer: key,
                instance: self.common.instance,
                // No two cores of a process have the same: fewer sessions than 2^32 are ever made.
                number: self.number + (self.generation << 32),
                socket: Some(MAIN),
                seed: self.net.seed(),
            };
            self.core = Session::new(now, config);
            if let (Some(core), Some(every)) = (&mut self.core, self.keepalive) {
                core.keepalive(every);
            }
        }
        let Some(core) = &mut self.core else {
            return warn!(peer = %self.peer, "the peer has this node's own key");
        };
        core.attempt(now, attempt);
        while let Some(waiting) = self.waiting.pop_front() {
            self.open_stream(now, waiting.stream, waiting.origin);
        }
    }

    fn drop_core(&mut self, now: Instant) {
        self.end_flows(code::NONE, "the peer's key has changed");
        self.end_links(now, "the peer's key has changed");
        self.core = None;
        self.wires.clear();
        self.generation += 1;
    }

    fn wanted(&mut self) {
        // One wish is enough.
        if !self.news_backlog.iter().any(|news| matches!(news, SessionNews::Wanted)) {
            self.news_backlog.push_back(SessionNews::Wanted);
        }
    }

    /// Tries again what was woken. Whether something wants another turn at once.
    fn woken(&mut self, now: Instant) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        let Self { ready, wires, flows, wire_bits, datagrams, .. } = self;
        let first = *wire_bits;
        ready.take(|bit| {
            if bit >= first + WIRES * 2 {
                datagrams.woken();
            } else if bit >= first {
                let (place, read) = ((bit - first) / 2, (bit - first) % 2 == 0);
                if let Some(wire) = wires.iter_mut().find(|wire| wire.place == place) {
                    wire.woken(read);
                }
            } else if let Some(flow) = flows.get_mut(bit / 2).and_then(Option::as_mut) {
                flow.woken(bit % 2 == 0);
                if woken.last() != Some(&(bit / 2)) {
                    woken.push(bit / 2);
                }
            }
        });
        let mut more = false;
        for slot in woken.drain(..) {
            more |= self.pump(now, slot);
        }
        self.woken = woken;
        more
    }

    /// Acts on deadlines.
    fn time(&mut self, now: Instant) {
        if let Some(core) = &mut self.core
            && let Some((_, why)) = core.deadline().filter(|(deadline, _)| *deadline <= now)
        {
            tracing::trace!(target: DUE, peer = %self.peer, "due: {why}");
            core.tick(now);
            if self.open == 0 {
                self.relax();
            }
        }
        while let Some(entry) = self.deadlines.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.remove();
            self.overdue(now, key);
        }
        while self.waiting.front().is_some_and(|waiting| waiting.until <= now) {
            if let Some(waiting) = self.waiting.pop_front() {
                refuse(waiting.stream, &waiting.origin, &self.no_path());
            }
        }
        if let Leaving::Draining(until) = self.leaving
            && (self.open == 0 || until <= now)
        {
            self.leave(now);
        }
    }

    /// Passes news on to the control task, as far as it takes them.
    fn tell(&mut self, cx: &mut Context<'_>) {
        while let Some(news) = self.news_backlog.pop_front() {
            match self.news.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    let _ = self.news.start_send((self.peer.clone(), news));
                }
                // It has ended, and this session will be told to.
                Poll::Ready(Err(_)) => {}
                Poll::Pending => {
                    self.news_backlog.push_front(news);
                    break;
                }
            }
        }
        // What the control task does not take for so long is history.
        while self.news_backlog.len() > NEWS {
            self.news_backlog.pop_front();
        }
    }

    /// Gives back what a session without streams does not need: room for bulk.
    fn relax(&mut self) {
        self.scratch = Vec::new();
        self.wires.iter_mut().for_each(Wire::relax);
        self.datagrams.relax();
    }

    fn measure(&mut self) {
        let Some(core) = &mut self.core else { return };
        let rtt = core.rtt();
        let totals = core.mux().totals();
        self.meter.set(rtt, totals.sent, totals.received, self.open as u64);
    }

    fn sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let core = self.core.as_ref().and_then(Session::deadline).map(|(deadline, _)| deadline);
        let flows = self.deadlines.keys().next().map(|(deadline, _)| *deadline);
        let waiting = self.waiting.front().map(|waiting| waiting.until);
        let leaving = match self.leaving {
            Leaving::No => None,
            Leaving::Draining(until) | Leaving::Parting(until) => Some(until),
        };
        let at = [core, flows, waiting, leaving].into_iter().flatten().min();
        self.timer.wake_at(cx, at);
        Poll::Pending
    }

    /// Ends what is left, and tells the peer.
    fn leave(&mut self, now: Instant) {
        self.leaving = Leaving::Parting(now + PARTING);
        for waiting in self.waiting.drain(..) {
            refuse(waiting.stream, &waiting.origin, STOPPING);
        }
        self.end_flows(code::STOPPING, STOPPING);
        if let Some(core) = &mut self.core {
            core.leave(STOPPING);
        }
    }

    /// Whether the session has ended: nothing is left to do, and the peer has been told.
    fn is_over(&self, now: Instant) -> bool {
        match self.leaving {
            Leaving::No | Leaving::Draining(_) => false,
            Leaving::Parting(until) => {
                let core = self.core.as_ref().is_none_or(Session::is_flushed);
                let kernel = self.wires.iter().all(Wire::is_flushed) && self.datagrams.is_flushed();
                (core && kernel) || until <= now
            }
        }
    }
}

/// How often the loop goes round before others on the thread have their turn.
const TURNS: usize = 16;

/// Connections of links at a time; the core has fewer.
const WIRES: usize = 48;

/// How long open streams may go on after the node was told to stop: with [`PARTING`] and the goodbye to the
/// server it stays below ten seconds.
const DRAIN: Duration = Duration::from_millis(7500);

/// How long the peer's connections have to take the last words.
const PARTING: Duration = Duration::from_millis(500);

/// Why streams end when the node does.
const STOPPING: &str = "the node is stopping";

/// News that may wait; beyond it the oldest are dropped.
const NEWS: usize = 64;
