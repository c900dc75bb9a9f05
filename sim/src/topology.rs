//! Whole neighbourhoods in one call, with addresses that do not collide.

use crate::fabric::{GatewayId, NetworkId};
use crate::fault::Fault;
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
    /// The network behind the outermost NAT, where there is one behind another.
    pub carrier: Option<NetworkId>,
    /// The NATs, the nearest first.
    pub gateways: Vec<GatewayId>,
    /// The address by which the internet sees it.
    pub public: String,
    /// The first groups of its IPv6 addresses, as text, if it has any.
    pub prefix: Option<String>,
}

/// A place for hosts: a network behind NATs, or the internet itself.
#[derive(Debug)]
struct Place {
    network: NetworkId,
    carrier: Option<NetworkId>,
    gateways: Vec<GatewayId>,
    /// The first host's addresses and line.
    addresses: Vec<String>,
    link: LinkConfig,
}

impl World {
    /// A host with a public address, `number` telling it apart: `198.18.x.y`, of the range that is set aside
    /// for such uses (RFC 2544).
    pub fn public_host(&self, name: &str, number: u16, line: LinkConfig) -> HostId {
        self.house(name, number, Vec::new(), line, false).host
    }

    /// A host behind what `preset` names; `line` is the access line to the internet. Every home has the same
    /// private addresses, as homes do.
    pub fn home(&self, name: &str, number: u16, preset: Preset, line: LinkConfig) -> Home {
        self.house(name, number, preset.nats(), line, false)
    }

    /// The same behind any NATs, the nearest first.
    pub fn behind(&self, name: &str, number: u16, nats: Vec<NatConfig>, line: LinkConfig) -> Home {
        self.house(name, number, nats, line, false)
    }

    /// The same, with IPv6 on top if it is asked for: a prefix of 2001:db8::/32 by its number.
    pub fn house(&self, name: &str, number: u16, nats: Vec<NatConfig>, line: LinkConfig, v6: bool) -> Home {
        let host = self.host(name);
        let place = self.place(name, number, nats, line, v6);
        let addresses: Vec<&str> = place.addresses.iter().map(String::as_str).collect();
        self.attach(host, place.network, &addresses, place.link.clone());
        place.home_of(host, number, v6)
    }

    /// One more host in a house; `number` tells it from the others there.
    pub fn housemate(&self, name: &str, house: &Home, number: u16) -> Home {
        let host = self.host(name);
        let addresses = house.addresses(number);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.attach(host, house.network, &addresses, LinkConfig::lan());
        Home { host, ..house.clone() }
    }

    /// Another house behind the carrier's NAT of `other`, with these NATs of its own; `number` tells it from
    /// the others there.
    ///
    /// # Panics
    ///
    /// When there is no carrier's NAT.
    pub fn neighbour(&self, name: &str, other: &Home, number: u16, nat: NatConfig, v6: bool) -> Home {
        let (Some(carrier), Some(outer)) = (other.carrier, other.gateways.last()) else {
            panic!("{} is behind no carrier's NAT", other.public)
        };
        let [low, high] = number.to_le_bytes();
        // Within the carrier's prefix, which is the other's.
        let prefix = other.prefix.as_ref().filter(|_| v6).map(|prefix| format!("{prefix}:{number:x}"));
        let mut outside = vec![format!("100.65.{high}.{low}/10")];
        let mut inside = vec!["192.168.1.1/24".to_owned()];
        if let (Some(prefix), Some(carriers)) = (&prefix, &other.prefix) {
            outside.push(format!("{carriers}:fe:{number:x}::1/48"));
            inside.push(format!("{prefix}::1/64"));
        }
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        let outside: Vec<&str> = outside.iter().map(String::as_str).collect();
        let network = self.lan(&format!("{name} lan"));
        let (name_of_nat, line) = (format!("{name} nat"), LinkConfig::lan());
        let own = self.gateway(&name_of_nat, (network, &inside), (carrier, &outside), Some(nat), line);
        let host = self.host(name);
        let (gateways, public) = (vec![own, *outer], other.public.clone());
        let home = Home { host, network, carrier: Some(carrier), gateways, public, prefix };
        let addresses = home.addresses(FIRST);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.attach(host, network, &addresses, LinkConfig::lan());
        home
    }

