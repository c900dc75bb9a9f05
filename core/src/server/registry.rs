//! The nodes that are logged in: one connection each, what it reported, and how long it has been silent.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::NodeId;
use super::io::Action;
use crate::auth::SecureChannel;
use crate::due::Due;
use crate::ids::{ConnId, PeerName, PublicKey};
use crate::nat::NatReport;
use crate::path::{Candidate, Rung, RungSet};
use crate::wire::encode;
use crate::wire::message::{MAX_RTTS, Message, RelayRtt};

/// A node that is logged in.
#[derive(Debug)]
pub(super) struct Online {
    /// Who it is.
    pub(super) name: NodeId,
    /// Its identity, proven.
    pub(super) key: PublicKey,
    /// Which process it is, if it says so.
    pub(super) instance: Option<[u8; 16]>,
    /// Where its connection comes from.
    pub(super) remote: SocketAddr,
    /// When it logged in, in seconds since 1970.
    pub(super) since: u64,
    /// What it said of itself; until then nobody can reach it.
    pub(super) reported: Option<Reported>,
    /// Its round trip to the server, as it measured it last.
    pub(super) rtt_ms: Option<u32>,
    /// Its round trips to relays, as it measured them last; at most [`MAX_RTTS`].
    pub(super) rtts: BTreeMap<PublicKey, u32>,
    /// The rung of a relay by which it reached a peer last; none if it needed none.
    pub(super) relayed: Option<Rung>,
    channel: SecureChannel,
    heard: Instant,
}

/// What a node said of itself. At most 32 candidates and 512 bytes of text, as the message's type has it.
#[derive(Debug)]
pub(super) struct Reported {
    pub(super) software: String,
    pub(super) platform: String,
    /// Those that it claims.
    pub(super) candidates: Vec<Candidate>,
    /// Those that the STUN ports have seen.
    pub(super) reflexive: Vec<Candidate>,
    /// What it has found out about its NATs, with what was seen alone.
    pub(super) nat: NatReport,
    pub(super) rungs: RungSet,
}

impl Online {
    /// Takes note of round trips to relays. Beyond the cap all earlier ones are forgotten: what was measured
    /// last counts.
    pub(super) fn measured(&mut self, rtts: &[RelayRtt]) {
        if self.rtts.len() + rtts.len() > MAX_RTTS {
            self.rtts.clear();
        }
        self.rtts.extend(rtts.iter().map(|rtt| (rtt.relay, rtt.ms)));
    }

    /// How the node on `other` names this one.
    pub(super) fn named_by(&self, other: &NodeId) -> PeerName {
        let user = (self.name.user != other.user).then(|| self.name.user.clone());
        PeerName { node: self.name.node.clone(), user }
    }
}

/// All nodes that are logged in. Whoever inserts keeps the cap.
#[derive(Debug)]
pub(super) struct Registry {
    nodes: BTreeMap<ConnId, Online>,
    by_name: BTreeMap<NodeId, ConnId>,
    /// When each connection is looked at next: if it has been heard since, its entry moves on.
    silence: Due<ConnId>,
    patience: Duration,
}

impl Registry {
    /// A registry that holds a connection for dead after `patience` of silence.
    pub(super) fn new(patience: Duration) -> Self {
        Self { nodes: BTreeMap::new(), by_name: BTreeMap::new(), silence: Due::default(), patience }
    }

    /// A node logged in. No other connection may hold its name.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        conn: ConnId,
        (name, key, instance): (NodeId, PublicKey, Option<[u8; 16]>),
        remote: SocketAddr,
        since: u64,
        channel: SecureChannel,
    ) {
        self.by_name.insert(name.clone(), conn);
        self.silence.insert(now + self.patience, conn);
        let online = Online {
            name,
            key,
            instance,
            remote,
            since,
            reported: None,
            rtt_ms: None,
            rtts: BTreeMap::new(),
            relayed: None,
            channel,
            heard: now,
        };
        self.nodes.insert(conn, online);
    }

    /// The connection is over.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Online> {
        let online = self.nodes.remove(&conn)?;
        self.by_name.remove(&online.name);
        Some(online)
    }

    /// Opens a sealed message; none if it is not one of this connection's peer.
    pub(super) fn open(&mut self, now: Instant, conn: ConnId, sealed: &[u8]) -> Option<Vec<u8>> {
        let online = self.nodes.get_mut(&conn)?;
        let plain = online.channel.opener.open(sealed).ok()?;
        online.heard = now;
        Some(plain)
    }

    /// Sends a message, sealed.
    pub(super) fn send<M: Message>(
        &mut self,
        out: &mut VecDeque<Action>,
        conn: ConnId,
        request: u32,
        message: &M,
    ) {
        let Some(online) = self.nodes.get_mut(&conn) else { return };
        let message = online.channel.sealer.seal(&encode(request, message));
        out.push_back(Action::Send { conn, message });
    }

    /// The next connection that has been silent for too long.
    pub(super) fn silent(&mut self, now: Instant) -> Option<ConnId> {
        while let Some(conn) = self.silence.pop(now) {
            let Some(online) = self.nodes.get(&conn) else { continue };
            let due = online.heard + self.patience;
            if due <= now {
                return Some(conn);
            }
            self.silence.insert(due, conn);
        }
        None
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.silence.next().map(|at| (at, "silence of a node"))
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, conn: ConnId) -> Option<&Online> {
        self.nodes.get(&conn)
    }

    pub(super) fn node_mut(&mut self, conn: ConnId) -> Option<&mut Online> {
        self.nodes.get_mut(&conn)
    }

    pub(super) fn conn(&self, name: &NodeId) -> Option<ConnId> {
        self.by_name.get(name).copied()
    }

    /// The node of that name, if it is logged in.
    pub(super) fn named(&self, name: &NodeId) -> Option<(ConnId, &Online)> {
        let conn = self.conn(name)?;
        Some((conn, self.nodes.get(&conn)?))
    }

    /// All nodes, with their connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &Online)> {
        self.nodes.iter().map(|(conn, online)| (*conn, online))
    }

    /// All connections.
    pub(super) fn conns(&self) -> Vec<ConnId> {
        self.nodes.keys().copied().collect()
    }
}
