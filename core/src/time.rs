//! Clocks made of the one that is handed in, and the pace of reconnecting.
//!
//! The core never reads a clock. It gets the monotonic `now` with every call and the wall clock once, when
//! it is made; from then on wall-clock time is that plus what the monotonic clock has advanced, so that a
//! jump of the system's wall clock changes nothing.

use std::time::{Duration, Instant};

use crate::rng::Rng;

/// Wall-clock time, from a start that is known in both clocks.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    start: Instant,
    unix: Duration,
}

impl WallClock {
    /// `unix` is the wall clock, since 1970, at `now`.
    pub fn new(now: Instant, unix: Duration) -> Self {
        Self { start: now, unix }
    }

    /// The wall clock, since 1970. A `now` before the start gives the start.
    pub fn unix(&self, now: Instant) -> Duration {
        self.unix.saturating_add(now.saturating_duration_since(self.start))
    }
}

/// The server's wall clock as this node knows it: what all validity is judged by.
///
/// Each answer that carries the server's time is a sample. It was true at some moment between request and
/// answer, the middle is the best guess, and half the round trip bounds the error. The best sample is kept
/// until its error, which grows as clocks drift apart, exceeds that of a new one, or a new one contradicts
/// it (the server's clock was set).
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerClock {
    best: Option<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    unix: Duration,
    error: Duration,
}

impl ServerClock {
    /// Takes note that a request sent at `sent` was answered at `received` with `server_unix`.
    pub fn observe(&mut self, sent: Instant, received: Instant, server_unix: Duration) {
        let error = received.saturating_duration_since(sent) / 2;
        // `received` counted back by the half: no sum that could overflow.
        let at = received.checked_sub(error).unwrap_or(received);
        let new = Sample { at, unix: server_unix, error };
        if self.best.is_none_or(|best| best.yields_to(&new)) {
            self.best = Some(new);
        }
    }

    /// The server's wall clock, since 1970; none before the first answer.
    pub fn unix(&self, now: Instant) -> Option<Duration> {
        self.best.map(|best| best.unix(now))
    }
}

impl Sample {
    fn unix(&self, now: Instant) -> Duration {
        match now.checked_duration_since(self.at) {
            Some(since) => self.unix.saturating_add(since),
            None => self.unix.saturating_sub(self.at.saturating_duration_since(now)),
        }
    }

    fn yields_to(&self, new: &Self) -> bool {
        let age = new.at.saturating_duration_since(self.at);
        let error = self.error.saturating_add(age / DRIFT);
        let apart = self.unix(new.at).abs_diff(new.unix);
        new.error <= error || apart > error.saturating_add(new.error)
    }
}

/// The pace of reconnecting to the server: the first delay around 5 s, then up to 10 s, and from ten
/// minutes on up to 25 s. Every delay is drawn from a range, so that the nodes of a server that restarts do
/// not come back in step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    outage: Option<Instant>,
}

impl Backoff {
    /// No outage.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait before the next try. The first call after [`Self::reset`] begins the outage.
    pub fn next(&mut self, now: Instant, rng: &mut Rng) -> Duration {
        let (low, high) = match self.outage {
            None => FIRST,
            Some(since) if now.saturating_duration_since(since) < LONG_OUTAGE => EARLY,
            Some(_) => LATE,
        };
        self.outage.get_or_insert(now);
        rng.between(low, high)
    }

    /// The outage is over.
    pub fn reset(&mut self) {
        self.outage = None;
    }
}

/// Two clocks may drift apart by one part in this: 100 ppm, what cheap quartz does at worst.
const DRIFT: u32 = 10_000;
/// The first delay: around the 5 s of the original, whose users know that pace.
const FIRST: (Duration, Duration) = (Duration::from_millis(2_500), Duration::from_millis(7_500));
/// Later delays: at most 10 s, so that a server's return is noticed within 15 s.
const EARLY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));
/// Delays in a long outage: at most 25 s; ten thousand nodes are then 600 tries a second.
const LATE: (Duration, Duration) = (Duration::from_millis(12_500), Duration::from_secs(25));
/// From here on an outage is long: a restart or an update of the server takes less.
const LONG_OUTAGE: Duration = Duration::from_secs(600);

