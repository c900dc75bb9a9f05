//! Threads for tasks. The first one has the reactor and runs what that wakes, so that an event does not cost
//! another thread's wake-up. The others help with a backlog, and sleep outside of the reactor, as the thread of
//! `main` does.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Builder, Thread};

use async_executor::Executor;
use futures_channel::oneshot;
use futures_lite::future;
use inp2p_driver::os::Os;

use crate::{SmolNet, SmolReactor, Spawner};

/// Runs tasks on `workers` threads, and what `main` returns beside them to its end. Tasks that are left then are
/// dropped. It fails when the system refuses threads.
pub fn run<F: Future>(workers: usize, main: impl FnOnce(SmolNet) -> F) -> io::Result<F::Output> {
    let executor = &Arc::new(Executor::new());
    let net = Os::new(SmolReactor::new(Threads(Arc::downgrade(executor))));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        // When these are dropped, at whatever end, the threads stop.
        let (_keep, mut stop) = oneshot::channel::<()>();
        let mut helpers = Helpers { ended: &ended, threads: Vec::new() };
        for _ in 1..workers {
            let runs = || !ended.load(Ordering::Acquire);
            let help = move || {
                while runs() {
                    undisturbed(|| while runs() && executor.try_tick() {});
                    thread::park();
                }
            };
            helpers.threads.push(thread().spawn_scoped(scope, help)?.thread().clone());
        }
        let threads = helpers.threads.clone();
        let lead = move || {
            undisturbed(|| {
                let stopped = async { (&mut stop).await.unwrap_or_default() };
                async_io::block_on(future::or(stopped, lead(executor, &threads)));
            });
        };
        thread().spawn_scoped(scope, lead)?;
        Ok(future::block_on(main(net)))
    })
}

/// Runs tasks one after another, and has the others help with a backlog.
async fn lead(executor: &Executor<'static>, helpers: &[Thread]) {
    let mut row = 0_usize;
    loop {
        if !executor.try_tick() {
            row = 0;
            executor.tick().await;
            continue;
        }
        row += 1;
        if row.is_multiple_of(BACKLOG) {
            helpers.iter().for_each(Thread::unpark);
            future::yield_now().await;
        }
    }
}

/// A task's panic is reported by its hook and ends that task, not the others.
fn undisturbed(mut work: impl FnMut()) {
    while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {}
}

fn thread() -> Builder {
    Builder::new().name("smol".into())
}

/// The threads beside the first one.
struct Helpers<'a> {
    ended: &'a AtomicBool,
    threads: Vec<Thread>,
}

impl Drop for Helpers<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.threads.iter().for_each(Thread::unpark);
    }
}

/// The threads of [`run`]. Tasks hold it, and the executor holds the tasks: so it must not hold the executor.
#[derive(Debug, Clone)]
pub struct Threads(Weak<Executor<'static>>);

impl Spawner for Threads {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(executor) = self.0.upgrade() {
            executor.spawn(task).detach();
        }
    }
}

/// Tasks in a row that were ready at once: so many are a backlog, and sockets are looked at meanwhile.
const BACKLOG: usize = 32;
