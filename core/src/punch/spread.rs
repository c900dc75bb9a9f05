//! A fan that is being worked through: which pair of socket and port is next.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::fan::{Fan, Ports, Sockets};
use super::ports::Shuffled;
use crate::ids::SockId;
use crate::link::udp::UdpPath;

/// A fan that is being worked through.
#[derive(Debug)]
pub(super) struct Spread {
    /// Whether there is more than one pair.
    is_many: bool,
    is_guess: bool,
    sockets: Vec<SockId>,
    ports: Ports,
    openers: u32,
    passes: u32,
    pause: Duration,
    /// How many sockets are still to be opened, and at which port.
    closed: u16,
    port: Option<u16>,
    /// Whether it is to have the sockets that are open when it begins.
    inherits: bool,
    pass: u32,
    /// Within the pass.
    next: usize,
    pass_began: Instant,
}

impl Spread {
    pub(super) fn new(start: Instant, fan: Fan, main: SockId) -> Self {
        let is_many = fan.pairs() > 1;
        let (sockets, closed, port) = match fan.sockets {
            Sockets::Main => (vec![main], 0, None),
            Sockets::New(count) => (Vec::new(), count, None),
            Sockets::At(port) => (Vec::new(), 1, Some(port)),
            Sockets::Opened => (Vec::new(), 0, None),
        };
        Self {
            is_many,
            is_guess: fan.is_guess,
            sockets,
            ports: fan.ports,
            openers: fan.openers,
            passes: fan.passes,
            pause: fan.pause,
            closed,
            port,
            inherits: fan.sockets == Sockets::Opened,
            pass: 0,
            next: 0,
            pass_began: start + fan.after,
        }
    }

    /// When its next probe may leave.
    pub(super) fn due(&self) -> Instant {
        // The first probe of a pass waits; the others follow as fast as they may.
        self.pass_began
    }

    fn width(&self) -> usize {
        match &self.ports {
            Ports::Given(list) => list.len(),
            Ports::Random(_, count) => usize::try_from(*count).unwrap_or(usize::MAX),
        }
    }

    /// Whether the next probe leaves by a socket that is not open yet.
    pub(super) fn wants_socket(&self) -> bool {
        self.closed > 0 && self.pass == 0 && self.next / self.width().max(1) >= self.sockets.len()
    }

    /// At which port it is to be; none for any.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// It is there now.
    pub(super) fn opened(&mut self, socket: SockId) {
        self.closed = self.closed.saturating_sub(1);
        self.sockets.push(socket);
    }

    /// Begins, where it has waited for the sockets of others.
    pub(super) fn inherit(&mut self, opened: &[SockId]) {
        if self.inherits && self.sockets.is_empty() {
            self.sockets = opened.to_vec();
        }
    }

    /// Whether what it sends uses entries of the own NAT's table that fans before have made.
    pub(super) fn renews_entries(&self) -> bool {
        self.inherits
    }

    /// No further socket is to be had: it goes on with those that there are.
    pub(super) fn no_more(&mut self) {
        self.closed = 0;
        if self.sockets.is_empty() {
            self.pass = self.passes;
        }
    }

    /// The next pair, and the time to live if it is not the usual one.
    pub(super) fn next(&mut self, now: Instant, shuffled: &mut Shuffled) -> Option<(UdpPath, Option<u8>)> {
        let width = self.width().max(1);
        let socket = self.sockets.get(self.next / width).copied();
        let to = match &self.ports {
            Ports::Given(list) => list.get(self.next % width).copied(),
            Ports::Random(ip, _) => shuffled.next().map(|port| SocketAddr::new(*ip, port)),
        };
        let ttl = (self.pass < self.openers).then_some(OPENER_TTL);
        self.next += 1;
        if self.next >= width * (self.sockets.len() + usize::from(self.closed)).max(1) {
            self.next = 0;
            self.pass += 1;
            self.pass_began = (self.pass_began + self.pause).max(now);
        }
        Some((UdpPath::new(socket?, to?), ttl))
    }

    /// Whether it is a round of a guess.
    pub(super) fn is_guess(&self) -> bool {
        self.is_guess
    }

    /// Whether what it sends next makes an entry in the own NAT's table, one of many.
    pub(super) fn makes_entry(&self) -> bool {
        self.is_many && self.pass == 0
    }

    /// Whether it has been through all.
    pub(super) fn is_over(&self) -> bool {
        self.pass >= self.passes
    }
}

/// Through one NAT. See the plan for those that are further away.
const OPENER_TTL: u8 = 2;
