//! What the server asks of the node. Every request is answered, with its reply or with a refusal, under the
//! same request id; a pushed forward once its listener's result is there.

use std::time::{Duration, Instant};

use super::forwards::{Pushed, Waiter, own};
use super::io::Action;
use super::peer::Basis;
use super::{Agent, Phase, relay};
use crate::ids::{ConnId, PeerName, PublicKey};
use crate::nat::NatReport;
use crate::path::{Rung, RungSet};
use crate::punch::Effort;
use crate::punch::tcp::{COMMON_DELAY, may_meet};
use crate::session::Attempt;
use crate::wire::message::{
    Code, PeerOnline, PeerOnlineReply, PunchStart, PunchStartReply, PushForward, PushForwardReply, Refused,
    Request, kind,
};
use crate::wire::{Envelope, Malformed};

impl Agent {
    /// The server asks something. Every request is answered.
    pub(super) fn asked(&mut self, now: Instant, conn: ConnId, message: &[u8]) {
        let Ok(envelope) = Envelope::parse(message) else { return };
        if self.phase != Phase::Running {
            let refused = Refused::new(Code::Busy, "this node is leaving");
            return self.refuse(conn, envelope.request, &refused);
        }
        match envelope.kind {
            kind::PUNCH_START => self.serve(now, conn, &envelope, Self::punch_start),
            kind::PEER_ONLINE => self.serve(now, conn, &envelope, Self::peer_online),
            kind::PUSH_RELAY_KEYS => self.serve(now, conn, &envelope, Self::push_relay_keys),
            kind::PUSH_RELAY_CHECK => self.serve(now, conn, &envelope, Self::push_relay_check),
            kind::PUSH_RELAY_OFFER => self.serve(now, conn, &envelope, Self::push_relay_offer),
            kind::PUSH_RELAY_NEWS => self.serve(now, conn, &envelope, Self::push_relay_news),
            kind::PUSH_SHARES => self.serve(now, conn, &envelope, Self::push_shares),
            kind::PUSH_FORWARD => self.push_forward(conn, &envelope),
            unknown => {
                let text = format!("requests of kind {unknown:#06x} are not known here");
                self.refuse(conn, envelope.request, &Refused::new(Code::Unsupported, text));
            }
        }
    }

    fn serve<R: Request>(
        &mut self,
        now: Instant,
        conn: ConnId,
        envelope: &Envelope<'_>,
        handler: impl FnOnce(&mut Self, Instant, R) -> Result<R::Reply, Refused>,
    ) {
        match self.read(envelope).and_then(|request| handler(self, now, request)) {
            Ok(reply) => self.signal.answer(conn, envelope.request, &reply, &mut self.actions),
            Err(refused) => self.refuse(conn, envelope.request, &refused),
        }
    }

    fn read<R: Request>(&mut self, envelope: &Envelope<'_>) -> Result<R, Refused> {
        envelope.decode().map_err(|error| {
            self.counters.malformed += 1;
            let code = if matches!(error, Malformed::Version(_)) { Code::Version } else { Code::BadRequest };
            Refused::new(code, error.to_string())
        })
    }

    pub(super) fn refuse(&mut self, conn: ConnId, request: u32, refused: &Refused) {
        tracing::debug!(request, code = ?refused.code, %refused, "request of the server refused");
        self.counters.refused += 1;
        self.signal.answer(conn, request, refused, &mut self.actions);
    }

    fn punch_start(&mut self, now: Instant, start: PunchStart) -> Result<PunchStartReply, Refused> {
        let name = own(&self.config.user, start.peer);
        let oneself = name.user.is_none() && name.node == self.config.node;
        if oneself || start.key == self.config.identity.public() {
            return Err(Refused::new(Code::Oneself, "a node does not connect to itself"));
        }
        let rungs = start.rungs.and(self.config.rungs);
        if rungs == RungSet::NONE {
            return Err(Refused::new(Code::NotAllowed, "no rung is left that this node may use (-rungs)"));
        }
        let mismatch = self.mismatch(&name, start.key);
        let Some((peer, rng)) = self.peers.enter(&name) else {
            return Err(Refused::new(Code::Busy, "this node has as many peers as it can"));
        };
        if let Some(text) = mismatch {
            if peer.error() != Some(&text) {
                tracing::warn!(peer = %name, "{text}");
            }
            peer.failed(now, text.clone(), rng);
            self.actions.push_back(Action::Unreachable { peer: name, reason: text.clone() });
            return Err(Refused::new(Code::NotAllowed, text));
        }
        self.located(now, &name, &start.candidates, start.nat);
        let Some((peer, _)) = self.peers.enter(&name) else {
            return Err(Refused::new(Code::Busy, "this node has as many peers as it can"));
        };
        let no_instant = start.tcp_at_ms.is_none() && rungs.contains(Rung::TcpPunch);
        let basis = basis((&self.nat.report, &start.nat), no_instant, self.report.is_late(now));
        let targets = relay::limits(&name, start.targets);
        peer.restrict(targets.clone().unwrap_or_default());
        if peer.start(now, start.attempt, start.key, (rungs, basis)) {
            self.counters.attempts += 1;
            tracing::debug!(peer = %name, attempt = ?start.attempt, asked = start.asked, "attempt begins");
            let server_time = self.signal.clock().unix(now);
            let attempt = Attempt {
                id: start.attempt,
                punch_key: start.punch_key.into_array(),
                candidates: start.candidates,
                rungs,
                relays: self.accesses(start.attempt, start.relays),
                own_nat: self.nat.report,
                peer_nat: start.nat,
                tcp_in: tcp_in(start.tcp_at_ms, server_time),
                effort: Effort::Full,
                budget: self.budget.clone(),
            };
            let attempt = Box::new(attempt);
            self.actions.push_back(Action::Attempt { peer: name, key: start.key, attempt, targets });
            if self.nat.report.counts() {
                self.actions.push_back(Action::Mapped(FIRST_ROW));
            }
        }
        Ok(PunchStartReply {})
    }

