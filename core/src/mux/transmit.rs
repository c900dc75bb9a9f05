//! Away from here: the application puts bytes in, the link takes frames out.

use std::time::Instant;

use super::frame::{DATA, Frame, HEADER, MAX_SYN, data_flags, encode_header, encode_syn};
use super::stream::Phase;
use super::{Key, Mux, ResumeReset, ring};

/// The application's side.
impl Mux {
    /// How many bytes can be put in now: what the peer takes, and what may be retained. Once it was 0, an
    /// [`super::Event::Writable`] follows when it is not any more.
    pub fn writable(&mut self, key: Key) -> usize {
        let Some(slot) = self.slots.find(key) else {
            return 0;
        };
        let room = self.room(slot);
        if let Some(stream) = self.slots.at_mut(slot) {
            stream.blocked = room == 0;
        }
        room
    }

    /// Room for bytes, to be filled from the front, and then told to [`Self::wrote`]. It is empty only if
    /// [`Self::writable`] is 0, but may be less than that.
    pub fn space(&mut self, key: Key) -> [&mut [u8]; 2] {
        let room = self.writable(key);
        let initial = self.config.initial_credit;
        let Some(stream) = self.slots.find(key).filter(|_| room > 0).and_then(|slot| self.slots.at_mut(slot))
        else {
            return [&mut [], &mut []];
        };
        let ring = &mut stream.send.ring;
        let (capacity, len) = (ring.capacity(), ring.len());
        if capacity - len < room && len >= capacity / 2 {
            // In few steps to the initial credit, which every stream may have; then as far as it is filled.
            let larger = if capacity == 0 { ring::SMALLEST } else { (capacity * 2).max(initial) };
            ring.grow(larger);
            self.send_pool.account(capacity, ring.capacity(), initial);
        }
        let [first, second] = ring.room();
        let in_first = first.len().min(room);
        let in_second = second.len().min(room - in_first);
        [&mut first[..in_first], &mut second[..in_second]]
    }

    /// The first `n` bytes of [`Self::space`] have been filled.
    pub fn wrote(&mut self, key: Key, n: usize) {
        let Some(slot) = self.slots.find(key) else {
            return;
        };
        let n = n.min(self.room(slot));
        if let Some(stream) = self.slots.at_mut(slot) {
            stream.send.ring.commit(n);
        }
        self.refresh(slot);
    }

    /// Puts in as many of `bytes` as possible, and returns how many.
    pub fn write(&mut self, key: Key, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            let mut n = 0;
            for part in self.space(key) {
                let rest = &bytes[written + n..];
                let take = part.len().min(rest.len());
                part[..take].copy_from_slice(&rest[..take]);
                n += take;
            }
            if n == 0 {
                break;
            }
            self.wrote(key, n);
            written += n;
        }
        written
    }

    /// Ends this side's direction behind what was put in. The other direction goes on.
    pub fn finish(&mut self, key: Key) {
        let Some((slot, stream)) = self.find_mut(key) else {
            return;
        };
        match stream.phase {
            Phase::Waiting(_) | Phase::Calling(_) | Phase::Offered(_) | Phase::Open => {
                stream.send.fin = true;
            }
            Phase::Awaited | Phase::Resetting { .. } | Phase::Ended(_) => return,
        }
        self.refresh(slot);
    }

    /// Notes that an application that wanted to write can do so now.
    pub(super) fn wake_writer(&mut self, slot: u32) {
        if self.slots.at(slot).is_some_and(|stream| stream.blocked)
            && self.room(slot) > 0
            && let Some(stream) = self.slots.at_mut(slot)
        {
            stream.blocked = false;
            stream.news.writable = true;
            self.events.push(slot);
        }
    }

    /// How many bytes the stream can take in.
    fn room(&self, slot: u32) -> usize {
        let Some(stream) = self.slots.at(slot).filter(|stream| stream.takes_writes()) else {
            return 0;
        };
        let (capacity, len) = (stream.send.ring.capacity(), stream.send.ring.len());
        let mut may_hold = capacity.max(self.config.initial_credit);
        // A ring that is half full may double, if the others leave that much.
        if len >= may_hold / 2
            && may_hold < self.config.max_window
            && self.send_pool.has(may_hold, self.slots.len())
        {
            may_hold *= 2;
        }
        stream.send.credit().min(may_hold - len)
    }
}

