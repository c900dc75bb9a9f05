//! Peers without the server: how two nodes that have met find each other again while nobody brings them together.
//!
//! On every link the two ends agree on a secret, of randomness of both ([`ReconnectSecret`]). It stands in for the
//! punch key, and what the server's PunchStart would say is what it said the last time: where the peer may be, and
//! what it is behind. The attempts of a pair are numbered; the name of each is a hash of the secret and its number,
//! so that both sides know the names of the next ones and nobody else does.
//!
//! A side whose link is gone waits a moment, since the server may do better, and then begins one attempt after the
//! other, at a growing pace. The other side may not have noticed yet, or have lost its process: it *expects* the
//! next attempts, and the first packet of one that it has not begun itself has it begin it too ([`Agent::called`]).
//! That is what lets both sides' probes meet between two NATs, whoever noticed first.
//!
//! These attempts look for the peer where it was seen. Where its port has to be guessed, both sides have to do so at
//! the same time, and neither hears of the other before it has worked; and what is tried takes up room in NATs. So
//! ports are guessed at instants that both can tell, by the clock that they have from the server: soon at first, and
//! then rarely. The attempts at these instants have numbers of their own.
//!
//! Nothing here decides who the peer is: its links prove the key that is pinned. Relays are out of reach, since
//! only the server gives permissions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::io::Action;
use super::{Agent, relay};
use crate::ids::{AttemptId, PeerName, PublicKey};
use crate::link::Role;
use crate::nat::NatReport;
use crate::path::{Candidate, CandidateKind, Transport};
use crate::punch::{Effort, Plan};
use crate::rng::Rng;
use crate::session::Attempt;
use crate::wire::message::MAX_CANDIDATES;

/// What two nodes have agreed on for the time without a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReconnectSecret([u8; 32]);

impl ReconnectSecret {
    /// Of the randomness of the controlling and of the other side.
    pub fn agree(controlling: &[u8; 32], controlled: &[u8; 32]) -> Self {
        let hash = Sha256::new_with_prefix("inp2p reconnect 1");
        Self(hash.chain_update(controlling).chain_update(controlled).finalize().into())
    }

    /// The name of the attempt of that number.
    fn attempt(&self, number: u64) -> AttemptId {
        let hash = Sha256::new_with_prefix("inp2p reconnect attempt 1");
        let hash: [u8; 32] = hash.chain_update(self.0).chain_update(number.to_be_bytes()).finalize().into();
        AttemptId(std::array::from_fn(|at| hash.get(at).copied().unwrap_or_default()))
    }

    /// The first slot for guessing after that time of those that are `every` apart, and when it begins.
    fn slot(&self, unix: Duration, every: u64) -> (u64, Duration) {
        let hash = Sha256::new_with_prefix("inp2p reconnect slots 1");
        let [one, two, ..]: [u8; 32] = hash.chain_update(self.0).finalize().into();
        // Each pair has its own, so that those of one node do not compete for always the same.
        let first = u64::from(u16::from_be_bytes([one, two]));
        let every = every.max(1);
        let slot = ((unix.as_secs() / SLOT.as_secs() + first) / every + 1).saturating_mul(every);
        (slot, Duration::from_secs(slot.saturating_sub(first).saturating_mul(SLOT.as_secs())))
    }
}

impl fmt::Debug for ReconnectSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReconnectSecret")
    }
}

/// What a node keeps of a peer for the time without a server, in the pin file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(serialize_with = "hexed", deserialize_with = "unhexed")]
    pub(super) secret: ReconnectSecret,
    /// Where it may be, at most [`MAX_CANDIDATES`].
    pub(super) candidates: Vec<Candidate>,
}

/// An attempt that the peer may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub attempt: AttemptId,
    /// What proves that somebody who knows it means it.
    pub punch_key: ExpectedKey,
}

/// A punch key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ExpectedKey(pub [u8; 32]);

impl fmt::Debug for ExpectedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExpectedKey")
    }
}

/// All peers that may be found again.
#[derive(Debug, Default)]
pub(super) struct Reconnects {
    known: BTreeMap<PeerName, Known>,
    /// Where peers are and what they are behind, as the server said last.
    located: BTreeMap<PeerName, (Vec<Candidate>, NatReport)>,
    /// Which attempts are expected, as the driver was told.
    expected: BTreeMap<AttemptId, (PeerName, u64)>,
    /// Whether that may have changed.
    stale: bool,
}

