//! The signalling connection: open, log in, stay, come back.
//!
//! ```text
//!  Waiting ──▶ Opening ──▶ Hello ──▶ Proof ──▶ Online ──▶ Leaving
//!     ▲           │          │         │          │
//!     └───────────┴──────────┴─────────┴──────────┘  whatever goes wrong
//! ```
//!
//! It tries for ever. Only a refusal of the very first login is final: the user has just started the program
//! and should read why it does not work; later the same refusal may be a server that is being set up anew,
//! and there are links to keep.
//!
//! What is asked over it is a request with an id, answered within ten seconds or counted as refused. What is
//! lost with a connection is not repeated here: [`Event::Lost`] tells the agent to ask again.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::config::AgentConfig;
use super::io::Action;
use super::online::{Asked, Online};
use crate::auth::login::{ClientLogin, ClientProof};
use crate::auth::{LoginError, SecureChannel};
use crate::ids::{ConnId, PublicKey};
use crate::rng::Rng;
use crate::time::{Backoff, ServerClock};
use crate::wire::message::{
    Code, Goodbye, HeartbeatReply, LoginDone, Message, Refused, RelayLoad, Request, StunPorts, kind,
};
use crate::wire::{Envelope, UNANSWERED};

/// The signalling connection.
#[derive(Debug)]
pub(super) struct Signal {
    state: State,
    /// What tells this process from another one of the same name and key.
    instance: [u8; 16],
    backoff: Backoff,
    rng: Rng,
    clock: ServerClock,
    last_conn: u64,
    /// When a connection was last asked for.
    opened: Option<Instant>,
    /// When the last one that was logged in was lost.
    broken: Option<Instant>,
    logins: u64,
    tls: bool,
    server: Option<PublicKey>,
    /// Why the node is not logged in.
    error: Option<String>,
    /// Whether this outage has been logged.
    warned: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing is under way until then.
    Waiting { until: Instant, after: After },
    /// The driver has been asked for a connection.
    Opening { conn: ConnId, until: Instant },
    /// The hello is under way.
    Hello { wire: Wire, login: Box<ClientLogin> },
    /// The proof is under way.
    Proof { wire: Wire, proof: Box<ClientProof> },
    /// Logged in.
    Online(Box<Online>),
    /// Logged in, and waiting for the answer to the goodbye.
    Leaving(Box<Online>, Instant),
    /// It has ended, one way or the other.
    Ended,
}

/// What the waiting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The connection was lost or could not be made: a change of network may mend that.
    Loss,
    /// The server said no: a change of network does not mend that.
    Refusal,
}

/// A connection on which the login is under way.
#[derive(Debug, Clone, Copy)]
struct Wire {
    conn: ConnId,
    remote: SocketAddr,
    since: Instant,
    until: Instant,
}

/// What the agent has to know.
#[derive(Debug)]
pub(super) enum Event {
    /// The node is logged in; this is the server's identity, proven.
    LoggedIn(PublicKey, Option<StunPorts>, Vec<SocketAddr>),
    /// These relays answer STUN now.
    StunRelays(Vec<SocketAddr>),
    /// It is not any more.
    Lost,
    /// The first login was refused: the program ends with this text.
    Refused(String),
    /// The server answered a request, or did not in time: a whole message, or a refusal.
    Answered(Asked, Result<Vec<u8>, Refused>),
    /// The server asks something: a whole message.
    Request(ConnId, Vec<u8>),
    /// The goodbye is over.
    Left,
}

impl Signal {
    pub(super) fn new(now: Instant, tls: bool, mut rng: Rng) -> Self {
        Self {
            state: State::Waiting { until: now, after: After::Loss },
            instance: rng.fork("instance").bytes(),
            backoff: Backoff::new(),
            rng,
            clock: ServerClock::default(),
            last_conn: 0,
            opened: None,
            broken: None,
            logins: 0,
            tls,
            server: None,
            error: None,
            warned: false,
        }
    }

