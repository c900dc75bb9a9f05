//! Probes: the smallest question and answer that prove a path under a key.
//!
//! ```text
//! 0       1         2      3      4        12                24         40
//! ├───────┼─────────┼──────┼──────┼────────┼─────────────────┼──────────┤
//! │ 0x20  │ version │ kind │ role │ tag    │ transaction id  │ MAC      │
//! └───────┴─────────┴──────┴──────┴────────┴─────────────────┴──────────┘
//! ```
//! Kind is 1 for a request and 2 for its answer, which bears the same transaction id. The role is the
//! sender's, so a probe that is thrown back is not taken for the peer's. The tag says whose it is. MAC:
//! HMAC-SHA256 over a label and the 24 bytes before it, cut to 16 bytes; its key comes from the attempt's
//! punch key until a link is up, and from that link's QUIC (RFC 5705 exporter) from then on, because the
//! server knows the former.
//!
//! An answer is as long as its request, so nobody's traffic is amplified. Whom to send requests to, and how
//! many answers to give, is the business of the caller.

use std::fmt;

use nom::bytes::complete::{tag, take};
use nom::combinator::{all_consuming, map_opt};
use nom::number::complete::u8;
use nom::{IResult, Parser};
use subtle::ConstantTimeEq;

use super::id::ProbeTag;
use super::keys::hmac;
use crate::ids::AttemptId;
use crate::link::Role;

/// What tells probes from STUN and from QUIC, neither of which begins so.
pub const FIRST_BYTE: u8 = 0x20;

/// The length of a probe in bytes.
pub const LENGTH: usize = 40;

/// The key under which probes are proven.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeKey([u8; 32]);

impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeKey(***)")
    }
}

impl ProbeKey {
    /// That of an attempt, until its link is up.
    pub fn of_attempt(attempt: AttemptId, punch_key: &[u8; 32]) -> Self {
        Self(hmac(punch_key, &[b"inp2p probe key 1", &attempt.0]))
    }

    /// That of a link that is up: what its handshake exports.
    pub(super) fn of_link(exported: [u8; 32]) -> Self {
        Self(exported)
    }
}

/// Whether a probe asks or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To be answered, if it proves.
    Request,
    /// Proves that its source is the peer's.
    Answer,
}

/// What ties an answer to its request: random, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transaction(pub [u8; 12]);

/// A probe as it was received: well-formed, but not yet proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Asks or answers.
    pub kind: Kind,
    /// Whose it is.
    pub tag: ProbeTag,
    /// Which one.
    pub transaction: Transaction,
    role: u8,
    mac: [u8; 16],
}

impl Probe {
    /// Reads a datagram; none if it is not a probe of this version.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (_, probe) = all_consuming(parse).parse(datagram).ok()?;
        Some(probe)
    }

    /// Whether it was made under `key` by a node in `role`. Takes the same time whatever differs.
    pub fn proves(&self, key: &ProbeKey, role: Role) -> bool {
        let head = head(self.kind, role, self.tag, self.transaction);
        self.role == code(role) && bool::from(mac(key, &head).ct_eq(&self.mac))
    }
}

/// The probe that a node in `role` sends.
pub fn encode(
    kind: Kind,
    role: Role,
    tag: ProbeTag,
    transaction: Transaction,
    key: &ProbeKey,
) -> [u8; LENGTH] {
    let head = head(kind, role, tag, transaction);
    let mut bytes = [0; LENGTH];
    let (front, back) = bytes.split_at_mut(HEAD);
    front.copy_from_slice(&head);
    back.copy_from_slice(&mac(key, &head));
    bytes
}

fn parse(bytes: &[u8]) -> IResult<&[u8], Probe> {
    let (rest, (_, kind, role, probe_tag, transaction, mac)) = (
        tag(&[FIRST_BYTE, VERSION][..]),
        map_opt(u8, kind),
        u8,
        map_opt(take(8_usize), |bytes: &[u8]| bytes.first_chunk::<8>()),
        map_opt(take(12_usize), |bytes: &[u8]| bytes.first_chunk::<12>()),
        map_opt(take(16_usize), |bytes: &[u8]| bytes.first_chunk::<16>()),
    )
        .parse(bytes)?;
    let probe =
        Probe { kind, tag: ProbeTag(*probe_tag), transaction: Transaction(*transaction), role, mac: *mac };
    Ok((rest, probe))
}

fn kind(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::Request),
        2 => Some(Kind::Answer),
        _ => None,
    }
}

fn head(kind: Kind, role: Role, tag: ProbeTag, transaction: Transaction) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0] = FIRST_BYTE;
    head[1] = VERSION;
    head[2] = match kind {
        Kind::Request => 1,
        Kind::Answer => 2,
    };
    head[3] = code(role);
    head[4..12].copy_from_slice(&tag.0);
    head[12..].copy_from_slice(&transaction.0);
    head
}

fn mac(key: &ProbeKey, head: &[u8; HEAD]) -> [u8; 16] {
    let whole = hmac(&key.0, &[b"inp2p probe 1", head]);
    std::array::from_fn(|at| whole.get(at).copied().unwrap_or_default())
}

fn code(role: Role) -> u8 {
    match role {
        Role::Controlling => 1,
        Role::Controlled => 2,
    }
}

const VERSION: u8 = 1;
/// What lies before the MAC.
const HEAD: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ATTEMPT: AttemptId = AttemptId([7; 16]);
    const PUNCH: [u8; 32] = [9; 32];

    fn request() -> [u8; LENGTH] {
        let tag = ProbeTag::new(ATTEMPT, &PUNCH);
        let key = ProbeKey::of_attempt(ATTEMPT, &PUNCH);
        encode(Kind::Request, Role::Controlling, tag, Transaction([5; 12]), &key)
    }

    #[test]
    fn proves_its_maker_and_role() {
        let probe = Probe::parse(&request()).unwrap();
        let key = ProbeKey::of_attempt(ATTEMPT, &PUNCH);
        assert_eq!((probe.kind, probe.transaction), (Kind::Request, Transaction([5; 12])));
        assert_eq!(probe.tag, ProbeTag::new(ATTEMPT, &PUNCH));
        assert!(probe.proves(&key, Role::Controlling));
        assert!(!probe.proves(&key, Role::Controlled), "a reflected probe is not the peer's");
        assert!(!probe.proves(&ProbeKey::of_attempt(ATTEMPT, &[8; 32]), Role::Controlling));
        assert!(!probe.proves(&ProbeKey::of_attempt(AttemptId([8; 16]), &PUNCH), Role::Controlling));
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let key = ProbeKey::of_attempt(ATTEMPT, &PUNCH);
        let original = Probe::parse(&request()).unwrap();
        for bit in 0..LENGTH * 8 {
            let mut bytes = request();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let proven = Probe::parse(&bytes).is_some_and(|probe| probe.proves(&key, Role::Controlling));
            assert!(!proven, "bit {bit}");
        }
        assert!(original.proves(&key, Role::Controlling));
    }

    #[test]
    fn no_other_length_is_a_probe() {
        let bytes = request();
        assert!((0..LENGTH).all(|length| Probe::parse(&bytes[..length]).is_none()));
        assert!(Probe::parse(&[&bytes[..], &[0]].concat()).is_none());
    }

    proptest! {
        #[test]
        fn rubbish_is_read_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Probe::parse(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = FIRST_BYTE;
            }
            let _ = Probe::parse(&bytes);
        }
    }
}
