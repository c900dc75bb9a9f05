//! The lanes of one link: which QUIC stream carries what.
//!
//! Stream 0 has the first QUIC stream that the client opens. Every multiplexed stream has one, opened by the
//! side that owns the stream; its opener's half begins with the epoch (u32, big-endian) of the nomination under
//! which it was opened, and the first frame names the stream (stream 0's lane has epoch 0: it belongs to the
//! link). The other half has frames only. WINDOW and RST travel in the stream's lane.
//!
//! - Lanes of a lower epoch than the one that carries the session are reset, both ways. QUIC's RESET_STREAM and
//!   STOP_SENDING mean nothing else, and nothing on a lane that still counts.
//! - A lane of an epoch that does not carry the session *yet* is not read until it does: stream 0 and the lanes
//!   are not ordered among each other, and what was read too early would be lost. The bytes that gate this,
//!   SWITCH and RESUME, took their share of QUIC's window before those of the lanes, so this always ends.
//! - All other lanes are read at all times: the multiplexer's credit is the only back-pressure.
//! - FIN of the multiplexed stream does not end the lane's half, because acknowledgements still travel in it:
//!   the half ends when nothing can come any more, after both FINs are acknowledged or after RST.
//!
//! A write that QUIC does not take whole means that the link's window is full, never a single stream's (see
//! [`super::window`]): the rest is kept, and nothing more is asked for until QUIC has taken it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use quinn_proto::{Connection, Dir, ReadError, Side, StreamEvent, StreamId, VarInt, WriteError};

use super::lane::{EPOCH, Lane, Sending, Stage};
use super::{UdpError, Upper};
use crate::link::Role;
use crate::mux::{Decoder, Frame};

/// The lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    role: Role,
    /// As many as QUIC allows streams.
    lanes: BTreeMap<StreamId, Lane>,
    /// Those that have a name.
    ids: BTreeMap<u32, StreamId>,
    /// Those that have something to read.
    readable: VecDeque<StreamId>,
    /// Those with bytes that QUIC has not taken.
    stalled: VecDeque<StreamId>,
    /// Streams of ours for which QUIC allows no lane now.
    waiting: BTreeSet<u32>,
    /// QUIC allows more.
    allowed: bool,
    /// The epoch that carries the session over this link, if it does.
    epoch: Option<u32>,
    /// Lower epochs are void.
    floor: u32,
    /// A parser that no lane needs.
    spare: Option<Box<Decoder>>,
}

