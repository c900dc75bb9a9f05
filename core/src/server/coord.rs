//! Bringing pairs of nodes together: who may reach whom, and one attempt a pair.
//!
//! Two nodes often reach for each other at the same moment: both lost their link, or both heard that the
//! other is back. Were each wish an attempt of its own, each side would answer one and dial for the other.
//! So the first wish makes the attempt, and a second one from either side within [`LIFETIME`] gets the
//! same, unless a side has reported how it ended, is known to be elsewhere, or wants rungs that are not among those
//! of the attempt.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use serde_bytes::ByteArray;

use super::registry::{Online, Registry};
use super::shares::Shares;
use super::{NodeId, reach, reflexive};
use crate::due::Due;
use crate::ids::{AttemptId, ConnId, PeerName, PublicKey};
use crate::path::{Candidate, RungSet};
use crate::rng::Rng;
use crate::wire::message::{Code, Connect, MAX_CANDIDATES, PunchStart, Refused};

/// The attempts that may still be joined.
#[derive(Debug)]
pub(super) struct Attempts {
    pairs: BTreeMap<Pair, Running>,
    by_id: BTreeMap<AttemptId, Pair>,
    due: Due<Pair>,
    rng: Rng,
}

/// Two keys, the lower first.
type Pair = (PublicKey, PublicKey);

#[derive(Debug)]
struct Running {
    id: AttemptId,
    punch_key: [u8; 32],
    until: Instant,
    /// What is tried.
    rungs: RungSet,
    /// Where the two were, in the order of the pair.
    places: (Place, Place),
}

/// Where a node is, in short: the other end of its connection, what it claims, and what the STUN ports have seen
/// of it. Two places that look the same by chance would only spare the pair an attempt, for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u64);

