//! One peer: whether a link to it is wanted, whether there is one, and what is being done about it.
//!
//! ```text
//!            wish is due                reply                  PunchStart
//!  Idle ───────────────────▶ Asking ───────────▶ Promised ───────────────────▶ Running
//!   ▲ ▲                        │ refused, no answer │ nothing follows             │ done
//!   │ └── Waiting ◀────────────┴────────────────────┴─────────────────────────────┤ in vain
//!   └─────────────────────────────────────────────────────────────────────────────┘ a link
//! ```
//!
//! A PunchStart leads to Running from everywhere: the other side may be the one who asked. While Waiting,
//! news (the peer came online, the network changed, somebody wants to send) makes the next wish due at once,
//! but never more than one a second. The link is a matter of its own: it comes and goes by what the session
//! tells. A link that is there stops all wishes but those for a better rung than its own, which come every so
//! often, and at once when the network changes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::io::Via;
use crate::ids::{AttemptId, PublicKey};
use crate::path::{Outcome, Rung, RungSet, Verdict};
use crate::rng::Rng;
use crate::status::PeerState;
use crate::wire::message::{Code, Refused, Targets};

/// One peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Whether a forward leads to it.
    pub(super) forwarded: bool,
    /// Whether its session has something to send and no link.
    wished: bool,
    search: Search,
    link: Option<Link>,
    /// The latest attempt, and the identity that it is for.
    attempt: Option<(AttemptId, PublicKey)>,
    outcomes: Vec<Outcome>,
    /// The last wish.
    asked: Option<Instant>,
    /// When the next one is due although an attempt runs: the link was lost, or fell into doubt, meanwhile; or more is
    /// known than when it began.
    again: Option<Instant>,
    /// Whether this node's NAT was measured after the wish that is under way: the peer is told what was known before.
    overtaken: bool,
    /// Whether the latest attempt began before the NATs on both sides had been measured.
    blind: bool,
    pace: Pace,
    better: Better,
    switches: u64,
    error: Option<String>,
    /// All that the peer may open here, for one of another user.
    targets: Option<Targets>,
}

/// When more is to be had than the link that there is.
#[derive(Debug, Default)]
struct Better {
    /// When it is tried for again; none if nothing is to be had, or while an attempt runs.
    due: Option<Instant>,
    /// Attempts in vain since the last news.
    failures: u32,
    /// Whether the link itself may be dead, so that everything is to be tried.
    doubted: bool,
    /// Why the link, which is over UDP, is to be left for one that is not.
    poor: Option<String>,
}

#[derive(Debug, Default)]
enum Search {
    /// Nothing is under way.
    #[default]
    Idle,
    /// The server has been asked.
    Asking,
    /// The server has agreed; its PunchStart follows.
    Promised { until: Instant },
    /// The session is trying for these rungs.
    Running { until: Instant, rungs: RungSet },
    /// The last try was in vain; the next is due then.
    Waiting { until: Instant, why: Why },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The server says that the peer is not there.
    Offline,
    /// Anything else.
    Failed,
    /// The attempt brought a link; the session's word of it is on its way.
    LinkFollows,
}

#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) rung: Rung,
    pub(super) remote: SocketAddr,
    pub(super) via: Option<Via>,
}

impl Peer {
    /// Whether a link is wanted and not there.
    pub(super) fn wants(&self) -> bool {
        self.link.is_none() && (self.forwarded || self.wished)
    }

    /// Whether nothing would be lost by forgetting it.
    pub(super) fn is_idle(&self) -> bool {
        let busy = matches!(self.search, Search::Asking | Search::Promised { .. } | Search::Running { .. });
        !(self.forwarded || self.wished || self.link.is_some() || busy)
    }

    /// Whether it is worth a line of `status`: had, wanted, or just failed.
    pub(super) fn is_worth_showing(&self) -> bool {
        !self.is_idle() || self.error.is_some()
    }

