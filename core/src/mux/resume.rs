//! From one link to the next, so that nothing is lost and nothing comes twice.
//!
//! When a link is nominated both sides [`Mux::detach`], send what [`Mux::resume`] returns, and
//! [`Mux::attach`] with what the other side sent. Each then sends again from where the other's RESUME says
//! that it received. A RESUME also settles which streams still are:
//!
//! - A stream that both list goes on.
//! - An id of ours that the peer never saw is opened again: SYN, and data from 0.
//! - A stream that only this side has, with an id that the other side knows of, has ended there: its end was
//!   lost with the old link. It ends here too, and no RST is sent. Where both directions had been passed on
//!   that is the missing acknowledgement, and the stream is closed in order; else it is reset, for the reason
//!   that the RESUME gives.
//!
//! A RST that had not gone into the old link goes into the new one, so its stream is listed until then.

use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::frame::{MAX_RESET_TEXT, cut};
use super::stream::{End, Phase, Stream};
use super::transmit::refused_reset;
use super::{MAX_ID, Mux, Violation, code};

/// What one side has of the session's streams. The empty one is that of a new process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The highest id of the other side's streams that was seen here; 0 for none.
    pub seen: u32,
    /// The highest id that was taken for this side's streams; 0 for none.
    pub allocated: u32,
    /// The streams of both sides that have not ended here, by rising id.
    #[serde(deserialize_with = "capped")]
    pub streams: Vec<ResumeStream>,
    /// Why streams were reset here whose RST the other side may not have received, the latest last. On the
    /// wire it is left out if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "capped")]
    pub resets: Vec<ResumeReset>,
}

/// The reason of a RST in a [`Resume`]. On the wire an array of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u16, String)", into = "(u32, u16, Box<str>)")]
pub struct ResumeReset {
    /// The stream.
    pub id: u32,
    /// Why, for programs: see [`super::code`].
    pub code: u16,
    /// Why, for people; at most 256 bytes, not checked.
    pub text: Box<str>,
}

impl From<(u32, u16, String)> for ResumeReset {
    fn from((id, code, text): (u32, u16, String)) -> Self {
        Self { id, code, text: cut(&text, MAX_RESET_TEXT).into() }
    }
}

impl From<ResumeReset> for (u32, u16, Box<str>) {
    fn from(reset: ResumeReset) -> Self {
        (reset.id, reset.code, reset.text)
    }
}

/// One stream in a [`Resume`]. On the wire an array of its fields, to keep 4,096 of them short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, bool, u64, bool, u64)", into = "(u32, bool, u64, bool, u64)")]
pub struct ResumeStream {
    /// Its id.
    pub id: u32,
    /// Whether its SYN was seen here, or is from here.
    pub syn: bool,
    /// Up to which sequence number its bytes, and its FIN as one, were received here.
    pub received: u64,
    /// Whether that includes the FIN.
    pub fin: bool,
    /// Up to which offset this side takes bytes, counted from the stream's first.
    pub limit: u64,
}

impl From<(u32, bool, u64, bool, u64)> for ResumeStream {
    fn from((id, syn, received, fin, limit): (u32, bool, u64, bool, u64)) -> Self {
        Self { id, syn, received, fin, limit }
    }
}

impl From<ResumeStream> for (u32, bool, u64, bool, u64) {
    fn from(stream: ResumeStream) -> Self {
        (stream.id, stream.syn, stream.received, stream.fin, stream.limit)
    }
}

impl Resume {
    fn find(&self, id: u32) -> Option<&ResumeStream> {
        let at = self.streams.binary_search_by_key(&id, |stream| stream.id).ok()?;
        self.streams.get(at)
    }

    fn reset_of(&self, id: u32) -> Option<&ResumeReset> {
        self.resets.iter().rev().find(|reset| reset.id == id)
    }
}

