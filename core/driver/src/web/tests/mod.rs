//! The web side over a network in memory. What it is to do is in the tests; this file builds their world.

mod client;
mod front;
mod local;
mod rest;
mod signalling;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_channel::mpsc;
use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use inp2p_core::ids::{NodeName, PublicKey, UserName};
use inp2p_core::server::io::{AdminError, AdminReply, AdminRequest, KeyText, NodeView, RelayView, ShareView};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;

use crate::compat::Compat;
use crate::net::{Net, TcpConfig};
use crate::web::testnet::{TestNet, TestStore};
use crate::web::{AdminCall, AdminClient, AdminKey, Front, FrontConfig, FrontEvent, serve, tls};

/// The admin key: the first seed of a [`TestNet`].
const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const LOOPBACK: &str = "127.0.0.1:5000";
const ELSEWHERE: &str = "198.51.100.7:5000";

/// A server whose control task is the test.
struct World {
    net: TestNet,
    front: Front,
    events: mpsc::Receiver<FrontEvent>,
    admin: mpsc::Receiver<AdminCall>,
    online: Arc<AtomicUsize>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Runs `test` with a server.
fn with_server<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(World) -> F) {
    let net = TestNet::new();
    let world = server(&net, &["10.0.0.0/8"]);
    net.run(test(world));
}

fn server(net: &TestNet, trusted: &[&str]) -> World {
    let store = TestStore::default();
    let pem = tls::Pem::self_signed(&store, &[]).unwrap();
    let config = FrontConfig {
        tls: tls::server_config(net, provider(), &pem).unwrap(),
        admin_key: AdminKey::load_or_make(net, &store).unwrap(),
        trusted_proxies: trusted.iter().map(|network| network.parse().unwrap()).collect(),
    };
    let listener = net.listen(&TcpConfig::default()).unwrap();
    let (events_in, events) = mpsc::channel(8);
    let (client, admin) = AdminClient::new();
    let online = Arc::new(AtomicUsize::new(0));
    let front = serve(net, listener, config, events_in, client, online.clone(), None).unwrap();
    World { net: net.clone(), front, events, admin, online }
}

impl World {
    fn address(&self) -> SocketAddr {
        self.front.local_addr()
    }

    fn plain(&self, from: &str) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
        Compat::new(self.net.dial(from, self.address()))
    }

    async fn tls(&self, from: &str) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
        let config = tls::client_config(&self.net, provider(), None).unwrap();
        let stream = Compat::new(self.net.dial(from, self.address()));
        let name = ServerName::try_from("anything.example").unwrap();
        TlsConnector::from(config).connect(name, stream).await.unwrap()
    }

    /// Answers REST calls in the background: two nodes of user `default`, `nodeA` online and `nodeB` not.
    fn answer_admin(&mut self) {
        let mut calls = std::mem::replace(&mut self.admin, mpsc::channel(0).1);
        self.net.spawn("control", async move {
            while let Some((request, answer)) = calls.next().await {
                let _ = answer.send(control(request));
            }
        });
    }
}

fn share() -> ShareView {
    ShareView {
        user: "default".parse().unwrap(),
        node: "nodeA".parse().unwrap(),
        to: "other".parse().unwrap(),
        targets: vec!["127.0.0.1:22".parse().unwrap()],
    }
}

fn control(request: AdminRequest) -> Result<AdminReply, AdminError> {
    let known = |user: &UserName, node: &NodeName| match (user.as_str(), node.as_str()) {
        ("default", "nodeA" | "nodeB") => Ok(()),
        _ => Err(AdminError { status: 404, code: "unknown-node", message: "no such node".to_owned() }),
    };
    match request {
        AdminRequest::Nodes => Ok(AdminReply::Nodes(vec![view("nodeA", true), view("nodeB", false)])),
        AdminRequest::Node(user, node) => {
            known(&user, &node)?;
            Ok(AdminReply::Node(Box::new(view(node.as_str(), node.as_str() == "nodeA"))))
        }
        AdminRequest::ForgetKey(user, node) => known(&user, &node).map(|()| AdminReply::Done),
        AdminRequest::PushForward { user, node, name, rule } => {
            known(&user, &node)?;
            // The test reads back what came through.
            Ok(rule.map_or(AdminReply::Done, |rule| AdminReply::Listening(format!("{name} = {rule}"))))
        }
        AdminRequest::Shares => Ok(AdminReply::Shares(vec![share()])),
        AdminRequest::Relays => Ok(AdminReply::Relays(vec![relay()])),
        AdminRequest::Share { user, node, to, targets } => {
            known(&user, &node)?;
            match (to.as_str(), targets) {
                ("nobody", _) => {
                    let message = "no such user".to_owned();
                    Err(AdminError { status: 404, code: "unknown-user", message })
                }
                (_, Some(targets)) if targets.len() > 64 => {
                    Err(AdminError { status: 409, code: "too-many", message: "too many".to_owned() })
                }
                _ => Ok(AdminReply::Done),
            }
        }
        AdminRequest::Metrics => Ok(AdminReply::Metrics("inp2p_nodes_online 1\n".to_owned())),
    }
}

fn relay() -> RelayView {
    RelayView {
        user: UserName::default(),
        node: "nodeA".parse().unwrap(),
        key: KeyText(PublicKey([7; 32])),
        super_relay: true,
        address: "198.51.100.7:27185".parse().unwrap(),
        reachable: true,
        reason: None,
        rtt_ms: Some(12),
        limit_mbps: 10,
        sessions: 1,
        mbps: 2,
        bytes: 3,
        stun: vec!["198.51.100.7:4000".parse().unwrap()],
    }
}

fn view(node: &str, online: bool) -> NodeView {
    NodeView {
        user: UserName::default(),
        node: node.parse().unwrap(),
        key: KeyText(PublicKey([7; 32])),
        online,
        remote: online.then(|| ELSEWHERE.parse().unwrap()),
        since: online.then_some(1_780_000_000),
        software: online.then(|| "0.1.0".to_owned()),
        platform: online.then(|| "linux x86_64".to_owned()),
    }
}

/// An HTTP answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// The code of an error, whose shape is checked.
    fn error(&self) -> String {
        let json = self.json();
        let error = json.as_object().unwrap().get("error").unwrap().as_object().unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message"]);
        assert!(!error["message"].as_str().unwrap().is_empty());
        error["code"].as_str().unwrap().to_owned()
    }
}

/// Sends `head` (request line and headers, without Host) and `body`, and reads the answer.
async fn request<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, head: &str, body: &str) -> Reply {
    let mut text = format!("{head}\r\nHost: server:27183\r\nConnection: close\r\n");
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += body;
    // A server that refuses early may not read all of it.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.flush().await;
    read_reply(stream).await
}

async fn read_reply<S: AsyncRead + Unpin>(mut stream: S) -> Reply {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    parse_reply(&bytes)
}

fn parse_reply(bytes: &[u8]) -> Reply {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

/// A request head with the admin key.
fn with_key(line: &str) -> String {
    format!("{line} HTTP/1.1\r\nAuthorization: Bearer {KEY}")
}

fn set_online(world: &World, nodes: usize) {
    world.online.store(nodes, Ordering::Relaxed);
}
