//! What lies between the nodes of a scenario and the internet: whose house, which NATs, IPv6.

use std::time::Duration;

use super::{Place, Scenario, What};
use crate::nat::{NatConfig, Ports, Preset, Unsolicited};

/// How the NATs of a node depart from what their preset says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// How many peers of all mappings together the nearest one has room for; 0 is what the preset says.
    pub table: u16,
    /// After how many seconds a silent UDP mapping ends; 0 is what the preset says.
    pub expiry: u16,
    /// The same of an open TCP connection.
    pub tcp_expiry: u16,
    /// What comes in keeps no UDP mapping alive.
    pub forgetful: bool,
    /// Whether hosts inside reach each other by their outside addresses; none is what the preset says.
    pub hairpin: Option<bool>,
    /// TCP that nobody asked for is answered with a reset.
    pub resets: bool,
    /// How the nearest one assigns ports; none is what the preset says.
    pub ports: Option<Assignment>,
}

/// How a NAT assigns ports, as far as scenarios tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignment {
    /// The one of the inside, if it is free.
    Preserving,
    /// The last one plus so many.
    Step(u16),
    /// Any.
    Random,
    /// The next one of so many that belong to a host.
    Block(u16),
}

/// The IPv6 of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V6 {
    /// Behind a firewall that lets in what was asked for, where there is a NAT for IPv4.
    Firewalled,
    /// With nothing between it and the internet.
    Open,
}

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// What tells the houses apart.
    pub house: usize,
    /// What tells those apart who share a public address.
    pub carrier: usize,
    /// Whether they reach each other by it.
    pub hairpins: bool,
    /// The NAT.
    pub preset: Preset,
    /// Its quirks.
    pub quirks: Quirks,
    /// The IPv6.
    pub v6: Option<V6>,
}

impl Scenario {
    /// The home that a node lives in: its own number, or that of the node it lives with.
    pub fn home(&self, node: usize) -> usize {
        match self.nodes[node].place {
            Place::Own(_) | Place::Beside(_) => node,
            Place::With(host) => host,
        }
    }

    /// Where a node is before anything happens.
    pub fn begins_at(&self, node: usize) -> Site {
        let house = self.home(node);
        let (carrier, preset) = match self.nodes[house].place {
            Place::Own(preset) => (house, preset),
            Place::Beside(host) => (host, Preset::Cgnat),
            // Not so: nobody lives with somebody who lives with somebody.
            Place::With(host) => (host, Preset::Open),
        };
        let home = &self.nodes[house];
        let v6 = match (home.place, home.v6, self.nodes[carrier].v6) {
            (Place::Beside(_), Some(V6::Open), Some(V6::Open)) => Some(V6::Open),
            // The carrier has to have it, and its firewall counts too.
            (Place::Beside(_), own, carriers) => own.and(carriers).and(Some(V6::Firewalled)),
            (Place::Own(_) | Place::With(_), own, _) => own,
        };
        let hairpins = self.nodes[carrier].quirks.hairpin != Some(false);
        Site { house, carrier, hairpins, preset, quirks: home.quirks, v6 }
    }

    /// Where a node is after all has happened.
    pub fn ends_at(&self, node: usize) -> Site {
        let moves = self.faults.iter().filter_map(|fault| match fault.what {
            What::Move(who, preset) if who == node => Some((fault.at, preset)),
            _ => None,
        });
        // Of two at one instant the later one in the list happens later.
        match moves.max_by_key(|(at, _)| *at) {
            None => self.begins_at(node),
            Some((_, preset)) => {
                let house = self.nodes.len() + node;
                Site { house, carrier: house, hairpins: true, preset, quirks: Quirks::default(), v6: None }
            }
        }
    }

    /// All NATs that there are at any time.
    pub fn presets(&self) -> impl Iterator<Item = Preset> {
        let moved = self.faults.iter().filter_map(|fault| match fault.what {
            What::Move(_, preset) => Some(preset),
            _ => None,
        });
        (0..self.nodes.len()).map(|node| self.begins_at(node).preset).chain(moved)
    }
}

impl Site {
    /// The NATs, the nearest first.
    pub fn nats(&self) -> Vec<NatConfig> {
        let mut nats = self.preset.nats();
        for (depth, nat) in nats.iter_mut().enumerate() {
            self.quirks.apply(nat, depth == 0);
            if self.v6 == Some(V6::Open) {
                nat.ipv6_filtering = None;
            }
        }
        nats
    }
}

impl Quirks {
    fn apply(&self, nat: &mut NatConfig, nearest: bool) {
        let seconds = |number: u16| Duration::from_secs(number.into());
        if self.expiry > 0 {
            nat.udp_expiry = seconds(self.expiry);
        }
        if self.tcp_expiry > 0 {
            nat.tcp_expiry = seconds(self.tcp_expiry);
        }
        nat.udp_inbound_refreshes &= !self.forgetful;
        nat.hairpin = self.hairpin.unwrap_or(nat.hairpin);
        // What takes it answers TCP with a reset anyway.
        if self.resets && nat.unsolicited == Unsolicited::Drop {
            nat.unsolicited = Unsolicited::Reset;
        }
        if nearest {
            if self.table > 0 {
                nat.table_limit = self.table.into();
            }
            nat.ports = match self.ports {
                None => nat.ports,
                Some(Assignment::Preserving) => Ports::Preserving,
                Some(Assignment::Step(step)) => Ports::Sequential { step },
                Some(Assignment::Random) => Ports::Random,
                Some(Assignment::Block(size)) => Ports::Block { size },
            };
        }
    }
}
