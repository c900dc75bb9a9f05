//! Streams on a link that gives each of them a lane of its own.
//!
//! The order is that of [`Mux::transmit`]: what is owed, then new streams, then DATA in turns. But frames of
//! one stream come out at a time, because they go into its lane and no other; and a lane may take nothing
//! now. Then the stream is *held*: it stands in no line, and costs nothing, until [`Mux::release`].

use std::time::Instant;

use super::transmit::{next_id, refusal, refused_reset};
use super::{MIN_TRANSMIT, Mux};

impl Mux {
    /// Fills `out` with frames of the one stream whose turn it is, and returns its id and how many bytes these
    /// are; `None` when no stream has anything that its lane takes. `takes` is asked whether a stream's lane
    /// takes bytes, and opens it where that is this side's to do; a stream whose lane does not is held until
    /// [`Self::release`]. A stream that was never called is not held: it is asked for again with the next call.
    ///
    /// `out` must be at least [`MIN_TRANSMIT`] long. What has been returned is on its way.
    pub fn transmit_lane(
        &mut self,
        now: Instant,
        out: &mut [u8],
        takes: &mut dyn FnMut(u32) -> bool,
    ) -> Option<(u32, usize)> {
        if !self.attached {
            return None;
        }
        debug_assert!(out.len() >= MIN_TRANSMIT);
        let turn = self
            .lane_refusal(out, takes)
            .or_else(|| self.lane_owed(now, out, takes))
            .or_else(|| self.lane_call(out, takes))
            .or_else(|| self.lane_data(out, takes));
        if turn.is_some() {
            self.stir(now);
        }
        turn
    }

    /// The stream's lane takes bytes again, or for the first time.
    pub fn release(&mut self, id: u32) {
        let Some(&slot) = self.ids.get(&id) else {
            return;
        };
        let Some(stream) = self.slots.at_mut(slot).filter(|stream| stream.held) else {
            return;
        };
        stream.held = false;
        self.queue_control(slot);
        self.refresh(slot);
    }

    /// Whether frames may still come for the stream from this side. If not, its lane can end.
    pub fn is_live(&self, id: u32) -> bool {
        self.ids.contains_key(&id) || self.refused.contains(&id)
    }

    fn lane_refusal(&mut self, out: &mut [u8], takes: &mut dyn FnMut(u32) -> bool) -> Option<(u32, usize)> {
        // At most `max_unanswered`, and only where a peer has gone over its caps.
        let at = self.refused.iter().position(|&id| takes(id))?;
        let id = *self.refused.get(at)?;
        let n = refusal(id).encode(out)?;
        self.refused.remove(at);
        self.remember_reset(refused_reset(id));
        Some((id, n))
    }

    fn lane_owed(
        &mut self,
        now: Instant,
        out: &mut [u8],
        takes: &mut dyn FnMut(u32) -> bool,
    ) -> Option<(u32, usize)> {
        while let Some(slot) = self.control.front() {
            let Some(id) = self.slots.at(slot).map(|stream| stream.id) else {
                self.control.remove(slot);
                continue;
            };
            if !takes(id) {
                self.hold(slot);
                continue;
            }
            let n = self.put_owed(now, slot, out);
            if n > 0 {
                return Some((id, n));
            }
            // It is not yet time for its RST, or it could never fit.
            self.control.remove(slot);
        }
        None
    }

    fn lane_call(&mut self, out: &mut [u8], takes: &mut dyn FnMut(u32) -> bool) -> Option<(u32, usize)> {
        let slot = self.opening.front().filter(|_| self.may_call())?;
        let id = next_id(self.allocated, self.side.first_id());
        if !takes(id) {
            return None;
        }
        let n = self.put_call(slot, out);
        (n > 0).then_some((id, n))
    }

    fn lane_data(&mut self, out: &mut [u8], takes: &mut dyn FnMut(u32) -> bool) -> Option<(u32, usize)> {
        while let Some(slot) = self.next_turn() {
            let id = self.slots.at(slot)?.id;
            if !takes(id) {
                self.hold(slot);
                continue;
            }
            let n = self.put_data(slot, out, true);
            return (n > 0).then_some((id, n));
        }
        None
    }

    fn hold(&mut self, slot: u32) {
        if let Some(stream) = self.slots.at_mut(slot) {
            stream.held = true;
        }
        for queue in [&mut self.control, &mut self.fresh, &mut self.bulk] {
            queue.remove(slot);
        }
        self.refresh(slot);
    }
}
