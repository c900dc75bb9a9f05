//! The tasks. One thread runs them, first woken first polled. A task belongs to a host, so that a host can
//! crash: its tasks are dropped where they stand.
//!
//! A future is taken out of its slot while it is polled and no lock is held meanwhile, so a task may spawn,
//! wake and use sockets; futures are likewise dropped outside of all locks, since their sockets close then.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::clock::Time;
use crate::host::HostId;
use crate::slab::{Key, Slab};

/// Locks; a panic elsewhere must not hide behind a second one here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
pub(crate) struct Executor {
    tasks: Mutex<Tasks>,
    ready: Arc<Mutex<VecDeque<Key>>>,
}

impl Executor {
    pub(crate) fn spawn(&self, host: HostId, name: &'static str, future: BoxedTask) {
        let mut tasks = lock(&self.tasks);
        let key = tasks.slab.insert_with(|key| {
            let flag = Arc::new(TaskWaker { key, queued: AtomicBool::new(true), ready: self.ready.clone() });
            let waker = Waker::from(flag.clone());
            Task { host, name, future: Some(future), waker, flag, polled_at: Time::ZERO, polls: 0, busy: 0 }
        });
        lock(&self.ready).push_back(key);
    }

    /// Polls the task that was woken first.
    ///
    /// # Panics
    ///
    /// When a task has been busy for [`SPIN_LIMIT`] instants in a row: it would spin for ever.
    pub(crate) fn poll_next(&self, now: Time, host_name: impl FnOnce(HostId) -> String) -> Turn {
        let Some(key) = lock(&self.ready).pop_front() else { return Turn::AllWait };
        let mut tasks = lock(&self.tasks);
        let Some(task) = tasks.slab.find(key) else { return Turn::Polled };
        if tasks.suspended.contains(&task.host) {
            tasks.parked.push(key);
            return Turn::Polled;
        }
        let Some(task) = tasks.slab.find_mut(key) else { return Turn::Polled };
        if task.polled_at != now {
            task.busy = if task.polls >= POLL_LIMIT { task.busy + 1 } else { 0 };
            task.polled_at = now;
            task.polls = 0;
        }
        let (host, name, busy) = (task.host, task.name, task.busy);
        if task.polls >= POLL_LIMIT {
            drop(tasks);
            assert!(
                busy < SPIN_LIMIT,
                "livelock: task {name:?} of host {:?} wakes itself again and again at {now}",
                host_name(host)
            );
            lock(&self.ready).push_back(key);
            return Turn::Busy;
        }
        task.polls += 1;
        task.flag.queued.store(false, Ordering::Relaxed);
        let Some(mut future) = task.future.take() else { return Turn::Polled };
        let waker = task.waker.clone();
        tasks.current = Some((host, name));
        drop(tasks);

        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));

        let mut tasks = lock(&self.tasks);
        tasks.current = None;
        let leftover = match (polled, tasks.slab.find_mut(key)) {
            (Poll::Pending, Some(task)) => {
                task.future = Some(future);
                None
            }
            (Poll::Pending, None) => Some(future),
            (Poll::Ready(()), _) => {
                tasks.slab.remove(key);
                Some(future)
            }
        };
        drop(tasks);
        drop(leftover);
        Turn::Polled
    }

    /// The task that is being polled.
    pub(crate) fn current(&self) -> Option<(HostId, &'static str)> {
        lock(&self.tasks).current
    }

    /// Takes away the tasks of `host`, for the caller to drop; all hosts' if none is given.
    #[must_use = "dropping the tasks closes their sockets, which must not happen under a lock"]
    pub(crate) fn take(&self, host: Option<HostId>) -> Vec<BoxedTask> {
        let mut tasks = lock(&self.tasks);
        let mine = |task: &Task| host.is_none_or(|host| task.host == host);
        let keys: Vec<Key> = tasks.slab.iter().filter(|(_, task)| mine(task)).map(|(key, _)| key).collect();
        keys.into_iter().filter_map(|key| tasks.slab.remove(key)?.future).collect()
    }

    /// Stops polling the tasks of `host`; those that are woken meanwhile wait for [`Self::resume`].
    pub(crate) fn suspend(&self, host: HostId) {
        let mut tasks = lock(&self.tasks);
        if !tasks.suspended.contains(&host) {
            tasks.suspended.push(host);
        }
    }

    pub(crate) fn resume(&self, host: HostId) {
        let mut tasks = lock(&self.tasks);
        tasks.suspended.retain(|suspended| *suspended != host);
        lock(&self.ready).extend(std::mem::take(&mut tasks.parked));
    }

    /// The names of the tasks of `host`, in the order of their slots.
    pub(crate) fn names(&self, host: HostId) -> Vec<&'static str> {
        let tasks = lock(&self.tasks);
        tasks.slab.iter().filter(|(_, task)| task.host == host).map(|(_, task)| task.name).collect()
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("ready", &lock(&self.ready).len()).finish_non_exhaustive()
    }
}

/// What came of looking for a task to poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Polled,
    AllWait,
    /// The next task has been polled so often at this instant that time has to go on.
    Busy,
}

#[derive(Default)]
struct Tasks {
    slab: Slab<Task>,
    current: Option<(HostId, &'static str)>,
    suspended: Vec<HostId>,
    /// Tasks of suspended hosts that were woken.
    parked: Vec<Key>,
}

struct Task {
    host: HostId,
    name: &'static str,
    /// None while it is being polled.
    future: Option<BoxedTask>,
    waker: Waker,
    flag: Arc<TaskWaker>,
    /// When it was last polled, and how often at that instant.
    polled_at: Time,
    polls: u32,
    /// At how many instants in a row it was polled as often as is allowed.
    busy: u32,
}

struct TaskWaker {
    key: Key,
    queued: AtomicBool,
    ready: Arc<Mutex<VecDeque<Key>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push_back(self.key);
        }
    }
}

/// How often a task is polled at one instant before it counts as busy, and time goes on though it is ready.
/// What bounds its loops and wakes itself needs some hundreds to empty a full socket.
const POLL_LIMIT: u32 = 1_000;

/// For how many instants in a row a task may be busy. Nothing honest needs a fifth of a second's worth.
const SPIN_LIMIT: u32 = 200;
