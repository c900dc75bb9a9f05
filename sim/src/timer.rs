//! Timers. A timer that is set anew to a later time leaves its entry in the queue where it is; when that
//! comes, it goes in again at the later one, in the place that it took when it was set.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use inp2p_driver::net::TimerIo;

use crate::executor::lock;
use crate::host::HostId;
use crate::queue::{Due, What};
use crate::slab::Key;
use crate::state::State;
use crate::tcp::pending;
use crate::world::Shared;

pub(crate) struct TimerSlot {
    pub(crate) host: HostId,
    task: &'static str,
    /// Where in the program it was set last.
    set: &'static Location<'static>,
    waker: Option<Waker>,
    /// What it is set to.
    due: Option<Due>,
    /// Its earliest entry in the queue.
    queued: Option<Due>,
}

impl State {
    /// An entry has come: wakes, or goes in again. Says whose timer went off, and where it was set.
    pub(crate) fn timer_due(
        &mut self,
        key: Key,
        entry: Due,
    ) -> Option<(HostId, &'static str, &'static Location<'static>)> {
        let slot = self.timers.find_mut(key)?;
        if slot.queued != Some(entry) {
            return None;
        }
        slot.queued = None;
        let due = slot.due?;
        if due > entry {
            slot.queued = Some(due);
            self.queue.push_at(due, What::Timer(key));
            return None;
        }
        slot.due = None;
        slot.waker.take()?.wake();
        Some((slot.host, slot.task, slot.set))
    }
}

/// A timer of a simulated host.
pub struct SimTimer {
    shared: Arc<Shared>,
    host: HostId,
    /// None until it is first set.
    key: Option<Key>,
}

impl SimTimer {
    pub(crate) fn new(shared: Arc<Shared>, host: HostId) -> Self {
        Self { shared, host, key: None }
    }
}

impl TimerIo for SimTimer {
    #[track_caller]
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let set = Location::caller();
        let at = at.map(|at| self.shared.clock.time_of(at));
        let Some(at) = at.filter(|at| *at > self.shared.clock.now()) else {
            self.unset();
            return if at.is_some() { Poll::Ready(()) } else { Poll::Pending };
        };
        let task = self.shared.executor.current().map_or("", |(_, name)| name);
        let mut state = lock(&self.shared.state);
        let state = &mut *state;
        let host = self.host;
        let key = *self.key.get_or_insert_with(|| {
            state.timers.insert(TimerSlot { host, task, set, waker: None, due: None, queued: None })
        });
        let Some(slot) = state.timers.find_mut(key) else { return Poll::Pending };
        (slot.task, slot.set) = (task, set);
        if slot.due.is_none_or(|due| due.at != at) {
            let due = state.queue.place(at);
            slot.due = Some(due);
            if slot.queued.is_none_or(|queued| queued > due) {
                slot.queued = Some(due);
                state.queue.push_at(due, What::Timer(key));
            }
        }
        pending(&mut slot.waker, cx)
    }
}

impl SimTimer {
    fn unset(&mut self) {
        if let Some(key) = self.key
            && let Some(slot) = lock(&self.shared.state).timers.find_mut(key)
        {
            slot.due = None;
            slot.waker = None;
        }
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            lock(&self.shared.state).timers.remove(key);
        }
    }
}

impl fmt::Debug for SimTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimTimer").field("host", &self.host).finish_non_exhaustive()
    }
}
