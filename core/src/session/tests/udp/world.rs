//! Two sessions that can reach each other by UDP and by TCP.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::super::wiring::{datagrams, deliver, route, unroute};
use super::*;
use crate::link::udp::Demux;
use crate::nat::NatReport;
use crate::path::Outcome;
use crate::punch::{Budget, Effort};

/// One way.
pub(super) const DELAY: Duration = Duration::from_millis(20);

pub(super) struct World {
    pub(super) began: Instant,
    pub(super) now: Instant,
    pub(super) ends: [End; 2],
    flights: BinaryHeap<Reverse<Flight>>,
    number: u64,
    pub(super) wires: Vec<Link>,
    /// What the bytes of a connection take longer, by whose dial it came about.
    pub(super) detour: [Duration; 2],
    attempts: u8,
    /// Whether UDP passes at all, and TCP.
    pub(super) udp: bool,
    pub(super) tcp: bool,
    /// Lost datagrams of 1000.
    pub(super) lost: u64,
    rng: Rng,
    /// How often a deadline came.
    pub(super) wakes: usize,
}

pub(super) struct End {
    pub(super) session: Session,
    pub(super) demux: Demux<LinkId>,
    /// Where the other side sees its datagrams come from, and where they reach it.
    pub(super) address: SocketAddr,
    /// Whom it has written to, where it is behind a filter that lets nobody else in.
    pub(super) filter: Option<BTreeSet<SocketAddr>>,
    pub(super) news: Vec<SessionNews>,
    /// The stream, once there is one.
    pub(super) key: Option<Key>,
    pub(super) sending: Vec<u8>,
    pub(super) received: Vec<u8>,
    pub(super) resets: Vec<u16>,
}

/// A TCP connection: its link at either end, none once that is gone, and what could not be read yet.
pub(super) struct Link {
    pub(super) ends: [Option<LinkId>; 2],
    held: [Vec<u8>; 2],
    dialler: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    number: u64,
    to: usize,
    what: What,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Udp { from: SocketAddr, bytes: Vec<u8> },
    Tcp { wire: usize, bytes: Vec<u8> },
    TcpEnd { wire: usize },
}