    /// When the next wish is due; none while one is under way, or nothing is wanted.
    pub(super) fn wish_due(&self, now: Instant) -> Option<Instant> {
        if !self.wants() {
            let pressing = self.better.doubted || self.better.poor.is_some();
            let may = self.link.is_some() && (self.forwarded || pressing);
            let due = self.better.due.filter(|_| may)?;
            let due = match self.search {
                Search::Idle => due,
                Search::Running { .. } => due.max(self.again?),
                Search::Asking | Search::Promised { .. } | Search::Waiting { .. } => return None,
            };
            return Some(self.asked.map_or(due, |asked| due.max(asked + WISH_INTERVAL)));
        }
        let at = match self.search {
            Search::Idle => now,
            Search::Waiting { until, .. } => until,
            Search::Running { .. } => self.again?,
            Search::Asking | Search::Promised { .. } => return None,
        };
        Some(self.asked.map_or(at, |asked| at.max(asked + WISH_INTERVAL)))
    }

    /// The rungs to wish for, of those that may be used: with a link only better ones, unless that is in doubt.
    pub(super) fn wished_rungs(&self, allowed: RungSet) -> RungSet {
        match &self.link {
            Some(_) if self.better.poor.is_some() && !self.better.doubted => {
                allowed.iter().filter(|rung| !rung.is_udp()).collect()
            }
            Some(link) if !self.better.doubted => allowed.iter().filter(|rung| *rung < link.rung).collect(),
            Some(_) | None => allowed,
        }
    }

    /// Nothing better than the link is to be had.
    pub(super) fn content(&mut self) {
        self.better = Better::default();
    }

