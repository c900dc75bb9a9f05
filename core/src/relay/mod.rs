//! Relays: the rungs of last resort, where a third party joins two connections that both came in.
//!
//! ```text
//!   node A                          relay                           node B
//!     │  opening ───────────────────▶ │ ◀─────────────────── opening  │
//!     │ ◀─────────────────  challenge │ challenge  ─────────────────▶ │
//!     │  response, preface, TLS ────▶ │ ◀──── response, preface, TLS  │
//!     │ ◀────────────────────  paired │ paired  ────────────────────▶ │
//!     │ ◀═══════════ bytes, as they come, in both directions ═══════▶ │
//! ```
//!
//! A relay is blind: TLS inside is end to end between the nodes, and a relay never dials, so it cannot be
//! made to reach anything. Whoever asks it proves two things over its challenge, which is random and used
//! once: its node key, by a signature, and a permission. Within a user that is a TOTP (in the manner of RFC
//! 6238) under a key that the user's nodes share; across users, and at the server, a [`ticket`] that the
//! server made for one side of one attempt at one relay, and that the relay verifies offline, once.
//!
//! | module | |
//! |---|---|
//! | [`offer`] | what the server tells a node of a relay that it may use |
//! | [`ticket`] | the one-time permission, and the keys that it is made and verified under |
//! | [`totp`] | the time-window code within a user |
//! | [`handshake`] | both sides of the conversation above |
//! | [`gate`] | whom a relay lets in |
//! | [`pairing`] | who is joined with whom |
//! | [`bandwidth`] | the limit that all who are relayed share |
//!
//! What this leaves to others: which relay to offer (`server`), which to use (`session`), sockets and the
//! copying itself (the driver).

pub mod bandwidth;
pub mod gate;
pub mod handshake;
pub mod offer;
pub mod pairing;
pub mod ticket;
pub mod totp;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use bandwidth::Bandwidth;
pub use gate::{Admitted, Gate};
pub use handshake::{Access, Answer, DialError, Dialer, Proof, Reason, Reception};
pub use offer::{Credential, RelayOffer};
pub use pairing::Pairing;
pub use ticket::{SealedTicket, Ticket, TicketKey};
pub use totp::{RelaySecret, TotpKey};

use crate::path::Rung;

/// Whose relay it is. The order of the variants is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// A node of the own user (`-relay`).
    Private,
    /// A node that serves all users (`-super`).
    Super,
    /// The signalling server itself.
    Server,
}

impl Tier {
    /// The rung that a link through such a relay is on.
    pub fn rung(self) -> Rung {
        match self {
            Self::Private => Rung::PrivateRelay,
            Self::Super => Rung::SuperRelay,
            Self::Server => Rung::ServerRelay,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "private",
            Self::Super => "super",
            Self::Server => "server",
        })
    }
}

#[cfg(test)]
mod tests;
