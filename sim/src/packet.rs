//! What travels: UDP datagrams, TCP segments, and ICMP "too big".

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::host::HostId;
use crate::tcp::segment::{Segment, TCP_HEADER};

#[derive(Debug, Clone)]
pub(crate) struct Packet {
    /// The host that sent it, whatever address a gateway gave it since: partitions go by hosts.
    pub(crate) origin: HostId,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) hops: u8,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Udp {
        bytes: Bytes,
        ecn: u8,
    },
    Tcp(Segment),
    /// ICMP: a packet that went from this one's `to` to its `from` was larger than the next link.
    TooBig {
        transport: Transport,
        mtu: u16,
    },
}

/// The transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// What a packet is, as the log shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A UDP datagram.
    Udp,
    /// The first segment of a TCP connection.
    Syn,
    /// Its answer.
    SynAck,
    /// A TCP segment with data.
    Data,
    /// A TCP segment without.
    Ack,
    /// A TCP segment that ends a direction.
    Fin,
    /// A TCP keepalive or window probe.
    Probe,
    /// A TCP reset.
    Reset,
    /// ICMP "too big".
    TooBig,
}

impl Packet {
    pub(crate) fn transport(&self) -> Transport {
        match &self.body {
            Body::Udp { .. } => Transport::Udp,
            Body::Tcp(_) => Transport::Tcp,
            Body::TooBig { transport, .. } => *transport,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match &self.body {
            Body::Udp { .. } => Kind::Udp,
            Body::Tcp(segment) => segment.kind(),
            Body::TooBig { .. } => Kind::TooBig,
        }
    }

    /// Bytes on the wire, headers included.
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Udp { bytes, .. } => header(self.to.ip()) + UDP_HEADER + bytes.len(),
            Body::Tcp(segment) => segment.size(header(self.to.ip())),
            Body::TooBig { .. } => header(self.to.ip()) + 36,
        }
    }

    /// Bounds the maximum segment size that a TCP connection agrees on, so that its packets fit `mtu`.
    pub(crate) fn clamp_mss(&mut self, mtu: u16) {
        let ip = header(self.to.ip());
        if let Body::Tcp(Segment::Syn { mss, .. } | Segment::SynAck { mss, .. }) = &mut self.body {
            let room = usize::from(mtu).saturating_sub(ip + TCP_HEADER);
            *mss = (*mss).min(u16::try_from(room).unwrap_or(u16::MAX));
        }
    }

    /// The largest IP packet in it: a TCP segment stands for a burst of packets.
    pub(crate) fn largest(&self) -> usize {
        match &self.body {
            Body::Tcp(segment) => segment.largest(header(self.to.ip())),
            Body::Udp { .. } | Body::TooBig { .. } => self.size(),
        }
    }
}

/// The IP header's bytes, by the family of an address.
pub(crate) fn header(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

pub(crate) const UDP_HEADER: usize = 8;

/// How many gateways a packet may pass; ends what goes in circles.
pub(crate) const HOP_LIMIT: u8 = 64;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Udp => "udp",
            Self::Syn => "tcp syn",
            Self::SynAck => "tcp syn+ack",
            Self::Data => "tcp data",
            Self::Ack => "tcp ack",
            Self::Fin => "tcp fin",
            Self::Probe => "tcp probe",
            Self::Reset => "tcp reset",
            Self::TooBig => "icmp too big",
        })
    }
}