impl Place {
    fn of(node: &Online) -> Self {
        let mut hasher = DefaultHasher::new();
        node.remote.hash(&mut hasher);
        if let Some(reported) = &node.reported {
            // What is behind a NAT that had not been measured yet is as good as elsewhere.
            let settled = reported.nat.is_settled();
            (&reported.candidates, &reported.reflexive, settled).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// A wish that was granted.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) attempt: AttemptId,
    /// What to tell the one who asked, and the other.
    pub(super) asker: PunchStart,
    pub(super) other: PunchStart,
    /// The other's connection.
    pub(super) other_conn: ConnId,
}

impl Attempts {
    pub(super) fn new(rng: Rng) -> Self {
        Self { pairs: BTreeMap::new(), by_id: BTreeMap::new(), due: Due::default(), rng }
    }

    /// Grants or refuses a wish of the node on `conn`. `known` says whether a name has ever been there.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        registry: &Registry,
        (known, shares): (impl FnOnce(&NodeId) -> bool, &Shares),
        asker: &Online,
        wish: &Connect,
        cap: usize,
    ) -> Result<Start, Refused> {
        let name = resolve(&asker.name, &wish.peer, shares)?;
        if name == asker.name {
            return Err(Refused::new(Code::Oneself, "a node does not connect to itself"));
        }
        let Some((other_conn, other)) = registry.named(&name) else {
            return Err(if known(&name) {
                Refused::new(Code::Offline, format!("{} is not online", name.node))
            } else {
                Refused::new(Code::UnknownNode, format!("no node {} has ever logged in", name.node))
            });
        };
        let Some(reported) = &other.reported else {
            // It will be news as soon as it has said where it can be reached.
            return Err(Refused::new(Code::Offline, format!("{} is just logging in", name.node)));
        };
        if other.key == asker.key {
            let text = format!("{} has this node's own key: one of the two needs a new one", name.node);
            return Err(Refused::new(Code::KeyInUse, text));
        }
        let rungs = wish.rungs.and(reported.rungs);
        if rungs == RungSet::NONE {
            let text = format!("{} and this node have no rung in common: see -rungs", name.node);
            return Err(Refused::new(Code::NotAllowed, text));
        }

        let ends = ((asker.key, Place::of(asker)), (other.key, Place::of(other)));
        let (id, punch_key) = self.attempt(now, ends, rungs, cap)?;
        let start = |peer: &Online, receiver: &Online, claimed: &[Candidate], asked| PunchStart {
            attempt: id,
            peer: peer.named_by(&receiver.name),
            key: peer.key,
            candidates: reach::offered(&candidates(peer, claimed), peer.remote.ip(), receiver.remote.ip()),
            rungs,
            punch_key: ByteArray::new(punch_key),
            asked,
            targets: None,
            tcp_at_ms: None,
            relays: Vec::new(),
            nat: peer.reported.as_ref().map(|reported| reported.nat).unwrap_or_default(),
        };
        Ok(Start {
            attempt: id,
            asker: start(other, asker, &reported.candidates, true),
            other: start(asker, other, &wish.candidates, false),
            other_conn,
        })
    }

    /// A side reported how the attempt ended: the next wish of the pair begins a new one.
    pub(super) fn ended(&mut self, id: AttemptId, by: PublicKey) {
        match self.by_id.get(&id) {
            Some(pair) if pair.0 == by || pair.1 == by => self.remove(*pair),
            Some(_) | None => {}
        }
    }

    /// Forgets what is too old to be joined. Needs no timer: it happens at the next wish.
    fn expire(&mut self, now: Instant) {
        while let Some(pair) = self.due.pop(now) {
            self.remove(pair);
        }
    }

    fn attempt(
        &mut self,
        now: Instant,
        (one, two): ((PublicKey, Place), (PublicKey, Place)),
        rungs: RungSet,
        cap: usize,
    ) -> Result<(AttemptId, [u8; 32]), Refused> {
        self.expire(now);
        let (low, high) = if one.0 <= two.0 { (one, two) } else { (two, one) };
        let (pair, places) = ((low.0, high.0), (low.1, high.1));
        match self.pairs.get(&pair) {
            Some(running) if running.places == places && rungs.and(running.rungs) == rungs => {
                return Ok((running.id, running.punch_key));
            }
            // One of them is elsewhere: what the other was told of it is no longer true. Or its link has died while
            // better ones were tried for.
            Some(_) => self.remove(pair),
            None => {}
        }
        if self.pairs.len() >= cap {
            return Err(Refused::new(Code::Busy, "the server has too many attempts under way"));
        }
        let running = Running {
            id: AttemptId(self.rng.bytes()),
            punch_key: self.rng.bytes(),
            until: now + LIFETIME,
            rungs,
            places,
        };
        let made = (running.id, running.punch_key);
        self.by_id.insert(running.id, pair);
        self.due.insert(running.until, pair);
        self.pairs.insert(pair, running);
        Ok(made)
    }

    fn remove(&mut self, pair: Pair) {
        if let Some(running) = self.pairs.remove(&pair) {
            self.by_id.remove(&running.id);
            self.due.remove(running.until, pair);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pairs.len().max(self.by_id.len()).max(self.due.len())
    }
}

/// Where a node may be: what it claims now, and what the STUN ports have seen of it.
fn candidates(node: &Online, claimed: &[Candidate]) -> Vec<Candidate> {
    let seen = node.reported.as_ref().map(|reported| reported.reflexive.as_slice()).unwrap_or_default();
    let mut all: Vec<Candidate> =
        reflexive::claimed(claimed).take(MAX_CANDIDATES.saturating_sub(seen.len())).collect();
    // Without a NAT they are the same.
    let claims = |all: &[Candidate], one: &Candidate| {
        all.iter().any(|claim| (claim.transport, claim.address) == (one.transport, one.address))
    };
    let new: Vec<Candidate> = seen.iter().filter(|one| !claims(&all, one)).copied().collect();
    all.extend(new);
    all
}

/// Whom a node means. A node of another user is out of reach unless it is shared with the asker's.
pub(super) fn resolve(asker: &NodeId, peer: &PeerName, shares: &Shares) -> Result<NodeId, Refused> {
    let name = meant(asker, peer);
    if name.user != asker.user && shares.targets(&name, &asker.user).is_none() {
        return Err(Refused::new(Code::NotAllowed, format!("{peer} is not shared with {}", asker.user)));
    }
    Ok(name)
}

/// Whom a node means, whether or not it may know of it.
pub(super) fn meant(asker: &NodeId, peer: &PeerName) -> NodeId {
    NodeId { user: peer.user.as_ref().unwrap_or(&asker.user).clone(), node: peer.node.clone() }
}

/// How long an attempt may be joined. Both sides notice the death of a link within 3 s of each other, and a
/// bad line's round trip comes on top. What is older has a link or has dialled in vain: a wish after that
/// must make both sides dial anew, which a known attempt id would not.
pub(super) const LIFETIME: Duration = Duration::from_secs(5);
