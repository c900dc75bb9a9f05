//! A world for the tests of the two control planes: one server and some agents, joined in memory, on virtual
//! time. It plays the driver: opens and loses connections, carries messages with a delay, keeps the saved
//! files, and has the sessions of two nodes find a link when both were given the same attempt.

mod raw;
mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use raw::Raw;
pub(crate) use setup::{Setup, identity, key, proofs};

use crate::agent::Agent;
use crate::agent::io::{Action as AgentAction, Exit, Input as AgentInput, SessionNews};
use crate::auth::{Identity, Token};
use crate::ids::{AttemptId, ConnId, PeerName, PublicKey, UserName};
use crate::path::{Outcome, Rung, Verdict};
use crate::relay::Access;
use crate::rng::Rng;
use crate::server::io::{Action as ServerAction, AdminError, AdminReply, AdminRequest, Input as ServerInput};
use crate::server::{SECRETS_FILE, SHARES_FILE, Saved, Server, ServerConfig};
use crate::session::Attempt;
use crate::wire::message::{RelaySecrets, Targets};

/// One way through the network.
pub(crate) const DELAY: Duration = Duration::from_millis(20);

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn token(number: &str) -> Token {
    number.parse().unwrap()
}

pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) server: Option<Server>,
    /// The server's identity and users, for when it starts again.
    pub(crate) identity: Identity,
    pub(crate) users: BTreeMap<UserName, Token>,
    /// The server's saved files.
    pub(crate) state: Option<Vec<u8>>,
    pub(crate) shares: Option<Vec<u8>>,
    pub(crate) secrets: Option<Vec<u8>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) admin: BTreeMap<u64, Result<AdminReply, AdminError>>,
    trusted: BTreeSet<ConnId>,
    /// Where relays answer, and with which keys.
    pub(crate) relays: BTreeMap<SocketAddr, PublicKey>,
    /// Where the server looked for relays.
    pub(crate) checked: Vec<SocketAddr>,
    /// Which UDP addresses answer STUN, and where the server asked.
    pub(crate) stun: BTreeSet<SocketAddr>,
    pub(crate) asked_by_stun: Vec<SocketAddr>,
    /// Whether sessions that were given the same attempt find a link.
    pub(crate) links: bool,
    /// The rung of those links.
    pub(crate) rung: Rung,
    /// Whether messages get through at all; connections stay.
    pub(crate) carrying: bool,
    queue: BTreeMap<(Instant, u64), Event>,
    wires: BTreeMap<ConnId, Wire>,
    /// Messages to raw connections, and their ends.
    raw: BTreeMap<ConnId, Raw>,
    seq: u64,
    /// Drawn from by the tests' own clients.
    pub(crate) rng: Rng,
}

/// One agent and what its driver knows.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) agent: Agent,
    pub(crate) address: IpAddr,
    pub(crate) pins: Option<Vec<u8>>,
    pub(crate) exit: Option<Exit>,
    /// When connections were asked for.
    pub(crate) opens: Vec<Instant>,
    pub(crate) attempts: Vec<(Instant, PeerName, PublicKey, Attempt)>,
    pub(crate) unreachable: Vec<(PeerName, String)>,
    pub(crate) listening: BTreeSet<String>,
    /// Local ports that others use.
    pub(crate) taken: BTreeSet<u16>,
    linked: BTreeSet<AttemptId>,
    /// What it was told beside its attempts.
    pub(crate) targets: Vec<Option<Targets>>,
    pub(crate) offers: Vec<(PeerName, Vec<Access>)>,
    pub(crate) restricted: Vec<(PeerName, Targets, bool)>,
    pub(crate) secrets: Option<RelaySecrets>,
    /// The relays that answer STUN, as it was told last.
    pub(crate) stun_relays: Vec<SocketAddr>,
}

/// A connection, as both sides know it: an agent's, or the test's own.
struct Wire {
    owner: Option<(usize, ConnId)>,
}

