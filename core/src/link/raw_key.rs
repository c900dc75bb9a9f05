//! TLS 1.3 with raw public keys (RFC 7250): the key itself is the identity, and each side knows beforehand
//! which key it must see. No names, no authorities, no expiry.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme, version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::auth::identity::signed;
use crate::ids::PublicKey;

/// This node's key as TLS wants it, and the ciphers to use it with. Made once, shared by all links.
#[derive(Clone)]
pub struct LinkKeys {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKeys")
    }
}

impl LinkKeys {
    /// From the 32-byte Ed25519 seed of this node's identity. The provider is the caller's choice, because
    /// a simulation needs one whose randomness it controls.
    ///
    /// # Errors
    /// If the provider cannot load Ed25519 keys.
    pub fn new(provider: CryptoProvider, identity_seed: &[u8; 32]) -> Result<Self, Error> {
        let mut provider = provider;
        // AES-128 is a quarter faster than AES-256 where the processor has AES, and strong enough; the sort
        // is stable, so the rest keeps the provider's order.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        let der = Zeroizing::new([&PKCS8_ED25519, &identity_seed[..]].concat());
        let der = PrivatePkcs8KeyDer::from(der.as_slice());
        // The provider takes an owned key; rustls erases it when it is dropped.
        let signing = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(der.clone_key()))?;
        let spki = signing
            .public_key()
            .ok_or_else(|| Error::General("the provider gives no public key".to_owned()))?
            .to_vec();
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signing));
        Ok(Self { provider: Arc::new(provider), certified })
    }

    /// This node's signature of `message` at the place that `label` names, as [`crate::auth::Identity::sign`]
    /// makes it; none if the provider fails.
    pub(crate) fn sign(&self, label: &str, message: &[u8]) -> Option<[u8; 64]> {
        let signer = self.certified.key.choose_scheme(&[SignatureScheme::ED25519])?;
        signer.sign(&signed(label, message)).ok()?.try_into().ok()
    }

    pub(crate) fn client(&self, peer: &PublicKey) -> Result<Arc<ClientConfig>, Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.expect(peer))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(
                &self.certified,
            ))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    pub(crate) fn server(&self, peer: &PublicKey) -> Result<Arc<ServerConfig>, Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.expect(peer))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(
                &self.certified,
            ))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A link is one handshake; what lives longer than a link is the session above it.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn expect(&self, peer: &PublicKey) -> Arc<ExpectKey> {
        Arc::new(ExpectKey {
            spki: [&SPKI_ED25519, &peer.0[..]].concat(),
            algorithms: self.provider.signature_verification_algorithms,
        })
    }
}

/// Accepts one key and no other.
#[derive(Debug)]
struct ExpectKey {
    spki: Vec<u8>,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl ExpectKey {
    fn check(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        if bool::from(presented.as_ref().ct_eq(&self.spki)) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            signature,
            &self.algorithms,
        )
    }
}

impl ServerCertVerifier for ExpectKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for ExpectKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The application protocol of a link (RFC 7301).
const ALPN: &[u8] = b"inp2p/1";

/// PKCS #8 v1 of an Ed25519 private key up to the seed (RFC 8410 section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// SubjectPublicKeyInfo of an Ed25519 key up to the key (RFC 8410 section 4).
const SPKI_ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