/// The link's side.
impl Mux {
    /// Whether [`Self::transmit`] has something.
    pub fn wants_transmit(&self) -> bool {
        self.attached
            && (!self.refused.is_empty() || !self.control.is_empty() || self.may_call() || self.ready > 0)
    }

    /// Fills `out` with as many whole frames as fit, and returns how many bytes these are. What has been
    /// returned is on its way, and is not returned again unless another link is attached. `out` should be
    /// as long as one TLS record, and must be at least [`MIN_TRANSMIT`] long.
    pub fn transmit(&mut self, now: Instant, out: &mut [u8]) -> usize {
        if !self.attached {
            return 0;
        }
        debug_assert!(out.len() >= MIN_TRANSMIT);
        let mut filled = self.put_refusals(out);
        while let Some(slot) = self.control.front() {
            filled += self.put_owed(now, slot, &mut out[filled..]);
            if self.control.front() == Some(slot) {
                return filled;
            }
        }
        while self.may_call()
            && let Some(slot) = self.opening.front()
        {
            let n = self.put_call(slot, &mut out[filled..]);
            if n == 0 {
                return filled;
            }
            filled += n;
        }
        while let Some(slot) = self.next_turn() {
            let n = self.put_data(slot, &mut out[filled..], filled == 0);
            if n == 0 {
                break;
            }
            filled += n;
        }
        if filled > 0 {
            self.stir(now);
        }
        filled
    }

    /// Whether the next stream may be called: there is one, and not too many wait for an answer.
    pub(super) fn may_call(&self) -> bool {
        !self.opening.is_empty() && self.unanswered < self.config.max_unanswered
    }

    fn put_refusals(&mut self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(&stream) = self.refused.front() {
            let Some(n) = refusal(stream).encode(&mut out[filled..]) else {
                break;
            };
            filled += n;
            self.refused.pop_front();
            self.remember_reset(refused_reset(stream));
        }
        filled
    }

    /// Puts the frames that the stream owes. It stays in line if they did not all fit.
    pub(super) fn put_owed(&mut self, now: Instant, slot: u32, out: &mut [u8]) -> usize {
        let mut filled = 0;
        let Some(stream) = self.slots.at_mut(slot) else {
            self.control.remove(slot);
            return 0;
        };
        if stream.owed.syn
            && let Phase::Calling(call) = &stream.phase
        {
            let Some(n) = encode_syn(out, stream.id, call.protocol, &call.target, stream.recv.limit) else {
                return filled;
            };
            filled += n;
            stream.owed.syn = false;
        }
        if stream.owed.window {
            if !stream.recv.fin {
                let limit = stream.recv.consumed() + stream.recv.window as u64;
                stream.recv.limit = stream.recv.limit.max(limit);
            }
            let consumed = stream.recv.acknowledged();
            let frame = Frame::Window { stream: stream.id, consumed, limit: stream.recv.limit };
            let Some(n) = frame.encode(&mut out[filled..]) else {
                return filled;
            };
            filled += n;
            stream.owed.window = false;
            stream.recv.advertised = consumed;
        }
        if stream.owed.reset
            && let Phase::Resetting { code, text, unanswered } = &stream.phase
        {
            let frame = Frame::Reset { stream: stream.id, code: *code, text: (&**text).into() };
            if out.len() - filled < HEADER + 2 + text.len() {
                return filled;
            }
            // A stream that was not answered yet may be a connection that the peer is just making. Beyond
            // the bucket it is reset when the answer comes.
            if !*unanswered || self.own_cancels.take(now) {
                filled += frame.encode(&mut out[filled..]).unwrap_or(0);
                let sent = ResumeReset { id: stream.id, code: *code, text: text.clone() };
                self.remember_reset(sent);
                self.vanish(slot);
                return filled;
            }
        }
        self.control.remove(slot);
        self.close_if_done(slot);
        filled
    }

