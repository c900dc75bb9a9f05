//! TCP behaviour of one address family (RFC 5382): the mapping of the port that the node listens on.
//!
//! Connections are made from that port to both ports of the server, and to its other address if it has one.
//! Filtering is left unknown: to learn it the server would have to dial, which it never does.
//!
//! UDP goes first. Many NATs that count give out the ports of both in one row, and mappings that are made
//! by turns would show each a step that it does not have.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::io::Action;
use super::report::{Behaviour, Dependence, Finding};
use super::step::step;
use crate::rng::Rng;
use crate::stun::client::{Ask, Message, Seen, Transaction, read, request};

/// To which place a connection leads, in the order in which they are begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Test {
    First,
    Second,
    Other,
}

#[derive(Debug)]
pub(super) struct TcpProbe {
    server: IpAddr,
    ports: [u16; 2],
    /// Until when it leaves UDP alone with the NAT; none once it has begun.
    waits: Option<Instant>,
    tests: BTreeMap<Test, Trial>,
}

#[derive(Debug)]
struct Trial {
    to: SocketAddr,
    tries: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    UnderWay {
        id: u64,
        transaction: Transaction,
    },
    /// It failed, and is tried again then.
    Pausing {
        until: Instant,
    },
    Done {
        local: SocketAddr,
        seen: Seen,
    },
    Failed,
}

impl TcpProbe {
    /// One that waits for its turn.
    pub(super) fn new(now: Instant, server: IpAddr, ports: [u16; 2]) -> Self {
        Self { server, ports, waits: Some(now + UDP_ALONE), tests: BTreeMap::new() }
    }

    /// Begins, if it is its turn: UDP has made its mappings, or has been waited for long enough. `next_id` names
    /// connections.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        is_udp_through: bool,
        next_id: &mut u64,
        rng: &mut Rng,
        act: &mut impl FnMut(Action),
    ) {
        if self.waits.take_if(|until| is_udp_through || *until <= now).is_some() {
            for (test, port) in [Test::First, Test::Second].into_iter().zip(self.ports) {
                let to = SocketAddr::new(self.server, port);
                self.tests.insert(test, Trial::new(to, next_id, rng, act));
            }
        }
        for trial in self.tests.values_mut().filter(|trial| trial.due().is_some_and(|at| at <= now)) {
            trial.begin(next_id, rng, act);
        }
    }

    /// When it begins, if it has not, or tries again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tests.values().filter_map(Trial::due).chain(self.waits).min()
    }

    /// Takes what came of a connection; false if it is none of these.
    pub(super) fn exchanged(
        &mut self,
        now: Instant,
        id: u64,
        result: Option<(SocketAddr, &[u8])>,
        next_id: &mut u64,
        rng: &mut Rng,
        act: &mut impl FnMut(Action),
    ) -> bool {
        let under_way =
            |trial: &&mut Trial| matches!(trial.state, State::UnderWay { id: own, .. } if own == id);
        let Some(trial) = self.tests.values_mut().find(under_way) else { return false };
        trial.done(now, result);
        let others = self.tests.values().filter_map(|trial| trial.seen()?.other);
        let fits = |other: &SocketAddr| other.ip() != self.server && other.is_ipv4() == self.server.is_ipv4();
        if let Some(other) = others.into_iter().find(fits) {
            let to = SocketAddr::new(other.ip(), self.ports[0]);
            self.tests.entry(Test::Other).or_insert_with(|| Trial::new(to, next_id, rng, act));
        }
        true
    }

    pub(super) fn is_over(&self) -> bool {
        let is_under_way =
            |trial: &Trial| matches!(trial.state, State::UnderWay { .. } | State::Pausing { .. });
        self.waits.is_none() && !self.tests.values().any(is_under_way)
    }

    /// Whether anything was answered.
    pub(super) fn is_reached(&self) -> bool {
        self.tests.values().any(|trial| trial.seen().is_some())
    }

    /// What the tests say. `alive`: the server is known to be there.
    pub(super) fn behaviour(&self, alive: bool) -> Behaviour {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};

        let mapped = |test| self.tests.get(&test).and_then(|trial| trial.seen()).map(|seen| seen.mapped);
        let [first, second, other] = [Test::First, Test::Second, Test::Other].map(mapped);
        let done = self.tests.values().find_map(Trial::result);
        let translated = done.map(|(local, seen)| *local != seen.mapped);
        let mapping = match (translated, first, second, other) {
            (Some(false), ..) => Finding::confirmed(EndpointIndependent),
            (_, Some(a), Some(b), _) if a != b => Finding::confirmed(AddressAndPortDependent),
            (_, Some(a), Some(_), Some(c)) if a != c => Finding::confirmed(AddressDependent),
            (_, Some(_), Some(_), Some(_)) => Finding::confirmed(EndpointIndependent),
            (_, Some(_), Some(_), None) => Finding::presumed(EndpointIndependent),
            _ => Finding::presumed(Unknown),
        };
        let symmetric = !matches!(mapping.is, EndpointIndependent | Unknown);
        let mut samples: Vec<u16> =
            [first, second, other].into_iter().flatten().map(|at| at.port()).collect();
        // Two destinations that share a mapping are one sample.
        samples.dedup();
        Behaviour {
            blocked: alive && self.is_over() && !self.is_reached(),
            translated,
            mapping,
            port_step: step(&samples).filter(|_| symmetric),
            preserves_port: done.is_some_and(|(local, seen)| local.port() == seen.mapped.port()),
            public: done.map(|(_, seen)| seen.mapped),
            proof: done.and_then(|(_, seen)| seen.proof),
            ..Behaviour::default()
        }
    }
}

