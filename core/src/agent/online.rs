//! A signalling connection that is logged in: its seal, its open requests, its heartbeats.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::io::Action;
use crate::auth::SecureChannel;
use crate::auth::login::PROOF_REQUEST;
use crate::due::{Due, earlier};
use crate::ids::{AttemptId, ConnId, PeerName};
use crate::wire::message::{Heartbeat, Message, RelayLoad, Request};
use crate::wire::{Envelope, MAX_SEALED, encode};

/// The connection.
#[derive(Debug)]
pub(super) struct Online {
    pub(super) conn: ConnId,
    pub(super) remote: SocketAddr,
    channel: SecureChannel,
    period: Duration,
    heartbeat: Instant,
    /// When the connection is given up if nothing is heard.
    silence: Instant,
    /// Whether the network has changed since something was heard.
    doubtful: bool,
    asked: BTreeMap<u32, (Instant, Asked)>,
    due: Due<u32>,
    last_request: u32,
    /// The round trip of the last heartbeat.
    rtt: Option<Duration>,
    /// How busy the node's own relay is, and what it had carried at the heartbeat before.
    load: Option<RelayLoad>,
    carried: (Instant, u64),
}

/// What was asked of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The time.
    Heartbeat,
    /// To take note of where this node is.
    Report,
    /// To bring this node together with that one.
    Connect(PeerName),
    /// For relays of an attempt with that node.
    Relays(PeerName, AttemptId),
    /// To take note of how an attempt went.
    AttemptReport(AttemptId),
    /// To let it go.
    Goodbye,
}

impl Online {
    /// A connection that has just logged in. The period is the server's wish, within bounds.
    pub(super) fn new(
        now: Instant,
        conn: ConnId,
        remote: SocketAddr,
        channel: SecureChannel,
        period: Duration,
    ) -> Self {
        let period = period.clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
        Self {
            conn,
            remote,
            channel,
            period,
            heartbeat: now + period,
            silence: now + period * MISSED_HEARTBEATS,
            doubtful: false,
            asked: BTreeMap::new(),
            due: Due::default(),
            last_request: PROOF_REQUEST,
            rtt: None,
            load: None,
            carried: (now, 0),
        }
    }

    /// Opens what came; none if it is no message of the server's.
    pub(super) fn open(&mut self, now: Instant, message: &[u8]) -> Option<Vec<u8>> {
        let plain = self.channel.opener.open(message).ok()?;
        Envelope::parse(&plain).ok()?;
        self.silence = now + self.period * MISSED_HEARTBEATS;
        self.doubtful = false;
        Some(plain)
    }

    /// The network has changed, or seems to have: the connection must show that it still works.
    /// `timeout` is how soon it has to.
    pub(super) fn doubt(&mut self, now: Instant, timeout: Duration) {
        if !std::mem::replace(&mut self.doubtful, true) {
            self.heartbeat = now;
        }
        self.silence = self.silence.min(now + timeout);
    }

    /// Whether the network has changed since something was heard.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether the server has been silent for too long; if so, whether a change of network explains it.
    pub(super) fn is_silent(&self, now: Instant) -> Option<bool> {
        (self.silence <= now).then_some(self.doubtful)
    }

    /// Sends a heartbeat, if it is time.
    pub(super) fn beat(&mut self, now: Instant, out: &mut VecDeque<Action>) {
        if self.heartbeat <= now {
            self.heartbeat = now + self.period;
            let rtt_ms = self.rtt.map(|rtt| u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX));
            let relay = self.load.map(|load| RelayLoad { mbps: self.pace(now, load.bytes), ..load });
            self.ask(now, Asked::Heartbeat, &Heartbeat { rtt_ms, relay }, out);
        }
    }

    /// A heartbeat was answered.
    pub(super) fn beaten(&mut self, sent: Instant, now: Instant) {
        self.rtt = Some(now.saturating_duration_since(sent));
    }

    /// How busy the node's own relay is.
    pub(super) fn load(&mut self, load: RelayLoad) {
        if self.load.is_none() {
            self.carried.1 = load.bytes;
        }
        self.load = Some(load);
    }

    /// What the relay carried since the heartbeat before, in Mbit/s.
    fn pace(&mut self, now: Instant, bytes: u64) -> u32 {
        let (since, before) = std::mem::replace(&mut self.carried, (now, bytes));
        let ms = u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        let kbits = bytes.saturating_sub(before).saturating_mul(8).checked_div(ms).unwrap_or(0);
        u32::try_from(kbits / 1000).unwrap_or(u32::MAX)
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        [
            Some((self.heartbeat, "heartbeat")),
            Some((self.silence, "silence of the server")),
            self.due.next().map(|at| (at, "answer of the server")),
        ]
        .into_iter()
        .fold(None, earlier)
    }

    /// Asks the server something. Says whether that was possible.
    pub(super) fn ask<R: Request>(
        &mut self,
        now: Instant,
        asked: Asked,
        request: &R,
        out: &mut VecDeque<Action>,
    ) -> bool {
        let Some(id) = self.last_request.checked_add(1).filter(|_| self.asked.len() < MAX_ASKED) else {
            return false;
        };
        self.last_request = id;
        self.asked.insert(id, (now, asked));
        self.due.insert(now + ANSWER_TIMEOUT, id);
        self.send(id, request, out);
        true
    }

    /// Sends a message, sealed.
    pub(super) fn send<M: Message>(&mut self, request: u32, message: &M, out: &mut VecDeque<Action>) {
        let message = self.channel.sealer.seal(&encode(request, message));
        debug_assert!(message.len() <= MAX_SEALED, "a message of {} bytes", message.len());
        out.push_back(Action::SendSignal { conn: self.conn, message });
    }

    /// An answer came: when the request went out, and what it was.
    pub(super) fn answered(&mut self, request: u32) -> Option<(Instant, Asked)> {
        let (sent, asked) = self.asked.remove(&request)?;
        self.due.remove(sent + ANSWER_TIMEOUT, request);
        Some((sent, asked))
    }

    /// The next request whose time is over.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Asked> {
        while let Some(request) = self.due.pop(now) {
            if let Some((_, asked)) = self.asked.remove(&request) {
                return Some(asked);
            }
        }
        None
    }
}

/// How long the server may take to answer: two retransmissions of TCP on a bad line.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// As many missed heartbeats end the connection, as at the server.
const MISSED_HEARTBEATS: u32 = 3;
/// The bounds of the period that a server may ask for.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
const LONGEST_PERIOD: Duration = Duration::from_secs(300);
/// The most requests that wait for an answer: one a peer and kind, and the heartbeat.
const MAX_ASKED: usize = 2304;