    /// Puts the first SYN of a stream, and so gives it its id.
    pub(super) fn put_call(&mut self, slot: u32, out: &mut [u8]) -> usize {
        let id = next_id(self.allocated, self.side.first_id());
        let Some(stream) = self.slots.at_mut(slot) else {
            return 0;
        };
        let Phase::Waiting(call) = &stream.phase else {
            return 0;
        };
        let Some(n) = encode_syn(out, id, call.protocol, &call.target, stream.recv.limit) else {
            return 0;
        };
        // The call itself is kept, to be made again on another link.
        if let Phase::Waiting(call) = std::mem::replace(&mut stream.phase, Phase::Open) {
            stream.phase = Phase::Calling(call);
        }
        stream.id = id;
        self.allocated = id;
        self.ids.insert(id, slot);
        self.opening.remove(slot);
        self.unanswered += 1;
        self.refresh(slot);
        n
    }

    /// The stream whose turn it is.
    pub(super) fn next_turn(&mut self) -> Option<u32> {
        loop {
            let (slot, is_fresh) = match (self.fresh.front(), self.bulk.front()) {
                (Some(slot), _) => (slot, true),
                (None, Some(slot)) => (slot, false),
                (None, None) => return None,
            };
            let Some(stream) = self.slots.at_mut(slot) else {
                self.fresh.remove(slot);
                self.bulk.remove(slot);
                continue;
            };
            let has_turn = stream.deficit > 0;
            if has_turn && stream.ready {
                return Some(slot);
            }
            if !has_turn {
                stream.deficit += QUANTUM;
            }
            let is_alone = self.bulk.is_empty();
            self.fresh.remove(slot);
            self.bulk.remove(slot);
            // One that has run dry in its first turn stands in line behind the others once: if it comes
            // back at once, it is not before them again.
            if !has_turn || (is_fresh && !is_alone) {
                self.bulk.push(slot);
            }
        }
    }

    /// Puts one DATA frame of at most a quantum. `whole` says that all of `out` is free.
    pub(super) fn put_data(&mut self, slot: u32, out: &mut [u8], whole: bool) -> usize {
        let Some(stream) = self.slots.at_mut(slot) else {
            return 0;
        };
        let send = &mut stream.send;
        let pending = send.pending();
        let room = out.len().saturating_sub(HEADER);
        // A frame of a few bytes at the end of a record costs as much as a full one.
        if out.len() < HEADER || (room < pending.min(SMALLEST_FRAGMENT) && !whole) {
            return 0;
        }
        let n = pending.min(room).min(QUANTUM as usize);
        let fin = send.fin && n == pending;
        if n == 0 && !fin {
            return 0;
        }
        encode_header(out, stream.id, data_flags(n, fin), n as u16);
        // What waits lies behind what was sent: within the ring.
        let [first, second] = send.ring.range((send.next - send.base) as usize, n);
        let (to_first, to_second) = out[HEADER..HEADER + n].split_at_mut(first.len());
        to_first.copy_from_slice(first);
        to_second.copy_from_slice(second);

        let before = send.sent();
        send.next += n as u64 + u64::from(fin);
        send.high = send.high.max(send.next);
        self.bytes_sent += send.sent() - before;
        stream.deficit -= (HEADER + n) as isize;
        self.refresh(slot);
        HEADER + n
    }
}

/// What answers a stream that got no slot.
pub(super) fn refusal(stream: u32) -> Frame<'static> {
    Frame::Reset { stream, code: super::code::TOO_MANY, text: TOO_MANY.into() }
}

/// The same, for a RESUME.
pub(super) fn refused_reset(id: u32) -> ResumeReset {
    ResumeReset { id, code: super::code::TOO_MANY, text: TOO_MANY.into() }
}

/// The id behind `last`.
pub(super) fn next_id(last: u32, first: u32) -> u32 {
    if last == 0 { first } else { last + 2 }
}

/// The shortest buffer for [`Mux::transmit`]: it holds the longest frame that is not DATA.
pub const MIN_TRANSMIT: usize = HEADER + MAX_SYN;
/// What a stream may send in its turn: one TLS record. Less would waste calls, more would let the others wait.
pub(super) const QUANTUM: isize = 16 * 1024;
/// A DATA frame is not begun for fewer bytes at the end of a buffer, if more are waiting: seven bytes of
/// header on 256 are 3 %.
const SMALLEST_FRAGMENT: usize = 256;
/// What a refused peer is told.
const TOO_MANY: &str = "too many streams";
const _: () = assert!(QUANTUM <= u16::MAX as isize && DATA == 0x04);