impl Trial {
    fn new(to: SocketAddr, next_id: &mut u64, rng: &mut Rng, act: &mut impl FnMut(Action)) -> Self {
        let mut trial = Self { to, tries: 0, state: State::Failed };
        trial.begin(next_id, rng, act);
        trial
    }

    fn begin(&mut self, next_id: &mut u64, rng: &mut Rng, act: &mut impl FnMut(Action)) {
        *next_id += 1;
        let (id, transaction) = (*next_id, rng.bytes());
        self.tries += 1;
        self.state = State::UnderWay { id, transaction };
        act(Action::Exchange { id, to: self.to, request: request(transaction, Ask::Proof) });
    }

    /// When it is tried again.
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Pausing { until } => Some(until),
            State::UnderWay { .. } | State::Done { .. } | State::Failed => None,
        }
    }

    fn done(&mut self, now: Instant, result: Option<(SocketAddr, &[u8])>) {
        let State::UnderWay { transaction, .. } = self.state else { return };
        let read = result.and_then(|(local, bytes)| match read(bytes)? {
            Message::Answer(of, Ok(seen)) if of == transaction => Some((local, seen)),
            Message::Answer(..) | Message::Request(_) => None,
        });
        match read {
            Some((local, seen)) => self.state = State::Done { local, seen },
            None if self.tries < TRIES => self.state = State::Pausing { until: now + PAUSE },
            None => self.state = State::Failed,
        }
    }

    fn seen(&self) -> Option<&Seen> {
        self.result().map(|(_, seen)| seen)
    }

    fn result(&self) -> Option<(&SocketAddr, &Seen)> {
        match &self.state {
            State::Done { local, seen } => Some((local, seen)),
            State::UnderWay { .. } | State::Pausing { .. } | State::Failed => None,
        }
    }
}

/// How long UDP is alone at most. Where it is blocked, or the way is long, TCP begins then: its answers take two
/// round trips, and the first report of a node waits for half a second. UDP's first flight has left by then, so
/// its mappings are made.
const UDP_ALONE: Duration = Duration::from_millis(200);
/// TCP itself repeats what is lost; another try is for a server that had too many connections, and for a
/// connection of the tests before these that had the same ends and was not over yet.
const TRIES: u32 = 3;
/// How long it waits for that.
const PAUSE: Duration = Duration::from_secs(1);
