//! A whole runtime on one thread: readiness by mio, timers in a map, an executor made by hand. It is the example of
//! `docs/porting.md`: complete, passes the conformance kit, and everything of INP2P runs on it. What it leaves to
//! others is speed: waking takes a lock and allocates, and one processor is used.
//!
//! The loop, in [`run`]: poll the tasks that are ready, sleep until a socket, a timer or another thread has news,
//! wake those whom it concerns, and again.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use inp2p_driver::net::TimerIo;
use inp2p_driver::os::{Direction, Os, Reactor, Ready, Source};
use mio::{Events, Interest, Registry, Token, event::Event, unix::SourceFd};

/// This machine's network on the small runtime.
pub(crate) type SmallNet = Os<Small>;

/// Runs what `main` returns, and the tasks beside it, on this thread until the former ends. Tasks that are left
/// then are dropped. It fails when the system refuses descriptors.
pub(crate) fn run<F: Future>(_workers: usize, main: impl FnOnce(SmallNet) -> F) -> io::Result<F::Output> {
    let mut poll = mio::Poll::new()?;
    let small = Small(Arc::new(Shared {
        registry: poll.registry().try_clone()?,
        alarm: mio::Waker::new(poll.registry(), Token(MAIN))?,
        thread: thread::current().id(),
        next: AtomicUsize::new(MAIN + 1),
        state: Mutex::default(),
    }));
    // Before the future, so that it is dropped after it: also when that panics.
    let end = End(small.0.clone());
    let mut main = pin!(main(Os::new(small)));
    let shared = &end.0;
    let waker = shared.waker(MAIN);
    waker.wake_by_ref();
    let mut events = Events::with_capacity(256);
    loop {
        // One round. Whom these wake has the next one, after a look at the sockets.
        let ready = mem::take(&mut shared.lock().ready);
        for id in ready {
            if id != MAIN {
                shared.poll_task(id);
            } else if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(output);
            }
        }
        match poll.poll(&mut events, shared.timeout()) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        events.iter().for_each(|event| shared.pass_on(event));
        shared.ring();
    }
}

/// The runtime, as its sockets, timers and tasks see it.
#[derive(Clone)]
pub(crate) struct Small(Arc<Shared>);

impl Reactor for Small {
    type Io<S: Source> = SmallIo<S>;
    type Timer = SmallTimer;

    fn register<S: Source>(&self, source: S) -> io::Result<SmallIo<S>> {
        let id = self.0.id();
        // In the map first: the first event may come at once.
        self.0.lock().sockets.insert(id, Default::default());
        let io = SmallIo { source, id, shared: self.0.clone() };
        let both = Interest::READABLE | Interest::WRITABLE;
        self.0.registry.register(&mut SourceFd(&io.source.as_raw_fd()), Token(id), both)?;
        Ok(io)
    }

    fn timer(&self) -> SmallTimer {
        SmallTimer { id: self.0.id(), set: None, shared: self.0.clone() }
    }

    fn spawn(&self, _name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.0.lock();
        if state.has_ended {
            // Dropped without the lock, as all that is not ours: it may take it.
            drop(state);
            return drop(task);
        }
        let id = self.0.id();
        state.tasks.insert(id, Box::pin(task));
        drop(state);
        self.0.waker(id).wake();
    }
}

