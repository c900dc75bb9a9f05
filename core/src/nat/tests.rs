//! The prober before NATs of each kind, in a small model: one host, one NAT, one server, virtual time.

mod relays;

use std::collections::{BTreeMap, BTreeSet};

use super::Dependence::{
    AddressAndPortDependent as PerPort, AddressDependent as PerAddress, EndpointIndependent as ForAll,
    Unknown,
};
use super::*;
use crate::path::Transport;
use crate::stun::proof::ProofKey;
use crate::stun::server::{Arrival, Responder};

/// What a NAT does. None in its place is no NAT.
#[derive(Debug, Clone, Copy)]
struct Nat {
    mapping: Dependence,
    filtering: Dependence,
    /// What is added to the port of the latest mapping; 0 keeps the inside port where it can.
    step: u16,
    hairpin: bool,
    expiry: Duration,
}

const HOME: Nat =
    Nat { mapping: ForAll, filtering: PerPort, step: 0, hairpin: false, expiry: Duration::from_secs(120) };

const INSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 2));
const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
const SERVERS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2)),
];
/// Nodes that relay, one UDP port each.
const RELAYS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)), 5_001),
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 20)), 5_002),
];
const CONFIG: Config = Config { udp: [27182, 27183], tcp: [27180, 27181] };
const DELAY: Duration = Duration::from_millis(20);
const PORT: u16 = 4000;

/// A mapping of the model: the inside port, and who may use it until when.
#[derive(Debug)]
struct Mapping {
    inside: u16,
    peers: BTreeMap<SocketAddr, Instant>,
}

#[derive(Debug)]
enum Event {
    /// A datagram on its way: from and to, as they are outside.
    Packet(SocketAddr, SocketAddr, Vec<u8>),
    Exchange(u64, Option<(SocketAddr, Vec<u8>)>),
}

struct World {
    start: Instant,
    now: Instant,
    seq: u64,
    prober: Prober,
    nat: Option<Nat>,
    /// How many addresses the server has; 0 for none that answer.
    servers: usize,
    udp_passes: bool,
    tcp_passes: bool,
    /// Every so many datagrams one is lost.
    loss: Option<u64>,
    /// The relays that answer, and those of them that name another mapping than they see.
    relays: Vec<SocketAddr>,
    liars: Vec<SocketAddr>,
    sockets: BTreeMap<u16, Socket>,
    next_port: u16,
    last_outside: u16,
    by_scope: BTreeMap<(u16, Option<IpAddr>, Option<u16>), u16>,
    mappings: BTreeMap<u16, Mapping>,
    queue: BTreeMap<(Instant, u64), Event>,
    sent: u64,
    /// The transports of the mappings, in the order in which they were made.
    made: Vec<Transport>,
    reports: Vec<NatReport>,
}

