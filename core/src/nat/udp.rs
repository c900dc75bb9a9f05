//! UDP behaviour of one address family, by the tests of RFC 5780 section 4.
//!
//! The first flight asks both ports of the server from the node's own port, and one of them from a fresh
//! socket. What follows depends on the answers:
//! - *mapping*: where the server has another address, that one is asked too; where it has none, relays are. With
//!   one address in all, mappings that depend on the address alone cannot be told from those that do not: then the
//!   finding is not confirmed.
//! - *filtering*: the fresh socket, which has written to one port of one address, asks for answers from
//!   elsewhere. With one address there is only another port to answer from, so a filter that lets that in
//!   may be laxer still: not confirmed either. A relay that has answered the own port is asked by it to answer to
//!   the fresh socket's, which has never written there.
//! - *hairpin*: both sockets write to each other's mapped address, so that no filter stands between them.
//!
//! Relays are nodes, and may lie. What they say is used for mapping and filtering alone, never for an address; and
//! one that sees the mapping that the server sees, which it cannot know otherwise, outweighs one that does not.
//!
//! The fresh socket must not be the node's own, whose earlier traffic has opened filters, and it is closed
//! when the tests are over.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::exchange::Exchange;
use super::io::{Action, Socket};
use super::report::{Behaviour, Dependence, Finding};
use super::step::step;
use crate::rng::Rng;
use crate::stun::client::{Ask, Seen, Transaction};
use crate::stun::server::Change;

/// The tests, in the order in which their first requests leave: so mappings are made in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Test {
    /// From the own port to the server's first port.
    First,
    /// To its second port.
    Second,
    /// From the fresh socket to the first port.
    Fresh,
    /// From the own port to the other address: the server's, or a relay's.
    Other,
    /// The same to another relay's.
    Another,
    /// From the fresh socket: an answer from the other address and port.
    FromOther,
    /// From the fresh socket: an answer from the other port.
    FromPort,
    /// Between the two sockets' mapped addresses.
    Hairpin,
    HairpinBack,
}

#[derive(Debug)]
pub(super) struct UdpProbe {
    fresh: Socket,
    server: IpAddr,
    ports: [u16; 2],
    tests: BTreeMap<Test, Exchange>,
    is_open: bool,
}

/// What the host knows of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) addresses: &'a [IpAddr],
    pub(super) port: u16,
}

impl UdpProbe {
    /// Begins.
    pub(super) fn new(
        now: Instant,
        server: IpAddr,
        ports: [u16; 2],
        rng: &mut Rng,
        act: &mut impl FnMut(Action),
    ) -> Self {
        let fresh = Socket::Fresh(server.is_ipv4());
        act(Action::Open(fresh));
        let mut probe = Self { fresh, server, ports, tests: BTreeMap::new(), is_open: true };
        let [first, second] = ports.map(|port| SocketAddr::new(server, port));
        probe.test(now, Test::First, (Socket::Main, first, Ask::Proof), rng);
        probe.test(now, Test::Second, (Socket::Main, second, Ask::Proof), rng);
        probe.test(now, Test::Fresh, (fresh, first, Ask::Proof), rng);
        probe
    }

    fn test(
        &mut self,
        now: Instant,
        test: Test,
        (socket, to, ask): (Socket, SocketAddr, Ask),
        rng: &mut Rng,
    ) {
        self.tests.entry(test).or_insert_with(|| Exchange::new(now, socket, to, ask, rng));
    }

    pub(super) fn answered(
        &mut self,
        socket: Socket,
        from: SocketAddr,
        transaction: &Transaction,
        result: Result<Seen, u16>,
    ) -> bool {
        self.tests.values_mut().any(|test| test.answered(socket, from, transaction, result))
    }

    pub(super) fn returned(&mut self, transaction: &Transaction) -> bool {
        self.tests.values_mut().any(|test| test.returned(transaction))
    }

