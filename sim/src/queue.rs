//! What is going to happen, in order of time; what is to happen at one instant, in the order in which it
//! was scheduled. Entries are never removed: whoever no longer wants one ignores it when it comes, so that
//! setting a timer anew costs at most one push.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Time;
use crate::slab::Key;

/// When something is due: the time, and the order among what is due at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) at: Time,
    pub(crate) order: u64,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// A task's timer.
    Timer(Key),
    /// A packet reaches the end of a link.
    Packet(Key),
    /// A TCP connection's retransmission, persist or end-of-wait timer.
    Tcp(Key),
    /// A UDP sender that was held back may go on.
    Writable(Key),
    /// A fault that was scheduled.
    Fault(Key),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(Due, What)>>,
    scheduled: u64,
}

impl Queue {
    /// Takes the next place among what will be due at `at`.
    pub(crate) fn place(&mut self, at: Time) -> Due {
        self.scheduled += 1;
        Due { at, order: self.scheduled }
    }

    pub(crate) fn push(&mut self, at: Time, what: What) -> Due {
        let due = self.place(at);
        self.push_at(due, what);
        due
    }

    /// Schedules at a place taken before: a timer that was put off keeps its place.
    pub(crate) fn push_at(&mut self, due: Due, what: What) {
        self.heap.push(Reverse((due, what)));
    }

    pub(crate) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((due, _))| due.at)
    }

    pub(crate) fn pop_until(&mut self, now: Time) -> Option<(Due, What)> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
