//! Tickets: one-time permissions to use a relay, made by the server, verified by the relay offline.
//!
//! ```text
//! 0         1        5           37        69         101       117       125             133     149    181
//! ├─────────┼────────┼───────────┼─────────┼──────────┼─────────┼─────────┼───────────────┼───────┼──────┤
//! │ version │ key id │ relay key │ own key │ peer key │ attempt │ account │ not after, ms │ nonce │ MAC  │
//! └─────────┴────────┴───────────┴─────────┴──────────┴─────────┴─────────┴───────────────┴───────┴──────┘
//! ```
//! MAC: HMAC-SHA256 under the relay's ticket key over a label and the 149 bytes before it. A ticket is for one
//! side of one attempt at one relay. It is of no use without the node's key: the relay wants a signature over
//! its challenge besides.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use nom::bytes::complete::take;
use nom::number::complete::{be_u32, be_u64, u8};
use nom::{IResult, Parser};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{AttemptId, PublicKey};
use crate::rng::Rng;

/// The length of a ticket in bytes.
pub const LENGTH: usize = HEAD + 32;

/// How long the server lets a ticket be good: a dial, and a repetition of it.
pub const VALID: Duration = Duration::from_secs(60);

/// What a ticket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The relay that it is for.
    pub relay: PublicKey,
    /// The node that may show it.
    pub own: PublicKey,
    /// The node that it is to be joined with.
    pub peer: PublicKey,
    /// What pairs the two ends.
    pub attempt: AttemptId,
    /// Whose use it is, so that the relay can bound it: tells users apart, and says nothing else of them.
    pub account: Account,
    /// Until when it is good, by the server's clock, since 1970; whole milliseconds.
    pub not_after: Duration,
    /// What makes it one of a kind.
    pub nonce: [u8; 16],
}

/// A user as relays know it: eight bytes that the server makes up.
pub type Account = [u8; 8];

/// A ticket on its way: the node passes it on as it is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ByteArray<LENGTH>", into = "ByteArray<LENGTH>")]
pub struct SealedTicket(pub [u8; LENGTH]);

/// What a relay's tickets are made and verified under. The server makes one at each login of the relay, and
/// hands it over inside the sealed channel. Erased from memory when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct TicketKey {
    /// Tells it from the one before.
    pub id: u32,
    #[serde(with = "secret")]
    key: [u8; 32],
}

impl TicketKey {
    /// A fresh one.
    pub fn random(id: u32, rng: &mut Rng) -> Self {
        Self::new(id, rng.bytes())
    }

    /// The key of 32 secret bytes.
    pub fn new(id: u32, key: [u8; 32]) -> Self {
        Self { id, key }
    }

    /// Makes the ticket.
    pub fn seal(&self, ticket: &Ticket) -> SealedTicket {
        let head = head(self.id, ticket);
        let mac = self.mac(&head).finalize().into_bytes();
        let mut bytes = [0; LENGTH];
        let (front, back) = bytes.split_at_mut(HEAD);
        front.copy_from_slice(&head);
        back.copy_from_slice(&mac);
        SealedTicket(bytes)
    }

    /// What the ticket says, if it was made under this key. Takes the same time whatever differs.
    pub fn open(&self, sealed: &SealedTicket) -> Option<Ticket> {
        let (_, (id, ticket)) = parse(&sealed.0).ok()?;
        let (head, mac) = sealed.0.split_at(HEAD);
        (id == self.id && self.mac(head).verify_slice(mac).is_ok()).then_some(ticket)
    }

    fn mac(&self, head: &[u8]) -> Hmac<Sha256> {
        // HMAC itself pads shorter keys with zeros to the hash's block.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.key);
        let mac = <Hmac<Sha256> as Mac>::new(&block.into());
        block.zeroize();
        mac.chain_update(LABEL).chain_update(head)
    }
}

impl SealedTicket {
    /// The key that it claims to be made under; none if it is of another version.
    pub fn key_id(&self) -> Option<u32> {
        parse(&self.0).ok().map(|(_, (id, _))| id)
    }
}

