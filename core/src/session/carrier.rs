//! The connections of a session: each from its first try on, whatever carries it.
//!
//! A connection over TCP is dialled or accepted, and there may be many in an attempt. Over UDP there is one an
//! attempt, on both sides from the start: it tries all the peer's addresses itself.

use std::net::SocketAddr;
use std::time::Instant;

use super::lane::Lane;
use super::nomination::Nomination;
use super::punching::Punch;
use super::relay::{Door, Through};
use super::{Ending, LinkId};
use crate::ids::AttemptId;
use crate::link::udp::{UdpPath, Upper};
use crate::link::{TcpLink, UdpLink};
use crate::mux::{Decoder, Frame, Mux};
use crate::path::{Rung, Transport};

/// One connection.
pub(super) struct Slot {
    pub(super) id: LinkId,
    pub(super) attempt: AttemptId,
    /// The peer's address: for UDP, once it is known, the one that the path leads to.
    pub(super) remote: Option<SocketAddr>,
    /// Whether the peer is seen at an address of its own interface.
    pub(super) direct: bool,
    /// Whether the peer says so of this node.
    pub(super) seen_direct: bool,
    /// Known once it may be nominated (controlling side), or was (the other).
    pub(super) rung: Option<Rung>,
    /// Since when it has not been the nominated one.
    pub(super) spare_since: Instant,
    pub(super) stage: Stage,
    /// Another was nominated because this one is silent, or dead at the peer's end; until something comes.
    pub(super) doubted: bool,
    /// It has been left, or is to be, because it was silent or lost too much: anything else is better, and a new
    /// link is sought rather than this one taken up again.
    pub(super) poor: bool,
    /// The relay that it goes to; none for a connection to the peer itself.
    pub(super) relay: Option<Box<Through>>,
    pub(super) carrier: Carrier,
}

/// What carries it.
pub(super) enum Carrier {
    /// A TCP connection that is being dialled.
    Dialled,
    Tcp(Box<Tcp>),
    Udp(Box<Udp>),
}

/// A TCP connection that is up.
pub(super) struct Tcp {
    pub(super) link: TcpLink,
    pub(super) decoder: Decoder,
    pub(super) lane: Lane,
    /// What the handshake has to send.
    pub(super) early: Vec<u8>,
    /// The relay's handshake, until the peer is there behind it.
    pub(super) door: Option<Door>,
}

/// A link over UDP.
pub(super) struct Udp {
    pub(super) link: UdpLink,
    pub(super) lane: Lane,
    pub(super) punch: Punch,
    /// How many authentic frames had come when the peer was last taken to be alive.
    pub(super) frames: u64,
    /// Whether this side's hello is out, and whether the peer's came before that.
    pub(super) greeted: bool,
    pub(super) met: bool,
    /// The path that the session knows of.
    pub(super) path: Option<UdpPath>,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Handshake,
    /// This side's hello is out.
    Greeted,
    /// The peer's is in: the link may be nominated.
    Ready,
}

impl Slot {
    pub(super) fn transport(&self) -> Transport {
        match &self.carrier {
            Carrier::Dialled | Carrier::Tcp(_) => Transport::Tcp,
            Carrier::Udp(_) => Transport::Udp,
        }
    }

    pub(super) fn lane(&self) -> Option<&Lane> {
        match &self.carrier {
            Carrier::Dialled => None,
            Carrier::Tcp(tcp) => Some(&tcp.lane),
            Carrier::Udp(udp) => Some(&udp.lane),
        }
    }

    pub(super) fn lane_mut(&mut self) -> Option<&mut Lane> {
        match &mut self.carrier {
            Carrier::Dialled => None,
            Carrier::Tcp(tcp) => Some(&mut tcp.lane),
            Carrier::Udp(udp) => Some(&mut udp.lane),
        }
    }

    /// The rung, where both have said of each other whether they see them at an address of their own interface.
    pub(super) fn rung_now(&self) -> Rung {
        self.rung_with(self.seen_direct)
    }

    /// The same, with what the peer may say.
    pub(super) fn rung_with(&self, seen_direct: bool) -> Rung {
        if let Some(through) = &self.relay {
            return through.rung();
        }
        match (self.transport(), self.direct || seen_direct) {
            (Transport::Udp, true) => Rung::UdpDirect,
            (Transport::Udp, false) => Rung::UdpPunch,
            (Transport::Tcp, true) => Rung::TcpDirect,
            (Transport::Tcp, false) => Rung::TcpPunch,
        }
    }

    /// The best that may still come of it.
    pub(super) fn hope(&self) -> Rung {
        self.rung.unwrap_or_else(|| self.rung_with(true))
    }
}

/// What is above a link over UDP: its lane, and what all links share.
pub(super) struct Above<'a> {
    pub(super) id: LinkId,
    pub(super) lane: &'a mut Lane,
    pub(super) nomination: &'a mut Nomination,
}

impl Upper for Above<'_> {
    type Error = Ending;

    fn carrying(&self) -> Option<u32> {
        self.nomination.lane_epoch(self.id)
    }

    fn take(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), Ending> {
        self.lane.frame(now, self.id, frame, self.nomination)
    }

    fn fill(&mut self, now: Instant, out: &mut [u8]) -> usize {
        self.lane.fill(now, out)
    }

    fn mux(&mut self) -> &mut Mux {
        &mut self.nomination.mux
    }
}