#[derive(Debug)]
struct Known {
    kept: Kept,
    /// The number of the latest attempt.
    latest: u64,
    /// Its name, while the session is trying.
    running: Option<AttemptId>,
    /// When the next one is due, if this side is to begin it.
    due: Option<Instant>,
    failures: u32,
    /// When the peer last had an attempt begun here.
    called: Option<Instant>,
    /// Whether there is a link.
    linked: bool,
    guess: Guess,
}

/// When ports are guessed for a peer.
#[derive(Debug, Default)]
struct Guess {
    /// The next time, and the attempt's number.
    next: Option<(Instant, u64)>,
    /// How often that was in vain.
    failures: u32,
    /// The latest attempt.
    attempt: Option<AttemptId>,
}

impl Reconnects {
    /// What was kept of peers before the program started.
    pub(super) fn new(now: Instant, kept: impl Iterator<Item = (PeerName, Kept)>) -> Self {
        let known = kept.map(|(name, kept)| (name, Known::new(now, kept)));
        Self { known: known.collect(), stale: true, ..Self::default() }
    }

    /// A secret was agreed on, or the peer is known to be elsewhere. Gives what is to be kept, if that is news.
    fn learn(&mut self, now: Instant, name: &PeerName, kept: Kept) -> Option<Kept> {
        match self.known.get_mut(name) {
            Some(known) if known.kept == kept => None,
            Some(known) => {
                if known.kept.secret != kept.secret {
                    (known.latest, known.failures, known.guess) = (0, 0, Guess::default());
                }
                known.kept = kept.clone();
                self.stale = true;
                Some(kept)
            }
            None => {
                if self.known.len() >= MAX_KNOWN {
                    let idle =
                        self.known.iter().find(|(_, known)| !known.linked).map(|(name, _)| name.clone())?;
                    self.known.remove(&idle);
                }
                self.known
                    .insert(name.clone(), Known { linked: true, due: None, ..Known::new(now, kept.clone()) });
                self.stale = true;
                Some(kept)
            }
        }
    }

    /// There is a link.
    pub(super) fn up(&mut self, name: &PeerName) {
        if let Some(known) = self.known.get_mut(name) {
            (known.linked, known.due, known.failures, known.running) = (true, None, 0, None);
            known.guess = Guess::default();
            self.stale = true;
        }
    }

    /// There is none any more.
    pub(super) fn down(&mut self, now: Instant, name: &PeerName) {
        if let Some(known) = self.known.get_mut(name) {
            (known.linked, known.due) = (false, Some(now + GRACE));
            self.stale = true;
        }
    }

    /// An attempt is over. Whether it was one of these.
    pub(super) fn done(&mut self, name: &PeerName, attempt: AttemptId) -> bool {
        let Some(known) = self.known.get_mut(name) else { return false };
        known.running.take_if(|running| *running == attempt).is_some()
            || known.guess.attempt == Some(attempt)
            || (known.latest.saturating_sub(AHEAD)..=known.latest)
                .any(|number| known.kept.secret.attempt(number) == attempt)
    }

    /// What is kept of a peer.
    pub(super) fn kept(&self, name: &PeerName) -> Option<&Kept> {
        self.known.get(name).map(|known| &known.kept)
    }

    /// The next peer for which an attempt is due.
    fn next(&self, now: Instant) -> Option<PeerName> {
        let due = |known: &Known| known.due.is_some_and(|at| at <= now);
        self.known.iter().find(|(_, known)| due(known)).map(|(name, _)| name.clone())
    }

    /// The next peer that ports are to be guessed for.
    fn next_guess(&self, now: Instant) -> Option<PeerName> {
        let due = |known: &Known| known.guess.next.is_some_and(|(at, _)| at <= now);
        self.known.iter().find(|(_, known)| due(known)).map(|(name, _)| name.clone())
    }