    /// The connection that was asked for is up: says hello.
    pub(super) fn opened(
        &mut self,
        now: Instant,
        (conn, remote, tls): (ConnId, SocketAddr, bool),
        config: &AgentConfig,
        pin: Option<PublicKey>,
        out: &mut VecDeque<Action>,
    ) {
        if !matches!(self.state, State::Opening { conn: ours, .. } if ours == conn) {
            return;
        }
        self.tls = tls;
        let (user, node) = (config.user.clone(), config.node.clone());
        let (identity, token) = (&config.identity, &config.token);
        let instance = Some(self.instance);
        let (login, message) = ClientLogin::start(user, node, identity, token, pin, instance, &mut self.rng);
        out.push_back(Action::SendSignal { conn, message });
        let wire = Wire { conn, remote, since: now, until: now + LOGIN_TIMEOUT };
        self.state = State::Hello { wire, login: Box::new(login) };
    }

    /// A message came.
    pub(super) fn received(
        &mut self,
        now: Instant,
        conn: ConnId,
        message: &[u8],
        config: &AgentConfig,
        out: &mut VecDeque<Action>,
    ) -> Option<Event> {
        if self.conn() != Some(conn) {
            return None;
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Hello { wire, login } => match login.challenge(message, &config.identity) {
                Ok((proof, message)) => {
                    out.push_back(Action::SendSignal { conn, message });
                    let wire = Wire { since: now, ..wire };
                    self.state = State::Proof { wire, proof: Box::new(proof) };
                    None
                }
                Err(error) => self.login_failed(now, conn, &error, config, out),
            },
            State::Proof { wire, proof } => match proof.done(message) {
                Ok((channel, done, server)) => {
                    self.logged_in(now, wire, channel, &done);
                    self.server = Some(server);
                    Some(Event::LoggedIn(server, done.stun, done.stun_relays))
                }
                Err(error) => self.login_failed(now, conn, &error, config, out),
            },
            State::Online(online) => {
                self.state = State::Online(online);
                self.sealed(now, message, out)
            }
            State::Leaving(online, until) => {
                self.state = State::Leaving(online, until);
                self.sealed(now, message, out)
            }
            // Before it was said to be up, nothing can come over it.
            other @ (State::Waiting { .. } | State::Opening { .. } | State::Ended) => {
                self.state = other;
                None
            }
        }
    }

    /// The connection could not be opened, or ended.
    pub(super) fn closed(&mut self, now: Instant, conn: ConnId, reason: &str) -> Option<Event> {
        if self.conn() != Some(conn) {
            return None;
        }
        let reason = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
        let soon = self.opened.map_or(now, |opened| now.max(opened + OPEN_INTERVAL));
        let until = match &self.state {
            // A change of network explains it, or what broke a link: then there is nothing to wait for.
            State::Online(online) if online.is_doubtful() => soon,
            _ => now + self.backoff.next(now, &mut self.rng),
        };
        self.lost(now, until, After::Loss, reason)
    }

    /// The addresses of this host have changed. A connection that is being made starts over, one that is
    /// there must show that it still works, and waiting is over.
    pub(super) fn network_changed(&mut self, now: Instant, out: &mut VecDeque<Action>) {
        let soon = self.opened.map_or(now, |opened| now.max(opened + OPEN_INTERVAL));
        match &mut self.state {
            State::Waiting { until, after: After::Loss } => *until = soon.min(*until),
            State::Opening { .. } | State::Hello { .. } | State::Proof { .. } => {
                if let Some(conn) = self.conn() {
                    out.push_back(Action::CloseSignal { conn, code: CLOSE_GOING_AWAY });
                }
                self.state = State::Waiting { until: soon, after: After::Loss };
            }
            State::Online(online) => online.doubt(now, PROBE_TIMEOUT),
            State::Waiting { after: After::Refusal, .. } | State::Leaving(..) | State::Ended => {}
        }
    }

