//! Who a session is between, and what it has its driver do.

use std::net::SocketAddr;

use super::UdpRoute;
use crate::agent::io::SessionNews;
use crate::ids::{PublicKey, SockId};
use crate::link::LinkKeys;
use crate::link::udp::Transmit;
use crate::punch::tcp::From;

/// A link of this session, named by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// What the driver has to do.
#[derive(Debug)]
pub enum Action {
    /// Connect by TCP; then [`Session::connected`](super::Session::connected) or [`Session::closed`](super::Session::closed).
    Dial {
        /// The link that comes of it.
        link: LinkId,
        /// Where to.
        to: SocketAddr,
        /// From which port.
        from: From,
    },
    /// Connect to the server's relay inside a WebSocket; then [`Session::connected`](super::Session::connected) or [`Session::closed`](super::Session::closed).
    DialServer {
        /// The link that comes of it.
        link: LinkId,
    },
    /// Let datagrams come to a link over UDP.
    Route(UdpRoute),
    /// A link over UDP is over. Send these last datagrams.
    Unroute {
        /// What led to it.
        route: UdpRoute,
        /// What to send, as it goes.
        farewell: Option<(Transmit, Vec<u8>)>,
    },
    /// Open a further UDP socket for a link; then [`Session::opened`](super::Session::opened).
    OpenSocket {
        /// Which.
        link: LinkId,
        /// At which port; none for any.
        port: Option<u16>,
    },
    /// Close such a socket.
    CloseSocket(SockId),
    /// Write these last bytes, as far as they go at once, and close.
    Close {
        /// Which.
        link: LinkId,
        /// What to write behind whatever has not been written yet.
        farewell: Vec<u8>,
        /// Whether the close is to be a reset: the same two ports may have to meet again at once, which they could
        /// not for a minute after an orderly end (RFC 9293 section 3.6.1).
        reset: bool,
    },
    /// Tell the agent.
    News(SessionNews),
    /// The peer is leaving in order, and says why.
    PeerLeaving(String),
}

/// Who the two are.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// This node's keys.
    pub keys: LinkKeys,
    /// This node's identity.
    pub own: PublicKey,
    /// The peer's identity: every link must prove it.
    pub peer: PublicKey,
    /// Random, one a process.
    pub instance: [u8; 16],
    /// Counts the sessions of this process.
    pub number: u64,
    /// The socket by which links over UDP are tried for; none for none of these.
    pub socket: Option<SockId>,
    /// 32 fresh secret bytes.
    pub seed: [u8; 32],
}
