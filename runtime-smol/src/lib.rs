//! The INP2P reactor on async-io, which smol and async-std share: readiness by `Async`, timers by `Timer`.
//! Tasks run wherever a [`Spawner`] puts them; [`run`] brings threads of its own. All socket code is
//! `inp2p_driver::os`.

#[cfg(feature = "async-std")]
pub mod async_std;
mod threads;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use async_io::{Async, Timer};
use inp2p_driver::net::TimerIo;
use inp2p_driver::os::{Direction, Os, Reactor, Ready, Source};

pub use self::threads::{Threads, run};

/// This machine's network on smol.
pub type SmolNet = Os<SmolReactor<Threads>>;

/// Where tasks run.
pub trait Spawner: Clone + Send + Sync + Unpin + 'static {
    /// Runs `task` to its end.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
}

/// The reactor of async-io, of which there is one in a process.
#[derive(Debug, Clone)]
pub struct SmolReactor<P>(P);

impl<P: Spawner> SmolReactor<P> {
    /// A reactor whose tasks `spawner` runs.
    pub fn new(spawner: P) -> Self {
        Self(spawner)
    }
}

impl<P: Spawner> Reactor for SmolReactor<P> {
    type Io<S: Source> = SmolIo<S>;
    type Timer = SmolTimer;

    fn register<S: Source>(&self, source: S) -> io::Result<SmolIo<S>> {
        Ok(SmolIo(Async::new_nonblocking(source)?))
    }

    fn timer(&self) -> SmolTimer {
        SmolTimer { timer: Timer::never(), set: None }
    }

    fn spawn(&self, _name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }
}

/// A socket that async-io watches. It remembers no readiness, so the provided `poll_io`, which tries first, is
/// the right one.
#[derive(Debug)]
pub struct SmolIo<S: Source>(Async<S>);

impl<S: Source> Ready<S> for SmolIo<S> {
    fn source(&self) -> &S {
        self.0.get_ref()
    }

    fn poll_ready(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<()>> {
        match direction {
            Direction::Read => self.0.poll_readable(cx),
            Direction::Write => self.0.poll_writable(cx),
        }
    }
}

/// A timer of async-io.
#[derive(Debug)]
pub struct SmolTimer {
    timer: Timer,
    set: Option<Instant>,
}

impl TimerIo for SmolTimer {
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else { return Poll::Pending };
        if self.set != Some(at) {
            self.timer.set_at(at);
            self.set = Some(at);
        }
        ready!(Pin::new(&mut self.timer).poll(cx));
        self.set = None;
        Poll::Ready(())
    }
}
