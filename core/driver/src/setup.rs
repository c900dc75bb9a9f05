//! What a program hands to the driver: parsed and checked, with nothing left to guess.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use inp2p_core::agent::AgentConfig;
use inp2p_core::auth::Token;
use inp2p_core::ids::UserName;
use inp2p_core::tunnel::Allow;
use rustls::crypto::CryptoProvider;

use crate::net::Store;
pub use crate::web::Cidr;

/// A client.
pub struct AgentSetup {
    /// Who it is and what it wants.
    pub agent: AgentConfig,
    /// What it dials for its peers.
    pub allow: Allow,
    /// The server's name or address.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// `ws` in place of `wss`.
    pub insecure: bool,
    /// PEM certificates that the server's must chain to; none accepts any, since the login proves the server.
    pub server_ca: Option<Vec<u8>>,
    /// The node's own port for peers; 0 for any.
    pub p2p_port: u16,
    /// Where the control socket is to be; none for none.
    pub control: Option<PathBuf>,
    /// Its service as a relay.
    pub relay: RelaySetup,
    /// The name of the runtime, for `status`.
    pub runtime: &'static str,
    /// The ciphers; in production aws-lc's.
    pub crypto: Arc<CryptoProvider>,
    /// Its files: the pins.
    pub store: Arc<dyn Store>,
}

/// A client's service as a relay.
#[derive(Debug, Clone, Copy)]
pub struct RelaySetup {
    /// Whether to serve.
    pub enabled: bool,
    /// Whether to serve all users.
    pub super_relay: bool,
    /// On which TCP port.
    pub port: u16,
    /// The bandwidth shared by those it relays for.
    pub bandwidth_mbps: u32,
}

/// The server's service as a relay, on its signalling port.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerRelay {
    /// The bandwidth shared by those it relays for, in Mbit/s; 0 for no limit.
    pub bandwidth_mbps: u32,
}

/// A server.
pub struct ServerSetup {
    /// Who may log in.
    pub users: BTreeMap<UserName, Token>,
    /// The listen address; none for all, IPv4 and IPv6.
    pub bind: Option<IpAddr>,
    /// TCP: signalling, REST, console, server relay. 0 lets the system choose, as with the other ports.
    pub ws_port: u16,
    /// UDP STUN.
    pub stun_udp: [u16; 2],
    /// TCP STUN.
    pub stun_tcp: [u16; 2],
    /// A second address of this host, for the full test of RFC 5780.
    pub stun_ip2: Option<IpAddr>,
    /// Its service as the last relay; none for none.
    pub relay: Option<ServerRelay>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// PEM certificate chain and key; none for a self-signed one, kept in the store.
    pub tls: Option<(Vec<u8>, Vec<u8>)>,
    /// The software version, as `health` shows it.
    pub software: &'static str,
    /// The ciphers; in production aws-lc's.
    pub crypto: Arc<CryptoProvider>,
    /// Its files: identity, pins, admin key, certificate.
    pub store: Arc<dyn Store>,
}

/// The ciphers of every program; only a simulation brings others.
pub fn ciphers() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Signalling and REST.
    pub ws: SocketAddr,
    /// UDP STUN.
    pub stun_udp: [SocketAddr; 2],
    /// TCP STUN.
    pub stun_tcp: [SocketAddr; 2],
}

/// Why nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The configuration or a file of the store is wrong: exit code 2.
    #[error("{0}")]
    Config(String),
    /// The system refused something, such as a port: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl fmt::Debug for AgentSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentSetup")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSetup").field("ws_port", &self.ws_port).finish_non_exhaustive()
    }
}
