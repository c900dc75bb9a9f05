//! What the server does about relays: has them checked, hands out keys, and offers them to pairs of nodes.
//!
//! An attempt carries offers from its beginning, for both sides, so that a pair that needs a relay loses no
//! round trip by asking. They are made for what both sides may use, private relays before super relays
//! before the server itself, the best of each tier first. Both sides get the same relays, each with its own
//! permission: within a user none is needed beside the user's secret, else a ticket that is good once.

use std::time::{Duration, Instant};

use super::asks::Asked;
use super::registry::Online;
use super::relays::{Relay, Told, Wanted};
use super::{Server, millis};
use crate::ids::{AttemptId, ConnId, PublicKey, UserName};
use crate::path::{Rung, RungSet};
use crate::relay::ticket::VALID;
use crate::relay::{Credential, RelayOffer, Ticket, TicketKey, Tier};
use crate::rng::Rng;
use crate::wire::message::{
    Code, MAX_OFFERS, PushRelayCheck, PushRelayKeys, PushRelayNews, PushRelayOffer, Refused, RelayNodeReq,
    RelayNodeRsp, RelaySecrets,
};

/// The server's own part in relaying.
#[derive(Debug)]
pub(super) struct OwnRelay {
    /// What its tickets are made under, as long as this process lives.
    pub(super) tickets: TicketKey,
    pub(super) load: crate::wire::message::RelayLoad,
    /// For the tickets' nonces.
    rng: Rng,
}

impl OwnRelay {
    pub(super) fn new(mut rng: Rng) -> Self {
        // Another process of this server had another key: their numbers should differ too.
        let id = u32::from_be_bytes(rng.bytes());
        Self { tickets: TicketKey::random(id, &mut rng), load: Default::default(), rng }
    }
}

impl Server {
    /// What the server's own relay verifies tickets under; none if it is not to relay.
    pub fn relay_tickets(&self) -> Option<&TicketKey> {
        self.config.relay.then_some(&self.own_relay.tickets)
    }

    /// The secrets of the node on `conn`.
    pub(super) fn secrets_of(&self, conn: ConnId) -> RelaySecrets {
        let Some(node) = self.registry.node(conn) else { return RelaySecrets::default() };
        RelaySecrets {
            user: self.secrets.of(&node.name.user),
            tickets: self.relays.get(conn).map(|relay| relay.tickets.clone()),
        }
    }

    /// Has relays checked that are due, and replaces secrets that are old.
    pub(super) fn tend_relays(&mut self, now: Instant) {
        while let Some(check) = self.relays.next_check(now) {
            self.actions.push_back(check);
        }
        for user in self.secrets.rotate(now, &self.clock) {
            self.tell_secrets(now, &user);
        }
    }

    /// What came of a check.
    pub(super) fn relay_checked(&mut self, now: Instant, check: u64, result: Result<Duration, String>) {
        let (told, stun) = self.relays.checked(now, check, result);
        self.actions.extend(stun);
        if let Some(told) = told {
            self.tell_check(now, told);
        }
    }

    /// Tells a relay what the server found, and those who use a worse one of a relay that came.
    pub(super) fn tell_check(&mut self, now: Instant, told: Told) {
        let Told { conn, reason, came } = told;
        if let Some(relay) = self.relays.get(conn) {
            tracing::info!(user = %relay.name.user, node = %relay.name.node, reachable = reason.is_none(), reason, "relay checked");
        }
        if let Some(request) = self.asks.open(now, conn, Asked::RelayCheck) {
            let check = PushRelayCheck { reachable: reason.is_none(), reason: reason.unwrap_or_default() };
            self.registry.send(&mut self.actions, conn, request, &check);
        }
        if came {
            self.tell_relay_news(now, conn);
        }
    }

    /// "Which relays may I use?"
    pub(super) fn relay_node(
        &mut self,
        now: Instant,
        conn: ConnId,
        wish: RelayNodeReq,
    ) -> Result<RelayNodeRsp, Refused> {
        if let Some(node) = self.registry.node_mut(conn) {
            node.measured(&wish.rtts);
        }
        self.relays.doubt(now, &wish.exclude);
        let Some(asker) = self.registry.node(conn) else { return Ok(RelayNodeRsp { offers: Vec::new() }) };
        let name = self.visible(&asker.name, &wish.peer)?;
        let Some((other_conn, other)) = self.registry.named(&name) else {
            return Err(Refused::new(Code::Offline, format!("{} is not online", name.node)));
        };
        if other.key == asker.key {
            return Err(Refused::new(Code::Oneself, "a node does not meet itself at a relay"));
        }
        let theirs = other.reported.as_ref().map_or(RungSet::NONE, |reported| reported.rungs);
        let peer = asker.named_by(&other.name);
        let rungs = wish.rungs.and(theirs);
        let (offers, others) = self.offers(now, wish.attempt, (conn, other_conn), rungs, &wish.exclude);
        if offers.is_empty() {
            return Err(Refused::new(Code::NotFound, "there is no relay that both nodes can use"));
        }
        let Some(request) = self.asks.open(now, other_conn, Asked::RelayOffer(wish.attempt)) else {
            return Err(Refused::new(Code::Busy, format!("{} owes too many answers", name.node)));
        };
        let offer = PushRelayOffer { attempt: wish.attempt, peer, offers: others };
        self.registry.send(&mut self.actions, other_conn, request, &offer);
        Ok(RelayNodeRsp { offers })
    }

