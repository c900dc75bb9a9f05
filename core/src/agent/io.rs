//! What goes into the agent and what comes out of it. All of it is plain data, so that it can be recorded
//! and replayed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Expected, ReconnectSecret};
use crate::ids::{AttemptId, ConnId, PeerName, PublicKey};
use crate::nat::NatReport;
use crate::path::{Outcome, Rung};
use crate::relay::Access;
use crate::session::Attempt;
use crate::tunnel::ForwardRule;
use crate::wire::message::{RelayLoad, RelaySecrets, StunPorts, Targets};

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
    /// What the prober has found out about the NATs before the node; none at the start, if it is at work.
    Nat(Option<Box<NatReport>>),
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
    /// A packet of an attempt came that this node has not begun, and [`Action::Expect`] has named.
    Called {
        /// Which.
        attempt: AttemptId,
    },
    /// How busy the node's own relay is, now and then; its `mbps` is passed over.
    RelayLoad(RelayLoad),
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
        /// The relay that it goes through; none for a link that needs none.
        via: Option<Via>,
    },
    /// How long a relay takes to answer.
    RelayRtt {
        /// Its identity.
        relay: PublicKey,
        /// The round trip.
        rtt: Duration,
    },
    /// A relay that was offered turned out to be of no use.
    RelayFailed {
        /// Its identity.
        relay: PublicKey,
        /// Why.
        reason: String,
    },
    /// The relays of a running attempt are used up, or a permission was too old: others are wanted.
    RelaysWanted {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The link is the same, and one of its ends is elsewhere.
    Moved {
        /// What its rung is now.
        rung: Rung,
        /// The address at its other end.
        remote: SocketAddr,
    },
    /// A link has come up to a process of the peer's that was not known: for the time without the server this was
    /// agreed on.
    Agreed(ReconnectSecret),
    /// The link does not answer: others are to be sought while it is waited for.
    Suspect,
    /// The link, which is over UDP, loses so much that one that is not over UDP is to be sought.
    Poor {
        /// Its rung.
        rung: Rung,
        /// How much, for people.
        reason: String,
    },
    /// The last link is gone. Streams are kept for a while.
    Down {
        /// Why.
        reason: String,
        /// Whether the peer ended it, or has started anew: a relay between the two is not to blame.
        by_peer: bool,
    },
    /// An attempt is over, one way or the other.
    AttemptDone {
        /// Which attempt.
        attempt: AttemptId,
        /// What became of each rung.
        outcomes: Vec<Outcome>,
    },
}

/// The relay that a link goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// Its identity.
    pub relay: PublicKey,
    /// Its node's name as this node has it; none for the server.
    pub name: Option<PeerName>,
}

impl Via {
    /// As `status` shows it.
    pub fn shown(&self) -> String {
        self.name.as_ref().map_or_else(|| "server".to_owned(), PeerName::to_string)
    }
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
    /// Measure the NATs before the node against these ports of the server; what is found comes as
    /// [`Input::Nat`]. After each login.
    Probe {
        /// The server's address.
        server: IpAddr,
        /// Its ports.
        ports: StunPorts,
    },
    /// These relays answer STUN over UDP, in place of those before: further addresses for that. Few, and when it
    /// changes.
    StunRelays(Vec<SocketAddr>),
    /// An attempt has mappings of UDP made, and the NAT before this node counts: how far it has counted is to be
    /// measured after so long, and comes as [`Input::Nat`].
    Mapped(Duration),
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
        attempt: Box<Attempt>,
        /// All that the peer may open here, beside what the node's own policy allows; none for a node of the
        /// own user, for whom only that policy counts.
        targets: Option<Targets>,
    },
    /// There is news of the peer that may mean that it has forgotten its session: the link, if there is one, is
    /// to show that it still works.
    Doubt {
        /// The peer.
        peer: PeerName,
    },
    /// Watch for the first packets of these attempts, in place of those named before: [`Input::Called`].
    Expect(Vec<Expected>),
    /// More relays for an attempt that the session has.
    Offers {
        /// The peer.
        peer: PeerName,
        /// The attempt.
        attempt: AttemptId,
        /// The relays, the best first.
        relays: Vec<Access>,
    },
    /// What a peer of another user may open here has changed: streams to other targets are reset at once.
    Restrict {
        /// The peer.
        peer: PeerName,
        /// All that it may open from now on.
        targets: Targets,
        /// Whether the session is to end, since neither side has anything to open at the other any more.
        end: bool,
    },
    /// How often something has to leave for the NAT before this node to remember a mapping of UDP: for every
    /// session there is and will be.
    Keepalive(Duration),
    /// These secrets hold from now on: for the node's own relay, and for what it shows to others.
    RelaySecrets(RelaySecrets),
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
    /// The server refused the first login, or its identity is not the pinned one: running on would not help. Or the
    /// node failed.
    #[error("{0}")]
    Refused(String),
}
