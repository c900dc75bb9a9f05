//! The words in which paths are spoken of: the seven rungs, candidates, and what became of a try.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A step of the priority chain, best first. The order of the variants is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// QUIC to an address of the peer's own interface, or to a port-mapped one.
    UdpDirect,
    /// QUIC through punched holes.
    UdpPunch,
    /// TLS over TCP to an address of the peer's own interface, or to a port-mapped one.
    TcpDirect,
    /// TLS over a simultaneously opened TCP connection.
    TcpPunch,
    /// TLS through a relay of the same user.
    PrivateRelay,
    /// TLS through a relay that serves all users.
    SuperRelay,
    /// TLS through the server.
    ServerRelay,
}

impl Rung {
    /// All rungs, best first.
    pub const ALL: [Self; 7] = [
        Self::UdpDirect,
        Self::UdpPunch,
        Self::TcpDirect,
        Self::TcpPunch,
        Self::PrivateRelay,
        Self::SuperRelay,
        Self::ServerRelay,
    ];

    /// Whether a link on it is over UDP.
    pub fn is_udp(self) -> bool {
        matches!(self, Self::UdpDirect | Self::UdpPunch)
    }

    /// Whether a link on it goes through a relay.
    pub fn is_relay(self) -> bool {
        self >= Self::PrivateRelay
    }

    /// The name that flags, files and JSON use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UdpDirect => "udp-direct",
            Self::UdpPunch => "udp-punch",
            Self::TcpDirect => "tcp-direct",
            Self::TcpPunch => "tcp-punch",
            Self::PrivateRelay => "private-relay",
            Self::SuperRelay => "super-relay",
            Self::ServerRelay => "server-relay",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Rung {
    type Err = UnknownRung;
    fn from_str(name: &str) -> Result<Self, UnknownRung> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == name).ok_or_else(|| UnknownRung(name.to_owned()))
    }
}

/// A name that is no rung's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a rung: use udp-direct, udp-punch, tcp-direct, tcp-punch, private-relay, super-relay, server-relay"
)]
pub struct UnknownRung(String);

/// The rungs that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RungSet(u8);

impl RungSet {
    /// All seven.
    pub const ALL: Self = Self(0x7f);
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether `rung` is in the set.
    pub fn contains(self, rung: Rung) -> bool {
        self.0 & (1 << rung as u8) != 0
    }

    /// The rungs of the set, best first.
    pub fn iter(self) -> impl Iterator<Item = Rung> {
        Rung::ALL.into_iter().filter(move |rung| self.contains(*rung))
    }

    /// The rungs that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<Rung> for RungSet {
    fn from_iter<I: IntoIterator<Item = Rung>>(rungs: I) -> Self {
        Self(rungs.into_iter().fold(0, |set, rung| set | (1 << rung as u8)))
    }
}

impl Default for RungSet {
    fn default() -> Self {
        Self::ALL
    }
}

impl Serialize for RungSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for RungSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A peer of a later version may name rungs that this one does not know: they are passed over.
        let names = Vec::<String>::deserialize(deserializer)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// Which transport a candidate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// How a candidate was learnt (RFC 8445 section 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateKind {
    /// An address of an interface.
    Host,
    /// The address that a STUN server saw.
    ServerReflexive,
    /// The address that an authenticated probe came from.
    PeerReflexive,
}

/// An address at which a node may be reached (RFC 8445).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// How it was learnt.
    pub kind: CandidateKind,
    /// What to reach it by.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

/// What became of one rung in one attempt, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The rung that was tried.
    pub rung: Rung,
    /// `connected`, `failed` or `skipped`.
    pub outcome: Verdict,
    /// Why, in the fewest words; empty for `connected`.
    pub reason: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// How a rung's try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A link came up.
    Connected,
    /// It was tried in vain.
    Failed,
    /// It was not tried: the reason says why.
    Skipped,
}