    /// A link has broken, or seems to have: the connection must show that it still works. Where it was lost a moment
    /// before, it was not the server that failed but the network, which may be back.
    pub(super) fn doubt(&mut self, now: Instant) {
        match &mut self.state {
            State::Online(online) => online.doubt(now, OUTAGE_TIMEOUT),
            State::Waiting { until, after: After::Loss }
                if self.broken.take_if(|broken| now < *broken + SAME_CAUSE).is_some() =>
            {
                let soon = self.opened.map_or(now, |opened| now.max(opened + OPEN_INTERVAL));
                // If it was the server after all, its nodes do not come back in step.
                *until = (soon + self.rng.between(Duration::ZERO, SPREAD)).min(*until);
            }
            State::Waiting { .. }
            | State::Opening { .. }
            | State::Hello { .. }
            | State::Proof { .. }
            | State::Leaving(..)
            | State::Ended => {}
        }
    }

    /// How busy the node's own relay is, for the next heartbeat.
    pub(super) fn load(&mut self, load: RelayLoad) {
        if let State::Online(online) = &mut self.state {
            online.load(load);
        }
    }

    /// The identity of the server that the node was logged in at last.
    pub(super) fn server(&self) -> Option<PublicKey> {
        self.server
    }

    /// Asks the server something. Says whether that was possible.
    pub(super) fn ask<R: Request>(
        &mut self,
        now: Instant,
        asked: Asked,
        request: &R,
        out: &mut VecDeque<Action>,
    ) -> bool {
        let State::Online(online) = &mut self.state else { return false };
        online.ask(now, asked, request, out)
    }

    /// Answers a request of the server, if it came over the connection that is there.
    pub(super) fn answer<M: Message>(
        &mut self,
        conn: ConnId,
        request: u32,
        answer: &M,
        out: &mut VecDeque<Action>,
    ) {
        if let State::Online(online) | State::Leaving(online, _) = &mut self.state
            && online.conn == conn
        {
            online.send(request, answer, out);
        }
    }

    /// Leaves in order. [`Event::Left`] follows from [`Self::expire`] at the latest.
    pub(super) fn leave(&mut self, now: Instant, out: &mut VecDeque<Action>) {
        if let State::Leaving(..) = self.state {
            return;
        }
        if self.ask(now, Asked::Goodbye, &Goodbye {}, out)
            && let State::Online(online) = std::mem::replace(&mut self.state, State::Ended)
        {
            self.state = State::Leaving(online, now + GOODBYE_TIMEOUT);
            return;
        }
        self.end(out);
    }

    /// Ends at once.
    pub(super) fn end(&mut self, out: &mut VecDeque<Action>) {
        if let Some(conn) = self.conn() {
            out.push_back(Action::CloseSignal { conn, code: CLOSE_NORMAL });
        }
        self.state = State::Ended;
    }

    /// Does what time alone brings; called until there is nothing more.
    pub(super) fn expire(&mut self, now: Instant, out: &mut VecDeque<Action>) -> Option<Event> {
        match &mut self.state {
            State::Waiting { until, .. } if *until <= now => {
                self.last_conn += 1;
                let conn = ConnId(self.last_conn);
                self.opened = Some(now);
                self.state = State::Opening { conn, until: now + OPEN_TIMEOUT };
                out.push_back(Action::OpenSignal { conn });
                None
            }
            State::Opening { until, .. } | State::Hello { wire: Wire { until, .. }, .. } if *until <= now => {
                self.give_up(now, "the server does not answer", out)
            }
            State::Proof { wire, .. } if wire.until <= now => {
                self.give_up(now, "the server does not answer the login", out)
            }
            State::Online(online) => {
                if let Some(doubtful) = online.is_silent(now) {
                    // A change of network explains it: then there is nothing to wait for.
                    let delay = doubtful.then_some(Duration::ZERO);
                    return self.give_up_for(now, delay, "the server is silent", out);
                }
                online.beat(now, out);
                let asked = online.overdue(now)?;
                tracing::debug!(target: UNANSWERED, ?asked, "the server has not answered in time");
                let refused = Refused::new(Code::Timeout, "the server did not answer in time");
                Some(Event::Answered(asked, Err(refused)))
            }
            State::Leaving(_, until) if *until <= now => {
                self.end(out);
                Some(Event::Left)
            }
            State::Waiting { .. }
            | State::Opening { .. }
            | State::Hello { .. }
            | State::Proof { .. }
            | State::Leaving(..)
            | State::Ended => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        match &self.state {
            State::Waiting { until, .. } => Some((*until, "connect to the server")),
            State::Opening { until, .. } => Some((*until, "connection to the server")),
            State::Hello { wire, .. } | State::Proof { wire, .. } => Some((wire.until, "login")),
            State::Online(online) => online.deadline(),
            State::Leaving(_, until) => Some((*until, "goodbye")),
            State::Ended => None,
        }
    }

    /// Where the server is, while the node is logged in.
    pub(super) fn online(&self) -> Option<IpAddr> {
        self.remote().map(|remote| remote.ip())
    }

    /// The address and port of the signalling connection's other end, while the node is logged in.
    pub(super) fn remote(&self) -> Option<SocketAddr> {
        let State::Online(online) = &self.state else { return None };
        Some(online.remote)
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving(..))
    }

