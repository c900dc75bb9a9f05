//! Links through relays: when they are dialled, what is said to the relay, and what is said of it afterwards.
//!
//! A relay is the last resort, so it gives the direct rungs their first round trips: [`HEAD_START`], and as much
//! again for each better tier that there is; none where nothing else can be tried, or where all of that has
//! failed. Relays of one tier are dialled together, and both nodes dial: a relay never does. On the connection
//! the node first proves to the relay that it may use it ([`Dialer`]); what it has to say to its peer, preface
//! and TLS, goes out right behind that, unasked, and the peer's comes behind the relay's word that it is there.
//!
//! The server's relay has one more way in, a WebSocket: it is taken where its addresses lead nowhere, or to
//! something that is silent for [`SILENCE`] or speaks another language, as proxies and filters do.

use std::time::{Duration, Instant};

use super::attempt::Run;
use super::carrier::{Carrier, Slot};
use super::{Action, LinkId, Session};
use crate::agent::io::{SessionNews, Via};
use crate::ids::{AttemptId, PublicKey};
use crate::link::LinkKeys;
use crate::path::Rung;
use crate::punch::tcp::From;
use crate::relay::{Access, DialError, Dialer, Reason, Tier};

/// The relay that a connection goes to.
#[derive(Debug)]
pub(super) struct Through {
    access: Access,
    /// When the connection was up: the challenge comes a round trip later.
    since: Option<Instant>,
    /// Whether it said no, in the relays' own words.
    refused: bool,
    blame: Blame,
}

/// Whose fault it is if nothing comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The relay's: it is not to be offered again soon.
    Relay,
    /// That of what was shown to it: another permission may do.
    Permission,
    /// The peer's, or nobody's.
    Nobody,
}

/// The handshake with the relay, before a link begins.
pub(super) struct Door {
    dialer: Dialer,
    /// What goes to the peer once the response is out.
    held: Vec<u8>,
}

/// A relay of an attempt.
#[derive(Debug)]
pub(super) struct Offered {
    access: Access,
    /// Which of its ways in is next: its addresses, then the WebSocket if it has one.
    next: usize,
    /// When the last of them was tried, as long as there was no answer.
    unanswered: Option<Instant>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Its turn has not come.
    Waiting,
    Dialled,
    Failed(String),
}

impl Through {
    fn new(access: Access) -> Self {
        Self { access, since: None, refused: false, blame: Blame::Relay }
    }

    pub(super) fn rung(&self) -> Rung {
        self.access.offer.tier.rung()
    }

    /// As the agent is told it.
    pub(super) fn via(&self) -> Via {
        Via { relay: self.access.offer.key, name: self.access.offer.relay.clone() }
    }
}

impl Door {
    /// Goes through as far as `input` leads: how much of it is done with, and whether the peer is behind the
    /// rest. What is to be sent is appended to `out`.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), DialError> {
        let used = self.dialer.receive(now, input, out)?;
        if self.dialer.has_responded() {
            out.append(&mut self.held);
        }
        Ok((used, self.dialer.is_paired()))
    }
}

impl Offered {
    pub(super) fn new(access: Access) -> Self {
        Self { access, next: 0, unanswered: None, state: State::Waiting }
    }

    fn key(&self) -> PublicKey {
        self.access.offer.key
    }

    fn tier(&self) -> Tier {
        self.access.offer.tier
    }

    /// How many ways in it has.
    fn ways(&self) -> usize {
        self.access.offer.addresses.len() + usize::from(self.access.offer.websocket)
    }

    /// When the WebSocket is tried beside an address that does not answer.
    fn websocket_due(&self) -> Option<Instant> {
        let last = self.access.offer.websocket && self.next + 1 == self.ways();
        let at = self.unanswered.filter(|_| last && self.state == State::Dialled)?;
        Some(at + SILENCE)
    }

    pub(super) fn rung(&self) -> Rung {
        self.tier().rung()
    }

    /// What became of it, for people; none if it was not tried.
    pub(super) fn why(&self) -> Option<String> {
        let via = self.access.offer.via();
        match &self.state {
            State::Waiting => None,
            State::Dialled => Some(format!("{via}: no answer")),
            State::Failed(reason) => Some(format!("{via}: {reason}")),
        }
    }
}

