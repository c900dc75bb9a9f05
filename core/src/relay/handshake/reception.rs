//! The relay's side: reads the opening and the response, and not a byte more.

use super::{
    Answer, KIND_CHECK, KIND_CODE, KIND_TICKET, LABEL_CHECK, OPENING, RESPONSE_HEAD, Reason, Response,
    encode_challenge,
};
use crate::auth::Identity;
use crate::relay::ticket::{self, array};

/// A connection that has not shown its permission yet. The driver reads exactly [`Self::wants`] bytes at a
/// time: what lies behind the response is for the peer, and stays in the socket.
#[derive(Debug)]
pub struct Reception {
    challenge: [u8; 32],
    state: State,
}

/// What a connection wants.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one a connection, taken apart at once")]
pub enum Heard {
    /// To be joined with another: to be judged by the gate.
    Response(Response),
    /// To see that this relay is what it should be: to be answered with [`Reception::prove`].
    Check([u8; 32]),
}

#[derive(Debug)]
enum State {
    Opening,
    /// The response up to the kind of its credential.
    Head,
    /// The rest of it, behind what came.
    Rest(Vec<u8>),
    Over,
}

impl Reception {
    /// A new connection. `challenge` is 32 fresh random bytes.
    pub fn new(challenge: [u8; 32]) -> Self {
        Self { challenge, state: State::Opening }
    }

    /// What the node has to answer to.
    pub fn challenge(&self) -> &[u8; 32] {
        &self.challenge
    }

    /// How many bytes to read next; 0 once the handshake is over.
    pub fn wants(&self) -> usize {
        match &self.state {
            State::Opening => OPENING.len(),
            State::Head => RESPONSE_HEAD,
            State::Rest(head) => rest(head).unwrap_or(0),
            State::Over => 0,
        }
    }

    /// The answer to a check.
    pub fn prove(&self, identity: &Identity, nonce: &[u8; 32]) -> Answer {
        Answer::Proof(identity.sign(LABEL_CHECK, &[self.challenge, *nonce].concat()))
    }

    /// Takes exactly as many bytes as were wanted. What is to be sent is appended to `out`; what the other
    /// side wants is returned when it has said so.
    ///
    /// # Errors
    /// If what came is not the handshake of this version.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<Heard>, Reason> {
        if bytes.len() != self.wants() {
            return Err(Reason::Malformed);
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Opening if bytes == OPENING => {
                out.extend_from_slice(&encode_challenge(&self.challenge));
                self.state = State::Head;
                Ok(None)
            }
            State::Head if rest(bytes).is_some() => {
                self.state = State::Rest(bytes.to_vec());
                Ok(None)
            }
            State::Rest(head) if head.last() == Some(&KIND_CHECK) => Ok(Some(Heard::Check(array(bytes)))),
            State::Rest(mut response) => {
                response.extend_from_slice(bytes);
                match Response::parse(&response) {
                    Ok(([], response)) => Ok(Some(Heard::Response(response))),
                    Ok(_) | Err(_) => Err(Reason::Malformed),
                }
            }
            State::Opening | State::Head | State::Over => Err(Reason::Malformed),
        }
    }
}

/// How much of a response follows its head.
fn rest(head: &[u8]) -> Option<usize> {
    match *head.last()? {
        KIND_CODE => Some(4 + 32 + 64),
        KIND_CHECK => Some(32),
        KIND_TICKET => Some(ticket::LENGTH + 64),
        _ => None,
    }
}
