//! All peers: those that a forward leads to, and those that have reached for this node. At most
//! [`MAX_PEERS`], of which one that is idle makes room for a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::peer::Peer;
use crate::due::earlier;
use crate::ids::PeerName;
use crate::rng::Rng;
use crate::wire::message::MAX_PEERS;

/// The peers, by name.
#[derive(Debug)]
pub(super) struct Peers {
    map: BTreeMap<PeerName, Peer>,
    /// For the pace of retries.
    rng: Rng,
    /// Whether names have come or gone since [`Self::take_changed`].
    changed: bool,
}

impl Peers {
    pub(super) fn new(rng: Rng) -> Self {
        Self { map: BTreeMap::new(), rng, changed: false }
    }

    /// Forwards lead to these peers, and to no others.
    pub(super) fn forwarded<'a>(&mut self, names: impl Iterator<Item = &'a PeerName>) {
        let names: BTreeSet<&PeerName> = names.collect();
        for (name, peer) in &mut self.map {
            peer.forwarded = names.contains(name);
        }
        for name in names {
            if !self.map.contains_key(name)
                && let Some((peer, _)) = self.enter(name)
            {
                peer.forwarded = true;
            }
        }
    }

    /// The peer of that name, made if it is new, and the generator; none if there is no room.
    pub(super) fn enter(&mut self, name: &PeerName) -> Option<(&mut Peer, &mut Rng)> {
        if !self.map.contains_key(name) {
            if self.map.len() >= MAX_PEERS {
                let idle = self.map.iter().find(|(_, peer)| peer.is_idle()).map(|(name, _)| name.clone())?;
                self.map.remove(&idle);
            }
            self.changed = true;
        }
        Some((self.map.entry(name.clone()).or_default(), &mut self.rng))
    }

    /// A peer that is known, and the generator.
    pub(super) fn known(&mut self, name: &PeerName) -> Option<(&mut Peer, &mut Rng)> {
        Some((self.map.get_mut(name)?, &mut self.rng))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerName, &Peer)> {
        self.map.iter()
    }

    /// Does the same with every peer.
    pub(super) fn each(&mut self, mut act: impl FnMut(&PeerName, &mut Peer, &mut Rng)) {
        for (name, peer) in &mut self.map {
            act(name, peer, &mut self.rng);
        }
    }

    /// Whether names have come or gone since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The next peer whose wish is due.
    pub(super) fn wish(&self, now: Instant) -> Option<PeerName> {
        let due = |peer: &Peer| peer.wish_due(now).is_some_and(|at| at <= now);
        self.map.iter().find(|(_, peer)| due(peer)).map(|(name, _)| name.clone())
    }

    /// When something is due: wishes only while they can be made.
    pub(super) fn deadline(&self, now: Instant, wishes: bool) -> Option<(Instant, &'static str)> {
        let timeout = self.map.values().filter_map(Peer::timeout).min();
        let wish = self.map.values().filter(|_| wishes).filter_map(|peer| peer.wish_due(now)).min();
        earlier(timeout.map(|at| (at, "end of an attempt")), wish.map(|at| (at, "wish for a connection")))
    }
}