impl World {
    fn new(nat: Option<Nat>, servers: usize) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Instant::now();
        Self {
            start: now,
            now,
            seq: 0,
            prober: Prober::new([7; 32]),
            nat,
            servers,
            udp_passes: true,
            tcp_passes: true,
            loss: None,
            relays: Vec::new(),
            liars: Vec::new(),
            sockets: BTreeMap::from([(PORT, Socket::Main)]),
            next_port: 50_000,
            last_outside: 20_000,
            by_scope: BTreeMap::new(),
            mappings: BTreeMap::new(),
            queue: BTreeMap::new(),
            sent: 0,
            made: Vec::new(),
            reports: Vec::new(),
        }
    }

    fn own(&self) -> IpAddr {
        if self.nat.is_some() { INSIDE } else { OUTSIDE }
    }

    /// Starts, runs for some seconds, and returns the report.
    fn probe(mut self, seconds: u64) -> (NatReport, Self) {
        self.tell(Input::Servers(&SERVERS[..1], CONFIG));
        let own = self.own();
        self.tell(Input::Network { addresses: &[own, IpAddr::from([127, 0, 0, 1])], port: PORT });
        self.run(seconds);
        (*self.prober.report(), self)
    }

    /// With relays that answer and are known from the start.
    fn with_relays(mut self, relays: &[SocketAddr]) -> Self {
        self.relays = relays.to_vec();
        self.tell(Input::Relays(relays));
        self
    }

    fn udp(self) -> Behaviour {
        self.probe(5).0.udp4.unwrap()
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let deadline = self.prober.deadline().map(|(at, _)| at);
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [deadline, event].into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.happen(event);
            } else {
                self.tell(Input::Tick);
                let later = self.prober.deadline().is_none_or(|(at, _)| at > self.now);
                assert!(later, "{:?} is due again", self.prober.deadline());
            }
        }
        self.now = end;
    }

    fn tell(&mut self, input: Input<'_>) {
        self.prober.handle(self.now, input);
        while let Some(action) = self.prober.poll_action() {
            match action {
                Action::Open(socket) => {
                    assert!(!self.sockets.values().any(|open| *open == socket), "{socket:?} twice");
                    self.next_port += 1;
                    self.sockets.insert(self.next_port, socket);
                }
                Action::Close(socket) => {
                    let before = self.sockets.len();
                    self.sockets.retain(|_, open| *open != socket);
                    assert_eq!(self.sockets.len(), before - 1, "{socket:?} is not open");
                }
                Action::Send { socket, to, bytes } => {
                    self.sent += 1;
                    let port = self.sockets.iter().find(|(_, open)| **open == socket);
                    let port = *port.unwrap_or_else(|| panic!("{socket:?} is not open, to {to}")).0;
                    self.leave(port, to, bytes);
                }
                Action::Exchange { id, to, request } => {
                    let result = self.tcp_passes.then(|| {
                        let source = SocketAddr::new(self.own(), PORT);
                        let seen = self.translate(Transport::Tcp, PORT, to).unwrap_or(source);
                        let bytes = self.answer(Transport::Tcp, seen, to, &request)?.0;
                        Some((source, bytes))
                    });
                    self.later(Event::Exchange(id, result.flatten()));
                }
                Action::Report(report) => self.reports.push(*report),
            }
        }
    }

    fn later(&mut self, event: Event) {
        self.seq += 1;
        self.queue.insert((self.now + DELAY, self.seq), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Exchange(id, result) => {
                let result = result.as_ref().map(|(local, bytes)| (*local, bytes.as_slice()));
                self.tell(Input::Exchanged { id, result });
            }
            Event::Packet(from, to, bytes) if SERVERS.contains(&to.ip()) => {
                if let Some((reply, to, from)) = self.answer(Transport::Udp, from, to, &bytes) {
                    self.later(Event::Packet(from, to, reply));
                }
            }
            Event::Packet(from, to, bytes) if RELAYS.contains(&to) => {
                let source = if self.liars.contains(&to) { SocketAddr::new(from.ip(), 9) } else { from };
                let arrival = Arrival {
                    transport: Transport::Udp,
                    source,
                    origin: None,
                    other: None,
                    unix: Duration::ZERO,
                    busy: false,
                };
                let mut out = [0; 120];
                let answer = Responder::of_relay().respond(&bytes, &arrival, &mut out);
                if let Some(answer) = answer.filter(|_| self.relays.contains(&to)) {
                    let back = if answer.to == source { from } else { answer.to };
                    self.later(Event::Packet(to, back, out[..answer.length].to_vec()));
                }
            }
            Event::Packet(from, to, bytes) => {
                if let Some(socket) = self.enter(from, to) {
                    self.tell(Input::Datagram { socket, from, bytes: &bytes });
                }
            }
        }
    }

    /// The outside address of what leaves; none without a NAT.
    fn translate(&mut self, transport: Transport, port: u16, to: SocketAddr) -> Option<SocketAddr> {
        let nat = self.nat?;
        let now = self.now;
        self.mappings.retain(|_, mapping| mapping.peers.values().any(|until| *until > now));
        let mappings = &self.mappings;
        self.by_scope.retain(|_, outside| mappings.contains_key(outside));
        let scope = match nat.mapping {
            ForAll | Unknown => (port, None, None),
            PerAddress => (port, Some(to.ip()), None),
            PerPort => (port, Some(to.ip()), Some(to.port())),
        };
        let outside = *self.by_scope.entry(scope).or_insert_with(|| {
            self.last_outside += nat.step;
            self.made.push(transport);
            if nat.step == 0 && !self.mappings.contains_key(&port) { port } else { self.last_outside }
        });
        let mapping =
            self.mappings.entry(outside).or_insert_with(|| Mapping { inside: port, peers: BTreeMap::new() });
        mapping.peers.insert(to, now + nat.expiry);
        Some(SocketAddr::new(OUTSIDE, outside))
    }

    fn leave(&mut self, port: u16, to: SocketAddr, bytes: Vec<u8>) {
        let lost = self.loss.is_some_and(|every| self.sent.is_multiple_of(every));
        if !self.udp_passes || lost {
            return;
        }
        let hairpin = self.nat.is_some_and(|nat| nat.hairpin);
        if to.ip() == OUTSIDE && !hairpin {
            return;
        }
        let from = self.translate(Transport::Udp, port, to).unwrap_or(SocketAddr::new(OUTSIDE, port));
        self.later(Event::Packet(from, to, bytes));
    }

    fn enter(&mut self, from: SocketAddr, to: SocketAddr) -> Option<Socket> {
        let Some(nat) = self.nat else { return self.sockets.get(&to.port()).copied() };
        let now = self.now;
        let mapping = self.mappings.get(&to.port())?;
        let mut live =
            mapping.peers.iter().filter(|(_, until)| **until > now).map(|(peer, _)| peer).peekable();
        live.peek()?;
        let admitted = match nat.filtering {
            ForAll | Unknown => true,
            PerAddress => live.any(|peer| peer.ip() == from.ip()),
            PerPort => live.any(|peer| *peer == from),
        };
        admitted.then(|| self.sockets.get(&mapping.inside).copied()).flatten()
    }

    /// The server's answer: bytes, to and from.
    fn answer(
        &self,
        transport: Transport,
        source: SocketAddr,
        to: SocketAddr,
        request: &[u8],
    ) -> Option<(Vec<u8>, SocketAddr, SocketAddr)> {
        let index = SERVERS.iter().position(|ip| *ip == to.ip()).filter(|index| *index < self.servers)?;
        let ports = if transport == Transport::Udp { CONFIG.udp } else { CONFIG.tcp };
        let port = ports.iter().position(|port| *port == to.port())?;
        let other = SocketAddr::new(SERVERS[1 - index], ports[1 - port]);
        let responder = Responder::new(ProofKey::new([1; 32]), CONFIG.udp);
        let unix = Duration::from_secs(1_780_000_000) + self.elapsed();
        let arrival = Arrival {
            transport,
            source,
            origin: Some(to),
            other: (self.servers == 2).then_some(other),
            unix,
            busy: false,
        };
        let mut out = [0; 120];
        let answer = responder.respond(request, &arrival, &mut out)?;
        let ip = if answer.change.ip { other.ip() } else { to.ip() };
        let from_port = if answer.change.port { other.port() } else { to.port() };
        Some((out[..answer.length].to_vec(), answer.to, SocketAddr::new(ip, from_port)))
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

fn confirmed(is: Dependence) -> Finding {
    Finding { is, confirmed: true }
}

fn presumed(is: Dependence) -> Finding {
    Finding { is, confirmed: false }
}

#[test]
fn every_mapping_and_filter_is_named_with_a_server_of_two_addresses() {
    for (mapping, kind) in [(ForAll, Kind::Cone), (PerAddress, Kind::Symmetric), (PerPort, Kind::Symmetric)] {
        for filtering in [ForAll, PerAddress, PerPort] {
            let found = World::new(Some(Nat { mapping, filtering, step: 2, ..HOME }), 2).udp();
            assert_eq!(found.mapping, confirmed(mapping), "{filtering}");
            assert_eq!(found.filtering, confirmed(filtering), "{mapping}");
            assert_eq!(found.kind(), kind);
            assert_eq!(found.public.map(|public| public.ip()), Some(OUTSIDE));
            assert_eq!(found.port_step, (kind == Kind::Symmetric).then_some(2), "{mapping} {filtering}");
        }
    }
}

#[test]
fn with_one_address_what_cannot_be_told_apart_is_marked() {
    for (mapping, expected) in
        [(ForAll, presumed(ForAll)), (PerAddress, presumed(ForAll)), (PerPort, confirmed(PerPort))]
    {
        let found = World::new(Some(Nat { mapping, step: 1, ..HOME }), 1).udp();
        assert_eq!(found.mapping, expected);
    }
    for (filtering, expected) in
        [(ForAll, presumed(PerAddress)), (PerAddress, presumed(PerAddress)), (PerPort, confirmed(PerPort))]
    {
        let found = World::new(Some(Nat { filtering, ..HOME }), 1).udp();
        assert_eq!(found.filtering, expected);
    }
}

#[test]
fn a_public_host_has_no_nat() {
    for servers in [1, 2] {
        let (report, world) = World::new(None, servers).probe(700);
        for found in [report.udp4.unwrap(), report.tcp4.unwrap()] {
            assert_eq!((found.kind(), found.kind().legacy()), (Kind::None, 0));
            assert_eq!(found.mapping, confirmed(ForAll));
            assert_eq!(found.public, Some(SocketAddr::new(OUTSIDE, PORT)));
            assert_eq!((found.hairpin, found.lifetime), (None, None));
        }
        assert_eq!(world.sockets.len(), 1, "all others are closed");
    }
}

#[test]
fn tcp_is_measured_from_the_listening_port() {
    for (mapping, servers, expected) in [
        (ForAll, 2, confirmed(ForAll)),
        (ForAll, 1, presumed(ForAll)),
        (PerAddress, 2, confirmed(PerAddress)),
        (PerPort, 1, confirmed(PerPort)),
    ] {
        let found = World::new(Some(Nat { mapping, step: 1, ..HOME }), servers).probe(5).0.tcp4.unwrap();
        assert_eq!(found.mapping, expected);
        assert_eq!(found.filtering, presumed(Unknown));
        assert!(found.proof.is_some());
    }
}

#[test]
fn udp_is_through_with_its_mappings_before_tcp_makes_any() {
    for (servers, step) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let (report, mut world) = World::new(Some(Nat { mapping: PerPort, step, ..HOME }), servers).probe(5);
        let step = Some(i32::from(step));
        assert_eq!([report.udp4.unwrap().port_step, report.tcp4.unwrap().port_step], [step; 2]);
        world.made.dedup();
        // The last one is to see how long it lives.
        assert_eq!(world.made, [Transport::Udp, Transport::Tcp, Transport::Udp]);
    }
}

