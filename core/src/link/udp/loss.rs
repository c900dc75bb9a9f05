//! Whether a path loses so much that it had better be left, which is what it looks like when a carrier polices
//! UDP: whatever is sent beyond a trickle is gone, second after second, while small packets still pass.
//!
//! A path that is merely full is another matter. It loses a burst when the sender finds out how much it bears,
//! and carries on; and what is lost at random is lost to TCP as well. So a second counts as bad only if a third of
//! what was sent got lost *and* hardly anything passed, and only two of them in a row say something.

use std::time::{Duration, Instant};

/// What was sent and lost of late.
#[derive(Debug)]
pub(super) struct Loss {
    since: Instant,
    /// Packets sent and lost until then.
    before: (u64, u64),
    /// Seconds in a row in which hardly anything passed, and what was sent and lost in them.
    bad: u32,
    during: (u64, u64),
}

impl Loss {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, before: (0, 0), bad: 0, during: (0, 0) }
    }

    /// Whether [`Self::observe`] would learn something.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.since + WINDOW
    }

    /// So many packets have been sent and lost in all.
    pub(super) fn observe(&mut self, now: Instant, sent: u64, lost: u64) {
        if !self.is_due(now) {
            return;
        }
        let passed = now.saturating_duration_since(self.since);
        let (new_sent, new_lost) = (sent.saturating_sub(self.before.0), lost.saturating_sub(self.before.1));
        (self.since, self.before) = (now, (sent, lost));
        if new_sent == 0 && new_lost == 0 {
            // Nothing was tried.
            return;
        }
        let through = new_sent.saturating_sub(new_lost);
        let trickle = through.saturating_mul(1000) <= TRICKLE.saturating_mul(millis(passed));
        if trickle && new_lost >= LEAST && new_lost.saturating_mul(3) >= new_sent {
            self.bad += 1;
            self.during = (self.during.0 + new_sent, self.during.1 + new_lost);
        } else {
            (self.bad, self.during) = (0, (0, 0));
        }
    }

    /// The path is another one: what was learnt is of no use.
    pub(super) fn forget(&mut self) {
        (self.bad, self.during) = (0, (0, 0));
    }

    /// How many of a hundred packets get lost, if that is reason to leave the path.
    pub(super) fn verdict(&self) -> Option<u8> {
        let (sent, lost) = self.during;
        if self.bad < ENOUGH || lost < EVIDENCE {
            return None;
        }
        // Some that got lost had been sent before.
        Some(u8::try_from(lost.saturating_mul(100) / sent.max(lost).max(1)).unwrap_or(100))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Longer than most round trips, so that what is sent in one is mostly judged in it too.
const WINDOW: Duration = Duration::from_secs(1);
/// Packets a second that are hardly anything: with full ones a third of a megabit.
const TRICKLE: u64 = 32;
/// One lost packet says nothing.
const LEAST: u64 = 2;
/// A burst that is lost at the border of two windows makes both look bad, and what follows it does not.
const ENOUGH: u32 = 2;
/// Fewer may be chance, or what a short burst costs where the carrier's bucket is small: a few full windows at a
/// connection's beginning.
const EVIDENCE: u64 = 24;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
mod tests {
    use super::*;

    /// What comes of seconds in which so much is sent and lost.
    fn verdict(seconds: &[(u64, u64)]) -> Option<u8> {
        let (mut now, mut all) = (Instant::now(), (0, 0));
        let mut loss = Loss::new(now);
        for (sent, lost) in seconds {
            now += WINDOW;
            all = (all.0 + sent, all.1 + lost);
            loss.observe(now, all.0, all.1);
        }
        loss.verdict()
    }

    #[test]
    fn a_path_that_lets_a_trickle_pass_is_left_after_two_seconds() {
        assert_eq!(verdict(&[(200, 0), (40, 30)]), None);
        assert_eq!(verdict(&[(200, 0), (40, 30), (20, 15)]), Some(75));
        assert_eq!(verdict(&[(20, 12), (20, 11)]), None);
        assert_eq!(verdict(&[(20, 12), (20, 11), (4, 2)]), Some(56));
        // Much is lost of what had been sent before.
        assert_eq!(verdict(&[(200, 0), (20, 150), (4, 4)]), Some(100));
    }

    #[test]
    fn a_burst_that_is_lost_is_no_reason() {
        assert_eq!(verdict(&[(400, 20), (50, 180), (100, 5)]), None);
        assert_eq!(verdict(&[(400, 200), (300, 100), (200, 70)]), None);
    }

    #[test]
    fn an_idle_path_and_a_few_lost_packets_say_nothing() {
        assert_eq!(verdict(&[(0, 0); 20]), None);
        assert_eq!(verdict(&[(3, 2), (3, 2), (3, 2)]), None);
        assert_eq!(verdict(&[(40, 30), (0, 0), (40, 2), (20, 15)]), None);
    }
}
