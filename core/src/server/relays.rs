//! The nodes that relay: which there are, whether each can be reached from outside, and how good it is.
//!
//! ```text
//!            report                  it answers
//!  (none) ───────────▶ Unchecked ───────────────▶ Reachable ──▶ looked at every five minutes
//!                          │ it does not              │ twice in a row it does not
//!                          └──────▶ Unreachable ◀─────┘
//!                                   looked at after 10 s, doubled up to five minutes
//! ```
//!
//! The check goes to the address that the node's signalling connection comes from, and the port that it
//! declares: never to another address, and never to a port below [`FIRST_PORT`], so that nobody can aim the
//! server at a third party. What answers must prove the node's key ([`Action::CheckRelay`]). Only a relay
//! that did is offered to anybody; the node is told either way. A node that found a relay of no use makes it
//! be looked at again soon.
//!
//! A relay that was reached is asked by STUN too, at the UDP addresses that this server's STUN ports have seen it at
//! ([`Action::CheckStun`]), from a port that it knows nothing of: behind a filter by port it is silent then. Where it
//! answers, nodes may ask it as well, to learn what a server with one address cannot show of their NATs
//! ([`Relays::stun`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::io::{Action, KeyText, RelayView};
use super::registry::Online;
use super::{NodeId, reach};
use crate::due::Due;
use crate::ids::{ConnId, PublicKey, UserName};
use crate::path::Transport;
use crate::relay::{TicketKey, Tier};
use crate::rng::Rng;
use crate::wire::message::{MAX_STUN_RELAYS, RelayLoad, RelayReport};

/// The relays of all nodes that are online.
#[derive(Debug)]
pub(super) struct Relays {
    map: BTreeMap<ConnId, Relay>,
    /// Those that are no super relays, by whom they serve.
    private: BTreeMap<UserName, BTreeSet<ConnId>>,
    supers: BTreeSet<ConnId>,
    /// When each is looked at next; those that are being looked at are not in it.
    due: Due<ConnId>,
    /// The checks that the driver is at.
    checks: BTreeMap<u64, ConnId>,
    /// Those by STUN, one a relay: that one's last.
    stun_checks: BTreeMap<u64, ConnId>,
    last_check: u64,
    last_key: u32,
    rng: Rng,
}

/// One relay.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) name: NodeId,
    pub(super) key: PublicKey,
    pub(super) report: RelayReport,
    /// Where it is reached, if it is.
    pub(super) address: SocketAddr,
    /// What its tickets are made under, since its login.
    pub(super) tickets: TicketKey,
    pub(super) load: RelayLoad,
    /// How long the server takes to it and back.
    rtt: Option<Duration>,
    state: State,
    /// Checks in a row that failed.
    failures: u32,
    /// Its entry in `due`.
    due: Option<Instant>,
    /// When it was looked at last.
    looked: Option<Instant>,
    /// Where the STUN ports have seen its UDP port: one address a family at most.
    udp: Vec<SocketAddr>,
    /// Those of them at which it has been asked by STUN.
    asked: Vec<SocketAddr>,
    /// Those at which it has answered.
    stun: Vec<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unchecked,
    Reachable,
    Unreachable(String),
}

/// What a node has to be told of its relay.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) conn: ConnId,
    /// Why it cannot be reached; none if it can.
    pub(super) reason: Option<String>,
    /// Whether it can be offered now, and could not before.
    pub(super) came: bool,
}

/// Who is to meet at a relay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) a: &'a Online,
    pub(super) b: &'a Online,
    pub(super) exclude: &'a [PublicKey],
}

