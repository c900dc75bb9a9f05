//! Two links joined in memory on virtual time, each with a real multiplexer above it.

mod attack;
mod lanes;
mod paths;
mod transfer;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::*;
use crate::mux::{Config, Event, Key, Protocol, Resume, Side};
use crate::rng::Rng;

const ATTEMPT: AttemptId = AttemptId([1; 16]);
const PUNCH: [u8; 32] = [2; 32];
/// One way.
const DELAY: Duration = Duration::from_millis(10);

/// Where time begins. Only differences matter.
fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    Instant::now()
}

fn keys(seed: u8) -> (LinkKeys, PublicKey) {
    let seed = [seed; 32];
    let keys = LinkKeys::new(rustls::crypto::aws_lc_rs::default_provider(), &seed).unwrap();
    (keys, PublicKey(ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes()))
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], port))
}

/// A link of node `own` (1 is controlling) that expects node `peer`.
fn link(now: Instant, own: u8, peer: u8, punch_key: &[u8; 32], seed: u8) -> UdpLink {
    let role = if own == 1 { Role::Controlling } else { Role::Controlled };
    let config = UdpConfig {
        keys: &keys(own).0,
        role,
        peer: keys(peer).1,
        attempt: ATTEMPT,
        punch_key,
        index: u32::from(own),
        seed: [seed; 32],
    };
    UdpLink::new(now, &config).unwrap()
}

/// The layer above a link: stream 0 says hello, and then the streams move.
struct Above {
    mux: Mux,
    epoch: Option<u32>,
    say: Vec<u8>,
    heard: Vec<u8>,
    pings: usize,
}

impl Above {
    fn new(role: Role) -> Self {
        let side = match role {
            Role::Controlling => Side::Controlling,
            Role::Controlled => Side::Controlled,
        };
        let mux = Mux::new(side, Config::default());
        Self { mux, epoch: None, say: b"hello".to_vec(), heard: Vec::new(), pings: 0 }
    }
}

impl Upper for Above {
    type Error = UdpError;

    fn carrying(&self) -> Option<u32> {
        self.epoch
    }

    fn take(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), UdpError> {
        match frame {
            Frame::Data { stream: 0, bytes, .. } => {
                self.heard.extend_from_slice(bytes);
                if self.heard == b"hello" && self.epoch.is_none() {
                    self.mux.attach(now, &Resume::default())?;
                    self.epoch = Some(1);
                }
            }
            Frame::Ping(_) | Frame::Pong(_) => self.pings += 1,
            frame => {
                assert!(self.epoch.is_some(), "a stream's frame before its time");
                self.mux.receive(now, frame)?;
            }
        }
        Ok(())
    }

    fn fill(&mut self, _now: Instant, out: &mut [u8]) -> usize {
        let n = self.say.len().min(4096);
        if n == 0 {
            return 0;
        }
        let bytes: Vec<u8> = self.say.drain(..n).collect();
        Frame::Data { stream: 0, bytes: &bytes, fin: false }.encode(out).unwrap()
    }

    fn mux(&mut self) -> &mut Mux {
        assert!(self.epoch.is_some());
        &mut self.mux
    }
}

/// One side.
struct End {
    link: UdpLink,
    above: Above,
    /// Where the other side sees it.
    source: UdpPath,
    /// A destination on another network, and where the other side sees it from there.
    other: Option<(SocketAddr, SocketAddr)>,
    /// Where datagrams reach it.
    reached: Vec<SocketAddr>,
    /// What goes out of each stream still, and where it ends.
    sending: Vec<(Key, Vec<u8>, bool)>,
    /// By the target of its SYN, or by its key's index: what came in of each stream.
    received: BTreeMap<String, Vec<u8>>,
    names: BTreeMap<Key, String>,
    closed: usize,
    /// Whether it takes what comes in.
    reads: bool,
}

