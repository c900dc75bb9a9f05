//! Two punchers, each behind a NAT, on virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::nat::{Choice, Kind, MAIN, Nat};
use crate::ids::{AttemptId, SockId};
use crate::link::Role;
use crate::link::udp::UdpPath;
use crate::nat::NatReport;
use crate::path::{Candidate, CandidateKind, RungSet, Transport};
use crate::punch::udp::{Action, Config, Input, Puncher};
use crate::punch::{Budget, Effort, Plan, Situation, Why};
use crate::rng::Rng;

pub(super) const ATTEMPT: AttemptId = AttemptId([7; 16]);
pub(super) const PUNCH: [u8; 32] = [9; 32];

pub(super) struct World {
    nodes: [Node; 2],
    pub(super) now: Instant,
    began: Instant,
    queue: BTreeMap<(Instant, u64), Packet>,
    sequence: u64,
    pub(super) loss: u64,
    pub(super) way: Duration,
    /// Routers between the NATs.
    pub(super) routers: u8,
    /// Routers between each node and its NAT.
    pub(super) inner: u8,
    /// How many sockets a node may open.
    pub(super) sockets: usize,
    pub(super) others: Vec<SocketAddr>,
    rng: Rng,
}

struct Node {
    nat: Nat,
    puncher: Option<Puncher>,
    starts: Instant,
    confirmed: Option<Instant>,
    heard: Option<Instant>,
    why: Option<Why>,
    open: BTreeSet<SockId>,
    most_open: usize,
    next_socket: u32,
    /// When requests left.
    sent: Vec<Instant>,
}

struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
    ttl: u8,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// When both sides had a path in both directions; none if they had none.
    pub(super) took: Option<Duration>,
    /// When the controlling side heard the peer.
    pub(super) heard: Option<Duration>,
    pub(super) why: [Option<Why>; 2],
    pub(super) probes: [usize; 2],
    pub(super) busiest_second: usize,
    pub(super) most_open: usize,
}

impl World {
    pub(super) fn new(kinds: [Kind; 2], seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut rng = Rng::new(bytes);
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
        let now = Instant::now();
        let mut node = |kind, ip| Node {
            nat: Nat::new(kind, ip, rng.fork("nat")),
            puncher: None,
            starts: now,
            confirmed: None,
            heard: None,
            why: None,
            open: BTreeSet::from([MAIN]),
            most_open: 0,
            next_socket: 0,
            sent: Vec::new(),
        };
        let [a, b] = kinds;
        let nodes = [node(a, [192, 0, 2, 1]), node(b, [198, 51, 100, 1])];
        Self {
            nodes,
            now,
            began: now,
            queue: BTreeMap::new(),
            sequence: 0,
            loss: 0,
            way: Duration::from_millis(20),
            routers: 4,
            inner: 0,
            sockets: 1_000,
            others: Vec::new(),
            rng,
        }
    }

    /// The peer learns of the attempt so much later.
    pub(super) fn skew(mut self, side: usize, late: u64) -> Self {
        self.nodes[side].starts = self.began + Duration::from_millis(late);
        self
    }

    pub(super) fn lossy(mut self, percent: u64) -> Self {
        self.loss = percent;
        self
    }

    pub(super) fn plan(&self, side: usize) -> Plan {
        let [own, peer] = [side, 1 - side].map(|side| {
            let nat = &self.nodes[side].nat;
            NatReport { udp4: Some(nat.kind.behaviour(nat.public())), ..NatReport::default() }
        });
        let public = self.nodes[1 - side].nat.public();
        Plan::new(&Situation {
            own: &own,
            peer: &peer,
            role: role(side),
            candidates: &[Candidate {
                kind: CandidateKind::ServerReflexive,
                transport: Transport::Udp,
                address: public,
            }],
            rungs: RungSet::ALL,
            effort: Effort::Full,
        })
    }

    /// Runs to the end, or until both sides have a path.
    pub(super) fn run(&mut self) -> Outcome {
        let plans = [self.plan(0), self.plan(1)];
        for node in &mut self.nodes {
            let step = match node.nat.kind.choice {
                Choice::Step(step) => step,
                Choice::Keep | Choice::Random => 0,
            };
            let drifted = i32::from(node.nat.last) + step * node.nat.kind.drift;
            node.nat.last = u16::try_from(drifted).unwrap();
        }
        loop {
            let starts = self.nodes.iter().filter(|node| node.puncher.is_none()).map(|node| node.starts);
            let ticks = self.nodes.iter().filter_map(|node| Some(node.puncher.as_ref()?.deadline()?.0));
            let packets = self.queue.keys().next().map(|(at, _)| *at);
            let Some(next) = starts.chain(ticks).chain(packets).min() else { break };
            self.now = self.now.max(next);
            if self.now > self.began + Duration::from_secs(30) {
                break;
            }
            self.turn(&plans);
            if self.nodes.iter().all(|node| node.confirmed.is_some()) {
                break;
            }
        }
        self.outcome()
    }

