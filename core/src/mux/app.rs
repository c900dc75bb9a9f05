//! The application's side of the streams' lives: to open, accept, reset, and to hear what happened. Its
//! bytes are in `transmit` and `window`.

use super::frame::{MAX_RESET_TEXT, cut};
use super::stream::{Call, End, Owed, Phase, Stream};
use super::{Key, MAX_ID, Mux, Protocol};

/// Something that the application has to know.
///
/// A stream has at most one event of each kind waiting. After [`Event::Reset`] or [`Event::Closed`] its key
/// is stale, and nothing more comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream. To be answered by [`Mux::accept`] or [`Mux::reset`].
    Incoming {
        /// The stream.
        key: Key,
        /// What it speaks.
        protocol: Protocol,
        /// Whom it wants to reach, as the peer wrote it: at most 1 KiB, not checked.
        target: String,
    },
    /// The peer accepted a stream of ours.
    Accepted {
        /// The stream.
        key: Key,
    },
    /// There are bytes where there were none.
    Readable {
        /// The stream.
        key: Key,
    },
    /// Bytes can be put in where that was not possible.
    Writable {
        /// The stream.
        key: Key,
    },
    /// The peer's direction has ended, and all of it was consumed. To be answered by [`Mux::finished`].
    Finished {
        /// The stream.
        key: Key,
    },
    /// The stream has ended, and bytes of either direction may be lost.
    Reset {
        /// The stream.
        key: Key,
        /// Why, for programs: see [`super::code`].
        code: u16,
        /// Why, for people; at most 256 bytes, not checked.
        text: String,
    },
    /// Both directions have ended in order, and all that this side wrote was passed on at the other.
    Closed {
        /// The stream.
        key: Key,
    },
}

/// Why a stream could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The session has as many streams as it may.
    #[error("the session has {0} streams, which is as many as it may")]
    TooMany(usize),
    /// The target is longer than [`MAX_TARGET`].
    #[error("a target of {0} bytes is too long")]
    TargetTooLong(usize),
    /// All ids are used up: a new session is due.
    #[error("the session has used up its stream ids")]
    Exhausted,
}

impl Mux {
    /// Opens a stream to `target`. It goes into a link when its turn comes; bytes may be put in at once.
    ///
    /// # Errors
    /// If the target is longer than [`MAX_TARGET`], or the session has no room or no id for another stream.
    pub fn open(&mut self, protocol: Protocol, target: &str) -> Result<Key, OpenError> {
        if target.len() > MAX_TARGET {
            return Err(OpenError::TargetTooLong(target.len()));
        }
        if self.slots.len() >= self.config.max_streams {
            return Err(OpenError::TooMany(self.slots.len()));
        }
        // Those that wait take ids too.
        if self.allocated as usize >= (MAX_ID as usize).saturating_sub(2 * self.config.max_streams) {
            return Err(OpenError::Exhausted);
        }
        let initial = self.config.initial_credit;
        let call = Call { protocol, target: target.into() };
        let slot = self.slots.insert(Stream::new(0, Phase::Waiting(call), initial as u64, initial));
        self.opening.push(slot);
        Ok(self.slots.key(slot))
    }

    /// Answers the stream of an [`Event::Incoming`]: the target is connected. Bytes may be put in from now.
    pub fn accept(&mut self, key: Key) {
        let Some((slot, stream)) = self.find_mut(key) else {
            return;
        };
        let Phase::Offered(_) = stream.phase else {
            return;
        };
        stream.phase = Phase::Open;
        stream.owed.window = true;
        self.offered = self.offered.saturating_sub(1);
        self.queue_control(slot);
        self.refresh(slot);
        self.wake_writer(slot);
    }

