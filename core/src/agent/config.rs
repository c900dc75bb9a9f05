//! What the agent is told once, at start.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::auth::{Identity, Token};
use crate::ids::{NodeName, PeerName, PublicKey, UserName};
use crate::path::RungSet;
use crate::status::RelayStatus;
use crate::tunnel::ForwardRule;

/// The agent's configuration: flags, file and keys, read and checked by the program.
#[derive(Debug)]
pub struct AgentConfig {
    /// The node's name.
    pub node: NodeName,
    /// Its user.
    pub user: UserName,
    /// The secret that the user's nodes share with the server.
    pub token: Token,
    /// The node's identity.
    pub identity: Identity,
    /// The server's identity as `-server-key` gives it; it goes before the one in the pin file.
    pub server_pin: Option<PublicKey>,
    /// The peers' identities as `-peer-key` gives them; they go before those in the pin file.
    pub peer_pins: BTreeMap<PeerName, PublicKey>,
    /// The forwards of file and flags. Those that are not enabled only show in `status`.
    pub forwards: Vec<ForwardRule>,
    /// Which forwards the server may push.
    pub push: PushPolicy,
    /// The rungs that may be used.
    pub rungs: RungSet,
    /// The software version.
    pub software: String,
    /// The operating system, as `linux x86_64`.
    pub platform: String,
    /// The runtime's name, for `status`.
    pub runtime: String,
    /// The server's name or address, and port, as text: for `status` and messages to people.
    pub server_address: String,
    /// Whether the signalling connection is to use TLS, for `status` until there is one.
    pub tls: bool,
    /// The server's UDP STUN ports, where they are not as it says itself.
    pub stun_udp: [Option<u16>; 2],
    /// Its TCP STUN ports, likewise.
    pub stun_tcp: [Option<u16>; 2],
    /// The relay service as configured, for `status`.
    pub relay: RelayStatus,
}

/// Which forwards the server may push to this node (`-push`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushPolicy {
    /// None.
    Off,
    /// Those that listen on loopback.
    #[default]
    Loopback,
    /// All.
    Any,
}

impl FromStr for PushPolicy {
    type Err = UnknownPolicy;
    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        match name {
            "off" => Ok(Self::Off),
            "loopback" => Ok(Self::Loopback),
            "any" => Ok(Self::Any),
            other => Err(UnknownPolicy(other.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for PushPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Loopback => "loopback",
            Self::Any => "any",
        })
    }
}

/// A word that is no push policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no push policy: use off, loopback or any")]
pub struct UnknownPolicy(String);

/// Why an agent could not be made. All of it is wrong usage or configuration: exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A forward leads to the node itself.
    #[error("forward {0:?} leads to this node itself: name another node, or connect to the target directly")]
    ForwardToOneself(String),
    /// Two forwards have the same name.
    #[error("two forwards are named {0:?}: give each a name of its own")]
    ForwardNameTwice(String),
    /// Two forwards that are in force listen at the same address.
    #[error("forwards {1:?} and {2:?} both listen at {0}: give one of them another port")]
    ListenTwice(SocketAddr, String, String),
    /// More forwards than a node may have.
    #[error("{0} forwards are configured, but a node has at most {max}", max = super::MAX_FORWARDS)]
    TooManyForwards(usize),
    /// The pin file is not readable.
    #[error(
        "{file} is damaged ({0}): restore it from a backup; removing it forgets the keys of the server and of \
         all peers, which are then trusted anew at first use",
        file = super::PINS_FILE
    )]
    Pins(String),
}