    /// Takes a host's first interface into a new place of that number, with these NATs.
    pub fn relocate(
        &self,
        host: HostId,
        name: &str,
        number: u16,
        nats: Vec<NatConfig>,
        line: LinkConfig,
    ) -> Home {
        let place = self.place(name, number, nats, line, false);
        let interface = "eth0".to_owned();
        self.inject(Fault::Links { host, interface: interface.clone(), config: place.link.clone() });
        self.inject(Fault::Roam {
            host,
            interface,
            network: Some(place.network),
            addresses: place.addresses.clone(),
        });
        place.home_of(host, number, false)
    }

    fn place(&self, name: &str, number: u16, nats: Vec<NatConfig>, line: LinkConfig, v6: bool) -> Place {
        let mut gateways = Vec::new();
        let mut carrier = None;
        let mut outside = (self.internet(), vec![format!("{}/32", public(number))]);
        let nested = nats.len() > 1;
        if v6 {
            outside.1.push(match nats.is_empty() {
                true => format!("{}::2/128", prefix(number)),
                false => format!("{}:ff::1/128", prefix(number)),
            });
        }
        // From the internet inwards; only the outermost line is one that costs time.
        for (depth, nat) in nats.into_iter().enumerate().collect::<Vec<_>>().into_iter().rev() {
            let network = self.lan(&format!("{name} lan {depth}"));
            let (mut own, mut next) = if depth == 0 {
                (vec!["192.168.1.1/24".to_owned()], vec!["192.168.1.2/24".to_owned()])
            } else {
                carrier = Some(network);
                (vec!["100.64.0.1/10".to_owned()], vec!["100.64.0.2/10".to_owned()])
            };
            if v6 && depth == 0 {
                own.push(format!("{}::1/64", prefix(number)));
                next.push(format!("{}::2/64", prefix(number)));
            } else if v6 {
                // The whole prefix of the customer is behind the carrier's router.
                own.push(format!("{}:fe::1/48", prefix(number)));
                next.push(format!("{}:fe::2/48", prefix(number)));
            }
            let link = if gateways.is_empty() { line.clone() } else { LinkConfig::lan() };
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            let beyond: Vec<&str> = outside.1.iter().map(String::as_str).collect();
            let name = format!("{name} nat {depth}");
            let gateway = self.gateway(&name, (network, &own), (outside.0, &beyond), Some(nat), link);
            gateways.insert(0, gateway);
            outside = (network, next);
        }
        debug_assert_eq!(nested, carrier.is_some());
        let link = if gateways.is_empty() { line } else { LinkConfig::lan() };
        Place { network: outside.0, carrier, gateways, addresses: outside.1, link }
    }
}

impl Place {
    /// What there is of it for `host`, the place being that of this number.
    fn home_of(self, host: HostId, number: u16, v6: bool) -> Home {
        Home {
            host,
            network: self.network,
            carrier: self.carrier,
            gateways: self.gateways,
            public: public(number),
            prefix: v6.then(|| prefix(number)),
        }
    }
}

impl Home {
    /// The addresses of a host in this house, by its number there.
    pub(crate) fn addresses(&self, host: u16) -> Vec<String> {
        let mut addresses = vec![format!("192.168.{}.{}/24", 1 + (host >> 8), host & 0xff)];
        addresses.extend(self.prefix.iter().map(|prefix| format!("{prefix}::{host:x}/64")));
        addresses
    }
}

/// The public address of that number.
pub(crate) fn public(number: u16) -> String {
    format!("198.18.{}.{}", number >> 8, number & 0xff)
}

/// The first groups of the IPv6 addresses of that number.
pub(crate) fn prefix(number: u16) -> String {
    format!("2001:db8:{number:x}")
}

/// The number of the first host in a house.
const FIRST: u16 = 2;
