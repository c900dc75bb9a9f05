//! The signalling messages: what each says, which kind number it has, and which answer it gets.
//!
//! A message is a MessagePack map with the field names below (see `codec`), so that a later version may
//! add fields and an older one passes over what it does not know. **Every request is answered**: with the
//! reply of its kind, under the same request id, or with [`Refused`].

use std::fmt::{self, Write};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::ids::{AttemptId, NodeName, PeerName, PublicKey, UserName};
use crate::nat::NatReport;
use crate::path::{Candidate, Outcome, RungSet};
use crate::relay::RelayOffer;
use crate::wire::codec::{list, maybe_text, text};

/// Kind numbers. A reply's is its request's with [`kind::REPLY`] set.
pub mod kind {
    /// Set in the kind of a reply.
    pub const REPLY: u16 = 0x8000;
    /// [`super::Refused`]: the answer to any request that was not granted.
    pub const REFUSED: u16 = 0xffff;

    /// [`super::LoginHello`], in clear.
    pub const LOGIN_HELLO: u16 = 0x0001;
    /// [`super::LoginProof`], in clear; answered by [`super::LoginDone`], the first sealed message.
    pub const LOGIN_PROOF: u16 = 0x0002;

    /// [`super::Heartbeat`].
    pub const HEARTBEAT: u16 = 0x0010;
    /// [`super::Report`].
    pub const REPORT: u16 = 0x0011;
    /// [`super::Connect`].
    pub const CONNECT: u16 = 0x0012;
    /// [`super::PunchStart`].
    pub const PUNCH_START: u16 = 0x0013;
    /// [`super::PeerOnline`].
    pub const PEER_ONLINE: u16 = 0x0014;
    /// [`super::AttemptReport`].
    pub const ATTEMPT_REPORT: u16 = 0x0015;
    /// [`super::PushForward`].
    pub const PUSH_FORWARD: u16 = 0x0016;
    /// [`super::Goodbye`].
    pub const GOODBYE: u16 = 0x0017;
    /// [`super::PushRelayKeys`].
    pub const PUSH_RELAY_KEYS: u16 = 0x0018;
    /// [`super::PushRelayCheck`].
    pub const PUSH_RELAY_CHECK: u16 = 0x0019;
    /// [`super::RelayNodeReq`].
    pub const RELAY_NODE_REQ: u16 = 0x001a;
    /// [`super::PushRelayOffer`].
    pub const PUSH_RELAY_OFFER: u16 = 0x001b;
    /// [`super::PushRelayNews`].
    pub const PUSH_RELAY_NEWS: u16 = 0x001c;
    /// [`super::PushShares`].
    pub const PUSH_SHARES: u16 = 0x001d;
}

/// A message that has a kind number.
pub trait Message: Serialize + serde::de::DeserializeOwned {
    /// Its kind.
    const KIND: u16;
}

/// A request: a message that gets a reply of type `Reply`, or [`Refused`].
pub trait Request: Message {
    /// What answers it.
    type Reply: Message;
}

macro_rules! message {
    ($type:ident, $kind:expr) => {
        impl Message for $type {
            const KIND: u16 = $kind;
        }
    };
    ($type:ident, $kind:expr, $reply:ident) => {
        message!($type, $kind);
        message!($reply, $kind | kind::REPLY);
        impl Request for $type {
            type Reply = $reply;
        }
    };
}

message!(Refused, kind::REFUSED);
message!(LoginHello, kind::LOGIN_HELLO, LoginChallenge);
message!(LoginProof, kind::LOGIN_PROOF, LoginDone);
message!(Heartbeat, kind::HEARTBEAT, HeartbeatReply);
message!(Report, kind::REPORT, ReportReply);
message!(Connect, kind::CONNECT, ConnectReply);
message!(PunchStart, kind::PUNCH_START, PunchStartReply);
message!(PeerOnline, kind::PEER_ONLINE, PeerOnlineReply);
message!(AttemptReport, kind::ATTEMPT_REPORT, AttemptReportReply);
message!(PushForward, kind::PUSH_FORWARD, PushForwardReply);
message!(Goodbye, kind::GOODBYE, GoodbyeReply);

