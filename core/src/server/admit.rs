//! From a proven login to a node that is online: is there room, is the name its own, is it there already?

use std::net::SocketAddr;
use std::time::Instant;

use super::io::Action;
use super::pins::Conflict;
use super::{NodeId, Server};
use crate::auth::login::{PROOF_REQUEST, ServerProved};
use crate::ids::{ConnId, PublicKey};
use crate::wire::encode;
use crate::wire::message::{Code, LoginDone, Refused};

impl Server {
    /// Token and key are proven: lets the node in, or refuses it. Either answer is sealed.
    pub(super) fn admit(&mut self, now: Instant, conn: ConnId, remote: SocketAddr, proved: ServerProved) {
        let ServerProved { hello, mut channel, mac } = proved;
        let name = NodeId { user: hello.user, node: hello.node };
        let key = hello.key;
        let instance = hello.instance.map(|instance| instance.into_array());
        if let Err(refused) = self.may_enter(now, &name, key, instance) {
            tracing::info!(user = %name.user, node = %name.node, code = ?refused.code, "login refused");
            self.counters.logins_refused += 1;
            let message = channel.sealer.seal(&encode(PROOF_REQUEST, &refused));
            self.actions.push_back(Action::Send { conn, message });
            self.actions.push_back(Action::Close {
                conn,
                code: super::CLOSE_POLICY,
                reason: "login refused",
            });
            return;
        }

        let unix = self.clock.unix(now);
        let done = LoginDone {
            mac: mac.into(),
            server_time_ms: super::millis(unix),
            observed: remote,
            heartbeat_ms: super::millis(self.config.heartbeat),
            software: self.config.software.clone(),
            stun: self.config.stun,
            stun_relays: self.relays.stun(&name, &key, remote.ip()),
        };
        let message = channel.sealer.seal(&encode(PROOF_REQUEST, &done));
        self.actions.push_back(Action::Trust { conn });
        self.actions.push_back(Action::Send { conn, message });
        let new = self.pins.pin(now, &name, key, unix.as_secs());
        self.counters.logins += 1;
        tracing::info!(user = %name.user, node = %name.node, new, "node logged in");
        self.registry.insert(now, conn, (name, key, instance), remote, unix.as_secs(), channel);
    }

    fn may_enter(
        &mut self,
        now: Instant,
        name: &NodeId,
        key: PublicKey,
        instance: Option<[u8; 16]>,
    ) -> Result<(), Refused> {
        self.pins.check(name, &key, self.config.caps.pins).map_err(|conflict| match conflict {
            Conflict::NameTaken => Refused::new(
                Code::NameTaken,
                format!(
                    "the name belongs to another key; where that key is lost, the admin frees the name by \
                     DELETE /api/v1/nodes/{name}/key"
                ),
            ),
            Conflict::KeyInUse(other) => Refused::new(
                Code::KeyInUse,
                format!(
                    "this key holds another name; use that one, or another key, or free it by \
                     DELETE /api/v1/nodes/{other}/key"
                ),
            ),
            Conflict::Full => Refused::new(Code::Busy, "the server knows as many nodes as it can"),
        })?;
        // Only the same key can be there already: the pin has just been checked.
        if let Some(old) = self.registry.conn(name) {
            // The very process that is there already has lost its connection, however often: no second machine.
            let there = self.registry.node(old).and_then(|node| node.instance);
            let same = instance.is_some() && instance == there;
            if !same && !self.swaps.allow(now, name) {
                tracing::warn!(
                    user = %name.user, node = %name.node,
                    "two machines log in as the same node in turns: give one of them a name and a key of its own"
                );
                let text = "this node is logged in elsewhere, and the two have replaced each other too often: \
                            refused for 60 s; give one of them a name and a key of its own";
                return Err(Refused::new(Code::Busy, text));
            }
            self.replace(old);
        } else if self.registry.len() >= self.config.caps.nodes {
            return Err(Refused::new(Code::Busy, "the server has as many nodes online as it can"));
        }
        Ok(())
    }

    /// The newest login wins: the old connection is told why it ends.
    fn replace(&mut self, old: ConnId) {
        let text = "the same node has logged in again, from here or from elsewhere";
        self.registry.send(&mut self.actions, old, super::NO_REQUEST, &Refused::new(Code::Replaced, text));
        self.end(old, CLOSE_REPLACED, "replaced");
    }
}

/// WebSocket close code (RFC 6455 section 7.4.2: 4000 to 4999 are ours): the same node logged in again.
const CLOSE_REPLACED: u16 = 4001;