    /// Sees to it that ports are to be guessed for those peers that are looked for, and no others.
    fn plan_guesses(&mut self, now: Instant, unix: Duration) {
        for known in self.known.values_mut() {
            let next = known.due.and(known.guess.next.or_else(|| {
                let (slot, begins) = known.kept.secret.slot(unix + GRACE, known.guess.every());
                Some((now + begins.saturating_sub(unix), GUESSES.saturating_add(slot)))
            }));
            self.stale |= next != known.guess.next;
            known.guess.next = next;
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let guesses = self.known.values().filter_map(|known| known.guess.next).map(|(at, _)| at);
        let next = self.known.values().filter_map(|known| known.due).chain(guesses).min();
        next.map(|at| (at, "look for a peer without the server"))
    }

    /// Which attempts are expected now, if that is news.
    fn expect(&mut self) -> Option<Vec<Expected>> {
        if !std::mem::take(&mut self.stale) {
            return None;
        }
        let mut expected = BTreeMap::new();
        let mut list = Vec::new();
        for (name, known) in self.known.iter().filter(|(_, known)| !known.linked) {
            // A peer that has lost its process counts from the start.
            let guess = known.guess.next.map(|(_, number)| number);
            let numbers: BTreeSet<u64> = (1..=AHEAD)
                .chain(guess)
                .chain(known.latest.saturating_add(1)..=known.latest.saturating_add(AHEAD))
                .collect();
            for number in numbers {
                let attempt = known.kept.secret.attempt(number);
                expected.insert(attempt, (name.clone(), number));
                list.push(Expected { attempt, punch_key: ExpectedKey(known.kept.secret.0) });
            }
        }
        self.expected = expected;
        Some(list)
    }
}

impl Known {
    fn new(now: Instant, kept: Kept) -> Self {
        Self {
            kept,
            latest: 0,
            running: None,
            due: Some(now + GRACE),
            failures: 0,
            called: None,
            linked: false,
            guess: Guess::default(),
        }
    }

    /// When this side begins the next attempt.
    fn plan(&mut self, now: Instant, rng: &mut Rng) {
        let wait = match self.failures {
            failures if failures < LONG_GONE => {
                FIRST.saturating_mul(1 << failures.min(MAX_DOUBLINGS)).min(LAST)
            }
            _ => RARELY,
        };
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + rng.between(wait * 3 / 4, wait));
    }
}

impl Guess {
    /// How many slots the next one is apart from the one before it: those that are further apart are among those
    /// that are less so, and two sides that do not count the same meet at them.
    fn every(&self) -> u64 {
        self.failures.checked_sub(1).map_or(1, |failures| SECOND_GUESS << failures.min(MAX_GUESS_DOUBLINGS))
    }
}

impl Agent {
    /// The session has agreed on a secret with the peer.
    pub(super) fn agreed(&mut self, now: Instant, name: &PeerName, secret: ReconnectSecret) {
        let located = self.reconnects.located.get(name).map(|(candidates, _)| candidates.clone());
        let kept = || self.reconnects.kept(name).map(|kept| kept.candidates.clone());
        let candidates = located.or_else(kept).unwrap_or_default();
        self.keep(now, name, Kept { secret, candidates });
    }

    /// The server says where the peer is, and what it is behind.
    pub(super) fn located(&mut self, now: Instant, name: &PeerName, found: &[Candidate], nat: NatReport) {
        let located = &mut self.reconnects.located;
        if located.len() < MAX_KNOWN || located.contains_key(name) {
            located.insert(name.clone(), (found.to_vec(), nat));
        }
        if let Some(kept) = self.reconnects.kept(name).cloned() {
            self.keep(now, name, Kept { candidates: found.to_vec(), ..kept });
        }
    }

    /// Where a link over UDP leads to is where the peer is seen.
    pub(super) fn seen(&mut self, now: Instant, name: &PeerName, remote: std::net::SocketAddr) {
        let Some(kept) = self.reconnects.kept(name).cloned() else { return };
        if kept.candidates.iter().any(|known| known.address == remote && known.transport == Transport::Udp) {
            return;
        }
        let seen =
            Candidate { kind: CandidateKind::ServerReflexive, transport: Transport::Udp, address: remote };
        let is_seen = |known: &Candidate| (known.kind, known.transport) == (seen.kind, seen.transport);
        // What the server saw before is not true any more; but at the same address it may be, because a link may have
        // been by a socket that has gone with it.
        let before = kept.candidates.iter().rev().find(|known| is_seen(known));
        let before = before.filter(|known| known.address.ip() == remote.ip()).copied();
        let others = kept.candidates.iter().filter(|known| !is_seen(known)).copied();
        let candidates = std::iter::once(seen).chain(before).chain(others).take(MAX_CANDIDATES).collect();
        self.keep(now, name, Kept { candidates, ..kept });
    }

    fn keep(&mut self, now: Instant, name: &PeerName, kept: Kept) {
        let new = self.reconnects.learn(now, name, kept);
        if let Some(content) = new.and_then(|kept| self.pins.keep_peer(name, kept)) {
            self.actions.push_back(Action::Save { name: super::PINS_FILE, content });
        }
    }