impl Run {
    /// When the next relay's turn comes. `alone` says that nothing but relays is left to try.
    fn relay_due(&self, alone: bool) -> Option<Instant> {
        if !self.is_running() || self.is_up {
            return None;
        }
        let waiting = self.relays.iter().filter(|relay| relay.state == State::Waiting);
        let tier = waiting.map(Offered::tier).min()?;
        // Those of better tiers that have not failed yet.
        let mut before: Vec<Tier> = self
            .relays
            .iter()
            .filter(|relay| relay.tier() < tier && !matches!(relay.state, State::Failed(_)))
            .map(Offered::tier)
            .collect();
        before.dedup();
        let turns = u32::try_from(before.len()).unwrap_or(u32::MAX).saturating_add(u32::from(!alone));
        Some(self.started + HEAD_START.saturating_mul(turns))
    }

    /// When a WebSocket is tried beside an address that does not answer.
    fn websocket_due(&self) -> Option<Instant> {
        let seeking = self.is_running() && !self.is_up;
        self.relays.iter().filter(|_| seeking).filter_map(Offered::websocket_due).min()
    }
}

impl Session {
    /// More relays for an attempt. Those that it has had are tried again with what is shown now.
    pub fn relays(&mut self, now: Instant, attempt: AttemptId, relays: Vec<Access>) {
        let Some(run) = self.runs.iter_mut().find(|run| run.id() == attempt && run.is_running()) else {
            return;
        };
        for access in relays {
            let room = run.relays.len() < MAX_RELAYS;
            match run.relays.iter_mut().find(|relay| relay.key() == access.offer.key) {
                Some(known) if known.state == State::Dialled => {}
                Some(known) => *known = Offered::new(access),
                None if room => run.relays.push(Offered::new(access)),
                None => {}
            }
        }
        run.relays.sort_by_key(Offered::tier);
        self.dial_relays(now);
    }

    /// When [`Self::dial_relays`] has something to do.
    pub(super) fn relay_deadline(&self) -> Option<Instant> {
        let turns = self.runs.iter().filter_map(|run| run.relay_due(self.is_alone(run.id())));
        turns.chain(self.runs.iter().filter_map(Run::websocket_due)).min()
    }

    /// Dials the relays whose turn it is.
    pub(super) fn dial_relays(&mut self, now: Instant) {
        let mut dials: Vec<(AttemptId, Access, usize)> = Vec::new();
        let links = &self.links;
        for run in &mut self.runs {
            let id = run.id();
            let alone = is_alone(links, id);
            loop {
                let turn = run.relay_due(alone).is_some_and(|at| at <= now);
                let silent = run.websocket_due().is_some_and(|at| at <= now);
                let mut relays = run.relays.iter_mut();
                let relay = match (turn, silent) {
                    (true, _) => {
                        relays.filter(|relay| relay.state == State::Waiting).min_by_key(|relay| relay.tier())
                    }
                    (false, true) => relays.find(|relay| relay.websocket_due().is_some_and(|at| at <= now)),
                    (false, false) => None,
                };
                let Some(relay) = relay else { break };
                if relay.next < relay.ways() {
                    relay.state = State::Dialled;
                    relay.unanswered = Some(now);
                    dials.push((id, relay.access.clone(), relay.next));
                    relay.next += 1;
                } else {
                    relay.state = State::Failed("no address".to_owned());
                }
            }
        }
        for (attempt, access, way) in dials {
            let addresses = &access.offer.addresses;
            let to = addresses.get(way).copied();
            // Inside a WebSocket it is the server still, wherever that is.
            let remote = to.or_else(|| addresses.first().copied());
            let link = self.add_slot(now, attempt, remote, Carrier::Dialled);
            if let Some(slot) = self.slot_mut(link) {
                slot.relay = Some(Box::new(Through::new(access)));
            }
            self.actions.push_back(match to {
                Some(to) => Action::Dial { link, to, from: From::Any },
                None => Action::DialServer { link },
            });
        }
    }

    /// The relay at the other end of a link has answered: what its round trip is, once.
    pub(super) fn entered(&mut self, now: Instant, link: LinkId) {
        let Some(slot) = self.links.iter_mut().find(|slot| slot.id == link) else { return };
        let Some(through) = slot.relay.as_mut().filter(|through| through.blame == Blame::Relay) else {
            return;
        };
        // From here on it does what it should; whether the peer comes is another matter.
        through.blame = Blame::Nobody;
        let relay = through.access.offer.key;
        if let Some(since) = through.since {
            let rtt = now.saturating_duration_since(since);
            self.actions.push_back(Action::News(SessionNews::RelayRtt { relay, rtt }));
        }
        let attempt = slot.attempt;
        let run = self.runs.iter_mut().find(|run| run.id() == attempt);
        if let Some(offered) = run.and_then(|run| run.relays.iter_mut().find(|known| known.key() == relay)) {
            offered.unanswered = None;
        }
        // What is shown to a relay is good for once: on no other way in as well.
        self.close_where(now, "another way to the same relay was faster", |slot| {
            let unheard = |other: &Through| other.access.offer.key == relay && other.blame == Blame::Relay;
            slot.attempt == attempt && slot.relay.as_deref().is_some_and(unheard)
        });
    }