    /// Offers of the same relays for the nodes on both connections, each with its own permissions.
    pub(super) fn offers(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        (one, two): (ConnId, ConnId),
        rungs: RungSet,
        exclude: &[PublicKey],
    ) -> (Vec<RelayOffer>, Vec<RelayOffer>) {
        let (mut for_one, mut for_two) = (Vec::new(), Vec::new());
        let (Some(a), Some(b)) = (self.registry.node(one), self.registry.node(two)) else {
            return (for_one, for_two);
        };
        let not_after = self.clock.unix(now) + VALID;
        let rng = &mut self.own_relay.rng;
        let secrets = &self.secrets;
        let mut ticket = |key: &TicketKey, relay: PublicKey, own: &Online, peer: &Online| {
            Credential::Ticket(key.seal(&Ticket {
                relay,
                own: own.key,
                peer: peer.key,
                attempt,
                account: secrets.account(&own.name.user),
                not_after: Duration::from_millis(millis(not_after)),
                nonce: rng.bytes(),
            }))
        };
        let wanted = Wanted { a, b, exclude };
        for tier in [Tier::Private, Tier::Super] {
            if !rungs.contains(tier.rung()) {
                continue;
            }
            for relay in self.relays.pick(tier, wanted) {
                let Relay { key, tickets, .. } = relay;
                let mut credential = |own: &Online, peer: &Online| match tier {
                    Tier::Private => Credential::Totp,
                    Tier::Super | Tier::Server => ticket(tickets, *key, own, peer),
                };
                let (own, peer) = (credential(a, b), credential(b, a));
                for_one.push(relay.offer(attempt, tier, a, own));
                for_two.push(relay.offer(attempt, tier, b, peer));
            }
        }
        let key = self.config.identity.public();
        if self.config.relay && rungs.contains(Rung::ServerRelay) && !exclude.contains(&key) {
            let offer = |credential| RelayOffer {
                attempt,
                relay: None,
                tier: Tier::Server,
                key,
                addresses: Vec::new(),
                websocket: true,
                credential,
            };
            let tickets = &self.own_relay.tickets;
            for_one.push(offer(ticket(tickets, key, a, b)));
            for_two.push(offer(ticket(tickets, key, b, a)));
        }
        debug_assert!(for_one.len() <= MAX_OFFERS);
        (for_one, for_two)
    }

    fn tell_secrets(&mut self, now: Instant, user: &UserName) {
        let conns: Vec<ConnId> =
            self.registry.iter().filter(|(_, node)| node.name.user == *user).map(|(conn, _)| conn).collect();
        for conn in conns {
            let keys = self.secrets_of(conn);
            // Whoever owes too many answers asks again at its next login.
            if let Some(request) = self.asks.open(now, conn, Asked::RelayKeys) {
                self.registry.send(&mut self.actions, conn, request, &PushRelayKeys { keys });
            }
        }
    }

    /// A relay can be used from now on: those who use one of a lower tier hear of it.
    fn tell_relay_news(&mut self, now: Instant, came: ConnId) {
        let Some(relay) = self.relays.get(came) else { return };
        let (user, for_all) = (relay.name.user.clone(), relay.report.super_relay);
        let better = |node: &Online| match node.relayed {
            Some(Rung::ServerRelay) => for_all || node.name.user == user,
            Some(Rung::SuperRelay) => node.name.user == user,
            _ => false,
        };
        let conns: Vec<ConnId> =
            self.registry.iter().filter(|(_, node)| better(node)).map(|(conn, _)| conn).collect();
        for conn in conns {
            if let Some(request) = self.asks.open(now, conn, Asked::RelayNews) {
                self.registry.send(&mut self.actions, conn, request, &PushRelayNews {});
            }
        }
    }
}

impl Relay {
    /// An offer of this relay to `node`.
    fn offer(&self, attempt: AttemptId, tier: Tier, node: &Online, credential: Credential) -> RelayOffer {
        let user = (self.name.user != node.name.user).then(|| self.name.user.clone());
        RelayOffer {
            attempt,
            relay: Some(crate::ids::PeerName { node: self.name.node.clone(), user }),
            tier,
            key: self.key,
            addresses: vec![self.address],
            websocket: false,
            credential,
        }
    }
}
