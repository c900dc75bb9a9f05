//! Two sessions, each behind a NAT: from the attempt to the bytes of a stream.

use std::collections::{BTreeMap, BTreeSet};

use super::wiring::{datagrams, deliver, route, unroute};
use super::*;
use crate::link::udp::Demux;
use crate::nat::NatReport;
use crate::path::CandidateKind;
use crate::punch::tests::nat::{CONE, FULL_CONE, Kind, LINUX, MAIN, Nat, REGULAR, SYMMETRIC};
use crate::punch::{Budget, Effort};

/// One way, between the NATs.
const DELAY: Duration = Duration::from_millis(20);
/// Routers there.
const ROUTERS: u8 = 3;

struct World {
    began: Instant,
    now: Instant,
    ends: [End; 2],
    flights: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    number: u64,
    /// Lost datagrams of 100.
    lost: u64,
    rng: Rng,
}

struct End {
    session: Session,
    demux: Demux<LinkId>,
    nat: Nat,
    sockets: BTreeSet<SockId>,
    next_socket: u32,
    most: usize,
    news: Vec<SessionNews>,
    key: Option<Key>,
    received: usize,
    heard_at: Option<Instant>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn new(kinds: [Kind; 2], seed: u8) -> Self {
        let now = Instant::now();
        let [low, high] = seeds();
        let mut rng = Rng::new([seed; 32]);
        let mut end = |at: u8, own, peer, kind| End {
            session: session(now, own, peer, seed.wrapping_mul(2).wrapping_add(at)),
            demux: Demux::new(),
            nat: Nat::new(kind, [198, 51, 100, 1 + at], rng.fork("nat")),
            sockets: BTreeSet::from([MAIN]),
            next_socket: 0,
            most: 0,
            news: Vec::new(),
            key: None,
            received: 0,
            heard_at: None,
        };
        let ends = [end(0, low, high, kinds[0]), end(1, high, low, kinds[1])];
        Self { began: now, now, ends, flights: BTreeMap::new(), number: 0, lost: 0, rng }
    }

    fn attempt(&mut self) {
        let report = |end: &End| NatReport {
            udp4: Some(end.nat.kind.behaviour(end.nat.public())),
            ..NatReport::default()
        };
        for at in 0..2 {
            let attempt = Attempt {
                id: AttemptId([1; 16]),
                punch_key: [7; 32],
                candidates: vec![Candidate {
                    kind: CandidateKind::ServerReflexive,
                    transport: Transport::Udp,
                    address: self.ends[1 - at].nat.public(),
                }],
                rungs: RungSet::ALL,
                relays: Vec::new(),
                own_nat: report(&self.ends[at]),
                peer_nat: report(&self.ends[1 - at]),
                tcp_in: Some(Duration::ZERO),
                effort: Effort::Full,
                budget: Budget::default(),
            };
            self.ends[at].session.attempt(self.now, attempt);
        }
        let key = self.ends[0].session.mux().open(Protocol::Tcp, "127.0.0.1:22").unwrap();
        self.ends[0].key = Some(key);
    }

    /// Runs for `time`, or until bytes of the stream have come to both sides. Whether they have.
    fn run(&mut self, time: Duration) -> bool {
        let end = self.now + time;
        loop {
            while self.turn(0) | self.turn(1) {}
            if self.ends.iter().all(|end| end.received > 0) {
                return true;
            }
            let flight = self.flights.keys().next().map(|(at, _)| *at);
            let deadlines = self.ends.iter().filter_map(|end| end.session.deadline());
            let next = deadlines.map(|(at, _)| at).chain(flight).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            for end in &mut self.ends {
                if end.session.deadline().is_some_and(|(at, _)| at <= self.now) {
                    end.session.tick(self.now);
                }
            }
            while let Some(entry) = self.flights.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, bytes) = entry.remove();
                self.arrive(from, to, &bytes);
            }
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        let Some(end) = self.ends.iter_mut().find(|end| end.nat.ip == to.ip()) else {
            panic!("a datagram to {to}, who has nothing to do with this");
        };
        let Some(socket) = end.nat.inbound(to.port(), from).filter(|socket| end.sockets.contains(socket))
        else {
            return;
        };
        deliver(&mut end.session, &mut end.demux, now, (socket, from), bytes);
    }

    fn turn(&mut self, at: usize) -> bool {
        let mut worked = false;
        while let Some(action) = self.ends[at].session.poll_action() {
            worked = true;
            self.act(at, action);
        }
        self.stream(at);
        for (sent, bytes) in datagrams(&mut self.ends[at].session, self.now) {
            worked = true;
            self.send(at, sent, bytes);
        }
        worked
    }

    fn act(&mut self, at: usize, action: Action) {
        let now = self.now;
        let end = &mut self.ends[at];
        match action {
            Action::Dial { link, .. } => end.session.closed(now, link, "connection refused"),
            Action::Route(added) => route(&mut end.session, &mut end.demux, now, added),
            Action::Unroute { route, farewell } => {
                unroute(&mut end.demux, route);
                if let Some((sent, bytes)) = farewell {
                    self.send(at, sent, bytes);
                }
            }
            Action::OpenSocket { link, port } => {
                end.next_socket += 1;
                let socket = SockId(end.next_socket);
                end.nat.bind(socket, port);
                end.sockets.insert(socket);
                end.most = end.most.max(end.sockets.len() - 1);
                end.session.opened(now, link, Some(socket));
            }
            Action::CloseSocket(socket) => assert!(end.sockets.remove(&socket)),
            Action::News(news) => end.news.push(news),
            Action::DialServer { .. } | Action::Close { .. } | Action::PeerLeaving(_) => {}
        }
    }

    fn send(&mut self, at: usize, sent: Transmit, bytes: Vec<u8>) {
        let end = &mut self.ends[at];
        assert!(end.sockets.contains(&sent.socket), "sent by a socket that is closed");
        let hops = sent.hops.unwrap_or(64);
        let from = end.nat.outbound(sent.socket, sent.to);
        if hops >= ROUTERS + 2 && self.rng.below(100) >= self.lost {
            self.number += 1;
            self.flights.insert((self.now + DELAY, self.number), (from, sent.to, bytes));
        }
    }

    fn stream(&mut self, at: usize) {
        let now = self.now;
        let End { session, key, received, heard_at, .. } = &mut self.ends[at];
        while let Some(event) = session.mux().poll_event() {
            if let Event::Incoming { key: offered, .. } = event {
                session.mux().accept(offered);
                *key = Some(offered);
            }
        }
        let Some(key) = *key else { return };
        if *received == 0 {
            session.mux().write(key, b"hello");
        }
        let bytes = session.mux().readable(key).concat();
        session.mux().consume(now, key, bytes.len());
        *received += bytes.len();
        if *received > 0 {
            heard_at.get_or_insert(now);
        }
    }

    fn rung(&self, at: usize) -> Option<Rung> {
        self.ends[at].news.iter().rev().find_map(|news| match news {
            SessionNews::Up { rung, .. } => Some(*rung),
            _ => None,
        })
    }

    fn reason(&self, at: usize) -> Option<String> {
        self.ends[at].news.iter().find_map(|news| match news {
            SessionNews::AttemptDone { outcomes, .. } => {
                let punch = outcomes.iter().find(|outcome| outcome.rung == Rung::UdpPunch);
                punch.map(|outcome| outcome.reason.clone())
            }
            _ => None,
        })
    }
}