#[test]
fn tcp_does_not_wait_for_udp_that_does_not_pass() {
    let mut world = World::new(Some(HOME), 1);
    world.udp_passes = false;
    let (_, mut world) = world.probe(0);
    world.run(1);
    assert!(world.prober.report().tcp4.unwrap().public.is_some());
    assert!(world.prober.report().udp4.unwrap().public.is_none());
}

/// What predicts a port begins where the ports are, and a repetition of the tests must not take those that others
/// took meanwhile for an irregularity.
#[test]
fn how_far_ports_have_gone_is_asked_when_mappings_were_made() {
    let (report, mut world) = World::new(Some(Nat { mapping: PerPort, step: 1, ..HOME }), 1).probe(5);
    let udp = report.udp4.unwrap();
    assert_eq!((udp.port_step, udp.latest_port), (Some(1), None));
    world.last_outside += 200;
    world.tell(Input::Mapped(Duration::from_millis(500)));
    world.run(1);
    let then = world.prober.report().udp4.unwrap();
    assert_eq!(then.latest_port, Some(world.last_outside));
    assert_eq!(then, Behaviour { latest_port: then.latest_port, ..udp });
    assert!(!world.sockets.values().any(|open| matches!(open, Socket::Latest(_))));

    world.last_outside += 200;
    world.tell(Input::Signalling(true));
    world.run(5);
    assert_eq!(world.prober.report().udp4.unwrap().port_step, Some(1));
}

