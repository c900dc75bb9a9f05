//! All that a runtime supplies: [`Reactor`] and its [`Ready`].
//!
//! How a call on a socket goes: *try the system call first, wait only when it would block*. A reactor without
//! memory of readiness (async-io) would otherwise pay a whole turn for every call; one that remembers
//! (tokio) may skip a call that it knows to be in vain by writing [`Ready::poll_io`] itself.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll, ready};

use crate::net::TimerIo;

/// A runtime: it tells when sockets are ready, has timers and runs tasks.
///
/// Its methods may be called from any thread, inside and outside of the runtime's own.
pub trait Reactor: Clone + Send + Sync + Unpin + 'static {
    /// A watched socket.
    type Io<S: Source>: Ready<S>;

    /// A timer on the system's monotonic clock (`Instant::now`).
    type Timer: TimerIo;

    /// Watches `source`, which is in non-blocking mode, for both directions until it is dropped: watching ends first,
    /// and the descriptor is closed then.
    fn register<S: Source>(&self, source: S) -> io::Result<Self::Io<S>>;

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Runs `task` to its end, or drops it when the runtime ends. `name` says what it is, for traces.
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static);
}

/// What can be watched: anything with a file descriptor that stays the same for its life.
pub trait Source: AsFd + AsRawFd + Send + Sync + Unpin + 'static {}

impl<S: AsFd + AsRawFd + Send + Sync + Unpin + 'static> Source for S {}

/// A watched socket. One waker is kept a direction: that of the latest call.
pub trait Ready<S>: Send + Sync + Unpin + 'static {
    /// The socket itself.
    fn source(&self) -> &S;

    /// Waits until the direction may be ready. Called after a system call said that it would block; when it
    /// returns `Ready`, that call is made again. An event that wakes the task is told of by the next answer: it
    /// is `Ready` once, whether or not a call was made meanwhile. It may be wrong now and then, but not always: a
    /// `Ready` that is never followed by `Pending` would spin.
    fn poll_ready(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<()>>;

    /// Makes the system call `call`, and again whenever the direction becomes ready, until it does something
    /// else than block.
    fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut call: impl FnMut(&S) -> io::Result<Outcome<T>>,
    ) -> Poll<io::Result<T>> {
        loop {
            match call(self.source()) {
                Ok(outcome) => return Poll::Ready(Ok(outcome.into_inner())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_ready(cx, direction))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// A direction of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Receiving; for a listener, accepting.
    Read,
    /// Sending; for a connecting socket, being connected.
    Write,
}

/// What a successful system call says about the next one. A reactor that remembers readiness may forget it
/// after [`Outcome::Exhausted`], which saves the call that would only have told `WouldBlock`.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<T> {
    /// The next call may succeed too.
    Open(T),
    /// The socket gave all it had, or took all it could: the next call would block.
    Exhausted(T),
}

impl<T> Outcome<T> {
    /// The result of the call.
    pub fn into_inner(self) -> T {
        match self {
            Self::Open(value) | Self::Exhausted(value) => value,
        }
    }
}
