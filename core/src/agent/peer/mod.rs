//! One peer: whether a link to it is wanted, whether there is one ([`held`]), and how far the search for one is
//! ([`search`]).
//!
//! While a link is wanted and not there, wishes are made: the server is asked to bring about an attempt. What was in
//! vain is repeated ever more seldom; news (the peer came online, the network changed, somebody wants to send)
//! makes the next wish due at once, but never more than one a second. The link is a matter of its own: it comes and
//! goes by what the session tells. While there is one, wishes are for a better one.
//!
//! Link and search know nothing of each other. Here is what each event means to both.

mod held;
mod search;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use held::Held;
pub(super) use held::Link;
pub(super) use search::Basis;
use search::{Search, Why};

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
    /// The last wish.
    asked: Option<Instant>,
    /// While there is a link the next wish does not wait for its time here, but for what the link plans.
    search: Search,
    pace: Pace,
    held: Option<Held>,
    switches: u64,
    /// The latest attempt, and the identity that it is for.
    attempt: Option<(AttemptId, PublicKey)>,
    outcomes: Vec<Outcome>,
    error: Option<String>,
    /// All that the peer may open here, for one of another user.
    targets: Option<Targets>,
}

impl Peer {
    /// Whether a link is wanted and not there.
    pub(super) fn wants(&self) -> bool {
        self.held.is_none() && (self.forwarded || self.wished)
    }

    /// Whether nothing would be lost by forgetting it.
    pub(super) fn is_idle(&self) -> bool {
        let busy = self.search.is_asking() || self.search.is_running();
        !(self.forwarded || self.wished || self.held.is_some() || busy)
    }

    /// Whether it is worth a line of `status`: had, wanted, or just failed.
    pub(super) fn is_worth_showing(&self) -> bool {
        !self.is_idle() || self.error.is_some()
    }

    /// When the next wish is due; none while one is under way, or nothing is wanted.
    pub(super) fn wish_due(&self, now: Instant) -> Option<Instant> {
        let due = match &self.held {
            Some(held) => held.due(self.forwarded).or_else(|| self.is_overtaken().then_some(now))?,
            None if self.wants() => now,
            None => return None,
        };
        let at = self.search.admits(due)?;
        Some(self.asked.map_or(at, |asked| at.max(asked + WISH_INTERVAL)))
    }

    /// Whether all there is is a relay's link, of an attempt that was planned by less than is known now.
    fn is_overtaken(&self) -> bool {
        let relayed = self.held.as_ref().is_some_and(|held| held.link.rung.is_relay());
        relayed && self.forwarded && self.search.is_old()
    }

    /// The rungs to wish for, of those that may be used: with a link only better ones, unless that is in doubt.
    pub(super) fn wished_rungs(&self, allowed: RungSet) -> RungSet {
        self.held.as_ref().map_or(allowed, |held| held.wished_rungs(allowed))
    }

    /// Nothing better than the link is to be had.
    pub(super) fn content(&mut self) {
        if let Some(held) = &mut self.held {
            held.content();
        }
    }

    /// Whether the server is being asked, or has yet to keep its word.
    pub(super) fn is_asking(&self) -> bool {
        self.search.is_asking()
    }

    /// The server is being asked.
    pub(super) fn asking(&mut self, now: Instant) {
        self.asked = Some(now);
        if let Some(held) = &mut self.held {
            held.asked();
        }
        self.search.asking();
    }

    /// The server agreed.
    pub(super) fn promised(&mut self, now: Instant) {
        self.search.promised(now);
    }

    /// The server did not agree.
    pub(super) fn refused(&mut self, now: Instant, refused: &Refused, rng: &mut Rng) {
        if !matches!(self.search, Search::Asking { .. }) {
            return;
        }
        match refused.code {
            Code::Offline | Code::UnknownNode => self.offline(now, refused.to_string(), rng),
            _ => self.failed(now, refused.to_string(), rng),
        }
    }