pub(super) fn address(of: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + of as u8], port))
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let [low, high] = seeds();
        let end = |at, own, peer| End {
            session: session(now, own, peer, 1 + at as u8),
            demux: Demux::new(),
            address: address(at, 4000),
            filter: None,
            news: Vec::new(),
            key: None,
            sending: Vec::new(),
            received: Vec::new(),
            resets: Vec::new(),
        };
        Self {
            began: now,
            now,
            ends: [end(0, low, high), end(1, high, low)],
            flights: BinaryHeap::new(),
            number: 0,
            wires: Vec::new(),
            detour: [Duration::ZERO; 2],
            attempts: 0,
            udp: true,
            tcp: true,
            lost: 0,
            rng: Rng::new([3; 32]),
            wakes: 0,
        }
    }

    /// One whose link over UDP is up.
    pub(super) fn up() -> Self {
        let mut world = Self::new();
        world.attempt();
        world.run(Duration::from_secs(1));
        assert_eq!(world.rungs(), [Some(Rung::UdpDirect); 2]);
        world
    }

    /// A new attempt, in which each side knows the other's address by UDP and by TCP.
    pub(super) fn attempt(&mut self) {
        self.attempt_with(RungSet::ALL);
    }

    pub(super) fn attempt_with(&mut self, rungs: RungSet) {
        self.attempts += 1;
        for at in 0..2 {
            let candidate = |transport| Candidate {
                kind: CandidateKind::Host,
                transport,
                address: address(1 - at, 4000),
            };
            let attempt = Attempt {
                id: AttemptId([self.attempts; 16]),
                punch_key: [7; 32],
                candidates: vec![candidate(Transport::Udp), candidate(Transport::Tcp)],
                rungs,
                relays: Vec::new(),
                own_nat: NatReport::default(),
                peer_nat: NatReport::default(),
                tcp_in: Some(Duration::ZERO),
                effort: Effort::Full,
                budget: Budget::default(),
            };
            self.ends[at].session.attempt(self.now, attempt);
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done`, for at most `time`. Whether it is done.
    pub(super) fn run_until(&mut self, time: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            while self.turn(0) | self.turn(1) {}
            if done(self) {
                return true;
            }
            let flight = self.flights.peek().map(|Reverse(flight)| flight.at);
            let deadlines = self.ends.iter().filter_map(|end| end.session.deadline());
            let next = deadlines.map(|(at, _)| at).chain(flight).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            for end in &mut self.ends {
                if end.session.deadline().is_some_and(|(at, _)| at <= self.now) {
                    self.wakes += 1;
                    end.session.tick(self.now);
                }
            }
            while self.flights.peek().is_some_and(|Reverse(flight)| flight.at <= self.now) {
                let Some(Reverse(flight)) = self.flights.pop() else { break };
                self.arrive(flight);
            }
        }
    }

    fn arrive(&mut self, Flight { to, what, .. }: Flight) {
        let end = &mut self.ends[to];
        match what {
            What::Udp { from, bytes } => {
                if end.filter.as_ref().is_some_and(|known| !known.contains(&from)) {
                    return;
                }
                deliver(&mut end.session, &mut end.demux, self.now, (SockId(0), from), &bytes);
            }
            What::Tcp { wire, bytes } => {
                let Some(Link { ends, held, .. }) = self.wires.get_mut(wire) else { return };
                let Some(link) = ends[to] else { return };
                held[to].extend(bytes);
                let used = end.session.receive(self.now, link, &mut held[to]);
                held[to].drain(..used);
            }
            What::TcpEnd { wire } => {
                if let Some(link) = self.wires.get_mut(wire).and_then(|wire| wire.ends[to].take()) {
                    end.session.closed(self.now, link, "the connection was closed");
                }
            }
        }
    }

    /// Lets one side do what it can do now. Whether it did anything.
    fn turn(&mut self, at: usize) -> bool {
        let mut worked = false;
        while let Some(action) = self.ends[at].session.poll_action() {
            worked = true;
            self.act(at, action);
        }
        self.stream(at);
        for (sent, bytes) in datagrams(&mut self.ends[at].session, self.now) {
            worked = true;
            self.send(at, sent.to, bytes);
        }
        for wire in 0..self.wires.len() {
            let Some(link) = self.wires[wire].ends[at] else { continue };
            let mut bytes = Vec::new();
            self.ends[at].session.transmit(self.now, link, &mut bytes, BURST);
            if !bytes.is_empty() {
                worked = true;
                self.post(1 - at, What::Tcp { wire, bytes });
            }
        }
        worked
    }

    fn act(&mut self, at: usize, action: Action) {
        let end = &mut self.ends[at];
        match action {
            Action::Dial { link, .. } if !self.tcp => {
                end.session.closed(self.now, link, "connection refused")
            }
            Action::Dial { link, .. } => self.connect(at, link),
            Action::DialServer { .. } => {}
            Action::Close { link, farewell, .. } => {
                let Some(wire) = self.wires.iter().position(|wire| wire.ends[at] == Some(link)) else {
                    return;
                };
                self.wires[wire].ends[at] = None;
                self.post(1 - at, What::Tcp { wire, bytes: farewell });
                self.post(1 - at, What::TcpEnd { wire });
            }
            Action::Route(added) => route(&mut end.session, &mut end.demux, self.now, added),
            Action::Unroute { route, farewell } => {
                unroute(&mut end.demux, route);
                if let Some((sent, bytes)) = farewell {
                    self.send(at, sent.to, bytes);
                }
            }
            // Nothing here needs a port to be guessed.
            Action::OpenSocket { link, .. } => end.session.opened(self.now, link, None),
            Action::CloseSocket(_) => {}
            Action::News(news) => end.news.push(news),
            Action::PeerLeaving(_) => {}
        }
    }

    /// A dial succeeds at once; its bytes take their time.
    fn connect(&mut self, at: usize, link: LinkId) {
        let other = 1 - at;
        self.ends[at].session.connected(self.now, link);
        let role = self.ends[at].session.role;
        let bytes = preface::encode(AttemptId([self.attempts; 16]), &[7; 32], role);
        let preface = Preface::parse(&bytes).unwrap();
        let from = SocketAddr::from((address(at, 0).ip(), 9));
        let Some(accepted) = self.ends[other].session.accepted(self.now, &preface, from) else {
            return self.ends[at].session.closed(self.now, link, "turned away");
        };
        let mut ends = [Some(accepted); 2];
        ends[at] = Some(link);
        let mut out = Vec::new();
        self.ends[at].session.transmit(self.now, link, &mut out, BURST);
        self.wires.push(Link { ends, held: [Vec::new(), Vec::new()], dialler: at });
        let wire = self.wires.len() - 1;
        self.post(other, What::Tcp { wire, bytes: out.split_off(preface::LENGTH) });
    }

    fn send(&mut self, at: usize, to: SocketAddr, bytes: Vec<u8>) {
        if let Some(known) = &mut self.ends[at].filter {
            known.insert(to);
        }
        let other = 1 - at;
        if self.udp && to == self.ends[other].address && self.rng.below(1000) >= self.lost {
            let from = self.ends[at].address;
            self.post(other, What::Udp { from, bytes });
        }
    }

    fn post(&mut self, to: usize, what: What) {
        self.number += 1;
        let detour = match &what {
            What::Udp { .. } => Duration::ZERO,
            What::Tcp { wire, .. } | What::TcpEnd { wire } => self.detour[self.wires[*wire].dialler],
        };
        let at = self.now + DELAY + detour;
        self.flights.push(Reverse(Flight { at, number: self.number, to, what }));
    }

    /// A connection breaks, and both ends see it. Whether there was one.
    pub(super) fn cut(&mut self, wire: usize) -> bool {
        let ends = std::mem::take(&mut self.wires[wire].ends);
        for (end, link) in self.ends.iter_mut().zip(ends) {
            link.into_iter().for_each(|link| end.session.closed(self.now, link, "cut"));
        }
        ends != [None, None]
    }

    /// Moves the bytes of the one stream.
    fn stream(&mut self, at: usize) {
        let now = self.now;
        let End { session, key, sending, received, resets, .. } = &mut self.ends[at];
        while let Some(event) = session.mux().poll_event() {
            match event {
                Event::Incoming { key: offered, .. } => {
                    session.mux().accept(offered);
                    *key = Some(offered);
                }
                Event::Finished { key } => session.mux().finished(key),
                Event::Reset { code, .. } => resets.push(code),
                Event::Accepted { .. }
                | Event::Readable { .. }
                | Event::Writable { .. }
                | Event::Closed { .. } => {}
            }
        }
        let Some(key) = *key else { return };
        let bytes = session.mux().readable(key).concat();
        session.mux().consume(now, key, bytes.len());
        received.extend(bytes);
        let n = session.mux().write(key, sending);
        sending.drain(..n);
    }

    /// Side 0 opens the stream, and both sides have so much to send.
    pub(super) fn transfer(&mut self, length: usize) {
        let key = self.ends[0].session.mux().open(Protocol::Tcp, "127.0.0.1:22").unwrap();
        self.ends[0].key = Some(key);
        for at in 0..2 {
            self.ends[at].sending = bytes(at, length);
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.ends.iter().all(|end| end.session.is_up())
    }

    pub(super) fn has_moved(&self, length: usize) -> bool {
        self.ends.iter().all(|end| end.received.len() >= length)
    }

    /// Runs until all has come, and checks that it is what was sent.
    pub(super) fn completes(&mut self, time: Duration, length: usize) {
        let done = self.run_until(time, |world| world.has_moved(length));
        let received: Vec<usize> = self.ends.iter().map(|end| end.received.len()).collect();
        assert!(done, "{received:?} of {length} have come");
        for at in 0..2 {
            assert!(self.ends[at].received == bytes(1 - at, length), "wrong bytes came to side {at}");
            assert!(self.ends[at].resets.is_empty());
        }
    }

    /// The rung that each side believes to be on.
    pub(super) fn rungs(&self) -> [Option<Rung>; 2] {
        [0, 1].map(|at| {
            self.ends[at].news.iter().rev().find_map(|news| match news {
                SessionNews::Up { rung, .. } => Some(Some(*rung)),
                SessionNews::Down { .. } => Some(None),
                _ => None,
            })?
        })
    }

    pub(super) fn ups(&self, at: usize) -> Vec<Rung> {
        let up = |news: &SessionNews| match news {
            SessionNews::Up { rung, .. } => Some(*rung),
            _ => None,
        };
        self.ends[at].news.iter().filter_map(up).collect()
    }

    pub(super) fn downs(&self, at: usize) -> usize {
        self.ends[at].news.iter().filter(|news| matches!(news, SessionNews::Down { .. })).count()
    }

    pub(super) fn outcome(&self, at: usize, rung: Rung) -> Option<Outcome> {
        self.ends[at].news.iter().find_map(|news| match news {
            SessionNews::AttemptDone { outcomes, .. } => {
                outcomes.iter().find(|outcome| outcome.rung == rung).cloned()
            }
            _ => None,
        })
    }

    pub(super) fn links(&self) -> [usize; 2] {
        [0, 1].map(|at| self.ends[at].session.links.len())
    }
}

pub(super) fn bytes(of: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 253 + of * 7) as u8).collect()
}
