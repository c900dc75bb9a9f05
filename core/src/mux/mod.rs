//! The multiplexer: many byte streams over one session, which outlive the links that carry them.
//!
//! # What it does
//!
//! A session has one [`Mux`] on each side. The application opens streams, puts bytes into them and takes
//! bytes out; the links below call [`Mux::transmit`] for bytes to carry, and hand in what a [`Decoder`] read
//! ([`Mux::receive`]). Frames are described in [`Frame`]. The life of a stream:
//!
//! - **Open.** [`Mux::open`] puts the stream in a queue. Its id is taken when its SYN goes into a link, so
//!   ids rise without gaps; one side has the odd ones, the other the even ones. Up to the initial credit of
//!   bytes may follow at once. The acceptor answers with WINDOW ([`Mux::accept`]) or RST ([`Mux::reset`]).
//!   At most 256 SYNs are unanswered; later streams wait in their order. Streams that are given up before
//!   their answer cost the peer a dial each: beyond 200, and 20 a second, the RST waits for the answer.
//! - **Credit.** A receiver grants an absolute limit, and acknowledges what its application has *consumed*
//!   (not what merely arrived). The sender keeps every byte until that, or until a RESUME says that it has
//!   been received: it can be sent again on another link. The window, which is how far the limit runs ahead
//!   of what was consumed, doubles while the reader takes more than half of it in a round trip, and
//!   halves in every second in which less than a quarter of it is used. A limit is never withdrawn.
//! - **End.** FIN ends one direction, the other goes on. FIN takes one sequence number and is acknowledged
//!   when the far application has passed it on; after both, the stream is [`Event::Closed`]. RST ends both
//!   directions at once.
//! - **Another link.** [`Mux::detach`], exchange of [`Resume`], [`Mux::attach`]: see [`Resume`].
//!
//! # The loop that drives it
//!
//! A session does in every turn, with one `now`:
//!
//! 1. Read the link; for each frame of its [`Decoder`]: stream 0, PING and PONG to the link, all else to
//!    [`Mux::receive`]. A [`Violation`] ends the link, not the session.
//! 2. [`Mux::poll_event`] until there is no more. On [`Event::Readable`] write [`Mux::readable`] to the local
//!    socket and [`Mux::consume`] what it took, until either is exhausted. On [`Event::Writable`] (and once
//!    after opening or accepting) read the local socket into [`Mux::space`] and tell [`Mux::wrote`], until
//!    either is exhausted.
//! 3. While the link takes bytes and [`Mux::wants_transmit`]: [`Mux::transmit`] a record.
//! 4. [`Mux::tick`] once [`Mux::deadline`] has come.
//!
//! # Order on the link
//!
//! RST, WINDOW and SYN first; then DATA, round robin with a quantum of one TLS record (deficit round robin,
//! RFC 8290 section 4.1.2, without its queue management): a stream that had nothing to send and now has
//! takes its first turn before those that always have something, so a keystroke overtakes a bulk copy.
//!
//! A link that gives each stream a lane of its own calls [`Mux::transmit_lane`] in place of
//! [`Mux::transmit`]: the same order, but one stream's frames at a time.
//!
//! # Memory
//!
//! With the default [`Config`] at most, for one session:
//!
//! | what | bytes |
//! |---|---|
//! | received, not consumed | 4,096 × 16 KiB + pool of 8 MiB = 72 MiB |
//! | written, not acknowledged | the same, from a pool of its own: 72 MiB |
//! | state, a target or reset text of ≤ 1 KiB included | 4,096 × 2 KiB = 8 MiB |
//!
//! That is [`MAX_MEMORY`]; it is reached only by a peer that fills thousands of streams whose readers have
//! stopped. Idle streams hold no buffer: [`Mux::tick`] gives back what is not used.
//!
//! # What it leaves to others
//!
//! TLS, QUIC and sockets; stream 0, PING and PONG, which belong to each link; when a link is dead and which
//! one comes next; what a target is and who may reach it. Time comes in as `now`. Nothing is allocated for
//! a frame; a stream's buffers grow with their use.

mod app;
pub mod code;
mod decoder;
mod frame;
mod lanes;
mod pool;
mod receive;
mod resume;
mod ring;
mod slots;
mod stream;
mod transmit;
mod violation;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub use app::{Event, MAX_TARGET, OpenError};
pub use decoder::Decoder;
pub use frame::{Frame, HEADER, MAX_RESET_TEXT, MAX_SYN, Protocol};
pub use resume::{Resume, ResumeReset, ResumeStream};
pub use slots::Key;
pub use transmit::MIN_TRANSMIT;
pub use violation::Violation;

use pool::{Bucket, Pool};
use slots::{Queue, Slots};
use stream::{End, Phase, Stream};

/// Which of the two a side is: the one with the lower public key is controlling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Its streams have odd ids.
    Controlling,
    /// Its streams have even ids.
    Controlled,
}

