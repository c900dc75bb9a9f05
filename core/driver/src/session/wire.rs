//! One link's connection: bytes read ahead, bytes not yet written.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use inp2p_core::session::{LinkId, Session};

use crate::net::StreamIo;
use crate::ready::ReadySet;
use crate::words::in_words;

/// A link's connection.
pub(super) struct Wire<S> {
    pub(super) link: LinkId,
    io: S,
    /// Its place among the session's connections, which gives its bits.
    pub(super) place: usize,
    pub(super) connected: bool,
    read_ready: bool,
    write_ready: bool,
    read_waker: Waker,
    write_waker: Waker,
    /// The beginning of a record whose rest has not come yet.
    tail: Vec<u8>,
    /// Records on their way to the kernel, from `written` on.
    out: Vec<u8>,
    written: usize,
}

impl<S: StreamIo> Wire<S> {
    pub(super) fn new(
        link: LinkId,
        io: S,
        place: usize,
        bits: (usize, usize),
        ready: &Arc<ReadySet>,
    ) -> Self {
        Self {
            link,
            io,
            place,
            connected: false,
            read_ready: true,
            write_ready: true,
            read_waker: ready.waker(bits.0),
            write_waker: ready.waker(bits.1),
            tail: Vec::new(),
            out: Vec::new(),
            written: 0,
        }
    }

    /// As [`StreamIo::local_addr`].
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    pub(super) fn woken(&mut self, read: bool) {
        if read {
            self.read_ready = true;
        } else {
            self.write_ready = true;
        }
    }

    /// Waits for the dial to succeed.
    pub(super) fn poll_connected(&mut self) -> Poll<io::Result<()>> {
        if !self.write_ready {
            return Poll::Pending;
        }
        let connected = self.io.poll_connected(&mut Context::from_waker(&self.write_waker));
        match &connected {
            Poll::Pending => self.write_ready = false,
            Poll::Ready(Ok(())) => self.connected = true,
            Poll::Ready(Err(_)) => {}
        }
        connected
    }

    /// Reads and feeds the session, up to [`SHARE`] bytes, by way of `scratch`, which is made `room` long. Whether
    /// there may be more; an error or the end of the stream is an `Err` with the reason.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        session: &mut Session,
        scratch: &mut Vec<u8>,
        room: usize,
    ) -> Result<bool, String> {
        let mut share = SHARE;
        while self.read_ready {
            if share == 0 {
                return Ok(true);
            }
            scratch.resize(room.max(scratch.len()), 0);
            let kept = self.tail.len();
            let (head, free) = scratch.split_at_mut(kept);
            head.copy_from_slice(&self.tail);
            let mut cx = Context::from_waker(&self.read_waker);
            match self.io.poll_read(&mut cx, &mut [IoSliceMut::new(free)]) {
                Poll::Pending => self.read_ready = false,
                Poll::Ready(Ok(0)) => return Err("the connection was closed".to_owned()),
                Poll::Ready(Ok(n)) => {
                    share = share.saturating_sub(n);
                    let input = scratch.get_mut(..kept + n).unwrap_or_default();
                    let used = session.receive(now, self.link, input);
                    self.tail.clear();
                    self.tail.extend_from_slice(input.get(used..).unwrap_or_default());
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(in_words(&error)),
            }
        }
        Ok(false)
    }

    /// Writes what the session has to say, as far as the kernel takes it. Whether there is more.
    pub(super) fn transmit(&mut self, now: Instant, session: &mut Session) -> Result<bool, String> {
        let mut share = SHARE;
        while self.write_ready {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                session.transmit(now, self.link, &mut self.out, BURST);
                if self.out.is_empty() {
                    return Ok(false);
                }
            }
            if share == 0 {
                return Ok(true);
            }
            let n = self.write_once()?;
            share = share.saturating_sub(n);
        }
        Ok(false)
    }

    /// Whether the kernel has everything.
    pub(super) fn is_flushed(&self) -> bool {
        !self.connected || self.written == self.out.len()
    }

    /// Gives back what an idle link does not need.
    pub(super) fn relax(&mut self) {
        self.tail.shrink_to_fit();
        if self.written == self.out.len() {
            self.out = Vec::new();
            self.written = 0;
        }
    }

    /// The last words: as much as goes at once, then the connection closes, or is reset.
    pub(super) fn close(mut self, farewell: &[u8], reset: bool) {
        if reset {
            self.io.abort();
        }
        self.out.extend_from_slice(farewell);
        while self.connected && self.write_ready && self.written < self.out.len() {
            if self.write_once().is_err() {
                return;
            }
        }
    }

    fn write_once(&mut self) -> Result<usize, String> {
        let rest = self.out.get(self.written..).unwrap_or_default();
        let mut cx = Context::from_waker(&self.write_waker);
        match self.io.poll_write(&mut cx, &[IoSlice::new(rest)]) {
            Poll::Pending => {
                self.write_ready = false;
                Ok(0)
            }
            Poll::Ready(Ok(n)) => {
                self.written += n;
                Ok(n)
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Poll::Ready(Err(error)) => Err(in_words(&error)),
        }
    }
}

/// Room for one read: eight records, so that a fast link costs few system calls, and still in the second-level
/// cache.
pub(super) const SCRATCH: usize = 128 * 1024 + 20 * 1024;

/// The same for a session without streams, which gets a ping now and then: a record, and the beginning of another.
pub(super) const IDLE_SCRATCH: usize = 20 * 1024;

/// How much is encrypted ahead of a write: what waits here cannot be overtaken by a terminal's keystroke.
const BURST: usize = 32 * 1024;

/// How many bytes a link may move a turn and direction before others have theirs.
const SHARE: usize = 512 * 1024;