    /// Whether the server is being asked, or has yet to keep its word.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.search, Search::Asking | Search::Promised { .. })
    }

    /// The server is being asked.
    pub(super) fn asking(&mut self, now: Instant) {
        self.asked = Some(now);
        self.better.due = None;
        self.better.doubted = false;
        self.overtaken = false;
        self.search = Search::Asking;
    }

    /// The server agreed.
    pub(super) fn promised(&mut self, now: Instant) {
        if matches!(self.search, Search::Asking) {
            self.search = Search::Promised { until: now + START_TIMEOUT };
        }
    }

    /// The server did not agree.
    pub(super) fn refused(&mut self, now: Instant, refused: &Refused, rng: &mut Rng) {
        if !matches!(self.search, Search::Asking) {
            return;
        }
        match refused.code {
            Code::Offline | Code::UnknownNode => self.offline(now, refused.to_string(), rng),
            _ => self.failed(now, refused.to_string(), rng),
        }
    }

    /// An attempt begins, `blind` if what a NAT does is not known yet. Says whether it is news: the server repeats
    /// itself when both sides ask.
    pub(super) fn start(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        key: PublicKey,
        (rungs, blind): (RungSet, bool),
    ) -> bool {
        if self.attempt.is_some_and(|(latest, _)| latest == attempt) {
            if matches!(self.search, Search::Promised { .. }) {
                // Nothing more follows: it is over already.
                self.search = Search::Idle;
                self.overtaken = false;
                if self.link.is_some() {
                    self.better.due.get_or_insert(now + BETTER_THAN_RELAY.0);
                }
            }
            return false;
        }
        self.attempt = Some((attempt, key));
        self.search = Search::Running { until: now + ATTEMPT_TIMEOUT, rungs };
        self.again = std::mem::take(&mut self.overtaken).then_some(now);
        self.blind = blind;
        if self.better.due.is_some_and(|due| due <= now) && !self.helps(rungs) {
            // It was asked for when the link was well.
            self.search = Search::Idle;
        }
        true
    }

    /// An attempt cannot begin, or a wish has come to nothing.
    pub(super) fn failed(&mut self, now: Instant, reason: String, rng: &mut Rng) {
        self.error = Some(reason);
        self.wished = false;
        self.overtaken = false;
        if self.link.is_some() {
            self.search = Search::Idle;
            self.try_for_better(now, rng);
            return;
        }
        let until = now + self.pace.next(rng);
        self.search = if self.forwarded { Search::Waiting { until, why: Why::Failed } } else { Search::Idle };
    }

    /// An attempt is over.
    pub(super) fn done(&mut self, now: Instant, attempt: AttemptId, outcomes: Vec<Outcome>, rng: &mut Rng) {
        if self.attempt.is_none_or(|(latest, _)| latest != attempt) {
            // An older one: what it came to is history, and says nothing of the one that runs.
            return;
        }
        self.outcomes = self.merged(outcomes);
        let connected = self.outcomes.iter().any(|outcome| outcome.outcome == Verdict::Connected);
        if matches!(self.search, Search::Running { .. }) {
            if self.link.is_some() {
                self.search = Search::Idle;
                self.try_for_better(now, rng);
            } else if connected {
                self.pace = Pace::default();
                self.search = Search::Waiting { until: now + LINK_FOLLOWS, why: Why::LinkFollows };
            } else {
                let tried = self.outcomes.iter().find(|outcome| outcome.outcome == Verdict::Failed);
                let reason = tried.or(self.outcomes.first()).map_or_else(
                    || "no rung could be tried".to_owned(),
                    |best| format!("{}: {}", best.rung, best.reason),
                );
                self.failed(now, reason, rng);
            }
        }
    }

    /// The session has a link.
    pub(super) fn up(&mut self, now: Instant, link: Link, rng: &mut Rng) {
        let poor = self.better.poor.take();
        // That was about the link before.
        self.better.doubted = false;
        self.again = None;
        if let Some(left) = self.link.as_ref().filter(|left| left.rung < link.rung) {
            let reason = poor.unwrap_or_else(|| NO_ANSWER.to_owned());
            self.left(left.rung, format!("left for {}: {reason}", link.rung));
        }
        self.link = Some(link);
        self.switches = self.switches.saturating_add(1);
        self.wished = false;
        self.error = None;
        self.pace = Pace::default();
        if matches!(self.search, Search::Waiting { .. }) {
            self.search = Search::Idle;
        }
        // Whatever was tried in vain, this was not.
        self.better.failures = 0;
        if matches!(self.search, Search::Idle) {
            self.try_for_better(now, rng);
        }
    }

    /// One of the link's ends is elsewhere.
    pub(super) fn moved(&mut self, now: Instant, rung: Rung, remote: SocketAddr, rng: &mut Rng) {
        let Some(link) = &mut self.link else { return };
        link.remote = remote;
        if std::mem::replace(&mut link.rung, rung) != rung && matches!(self.search, Search::Idle) {
            self.better.failures = 0;
            self.try_for_better(now, rng);
        }
    }

    /// The session's last link is gone.
    pub(super) fn down(&mut self, now: Instant, reason: String) -> Option<Via> {
        self.error = Some(reason);
        self.start_over(now);
        self.better = Better::default();
        self.link.take().and_then(|link| link.via)
    }

    /// From now on the peer, which is of another user, may open these targets. Gives them back if that is a
    /// change.
    pub(super) fn restrict(&mut self, targets: Targets) -> Option<Targets> {
        let before = self.targets.replace(targets.clone());
        (before.unwrap_or_default() != targets).then_some(targets)
    }

    /// All that a peer of another user may open here.
    pub(super) fn targets(&self) -> Option<&Targets> {
        self.targets.as_ref()
    }

    /// Whether the session has just begun to try, by what the server has brought about.
    pub(super) fn is_trying(&self, now: Instant) -> bool {
        matches!(self.search, Search::Running { until, .. } if until > now + (ATTEMPT_TIMEOUT - YOUNG))
    }

    /// The identity that attempts without the server are for, where there has been no other.
    pub(super) fn is_for(&self, key: PublicKey) -> bool {
        self.attempt.is_none_or(|(_, known)| known == key)
    }

    /// The latest attempt.
    pub(super) fn attempt(&self) -> Option<AttemptId> {
        self.attempt.map(|(attempt, _)| attempt)
    }

    /// The session has something to send and no link.
    pub(super) fn wanted(&mut self, now: Instant) {
        self.wished = true;
        self.hurry(now);
    }

    /// There is news: the next wish is due, and failures count from the start again. An attempt that began blindly
    /// is not waited for.
    pub(super) fn news(&mut self, now: Instant) {
        self.pace = Pace::default();
        self.better_news(now);
        if std::mem::take(&mut self.blind) && matches!(self.search, Search::Running { .. }) {
            self.again = Some(now);
        }
        self.hurry(now);
    }

    /// It is known now what this node is behind.
    pub(super) fn settled(&mut self) {
        self.overtaken = self.is_asking();
    }

    /// There may be something better than the link: it is tried for now.
    pub(super) fn better_news(&mut self, now: Instant) {
        self.better.failures = 0;
        if self.better.due.is_some() {
            self.better.due = Some(now);
        }
    }

    /// The network has changed: the link may be dead, and others may lead to the peer.
    pub(super) fn network_changed(&mut self, now: Instant) {
        self.news(now);
        self.suspect(now);
    }

    /// The link loses too much over UDP: another one is tried for.
    pub(super) fn poor(&mut self, now: Instant, reason: String) {
        if self.link.is_some() {
            self.start_over(now);
            self.better.poor = Some(reason);
            self.better.due = Some(now);
        }
    }

    /// The link may be dead: whatever else leads to the peer is tried.
    pub(super) fn suspect(&mut self, now: Instant) {
        if self.link.is_some() {
            self.start_over(now);
            self.better.due = Some(now);
            self.better.doubted = true;
        }
    }

    /// The server says that the peer is not there. Says whether a wish was due, which now is not made.
    pub(super) fn absent(&mut self, now: Instant, rng: &mut Rng) -> bool {
        let due = self.wants() && matches!(self.search, Search::Idle);
        if due {
            self.offline(now, NOT_ONLINE.to_owned(), rng);
        }
        due
    }

    /// The server says that the peer is there, which was not so the last time.
    pub(super) fn here(&mut self, now: Instant) {
        if matches!(self.search, Search::Waiting { why: Why::Offline, .. }) {
            self.news(now);
        }
    }

    /// Signalling is lost: what was asked will not be answered.
    pub(super) fn signal_lost(&mut self, now: Instant) {
        if matches!(self.search, Search::Asking | Search::Promised { .. }) {
            self.search = Search::Idle;
            self.overtaken = false;
            // It may have been asked because the network had changed, which is what broke the connection.
            self.suspect(now);
        }
    }

    /// Signalling is back: what was known of the peer is old.
    pub(super) fn signal_back(&mut self, now: Instant) {
        if matches!(self.search, Search::Waiting { why: Why::Offline, .. }) {
            self.search = Search::Idle;
        }
        self.hurry(now);
    }

    /// Ends what takes too long. Gives the reason if an attempt could not even begin.
    pub(super) fn expire(&mut self, now: Instant, rng: &mut Rng) -> Option<String> {
        let reason = match self.search {
            Search::Promised { until } if until <= now => "the server did not begin the attempt it promised",
            Search::Running { until, .. } if until <= now => "the attempt did not end",
            Search::Waiting { until, why: Why::LinkFollows } if until <= now => {
                self.search = Search::Idle;
                return None;
            }
            _ => return None,
        };
        self.failed(now, reason.to_owned(), rng);
        Some(reason.to_owned())
    }

    /// When [`Self::expire`] is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        match self.search {
            Search::Promised { until }
            | Search::Running { until, .. }
            | Search::Waiting { until, why: Why::LinkFollows } => Some(until),
            Search::Idle | Search::Asking | Search::Waiting { .. } => None,
        }
    }

    /// The identity that a running or a past link has proven, or is to prove.
    pub(super) fn key(&self) -> Option<PublicKey> {
        self.attempt.map(|(_, key)| key)
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    pub(super) fn switches(&self) -> u64 {
        self.switches
    }

    pub(super) fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Why there is no link.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref().filter(|_| self.link.is_none())
    }

    pub(super) fn state(&self) -> PeerState {
        match (&self.link, &self.search) {
            (Some(_), _) => PeerState::Connected,
            (None, Search::Waiting { why: Why::Offline, .. }) => PeerState::Offline,
            (None, Search::Waiting { why: Why::Failed, .. }) => PeerState::Failed,
            (None, Search::Idle) if !self.wants() => PeerState::Failed,
            (None, _) => PeerState::Connecting,
        }
    }

    fn offline(&mut self, now: Instant, reason: String, rng: &mut Rng) {
        if self.link.is_some() {
            return self.failed(now, reason, rng);
        }
        self.error = Some(reason);
        self.wished = false;
        self.overtaken = false;
        let until = now + rng.between(OFFLINE_RETRY, OFFLINE_RETRY * 5 / 4);
        self.search =
            if self.forwarded { Search::Waiting { until, why: Why::Offline } } else { Search::Idle };
    }

    /// Plans the next try for a rung better than the link's, if there is any.
    fn try_for_better(&mut self, now: Instant, rng: &mut Rng) {
        if self.better.doubted {
            return;
        }
        let poor = self.better.poor.is_some();
        let Some(link) = self.link.as_ref().filter(|link| poor || link.rung > Rung::UdpDirect) else {
            self.better.due = None;
            return;
        };
        let (first, last) = if poor || link.rung.is_relay() { BETTER_THAN_RELAY } else { BETTER_THAN_DIRECT };
        let wait = first.saturating_mul(1 << self.better.failures.min(MAX_DOUBLINGS)).min(last);
        self.better.failures = self.better.failures.saturating_add(1);
        // Each of many pairs that lost a relay together has its own pace.
        self.better.due = Some(now + rng.between(wait * 3 / 4, wait));
    }

    /// A rung has been left, and why: shown like the outcome of a try.
    fn left(&mut self, rung: Rung, reason: String) {
        tracing::info!(%rung, reason, "rung left");
        let outcome = Outcome { rung, outcome: Verdict::Failed, reason, ms: 0 };
        match self.outcomes.iter_mut().find(|known| known.rung == rung) {
            Some(known) => *known = outcome,
            None => self.outcomes.push(outcome),
        }
    }

    /// The outcomes of the latest attempt, and of those rungs that it was not to try what is known already.
    fn merged(&self, new: Vec<Outcome>) -> Vec<Outcome> {
        let known = |new: &Outcome| {
            let known = self.outcomes.iter().find(|old| old.rung == new.rung)?;
            let untried = new.outcome == Verdict::Skipped && known.outcome != Verdict::Skipped;
            (untried && self.link.is_some()).then(|| known.clone())
        };
        new.into_iter().map(|new| known(&new).unwrap_or(new)).collect()
    }

    /// The link is of no use any more. An attempt that looks only for better ones is not waited for then, nor one
    /// that began when all was well.
    fn start_over(&mut self, now: Instant) {
        let (Search::Running { until, rungs }, Some(link)) = (&self.search, &self.link) else { return };
        let old = *until - (ATTEMPT_TIMEOUT - YOUNG);
        if now < old && rungs.contains(link.rung) {
            // It may bring one; but it began with what was known of the network before.
            self.again = Some(old);
        } else {
            self.search = Search::Idle;
        }
    }

    /// Whether what is amiss with the link, if anything, may be mended by an attempt for these rungs.
    fn helps(&self, rungs: RungSet) -> bool {
        let Some(link) = &self.link else { return true };
        if self.better.doubted {
            return rungs.contains(link.rung);
        }
        self.better.poor.is_none() || rungs.iter().any(|rung| !rung.is_udp())
    }

    fn hurry(&mut self, now: Instant) {
        if let Search::Waiting { until, why: Why::Offline | Why::Failed } = &mut self.search {
            *until = now.min(*until);
        }
    }
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