    /// What to tell if a peer comes with another key than the one it is held to.
    fn mismatch(&self, peer: &PeerName, got: PublicKey) -> Option<String> {
        let given = self.config.peer_pins.get(peer).copied();
        let pinned = given.or_else(|| self.pins.peer(peer)).filter(|pinned| *pinned != got)?;
        Some(format!(
            "the key of {peer} is {got}, but {pinned} is pinned: accept it with -peer-key {peer}={got} if {peer} \
             was set up anew, else do not"
        ))
    }

    fn peer_online(&mut self, now: Instant, news: PeerOnline) -> Result<PeerOnlineReply, Refused> {
        for name in news.peers {
            let name = own(&self.config.user, name);
            // If its process was gone, no relay was to blame for that.
            self.relaying.acquit(&name);
            if let Some((peer, _)) = self.peers.known(&name) {
                peer.news(now);
                if peer.link().is_some() {
                    // It may be another process than the link leads to.
                    self.actions.push_back(Action::Doubt { peer: name });
                }
            }
        }
        Ok(PeerOnlineReply {})
    }

    fn push_forward(&mut self, conn: ConnId, envelope: &Envelope<'_>) {
        let waiter = Waiter { conn, request: envelope.request };
        let pushed = self.read::<PushForward>(envelope).and_then(|push| {
            let pushed = self.forwards.push(waiter, &push, &mut self.actions)?;
            match &push.rule {
                Some(rule) => tracing::info!(forward = push.name, rule, "forward pushed by the server"),
                None => tracing::info!(forward = push.name, "forward taken away by the server"),
            }
            Ok(pushed)
        });
        match pushed {
            Ok(Pushed::Later) => {}
            Ok(Pushed::Done(listen)) => {
                let reply = PushForwardReply { listen };
                self.signal.answer(conn, envelope.request, &reply, &mut self.actions);
            }
            Err(refused) => self.refuse(conn, envelope.request, &refused),
        }
    }
}

/// What an attempt is planned by; `late` if the server did not know all of the own report. TCP counts where nothing
/// may come of UDP: it is measured last, and without it the server names no instant.
fn basis((own, peer): (&NatReport, &NatReport), no_instant: bool, late: bool) -> Basis {
    let is_settled = own.is_settled() && peer.is_settled();
    let open = |side: &NatReport| [side.udp4, side.udp6].into_iter().flatten().any(|part| !part.blocked);
    if is_settled && ((open(own) && open(peer)) || !no_instant) {
        Basis::Sound
    } else if late && no_instant && may_meet(own, peer) {
        Basis::Old
    } else {
        Basis::Blind
    }
}

/// How long until both sides open TCP connections at once; none if they had better not. A node that does not know
/// the server's clock yet takes the time that this usually is.
fn tcp_in(at_ms: Option<u64>, server_time: Option<Duration>) -> Option<Duration> {
    let at = Duration::from_millis(at_ms?);
    let left = server_time.map_or(COMMON_DELAY, |time| at.saturating_sub(time));
    // Whatever a server says, an attempt lasts no longer than that.
    Some(left.min(MAX_TCP_IN))
}

/// As long as an attempt may wait for the common instant.
const MAX_TCP_IN: Duration = Duration::from_secs(2);
/// When it is looked at how far a NAT has counted in an attempt that has just begun: behind its first row of sockets,
/// and before a wish that overtakes it.
const FIRST_ROW: Duration = Duration::from_millis(500);
