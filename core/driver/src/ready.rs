//! Which sockets of a task may be worth another try.
//!
//! One task serves many sockets, so a wake-up must say which one it is for. Every direction of
//! every socket has a bit here and a waker that sets it; the task takes set bits one by one. Waking takes no
//! lock and allocates nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

/// The bits, and the task to wake when one is set.
#[derive(Debug)]
pub(crate) struct ReadySet {
    words: Vec<AtomicU64>,
    /// One bit a word: the words that may be worth a look.
    summary: Vec<AtomicU64>,
    task: AtomicWaker,
}

impl ReadySet {
    /// A set of `bits` bits, none of them set.
    pub(crate) fn new(bits: usize) -> Arc<Self> {
        let words = bits.div_ceil(64);
        let zeros = |n| (0..n).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { words: zeros(words), summary: zeros(words.div_ceil(64)), task: AtomicWaker::new() })
    }

    /// Whom to wake from now on. Call before [`Self::take`], so that nothing falls between.
    pub(crate) fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Sets a bit without waking: the task itself means to come back to it.
    pub(crate) fn set(&self, bit: usize) {
        let word = bit / 64;
        if let (Some(bits), Some(words)) = (self.words.get(word), self.summary.get(word / 64)) {
            // The bit first: whoever sees the summary must find it.
            bits.fetch_or(1 << (bit % 64), Ordering::Release);
            words.fetch_or(1 << (word % 64), Ordering::Release);
        }
    }

    /// Clears all set bits and hands each to `each`.
    pub(crate) fn take(&self, mut each: impl FnMut(usize)) {
        for (at, summary) in self.summary.iter().enumerate() {
            if summary.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut words = summary.swap(0, Ordering::Acquire);
            while words != 0 {
                let word = at * 64 + words.trailing_zeros() as usize;
                words &= words - 1;
                let mut bits = self.words.get(word).map_or(0, |bits| bits.swap(0, Ordering::Acquire));
                while bits != 0 {
                    each(word * 64 + bits.trailing_zeros() as usize);
                    bits &= bits - 1;
                }
            }
        }
    }

    /// A waker that sets `bit` and wakes the task.
    pub(crate) fn waker(self: &Arc<Self>, bit: usize) -> Waker {
        Waker::from(Arc::new(BitWaker { set: Arc::clone(self), bit }))
    }
}

struct BitWaker {
    set: Arc<ReadySet>,
    bit: usize,
}

impl Wake for BitWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set.set(self.bit);
        self.set.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_bit_is_taken_once() {
        let set = ReadySet::new(9000);
        for bit in [0, 63, 64, 4095, 4096, 8999] {
            set.waker(bit).wake();
            set.set(bit);
        }
        let mut taken = Vec::new();
        set.take(|bit| taken.push(bit));
        assert_eq!(taken, [0, 63, 64, 4095, 4096, 8999]);
        set.take(|bit| panic!("bit {bit} twice"));
    }

    #[test]
    fn a_bit_beyond_the_end_is_ignored() {
        let set = ReadySet::new(10);
        set.set(1000);
        set.take(|bit| panic!("bit {bit}"));
    }
}
