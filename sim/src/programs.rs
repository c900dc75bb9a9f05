//! What the real programs would hand to the driver, with what a simulation needs: fixed tokens, identities
//! drawn from the world's seed, files of the simulated host, and a certificate whose signatures have one
//! size (an ECDSA signature's differs from run to run and would spoil the log's hash).

use std::collections::BTreeMap;

use inp2p_core::agent::{AgentConfig, PushPolicy};
use inp2p_core::auth::{BadToken, Identity, Token};
use inp2p_core::ids::UserName;
use inp2p_core::path::RungSet;
use inp2p_core::status::RelayStatus;
use inp2p_core::tunnel::{Allow, ForwardRule};
use inp2p_driver::net::Net;
use inp2p_driver::setup::{AgentSetup, RelaySetup, ServerSetup, ciphers};

use crate::net::SimNet;

/// A server with its default ports and a few users, whose tokens are [`TOKEN`].
///
/// # Panics
///
/// When the cryptographic library makes no certificate.
pub fn server(net: &SimNet) -> ServerSetup {
    let tls = certificate().unwrap_or_else(|error| panic!("no certificate: {error}"));
    ServerSetup {
        users: (0..USERS).map(|number| (user(number), token())).collect(),
        bind: None,
        ws_port: SERVER_PORT,
        stun_udp: [27_182, 27_183],
        stun_tcp: [27_180, 27_181],
        stun_ip2: None,
        // Where it relays every pair has a path: scenarios say whether it does.
        relay: None,
        trusted_proxies: Vec::new(),
        tls: Some(tls),
        software: "sim",
        crypto: ciphers(),
        store: net.store(),
    }
}

/// The name of a user.
///
/// # Panics
///
/// Never: it is a good name.
pub fn user(number: u8) -> UserName {
    if number == 0 {
        return UserName::default();
    }
    format!("u{number}").parse().unwrap_or_else(|error| panic!("{error}"))
}

/// A node of the default user, which finds the server by the name or address `server`.
///
/// # Panics
///
/// When `name` is no node name or a forward is no rule.
pub fn node(net: &SimNet, name: &str, server: &str, forwards: &[&str]) -> AgentSetup {
    let rule = |text: &&str| text.parse::<ForwardRule>().unwrap_or_else(|error| panic!("{error}"));
    let relay = RelaySetup { enabled: false, super_relay: false, port: 0, bandwidth_mbps: 0 };
    let agent = AgentConfig {
        node: name.parse().unwrap_or_else(|error| panic!("{error}")),
        user: UserName::default(),
        token: token(),
        identity: identity(net),
        server_pin: None,
        peer_pins: BTreeMap::new(),
        forwards: forwards.iter().map(rule).collect(),
        push: PushPolicy::Loopback,
        rungs: RungSet::ALL,
        software: "sim".to_owned(),
        platform: "sim".to_owned(),
        runtime: "sim".to_owned(),
        server_address: format!("{server}:{SERVER_PORT}"),
        tls: true,
        stun_udp: [None; 2],
        stun_tcp: [None; 2],
        relay: RelayStatus::default(),
    };
    AgentSetup {
        agent,
        allow: Allow::default(),
        host: server.to_owned(),
        port: SERVER_PORT,
        insecure: false,
        server_ca: None,
        p2p_port: 0,
        control: None,
        relay,
        runtime: "sim",
        crypto: ciphers(),
        store: net.store(),
    }
}

/// The same node, relaying for the nodes of its user or for all.
#[must_use]
pub fn relaying(mut node: AgentSetup, super_relay: bool) -> AgentSetup {
    node.relay = RelaySetup { enabled: true, super_relay, port: RELAY_PORT, bandwidth_mbps: RELAY_RATE };
    let status = &mut node.agent.relay;
    (status.enabled, status.super_relay) = (true, super_relay);
    (status.port, status.limit_mbps) = (RELAY_PORT, RELAY_RATE);
    node
}

/// The identity of a host, made at its first start and kept in its files.
fn identity(net: &SimNet) -> Identity {
    use inp2p_driver::net::Store;
    let store = net.store();
    let kept = store.load(IDENTITY_FILE).ok().flatten();
    let kept = kept.and_then(|content| Identity::from_file(&String::from_utf8_lossy(&content)).ok());
    kept.unwrap_or_else(|| {
        let identity = Identity::from_seed(net.seed());
        let saved = store.save(IDENTITY_FILE, identity.to_file().as_bytes());
        debug_assert!(saved.is_ok(), "memory takes it");
        identity
    })
}

fn token() -> Token {
    TOKEN.parse().unwrap_or_else(|error: BadToken| panic!("{error}"))
}

/// A self-signed certificate and its key, in PEM.
fn certificate() -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let mut parameters = rcgen::CertificateParams::new(vec!["server".to_owned()])?;
    // Made from the key otherwise, with a length that depends on it.
    parameters.serial_number = Some(rcgen::SerialNumber::from(1));
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem().into_bytes(), key.serialize_pem().into_bytes()))
}

/// How many users the server has: the default one and some more.
const USERS: u8 = 4;

/// The token of every user.
pub const TOKEN: &str = "12345678";

/// The server's port.
pub const SERVER_PORT: u16 = 27_183;

/// The port and the Mbit/s that a relay has by default.
pub(crate) const RELAY_PORT: u16 = 27_185;
const RELAY_RATE: u32 = 10;

const IDENTITY_FILE: &str = "identity";