    /// An attempt begins. Says whether it is news: the server repeats itself when both sides ask.
    pub(super) fn start(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        key: PublicKey,
        (rungs, basis): (RungSet, Basis),
    ) -> bool {
        if self.attempt.is_some_and(|(latest, _)| latest == attempt) {
            if matches!(self.search, Search::Promised { .. }) {
                // Nothing more follows: it is over already.
                self.search.end();
                if let Some(held) = &mut self.held {
                    held.ask_soon(now);
                }
            }
            return false;
        }
        self.attempt = Some((attempt, key));
        if self.held.as_ref().is_some_and(|held| held.needs_more_than(now, rungs)) {
            // Nobody waits for it.
            self.search.end();
        } else {
            self.search.begin(now, rungs, basis);
        }
        true
    }

    /// An attempt cannot begin, or a wish has come to nothing.
    pub(super) fn failed(&mut self, now: Instant, reason: String, rng: &mut Rng) {
        self.error = Some(reason);
        self.wished = false;
        if let Some(held) = &mut self.held {
            self.search.end();
            held.plan_next(now, rng);
            return;
        }
        let until = now + self.pace.next(rng);
        self.wait(until, Why::Failed);
    }

    /// An attempt is over.
    pub(super) fn done(&mut self, now: Instant, attempt: AttemptId, outcomes: Vec<Outcome>, rng: &mut Rng) {
        if self.attempt.is_none_or(|(latest, _)| latest != attempt) {
            // An older one: what it came to is history, and says nothing of the one that runs.
            return;
        }
        self.outcomes = self.merged(outcomes);
        if !self.search.is_running() {
            return;
        }
        let overtaken = self.is_overtaken();
        if let Some(held) = &mut self.held {
            self.search.end();
            if overtaken {
                held.ask_again(now);
            } else {
                held.plan_next(now, rng);
            }
        } else if self.outcomes.iter().any(|outcome| outcome.outcome == Verdict::Connected) {
            self.pace = Pace::default();
            self.search.link_follows(now);
        } else {
            let tried = self.outcomes.iter().find(|outcome| outcome.outcome == Verdict::Failed);
            let reason = tried.or(self.outcomes.first()).map_or_else(
                || "no rung could be tried".to_owned(),
                |best| format!("{}: {}", best.rung, best.reason),
            );
            self.failed(now, reason, rng);
        }
    }

    /// The session has a link.
    pub(super) fn up(&mut self, now: Instant, link: Link, rng: &mut Rng) {
        let rung = link.rung;
        let left = match &mut self.held {
            Some(held) => held.replace(link),
            None => {
                self.held = Some(Held::new(link));
                None
            }
        };
        if let Some(left) = left {
            self.left(left.rung, format!("left for {rung}: {}", left.reason));
        }
        self.switches = self.switches.saturating_add(1);
        self.wished = false;
        self.error = None;
        self.pace = Pace::default();
        self.search.link_up(rung);
        if self.search.is_idle()
            && let Some(held) = &mut self.held
        {
            held.plan_first(now, rng);
        }
    }

    /// One of the link's ends is elsewhere.
    pub(super) fn moved(&mut self, now: Instant, rung: Rung, remote: SocketAddr, rng: &mut Rng) {
        let Some(held) = &mut self.held else { return };
        if held.moved(rung, remote) && self.search.is_idle() {
            held.plan_first(now, rng);
        }
    }

    /// The session's last link is gone.
    pub(super) fn down(&mut self, now: Instant, reason: String) -> Option<Via> {
        self.error = Some(reason);
        let held = self.held.take()?;
        self.search.link_useless(now, held.link.rung);
        held.link.via
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
        self.search.is_young(now)
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
        self.search.hurry(now);
    }

    /// There is news: the next wish is due, and failures count from the start again.
    pub(super) fn news(&mut self, now: Instant) {
        self.pace = Pace::default();
        self.better_news(now);
        self.search.known_more(now);
        self.search.hurry(now);
    }

    /// It is known now what this node is behind.
    pub(super) fn settled(&mut self) {
        self.search.settled();
    }

    /// There may be something better than the link: it is tried for now.
    pub(super) fn better_news(&mut self, now: Instant) {
        if let Some(held) = &mut self.held {
            held.news(now);
        }
    }

    /// The network has changed: the link may be dead, and others may lead to the peer.
    pub(super) fn network_changed(&mut self, now: Instant) {
        self.news(now);
        self.suspect(now);
    }

    /// The link loses too much over UDP: another one is tried for.
    pub(super) fn poor(&mut self, now: Instant, reason: String) {
        if let Some(held) = &mut self.held {
            self.search.link_useless(now, held.link.rung);
            held.poor(now, reason);
        }
    }

