//! NATs and stateful firewalls, in the terms of RFC 4787 (UDP) and RFC 5382 (TCP).
//!
//! A NAT sits between a network and the one beyond it, and may sit behind another one (CGNAT). What leaves
//! makes or finds a *mapping*, which gives it an outside address; whether a new destination finds the old
//! mapping is the *mapping behaviour*. What comes in needs a mapping, and must pass the *filtering
//! behaviour*: who has to have been written to before. IPv6 is not translated; its firewall is a mapping
//! that changes nothing.
//!
//! TCP is followed as far as its time-outs need: opening, open, closing. A segment from inside for which
//! there is no mapping makes one whatever its flags, as netfilter does, so a NAT that has forgotten a
//! connection gives it another port, and the far end answers with a reset. A reset that is the only answer
//! to what has left ends the right to answer, as with netfilter: whoever comes later was not asked for.
//!
//! A NAT without a firewall takes what nobody asked for to be for itself ([`Unsolicited::Taken`]), and has then to
//! tell that apart from what those inside send to the same peer.

mod preset;
mod seen;
mod table;

use std::net::IpAddr;
use std::time::Duration;

pub use preset::Preset;
pub use seen::{Numbers, SEEN, Seen};
use table::Table;

use crate::clock::Time;
use crate::link::DropCause;
use crate::packet::{Body, HOP_LIMIT, Packet, Transport};
use crate::rng::Rng;

/// What a NAT does.
#[derive(Debug, Clone, PartialEq)]
pub struct NatConfig {
    /// For UDP, which destinations share a mapping (RFC 4787 section 4.1).
    pub udp_mapping: Dependence,
    /// For UDP, who may send to a mapping (RFC 4787 section 5).
    pub udp_filtering: Dependence,
    /// For TCP, which destinations share a mapping (RFC 5382 section 4.1).
    pub tcp_mapping: Dependence,
    /// For TCP, who may open a connection to a mapping (RFC 5382 section 4.3).
    pub tcp_filtering: Dependence,
    /// Which outside port a mapping gets (RFC 4787 section 4.2).
    pub ports: Ports,
    /// When a UDP mapping, and the right of a peer to use it, ends (RFC 4787 section 4.3).
    pub udp_expiry: Duration,
    /// Whether what comes in keeps a UDP mapping alive; what leaves always does.
    pub udp_inbound_refreshes: bool,
    /// When an open TCP connection that is silent ends (RFC 5382 section 5).
    pub tcp_expiry: Duration,
    /// The same while it opens or closes.
    pub tcp_transitory_expiry: Duration,
    /// Whether hosts inside reach each other by their outside addresses (RFC 4787 section 6).
    pub hairpin: bool,
    /// What becomes of what nobody inside asked for (RFC 5382 section 4.3).
    pub unsolicited: Unsolicited,
    /// How many peers of all mappings together the table has room for.
    pub table_limit: usize,
    /// Whether UDP may leave.
    pub udp_allowed: bool,
    /// The ports to which TCP may leave; none is all.
    pub tcp_ports_allowed: Option<Vec<u16>>,
    /// Who may send to an IPv6 address from which something has left; none lets everything in.
    pub ipv6_filtering: Option<Dependence>,
}

/// What a behaviour depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Not on the peer.
    EndpointIndependent,
    /// On the peer's address.
    AddressDependent,
    /// On the peer's address and port.
    AddressAndPortDependent,
}

/// Which outside port a mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The same as inside, or the next free one; any free one where the NAT takes what is unsolicited, as
    /// netfilter does. Two mappings share it where their peers tell them apart, as with netfilter.
    Preserving,
    /// The last one plus so many.
    Sequential {
        /// How many.
        step: u16,
    },
    /// Any free one.
    Random,
    /// The next free one of a contiguous block that belongs to the inside host, as carriers assign them for
    /// the sake of their logs.
    Block {
        /// Ports a host.
        size: u16,
    },
}

/// What becomes of what nobody inside asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    /// It vanishes.
    Drop,
    /// TCP is answered with a reset; UDP vanishes.
    Reset,
    /// It is for the NAT itself, as with Linux's masquerade where there is no firewall. TCP is answered with a
    /// reset, and then forgotten. Of UDP an entry stays, for half a minute after the last packet: what leaves for
    /// that peer meanwhile cannot have the same outside port, so it gets another one, and so does all that the
    /// same inside port begins from then on. IPv6, which is for nobody but the host inside, vanishes.
    Taken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Inside,
    Outside,
}

/// What becomes of a packet.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on, on the other side.
    Forward(Packet),
    /// It goes back to the side that it came from.
    Hairpin(Packet),
    Drop(Packet, DropCause),
    /// It is dropped, and an answer goes back.
    Answer {
        packet: Packet,
        cause: DropCause,
        answer: Packet,
    },
}

#[derive(Debug)]
pub(crate) struct Nat {
    config: NatConfig,
    outside: Vec<IpAddr>,
    table: Table,
}

