//! The keys that QUIC is given beside TLS's. None of them is ever used for what QUIC has them for: a link has
//! one connection, sends no Retry, no address token and no stateless reset (RFC 9000 sections 8.1 and 10.3);
//! but the library's defaults would draw them from the system, and a run must be repeatable.

use std::time::SystemTime;

use hmac::{Hmac, Mac};
use quinn_proto::TimeSource;
use quinn_proto::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// HMAC-SHA256 over the concatenation of `parts`.
pub(super) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length, so this never fails for 32 bytes; an empty key is the fallback that
    // keeps this function total, and under it nothing verifies.
    let mut mac = Hmac::<Sha256>::new_from_slice(key)
        .unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Signs stateless reset tokens, which the peer is told and never sees used.
pub(super) struct ResetKey(pub(super) [u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mac = hmac(&self.0, &[data]);
        for (to, from) in signature_out.iter_mut().zip(mac) {
            *to = from;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mac = hmac(&self.0, &[data]);
        if bool::from(mac.as_slice().ct_eq(signature)) { Ok(()) } else { Err(CryptoError) }
    }
}

/// Refuses all address tokens.
pub(super) struct NoTokens;

impl HandshakeTokenKey for NoTokens {
    fn aead_from_hkdf(&self, _random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Self)
    }
}

impl AeadKey for NoTokens {
    fn seal(&self, _data: &mut Vec<u8>, _additional_data: &[u8]) -> Result<(), CryptoError> {
        Err(CryptoError)
    }

    fn open<'a>(&self, _data: &'a mut [u8], _additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        Err(CryptoError)
    }
}

/// Tokens are the only thing that QUIC wants the wall clock for.
pub(super) struct NoClock;

impl TimeSource for NoClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}
