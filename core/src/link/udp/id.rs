//! The names by which a datagram is attributed to a link before QUIC sees it.
//!
//! A link's connection ids (RFC 9000 section 5.1) are its [`Label`] and four more bytes. All of them sharing
//! a label makes the ids of one link linkable by an observer; but a link hides its paths from QUIC, so one id
//! would be used on all of them anyway. The half of the label that is not the index is random: who has not
//! seen a datagram of a link cannot make one that reaches its QUIC.

use std::fmt;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use rand_core::RngCore;

use super::keys::hmac;
use crate::ids::AttemptId;
use crate::link::Role;
use crate::rng::Rng;

/// The beginning of all connection ids of one link: its index, and four random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub [u8; LABEL]);

/// The destination id of an attempt's first Initial. Only those who know the punch key can tell it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InitialId(pub [u8; INITIAL]);

/// What tells whose a probe is. The same on both sides, for as long as the attempt and its link live.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeTag(pub [u8; TAG]);

macro_rules! hex_debug {
    ($type:ident) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}
hex_debug!(Label);
hex_debug!(InitialId);
hex_debug!(ProbeTag);

impl Label {
    /// A label for the link with this index.
    pub(super) fn new(index: u32, rng: &mut Rng) -> Self {
        let mut label = [0; LABEL];
        let (front, back) = label.split_at_mut(4);
        front.copy_from_slice(&index.to_be_bytes());
        back.copy_from_slice(&rng.bytes::<{ LABEL - 4 }>());
        Self(label)
    }
}

impl InitialId {
    /// That of a client in `role`.
    pub fn new(attempt: AttemptId, punch_key: &[u8; 32], role: Role) -> Self {
        let role = match role {
            Role::Controlling => 1,
            Role::Controlled => 2,
        };
        Self(cut(&hmac(punch_key, &[b"inp2p initial 1", &attempt.0, &[role]])))
    }
}

impl ProbeTag {
    /// That of an attempt.
    pub fn new(attempt: AttemptId, punch_key: &[u8; 32]) -> Self {
        Self(cut(&hmac(punch_key, &[b"inp2p probe tag 1", &attempt.0])))
    }
}

fn cut<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())
}

/// Makes a link's connection ids.
pub(super) struct LinkIds {
    pub(super) label: Label,
    pub(super) rng: Rng,
}

impl ConnectionIdGenerator for LinkIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION];
        let (front, back) = id.split_at_mut(LABEL);
        front.copy_from_slice(&self.label.0);
        self.rng.fill_bytes(back);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        // They are not changed: see above what that would be worth.
        None
    }
}

const LABEL: usize = 8;
/// The length of our connection ids: a label, and what tells the few ids of one link apart.
pub(super) const CONNECTION: usize = LABEL + 4;
/// Longer than our own ids, so that the two are told apart by their length; RFC 9000 section 7.2 asks for 8.
pub(super) const INITIAL: usize = 16;
const TAG: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_label_and_differ() {
        let label = Label::new(7, &mut Rng::new([1; 32]));
        let mut ids = LinkIds { label, rng: Rng::new([2; 32]) };
        let (first, second) = (ids.generate_cid(), ids.generate_cid());
        assert_eq!((&first[..8], &second[..8]), (&label.0[..], &label.0[..]));
        assert_eq!(label.0[..4], 7_u32.to_be_bytes());
        assert_ne!(first, second);
        assert_eq!(first.len(), ids.cid_len());
    }

    #[test]
    fn the_initial_id_depends_on_all_that_it_is_made_of() {
        let id = |attempt, key, role| InitialId::new(AttemptId([attempt; 16]), &[key; 32], role);
        let all = [
            id(1, 1, Role::Controlling),
            id(2, 1, Role::Controlling),
            id(1, 2, Role::Controlling),
            id(1, 1, Role::Controlled),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one));
        }
    }
}
