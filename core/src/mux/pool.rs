//! Two things that streams share: the memory beyond their initial credits, and the patience of the peer.

use std::time::{Duration, Instant};

/// A number of bytes that the streams of a session share, beyond the initial credit that each has.
///
/// What has been taken cannot be called back, so the first streams must not take all: one step of growth
/// may take at most a part of what is left, half of it in a session of one or two streams, an eighth in one
/// of many. The first long transfer gets its full window, the tenth still four times what it began with.
#[derive(Debug)]
pub(super) struct Pool {
    size: usize,
    used: usize,
}

impl Pool {
    pub(super) fn new(size: usize) -> Self {
        Self { size, used: 0 }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Whether one of `streams` streams may take `bytes` more.
    pub(super) fn has(&self, bytes: usize, streams: usize) -> bool {
        let left = self.size.saturating_sub(self.used);
        bytes <= left / streams.clamp(SMALLEST_SHARE, LARGEST_SHARE)
    }

    /// Changes what one stream has from `old` to `new` bytes, of which `initial` are not the pool's.
    pub(super) fn account(&mut self, old: usize, new: usize, initial: usize) {
        self.used += new.saturating_sub(initial);
        self.used -= old.saturating_sub(initial).min(self.used);
    }
}

/// A token bucket for streams that are reset before they were answered: each may have cost the other side
/// a connection to its target for nothing.
#[derive(Debug)]
pub(super) struct Bucket {
    burst: u32,
    tokens: u32,
    filled: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(burst: u32) -> Self {
        Self { burst, tokens: burst, filled: None }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = *self.filled.get_or_insert(now);
        let new = now.saturating_duration_since(since).as_nanos() / TOKEN_EVERY.as_nanos();
        let new = u32::try_from(new).unwrap_or(u32::MAX).min(self.burst);
        if new > 0 {
            self.tokens = self.tokens.saturating_add(new).min(self.burst);
            self.filled = Some(now);
        }
        let had = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        had
    }
}

/// What one or two streams may take of the rest at once: half of it lets one stream reach its largest
/// window with the default sizes.
const SMALLEST_SHARE: usize = 2;
/// What each of many streams may take of the rest at once: with an eighth eight that grow together come to
/// 512 KiB each, and half of the pool is left.
const LARGEST_SHARE: usize = 8;
/// 20 a second: 200 in ten seconds is what HTTP/2 servers came to after CVE-2023-44487.
const TOKEN_EVERY: Duration = Duration::from_millis(50);

/// How many streams this side resets unanswered before it waits for answers instead: ten seconds' worth.
pub(super) const OWN_CANCELS: u32 = 200;
/// How many the peer may. It sends as [`OWN_CANCELS`] says, but a link that was stalled for its longest
/// time, 30 s and a bit, delivers all of that at once.
pub(super) const PEER_CANCELS: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stream_reaches_half_of_the_pool_and_later_ones_still_get_some() {
        let initial = 16 * 1024;
        let grow = |pool: &mut Pool, streams| {
            let mut window = initial;
            while window < 4 << 20 && pool.has(window, streams) {
                pool.account(window, window * 2, initial);
                window *= 2;
            }
            window
        };
        let mut pool = Pool::new(8 << 20);
        assert_eq!(grow(&mut pool, 1), 4 << 20);
        let later: Vec<usize> = (2..=20).map(|streams| grow(&mut pool, streams)).collect();
        assert!(later[..9].iter().all(|&window| window >= 4 * initial), "{later:?}");
        assert!(later[..18].iter().all(|&window| window >= 2 * initial), "{later:?}");
        assert!(pool.used() <= 8 << 20);
    }

    #[test]
    fn a_bucket_refills() {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let start = Instant::now();
        let mut bucket = Bucket::new(3);
        assert_eq!([(); 5].map(|()| bucket.take(start)), [true, true, true, false, false]);
        assert!(!bucket.take(start + TOKEN_EVERY / 2));
        assert!(bucket.take(start + TOKEN_EVERY));
        assert!(!bucket.take(start + TOKEN_EVERY));
        let later = start + Duration::from_secs(3600);
        assert_eq!([(); 4].map(|()| bucket.take(later)), [true, true, true, false]);
    }
}
