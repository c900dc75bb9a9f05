//! What goes into the prober and what comes out of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Config;
use super::report::NatReport;

/// One of the prober's UDP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Socket {
    /// The node's own port, which carries the links too: always there.
    Main,
    /// One that has written to nobody yet, of IPv4 if true: shows what a filter lets in.
    Fresh(bool),
    /// One that is left alone, to see how long its mapping lives.
    Idle(bool),
    /// One whose mapping shows how far a NAT has counted.
    Latest(bool),
}

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// The server has these addresses, the first of each family is used, and answers STUN at these ports.
    Servers(&'a [IpAddr], Config),
    /// These relays answer STUN: further addresses to ask where the server has one alone.
    Relays(&'a [SocketAddr]),
    /// This host has these addresses, and the node's own UDP port is this. Told again, it means that the
    /// network has changed, though the addresses may be the same.
    Network {
        /// The addresses of the interfaces.
        addresses: &'a [IpAddr],
        /// The local port of [`Socket::Main`].
        port: u16,
    },
    /// Whether the signalling connection is up: then the server is there, and what does not come through is
    /// blocked.
    Signalling(bool),
    /// This node will have had mappings of UDP made after so long: where ports go in steps, it is looked at how far
    /// they have gone.
    Mapped(Duration),
    /// A datagram whose first byte says STUN (0 to 3, RFC 7983).
    Datagram {
        /// Where it was received.
        socket: Socket,
        /// Where it came from.
        from: SocketAddr,
        /// What it says.
        bytes: &'a [u8],
    },
    /// What came of [`Action::Exchange`]: the connection's local address and the answer; none if there was
    /// no connection, or no answer in time.
    Exchanged {
        /// Which.
        id: u64,
        /// What.
        result: Option<(SocketAddr, &'a [u8])>,
    },
    /// Nothing but time: a deadline may have come.
    Tick,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bind a UDP socket to any port. If that fails, nothing is sent on it and nothing received.
    Open(Socket),
    /// Close it.
    Close(Socket),
    /// Send a datagram. One that cannot be sent counts as lost.
    Send {
        /// From where.
        socket: Socket,
        /// To where.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Connect to `to` from the port that the node listens on, send `request`, read one STUN message, end
    /// the connection. Answered by [`Input::Exchanged`] within about ten seconds, always.
    Exchange {
        /// The name that the prober chose for it.
        id: u64,
        /// To where.
        to: SocketAddr,
        /// What.
        request: Vec<u8>,
    },
    /// What is known has changed.
    Report(Box<NatReport>),
}
