//! What goes into the server and what comes out of it. All of it is plain data, so that it can be recorded
//! and replayed.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ConnId, NodeName, PublicKey, UserName};
use crate::tunnel::AllowRule;
use crate::wire::message::RelayLoad;

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A WebSocket connection is up; it has not logged in yet.
    Opened {
        /// The name that the driver chose for it; never used again.
        conn: ConnId,
        /// Where it comes from, seen through trusted proxies.
        remote: SocketAddr,
    },
    /// A whole binary message.
    Received {
        /// Which connection.
        conn: ConnId,
        /// The WebSocket message's content.
        message: &'a [u8],
    },
    /// The connection is gone.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// An authorised REST call. Answered by [`Action::AdminReply`], always.
    Admin {
        /// The name that the driver chose for it.
        id: u64,
        /// What is asked.
        request: AdminRequest,
    },
    /// What came of [`Action::CheckRelay`]: how long the relay took to answer, or why it did not, for people.
    RelayChecked {
        /// Which check.
        check: u64,
        /// What came of it.
        result: Result<Duration, String>,
    },
    /// What came of [`Action::CheckStun`]: those that answered.
    StunChecked {
        /// Which check.
        check: u64,
        /// Of the addresses that were asked.
        answered: Vec<SocketAddr>,
    },
    /// How busy the server's own relay is; before a REST call that shows it.
    RelayLoad(RelayLoad),
    /// Nothing but time: a deadline may have come.
    Tick,
    /// End in order: all connections are closed, and what is not saved yet is.
    Shutdown,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Action {
    /// The connection has logged in: it may send messages of full size from now on. Comes before the
    /// [`Self::Send`] that tells it so.
    Trust {
        /// Which.
        conn: ConnId,
    },
    /// Send one binary message.
    Send {
        /// Where.
        conn: ConnId,
        /// What.
        message: Vec<u8>,
    },
    /// Close, with a WebSocket close code (RFC 6455 section 7.4), once what was sent is out.
    Close {
        /// Which.
        conn: ConnId,
        /// The code.
        code: u16,
        /// Why; at most 123 bytes.
        reason: &'static str,
    },
    /// Write a file of the server's store.
    Save {
        /// Its name.
        name: &'static str,
        /// Its content.
        content: Vec<u8>,
    },
    /// Connect to a relay and have it prove its key, within a few seconds. Answered by
    /// [`Input::RelayChecked`], always.
    CheckRelay {
        /// The name of the check.
        check: u64,
        /// Where, and nowhere else.
        to: SocketAddr,
        /// The key that it has to prove.
        key: PublicKey,
    },
    /// Ask these UDP addresses by STUN, from a port that has never written to them, for a few seconds. Answered by
    /// [`Input::StunChecked`], always.
    CheckStun {
        /// The name of the check.
        check: u64,
        /// Whom: one address a family at most, and nobody else.
        to: Vec<SocketAddr>,
    },
    /// The answer to a REST call.
    AdminReply {
        /// Which.
        id: u64,
        /// What.
        reply: Result<AdminReply, AdminError>,
    },
}

/// A REST call, parsed and authorised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRequest {
    /// `GET /nodes`
    Nodes,
    /// `GET /nodes/{user}/{node}`
    Node(UserName, NodeName),
    /// `DELETE /nodes/{user}/{node}/key`
    ForgetKey(UserName, NodeName),
    /// `PUT /nodes/{user}/{node}/forwards/{name}`
    PushForward {
        /// Whose node.
        user: UserName,
        /// Which node.
        node: NodeName,
        /// The forward's name.
        name: String,
        /// The rule, in the syntax of `-forward`; none takes the forward away.
        rule: Option<String>,
    },
    /// `GET /relays`
    Relays,
    /// `GET /shares`
    Shares,
    /// `PUT /shares/{user}/{node}/{to-user}`, and `DELETE`
    Share {
        /// Whose node.
        user: UserName,
        /// Which node.
        node: NodeName,
        /// The user whose nodes may reach it.
        to: UserName,
        /// What they may reach; none ends the share.
        targets: Option<Vec<AllowRule>>,
    },
    /// `GET /metrics`
    Metrics,
}

/// What a REST call brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminReply {
    /// All nodes that are online or have a key pinned.
    Nodes(Vec<NodeView>),
    /// One node.
    Node(Box<NodeView>),
    /// Done, with nothing to tell.
    Done,
    /// A forward was set up; where the node listens.
    Listening(String),
    /// All nodes that relay.
    Relays(Vec<RelayView>),
    /// All shares.
    Shares(Vec<ShareView>),
    /// Figures, in the text format of Prometheus.
    Metrics(String),
}

/// Why a REST call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminError {
    /// The HTTP status that fits.
    pub status: u16,
    /// Why, for programs.
    pub code: &'static str,
    /// Why, for people.
    pub message: String,
}

/// A node, as the REST interface shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its user.
    pub user: UserName,
    /// Its name.
    pub node: NodeName,
    /// Its pinned key, 64 hexadecimal digits.
    pub key: KeyText,
    /// Whether it is logged in now.
    pub online: bool,
    /// Where its signalling connection comes from; none while it is offline.
    pub remote: Option<SocketAddr>,
    /// When it logged in last, in seconds since 1970; none if not since the server started.
    pub since: Option<u64>,
    /// The software version it reported; none while it is offline.
    pub software: Option<String>,
    /// The system it reported; none while it is offline.
    pub platform: Option<String>,
}

/// A relay, as the REST interface shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelayView {
    /// Whose node.
    pub user: UserName,
    /// Which node.
    pub node: NodeName,
    /// Its key, 64 hexadecimal digits.
    pub key: KeyText,
    /// Whether it serves all users.
    #[serde(rename = "super")]
    pub super_relay: bool,
    /// Where the server looks for it.
    pub address: SocketAddr,
    /// Whether the server reached it there. If not, it is offered to nobody.
    pub reachable: bool,
    /// Why not; none if it did.
    pub reason: Option<String>,
    /// How long it took to answer the server, in milliseconds; none until it did.
    pub rtt_ms: Option<u64>,
    /// What those whom it relays for share, in Mbit/s; 0 for no limit.
    pub limit_mbps: u32,
    /// Pairs that it relays for, as it said last.
    pub sessions: u32,
    /// What it carries, in Mbit/s, as it said last.
    pub mbps: u32,
    /// What it has carried since it started, in bytes, as it said last.
    pub bytes: u64,
    /// Where it answers STUN, as the server found.
    pub stun: Vec<SocketAddr>,
}

/// A share, as the REST interface and the file show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareView {
    /// Whose node.
    pub user: UserName,
    /// Which node.
    pub node: NodeName,
    /// The user whose nodes may reach it.
    pub to: UserName,
    /// What they may reach.
    pub targets: Vec<AllowRule>,
}

/// A key that serialises as text, in every format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyText(pub PublicKey);

impl Serialize for KeyText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
