//! What nodes ask of the server once they are logged in. Every request is answered, with its reply or with
//! a refusal, under the same request id; only what is no message at all ends the connection.

use std::collections::BTreeSet;
use std::time::Instant;

use super::asks::Asked;
use super::coord::meant;
use super::metrics::VERDICTS;
use super::registry::Reported;
use super::{NO_REQUEST, NodeId, Server, reflexive};
use crate::ids::{ConnId, PeerName};
use crate::path::{Candidate, Rung, Verdict};
use crate::punch::tcp;
use crate::wire::message::{
    AttemptReport, AttemptReportReply, Code, Connect, ConnectReply, Goodbye, GoodbyeReply, Heartbeat,
    HeartbeatReply, PeerOnline, PunchStart, Refused, Report, ReportReply, Request, kind,
};
use crate::wire::{Envelope, Malformed};

impl Server {
    /// Takes in a sealed message.
    pub(super) fn sealed(&mut self, now: Instant, conn: ConnId, message: &[u8]) {
        if self.registry.node(conn).is_none() {
            // Sent before the other side saw that the connection was closed.
            return;
        }
        let plain = self.registry.open(now, conn, message);
        let Some(envelope) = plain.as_deref().and_then(|plain| Envelope::parse(plain).ok()) else {
            self.counters.malformed += 1;
            self.end(conn, super::CLOSE_POLICY, "not a message");
            return;
        };
        match envelope.kind {
            kind::HEARTBEAT => self.serve(now, conn, &envelope, Self::heartbeat),
            kind::REPORT => self.serve(now, conn, &envelope, Self::report),
            kind::RELAY_NODE_REQ => self.serve(now, conn, &envelope, Self::relay_node),
            kind::ATTEMPT_REPORT => self.serve(now, conn, &envelope, Self::attempt_report),
            kind::CONNECT => self.connect(now, conn, &envelope),
            kind::GOODBYE => {
                self.serve(now, conn, &envelope, |_, _, _, Goodbye {}| Ok(GoodbyeReply {}));
                if envelope.decode::<Goodbye>().is_ok() {
                    self.end(conn, super::CLOSE_NORMAL, "goodbye");
                }
            }
            _ if envelope.is_reply() => self.answered(conn, &envelope),
            unknown => {
                let text = format!("requests of kind {unknown:#06x} are not known here");
                self.refuse(conn, envelope.request, Refused::new(Code::Unsupported, text));
            }
        }
    }

    /// Tells nodes of their peers that came online.
    pub(super) fn tell_news(&mut self, now: Instant) {
        while let Some((conn, names)) = self.news.due(now) {
            let Some(asker) = self.registry.node(conn) else { continue };
            let there = |name: &NodeId| {
                let (_, node) = self.registry.named(name).filter(|_| self.sees(&asker.name, name))?;
                node.reported.as_ref().map(|_| node.named_by(&asker.name))
            };
            let peers: Vec<PeerName> = names.iter().filter_map(there).collect();
            if peers.is_empty() {
                continue;
            }
            if let Some(request) = self.asks.open(now, conn, Asked::PeerOnline) {
                self.registry.send(&mut self.actions, conn, request, &PeerOnline { peers });
            }
        }
    }

    fn serve<R: Request>(
        &mut self,
        now: Instant,
        conn: ConnId,
        envelope: &Envelope<'_>,
        handler: impl FnOnce(&mut Self, Instant, ConnId, R) -> Result<R::Reply, Refused>,
    ) {
        match self.read(envelope).and_then(|request| handler(self, now, conn, request)) {
            Ok(reply) => self.registry.send(&mut self.actions, conn, envelope.request, &reply),
            Err(refused) => self.refuse(conn, envelope.request, refused),
        }
    }

