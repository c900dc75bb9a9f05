//! Punching over TCP by simultaneous open (RFC 9293 section 3.5, RFC 5128 section 3.4): both sides connect
//! at the same instant, from the port that they listen on, to where the server saw the other.
//!
//! The SYN of each opens its own NAT for the other's. If they cross, both connect and one connection comes
//! of it; if one comes first and is dropped, the other one's meets an open NAT. A NAT that answers the first
//! with a reset may close what this side opened, so a connection that failed is begun anew at the *next
//! instant of a common ladder* (`ROUNDS`) and not at once: two sides that each answer the other's failure
//! would miss each other for ever.
//!
//! Of all packets that can open a NAT, only the SYN of the very connection that is to come about will do. Linux's
//! connection tracking takes the sequence number of the first SYN that leaves for that of the connection:
//! once the other side's SYN has come in, nothing with another one passes for two minutes. So there are no
//! *openers* over TCP as there are over UDP (see `plan`), and a connection that is under way is left alone.
//!
//! A SYN that comes in while a router without a firewall makes the mapping for the own one, or that such a
//! router has not refused yet, takes the port: the own SYN leaves by another one, which the peer knows nothing
//! of, and so does all that follows it between the same two ports, for two minutes. So where nothing has come of
//! the first ports in a second, each side connects from a *second port* too, which both can tell, to the
//! other's first one, and from its first one to the other's second.
//!
//! As for UDP the plan is made from what both are behind. One side with a mapping a peer and regular ports
//! is met at predicted ones. Random ports are not guessed: SYNs to a thousand ports look like a scan, and a
//! relay does better. Filters for TCP are not known (the server never dials), so whatever may work is tried.
//!
//! Common is the instant because the server tells both at once and says for how long to wait; each side
//! takes off the time that the message was under way. The machine only says when to dial what, and hears
//! what failed; a connection that comes about proves the peer's key like any other (`link`), and the first
//! one that does wins.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::plan::{Mapping, Situation, addresses};
use super::ports;
use super::why::Why;
use crate::nat::{Behaviour, NatReport};
use crate::path::{CandidateKind, Rung, Transport};

/// From which local port a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The one that the node listens on, whose mapping was measured.
    Listening,
    /// Any: for a row of mappings.
    Any,
    /// This one, which the peer can tell.
    Second(u16),
}

/// One connection to try for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// Where to.
    pub to: SocketAddr,
    /// From where.
    pub from: From,
}

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// All at the same instant.
    pub dials: Vec<Dial>,
    /// From one's first port to the other's second one, and the other way round: where a NAT may have given the first
    /// port to a SYN that came early.
    pub second: Vec<Dial>,
    /// Why there are none, if so.
    pub hopeless: Option<Why>,
}

impl Plan {
    /// Decides.
    pub fn new(situation: &Situation<'_>) -> Self {
        let hopeless = |why| Self { dials: Vec::new(), second: Vec::new(), hopeless: Some(why) };
        if !situation.rungs.contains(Rung::TcpPunch) {
            return hopeless(Why::NotAmongRungs);
        }
        let own = situation.own.tcp4.unwrap_or_default();
        let peer = situation.peer.tcp4.unwrap_or_default();
        let (mut dials, mut second) = (Vec::new(), Vec::new());
        let mut why = None;
        let mut publics = seen(situation).take(MAX_OBSERVED).peekable();
        if publics.peek().is_none() {
            why = Some(if peer.blocked { Why::PeerTcpBlocked } else { Why::NoTcpAddress });
        }
        for public in publics {
            let listening = |to| Dial { to, from: From::Listening };
            let row = |to| (0..ROW).map(move |_| Dial { to, from: From::Any });
            if public.is_ipv6() {
                // No ports are translated there: only firewalls are opened.
                dials.push(listening(public));
                continue;
            }
            match (Mapping::of(&own), Mapping::of(&peer)) {
                _ if own.blocked => why = Some(Why::OwnTcpBlocked),
                _ if peer.blocked => why = Some(Why::PeerTcpBlocked),
                (Mapping::Regular(_), Mapping::Regular(step)) => {
                    dials.extend(row(ports::ahead(public, step, BOTH_AHEAD)));
                }
                (Mapping::Regular(_), _) => {
                    dials.push(listening(public));
                    dials.extend(row(public));
                }
                (_, Mapping::Regular(step)) => {
                    dials.extend(AHEAD.map(|ahead| listening(ports::ahead(public, step, ahead))));
                }
                (Mapping::Own, Mapping::Own) => why = Some(Why::BothSymmetric),
                (Mapping::One | Mapping::Own | Mapping::Unknown, _) => {
                    dials.push(listening(public));
                    second.extend(second_ports(&own, &peer, public));
                }
            }
        }
        dials.truncate(MAX_DIALS);
        let hopeless = why.filter(|_| dials.is_empty());
        Self { dials, second, hopeless }
    }
}

