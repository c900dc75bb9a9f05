//! Messages about relays and about nodes that are shared with other users.

use serde::{Deserialize, Serialize};

use super::{MAX_TEXT, Message, Request, kind};
use crate::ids::{AttemptId, PeerName, PublicKey, UserName};
use crate::path::RungSet;
use crate::relay::{RelayOffer, RelaySecret, TicketKey};
use crate::tunnel::AllowRule;
use crate::wire::codec::{list, text};

message!(PushRelayKeys, kind::PUSH_RELAY_KEYS, PushRelayKeysReply);
message!(PushRelayCheck, kind::PUSH_RELAY_CHECK, PushRelayCheckReply);
message!(RelayNodeReq, kind::RELAY_NODE_REQ, RelayNodeRsp);
message!(PushRelayOffer, kind::PUSH_RELAY_OFFER, PushRelayOfferReply);
message!(PushRelayNews, kind::PUSH_RELAY_NEWS, PushRelayNewsReply);
message!(PushShares, kind::PUSH_SHARES, PushSharesReply);

/// What a node offers as a relay; a part of [`super::Report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayReport {
    /// Whether it serves all users, and not its own alone.
    #[serde(rename = "super")]
    pub super_relay: bool,
    /// Its TCP port, at the address that the server sees the node at.
    pub port: u16,
    /// What those whom it relays for share, in Mbit/s; 0 for no limit.
    pub bandwidth_mbps: u32,
}

/// How busy a relay is; a part of [`super::Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RelayLoad {
    /// Pairs that it relays for now.
    pub sessions: u32,
    /// What it carried since the last heartbeat, in Mbit/s.
    pub mbps: u32,
    /// What it has carried since it started, in bytes.
    pub bytes: u64,
}

/// A measured round trip to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRtt {
    /// The relay's identity.
    pub relay: PublicKey,
    /// The round trip, in milliseconds.
    pub ms: u32,
}

/// The secrets by which a node uses and serves relays; in [`super::ReportReply`], and pushed at a change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RelaySecrets {
    /// The user's relay secret, the newest first; while it is being changed there are two.
    #[serde(deserialize_with = "list::<_, _, MAX_SECRETS>")]
    pub user: Vec<RelaySecret>,
    /// The key of the tickets for this relay, fresh at each login; none for a node that is no relay.
    #[serde(default)]
    pub tickets: Option<TicketKey>,
}

/// From the server: these secrets hold from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRelayKeys {
    /// All of them.
    pub keys: RelaySecrets,
}

/// The answer to [`PushRelayKeys`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRelayKeysReply {}

/// From the server to a relay: what came of the check from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRelayCheck {
    /// Whether it could be reached. One that could not is offered to nobody.
    pub reachable: bool,
    /// Why not; empty where it could.
    #[serde(deserialize_with = "text::<_, MAX_TEXT>")]
    pub reason: String,
}

/// The answer to [`PushRelayCheck`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRelayCheckReply {}

/// "Which relays may I use for that attempt?" Asked where what came with the attempt is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayNodeReq {
    /// The attempt, which runs.
    pub attempt: AttemptId,
    /// The other side of it.
    pub peer: PeerName,
    /// The rungs of relays that are wanted.
    pub rungs: RungSet,
    /// Relays that were of no use.
    #[serde(deserialize_with = "list::<_, _, MAX_EXCLUDED>")]
    pub exclude: Vec<PublicKey>,
    /// Round trips to relays, as measured of late.
    #[serde(default, deserialize_with = "list::<_, _, MAX_RTTS>")]
    pub rtts: Vec<RelayRtt>,
}

/// The answer to [`RelayNodeReq`]. The other side gets its offers by [`PushRelayOffer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayNodeRsp {
    /// The relays, the best first.
    #[serde(deserialize_with = "list::<_, _, MAX_OFFERS>")]
    pub offers: Vec<RelayOffer>,
}

/// From the server: the other side of an attempt has asked for relays; this is what to meet it with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRelayOffer {
    /// The attempt.
    pub attempt: AttemptId,
    /// The other side, as the receiver names it.
    pub peer: PeerName,
    /// The relays, the best first.
    #[serde(deserialize_with = "list::<_, _, MAX_OFFERS>")]
    pub offers: Vec<RelayOffer>,
}

/// The answer to [`PushRelayOffer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRelayOfferReply {}

/// From the server to a node that uses a relay: there may be a better one now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRelayNews {}

/// The answer to [`PushRelayNews`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRelayNewsReply {}

/// What nodes of another user may reach at a node that is shared with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The other user.
    pub user: UserName,
    /// The targets, as far as the node's own `-allow` opens them too.
    pub targets: Targets,
}

/// Targets that a peer of another user may open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Targets(#[serde(deserialize_with = "list::<_, _, MAX_TARGETS>")] pub Vec<AllowRule>);

/// From the server to a node: it is shared with these users from now on, and with no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushShares {
    /// One a user.
    #[serde(deserialize_with = "list::<_, _, MAX_SHARES>")]
    pub shares: Vec<Share>,
}

/// The answer to [`PushShares`]: streams that are not allowed any more have been reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushSharesReply {}

/// The most secrets of one user: while one is replaced, the old and the new.
pub const MAX_SECRETS: usize = 2;
/// The most relays that one attempt is offered at a time: two of a tier, and the server.
pub const MAX_OFFERS: usize = 8;
/// The most relays that a node may decline: the two of each tier that it was offered last, and those before.
pub const MAX_EXCLUDED: usize = 16;
/// The most round trips in one message: more relays than one node is ever offered in an hour.
pub const MAX_RTTS: usize = 32;
/// The most relays that one node is told to ask by STUN: two an address family, so that one that is silent or
/// lies is not the only one.
pub const MAX_STUN_RELAYS: usize = 4;
/// The most targets of one share: who needs more shares a network.
pub const MAX_TARGETS: usize = 64;
/// The most users that one node is shared with.
pub const MAX_SHARES: usize = 256;
/// The most bytes that all shares of a node take in a message: beside the names of a thousand peers they
/// have to fit an answer to a report.
pub const MAX_SHARE_BYTES: usize = 16 * 1024;
