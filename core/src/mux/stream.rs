//! One stream: where it is in its life, and what each of its two directions has sent, received and kept.
//!
//! Offsets count the bytes of one direction from 0. Where a FIN has to be acknowledged it takes one sequence
//! number of its own behind the last byte; such numbers are called *sequence numbers* here, to tell them
//! from offsets.

use std::time::Instant;

use super::frame::Protocol;
use super::ring::Ring;

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// The number on the wire; 0 until the SYN goes into a link.
    pub(super) id: u32,
    pub(super) phase: Phase,
    pub(super) send: Outbound,
    pub(super) recv: Inbound,
    /// Frames, other than DATA, that are to go into the link.
    pub(super) owed: Owed,
    /// What the application has not been told yet.
    pub(super) news: News,
    /// Whether the application wanted to write and could not.
    pub(super) blocked: bool,
    /// Whether it counts among those that have DATA or a FIN for the link.
    pub(super) ready: bool,
    /// What it may still send in its turn; below 0 where its last frame took more.
    pub(super) deficit: isize,
    /// Whether its lane takes nothing now, so that it stands in no line: see [`super::Mux::release`].
    pub(super) held: bool,
}

/// Where a stream is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// Ours, and no link has seen it yet: it has no id.
    Waiting(Call),
    /// Ours; its SYN went into a link and has not been answered.
    Calling(Call),
    /// The peer's; known only because a higher id was seen. Its SYN is still to come.
    Awaited,
    /// The peer's; not answered yet.
    Offered(Call),
    /// Answered. Each direction may have ended already.
    Open,
    /// Given up by the application; the RST is still to go.
    Resetting {
        code: u16,
        text: Box<str>,
        /// Ours, and without an answer so far.
        unanswered: bool,
    },
    /// Over; the application has not heard of it yet.
    Ended(End),
}

/// What a SYN asks for.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) protocol: Protocol,
    pub(super) target: Box<str>,
}

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    Closed,
    Reset { code: u16, text: String },
}

#[derive(Debug, Default)]
pub(super) struct Owed {
    pub(super) syn: bool,
    pub(super) window: bool,
    pub(super) reset: bool,
}

impl Owed {
    pub(super) fn any(&self) -> bool {
        self.syn || self.window || self.reset
    }
}

#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) incoming: bool,
    pub(super) accepted: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) finished: bool,
}

impl Stream {
    /// A stream in `phase`; `limit` is what the peer is known to take.
    pub(super) fn new(id: u32, phase: Phase, limit: u64, initial: usize) -> Self {
        Self {
            id,
            phase,
            send: Outbound::new(limit),
            recv: Inbound::new(initial),
            owed: Owed::default(),
            news: News::default(),
            blocked: false,
            ready: false,
            deficit: 0,
            held: false,
        }
    }

    /// Whether the application may still put bytes in.
    pub(super) fn takes_writes(&self) -> bool {
        let phase = match self.phase {
            Phase::Waiting(_) | Phase::Calling(_) | Phase::Open => true,
            Phase::Awaited | Phase::Offered(_) | Phase::Resetting { .. } | Phase::Ended(_) => false,
        };
        phase && !self.send.fin
    }

    /// Whether DATA or a FIN is there that a link may carry now.
    pub(super) fn wants_data(&self) -> bool {
        let phase = match self.phase {
            Phase::Calling(_) | Phase::Open => true,
            Phase::Waiting(_)
            | Phase::Awaited
            | Phase::Offered(_)
            | Phase::Resetting { .. }
            | Phase::Ended(_) => false,
        };
        phase && self.send.next < self.send.end()
    }

    /// Whether both directions have ended and both ends know it. After a change of links the last WINDOW is
    /// owed again, whether or not the old link delivered it.
    pub(super) fn is_done(&self) -> bool {
        self.send.is_acknowledged() && self.recv.is_final() && !self.owed.window
    }

    /// The memory that its buffers hold.
    pub(super) fn memory(&self) -> usize {
        self.send.ring.capacity() + self.recv.ring.capacity()
    }
}

/// The direction away from here.
#[derive(Debug)]
pub(super) struct Outbound {
    /// What may have to be sent again: from [`Self::base`] to [`Self::written`].
    pub(super) ring: Ring,
    /// The offset of the ring's first byte.
    pub(super) base: u64,
    /// The next sequence number to go into a link.
    pub(super) next: u64,
    /// The highest value that `next` has had.
    pub(super) high: u64,
    /// The sequence number up to which the peer has passed everything on.
    pub(super) consumed: u64,
    /// The offset up to which the peer takes bytes.
    pub(super) limit: u64,
    /// Whether the stream ends behind what was written.
    pub(super) fin: bool,
}