impl Side {
    /// The first id of this side's streams; every other one is 2 higher.
    fn first_id(self) -> u32 {
        match self {
            Self::Controlling => 1,
            Self::Controlled => 2,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }

    fn owns(self, id: u32) -> bool {
        id != 0 && id % 2 == self.first_id() % 2
    }
}

/// The caps. Both sides of a session have the same initial credit: the session's hello agrees it.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// What each side of a new stream may send before it has heard anything, in bytes: one TLS record, so
    /// that a request and its answer need no round trip for credit. Made a power of two of at least 4 KiB.
    pub initial_credit: usize,
    /// The most streams at a time, those of both sides together: what a busy proxy has, times four.
    pub max_streams: usize,
    /// The most SYNs of one side without an answer: as many as a listener's usual backlog.
    pub max_unanswered: usize,
    /// What all streams of one direction may have beyond their initial credits, in bytes: 8 MiB carry
    /// 1 Gbit/s over a round trip of 64 ms.
    pub pool: usize,
    /// The largest window of one stream, in bytes: half of the pool, so that one transfer never takes all.
    pub max_window: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            initial_credit: 16 * 1024,
            max_streams: 4096,
            max_unanswered: 256,
            pool: 8 << 20,
            max_window: 4 << 20,
        }
    }
}

/// The streams of one session, on one side.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    config: Config,
    rtt: Duration,
    slots: Slots<Stream>,
    /// The slots by ids: of the streams that have an id and have not ended.
    ids: BTreeMap<u32, u32>,
    /// The highest id of ours that was taken; 0 for none.
    allocated: u32,
    /// The highest id of the peer's that was seen; 0 for none.
    seen: u32,
    /// Whether there is a link.
    attached: bool,
    /// Streams in [`Phase::Waiting`], in the order of their opening.
    opening: Queue,
    /// Streams that owe a frame other than DATA.
    control: Queue,
    /// Streams that have DATA after having had none.
    fresh: Queue,
    /// The other streams that have DATA, and some that have just run out of it.
    bulk: Queue,
    /// Streams that the application is to hear of.
    events: Queue,
    /// Ids of streams that were refused without getting a slot; at most `max_unanswered`.
    refused: VecDeque<u32>,
    /// The reasons of RSTs that went into this link or into one before, for the next RESUME.
    resets: VecDeque<ResumeReset>,
    /// How many streams of ours have a SYN that was not answered.
    unanswered: usize,
    /// How many streams are in [`Phase::Offered`].
    offered: usize,
    /// How many streams have DATA for the link.
    ready: usize,
    send_pool: Pool,
    recv_pool: Pool,
    own_cancels: Bucket,
    peer_cancels: Bucket,
    /// When [`Self::tick`] has something to do.
    tick_at: Option<Instant>,
    bytes_sent: u64,
    bytes_received: u64,
}

/// Figures for `status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Streams that have not ended, those that wait for a link included.
    pub streams: usize,
    /// Payload bytes that went into a link, each counted once.
    pub bytes_sent: u64,
    /// Payload bytes that were received.
    pub bytes_received: u64,
    /// The memory that streams and their buffers take, in bytes.
    pub memory: usize,
}

/// What one stream, or all of them, have carried, in payload bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Gone into a link, each counted once.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

