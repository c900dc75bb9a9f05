//! The INP2P reactor on tokio: readiness by `AsyncFd`, timers by `Sleep`, tasks by `spawn`. All socket code is
//! `inp2p_driver::os`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use inp2p_driver::net::TimerIo;
use inp2p_driver::os::{Direction, Os, Outcome, Reactor, Ready, Source};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::runtime::{Builder, Handle};
use tokio::time::Sleep;

/// This machine's network on tokio.
pub type TokioNet = Os<TokioReactor>;

/// Makes a runtime with `workers` threads and runs what `main` returns on it, beside them, to its end. Tasks
/// that are left then are dropped. It fails when the system refuses threads or descriptors.
pub fn run<F: Future>(workers: usize, main: impl FnOnce(TokioNet) -> F) -> io::Result<F::Output> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers.max(1))
        .thread_name("tokio")
        .enable_io()
        .enable_time()
        .build()?;
    let net = Os::new(TokioReactor::new(runtime.handle().clone()));
    Ok(runtime.block_on(main(net)))
}

/// A tokio runtime with I/O and time enabled.
#[derive(Debug, Clone)]
pub struct TokioReactor(Handle);

impl TokioReactor {
    /// The reactor of the runtime of `handle`.
    pub fn new(handle: Handle) -> Self {
        Self(handle)
    }
}

impl Reactor for TokioReactor {
    type Io<S: Source> = TokioIo<S>;
    type Timer = TokioTimer;

    #[allow(deprecated, reason = "its successor is unsafe, for types whose descriptor changes; ours do not")]
    fn register<S: Source>(&self, source: S) -> io::Result<TokioIo<S>> {
        let _runtime = self.0.enter();
        Ok(TokioIo { fd: AsyncFd::new(source)?, tried: AtomicU8::new(0) })
    }

    fn timer(&self) -> TokioTimer {
        TokioTimer { runtime: self.0.clone(), sleep: None }
    }

    fn spawn(&self, _name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }
}

/// A socket that tokio watches.
#[derive(Debug)]
pub struct TokioIo<S: Source> {
    fd: AsyncFd<S>,
    /// The directions in which a call was made already, one bit each.
    tried: AtomicU8,
}

impl<S: Source> TokioIo<S> {
    fn poll_guard(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, S>>> {
        match direction {
            Direction::Read => self.fd.poll_read_ready(cx),
            Direction::Write => self.fd.poll_write_ready(cx),
        }
    }

    fn is_first(&self, direction: Direction) -> bool {
        let bit = match direction {
            Direction::Read => 1,
            Direction::Write => 2,
        };
        self.tried.load(Ordering::Relaxed) & bit == 0
            && self.tried.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

impl<S: Source> Ready<S> for TokioIo<S> {
    fn source(&self) -> &S {
        self.fd.get_ref()
    }

    fn poll_ready(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<()>> {
        ready!(self.poll_guard(cx, direction))?.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// tokio remembers readiness (its epoll is edge-triggered), so asking it first saves the calls that would
    /// block. It knows nothing of a new socket until the reactor's next turn, so the first call is made
    /// unasked. Readiness is taken note of before the call and cleared after it: what arrives between is a
    /// newer event, which clearing leaves alone.
    fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut call: impl FnMut(&S) -> io::Result<Outcome<T>>,
    ) -> Poll<io::Result<T>> {
        if self.is_first(direction) {
            match call(self.source()) {
                Err(error) if is_transient(&error) => {}
                result => return Poll::Ready(result.map(Outcome::into_inner)),
            }
        }
        loop {
            let mut guard = ready!(self.poll_guard(cx, direction))?;
            match call(self.source()) {
                Ok(Outcome::Open(value)) => return Poll::Ready(Ok(value)),
                Ok(Outcome::Exhausted(value)) => {
                    guard.clear_ready();
                    return Poll::Ready(Ok(value));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A timer on tokio's wheel, made when it is first set.
#[derive(Debug)]
pub struct TokioTimer {
    runtime: Handle,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TimerIo for TokioTimer {
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else { return Poll::Pending };
        let at = tokio::time::Instant::from_std(at);
        let sleep = self.sleep.get_or_insert_with(|| {
            let _runtime = self.runtime.enter();
            Box::pin(tokio::time::sleep_until(at))
        });
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}
