//! Nodes that are shared with other users: which, with whom, and what those may reach there.
//!
//! The admin shares a node by REST. From then on nodes of the other user reach it as `NODE@USER`, and it is
//! told which targets they may open: its session with each of them enforces that, beside its own `-allow`.
//! The other direction stays shut: whoever is let in shares nothing by it. Shares outlive a restart of the
//! server; each change is written before it is answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::io::ShareView;
use super::{NodeId, StateError};
use crate::ids::UserName;
use crate::tunnel::AllowRule;
use crate::wire::codec;
use crate::wire::message::{MAX_SHARE_BYTES, MAX_SHARES, MAX_TARGETS, PushShares, Share, Targets};

/// The shares, by the node that is shared.
#[derive(Debug, Default)]
pub(super) struct Shares {
    nodes: BTreeMap<NodeId, BTreeMap<UserName, Targets>>,
    count: usize,
}

/// The file's content: text, so that an admin can read it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    shares: Vec<ShareView>,
}

impl Shares {
    /// The shares of a file's content; none for a server that starts for the first time.
    pub(super) fn load(content: Option<&[u8]>) -> Result<Self, StateError> {
        let mut shares = Self::default();
        let Some(content) = content else { return Ok(shares) };
        let bad = |text: String| StateError::new(SHARES_FILE, text);
        let file: File = serde_json::from_slice(content).map_err(|error| bad(error.to_string()))?;
        if file.version != VERSION {
            return Err(bad(format!("version {}, this server reads {VERSION}", file.version)));
        }
        for ShareView { user, node, to, targets } in file.shares {
            let name = NodeId { user, node };
            shares.put(&name, &to, targets).map_err(|error| bad(format!("{name}: {error}")))?;
        }
        Ok(shares)
    }

    /// What nodes of `to` may reach at `node`; none if it is not shared with them.
    pub(super) fn targets(&self, node: &NodeId, to: &UserName) -> Option<&Targets> {
        self.nodes.get(node)?.get(to)
    }

    /// All shares of a node.
    pub(super) fn of(&self, node: &NodeId) -> Vec<Share> {
        let all = self.nodes.get(node).into_iter().flatten();
        all.map(|(user, targets)| Share { user: user.clone(), targets: targets.clone() }).collect()
    }

    /// Shares `node` with `to`, for these targets and no others; why not, if it cannot be.
    pub(super) fn put(
        &mut self,
        node: &NodeId,
        to: &UserName,
        targets: Vec<AllowRule>,
    ) -> Result<(), &'static str> {
        if targets.len() > MAX_TARGETS {
            return Err("a share has at most 64 targets: name networks and ranges of ports");
        }
        let known = self.nodes.get(node).is_some_and(|users| users.contains_key(to));
        if self.count >= MAX_IN_ALL && !known {
            return Err("there are as many shares as there can be");
        }
        let mut users = self.nodes.get(node).cloned().unwrap_or_default();
        users.insert(to.clone(), Targets(targets));
        let shares =
            users.iter().map(|(user, targets)| Share { user: user.clone(), targets: targets.clone() });
        let mut message = Vec::new();
        codec::encode(&PushShares { shares: shares.collect() }, &mut message);
        if users.len() > MAX_SHARES || message.len() > MAX_SHARE_BYTES {
            return Err("the node is shared with as many users and for as many targets as it can be");
        }
        self.count += usize::from(!known);
        self.nodes.insert(node.clone(), users);
        Ok(())
    }

    /// Ends a share. Says whether there was one.
    pub(super) fn remove(&mut self, node: &NodeId, to: &UserName) -> bool {
        let Some(users) = self.nodes.get_mut(node) else { return false };
        let removed = users.remove(to).is_some();
        if users.is_empty() {
            self.nodes.remove(node);
        }
        self.count -= usize::from(removed);
        removed
    }

    /// All of them, as they are shown.
    pub(super) fn views(&self) -> Vec<ShareView> {
        let views = self.nodes.iter().flat_map(|(name, users)| {
            users.iter().map(|(to, targets)| ShareView {
                user: name.user.clone(),
                node: name.node.clone(),
                to: to.clone(),
                targets: targets.0.clone(),
            })
        });
        views.collect()
    }

    /// The content to write.
    pub(super) fn content(&self) -> Vec<u8> {
        let file = File { version: VERSION, shares: self.views() };
        #[expect(clippy::expect_used, reason = "memory takes every write, and the map has text for keys")]
        serde_json::to_vec_pretty(&file).expect("shares can be encoded")
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

/// The file that holds the shares; see [`super::io::Action::Save`].
pub const SHARES_FILE: &str = "shares.json";
/// The version of the file's format.
const VERSION: u32 = 1;
/// The most shares of all nodes: every write writes them all, 4 MiB at worst.
pub(super) const MAX_IN_ALL: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId { user: "bob".parse().unwrap(), node: name.parse().unwrap() }
    }

    fn rules(targets: &[&str]) -> Vec<AllowRule> {
        targets.iter().map(|target| target.parse().unwrap()).collect()
    }

    #[test]
    fn shares_are_there_after_a_restart() {
        let alice: UserName = "alice".parse().unwrap();
        let mut shares = Shares::default();
        shares.put(&node("b"), &alice, rules(&["127.0.0.1:22,80", "db.lan:*"])).unwrap();
        shares.put(&node("c"), &alice, rules(&[])).unwrap();
        let mut again = Shares::load(Some(&shares.content())).unwrap();
        assert_eq!(again.targets(&node("b"), &alice).unwrap().0, rules(&["127.0.0.1:22,80", "db.lan:*"]));
        assert_eq!((again.of(&node("c")).len(), again.len()), (1, 2));
        assert!(again.remove(&node("b"), &alice) && !again.remove(&node("b"), &alice));
        assert_eq!((again.targets(&node("b"), &alice), again.len()), (None, 1));
    }

    #[test]
    fn what_a_node_shares_fits_a_message() {
        let mut shares = Shares::default();
        let many =
            |count: usize| (0..count).map(|n| format!("h{n}.example:{}", n + 1).parse().unwrap()).collect();
        assert!(shares.put(&node("b"), &"u".parse().unwrap(), many(MAX_TARGETS + 1)).is_err());
        let put = |shares: &mut Shares, user: usize| {
            shares.put(&node("b"), &format!("u{user}").parse().unwrap(), many(MAX_TARGETS))
        };
        let taken = (0..MAX_SHARES).take_while(|user| put(&mut shares, *user).is_ok()).count();
        assert!((4..MAX_SHARES).contains(&taken), "{taken}");
        // One that is there can be changed all the same.
        assert!(put(&mut shares, 0).is_ok());
        assert_eq!(shares.len(), taken);
    }

    #[test]
    fn a_damaged_file_is_refused_with_advice() {
        let good = r#"{"user":"bob","node":"b","to":"alice","targets":["127.0.0.1:22"]}"#;
        let file = |shares: &str| format!(r#"{{"version":1,"shares":[{shares}]}}"#);
        assert!(Shares::load(Some(file(good).as_bytes())).is_ok());
        for content in [
            "",
            "[]",
            &file("7"),
            &file(good).replace("version\":1", "version\":2"),
            &file(&good.replace("127.0.0.1:22", "127.0.0.1")),
            &file(&good.replace("\"b\"", "\"b b\"")),
        ] {
            let error = Shares::load(Some(content.as_bytes())).unwrap_err().to_string();
            assert!(error.contains("shares.json is damaged") && error.contains("backup"), "{error}");
        }
    }
}