/// What the loop shares with sockets, timers and tasks.
struct Shared {
    registry: Registry,
    /// Ends the loop's sleep.
    alarm: mio::Waker,
    /// The loop's.
    thread: ThreadId,
    next: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    has_ended: bool,
    tasks: BTreeMap<usize, Task>,
    /// Tasks that were woken and not polled since.
    ready: BTreeSet<usize>,
    /// What is known of the two directions of each socket.
    sockets: BTreeMap<usize, [Side; 2]>,
    timers: BTreeMap<(Instant, usize), Waker>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other task, socket or timer has.
    fn id(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn waker(self: &Arc<Self>, id: usize) -> Waker {
        Waker::from(Arc::new(WakesTask { id, shared: self.clone() }))
    }

    /// Lets the loop look again. On its own thread it is awake, and looks before it sleeps.
    fn rouse(&self) {
        if thread::current().id() != self.thread {
            let _ = self.alarm.wake();
        }
    }

    /// Polls a task, which is in nobody's hands meanwhile and may do anything. A panic, which has been reported
    /// by the panic hook, ends it alone.
    fn poll_task(self: &Arc<Self>, id: usize) {
        let Some(mut task) = self.lock().tasks.remove(&id) else { return };
        let waker = self.waker(id);
        let mut cx = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut cx)));
        if let Ok(Poll::Pending) = polled {
            self.lock().tasks.insert(id, task);
        }
    }

    /// How long there is nothing to do; none is until an event.
    fn timeout(&self) -> Option<Duration> {
        let state = self.lock();
        let next =
            state.timers.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()));
        if state.ready.is_empty() { next } else { Some(Duration::ZERO) }
    }

    /// Tells those who wait for a socket. An error is news for both directions.
    fn pass_on(&self, event: &Event) {
        let read = event.is_readable() || event.is_read_closed() || event.is_error();
        let write = event.is_writable() || event.is_write_closed() || event.is_error();
        let mut woken = Vec::new();
        // The alarm is no socket.
        if let Some(sides) = self.lock().sockets.get_mut(&event.token().0) {
            for (side, _) in sides.iter_mut().zip([read, write]).filter(|(_, is_news)| *is_news) {
                if let Side::Waits(waker) = mem::replace(side, Side::Came) {
                    woken.push(waker);
                }
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Wakes whose time has come.
    fn ring(&self) {
        let mut state = self.lock();
        let later = state.timers.split_off(&(Instant::now(), usize::MAX));
        let due = mem::replace(&mut state.timers, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
    }
}

struct WakesTask {
    id: usize,
    shared: Arc<Shared>,
}

impl Wake for WakesTask {
    fn wake(self: Arc<Self>) {
        self.shared.lock().ready.insert(self.id);
        self.shared.rouse();
    }
}

/// Drops the tasks that are left, which hold the runtime as it holds them.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        let left = mem::take(&mut state.tasks);
        drop(state);
        drop(left);
    }
}

/// A socket that mio watches, for edges: it tells of a direction once, when that becomes ready.
pub(crate) struct SmallIo<S: Source> {
    source: S,
    id: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
enum Side {
    #[default]
    Nothing,
    /// Somebody waits, because a call would have blocked.
    Waits(Waker),
    /// Something came that nobody has heard of from `poll_ready`.
    Came,
}

impl<S: Source> Ready<S> for SmallIo<S> {
    fn source(&self) -> &S {
        &self.source
    }

    fn poll_ready(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let side = &mut state.sockets.entry(self.id).or_default()[direction as usize];
        if let Side::Came = mem::take(side) {
            return Poll::Ready(Ok(()));
        }
        *side = Side::Waits(cx.waker().clone());
        Poll::Pending
    }
}

impl<S: Source> Drop for SmallIo<S> {
    fn drop(&mut self) {
        let _old = self.shared.lock().sockets.remove(&self.id);
        let _ = self.shared.registry.deregister(&mut SourceFd(&self.source.as_raw_fd()));
    }
}

/// A timer: an entry in the map of them, while it is set.
pub(crate) struct SmallTimer {
    id: usize,
    set: Option<Instant>,
    shared: Arc<Shared>,
}

impl TimerIo for SmallTimer {
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        if self.set != at {
            self.unset();
        }
        let Some(at) = at else { return Poll::Pending };
        if Instant::now() >= at {
            self.unset();
            return Poll::Ready(());
        }
        self.set = Some(at);
        let _old = self.shared.lock().timers.insert((at, self.id), cx.waker().clone());
        self.shared.rouse();
        Poll::Pending
    }
}

impl SmallTimer {
    fn unset(&mut self) {
        if let Some(at) = self.set.take() {
            let _old = self.shared.lock().timers.remove(&(at, self.id));
        }
    }
}

impl Drop for SmallTimer {
    fn drop(&mut self) {
        self.unset();
    }
}

/// The main future's number among the tasks, and the alarm's among the sockets.
const MAIN: usize = 0;
