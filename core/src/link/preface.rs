//! The fixed opening of every node-to-node TCP connection, sent by both ends.
//!
//! ```text
//! 0        4         5      6             22         54
//! ├────────┼─────────┼──────┼─────────────┼──────────┤
//! │ magic  │ version │ role │ attempt id  │ MAC      │
//! └────────┴─────────┴──────┴─────────────┴──────────┘
//! ```
//! MAC: HMAC-SHA256 under the attempt's punch key over a label and the 22 bytes before it. The role is the
//! sender's, so a preface that is thrown back is not taken for the peer's.

use hmac::{Hmac, Mac};
use nom::bytes::complete::{tag, take};
use nom::number::complete::u8;
use nom::{IResult, Parser};
use sha2::Sha256;

use crate::ids::AttemptId;

/// The length of a preface in bytes.
pub const LENGTH: usize = 54;

/// The first byte tells a link from TLS (0x16), HTTP (a letter) and a relay's preface (0xD1).
const MAGIC: [u8; 4] = [0xd2, b'I', b'2', b'P'];
const VERSION: u8 = 1;
const LABEL: &[u8] = b"inp2p tcp preface 1";

/// Which part a node plays in a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one with the lower public key: TLS client, odd stream ids, nominates.
    Controlling,
    /// The other one.
    Controlled,
}

impl Role {
    /// The peer's.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Controlling => 1,
            Self::Controlled => 2,
        }
    }
}

/// A preface as it was received: well-formed, but not yet proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preface {
    /// The attempt that it names.
    pub attempt: AttemptId,
    role: u8,
    mac: [u8; 32],
}

impl Preface {
    /// Reads a preface; none if the bytes are not one of this version.
    pub fn parse(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (_, preface) = parse(bytes).ok()?;
        Some(preface)
    }

    /// Whether it was made under `punch_key` by a node in `role`. Takes the same time whatever differs.
    pub fn proves(&self, punch_key: &[u8; 32], role: Role) -> bool {
        self.role == role.code() && mac(punch_key, &head(self.attempt, role)).verify_slice(&self.mac).is_ok()
    }
}

/// The preface that a node in `role` sends.
pub fn encode(attempt: AttemptId, punch_key: &[u8; 32], role: Role) -> [u8; LENGTH] {
    let head = head(attempt, role);
    let mac = mac(punch_key, &head).finalize().into_bytes();
    let mut bytes = [0; LENGTH];
    let (front, back) = bytes.split_at_mut(head.len());
    front.copy_from_slice(&head);
    back.copy_from_slice(&mac);
    bytes
}

fn parse(bytes: &[u8]) -> IResult<&[u8], Preface> {
    let (rest, (_, _, role, attempt, mac)) =
        (tag(&MAGIC[..]), tag(&[VERSION][..]), u8, take(16_usize), take(32_usize)).parse(bytes)?;
    let mut preface = Preface { attempt: AttemptId([0; 16]), role, mac: [0; 32] };
    preface.attempt.0.copy_from_slice(attempt);
    preface.mac.copy_from_slice(mac);
    Ok((rest, preface))
}

fn head(attempt: AttemptId, role: Role) -> [u8; 22] {
    let mut head = [0; 22];
    head[..4].copy_from_slice(&MAGIC);
    head[4] = VERSION;
    head[5] = role.code();
    head[6..].copy_from_slice(&attempt.0);
    head
}

fn mac(punch_key: &[u8; 32], head: &[u8; 22]) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so this never fails for 32 bytes; an empty key is the fallback that
    // keeps this function total, and under it nothing verifies.
    let mut mac = Hmac::<Sha256>::new_from_slice(punch_key)
        .unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
    mac.update(LABEL);
    mac.update(head);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: AttemptId = AttemptId([7; 16]);
    const KEY: [u8; 32] = [9; 32];

    #[test]
    fn proves_its_maker_and_role() {
        let bytes = encode(ATTEMPT, &KEY, Role::Controlling);
        let preface = Preface::parse(&bytes).unwrap();
        assert_eq!(preface.attempt, ATTEMPT);
        assert!(preface.proves(&KEY, Role::Controlling));
        assert!(!preface.proves(&KEY, Role::Controlled), "a reflected preface is not the peer's");
        assert!(!preface.proves(&[8; 32], Role::Controlling));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        for at in 0..LENGTH {
            let mut bytes = encode(ATTEMPT, &KEY, Role::Controlled);
            bytes[at] ^= 1;
            let proven = Preface::parse(&bytes)
                .is_some_and(|preface| preface.attempt == ATTEMPT && preface.proves(&KEY, Role::Controlled));
            assert!(!proven, "byte {at}");
        }
    }
}