#[test]
fn ports_that_do_not_go_in_steps_are_not_asked_for() {
    let (_, mut world) = World::new(Some(HOME), 1).probe(5);
    let sent = world.sent;
    world.tell(Input::Mapped(Duration::ZERO));
    world.run(1);
    assert_eq!(world.sent, sent);
}

#[test]
fn hairpinning_is_seen_whatever_the_filter() {
    for hairpin in [false, true] {
        for filtering in [ForAll, PerPort] {
            let found = World::new(Some(Nat { hairpin, filtering, ..HOME }), 1).udp();
            assert_eq!(found.hairpin, Some(hairpin), "{filtering}");
        }
    }
}

#[test]
fn port_preservation_is_seen() {
    assert!(World::new(Some(HOME), 1).udp().preserves_port);
    assert!(!World::new(Some(Nat { step: 1, ..HOME }), 1).udp().preserves_port);
}

#[test]
fn udp_that_does_not_pass_is_blocked_if_the_server_is_there() {
    let mut world = World::new(Some(HOME), 1);
    world.udp_passes = false;
    let (report, mut world) = world.probe(5);
    assert_eq!(report.udp4.unwrap().kind(), Kind::Blocked, "TCP shows that the server is there");
    assert_eq!(report.tcp4.unwrap().kind(), Kind::Cone);

    world.udp_passes = true;
    world.run(60);
    assert_eq!(world.prober.report().udp4.unwrap().kind(), Kind::Cone, "it is tried again");
}

