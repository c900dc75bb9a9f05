//! What goes into the agent and what comes out of it. All of it is plain data, so that it can be recorded
//! and replayed.

use std::net::{IpAddr, SocketAddr};

use crate::ids::{AttemptId, ConnId, PeerName, PublicKey};
use crate::path::{Outcome, Rung};
use crate::session::Attempt;
use crate::tunnel::ForwardRule;

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// The node waits for its peers' links on these ports.
    Listening {
        /// TCP's.
        tcp: u16,
        /// UDP's; none if there is no UDP.
        udp: Option<u16>,
    },
    /// The addresses of the interfaces that are up, at start and whenever they change.
    Interfaces(&'a [IpAddr]),
    /// The signalling connection that [`Action::OpenSignal`] asked for is up.
    SignalOpened {
        /// Which.
        conn: ConnId,
        /// The server's address.
        remote: SocketAddr,
        /// Whether TLS is below it.
        tls: bool,
    },
    /// A whole signalling message.
    SignalReceived {
        /// Which.
        conn: ConnId,
        /// The WebSocket message's content.
        message: &'a [u8],
    },
    /// The signalling connection could not be opened, or ended.
    SignalClosed {
        /// Which.
        conn: ConnId,
        /// Why, for people.
        reason: &'a str,
    },
    /// News of the session with a peer.
    Session {
        /// Which peer.
        peer: &'a PeerName,
        /// What.
        event: SessionNews,
    },
    /// What became of a forward's listener ([`Action::Listen`]).
    Forward {
        /// Its name.
        name: &'a str,
        /// Where it listens, or why it does not.
        result: Result<SocketAddr, String>,
    },
    /// Nothing but time: a deadline may have come.
    Tick,
    /// End in order: say goodbye, then [`Action::Exit`].
    Shutdown,
}

/// What a session tells the agent.
#[derive(Debug, Clone)]
pub enum SessionNews {
    /// Somebody wants to send, and there is no link.
    Wanted,
    /// A link has been nominated.
    Up {
        /// Its rung.
        rung: Rung,
        /// The address at its other end.
        remote: SocketAddr,
    },
    /// The link is the same, and its other end is elsewhere.
    Moved {
        /// The address at its other end.
        remote: SocketAddr,
    },
    /// The last link is gone. Streams are kept for a while.
    Down {
        /// Why.
        reason: String,
    },
    /// An attempt is over, one way or the other.
    AttemptDone {
        /// Which attempt.
        attempt: AttemptId,
        /// What became of each rung.
        outcomes: Vec<Outcome>,
    },
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Action {
    /// Connect to the server. Answered by [`Input::SignalOpened`] or [`Input::SignalClosed`].
    OpenSignal {
        /// The name that the agent chose for it.
        conn: ConnId,
    },
    /// Send one binary message.
    SendSignal {
        /// Where.
        conn: ConnId,
        /// What.
        message: Vec<u8>,
    },
    /// Close, with a WebSocket close code (RFC 6455 section 7.4). No [`Input::SignalClosed`] follows.
    CloseSignal {
        /// Which.
        conn: ConnId,
        /// The code.
        code: u16,
    },
    /// Listen for a forward. Answered by [`Input::Forward`].
    Listen {
        /// What to listen for.
        rule: ForwardRule,
    },
    /// Stop listening for a forward; its open connections go on.
    Unlisten {
        /// Its name.
        name: String,
    },
    /// Let the session with that peer (made, if there is none) try to find a path. The key is the one of
    /// earlier attempts, unless none of those ever brought a link: then it may be another one, and whatever
    /// session there is with the old one is to go.
    Attempt {
        /// The peer, as this node names it.
        peer: PeerName,
        /// Its identity, pinned.
        key: PublicKey,
        /// What to try.
        attempt: Attempt,
    },
    /// An attempt could not even begin; streams that have yet to be opened at the peer end with this reason.
    /// Those that were open there wait on for a link, as long as the session lets them.
    Unreachable {
        /// The peer.
        peer: PeerName,
        /// Why.
        reason: String,
    },
    /// Write a file of the node's store.
    Save {
        /// Its name.
        name: &'static str,
        /// Its content.
        content: Vec<u8>,
    },
    /// The machine has ended; nothing follows.
    Exit(Exit),
}

/// How the agent ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exit {
    /// As asked.
    #[error("stopped")]
    Stopped,
    /// The server refused the first login, or its identity is not the pinned one: running on would not help.
    #[error("{0}")]
    Refused(String),
}
