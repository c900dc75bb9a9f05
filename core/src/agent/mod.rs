//! The agent: a node's control plane.
//!
//! It keeps the node logged in at the server (`signal`, `online`), answers what that asks (`requests`), says
//! where the node can be reached (`addresses`, `nat`, `report`), keeps the port forwards listening (`forwards`),
//! and sees to it that there is a session with every peer that one is wanted with (`peer`, `peers`, `sessions`),
//! while the server is gone too (`reconnect`). It holds servers and peers to the keys that they first came with
//! (`pins`), and knows which relays are of use (`relay`).
//!
//! What it does not do: it opens no path and carries no byte. A path is sought by the peer's session, which
//! gets [`Action::Attempt`] and tells by [`SessionNews`](io::SessionNews) what came of it. The loss of signalling
//! ends no session, and nothing but a refusal of the first login ends the agent.
//!
//! This file only routes. Loops like this drive it: hand in an [`Input`], do every [`Action`] in order, and
//! come back with [`Input::Tick`] at the deadline. Too many ticks do no harm.
//!
//! Peers and forwards are bounded by [`MAX_PEERS`](crate::wire::message::MAX_PEERS) and [`MAX_FORWARDS`], open
//! requests and pins by constants beside them. The server is not trusted with more than what it is there for: it
//! can neither replace a peer's key once that is pinned, nor open a port that the push policy does not allow.

mod addresses;
mod config;
mod forwards;
pub mod io;
mod nat;
mod online;
mod peer;
mod peers;
mod pins;
mod reconnect;
mod relay;
mod report;
mod requests;
mod sessions;
mod signal;
mod view;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use config::{AgentConfig, ConfigError, PushPolicy, UnknownPolicy};
pub use forwards::check_forwards;
use forwards::{Forwards, Waiter, own};
use io::{Action, Exit, Input};
use nat::{NAT_PATIENCE, Nat};
use online::Asked;
pub use reconnect::{Expected, ExpectedKey, ReconnectSecret};
use report::Reporting;
pub use sessions::LINKS;
use signal::{Event, Signal};

use crate::due::earlier;
use crate::ids::PeerName;
use crate::path::{Candidate, RungSet};
use crate::punch::Budget;
use crate::rng::Rng;
use crate::time::WallClock;
use crate::wire::Envelope;
use crate::wire::message::{
    Code, Connect, ConnectReply, PushForwardReply, Refused, RelayNodeReq, Report, Request,
};

/// The agent.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    signal: Signal,
    addresses: addresses::Addresses,
    peers: peers::Peers,
    forwards: Forwards,
    pins: pins::Pins,
    relaying: relay::Relaying,
    reconnects: reconnect::Reconnects,
    /// What all attempts may guess.
    budget: Budget,
    nat: Nat,
    report: Reporting,
    counters: Counters,
    actions: VecDeque<Action>,
    phase: Phase,
    clock: WallClock,
    /// The latest instant that came in: a deadline that is due has no other.
    now: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The goodbye is under way.
    Leaving,
    /// [`Action::Exit`] has been given.
    Ended,
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of the server that could not be read.
    pub malformed: u64,
    /// Requests of the server that were refused.
    pub refused: u64,
    /// Attempts that were begun.
    pub attempts: u64,
    /// Links that came up.
    pub links: u64,
}

impl Agent {
    /// An agent that asks for its signalling connection and its listeners at once. It should be told of the
    /// port and the interfaces first of all.
    ///
    /// `pins` is the content of [`PINS_FILE`], where there is one; `seed` is 32 fresh secret bytes; `unix` is
    /// the wall clock, since 1970, at `now`.
    ///
    /// # Errors
    /// If the forwards contradict each other or the node, or the pin file cannot be read.
    pub fn new(
        mut config: AgentConfig,
        pins: Option<&[u8]>,
        seed: [u8; 32],
        now: Instant,
        unix: Duration,
    ) -> Result<Self, ConfigError> {
        let mut rng = Rng::new(seed);
        let rules = std::mem::take(&mut config.forwards);
        let (node, user) = (config.node.clone(), config.user.clone());
        let pins = pins::Pins::load(pins)?;
        let mut agent = Self {
            signal: Signal::new(now, config.tls, rng.fork("signal")),
            addresses: addresses::Addresses::default(),
            peers: peers::Peers::new(rng.fork("peers")),
            forwards: Forwards::new(rules, config.push, node, user)?,
            reconnects: reconnect::Reconnects::new(now, pins.kept()),
            budget: Budget::default(),
            pins,
            relaying: relay::Relaying::new(config.relay.clone()),
            nat: Nat::default(),
            report: Reporting::default(),
            counters: Counters::default(),
            actions: VecDeque::new(),
            phase: Phase::Running,
            clock: WallClock::new(now, unix),
            now,
            config,
        };
        let pinned = std::mem::take(&mut agent.config.peer_pins);
        agent.config.peer_pins =
            pinned.into_iter().map(|(peer, key)| (own(&agent.config.user, peer), key)).collect();
        agent.forwards.start(&mut agent.actions);
        agent.settle(now);
        Ok(agent)
    }

