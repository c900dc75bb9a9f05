//! Two sessions joined in memory, on virtual time: links that come, race, die silently or at once, and peers
//! that start anew.

mod punched;
mod relay;
mod udp;
mod wiring;

use std::collections::BTreeMap;

use super::*;
use crate::ids::SockId;
use crate::link::udp::Transmit;
use crate::link::{LinkKeys, Preface, preface};
use crate::mux::{Event, Key, Protocol};
use crate::nat::NatReport;
use crate::path::{Candidate, CandidateKind, Rung, RungSet, Verdict};
use crate::punch::{Budget, Effort};

/// Two nodes; `sides[0]` is the controlling one.
struct Pair {
    now: Instant,
    sides: [Side; 2],
    wires: Vec<Wire>,
    attempts: u8,
    /// How often a deadline came.
    wakes: usize,
}

struct Side {
    session: Session,
    news: Vec<SessionNews>,
    /// The streams that this side opened or was offered, in order.
    streams: Vec<Key>,
    received: BTreeMap<Key, Vec<u8>>,
    resets: Vec<(Key, u16)>,
    closed: usize,
    /// What the driver would say of a dial: none lets it succeed.
    refuses: bool,
}

/// A connection: the link at each end, and what is on its way to it.
struct Wire {
    ends: [LinkId; 2],
    flying: [Vec<u8>; 2],
    /// Nothing gets through, and nobody is told.
    dead: bool,
}

fn keys(seed: u8) -> (LinkKeys, PublicKey) {
    let seed = [seed; 32];
    let keys = LinkKeys::new(rustls::crypto::aws_lc_rs::default_provider(), &seed).unwrap();
    (keys, PublicKey(ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes()))
}

fn session(now: Instant, own: u8, peer: u8, instance: u8) -> Session {
    let (keys, key) = keys(own);
    let peer = self::keys(peer).1;
    let config = SessionConfig {
        keys,
        own: key,
        peer,
        instance: [instance; 16],
        number: 1,
        socket: Some(SockId(0)),
        seed: [instance; 32],
    };
    Session::new(now, config).unwrap()
}