    /// Refuses the stream or breaks it off, in whatever state it is. Bytes that wait are dropped. The key is
    /// stale from now on, and no event follows. `text` is cut to 256 bytes.
    pub fn reset(&mut self, key: Key, code: u16, text: &str) {
        let Some((slot, stream)) = self.find_mut(key) else {
            return;
        };
        let unanswered = match stream.phase {
            Phase::Calling(_) => true,
            Phase::Offered(_) | Phase::Open => false,
            // Nobody has heard of it yet, or everybody has.
            Phase::Waiting(_) | Phase::Ended(_) | Phase::Awaited | Phase::Resetting { .. } => {
                return self.vanish(slot);
            }
        };
        self.strip(slot);
        self.events.remove(slot);
        self.slots.retire(slot);
        // It goes on being unanswered until the RST is out.
        self.unanswered += usize::from(unanswered);
        if let Some(stream) = self.slots.at_mut(slot) {
            let text = cut(text, MAX_RESET_TEXT).into();
            stream.phase = Phase::Resetting { code, text, unanswered };
            stream.owed = Owed { reset: true, ..Owed::default() };
        }
        self.queue_control(slot);
    }

    /// Ends every stream, with an [`Event::Reset`] and no RST: for a session that was without a link for too
    /// long. If the peer comes back with the same process, [`Self::attach`] tells it that they are gone.
    pub fn reset_all(&mut self, code: u16, text: &str) {
        self.end_all(code, text, true);
    }

    /// Ends every stream that a link has seen, as [`Self::reset_all`] does, and begins to count ids anew:
    /// for a peer that came back as another process. Streams that still wait for a link go on waiting.
    pub fn restart(&mut self, code: u16, text: &str) {
        self.end_all(code, text, false);
        self.allocated = 0;
        self.seen = 0;
        self.resets.clear();
    }

    fn end_all(&mut self, code: u16, text: &str, waiting: bool) {
        self.detach();
        let text = cut(text, MAX_RESET_TEXT);
        let ending: Vec<u32> = self
            .slots
            .iter()
            .filter(|(_, stream)| match stream.phase {
                Phase::Waiting(_) => waiting,
                Phase::Ended(_) => false,
                Phase::Calling(_)
                | Phase::Awaited
                | Phase::Offered(_)
                | Phase::Open
                | Phase::Resetting { .. } => true,
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in ending {
            self.end(slot, End::Reset { code, text: text.to_owned() });
        }
    }

    /// What happened since the last time; to be called until there is no more. It takes no memory while it
    /// waits: what comes twice is told once.
    pub fn poll_event(&mut self) -> Option<Event> {
        while let Some(slot) = self.events.front() {
            let key = self.slots.key(slot);
            if let Some(event) = self.slots.at_mut(slot).and_then(|stream| next_event(stream, key)) {
                if matches!(event, Event::Reset { .. } | Event::Closed { .. }) {
                    self.vanish(slot);
                }
                return Some(event);
            }
            self.events.remove(slot);
        }
        None
    }
}

/// Takes the first of the stream's news, in the order in which they make sense.
fn next_event(stream: &mut Stream, key: Key) -> Option<Event> {
    if let Phase::Ended(end) = &mut stream.phase {
        return Some(match end {
            End::Closed => Event::Closed { key },
            End::Reset { code, text } => Event::Reset { key, code: *code, text: std::mem::take(text) },
        });
    }
    if std::mem::take(&mut stream.news.incoming)
        && let Phase::Offered(call) = &mut stream.phase
    {
        let target = std::mem::take(&mut call.target).into_string();
        return Some(Event::Incoming { key, protocol: call.protocol, target });
    }
    if std::mem::take(&mut stream.news.accepted) {
        return Some(Event::Accepted { key });
    }
    // The application may have consumed the bytes of its own accord.
    if std::mem::take(&mut stream.news.readable) && !stream.recv.ring.is_empty() {
        return Some(Event::Readable { key });
    }
    if std::mem::take(&mut stream.news.writable) && stream.takes_writes() {
        return Some(Event::Writable { key });
    }
    if std::mem::take(&mut stream.news.finished) && stream.recv.ends_here() {
        return Some(Event::Finished { key });
    }
    None
}

/// The longest target, in bytes: twice a host name of the longest kind with its port, and half of what a SYN
/// may hold.
pub const MAX_TARGET: usize = 512;