#[test]
fn where_nothing_passes_the_signalling_connection_decides() {
    let mut world = World::new(Some(HOME), 0);
    world.udp_passes = false;
    world.tcp_passes = false;
    let (report, mut world) = world.probe(20);
    for found in [report.udp4.unwrap(), report.tcp4.unwrap()] {
        assert_eq!((found.kind(), found.kind().legacy()), (Kind::Unknown, 314));
    }
    world.tell(Input::Signalling(true));
    world.run(5);
    let report = *world.prober.report();
    assert_eq!(report.udp4.unwrap().kind(), Kind::Blocked);
    assert_eq!(report.tcp4.unwrap().kind(), Kind::Blocked);
}

#[test]
fn one_lost_datagram_in_three_changes_nothing() {
    for (mapping, filtering) in [(ForAll, PerPort), (ForAll, ForAll), (PerPort, PerPort)] {
        let mut world = World::new(Some(Nat { mapping, filtering, step: 1, ..HOME }), 2);
        world.loss = Some(3);
        let found = world.udp();
        assert_eq!((found.mapping.is, found.filtering.is), (mapping, filtering));
    }
}

#[test]
fn the_lifetime_of_an_idle_mapping_is_found_between_two_rungs() {
    for (seconds, expected) in [
        (20, Lifetime { at_least: 0, below: Some(25) }),
        (30, Lifetime { at_least: 25, below: Some(55) }),
        (120, Lifetime { at_least: 115, below: Some(175) }),
        (7_200, Lifetime { at_least: 295, below: None }),
    ] {
        for step in [0, 1] {
            let nat = Nat { expiry: Duration::from_secs(seconds), step, ..HOME };
            let (report, world) = World::new(Some(nat), 1).probe(900);
            assert_eq!(report.udp4.unwrap().lifetime, Some(expected), "{seconds}");
            assert_eq!(world.sockets.len(), 1, "all others are closed");
        }
    }
}

#[test]
fn the_mapping_is_kept_alive_and_a_new_one_noticed() {
    let (report, mut world) = World::new(Some(Nat { step: 1, ..HOME }), 1).probe(300);
    let public = report.udp4.unwrap().public;
    assert!(public.is_some());
    let live = world.by_scope.iter().filter(|((port, ..), _)| *port == PORT).count();
    assert_eq!(live, 1, "it is still there");
    // The NAT restarts.
    world.by_scope.clear();
    world.mappings.clear();
    world.run(30);
    let after = world.prober.report().udp4.unwrap();
    assert_ne!(after.public, public);
    assert_eq!(after.mapping.is, ForAll);
}