enum Event {
    Open(ConnId),
    Opened(usize, ConnId, SocketAddr),
    ToServer(ConnId, Vec<u8>),
    ServerClosed(ConnId),
    ToAgent(usize, ConnId, Vec<u8>),
    AgentClosed(usize, ConnId, String),
    Listener(usize, String, Result<SocketAddr, String>),
    Linked(usize, PeerName),
    RelayChecked(u64, Result<Duration, String>),
    StunChecked(u64, Vec<SocketAddr>),
}

impl World {
    /// A server whose user `default` has the token 12345678.
    #[allow(clippy::disallowed_methods)] // The only way to a first Instant.
    pub(crate) fn new(seed: u8) -> Self {
        let start = Instant::now() + secs(100_000);
        let mut world = Self {
            start,
            now: start,
            server: None,
            identity: identity(200),
            users: BTreeMap::from([(UserName::default(), token("12345678"))]),
            state: None,
            shares: None,
            secrets: None,
            nodes: Vec::new(),
            admin: BTreeMap::new(),
            trusted: BTreeSet::new(),
            relays: BTreeMap::new(),
            checked: Vec::new(),
            stun: BTreeSet::new(),
            asked_by_stun: Vec::new(),
            links: true,
            rung: Rung::UdpDirect,
            carrying: true,
            queue: BTreeMap::new(),
            wires: BTreeMap::new(),
            raw: BTreeMap::new(),
            seq: 0,
            rng: Rng::new([seed; 32]),
        };
        world.start_server();
        world
    }

    pub(crate) fn start_server(&mut self) {
        let mut config = ServerConfig::new(self.users.clone(), self.identity.clone(), "0.1.0");
        config.proofs = Some(proofs());
        let (seed, unix) = (self.rng.bytes(), self.unix());
        let saved = Saved {
            nodes: self.state.as_deref(),
            shares: self.shares.as_deref(),
            secrets: self.secrets.as_deref(),
        };
        let server = Server::new(config, saved, seed, self.now, unix).unwrap();
        self.server = Some(server);
    }

    /// Kills the server: its connections end.
    pub(crate) fn kill_server(&mut self) {
        self.server = None;
        for conn in self.wires.keys().copied().collect::<Vec<_>>() {
            self.cut_from_server(conn, "reset by peer");
        }
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        self.server.as_mut().unwrap()
    }

    /// Starts an agent and tells it of its port and interfaces.
    pub(crate) fn add(&mut self, setup: Setup) -> usize {
        let (seed, unix) = (self.rng.bytes(), self.unix());
        let agent = Agent::new(setup.config(), setup.pins.as_deref(), seed, self.now, unix).unwrap();
        self.nodes.push(Node {
            name: setup.name,
            agent,
            address: setup.address.parse().unwrap(),
            pins: setup.pins,
            exit: None,
            opens: Vec::new(),
            attempts: Vec::new(),
            unreachable: Vec::new(),
            listening: BTreeSet::new(),
            taken: BTreeSet::new(),
            linked: BTreeSet::new(),
            targets: Vec::new(),
            offers: Vec::new(),
            restricted: Vec::new(),
            secrets: None,
            stun_relays: Vec::new(),
        });
        let index = self.nodes.len() - 1;
        let address = self.nodes[index].address;
        self.tell(index, AgentInput::Listening { tcp: 4000, udp: Some(4000) });
        self.tell(index, AgentInput::Interfaces(&[address]));
        index
    }

    /// Two nodes, `a` with a forward to `b`, with the keys 1 and 2, both logged in.
    pub(crate) fn pair() -> (Self, usize, usize) {
        let mut world = Self::new(1);
        let b = world.add(Setup::new("b", 2));
        world.run(secs(1));
        let a = world.add(Setup::new("a", 1).forward("2222:b:22"));
        (world, a, b)
    }

    /// Hands an input to an agent and does what it wants done.
    pub(crate) fn tell(&mut self, node: usize, input: AgentInput<'_>) {
        self.nodes[node].agent.handle(self.now, input);
        self.settle();
    }

    pub(crate) fn news(&mut self, node: usize, peer: &str, event: SessionNews) {
        let peer = peer.parse().unwrap();
        self.tell(node, AgentInput::Session { peer: &peer, event });
    }

