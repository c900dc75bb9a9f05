//! The reader's side: the application takes bytes out, and with its speed the window grows and shrinks.

use std::time::{Duration, Instant};

use super::stream::Phase;
use super::{Key, Mux};

impl Mux {
    /// The bytes that were received and not consumed, in order.
    pub fn readable(&self, key: Key) -> [&[u8]; 2] {
        let stream = self.slots.find(key).and_then(|slot| self.slots.at(slot));
        stream.map_or([&[], &[]], |stream| stream.recv.ring.filled())
    }

    /// Whether the peer's direction has ended and all of it was consumed, but [`Self::finished`] has not been
    /// called yet.
    pub fn at_end(&self, key: Key) -> bool {
        let stream = self.slots.find(key).and_then(|slot| self.slots.at(slot));
        stream.is_some_and(|stream| stream.recv.ends_here())
    }

    /// The application has passed on the first `n` bytes of [`Self::readable`].
    pub fn consume(&mut self, now: Instant, key: Key, n: usize) {
        let Some((slot, stream)) = self.find_mut(key) else {
            return;
        };
        let n = n.min(stream.recv.ring.len());
        if n == 0 {
            return;
        }
        stream.recv.ring.advance(n);
        if stream.recv.ends_here() {
            stream.news.finished = true;
            self.events.push(slot);
        }
        self.measure(now, slot);
        self.reserve(slot);
        let initial = self.config.initial_credit;
        if self.slots.at(slot).is_some_and(|stream| stream.recv.is_window_due(initial)) {
            self.owe_window(slot);
        }
        self.stir(now);
    }

    /// The application has passed on the end of the peer's direction: the answer to
    /// [`super::Event::Finished`].
    pub fn finished(&mut self, key: Key) {
        let Some((slot, stream)) = self.find_mut(key) else {
            return;
        };
        if !stream.recv.ends_here() {
            return;
        }
        stream.recv.passed = true;
        self.owe_window(slot);
    }

    /// When [`Self::tick`] wants to be called next, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.tick_at.map(|at| (at, "mux: give back unused memory"))
    }

    /// Gives back memory that was not used for a while, shrinks the windows of slow readers, and
    /// acknowledges what was consumed but did not fill a WINDOW. Calls before the deadline do nothing.
    pub fn tick(&mut self, now: Instant) {
        if self.tick_at.is_none_or(|at| now < at) {
            return;
        }
        let initial = self.config.initial_credit;
        let mut unsettled = false;
        let mut late = Vec::new();
        for (slot, stream) in self.slots.iter_mut() {
            match stream.phase {
                Phase::Resetting { .. } | Phase::Ended(_) => continue,
                Phase::Waiting(_) | Phase::Calling(_) | Phase::Awaited | Phase::Offered(_) | Phase::Open => {}
            }
            let capacity = stream.send.ring.capacity();
            stream.send.ring.tidy();
            self.send_pool.account(capacity, stream.send.ring.capacity(), initial);

            let recv = &mut stream.recv;
            recv.ring.tidy();
            let consumed = recv.consumed();
            if consumed - recv.ticked < (recv.window / IDLE_PART) as u64 {
                recv.window = (recv.window / 2).max(initial);
            }
            recv.ticked = consumed;
            recv.peak /= 2;
            let is_late = recv.ring.is_empty() && recv.acknowledged() > recv.advertised;
            unsettled |= recv.window > initial || is_late || stream.memory() > 0;
            late.push((slot, is_late));
        }
        for (slot, is_late) in late {
            self.reserve(slot);
            if is_late {
                self.owe_window(slot);
            }
        }
        self.tick_at = unsettled.then(|| now + TICK);
    }

    /// Something happened that [`Self::tick`] may have to look after.
    pub(super) fn stir(&mut self, now: Instant) {
        self.tick_at.get_or_insert(now + TICK);
    }

    /// Lets the window grow if the reader took more than half of it within a round trip, or all of it within
    /// two: so much that the limit, and not the reader, may be what holds the stream back.
    ///
    /// Two, because a small window travels in one piece, once in a round trip and the little that the piece itself
    /// takes: pieces that are further apart than a round trip would else never be seen to be the whole window.
    fn measure(&mut self, now: Instant, slot: u32) {
        let streams = self.slots.len();
        let rtt = self.rtt.max(MIN_RTT);
        let useful = usize::try_from(self.rtt.as_nanos() * FASTEST / 1_000_000_000).unwrap_or(usize::MAX);
        let most = useful.max(LEAST_CAP).min(self.config.max_window);
        let Some(stream) = self.slots.at_mut(slot) else {
            return;
        };
        let recv = &mut stream.recv;
        let consumed = recv.consumed();
        let since = recv.epoch.map(|(since, from)| (now.saturating_duration_since(since), from));
        let Some((elapsed, from)) = since.filter(|(elapsed, _)| *elapsed <= rtt * 2) else {
            recv.epoch = Some((now, consumed));
            return;
        };
        let enough = if elapsed <= rtt { recv.window / 2 } else { recv.window };
        if consumed.saturating_sub(from) < enough as u64 {
            return;
        }
        recv.epoch = Some((now, consumed));
        let larger = recv.window * 2;
        let more = larger.saturating_sub(recv.reserved);
        if !recv.fin && larger <= most && self.recv_pool.has(more, streams) {
            recv.window = larger;
        }
    }

    /// Sets aside what the stream may come to hold, and gives back what it cannot come to hold any more.
    fn reserve(&mut self, slot: u32) {
        let Some(stream) = self.slots.at_mut(slot) else {
            return;
        };
        let recv = &mut stream.recv;
        let needed = recv.window.max(recv.outstanding()).max(recv.ring.capacity()).next_power_of_two();
        if needed != recv.reserved {
            self.recv_pool.account(recv.reserved, needed, self.config.initial_credit);
            recv.reserved = needed;
        }
    }

    /// Sends a WINDOW, unless it would be an answer that the application has not given.
    fn owe_window(&mut self, slot: u32) {
        if let Some(stream) = self.slots.at_mut(slot)
            && let Phase::Open = stream.phase
        {
            stream.owed.window = true;
            self.queue_control(slot);
        }
    }
}

/// How often idle memory is looked for. A second is long against a pause in a transfer and short against
/// what a person sees in a memory graph.
const TICK: Duration = Duration::from_secs(1);
/// A window of which less than this part is used in a tick is too large.
const IDLE_PART: usize = 4;
/// The fastest link that is worth a window, in bytes a second: 10 Gbit/s. What exceeds a round trip at that
/// rate does not make a copy faster; it only lies in the link, and everything behind it waits.
const FASTEST: u128 = 1_250_000_000;
/// A window may always grow to this: 16 records, so that both ends work in batches.
const LEAST_CAP: usize = 256 * 1024;
/// The least time that counts as a round trip: what two processes on one machine take to hand over to each
/// other. More would let a copy on a fast path pile up megabytes before a slow reader, and a keystroke waits
/// behind what lies in the link.
const MIN_RTT: Duration = Duration::from_micros(200);