impl Relays {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            map: BTreeMap::new(),
            private: BTreeMap::new(),
            supers: BTreeSet::new(),
            due: Due::default(),
            checks: BTreeMap::new(),
            stun_checks: BTreeMap::new(),
            last_check: 0,
            last_key: 0,
            rng,
        }
    }

    /// A node says what it offers, or that it offers nothing. What it has to be told at once, if anything.
    pub(super) fn report(
        &mut self,
        now: Instant,
        conn: ConnId,
        node: &Online,
        report: Option<RelayReport>,
    ) -> Option<Told> {
        let Some(report) = report else {
            self.remove(conn);
            return None;
        };
        let known = self.map.get(&conn).map(|relay| relay.report);
        if known.is_some_and(|known| (known.port, known.super_relay) == (report.port, report.super_relay)) {
            self.renew(now, conn, report, seen_udp(node));
            return None;
        }
        let tickets = match self.remove(conn) {
            Some(relay) => relay.tickets,
            None => {
                self.last_key = self.last_key.checked_add(1).unwrap_or(1);
                TicketKey::random(self.last_key, &mut self.rng)
            }
        };
        let full = if report.super_relay {
            self.supers.len() >= MAX_SUPERS
        } else {
            self.private.get(&node.name.user).is_some_and(|all| all.len() >= MAX_PRIVATE)
        };
        let refused = if report.port < FIRST_PORT {
            Some(format!("port {} is below {FIRST_PORT}: the server connects to no such port", report.port))
        } else if full {
            Some("the server has as many relays of this kind as it can".to_owned())
        } else {
            None
        };
        let relay = Relay {
            name: node.name.clone(),
            key: node.key,
            report,
            address: SocketAddr::new(node.remote.ip().to_canonical(), report.port),
            tickets,
            load: RelayLoad::default(),
            rtt: None,
            state: refused.clone().map_or(State::Unchecked, State::Unreachable),
            failures: 0,
            due: None,
            looked: None,
            udp: seen_udp(node),
            asked: Vec::new(),
            stun: Vec::new(),
        };
        self.map.insert(conn, relay);
        if let Some(reason) = refused {
            return Some(Told { conn, reason: Some(reason), came: false });
        }
        if report.super_relay {
            self.supers.insert(conn);
        } else {
            self.private.entry(node.name.user.clone()).or_default().insert(conn);
        }
        self.schedule(conn, now);
        None
    }

    /// The same relay reports again. If its UDP port is seen elsewhere now, it is looked at soon.
    fn renew(&mut self, now: Instant, conn: ConnId, report: RelayReport, udp: Vec<SocketAddr>) {
        let Some(relay) = self.map.get_mut(&conn) else { return };
        relay.report = report;
        relay.udp = udp;
        relay.stun.retain(|address| relay.udp.contains(address));
        let soonest = relay.soonest(now);
        if relay.has_moved() && relay.due.is_some_and(|due| soonest < due) {
            self.schedule(conn, soonest);
        }
    }

    /// The node is gone, or relays no more.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Relay> {
        let relay = self.map.remove(&conn)?;
        if let Some(at) = relay.due {
            self.due.remove(at, conn);
        }
        self.supers.remove(&conn);
        if let Some(all) = self.private.get_mut(&relay.name.user) {
            all.remove(&conn);
            if all.is_empty() {
                self.private.remove(&relay.name.user);
            }
        }
        self.checks.retain(|_, checked| *checked != conn);
        self.stun_checks.retain(|_, checked| *checked != conn);
        Some(relay)
    }

    /// A relay says how busy it is.
    pub(super) fn load(&mut self, conn: ConnId, load: RelayLoad) {
        if let Some(relay) = self.map.get_mut(&conn) {
            relay.load = load;
        }
    }

    /// A node found these relays of no use: they are looked at again.
    pub(super) fn doubt(&mut self, now: Instant, keys: &[PublicKey]) {
        let doubted: Vec<ConnId> = if keys.is_empty() {
            Vec::new()
        } else {
            self.map.iter().filter(|(_, relay)| keys.contains(&relay.key)).map(|(conn, _)| *conn).collect()
        };
        for conn in doubted {
            let Some(relay) = self.map.get(&conn) else { continue };
            let soonest = relay.soonest(now);
            if relay.due.is_some_and(|due| soonest < due) {
                self.schedule(conn, soonest);
            }
        }
    }

    /// The next check to make.
    pub(super) fn next_check(&mut self, now: Instant) -> Option<Action> {
        if self.checks.len() >= MAX_CHECKS {
            return None;
        }
        let conn = self.due.pop(now)?;
        let relay = self.map.get_mut(&conn)?;
        relay.due = None;
        relay.looked = Some(now);
        self.last_check += 1;
        self.checks.insert(self.last_check, conn);
        Some(Action::CheckRelay { check: self.last_check, to: relay.address, key: relay.key })
    }

    /// What came of a check: how long an answer took, or why there was none. What to tell, and what to check next.
    pub(super) fn checked(
        &mut self,
        now: Instant,
        check: u64,
        result: Result<Duration, String>,
    ) -> (Option<Told>, Option<Action>) {
        let Some(conn) = self.checks.remove(&check) else { return (None, None) };
        let reached = result.is_ok();
        let told = self.judge(now, conn, result);
        (told, reached.then(|| self.check_stun(conn)).flatten())
    }

    /// Has a relay asked by STUN where its UDP port was seen.
    fn check_stun(&mut self, conn: ConnId) -> Option<Action> {
        let relay = self.map.get_mut(&conn)?;
        relay.asked.clone_from(&relay.udp);
        let to = relay.udp.clone();
        self.stun_checks.retain(|_, checked| *checked != conn);
        if to.is_empty() {
            return None;
        }
        self.last_check += 1;
        self.stun_checks.insert(self.last_check, conn);
        Some(Action::CheckStun { check: self.last_check, to })
    }

    /// What came of a check by STUN.
    pub(super) fn stun_checked(&mut self, check: u64, answered: Vec<SocketAddr>) {
        let relay = self.stun_checks.remove(&check).and_then(|conn| self.map.get_mut(&conn));
        if let Some(relay) = relay {
            relay.stun = answered.into_iter().filter(|address| relay.udp.contains(address)).collect();
        }
    }

    fn judge(&mut self, now: Instant, conn: ConnId, result: Result<Duration, String>) -> Option<Told> {
        let relay = self.map.get_mut(&conn)?;
        let before = relay.state.clone();
        let delay = match result {
            Ok(rtt) => {
                relay.rtt = Some(rtt);
                relay.failures = 0;
                relay.state = State::Reachable;
                PERIOD
            }
            Err(reason) => {
                relay.failures = relay.failures.saturating_add(1);
                // One that has answered so far may have been busy for a moment.
                if before != State::Reachable || relay.failures > 1 {
                    let reason: String =
                        reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
                    relay.state = State::Unreachable(reason);
                }
                match before {
                    State::Reachable => CHECK_INTERVAL,
                    State::Unchecked | State::Unreachable(_) => {
                        FIRST_RETRY.saturating_mul(1 << (relay.failures - 1).min(10)).min(PERIOD)
                    }
                }
            }
        };
        let after = relay.state.clone();
        // Not all that logged in together are looked at together.
        let delay = self.rng.between(delay * 9 / 10, delay * 11 / 10);
        self.schedule(conn, now + delay);
        if before == after {
            return None;
        }
        match after {
            State::Unchecked => None,
            State::Reachable => Some(Told { conn, reason: None, came: true }),
            State::Unreachable(reason) => Some(Told { conn, reason: Some(reason), came: false }),
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let free = self.checks.len() < MAX_CHECKS;
        self.due.next().filter(|_| free).map(|at| (at, "check of a relay"))
    }

    pub(super) fn get(&self, conn: ConnId) -> Option<&Relay> {
        self.map.get(&conn)
    }

    /// The relays of a tier at which both may meet, the best first, at most [`OFFERED`].
    pub(super) fn pick(&self, tier: Tier, wanted: Wanted<'_>) -> Vec<&Relay> {
        let Wanted { a, b, exclude } = wanted;
        let conns = match tier {
            Tier::Private if a.name.user == b.name.user => self.private.get(&a.name.user),
            Tier::Super => Some(&self.supers),
            Tier::Private | Tier::Server => None,
        };
        let own = |relay: &&Relay| tier != Tier::Super || !relay.is_private_to(a, b);
        // A super relay of the own user's is a private one for that user.
        let also = self.supers.iter().filter(|_| tier == Tier::Private).filter_map(|conn| self.map.get(conn));
        let also = also.filter(|relay| relay.is_private_to(a, b));
        let all = conns.into_iter().flatten().filter_map(|conn| self.map.get(conn)).filter(own).chain(also);
        let mut fit: Vec<&Relay> = all
            .filter(|relay| relay.state == State::Reachable)
            .filter(|relay| relay.key != a.key && relay.key != b.key && !exclude.contains(&relay.key))
            .filter(|relay| {
                let ip = relay.address.ip();
                reach::may_be_told(ip, ip, a.remote.ip()) && reach::may_be_told(ip, ip, b.remote.ip())
            })
            .collect();
        fit.sort_by_cached_key(|relay| relay.cost(a, b));
        fit.truncate(OFFERED);
        fit
    }

    /// Where a node of that name and key, seen at `remote`, may ask relays by STUN: those of its own user first, then
    /// super relays; of those alike always the same, and each node others. Two a family. None that is seen where the
    /// node is: it would see what the NAT before both makes of traffic that does not leave.
    pub(super) fn stun(&self, name: &NodeId, key: &PublicKey, remote: IpAddr) -> Vec<SocketAddr> {
        let remote = remote.to_canonical();
        let own = self.private.get(&name.user).into_iter().flatten();
        let relays = own.chain(&self.supers).filter_map(|conn| self.map.get(conn));
        let relays = relays.filter(|relay| relay.state == State::Reachable && relay.key != *key);
        let mut addresses: Vec<_> = relays
            .flat_map(|relay| relay.stun.iter().map(move |address| (relay, *address)))
            .filter(|(_, address)| {
                let ip = address.ip();
                ip != remote && reach::may_be_told(ip, ip, remote)
            })
            .collect();
        addresses.sort_by_cached_key(|(relay, _)| (relay.name.user != name.user, distance(&relay.key, key)));
        let mut room = [MAX_STUN_RELAYS / 2; 2];
        addresses.retain(|(_, address)| {
            let [v4, v6] = &mut room;
            let room = if address.is_ipv4() { v4 } else { v6 };
            let fits = *room > 0;
            *room = room.saturating_sub(1);
            fits
        });
        addresses.into_iter().map(|(_, address)| address).collect()
    }

    /// All relays, for the REST interface.
    pub(super) fn views(&self) -> Vec<RelayView> {
        let view = |relay: &Relay| RelayView {
            user: relay.name.user.clone(),
            node: relay.name.node.clone(),
            key: KeyText(relay.key),
            super_relay: relay.report.super_relay,
            address: relay.address,
            reachable: relay.state == State::Reachable,
            reason: match &relay.state {
                State::Unchecked => Some("not checked yet".to_owned()),
                State::Reachable => None,
                State::Unreachable(reason) => Some(reason.clone()),
            },
            rtt_ms: relay.rtt.map(super::millis),
            limit_mbps: relay.report.bandwidth_mbps,
            sessions: relay.load.sessions,
            mbps: relay.load.mbps,
            bytes: relay.load.bytes,
            stun: relay.stun.clone(),
        };
        self.map.values().map(view).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn supers(&self) -> usize {
        self.supers.len()
    }

    fn schedule(&mut self, conn: ConnId, at: Instant) {
        let Some(relay) = self.map.get_mut(&conn) else { return };
        if let Some(before) = relay.due.replace(at) {
            self.due.remove(before, conn);
        }
        self.due.insert(at, conn);
    }
}

impl Relay {
    /// When it may be looked at again.
    fn soonest(&self, now: Instant) -> Instant {
        self.looked.map_or(now, |looked| now.max(looked + CHECK_INTERVAL))
    }

    /// Whether its UDP port is seen where it has not been asked by STUN.
    fn has_moved(&self) -> bool {
        self.udp.iter().any(|address| !self.asked.contains(address))
    }

    /// Whether both are of the relay's own user.
    fn is_private_to(&self, a: &Online, b: &Online) -> bool {
        self.name.user == a.name.user && self.name.user == b.name.user
    }

    /// The lower, the better: one with bandwidth to spare, then the shorter way, then the one less busy.
    fn cost(&self, a: &Online, b: &Online) -> (bool, u32, u32, PublicKey) {
        let limit = self.report.bandwidth_mbps;
        let busy = limit > 0 && self.load.mbps.saturating_mul(10) >= limit.saturating_mul(9);
        // Differences that one cannot feel, and one measurement cannot tell, do not count.
        let way = self.way(a).saturating_add(self.way(b)) / FELT_MS;
        let load = self.load.mbps.saturating_mul(1000).checked_div(limit).unwrap_or(0);
        (busy, way, load.saturating_add(self.load.sessions), self.key)
    }

    /// The round trip of a node to this relay, in milliseconds: as the node measured it, or by way of the
    /// server, which is at least an upper bound.
    fn way(&self, node: &Online) -> u32 {
        if let Some(ms) = node.rtts.get(&self.key) {
            return *ms;
        }
        match (node.rtt_ms, self.rtt) {
            (Some(ms), Some(rtt)) => u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX).saturating_add(ms),
            (Some(_) | None, Some(_) | None) => UNKNOWN_MS,
        }
    }
}