    pub(crate) fn tell_server(&mut self, input: ServerInput<'_>) {
        let now = self.now;
        if let Some(server) = &mut self.server {
            server.handle(now, input);
        }
        self.settle();
    }

    /// A REST call, and its answer.
    pub(crate) fn ask_admin(&mut self, request: AdminRequest) -> Result<AdminReply, AdminError> {
        let id = self.next_seq();
        self.tell_server(ServerInput::Admin { id, request });
        self.run(secs(11));
        self.admin.remove(&id).expect("every call is answered")
    }

    /// Ends the signalling connection of a node as a network would.
    pub(crate) fn cut(&mut self, node: usize) {
        let mine: Vec<ConnId> = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.owner.is_some_and(|(owner, _)| owner == node))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in mine {
            self.at(self.now, Event::ServerClosed(conn));
            self.cut_from_server(conn, "network unreachable");
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut idle = 0;
        self.settle();
        loop {
            let due = self.deadline();
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            let at = due.into_iter().chain(next).min().map_or(end, |at| at.max(self.now));
            if at > end {
                self.now = end;
                return;
            }
            idle = if at == self.now { idle + 1 } else { 0 };
            assert!(
                idle < 100_000,
                "the clock stands still: {:?}",
                self.server.as_ref().map(Server::deadline)
            );
            if at == end && due.is_none_or(|due| due > end) && next.is_none_or(|next| next > end) {
                self.now = end;
                return;
            }
            self.now = at;
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= at) {
                let event = entry.remove();
                self.happen(event);
            }
            self.tick();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let agents = self.nodes.iter().filter_map(|node| node.agent.deadline());
        let server = self.server.as_ref().and_then(Server::deadline);
        agents.chain(server).map(|(at, _)| at).min()
    }

