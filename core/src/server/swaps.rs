//! One node, logged in twice: a machine that was cloned, or one whose old connection has not ended yet.
//!
//! The newest connection wins, because the usual case is a node that came back before the server noticed
//! that it had gone. A process says which it is, and may always take its own place. Two machines with the same key would throw each other out for ever; so after
//! [`MAX_SWAPS`] of them in [`MEMORY`] the newcomer is refused, and whoever is there stays.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::NodeId;

/// The swaps of late.
#[derive(Debug, Default)]
pub(super) struct Swaps {
    recent: BTreeMap<NodeId, Recent>,
    log: VecDeque<(Instant, NodeId)>,
}

#[derive(Debug, Default)]
struct Recent {
    swaps: usize,
    refused_until: Option<Instant>,
}

impl Swaps {
    /// Asks whether a newcomer may take the place of a connection that is still there, and counts it.
    pub(super) fn allow(&mut self, now: Instant, name: &NodeId) -> bool {
        self.expire(now);
        let recent = self.recent.entry(name.clone()).or_default();
        if recent.refused_until.is_some_and(|until| now < until) {
            return false;
        }
        if recent.swaps >= MAX_SWAPS {
            recent.refused_until = Some(now + REFUSAL);
            return false;
        }
        recent.swaps += 1;
        self.log.push_back((now, name.clone()));
        true
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, name)) = self.log.front() {
            if now.saturating_duration_since(*at) < MEMORY {
                return;
            }
            if let Some(recent) = self.recent.get_mut(name) {
                recent.swaps = recent.swaps.saturating_sub(1);
                if recent.swaps == 0 {
                    self.recent.remove(name);
                }
            }
            self.log.pop_front();
        }
    }
}

/// How many swaps a node may have in [`MEMORY`]: a laptop that changes networks thrice in ten minutes is
/// still no clone. At most so many entries a name, and names are bounded by the pins.
const MAX_SWAPS: usize = 3;
/// How long a swap is remembered.
const MEMORY: Duration = Duration::from_secs(600);
/// How long a newcomer is refused. It is as long as an agent waits after a refusal.
const REFUSAL: Duration = Duration::from_secs(60);

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The only way to a first Instant.
mod tests {
    use super::*;

    #[test]
    fn the_fourth_swap_in_ten_minutes_is_refused() {
        let mut now = Instant::now();
        let mut swaps = Swaps::default();
        let name = NodeId { user: Default::default(), node: "a".parse().unwrap() };
        for _ in 0..3 {
            assert!(swaps.allow(now, &name));
            now += Duration::from_secs(10);
        }
        for _ in 0..50 {
            assert!(!swaps.allow(now, &name));
            now += Duration::from_secs(11);
        }
        now += Duration::from_secs(60);
        assert!(swaps.allow(now, &name));
        now += MEMORY;
        assert!(swaps.allow(now, &NodeId { user: Default::default(), node: "b".parse().unwrap() }));
        assert_eq!((swaps.recent.len(), swaps.log.len()), (1, 1));
    }
}
