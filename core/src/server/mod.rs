//! The server: the control plane that nodes meet at.
//!
//! It lets nodes in, knows which of them are online and where they can be reached, brings pairs of them
//! together, and passes the admin's wishes on. No byte of a tunnel goes through this machine.
//!
//! A connection is first at the `door`: a login of two messages, in clear, bounded in time and number,
//! with `failures` counted by address. Whoever has proven token and key is judged by `admit` against the
//! `pins` (a name belongs to one key, a key to one name) and the `swaps` (the newest login of a node
//! wins, within reason), and is then in the `registry`. From there on every message is sealed. Requests of
//! nodes are answered in `requests`; those of the server itself wait in `asks` for their answers, at
//! most ten seconds; `coord` makes one attempt a pair, and `reach` decides which addresses its sides are
//! told; `news` remembers who wants to hear of whom; `rest` answers the REST calls.
//!
//! This file only routes. Loops like this drive it: hand in an [`Input`], do every [`Action`] in order, and
//! come back with [`Input::Tick`] at the deadline. Too many ticks do no harm.
//!
//! All that it holds is bounded, by [`Caps`] or by constants beside what they bound. It trusts no node with
//! more than its own user's nodes: it answers what cannot be read with a refusal, and ends connections only
//! for what cannot be unsealed.

mod admit;
mod asks;
mod config;
mod coord;
mod door;
mod failures;
pub mod io;
mod metrics;
mod news;
mod pins;
mod reach;
mod reflexive;
mod registry;
mod relaying;
mod relays;
mod requests;
mod rest;
mod secrets;
mod shares;
mod sharing;
mod swaps;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use config::{Caps, HEARTBEAT, ServerConfig};
use io::{Action, Input};
pub use secrets::SECRETS_FILE;
pub use shares::SHARES_FILE;

use crate::due::earlier;
use crate::ids::{ConnId, NodeName, UserName};
use crate::rng::Rng;
use crate::time::WallClock;
use crate::wire::UNANSWERED;

/// The server.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    clock: WallClock,
    door: door::Door,
    pins: pins::Pins,
    swaps: swaps::Swaps,
    registry: registry::Registry,
    attempts: coord::Attempts,
    asks: asks::Asks,
    news: news::News,
    shares: shares::Shares,
    secrets: secrets::Secrets,
    relays: relays::Relays,
    own_relay: relaying::OwnRelay,
    counters: Counters,
    actions: VecDeque<Action>,
}

/// A node of a user: what identifies it on a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId {
    pub(crate) user: UserName,
    pub(crate) node: NodeName,
}

impl fmt::Display for NodeId {
    /// As in the paths of the REST interface.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user, self.node)
    }
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were turned away, since too many had not logged in.
    pub turned_away: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Logins that proved nothing, or took too long.
    pub logins_failed: u64,
    /// Logins that proved token and key, and were refused all the same.
    pub logins_refused: u64,
    /// Messages that could not be read, and answers to nothing.
    pub malformed: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests of the server that were not answered in time.
    pub unanswered: u64,
    /// Wishes for a connection that were granted.
    pub connects: u64,
    /// Attempts that a node refused to begin.
    pub attempts_declined: u64,
    /// Reports of attempts that brought a link.
    pub attempts_connected: u64,
    /// Reports of attempts that failed everywhere.
    pub attempts_failed: u64,
    /// What nodes reported of each rung, in the order of [`Rung::ALL`](crate::path::Rung::ALL): how often it
    /// connected, failed, was skipped.
    pub rungs: [[u64; 3]; 7],
}

/// What the store holds of an earlier run, where there was one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Saved<'a> {
    /// The content of [`STATE_FILE`].
    pub nodes: Option<&'a [u8]>,
    /// The content of [`SHARES_FILE`].
    pub shares: Option<&'a [u8]>,
    /// The content of [`SECRETS_FILE`].
    pub secrets: Option<&'a [u8]>,
}

impl Server {
    /// A server with nobody on it yet. `seed` is 32 fresh secret bytes; `unix` is the wall clock, since 1970,
    /// at `now`.
    ///
    /// # Errors
    /// Which of the saved contents cannot be read, and what to do.
    pub fn new(
        config: ServerConfig,
        saved: Saved<'_>,
        seed: [u8; 32],
        now: Instant,
        unix: Duration,
    ) -> Result<Self, StateError> {
        let mut rng = Rng::new(seed);
        let clock = WallClock::new(now, unix);
        let users = config.users.keys();
        let mut server = Self {
            secrets: secrets::Secrets::load(saved.secrets, users, rng.fork("secrets"), (now, &clock))?,
            shares: shares::Shares::load(saved.shares)?,
            relays: relays::Relays::new(rng.fork("relays")),
            own_relay: relaying::OwnRelay::new(rng.fork("own relay")),
            clock,
            door: door::Door::new(rng.fork("login")),
            pins: pins::Pins::load(saved.nodes)?,
            swaps: swaps::Swaps::default(),
            registry: registry::Registry::new(config.heartbeat * MISSED_HEARTBEATS),
            attempts: coord::Attempts::new(rng.fork("attempts")),
            asks: asks::Asks::default(),
            news: news::News::default(),
            counters: Counters::default(),
            actions: VecDeque::new(),
            config,
        };
        // A user's secret that was made just now must be there after a restart.
        server.expire(now);
        Ok(server)
    }

