//! Why punching was given up, in words that `status` shows.

use std::fmt;

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Not to be tried.
    NotAmongRungs,
    /// The server has not seen the peer's UDP.
    NoAddress,
    /// This node's UDP does not come through.
    OwnUdpBlocked,
    /// The peer's does not.
    PeerUdpBlocked,
    /// The server has not seen the peer's TCP.
    NoTcpAddress,
    /// This node's TCP does not come through.
    OwnTcpBlocked,
    /// The peer's does not.
    PeerTcpBlocked,
    /// The server named no common instant.
    NoInstant,
    /// Neither NAT's ports can be told.
    BothSymmetric,
    /// No probe of the peer arrived.
    Silence {
        /// How many were sent.
        probes: u32,
        /// How many of them were to guess a port.
        guesses: u32,
    },
    /// The same, and ports were not guessed as far as might help.
    Spared {
        /// How many were sent.
        probes: u32,
    },
    /// Probes of the peer arrived, but no answer to one of this side's.
    OneWay,
    /// No TCP connection came about.
    NoConnection {
        /// How many were begun.
        dials: u32,
    },
}

impl Why {
    /// Whether anything was sent.
    pub fn was_tried(self) -> bool {
        match self {
            Self::Silence { .. } | Self::Spared { .. } | Self::OneWay | Self::NoConnection { .. } => true,
            Self::NotAmongRungs
            | Self::NoAddress
            | Self::OwnUdpBlocked
            | Self::PeerUdpBlocked
            | Self::NoTcpAddress
            | Self::OwnTcpBlocked
            | Self::PeerTcpBlocked
            | Self::NoInstant
            | Self::BothSymmetric => false,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAmongRungs => f.write_str("not among the rungs that both sides may use"),
            Self::NoAddress => f.write_str("the server has not seen a public UDP address of the peer"),
            Self::OwnUdpBlocked => f.write_str("this node's network lets no UDP through"),
            Self::PeerUdpBlocked => f.write_str("the peer's network lets no UDP through"),
            Self::NoTcpAddress => f.write_str("the server has not seen a public TCP address of the peer"),
            Self::OwnTcpBlocked => f.write_str("this node's network lets no TCP through"),
            Self::PeerTcpBlocked => f.write_str("the peer's network lets no TCP through"),
            Self::NoInstant => {
                f.write_str("the server named no instant for it: it has not seen TCP of both sides yet")
            }
            Self::BothSymmetric => {
                f.write_str("both NATs are symmetric and not both have a regular step: no port can be told")
            }
            Self::Silence { probes, guesses: 0 } => write!(f, "{probes} probes, nothing heard of the peer"),
            Self::Silence { probes, guesses } => {
                write!(f, "{probes} probes, {guesses} of them to guess a port, nothing heard of the peer")
            }
            Self::Spared { probes } => {
                write!(f, "{probes} probes, nothing heard of the peer; it is too early to guess more ports")
            }
            Self::OneWay => f.write_str("the peer's probes arrive here, but this side's do not get there"),
            Self::NoConnection { dials } => write!(f, "{dials} simultaneous opens, no connection"),
        }
    }
}
