//! Which name belongs to which key: the only state that the server keeps over a restart.
//!
//! A name belongs to the first key that logs in under it, until an admin frees it. A key holds one name on
//! a server, over all users: of two nodes the lower key is controlling, so no two nodes may have the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{NodeId, STATE_FILE, StateError};
use crate::ids::{NodeName, PublicKey, UserName};

/// The pins, in memory and on their way to the store.
#[derive(Debug)]
pub(super) struct Pins {
    by_name: BTreeMap<NodeId, Holder>,
    by_key: BTreeMap<PublicKey, NodeId>,
    saving: Saving,
}

/// Whom a name belongs to.
#[derive(Debug, Clone, Copy)]
struct Holder {
    key: PublicKey,
    /// When it logged in last, in seconds since 1970; only in memory.
    last_login: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Saving {
    /// The store holds what memory holds.
    Clean { last: Option<Instant> },
    /// It does not, and will be written at this time.
    Dirty { at: Instant },
}

/// Why a name is not for this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The name belongs to another key.
    NameTaken,
    /// The key already holds this name.
    KeyInUse(NodeId),
    /// There are as many pins as there may be.
    Full,
}

/// The file's content. Keys are text, so that an admin can read it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    nodes: Vec<Pin>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    user: UserName,
    node: NodeName,
    key: String,
}

impl Pins {
    /// The pins of a file's content; none for a server that starts for the first time.
    pub(super) fn load(content: Option<&[u8]>) -> Result<Self, StateError> {
        let mut pins =
            Self { by_name: BTreeMap::new(), by_key: BTreeMap::new(), saving: Saving::Clean { last: None } };
        let Some(content) = content else { return Ok(pins) };
        let bad = |text: String| StateError::new(STATE_FILE, text);
        let file: File = serde_json::from_slice(content).map_err(|error| bad(error.to_string()))?;
        if file.version != VERSION {
            return Err(bad(format!("version {}, this server reads {VERSION}", file.version)));
        }
        for pin in file.nodes {
            let key: PublicKey =
                pin.key.parse().map_err(|_| bad(format!("the key of {} is none", pin.node)))?;
            let name = NodeId { user: pin.user, node: pin.node };
            if pins.by_key.insert(key, name.clone()).is_some() {
                return Err(bad(format!("the key of {name} is there twice")));
            }
            if pins.by_name.insert(name.clone(), Holder { key, last_login: None }).is_some() {
                return Err(bad(format!("{name} is there twice")));
            }
        }
        Ok(pins)
    }

    /// Whether `name` belongs to `key`, or may from now on.
    pub(super) fn check(&self, name: &NodeId, key: &PublicKey, cap: usize) -> Result<(), Conflict> {
        match (self.by_name.get(name), self.by_key.get(key)) {
            (Some(holder), _) if holder.key == *key => Ok(()),
            (Some(_), _) => Err(Conflict::NameTaken),
            (None, Some(other)) => Err(Conflict::KeyInUse(other.clone())),
            (None, None) if self.by_name.len() >= cap => Err(Conflict::Full),
            (None, None) => Ok(()),
        }
    }

    /// Gives `name` to `key`, which [`Self::check`] allowed, and notes the login. Says whether that is new.
    pub(super) fn pin(&mut self, now: Instant, name: &NodeId, key: PublicKey, unix: u64) -> bool {
        let holder = Holder { key, last_login: Some(unix) };
        if self.by_name.insert(name.clone(), holder).is_some() {
            return false;
        }
        self.by_key.insert(key, name.clone());
        self.touch(now);
        true
    }

    /// Frees `name`. Says whether it was taken.
    pub(super) fn forget(&mut self, now: Instant, name: &NodeId) -> bool {
        let Some(holder) = self.by_name.remove(name) else { return false };
        self.by_key.remove(&holder.key);
        self.touch(now);
        true
    }

    pub(super) fn key(&self, name: &NodeId) -> Option<PublicKey> {
        self.by_name.get(name).map(|holder| holder.key)
    }

    /// When it logged in last, in seconds since 1970; none if not since the server started.
    pub(super) fn last_login(&self, name: &NodeId) -> Option<u64> {
        self.by_name.get(name)?.last_login
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, PublicKey)> {
        self.by_name.iter().map(|(name, holder)| (name, holder.key))
    }

    /// The content to write, if it is time.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        match self.saving {
            Saving::Dirty { at } if at <= now => {
                self.saving = Saving::Clean { last: Some(now) };
                Some(self.content())
            }
            Saving::Dirty { .. } | Saving::Clean { .. } => None,
        }
    }

    /// The content to write, if the store does not hold it yet.
    pub(super) fn flush(&mut self) -> Option<Vec<u8>> {
        match self.saving {
            Saving::Dirty { at } => {
                self.saving = Saving::Clean { last: Some(at) };
                Some(self.content())
            }
            Saving::Clean { .. } => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        match self.saving {
            Saving::Dirty { at } => Some((at, "save of pinned keys")),
            Saving::Clean { .. } => None,
        }
    }

    fn touch(&mut self, now: Instant) {
        if let Saving::Clean { last } = self.saving {
            // At once, unless the last time was a moment ago.
            let at = last.map_or(now, |last| now.max(last + SAVE_INTERVAL));
            self.saving = Saving::Dirty { at };
        }
    }

    fn content(&self) -> Vec<u8> {
        let nodes = self.by_name.iter().map(|(name, holder)| Pin {
            user: name.user.clone(),
            node: name.node.clone(),
            key: holder.key.to_string(),
        });
        let file = File { version: VERSION, nodes: nodes.collect() };
        #[expect(clippy::expect_used, reason = "memory takes every write, and the map has text for keys")]
        serde_json::to_vec_pretty(&file).expect("pins can be encoded")
    }
}

/// The version of the file's format.
const VERSION: u32 = 1;
/// At most one write in this time: ten thousand nodes that log in for the first time would otherwise write
/// ten thousand growing files. What a crash can lose is a pin of the last second, made anew at next login.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