#[test]
fn nodes_behind_cones_talk_over_a_punched_path_after_nine_ways() {
    for kinds in [[CONE, CONE], [LINUX, LINUX], [FULL_CONE, SYMMETRIC], [SYMMETRIC, FULL_CONE]] {
        let mut world = World::new(kinds, 1);
        world.attempt();
        assert!(world.run(Duration::from_secs(3)), "{kinds:?}");
        assert_eq!([world.rung(0), world.rung(1)], [Some(Rung::UdpPunch); 2]);
        let first = world.ends[1].heard_at.unwrap() - world.began;
        // One for the probe, or two with openers before it; two for QUIC's handshake; one each for the
        // controlled side's hello, SWITCH and RESUME, the other RESUME, and the bytes.
        assert!(first <= 9 * DELAY, "{kinds:?}: {first:?}");
    }
}

#[test]
fn a_link_over_a_guessed_port_keeps_that_socket_and_no_other() {
    for (seed, kinds) in [[SYMMETRIC, CONE], [CONE, SYMMETRIC], [LINUX, SYMMETRIC]].into_iter().enumerate() {
        let mut world = World::new(kinds, seed as u8 + 2);
        world.lost = 5;
        world.attempt();
        assert!(world.run(Duration::from_secs(12)), "{kinds:?}");
        world.run(Duration::from_millis(500));
        assert_eq!(world.rung(0), Some(Rung::UdpPunch));
        let guesser = if kinds[0] == SYMMETRIC { 0 } else { 1 };
        assert!(world.ends[guesser].most > 64, "it opened many");
        assert_eq!(world.ends[guesser].sockets.len(), 2, "the main one and the one that was hit");
        let now = world.now;
        world.ends[guesser].session.close(now, "the end");
        while world.turn(guesser) {}
        assert_eq!(world.ends[guesser].sockets.len(), 1);
    }
}

#[test]
fn regular_ports_are_met_ahead() {
    for kinds in [[REGULAR, CONE], [LINUX, REGULAR], [REGULAR, REGULAR]] {
        let mut world = World::new(kinds, 9);
        world.attempt();
        assert!(world.run(Duration::from_secs(3)), "{kinds:?}");
    }
}

#[test]
fn what_is_hopeless_is_not_begun() {
    let mut world = World::new([SYMMETRIC, REGULAR], 5);
    world.attempt();
    assert!(!world.run(Duration::from_millis(10)));
    assert!(world.ends.iter().all(|end| end.session.links.is_empty()));
    world.run(Duration::from_secs(10));
    for at in 0..2 {
        let reason = world.reason(at).expect("the attempt is over");
        assert!(reason.contains("both NATs are symmetric"), "{reason}");
    }
}

#[test]
fn a_guess_in_vain_ends_and_closes_all() {
    let mut world = World::new([SYMMETRIC, CONE], 6);
    world.lost = 100;
    world.attempt();
    assert!(!world.run(Duration::from_secs(14)));
    for at in 0..2 {
        let reason = world.reason(at).expect("the attempt is over");
        assert!(reason.contains("to guess a port"), "{reason}");
    }
    world.run(Duration::from_secs(20));
    assert!(world.ends.iter().all(|end| end.sockets.len() == 1 && end.session.links.is_empty()));
}
