//! Who wants to hear of whom, and what they have not been told yet.
//!
//! When a server restarts, all nodes come back within seconds. Told to all, that would be a number of
//! messages that grows as the square of the nodes; so only those hear of a node that asked about it, and
//! what happens within [`GATHER`] is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::NodeId;
use crate::due::Due;
use crate::ids::ConnId;

/// The interests and the untold news.
#[derive(Debug, Default)]
pub(super) struct News {
    watchers: BTreeMap<NodeId, BTreeSet<ConnId>>,
    watched: BTreeMap<ConnId, BTreeSet<NodeId>>,
    /// How many interests there are in all.
    interests: usize,
    untold: BTreeMap<ConnId, (Instant, BTreeSet<NodeId>)>,
    due: Due<ConnId>,
}

impl News {
    /// From now on `conn` hears of `names`, and of no others. Gives how many of them are passed over, since
    /// the interests of all connections together would exceed `cap`.
    pub(super) fn watch(&mut self, conn: ConnId, mut names: BTreeSet<NodeId>, cap: usize) -> usize {
        self.unwatch(conn);
        let asked = names.len();
        let room = cap.saturating_sub(self.interests);
        while names.len() > room {
            names.pop_last();
        }
        for name in &names {
            self.watchers.entry(name.clone()).or_default().insert(conn);
        }
        self.interests += names.len();
        let kept = names.len();
        if kept > 0 {
            self.watched.insert(conn, names);
        }
        asked.saturating_sub(kept)
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.unwatch(conn);
        if let Some((at, _)) = self.untold.remove(&conn) {
            self.due.remove(at, conn);
        }
    }

    /// `name` came online.
    pub(super) fn came(&mut self, now: Instant, name: &NodeId) {
        for conn in self.watchers.get(name).into_iter().flatten() {
            let (_, names) = self.untold.entry(*conn).or_insert_with(|| {
                self.due.insert(now + GATHER, *conn);
                (now + GATHER, BTreeSet::new())
            });
            names.insert(name.clone());
        }
    }

    /// Whom to tell now, and of which nodes: at most [`MAX_TOLD`] at once.
    pub(super) fn due(&mut self, now: Instant) -> Option<(ConnId, BTreeSet<NodeId>)> {
        let conn = self.due.pop(now)?;
        let (at, mut names) = self.untold.remove(&conn)?;
        let rest = names.iter().nth(MAX_TOLD).cloned().map(|first| names.split_off(&first));
        if let Some(rest) = rest {
            self.untold.insert(conn, (at, rest));
            self.due.insert(at, conn);
        }
        Some((conn, names))
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.due.next().map(|at| (at, "news of peers"))
    }

    fn unwatch(&mut self, conn: ConnId) {
        for name in self.watched.remove(&conn).unwrap_or_default() {
            self.interests = self.interests.saturating_sub(1);
            if let Some(watchers) = self.watchers.get_mut(&name) {
                watchers.remove(&conn);
                if watchers.is_empty() {
                    self.watchers.remove(&name);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.interests
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let watchers: usize = self.watchers.values().map(BTreeSet::len).sum();
        let watched: usize = self.watched.values().map(BTreeSet::len).sum();
        assert_eq!((watchers, watched), (self.interests, self.interests));
        assert_eq!(self.untold.len(), self.due.len());
    }
}

/// How long news is gathered before it is told: nobody notices, and a herd fits into few messages.
const GATHER: Duration = Duration::from_millis(250);
/// The most nodes in one message: names of full length then stay below the bound of a message.
const MAX_TOLD: usize = 512;