impl Mux {
    /// A multiplexer without streams and without a link. The first link of two new processes is attached
    /// with an empty [`Resume`].
    pub fn new(side: Side, config: Config) -> Self {
        let initial = config.initial_credit.next_power_of_two().max(ring::SMALLEST);
        let config = Config {
            initial_credit: initial,
            max_window: config.max_window.next_power_of_two().max(initial),
            ..config
        };
        Self {
            side,
            config,
            rtt: UNKNOWN_RTT,
            slots: Slots::new(),
            ids: BTreeMap::new(),
            allocated: 0,
            seen: 0,
            attached: false,
            opening: Queue::default(),
            control: Queue::default(),
            fresh: Queue::default(),
            bulk: Queue::default(),
            events: Queue::default(),
            refused: VecDeque::new(),
            resets: VecDeque::new(),
            unanswered: 0,
            offered: 0,
            ready: 0,
            send_pool: Pool::new(config.pool),
            recv_pool: Pool::new(config.pool),
            own_cancels: Bucket::new(pool::OWN_CANCELS),
            peer_cancels: Bucket::new(pool::PEER_CANCELS),
            tick_at: None,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    /// The link's round-trip time: how fast a reader must be for its window to grow.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// What all streams have carried, those that have ended included.
    pub fn totals(&self) -> Bytes {
        Bytes { sent: self.bytes_sent, received: self.bytes_received }
    }

    /// Figures for `status`. It looks at every stream.
    pub fn stats(&self) -> Stats {
        let mut stats =
            Stats { bytes_sent: self.bytes_sent, bytes_received: self.bytes_received, ..Stats::default() };
        for (_, stream) in self.slots.iter() {
            stats.memory += size_of::<Stream>() + stream.memory();
            match &stream.phase {
                Phase::Waiting(call) | Phase::Calling(call) | Phase::Offered(call) => {
                    stats.streams += 1;
                    stats.memory += call.target.len();
                }
                Phase::Awaited | Phase::Open => stats.streams += 1,
                Phase::Resetting { text, .. } => stats.memory += text.len(),
                Phase::Ended(End::Reset { text, .. }) => stats.memory += text.len(),
                Phase::Ended(End::Closed) => {}
            }
        }
        stats
    }

    /// What the stream has carried.
    pub fn bytes(&self, key: Key) -> Option<Bytes> {
        let stream = self.slots.at(self.slots.find(key)?)?;
        Some(Bytes { sent: stream.send.sent(), received: stream.recv.received })
    }

    fn find_mut(&mut self, key: Key) -> Option<(u32, &mut Stream)> {
        let slot = self.slots.find(key)?;
        Some((slot, self.slots.at_mut(slot)?))
    }

    /// Recounts whether the stream has DATA for the link, and lets it stand in line if it has.
    fn refresh(&mut self, slot: u32) {
        let Some(stream) = self.slots.at_mut(slot) else {
            return;
        };
        let ready = self.attached && !stream.held && stream.wants_data();
        if ready != stream.ready {
            stream.ready = ready;
            self.ready = if ready { self.ready + 1 } else { self.ready.saturating_sub(1) };
        }
        if ready && !self.fresh.contains(slot) && !self.bulk.contains(slot) {
            stream.deficit = transmit::QUANTUM;
            self.fresh.push(slot);
        }
    }

    /// Lets the stream stand in line for what it owes.
    fn queue_control(&mut self, slot: u32) {
        if self.attached && self.slots.at(slot).is_some_and(|stream| !stream.held && stream.owed.any()) {
            self.control.push(slot);
        }
    }

    /// Takes the stream out of every queue but that of the events, and gives its buffers back.
    fn strip(&mut self, slot: u32) {
        for queue in [&mut self.opening, &mut self.control, &mut self.fresh, &mut self.bulk] {
            queue.remove(slot);
        }
        let initial = self.config.initial_credit;
        let Some(stream) = self.slots.at_mut(slot) else {
            return;
        };
        self.send_pool.account(stream.send.ring.capacity(), 0, initial);
        self.recv_pool.account(stream.recv.reserved, 0, initial);
        stream.send.release(u64::MAX);
        stream.send.ring.release();
        stream.recv.ring.release();
        stream.recv.reserved = 0;
        stream.owed = stream::Owed::default();
        if std::mem::take(&mut stream.ready) {
            self.ready = self.ready.saturating_sub(1);
        }
        match stream.phase {
            Phase::Calling(_) | Phase::Resetting { unanswered: true, .. } => {
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            Phase::Offered(_) => self.offered = self.offered.saturating_sub(1),
            Phase::Waiting(_)
            | Phase::Awaited
            | Phase::Open
            | Phase::Resetting { unanswered: false, .. }
            | Phase::Ended(_) => {}
        }
    }

    /// Frees the slot. The application hears nothing.
    fn vanish(&mut self, slot: u32) {
        self.strip(slot);
        self.events.remove(slot);
        if let Some(stream) = self.slots.remove(slot) {
            self.ids.remove(&stream.id);
        }
    }

    /// Ends the stream. The slot is free once the application has heard of it, which it does if it ever
    /// heard of the stream and has not given it up.
    fn end(&mut self, slot: u32, end: End) {
        let Some(stream) = self.slots.at_mut(slot) else {
            return;
        };
        let known = match stream.phase {
            Phase::Awaited | Phase::Resetting { .. } | Phase::Ended(_) => false,
            Phase::Offered(_) => !stream.news.incoming,
            Phase::Waiting(_) | Phase::Calling(_) | Phase::Open => true,
        };
        if !known {
            return self.vanish(slot);
        }
        self.strip(slot);
        if let Some(stream) = self.slots.at_mut(slot) {
            self.ids.remove(&stream.id);
            stream.id = 0;
            stream.news = stream::News::default();
            stream.phase = Phase::Ended(end);
            self.events.push(slot);
        }
    }

    /// Closes the stream if both directions have ended and both ends know it.
    fn close_if_done(&mut self, slot: u32) {
        if self.slots.at(slot).is_some_and(|stream| matches!(stream.phase, Phase::Open) && stream.is_done()) {
            self.end(slot, End::Closed);
        }
    }
}

/// The highest id: beyond it a new session opens, and this one drains.
pub const MAX_ID: u32 = 1 << 30;
/// The most memory that a session's streams take with the default [`Config`], in bytes; see the table above.
pub const MAX_MEMORY: usize = 2 * (4096 * 16 * 1024 + (8 << 20)) + 4096 * 2048;
/// The round-trip time of a link before it was measured: that of a connection across a continent.
const UNKNOWN_RTT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
