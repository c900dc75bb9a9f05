//! The limit that all who are relayed share, by back-pressure: a relay reads less, and never drops.
//!
//! A *flow* is one direction of a pair. It reads a chunk, and pays afterwards: the bytes are put behind those
//! that others have yet to pay for (the *horizon*: when everything that was read is paid, at the rate of the
//! limit), and the flow may read again once its own are. So every flow that has more to read than it may has
//! exactly one chunk outstanding, and they take turns; one that has little to say (a terminal) has paid long
//! ago, and reads at once. It is the generic cell rate algorithm (ITU-T I.371) with one bucket for all, and a
//! place in the queue for each.
//!
//! Chunks shrink as more flows wait, so that a turn of all of them stays short.

use std::time::{Duration, Instant};

/// The machine.
#[derive(Debug, Clone)]
pub struct Bandwidth {
    /// Bytes a second; none is no limit.
    rate: Option<u64>,
    /// When all that was read is paid.
    horizon: Instant,
    /// Flows that wait until what they read is paid.
    waiting: u32,
}

/// One direction of a pair.
#[derive(Debug, Default)]
pub struct Flow {
    turn: Option<Turn>,
}

/// When a flow may read again.
#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Instant,
    /// What it then may read without paying again.
    paid: usize,
}

impl Bandwidth {
    /// `mbps` is the limit in 10^6 bits a second; 0 is none.
    pub fn new(now: Instant, mbps: u64) -> Self {
        Self { rate: rate(mbps), horizon: now, waiting: 0 }
    }

    /// Sets another limit. What was read is paid at the old rate.
    pub fn set_limit(&mut self, mbps: u64) {
        self.rate = rate(mbps);
    }

    /// Whether there is a limit at all.
    pub fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// How many bytes `flow` may read now, at least one. Each grant is followed by one [`Self::charge`].
    ///
    /// # Errors
    /// When it may ask again.
    pub fn grant(&mut self, now: Instant, flow: &mut Flow) -> Result<usize, Instant> {
        let Some(rate) = self.rate else { return Ok(usize::MAX) };
        // One that has paid for all goes first, but not when so many are doing so that the limit would not hold:
        // then it takes its place behind the others, and pays beforehand.
        if flow.turn.is_none() && self.horizon.saturating_duration_since(now) > MAX_DEBT {
            let paid = self.chunk(rate);
            self.wait(flow, paid);
            self.horizon += time(rate, paid);
        }
        match flow.turn {
            Some(turn) if now < turn.at => Err(turn.at),
            Some(Turn { paid, .. }) if paid > 0 => Ok(paid),
            Some(_) | None => Ok(self.chunk(rate)),
        }
    }

    /// `flow` has read that much of what it was granted.
    pub fn charge(&mut self, now: Instant, flow: &mut Flow, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let paid = flow.turn.map_or(0, |turn| turn.paid);
        self.leave(flow);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.horizon = self.horizon.max(earliest);
        if paid > 0 {
            let unused = time(rate, paid.saturating_sub(bytes));
            self.horizon = self.horizon.checked_sub(unused).unwrap_or(self.horizon);
        } else if bytes > 0 {
            self.horizon += time(rate, bytes);
            if self.horizon > now {
                self.wait(flow, 0);
            }
        }
    }

    /// A flow has ended, or has had its turn.
    pub fn leave(&mut self, flow: &mut Flow) {
        if flow.turn.take().is_some() {
            self.waiting = self.waiting.saturating_sub(1);
        }
    }

    /// Lets `flow` wait for its turn, behind all that was read.
    fn wait(&mut self, flow: &mut Flow, paid: usize) {
        let turn = Turn { at: self.horizon, paid };
        if flow.turn.replace(turn).is_none() {
            self.waiting += 1;
        }
    }

    fn chunk(&self, rate: u64) -> usize {
        let share =
            |time: Duration, of: u64| u128::from(rate) * time.as_millis() / 1000 / u128::from(of.max(1));
        let turn = share(TURN, u64::from(self.waiting) + 1).min(share(MAX_CHUNK_TIME, 1));
        usize::try_from(turn).unwrap_or(MAX_CHUNK).clamp(MIN_CHUNK, MAX_CHUNK)
    }
}

fn rate(mbps: u64) -> Option<u64> {
    (mbps > 0).then(|| mbps.saturating_mul(1_000_000 / 8))
}

