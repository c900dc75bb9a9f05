//! Which nodes a node may know of, and what the admin changes about that.
//!
//! Nodes of one user see each other. A node of another user is seen only while it is shared; otherwise it is
//! as if it did not exist, and asking for it is answered the same whether it does or not.

use std::time::Instant;

use super::asks::Asked;
use super::io::{Action, AdminError, AdminReply};
use super::shares::SHARES_FILE;
use super::{NodeId, Server, coord};
use crate::ids::{PeerName, UserName};
use crate::tunnel::AllowRule;
use crate::wire::message::{PushShares, Refused, Share, Targets};

impl Server {
    /// Whom a node means by a name, if it may know of that node.
    pub(super) fn visible(&self, asker: &NodeId, peer: &PeerName) -> Result<NodeId, Refused> {
        coord::resolve(asker, peer, &self.shares)
    }

    /// Whether a node may know of that one.
    pub(super) fn sees(&self, asker: &NodeId, name: &NodeId) -> bool {
        name.user == asker.user || self.shares.targets(name, &asker.user).is_some()
    }

    /// The targets that `peer` may open at `node`; none where they are of the same user, and only the node's
    /// own policy counts.
    pub(super) fn targets(&self, node: &NodeId, peer: &NodeId) -> Option<Targets> {
        let foreign = node.user != peer.user;
        foreign.then(|| self.shares.targets(node, &peer.user).cloned().unwrap_or_default())
    }

    /// What nodes of other users may reach at a node.
    pub(super) fn shares_of(&self, node: &NodeId) -> Vec<Share> {
        self.shares.of(node)
    }

    /// Shares a node, changes what is shared of it, or ends that. The node is told at once.
    pub(super) fn share(
        &mut self,
        now: Instant,
        node: &NodeId,
        to: &UserName,
        targets: Option<Vec<AllowRule>>,
    ) -> Result<AdminReply, AdminError> {
        let error = |status, code, message: String| AdminError { status, code, message };
        match targets {
            Some(targets) => {
                for user in [&node.user, to] {
                    if !self.config.users.contains_key(user) {
                        return Err(error(404, "unknown-user", format!("there is no user {user}")));
                    }
                }
                if node.user == *to {
                    let text = "a user's nodes see each other anyway: name another user".to_owned();
                    return Err(error(400, "bad-request", text));
                }
                self.shares.put(node, to, targets).map_err(|text| error(409, "too-many", text.to_owned()))?;
            }
            None => {
                if !self.shares.remove(node, to) {
                    return Err(error(404, "not-found", format!("{node} is not shared with {to}")));
                }
            }
        }
        tracing::info!(user = %node.user, node = %node.node, %to, "share changed");
        self.actions.push_back(Action::Save { name: SHARES_FILE, content: self.shares.content() });
        if let Some(conn) = self.registry.conn(node) {
            // Without an answer it hears of it at its next report.
            if let Some(request) = self.asks.open(now, conn, Asked::Shares) {
                let shares = PushShares { shares: self.shares_of(node) };
                self.registry.send(&mut self.actions, conn, request, &shares);
            }
            // Those who want to reach it need not wait for their next try.
            self.news.came(now, node);
        }
        Ok(AdminReply::Done)
    }
}