    /// A packet of an attempt came that is expected: the peer has begun it.
    pub(super) fn called(&mut self, now: Instant, attempt: AttemptId) {
        let Some((name, number)) = self.reconnects.expected.get(&attempt).cloned() else { return };
        let Some(known) = self.reconnects.known.get_mut(&name) else { return };
        if known.linked || known.called.is_some_and(|at| now < at + CALL_INTERVAL) {
            return;
        }
        known.called = Some(now);
        self.reconnect(now, &name, number);
    }

    /// Begins what is due, and tells the driver what is expected.
    pub(super) fn reconnects(&mut self, now: Instant) {
        while let Some(name) = self.reconnects.next(now) {
            let peer = self.peers.known(&name).map(|(peer, _)| (peer.wants(), peer.is_trying(now)));
            let (wanted, brought) = peer.unwrap_or_default();
            let Some(known) = self.reconnects.known.get_mut(&name) else { break };
            let number = known.latest.saturating_add(1);
            if brought {
                // What the server has brought about is better, and soon over.
                known.due = Some(now + GRACE);
                continue;
            }
            let Some((_, rng)) = self.peers.enter(&name) else {
                known.due = None;
                continue;
            };
            known.plan(now, rng);
            // Who has nothing to say looks for its peer for a while only.
            if !wanted && known.failures > UNASKED {
                known.due = None;
            } else {
                self.reconnect(now, &name, number);
            }
        }
        self.guess(now);
        if let Some(expected) = self.reconnects.expect() {
            self.actions.push_back(Action::Expect(expected));
        }
    }

    /// Begins the attempts that guess ports, and plans the next.
    fn guess(&mut self, now: Instant) {
        while let Some(name) = self.reconnects.next_guess(now) {
            let brought = self.peers.known(&name).is_some_and(|(peer, _)| peer.is_trying(now));
            let Some(known) = self.reconnects.known.get_mut(&name) else { break };
            let Some((_, number)) = known.guess.next.take() else { break };
            if !brought {
                self.reconnect(now, &name, number);
            }
        }
        let unix = self.unix(now);
        self.reconnects.plan_guesses(now, unix);
    }

    fn reconnect(&mut self, now: Instant, name: &PeerName, number: u64) {
        let Some(key) = self.pinned(name) else { return };
        let rungs = self.config.rungs.iter().filter(|rung| !rung.is_relay()).collect();
        let own_nat = self.nat.report;
        let Some(known) = self.reconnects.known.get_mut(name) else { return };
        let (id, punch_key) = (known.kept.secret.attempt(number), known.kept.secret.0);
        if known.running.is_some_and(|running| running == id) {
            return;
        }
        let candidates = known.kept.candidates.clone();
        let peer_nat = self.reconnects.located.get(name).map(|(_, nat)| *nat).unwrap_or_default();
        let guesses = number > GUESSES;
        let attempt = Attempt {
            id,
            punch_key,
            candidates,
            rungs,
            relays: Vec::new(),
            own_nat,
            peer_nat,
            tcp_in: None,
            effort: if guesses { Effort::Once } else { Effort::Plain },
            budget: self.budget.clone(),
        };
        let Some((peer, _)) = self.peers.enter(name) else { return };
        if peer.link().is_some() || !peer.is_for(key) {
            return;
        }
        let targets = relay::limits(name, peer.targets().cloned());
        // What the guess takes up, and what there is room for.
        let role = if self.config.identity.public() < key { Role::Controlling } else { Role::Controlled };
        let entries = Plan::new(&attempt.situation(role)).entries();
        let room = self.budget.room_to_guess(now, true);
        let Some(known) = self.reconnects.known.get_mut(name) else { return };
        if guesses {
            if entries > room {
                return;
            }
            known.guess.failures = known.guess.failures.saturating_add(1);
            if entries == 0 {
                // Nothing has to be guessed: the other attempts do.
                return;
            }
            known.guess.attempt = Some(id);
            // It would give way to another.
            known.due = known.due.map(|due| due.max(now + SLOT));
        } else {
            known.latest = known.latest.max(number);
        }
        known.running = Some(id);
        self.reconnects.stale = true;
        tracing::debug!(peer = %name, number, guesses, "looking for the peer without the server");
        self.counters.attempts += 1;
        let attempt = Box::new(attempt);
        self.actions.push_back(Action::Attempt { peer: name.clone(), key, attempt, targets });
    }

