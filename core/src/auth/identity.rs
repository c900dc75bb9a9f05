//! Identities: the Ed25519 key (RFC 8032) of a node or of a server.
//!
//! One key signs in several places, so every signature names its place: what is signed is a label and a
//! message, each with its length before it. No signature of one place can stand for one of another, nor for
//! a TLS 1.3 CertificateVerify by the same key, which begins with 64 spaces (RFC 8446 section 4.4.3).

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::ids::PublicKey;

/// A node's or a server's own key, secret half included. Erased from memory when dropped.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl Identity {
    /// The identity of 32 secret random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The secret bytes.
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` for the place that `label` names.
    pub fn sign(&self, label: &str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&signed(label, message)).to_bytes()
    }

    /// The content of the key file: one line.
    pub fn to_file(&self) -> String {
        let digits = Zeroizing::new(PublicKey(*self.seed()).to_string());
        format!("{FILE_PREFIX}{}\n", *digits)
    }

    /// Reads the content of a key file.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn from_file(content: &str) -> Result<Self, BadIdentity> {
        let line = content.trim_ascii_end();
        if line.is_empty() {
            return Err(BadIdentity::Empty);
        }
        let digits = line.strip_prefix(FILE_PREFIX).ok_or(BadIdentity::Prefix)?;
        if digits.len() != 64 {
            return Err(BadIdentity::Length);
        }
        // A seed has the text form of a key: 32 bytes in hexadecimal.
        let seed: PublicKey = digits.parse().map_err(|_| BadIdentity::Digits)?;
        Ok(Self::from_seed(seed.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public())
    }
}

/// Why a key file was refused. No text repeats the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    /// There is nothing in it.
    #[error("the key file is empty: restore it from a backup, or remove it to start with a new key")]
    Empty,
    /// It is some other file.
    #[error("the key file does not begin with `inp2p-key-v1 `: it is not a key file of this program")]
    Prefix,
    /// It was cut, or has more in it.
    #[error("the key file is damaged: behind `inp2p-key-v1 ` it must hold 64 hexadecimal digits and no more")]
    Length,
    /// There is something else than digits in it.
    #[error("the key file is damaged: not all of the 64 characters behind `inp2p-key-v1 ` are hexadecimal")]
    Digits,
}

/// Whether `signature` is that of `key` on `message` at the place that `label` names. Strict: a key of small
/// order verifies nothing, and nobody can make a second signature out of a first.
#[must_use]
pub fn verify(key: &PublicKey, label: &str, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| {
        key.verify_strict(&signed(label, message), &Signature::from_bytes(signature)).is_ok()
    })
}

/// What is signed for `message` at the place that `label` names.
pub(crate) fn signed(label: &str, message: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| (bytes.len() as u64).to_be_bytes();
    [&length(label.as_bytes()), label.as_bytes(), &length(message), message].concat()
}

/// Tells a key file from any other, and its form from later ones.
const FILE_PREFIX: &str = "inp2p-key-v1 ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_are_those_of_rfc_8032() {
        // RFC 8032 section 7.1, tests 1 and 2.
        for (seed, public) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            ),
        ] {
            let seed: PublicKey = seed.parse().unwrap();
            assert_eq!(Identity::from_seed(seed.0).public().to_string(), public);
        }
    }

    #[test]
    fn a_signature_holds_for_its_key_label_and_message_only() {
        let (one, two) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let signature = one.sign("place", b"message");
        assert!(verify(&one.public(), "place", b"message", &signature));
        assert!(!verify(&two.public(), "place", b"message", &signature));
        assert!(!verify(&one.public(), "plac", b"emessage", &signature));
        assert!(!verify(&one.public(), "place", b"messag", &signature));
        for bit in 0..512 {
            let mut damaged = signature;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&one.public(), "place", b"message", &damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // With the neutral point as key, R = neutral and S = 0 satisfy the plain equation for any message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify(&PublicKey(neutral), "place", b"message", &signature));
        assert!(!verify(&PublicKey([0xff; 32]), "place", b"message", &signature));
    }

    #[test]
    fn the_key_file_gives_the_key_back() {
        let identity = Identity::from_seed([0xab; 32]);
        let file = identity.to_file();
        assert_eq!(file, format!("inp2p-key-v1 {}\n", "ab".repeat(32)));
        assert_eq!(Identity::from_file(&file).unwrap().public(), identity.public());
        assert_eq!(Identity::from_file(file.trim_end()).unwrap().public(), identity.public());
        assert_eq!(Identity::from_file(&file.replace('\n', "\r\n")).unwrap().public(), identity.public());
    }

    #[test]
    fn a_damaged_key_file_is_refused_for_its_own_reason() {
        let good = Identity::from_seed([0xab; 32]).to_file();
        for (file, error) in [
            (String::new(), BadIdentity::Empty),
            ("\n".into(), BadIdentity::Empty),
            ("-----BEGIN PRIVATE KEY-----".into(), BadIdentity::Prefix),
            ("inp2p-key-v2 00".into(), BadIdentity::Prefix),
            (good[..60].into(), BadIdentity::Length),
            (format!("{good}{good}"), BadIdentity::Length),
            (good.replace("ab", "xy"), BadIdentity::Digits),
            (good.replacen("ab", "+1", 1), BadIdentity::Digits),
            (good.replacen("abab", "é00", 1), BadIdentity::Digits),
        ] {
            assert_eq!(Identity::from_file(&file).unwrap_err(), error, "{file:?}");
        }
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let identity = Identity::from_seed([0xab; 32]);
        let shown = format!("{identity:?}");
        assert!(shown.contains(&identity.public().to_string()));
        assert!(!shown.contains("abab"));
    }
}