impl End {
    fn new(link: UdpLink, role: Role, at: SocketAddr) -> Self {
        Self {
            link,
            above: Above::new(role),
            source: UdpPath::new(SockId(0), at),
            other: None,
            reached: vec![at],
            sending: Vec::new(),
            received: BTreeMap::new(),
            names: BTreeMap::new(),
            closed: 0,
            reads: true,
        }
    }

    /// Opens a stream that sends `bytes` and then ends.
    fn send(&mut self, target: &str, bytes: Vec<u8>) -> Key {
        let key = self.above.mux.open(Protocol::Tcp, target).unwrap();
        self.names.insert(key, target.to_owned());
        self.sending.push((key, bytes, true));
        key
    }

    /// What a local program would do: everything at once.
    fn work(&mut self, now: Instant) {
        let Self { above: Above { mux, .. }, sending, received, names, closed, reads, .. } = self;
        mux.tick(now);
        while let Some(event) = mux.poll_event() {
            match event {
                Event::Incoming { key, target, .. } => {
                    mux.accept(key);
                    // It answers with its target's name.
                    sending.push((key, target.clone().into_bytes(), true));
                    names.insert(key, target);
                }
                Event::Readable { .. } | Event::Writable { .. } | Event::Accepted { .. } => {}
                Event::Finished { key } => mux.finished(key),
                Event::Closed { .. } => *closed += 1,
                Event::Reset { text, .. } => panic!("{text}"),
            }
        }
        for (key, name) in names.iter().filter(|_| *reads) {
            let bytes = mux.readable(*key).concat();
            if !bytes.is_empty() {
                mux.consume(now, *key, bytes.len());
                received.entry(name.clone()).or_default().extend(bytes);
            }
        }
        sending.retain_mut(|(key, bytes, ends)| {
            let n = mux.write(*key, bytes);
            bytes.drain(..n);
            if bytes.is_empty() && *ends {
                mux.finish(*key);
            }
            !bytes.is_empty()
        });
        while let Some(event) = mux.poll_event() {
            match event {
                Event::Finished { key } => mux.finished(key),
                Event::Closed { .. } => *closed += 1,
                _ => {}
            }
        }
    }
}

/// A datagram under way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    number: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// What the network does to datagrams, in shares of 1000.
#[derive(Default, Clone, Copy)]
struct Weather {
    lost: u64,
    late: u64,
    doubled: u64,
    /// Bytes a second each way, behind a queue of 64 KiB; 0 for any number.
    rate: u32,
}

struct World {
    began: Instant,
    now: Instant,
    a: End,
    b: End,
    under_way: BinaryHeap<Reverse<Flight>>,
    number: u64,
    weather: Weather,
    rng: Rng,
    /// When each direction's queue is empty.
    free: [Instant; 2],
    /// Every datagram sent: when, whether by a, where to, how long.
    sent: Vec<(Duration, bool, SocketAddr, usize)>,
    /// Loses a datagram: whether by a, its number among all, its length.
    loses: Box<dyn FnMut(bool, usize, usize) -> bool>,
}

impl World {
    fn new(weather: Weather) -> Self {
        Self::of(weather, (1, 2), (2, 1), &PUNCH)
    }

    /// With the keys that each side has and expects, and the client's punch key.
    fn of(weather: Weather, a: (u8, u8), b: (u8, u8), punch_key: &[u8; 32]) -> Self {
        let now = start();
        let (at_a, at_b) = (address(1, 1000), address(2, 2000));
        let mut a = End::new(link(now, a.0, a.1, punch_key, 11), Role::Controlling, at_a);
        let b = End::new(link(now, b.0, b.1, &PUNCH, 12), Role::Controlled, at_b);
        a.link.add_candidate(UdpPath::new(SockId(0), at_b), None);
        Self {
            began: now,
            now,
            a,
            b,
            under_way: BinaryHeap::new(),
            number: 0,
            weather,
            rng: Rng::new([5; 32]),
            free: [now; 2],
            sent: Vec::new(),
            loses: Box::new(|_, _, _| false),
        }
    }

