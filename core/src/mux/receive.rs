//! Towards here: the frames that a link received.

use std::time::Instant;

use super::frame::Frame;
use super::stream::{Call, End, Phase, Stream};
use super::transmit::next_id;
use super::{MAX_ID, Mux, Protocol, Violation};

impl Mux {
    /// Takes in a frame. The link's own frames (stream 0, PING, PONG) are passed over. Without a link all
    /// frames are: they come from one that is not in use any more.
    ///
    /// # Errors
    /// The rule that the peer breaks with it; the link that it came on is to end.
    pub fn receive(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), Violation> {
        if !self.attached {
            return Ok(());
        }
        match frame {
            Frame::Data { stream: 0, .. } | Frame::Ping(_) | Frame::Pong(_) => Ok(()),
            Frame::Data { stream, bytes, fin } => self.on_data(now, stream, bytes, fin),
            Frame::Window { stream, consumed, limit } => self.on_window(stream, consumed, limit),
            Frame::Syn { stream, protocol, target, limit } => self.on_syn(stream, protocol, target, limit),
            Frame::Reset { stream, code, text } => self.on_reset(now, stream, code, &text),
        }
    }

    fn on_data(&mut self, now: Instant, id: u32, bytes: &[u8], fin: bool) -> Result<(), Violation> {
        let Some(&slot) = self.ids.get(&id) else {
            return self.closed(id);
        };
        let Some(stream) = self.slots.at_mut(slot) else {
            return Ok(());
        };
        match stream.phase {
            Phase::Offered(_) | Phase::Open => {}
            Phase::Awaited => return Err(Violation::BeforeSyn(id)),
            Phase::Waiting(_) | Phase::Calling(_) => return Err(Violation::BeforeAnswer(id)),
            Phase::Resetting { .. } | Phase::Ended(_) => return Ok(()),
        }
        let recv = &mut stream.recv;
        if recv.fin {
            return Err(Violation::AfterFin(id));
        }
        if bytes.len() as u64 > recv.limit.saturating_sub(recv.received) {
            return Err(Violation::Credit(id));
        }
        let was_empty = recv.ring.is_empty();
        // Within what is reserved, because the limit is.
        recv.ring.grow(recv.ring.len() + bytes.len());
        recv.ring.push(bytes);
        recv.received += bytes.len() as u64;
        recv.fin = fin;
        recv.peak = recv.peak.max(recv.received.saturating_sub(recv.advertised));
        if was_empty && !bytes.is_empty() {
            stream.news.readable = true;
            self.events.push(slot);
        }
        if stream.recv.ends_here() {
            stream.news.finished = true;
            self.events.push(slot);
        }
        self.bytes_received += bytes.len() as u64;
        self.stir(now);
        Ok(())
    }

    fn on_window(&mut self, id: u32, consumed: u64, limit: u64) -> Result<(), Violation> {
        let Some(&slot) = self.ids.get(&id) else {
            return self.closed(id);
        };
        let Some(stream) = self.slots.at_mut(slot) else {
            return Ok(());
        };
        match &mut stream.phase {
            Phase::Awaited => return Err(Violation::BeforeSyn(id)),
            Phase::Resetting { unanswered, .. } => {
                // The answer that this one's RST may have been waiting for.
                if std::mem::take(unanswered) {
                    self.unanswered = self.unanswered.saturating_sub(1);
                    self.queue_control(slot);
                }
                return Ok(());
            }
            Phase::Ended(_) => return Ok(()),
            Phase::Waiting(_) | Phase::Calling(_) | Phase::Offered(_) | Phase::Open => {}
        }
        let send = &mut stream.send;
        if consumed < send.consumed || limit < send.limit {
            return Err(Violation::WindowBackwards(id));
        }
        if consumed > send.high {
            return Err(Violation::ConsumedUnsent(id));
        }
        send.consumed = consumed;
        send.limit = limit;
        send.release(consumed);
        if let Phase::Calling(_) = stream.phase {
            stream.phase = Phase::Open;
            stream.news.accepted = true;
            self.unanswered = self.unanswered.saturating_sub(1);
            self.events.push(slot);
        }
        self.wake_writer(slot);
        self.close_if_done(slot);
        Ok(())
    }

