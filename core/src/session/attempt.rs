//! Attempts: which addresses are dialled, and what is said of them when the attempt is over.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::ids::AttemptId;
use crate::path::{Candidate, Outcome, Rung, RungSet, Transport, Verdict};
use crate::relay::Access;

/// What a session is to try, as the server's `PunchStart` says.
#[derive(Clone)]
pub struct Attempt {
    /// Its name on both sides.
    pub id: AttemptId,
    /// 32 secret bytes of both sides and the server: they authenticate prefaces and probes.
    pub punch_key: [u8; 32],
    /// Where the peer may be reached.
    pub candidates: Vec<Candidate>,
    /// The rungs that both sides may use.
    pub rungs: RungSet,
    /// Relays that both may meet at, the best first.
    pub relays: Vec<Access>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("candidates", &self.candidates)
            .field("rungs", &self.rungs)
            .finish_non_exhaustive()
    }
}

impl Attempt {
    /// The addresses to dial for `tcp-direct`.
    pub(super) fn dials(&self) -> impl Iterator<Item = SocketAddr> {
        let wanted = self.rungs.contains(Rung::TcpDirect);
        self.candidates
            .iter()
            .filter(move |candidate| wanted && candidate.transport == Transport::Tcp)
            .map(|candidate| candidate.address)
            .filter(|address| is_dialable(*address))
            .take(MAX_DIALS)
    }
}

/// An attempt that was begun.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) attempt: Attempt,
    started: Instant,
    /// Dials that have neither failed nor led to a link.
    pending: usize,
    failures: SmallVec<[(SocketAddr, String); 4]>,
    state: RunState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunState {
    Running,
    /// Over, and told; kept because the peer's connections may still come.
    Over,
}

impl Run {
    pub(super) fn new(now: Instant, attempt: Attempt, dials: usize) -> Self {
        Self { attempt, started: now, pending: dials, failures: SmallVec::new(), state: RunState::Running }
    }

    pub(super) fn id(&self) -> AttemptId {
        self.attempt.id
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == RunState::Running
    }

    /// A dial, or the link that came of it, failed.
    pub(super) fn failed(&mut self, address: SocketAddr, reason: String) {
        self.pending = self.pending.saturating_sub(1);
        if self.failures.len() < MAX_DIALS {
            self.failures.push((address, reason));
        }
    }

    /// When the attempt is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.is_running().then(|| self.started + PATIENCE)
    }

    /// When the attempt is forgotten, so that connections under its name are strangers'.
    pub(super) fn expiry(&self) -> Instant {
        self.started + MEMORY
    }

    /// Ends the attempt: what became of each rung. None if it had ended before.
    pub(super) fn finish(&mut self, now: Instant, connected: Option<Rung>) -> Option<Vec<Outcome>> {
        if !self.is_running() {
            return None;
        }
        self.state = RunState::Over;
        let ms = u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        Some(Rung::ALL.into_iter().map(|rung| self.outcome(rung, connected, ms)).collect())
    }

    fn outcome(&self, rung: Rung, connected: Option<Rung>, ms: u64) -> Outcome {
        let (outcome, reason) = if connected == Some(rung) {
            (Verdict::Connected, String::new())
        } else if !self.attempt.rungs.contains(rung) {
            (Verdict::Skipped, "not among the rungs that both sides may use".to_owned())
        } else if rung == Rung::TcpDirect {
            (Verdict::Failed, self.why())
        } else {
            (Verdict::Skipped, "not in this version".to_owned())
        };
        let ms = if outcome == Verdict::Skipped { 0 } else { ms };
        Outcome { rung, outcome, reason, ms }
    }

    fn why(&self) -> String {
        let mut reasons: Vec<String> =
            self.failures.iter().map(|(address, reason)| format!("{address}: {reason}")).collect();
        if self.pending > 0 {
            reasons.push(format!("{} more without an answer", self.pending));
        }
        if reasons.is_empty() {
            reasons.push(
                "the peer offers no address that can be dialled, and did not dial this node".to_owned(),
            );
        }
        reasons.join("; ")
    }
}

/// Addresses that no peer can be at, whatever it claims.
fn is_dialable(address: SocketAddr) -> bool {
    if address.port() == 0 {
        return false;
    }
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        // Link-local IPv6 addresses mean nothing without an interface.
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()),
    }
}

/// Addresses an attempt: more would make a node a port scanner for a lying peer.
pub(super) const MAX_DIALS: usize = 8;

/// How long an attempt lasts: a SYN, its repetitions after 1 and 3 s, and the handshake behind the last.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long the peer may take longer than this side: its `PunchStart` may have come later, and its own
/// patience begins then.
const MEMORY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::CandidateKind;

    fn attempt(addresses: &[&str]) -> Attempt {
        let candidate = |address: &&str| Candidate {
            kind: CandidateKind::Host,
            transport: Transport::Tcp,
            address: address.parse().unwrap(),
        };
        Attempt {
            id: AttemptId([1; 16]),
            punch_key: [0; 32],
            candidates: addresses.iter().map(candidate).collect(),
            rungs: RungSet::ALL,
            relays: Vec::new(),
        }
    }

    #[test]
    fn impossible_addresses_are_not_dialled() {
        let attempt =
            attempt(&["0.0.0.0:1", "224.0.0.1:1", "[::]:1", "[fe80::1]:1", "10.0.0.1:0", "10.0.0.1:5"]);
        assert_eq!(attempt.dials().collect::<Vec<_>>(), ["10.0.0.1:5".parse().unwrap()]);
    }

    #[test]
    fn a_liar_gets_eight_dials_at_most() {
        let many: Vec<String> = (1..100).map(|n| format!("10.0.0.{n}:5")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(attempt(&many).dials().count(), MAX_DIALS);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn every_rung_is_accounted_for_once() {
        let now = Instant::now();
        let mut run = Run::new(now, attempt(&["10.0.0.1:5"]), 1);
        run.failed("10.0.0.1:5".parse().unwrap(), "refused".to_owned());
        let outcomes = run.finish(now + Duration::from_millis(30), None).unwrap();
        assert_eq!(outcomes.iter().map(|outcome| outcome.rung).collect::<Vec<_>>(), Rung::ALL);
        let direct = outcomes.iter().find(|outcome| outcome.rung == Rung::TcpDirect).unwrap();
        assert_eq!(
            (direct.outcome, direct.reason.as_str(), direct.ms),
            (Verdict::Failed, "10.0.0.1:5: refused", 30)
        );
        assert!(run.finish(now, None).is_none());
    }
}
