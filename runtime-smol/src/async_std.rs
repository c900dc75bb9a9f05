//! async-std's threads, on the reactor that it shares with smol. There is one set of them in a process, and it
//! has no end: so what is left at the end of [`run`] is cancelled here.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::async_std::task::{self, JoinHandle};
use inp2p_driver::os::Os;

use crate::{SmolReactor, Spawner};

/// This machine's network on async-std.
pub type AsyncStdNet = Os<SmolReactor<AsyncStd>>;

/// Runs what `main` returns to its end, beside tasks on async-std's threads. Tasks that are left then are
/// dropped. How many threads there are, `ASYNC_STD_THREAD_COUNT` says, not `_workers`.
pub fn run<F: Future>(_workers: usize, main: impl FnOnce(AsyncStdNet) -> F) -> io::Result<F::Output> {
    let tasks = AsyncStd::default();
    // Also when `main` panics.
    let _end = End(&tasks);
    Ok(task::block_on(main(Os::new(SmolReactor::new(tasks.clone())))))
}

/// The tasks of one [`run`].
#[derive(Debug, Clone, Default)]
pub struct AsyncStd(Arc<Mutex<Tasks>>);

#[derive(Debug, Default)]
struct Tasks {
    has_ended: bool,
    next: u64,
    running: BTreeMap<u64, JoinHandle<()>>,
}

impl AsyncStd {
    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spawner for AsyncStd {
    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        // Held until the handle is in its place: a task that is quick finds it there.
        let mut tasks = self.lock();
        if tasks.has_ended {
            // Dropped outside of the lock: it may spawn.
            drop(tasks);
            return drop(future);
        }
        let id = tasks.next;
        tasks.next += 1;
        let ends = Ends { id, tasks: self.clone() };
        let handle = task::spawn(async move {
            let _ends = ends;
            future.await;
        });
        tasks.running.insert(id, handle);
    }
}

/// Forgets its task when that ends, by a panic too.
struct Ends {
    id: u64,
    tasks: AsyncStd,
}

impl Drop for Ends {
    fn drop(&mut self) {
        let handle = self.tasks.lock().running.remove(&self.id);
        drop(handle);
    }
}

/// The end of a [`run`].
struct End<'a>(&'a AsyncStd);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut tasks = self.0.lock();
        tasks.has_ended = true;
        let left = std::mem::take(&mut tasks.running);
        drop(tasks);
        task::block_on(async {
            for handle in left.into_values() {
                handle.cancel().await;
            }
        });
    }
}