/// The pace of retries: 1 s, doubled each time up to 20 s, each drawn from the upper half so that two sides
/// that fail together do not stay in step.
#[derive(Debug, Default)]
struct Pace {
    failures: u32,
}

impl Pace {
    fn next(&mut self, rng: &mut Rng) -> Duration {
        let most = FIRST_RETRY.saturating_mul(1 << self.failures.min(10)).min(LAST_RETRY);
        self.failures = self.failures.saturating_add(1);
        rng.between(most / 2, most)
    }
}

/// Why there is no link to a peer that the server does not name among those who are online.
pub(super) const NOT_ONLINE: &str = "the peer is not online";
/// Why a link was left for a worse one, where its session has not said so before.
const NO_ANSWER: &str = "no answer from the peer";
/// At most one wish in this time, whatever the news: a local program may connect in a loop.
pub(super) const WISH_INTERVAL: Duration = Duration::from_secs(1);
/// The first retry of what failed.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest time between retries: the bound that the protocol sets for retries after news.
pub(super) const LAST_RETRY: Duration = Duration::from_secs(20);
/// How often a peer that is not online is asked for: its coming online is told, but a message may be lost
/// with a connection, or the server have too many who want to hear.
const OFFLINE_RETRY: Duration = Duration::from_secs(60);
/// How long the server may take to begin what it promised; both messages leave it together.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A session ends its attempts itself, by rung. This catches one that does not, and is longer than the
/// longest.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);
/// What has been tried for longer than that will hardly come any more.
const YOUNG: Duration = Duration::from_secs(3);
/// How long after the end of an attempt the session's word of its link may come.
const LINK_FOLLOWS: Duration = Duration::from_secs(2);
