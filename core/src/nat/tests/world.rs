//! The model: one host, one NAT, one server, virtual time.

use std::collections::BTreeMap;

use super::*;
use crate::stun::proof::ProofKey;
use crate::stun::server::{Arrival, Responder};

/// What a NAT does. None in its place is no NAT.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nat {
    pub(super) mapping: Dependence,
    pub(super) filtering: Dependence,
    /// What is added to the port of the latest mapping; 0 keeps the inside port where it can.
    pub(super) step: u16,
    pub(super) hairpin: bool,
    pub(super) expiry: Duration,
}

pub(super) const HOME: Nat =
    Nat { mapping: ForAll, filtering: PerPort, step: 0, hairpin: false, expiry: Duration::from_secs(120) };

pub(super) const INSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 2));
pub(super) const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
pub(super) const SERVERS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2)),
];
/// Nodes that relay, one UDP port each.
pub(super) const RELAYS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)), 5_001),
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 20)), 5_002),
];
pub(super) const CONFIG: Config = Config { udp: [27182, 27183], tcp: [27180, 27181] };
pub(super) const DELAY: Duration = Duration::from_millis(20);
pub(super) const PORT: u16 = 4000;

/// A mapping of the model: the inside port, and who may use it until when.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) inside: u16,
    pub(super) peers: BTreeMap<SocketAddr, Instant>,
}

#[derive(Debug)]
pub(super) enum Event {
    /// A datagram on its way: from and to, as they are outside.
    Packet(SocketAddr, SocketAddr, Vec<u8>),
    Exchange(u64, Option<(SocketAddr, Vec<u8>)>),
}

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) seq: u64,
    pub(super) prober: Prober,
    pub(super) nat: Option<Nat>,
    /// How many addresses the server has; 0 for none that answer.
    pub(super) servers: usize,
    pub(super) udp_passes: bool,
    pub(super) tcp_passes: bool,
    /// Every so many datagrams one is lost.
    pub(super) loss: Option<u64>,
    /// The relays that answer, and those of them that name another mapping than they see.
    pub(super) relays: Vec<SocketAddr>,
    pub(super) liars: Vec<SocketAddr>,
    pub(super) sockets: BTreeMap<u16, Socket>,
    pub(super) next_port: u16,
    pub(super) last_outside: u16,
    pub(super) by_scope: BTreeMap<(u16, Option<IpAddr>, Option<u16>), u16>,
    pub(super) mappings: BTreeMap<u16, Mapping>,
    pub(super) queue: BTreeMap<(Instant, u64), Event>,
    pub(super) sent: u64,
    /// The transports of the mappings, in the order in which they were made.
    pub(super) made: Vec<Transport>,
    pub(super) reports: Vec<NatReport>,
}

impl World {
    pub(super) fn new(nat: Option<Nat>, servers: usize) -> Self {
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

    pub(super) fn own(&self) -> IpAddr {
        if self.nat.is_some() { INSIDE } else { OUTSIDE }
    }

    /// Starts, runs for some seconds, and returns the report.
    pub(super) fn probe(mut self, seconds: u64) -> (NatReport, Self) {
        self.tell(Input::Servers(&SERVERS[..1], CONFIG));
        let own = self.own();
        self.tell(Input::Network { addresses: &[own, IpAddr::from([127, 0, 0, 1])], port: PORT });
        self.run(seconds);
        (*self.prober.report(), self)
    }

    /// With relays that answer and are known from the start.
    pub(super) fn with_relays(mut self, relays: &[SocketAddr]) -> Self {
        self.relays = relays.to_vec();
        self.tell(Input::Relays(relays));
        self
    }

    pub(super) fn udp(self) -> Behaviour {
        self.probe(5).0.udp4.unwrap()
    }

    pub(super) fn run(&mut self, seconds: u64) {
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

    pub(super) fn tell(&mut self, input: Input<'_>) {
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

    pub(super) fn later(&mut self, event: Event) {
        self.seq += 1;
        self.queue.insert((self.now + DELAY, self.seq), event);
    }

    pub(super) fn happen(&mut self, event: Event) {
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
    pub(super) fn translate(
        &mut self,
        transport: Transport,
        port: u16,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
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

    pub(super) fn leave(&mut self, port: u16, to: SocketAddr, bytes: Vec<u8>) {
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

    pub(super) fn enter(&mut self, from: SocketAddr, to: SocketAddr) -> Option<Socket> {
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
    pub(super) fn answer(
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

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}
