//! A broken copy of QUIC's protection: packets are neither encrypted nor authenticated.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};
use rustls::{Error, SupportedCipherSuite, Tls13CipherSuite};

/// The usual ciphers, but that QUIC takes whatever comes for what was sent.
pub(super) fn ciphers() -> Arc<CryptoProvider> {
    let mut provider = (*inp2p_driver::setup::ciphers()).clone();
    provider.cipher_suites = SUITES.iter().copied().map(SupportedCipherSuite::Tls13).collect();
    Arc::new(provider)
}

/// Made once: a suite lives as long as the program.
static SUITES: LazyLock<Vec<&'static Tls13CipherSuite>> = LazyLock::new(|| {
    let sound = inp2p_driver::setup::ciphers().cipher_suites.clone();
    sound
        .into_iter()
        .filter_map(|suite| {
            let SupportedCipherSuite::Tls13(suite) = suite;
            let quic: &'static Unsealed = Box::leak(Box::new(Unsealed(suite.quic?)));
            let common = rustls::crypto::CipherSuiteCommon {
                suite: suite.common.suite,
                hash_provider: suite.common.hash_provider,
                confidentiality_limit: u64::MAX,
            };
            let (hkdf_provider, aead_alg) = (suite.hkdf_provider, suite.aead_alg);
            let suite = Tls13CipherSuite { common, hkdf_provider, aead_alg, quic: Some(quic) };
            Some(&*Box::leak(Box::new(suite)))
        })
        .collect()
});

struct Unsealed(&'static dyn Algorithm);

impl Algorithm for Unsealed {
    fn packet_key(&self, _: AeadKey, _: Iv) -> Box<dyn PacketKey> {
        Box::new(Open)
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        self.0.header_protection_key(key)
    }

    fn aead_key_len(&self) -> usize {
        self.0.aead_key_len()
    }
}

struct Open;

impl PacketKey for Open {
    fn encrypt_in_place(&self, _: u64, _: &[u8], _: &mut [u8]) -> Result<Tag, Error> {
        Ok(Tag::from(&[0; TAG][..]))
    }

    fn decrypt_in_place<'a>(&self, _: u64, _: &[u8], payload: &'a mut [u8]) -> Result<&'a [u8], Error> {
        let length = payload.len().checked_sub(TAG).ok_or(Error::DecryptError)?;
        payload.get(..length).ok_or(Error::DecryptError)
    }

    fn tag_len(&self) -> usize {
        TAG
    }

    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// As long as that of all suites.
const TAG: usize = 16;
