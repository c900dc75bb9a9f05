//! What `inp2pc status -json` and `GET /status` on the control socket show. Names, shapes and meanings are
//! pinned: other people's scripts read them. Adding is free.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::path::{Outcome, Rung};

/// The whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The software version.
    pub version: String,
    /// This node's name.
    pub node: String,
    /// This node's identity, 64 hexadecimal digits: what others give to `-peer-key`.
    pub key: String,
    /// The runtime that it runs on.
    pub runtime: String,
    /// The signalling server.
    pub server: ServerStatus,
    /// What the node knows of the NATs before it.
    pub nat: NatStatus,
    /// The peers that it has or wants a session with.
    pub peers: Vec<PeerStatus>,
    /// Its port forwards.
    pub forwards: Vec<ForwardStatus>,
    /// Its service as a relay.
    pub relay: RelayStatus,
    /// Its own port for peers.
    #[serde(default)]
    pub port: PortStatus,
}

/// The node's own port for peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The number for TCP.
    pub tcp: u16,
    /// That for UDP.
    pub udp: u16,
    /// Datagrams that were dropped since their session, or whoever measures NATs, was too busy to take more.
    pub dropped: u64,
}

/// The signalling server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Name or address, and port.
    pub address: String,
    /// Whether the node is logged in.
    pub connected: bool,
    /// Whether TLS is used.
    pub tls: bool,
    /// How often the node has logged in again since it started.
    pub relogins: u64,
    /// Why it is not connected; none while it is.
    pub error: Option<String>,
}

/// NAT by transport.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NatStatus {
    /// As seen by UDP.
    pub udp: NatView,
    /// As seen by TCP.
    pub tcp: NatView,
    /// As seen by UDP over IPv6, where there is IPv6.
    #[serde(default)]
    pub udp6: Option<NatView>,
    /// As seen by TCP over IPv6, where there is IPv6.
    #[serde(default)]
    pub tcp6: Option<NatView>,
}

/// NAT behaviour in the terms of RFC 4787, with the legacy name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NatView {
    /// `none` (public), `cone`, `symmetric`, `blocked`, `unknown`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `endpoint-independent`, `address-dependent`, `address-and-port-dependent`, `unknown`.
    pub mapping: String,
    /// The same words as for `mapping`.
    pub filtering: String,
    /// The public address, where known.
    pub public: Option<SocketAddr>,
    /// Whether `mapping` is certain, which takes a server with two addresses, or a relay.
    #[serde(default)]
    pub mapping_confirmed: bool,
    /// Whether `filtering` is.
    #[serde(default)]
    pub filtering_confirmed: bool,
    /// The step between the ports of a symmetric NAT, where it is regular.
    #[serde(default)]
    pub port_step: Option<i32>,
    /// Whether the node reaches itself at its public address; none where not known.
    #[serde(default)]
    pub hairpin: Option<bool>,
    /// How many seconds an idle mapping lives at least; none where not measured.
    #[serde(default)]
    pub lifetime_s: Option<u32>,
}

impl Default for NatView {
    fn default() -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            kind: unknown(),
            mapping: unknown(),
            filtering: unknown(),
            public: None,
            mapping_confirmed: false,
            filtering_confirmed: false,
            port_step: None,
            hairpin: None,
            lifetime_s: None,
        }
    }
}

/// A peer's state, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// A path is being looked for.
    Connecting,
    /// A link is up.
    Connected,
    /// The server says that the peer is not online.
    Offline,
    /// The last attempt failed everywhere; the next follows.
    Failed,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name, as this node names it.
    pub node: String,
    /// Its identity, where known.
    pub key: Option<String>,
    /// Its state.
    pub state: PeerState,
    /// The rung in use; none without a link.
    pub rung: Option<Rung>,
    /// The relay's node name, or `server`; none on a direct or punched link.
    pub via: Option<String>,
    /// The address at the link's other end.
    pub remote: Option<SocketAddr>,
    /// The smoothed round-trip time of the link, in milliseconds; none without a link, or until it is measured.
    pub rtt_ms: Option<f64>,
    /// Payload bytes of streams that went out, each counted once.
    pub bytes_sent: u64,
    /// Payload bytes of streams that came in.
    pub bytes_received: u64,
    /// Open streams.
    pub streams: u64,
    /// How often the session has moved to another link, the first one counted.
    pub switches: u64,
    /// Why there is no link; none while there is one.
    pub error: Option<String>,
    /// What became of the latest attempt.
    pub attempts: Vec<Outcome>,
}

/// One port forward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// Its name.
    pub name: String,
    /// Where it listens, with the real port.
    pub listen: String,
    /// `tcp`.
    pub protocol: String,
    /// The peer.
    pub node: String,
    /// What the peer dials.
    pub target: String,
    /// `listening`, `failed`, `disabled`, or `opening` for a moment.
    pub state: String,
    /// Why it failed, or why its latest connection was refused.
    pub error: Option<String>,
    /// Connections that are open.
    pub active: u64,
    /// Connections so far, those included.
    pub total: u64,
    /// Bytes from local programs to the target.
    pub bytes_sent: u64,
    /// Bytes from the target to local programs.
    pub bytes_received: u64,
}

/// The node's service as a relay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Whether it was asked for.
    pub enabled: bool,
    /// Whether it serves all users.
    #[serde(rename = "super")]
    pub super_relay: bool,
    /// Its TCP port.
    pub port: u16,
    /// Whether the server could reach it.
    pub reachable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// How many pairs of nodes it carries now.
    pub sessions: u64,
    /// How many bytes it has carried since it started.
    pub bytes: u64,
    /// What those whom it relays for share, in Mbit/s; 0 for no limit.
    pub limit_mbps: u32,
}
