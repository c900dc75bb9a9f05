//! The server's side of a check: does the relay of that key answer at that address?

use super::dialer::challenge;
use super::{KIND_CHECK, LABEL_CHECK, MAGIC, OPENING, PROOF, RESPONSE_HEAD};
use crate::auth::verify;
use crate::ids::PublicKey;
use crate::relay::ticket::array;

/// The machine.
#[derive(Debug)]
pub struct Checker {
    relay: PublicKey,
    nonce: [u8; 32],
    state: State,
}

#[derive(Debug)]
enum State {
    Opened,
    Asked { challenge: [u8; 32] },
    Over,
}

/// Why a relay did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Something else answered, or another version.
    #[error("what answered is not a relay of this version")]
    NotARelay,
    /// A relay answered, but another one.
    #[error("another relay answered: its key is not the expected one")]
    OtherKey,
}

impl Checker {
    /// Begins on a connection to what should be the relay of this key; appends the opening to `out`. `nonce`
    /// is 32 fresh random bytes.
    pub fn new(relay: PublicKey, nonce: [u8; 32], out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&OPENING);
        Self { relay, nonce, state: State::Opened }
    }

    /// How many bytes to read next; 0 once the check is over.
    pub fn wants(&self) -> usize {
        match self.state {
            State::Opened => super::CHALLENGE,
            State::Asked { .. } => 3 + 64,
            State::Over => 0,
        }
    }

    /// Takes exactly as many bytes as were wanted; whether the relay has proven itself. What is to be sent is
    /// appended to `out`.
    ///
    /// # Errors
    /// Why it is not the relay.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, CheckError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Opened => {
                let (_, challenge) = challenge(bytes).map_err(|_| CheckError::NotARelay)?;
                // No attempt, no nodes.
                out.extend_from_slice(&[0; RESPONSE_HEAD - 1]);
                out.push(KIND_CHECK);
                out.extend_from_slice(&self.nonce);
                self.state = State::Asked { challenge };
                Ok(false)
            }
            State::Asked { challenge } => {
                let signature = match bytes {
                    [magic, PROOF, 64, signature @ ..] if *magic == MAGIC[0] && signature.len() == 64 => {
                        array(signature)
                    }
                    _ => return Err(CheckError::NotARelay),
                };
                match verify(&self.relay, LABEL_CHECK, &[challenge, self.nonce].concat(), &signature) {
                    true => Ok(true),
                    false => Err(CheckError::OtherKey),
                }
            }
            State::Over => Err(CheckError::NotARelay),
        }
    }
}
