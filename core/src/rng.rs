//! The only source of randomness in the core.
//!
//! A machine gets a 32-byte seed from its caller (fresh secret bytes in production, a scenario's number in
//! the simulator) and draws everything from it: keys, nonces, jitter. So a run can be repeated exactly.
//! ChaCha20 makes what is drawn unpredictable to whoever sees only a part of it.

use std::fmt;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// A cryptographic generator, deterministic in its seed.
pub struct Rng(ChaCha20Rng);

impl Rng {
    /// A generator from 32 secret bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// A generator of its own for a part of the machine, so that how much one part draws does not change
    /// what another one gets. `label` names the part.
    pub fn fork(&mut self, label: &str) -> Self {
        let drawn: [u8; 32] = self.bytes();
        let seed = Sha256::new()
            .chain_update(b"inp2p-rng-fork-v1")
            .chain_update(drawn)
            .chain_update(label.as_bytes())
            .finalize();
        Self::new(seed.into())
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A number below `end`, each equally likely; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 {
            return 0;
        }
        // The numbers above the largest multiple of `end` would favour the small remainders.
        let fair = u64::MAX - u64::MAX % end;
        loop {
            let drawn = self.0.next_u64();
            if drawn < fair {
                return drawn % end;
            }
        }
    }

    /// A time from `low` up to, not including, `high`, in steps of a nanosecond; `low` if `high` is not
    /// above it.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_nanos();
        let nanos = self.below(u64::try_from(span).unwrap_or(u64::MAX));
        low.saturating_add(Duration::from_nanos(nanos))
    }
}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill_bytes(dest);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.try_fill_bytes(dest)
    }
}

impl CryptoRng for Rng {}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state tells what will be drawn.
        f.write_str("Rng(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut rng = Rng::new([seed; 32]);
            (rng.bytes::<16>(), rng.below(1000), rng.fork("part").bytes::<16>())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn the_stream_is_chacha20() {
        // RFC 8439 appendix A.1, test vector 1: key, nonce and counter all zero.
        assert_eq!(Rng::new([0; 32]).bytes(), [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    }

    #[test]
    fn forks_differ_by_label_and_by_order() {
        let mut first = Rng::new([7; 32]);
        let mut second = Rng::new([7; 32]);
        let (a, b) = (first.fork("a").bytes::<32>(), second.fork("b").bytes::<32>());
        assert_ne!(a, b);
        assert_ne!(a, first.fork("a").bytes::<32>());
    }

    #[test]
    fn numbers_stay_below_their_end_and_reach_all_of_it() {
        let mut rng = Rng::new([3; 32]);
        let mut seen = [0_u32; 5];
        for _ in 0..1000 {
            seen[usize::try_from(rng.below(5)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| (100..300).contains(count)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        assert!(rng.below(u64::MAX) < u64::MAX);
    }

    #[test]
    fn times_lie_between_their_bounds() {
        let mut rng = Rng::new([3; 32]);
        let (low, high) = (Duration::from_secs(2), Duration::from_secs(3));
        for _ in 0..1000 {
            let drawn = rng.between(low, high);
            assert!(low <= drawn && drawn < high);
        }
        assert_eq!(rng.between(high, low), high);
        assert_eq!(rng.between(low, low), low);
        assert!(rng.between(Duration::ZERO, Duration::MAX) < Duration::MAX);
    }

    #[test]
    fn debug_shows_nothing_of_the_state() {
        assert_eq!(format!("{:?}", Rng::new([1; 32])), "Rng(***)");
    }
}
