//! STUN answers of a node that relays: it is a further address for nodes whose server has one alone.
//!
//! What is answered, and how much of it, is the core's to say, as for the server's own ports. Requests end here:
//! the node's own, which come back where its NAT hairpins, are answered like any other, and the answer tells the
//! prober as much.

use std::time::{Duration, Instant};

use inp2p_core::path::Transport;
use inp2p_core::stun::limit::Limiter;
use inp2p_core::stun::server::{Arrival, MAX_REPLY, Responder};

use super::PortSocket;
use crate::net::{RecvMeta, Transmit, UdpIo};

/// What answers.
pub(super) struct Answerer {
    responder: Responder,
    limiter: Limiter,
}

impl Answerer {
    /// `secret` is random.
    pub(super) fn new(secret: [u8; 32]) -> Self {
        let mut key = [0; 16];
        key.iter_mut().zip(secret).for_each(|(byte, drawn)| *byte = drawn);
        Self { responder: Responder::of_relay(), limiter: Limiter::new(key) }
    }

    /// Answers a request, by the socket that it came by. Whether it was one.
    pub(super) fn take<U: UdpIo>(
        &mut self,
        now: Instant,
        socket: &PortSocket<U>,
        meta: &RecvMeta,
        datagram: &[u8],
    ) -> bool {
        if !datagram.starts_with(&REQUEST) {
            return false;
        }
        if self.limiter.admit(now, meta.from.ip()) {
            let arrival = Arrival {
                transport: Transport::Udp,
                source: meta.from,
                origin: None,
                other: None,
                // For proofs, which a relay does not give.
                unix: Duration::ZERO,
                busy: self.limiter.is_busy(),
            };
            let mut reply = [0; MAX_REPLY];
            if let Some(answer) = self.responder.respond(datagram, &arrival, &mut reply) {
                let transmit = Transmit { from: meta.to, ..Transmit::plain(answer.to) };
                // One that would have to wait is repeated by its client.
                let _ = socket.try_send(&transmit, reply.get(..answer.length).unwrap_or_default());
            }
        }
        true
    }
}

/// How a Binding request begins (RFC 8489 section 5).
const REQUEST: [u8; 2] = [0, 1];