    fn read<R: Request>(&mut self, envelope: &Envelope<'_>) -> Result<R, Refused> {
        envelope.decode().map_err(|error| {
            self.counters.malformed += 1;
            let code = if matches!(error, Malformed::Version(_)) { Code::Version } else { Code::BadRequest };
            Refused::new(code, error.to_string())
        })
    }

    fn refuse(&mut self, conn: ConnId, request: u32, refused: Refused) {
        tracing::debug!(?conn, request, code = ?refused.code, %refused, "request refused");
        self.counters.refused += 1;
        self.registry.send(&mut self.actions, conn, request, &refused);
    }

    fn heartbeat(
        &mut self,
        now: Instant,
        conn: ConnId,
        heartbeat: Heartbeat,
    ) -> Result<HeartbeatReply, Refused> {
        if let Some(node) = self.registry.node_mut(conn) {
            node.rtt_ms = heartbeat.rtt_ms.or(node.rtt_ms);
        }
        if let Some(load) = heartbeat.relay {
            self.relays.load(conn, load);
        }
        let relays =
            self.registry.node(conn).map(|node| self.relays.stun(&node.name, &node.key, node.remote.ip()));
        let server_time_ms = super::millis(self.clock.unix(now));
        Ok(HeartbeatReply { server_time_ms, stun_relays: relays.unwrap_or_default() })
    }

    fn report(&mut self, now: Instant, conn: ConnId, report: Report) -> Result<ReportReply, Refused> {
        let unix = self.clock.unix(now);
        let Some(node) = self.registry.node_mut(conn) else { return Ok(ReportReply::default()) };
        let asker = node.name.clone();
        let known = node.reported.as_ref().map(|reported| &reported.reflexive[..]).unwrap_or_default();
        let proofs = self.config.proofs.as_ref();
        let (nat, reflexive) = reflexive::proven(&report.nat, known, proofs, unix);
        let candidates: Vec<Candidate> = reflexive::claimed(&report.candidates).collect();
        // Who can be reached elsewhere may be reached better.
        let moved = node.reported.as_ref().is_none_or(|known| {
            (&known.candidates, &known.reflexive) != (&candidates, &reflexive)
                || known.nat.reachability() != nat.reachability()
        });
        node.reported = Some(Reported {
            software: printable(&report.software),
            platform: printable(&report.platform),
            candidates,
            reflexive,
            nat,
            rungs: report.rungs,
        });
        if let Some(node) = self.registry.node(conn)
            && let Some(told) = self.relays.report(now, conn, node, report.relay)
        {
            self.tell_check(now, told);
        }

        // Those that it may not know of yet as well: they may be shared while they are there.
        let wanted: BTreeSet<NodeId> = report.peers.iter().map(|peer| meant(&asker, peer)).collect();
        let passed_over = self.news.watch(conn, wanted, self.config.caps.interests);
        if passed_over > 0 {
            tracing::warn!(
                node = %asker, passed_over,
                "too many peers are watched in all: this node hears late of some that come online"
            );
        }
        if moved {
            self.news.came(now, &asker);
        }
        let online = report.peers.into_iter().filter(|peer| {
            let node = self.visible(&asker, peer).ok().and_then(|name| self.registry.named(&name));
            node.is_some_and(|(peer_conn, node)| peer_conn != conn && node.reported.is_some())
        });
        let online = online.collect();
        Ok(ReportReply { online, keys: self.secrets_of(conn), shares: self.shares_of(&asker) })
    }

