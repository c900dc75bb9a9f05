//! Attempts: which addresses are dialled, and what is said of them when the attempt is over.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::opening::Opening;
use super::relay::Offered;
use crate::ids::AttemptId;
use crate::link::Role;
use crate::nat::NatReport;
use crate::path::{Candidate, CandidateKind, Outcome, Rung, RungSet, Transport, Verdict};
use crate::punch::{Budget, Effort, Situation, Why};
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
    /// What this node is behind.
    pub own_nat: NatReport,
    /// What the peer is behind.
    pub peer_nat: NatReport,
    /// How long from now until both sides open TCP connections to each other at once; none if they do not.
    pub tcp_in: Option<Duration>,
    /// How many ports may be guessed.
    pub effort: Effort,
    /// What that draws on.
    pub budget: Budget,
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
    /// The addresses to dial by TCP.
    pub(super) fn dials(&self) -> impl Iterator<Item = &Candidate> {
        let wanted = self.rungs.contains(Rung::TcpDirect);
        // The others' turn comes at the common instant.
        let hosts = |candidate: &&Candidate| candidate.kind == CandidateKind::Host;
        self.reachable(Transport::Tcp).filter(hosts).filter(move |_| wanted).take(MAX_DIALS)
    }

    /// The addresses where the peer may be by UDP.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Candidate> {
        let wanted = self.wants_udp();
        self.reachable(Transport::Udp).filter(move |_| wanted).take(MAX_PATHS)
    }

    /// What punching is planned by, for the side in `role`.
    pub(crate) fn situation(&self, role: Role) -> Situation<'_> {
        Situation {
            attempt: self.id,
            own: &self.own_nat,
            peer: &self.peer_nat,
            role,
            candidates: &self.candidates,
            rungs: self.rungs,
            effort: self.effort,
        }
    }

    /// Whether a link over UDP is to be tried for.
    pub(super) fn wants_udp(&self) -> bool {
        self.rungs.contains(Rung::UdpDirect) || self.rungs.contains(Rung::UdpPunch)
    }

    /// Whether `address` is one of the peer's own interfaces'. Of TCP the port does not count: connections come
    /// from others than those that are listened on.
    pub(super) fn is_host(&self, transport: Transport, address: SocketAddr) -> bool {
        let same = |known: SocketAddr| match transport {
            Transport::Udp => known == address,
            Transport::Tcp => known.ip() == address.ip(),
        };
        self.candidates.iter().any(|candidate| {
            (candidate.kind, candidate.transport) == (CandidateKind::Host, transport)
                && same(candidate.address)
        })
    }

    fn reachable(&self, transport: Transport) -> impl Iterator<Item = &Candidate> {
        let fits =
            move |candidate: &&Candidate| candidate.transport == transport && is_dialable(candidate.address);
        self.candidates.iter().filter(fits)
    }
}

/// An attempt that was begun.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) attempt: Attempt,
    pub(super) started: Instant,
    /// Where this side tried, and what came of it: none as long as there is no answer.
    tries: SmallVec<[Try; 4]>,
    /// The rungs on which a link was ready, and after how many milliseconds.
    connected: SmallVec<[(Rung, u64); 2]>,
    /// How long it lasts.
    patience: Duration,
    /// Why punching over UDP was given up.
    punch: Option<Why>,
    /// Why nothing was sought over UDP.
    no_udp: Option<&'static str>,
    /// Simultaneous opens over TCP.
    pub(super) opening: Option<Opening>,
    /// Why they were given up.
    opening_why: Option<Why>,
    /// Whether streams have moved over a link of this attempt.
    pub(super) is_up: bool,
    /// The relays that there are for it, those of better tiers first.
    pub(super) relays: Vec<Offered>,
    /// How often more were asked for.
    pub(super) asked: u32,
    state: RunState,
}

#[derive(Debug)]
struct Try {
    transport: Transport,
    kind: CandidateKind,
    address: SocketAddr,
    failure: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunState {
    Running,
    /// Over, and told; kept because the peer's connections may still come.
    Over,
}

impl Run {
    pub(super) fn new(now: Instant, attempt: Attempt) -> Self {
        let tried = |candidate: &Candidate| Try {
            transport: candidate.transport,
            kind: candidate.kind,
            address: candidate.address,
            failure: None,
        };
        Self {
            tries: attempt.dials().chain(attempt.paths()).map(tried).collect(),
            relays: attempt.relays.iter().cloned().map(Offered::new).collect(),
            asked: 0,
            attempt,
            started: now,
            connected: SmallVec::new(),
            patience: PATIENCE,
            punch: None,
            no_udp: None,
            opening: None,
            opening_why: None,
            is_up: false,
            state: RunState::Running,
        }
    }

    pub(super) fn id(&self) -> AttemptId {
        self.attempt.id
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == RunState::Running
    }

