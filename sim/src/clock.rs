//! Virtual time. It is a number of nanoseconds since the world began; to the code under test it looks like
//! an [`Instant`], made by adding that number to one real instant that was read when the world was made.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A point in virtual time, counted from the beginning of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The beginning of the world.
    pub const ZERO: Self = Self(0);

    /// Nanoseconds since the beginning.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The time since the beginning.
    pub const fn elapsed(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    /// Stops at the end of time, 584 years after the beginning.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Time {
    type Output = Duration;
    /// Zero where `earlier` is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06} s", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// The clock of a world, which only the world's run loop advances.
#[derive(Debug)]
pub(crate) struct Clock {
    base: Instant,
    now: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now() + HEADROOM, now: AtomicU64::new(0) }
    }

    pub(crate) fn now(&self) -> Time {
        Time(self.now.load(Ordering::Relaxed))
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + self.now().elapsed()
    }

    /// The virtual time of an instant; one before the beginning of the world counts as the beginning.
    pub(crate) fn time_of(&self, instant: Instant) -> Time {
        Time::ZERO + instant.saturating_duration_since(self.base)
    }

    pub(crate) fn advance(&self, to: Time) {
        debug_assert!(to >= self.now(), "the clock does not go back");
        self.now.store(to.0, Ordering::Relaxed);
    }
}

/// A real machine's monotonic clock begins near zero at boot, so that how far back an `Instant` can be
/// subtracted from depends on the machine. A day of headroom makes that the same everywhere.
const HEADROOM: Duration = Duration::from_secs(86_400);
