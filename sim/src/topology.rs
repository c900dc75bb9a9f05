//! Whole neighbourhoods in one call, with addresses that do not collide.

use crate::fabric::{GatewayId, NetworkId};
use crate::host::HostId;
use crate::link::LinkConfig;
use crate::nat::{NatConfig, Preset};
use crate::world::World;

/// A host behind NATs, and what lies between it and the internet.
#[derive(Debug, Clone)]
pub struct Home {
    /// The host.
    pub host: HostId,
    /// The network that it is attached to.
    pub network: NetworkId,
    /// The NATs, the nearest first.
    pub gateways: Vec<GatewayId>,
    /// The address by which the internet sees it.
    pub public: String,
}

impl World {
    /// A host with a public address, `number` telling it apart: `198.18.x.y`, of the range that is set aside
    /// for such uses (RFC 2544).
    pub fn public_host(&self, name: &str, number: u16, line: LinkConfig) -> HostId {
        let host = self.host(name);
        self.attach(host, self.internet(), &[&format!("{}/32", public(number))], line);
        host
    }

    /// A host behind what `preset` names; `line` is the access line to the internet. Every home has the same
    /// private addresses, as homes do.
    pub fn home(&self, name: &str, number: u16, preset: Preset, line: LinkConfig) -> Home {
        self.behind(name, number, preset.nats(), line)
    }

    /// The same behind any NATs, the nearest first.
    pub fn behind(&self, name: &str, number: u16, nats: Vec<NatConfig>, line: LinkConfig) -> Home {
        let public = public(number);
        let mut gateways = Vec::new();
        let mut outside = (self.internet(), format!("{public}/32"));
        // From the internet inwards; only the outermost line is one that costs time.
        for (depth, nat) in nats.into_iter().enumerate().collect::<Vec<_>>().into_iter().rev() {
            let network = self.lan(&format!("{name} lan {depth}"));
            let (own, next) = if depth == 0 {
                ("192.168.1.1/24", "192.168.1.2/24")
            } else {
                ("100.64.0.1/10", "100.64.0.2/10")
            };
            let link = if gateways.is_empty() { line.clone() } else { LinkConfig::lan() };
            let gateway = self.gateway(
                &format!("{name} nat {depth}"),
                (network, &[own]),
                (outside.0, &[&outside.1]),
                Some(nat),
                link,
            );
            gateways.insert(0, gateway);
            outside = (network, next.to_owned());
        }
        let host = self.host(name);
        let link = if gateways.is_empty() { line } else { LinkConfig::lan() };
        self.attach(host, outside.0, &[&outside.1], link);
        Home { host, network: outside.0, gateways, public }
    }
}

/// The public address of that number.
pub(crate) fn public(number: u16) -> String {
    format!("198.18.{}.{}", number >> 8, number & 0xff)
}