    /// The relay said no, or is none.
    pub(super) fn turned_away(&mut self, now: Instant, link: LinkId, error: &DialError) {
        if let Some(through) = self.slot_mut(link).and_then(|slot| slot.relay.as_mut()) {
            through.refused = matches!(error, DialError::Refused { .. } | DialError::Other(_));
            through.blame = match error {
                DialError::Refused { reason: Reason::NoPeer | Reason::Replaced } => Blame::Nobody,
                DialError::Refused { reason } if reason.wants_new_permission() => Blame::Permission,
                DialError::Refused { .. } | DialError::Other(_) | DialError::NotARelay => Blame::Relay,
            };
        }
        self.end(now, link, &error.to_string());
    }

    /// A connection to a relay, or the link through it, is over before it carried anything.
    pub(super) fn relay_failed(&mut self, now: Instant, attempt: AttemptId, through: &Through, reason: &str) {
        let relay = through.access.offer.key;
        let at = |slot: &Slot| slot.relay.as_ref().is_some_and(|other| other.access.offer.key == relay);
        if self.links.iter().any(|slot| slot.attempt == attempt && at(slot)) {
            // Another way to the same relay is being tried.
            return;
        }
        let Some(run) = self.runs.iter_mut().find(|run| run.id() == attempt) else { return };
        if let Some(offered) = run.relays.iter_mut().find(|offered| offered.key() == relay) {
            // What connected, and was no relay, may be a proxy that lets only HTTP through.
            let proxy = offered.next == offered.access.offer.addresses.len() && through.blame == Blame::Relay;
            let unheard = !through.refused && (through.since.is_none() || proxy);
            let more = unheard && offered.next < offered.ways();
            offered.state = if more { State::Waiting } else { State::Failed(reason.to_owned()) };
            if more {
                return self.dial_relays(now);
            }
        }
        let used_up = run.relays.iter().all(|offered| matches!(offered.state, State::Failed(_)));
        let wanted = run.is_running()
            && !run.is_up
            && run.asked < MAX_ASKED
            && (used_up || through.blame == Blame::Permission);
        if through.blame == Blame::Relay {
            let news = SessionNews::RelayFailed { relay, reason: reason.to_owned() };
            self.actions.push_back(Action::News(news));
        }
        if wanted {
            run.asked += 1;
            self.actions.push_back(Action::News(SessionNews::RelaysWanted { attempt }));
        }
        self.dial_relays(now);
    }

    fn is_alone(&self, attempt: AttemptId) -> bool {
        is_alone(&self.links, attempt)
    }
}

impl Slot {
    /// The connection to a relay is up: begins the handshake with it. `early` is what goes to the peer.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        (keys, own, peer): (&LinkKeys, PublicKey, PublicKey),
        early: &mut Vec<u8>,
    ) -> Option<Door> {
        let through = self.relay.as_mut()?;
        through.since = Some(now);
        let held = std::mem::take(early);
        let dialer = Dialer::new(keys.clone(), own, peer, &through.access, early);
        Some(Door { dialer, held })
    }
}

/// Whether nothing but relays is left to try in an attempt.
fn is_alone(links: &[Slot], attempt: AttemptId) -> bool {
    !links.iter().any(|slot| slot.attempt == attempt && slot.relay.is_none())
}

/// What the direct rungs have before the first relay is dialled, and a tier before the next: two round trips of
/// most paths, and nothing that a person feels.
const HEAD_START: Duration = Duration::from_millis(250);
/// How long an address of the server may be silent before a WebSocket is tried beside it: a SYN, its repetition
/// after 1 s, and a round trip.
const SILENCE: Duration = Duration::from_secs(2);
/// The most relays of one attempt: what comes with it, and as many again for the asking.
const MAX_RELAYS: usize = 16;
/// How often an attempt asks for more: once for those that were of no use, once for permissions too old.
const MAX_ASKED: u32 = 2;