impl From<ByteArray<LENGTH>> for SealedTicket {
    fn from(bytes: ByteArray<LENGTH>) -> Self {
        Self(bytes.into_array())
    }
}

impl From<SealedTicket> for ByteArray<LENGTH> {
    fn from(ticket: SealedTicket) -> Self {
        Self::new(ticket.0)
    }
}

impl fmt::Debug for SealedTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedTicket(***)")
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn parse(bytes: &[u8]) -> IResult<&[u8], (u32, Ticket)> {
    let key = || take(32_usize).map(|key| PublicKey(array(key)));
    let (rest, (_, id, relay, own, peer, attempt, account, not_after, nonce)) = (
        nom::combinator::verify(u8, |version| *version == VERSION),
        be_u32,
        key(),
        key(),
        key(),
        take(16_usize).map(|id| AttemptId(array(id))),
        take(8_usize).map(array),
        be_u64,
        take(16_usize).map(array),
    )
        .parse(bytes)?;
    let not_after = Duration::from_millis(not_after);
    Ok((rest, (id, Ticket { relay, own, peer, attempt, account, not_after, nonce })))
}

fn head(id: u32, ticket: &Ticket) -> [u8; HEAD] {
    let not_after = u64::try_from(ticket.not_after.as_millis()).unwrap_or(u64::MAX);
    let mut head = [0; HEAD];
    let fields: [&[u8]; 9] = [
        &[VERSION],
        &id.to_be_bytes(),
        &ticket.relay.0,
        &ticket.own.0,
        &ticket.peer.0,
        &ticket.attempt.0,
        &ticket.account,
        &not_after.to_be_bytes(),
        &ticket.nonce,
    ];
    for (byte, value) in head.iter_mut().zip(fields.into_iter().flatten()) {
        *byte = *value;
    }
    head
}

/// `take(N)` gives exactly `N` bytes.
pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

/// 32 secret bytes as binary.
pub(super) mod secret {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use serde_bytes::ByteArray;

    pub(in crate::relay) fn serialize<S: Serializer>(key: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        ByteArray::new(*key).serialize(to)
    }

    pub(in crate::relay) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        Ok(ByteArray::<32>::deserialize(from)?.into_array())
    }
}

/// Everything before the MAC.
const HEAD: usize = 1 + 4 + 32 + 32 + 32 + 16 + 8 + 8 + 16;
const VERSION: u8 = 1;
/// Keeps this use of the key apart from any other.
const LABEL: &[u8] = b"inp2p relay ticket 1";

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            relay: PublicKey([1; 32]),
            own: PublicKey([2; 32]),
            peer: PublicKey([3; 32]),
            attempt: AttemptId([4; 16]),
            account: [5; 8],
            not_after: Duration::from_millis(1_700_000_060_000),
            nonce: [6; 16],
        }
    }

    fn key() -> TicketKey {
        TicketKey::new(9, [8; 32])
    }

    #[test]
    fn a_ticket_says_what_it_was_made_to_say() {
        let sealed = key().seal(&ticket());
        assert_eq!(key().open(&sealed), Some(ticket()));
        assert_eq!(sealed.key_id(), Some(9));
        assert_eq!(TicketKey::new(9, [7; 32]).open(&sealed), None);
        assert_eq!(TicketKey::new(8, [8; 32]).open(&sealed), None);
    }

    #[test]
    fn a_ticket_that_was_altered_in_any_byte_is_refused() {
        for at in 0..LENGTH {
            let mut sealed = key().seal(&ticket());
            sealed.0[at] ^= 1;
            assert_eq!(key().open(&sealed), None, "byte {at}");
        }
    }

    #[test]
    fn nothing_of_it_shows_in_logs() {
        assert_eq!(
            format!("{:?} {:?}", key().seal(&ticket()), key()),
            "SealedTicket(***) TicketKey { id: 9, .. }"
        );
    }
}
