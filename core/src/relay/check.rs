//! The server's look at a relay from outside: is it there, and is it the one that it says it is?
//!
//! ```text
//!   server                                                       relay
//!    opening                                                ──▶
//!               ◀──  challenge
//!    zeros(16), nonce(32), zeros(32), kind 3                ──▶
//!               ◀──  0xD1, code 2, length 64, signature(64)
//! ```
//! It begins as the handshake of a node does, see [`super::handshake`]. The signature is the relay's, by its
//! node key, at the place [`LABEL`], over the nonce and the relay's key: so it is made now, by that relay, and
//! is good for nothing else. Anybody may ask for it.

use crate::auth::verify;
use crate::ids::PublicKey;
use crate::link::LinkKeys;
use crate::relay::handshake::{CHALLENGE, KIND_CHECK, MAGIC, OPENING};
use crate::relay::ticket::array;

/// What the server sends first.
pub const CHECK_OPENING: [u8; 5] = OPENING;
/// How long the challenge is that comes back.
pub const CHECK_CHALLENGE: usize = CHALLENGE;
/// How long the answer is.
pub const CHECK_ANSWER: usize = 3 + 64;

/// The server's request, behind the challenge. `nonce` is 32 fresh random bytes.
pub fn request(nonce: &[u8; 32]) -> Vec<u8> {
    [&[0; 16][..], nonce, &[0; 32], &[KIND_CHECK]].concat()
}

/// The relay's answer; none if its key cannot sign.
pub fn answer(keys: &LinkKeys, relay: &PublicKey, nonce: &[u8; 32]) -> Option<Vec<u8>> {
    let signature = keys.sign(LABEL, &signed(relay, nonce))?;
    Some([&HEAD[..], &signature].concat())
}

/// Whether the challenge is one of a relay of this version.
pub fn is_challenge(bytes: &[u8; CHECK_CHALLENGE]) -> bool {
    bytes.starts_with(&OPENING)
}

/// Whether an answer proves that `relay` is there.
pub fn proves(relay: &PublicKey, nonce: &[u8; 32], answer: &[u8; CHECK_ANSWER]) -> bool {
    let (head, signature) = answer.split_at(HEAD.len());
    head == HEAD && verify(relay, LABEL, &signed(relay, nonce), &array(signature))
}

fn signed(relay: &PublicKey, nonce: &[u8; 32]) -> Vec<u8> {
    [&nonce[..], &relay.0].concat()
}

/// Code 2: here I am; 64 bytes follow.
const HEAD: [u8; 3] = [MAGIC[0], 2, 64];
/// The place of the relay's signature.
const LABEL: &str = "inp2p relay v1 check";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Identity;
    use crate::relay::Reception;

    fn keys(of: u8) -> (LinkKeys, PublicKey) {
        let identity = Identity::from_seed([of; 32]);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        (LinkKeys::new(provider, identity.seed()).unwrap(), identity.public())
    }

    #[test]
    fn a_relay_proves_its_key_and_no_other() {
        let (keys, relay) = keys(1);
        let mut reception = Reception::new([9; 32]);
        let mut out = Vec::new();
        assert!(reception.receive(&CHECK_OPENING, &mut out).unwrap().is_none());
        assert!(is_challenge(&out.try_into().unwrap()));
        let request = request(&[7; 32]);
        assert_eq!(reception.wants(), request.len());
        assert!(reception.receive(&request, &mut Vec::new()).unwrap().is_none());
        assert_eq!((reception.wants(), reception.check()), (0, Some([7; 32])));

        let good: [u8; CHECK_ANSWER] = answer(&keys, &relay, &[7; 32]).unwrap().try_into().unwrap();
        assert!(proves(&relay, &[7; 32], &good));
        assert!(!proves(&relay, &[8; 32], &good));
        assert!(!proves(&self::keys(2).1, &[7; 32], &good));
        for at in 0..CHECK_ANSWER {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(!proves(&relay, &[7; 32], &bad), "byte {at}");
        }
    }

    #[test]
    fn a_node_that_only_uses_the_relay_is_no_check() {
        let mut reception = Reception::new([9; 32]);
        assert_eq!(reception.check(), None);
        reception.receive(&OPENING, &mut Vec::new()).unwrap();
        assert_eq!(reception.check(), None);
    }
}