fn seeds() -> [u8; 2] {
    if keys(1).1 < keys(2).1 { [1, 2] } else { [2, 1] }
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn new() -> Self {
        let now = Instant::now();
        let [low, high] = seeds();
        let side = |own, peer, instance| Side {
            session: session(now, own, peer, instance),
            news: Vec::new(),
            streams: Vec::new(),
            received: BTreeMap::new(),
            resets: Vec::new(),
            closed: 0,
            refuses: false,
        };
        Self {
            now,
            sides: [side(low, high, 1), side(high, low, 2)],
            wires: Vec::new(),
            attempts: 0,
            wakes: 0,
        }
    }

    fn up() -> Self {
        let mut pair = Self::new();
        pair.attempt(&[0], 1);
        pair.settle();
        assert!(pair.is_up());
        pair
    }

    fn is_up(&self) -> bool {
        self.sides.iter().all(|side| side.session.is_up())
    }

    /// A new attempt, in which the sides of `diallers` dial `addresses` addresses each.
    fn attempt(&mut self, diallers: &[usize], addresses: u8) {
        self.attempts += 1;
        for side in 0..2 {
            let dials = if diallers.contains(&side) { addresses } else { 0 };
            let candidate = |n| Candidate {
                kind: CandidateKind::Host,
                transport: Transport::Tcp,
                address: SocketAddr::from(([10, 0, 0, n], 5)),
            };
            let attempt = Attempt {
                id: AttemptId([self.attempts; 16]),
                punch_key: [7; 32],
                candidates: (1..=dials).map(candidate).collect(),
                rungs: RungSet::from_iter([Rung::TcpDirect]),
                relays: Vec::new(),
                own_nat: NatReport::default(),
                peer_nat: NatReport::default(),
                tcp_in: Some(Duration::ZERO),
                effort: Effort::Full,
                budget: Budget::default(),
            };
            self.sides[side].session.attempt(self.now, attempt);
        }
    }

    /// Does what both sides want done, and carries bytes, until both fall silent.
    fn settle(&mut self) {
        while self.act() | self.carry() {}
    }

    fn act(&mut self) -> bool {
        let mut acted = false;
        for at in 0..2 {
            while let Some(action) = self.sides[at].session.poll_action() {
                acted = true;
                match action {
                    Action::Dial { link, .. } if self.sides[at].refuses => {
                        self.sides[at].session.closed(self.now, link, "connection refused");
                    }
                    Action::Dial { link, .. } => self.connect(at, link),
                    Action::Close { link, farewell, .. } => self.close(at, link, &farewell),
                    Action::News(news) => self.sides[at].news.push(news),
                    Action::PeerLeaving(_) => {}
                    // The UDP world has a driver of its own, and so have relays.
                    Action::Route(_)
                    | Action::Unroute { .. }
                    | Action::DialServer { .. }
                    | Action::OpenSocket { .. }
                    | Action::CloseSocket(_) => {}
                }
            }
            while let Some(event) = self.sides[at].session.mux().poll_event() {
                acted = true;
                self.event(at, event);
            }
        }
        acted
    }

    fn event(&mut self, at: usize, event: Event) {
        let side = &mut self.sides[at];
        let now = self.now;
        match event {
            Event::Incoming { key, .. } => {
                side.session.mux().accept(key);
                side.streams.push(key);
            }
            Event::Readable { key } => {
                let [front, back] = side.session.mux().readable(key);
                let bytes = [front, back].concat();
                side.session.mux().consume(now, key, bytes.len());
                side.received.entry(key).or_default().extend(bytes);
            }
            Event::Finished { key } => side.session.mux().finished(key),
            Event::Reset { key, code, .. } => side.resets.push((key, code)),
            Event::Closed { .. } => side.closed += 1,
            Event::Accepted { .. } | Event::Writable { .. } => {}
        }
    }

    fn connect(&mut self, at: usize, link: LinkId) {
        let other = 1 - at;
        self.sides[at].session.connected(self.now, link);
        let role = self.sides[at].session.role;
        let bytes = preface::encode(AttemptId([self.attempts; 16]), &[7; 32], role);
        let preface = Preface::parse(&bytes).unwrap();
        let from = SocketAddr::from(([10, 0, 1, 1], 9));
        let Some(accepted) = self.sides[other].session.accepted(self.now, &preface, from) else {
            return self.sides[at].session.closed(self.now, link, "turned away");
        };
        let mut ends = [accepted; 2];
        ends[at] = link;
        // The listener has read the preface already.
        let mut out = Vec::new();
        self.sides[at].session.transmit(self.now, link, &mut out, BURST);
        let mut flying = [Vec::new(), Vec::new()];
        flying[other] = out.split_off(preface::LENGTH);
        self.wires.push(Wire { ends, flying, dead: false });
    }

    fn close(&mut self, at: usize, link: LinkId, farewell: &[u8]) {
        let Some(place) = self.wires.iter().position(|wire| wire.ends[at] == link) else { return };
        let mut wire = self.wires.remove(place);
        let other = 1 - at;
        if wire.dead {
            return;
        }
        let session = &mut self.sides[other].session;
        let end = wire.ends[other];
        wire.flying[other].extend_from_slice(farewell);
        session.receive(self.now, end, &mut wire.flying[other]);
        session.closed(self.now, end, "the connection was closed");
    }

    fn carry(&mut self) -> bool {
        let mut moved = false;
        for place in 0..self.wires.len() {
            for to in 0..2 {
                let Some(wire) = self.wires.get_mut(place) else { return true };
                let (from, into) = (wire.ends[1 - to], wire.ends[to]);
                let mut out = Vec::new();
                self.sides[1 - to].session.transmit(self.now, from, &mut out, BURST);
                if wire.dead || out.is_empty() && wire.flying[to].is_empty() {
                    continue;
                }
                let before = wire.flying[to].len();
                wire.flying[to].extend(out);
                let used = self.sides[to].session.receive(self.now, into, &mut wire.flying[to]);
                wire.flying[to].drain(..used);
                moved |= wire.flying[to].len() != before || used > 0;
            }
        }
        moved
    }

    /// Lets time pass, acting on every deadline on the way.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        self.settle();
        loop {
            let next = self.sides.iter().filter_map(|side| side.session.deadline()).min();
            match next {
                Some((at, why)) if at <= end => {
                    assert!(at > self.now || self.due(at), "a deadline that never moves: {why}");
                    self.now = self.now.max(at);
                    self.wakes += 1;
                    for side in &mut self.sides {
                        if side.session.deadline().is_some_and(|(at, _)| at <= self.now) {
                            side.session.tick(self.now);
                        }
                    }
                    self.settle();
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Whether acting on a deadline at `at` moves it.
    fn due(&mut self, at: Instant) -> bool {
        let now = self.now;
        self.sides.iter_mut().for_each(|side| side.session.tick(now));
        self.settle();
        self.sides.iter().filter_map(|side| side.session.deadline()).all(|(next, _)| next > at)
    }

    fn open(&mut self, at: usize) -> Key {
        let key = self.sides[at].session.mux().open(Protocol::Tcp, "127.0.0.1:22").unwrap();
        self.sides[at].streams.push(key);
        key
    }

    fn write(&mut self, at: usize, key: Key, bytes: &[u8]) {
        assert_eq!(self.sides[at].session.mux().write(key, bytes), bytes.len());
    }

    fn cut(&mut self) {
        for wire in std::mem::take(&mut self.wires) {
            for at in 0..2 {
                self.sides[at].session.closed(self.now, wire.ends[at], "cut");
            }
        }
    }

    fn downs(&self, at: usize) -> usize {
        self.sides[at].news.iter().filter(|news| matches!(news, SessionNews::Down { .. })).count()
    }

    fn outcomes(&self, at: usize) -> Vec<(AttemptId, Verdict)> {
        let done = |news: &SessionNews| match news {
            SessionNews::AttemptDone { attempt, outcomes } => {
                let tcp = outcomes.iter().find(|outcome| outcome.rung == Rung::TcpDirect)?;
                Some((*attempt, tcp.outcome))
            }
            SessionNews::Wanted
            | SessionNews::Up { .. }
            | SessionNews::Moved { .. }
            | SessionNews::Suspect
            | SessionNews::Agreed(_)
            | SessionNews::Poor { .. }
            | SessionNews::Down { .. }
            | SessionNews::RelayRtt { .. }
            | SessionNews::RelayFailed { .. }
            | SessionNews::RelaysWanted { .. } => None,
        };
        self.sides[at].news.iter().filter_map(done).collect()
    }
}

#[test]
fn either_side_may_dial_and_streams_go_both_ways() {
    for dialler in 0..2 {
        let mut pair = Pair::new();
        pair.attempt(&[dialler], 1);
        pair.settle();
        assert!(pair.is_up());
        for at in 0..2 {
            let key = pair.open(at);
            pair.write(at, key, b"hello");
            pair.settle();
            let offered = *pair.sides[1 - at].streams.last().unwrap();
            assert_eq!(pair.sides[1 - at].received[&offered], b"hello");
            assert_eq!(pair.outcomes(at), [(AttemptId([1; 16]), Verdict::Connected)]);
        }
    }
}

#[test]
fn one_connection_wins_the_race_and_the_others_close() {
    let mut pair = Pair::new();
    pair.attempt(&[0, 1], 8);
    pair.settle();
    assert!(pair.is_up());
    assert_eq!(pair.wires.len(), 1);
    assert!(pair.sides.iter().all(|side| side.session.links.len() == 1));
    assert!((0..2).all(|at| pair.downs(at) == 0 && pair.outcomes(at).len() == 1));
}

#[test]
fn an_attempt_that_fails_says_so_once() {
    let mut pair = Pair::new();
    pair.sides[0].refuses = true;
    pair.attempt(&[0], 2);
    pair.advance(Duration::from_secs(60));
    for at in 0..2 {
        assert_eq!(pair.outcomes(at), [(AttemptId([1; 16]), Verdict::Failed)]);
    }
    assert!(pair.sides.iter().all(|side| side.session.links.is_empty() && side.session.runs.is_empty()));
}

#[test]
fn bytes_written_while_there_is_no_link_arrive_over_the_next_one() {
    let mut pair = Pair::up();
    let key = pair.open(0);
    pair.write(0, key, b"before ");
    pair.settle();
    pair.cut();
    pair.write(0, key, b"during ");
    pair.advance(Duration::from_secs(20));
    pair.attempt(&[1], 1);
    pair.settle();
    pair.write(0, key, b"after");
    pair.settle();
    let offered = pair.sides[1].streams[0];
    assert_eq!(pair.sides[1].received[&offered], b"before during after");
    assert!(pair.sides.iter().all(|side| side.resets.is_empty()));
}

#[test]
fn without_a_link_streams_end_by_a_reset_after_thirty_seconds() {
    let mut pair = Pair::up();
    let key = pair.open(0);
    pair.settle();
    pair.cut();
    pair.advance(PATIENCE - Duration::from_secs(1));
    assert!(pair.sides[0].resets.is_empty());
    pair.advance(Duration::from_secs(2));
    assert_eq!(pair.sides[0].resets, [(key, mux::code::NO_LINK)]);
    assert_eq!(pair.sides[1].resets.len(), 1);
}

#[test]
fn links_that_never_carry_anything_do_not_prolong_the_wait() {
    let mut pair = Pair::up();
    let key = pair.open(0);
    pair.settle();
    pair.cut();
    for _ in 0..4 {
        pair.advance(Duration::from_secs(7));
        pair.attempt(&[0], 1);
        // The connection comes about, and breaks before the handshake ends.
        pair.act();
        pair.cut();
    }
    pair.advance(Duration::from_secs(3));
    assert_eq!(pair.sides[0].resets, [(key, mux::code::NO_LINK)]);
    assert_eq!(pair.downs(0), 1, "only what carried streams is told to be down");
}

#[test]
fn an_idle_link_is_pinged_every_fifteen_seconds_and_lives() {
    let mut pair = Pair::up();
    pair.advance(Duration::from_secs(60));
    pair.wakes = 0;
    pair.advance(Duration::from_secs(600));
    assert!(pair.is_up());
    // A ping from each side every 15 s, and nothing else.
    assert!(pair.wakes <= 2 * 600 / 15, "{} wakes in ten minutes", pair.wakes);
    assert!((0..2).all(|at| pair.downs(at) == 0));
}

#[test]
fn a_silent_link_is_dead_after_two_pings_when_idle_and_sooner_when_busy() {
    for (busy, at_least, at_most) in [(false, 15, 26), (true, 2, 4)] {
        let mut pair = Pair::up();
        let key = pair.open(0);
        pair.advance(Duration::from_secs(40));
        pair.wires[0].dead = true;
        if busy {
            pair.write(0, key, b"anybody there?");
        }
        pair.advance(Duration::from_secs(at_least));
        assert_eq!(pair.downs(0), 0, "busy: {busy}");
        pair.advance(Duration::from_secs(at_most - at_least));
        assert_eq!(pair.downs(0), 1, "busy: {busy}");
    }
}

#[test]
fn a_new_link_takes_over_from_one_that_only_one_side_knows_to_be_dead() {
    let mut pair = Pair::up();
    let key = pair.open(0);
    pair.write(0, key, b"one ");
    pair.settle();
    pair.wires[0].dead = true;
    pair.write(0, key, b"two ");
    // The controlled side has noticed nothing when the attempt comes.
    pair.attempt(&[1], 1);
    pair.settle();
    pair.write(0, key, b"three");
    pair.settle();
    let offered = pair.sides[1].streams[0];
    assert_eq!(pair.sides[1].received[&offered], b"one two three");
    assert_eq!(pair.sides[0].session.links.len(), 1, "the dead one is gone");
}

#[test]
fn a_peer_that_started_anew_ends_the_streams_at_once() {
    for renewed in 0..2 {
        let mut pair = Pair::up();
        let key = pair.open(1 - renewed);
        pair.settle();
        pair.wires[0].dead = true;
        let [low, high] = seeds();
        let (own, peer) = if renewed == 0 { (low, high) } else { (high, low) };
        pair.sides[renewed].session = session(pair.now, own, peer, 9);
        pair.wires.clear();
        pair.attempt(&[renewed], 1);
        pair.settle();
        assert_eq!(pair.sides[1 - renewed].resets, [(key, mux::code::RESTARTED)]);
        assert!(pair.is_up());
        let key = pair.open(1 - renewed);
        pair.write(1 - renewed, key, b"anew");
        pair.settle();
        let offered = *pair.sides[renewed].streams.last().unwrap();
        assert_eq!(pair.sides[renewed].received[&offered], b"anew");
    }
}

#[test]
fn a_resume_of_many_records_is_never_overtaken_by_streams() {
    for streams in [100, 1_200, 1_550, 3_000] {
        let mut pair = Pair::up();
        let keys: Vec<Key> = (0..streams).map(|_| pair.open(0)).collect();
        pair.settle();
        let offered = std::mem::take(&mut pair.sides[1].streams);
        assert_eq!(offered.len(), streams);
        pair.cut();
        let broken = offered[0];
        pair.sides[1].session.mux().reset(broken, mux::code::ABORTED, "the target died");
        for (n, key) in offered.iter().enumerate().skip(1) {
            pair.write(1, *key, &[n as u8; 50]);
        }
        pair.attempt(&[0], 1);
        pair.settle();
        assert_eq!(pair.sides[0].resets, [(keys[0], mux::code::ABORTED)], "{streams} streams");
        for (n, key) in keys.iter().enumerate().skip(1) {
            assert_eq!(pair.sides[0].received[key], [n as u8; 50], "stream {n} of {streams}");
        }
    }
}

#[test]
fn ends_that_crossed_with_the_death_of_a_link_are_passed_on_and_closed() {
    let mut pair = Pair::up();
    let key = pair.open(0);
    pair.settle();
    let offered = pair.sides[1].streams[0];
    pair.write(0, key, b"question");
    pair.sides[0].session.mux().finish(key);
    pair.wires[0].dead = true;
    pair.carry();
    pair.cut();
    pair.attempt(&[0, 1], 2);
    pair.settle();
    pair.write(1, offered, b"answer");
    pair.sides[1].session.mux().finish(offered);
    pair.advance(Duration::from_secs(3));
    assert_eq!(pair.sides[1].received[&offered], b"question");
    assert_eq!(pair.sides[0].received[&key], b"answer");
    assert_eq!([pair.sides[0].closed, pair.sides[1].closed], [1, 1]);
}

#[test]
fn a_stranger_to_the_attempt_is_turned_away() {
    let mut pair = Pair::up();
    let bytes = preface::encode(AttemptId([1; 16]), &[8; 32], Role::Controlling);
    let preface = Preface::parse(&bytes).unwrap();
    let from = SocketAddr::from(([10, 0, 1, 1], 9));
    assert!(pair.sides[1].session.accepted(pair.now, &preface, from).is_none());
    let mirrored = preface::encode(AttemptId([1; 16]), &[7; 32], Role::Controlled);
    let preface = Preface::parse(&mirrored).unwrap();
    assert!(pair.sides[1].session.accepted(pair.now, &preface, from).is_none());
}

/// What the driver encrypts ahead.
const BURST: usize = 64 * 1024;

/// A connection that is still being dialled would stand in the way of the next attempt's, which leaves by the same
/// port for the same address.
#[test]
fn an_attempt_that_is_over_dials_no_more() {
    let [low, high] = seeds();
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    let now = Instant::now();
    let mut session = session(now, low, high, 1);
    let candidate = Candidate {
        kind: CandidateKind::ServerReflexive,
        transport: Transport::Tcp,
        address: SocketAddr::from(([192, 0, 2, 1], 5)),
    };
    let attempt = |id: u8| Attempt {
        id: AttemptId([id; 16]),
        punch_key: [7; 32],
        candidates: vec![candidate],
        rungs: RungSet::from_iter([Rung::TcpPunch]),
        relays: Vec::new(),
        own_nat: NatReport::default(),
        peer_nat: NatReport::default(),
        tcp_in: Some(Duration::ZERO),
        effort: Effort::Full,
        budget: Budget::default(),
    };
    let run = |session: &mut Session, until: Instant| {
        let (mut dialled, mut closed) = (Vec::new(), Vec::new());
        loop {
            while let Some(action) = session.poll_action() {
                match action {
                    Action::Dial { link, .. } => dialled.push(link),
                    Action::Close { link, .. } => closed.push(link),
                    _ => {}
                }
            }
            match session.deadline() {
                Some((at, _)) if at <= until => session.tick(at),
                _ => return (dialled, closed),
            }
        }
    };
    session.attempt(now, attempt(1));
    let over = now + Duration::from_secs(9);
    let (first, closed) = run(&mut session, over);
    assert!(!first.is_empty());
    assert_eq!(first, closed);
    // And where the next one begins before the first is over.
    session.attempt(over, attempt(2));
    let (second, _) = run(&mut session, over + Duration::from_secs(1));
    session.attempt(over + Duration::from_secs(1), attempt(3));
    let (third, closed) = run(&mut session, over + Duration::from_secs(2));
    assert!(!third.is_empty());
    assert_eq!(second, closed);
}