    /// One whose links are up and whose streams can move.
    fn up(weather: Weather) -> Self {
        let mut world = Self::new(weather);
        assert!(world.run(Duration::from_secs(30), |world| {
            world.a.above.epoch.is_some() && world.b.above.epoch.is_some()
        }));
        world
    }

    fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    /// Runs until `done`, or for at most `time`. Whether it is done.
    fn run(&mut self, time: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            self.turn(true);
            self.turn(false);
            if done(self) {
                return true;
            }
            let flight = self.under_way.peek().map(|Reverse(flight)| flight.at);
            let mut next: Vec<Instant> = flight.into_iter().collect();
            for end in [&self.a, &self.b] {
                next.extend(end.link.deadline().map(|(at, _)| at));
                next.extend(end.above.mux.deadline().map(|(at, _)| at));
            }
            let Some(next) = next.into_iter().min().filter(|&next| next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            for end in [&mut self.a, &mut self.b] {
                if end.link.deadline().is_some_and(|(at, _)| at <= self.now) {
                    end.link.tick(self.now);
                }
            }
            while self.under_way.peek().is_some_and(|Reverse(flight)| flight.at <= self.now) {
                let Some(Reverse(flight)) = self.under_way.pop() else { break };
                for end in [&mut self.a, &mut self.b] {
                    if end.reached.contains(&flight.to) {
                        let socket = end.source.socket;
                        end.link.datagram(self.now, socket, flight.from, 0, &flight.bytes);
                    }
                }
            }
        }
    }

    /// Lets one side do all that it can do now.
    fn turn(&mut self, is_a: bool) {
        let now = self.now;
        let end = if is_a { &mut self.a } else { &mut self.b };
        let mut scratch = vec![0; 16 * 1024];
        let mut out = Vec::new();
        let mut sent = Vec::new();
        let _ = end.link.receive(now, &mut end.above);
        end.work(now);
        end.link.transmit(now, &mut end.above, &mut scratch);
        while let Some(transmit) = end.link.poll_transmit(now, 10, &mut out) {
            let segment = transmit.segment.unwrap_or(out.len());
            let from = match end.other {
                Some((to, from)) if to == transmit.to => from,
                _ => end.source.remote,
            };
            sent.extend(out.chunks(segment).map(|bytes| (from, transmit.to, bytes.to_vec())));
        }
        for (from, to, bytes) in sent {
            self.post(is_a, from, to, bytes);
        }
    }

    fn post(&mut self, is_a: bool, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let index = self.sent.len();
        self.sent.push((self.now - self.began, is_a, to, bytes.len()));
        if (self.loses)(is_a, index, bytes.len()) || self.rng.below(1000) < self.weather.lost {
            return;
        }
        let mut leaves = self.now;
        if self.weather.rate > 0 {
            let free = &mut self.free[usize::from(is_a)];
            leaves = (*free).max(self.now);
            if leaves - self.now > Duration::from_secs(64 * 1024) / self.weather.rate {
                return;
            }
            leaves += Duration::from_secs(bytes.len() as u64) / self.weather.rate;
            *free = leaves;
        }
        let copies = if self.rng.below(1000) < self.weather.doubled { 2 } else { 1 };
        for _ in 0..copies {
            let late = self.rng.below(1000) < self.weather.late;
            let extra = if late { self.rng.between(Duration::ZERO, DELAY * 2) } else { Duration::ZERO };
            self.number += 1;
            let at = leaves + DELAY + extra;
            self.under_way.push(Reverse(Flight { at, number: self.number, from, to, bytes: bytes.clone() }));
        }
    }

    /// The NAT before a forgets its mapping: from now on it has another address.
    fn rebind(&mut self, port: u16) {
        let at = address(1, port);
        self.a.source = UdpPath::new(self.a.source.socket, at);
        self.a.reached = vec![at];
    }
}

/// Bytes that differ from place to place and from stream to stream.
fn pattern(of: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 31 + at / 253) as u8) ^ of).collect()
}