/// How far two keys are from each other: another order of relays for each node.
fn distance(a: &PublicKey, b: &PublicKey) -> [u8; 32] {
    let mut distance = a.0;
    distance.iter_mut().zip(b.0).for_each(|(byte, other)| *byte ^= other);
    distance
}

/// Where the STUN ports have seen a node's UDP port.
fn seen_udp(node: &Online) -> Vec<SocketAddr> {
    let seen = node.reported.iter().flat_map(|reported| &reported.reflexive);
    let udp = seen.filter(|candidate| candidate.transport == Transport::Udp);
    udp.map(|candidate| candidate.address).collect()
}

/// The lowest port that is looked at: those below belong to the system's services, which no node's relay is.
const FIRST_PORT: u16 = 1024;
/// The most private relays of one user, and the most super relays: choosing looks at each of them.
const MAX_PRIVATE: usize = 64;
pub(super) const MAX_SUPERS: usize = 256;
/// The most relays of a tier that are offered at a time: the best, and one to fall back on.
const OFFERED: usize = 2;
/// Checks at a time: a herd that comes back after a restart is looked at within seconds.
const MAX_CHECKS: usize = 32;
/// How often a relay that answers is looked at.
const PERIOD: Duration = Duration::from_secs(300);
/// How soon one that did not answer is looked at again, the first time.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// At most one check of a relay in this time, whoever doubts it.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The longest reason that the driver may give, in characters: it has to fit the message to the node.
const MAX_REASON: usize = 64;
/// The round trip of a way that nobody has measured: a bad one, so that known good ones go first.
const UNKNOWN_MS: u32 = 150;
/// What cannot be felt, in milliseconds.
const FELT_MS: u32 = 10;
