//! The code that a node shows to a relay of its own user: a TOTP in the manner of RFC 6238, 30 s a step, one
//! step of tolerance.
//!
//! Unlike a TOTP for people it is bound to the relay's challenge, to both nodes and to the attempt. So it need
//! not be remembered as used, and a second connection within the same window is never denied. Time is the
//! server's, as each side knows it from its own signalling; the local wall clock plays no part.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::ticket::secret;
use crate::auth::Token;
use crate::auth::key::Key;
use crate::ids::{AttemptId, PublicKey};
use crate::rng::Rng;

/// What the server hands to all nodes of a user, inside the sealed channel: random, kept in the server's
/// store, and replaced now and then; two are valid at a time. It is mixed with the token, so that neither
/// opens anything alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct RelaySecret {
    /// Tells it from the one before.
    pub id: u32,
    #[serde(with = "secret")]
    secret: [u8; 32],
}

impl RelaySecret {
    /// A fresh one.
    pub fn random(id: u32, rng: &mut Rng) -> Self {
        Self::new(id, rng.bytes())
    }

    /// The secret of 32 random bytes.
    pub fn new(id: u32, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// The bytes, for the server's own store.
    pub fn reveal(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for RelaySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelaySecret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The key of a user's codes. Erased from memory when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct TotpKey {
    id: u32,
    key: [u8; 32],
}

/// What a code is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The relay's 32 random bytes.
    pub challenge: [u8; 32],
    /// The relay.
    pub relay: PublicKey,
    /// The node that shows the code.
    pub own: PublicKey,
    /// The node that it is to be joined with.
    pub peer: PublicKey,
    /// What pairs the two ends.
    pub attempt: AttemptId,
}

/// How a code was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is good.
    Good,
    /// It is right for another time: the two ends do not agree on the server's clock.
    Skewed,
    /// It was not made under this key for this purpose.
    Wrong,
}

impl TotpKey {
    /// The key of a user that has this secret and this token.
    pub fn derive(secret: &RelaySecret, token: &Token) -> Self {
        let root = Key::extract(&secret.secret, &token.reveal().to_be_bytes());
        Self { id: secret.id, key: *root.derive(LABEL_KEY) }
    }

    /// The number of the secret that it was made from.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The code at `unix`, the server's clock, since 1970.
    pub fn code(&self, binding: &Binding, unix: Duration) -> [u8; 32] {
        self.mac(binding, step(unix)).finalize().into_bytes().into()
    }

    /// Judges a code at `unix`. Takes the same time for every code that is not good.
    pub fn judge(&self, binding: &Binding, code: &[u8; 32], unix: Duration) -> Judgement {
        let now = step(unix);
        let fits = |step: u64| self.mac(binding, step).verify(code.into()).is_ok();
        let within = |distance: u64| now.saturating_sub(distance)..=now.saturating_add(distance);
        if within(TOLERANCE).any(fits) {
            return Judgement::Good;
        }
        let skewed = within(SKEW).filter(|step| fits(*step)).count();
        if skewed > 0 { Judgement::Skewed } else { Judgement::Wrong }
    }

    fn mac(&self, binding: &Binding, step: u64) -> Hmac<Sha256> {
        // HMAC itself pads shorter keys with zeros to the hash's block.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.key);
        let mac = <Hmac<Sha256> as Mac>::new(&block.into());
        block.zeroize();
        mac.chain_update(LABEL)
            .chain_update(step.to_be_bytes())
            .chain_update(binding.challenge)
            .chain_update(binding.relay.0)
            .chain_update(binding.own.0)
            .chain_update(binding.peer.0)
            .chain_update(binding.attempt.0)
    }
}

impl fmt::Debug for TotpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TotpKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn step(unix: Duration) -> u64 {
    unix.as_secs() / STEP
}

/// Seconds a step, as RFC 6238 section 5.2 recommends.
const STEP: u64 = 30;
/// Steps before and after the current one that are good: the two clocks were set within a round trip of the
/// server's, and one step covers the code's way besides.
const TOLERANCE: u64 = 1;
/// Steps within which a code is recognised as one of another time, so that the refusal can say so: five
/// minutes. What is further off counts as wrong.
const SKEW: u64 = 10;
const LABEL_KEY: &str = "inp2p relay totp key 1";
/// Keeps this use of the key apart from any other.
const LABEL: &[u8] = b"inp2p relay totp 1";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_010);

    fn key(secret: u8, token: &str) -> TotpKey {
        TotpKey::derive(&RelaySecret::new(7, [secret; 32]), &token.parse().unwrap())
    }

    fn binding() -> Binding {
        Binding {
            challenge: [1; 32],
            relay: PublicKey([2; 32]),
            own: PublicKey([3; 32]),
            peer: PublicKey([4; 32]),
            attempt: AttemptId([5; 16]),
        }
    }

    #[test]
    fn a_code_is_good_for_its_step_and_one_beside_it() {
        let key = key(1, "12345");
        let code = key.code(&binding(), NOW);
        let at = |secs: u64| key.judge(&binding(), &code, Duration::from_secs(secs));
        assert_eq!(at(NOW.as_secs()), Judgement::Good);
        // The step of NOW begins at 1_700_000_010.
        assert_eq!(at(1_700_000_010 - 30), Judgement::Good);
        assert_eq!(at(1_700_000_010 + 59), Judgement::Good);
        assert_eq!(at(1_700_000_010 - 31), Judgement::Skewed);
        assert_eq!(at(1_700_000_010 + 60), Judgement::Skewed);
        assert_eq!(at(1_700_000_010 + 10 * 86_400), Judgement::Wrong);
    }

    #[test]
    fn a_code_is_bound_to_challenge_relay_nodes_and_attempt() {
        let key = key(1, "12345");
        let code = key.code(&binding(), NOW);
        let others = [
            Binding { challenge: [9; 32], ..binding() },
            Binding { relay: PublicKey([9; 32]), ..binding() },
            Binding { own: PublicKey([4; 32]), peer: PublicKey([3; 32]), ..binding() },
            Binding { attempt: AttemptId([9; 16]), ..binding() },
        ];
        for other in others {
            assert_eq!(key.judge(&other, &code, NOW), Judgement::Wrong);
        }
    }

    #[test]
    fn neither_secret_nor_token_alone_gives_the_key() {
        let code = key(1, "12345").code(&binding(), NOW);
        assert_eq!(key(2, "12345").judge(&binding(), &code, NOW), Judgement::Wrong);
        assert_eq!(key(1, "12346").judge(&binding(), &code, NOW), Judgement::Wrong);
        assert_eq!(key(1, "12345").judge(&binding(), &code, NOW), Judgement::Good);
    }

    #[test]
    fn nothing_of_it_shows_in_logs() {
        let secret = RelaySecret::new(7, [0xab; 32]);
        assert_eq!(
            format!("{secret:?} {:?}", key(1, "1")),
            "RelaySecret { id: 7, .. } TotpKey { id: 7, .. }"
        );
    }
}