    fn pinned(&self, name: &PeerName) -> Option<PublicKey> {
        self.config.peer_pins.get(name).copied().or_else(|| self.pins.peer(name))
    }
}

fn hexed<S: serde::Serializer>(secret: &ReconnectSecret, serializer: S) -> Result<S::Ok, S::Error> {
    // The text of a key has the length and the alphabet that is wanted.
    serializer.serialize_str(&PublicKey(secret.0).to_string())
}

fn unhexed<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ReconnectSecret, D::Error> {
    let text = String::deserialize(deserializer)?;
    let key: PublicKey = text.parse().map_err(serde::de::Error::custom)?;
    Ok(ReconnectSecret(key.0))
}

/// How long the server has first: the link that is gone has been silent for three seconds by then, and streams
/// wait for thirty.
const GRACE: Duration = Duration::from_secs(2);
/// The pace of attempts: an attempt over UDP lasts some seconds, and two sides that try in turns still meet.
const FIRST: Duration = Duration::from_secs(5);
const LAST: Duration = Duration::from_secs(20);
/// After so many in vain, some four minutes, the peer is gone for longer, and its network is asked less.
const LONG_GONE: u32 = 14;
/// As often as a peer that is not online is asked for at the server.
const RARELY: Duration = Duration::from_secs(75);
const MAX_DOUBLINGS: u32 = 3;
/// Attempts that guess ports begin at multiples of that; longer than one round lasts.
const SLOT: Duration = Duration::from_secs(8);
/// What their numbers begin after.
const GUESSES: u64 = 1 << 63;
/// How many slots the second guess is from the first at most, 128 s: by then NATs have forgotten that one. Then
/// doubled so often, up to a quarter of an hour and a little.
const SECOND_GUESS: u64 = 16;
const MAX_GUESS_DOUBLINGS: u32 = 3;
/// How often a side looks for a peer that it wants nothing of: the streams that the peer had here are over by then.
const UNASKED: u32 = 6;
/// How often the peer's packets begin an attempt here.
const CALL_INTERVAL: Duration = Duration::from_secs(1);
/// How many attempts ahead are expected.
const AHEAD: u64 = 8;
/// Peers that are kept: with sixteen attempts each that are expected, half a megabyte.
const MAX_KNOWN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_have_names_that_only_the_two_can_tell() {
        let secret = ReconnectSecret::agree(&[1; 32], &[2; 32]);
        assert_eq!(secret, ReconnectSecret::agree(&[1; 32], &[2; 32]));
        assert_ne!(secret, ReconnectSecret::agree(&[2; 32], &[1; 32]));
        assert_ne!(secret.attempt(1), secret.attempt(2));
        assert_eq!(format!("{secret:?}"), "ReconnectSecret");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn the_next_attempts_and_the_first_ones_are_expected_of_peers_without_a_link() {
        let now = Instant::now();
        let name: PeerName = "b".parse().unwrap();
        let kept = Kept { secret: ReconnectSecret::agree(&[1; 32], &[2; 32]), candidates: Vec::new() };
        let mut all = Reconnects::new(now, std::iter::once((name.clone(), kept.clone())));
        assert_eq!(all.expect().unwrap().len(), 8);
        assert!(all.expect().is_none(), "no news");
        all.known.get_mut(&name).unwrap().latest = 100;
        all.stale = true;
        let expected = all.expect().unwrap();
        assert_eq!(expected.len(), 16);
        assert!(expected.iter().any(|one| one.attempt == kept.secret.attempt(101)));
        all.up(&name);
        assert_eq!(all.expect().unwrap(), []);
    }

    #[test]
    fn slots_that_are_further_apart_are_among_those_that_are_less_so() {
        for seed in 0..50 {
            let secret = ReconnectSecret::agree(&[seed; 32], &[2; 32]);
            let unix = Duration::from_millis(1_700_000_000_000 + u64::from(seed) * 777);
            for every in [1, 16, 32, 64, 128] {
                let (slot, begins) = secret.slot(unix, every);
                assert_eq!(slot % every, 0);
                assert!(begins > unix && begins <= unix + SLOT * u32::try_from(every).unwrap());
                assert_eq!(secret.slot(begins - Duration::from_millis(1), 1), (slot, begins));
            }
        }
    }

    #[test]
    fn what_is_kept_is_text() {
        let kept = Kept { secret: ReconnectSecret::agree(&[1; 32], &[2; 32]), candidates: Vec::new() };
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
    }
}