impl Outbound {
    fn new(limit: u64) -> Self {
        Self { ring: Ring::default(), base: 0, next: 0, high: 0, consumed: 0, limit, fin: false }
    }

    /// The offset behind the last byte that the application put in.
    pub(super) fn written(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// The sequence number behind all that there is to send, FIN included.
    pub(super) fn end(&self) -> u64 {
        self.written() + u64::from(self.fin)
    }

    /// How many bytes wait for a link.
    pub(super) fn pending(&self) -> usize {
        // The difference is at most the ring's length.
        self.written().saturating_sub(self.next) as usize
    }

    /// How many bytes the peer would take beyond those written.
    pub(super) fn credit(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(self.written())).unwrap_or(usize::MAX)
    }

    /// How many bytes went into a link, each counted once.
    pub(super) fn sent(&self) -> u64 {
        self.high.min(self.written())
    }

    /// Lets go of the bytes below the sequence number `upto`.
    pub(super) fn release(&mut self, upto: u64) {
        let upto = upto.min(self.written());
        let n = upto.saturating_sub(self.base);
        // Within the ring, because of the line above.
        self.ring.advance(n as usize);
        self.base += n;
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.fin && self.consumed == self.end()
    }
}

/// The direction towards here.
#[derive(Debug)]
pub(super) struct Inbound {
    /// What was received and not consumed.
    pub(super) ring: Ring,
    /// The offset behind the last byte received.
    pub(super) received: u64,
    /// Whether the stream ends there.
    pub(super) fin: bool,
    /// Whether the application has passed that end on.
    pub(super) passed: bool,
    /// The offset up to which the peer may send: never taken back.
    pub(super) limit: u64,
    /// How far beyond the consumed bytes the next WINDOW moves the limit. A power of two.
    pub(super) window: usize,
    /// The memory that is set aside: at least the window, at least what the peer may still send, and at
    /// least what the ring has. A power of two.
    pub(super) reserved: usize,
    /// The sequence number that the latest WINDOW acknowledged.
    pub(super) advertised: u64,
    /// The most bytes that the peer lately sent beyond what it had acknowledged.
    pub(super) peak: u64,
    /// Since when, and from which offset on, the reader's speed is being measured.
    pub(super) epoch: Option<(Instant, u64)>,
    /// The offset consumed up to the last tick.
    pub(super) ticked: u64,
}

impl Inbound {
    fn new(initial: usize) -> Self {
        Self {
            ring: Ring::default(),
            received: 0,
            fin: false,
            passed: false,
            limit: initial as u64,
            window: initial,
            reserved: initial,
            advertised: 0,
            peak: 0,
            epoch: None,
            ticked: 0,
        }
    }

    /// The offset up to which the application has taken the bytes.
    pub(super) fn consumed(&self) -> u64 {
        self.received - self.ring.len() as u64
    }

    /// The sequence number up to which the application has passed everything on.
    pub(super) fn acknowledged(&self) -> u64 {
        self.consumed() + u64::from(self.passed)
    }

    /// The sequence number behind all that was received.
    pub(super) fn seen(&self) -> u64 {
        self.received + u64::from(self.fin)
    }

    /// How many bytes the peer may still send, and the reader has still to take.
    pub(super) fn outstanding(&self) -> usize {
        // Bounded by `reserved`.
        self.limit.saturating_sub(self.consumed()) as usize
    }

    /// Whether the end was passed on, and a WINDOW has said so.
    pub(super) fn is_final(&self) -> bool {
        self.passed && self.advertised == self.acknowledged()
    }

    /// Whether the end can be passed on now.
    pub(super) fn ends_here(&self) -> bool {
        self.fin && !self.passed && self.ring.is_empty()
    }

    /// Whether it is time for a WINDOW.
    ///
    /// One a quarter of the window is enough to keep the peer sending. But a peer whose own memory is short
    /// retains less than a window, and would wait for ever for an acknowledgement that needs more bytes to
    /// come: so it also must not take more than half of what that peer has shown it can have under way.
    pub(super) fn is_window_due(&self, initial: usize) -> bool {
        let span = self.window.max(self.outstanding());
        let most = (span / WINDOW_PART).min(MAX_WINDOW_STEP) as u64;
        let least = (initial / WINDOW_PART) as u64;
        let step = (self.peak / 2).max(least).min(most);
        self.acknowledged() - self.advertised >= step
    }
}

/// A WINDOW goes out when this part of a window has been consumed: late enough to be rare, early enough to
/// arrive long before the rest is used up.
const WINDOW_PART: usize = 4;
/// But never later than this: what is acknowledged earlier need not be retained, and a ring that fits the
/// processor's cache is several times faster than one that does not.
const MAX_WINDOW_STEP: usize = 256 * 1024;