mod relay;
pub use relay::*;

/// Why a request was not granted. In MessagePack its kebab-case name; one that is not known reads as `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The kind is not known here. Never ends the connection.
    Unsupported,
    /// The body could not be read, or breaks a rule.
    BadRequest,
    /// No version in common.
    Version,
    /// The proof of the token failed (also for an unknown user).
    WrongToken,
    /// Too many failed logins from that address; try later.
    TooManyFailures,
    /// The node's name belongs to another key.
    NameTaken,
    /// The key already holds another name on this server.
    KeyInUse,
    /// The same node logged in again elsewhere; this connection ends.
    Replaced,
    /// No such node is known to this user.
    UnknownNode,
    /// The node is known but not online.
    Offline,
    /// The node asked for itself.
    Oneself,
    /// A cap was reached; try later.
    Busy,
    /// The policy of the one who was asked forbids it.
    NotAllowed,
    /// Whoever had to answer did not in time.
    Timeout,
    /// What was named is not there.
    NotFound,
    /// It was tried, and could not be done.
    Failed,
    /// A code of a later version.
    #[serde(other)]
    Other,
}

/// The answer to a request that was not granted. Kind 0xffff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for programs.
    pub code: Code,
    /// Why, for people; at most [`MAX_TEXT`] bytes.
    #[serde(deserialize_with = "text::<_, MAX_TEXT>")]
    pub text: String,
}

impl Refused {
    /// A refusal; a `text` that is too long is cut.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        let mut text = text.into();
        while text.len() > MAX_TEXT {
            text.pop();
        }
        Self { code, text }
    }
}

impl fmt::Display for Refused {
    /// The text without its control characters: it comes from the other side and goes to a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.chars().filter(|c| !c.is_control()).try_for_each(|c| f.write_char(c))
    }
}

/// The first message of a client, in clear. See `docs/protocol.md`, Login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginHello {
    /// The protocol versions that the client speaks; at most [`MAX_VERSIONS`].
    #[serde(deserialize_with = "list::<_, _, MAX_VERSIONS>")]
    pub versions: Vec<u8>,
    /// The user whose token it will prove.
    pub user: UserName,
    /// The name that the node wants.
    pub node: NodeName,
    /// The node's identity.
    pub key: PublicKey,
    /// 32 random bytes.
    pub nonce: ByteArray<32>,
    /// The client's SPAKE2 message (side A), 33 bytes.
    pub share: ByteBuf,
    /// Random, one a process: a login of the process that is there already is no second machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<ByteArray<16>>,
}

/// The server's answer to [`LoginHello`], in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginChallenge {
    /// The version chosen, out of the client's.
    pub version: u8,
    /// The server's identity.
    pub key: PublicKey,
    /// 32 random bytes.
    pub nonce: ByteArray<32>,
    /// The server's SPAKE2 message (side B), 33 bytes.
    pub share: ByteBuf,
    /// Ed25519 signature by the server's identity over everything so far.
    pub signature: ByteArray<64>,
}

/// The client's proof, in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginProof {
    /// HMAC-SHA256 under the client's confirmation key over the transcript.
    pub mac: ByteArray<32>,
    /// Ed25519 signature by the node's identity over the transcript.
    pub signature: ByteArray<64>,
}