impl Mux {
    /// There is no link any more, or none that may be used. Whatever of it still comes in is passed over.
    pub fn detach(&mut self) {
        self.attached = false;
        for queue in [&mut self.control, &mut self.fresh, &mut self.bulk] {
            queue.clear();
        }
        while let Some(id) = self.refused.pop_front() {
            self.remember_reset(refused_reset(id));
        }
        for (_, stream) in self.slots.iter_mut() {
            stream.ready = false;
            stream.held = false;
        }
        self.ready = 0;
    }

    /// What this side has. It holds as long as there is no link, whatever the application does meanwhile.
    pub fn resume(&self) -> Resume {
        let streams = self.ids.iter().filter_map(|(&id, &slot)| {
            let stream = self.slots.at(slot)?;
            Some(ResumeStream {
                id,
                syn: !matches!(stream.phase, Phase::Awaited),
                received: stream.recv.seen(),
                fin: stream.recv.fin,
                limit: stream.recv.limit,
            })
        });
        Resume {
            seen: self.seen,
            allocated: self.allocated,
            streams: streams.collect(),
            resets: self.resets.iter().cloned().collect(),
        }
    }

    /// Keeps the reason of a RST that goes into the link, in case that it is lost with it. Where there are
    /// too many the oldest is forgotten: it is the one that has most likely arrived.
    pub(super) fn remember_reset(&mut self, reset: ResumeReset) {
        if self.resets.len() == MAX_RESETS {
            self.resets.pop_front();
        }
        self.resets.push_back(reset);
    }

    /// There is a link, and `peer` is what the other side has. On an error nothing has changed, and there is
    /// no link.
    pub fn attach(&mut self, now: Instant, peer: &Resume) -> Result<(), Violation> {
        self.detach();
        self.check(peer)?;
        let held: Vec<(u32, u32)> = self.ids.iter().map(|(&id, &slot)| (id, slot)).collect();
        for (id, slot) in held {
            let known_there = if self.side.owns(id) { id <= peer.seen } else { true };
            match peer.find(id) {
                Some(theirs) => self.resume_stream(slot, theirs),
                None if known_there => self.end_lost(slot, peer.reset_of(id)),
                None => self.call_again(slot),
            }
        }
        for theirs in &peer.streams {
            if self.side.other().owns(theirs.id) && theirs.id > self.seen {
                if self.slots.len() < self.config.max_streams {
                    self.add_awaited(theirs.id);
                } else {
                    self.refuse(theirs.id)?;
                }
            }
        }
        // It has not heard of those that it still lists, and may not receive the RESUME that tells it.
        self.resets.retain(|reset| peer.find(reset.id).is_some());
        self.seen = self.seen.max(peer.allocated);
        self.attached = true;
        let all: Vec<u32> = self.slots.iter().map(|(slot, _)| slot).collect();
        for slot in all {
            self.queue_control(slot);
            self.refresh(slot);
            self.wake_writer(slot);
        }
        self.stir(now);
        Ok(())
    }

    /// The stream goes on, from where the other side has received it.
    fn resume_stream(&mut self, slot: u32, theirs: &ResumeStream) {
        let Some(stream) = self.slots.at_mut(slot) else {
            return;
        };
        match stream.phase {
            // Where streams have lanes, the other side can only answer in one that a frame has opened.
            Phase::Calling(_) => {
                stream.owed.syn = !theirs.syn;
                stream.owed.window = theirs.syn;
            }
            // Its RST may wait for the answer, so the same holds.
            Phase::Resetting { unanswered, .. } => {
                stream.owed.window = unanswered && theirs.syn;
                return;
            }
            // The last one, which may have been the answer, may be lost.
            Phase::Open => stream.owed.window = true,
            Phase::Offered(_) => {}
            Phase::Waiting(_) | Phase::Awaited | Phase::Ended(_) => return,
        }
        stream.send.release(theirs.received);
        stream.send.next = theirs.received;
        stream.send.limit = theirs.limit;
    }

    /// A stream of ours that the other side never heard of.
    fn call_again(&mut self, slot: u32) {
        if let Some(stream) = self.slots.at_mut(slot)
            && let Phase::Calling(_) = stream.phase
        {
            stream.owed.syn = true;
            stream.send.next = 0;
        }
    }

