//! One question over UDP: a request that is repeated until it is answered or given up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::io::{Action, Socket};
use crate::rng::Rng;
use crate::stun::client::{Ask, Seen, Transaction, request};

#[derive(Debug)]
pub(super) struct Exchange {
    socket: Socket,
    to: SocketAddr,
    ask: Ask,
    transaction: Transaction,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many requests are out; the next one, or the end, is due then.
    Waiting {
        sent: usize,
        due: Instant,
    },
    Answered(Seen, SocketAddr),
    /// By an error.
    Refused,
    /// It came back to us, which is what a hairpin test waits for.
    Returned,
    GivenUp,
}

impl Exchange {
    pub(super) fn new(now: Instant, socket: Socket, to: SocketAddr, ask: Ask, rng: &mut Rng) -> Self {
        Self { socket, to, ask, transaction: rng.bytes(), state: State::Waiting { sent: 0, due: now } }
    }

    /// Sends what is due.
    pub(super) fn expire(&mut self, now: Instant, act: &mut impl FnMut(Action)) {
        let State::Waiting { sent, due } = self.state else { return };
        if due > now {
            return;
        }
        let Some(pause) = PAUSES.get(sent) else {
            self.state = State::GivenUp;
            return;
        };
        self.state = State::Waiting { sent: sent + 1, due: now + *pause };
        act(Action::Send { socket: self.socket, to: self.to, bytes: request(self.transaction, self.ask) });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { due, .. } => Some(due),
            State::Answered(..) | State::Refused | State::Returned | State::GivenUp => None,
        }
    }

    /// Takes an answer, if it is this one's. It must have come in on the socket that asked, or on another one if
    /// that was asked for.
    pub(super) fn answered(
        &mut self,
        socket: Socket,
        from: SocketAddr,
        transaction: &Transaction,
        result: Result<Seen, u16>,
    ) -> bool {
        let elsewhere = matches!(self.ask, Ask::ReturnTo(..) | Ask::ToPort(_));
        let own = *transaction == self.transaction && elsewhere == (socket != self.socket);
        if own && matches!(self.state, State::Waiting { .. }) {
            self.state = result.map_or(State::Refused, |seen| State::Answered(seen, from));
        }
        own
    }

    /// Takes a request, if it is this one's.
    pub(super) fn returned(&mut self, transaction: &Transaction) -> bool {
        let own = *transaction == self.transaction;
        if own && matches!(self.state, State::Waiting { .. }) {
            self.state = State::Returned;
        }
        own
    }

    pub(super) fn seen(&self) -> Option<&Seen> {
        self.answer().map(|(seen, _)| seen)
    }

    /// The answer, and where it came from.
    pub(super) fn answer(&self) -> Option<(&Seen, SocketAddr)> {
        match &self.state {
            State::Answered(seen, from) => Some((seen, *from)),
            State::Waiting { .. } | State::Refused | State::Returned | State::GivenUp => None,
        }
    }

    /// Whether a request to oneself came back: as it was, or as the answer that a relay's port gives to all.
    pub(super) fn came_back(&self) -> bool {
        matches!(self.state, State::Returned | State::Answered(..))
    }

    pub(super) fn to(&self) -> SocketAddr {
        self.to
    }

    pub(super) fn is_over(&self) -> bool {
        !matches!(self.state, State::Waiting { .. })
    }

    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.state, State::GivenUp)
    }
}

/// The pauses behind each request. RFC 8489 section 6.2.1 begins with 500 ms and goes on for 40 s; a node
/// wants to know sooner: its first wish waits half a second for it, which is three requests. What is lost six times
/// in three and a half seconds is not coming through. Where one packet in five is lost, one such test in 450 goes
/// wrong.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(125),
    Duration::from_millis(225),
    Duration::from_millis(400),
    Duration::from_millis(750),
    Duration::from_millis(1_000),
    Duration::from_millis(1_000),
];
