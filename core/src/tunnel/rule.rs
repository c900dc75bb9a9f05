//! A port forward's rule.

use std::net::SocketAddr;

use crate::ids::PeerName;

/// `[BIND:]PORT:NODE:[HOST:]PORT[/tcp]`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardRule {
    /// Its name; the rule's text unless the file gives one.
    pub name: String,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The peer.
    pub peer: PeerName,
    /// What the peer dials: `HOST:PORT`, IPv6 in brackets.
    pub target: String,
    /// Whether it is in force.
    pub enabled: bool,
}