fn time(rate: u64, bytes: usize) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How long one turn of all flows takes, as far as chunks can be made small enough: what a person at a
/// terminal does not notice.
const TURN: Duration = Duration::from_millis(100);
/// How long the longest chunk takes: ten times what timers are late by.
const MAX_CHUNK_TIME: Duration = Duration::from_millis(20);
/// What is worth a system call.
const MIN_CHUNK: usize = 2048;
/// What one system call moves.
const MAX_CHUNK: usize = 256 * 1024;
/// How much of unused time is made up for: as much as timers are late, on a machine that has other things to
/// do, and 2 % of a second.
const BURST: Duration = Duration::from_millis(20);
/// How far ahead of its time the limit may be used up by flows that read their first chunk.
const MAX_DEBT: Duration = Duration::from_millis(250);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// A sender at the end of a flow: how fast it can send, and what has been read of it.
    struct Sender {
        flow: Flow,
        /// Bytes a second; none is as fast as it is read.
        speed: Option<u64>,
        read: u64,
        next: Instant,
        longest_wait: Duration,
    }

    impl Sender {
        fn new(now: Instant, speed: Option<u64>) -> Self {
            Self { flow: Flow::default(), speed, read: 0, next: now, longest_wait: Duration::ZERO }
        }
    }

    /// Lets the senders run for `time`, with timers that are late by up to `late`.
    fn run(
        bandwidth: &mut Bandwidth,
        senders: &mut [Sender],
        start: Instant,
        time: Duration,
        late: Duration,
    ) {
        let mut rng = Rng::new([1; 32]);
        loop {
            let Some(sender) = senders.iter_mut().min_by_key(|sender| sender.next) else { return };
            let now = sender.next;
            if now >= start + time {
                return;
            }
            let offered = match sender.speed {
                Some(speed) => {
                    let sent = u128::from(speed) * now.duration_since(start).as_nanos() / 1_000_000_000;
                    u64::try_from(sent).unwrap() - sender.read
                }
                None => u64::MAX,
            };
            if offered == 0 {
                sender.next = now + Duration::from_millis(10);
                continue;
            }
            match bandwidth.grant(now, &mut sender.flow) {
                Ok(granted) => {
                    let read = offered.min(granted as u64);
                    sender.read += read;
                    bandwidth.charge(now, &mut sender.flow, usize::try_from(read).unwrap());
                    sender.next = now + Duration::from_micros(1);
                }
                Err(at) => {
                    sender.longest_wait = sender.longest_wait.max(at - now);
                    sender.next = at + rng.between(Duration::ZERO, late);
                }
            }
        }
    }

    fn jain(senders: &[Sender]) -> f64 {
        let rates: Vec<f64> = senders.iter().map(|sender| sender.read as f64).collect();
        let sum: f64 = rates.iter().sum();
        sum * sum / (rates.len() as f64 * rates.iter().map(|rate| rate * rate).sum::<f64>())
    }

    const SECONDS: u64 = 10;

    #[test]
    fn the_limit_holds_within_five_percent_at_every_speed_and_number() {
        for mbps in [1, 10, 100, 1000, 10_000] {
            for flows in [1, 2, 20, 200] {
                let start = Instant::now();
                let mut bandwidth = Bandwidth::new(start, mbps);
                let mut senders: Vec<_> = (0..flows).map(|_| Sender::new(start, None)).collect();
                let time = Duration::from_secs(SECONDS);
                run(&mut bandwidth, &mut senders, start, time, Duration::from_millis(2));
                let read: u64 = senders.iter().map(|sender| sender.read).sum();
                let error = read as f64 / (mbps * 125_000 * SECONDS) as f64 - 1.0;
                assert!(error.abs() < 0.05, "{mbps} Mbps, {flows} flows: {:+.1} %", error * 100.0);
                assert!(jain(&senders) > 0.9, "{mbps} Mbps, {flows} flows: {}", jain(&senders));
            }
        }
    }

    #[test]
    fn twenty_flows_share_fairly_when_some_begin_later() {
        let start = Instant::now();
        let mut bandwidth = Bandwidth::new(start, 10);
        let mut early: Vec<_> = (0..10).map(|_| Sender::new(start, None)).collect();
        run(&mut bandwidth, &mut early, start, Duration::from_secs(2), Duration::from_millis(1));
        let later = start + Duration::from_secs(2);
        early.iter_mut().for_each(|sender| sender.read = 0);
        early.extend((0..10).map(|_| Sender::new(later, None)));
        run(&mut bandwidth, &mut early, later, Duration::from_secs(10), Duration::from_millis(1));
        assert!(jain(&early) > 0.99, "{}", jain(&early));
    }

    #[test]
    fn a_terminal_does_not_wait_for_copies() {
        let start = Instant::now();
        let mut bandwidth = Bandwidth::new(start, 10);
        let mut senders: Vec<_> = (0..20).map(|_| Sender::new(start, None)).collect();
        senders.push(Sender::new(start, Some(1_000)));
        run(&mut bandwidth, &mut senders, start, Duration::from_secs(10), Duration::from_millis(1));
        let terminal = senders.last().unwrap();
        assert!(terminal.read > 9_900, "{}", terminal.read);
        assert!(terminal.longest_wait < Duration::from_millis(250), "{:?}", terminal.longest_wait);
    }

    #[test]
    fn what_one_does_not_use_others_do() {
        let start = Instant::now();
        let mut bandwidth = Bandwidth::new(start, 8);
        let mut senders = vec![Sender::new(start, Some(100_000)), Sender::new(start, None)];
        run(&mut bandwidth, &mut senders, start, Duration::from_secs(10), Duration::from_millis(1));
        let (slow, fast) = (senders[0].read as f64 / 10.0, senders[1].read as f64 / 10.0);
        assert!((95_000.0..=100_000.0).contains(&slow), "{slow}");
        assert!((855_000.0..945_000.0).contains(&fast), "{fast}");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let now = Instant::now();
        let mut bandwidth = Bandwidth::new(now, 0);
        let mut flow = Flow::default();
        for _ in 0..1000 {
            assert_eq!(bandwidth.grant(now, &mut flow), Ok(usize::MAX));
            bandwidth.charge(now, &mut flow, 1 << 30);
        }
    }

    #[test]
    fn a_flow_that_ends_leaves_nothing_behind() {
        let now = Instant::now();
        let mut bandwidth = Bandwidth::new(now, 1);
        let mut flow = Flow::default();
        bandwidth.charge(now, &mut flow, 1 << 20);
        assert_eq!(bandwidth.waiting, 1);
        bandwidth.leave(&mut flow);
        bandwidth.leave(&mut flow);
        assert_eq!(bandwidth.waiting, 0);
    }
}
