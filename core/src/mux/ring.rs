//! A ring of bytes that grows by powers of two and gives its memory back when it is not used.
//!
//! It decides nothing: how far it may grow is the caller's business, and so is to grow it before more is
//! put in than fits.

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    buffer: Box<[u8]>,
    head: usize,
    len: usize,
    /// The most bytes that it held since the last [`Self::tidy`].
    peak: usize,
}

impl Ring {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What its memory can hold now.
    pub(super) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Makes room for `capacity` bytes in all; it becomes a power of two. Never makes the ring smaller.
    pub(super) fn grow(&mut self, capacity: usize) {
        if capacity > self.capacity() {
            self.reallocate(capacity.next_power_of_two().max(SMALLEST));
        }
    }

    /// The free room, to be filled from the front and then [`Self::commit`]ted.
    pub(super) fn room(&mut self) -> [&mut [u8]; 2] {
        let tail = self.head + self.len;
        let capacity = self.capacity();
        if tail < capacity {
            let (before, after) = self.buffer.split_at_mut(tail);
            [after, &mut before[..self.head]]
        } else {
            [&mut self.buffer[tail - capacity..self.head], &mut []]
        }
    }

    /// Takes in the first `n` bytes of the room.
    pub(super) fn commit(&mut self, n: usize) {
        self.len += n.min(self.capacity() - self.len);
        self.peak = self.peak.max(self.len);
    }

    /// Copies `bytes` in; the caller has grown the ring so that they fit.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let [first, second] = self.room();
        let (head, rest) = bytes.split_at(first.len().min(bytes.len()));
        first[..head.len()].copy_from_slice(head);
        second[..rest.len()].copy_from_slice(rest);
        self.commit(bytes.len());
    }

    /// What it holds.
    pub(super) fn filled(&self) -> [&[u8]; 2] {
        self.range(0, self.len)
    }

    /// `n` bytes of what it holds, from the one at `from` on.
    pub(super) fn range(&self, from: usize, n: usize) -> [&[u8]; 2] {
        debug_assert!(from + n <= self.len);
        let start = self.head + from;
        let capacity = self.capacity();
        if start >= capacity {
            return [&self.buffer[start - capacity..start - capacity + n], &[]];
        }
        let first = n.min(capacity - start);
        [&self.buffer[start..start + first], &self.buffer[..n - first]]
    }

    /// Drops the first `n` bytes.
    pub(super) fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        self.len -= n.min(self.len);
        self.head += n;
        if self.head >= self.capacity() {
            self.head -= self.capacity();
        }
        if self.len == 0 {
            // What is used next is what lies in the cache already.
            self.head = 0;
        }
    }

    /// Drops everything, memory included.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }

    /// To be called now and then: gives memory back that was not used since the last time.
    pub(super) fn tidy(&mut self) {
        if self.peak == 0 {
            self.release();
        } else if self.peak <= self.capacity() / SPARSE && self.capacity() > SMALLEST {
            self.reallocate(self.peak.next_power_of_two().max(SMALLEST));
        }
        self.peak = self.len;
    }

    fn reallocate(&mut self, capacity: usize) {
        let mut buffer = vec![0; capacity].into_boxed_slice();
        let [first, second] = self.filled();
        buffer[..first.len()].copy_from_slice(first);
        buffer[first.len()..self.len].copy_from_slice(second);
        self.buffer = buffer;
        self.head = 0;
    }
}

/// The smallest memory of a ring that is used: most requests and answers fit one page.
pub(super) const SMALLEST: usize = 4096;
/// A ring is too large if this many times its peak would fit: with less, a ring that is used evenly would
/// be allocated again and again.
const SPARSE: usize = 4;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::{Ring, SMALLEST};

    fn bytes(ring: &Ring) -> Vec<u8> {
        ring.filled().concat()
    }

    #[test]
    fn memory_comes_with_use_and_goes_without() {
        let mut ring = Ring::default();
        assert_eq!(ring.capacity(), 0);
        ring.grow(100_000);
        assert_eq!(ring.capacity(), 131_072);
        ring.push(&[7; 20_000]);
        ring.tidy();
        assert_eq!(ring.capacity(), 32_768);
        ring.advance(20_000);
        ring.tidy();
        assert_eq!(ring.capacity(), 32_768, "it was used since the last time");
        ring.tidy();
        assert_eq!(ring.capacity(), 0);
        ring.grow(1);
        assert_eq!(ring.capacity(), SMALLEST);
    }

    proptest! {
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec((0..4u8, 0..9000usize), 0..60)) {
            let mut ring = Ring::default();
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (step, n) in steps {
                match step {
                    0 => {
                        ring.grow(ring.len() + n);
                        let new: Vec<u8> = (0..n).map(|_| { next = next.wrapping_add(1); next }).collect();
                        ring.push(&new);
                        model.extend(new);
                    }
                    1 => {
                        let [first, second] = ring.room();
                        let mut taken = 0;
                        for byte in first.iter_mut().chain(second).take(n) {
                            next = next.wrapping_add(1);
                            *byte = next;
                            model.push_back(next);
                            taken += 1;
                        }
                        ring.commit(taken);
                    }
                    2 => {
                        let n = n.min(ring.len());
                        ring.advance(n);
                        model.drain(..n);
                    }
                    _ => ring.tidy(),
                }
                prop_assert_eq!(bytes(&ring), model.iter().copied().collect::<Vec<u8>>());
                prop_assert!(ring.capacity() == 0 || ring.capacity().is_power_of_two());
                let from = n.min(ring.len());
                let part = ring.range(from, ring.len() - from).concat();
                prop_assert_eq!(part, model.iter().skip(from).copied().collect::<Vec<u8>>());
            }
        }
    }
}