    pub(super) fn tls(&self) -> bool {
        self.tls
    }

    pub(super) fn relogins(&self) -> u64 {
        self.logins.saturating_sub(1)
    }

    /// Why the node is not logged in.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The server's wall clock, as far as it is known.
    pub(super) fn clock(&self) -> ServerClock {
        self.clock
    }

    fn conn(&self) -> Option<ConnId> {
        match &self.state {
            State::Opening { conn, .. } => Some(*conn),
            State::Hello { wire, .. } | State::Proof { wire, .. } => Some(wire.conn),
            State::Online(online) | State::Leaving(online, _) => Some(online.conn),
            State::Waiting { .. } | State::Ended => None,
        }
    }

    fn logged_in(&mut self, now: Instant, wire: Wire, channel: SecureChannel, done: &LoginDone) {
        self.clock.observe(wire.since, now, Duration::from_millis(done.server_time_ms));
        let period = Duration::from_millis(done.heartbeat_ms);
        self.logins += 1;
        self.backoff.reset();
        self.error = None;
        self.warned = false;
        tracing::debug!(server = %wire.remote, observed = %done.observed, software = done.software, "login done");
        self.state = State::Online(Box::new(Online::new(now, wire.conn, wire.remote, channel, period)));
    }

    /// The login failed. The state has been taken already.
    fn login_failed(
        &mut self,
        now: Instant,
        conn: ConnId,
        error: &LoginError,
        config: &AgentConfig,
        out: &mut VecDeque<Action>,
    ) -> Option<Event> {
        out.push_back(Action::CloseSignal { conn, code: CLOSE_POLICY });
        let text = format!("login as {} at {} failed: {error}", config.node, config.server_address);
        let passing = matches!(
            error,
            LoginError::Refused(Refused { code: Code::TooManyFailures | Code::Busy | Code::Timeout, .. })
        );
        if self.logins == 0 && !passing {
            return Some(Event::Refused(text));
        }
        let delay = self.rng.between(REFUSED_RETRY, REFUSED_RETRY * 5 / 4);
        self.lost(now, now + delay, After::Refusal, text)
    }

    /// Closes the connection and waits for the next try.
    fn give_up(&mut self, now: Instant, reason: &str, out: &mut VecDeque<Action>) -> Option<Event> {
        self.give_up_for(now, None, reason, out)
    }

    /// The same, with a delay that is not the usual one.
    fn give_up_for(
        &mut self,
        now: Instant,
        delay: Option<Duration>,
        reason: &str,
        out: &mut VecDeque<Action>,
    ) -> Option<Event> {
        if let Some(conn) = self.conn() {
            out.push_back(Action::CloseSignal { conn, code: CLOSE_GOING_AWAY });
        }
        let delay = delay.unwrap_or_else(|| self.backoff.next(now, &mut self.rng));
        self.lost(now, now + delay, After::Loss, reason.to_owned())
    }

