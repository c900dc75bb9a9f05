//! The report to the server: where this node can be reached, and for whom it looks. The answer says who is there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::forwards::own;
use super::io::Action;
use super::online::Asked;
use super::{Agent, peer};
use crate::ids::PeerName;
use crate::wire::message::{MAX_PEERS, Refused, Report, ReportReply};

/// How the report of this connection stands.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    /// When the next one is to go out; none if the server knows all there is to know.
    pub(super) due: Option<Instant>,
    pub(super) under_way: bool,
    /// Whether one has been answered. Until then nobody is wished for: the answer says who is there.
    pub(super) answered: bool,
}

impl Reporting {
    /// What was reported is not true any more.
    pub(super) fn change(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    /// Whether there is more to say than the server has confirmed.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.under_way || self.due.is_some_and(|due| due <= now)
    }
}

impl Agent {
    pub(super) fn send_report(&mut self, now: Instant) {
        let due = self.report.due.is_some_and(|at| at <= now) && self.awaits_nat().is_none();
        if !due || self.report.under_way || self.signal.online().is_none() {
            return;
        }
        if let Some(until) = self.awaits_nat().filter(|_| !self.report.answered) {
            // With the first report a node is there for others, who should learn at once where it can be reached.
            self.report.due = Some(until);
            return;
        }
        // The longest names of the most peers would not fit a message; those who do not fit are asked for
        // again from time to time.
        let mut room = REPORT_NAMES;
        let mut peers = Vec::new();
        for (name, _) in self.peers.iter().take(MAX_PEERS) {
            let Some(left) = usize::checked_sub(room, name.to_string().len() + NAME_OVERHEAD) else { break };
            room = left;
            peers.push(name.clone());
        }
        let report = Report {
            software: self.config.software.clone(),
            platform: self.config.platform.clone(),
            candidates: self.candidates(),
            rungs: self.config.rungs,
            peers,
            relay: self.relaying.report(),
            nat: self.nat.report,
        };
        if self.signal.ask(now, Asked::Report, &report, &mut self.actions) {
            self.report.due = None;
            self.report.under_way = true;
        }
    }

    pub(super) fn reported(&mut self, now: Instant, reply: Result<ReportReply, Refused>) {
        self.report.under_way = false;
        self.report.answered = true;
        let online = match reply {
            Ok(reply) => {
                self.relay_secrets(reply.keys);
                self.shares(reply.shares);
                reply.online
            }
            Err(refused) => {
                tracing::debug!(code = ?refused.code, %refused, "report refused");
                self.report.due.get_or_insert(now + REPORT_RETRY);
                return;
            }
        };
        let online: BTreeSet<PeerName> =
            online.into_iter().map(|name| own(&self.config.user, name)).collect();
        self.peers.each(|name, peer, rng| {
            if online.contains(name) {
                peer.here(now);
                return;
            }
            self.relaying.acquit(name);
            if peer.absent(now, rng) {
                let reason = peer::NOT_ONLINE.to_owned();
                self.actions.push_back(Action::Unreachable { peer: name.clone(), reason });
            }
        });
    }
}

/// When a report that was refused is made again.
const REPORT_RETRY: Duration = Duration::from_secs(10);
/// How many bytes the peers' names may take in a report: with the rest it stays within a message's bound.
const REPORT_NAMES: usize = 56 * 1024;
/// What MessagePack adds to a name.
const NAME_OVERHEAD: usize = 3;