    /// The link may be dead: whatever else leads to the peer is tried.
    pub(super) fn suspect(&mut self, now: Instant) {
        if let Some(held) = &mut self.held {
            self.search.link_useless(now, held.link.rung);
            held.doubt(now);
        }
    }

    /// The server says that the peer is not there. Says whether a wish was due, which now is not made.
    pub(super) fn absent(&mut self, now: Instant, rng: &mut Rng) -> bool {
        let due = self.wants() && self.search.is_idle();
        if due {
            self.offline(now, NOT_ONLINE.to_owned(), rng);
        }
        due
    }

    /// The server says that the peer is there, which was not so the last time.
    pub(super) fn here(&mut self, now: Instant) {
        if self.search.is_offline() {
            self.news(now);
        }
    }

    /// Signalling is lost: what was asked will not be answered.
    pub(super) fn signal_lost(&mut self, now: Instant) {
        if self.search.is_asking() {
            self.search.end();
            // It may have been asked because the network had changed, which is what broke the connection.
            self.suspect(now);
        }
    }

    /// Signalling is back: what was known of the peer is old.
    pub(super) fn signal_back(&mut self, now: Instant) {
        if self.search.is_offline() {
            self.search.end();
        }
        self.search.hurry(now);
    }

    /// Ends what takes too long. Gives the reason if an attempt could not even begin.
    pub(super) fn expire(&mut self, now: Instant, rng: &mut Rng) -> Option<String> {
        self.timeout().filter(|at| *at <= now)?;
        let reason = match self.search {
            Search::Promised { .. } => "the server did not begin the attempt it promised",
            Search::Running(_) => "the attempt did not end",
            Search::LinkFollows { .. } => {
                self.search.end();
                return None;
            }
            Search::Idle | Search::Asking { .. } | Search::Waiting { .. } => return None,
        };
        self.failed(now, reason.to_owned(), rng);
        Some(reason.to_owned())
    }

    /// When [`Self::expire`] is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.search.timeout()
    }

    /// The identity that a running or a past link has proven, or is to prove.
    pub(super) fn key(&self) -> Option<PublicKey> {
        self.attempt.map(|(_, key)| key)
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.held.as_ref().map(|held| &held.link)
    }

    pub(super) fn switches(&self) -> u64 {
        self.switches
    }

    pub(super) fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Why there is no link.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref().filter(|_| self.held.is_none())
    }

    pub(super) fn state(&self) -> PeerState {
        if self.held.is_some() {
            return PeerState::Connected;
        }
        match self.search {
            Search::Waiting { why: Why::Offline, .. } => PeerState::Offline,
            Search::Waiting { why: Why::Failed, .. } => PeerState::Failed,
            Search::Idle if !self.wants() => PeerState::Failed,
            Search::Idle
            | Search::Asking { .. }
            | Search::Promised { .. }
            | Search::Running(_)
            | Search::LinkFollows { .. } => PeerState::Connecting,
        }
    }

    fn offline(&mut self, now: Instant, reason: String, rng: &mut Rng) {
        if self.held.is_some() {
            return self.failed(now, reason, rng);
        }
        self.error = Some(reason);
        self.wished = false;
        let until = now + rng.between(OFFLINE_RETRY, OFFLINE_RETRY * 5 / 4);
        self.wait(until, Why::Offline);
    }

    /// The last try was in vain; a peer that no forward leads to is not tried for again until somebody asks.
    fn wait(&mut self, until: Instant, why: Why) {
        if self.forwarded {
            self.search.wait(until, why);
        } else {
            self.search.end();
        }
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
            (untried && self.held.is_some()).then(|| known.clone())
        };
        new.into_iter().map(|new| known(&new).unwrap_or(new)).collect()
    }
}

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
/// At most one wish in this time, whatever the news: a local program may connect in a loop.
pub(super) const WISH_INTERVAL: Duration = Duration::from_secs(1);
/// The first retry of what failed.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest time between retries: the bound that the protocol sets for retries after news.
pub(super) const LAST_RETRY: Duration = Duration::from_secs(20);
/// How often a peer that is not online is asked for: its coming online is told, but a message may be lost
/// with a connection, or the server have too many who want to hear.
const OFFLINE_RETRY: Duration = Duration::from_secs(60);
