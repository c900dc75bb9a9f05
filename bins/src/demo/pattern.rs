//! Bytes that both ends can make on their own, and in which nothing repeats: a lost, doubled or misplaced
//! block changes the hash.

use sha2::{Digest, Sha256};

/// A stream of `left` more bytes.
pub(super) struct Pattern {
    block: Vec<u8>,
    number: u64,
    left: u64,
}

impl Pattern {
    /// The first `length` bytes of the stream of `seed`.
    pub(super) fn new(seed: u64, length: u64) -> Self {
        // xorshift64 (Marsaglia 2003): cheap, and far from anything a compressor would find. 0 would stay 0.
        let mut state = seed | 1;
        let words = (0..BLOCK / 8).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        });
        Self { block: words.collect(), number: 0, left: length }
    }

    /// The next block; none at the end.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        if self.left == 0 {
            return None;
        }
        // The number makes each block another one, at no cost.
        let number = self.number.to_be_bytes();
        self.block.iter_mut().zip(number).for_each(|(byte, of_number)| *byte = of_number);
        self.number += 1;
        let length = self.left.min(BLOCK as u64);
        self.left -= length;
        self.block.get(..length as usize)
    }

    /// The hash of what is left.
    pub(super) fn hash(mut self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        while let Some(block) = self.next() {
            hasher.update(block);
        }
        hasher.finalize().into()
    }
}

/// One write: as much as a mux frame carries, so that the demo's own system calls are not what is measured.
const BLOCK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::{BLOCK, Pattern};

    #[test]
    fn a_pattern_has_its_length_and_no_two_equal_blocks() {
        let mut pattern = Pattern::new(7, 2 * BLOCK as u64 + 5);
        let mut blocks = Vec::new();
        while let Some(block) = pattern.next() {
            blocks.push(block.to_vec());
        }
        assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [BLOCK, BLOCK, 5]);
        assert_ne!(blocks[0], blocks[1]);
    }

    #[test]
    fn both_ends_make_the_same_bytes() {
        assert_eq!(Pattern::new(7, 100_000).hash(), Pattern::new(7, 100_000).hash());
        assert_ne!(Pattern::new(7, 100_000).hash(), Pattern::new(9, 100_000).hash());
    }
}
