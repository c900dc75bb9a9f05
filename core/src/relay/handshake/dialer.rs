//! The node's side: opens, answers the challenge, and hears what the relay says.

use std::fmt;
use std::time::Instant;

use nom::bytes::streaming::{tag, take};
use nom::multi::length_data;
use nom::number::streaming::u8;
use nom::{IResult, Parser};

use super::{LABEL, MAGIC, OPENING, PAIRED, Reason, Response, Shown, WAITING, signed};
use crate::ids::{AttemptId, PublicKey};
use crate::link::LinkKeys;
use crate::relay::offer::{Credential, RelayOffer};
use crate::relay::ticket::{SealedTicket, array};
use crate::relay::totp::TotpKey;
use crate::time::WallClock;

/// A relay that this node may use for one attempt, and what it shows there.
#[derive(Debug, Clone)]
pub struct Access {
    /// The server's offer.
    pub offer: RelayOffer,
    /// What this node shows.
    pub proof: Proof,
}

/// What a node shows, ready to be used.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A code, made when the challenge is there.
    Totp {
        /// The key of this node's user.
        key: TotpKey,
        /// The server's clock.
        clock: WallClock,
    },
    /// A ticket.
    Ticket(SealedTicket),
}

impl Access {
    /// An offer with what is needed to take it up: a `totp` key and the server's clock where the offer asks for
    /// a code. None if that is not there.
    pub fn new(offer: RelayOffer, totp: Option<(TotpKey, WallClock)>) -> Option<Self> {
        let proof = match &offer.credential {
            Credential::Totp => totp.map(|(key, clock)| Proof::Totp { key, clock })?,
            Credential::Ticket(ticket) => Proof::Ticket(*ticket),
        };
        Some(Self { offer, proof })
    }
}

/// The machine.
pub struct Dialer {
    keys: LinkKeys,
    relay: PublicKey,
    attempt: AttemptId,
    own: PublicKey,
    peer: PublicKey,
    state: State,
}

enum State {
    /// The opening is out.
    Opened(Proof),
    /// The response is out.
    Responded,
    /// The relay took it; the peer is not there yet.
    Waiting,
    Paired,
    Failed(DialError),
}

/// Why there is no way through a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// It said no.
    #[error("the relay refused: {reason}")]
    Refused {
        /// Why.
        reason: Reason,
    },
    /// It said no, for a reason that this version does not know.
    #[error("the relay refused (code {0})")]
    Other(u8),
    /// What answered is no relay, or one of another version.
    #[error("what answered is not a relay of this version")]
    NotARelay,
}

impl Dialer {
    /// Begins on a connection to the relay; appends the opening to `out`.
    pub fn new(keys: LinkKeys, own: PublicKey, peer: PublicKey, access: &Access, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&OPENING);
        let (relay, attempt) = (access.offer.key, access.offer.attempt);
        Self { keys, relay, attempt, own, peer, state: State::Opened(access.proof.clone()) }
    }

    /// Whether the response is out: what there is to say to the peer may follow at once.
    pub fn has_responded(&self) -> bool {
        matches!(self.state, State::Responded | State::Waiting | State::Paired)
    }

    /// Whether the relay took the response, and the other end is not there yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// Whether the other end is there: bytes that follow are the peer's.
    pub fn is_paired(&self) -> bool {
        matches!(self.state, State::Paired)
    }

    /// Takes received bytes; how many of them are done with. What is left belongs to the peer if
    /// [`Self::is_paired`], and else must be offered again with more behind it. What is to be sent is appended
    /// to `out`.
    ///
    /// # Errors
    /// Why there is no way; the same error at every later call.
    pub fn receive(&mut self, now: Instant, input: &[u8], out: &mut Vec<u8>) -> Result<usize, DialError> {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let step = match &self.state {
                State::Paired => break,
                State::Failed(error) => return Err(error.clone()),
                State::Opened(_) => {
                    challenge(rest).map(|(rest, challenge)| (rest, Heard::Challenge(challenge)))
                }
                State::Responded | State::Waiting => {
                    answer(rest).map(|(rest, code)| (rest, Heard::Answer(code)))
                }
            };
            match step {
                Ok((rest, heard)) => {
                    used = input.len() - rest.len();
                    self.heard(now, heard, out)?;
                }
                Err(nom::Err::Incomplete(_)) => break,
                Err(nom::Err::Error(_) | nom::Err::Failure(_)) => return Err(self.fail(DialError::NotARelay)),
            }
        }
        Ok(used)
    }

    fn heard(&mut self, now: Instant, heard: Heard, out: &mut Vec<u8>) -> Result<(), DialError> {
        let next = match (&self.state, heard) {
            (State::Opened(proof), Heard::Challenge(challenge)) => {
                let response = self.respond(now, &challenge, proof);
                response.map_or(State::Failed(DialError::NotARelay), |response| {
                    out.extend_from_slice(&response);
                    State::Responded
                })
            }
            (State::Responded, Heard::Answer(WAITING)) => State::Waiting,
            (State::Responded | State::Waiting, Heard::Answer(PAIRED)) => State::Paired,
            (State::Responded | State::Waiting, Heard::Answer(code)) => {
                let reason = Reason::ALL.into_iter().find(|reason| *reason as u8 == code);
                State::Failed(reason.map_or(DialError::Other(code), |reason| DialError::Refused { reason }))
            }
            _ => State::Failed(DialError::NotARelay),
        };
        self.state = next;
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The response to a challenge; none if this node's key cannot sign.
    fn respond(&self, now: Instant, challenge: &[u8; 32], proof: &Proof) -> Option<Vec<u8>> {
        let mut response = Response {
            attempt: self.attempt,
            own: self.own,
            peer: self.peer,
            shown: match proof {
                Proof::Ticket(ticket) => Shown::Ticket(*ticket),
                Proof::Totp { key, .. } => Shown::Code { key: key.id(), code: [0; 32] },
            },
            signature: [0; 64],
        };
        if let Proof::Totp { key, clock } = proof {
            let code = key.code(&response.binding(challenge, self.relay), clock.unix(now));
            response.shown = Shown::Code { key: key.id(), code };
        }
        let mut bytes = response.body();
        let signature = self.keys.sign(LABEL, &signed(challenge, &self.relay, &bytes))?;
        bytes.extend_from_slice(&signature);
        Some(bytes)
    }

    fn fail(&mut self, error: DialError) -> DialError {
        self.state = State::Failed(error.clone());
        error
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Opened(_) => "opened",
            State::Responded => "responded",
            State::Waiting => "waiting",
            State::Paired => "paired",
            State::Failed(_) => "failed",
        };
        f.debug_struct("Dialer")
            .field("attempt", &self.attempt)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

enum Heard {
    Challenge([u8; 32]),
    Answer(u8),
}

/// The relay's challenge.
pub(super) fn challenge(input: &[u8]) -> IResult<&[u8], [u8; 32]> {
    (tag(&OPENING[..]), take(32_usize)).map(|(_, challenge)| array(challenge)).parse(input)
}

/// The code of an answer. Its text is for people who watch the wire: what a stranger writes is not repeated.
fn answer(input: &[u8]) -> IResult<&[u8], u8> {
    (tag(&MAGIC[..1]), u8, length_data(u8)).map(|(_, code, _)| code).parse(input)
}
