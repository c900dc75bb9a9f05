//! What the sessions tell: of their links to the peers, of relays, and of how attempts went.

use std::time::{Duration, Instant};

use super::io::{Action, SessionNews};
use super::online::Asked;
use super::peer::Link;
use super::{Agent, PINS_FILE};
use crate::ids::PeerName;
use crate::path::Outcome;
use crate::wire::message::{AttemptReport, MAX_OUTCOMES};

impl Agent {
    pub(super) fn session(&mut self, now: Instant, name: &PeerName, event: SessionNews) {
        let Some((peer, rng)) = self.peers.enter(name) else { return };
        match event {
            SessionNews::Wanted => peer.wanted(now),
            SessionNews::Up { rung, remote, via } => {
                tracing::info!(target: LINKS, peer = %name, %rung, "link up");
                self.counters.links += 1;
                peer.up(now, Link { rung, remote, via }, rng);
                self.reconnects.up(name);
                // It has proven the key now.
                let pin = peer.key().and_then(|key| self.pins.pin_peer(name, key));
                if let Some(content) = pin {
                    self.actions.push_back(Action::Save { name: PINS_FILE, content });
                }
                if rung.is_udp() {
                    self.seen(now, name, remote);
                }
            }
            SessionNews::Moved { rung, remote } => {
                peer.moved(now, rung, remote, rng);
                self.seen(now, name, remote);
            }
            SessionNews::Agreed(secret) => self.agreed(now, name, secret),
            SessionNews::Poor { rung, reason } => {
                tracing::info!(peer = %name, %rung, reason, "the link over UDP is poor: another is sought");
                peer.poor(now, reason);
            }
            SessionNews::Suspect => {
                tracing::debug!(peer = %name, "the link does not answer");
                peer.suspect(now);
                // It may be this node's own network.
                self.signal.doubt(now);
            }
            SessionNews::Down { reason, by_peer } => {
                tracing::info!(target: LINKS, peer = %name, reason, "link down");
                if !by_peer {
                    self.signal.doubt(now);
                }
                self.reconnects.down(now, name);
                if let Some(via) = peer.down(now, reason).filter(|via| via.name.is_some() && !by_peer) {
                    // Unless it turns out that the peer was gone.
                    self.relaying.died(now, via.relay, Some(name));
                }
            }
            SessionNews::RelayRtt { relay, rtt } => self.relaying.measured(relay, rtt),
            SessionNews::RelayFailed { relay, reason } => {
                tracing::debug!(peer = %name, %relay, reason, "relay of no use");
                if relay != self.signal.server().unwrap_or(relay) {
                    self.relaying.died(now, relay, None);
                }
            }
            SessionNews::RelaysWanted { attempt } => self.relays_wanted(now, name.clone(), attempt),
            SessionNews::AttemptDone { attempt, outcomes } => {
                let outcomes: Vec<Outcome> = outcomes.into_iter().take(MAX_OUTCOMES).collect();
                if self.nat.report.counts() {
                    // In time for the next attempt, with this peer or another.
                    self.actions.push_back(Action::Mapped(Duration::ZERO));
                }
                peer.done(now, attempt, outcomes.clone(), rng);
                if self.reconnects.done(name, attempt) {
                    // The server knows nothing of it.
                    return;
                }
                let report = AttemptReport { attempt, outcomes, rtts: self.relaying.rtts() };
                self.signal.ask(now, Asked::AttemptReport(attempt), &report, &mut self.actions);
            }
        }
    }
}

/// The target of the log lines that say which link carries a session.
pub const LINKS: &str = "inp2p_core::agent::links";