/// What is tried besides, where either NAT may have given the first port away.
fn second_ports(own: &Behaviour, peer: &Behaviour, public: SocketAddr) -> impl Iterator<Item = Dial> {
    let port = |side: SocketAddr, other: SocketAddr| ports::spare(side.port(), other.port());
    let are_known = ![own, peer].into_iter().any(|side| Mapping::of(side) == Mapping::Own);
    let seen = own.public.filter(|_| are_known);
    let from = seen
        .filter(|_| may_lose(own))
        .map(|seen| Dial { to: public, from: From::Second(port(seen, public)) });
    let to = seen.filter(|_| may_lose(peer)).map(|seen| {
        let to = SocketAddr::new(public.ip(), port(public, seen));
        Dial { to, from: From::Listening }
    });
    from.into_iter().chain(to)
}

/// Whether a SYN that comes early may take the port, and another port would be kept.
fn may_lose(side: &Behaviour) -> bool {
    side.translated != Some(false) && side.preserves_port
}

/// Whether the server has seen TCP of both nodes, in one address family at least: each can be told where the
/// other's SYN comes from.
pub fn may_meet(one: &NatReport, other: &NatReport) -> bool {
    let public = |side: Option<Behaviour>| side.and_then(|side| side.public).is_some();
    [(one.tcp4, other.tcp4), (one.tcp6, other.tcp6)].into_iter().any(|(a, b)| public(a) && public(b))
}

/// Where the server saw the peer: behind a NAT, or at an address of its own, which a firewall may guard and which
/// makes the link a direct one.
fn seen(situation: &Situation<'_>) -> impl Iterator<Item = SocketAddr> {
    let of = |side: Option<Behaviour>| side.and_then(|side| side.public);
    let public = [of(situation.peer.tcp4), of(situation.peer.tcp6)];
    let direct = situation.rungs.contains(Rung::TcpDirect);
    addresses(situation.candidates, Transport::Tcp, move |candidate| {
        candidate.kind != CandidateKind::Host || (direct && public.contains(&Some(candidate.address)))
    })
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The connection with this number failed, or what came of it did.
    Failed(u32),
    /// The attempt is over.
    Stop,
    /// Nothing but time.
    Tick,
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect.
    Dial {
        /// Its number.
        number: u32,
        /// How.
        dial: Dial,
    },
    /// Nothing more is tried.
    GaveUp(Why),
}

/// The machine of one attempt.
#[derive(Debug)]
pub struct TcpPuncher {
    start: Instant,
    places: Vec<Place>,
    /// How many rounds have begun.
    round: usize,
    next_number: u32,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Place {
    dial: Dial,
    /// The round that it begins in.
    first: usize,
    /// The connection that is under way.
    number: Option<u32>,
    tried: bool,
}

impl TcpPuncher {
    /// Begins at `start`, the common instant.
    pub fn new(plan: Plan, start: Instant) -> Self {
        let place = |first| move |dial| Place { dial, first, number: None, tried: false };
        let (dials, second) = (plan.dials.into_iter(), plan.second.into_iter());
        Self {
            start,
            places: dials.map(place(1)).chain(second.map(place(SECOND))).collect(),
            round: 0,
            next_number: 0,
            actions: plan.hopeless.map(Action::GaveUp).into_iter().collect(),
        }
    }

    /// Takes in what happened. Actions and the deadline may have changed afterwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Failed(number) => {
                let failed = self.places.iter_mut().find(|place| place.number == Some(number));
                if let Some(place) = failed {
                    place.number = None;
                }
            }
            Input::Stop => self.places.clear(),
            Input::Tick => {}
        }
        while self.due().is_some_and(|at| at <= now) {
            self.begin_round();
        }
    }

    /// The next thing to do, first in first out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.due().map(|at| (at, "punch: connect at the common instant"))
    }

    fn due(&self) -> Option<Instant> {
        if self.places.is_empty() {
            return None;
        }
        let after = ROUNDS.get(self.round).copied().or((self.round == ROUNDS.len()).then_some(END))?;
        Some(self.start + Duration::from_millis(after))
    }

    fn begin_round(&mut self) {
        self.round += 1;
        if self.round > ROUNDS.len() {
            let dials = self.next_number;
            self.actions.push_back(Action::GaveUp(Why::NoConnection { dials }));
            return;
        }
        for place in &mut self.places {
            // A row is for its mappings: another round of it would make others.
            let again = place.dial.from != From::Any || !place.tried;
            if place.first <= self.round && place.number.is_none() && again {
                let number = self.next_number;
                self.next_number += 1;
                (place.number, place.tried) = (Some(number), true);
                self.actions.push_back(Action::Dial { number, dial: place.dial });
            }
        }
    }
}