/// The end of a login that succeeded: sealed, as everything after it. It comes behind the server's own
/// confirmation, see `auth::login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginDone {
    /// HMAC-SHA256 under the server's confirmation key over the transcript.
    pub mac: ByteArray<32>,
    /// The server's wall clock, in milliseconds since 1970.
    pub server_time_ms: u64,
    /// Where the server saw this connection come from.
    pub observed: SocketAddr,
    /// How often the client is to send [`Heartbeat`], in milliseconds; three of them missed end the connection.
    pub heartbeat_ms: u64,
    /// The software version of the server.
    #[serde(deserialize_with = "text::<_, MAX_TEXT>")]
    pub software: String,
    /// Where the server answers STUN, at the address that the client has connected to; none if nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stun: Option<StunPorts>,
    /// Further addresses at which STUN is answered over UDP: relays that this node may use. At most
    /// [`MAX_STUN_RELAYS`].
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::<_, _, MAX_STUN_RELAYS>"
    )]
    pub stun_relays: Vec<SocketAddr>,
}

/// A server's STUN ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StunPorts {
    /// The two for UDP.
    pub udp: [u16; 2],
    /// The two for TCP.
    pub tcp: [u16; 2],
}

/// "I am here." The answer carries the server's time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The round trip of the heartbeat before, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// How busy the node is, if it is a relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayLoad>,
}

/// The answer to [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// The server's wall clock, in milliseconds since 1970.
    pub server_time_ms: u64,
    /// As in [`LoginDone`], for now.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::<_, _, MAX_STUN_RELAYS>"
    )]
    pub stun_relays: Vec<SocketAddr>,
}

/// What the node is and where it can be reached: sent after login and whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The software version of the node.
    #[serde(deserialize_with = "text::<_, MAX_TEXT>")]
    pub software: String,
    /// The operating system, as `linux x86_64`.
    #[serde(deserialize_with = "text::<_, MAX_TEXT>")]
    pub platform: String,
    /// Where its peers may reach it; at most [`MAX_CANDIDATES`].
    #[serde(deserialize_with = "list::<_, _, MAX_CANDIDATES>")]
    pub candidates: Vec<Candidate>,
    /// The rungs it may use.
    pub rungs: RungSet,
    /// The peers whose coming online it wants to hear of; at most [`MAX_PEERS`].
    #[serde(deserialize_with = "list::<_, _, MAX_PEERS>")]
    pub peers: Vec<PeerName>,
    /// What it offers as a relay; none for a node that is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayReport>,
    /// What it has found out about the NATs before it, with proofs of its public addresses.
    #[serde(default)]
    pub nat: NatReport,
}

/// The answer to [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportReply {
    /// Those of the report's peers that are online.
    #[serde(deserialize_with = "list::<_, _, MAX_PEERS>")]
    pub online: Vec<PeerName>,
    /// The secrets by which the node uses and serves relays.
    #[serde(default)]
    pub keys: RelaySecrets,
    /// What nodes of other users may reach at this one.
    #[serde(default, deserialize_with = "list::<_, _, MAX_SHARES>")]
    pub shares: Vec<Share>,
}

/// "Bring me together with that node." Sent again for the same pair while an attempt runs, or by the other
/// side, it gets the same attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The node that is wanted.
    pub peer: PeerName,
    /// Where the asking node may be reached.
    #[serde(deserialize_with = "list::<_, _, MAX_CANDIDATES>")]
    pub candidates: Vec<Candidate>,
    /// The rungs that it may use.
    pub rungs: RungSet,
    /// Relays that are of no use to it; at most [`MAX_EXCLUDED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list::<_, _, MAX_EXCLUDED>")]
    pub exclude: Vec<PublicKey>,
}

/// The answer to [`Connect`]; a [`PunchStart`] follows to both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectReply {
    /// The attempt.
    pub attempt: AttemptId,
}