#[cfg(test)]
// The only way to a first Instant; no assertion depends on which one it is.
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn wall_clock_follows_the_monotonic_one() {
        let start = Instant::now() + secs(100);
        let clock = WallClock::new(start, secs(1_000));
        assert_eq!(clock.unix(start + secs(5)), secs(1_005));
        assert_eq!(clock.unix(start - secs(5)), secs(1_000));
        assert_eq!(WallClock::new(start, Duration::MAX).unix(start + secs(1)), Duration::MAX);
    }

    #[test]
    fn server_clock_knows_nothing_before_the_first_answer() {
        assert_eq!(ServerClock::default().unix(Instant::now()), None);
    }

    #[test]
    fn server_clock_takes_the_middle_of_the_round_trip() {
        let start = Instant::now() + secs(100);
        let mut clock = ServerClock::default();
        clock.observe(start, start + secs(2), secs(1_000));
        assert_eq!(clock.unix(start + secs(1)), Some(secs(1_000)));
        assert_eq!(clock.unix(start + secs(61)), Some(secs(1_060)));
        assert_eq!(clock.unix(start), Some(secs(999)));
    }

    #[test]
    fn a_worse_sample_does_not_replace_a_better_one() {
        let start = Instant::now();
        let mut clock = ServerClock::default();
        clock.observe(start, start + Duration::from_millis(20), secs(1_000));
        let before = clock.unix(start + secs(60));
        // Two seconds under way, nearly all of it on the way back: the middle is off by almost one.
        clock.observe(start + secs(30), start + secs(32), secs(1_030));
        assert_eq!(clock.unix(start + secs(60)), before);
    }

    #[test]
    fn an_old_sample_gives_way() {
        let start = Instant::now();
        let mut clock = ServerClock::default();
        clock.observe(start, start + Duration::from_millis(20), secs(1_000));
        let later = start + secs(86_400);
        clock.observe(later, later + Duration::from_millis(200), secs(87_403));
        assert_eq!(clock.unix(later + Duration::from_millis(100)), Some(secs(87_403)));
    }

    #[test]
    fn a_server_clock_that_was_set_is_followed() {
        let start = Instant::now();
        let mut clock = ServerClock::default();
        clock.observe(start, start + Duration::from_millis(20), secs(1_000));
        clock.observe(start + secs(30), start + secs(32), secs(5_000));
        assert_eq!(clock.unix(start + secs(31)), Some(secs(5_000)));
    }

    #[test]
    fn an_answer_before_its_request_does_no_harm() {
        let start = Instant::now() + secs(100);
        let mut clock = ServerClock::default();
        clock.observe(start, start - secs(5), secs(1_000));
        assert_eq!(clock.unix(start - secs(5)), Some(secs(1_000)));
    }

    #[test]
    fn reconnecting_keeps_its_pace_through_an_outage() {
        let start = Instant::now();
        let mut rng = Rng::new([1; 32]);
        for _ in 0..200 {
            let mut backoff = Backoff::new();
            let mut now = start;
            let first = backoff.next(now, &mut rng);
            assert!((FIRST.0..=FIRST.1).contains(&first));
            now += first;
            while now - start < LONG_OUTAGE {
                let delay = backoff.next(now, &mut rng);
                assert!((secs(5)..=secs(10)).contains(&delay), "{delay:?}");
                now += delay;
            }
            let delay = backoff.next(now, &mut rng);
            assert!((Duration::from_millis(12_500)..=secs(25)).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn a_reset_starts_over() {
        let now = Instant::now();
        let mut rng = Rng::new([1; 32]);
        let mut backoff = Backoff::new();
        backoff.next(now, &mut rng);
        backoff.reset();
        let delay = backoff.next(now + secs(7_200), &mut rng);
        assert!(delay < FIRST.1);
    }
}
