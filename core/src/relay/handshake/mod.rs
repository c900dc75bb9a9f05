//! The relay handshake: what a node and a relay say to each other before the relay passes bytes on.
//!
//! ```text
//!   node                                                         relay
//!    opening    magic(4), version(1)                        ──▶
//!               ◀──  magic(4), version(1), challenge(32)         challenge
//!    response   attempt(16), own key(32), peer key(32),     ──▶
//!               credential kind(1), credential, signature(64)
//!               ◀──  0xD1, code(1), length(1), text              answer: waiting (at most once)
//!               ◀──  0xD1, code(1), length(1), text              answer: paired, or why not
//! ```
//! A credential is a code (kind 1: key id(4), code(32)) or a ticket (kind 2, see [`super::ticket`]). The
//! signature is the node's, at the place `LABEL`, over the challenge, the relay's key and the whole response
//! before it: so no byte of a response can be altered, and none can be used at another relay or again.
//!
//! The node speaks first, because the server tells by the first byte what a connection is. It does not wait
//! for the answer: what it has to say to its peer goes right behind the response, stays in the relay's socket
//! until the peer is there, and is the first thing that the peer gets. Behind the answer `paired` comes
//! whatever the peer has to say. Every refusal says why, in a code and in words.
//!
//! Instead of a response the server may send a *check*, to see whether a relay can be reached from outside and
//! is the one that it should be: zeros for attempt and keys, kind 3, a nonce(32), and no signature. The answer
//! carries the relay's signature at the place `LABEL_CHECK` over challenge and nonce, and the relay closes.
//!
//! [`Dialer`] is the node's side, [`Reception`] the relay's; whether a response is good is judged by
//! [`super::Gate`]. [`Checker`] is the server's side of a check.

mod checker;
mod dialer;
mod reception;
#[cfg(test)]
mod tests;

use std::fmt;

use nom::bytes::complete::take;
use nom::combinator::{map, verify as check};
use nom::number::complete::{be_u32, u8};
use nom::{IResult, Parser};

pub use checker::{CheckError, Checker};
pub use dialer::{Access, DialError, Dialer, Proof};
pub use reception::{Heard, Reception};

use super::ticket::{self, SealedTicket, array};
use super::totp::Binding;
use crate::auth::verify;
use crate::ids::{AttemptId, PublicKey};

/// A node's response, well-formed, but not yet judged.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// What pairs the two ends.
    pub attempt: AttemptId,
    /// The node that speaks.
    pub own: PublicKey,
    /// The node that it wants to be joined with.
    pub peer: PublicKey,
    /// Its permission.
    pub(super) shown: Shown,
    signature: [u8; 64],
}

/// The permission as it was shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// A code under the user's key of that number.
    Code { key: u32, code: [u8; 32] },
    /// A ticket.
    Ticket(SealedTicket),
}

impl Response {
    /// What the code in it must be bound to.
    pub(super) fn binding(&self, challenge: &[u8; 32], relay: PublicKey) -> Binding {
        Binding { challenge: *challenge, relay, own: self.own, peer: self.peer, attempt: self.attempt }
    }

    /// Whether the node proved its key over the challenge of this very relay.
    pub(super) fn is_signed(&self, challenge: &[u8; 32], relay: &PublicKey) -> bool {
        verify(&self.own, LABEL, &signed(challenge, relay, &self.body()), &self.signature)
    }

    /// Everything but the signature.
    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(RESPONSE_HEAD + ticket::LENGTH);
        body.extend_from_slice(&self.attempt.0);
        body.extend_from_slice(&self.own.0);
        body.extend_from_slice(&self.peer.0);
        match &self.shown {
            Shown::Code { key, code } => {
                body.push(KIND_CODE);
                body.extend_from_slice(&key.to_be_bytes());
                body.extend_from_slice(code);
            }
            Shown::Ticket(ticket) => {
                body.push(KIND_TICKET);
                body.extend_from_slice(&ticket.0);
            }
        }
        body
    }

    fn parse(bytes: &[u8]) -> IResult<&[u8], Self> {
        let key = || take(32_usize).map(|key| PublicKey(array(key)));
        let (rest, (attempt, own, peer, kind)) =
            (take(16_usize).map(|id| AttemptId(array(id))), key(), key(), u8).parse(bytes)?;
        let (rest, shown) = match kind {
            KIND_CODE => map((be_u32, take(32_usize)), |(key, code): (u32, &[u8])| Shown::Code {
                key,
                code: array(code),
            })
            .parse(rest)?,
            _ => {
                let (rest, _) =
                    check(nom::combinator::success(kind), |kind| *kind == KIND_TICKET).parse(rest)?;
                map(take(ticket::LENGTH), |ticket| Shown::Ticket(SealedTicket(array(ticket)))).parse(rest)?
            }
        };
        let (rest, signature) = take(64_usize).map(array).parse(rest)?;
        Ok((rest, Self { attempt, own, peer, shown, signature }))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("attempt", &self.attempt)
            .field("own", &self.own)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What a relay answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The response was good; the other end is not there yet.
    Waiting,
    /// The other end is there: everything that follows is from it.
    Paired,
    /// The answer to a check: the relay's signature.
    Proof([u8; 64]),
    /// No; the relay closes.
    Refused(Reason),
}