    /// A stream that has ended at the other side.
    fn end_lost(&mut self, slot: u32, reset: Option<&ResumeReset>) {
        let Some(stream) = self.slots.at(slot) else {
            return;
        };
        let in_order = stream.recv.is_final() && stream.send.fin && stream.send.high == stream.send.end();
        let end = match reset {
            _ if in_order => End::Closed,
            Some(reset) => End::Reset { code: reset.code, text: reset.text.clone().into_string() },
            None => End::Reset { code: code::GONE, text: GONE.to_owned() },
        };
        self.end(slot, end);
    }

    /// Whether the peer's RESUME can be true.
    fn check(&self, peer: &Resume) -> Result<(), Violation> {
        let other = self.side.other();
        let allocated = peer.allocated == 0 || (other.owns(peer.allocated) && peer.allocated <= MAX_ID);
        if !allocated || peer.allocated < self.seen {
            return Err(Violation::Resume(peer.allocated));
        }
        if peer.seen > self.allocated || (peer.seen != 0 && !self.side.owns(peer.seen)) {
            return Err(Violation::Resume(peer.seen));
        }
        let mut last = 0;
        let mut unseen = 0;
        for theirs in &peer.streams {
            let highest = if self.side.owns(theirs.id) { peer.seen } else { peer.allocated };
            let is_new = other.owns(theirs.id) && theirs.id > self.seen;
            unseen += usize::from(is_new);
            let fits = match self.ids.get(&theirs.id).and_then(|&slot| self.slots.at(slot)) {
                Some(stream) => fits(stream, theirs, self.side.owns(theirs.id)),
                // What it received of a stream that has ended here does not matter any more.
                None => true,
            };
            if theirs.id <= last || theirs.id > highest || !fits {
                return Err(Violation::Resume(theirs.id));
            }
            last = theirs.id;
        }
        let room = self.config.max_streams.saturating_sub(self.slots.len());
        if unseen > room + self.config.max_unanswered {
            return Err(Violation::SynFlood);
        }
        // A stream of ours that was answered cannot be unseen.
        for (&id, &slot) in self.ids.range(peer.seen.saturating_add(1)..) {
            let answered = self.slots.at(slot).is_some_and(|stream| matches!(stream.phase, Phase::Open));
            if self.side.owns(id) && answered {
                return Err(Violation::Resume(id));
            }
        }
        Ok(())
    }
}

/// Whether what the other side says of a stream agrees with what was sent to it.
fn fits(stream: &Stream, theirs: &ResumeStream, own: bool) -> bool {
    let send = &stream.send;
    match stream.phase {
        // Its buffers are gone, and so is the interest in it.
        Phase::Resetting { .. } => return true,
        Phase::Open if own && !theirs.syn => return false,
        Phase::Waiting(_)
        | Phase::Calling(_)
        | Phase::Awaited
        | Phase::Offered(_)
        | Phase::Open
        | Phase::Ended(_) => {}
    }
    let received = match theirs.fin {
        true => send.fin && theirs.received == send.end(),
        false => theirs.received <= send.written(),
    };
    let seen = theirs.syn || theirs.received == 0;
    let kept = (send.base.max(send.consumed)..=send.high).contains(&theirs.received);
    received && seen && kept && theirs.limit >= send.limit
}

/// Reads at most [`MAX_RESUME`] elements, whatever the length says.
fn capped<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Capped<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Capped<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_RESUME} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                if elements.len() == MAX_RESUME {
                    return Err(A::Error::invalid_length(MAX_RESUME + 1, &self));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    from.deserialize_seq(Capped(PhantomData))
}

/// The most streams in a RESUME: as many as either side may have, of each side.
const MAX_RESUME: usize = 2 * 4096;
/// The most reasons in a RESUME: what a busy proxy refuses in the second or so before a link is replaced, in
/// 18 KiB.
const MAX_RESETS: usize = 64;
/// What the application is told of a stream whose end was lost with a link.
const GONE: &str = "the peer gave the stream up while the link was down";
const _: () = assert!(GONE.len() <= MAX_RESET_TEXT);
