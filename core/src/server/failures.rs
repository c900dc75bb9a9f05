//! How often an address may fail to prove a token. Each try is one guess, so this bounds guessing.
//!
//! Counted by where the failure came from, never by name: else whoever knows a node's name could lock it
//! out. A login that succeeds does not clear the count: else whoever has one user's token could go on
//! guessing another's. Loopback counts as any other address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::due::Due;

/// Who is counted as one: an IPv4 address, or an IPv6 /64, which is what one customer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(IpAddr);

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.into()),
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                Self(IpAddr::V6(if v6.is_loopback() { v6 } else { network.into() }))
            }
        }
    }

    pub(super) fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

/// The failures of late.
#[derive(Debug, Default)]
pub(super) struct Failures {
    records: BTreeMap<Source, Record>,
    /// When each record may be forgotten.
    stale: Due<Source>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// Failures since `window`.
    recent: u32,
    window: Instant,
    blocked_until: Option<Instant>,
    /// How long the next block will be.
    penalty: Duration,
    /// The record's entry in `stale`.
    stale: Instant,
}

impl Failures {
    /// How long `source` must still wait; none if it may try.
    pub(super) fn blocked(&self, now: Instant, source: Source) -> Option<Duration> {
        let until = self.records.get(&source)?.blocked_until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Takes note of a failure.
    pub(super) fn failed(&mut self, now: Instant, source: Source) {
        self.expire(now);
        let fresh =
            Record { recent: 0, window: now, blocked_until: None, penalty: FIRST_BLOCK, stale: now + FORGET };
        let record = self.records.entry(source).or_insert(fresh);
        if now.saturating_duration_since(record.window) >= WINDOW {
            (record.recent, record.window) = (0, now);
        }
        record.recent = record.recent.saturating_add(1);
        if record.recent >= FAILURES {
            record.blocked_until = Some(now + record.penalty);
            record.recent = 0;
            record.penalty = (record.penalty * 2).min(LONGEST_BLOCK);
        }
        self.stale.remove(record.stale, source);
        record.stale = now + FORGET;
        self.stale.insert(record.stale, source);
        if self.records.len() > MAX_RECORDS {
            self.evict();
        }
    }

    /// Forgets whoever has not failed for long. Needs no timer: it happens at the next failure.
    fn expire(&mut self, now: Instant) {
        while let Some(source) = self.stale.pop(now) {
            self.records.remove(&source);
        }
    }

    /// Makes room: the record whose last failure is longest ago goes.
    fn evict(&mut self) {
        let Some(oldest) = self.stale.next() else { return };
        if let Some(source) = self.stale.pop(oldest) {
            self.records.remove(&source);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len().max(self.stale.len())
    }
}

/// This many failures in one [`WINDOW`] end in a block: room for a person's typing errors.
const FAILURES: u32 = 5;
/// The time in which failures add up.
const WINDOW: Duration = Duration::from_secs(60);
/// The first block; each further one is twice as long. With it, five guesses a minute at most.
const FIRST_BLOCK: Duration = Duration::from_secs(60);
/// The longest block: 480 guesses a day, and a site that shares an address with a guesser comes back.
const LONGEST_BLOCK: Duration = Duration::from_secs(16 * 60);
/// A record is forgotten this long after its last failure: well beyond the longest block.
const FORGET: Duration = Duration::from_secs(3600);
/// The most records: 2 MiB. Whoever commands more networks than this is not stopped by counting them.
pub(super) const MAX_RECORDS: usize = 16_384;

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The only way to a first Instant.
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn the_fifth_failure_in_a_minute_blocks_and_each_block_is_longer() {
        let mut now = Instant::now();
        let mut failures = Failures::default();
        let from = source("192.0.2.1");
        for block in [60, 120, 240, 480, 960, 960] {
            for _ in 0..5 {
                assert_eq!(failures.blocked(now, from), None);
                failures.failed(now, from);
            }
            assert_eq!(failures.blocked(now, from), Some(Duration::from_secs(block)));
            assert_eq!(failures.blocked(now, source("192.0.2.2")), None);
            now += Duration::from_secs(block);
        }
    }

    #[test]
    fn slow_failures_do_not_block() {
        let mut now = Instant::now();
        let mut failures = Failures::default();
        for _ in 0..50 {
            failures.failed(now, source("192.0.2.1"));
            assert_eq!(failures.blocked(now, source("192.0.2.1")), None);
            now += Duration::from_secs(16);
        }
    }

    #[test]
    fn one_ipv6_network_counts_as_one() {
        let now = Instant::now();
        let mut failures = Failures::default();
        for host in 1..=5 {
            failures.failed(now, source(&format!("2001:db8:0:1::{host}")));
        }
        assert!(failures.blocked(now, source("2001:db8:0:1:ffff::")).is_some());
        assert!(failures.blocked(now, source("2001:db8:0:2::1")).is_none());
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn records_are_bounded_and_the_oldest_goes_first() {
        let mut now = Instant::now();
        let mut failures = Failures::default();
        for host in 0..2 * MAX_RECORDS {
            let address = std::net::Ipv4Addr::from(u32::try_from(host).unwrap());
            failures.failed(now, Source::of(address.into()));
            now += Duration::from_millis(1);
            assert!(failures.len() <= MAX_RECORDS);
        }
        now += FORGET;
        failures.failed(now, source("192.0.2.1"));
        assert_eq!(failures.len(), 1);
    }
}