impl Answer {
    /// Appends the answer's bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        let text = match self {
            Self::Waiting | Self::Paired => Vec::new(),
            Self::Proof(signature) => signature.to_vec(),
            Self::Refused(reason) => reason.to_string().into_bytes(),
        };
        // Texts are ours and short.
        let length = u8::try_from(text.len()).unwrap_or(0);
        out.extend_from_slice(&[MAGIC[0], self.code(), length]);
        out.extend(text.into_iter().take(length.into()));
    }

    fn code(self) -> u8 {
        match self {
            Self::Waiting => WAITING,
            Self::Paired => PAIRED,
            Self::Proof(_) => PROOF,
            Self::Refused(reason) => reason as u8,
        }
    }
}

/// Why a relay refuses. The numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Reason {
    /// What came is no response.
    #[error("malformed: the relay cannot read the request")]
    Malformed = 0x10,
    /// The opening or the response took too long.
    #[error("late: the handshake took too long")]
    Late = 0x11,
    /// The ticket's time is over: a new one helps.
    #[error("stale: the ticket has expired")]
    Stale = 0x12,
    /// The ticket was used before: a new one helps.
    #[error("used: the ticket was used before")]
    Used = 0x13,
    /// The two ends do not agree on the server's time.
    #[error("skew: node and relay do not agree on the server's time")]
    Skew = 0x14,
    /// The permission was made under a key that the relay does not have (any more): a new one helps.
    #[error("unknown-key: the relay does not know the key that the permission was made under")]
    UnknownKey = 0x15,
    /// The permission is for another relay.
    #[error("wrong-relay: the ticket is for another relay")]
    WrongRelay = 0x16,
    /// The permission or the signature proves nothing.
    #[error("denied: the permission or the signature is not valid")]
    Denied = 0x17,
    /// The relay has as much to do as it may.
    #[error("busy: the relay serves as many as it can")]
    Busy = 0x18,
    /// The other end did not come.
    #[error("no-peer: the other node did not come to the relay")]
    NoPeer = 0x19,
    /// The same node came again for the same attempt.
    #[error("replaced: the node came again on another connection")]
    Replaced = 0x1a,
    /// The relay stops serving.
    #[error("stopping: the relay stops serving")]
    Stopping = 0x1b,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::Late,
        Self::Stale,
        Self::Used,
        Self::Skew,
        Self::UnknownKey,
        Self::WrongRelay,
        Self::Denied,
        Self::Busy,
        Self::NoPeer,
        Self::Replaced,
        Self::Stopping,
    ];

    /// Whether a new permission would be worth asking the server for, at once.
    pub fn wants_new_permission(self) -> bool {
        match self {
            Self::Stale | Self::Used | Self::Skew | Self::UnknownKey => true,
            Self::Malformed
            | Self::Late
            | Self::WrongRelay
            | Self::Denied
            | Self::Busy
            | Self::NoPeer
            | Self::Replaced
            | Self::Stopping => false,
        }
    }
}

/// The bytes with which a node opens.
pub const OPENING: [u8; 5] = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], VERSION];

/// The relay's challenge as it is sent.
pub fn encode_challenge(challenge: &[u8; 32]) -> [u8; CHALLENGE] {
    let mut bytes = [0; CHALLENGE];
    let (front, back) = bytes.split_at_mut(OPENING.len());
    front.copy_from_slice(&OPENING);
    back.copy_from_slice(challenge);
    bytes
}

/// What the signature is over.
fn signed(challenge: &[u8; 32], relay: &PublicKey, body: &[u8]) -> Vec<u8> {
    [&challenge[..], &relay.0, body].concat()
}

/// The length of a challenge on the wire, in bytes.
pub const CHALLENGE: usize = OPENING.len() + 32;
/// The longest response, in bytes.
pub const MAX_RESPONSE: usize = RESPONSE_HEAD + ticket::LENGTH + 64;
/// A response up to the kind of its credential.
const RESPONSE_HEAD: usize = 16 + 32 + 32 + 1;
/// The first byte tells a relay's handshake from TLS (0x16), HTTP (a letter) and a link (0xD2).
const MAGIC: [u8; 4] = [0xd1, b'I', b'2', b'R'];
const VERSION: u8 = 1;
const WAITING: u8 = 0;
const PAIRED: u8 = 1;
const PROOF: u8 = 2;
const KIND_CODE: u8 = 1;
const KIND_TICKET: u8 = 2;
const KIND_CHECK: u8 = 3;
/// The place of the node's signature.
const LABEL: &str = "inp2p relay v1 node";
/// The place of the relay's signature.
const LABEL_CHECK: &str = "inp2p relay v1 check";