    /// A try for `address`, or the link that came of it, failed; for all addresses without one.
    pub(super) fn failed(&mut self, transport: Transport, address: Option<SocketAddr>, reason: &str) {
        let concerned = |tried: &&mut Try| {
            tried.transport == transport && address.is_none_or(|address| address == tried.address)
        };
        for tried in self.tries.iter_mut().filter(concerned) {
            tried.failure.get_or_insert_with(|| reason.to_owned());
        }
        if let Some(address) = address
            && self.tries.iter().all(|tried| (tried.transport, tried.address) != (transport, address))
            && self.tries.len() < MAX_TRIES
        {
            // One that the peer came from.
            let kind = CandidateKind::PeerReflexive;
            self.tries.push(Try { transport, kind, address, failure: Some(reason.to_owned()) });
        }
    }

    /// A link is ready on this rung.
    pub(super) fn ready(&mut self, now: Instant, rung: Rung) {
        if self.connected.iter().all(|(known, _)| *known != rung) {
            self.connected.push((rung, self.ms(now)));
        }
    }

    /// It lasts until then at least, and a handshake longer.
    pub(super) fn lasts_until(&mut self, end: Instant) {
        let patience = end.saturating_duration_since(self.started) + HANDSHAKE;
        self.patience = self.patience.max(patience).min(MAX_PATIENCE);
    }

    /// Nothing is sought over UDP, for this reason.
    pub(super) fn without_udp(&mut self, reason: &'static str) {
        self.no_udp = Some(reason);
    }

    /// Punching over UDP was given up, for this reason.
    pub(super) fn punch_failed(&mut self, why: Why) {
        self.punch.get_or_insert(why);
    }

    /// Simultaneous opens over TCP were given up, for this reason.
    pub(super) fn opening_failed(&mut self, why: Why) {
        self.opening_why.get_or_insert(why);
    }

    /// When the attempt is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.is_running().then(|| self.started + self.patience)
    }

    /// When the attempt is forgotten, so that connections under its name are strangers'.
    pub(super) fn expiry(&self) -> Instant {
        self.started + MEMORY
    }

