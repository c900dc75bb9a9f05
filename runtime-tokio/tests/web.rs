//! The web side on real sockets. Its behaviour in detail is tested in the driver, over a network in memory.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails, its helpers too")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use futures_channel::mpsc;
use futures_util::StreamExt;
use inp2p_core::server::io::{AdminReply, AdminRequest};
use inp2p_core::status::{RelayStatus, Status};
use inp2p_driver::net::{Net, Store, TcpConfig};
use inp2p_driver::os::FileStore;
use inp2p_driver::web::{
    AdminCall, AdminClient, AdminKey, Front, FrontConfig, FrontEvent, Known, SignalEvent, SignalServer,
    StatusClient, connect_signal, serve, serve_local, tls,
};
use inp2p_runtime_tokio::{TokioNet, run};
use rustls::crypto::CryptoProvider;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A folder that goes away with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("inp2p-web-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Server {
    front: Front,
    events: mpsc::Receiver<FrontEvent>,
    admin: mpsc::Receiver<AdminCall>,
}

fn server(net: &TokioNet, store: &dyn Store) -> Server {
    let pem = tls::Pem::self_signed(store, &[]).unwrap();
    let config = FrontConfig {
        tls: tls::server_config(net, provider(), &pem).unwrap(),
        admin_key: AdminKey::load_or_make(net, store).unwrap(),
        trusted_proxies: Vec::new(),
    };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = net.listen(&TcpConfig { local: Some(any), ..TcpConfig::default() }).unwrap();
    let (sender, events) = mpsc::channel(64);
    let (client, admin) = AdminClient::new();
    let online = Arc::new(AtomicUsize::new(3));
    Server { front: serve(net, listener, config, sender, client, online, None).unwrap(), events, admin }
}

/// What a blocking client of another making gets.
fn ask(mut stream: impl Read + Write, head: &str) -> String {
    write!(stream, "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn rest_answers_other_programs() {
    let folder = Folder::new();
    run(2, |net| async move {
        let store = FileStore::open(&folder.0).unwrap();
        let mut server = server(&net, &store);
        let address = server.front.local_addr();
        net.spawn("control", async move {
            while let Some((request, answer)) = server.admin.next().await {
                assert_eq!(request, AdminRequest::Nodes);
                answer.send(Ok(AdminReply::Nodes(Vec::new()))).unwrap();
            }
        });
        let key_file = folder.0.join("admin.key");
        assert_eq!(std::fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
        let key = std::fs::read_to_string(&key_file).unwrap();
        let (done, finished) = futures_channel::oneshot::channel();
        std::thread::spawn(move || {
            let dial = || TcpStream::connect(address).unwrap();
            let health = ask(dial(), "GET /api/v1/health HTTP/1.1");
            let nodes =
                ask(dial(), &format!("GET /api/v1/nodes HTTP/1.1\r\nAuthorization: Bearer {}", key.trim()));
            done.send((health, nodes)).unwrap();
        });
        let (health, nodes) = finished.await.unwrap();
        assert!(
            health.ends_with("\r\n\r\n{\"status\":\"ok\",\"version\":\"0.1.0\",\"nodes\":3}"),
            "{health}"
        );
        assert!(nodes.ends_with("\r\n\r\n{\"nodes\":[]}"), "{nodes}");
    })
    .unwrap();
}

#[test]
fn signalling_passes_both_ways() {
    let folder = Folder::new();
    run(2, |net| async move {
        let store = FileStore::open(&folder.0).unwrap();
        let mut server = server(&net, &store);
        for tls in [false, true] {
            let tls = tls.then(|| tls::client_config(&net, provider(), None).unwrap());
            let port = server.front.local_addr().port();
            let target = SignalServer { host: "localhost".to_owned(), port, tls, known: Known::default() };
            let mut signal = connect_signal(&net, &target).await.unwrap();
            let Some(FrontEvent::Opened { conn, remote, outbox }) = server.events.next().await else {
                panic!()
            };
            assert_eq!(remote, signal.local);
            outbox.raise_limit();
            for size in [1, 65_536] {
                outbox.send(vec![1; size]).unwrap();
                assert_eq!(signal.events.next().await, Some(SignalEvent::Received(vec![1; size].into())));
                signal.outbox.send(vec![2; size]).unwrap();
                let Some(FrontEvent::Received { conn: from, message }) = server.events.next().await else {
                    panic!()
                };
                assert_eq!((from, message), (conn, vec![2; size].into()));
            }
            drop(signal);
            assert!(
                matches!(server.events.next().await, Some(FrontEvent::Closed { conn: gone }) if gone == conn)
            );
        }
    })
    .unwrap();
}

#[test]
fn the_control_socket_tells_the_status() {
    let folder = Folder::new();
    run(2, |net| async move {
        let path = folder.0.join("inp2pc.sock");
        let listener = net.listen_local(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (client, mut calls) = StatusClient::new();
        let _local = serve_local(&net, listener, client);
        net.spawn("control", async move {
            while let Some(answer) = calls.next().await {
                answer.send(status()).unwrap();
            }
        });
        let (done, finished) = futures_channel::oneshot::channel();
        std::thread::spawn(move || {
            done.send(ask(UnixStream::connect(path).unwrap(), "GET /status HTTP/1.1")).unwrap();
        });
        let answer = finished.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\"node\":\"nodeA\""), "{answer}");
    })
    .unwrap();
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        node: "nodeA".to_owned(),
        runtime: "tokio".to_owned(),
        relay: RelayStatus { port: 27185, limit_mbps: 10, ..Default::default() },
        ..Default::default()
    }
}
