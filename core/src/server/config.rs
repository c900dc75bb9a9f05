//! What the server is told once, at start.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::auth::{Identity, Token};
use crate::ids::UserName;
use crate::stun::proof::ProofKey;
use crate::wire::message::StunPorts;

/// The server's configuration.
#[derive(Debug)]
pub struct ServerConfig {
    /// The users, and the secret that each shares with its nodes.
    pub users: BTreeMap<UserName, Token>,
    /// The server's identity.
    pub identity: Identity,
    /// The software version.
    pub software: String,
    /// How often nodes send a heartbeat. Three missed ones end a connection.
    pub heartbeat: Duration,
    /// Its STUN ports; none where there are none.
    pub stun: Option<StunPorts>,
    /// Under which the STUN ports prove what addresses they see; none where there are none.
    pub proofs: Option<ProofKey>,
    /// Whether it relays itself, where no other relay can be had.
    pub relay: bool,
    /// The bounds of what it holds.
    pub caps: Caps,
}

impl ServerConfig {
    /// A configuration with the defaults of period and caps.
    pub fn new(users: BTreeMap<UserName, Token>, identity: Identity, software: impl Into<String>) -> Self {
        Self {
            users,
            identity,
            software: software.into(),
            heartbeat: HEARTBEAT,
            stun: None,
            proofs: None,
            relay: true,
            caps: Caps::default(),
        }
    }
}

/// How much of each thing the server holds at most; beyond it the new is refused and the old is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Connections that have not logged in, in all.
    pub unauthenticated: usize,
    /// Connections that have not logged in, from one IPv4 address or IPv6 /64.
    pub unauthenticated_per_address: usize,
    /// Nodes that are online.
    pub nodes: usize,
    /// Names that have a key pinned, those of nodes that are offline included.
    pub pins: usize,
    /// Attempts that may still be joined.
    pub attempts: usize,
    /// Peers that nodes want to hear of, over all nodes.
    pub interests: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            // Each holds a socket and about 20 KiB until its login deadline: 80 MiB at worst.
            unauthenticated: 4096,
            // A site behind one address may restart all its nodes at once; they come back in turns.
            unauthenticated_per_address: 64,
            // What one process has been measured to carry on a small machine.
            nodes: 20_000,
            // Five times the nodes: names outlive machines. About 10 MiB in memory.
            pins: 100_000,
            // Twice the nodes: an attempt lives for seconds, and nodes reach for few peers at a time.
            attempts: 40_000,
            // Sixteen a node; each is two entries in maps, 64 MiB in all with short names.
            interests: 320_000,
        }
    }
}

/// The default period of heartbeats: short enough to keep the mappings of NATs that forget an idle TCP
/// connection after a minute, long enough that 20,000 nodes make only 700 messages a second.
pub const HEARTBEAT: Duration = Duration::from_secs(30);
