//! The clock that goes on while the machine sleeps, and timers on it.
//!
//! `Instant::now` is `CLOCK_MONOTONIC` on Linux, which stands still in suspend: after eight hours of sleep
//! every deadline would be eight hours late, and a peer long gone would look fresh. [`Clock`] follows
//! `CLOCK_BOOTTIME` instead, expressed as an `Instant`. Runtimes' timers know the monotonic clock only, so
//! [`OsTimer`] converts, and decides by its own clock what has expired.
//!
//! What this leaves to others: a runtime's timer does not wake the machine's programs at the moment of
//! resume; one set for 10 s before a sleep rings up to 10 s after it. Who must notice a sleep soon keeps a
//! short timer running.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::net::TimerIo;

/// The clock of one [`super::Os`]: instants of different clocks must not be compared after a suspend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The monotonic clock at the start.
    start: Instant,
    /// The time since boot at the start.
    boot: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), boot: since_boot() }
    }

    pub(super) fn now(&self) -> Instant {
        if cfg!(target_os = "linux") {
            self.start + since_boot().saturating_sub(self.boot)
        } else {
            Instant::now()
        }
    }

    /// When the monotonic clock will show what this clock calls `at`, if nothing sleeps until then.
    fn to_monotonic(self, at: Instant) -> Instant {
        let monotonic = Instant::now();
        let slept = self.now().saturating_duration_since(monotonic);
        at.checked_sub(slept).unwrap_or(monotonic)
    }
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.try_into().unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    Duration::ZERO
}

/// A timer of [`super::Os`], over the runtime's own.
///
/// A deadline that only moves later, as keepalives and idle timeouts do with every packet, does not touch
/// the runtime's timer: that one rings at the older deadline, is found early and is set anew.
#[derive(Debug)]
pub struct OsTimer<T> {
    clock: Clock,
    inner: T,
    armed: Option<Armed>,
}

/// What the runtime's timer is set to.
#[derive(Debug, Clone, Copy)]
struct Armed {
    at: Instant,
    /// `at` on the monotonic clock, converted once: a second conversion would differ by nanoseconds and set
    /// the runtime's timer again.
    monotonic: Instant,
}

impl<T> OsTimer<T> {
    pub(super) fn new(clock: Clock, inner: T) -> Self {
        Self { clock, inner, armed: None }
    }
}

impl<T: TimerIo> TimerIo for OsTimer<T> {
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else { return Poll::Pending };
        while at > self.clock.now() {
            let armed = match self.armed {
                Some(armed) if armed.at <= at => armed,
                _ => Armed { at, monotonic: self.clock.to_monotonic(at) },
            };
            self.armed = Some(armed);
            ready!(self.inner.poll_at(cx, Some(armed.monotonic)));
            self.armed = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A runtime's timer that never rings and remembers what it was set to.
    #[derive(Default)]
    struct Recorder(Vec<Instant>);

    impl TimerIo for Recorder {
        fn poll_at(&mut self, _cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
            if let Some(at) = at.filter(|at| self.0.last() != Some(at)) {
                self.0.push(at);
            }
            Poll::Pending
        }
    }

    #[test]
    fn only_an_earlier_deadline_sets_the_runtimes_timer_anew() {
        let clock = Clock::start();
        let mut timer = OsTimer::new(clock, Recorder::default());
        let mut cx = Context::from_waker(Waker::noop());
        let start = clock.now();
        for seconds in [20, 20, 30, 40, 10, 50] {
            assert!(timer.poll_at(&mut cx, Some(start + Duration::from_secs(seconds))).is_pending());
        }
        assert_eq!(timer.inner.0.len(), 2, "set for 20 s and for 10 s");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn after_a_sleep_the_runtimes_timer_is_set_on_the_clock_that_stood_still() {
        let slept = Duration::from_secs(3600);
        let clock = Clock { start: Instant::now() + slept, boot: since_boot() };
        let mut timer = OsTimer::new(clock, Recorder::default());
        let wait = Duration::from_secs(100);
        let before = Instant::now();
        let at = clock.now() + wait;
        assert!(timer.poll_at(&mut Context::from_waker(Waker::noop()), Some(at)).is_pending());
        let set = timer.inner.0[0];
        let slack = Duration::from_millis(1);
        assert!(set + slack >= before + wait && set <= Instant::now() + wait + slack);
    }

    #[test]
    fn the_clock_never_goes_back() {
        let clock = Clock::start();
        let mut last = clock.now();
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