/// When what has failed is begun anew, in milliseconds from the common instant. The SYN that got lost is
/// repeated by the system, after 1 and 3 s; this is for what was refused.
const ROUNDS: [u64; 6] = [0, 400, 1_000, 2_000, 3_500, 5_000];
/// The round in which second ports are tried too: what nothing was in the way of has come about by then, over most
/// ways, and what got lost is repeated.
const SECOND: usize = 3;
/// When it is given up: the last round's SYN has been answered, or the SYN that the system repeats after 3 s.
const END: u64 = 7_000;

/// How long both sides wait before the first SYN, from when the server spoke: longer than the way from it to
/// either side.
pub const COMMON_DELAY: Duration = Duration::from_millis(400);

const MAX_OBSERVED: usize = 2;
/// Connections that a node with regular ports makes, so that one of them has a mapping that the peer can tell.
const ROW: usize = 16;
/// The ports that the peer tries: each row of 16 holds one of them, if the port advanced by less than 90.
const AHEAD: [i32; 8] = [4, 18, 32, 46, 60, 74, 88, 102];
/// Both with steps: the row holds this port if the ports advanced by less than ten.
const BOTH_AHEAD: i32 = 10;
/// At a time: one address's row, and a connection to each of the others.
const MAX_DIALS: usize = ROW + 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Role;
    use crate::nat::{Behaviour, Dependence, Finding, NatReport};
    use crate::path::{Candidate, CandidateKind, RungSet};
    use crate::punch::Effort;

    fn side(mapping: Dependence, port_step: Option<i32>) -> NatReport {
        let mapping = Finding { is: mapping, confirmed: true };
        NatReport {
            tcp4: Some(Behaviour { mapping, port_step, ..Behaviour::default() }),
            ..NatReport::default()
        }
    }

    fn plan(own: &NatReport, peer: &NatReport) -> Plan {
        let candidates = ["192.0.2.1:5000", "[2001:db8::1]:5000"].map(|address| Candidate {
            kind: CandidateKind::ServerReflexive,
            transport: Transport::Tcp,
            address: address.parse().unwrap(),
        });
        let candidates = &candidates[..1];
        Plan::new(&Situation {
            own,
            peer,
            role: Role::Controlling,
            candidates,
            rungs: RungSet::ALL,
            effort: Effort::Full,
        })
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    /// A NAT that keeps ports, and shows the node at this one.
    fn keeping(port: u16) -> NatReport {
        let public = Some(SocketAddr::from(([192, 0, 2, 1], port)));
        let mapping = Finding { is: Dependence::EndpointIndependent, confirmed: true };
        let side = Behaviour { mapping, public, preserves_port: true, ..Behaviour::default() };
        NatReport { tcp4: Some(side), ..NatReport::default() }
    }

    fn numbers(puncher: &mut TcpPuncher) -> Vec<u32> {
        let actions = std::iter::from_fn(|| puncher.poll_action());
        actions
            .filter_map(|action| match action {
                Action::Dial { number, .. } => Some(number),
                Action::GaveUp(_) => None,
            })
            .collect()
    }

    #[test]
    fn one_mapping_on_both_sides_is_one_connection_from_the_listening_port() {
        let cone = side(Dependence::EndpointIndependent, None);
        let dial = Dial { to: "192.0.2.1:5000".parse().unwrap(), from: From::Listening };
        assert_eq!(plan(&cone, &cone).dials, [dial]);
        assert_eq!(plan(&NatReport::default(), &NatReport::default()).dials, [dial]);
    }

    #[test]
    fn the_row_of_one_side_holds_a_port_that_the_other_tries() {
        let cone = side(Dependence::EndpointIndependent, None);
        for step in [1, 2, -1] {
            let regular = side(Dependence::AddressAndPortDependent, Some(step));
            let row = plan(&regular, &cone).dials.len();
            let tried: Vec<i32> =
                plan(&cone, &regular).dials.iter().map(|dial| i32::from(dial.to.port())).collect();
            for drift in 0..88 {
                let made = (1..=i32::try_from(row).unwrap()).map(|n| 5000 + step * (drift + n));
                assert!(made.into_iter().any(|port| tried.contains(&port)), "step {step}, drift {drift}");
            }
        }
    }

    #[test]
    fn random_ports_on_both_sides_are_not_tried() {
        let symmetric = side(Dependence::AddressAndPortDependent, None);
        assert_eq!(plan(&symmetric, &symmetric).hopeless, Some(Why::BothSymmetric));
        let blocked = Behaviour { blocked: true, ..Behaviour::default() };
        let blocked = NatReport { tcp4: Some(blocked), ..NatReport::default() };
        assert_eq!(plan(&blocked, &symmetric).hopeless, Some(Why::OwnTcpBlocked));
        assert_eq!(plan(&symmetric, &blocked).hopeless, Some(Why::PeerTcpBlocked));
    }

    #[test]
    fn what_was_refused_is_begun_anew_at_the_next_common_instant_and_what_waits_is_left_alone() {
        let cone = side(Dependence::EndpointIndependent, None);
        let now = start();
        let at = |ms| now + Duration::from_millis(ms);
        let mut puncher = TcpPuncher::new(plan(&cone, &cone), at(400));
        puncher.handle(now, Input::Tick);
        assert!(numbers(&mut puncher).is_empty());
        puncher.handle(at(400), Input::Tick);
        assert_eq!(numbers(&mut puncher), [0]);
        puncher.handle(at(430), Input::Failed(0));
        assert!(numbers(&mut puncher).is_empty());
        assert_eq!(puncher.deadline().map(|(at, _)| at), Some(at(800)));
        puncher.handle(at(800), Input::Tick);
        assert_eq!(numbers(&mut puncher), [1]);
        puncher.handle(at(1_400), Input::Tick);
        puncher.handle(at(1_500), Input::Failed(0));
        assert!(numbers(&mut puncher).is_empty());
    }

    #[test]
    fn second_ports_are_the_same_by_both_sides_plans() {
        let there = SocketAddr::from(([192, 0, 2, 1], 5000));
        let (one, other) = (keeping(4000), keeping(5000));
        let mine = plan(&one, &other).second;
        let [Dial { to, from: From::Second(port) }, Dial { to: second, from: From::Listening }] = mine[..]
        else {
            panic!("{mine:?}")
        };
        assert_eq!((to, second.ip()), (there, there.ip()));
        assert_eq!((port, second.port()), (ports::spare(4000, 5000), ports::spare(5000, 4000)));
        // Who keeps its own address has nothing to lose, and random ports cannot be told.
        let mut open = keeping(5000);
        open.tcp4.as_mut().unwrap().translated = Some(false);
        assert_eq!(plan(&one, &open).second, mine[..1]);
        assert_eq!(plan(&open, &one).second.len(), 1);
        assert_eq!(plan(&one, &side(Dependence::AddressAndPortDependent, None)).second, []);
        assert_eq!(plan(&NatReport::default(), &other).second, []);
    }

    #[test]
    fn second_ports_are_tried_where_the_first_are_silent() {
        let now = start();
        let mut puncher = TcpPuncher::new(plan(&keeping(4000), &keeping(5000)), now);
        let mut counts = Vec::new();
        while let Some((at, _)) = puncher.deadline() {
            puncher.handle(at, Input::Tick);
            counts.push((at.duration_since(now).as_millis(), numbers(&mut puncher).len()));
        }
        let second = counts.iter().filter(|(_, dials)| *dials > 0);
        assert_eq!(second.copied().collect::<Vec<_>>(), [(0, 1), (1_000, 2)]);
    }

    #[test]
    fn it_ends_and_says_how_often_it_tried() {
        let cone = side(Dependence::EndpointIndependent, None);
        let mut puncher = TcpPuncher::new(plan(&cone, &cone), start());
        let mut why = None;
        while let Some((at, _)) = puncher.deadline() {
            puncher.handle(at, Input::Tick);
            while let Some(action) = puncher.poll_action() {
                match action {
                    Action::Dial { number, .. } => puncher.handle(at, Input::Failed(number)),
                    Action::GaveUp(reason) => why = Some(reason),
                }
            }
        }
        assert_eq!(why, Some(Why::NoConnection { dials: 6 }));
    }

    #[test]
    fn nothing_is_dialled_after_the_end() {
        let cone = side(Dependence::EndpointIndependent, None);
        let mut puncher = TcpPuncher::new(plan(&cone, &cone), start());
        puncher.handle(start(), Input::Stop);
        assert_eq!((puncher.deadline(), puncher.poll_action()), (None, None));
    }
}