    /// Takes in what happened. Actions and the deadline may have changed afterwards.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Opened { conn, remote } => self.opened(now, conn, remote),
            Input::Received { conn, message } => self.received(now, conn, message),
            Input::Closed { conn } => {
                if !self.door.leave(conn) {
                    self.gone(conn);
                }
            }
            Input::Admin { id, request } => self.admin(now, id, request),
            Input::RelayChecked { check, result } => self.relay_checked(now, check, result),
            Input::StunChecked { check, answered } => self.relays.stun_checked(check, answered),
            Input::RelayLoad(load) => self.own_relay.load = load,
            Input::Tick => {}
            Input::Shutdown => self.shut_down(),
        }
        self.expire(now);
    }

    /// The next thing to do, first in first out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        [
            self.door.deadline(),
            self.registry.deadline(),
            self.asks.deadline(),
            self.news.deadline(),
            self.pins.deadline(),
            self.relays.deadline(),
            self.secrets.deadline(),
        ]
        .into_iter()
        .fold(None, earlier)
    }

    /// How many nodes are online.
    pub fn online(&self) -> usize {
        self.registry.len()
    }

    /// What has happened since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn opened(&mut self, now: Instant, conn: ConnId, remote: SocketAddr) {
        // A socket that serves both families shows IPv4 addresses inside IPv6 ones.
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        if !self.door.enter(now, conn, remote, &self.config.caps) {
            tracing::debug!(?conn, %remote, "connection turned away");
            self.counters.turned_away += 1;
            let reason = "too many connections that have not logged in";
            self.actions.push_back(Action::Close { conn, code: CLOSE_TRY_LATER, reason });
        }
    }

    fn received(&mut self, now: Instant, conn: ConnId, message: &[u8]) {
        match self.door.receive(now, conn, message, &self.config) {
            Some(door::Step::Answer(message)) => self.actions.push_back(Action::Send { conn, message }),
            Some(door::Step::Proven(remote, proved)) => self.admit(now, conn, remote, *proved),
            Some(door::Step::Failed { answer, reason }) => {
                self.counters.logins_failed += 1;
                self.actions.push_back(Action::Send { conn, message: answer });
                self.actions.push_back(Action::Close { conn, code: CLOSE_POLICY, reason });
            }
            None => self.sealed(now, conn, message),
        }
    }

    /// Does what time alone brings.
    fn expire(&mut self, now: Instant) {
        while let Some(conn) = self.door.expire(now) {
            self.counters.logins_failed += 1;
            self.actions.push_back(Action::Close { conn, code: CLOSE_POLICY, reason: "login took too long" });
        }
        while let Some(conn) = self.registry.silent(now) {
            self.end(conn, CLOSE_POLICY, "no heartbeat");
        }
        while let Some(asked) = self.asks.expire(now) {
            tracing::debug!(target: UNANSWERED, ?asked, "a node has not answered in time");
            self.unanswered(asked, Self::no_answer());
        }
        self.tell_news(now);
        self.tend_relays(now);
        if let Some(content) = self.secrets.unsaved() {
            self.actions.push_back(Action::Save { name: SECRETS_FILE, content });
        }
        if let Some(content) = self.pins.due(now) {
            self.actions.push_back(Action::Save { name: STATE_FILE, content });
        }
    }

    /// Ends the connection of a node.
    fn end(&mut self, conn: ConnId, code: u16, reason: &'static str) {
        if self.registry.node(conn).is_some() {
            self.actions.push_back(Action::Close { conn, code, reason });
            self.gone(conn);
        }
    }

    /// The connection of a node is over.
    fn gone(&mut self, conn: ConnId) {
        let Some(node) = self.registry.remove(conn) else { return };
        tracing::info!(user = %node.name.user, node = %node.name.node, "node offline");
        self.news.forget(conn);
        self.relays.remove(conn);
        for asked in self.asks.drop_all(conn) {
            self.unanswered(asked, Self::gone_before_answer(conn));
        }
    }

    fn shut_down(&mut self) {
        for conn in self.door.conns() {
            self.door.leave(conn);
            self.actions.push_back(Action::Close { conn, code: CLOSE_GOING_AWAY, reason: "server stops" });
        }
        for conn in self.registry.conns() {
            self.end(conn, CLOSE_GOING_AWAY, "server stops");
        }
        if let Some(content) = self.pins.flush() {
            self.actions.push_back(Action::Save { name: STATE_FILE, content });
        }
    }
}

/// Why a server could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} is damaged ({problem}): restore it from a backup; {}", removing(file))]
pub struct StateError {
    file: &'static str,
    problem: String,
}

impl StateError {
    pub(crate) fn new(file: &'static str, problem: impl Into<String>) -> Self {
        Self { file, problem: problem.into() }
    }
}

/// What becomes of a server whose file is removed.
fn removing(file: &str) -> &'static str {
    match file {
        SHARES_FILE => "removing it ends all shares",
        SECRETS_FILE => {
            "removing it makes new secrets, and running relays refuse their own users for a while"
        }
        _ => "removing it forgets which node name belongs to which key, and names go to whoever comes first",
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The file that holds the server's state; see [`io::Action::Save`].
pub const STATE_FILE: &str = "nodes.json";
/// The request id of what is no request and no answer.
const NO_REQUEST: u32 = 0;
/// A node is taken for gone after as many heartbeats as this: one may be lost with a connection's stall,
/// two with a change of network.
const MISSED_HEARTBEATS: u32 = 3;

// WebSocket close codes (RFC 6455 section 7.4.1 and the IANA registry).
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_POLICY: u16 = 1008;
const CLOSE_TRY_LATER: u16 = 1013;

#[cfg(test)]
mod tests;
