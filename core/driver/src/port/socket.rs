//! One UDP socket of the port. Whoever has it sends by it at once; the port's task alone waits for it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use inp2p_core::ids::SockId;

use super::Places;
use crate::net::{RecvBatch, Transmit, UdpIo};

/// A socket, and those who wait to send by it.
pub(crate) struct PortSocket<U> {
    id: SockId,
    io: U,
    /// Its place in the task's table, which gives its bits.
    place: usize,
    places: Arc<Places>,
    blocked: Mutex<Vec<Waker>>,
    /// Whether `blocked` holds anybody.
    any: AtomicBool,
    /// Tell the task to look at either direction.
    read: Waker,
    write: Waker,
}

impl<U: UdpIo> PortSocket<U> {
    pub(super) fn new(id: SockId, io: U, place: usize, places: Arc<Places>) -> Self {
        let [read, write] = places.wakers(place);
        Self {
            id,
            io,
            place,
            places,
            blocked: Mutex::new(Vec::new()),
            any: AtomicBool::new(false),
            read,
            write,
        }
    }

    /// The name by which paths speak of it.
    pub(crate) fn id(&self) -> SockId {
        self.id
    }

    /// Where it is bound.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// How many segments one send may carry.
    pub(crate) fn max_segments(&self) -> usize {
        self.io.max_segments()
    }

    /// Sends now, or fails with `WouldBlock`; then [`Self::wait`] says who is to be woken.
    pub(crate) fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        self.io.try_send(transmit, bytes)
    }

    /// Has `waker` woken once a send may be worth another try. One call is good for one waking.
    pub(crate) fn wait(&self, waker: &Waker) {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner).push(waker.clone());
        self.any.store(true, Ordering::Release);
        self.write.wake_by_ref();
    }

    pub(super) fn place(&self) -> usize {
        self.place
    }

    pub(super) fn poll_recv(&self, batch: &mut RecvBatch) -> Poll<io::Result<usize>> {
        self.io.poll_recv(&mut Context::from_waker(&self.read), batch)
    }

    /// Wakes those who wait, if the socket may take something.
    pub(super) fn poll_blocked(&self) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        // An error is theirs to see: their next send meets it.
        if self.io.poll_writable(&mut Context::from_waker(&self.write)).is_ready() {
            let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
            self.any.store(false, Ordering::Release);
            let woken = std::mem::take(&mut *blocked);
            drop(blocked);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

impl<U> Drop for PortSocket<U> {
    fn drop(&mut self) {
        self.places.free(self.place);
    }
}

impl<U> fmt::Debug for PortSocket<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortSocket").field("id", &self.id).finish_non_exhaustive()
    }
}
