//! What is known of the NATs before a node, in the terms of RFC 4787 (UDP) and RFC 5382 (TCP).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::path::Transport;
use crate::status::{NatStatus, NatView};
use crate::stun::proof::Proof;

/// The whole: by transport and address family. None where there is nothing to measure, since this host or the
/// server has no address of that family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NatReport {
    /// UDP over IPv4.
    pub udp4: Option<Behaviour>,
    /// UDP over IPv6.
    pub udp6: Option<Behaviour>,
    /// TCP over IPv4.
    pub tcp4: Option<Behaviour>,
    /// TCP over IPv6.
    pub tcp6: Option<Behaviour>,
}

/// How the NATs behave for one transport and one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// Nothing comes through, though the server is there.
    pub blocked: bool,
    /// Whether addresses are translated; none if that is not known.
    pub translated: Option<bool>,
    /// Which destinations share a mapping (RFC 4787 section 4.1).
    pub mapping: Finding,
    /// Who may send to a mapping (RFC 4787 section 5).
    pub filtering: Finding,
    /// The difference between the ports of mappings made one after the other, where it is regular.
    pub port_step: Option<i32>,
    /// The port of the latest mapping, where they go in steps and others have been made since that of `public`.
    pub latest_port: Option<u16>,
    /// Whether the mapped port was the local one.
    pub preserves_port: bool,
    /// Whether this node reaches itself at its public address (RFC 4787 section 6).
    pub hairpin: Option<bool>,
    /// How long an idle mapping lives (RFC 4787 section 4.3).
    pub lifetime: Option<Lifetime>,
    /// How the server saw this node's own port.
    pub public: Option<SocketAddr>,
    /// By which the server knows that it did.
    pub proof: Option<Proof>,
}

/// A behaviour, and whether the server had what it takes to tell it from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// What was found.
    pub is: Dependence,
    /// If not, a server with two addresses, or a relay, might have found more dependence in a mapping, or less in a
    /// filter.
    pub confirmed: bool,
}

/// What a behaviour depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// Not on the peer.
    EndpointIndependent,
    /// On the peer's address.
    AddressDependent,
    /// On the peer's address and port.
    AddressAndPortDependent,
    /// Not known, or known to a later version only.
    #[default]
    #[serde(other)]
    Unknown,
}

/// How long an idle mapping lives, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lifetime {
    /// It was still there after so many.
    pub at_least: u32,
    /// It was gone after so many; none if nobody waited for that.
    pub below: Option<u32>,
}

impl Lifetime {
    /// How often something has to leave for a mapping to stay.
    pub fn keepalive(&self) -> Duration {
        // A third leaves room for one that gets lost.
        Duration::from_secs(u64::from(self.at_least.max(MIN_LIFETIME) / 3))
    }
}

/// The one word of old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No NAT: a public address, or one beside the server's.
    None,
    /// One mapping for all peers.
    Cone,
    /// A mapping for each peer.
    Symmetric,
    /// Nothing comes through.
    Blocked,
    /// Not known; tried all the same.
    Unknown,
}

impl Kind {
    /// The name in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cone => "cone",
            Self::Symmetric => "symmetric",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
        }
    }

    /// OpenP2P's number.
    pub fn legacy(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Cone => 1,
            Self::Symmetric => 2,
            Self::Blocked | Self::Unknown => 314,
        }
    }
}

impl Behaviour {
    /// The one word of old.
    pub fn kind(&self) -> Kind {
        match (self.blocked, self.translated, self.mapping.is) {
            (true, ..) => Kind::Blocked,
            (false, Some(false), _) => Kind::None,
            (false, _, Dependence::EndpointIndependent) => Kind::Cone,
            (false, _, Dependence::AddressDependent | Dependence::AddressAndPortDependent) => Kind::Symmetric,
            (false, _, Dependence::Unknown) => Kind::Unknown,
        }
    }

    /// As `status` shows it.
    pub fn view(&self) -> NatView {
        NatView {
            kind: self.kind().as_str().to_owned(),
            mapping: self.mapping.is.as_str().to_owned(),
            filtering: self.filtering.is.as_str().to_owned(),
            public: self.public,
            mapping_confirmed: self.mapping.confirmed,
            filtering_confirmed: self.filtering.confirmed,
            port_step: self.port_step,
            hairpin: self.hairpin,
            lifetime_s: self.lifetime.map(|lifetime| lifetime.at_least),
        }
    }
}

