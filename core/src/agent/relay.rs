//! Relays, seen from a node: the service that it offers itself, the secrets that it was handed, and what it
//! knows of the relays that it uses. And those with whom it is shared, since both come the same way.
//!
//! The server picks relays; the node tells it which were of no use ([`Relaying::excluded`]) and how long the
//! way to each is. A relay whose link broke is declined for [`DEAD_FOR`], unless the node's own network has
//! changed meanwhile, or the peer turns out to have been gone, which are the likelier causes then. The server itself is never declined: who is logged
//! in there can reach it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Agent;
use super::forwards::own;
use super::io::Action;
use super::online::Asked;
use crate::ids::{AttemptId, PeerName, PublicKey};
use crate::path::RungSet;
use crate::relay::{Access, RelayOffer, TotpKey};
use crate::status::RelayStatus;
use crate::time::WallClock;
use crate::wire::message::{
    Code, MAX_EXCLUDED, MAX_RTTS, PushRelayCheck, PushRelayCheckReply, PushRelayKeys, PushRelayKeysReply,
    PushRelayNews, PushRelayNewsReply, PushRelayOffer, PushRelayOfferReply, PushShares, PushSharesReply,
    Refused, RelayLoad, RelayNodeReq, RelayNodeRsp, RelayReport, RelayRtt, RelaySecrets, Share, Targets,
};

/// What a node knows of relays.
#[derive(Debug)]
pub(super) struct Relaying {
    /// Its own service, for `status`.
    status: RelayStatus,
    secrets: RelaySecrets,
    /// Round trips to relays as last measured.
    rtts: BTreeMap<PublicKey, u32>,
    /// Relays that broke.
    dead: BTreeMap<PublicKey, Dead>,
}

/// A relay that is declined.
#[derive(Debug)]
struct Dead {
    until: Instant,
    /// The peer to whom the link broke, if all else about the relay was well.
    peer: Option<PeerName>,
}

impl Relaying {
    pub(super) fn new(mut status: RelayStatus) -> Self {
        if status.enabled && status.reason.is_none() {
            status.reason = Some(NOT_CHECKED.to_owned());
        }
        Self { status, secrets: RelaySecrets::default(), rtts: BTreeMap::new(), dead: BTreeMap::new() }
    }

    /// The service, for `status`. How busy it is only the driver knows.
    pub(super) fn status(&self) -> RelayStatus {
        self.status.clone()
    }

    /// What the node offers to the server.
    pub(super) fn report(&self) -> Option<RelayReport> {
        self.status.enabled.then_some(RelayReport {
            super_relay: self.status.super_relay,
            port: self.status.port,
            bandwidth_mbps: self.status.limit_mbps,
        })
    }

    /// Signalling is gone: what the server knows of the service, nobody knows now.
    pub(super) fn signal_lost(&mut self) {
        self.status.reachable = false;
        self.status.reason = self.status.enabled.then(|| "not connected to the server".to_owned());
    }

    /// A round trip was measured.
    pub(super) fn measured(&mut self, relay: PublicKey, rtt: Duration) {
        if self.rtts.len() >= MAX_RTTS && !self.rtts.contains_key(&relay) {
            self.rtts.pop_first();
        }
        self.rtts.insert(relay, u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX));
    }

    /// All round trips, for the server.
    pub(super) fn rtts(&self) -> Vec<RelayRtt> {
        self.rtts.iter().map(|(relay, ms)| RelayRtt { relay: *relay, ms: *ms }).collect()
    }

    /// A relay was of no use, or the link through it to `peer` broke.
    pub(super) fn died(&mut self, now: Instant, relay: PublicKey, peer: Option<&PeerName>) {
        if self.dead.len() >= MAX_EXCLUDED && !self.dead.contains_key(&relay) {
            let oldest = self.dead.iter().min_by_key(|(_, dead)| dead.until).map(|(relay, _)| *relay);
            oldest.map(|relay| self.dead.remove(&relay));
        }
        self.dead.insert(relay, Dead { until: now + DEAD_FOR, peer: peer.cloned() });
    }

    /// The peer was gone: that is why the links to it broke.
    pub(super) fn acquit(&mut self, peer: &PeerName) {
        self.dead.retain(|_, dead| dead.peer.as_ref() != Some(peer));
    }

    /// The node's own network has changed: that is what broke them.
    pub(super) fn network_changed(&mut self) {
        self.dead.clear();
        self.rtts.clear();
    }

    /// The relays that the node declines.
    pub(super) fn excluded(&self, now: Instant) -> Vec<PublicKey> {
        self.dead.iter().filter(|(_, dead)| now < dead.until).map(|(relay, _)| *relay).collect()
    }
}

impl Agent {
    /// How busy the node's own relay is.
    pub(super) fn relay_load(&mut self, load: RelayLoad) {
        self.signal.load(load);
    }

    /// The server handed secrets over.
    pub(super) fn relay_secrets(&mut self, secrets: RelaySecrets) {
        if self.relaying.secrets != secrets {
            self.relaying.secrets = secrets.clone();
            self.actions.push_back(Action::RelaySecrets(secrets));
        }
    }

    pub(super) fn push_relay_keys(
        &mut self,
        _: Instant,
        push: PushRelayKeys,
    ) -> Result<PushRelayKeysReply, Refused> {
        self.relay_secrets(push.keys);
        Ok(PushRelayKeysReply {})
    }