    fn lost(&mut self, now: Instant, until: Instant, after: After, reason: String) -> Option<Event> {
        if self.is_leaving() {
            self.state = State::Ended;
            return Some(Event::Left);
        }
        // Refusals are for somebody to act on, each of them; of an outage it is enough to hear once.
        if !self.warned || after == After::Refusal {
            tracing::warn!(reason, "not connected to the server: trying again, links stay");
        }
        self.warned = true;
        self.error = Some(reason);
        let before = std::mem::replace(&mut self.state, State::Waiting { until, after });
        matches!(before, State::Online(_)).then(|| {
            self.broken = Some(now);
            Event::Lost
        })
    }

    fn sealed(&mut self, now: Instant, message: &[u8], out: &mut VecDeque<Action>) -> Option<Event> {
        let (State::Online(online) | State::Leaving(online, _)) = &mut self.state else { return None };
        let Some(plain) = online.open(now, message) else {
            return self.give_up(now, "the server sent what is no message", out);
        };
        let envelope = Envelope::parse(&plain).ok()?;
        if !envelope.is_reply() {
            return Some(Event::Request(online.conn, plain));
        }
        if envelope.request == NO_REQUEST {
            let refused = envelope.decode::<Refused>().ok()?;
            return self.dismissed(now, &refused, out);
        }
        // Too late, or never asked: a reply is not answered.
        let (sent, asked) = online.answered(envelope.request)?;
        let refused = (envelope.kind == kind::REFUSED).then(|| envelope.decode::<Refused>());
        match (asked, refused) {
            (Asked::Heartbeat, _) => {
                let reply = envelope.decode::<HeartbeatReply>().ok()?;
                self.clock.observe(sent, now, Duration::from_millis(reply.server_time_ms));
                online.beaten(sent, now);
                Some(Event::StunRelays(reply.stun_relays))
            }
            (Asked::Goodbye, _) => {
                self.end(out);
                Some(Event::Left)
            }
            (asked, Some(Ok(refused))) => Some(Event::Answered(asked, Err(refused))),
            (asked, Some(Err(error))) => {
                let refused =
                    Refused::new(Code::Other, format!("the server's refusal is unreadable: {error}"));
                Some(Event::Answered(asked, Err(refused)))
            }
            (asked, None) => Some(Event::Answered(asked, Ok(plain))),
        }
    }

    /// The server ends the connection of its own, and says why.
    fn dismissed(&mut self, now: Instant, refused: &Refused, out: &mut VecDeque<Action>) -> Option<Event> {
        if refused.code != Code::Replaced {
            return None;
        }
        if let Some(conn) = self.conn() {
            out.push_back(Action::CloseSignal { conn, code: CLOSE_NORMAL });
        }
        let delay = self.rng.between(REFUSED_RETRY, REFUSED_RETRY * 5 / 4);
        self.lost(now, now + delay, After::Refusal, format!("replaced: {refused}"))
    }
}

/// How long a connection may take: name lookup, TCP, TLS and WebSocket, seven round trips at worst.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the login may take: as long as the server allows.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a connection must show that it has outlived a change of network: a round trip on a bad line, or one
/// retransmission on a good one. A new login costs little, and until then no peer can be told the new address.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for what has broken a link: most likely it is over in a moment, and a new connection would begin with
/// looking up a name.
const OUTAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// What breaks the connection and a link within this time is the same: a link is suspect after a second of silence or
/// a few round trips, and dead after three.
const SAME_CAUSE: Duration = Duration::from_secs(5);
const SPREAD: Duration = Duration::from_millis(500);
/// How long the end of the program may wait for the server's goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// At most one try in this time, however often the network changes.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);
/// The next try after a refusal: with it, no node reaches the server's limit of failures by itself, and a
/// node that was replaced leaves the one that replaced it alone.
const REFUSED_RETRY: Duration = Duration::from_secs(60);
/// The longest reason that the driver may give, in characters: a line of `status`.
const MAX_REASON: usize = 256;
/// The request id of what is no request and no answer.
const NO_REQUEST: u32 = 0;

// WebSocket close codes (RFC 6455 section 7.4.1).
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_POLICY: u16 = 1008;