impl NatReport {
    /// The behaviour for one transport and one family.
    pub fn of(&self, transport: Transport, ipv4: bool) -> Option<&Behaviour> {
        match (transport, ipv4) {
            (Transport::Udp, true) => self.udp4.as_ref(),
            (Transport::Udp, false) => self.udp6.as_ref(),
            (Transport::Tcp, true) => self.tcp4.as_ref(),
            (Transport::Tcp, false) => self.tcp6.as_ref(),
        }
    }

    /// How often something has to leave for the mappings of UDP to stay, if it was measured how long they live.
    pub fn keepalive(&self) -> Option<Duration> {
        let measured = |part: &Behaviour| part.lifetime.filter(|lifetime| lifetime.below.is_some());
        let each = [&self.udp4, &self.udp6].into_iter().flatten();
        each.filter_map(measured).map(|lifetime| lifetime.keepalive()).min()
    }

    /// What matters to whoever wants to reach the node: neither proofs nor lifetimes. How far a NAT has counted is of
    /// use in the next attempt, but no reason for one: each attempt changes it.
    pub(crate) fn reachability(&self) -> Self {
        let mut bare = self.without_proofs();
        bare.parts_mut().for_each(|(_, part)| (part.lifetime, part.latest_port) = (None, None));
        bare
    }

    /// Whether the tests of UDP have come so far that punching can be planned by them.
    pub(crate) fn is_settled(&self) -> bool {
        let known = |part: &Behaviour| part.blocked || part.mapping.is != Dependence::Unknown;
        [&self.udp4, &self.udp6].into_iter().flatten().all(known)
    }

    /// Whether ports of UDP go in steps, so that mappings that are made matter to those that are predicted.
    pub(crate) fn counts(&self) -> bool {
        self.udp4.is_some_and(|part| part.port_step.is_some())
    }

    /// All that it says, with the transport that each part is about.
    pub(crate) fn parts_mut(&mut self) -> impl Iterator<Item = (Transport, &mut Behaviour)> {
        let Self { udp4, udp6, tcp4, tcp6 } = self;
        let part = |transport, part| Some((transport, Option::as_mut(part)?));
        [(Transport::Udp, udp4), (Transport::Udp, udp6), (Transport::Tcp, tcp4), (Transport::Tcp, tcp6)]
            .into_iter()
            .filter_map(move |(transport, behaviour)| part(transport, behaviour))
    }

    /// As `status` shows it: IPv4's view, which is where NATs are, or IPv6's where there is no other; and
    /// IPv6's besides.
    pub fn status(&self) -> NatStatus {
        let view = |behaviour: &Option<Behaviour>| behaviour.as_ref().map(Behaviour::view);
        let (udp6, tcp6) = (view(&self.udp6), view(&self.tcp6));
        NatStatus {
            udp: view(&self.udp4).or_else(|| udp6.clone()).unwrap_or_default(),
            tcp: view(&self.tcp4).or_else(|| tcp6.clone()).unwrap_or_default(),
            udp6,
            tcp6,
        }
    }

    /// The same with all proofs alike, since they change every minute: whether a report is news is judged by it.
    pub(crate) fn without_proofs(&self) -> Self {
        let alike = |one: Behaviour| one.proof.map(|_| Proof([0; Proof::LENGTH]));
        let bare = |behaviour: Option<Behaviour>| behaviour.map(|one| Behaviour { proof: alike(one), ..one });
        Self { udp4: bare(self.udp4), udp6: bare(self.udp6), tcp4: bare(self.tcp4), tcp6: bare(self.tcp6) }
    }
}

impl Finding {
    pub(super) fn confirmed(is: Dependence) -> Self {
        Self { is, confirmed: true }
    }

    pub(super) fn presumed(is: Dependence) -> Self {
        Self { is, confirmed: false }
    }
}

impl Dependence {
    /// The name in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No NAT in use forgets faster than this, in seconds.
const MIN_LIFETIME: u32 = 15;