    fn connect(&mut self, now: Instant, conn: ConnId, envelope: &Envelope<'_>) {
        let wish = match self.read::<Connect>(envelope) {
            Ok(wish) => wish,
            Err(refused) => return self.refuse(conn, envelope.request, refused),
        };
        let Some(asker) = self.registry.node(conn) else { return };
        let known = |name: &NodeId| self.pins.key(name).is_some();
        let cap = self.config.caps.attempts;
        let who = (known, &self.shares);
        let mut start = match self.attempts.connect(now, &self.registry, who, asker, &wish, cap) {
            Ok(start) => start,
            Err(refused) => return self.refuse(conn, envelope.request, refused),
        };
        let (asker, other) =
            (asker.name.clone(), self.registry.node(start.other_conn).map(|node| node.name.clone()));
        if let Some(other) = other {
            start.asker.targets = self.targets(&asker, &other);
            start.other.targets = self.targets(&other, &asker);
        }
        self.relays.doubt(now, &wish.exclude);
        let conns = (conn, start.other_conn);
        let rungs = start.asker.rungs;
        // A SYN that is not met leaves an entry in its own NAT which keeps the next attempt's from coming about.
        if tcp::may_meet(&start.asker.nat, &start.other.nat) {
            let together = super::millis(self.clock.unix(now) + tcp::COMMON_DELAY);
            (start.asker.tcp_at_ms, start.other.tcp_at_ms) = (Some(together), Some(together));
        }
        (start.asker.relays, start.other.relays) =
            self.offers(now, start.attempt, conns, rungs, &wish.exclude);
        self.counters.connects += 1;
        let reply = ConnectReply { attempt: start.attempt };
        self.registry.send(&mut self.actions, conn, envelope.request, &reply);
        self.start(now, start.other_conn, &start.other);
        self.start(now, conn, &start.asker);
    }

    fn start(&mut self, now: Instant, conn: ConnId, start: &PunchStart) {
        // A node that owes too many answers is not told; the other side's attempt says that it timed out.
        match self.asks.open(now, conn, Asked::PunchStart(start.attempt)) {
            Some(request) => self.registry.send(&mut self.actions, conn, request, start),
            None => self.counters.unanswered += 1,
        }
    }

    fn attempt_report(
        &mut self,
        _: Instant,
        conn: ConnId,
        report: AttemptReport,
    ) -> Result<AttemptReportReply, Refused> {
        if report.outcomes.iter().any(|outcome| outcome.outcome == Verdict::Connected) {
            self.counters.attempts_connected += 1;
        } else {
            self.counters.attempts_failed += 1;
        }
        for outcome in &report.outcomes {
            let row = Rung::ALL.iter().position(|rung| *rung == outcome.rung);
            let column = VERDICTS.iter().position(|verdict| *verdict == outcome.outcome);
            let cell =
                row.zip(column).and_then(|(row, column)| self.counters.rungs.get_mut(row)?.get_mut(column));
            if let Some(count) = cell {
                *count += 1;
            }
        }
        if let Some(node) = self.registry.node_mut(conn) {
            node.measured(&report.rtts);
            if let Some(link) = report.outcomes.iter().find(|outcome| outcome.outcome == Verdict::Connected) {
                node.relayed = Some(link.rung).filter(|rung| rung.is_relay());
            }
            self.attempts.ended(report.attempt, node.key);
        }
        Ok(AttemptReportReply {})
    }

    /// A node answered a request of the server.
    fn answered(&mut self, conn: ConnId, envelope: &Envelope<'_>) {
        if envelope.request == NO_REQUEST {
            return;
        }
        let Some(asked) = self.asks.close(conn, envelope.request) else {
            // Too late, or never asked. A reply is not answered, or two programs could go on for ever.
            self.counters.malformed += 1;
            return;
        };
        let reply_kind = asked.reply_kind();
        match asked {
            Asked::PushForward { admin, removes } => self.pushed(admin, removes, envelope),
            Asked::PunchStart(attempt) if envelope.kind != reply_kind => {
                tracing::debug!(?conn, ?attempt, "a node will not begin an attempt");
                self.counters.attempts_declined += 1;
            }
            Asked::PunchStart(_)
            | Asked::PeerOnline
            | Asked::RelayKeys
            | Asked::RelayCheck
            | Asked::RelayOffer(_)
            | Asked::RelayNews
            | Asked::Shares => {}
        }
    }
}

/// What may go to a terminal: a node's own words without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
