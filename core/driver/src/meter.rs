//! Counters that a task keeps and `status` reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What went through one forward.
#[derive(Debug, Default)]
pub(crate) struct ForwardMeter {
    active: AtomicU64,
    total: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// Why the latest connection failed; none if it works.
    error: Mutex<Option<String>>,
}

impl ForwardMeter {
    pub(crate) fn opened(&self) {
        self.active.fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.active.fetch_sub(1, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// The peer has let a connection in.
    pub(crate) fn worked(&self) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A connection failed. Whether that is news: not if the one before failed for the same reason.
    pub(crate) fn failed(&self, why: &str) -> bool {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let news = error.as_deref() != Some(why);
        if news {
            *error = Some(why.to_owned());
        }
        news
    }

    /// Active, total, sent, received, error.
    pub(crate) fn read(&self) -> (u64, u64, u64, u64, Option<String>) {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (
            self.active.load(Relaxed),
            self.total.load(Relaxed),
            self.sent.load(Relaxed),
            self.received.load(Relaxed),
            error,
        )
    }
}

/// What a session has carried.
#[derive(Debug, Default)]
pub(crate) struct SessionMeter {
    /// In microseconds; 0 for none.
    rtt: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    streams: AtomicU64,
    switches: AtomicU64,
}

impl SessionMeter {
    pub(crate) fn set(&self, rtt: Option<Duration>, sent: u64, received: u64, streams: u64) {
        let micros = rtt.map_or(0, |rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1));
        self.rtt.store(micros, Relaxed);
        self.sent.store(sent, Relaxed);
        self.received.store(received, Relaxed);
        self.streams.store(streams, Relaxed);
    }

    pub(crate) fn switched(&self) {
        self.switches.fetch_add(1, Relaxed);
    }

    /// Milliseconds of round trip.
    pub(crate) fn rtt_ms(&self) -> Option<f64> {
        let micros = self.rtt.load(Relaxed);
        (micros > 0).then(|| micros as f64 / 1000.0)
    }

    /// Sent, received, open streams, switches.
    pub(crate) fn read(&self) -> (u64, u64, u64, u64) {
        (
            self.sent.load(Relaxed),
            self.received.load(Relaxed),
            self.streams.load(Relaxed),
            self.switches.load(Relaxed),
        )
    }
}
