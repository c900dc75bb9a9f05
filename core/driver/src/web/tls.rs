//! TLS 1.3 (RFC 8446) below signalling and REST, by rustls.
//!
//! The server shows the certificate of `-tls-cert`, or a self-signed one that it made at its first start
//! and keeps. The client asks for no authority: **what authenticates the server is the login inside**, which
//! proves the token and the pinned identity under seals of its own. TLS hides the names in the login
//! from the network, and where a `-server-ca` is given, it is checked in full on top.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::net::{Net, Store};
use crate::words::in_words;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The store failed.
    #[error("cannot read or write {file} in the folder of -data: {}", in_words(source))]
    Store {
        /// The file's name.
        file: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// No certificate in a PEM text.
    #[error("{0} holds no certificate that can be read: it should be PEM, -----BEGIN CERTIFICATE-----")]
    Certificate(&'static str),
    /// No private key in a PEM text.
    #[error(
        "{0} holds no private key that can be read: it should be PEM, unencrypted, PKCS#8, SEC1 or PKCS#1"
    )]
    Key(&'static str),
    /// They are of a kind that TLS 1.3 has no use for.
    #[error("the TLS certificate and key cannot be used: {0}")]
    Unusable(rustls::Error),
    /// Certificate and key are not of one pair.
    #[error("{1} is not the key of {0}: give the two that belong together")]
    Mismatch(&'static str, &'static str),
    /// A self-signed certificate could not be made.
    #[error("cannot make a TLS certificate: {0}")]
    Make(rcgen::Error),
    /// The certificates of `-server-ca` cannot be used.
    #[error("-server-ca cannot be used: {0}")]
    Ca(String),
}

/// A server's certificate chain and key, both PEM.
pub struct Pem {
    /// The chain, the server's own certificate first.
    pub certificates: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// How an error names them: flags, or files of the store.
    names: (&'static str, &'static str),
}

impl Pem {
    /// What `-tls-cert` and `-tls-key` name.
    pub fn given(certificates: Vec<u8>, key: Vec<u8>) -> Self {
        Self { certificates, key, names: ("-tls-cert", "-tls-key") }
    }

    /// The self-signed pair that the store keeps as `server.crt` and `server.key`; made if one of them is
    /// missing. It names this machine's loopback and `names`, for those who hand it to `-server-ca`.
    pub fn self_signed(store: &dyn Store, names: &[String]) -> Result<Self, TlsError> {
        let load = |file| store.load(file).map_err(|source| TlsError::Store { file, source });
        if let (Some(certificates), Some(key)) = (load(CERTIFICATE_FILE)?, load(KEY_FILE)?) {
            return Ok(Self { certificates, key, names: (CERTIFICATE_FILE, KEY_FILE) });
        }
        let mut subjects = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        subjects.extend(names.iter().filter(|name| !subjects.contains(name)).cloned().collect::<Vec<_>>());
        // P-256, because browsers take it.
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(TlsError::Make)?;
        let mut parameters = rcgen::CertificateParams::new(subjects).map_err(TlsError::Make)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "inp2ps");
        let certificate = parameters.self_signed(&key).map_err(TlsError::Make)?;
        let pem = Self {
            certificates: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            names: (CERTIFICATE_FILE, KEY_FILE),
        };
        let save =
            |file, content| store.save(file, content).map_err(|source| TlsError::Store { file, source });
        // The key first: a certificate without its key would be found at the next start.
        save(KEY_FILE, &pem.key)?;
        save(CERTIFICATE_FILE, &pem.certificates)?;
        Ok(pem)
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The server's side: TLS 1.3 only, HTTP/1.1, nothing remembered of earlier connections.
pub fn server_config<N: Net>(
    net: &N,
    provider: Arc<CryptoProvider>,
    pem: &Pem,
) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = certificates(&pem.certificates).ok_or(TlsError::Certificate(pem.names.0))?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| TlsError::Key(pem.names.1))?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(NetTime(net.clone())))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch(pem.names.0, pem.names.1),
            error => TlsError::Unusable(error),
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Resumption would save one signature of the many that a login costs, and needs state for each client.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The client's side. Without `ca` (PEM, one certificate or many) any certificate is taken whose key signs
/// the handshake; with it, the chain, the name and the validity are checked.
pub fn client_config<N: Net>(
    net: &N,
    provider: Arc<CryptoProvider>,
    ca: Option<&[u8]>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match ca {
        None => Arc::new(AnyCertificate(provider.signature_verification_algorithms)),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem).ok_or(TlsError::Certificate("-server-ca"))? {
                roots.add(certificate).map_err(|error| TlsError::Ca(error.to_string()))?;
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| TlsError::Ca(error.to_string()))?
        }
    };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(NetTime(net.clone())))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// All certificates of a PEM text; none if there is not one, or one is damaged.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

/// Takes any certificate, but not any signature: the handshake must be signed by the key in it.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The wall clock that certificates are judged by.
struct NetTime<N>(N);

impl<N: Net> TimeProvider for NetTime<N> {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.unix_now()))
    }
}

impl<N> fmt::Debug for NetTime<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetTime")
    }
}

/// RFC 7301: a proxy that knows only HTTP/2 must not think that we do.
const ALPN: &[u8] = b"http/1.1";
/// The self-signed certificate, in the store.
const CERTIFICATE_FILE: &str = "server.crt";
/// Its key.
const KEY_FILE: &str = "server.key";