/// From the server to both sides: start. Acted on at arrival.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PunchStart {
    /// The attempt, the same on both sides.
    pub attempt: AttemptId,
    /// Whom to reach, as the receiver names it.
    pub peer: PeerName,
    /// The peer's identity: what its links must prove.
    pub key: PublicKey,
    /// Where the peer may be reached.
    #[serde(deserialize_with = "list::<_, _, MAX_CANDIDATES>")]
    pub candidates: Vec<Candidate>,
    /// The rungs that both sides may use.
    pub rungs: RungSet,
    /// 32 secret bytes that both sides and the server know: they authenticate prefaces and probes.
    pub punch_key: ByteArray<32>,
    /// Whether the receiver asked for this attempt.
    pub asked: bool,
    /// For a peer of another user: the only targets that it may open at the receiver. None for a node of
    /// the receiver's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,
    /// When both sides open TCP connections to each other at once, by the server's clock, in milliseconds since
    /// 1970; none to say that they had better not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_at_ms: Option<u64>,
    /// Relays that both sides may meet at, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list::<_, _, MAX_OFFERS>")]
    pub relays: Vec<RelayOffer>,
    /// What the peer has found out about the NATs before it. Public addresses that the server has not seen are
    /// left out, and proofs are.
    #[serde(default)]
    pub nat: NatReport,
}

impl fmt::Debug for PunchStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PunchStart")
            .field("attempt", &self.attempt)
            .field("peer", &self.peer)
            .field("key", &self.key)
            .field("candidates", &self.candidates)
            .field("rungs", &self.rungs)
            .field("punch_key", &"***")
            .field("asked", &self.asked)
            .field("targets", &self.targets)
            .field("tcp_at_ms", &self.tcp_at_ms)
            .field("relays", &self.relays)
            .field("nat", &self.nat)
            .finish()
    }
}

/// The answer to [`PunchStart`]: it has been started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PunchStartReply {}

/// From the server: a node that the receiver asked about came online (or came back).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerOnline {
    /// Which ones: news within 250 ms is gathered.
    #[serde(deserialize_with = "list::<_, _, MAX_PEERS>")]
    pub peers: Vec<PeerName>,
}

/// The answer to [`PeerOnline`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerOnlineReply {}

/// How an attempt went, rung by rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// The attempt.
    pub attempt: AttemptId,
    /// What became of each rung; at most [`MAX_OUTCOMES`].
    #[serde(deserialize_with = "list::<_, _, MAX_OUTCOMES>")]
    pub outcomes: Vec<Outcome>,
    /// Round trips to relays, as measured of late; at most [`MAX_RTTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list::<_, _, MAX_RTTS>")]
    pub rtts: Vec<RelayRtt>,
}

/// The answer to [`AttemptReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptReportReply {}

/// From the server, at the admin's wish: add a forward, or take it away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushForward {
    /// The forward's name; at most [`MAX_TEXT`] bytes.
    #[serde(deserialize_with = "text::<_, MAX_TEXT>")]
    pub name: String,
    /// What to set up, in the syntax of `-forward`; none to take it away.
    /// At most [`MAX_RULE`] bytes.
    #[serde(default, deserialize_with = "maybe_text::<_, MAX_RULE>")]
    pub rule: Option<String>,
}

/// The answer to [`PushForward`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushForwardReply {
    /// Where the node listens now, as `127.0.0.1:2222`; empty when it was taken away.
    #[serde(deserialize_with = "text::<_, MAX_TEXT>")]
    pub listen: String,
}

/// "I am leaving in order." The connection closes after the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {}

/// The answer to [`Goodbye`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodbyeReply {}

/// The most candidates in one message: 8 an address family and transport, and half as many reflexive ones.
pub const MAX_CANDIDATES: usize = 48;
/// The most peers that one node may ask about: its forwards, with room for sessions that others began.
pub const MAX_PEERS: usize = 1024;
/// The most outcomes in one report: one a rung, with room for rungs of a later version.
pub const MAX_OUTCOMES: usize = 16;
/// The most versions in one hello: nobody will keep more of them alive.
pub const MAX_VERSIONS: usize = 16;
/// The longest explanation, software version or forward name, in bytes: a line or two of a log.
pub const MAX_TEXT: usize = 256;
/// The longest forward rule, in bytes: two names of 64, a DNS name of 253, two addresses and two ports.
pub const MAX_RULE: usize = 512;
