//! Two sessions on a small network with UDP and TCP, on virtual time: races, promotion, loss, rebinding, cuts.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::*;
use crate::link::udp::{Demux, Route};
use crate::nat::NatReport;
use crate::path::Outcome;

/// One way.
const DELAY: Duration = Duration::from_millis(20);

struct World {
    began: Instant,
    now: Instant,
    ends: [End; 2],
    flights: BinaryHeap<Reverse<Flight>>,
    number: u64,
    wires: Vec<Link>,
    attempts: u8,
    /// Whether UDP passes at all, and TCP.
    udp: bool,
    tcp: bool,
    /// Lost datagrams of 1000.
    lost: u64,
    rng: Rng,
    /// How often a deadline came.
    wakes: usize,
}

struct End {
    session: Session,
    demux: Demux<LinkId>,
    /// Where the other side sees its datagrams come from, and where they reach it.
    address: SocketAddr,
    /// Whom it has written to, where it is behind a filter that lets nobody else in.
    filter: Option<BTreeSet<SocketAddr>>,
    news: Vec<SessionNews>,
    /// The stream, once there is one.
    key: Option<Key>,
    sending: Vec<u8>,
    received: Vec<u8>,
    resets: Vec<u16>,
}

/// A TCP connection: its link at either end, none once that is gone, and what could not be read yet.
struct Link {
    ends: [Option<LinkId>; 2],
    held: [Vec<u8>; 2],
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

fn address(of: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + of as u8], port))
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn new() -> Self {
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
            attempts: 0,
            udp: true,
            tcp: true,
            lost: 0,
            rng: Rng::new([3; 32]),
            wakes: 0,
        }
    }

    /// One whose link over UDP is up.
    fn up() -> Self {
        let mut world = Self::new();
        world.attempt();
        world.run(Duration::from_secs(1));
        assert_eq!(world.rungs(), [Some(Rung::UdpDirect); 2]);
        world
    }

    /// A new attempt, in which each side knows the other's address by UDP and by TCP.
    fn attempt(&mut self) {
        self.attempt_with(RungSet::ALL);
    }

    fn attempt_with(&mut self, rungs: RungSet) {
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
            };
            self.ends[at].session.attempt(self.now, attempt);
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done`, for at most `time`. Whether it is done.
    fn run_until(&mut self, time: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
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
                let (Route::Probe(link) | Route::Quic(link)) =
                    end.demux.route(self.now, SockId(0), from, 0, &bytes)
                else {
                    return;
                };
                end.session.datagram(self.now, link, SockId(0), from, 0, &bytes);
                end.session.digest(self.now);
            }
            What::Tcp { wire, bytes } => {
                let Some(Link { ends, held }) = self.wires.get_mut(wire) else { return };
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
        self.ends[at].session.fill(self.now);
        let mut out = Vec::new();
        while let Some(sent) = self.ends[at].session.poll_transmit(self.now, 10, &mut out) {
            worked = true;
            let datagrams: Vec<Vec<u8>> =
                out.chunks(sent.segment.unwrap_or(out.len())).map(<[u8]>::to_vec).collect();
            datagrams.into_iter().for_each(|bytes| self.send(at, sent.to, bytes));
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
            Action::Close { link, farewell } => {
                let Some(wire) = self.wires.iter().position(|wire| wire.ends[at] == Some(link)) else {
                    return;
                };
                self.wires[wire].ends[at] = None;
                self.post(1 - at, What::Tcp { wire, bytes: farewell });
                self.post(1 - at, What::TcpEnd { wire });
            }
            Action::Route(route) => {
                end.demux.add_tag(route.tag, route.link);
                for held in end.demux.add_link(route.label, route.initial, route.link) {
                    end.session.datagram(self.now, route.link, held.socket, held.from, held.ecn, &held.bytes);
                }
                end.session.digest(self.now);
            }
            Action::Unroute { route, farewell } => {
                end.demux.remove_link(route.label, route.initial);
                end.demux.remove_tag(route.tag);
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
        self.wires.push(Link { ends, held: [Vec::new(), Vec::new()] });
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
        self.flights.push(Reverse(Flight { at: self.now + DELAY, number: self.number, to, what }));
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
    fn transfer(&mut self, length: usize) {
        let key = self.ends[0].session.mux().open(Protocol::Tcp, "127.0.0.1:22").unwrap();
        self.ends[0].key = Some(key);
        for at in 0..2 {
            self.ends[at].sending = bytes(at, length);
        }
    }

    fn has_moved(&self, length: usize) -> bool {
        self.ends.iter().all(|end| end.received.len() >= length)
    }

    /// Runs until all has come, and checks that it is what was sent.
    fn completes(&mut self, time: Duration, length: usize) {
        let done = self.run_until(time, |world| world.has_moved(length));
        let received: Vec<usize> = self.ends.iter().map(|end| end.received.len()).collect();
        assert!(done, "{received:?} of {length} have come");
        for at in 0..2 {
            assert!(self.ends[at].received == bytes(1 - at, length), "wrong bytes came to side {at}");
            assert!(self.ends[at].resets.is_empty());
        }
    }

    /// The rung that each side believes to be on.
    fn rungs(&self) -> [Option<Rung>; 2] {
        [0, 1].map(|at| {
            self.ends[at].news.iter().rev().find_map(|news| match news {
                SessionNews::Up { rung, .. } => Some(Some(*rung)),
                SessionNews::Down { .. } => Some(None),
                _ => None,
            })?
        })
    }

    fn ups(&self, at: usize) -> Vec<Rung> {
        let up = |news: &SessionNews| match news {
            SessionNews::Up { rung, .. } => Some(*rung),
            _ => None,
        };
        self.ends[at].news.iter().filter_map(up).collect()
    }

    fn downs(&self, at: usize) -> usize {
        self.ends[at].news.iter().filter(|news| matches!(news, SessionNews::Down { .. })).count()
    }

    fn outcome(&self, at: usize, rung: Rung) -> Option<Outcome> {
        self.ends[at].news.iter().find_map(|news| match news {
            SessionNews::AttemptDone { outcomes, .. } => {
                outcomes.iter().find(|outcome| outcome.rung == rung).cloned()
            }
            _ => None,
        })
    }

    fn links(&self) -> [usize; 2] {
        [0, 1].map(|at| self.ends[at].session.links.len())
    }
}

fn bytes(of: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 253 + of * 7) as u8).collect()
}

#[test]
fn the_rungs_race_and_the_better_one_stays() {
    let mut world = World::new();
    world.attempt();
    world.run(Duration::from_secs(1));
    assert_eq!(world.rungs(), [Some(Rung::UdpDirect); 2]);
    assert_eq!(world.links(), [1, 1], "losers are closed");
    assert!(world.wires.iter().all(|wire| wire.ends == [None, None]));
    for at in 0..2 {
        let udp = world.outcome(at, Rung::UdpDirect).unwrap();
        assert_eq!((udp.outcome, udp.reason.as_str()), (Verdict::Connected, ""));
        assert_eq!(world.outcome(at, Rung::TcpPunch).unwrap().outcome, Verdict::Skipped);
    }
    world.transfer(100_000);
    world.completes(Duration::from_secs(5), 100_000);
}

#[test]
fn where_udp_does_not_pass_tcp_stays_and_the_reason_is_told() {
    let mut world = World::new();
    world.udp = false;
    world.attempt();
    world.transfer(10_000);
    world.completes(Duration::from_secs(1), 10_000);
    world.run(Duration::from_secs(20));
    assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
    assert_eq!(world.links(), [1, 1]);
    for at in 0..2 {
        let udp = world.outcome(at, Rung::UdpDirect).unwrap();
        let reason = format!("{}: no answer", address(1 - at, 4000));
        assert_eq!((udp.outcome, udp.reason), (Verdict::Failed, reason));
        assert_eq!(world.outcome(at, Rung::TcpDirect).unwrap().outcome, Verdict::Connected);
    }
}

#[test]
fn an_attempt_that_fails_on_both_transports_says_so_of_both() {
    let mut world = World::new();
    (world.udp, world.tcp) = (false, false);
    world.attempt();
    world.run(Duration::from_secs(60));
    for at in 0..2 {
        assert_eq!(world.outcome(at, Rung::UdpDirect).unwrap().outcome, Verdict::Failed);
        let tcp = world.outcome(at, Rung::TcpDirect).unwrap();
        assert_eq!(tcp.reason, format!("{}: connection refused", address(1 - at, 4000)));
    }
    assert_eq!(world.links(), [0, 0]);
}

#[test]
fn streams_move_from_tcp_to_udp_in_the_middle_of_a_transfer_and_lose_nothing() {
    let mut world = World::new();
    world.udp = false;
    world.attempt();
    world.transfer(4_000_000);
    // There is always something under way.
    let rest = [0, 1].map(|at| world.ends[at].sending.split_off(40_000));
    let mut rest = rest.map(|rest| rest.chunks(40_000).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter());
    for step in 0..100 {
        world.run(Duration::from_millis(30));
        if step == 30 {
            assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
            world.udp = true;
        }
        for (end, rest) in world.ends.iter_mut().zip(&mut rest) {
            end.sending.extend(rest.next().into_iter().flatten());
        }
    }
    assert_eq!(world.rungs(), [Some(Rung::UdpDirect); 2]);
    world.completes(Duration::from_secs(20), 4_000_000);
    world.run(Duration::from_secs(3));
    for at in 0..2 {
        assert_eq!(world.ups(at), [Rung::TcpDirect, Rung::UdpDirect]);
        assert_eq!(world.downs(at), 0);
    }
    assert_eq!(world.links(), [1, 1], "the worse one is closed");
}

#[test]
fn a_cut_of_udp_has_the_streams_go_on_over_tcp() {
    for cut_at in [0, 40, 150] {
        let mut world = World::up();
        world.transfer(3_000_000);
        world.run(Duration::from_millis(cut_at));
        world.udp = false;
        let noticed = |world: &mut World| world.downs(0) == 1;
        assert!(world.run_until(Duration::from_secs(6), noticed), "an active link is dead within 4 s");
        world.attempt();
        world.completes(Duration::from_secs(10), 3_000_000);
        assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
    }
}

#[test]
fn a_cut_that_one_side_alone_has_noticed_is_healed_over_a_worse_rung() {
    for notices in 0..2 {
        let mut world = World::up();
        world.run(Duration::from_secs(5));
        let key = world.ends[notices].session.mux().open(Protocol::Tcp, "127.0.0.1:22").unwrap();
        world.ends[notices].key = Some(key);
        world.udp = false;
        world.ends[notices].sending = bytes(notices, 100_000);
        let noticed = |world: &mut World| world.downs(notices) == 1;
        assert!(world.run_until(Duration::from_secs(6), noticed));
        assert_eq!(world.downs(1 - notices), 0);
        world.attempt();
        let arrived = |world: &mut World| world.ends[1 - notices].received.len() == 100_000;
        assert!(world.run_until(Duration::from_secs(2), arrived), "side {notices} noticed");
        assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
    }
}

#[test]
fn a_rebinding_on_either_side_keeps_the_link_and_every_byte() {
    for moves in 0..2 {
        let mut world = World::up();
        world.transfer(3_000_000);
        world.run(Duration::from_millis(200));
        world.ends[moves].address = address(moves, 5000);
        world.completes(Duration::from_secs(20), 3_000_000);
        for at in 0..2 {
            assert_eq!((world.downs(at), world.ups(at).len()), (0, 1), "side {moves} moved");
        }
        let moved = |news: &&SessionNews| matches!(news, SessionNews::Moved { .. });
        let news = world.ends[1 - moves].news.iter().find(moved);
        let Some(SessionNews::Moved { remote }) = news else { panic!("nobody was told") };
        assert_eq!(*remote, address(moves, 5000));
    }
}

#[test]
fn a_filter_before_either_side_is_opened_by_that_side() {
    for filtered in [[true, false], [false, true], [true, true]] {
        let mut world = World::new();
        world.tcp = false;
        for (end, filtered) in world.ends.iter_mut().zip(filtered) {
            end.filter = filtered.then(BTreeSet::new);
        }
        world.attempt();
        let up = |world: &mut World| world.rungs() == [Some(Rung::UdpDirect); 2];
        assert!(world.run_until(Duration::from_millis(300), up), "{filtered:?}");
    }
}

#[test]
fn a_fifth_of_all_datagrams_lost_costs_no_byte() {
    let mut world = World::new();
    (world.lost, world.tcp) = (200, false);
    world.attempt();
    world.transfer(300_000);
    world.completes(Duration::from_secs(60), 300_000);
    assert!((0..2).all(|at| world.downs(at) == 0));
}

#[test]
fn a_peer_that_started_anew_is_known_at_once_over_udp() {
    for renewed in 0..2 {
        let mut world = World::up();
        world.transfer(1000);
        world.run(Duration::from_secs(1));
        let [low, high] = seeds();
        let (own, peer) = if renewed == 0 { (low, high) } else { (high, low) };
        world.ends[renewed].session = session(world.now, own, peer, 9);
        world.ends[renewed].demux = Demux::new();
        world.ends[renewed].key = None;
        world.attempt();
        let reset = |world: &mut World| world.ends[1 - renewed].resets == [mux::code::RESTARTED];
        assert!(world.run_until(Duration::from_millis(500), reset), "side {renewed} started anew");
        world.run(Duration::from_secs(1));
        assert_eq!(world.rungs(), [Some(Rung::UdpDirect); 2]);
        assert_eq!(world.links(), [1, 1]);
    }
}

#[test]
fn an_end_in_order_is_noticed_at_once() {
    let mut world = World::up();
    world.run(Duration::from_secs(20));
    let now = world.now;
    world.ends[0].session.leave("bye");
    world.run(Duration::from_millis(1));
    world.ends[0].session.close(now, "bye");
    let down = |world: &mut World| world.downs(1) == 1;
    assert!(world.run_until(DELAY * 2, down));
}

#[test]
fn an_idle_link_holds_small_windows_and_sleeps() {
    let mut world = World::up();
    world.transfer(2_000_000);
    world.completes(Duration::from_secs(20), 2_000_000);
    world.run(Duration::from_secs(60));
    for end in &world.ends {
        let windows = end.session.links.iter().find_map(|slot| match &slot.carrier {
            Carrier::Udp(udp) => Some(udp.link.windows()),
            _ => None,
        });
        let windows = windows.unwrap();
        assert!(windows.receive <= 64 * 1024 && windows.send <= 64 * 1024, "{windows:?}");
    }
    world.wakes = 0;
    world.run(Duration::from_secs(600));
    assert!((0..2).all(|at| world.downs(at) == 0));
    // A ping of each side every 15 s, and a few of QUIC's own timers with each.
    assert!(world.wakes <= 6 * 600 / 15, "{} wakes in ten minutes", world.wakes);
}

#[test]
fn what_must_not_be_used_is_not() {
    let mut world = World::new();
    world.attempt_with(RungSet::from_iter([Rung::TcpDirect]));
    world.run(Duration::from_secs(1));
    assert_eq!(world.rungs(), [Some(Rung::TcpDirect); 2]);
    let mut world = World::new();
    world.attempt_with(RungSet::from_iter([Rung::UdpPunch]));
    world.run(Duration::from_secs(10));
    assert_eq!(world.rungs(), [None; 2], "the way is a direct one");
    assert!(world.now > world.began);
}