    /// Takes in what happened. Actions and the deadline may have changed afterwards.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::Listening { tcp, udp } => {
                if self.addresses.listening(tcp, udp) {
                    self.report.change(now);
                }
            }
            Input::Interfaces(addresses) => self.interfaces(now, addresses),
            Input::Nat(report) => self.nat(now, report),
            Input::SignalOpened { conn, remote, tls } => {
                let pin = self.config.server_pin.or_else(|| self.pins.server(&self.config.server_address));
                self.signal.opened(now, (conn, remote, tls), &self.config, pin, &mut self.actions);
            }
            Input::SignalReceived { conn, message } => {
                let event = self.signal.received(now, conn, message, &self.config, &mut self.actions);
                self.signalled(now, event);
            }
            Input::SignalClosed { conn, reason } => {
                let event = self.signal.closed(now, conn, reason);
                self.signalled(now, event);
            }
            Input::Session { peer, event } => self.session(now, peer, event),
            Input::Called { attempt } => self.called(now, attempt),
            Input::RelayLoad(load) => self.relay_load(load),
            Input::Forward { name, result } => self.listener(now, name, result),
            Input::Tick => {}
            Input::Shutdown => {
                self.phase = Phase::Leaving;
                self.signal.leave(now, &mut self.actions);
                if !self.signal.is_leaving() {
                    self.exit(Exit::Stopped);
                }
            }
        }
        self.settle(now);
    }

    /// The next thing to do, first in first out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        match self.phase {
            Phase::Ended => None,
            Phase::Leaving => self.signal.deadline(),
            Phase::Running => {
                let report =
                    self.report.due.filter(|_| self.signal.online().is_some() && !self.report.under_way);
                [
                    self.signal.deadline(),
                    self.peers.deadline(self.now, self.may_wish()),
                    self.forwards.deadline(),
                    self.reconnects.deadline(),
                    report.filter(|_| self.awaits_nat().is_none()).map(|at| (at, "report to the server")),
                    self.awaits_nat().map(|at| (at, "wait no longer for the first word on NATs")),
                ]
                .into_iter()
                .fold(None, earlier)
            }
        }
    }

    /// What has happened since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The server's wall clock, since 1970, by which all validity is judged; this host's own before the
    /// first login.
    pub fn unix(&self, now: Instant) -> Duration {
        self.signal.clock().unix(now).unwrap_or_else(|| self.clock.unix(now))
    }

    fn signalled(&mut self, now: Instant, event: Option<Event>) {
        match event {
            None => {}
            Some(Event::LoggedIn(server, stun, relays)) => {
                tracing::info!(server = self.config.server_address, "logged in");
                if let Some(content) = self.pins.pin_server(&self.config.server_address, server) {
                    self.actions.push_back(Action::Save { name: PINS_FILE, content });
                }
                self.report = Reporting { due: Some(now), under_way: false, answered: false };
                self.nat.until = Some(now + NAT_PATIENCE);
                self.stun_relays(relays);
                self.probe(stun);
                self.peers.each(|_, peer, _| peer.signal_back(now));
            }
            Some(Event::StunRelays(relays)) => self.stun_relays(relays),
            Some(Event::Lost) => {
                self.report = Reporting::default();
                self.relaying.signal_lost();
                self.peers.each(|_, peer, _| peer.signal_lost(now));
            }
            Some(Event::Refused(text)) => self.exit(Exit::Refused(text)),
            Some(Event::Answered(asked, answer)) => self.answered(now, asked, answer),
            Some(Event::Request(conn, message)) => self.asked(now, conn, &message),
            Some(Event::Left) => self.exit(Exit::Stopped),
        }
    }

    /// Does what has become due, by time or by what has just happened.
    fn settle(&mut self, now: Instant) {
        self.now = now;
        while let Some(event) = self.signal.expire(now, &mut self.actions) {
            self.signalled(now, Some(event));
        }
        if self.phase != Phase::Running {
            return;
        }
        self.forwards.expire(now, &mut self.actions);
        self.peers.forwarded(self.forwards.peers());
        if self.peers.take_changed() {
            self.report.change(now);
        }
        self.peers.each(|name, peer, rng| {
            if let Some(reason) = peer.expire(now, rng) {
                self.actions.push_back(Action::Unreachable { peer: name.clone(), reason });
            }
        });
        self.reconnects(now);
        self.send_report(now);
        while let Some(peer) = self.peers.wish(now).filter(|_| self.may_wish()) {
            if !self.wish(now, peer) {
                break;
            }
        }
    }

    /// Whether the server may be asked for peers.
    fn may_wish(&self) -> bool {
        let asking = self.peers.iter().filter(|(_, peer)| peer.is_asking()).count();
        // What is new about this node is told first, so that its peers learn of it with the attempt.
        let told = self.report.answered && self.report.due.is_none_or(|at| at > self.now);
        let told = told && self.awaits_nat().is_none();
        self.signal.online().is_some() && told && asking < MAX_WISHES
    }

    fn wish(&mut self, now: Instant, name: PeerName) -> bool {
        let Some((peer, _)) = self.peers.known(&name) else { return false };
        let rungs = peer.wished_rungs(self.config.rungs);
        if rungs == RungSet::NONE {
            peer.content();
            return true;
        }
        tracing::debug!(peer = %name, ?rungs, "asks for the peer");
        peer.asking(now);
        let (candidates, exclude) = (self.candidates(), self.relaying.excluded(now));
        let wish = Connect { peer: name.clone(), candidates, rungs, exclude };
        self.signal.ask(now, Asked::Connect(name), &wish, &mut self.actions)
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.signal.online().map(|server| self.addresses.candidates(server)).unwrap_or_default()
    }

    /// The server answered, or did not.
    fn answered(&mut self, now: Instant, asked: Asked, answer: Result<Vec<u8>, Refused>) {
        match asked {
            Asked::Report => self.reported(now, self.read_reply::<Report>(answer)),
            Asked::Connect(name) => {
                let reply = self.read_reply::<Connect>(answer);
                let Some((peer, rng)) = self.peers.known(&name) else { return };
                match reply {
                    Ok(ConnectReply { attempt }) => {
                        tracing::debug!(peer = %name, ?attempt, "attempt promised");
                        peer.promised(now);
                    }
                    Err(refused) => {
                        tracing::debug!(peer = %name, code = ?refused.code, %refused, "no attempt");
                        if refused.code == Code::Offline {
                            self.relaying.acquit(&name);
                        }
                        let reason = refused.to_string();
                        peer.refused(now, &refused, rng);
                        self.actions.push_back(Action::Unreachable { peer: name, reason });
                    }
                }
            }
            Asked::Relays(peer, attempt) => {
                let reply = self.read_reply::<RelayNodeReq>(answer);
                self.relays(peer, attempt, reply);
            }
            // Nothing hangs on these.
            Asked::AttemptReport(_) | Asked::Heartbeat | Asked::Goodbye => {}
        }
    }

    fn read_reply<R: Request>(&self, answer: Result<Vec<u8>, Refused>) -> Result<R::Reply, Refused> {
        let message = answer?;
        let reply = Envelope::parse(&message).and_then(|envelope| envelope.decode::<R::Reply>());
        reply
            .map_err(|error| Refused::new(Code::Other, format!("the server's answer is unreadable: {error}")))
    }

    fn listener(&mut self, now: Instant, name: &str, result: Result<SocketAddr, String>) {
        match self.forwards.result(now, name, result) {
            None => {}
            Some((Waiter { conn, request }, Ok(listen))) => {
                self.signal.answer(conn, request, &PushForwardReply { listen }, &mut self.actions);
            }
            Some((Waiter { conn, request }, Err(refused))) => self.refuse(conn, request, &refused),
        }
    }

    fn exit(&mut self, exit: Exit) {
        self.phase = Phase::Ended;
        self.signal.end(&mut self.actions);
        self.actions.push_back(Action::Exit(exit));
    }
}

/// The file that holds the pinned keys; see [`Action::Save`].
pub const PINS_FILE: &str = "inp2pc.pins.json";
/// How many peers the server is asked for at a time: what a node with a thousand forwards sends, and gets
/// for it, stays a part of the queue that the server keeps for it.
const MAX_WISHES: usize = 32;
/// How many forwards a node may have, pushed ones included: each is a listener and a line of `status`.
pub const MAX_FORWARDS: usize = 1024;

#[cfg(test)]
mod tests;
