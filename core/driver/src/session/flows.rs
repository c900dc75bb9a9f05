//! Local connections and the streams they are joined to.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use inp2p_core::mux::code;
use inp2p_core::mux::{Key, Mux};
use inp2p_core::tunnel::Target;

use crate::meter::ForwardMeter;
use crate::net::StreamIo;
use crate::ready::ReadySet;
use crate::words::in_words;

/// A local connection joined to a stream.
pub(super) struct Flow<S: StreamIo> {
    io: S,
    pub(super) key: Key,
    pub(super) stage: Stage,
    read: Side,
    write: Side,
    /// Both directions have ended in order: only then may the socket close without a reset.
    orderly: bool,
    /// The forward that it came through; none where this node dialled the target.
    origin: Option<Origin>,
    /// What this node dialled for the peer, and where that is; none for what came through a forward.
    pub(super) dialled: Option<(Target, IpAddr)>,
}

/// Where a local connection came from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// What the peer is to dial.
    pub(crate) target: Arc<str>,
    /// The forward's counters.
    pub(crate) meter: Arc<ForwardMeter>,
}

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// This node dials the target; given up at the deadline.
    Dialling(Instant),
    /// The far side has yet to answer; given up at the deadline if there is no link then.
    Opening {
        /// The deadline.
        until: Instant,
        /// Whether it has been brought forward, because the peer is known not to be there.
        shortened: bool,
    },
    /// Bytes flow.
    Open,
}

/// One direction of the local socket.
struct Side {
    state: SideState,
    waker: Waker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SideState {
    /// Worth a try.
    Ready,
    /// Its waker is registered with the socket.
    Blocked,
    /// Nothing more goes this way.
    Done,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Everything that could be done is done; a waker or an event of the mux brings it back.
    Settled,
    /// The share of this turn is used up: come back.
    More,
    /// The local connection is broken; the stream has been reset.
    Broken,
}

impl<S: StreamIo> Flow<S> {
    pub(super) fn new(io: S, key: Key, stage: Stage, origin: Option<Origin>, ready: &Arc<ReadySet>) -> Self {
        let (read, write) = bits(key.index());
        let side = |bit| Side { state: SideState::Ready, waker: ready.waker(bit) };
        if let Some(origin) = &origin {
            origin.meter.opened();
        }
        Self { io, key, stage, read: side(read), write: side(write), orderly: false, origin, dialled: None }
    }

    /// The socket may be readable or writable again.
    pub(super) fn woken(&mut self, read: bool) {
        let side = if read { &mut self.read } else { &mut self.write };
        if side.state == SideState::Blocked {
            side.state = SideState::Ready;
        }
    }

    /// Goes on dialling. Ready once the target answers or cannot be reached.
    pub(super) fn poll_dial(&mut self) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(&self.write.waker);
        let connected = self.io.poll_connected(&mut cx);
        self.write.state = if connected.is_pending() { SideState::Blocked } else { SideState::Ready };
        connected
    }

    /// Moves bytes both ways, as far as sockets, credit and the turn's share allow.
    pub(super) fn pump(&mut self, now: Instant, mux: &mut Mux) -> Turn {
        if let Stage::Dialling(_) = self.stage {
            return Turn::Settled;
        }
        match self.pump_out(mux).and_then(|more| Ok(self.pump_in(now, mux)? || more)) {
            Ok(true) => Turn::More,
            Ok(false) => Turn::Settled,
            Err(error) => {
                mux.reset(self.key, code::ABORTED, &in_words(&error));
                Turn::Broken
            }
        }
    }

    /// From the local socket into the stream. Whether there is more.
    fn pump_out(&mut self, mux: &mut Mux) -> io::Result<bool> {
        let mut share = SHARE;
        while self.read.state == SideState::Ready && mux.writable(self.key) > 0 {
            if share == 0 {
                return Ok(true);
            }
            let [front, back] = mux.space(self.key);
            let in_front = front.len().min(share);
            let in_back = back.len().min(share - in_front);
            let (front, back) = (&mut front[..in_front], &mut back[..in_back]);
            let offered = in_front + in_back;
            let mut bufs = [IoSliceMut::new(front), IoSliceMut::new(back)];
            let mut cx = Context::from_waker(&self.read.waker);
            match self.io.poll_read(&mut cx, &mut bufs) {
                Poll::Pending => self.read.state = SideState::Blocked,
                Poll::Ready(Ok(0)) if offered > 0 => {
                    self.read.state = SideState::Done;
                    mux.finish(self.key);
                }
                Poll::Ready(Ok(n)) => {
                    mux.wrote(self.key, n);
                    share = share.saturating_sub(n);
                    if let Some(origin) = &self.origin {
                        origin.meter.sent(n);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    /// From the stream into the local socket. Whether there is more.
    fn pump_in(&mut self, now: Instant, mux: &mut Mux) -> io::Result<bool> {
        let mut share = SHARE;
        while self.write.state == SideState::Ready {
            let [front, back] = mux.readable(self.key);
            if front.is_empty() && back.is_empty() {
                if mux.at_end(self.key) {
                    self.finish(mux);
                }
                return Ok(false);
            }
            if share == 0 {
                return Ok(true);
            }
            let bufs = [IoSlice::new(front), IoSlice::new(back)];
            let mut cx = Context::from_waker(&self.write.waker);
            match self.io.poll_write(&mut cx, &bufs) {
                Poll::Pending => self.write.state = SideState::Blocked,
                Poll::Ready(Ok(n)) => {
                    mux.consume(now, self.key, n);
                    share = share.saturating_sub(n);
                    if let Some(origin) = &self.origin {
                        origin.meter.received(n);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The target is connected.
    pub(super) fn established(&mut self, mux: &mut Mux) {
        self.stage = Stage::Open;
        mux.accept(self.key);
    }

    /// The peer has let the stream in.
    pub(super) fn accepted(&mut self) {
        self.stage = Stage::Open;
        if let Some(origin) = &self.origin {
            origin.meter.worked();
        }
    }

    /// The peer's end of stream has been reached and everything before it written.
    fn finish(&mut self, mux: &mut Mux) {
        self.write.state = SideState::Done;
        // A socket that is gone already needs no FIN; its reading side will tell.
        let _ = self.io.shutdown();
        mux.finished(self.key);
    }

    /// Ends the local connection in order: both directions have.
    pub(super) fn close(mut self) {
        self.orderly = true;
    }

    /// Ends the local connection by a reset, and notes why. Dropping it does the same without a reason. Whether the
    /// reason is news to the forward that it came through.
    pub(super) fn abort(self, why: Option<&str>) -> bool {
        match (&self.origin, why) {
            (Some(origin), Some(why)) => origin.meter.failed(why),
            _ => false,
        }
    }

    /// What the peer was to dial; none where this node dials.
    pub(super) fn target(&self) -> Option<Arc<str>> {
        self.origin.as_ref().map(|origin| Arc::clone(&origin.target))
    }
}

impl<S: StreamIo> Drop for Flow<S> {
    fn drop(&mut self) {
        if !self.orderly {
            // A local program must never take a stream that was cut for one that has ended.
            self.io.abort();
        }
        if let Some(origin) = &self.origin {
            origin.meter.closed();
        }
    }
}

/// The bits of a stream's slot: reading, writing.
pub(super) fn bits(slot: usize) -> (usize, usize) {
    (slot * 2, slot * 2 + 1)
}

/// How many bytes one connection may move a turn and direction: a few system calls' worth, so that the others
/// wait some tens of microseconds at most.
const SHARE: usize = 256 * 1024;