    /// Ends the attempt: what became of each rung. None if it had ended before.
    pub(super) fn finish(&mut self, now: Instant) -> Option<Vec<Outcome>> {
        if !self.is_running() {
            return None;
        }
        self.state = RunState::Over;
        if let Some(opening) = &mut self.opening {
            opening.stop(now);
        }
        let ms = self.ms(now);
        Some(Rung::ALL.into_iter().map(|rung| self.outcome(rung, ms)).collect())
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn outcome(&self, rung: Rung, ms: u64) -> Outcome {
        if let Some((_, ms)) = self.connected.iter().find(|(connected, _)| *connected == rung) {
            return Outcome { rung, outcome: Verdict::Connected, reason: String::new(), ms: *ms };
        }
        let skipped =
            |reason: &str| Outcome { rung, outcome: Verdict::Skipped, reason: reason.to_owned(), ms: 0 };
        if !self.attempt.rungs.contains(rung) {
            return skipped("not among the rungs that both sides may use");
        }
        let (transport, reflexive) = match rung {
            Rung::UdpDirect => (Transport::Udp, false),
            Rung::UdpPunch => (Transport::Udp, true),
            Rung::TcpDirect => (Transport::Tcp, false),
            Rung::TcpPunch => (Transport::Tcp, true),
            Rung::PrivateRelay | Rung::SuperRelay | Rung::ServerRelay => return self.relayed(rung, ms),
        };
        if let Some(reason) = self.no_udp.filter(|_| transport == Transport::Udp) {
            return skipped(reason);
        }
        let tries: SmallVec<[&Try; 16]> = self
            .tries
            .iter()
            .filter(|tried| tried.transport == transport && (tried.kind != CandidateKind::Host) == reflexive)
            .collect();
        // What was still under way when the attempt ended was given up for what had come about.
        let undecided = tries.iter().any(|tried| tried.failure.is_none());
        if let Some((best, _)) = self.connected.iter().min()
            && rung > *best
            && (undecided || tries.is_empty())
        {
            return skipped(&format!("given up: {best} was there first"));
        }
        let given_up = match rung {
            Rung::UdpPunch => self.punch,
            Rung::TcpPunch => self.opening_why,
            _ => None,
        };
        if let Some(why) = given_up.filter(|why| !why.was_tried()) {
            return skipped(&why.to_string());
        }
        if let Some(why) = given_up {
            let last = tries.iter().find_map(|tried| tried.failure.as_deref());
            let reason = last.map_or_else(|| why.to_string(), |last| format!("{why}: {last}"));
            return Outcome { rung, outcome: Verdict::Failed, reason, ms };
        }
        if tries.is_empty() && reflexive {
            return skipped("the server has not seen a public address of the peer");
        }
        Outcome { rung, outcome: Verdict::Failed, reason: why(&tries), ms }
    }
}

impl Run {
    /// What became of a rung that is a relay's.
    fn relayed(&self, rung: Rung, ms: u64) -> Outcome {
        let relays = || self.relays.iter().filter(|relay| relay.rung() == rung);
        let skipped = |reason: String| Outcome { rung, outcome: Verdict::Skipped, reason, ms: 0 };
        if let Some((best, _)) = self.connected.iter().min().filter(|(best, _)| rung > *best) {
            return skipped(format!("given up: {best} was there first"));
        }
        if relays().next().is_none() {
            return skipped("there is no such relay that both nodes can use".to_owned());
        }
        let reasons: Vec<String> = relays().filter_map(Offered::why).collect();
        if reasons.is_empty() {
            return skipped("its turn did not come".to_owned());
        }
        Outcome { rung, outcome: Verdict::Failed, reason: reasons.join("; "), ms }
    }
}

fn why(tries: &[&Try]) -> String {
    if tries.is_empty() {
        return "the peer offers no address that can be reached, and did not reach this node".to_owned();
    }
    let reasons: Vec<String> = tries
        .iter()
        .map(|tried| format!("{}: {}", tried.address, tried.failure.as_deref().unwrap_or("no answer")))
        .collect();
    reasons.join("; ")
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

/// Paths of a link over UDP: as many as it takes.
pub(super) const MAX_PATHS: usize = 16;

/// Addresses that are remembered with what came of them: those that are tried, and some that the peer came from.
const MAX_TRIES: usize = 32;

/// How long an attempt lasts: a SYN, its repetitions after 1 and 3 s, and the handshake behind the last.
const PATIENCE: Duration = Duration::from_secs(8);

/// For the handshake on a path that was found at the last moment.
const HANDSHAKE: Duration = Duration::from_millis(1_500);

/// However long punching takes, which is not more than this: the streams wait for thirty seconds, and relays are tried
/// meanwhile.
const MAX_PATIENCE: Duration = Duration::from_secs(15);

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
            own_nat: NatReport::default(),
            peer_nat: NatReport::default(),
            tcp_in: None,
            effort: Effort::Full,
            budget: Budget::default(),
        }
    }

    #[test]
    fn impossible_addresses_are_not_dialled() {
        let attempt =
            attempt(&["0.0.0.0:1", "224.0.0.1:1", "[::]:1", "[fe80::1]:1", "10.0.0.1:0", "10.0.0.1:5"]);
        let dials: Vec<SocketAddr> = attempt.dials().map(|candidate| candidate.address).collect();
        assert_eq!(dials, ["10.0.0.1:5".parse().unwrap()]);
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
        let mut run = Run::new(now, attempt(&["10.0.0.1:5"]));
        run.failed(Transport::Tcp, Some("10.0.0.1:5".parse().unwrap()), "refused");
        let outcomes = run.finish(now + Duration::from_millis(30)).unwrap();
        assert_eq!(outcomes.iter().map(|outcome| outcome.rung).collect::<Vec<_>>(), Rung::ALL);
        let direct = outcomes.iter().find(|outcome| outcome.rung == Rung::TcpDirect).unwrap();
        assert_eq!(
            (direct.outcome, direct.reason.as_str(), direct.ms),
            (Verdict::Failed, "10.0.0.1:5: refused", 30)
        );
        assert!(run.finish(now).is_none());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn what_was_tried_over_udp_is_accounted_for_by_what_it_would_have_been() {
        let now = Instant::now();
        let candidate = |kind, address: &str| Candidate {
            kind,
            transport: Transport::Udp,
            address: address.parse().unwrap(),
        };
        let host = candidate(CandidateKind::Host, "10.0.0.1:5");
        let reflexive = candidate(CandidateKind::ServerReflexive, "192.0.2.1:6");
        let tried = Attempt { candidates: vec![host, reflexive], ..attempt(&[]) };
        let verdicts = |run: &mut Run| -> Vec<(Verdict, String)> {
            let outcomes = run.finish(now).unwrap();
            outcomes.into_iter().take(3).map(|outcome| (outcome.outcome, outcome.reason)).collect()
        };
        let mut run = Run::new(now, tried.clone());
        run.failed(Transport::Udp, Some(host.address), "network unreachable");
        let nothing = "the peer offers no address that can be reached, and did not reach this node";
        assert_eq!(
            verdicts(&mut run),
            [
                (Verdict::Failed, "10.0.0.1:5: network unreachable".to_owned()),
                (Verdict::Failed, "192.0.2.1:6: no answer".to_owned()),
                (Verdict::Failed, nothing.to_owned()),
            ]
        );
        let mut run = Run::new(now, tried);
        run.ready(now, Rung::UdpDirect);
        let given_up = (Verdict::Skipped, "given up: udp-direct was there first".to_owned());
        assert_eq!(verdicts(&mut run), [(Verdict::Connected, String::new()), given_up.clone(), given_up]);
    }
}