impl Lanes {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            lanes: BTreeMap::new(),
            ids: BTreeMap::new(),
            readable: VecDeque::new(),
            stalled: VecDeque::new(),
            waiting: BTreeSet::new(),
            allowed: false,
            epoch: None,
            floor: 0,
            spare: None,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Notes what QUIC says of its streams.
    pub(super) fn event(&mut self, conn: &mut Connection, event: StreamEvent) {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(stream) = conn.streams().accept(Dir::Bi) {
                    let stage = match stream == control() {
                        true => Stage::Control,
                        false => Stage::Opening { head: [0; EPOCH], have: 0 },
                    };
                    if stage == Stage::Control {
                        // Before any multiplexed stream: it says which of them still are.
                        let _ = conn.send_stream(stream).set_priority(CONTROL_PRIORITY);
                    }
                    self.lanes.insert(stream, Lane::new(stage));
                    self.queue(stream);
                }
            }
            StreamEvent::Readable { id } => self.queue(id),
            StreamEvent::Available { dir: Dir::Bi } => self.allowed = true,
            // There are none of these.
            StreamEvent::Opened { dir: Dir::Uni } | StreamEvent::Available { dir: Dir::Uni } => {}
            // A short write is tried again with every turn, and a stopped one fails when it is tried.
            StreamEvent::Writable { .. } | StreamEvent::Stopped { .. } | StreamEvent::Finished { .. } => {}
        }
    }

    /// Reads all that can be read; how many bytes that was.
    pub(super) fn read<U: Upper>(
        &mut self,
        now: Instant,
        conn: &mut Connection,
        upper: &mut U,
    ) -> Result<u64, U::Error> {
        let mut read = 0;
        self.follow(conn, upper);
        while let Some(stream) = self.next_readable() {
            read += self.read_lane(now, conn, stream, upper)?;
            // Stream 0 may have changed what carries the session.
            self.follow(conn, upper);
        }
        Ok(read)
    }

    /// Gives QUIC what there is to send, as far as it takes it; how many bytes of multiplexed streams that was.
    pub(super) fn write<U: Upper>(
        &mut self,
        now: Instant,
        conn: &mut Connection,
        upper: &mut U,
        scratch: &mut [u8],
    ) -> usize {
        self.follow(conn, upper);
        if std::mem::take(&mut self.allowed) {
            std::mem::take(&mut self.waiting).into_iter().for_each(|id| upper.mux().release(id));
        }
        if !self.flush(conn, upper) {
            return 0;
        }
        if let Some(control) = self.control(conn) {
            loop {
                let n = upper.fill(now, scratch);
                if n == 0 {
                    break;
                }
                if !self.put(conn, control, scratch.get(..n).unwrap_or_default()) {
                    return 0;
                }
            }
        }
        let mut written = 0;
        while self.epoch.is_some()
            && let Some((id, n)) = upper.mux().transmit_lane(now, scratch, &mut |id| self.takes(conn, id))
        {
            written += n;
            // `takes` has found or made it.
            let Some(&stream) = self.ids.get(&id) else { continue };
            let whole = self.put(conn, stream, scratch.get(..n).unwrap_or_default());
            if !upper.mux().is_live(id) {
                self.finish(conn, stream);
            }
            if !whole {
                break;
            }
        }
        written
    }

    /// Whether QUIC has yet to take bytes that it was given.
    pub(super) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    fn queue(&mut self, stream: StreamId) {
        let Some(lane) = self.lanes.get_mut(&stream).filter(|lane| !lane.queued) else { return };
        lane.queued = true;
        match lane.stage {
            Stage::Control => self.readable.push_front(stream),
            _ => self.readable.push_back(stream),
        }
    }

    fn next_readable(&mut self) -> Option<StreamId> {
        loop {
            let stream = self.readable.pop_front()?;
            if let Some(lane) = self.lanes.get_mut(&stream) {
                lane.queued = false;
                return Some(stream);
            }
        }
    }

    /// Does as the session did since the last time: lanes of epochs that are over end, and those of the one
    /// that has just begun are read.
    fn follow<U: Upper>(&mut self, conn: &mut Connection, upper: &U) {
        let epoch = upper.carrying();
        if epoch == self.epoch {
            return;
        }
        let over = self.epoch.map_or(0, |epoch| epoch.saturating_add(1));
        self.floor = self.floor.max(over).max(epoch.unwrap_or(0));
        self.epoch = epoch;
        self.waiting.clear();
        let mut void = Vec::new();
        let mut due = Vec::new();
        for (&stream, lane) in &mut self.lanes {
            match lane.epoch() {
                Some(of) if of < self.floor => void.push(stream),
                Some(of) if Some(of) == epoch => {
                    if lane.stage == Stage::Held(of) {
                        lane.stage = Stage::Unnamed(of);
                        due.push(stream);
                    }
                }
                Some(_) | None => {}
            }
        }
        void.into_iter().for_each(|stream| self.discard(conn, stream));
        due.into_iter().for_each(|stream| self.queue(stream));
    }

    fn read_lane<U: Upper>(
        &mut self,
        now: Instant,
        conn: &mut Connection,
        stream: StreamId,
        upper: &mut U,
    ) -> Result<u64, U::Error> {
        let mut read = 0;
        let mut ended = false;
        {
            let mut receiving = conn.recv_stream(stream);
            let Ok(mut chunks) = receiving.read(true) else { return Ok(0) };
            while let Some(wants) = self.lanes.get(&stream).map(Lane::wants).filter(|wants| *wants > 0) {
                match chunks.next(wants) {
                    Ok(Some(chunk)) => {
                        read += chunk.bytes.len() as u64;
                        self.take(now, stream, &chunk.bytes, upper)?;
                    }
                    Ok(None) | Err(ReadError::Reset(_)) => {
                        ended = true;
                        break;
                    }
                    Err(ReadError::Blocked) => break,
                }
            }
            // Whatever it asks to be sent goes with the next datagram, which the caller polls for anyway.
            let _ = chunks.finalize();
        }
        let Some(lane) = self.lanes.get_mut(&stream) else { return Ok(read) };
        lane.receiving &= !ended;
        match (lane.stage, lane.id()) {
            // One that ended before it said what it is for.
            (Stage::Opening { .. } | Stage::Unnamed(_), _) if ended => self.discard(conn, stream),
            (Stage::Void, _) => self.discard(conn, stream),
            (_, Some(id)) if !upper.mux().is_live(id) => self.finish(conn, stream),
            _ => {}
        }
        self.tidy(stream);
        Ok(read)
    }

    /// Takes bytes of a lane.
    fn take<U: Upper>(
        &mut self,
        now: Instant,
        stream: StreamId,
        mut bytes: &[u8],
        upper: &mut U,
    ) -> Result<(), U::Error> {
        let Some(lane) = self.lanes.get_mut(&stream) else { return Ok(()) };
        if let Stage::Opening { .. } = lane.stage {
            if let Some(epoch) = lane.gather(bytes) {
                lane.stage = match epoch {
                    _ if Some(epoch) == self.epoch => Stage::Unnamed(epoch),
                    _ if epoch < self.floor => Stage::Void,
                    _ => Stage::Held(epoch),
                };
            }
            return Ok(());
        }
        let mut decoder = lane.decoder.take().or_else(|| self.spare.take()).unwrap_or_default();
        while let Some(frame) = decoder.next(&mut bytes).map_err(UdpError::from)? {
            match lane.stage {
                Stage::Control if is_control(&frame) => {}
                Stage::Named { id, .. } if frame.stream() == id => {}
                Stage::Unnamed(epoch) => {
                    let id = frame.stream();
                    if id == 0 || owner(id) != self.role.other() || self.ids.contains_key(&id) {
                        return Err(UdpError::Lane("a lane for a stream that cannot have it").into());
                    }
                    lane.stage = Stage::Named { epoch, id };
                    self.ids.insert(id, stream);
                    upper.mux().release(id);
                }
                Stage::Control
                | Stage::Named { .. }
                | Stage::Opening { .. }
                | Stage::Held(_)
                | Stage::Void => {
                    return Err(UdpError::Lane("a frame in the lane of another stream").into());
                }
            }
            upper.take(now, frame)?;
        }
        match decoder.is_between_frames() {
            true => self.spare = Some(decoder),
            false => lane.decoder = Some(decoder),
        }
        Ok(())
    }

    /// Stream 0's lane. The client opens it; the other side waits for it.
    fn control(&mut self, conn: &mut Connection) -> Option<StreamId> {
        let control = control();
        if self.lanes.contains_key(&control) {
            return Some(control);
        }
        if self.role == Role::Controlled {
            return None;
        }
        let opened = conn.streams().open(Dir::Bi).filter(|&opened| opened == control)?;
        let _ = conn.send_stream(opened).set_priority(CONTROL_PRIORITY);
        self.lanes.insert(opened, Lane::new(Stage::Control));
        Some(opened)
    }

    /// Whether the stream's lane takes bytes; it is opened if that is this side's to do.
    fn takes(&mut self, conn: &mut Connection, id: u32) -> bool {
        if let Some(lane) = self.ids.get(&id).and_then(|stream| self.lanes.get(stream)) {
            return lane.takes();
        }
        let Some(epoch) = self.epoch.filter(|_| owner(id) == self.role) else { return false };
        let Some(stream) = conn.streams().open(Dir::Bi) else {
            self.waiting.insert(id);
            return false;
        };
        self.lanes.insert(stream, Lane::new(Stage::Named { epoch, id }));
        self.ids.insert(id, stream);
        self.put(conn, stream, &epoch.to_be_bytes())
    }

    /// Gives QUIC bytes of a lane, and keeps what it does not take. Whether it took all.
    fn put(&mut self, conn: &mut Connection, stream: StreamId, bytes: &[u8]) -> bool {
        let Some(lane) = self.lanes.get_mut(&stream) else { return true };
        let rest = write(conn, stream, lane, bytes);
        if rest.is_empty() {
            return true;
        }
        lane.unwritten.extend_from_slice(rest);
        self.stalled.push_back(stream);
        false
    }

    /// Gives QUIC what it did not take before. Whether it has taken all.
    fn flush<U: Upper>(&mut self, conn: &mut Connection, upper: &mut U) -> bool {
        while let Some(&stream) = self.stalled.front() {
            if let Some(lane) = self.lanes.get_mut(&stream) {
                let bytes = std::mem::take(&mut lane.unwritten);
                let rest = write(conn, stream, lane, &bytes);
                if !rest.is_empty() {
                    lane.unwritten = rest.to_vec();
                    return false;
                }
                if let Some(id) = lane.id() {
                    upper.mux().release(id);
                }
                if lane.sending == Sending::Finishing {
                    self.finish(conn, stream);
                }
            }
            self.stalled.pop_front();
        }
        true
    }

    /// This side has nothing more to say in the lane.
    fn finish(&mut self, conn: &mut Connection, stream: StreamId) {
        let Some(lane) = self.lanes.get_mut(&stream).filter(|lane| lane.sending != Sending::Done) else {
            return;
        };
        if lane.unwritten.is_empty() {
            // It fails only if the peer stopped the half, which then has ended as well.
            let _ = conn.send_stream(stream).finish();
            lane.sending = Sending::Done;
            self.tidy(stream);
        } else {
            lane.sending = Sending::Finishing;
        }
    }

    /// Forgets a lane of which both halves have ended; QUIC sees to what is under way.
    fn tidy(&mut self, stream: StreamId) {
        let over = |lane: &Lane| lane.sending == Sending::Done && !lane.receiving;
        if self.lanes.get(&stream).is_some_and(over) {
            self.forget(stream);
        }
    }

    /// Ends both halves at once, whatever is under way.
    fn discard(&mut self, conn: &mut Connection, stream: StreamId) {
        // Either half may have ended already.
        let _ = conn.send_stream(stream).reset(VarInt::from_u32(0));
        let _ = conn.recv_stream(stream).stop(VarInt::from_u32(0));
        self.forget(stream);
    }

    fn forget(&mut self, stream: StreamId) {
        let Some(id) = self.lanes.remove(&stream).and_then(|lane| lane.id()) else { return };
        if self.ids.get(&id) == Some(&stream) {
            self.ids.remove(&id);
        }
    }
}

/// Gives QUIC bytes; those that it does not take.
fn write<'a>(conn: &mut Connection, stream: StreamId, lane: &mut Lane, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() && lane.sending != Sending::Done {
        match conn.send_stream(stream).write(bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(WriteError::Blocked) => return bytes,
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                // The peer's loss: the lane is of an epoch that is over there, or the peer breaks the rules.
                let _ = conn.send_stream(stream).reset(VarInt::from_u32(0));
                lane.sending = Sending::Done;
            }
        }
    }
    &[]
}

fn is_control(frame: &Frame<'_>) -> bool {
    match frame {
        Frame::Data { stream: 0, .. } | Frame::Ping(_) | Frame::Pong(_) => true,
        Frame::Data { .. } | Frame::Syn { .. } | Frame::Window { .. } | Frame::Reset { .. } => false,
    }
}

/// Whose stream it is: the controlling side's ids are odd.
fn owner(id: u32) -> Role {
    if id % 2 == 1 { Role::Controlling } else { Role::Controlled }
}

/// The first QUIC stream that the client opens.
fn control() -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, 0)
}

/// Above that of all other lanes, which is 0.
const CONTROL_PRIORITY: i32 = 1;
