//! The NATs that people have, by name.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use super::{Dependence, NatConfig, Ports, Unsolicited};

/// A NAT that people have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    /// None: a public address.
    Open,
    /// One mapping for all, and everybody may send to it.
    FullCone,
    /// One mapping for all; addresses that were written to may send to it.
    AddressRestricted,
    /// One mapping for all; addresses and ports that were written to may send to it: the usual home router.
    PortRestricted,
    /// The same without a firewall: what nobody asked for is for the router itself, as with Linux's masquerade alone.
    Bare,
    /// A mapping for each peer, on consecutive ports.
    SymmetricSequential,
    /// A mapping for each peer, on random ports: the usual corporate firewall.
    SymmetricRandom,
    /// A home router behind a carrier's NAT.
    Cgnat,
    /// A home router that lets no UDP out.
    UdpBlocked,
    /// A corporate firewall that lets TCP to port 443 out and nothing else.
    Only443,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Bare,
        Self::SymmetricSequential,
        Self::SymmetricRandom,
        Self::Cgnat,
        Self::UdpBlocked,
        Self::Only443,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Bare => "bare",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::SymmetricRandom => "symmetric-random",
            Self::Cgnat => "cgnat",
            Self::UdpBlocked => "udp-blocked",
            Self::Only443 => "only-443",
        }
    }

    /// The NATs that a host passes, the nearest first.
    pub fn nats(self) -> Vec<NatConfig> {
        let home = NatConfig::default();
        match self {
            Self::Open => Vec::new(),
            Self::FullCone => vec![NatConfig { hairpin: true, ..home.filtering(EndpointIndependent) }],
            Self::AddressRestricted => vec![home.filtering(AddressDependent)],
            Self::PortRestricted => vec![home],
            Self::Bare => vec![NatConfig { unsolicited: Unsolicited::Taken, ..home }],
            Self::SymmetricSequential => {
                let ports = Ports::Sequential { step: 1 };
                vec![NatConfig { ports, ..home.mapping(AddressAndPortDependent) }]
            }
            Self::SymmetricRandom => vec![corporate()],
            Self::Cgnat => vec![home, carrier()],
            Self::UdpBlocked => vec![NatConfig { udp_allowed: false, ..home }],
            Self::Only443 => {
                vec![NatConfig { udp_allowed: false, tcp_ports_allowed: Some(vec![443]), ..corporate() }]
            }
        }
    }
}

impl NatConfig {
    /// The same with this mapping for UDP and TCP.
    pub fn mapping(self, mapping: Dependence) -> Self {
        Self { udp_mapping: mapping, tcp_mapping: mapping, ..self }
    }

    /// The same with this filtering for UDP and TCP.
    pub fn filtering(self, filtering: Dependence) -> Self {
        Self { udp_filtering: filtering, tcp_filtering: filtering, ..self }
    }
}

impl Default for NatConfig {
    /// A home router that follows the RFCs: [`Preset::PortRestricted`].
    fn default() -> Self {
        Self {
            udp_mapping: EndpointIndependent,
            udp_filtering: AddressAndPortDependent,
            tcp_mapping: EndpointIndependent,
            tcp_filtering: AddressAndPortDependent,
            ports: Ports::Preserving,
            // RFC 4787 REQ-5 asks for two minutes at least, and that is what most have.
            udp_expiry: Duration::from_secs(120),
            udp_inbound_refreshes: true,
            // RFC 5382 REQ-5: two hours and four minutes, and four minutes.
            tcp_expiry: Duration::from_secs(7_440),
            tcp_transitory_expiry: Duration::from_secs(240),
            hairpin: false,
            unsolicited: Unsolicited::Drop,
            // Netfilter's on a machine with 1 GiB of memory.
            table_limit: 65_536,
            udp_allowed: true,
            tcp_ports_allowed: None,
            ipv6_filtering: Some(AddressAndPortDependent),
        }
    }
}

/// Stricter and more forgetful than the RFCs ask for, as companies' firewalls are.
fn corporate() -> NatConfig {
    NatConfig {
        ports: Ports::Random,
        udp_expiry: Duration::from_secs(30),
        udp_inbound_refreshes: false,
        tcp_expiry: Duration::from_secs(3_600),
        unsolicited: Unsolicited::Reset,
        ..NatConfig::default().mapping(AddressAndPortDependent)
    }
}

/// By RFC 6888: endpoint-independent mapping, hairpinning, and a bounded block of ports for each customer.
fn carrier() -> NatConfig {
    NatConfig {
        ports: Ports::Block { size: 2_048 },
        udp_expiry: Duration::from_secs(120),
        hairpin: true,
        table_limit: 1 << 20,
        ..NatConfig::default()
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| format!("{name:?} is no NAT; there are {}", known()))
    }
}