#[test]
fn a_change_of_network_is_measured_anew() {
    let (report, mut world) = World::new(Some(HOME), 2).probe(30);
    assert_eq!(report.udp4.unwrap().kind(), Kind::Cone);
    world.nat = None;
    world.tell(Input::Network { addresses: &[OUTSIDE], port: PORT });
    world.run(5);
    assert_eq!(world.prober.report().udp4.unwrap().kind(), Kind::None);
    world.tell(Input::Network { addresses: &[IpAddr::from([127, 0, 0, 1])], port: PORT });
    world.run(5);
    assert_eq!(*world.prober.report(), NatReport::default(), "there is no way to the server");
}

#[test]
fn reports_come_when_there_is_news_and_the_first_after_one_round_trip() {
    let (_, mut world) = World::new(Some(HOME), 2).probe(0);
    world.run(1);
    let early = world.reports.iter().filter_map(|report| report.udp4).find(|udp| udp.public.is_some());
    assert_eq!(early.unwrap().mapping.is, ForAll);
    world.run(800);
    let count = world.reports.len();
    assert!(count < 20, "{count}");
    world.run(800);
    assert_eq!(world.reports.len(), count, "a proof that is renewed is no news");
}

#[test]
fn strangers_change_nothing() {
    let (report, mut world) = World::new(Some(HOME), 1).probe(5);
    let forged = [vec![1, 1, 0, 0], vec![0; 20], client::request([9; 12], Ask::Proof)];
    for bytes in &forged {
        for socket in [Socket::Main, Socket::Fresh(true), Socket::Idle(false)] {
            world.tell(Input::Datagram { socket, from: ([192, 0, 2, 1], 1).into(), bytes });
        }
    }
    world.tell(Input::Exchanged { id: 77, result: None });
    assert_eq!(world.prober.report().without_proofs(), report.without_proofs());
}

#[test]
fn a_server_elsewhere_is_not_probed_from_loopback_alone() {
    let addresses: BTreeSet<IpAddr> = [[127, 0, 0, 1].into()].into();
    let addresses: Vec<IpAddr> = addresses.into_iter().collect();
    assert!(is_within_reach([127, 0, 0, 1].into(), &addresses));
    assert!(!is_within_reach(SERVERS[0], &addresses));
    assert!(!is_within_reach("2001:db8::1".parse().unwrap(), &["fe80::1".parse().unwrap(), INSIDE]));
}

/// A connection of earlier tests may have had the same ends and not be over yet.
#[test]
fn tcp_that_fails_at_once_is_tried_again_a_second_later() {
    let mut world = World::new(Some(HOME), 1);
    world.tcp_passes = false;
    let (_, mut world) = world.probe(0);
    world.run(1);
    world.tcp_passes = true;
    world.run(2);
    assert!(!world.prober.report().tcp4.unwrap().blocked);
}

/// The server may be another process than before, and what it gave before the login has not been told.
#[test]
fn a_proof_from_before_a_login_is_told_after_it() {
    let mut world = World::new(Some(HOME), 1);
    world.udp_passes = false;
    let (_, mut world) = world.probe(20);
    world.tell(Input::Signalling(true));
    world.run(20);
    world.tell(Input::Signalling(false));
    // Tests go on meanwhile; in the minutes that pass the proofs are renewed.
    while !matches!(world.prober.families[0].after, After::Testing)
        || world.elapsed() < Duration::from_secs(90)
    {
        world.run(1);
        assert!(world.elapsed() < Duration::from_secs(900));
    }
    world.run(1);
    let before = world.reports.len();
    world.tell(Input::Signalling(true));
    world.run(1);
    assert!(world.reports.len() > before);
    assert_eq!(world.reports.last(), Some(world.prober.report()));
}