impl Nat {
    /// A NAT with these addresses in the network beyond.
    pub(crate) fn new(config: NatConfig, outside: Vec<IpAddr>) -> Self {
        Self { config, outside, table: Table::default() }
    }

    /// Forgets all mappings.
    pub(crate) fn reboot(&mut self) {
        self.table = Table::default();
    }

    pub(crate) fn pass(&mut self, now: Time, side: Side, mut packet: Packet, rng: &mut Rng) -> Verdict {
        let hairpin = side == Side::Inside && self.outside.contains(&packet.to.ip());
        if hairpin && !self.config.hairpin {
            return Verdict::Drop(packet, DropCause::NoHairpin);
        }
        if side == Side::Inside
            && let Err(cause) = self.leave(now, &mut packet, rng)
        {
            return Verdict::Drop(packet, cause);
        }
        // With hairpinning the receiver sees the outside address of the sender (RFC 4787 REQ-9).
        if (side == Side::Outside || hairpin)
            && let Err(refusal) = self.enter(now, &mut packet)
        {
            if side == Side::Outside {
                self.take(now, &packet);
            }
            return self.refuse(packet, refusal);
        }
        if hairpin { Verdict::Hairpin(packet) } else { Verdict::Forward(packet) }
    }

    /// Gives a packet that leaves its outside address.
    fn leave(&mut self, now: Time, packet: &mut Packet, rng: &mut Rng) -> Result<(), DropCause> {
        let transport = packet.transport();
        if !self.config.allows(transport, packet.to.port()) {
            return Err(DropCause::Forbidden);
        }
        packet.from = match phase(&packet.body) {
            Some(phase) => self.table.outbound(&self.config, &self.outside, now, (packet, phase), rng)?,
            // ICMP about a packet that came in: that one's mapping.
            None => self.table.outside_of(transport, packet.from, packet.to).ok_or(DropCause::NoMapping)?,
        };
        Ok(())
    }

    /// Gives a packet that comes in its inside address.
    fn enter(&mut self, now: Time, packet: &mut Packet) -> Result<(), DropCause> {
        if packet.to.is_ipv4() || self.config.ipv6_filtering.is_some() {
            packet.to = self.table.inbound(&self.config, now, packet, phase(&packet.body))?;
        }
        Ok(())
    }

    /// What comes with its last hop: the NAT does not pass it on, but may take it for its own.
    pub(crate) fn expire(&mut self, now: Time, side: Side, packet: &Packet) {
        if side == Side::Outside && !self.table.is_asked_for(&self.config, now, packet) {
            self.take(now, packet);
        }
    }

    /// Notes what came in unasked, where it is taken to be for the NAT itself.
    fn take(&mut self, now: Time, packet: &Packet) {
        let is_own = matches!(packet.body, Body::Udp { .. }) && packet.to.is_ipv4();
        if is_own && self.config.unsolicited == Unsolicited::Taken {
            self.table.claim(&self.config, now, packet);
        }
    }

    fn refuse(&self, packet: Packet, cause: DropCause) -> Verdict {
        let reset = match &packet.body {
            Body::Tcp(segment) => match self.config.unsolicited {
                Unsolicited::Reset => segment.reset(),
                Unsolicited::Taken if packet.to.is_ipv4() => segment.reset(),
                Unsolicited::Drop | Unsolicited::Taken => None,
            },
            Body::Udp { .. } | Body::TooBig { .. } => None,
        };
        let Some(reset) = reset else { return Verdict::Drop(packet, cause) };
        let answer = Packet {
            origin: packet.origin,
            from: packet.to,
            to: packet.from,
            hops: HOP_LIMIT,
            body: Body::Tcp(reset),
        };
        Verdict::Answer { packet, cause, answer }
    }
}

impl NatConfig {
    /// Whether its rules let something leave to that port.
    fn allows(&self, transport: Transport, port: u16) -> bool {
        match transport {
            Transport::Udp => self.udp_allowed,
            Transport::Tcp => self.tcp_ports_allowed.as_ref().is_none_or(|ports| ports.contains(&port)),
        }
    }
}

/// Whether it is TCP's word that there is no such connection.
fn is_reset(body: &Body) -> bool {
    matches!(body, Body::Tcp(segment) if segment.kind() == crate::packet::Kind::Reset)
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Datagrams,
    Opening,
    Open,
    Closing,
}

/// What a packet says about where its session stands; none of ICMP.
fn phase(body: &Body) -> Option<Phase> {
    use crate::packet::Kind;
    match body {
        Body::Udp { .. } => Some(Phase::Datagrams),
        Body::TooBig { .. } => None,
        Body::Tcp(segment) => Some(match segment.kind() {
            Kind::Syn | Kind::SynAck => Phase::Opening,
            Kind::Fin | Kind::Reset => Phase::Closing,
            Kind::Data | Kind::Ack | Kind::Probe | Kind::Udp | Kind::TooBig => Phase::Open,
        }),
    }
}