    pub(super) fn push_relay_check(
        &mut self,
        _: Instant,
        check: PushRelayCheck,
    ) -> Result<PushRelayCheckReply, Refused> {
        let status = &mut self.relaying.status;
        if !status.enabled {
            return Err(Refused::new(Code::NotFound, "this node is no relay"));
        }
        let reason: String = check.reason.chars().filter(|c| !c.is_control()).collect();
        let (port, before) = (status.port, status.reachable);
        status.reachable = check.reachable;
        status.reason = (!check.reachable).then_some(reason);
        match &status.reason {
            None if !before => tracing::info!(port, "the server reaches this relay"),
            None => {}
            Some(reason) => tracing::warn!(
                port,
                reason,
                "the server cannot reach this relay, so nobody is sent to it: let its TCP port in"
            ),
        }
        Ok(PushRelayCheckReply {})
    }

    /// There may be a better relay: those who use one try again.
    pub(super) fn push_relay_news(
        &mut self,
        now: Instant,
        _: PushRelayNews,
    ) -> Result<PushRelayNewsReply, Refused> {
        self.peers.each(|_, peer, _| peer.better_news(now));
        Ok(PushRelayNewsReply {})
    }

    pub(super) fn push_relay_offer(
        &mut self,
        _: Instant,
        push: PushRelayOffer,
    ) -> Result<PushRelayOfferReply, Refused> {
        let peer = own(&self.config.user, push.peer);
        let known = self.peers.known(&peer).is_some_and(|(peer, _)| peer.attempt() == Some(push.attempt));
        if !known {
            return Err(Refused::new(Code::NotFound, "that attempt is not known here, or over"));
        }
        self.offers(peer, push.attempt, push.offers);
        Ok(PushRelayOfferReply {})
    }

    pub(super) fn push_shares(&mut self, _: Instant, push: PushShares) -> Result<PushSharesReply, Refused> {
        self.shares(push.shares);
        Ok(PushSharesReply {})
    }

    /// The node is shared with these users, and with no others: holds its sessions to that.
    pub(super) fn shares(&mut self, shares: Vec<Share>) {
        let shares: BTreeMap<_, _> = shares.into_iter().map(|share| (share.user, share.targets)).collect();
        let (now, actions) = (self.now, &mut self.actions);
        self.peers.each(|name, peer, _| {
            let Some(user) = &name.user else { return };
            let share = shares.get(user);
            if let Some(targets) = peer.restrict(share.cloned().unwrap_or_default()) {
                let end = share.is_none() && !peer.forwarded;
                tracing::info!(peer = %name, shared = share.is_some(), "what the peer may reach here has changed");
                if end {
                    peer.down(now, "it is not shared any more".to_owned());
                }
                actions.push_back(Action::Restrict { peer: name.clone(), targets, end });
            }
        });
    }

    /// A session has used up the relays of a running attempt: asks for others.
    pub(super) fn relays_wanted(&mut self, now: Instant, peer: PeerName, attempt: AttemptId) {
        let rungs: RungSet = self.config.rungs.iter().filter(|rung| rung.is_relay()).collect();
        if rungs == RungSet::NONE {
            return;
        }
        let (exclude, rtts) = (self.relaying.excluded(now), self.relaying.rtts());
        let wish = RelayNodeReq { attempt, peer: peer.clone(), rungs, exclude, rtts };
        self.signal.ask(now, Asked::Relays(peer, attempt), &wish, &mut self.actions);
    }

    /// The server's answer to that.
    pub(super) fn relays(
        &mut self,
        peer: PeerName,
        attempt: AttemptId,
        reply: Result<RelayNodeRsp, Refused>,
    ) {
        match reply {
            Ok(reply) => self.offers(peer, attempt, reply.offers),
            Err(refused) => tracing::debug!(%peer, code = ?refused.code, %refused, "no relays"),
        }
    }

    fn offers(&mut self, peer: PeerName, attempt: AttemptId, offers: Vec<RelayOffer>) {
        let relays = self.accesses(attempt, offers);
        self.actions.push_back(Action::Offers { peer, attempt, relays });
    }

    /// The offers that are for this attempt and on rungs that this node may use, with what it shows there.
    pub(super) fn accesses(&self, attempt: AttemptId, offers: Vec<RelayOffer>) -> Vec<Access> {
        let secret = self.relaying.secrets.user.first();
        let totp = secret.map(|secret| TotpKey::derive(secret, &self.config.token));
        let clock = WallClock::new(self.now, self.unix(self.now));
        let usable =
            |offer: &RelayOffer| offer.attempt == attempt && self.config.rungs.contains(offer.tier.rung());
        let mut accesses = Vec::new();
        for mut offer in offers.into_iter().filter(usable) {
            if offer.relay.is_none() && offer.addresses.is_empty() {
                // The server is where signalling goes to.
                offer.addresses.extend(self.signal.remote());
            }
            accesses.extend(Access::new(offer, totp.clone().map(|key| (key, clock))));
        }
        accesses
    }
}

/// The targets of a peer as a session is told them: none for a node of the own user.
pub(super) fn limits(peer: &PeerName, targets: Option<Targets>) -> Option<Targets> {
    // Whatever the server says, a node of another user opens nothing that was not shared with it.
    peer.user.as_ref().map(|_| targets.unwrap_or_default())
}

/// Why a relay is not reachable before the server has said anything.
const NOT_CHECKED: &str = "the server has not checked it yet";
/// How long a relay that broke is declined: about as long as the server takes to see it too. A relay that is
/// started anew can be used again soon.
const DEAD_FOR: Duration = Duration::from_secs(20);
