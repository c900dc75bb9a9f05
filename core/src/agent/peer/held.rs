//! The link that there is to a peer, and what more than it is to be had.
//!
//! A link stops all wishes but those for a better rung than its own, which come every so often, ever more seldom
//! while they are in vain, and at once when the network changes. A link that may be dead (`doubted`) has everything
//! tried for, one over UDP that loses too much (`poor`) whatever is not over UDP; the one may be true with the other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::agent::io::Via;
use crate::path::{Rung, RungSet};
use crate::rng::Rng;

/// A link as the session tells of it.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Link {
    pub(in crate::agent) rung: Rung,
    pub(in crate::agent) remote: SocketAddr,
    pub(in crate::agent) via: Option<Via>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) link: Link,
    /// When more is tried for; none if nothing is to be had, or since it was asked for.
    due: Option<Instant>,
    /// Attempts in vain since the last news.
    failures: u32,
    /// Whether the link itself may be dead, so that everything is to be tried.
    doubted: bool,
    /// Why the link, which is over UDP, is to be left for one that is not.
    poor: Option<String>,
}

impl Held {
    pub(super) fn new(link: Link) -> Self {
        Self { link, due: None, failures: 0, doubted: false, poor: None }
    }

    /// Another link has taken over: what was amiss was about the one before, and whatever was tried in vain, this
    /// was not. Gives why that was left, if it was a better one.
    pub(super) fn replace(&mut self, link: Link) -> Option<Left> {
        let old = std::mem::replace(self, Self { due: self.due, ..Self::new(link) });
        if old.link.rung >= self.link.rung {
            return None;
        }
        Some(Left { rung: old.link.rung, reason: old.poor.unwrap_or_else(|| NO_ANSWER.to_owned()) })
    }

    /// One of the link's ends is elsewhere. Says whether that makes it another rung.
    pub(super) fn moved(&mut self, rung: Rung, remote: SocketAddr) -> bool {
        self.link.remote = remote;
        std::mem::replace(&mut self.link.rung, rung) != rung
    }

    /// When more than the link is to be asked for: if it works, only where it is `wanted`.
    pub(super) fn due(&self, wanted: bool) -> Option<Instant> {
        self.due.filter(|_| wanted || self.doubted || self.poor.is_some())
    }

    /// The rungs to ask for, of those that may be used.
    pub(super) fn wished_rungs(&self, allowed: RungSet) -> RungSet {
        if self.doubted {
            return allowed;
        }
        let poor = self.poor.is_some();
        let wished = |rung: &Rung| if poor { !rung.is_udp() } else { *rung < self.link.rung };
        allowed.iter().filter(wished).collect()
    }

    /// Whether an attempt for these rungs that begins now leaves a wish that is due unfulfilled: it was asked for
    /// when the link was well.
    pub(super) fn needs_more_than(&self, now: Instant, rungs: RungSet) -> bool {
        let may_mend = if self.doubted {
            rungs.contains(self.link.rung)
        } else {
            self.poor.is_none() || rungs.iter().any(|rung| !rung.is_udp())
        };
        self.due.is_some_and(|due| due <= now) && !may_mend
    }

    /// The server is being asked for more.
    pub(super) fn asked(&mut self) {
        self.due = None;
        self.doubted = false;
    }

    /// More is known than when more was tried for.
    pub(super) fn ask_again(&mut self, now: Instant) {
        self.failures = 0;
        self.due = Some(now);
    }

    /// What was asked for is over already, and nothing is planned.
    pub(super) fn ask_soon(&mut self, now: Instant) {
        self.due.get_or_insert(now + BETTER_THAN_RELAY.0);
    }

    /// Nothing better than the link is to be had.
    pub(super) fn content(&mut self) {
        (self.due, self.failures, self.doubted, self.poor) = (None, 0, false, None);
    }

    /// There may be something better: what is planned is due now.
    pub(super) fn news(&mut self, now: Instant) {
        self.failures = 0;
        if self.due.is_some() {
            self.due = Some(now);
        }
    }

    /// The link loses too much over UDP.
    pub(super) fn poor(&mut self, now: Instant, reason: String) {
        self.poor = Some(reason);
        self.due = Some(now);
    }

    /// The link may be dead.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.doubted = true;
        self.due = Some(now);
    }

    /// Plans the first try for a rung better than the link's, if there is any.
    pub(super) fn plan_first(&mut self, now: Instant, rng: &mut Rng) {
        self.failures = 0;
        self.plan_next(now, rng);
    }

    /// Plans the next such try, which waits longer than the last.
    pub(super) fn plan_next(&mut self, now: Instant, rng: &mut Rng) {
        if self.doubted {
            return;
        }
        let poor = self.poor.is_some();
        if !poor && self.link.rung <= Rung::UdpDirect {
            self.due = None;
            return;
        }
        let (first, last) =
            if poor || self.link.rung.is_relay() { BETTER_THAN_RELAY } else { BETTER_THAN_DIRECT };
        let wait = first.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS)).min(last);
        self.failures = self.failures.saturating_add(1);
        // Each of many pairs that lost a relay together has its own pace.
        self.due = Some(now + rng.between(wait * 3 / 4, wait));
    }
}

/// A rung that was left for a worse one, and why.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) rung: Rung,
    pub(super) reason: String,
}

/// How long after an attempt something better than a relay is tried for, doubled each time, and the longest such
/// wait: with an attempt's own length a direct path is taken within a minute of its becoming possible, whether
/// or not anything tells of that.
const BETTER_THAN_RELAY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(40));
/// The same for a link without a relay, which costs nobody else anything: a pair that has no better one is to cost
/// its own network little.
const BETTER_THAN_DIRECT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// The firsts doubled so often are beyond the lasts.
const MAX_DOUBLINGS: u32 = 5;
/// Why a link was left for a worse one, where its session has not said so before.
const NO_ANSWER: &str = "no answer from the peer";
