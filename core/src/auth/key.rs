//! A secret of 32 bytes and what is made of it: HKDF (RFC 5869) and HMAC (RFC 2104), both with SHA-256.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// A secret key. Erased from memory when dropped, and shown by nothing.
pub(crate) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// The key that `secret`, of any length and shape, gives in the context of `salt`.
    pub(crate) fn extract(salt: &[u8], secret: &[u8]) -> Self {
        Self(Zeroizing::new(Hkdf::<Sha256>::extract(Some(salt), secret).0.into()))
    }

    /// The bytes of the key for the use that `label` names.
    pub(crate) fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let mut derived = Zeroizing::new([0; 32]);
        #[expect(clippy::expect_used, reason = "a key has the length of a hash, and so has what is derived")]
        Hkdf::<Sha256>::from_prk(&*self.0)
            .and_then(|hkdf| hkdf.expand(label.as_bytes(), &mut *derived).map_err(|_| hkdf::InvalidPrkLength))
            .expect("lengths fit");
        derived
    }

    /// As [`Self::derive`], for a key from which more is made.
    pub(crate) fn child(&self, label: &str) -> Self {
        Self(self.derive(label))
    }

    /// HMAC-SHA256 over `message`.
    pub(crate) fn mac(&self, message: &[u8]) -> [u8; 32] {
        self.hmac(message).finalize().into_bytes().into()
    }

    /// Whether `mac` is that of `message`, in constant time.
    #[must_use]
    pub(crate) fn verify_mac(&self, message: &[u8], mac: &[u8; 32]) -> bool {
        self.hmac(message).verify(mac.into()).is_ok()
    }

    fn hmac(&self, message: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        Hmac::<Sha256>::new_from_slice(&*self.0).expect("a key").chain_update(message)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extracted_and_derived_keys_are_those_of_rfc_5869() {
        // Appendix A.3: 22 bytes 0x0b, no salt, no info; the first 32 of its 42 bytes.
        let key = Key::extract(&[], &[0x0b; 22]);
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d";
        assert_eq!(hex(&*key.derive("")), expected);
    }

    #[test]
    fn macs_are_those_of_rfc_4231() {
        // Section 4.2: 20 bytes 0x0b over "Hi There". HMAC pads short keys with zeros, so 32 bytes do.
        let mut padded = [0; 32];
        padded[..20].fill(0x0b);
        let key = Key(Zeroizing::new(padded));
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        let mac = key.mac(b"Hi There");
        assert_eq!(hex(&mac), expected);
        assert!(key.verify_mac(b"Hi There", &mac));
        assert!(!key.verify_mac(b"Hi there", &mac));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Key::extract(b"salt", b"secret")), "***");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
