//! A fan: one of several sockets, or ports, or both, each of which is tried in turn.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// From which sockets to which ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fan {
    /// When it may begin, counted from the attempt's start. It waits for its turn, too.
    pub after: Duration,
    /// From where.
    pub sockets: Sockets,
    /// To where.
    pub ports: Ports,
    /// How often each pair is tried.
    pub passes: u32,
    /// Between the beginnings of two passes, at least.
    pub pause: Duration,
    /// How many passes are openers, with a short time to live.
    pub openers: u32,
    /// Whether it is a round of a guess.
    pub is_guess: bool,
}

/// From where a fan sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// The node's own port.
    Main,
    /// So many new sockets.
    New(u16),
    /// A new one at this port.
    At(u16),
    /// The new ones that fans before have opened.
    Opened,
}

/// To where a fan sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// These.
    Given(Vec<SocketAddr>),
    /// So many ports of one address, all different.
    Random(IpAddr, u32),
}

impl Fan {
    /// How many pairs of a socket and a port it adds to those of the fans before.
    pub fn pairs(&self) -> u32 {
        let sockets = match self.sockets {
            Sockets::Main | Sockets::At(_) => 1,
            Sockets::New(count) => u32::from(count),
            Sockets::Opened => 0,
        };
        let ports = match &self.ports {
            Ports::Given(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
            Ports::Random(_, count) => *count,
        };
        sockets.saturating_mul(ports)
    }
}

/// Between two probes of one attempt: 190 a second, and with ten at once never more than 200.
pub const GAP: Duration = Duration::from_micros(5_250);
