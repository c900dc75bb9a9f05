//! How long an idle mapping lives (RFC 5780 section 4.6), measured in the background.
//!
//! A socket asks the server once and is then left alone for a time. Whether its mapping is still there must
//! be asked without using it: the node's own port asks the server to answer to the idle socket's mapped
//! port (RETURN-TO, see [`crate::stun`]). If that answer arrives, the socket asks again, which makes the
//! mapping new, and is left alone for longer. Each rung of the ladder is the idle time of a kind of device.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::io::{Action, Socket};
use super::report::Lifetime;
use crate::rng::Rng;
use crate::stun::client::{Ask, Seen, Transaction};

#[derive(Debug)]
pub(super) struct LifetimeProbe {
    socket: Socket,
    server: SocketAddr,
    rung: usize,
    found: Option<Lifetime>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The idle socket asks, which makes or refreshes its mapping.
    Mapping(Exchange),
    /// It is left alone until then.
    Idle {
        until: Instant,
        seen: Seen,
    },
    /// The own port asks for an answer to the idle one.
    Asking(Exchange),
    Over,
}

impl LifetimeProbe {
    /// Begins.
    pub(super) fn new(now: Instant, server: SocketAddr, rng: &mut Rng, act: &mut impl FnMut(Action)) -> Self {
        let socket = Socket::Idle(server.is_ipv4());
        act(Action::Open(socket));
        let state = State::Mapping(Exchange::new(now, socket, server, Ask::Proof, rng));
        Self { socket, server, rung: 0, found: None, state }
    }

    /// What is known so far.
    pub(super) fn found(&self) -> Option<Lifetime> {
        self.found
    }

    pub(super) fn answered(
        &mut self,
        socket: Socket,
        from: SocketAddr,
        transaction: &Transaction,
        result: Result<Seen, u16>,
    ) -> bool {
        match &mut self.state {
            State::Mapping(exchange) => exchange.answered(socket, from, transaction, result),
            State::Asking(exchange) => {
                socket == self.socket && exchange.answered(socket, from, transaction, result)
            }
            State::Idle { .. } | State::Over => false,
        }
    }

    pub(super) fn expire(&mut self, now: Instant, rng: &mut Rng, act: &mut impl FnMut(Action)) {
        match &mut self.state {
            State::Mapping(exchange) => {
                exchange.expire(now, act);
                match (exchange.seen(), exchange.is_over()) {
                    (Some(seen), _) => {
                        let until = now + LADDER.get(self.rung).map_or(Duration::ZERO, |rung| secs(*rung));
                        self.state = State::Idle { until, seen: *seen };
                    }
                    (None, true) => self.end(act),
                    (None, false) => {}
                }
            }
            State::Idle { until, seen } if *until <= now => match seen.proof {
                Some(proof) => {
                    let ask = Ask::ReturnTo(seen.mapped.port(), proof);
                    let mut exchange = Exchange::new(now, Socket::Main, self.server, ask, rng);
                    exchange.expire(now, act);
                    self.state = State::Asking(exchange);
                }
                // Another maker's server.
                None => self.end(act),
            },
            State::Asking(exchange) => {
                exchange.expire(now, act);
                if exchange.is_over() {
                    let is_alive = exchange.seen().is_some();
                    self.climb(now, is_alive, rng, act);
                }
            }
            State::Idle { .. } | State::Over => {}
        }
    }

    fn climb(&mut self, now: Instant, is_alive: bool, rng: &mut Rng, act: &mut impl FnMut(Action)) {
        let rung = LADDER.get(self.rung).copied().unwrap_or_default();
        if !is_alive {
            let at_least = self.found.map_or(0, |found| found.at_least);
            self.found = Some(Lifetime { at_least, below: Some(rung) });
            return self.end(act);
        }
        self.found = Some(Lifetime { at_least: rung, below: None });
        self.rung += 1;
        if self.rung == LADDER.len() {
            return self.end(act);
        }
        let mut exchange = Exchange::new(now, self.socket, self.server, Ask::Proof, rng);
        exchange.expire(now, act);
        self.state = State::Mapping(exchange);
    }

    /// Ends, early or not.
    pub(super) fn end(&mut self, act: &mut impl FnMut(Action)) {
        if !matches!(self.state, State::Over) {
            self.state = State::Over;
            act(Action::Close(self.socket));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Mapping(exchange) | State::Asking(exchange) => exchange.deadline(),
            State::Idle { until, .. } => Some(*until),
            State::Over => None,
        }
    }
}

fn secs(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

/// The idle times that are tried, in seconds: a little less than the lifetimes that NATs are seen to have
/// (30 s, one minute, two as RFC 4787 REQ-5 asks for at least, three as netfilter's for streams, five as it
/// recommends).
const LADDER: [u32; 5] = [25, 55, 115, 175, 295];