    fn on_syn(&mut self, id: u32, protocol: Protocol, target: &str, limit: u64) -> Result<(), Violation> {
        let peer = self.side.other();
        if !peer.owns(id) || id > MAX_ID {
            return Err(Violation::Parity(id));
        }
        if id > self.seen {
            self.await_below(id)?;
            self.seen = id;
            if self.slots.len() >= self.config.max_streams {
                return self.refuse(id);
            }
            self.add_awaited(id);
        }
        let Some(&slot) = self.ids.get(&id) else {
            // Closed, or refused before its SYN came.
            return Ok(());
        };
        if !self.slots.at(slot).is_some_and(|stream| matches!(stream.phase, Phase::Awaited)) {
            return Err(Violation::DuplicateSyn(id));
        }
        if self.offered >= self.config.max_unanswered {
            self.vanish(slot);
            return self.refuse(id);
        }
        if let Some(stream) = self.slots.at_mut(slot) {
            stream.phase = Phase::Offered(Call { protocol, target: target.into() });
            stream.send.limit = limit;
            stream.news.incoming = true;
            self.offered += 1;
            self.events.push(slot);
        }
        Ok(())
    }

    fn on_reset(&mut self, now: Instant, id: u32, code: u16, text: &str) -> Result<(), Violation> {
        let Some(&slot) = self.ids.get(&id) else {
            // A peer that opened a stream and gave it up between two links names it only here.
            if self.side.other().owns(id) && id > self.seen && id <= MAX_ID {
                self.await_below(id)?;
                self.seen = id;
                return Ok(());
            }
            // RST never answers RST.
            self.refused.retain(|&refused| refused != id);
            return self.closed(id);
        };
        let offered = self.slots.at(slot).is_some_and(|stream| matches!(stream.phase, Phase::Offered(_)));
        if offered && !self.peer_cancels.take(now) {
            return Err(Violation::RapidReset);
        }
        self.end(slot, End::Reset { code, text: text.to_owned() });
        Ok(())
    }

    /// Judges a frame for an id that has no stream: it is late, or it is wrong.
    fn closed(&self, id: u32) -> Result<(), Violation> {
        let highest = if self.side.owns(id) { self.allocated } else { self.seen };
        if id <= highest { Ok(()) } else { Err(Violation::UnknownStream(id)) }
    }

    /// Ids rise without gaps, so whoever sees `id` knows that all lower ones are on their way.
    fn await_below(&mut self, id: u32) -> Result<(), Violation> {
        let mut missing = next_id(self.seen, self.side.other().first_id());
        if (id.saturating_sub(missing) / 2) as usize > self.config.max_streams {
            return Err(Violation::SynFlood);
        }
        while missing < id {
            if self.slots.len() < self.config.max_streams {
                self.add_awaited(missing);
            } else {
                self.refuse(missing)?;
            }
            missing += 2;
        }
        Ok(())
    }

    /// Makes a stream of which nothing is known but its id. The caller has checked the cap.
    pub(super) fn add_awaited(&mut self, id: u32) {
        let slot = self.slots.insert(Stream::new(id, Phase::Awaited, 0, self.config.initial_credit));
        self.ids.insert(id, slot);
    }

    /// Answers a stream for which there is no slot.
    pub(super) fn refuse(&mut self, id: u32) -> Result<(), Violation> {
        // A peer has no more streams than this unanswered.
        if self.refused.len() >= self.config.max_unanswered {
            return Err(Violation::SynFlood);
        }
        self.refused.push_back(id);
        Ok(())
    }
}