    fn tick(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].agent.deadline().is_some_and(|(at, _)| at <= self.now) {
                self.tell(node, AgentInput::Tick);
                let deadline = self.nodes[node].agent.deadline();
                assert!(deadline.is_none_or(|(at, _)| at > self.now), "still due after a tick: {deadline:?}");
            }
        }
        if self.server.as_ref().and_then(Server::deadline).is_some_and(|(at, _)| at <= self.now) {
            self.tell_server(ServerInput::Tick);
            let deadline = self.server().deadline();
            assert!(deadline.is_none_or(|(at, _)| at > self.now), "still due after a tick: {deadline:?}");
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Open(conn) => {
                let Some((node, theirs)) = self.wires.get(&conn).and_then(|wire| wire.owner) else { return };
                if self.server.is_none() || !self.carrying {
                    self.wires.remove(&conn);
                    let reason = "connection refused".to_owned();
                    return self.at(self.now + DELAY, Event::AgentClosed(node, theirs, reason));
                }
                let remote = SocketAddr::new(self.nodes[node].address, 6000);
                self.tell_server(ServerInput::Opened { conn, remote });
                let server = if remote.ip().is_loopback() { remote.ip() } else { [203, 0, 113, 1].into() };
                self.at(self.now + DELAY, Event::Opened(node, theirs, SocketAddr::new(server, 27183)));
            }
            Event::Opened(node, conn, remote) => {
                self.tell(node, AgentInput::SignalOpened { conn, remote, tls: true });
            }
            Event::ToServer(conn, message) => {
                if self.wires.contains_key(&conn) {
                    self.tell_server(ServerInput::Received { conn, message: &message });
                }
            }
            Event::ServerClosed(conn) => {
                self.wires.remove(&conn);
                self.tell_server(ServerInput::Closed { conn });
            }
            Event::ToAgent(node, conn, message) => {
                self.tell(node, AgentInput::SignalReceived { conn, message: &message });
            }
            Event::AgentClosed(node, conn, reason) => {
                self.tell(node, AgentInput::SignalClosed { conn, reason: &reason });
            }
            Event::Listener(node, name, result) => {
                self.tell(node, AgentInput::Forward { name: &name, result });
            }
            Event::RelayChecked(check, result) => {
                self.tell_server(ServerInput::RelayChecked { check, result });
            }
            Event::StunChecked(check, answered) => {
                self.tell_server(ServerInput::StunChecked { check, answered });
            }
            Event::Linked(node, peer) => {
                let (rung, remote) = (self.rung, ([192, 0, 2, 1], 4000).into());
                self.tell(
                    node,
                    AgentInput::Session { peer: &peer, event: SessionNews::Up { rung, remote, via: None } },
                );
                let attempt = self.latest_attempt(node, &peer);
                let done = SessionNews::AttemptDone { attempt, outcomes: vec![outcome(Verdict::Connected)] };
                self.tell(node, AgentInput::Session { peer: &peer, event: done });
            }
        }
    }

    /// Does what the machines want done, until they want nothing more.
    fn settle(&mut self) {
        for node in 0..self.nodes.len() {
            while let Some(action) = self.nodes[node].agent.poll_action() {
                assert!(self.nodes[node].exit.is_none(), "{action:?} after the end");
                self.act(node, action);
            }
        }
        while let Some(action) = self.server.as_mut().and_then(Server::poll_action) {
            self.act_server(action);
        }
        self.link();
    }

    fn act(&mut self, node: usize, action: AgentAction) {
        let wire = |world: &Self, theirs: ConnId| {
            let owner = Some((node, theirs));
            world.wires.iter().find(|(_, wire)| wire.owner == owner).map(|(conn, _)| *conn)
        };
        match action {
            AgentAction::OpenSignal { conn } => {
                self.nodes[node].opens.push(self.now);
                let ours = ConnId(self.next_seq());
                self.wires.insert(ours, Wire { owner: Some((node, conn)) });
                self.at(self.now + DELAY, Event::Open(ours));
            }
            AgentAction::SendSignal { conn, message } => {
                if let Some(ours) = wire(self, conn).filter(|_| self.carrying) {
                    self.at(self.now + DELAY, Event::ToServer(ours, message));
                }
            }
            AgentAction::CloseSignal { conn, .. } => {
                if let Some(ours) = wire(self, conn) {
                    // What was sent before is still delivered; nothing comes back.
                    if let Some(wire) = self.wires.get_mut(&ours) {
                        wire.owner = None;
                    }
                    self.at(self.now + DELAY, Event::ServerClosed(ours));
                }
            }
            AgentAction::Listen { rule } => {
                let port = rule.listen.port();
                let result = if self.nodes[node].taken.contains(&port) {
                    Err("address in use".to_owned())
                } else {
                    self.nodes[node].listening.insert(rule.name.clone());
                    Ok(SocketAddr::new(rule.listen.ip(), if port == 0 { 50_000 } else { port }))
                };
                self.at(self.now, Event::Listener(node, rule.name, result));
            }
            AgentAction::Unlisten { name } => {
                assert!(self.nodes[node].listening.remove(&name), "{name} does not listen");
            }
            AgentAction::Attempt { peer, key, attempt, targets } => {
                self.nodes[node].targets.push(targets);
                self.nodes[node].attempts.push((self.now, peer, key, *attempt));
            }
            // Nodes of this world stand in the open.
            AgentAction::Probe { .. } | AgentAction::Mapped(_) | AgentAction::Keepalive(_) => {}
            AgentAction::StunRelays(relays) => self.nodes[node].stun_relays = relays,
            AgentAction::Unreachable { peer, reason } => self.nodes[node].unreachable.push((peer, reason)),
            AgentAction::Save { content, .. } => self.nodes[node].pins = Some(content),
            // The links of this world never fail by themselves.
            AgentAction::Doubt { .. } | AgentAction::Expect(_) => {}
            AgentAction::Offers { peer, relays, .. } => self.nodes[node].offers.push((peer, relays)),
            AgentAction::Restrict { peer, targets, end } => {
                self.nodes[node].restricted.push((peer, targets, end));
            }
            AgentAction::RelaySecrets(secrets) => self.nodes[node].secrets = Some(secrets),
            AgentAction::Exit(exit) => self.nodes[node].exit = Some(exit),
        }
    }

    fn act_server(&mut self, action: ServerAction) {
        match action {
            ServerAction::Send { conn, message } => {
                if let Some(raw) = self.raw.get_mut(&conn) {
                    raw.received.push(message);
                } else if let Some((node, theirs)) = self.owner(conn).filter(|_| self.carrying) {
                    self.at(self.now + DELAY, Event::ToAgent(node, theirs, message));
                }
            }
            ServerAction::Close { conn, code, reason } => {
                assert!(reason.len() <= 123);
                if let Some(raw) = self.raw.get_mut(&conn) {
                    raw.closed = Some((code, reason));
                }
                self.cut_from_server(conn, reason);
            }
            ServerAction::Trust { conn } => assert!(self.trusted.insert(conn), "trusted twice"),
            ServerAction::Save { name: SHARES_FILE, content } => self.shares = Some(content),
            ServerAction::Save { name: SECRETS_FILE, content } => self.secrets = Some(content),
            ServerAction::Save { content, .. } => self.state = Some(content),
            ServerAction::CheckRelay { check, to, key } => {
                self.checked.push(to);
                let answers = self.relays.get(&to).is_some_and(|answering| *answering == key);
                let result = if answers { Ok(DELAY * 2) } else { Err("connection refused".to_owned()) };
                self.at(self.now + DELAY, Event::RelayChecked(check, result));
            }
            ServerAction::CheckStun { check, to } => {
                self.asked_by_stun.extend(&to);
                let answered = to.into_iter().filter(|address| self.stun.contains(address)).collect();
                self.at(self.now + DELAY, Event::StunChecked(check, answered));
            }
            ServerAction::AdminReply { id, reply } => {
                assert!(self.admin.insert(id, reply).is_none(), "answered twice");
            }
        }
    }

    /// The latest attempt that a node was given for a peer.
    pub(crate) fn latest_attempt(&self, node: usize, peer: &PeerName) -> AttemptId {
        let mut attempts = self.nodes[node].attempts.iter().rev();
        attempts.find(|(_, name, ..)| name == peer).map(|(.., attempt)| attempt.id).expect("an attempt")
    }

    /// Sessions find a link when both were given the same attempt.
    fn link(&mut self) {
        if !self.links {
            return;
        }
        for one in 0..self.nodes.len() {
            for (_, peer, peer_key, attempt) in self.nodes[one].attempts.clone() {
                // The latest of that name: nodes are started again in place of others.
                let other = self.nodes.iter().rposition(|node| node.name == peer.node.as_str());
                let Some(other) = other.filter(|_| !self.nodes[one].linked.contains(&attempt.id)) else {
                    continue;
                };
                let theirs = self.nodes[other].attempts.iter().find(|(_, _, _, at)| at.id == attempt.id);
                let Some((_, _, own_key, at)) = theirs else { continue };
                assert_eq!(at.punch_key, attempt.punch_key);
                assert_ne!(*own_key, peer_key);
                self.nodes[one].linked.insert(attempt.id);
                self.at(self.now + DELAY, Event::Linked(one, peer));
            }
        }
    }

    fn cut_from_server(&mut self, conn: ConnId, reason: &str) {
        if let Some((node, theirs)) = self.owner(conn) {
            self.at(self.now + DELAY, Event::AgentClosed(node, theirs, reason.to_owned()));
        }
        self.wires.remove(&conn);
    }

    fn owner(&self, conn: ConnId) -> Option<(usize, ConnId)> {
        self.wires.get(&conn)?.owner
    }

    fn at(&mut self, at: Instant, event: Event) {
        let seq = self.next_seq();
        self.queue.insert((at, seq), event);
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub(crate) fn unix(&self) -> Duration {
        secs(1_700_000_000) + (self.now - self.start)
    }
}

pub(crate) fn outcome(verdict: Verdict) -> Outcome {
    Outcome { rung: Rung::UdpDirect, outcome: verdict, reason: "timeout".to_owned(), ms: 7 }
}
