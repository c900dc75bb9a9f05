//! When things are due: a set of deadlines, each with a key, that a machine looks through in order of time.

use std::collections::BTreeSet;
use std::time::Instant;

/// Deadlines in order. A key may be in it several times, with different instants.
#[derive(Debug)]
pub(crate) struct Due<K>(BTreeSet<(Instant, K)>);

impl<K: Ord> Due<K> {
    pub(crate) fn insert(&mut self, at: Instant, key: K) {
        self.0.insert((at, key));
    }

    pub(crate) fn remove(&mut self, at: Instant, key: K) {
        self.0.remove(&(at, key));
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest entry, if its time has come.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, key)| key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<K> Default for Due<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

/// The earlier of two deadlines that know why they are.
pub(crate) fn earlier(
    a: Option<(Instant, &'static str)>,
    b: Option<(Instant, &'static str)>,
) -> Option<(Instant, &'static str)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}