    fn turn(&mut self, plans: &[Plan; 2]) {
        let now = self.now;
        for (side, plan) in plans.iter().enumerate() {
            let node = &mut self.nodes[side];
            match &mut node.puncher {
                None if node.starts <= now => node.puncher = Some(puncher(side, now, plan.clone())),
                None => {}
                Some(puncher) if puncher.deadline().is_some_and(|(at, _)| at <= now) => {
                    puncher.handle(now, Input::Tick);
                    let stuck = puncher.deadline().is_some_and(|(at, _)| at <= now);
                    assert!(!stuck, "a deadline that does not move on");
                }
                Some(_) => {}
            }
            self.drain(side);
        }
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) {
            let packet = entry.remove();
            let Some(side) = self.nodes.iter().position(|node| node.nat.ip == packet.to.ip()) else {
                self.others.push(packet.to);
                continue;
            };
            let node = &mut self.nodes[side];
            let Some(socket) = node.nat.inbound(packet.to.port(), packet.from) else { continue };
            if packet.ttl < self.routers + 2 * self.inner + 3 || !node.open.contains(&socket) {
                continue;
            }
            if let Some(puncher) = &mut node.puncher {
                puncher.handle(now, Input::Datagram { socket, from: packet.from, bytes: &packet.bytes });
            }
            self.drain(side);
        }
    }

    fn drain(&mut self, side: usize) {
        let now = self.now;
        while let Some(action) = self.nodes[side].puncher.as_mut().and_then(Puncher::poll_action) {
            let node = &mut self.nodes[side];
            match action {
                Action::Open(port) => {
                    node.next_socket += 1;
                    let socket = SockId(node.next_socket);
                    node.nat.bind(socket, port);
                    let there = node.open.len() <= self.sockets;
                    if there {
                        node.open.insert(socket);
                    }
                    node.most_open = node.most_open.max(node.open.len() - 1);
                    let opened = Input::Opened(there.then_some(socket));
                    node.puncher.as_mut().unwrap().handle(now, opened);
                }
                Action::Close(socket) => assert!(node.open.remove(&socket)),
                Action::Send { socket, to, ttl, bytes } => {
                    assert!(node.open.contains(&socket));
                    if bytes[2] == 1 {
                        node.sent.push(now);
                    }
                    let ttl = ttl.unwrap_or(64);
                    // Without further routers the NAT is one hop away; a packet reaches the other NAT itself with one less.
                    let from = (ttl >= self.inner + 2).then(|| node.nat.outbound(socket, to));
                    let lost = self.rng.below(100) < self.loss;
                    if let Some(from) = from.filter(|_| !lost && ttl >= self.routers + self.inner + 2) {
                        self.sequence += 1;
                        let key = (now + self.way, self.sequence);
                        self.queue.insert(key, Packet { from, to, bytes: bytes.to_vec(), ttl });
                    }
                }
                Action::Found { limit: Some(_), .. } => {
                    node.heard.get_or_insert(now);
                }
                Action::Found { limit: None, .. } => {
                    node.heard.get_or_insert(now);
                    node.confirmed.get_or_insert(now);
                }
                Action::GaveUp(why) => node.why = Some(why),
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let [a, b] = &self.nodes;
        let both = a.confirmed.zip(b.confirmed).map(|(a, b)| a.max(b));
        let since = |at: Instant| at - self.began;
        Outcome {
            took: both.map(since),
            heard: a.heard.map(since),
            why: [a.why, b.why],
            probes: [a.sent.len(), b.sent.len()],
            busiest_second: self.nodes.iter().map(|node| busiest_second(&node.sent)).max().unwrap_or(0),
            most_open: a.most_open.max(b.most_open),
        }
    }

    /// How many sockets beside the node's own are open on a side.
    pub(super) fn open(&self, side: usize) -> usize {
        self.nodes[side].open.len() - 1
    }

    pub(super) fn stop(&mut self, side: usize) {
        let now = self.now;
        self.nodes[side].puncher.as_mut().unwrap().handle(now, Input::Stop);
        self.drain(side);
    }
}

/// Node 0 is the controlling one.
pub(super) fn role(side: usize) -> Role {
    if side == 0 { Role::Controlling } else { Role::Controlled }
}

pub(super) fn puncher(side: usize, now: Instant, plan: Plan) -> Puncher {
    let config = Config {
        role: role(side),
        attempt: ATTEMPT,
        punch_key: &PUNCH,
        main4: MAIN,
        main6: MAIN,
        plan,
        budget: Budget::default(),
        is_blind: false,
    };
    Puncher::new(config, now, [u8::try_from(side).unwrap(); 32])
}

pub(super) fn path(port: u16) -> UdpPath {
    UdpPath::new(MAIN, ([203, 0, 113, 9], port).into())
}

fn busiest_second(sent: &[Instant]) -> usize {
    let second = Duration::from_secs(1);
    sent.iter()
        .enumerate()
        .map(|(at, first)| sent[at..].iter().take_while(|other| **other < *first + second).count())
        .max()
        .unwrap_or(0)
}