    /// Sends what is due, and begins the tests that what is known allows.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        own: Own<'_>,
        relays: &[SocketAddr],
        rng: &mut Rng,
        act: &mut impl FnMut(Action),
    ) {
        if self.is_open {
            self.go_on(now, own, rng);
            if self.is_reached() && self.other().is_none() {
                self.ask_relays(now, own, relays, rng);
            }
        }
        self.tests.values_mut().for_each(|test| test.expire(now, act));
        if self.is_over() && std::mem::take(&mut self.is_open) {
            act(Action::Close(self.fresh));
        }
    }

    fn go_on(&mut self, now: Instant, own: Own<'_>, rng: &mut Rng) {
        let to = |index: usize| SocketAddr::new(self.server, self.ports[index]);
        let (first, other) = (to(0), self.other());
        if let Some(other) = other {
            // RFC 5780 section 4.3 asks the other address's same port first; the third distinct destination
            // is all that matters here.
            let other = SocketAddr::new(other.ip(), self.ports[0]);
            self.test(now, Test::Other, (Socket::Main, other, Ask::Proof), rng);
        }
        let Some(fresh) = self.seen(Test::Fresh).map(|seen| seen.mapped) else { return };
        let socket = self.fresh;
        match other {
            Some(_) => {
                let change = |ip| Ask::Change(Change { ip, port: true });
                self.test(now, Test::FromOther, (socket, first, change(true)), rng);
                self.test(now, Test::FromPort, (socket, first, change(false)), rng);
            }
            None => self.test(now, Test::FromPort, (socket, first, Ask::OtherPort), rng),
        }
        // A mapping that is for the server alone cannot be reached from here.
        let (one, two) = (self.mapped(Test::First), self.mapped(Test::Second));
        if let Some(mapped) = one.filter(|_| one == two && self.is_translated(own) == Some(true)) {
            self.test(now, Test::Hairpin, (Socket::Main, fresh, Ask::Proof), rng);
            self.test(now, Test::HairpinBack, (socket, mapped, Ask::Proof), rng);
        }
    }

    /// The tests that need another address, by relays.
    fn ask_relays(&mut self, now: Instant, own: Own<'_>, relays: &[SocketAddr], rng: &mut Rng) {
        let fitting = relays.iter().filter(|relay| self.fits(relay.ip(), own)).copied();
        let chosen: Vec<SocketAddr> = fitting.take(RELAYS.len()).collect();
        for (test, relay) in RELAYS.into_iter().zip(chosen) {
            self.test(now, test, (Socket::Main, relay, Ask::Proof), rng);
        }
        let Some(fresh) = self.seen(Test::Fresh).map(|seen| seen.mapped) else { return };
        // It answers to the address that it sees, which has to be the fresh socket's as well.
        let answered = |test: &Test| {
            let exchange = self.tests.get(test)?;
            exchange.seen().filter(|seen| seen.mapped.ip() == fresh.ip()).map(|_| exchange.to())
        };
        if let Some(relay) = RELAYS.iter().find_map(answered) {
            self.test(now, Test::FromOther, (Socket::Main, relay, Ask::ToPort(fresh.port())), rng);
        }
    }

    /// Whether a relay at `ip` is elsewhere: neither the server's host nor behind the same NAT.
    fn fits(&self, ip: IpAddr, own: Own<'_>) -> bool {
        let mapped = self.tests.values().filter_map(Exchange::seen).any(|seen| seen.mapped.ip() == ip);
        ip.is_ipv4() == self.server.is_ipv4() && ip != self.server && !mapped && !own.addresses.contains(&ip)
    }

    /// Whether any of `relays` could tell more than these tests have found.
    pub(super) fn would_learn(&self, relays: &[SocketAddr], own: Own<'_>) -> bool {
        let asked = |relay: &SocketAddr| {
            RELAYS.iter().filter_map(|test| self.tests.get(test)).any(|test| test.to() == *relay)
        };
        let certain = self.mapping(own).confirmed && self.filtering().confirmed;
        let mut new = relays.iter().filter(|relay| self.fits(relay.ip(), own) && !asked(relay));
        self.is_reached() && self.other().is_none() && !certain && new.next().is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tests.values().filter_map(Exchange::deadline).min()
    }

    pub(super) fn is_over(&self) -> bool {
        self.tests.values().all(Exchange::is_over)
    }

    /// Whether the mapping tests have ended: there is something to report.
    pub(super) fn is_worth_reporting(&self) -> bool {
        let tests = [Test::First, Test::Second].map(|test| self.tests.get(&test));
        self.is_over() || tests.into_iter().flatten().all(|test| test.seen().is_some())
    }

    /// Whether all mappings that it makes are made: those that are asked for later exist by then.
    pub(super) fn is_mapped(&self) -> bool {
        let over = |test| self.tests.get(&test).is_none_or(Exchange::is_over);
        [Test::First, Test::Second, Test::Fresh, Test::Other, Test::Another].into_iter().all(over)
    }

    /// The port that is asked first.
    pub(super) fn first_port(&self) -> u16 {
        self.ports[0]
    }

    /// Whether anything was answered.
    pub(super) fn is_reached(&self) -> bool {
        self.tests.values().any(|test| test.seen().is_some())
    }

    /// Ends early.
    pub(super) fn abandon(&mut self, act: &mut impl FnMut(Action)) {
        if std::mem::take(&mut self.is_open) {
            act(Action::Close(self.fresh));
        }
    }

    /// What the tests say. `alive`: the server is known to be there.
    pub(super) fn behaviour(&self, own: Own<'_>, alive: bool) -> Behaviour {
        let seen = self.seen(Test::First).or_else(|| self.seen(Test::Second));
        let mut samples: Vec<u16> = [Test::First, Test::Second, Test::Fresh, Test::Other, Test::Another]
            .into_iter()
            .filter_map(|test| self.mapped(test).map(|mapped| mapped.port()))
            .collect();
        // Two destinations that share a mapping are one sample.
        samples.dedup();
        let mapping = self.mapping(own);
        let symmetric = !matches!(mapping.is, Dependence::EndpointIndependent | Dependence::Unknown);
        Behaviour {
            blocked: alive && self.is_over() && !self.is_reached(),
            translated: self.is_translated(own),
            mapping,
            filtering: self.filtering(),
            port_step: step(&samples).filter(|_| symmetric),
            latest_port: None,
            preserves_port: seen.is_some_and(|seen| seen.mapped.port() == own.port),
            hairpin: self.hairpin(),
            lifetime: None,
            public: seen.map(|seen| seen.mapped),
            proof: seen.and_then(|seen| seen.proof),
        }
    }

    fn mapping(&self, own: Own<'_>) -> Finding {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};

        if self.is_translated(own) == Some(false) {
            return Finding::confirmed(EndpointIndependent);
        }
        let [first, second, other, another] =
            [Test::First, Test::Second, Test::Other, Test::Another].map(|test| self.mapped(test));
        let other = another.filter(|_| another == first).or(other).or(another);
        match (first, second, other) {
            (Some(first), Some(second), _) if first != second => Finding::confirmed(AddressAndPortDependent),
            (Some(first), Some(_), Some(other)) if first != other => Finding::confirmed(AddressDependent),
            (Some(_), Some(_), Some(_)) => Finding::confirmed(EndpointIndependent),
            (Some(_), Some(_), None) => Finding::presumed(EndpointIndependent),
            (Some(one), None, Some(other)) | (None, Some(one), Some(other)) if one == other => {
                Finding::confirmed(EndpointIndependent)
            }
            // Whether it was the address or the port that made the difference is open.
            (Some(_), None, Some(_)) | (None, Some(_), Some(_)) => Finding::presumed(AddressAndPortDependent),
            (Some(_), None, None) | (None, Some(_), None) | (None, None, _) => Finding::presumed(Unknown),
        }
    }

    fn filtering(&self) -> Finding {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};

        let given_up = |test| self.tests.get(&test).is_some_and(Exchange::is_given_up);
        let from = |test| self.tests.get(&test).and_then(Exchange::answer).map(|(_, from)| from);
        let from_other = from(Test::FromOther).filter(|from| from.ip() != self.server);
        // A server that knows nothing of other ports answers from the one that it was asked at.
        let from_port = from(Test::FromPort).filter(|from| from.port() != self.ports[0]);
        // Silence tells something only if the other address is not silent for all.
        let other_works = RELAYS.iter().any(|test| self.seen(*test).is_some());
        match (from_other, from_port) {
            (Some(_), _) => Finding::confirmed(EndpointIndependent),
            (None, Some(_)) => {
                let confirmed = other_works && given_up(Test::FromOther);
                Finding { is: AddressDependent, confirmed }
            }
            (None, None) if given_up(Test::FromPort) && self.seen(Test::Second).is_some() => {
                let confirmed = self.other().is_none() || other_works;
                Finding { is: AddressAndPortDependent, confirmed }
            }
            (None, None) => Finding::presumed(Unknown),
        }
    }

    fn hairpin(&self) -> Option<bool> {
        let tests = [Test::Hairpin, Test::HairpinBack].map(|test| self.tests.get(&test));
        let mut tests = tests.into_iter().flatten().peekable();
        tests.peek()?;
        let (mut any, mut all) = (false, true);
        for test in tests {
            any |= test.came_back();
            all &= test.is_over();
        }
        (any || all).then_some(any)
    }

    fn is_translated(&self, own: Own<'_>) -> Option<bool> {
        let mapped = self.mapped(Test::First).or_else(|| self.mapped(Test::Second))?;
        Some(mapped.port() != own.port || !own.addresses.contains(&mapped.ip()))
    }

    /// The server's other address, if it has one.
    fn other(&self) -> Option<SocketAddr> {
        let told =
            [Test::First, Test::Second, Test::Fresh].into_iter().filter_map(|test| self.seen(test)?.other);
        told.into_iter().find(|other| other.ip() != self.server && other.is_ipv4() == self.server.is_ipv4())
    }

    fn seen(&self, test: Test) -> Option<&Seen> {
        self.tests.get(&test)?.seen()
    }

    fn mapped(&self, test: Test) -> Option<SocketAddr> {
        self.seen(test).map(|seen| seen.mapped)
    }
}

/// The tests that relays may serve: two, so that one that is silent or lies is not the only one.
const RELAYS: [Test; 2] = [Test::Other, Test::Another];
