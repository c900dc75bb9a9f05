//! How much QUIC may hold for one link.
//!
//! The multiplexer's credit is what bounds a stream (RFC 9000 section 4 would do the same once more). QUIC's
//! own windows only have to be small on an idle link and out of the way on a busy one:
//!
//! - *Receiving*, all streams together: 64 KiB, doubled while more than half of it is read within two round
//!   trips, up to 8 MiB; halved in every second that uses less than a quarter. Every lane is read at all
//!   times, so what is held there is only what waits for a lost packet before it.
//! - *Receiving*, one stream: never binds, see [`STREAM`].
//! - *Sending*: twice what the congestion window lets fly, and a little to go on with. Twice, because bytes
//!   that were acknowledged behind a lost packet still count.

use std::time::{Duration, Instant};

/// What both windows of a link are at most, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Bytes received and not read, all streams together.
    pub receive: u64,
    /// Bytes written and not acknowledged, all streams together.
    pub send: u64,
}

/// The windows, and what they are judged by.
#[derive(Debug)]
pub(super) struct Window {
    now: Windows,
    /// How many bytes were read since when.
    measured: (Instant, u64),
    /// How many bytes were read since the last tick.
    ticked: u64,
    tick_at: Option<Instant>,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self { now: Windows { receive: IDLE, send: IDLE }, measured: (now, 0), ticked: 0, tick_at: None }
    }

    pub(super) fn get(&self) -> Windows {
        self.now
    }

    /// Bytes were read. Whether the receiving window has changed.
    pub(super) fn read(&mut self, now: Instant, bytes: u64, rtt: Duration) -> bool {
        if bytes == 0 {
            return false;
        }
        self.ticked = self.ticked.saturating_add(bytes);
        self.tick_at.get_or_insert(now + TICK);
        let (since, read) = &mut self.measured;
        if now.saturating_duration_since(*since) > 2 * rtt.max(MIN_RTT) {
            (*since, *read) = (now, 0);
        }
        *read += bytes;
        if *read < self.now.receive / 2 || self.now.receive == MAX {
            return false;
        }
        self.measured = (now, 0);
        self.now.receive = (self.now.receive * 2).min(MAX);
        true
    }

    /// There is something to send, and so much may fly.
    pub(super) fn send(&mut self, now: Instant, congestion: u64) -> u64 {
        self.tick_at.get_or_insert(now + TICK);
        self.now.send = congestion.saturating_mul(2).saturating_add(AHEAD).clamp(IDLE, MAX);
        self.now.send
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        Some((self.tick_at?, "link: shrink unused windows"))
    }

    /// Lets time pass. Whether the windows have changed.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        if self.tick_at.is_none_or(|at| now < at) {
            return false;
        }
        let before = self.now;
        if self.ticked < self.now.receive / 4 {
            self.now.receive = (self.now.receive / 2).max(IDLE);
        }
        self.ticked = 0;
        // It is set anew with the next bytes to send.
        self.now.send = IDLE;
        self.tick_at = (self.now.receive > IDLE).then(|| now + TICK);
        before != self.now
    }
}

/// An idle link's windows: what a first exchange needs within its first round trips.
pub(super) const IDLE: u64 = 64 * 1024;
/// The busiest link's: 8 MiB carry 1 Gbit/s over a round trip of 64 ms.
pub(super) const MAX: u64 = 8 << 20;
/// One stream's receiving window. Above [`MAX`] by more than the eighth by which QUIC lets its announcement lag
/// behind, so that a short write always means the link's window, never the stream's.
pub(super) const STREAM: u64 = 2 * MAX;
/// What lies ready beyond what may fly: one batch of segmentation offload.
const AHEAD: u64 = 64 * 1024;
const TICK: Duration = Duration::from_secs(1);
/// As in the multiplexer: on one machine a round trip takes a fraction of what a reader is held up.
const MIN_RTT: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn windows_follow_the_traffic_and_shrink_when_it_ends() {
        let mut now = Instant::now();
        let rtt = Duration::from_millis(50);
        let mut window = Window::new(now);
        assert_eq!(window.get(), Windows { receive: IDLE, send: IDLE });
        for _ in 0..200 {
            now += Duration::from_millis(10);
            window.read(now, 500_000, rtt);
        }
        assert_eq!(window.get().receive, MAX);
        assert_eq!(window.send(now, 1 << 40), MAX);
        let mut ticks = 0;
        while let Some((at, _)) = window.deadline() {
            window.tick(at);
            ticks += 1;
        }
        assert!(ticks <= 9, "{ticks}");
        assert_eq!(window.get(), Windows { receive: IDLE, send: IDLE });
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn a_slow_reader_gets_no_more() {
        let mut now = Instant::now();
        let mut window = Window::new(now);
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            assert!(!window.read(now, 2_000, Duration::from_millis(50)));
        }
    }
}
