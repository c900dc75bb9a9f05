//! What QUIC alone gives on this machine: one stream of bytes that are thrown away, both ends in this process, a
//! thread each, AES-128-GCM, quinn's own settings. It is what quinn's benchmark `bulk` does, so the part of it
//! that a forward over UDP reaches can be told in the same run.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, version};
use tokio::runtime::{Builder, Runtime};

/// Gbit/s.
pub(crate) fn bulk(time: Duration) -> f64 {
    let certified = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let runtime = runtime();
    let endpoint = {
        let _entered = runtime.enter();
        Endpoint::server(config, "[::1]:0".parse().unwrap()).unwrap()
    };
    let address = endpoint.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            runtime.block_on(async {
                source(&endpoint.accept().await.unwrap().await.unwrap()).await;
                endpoint.close(0_u32.into(), b"");
            });
        });
        self::runtime().block_on(async {
            let mut endpoint = Endpoint::client("[::]:0".parse().unwrap()).unwrap();
            endpoint.set_default_client_config(client(certificate));
            let connection = endpoint.connect(address, NAME).unwrap().await.unwrap();
            let gbits = sink(&connection, time).await;
            connection.close(0_u32.into(), b"");
            endpoint.wait_idle().await;
            gbits
        })
    })
}

fn client(certificate: CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// Sends until nobody wants more.
async fn source(connection: &Connection) {
    let (mut send, _) = connection.accept_bi().await.unwrap();
    let block = bytes::Bytes::from(vec![0x5a; 1 << 20]);
    while send.write_chunk(block.clone()).await.is_ok() {}
}

/// Receives for a while, once windows have grown.
async fn sink(connection: &Connection, time: Duration) -> f64 {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"1").await.unwrap();
    let mut chunks: [bytes::Bytes; 32] = Default::default();
    let mut began = Instant::now();
    let mut warm = false;
    let mut bytes = 0;
    loop {
        let n = receive.read_chunks(&mut chunks).await.unwrap().unwrap();
        bytes += chunks[..n].iter().map(bytes::Bytes::len).sum::<usize>();
        let elapsed = began.elapsed();
        if !warm && elapsed >= time / 4 {
            (warm, began, bytes) = (true, Instant::now(), 0);
        } else if warm && elapsed >= time {
            return bytes as f64 * 8e-9 / elapsed.as_secs_f64();
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_io().enable_time().build().unwrap()
}

const NAME: &str = "localhost";
