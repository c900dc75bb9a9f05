//! What NATs are before this node, and how they behave: measured against the server's STUN ports.
//!
//! The prober follows RFC 5780, separately for UDP and TCP, one after the other, and for IPv4 and IPv6, which
//! share no ports. It measures the very port that links will use ([`Socket::Main`], and the TCP port that the
//! node listens on), so what it finds is what peers will meet. `udp` and `tcp` say which questions are asked and what the answers mean, `exchange`
//! repeats a question that gets lost, `lifetime` finds out in the background how long an idle mapping
//! lives, `step` how regular its ports are. [`NatReport`] says it all in the terms of RFC 4787.
//!
//! This file says when: at the start, when the network changes, when the mapping turns out to be another
//! one (a small request now and then keeps it alive and asks), and from time to time while nothing comes
//! through. Where ports go in steps a new socket asks how far they have gone whenever others were opened. A
//! report is given as soon as the mapping is known, and again whenever more is; relays that could tell more
//! have it tested anew.
//!
//! UDP that does not come through is `blocked` only if something else shows that the server is there: TCP,
//! the other family's answers do not count, or the signalling connection. Else it is unknown, and unknown is
//! always tried.
//!
//! Loops like this drive it: hand in an [`Input`], do every [`Action`] in order, and come back with
//! [`Input::Tick`] at the deadline. Too many ticks do no harm. What it holds does not grow: at most eight
//! questions a family, one for the latest port, and one lifetime measurement.

mod exchange;
mod io;
mod lifetime;
mod report;
mod step;
mod tcp;
mod udp;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use exchange::Exchange;
pub use io::{Action, Input, Socket};
use lifetime::LifetimeProbe;
pub use report::{Behaviour, Dependence, Finding, Kind, Lifetime, NatReport};
use tcp::TcpProbe;
use udp::{Own, UdpProbe};

use crate::due::earlier;
use crate::rng::Rng;
use crate::stun::client::{self, Ask, Message};
use crate::wire::message::MAX_STUN_RELAYS;

/// The prober.
#[derive(Debug)]
pub struct Prober {
    config: Config,
    rng: Rng,
    servers: Vec<IpAddr>,
    addresses: Vec<IpAddr>,
    /// Other nodes that answer STUN.
    relays: Vec<SocketAddr>,
    /// When relays that came may have something tested anew.
    retest: Option<Instant>,
    port: u16,
    /// Whether the network is known at all.
    is_told: bool,
    signalling: bool,
    /// Whether proofs that are renewed are news: the server may be another process than before.
    renewing: bool,
    families: Vec<Family>,
    /// When to begin anew, for a change of network.
    restart: Option<Instant>,
    next_id: u64,
    published: NatReport,
    /// What was told last: what differs from it by proofs alone was not.
    told: NatReport,
    actions: VecDeque<Action>,
}

/// Where the server answers STUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// Its two UDP ports.
    pub udp: [u16; 2],
    /// Its two TCP ports.
    pub tcp: [u16; 2],
}

/// What is measured of one address family.
#[derive(Debug)]
struct Family {
    server: IpAddr,
    udp: UdpProbe,
    tcp: TcpProbe,
    /// None until it is worth it, and for good where nothing is translated.
    lifetime: Option<LifetimeProbe>,
    /// The question how far ports have gone, and the last answer.
    latest: Option<Exchange>,
    latest_port: Option<u16>,
    /// When it is asked next.
    look: Option<Instant>,
    /// What the latest finished tests said, so that a repetition does not show half of what was known.
    known: (Option<Behaviour>, Option<Behaviour>),
    after: After,
    /// How often in a row nothing came through.
    failures: u32,
    /// Whether anything ever has in this network.
    has_worked: bool,
}

/// What comes when the tests are over.
#[derive(Debug)]
enum After {
    /// They are not.
    Testing,
    /// The mapping is kept alive, and asked for again then.
    Resting(Instant),
    /// It is being asked for.
    Asking(Box<Exchange>),
}

impl Prober {
    /// One that waits for [`Input::Servers`] and [`Input::Network`]. `seed` is 32 fresh secret bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            config: Config::default(),
            rng: Rng::new(seed),
            servers: Vec::new(),
            addresses: Vec::new(),
            relays: Vec::new(),
            retest: None,
            port: 0,
            is_told: false,
            signalling: false,
            renewing: false,
            families: Vec::new(),
            restart: None,
            next_id: 0,
            published: NatReport::default(),
            told: NatReport::default(),
            actions: VecDeque::new(),
        }
    }

    /// Takes in what happened. Actions and the deadline may have changed afterwards.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Servers(servers, config) => {
                let first = |v4: bool| servers.iter().map(IpAddr::to_canonical).find(|ip| ip.is_ipv4() == v4);
                let new: Vec<IpAddr> = [first(true), first(false)].into_iter().flatten().collect();
                if (&new, config) != (&self.servers, self.config) {
                    (self.servers, self.config) = (new, config);
                    self.restart = Some(now);
                }
            }
            Input::Relays(relays) => self.relays(now, relays),
            Input::Network { addresses, port } => {
                self.addresses = addresses.iter().map(IpAddr::to_canonical).collect();
                self.port = port;
                // Interfaces go and come in bursts.
                let settled = if self.is_told { now + SETTLE } else { now };
                self.is_told = true;
                self.restart = Some(settled);
            }
            Input::Signalling(up) => {
                let news = up && !self.signalling;
                self.signalling = up;
                if news {
                    // What seemed to be away may be back, and proofs do not outlive a server: those that it
                    // gave before the login have not been told yet.
                    self.renewing = true;
                    let Self { families, config, rng, actions, .. } = self;
                    let mut act = |action| actions.push_back(action);
                    for family in families.iter_mut().filter(|family| !matches!(family.after, After::Testing))
                    {
                        family.again(now, config, rng, &mut act);
                    }
                }
            }
            Input::Mapped(after) => self.families.iter_mut().for_each(|family| family.look(now + after)),
            Input::Datagram { socket, from, bytes } => self.datagram(socket, from, bytes),
            Input::Exchanged { id, result } => {
                let Self { families, next_id, rng, actions, .. } = self;
                let mut act = |action| actions.push_back(action);
                families.iter_mut().any(|one| one.tcp.exchanged(now, id, result, next_id, rng, &mut act));
            }
            Input::Tick => {}
        }
        self.expire(now);
    }

    /// The next thing to do, first in first out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let restart = self.restart.filter(|_| self.is_told && !self.servers.is_empty());
        let own = restart.map(|at| (at, "probe anew after a change of network"));
        self.families.iter().map(Family::deadline).fold(own, earlier)
    }

    /// What is known.
    pub fn report(&self) -> &NatReport {
        &self.published
    }

    /// Tests anew what these can tell and the server could not, but not each time that relays come and go.
    fn relays(&mut self, now: Instant, relays: &[SocketAddr]) {
        let canonical = |relay: &SocketAddr| SocketAddr::new(relay.ip().to_canonical(), relay.port());
        self.relays = relays.iter().map(canonical).take(MAX_STUN_RELAYS).collect();
        if self.retest.is_some_and(|at| now < at) {
            return;
        }
        let own = Own { addresses: &self.addresses, port: self.port };
        let Self { families, config, rng, actions, relays, retest, .. } = self;
        let mut act = |action| actions.push_back(action);
        for family in families.iter_mut().filter(|family| family.udp.is_over()) {
            if family.udp.would_learn(relays, own) {
                *retest = Some(now + RETEST);
                family.again(now, config, rng, &mut act);
            }
        }
    }

    fn datagram(&mut self, socket: Socket, from: SocketAddr, bytes: &[u8]) {
        match client::read(bytes) {
            None => {}
            Some(Message::Request(transaction)) => {
                self.families.iter_mut().any(|family| family.udp.returned(&transaction));
            }
            Some(Message::Answer(transaction, result)) => {
                self.families.iter_mut().any(|family| {
                    family.udp.answered(socket, from, &transaction, result)
                        || family
                            .keeper()
                            .is_some_and(|keeper| keeper.answered(socket, from, &transaction, result))
                        || family
                            .latest
                            .as_mut()
                            .is_some_and(|latest| latest.answered(socket, from, &transaction, result))
                        || family
                            .lifetime
                            .as_mut()
                            .is_some_and(|lifetime| lifetime.answered(socket, from, &transaction, result))
                });
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        if self.is_told && !self.servers.is_empty() && self.restart.is_some_and(|at| at <= now) {
            self.begin(now);
        }
        // The end of one thing begins another; the longest chain is a test that ends, one that begins, and
        // its first request.
        for _ in 0..CHAIN {
            let own = Own { addresses: &self.addresses, port: self.port };
            let Self { families, rng, actions, next_id, config, signalling, relays, .. } = self;
            let mut act = |action| actions.push_back(action);
            for family in families {
                family.expire(now, own, relays, (config, *signalling), (rng, next_id), &mut act);
            }
            if self.deadline().is_none_or(|(at, _)| at > now) {
                break;
            }
        }
        self.publish();
    }

    /// Begins all tests anew, and forgets what was known.
    fn begin(&mut self, now: Instant) {
        self.restart = None;
        let Self { families, rng, actions, config, addresses, servers, .. } = self;
        let mut act = |action| actions.push_back(action);
        families.iter_mut().for_each(|family| family.end(&mut act));
        families.clear();
        for server in servers.iter().filter(|server| is_within_reach(**server, addresses)) {
            families.push(Family {
                server: *server,
                udp: UdpProbe::new(now, *server, config.udp, rng, &mut act),
                tcp: TcpProbe::new(now, *server, config.tcp),
                lifetime: None,
                latest: None,
                latest_port: None,
                look: None,
                known: (None, None),
                after: After::Testing,
                failures: 0,
                has_worked: false,
            });
        }
    }

    fn publish(&mut self) {
        let mut report = NatReport::default();
        for family in &self.families {
            let (udp, tcp) = family.known;
            let (udp, tcp) = (Some(udp.unwrap_or_default()), Some(tcp.unwrap_or_default()));
            if family.server.is_ipv4() {
                (report.udp4, report.tcp4) = (udp, tcp);
            } else {
                (report.udp6, report.tcp6) = (udp, tcp);
            }
        }
        let renewed = self.renewing && report != self.told;
        self.renewing &= self.families.iter().any(|family| matches!(family.after, After::Testing));
        let news = renewed || report.without_proofs() != self.published.without_proofs();
        self.published = report;
        if news {
            self.told = report;
            self.actions.push_back(Action::Report(Box::new(report)));
        }
    }
}

impl Family {
    fn expire(
        &mut self,
        now: Instant,
        own: Own<'_>,
        relays: &[SocketAddr],
        (config, signalling): (&Config, bool),
        (rng, next_id): (&mut Rng, &mut u64),
        act: &mut impl FnMut(Action),
    ) {
        self.udp.expire(now, own, relays, rng, act);
        self.tcp.expire(now, self.udp.is_mapped(), next_id, rng, act);
        if let Some(lifetime) = &mut self.lifetime {
            lifetime.expire(now, rng, act);
        }
        if self.look.take_if(|at| *at <= now).is_some() {
            self.forget_latest(act);
            let socket = Socket::Latest(self.server.is_ipv4());
            act(Action::Open(socket));
            let to = SocketAddr::new(self.server, self.udp.first_port());
            self.latest = Some(Exchange::new(now, socket, to, Ask::Proof, rng));
        }
        if let Some(latest) = &mut self.latest {
            latest.expire(now, act);
            if latest.is_over() {
                self.latest_port = latest.seen().map(|seen| seen.mapped.port()).or(self.latest_port);
                self.forget_latest(act);
            }
        }
        self.learn(own, signalling);
        let (reached, public) = (self.udp.is_reached(), self.public());
        match &mut self.after {
            After::Testing => {
                if self.udp.is_over() && self.tcp.is_over() {
                    self.rest(now, rng, act);
                }
            }
            After::Resting(at) if *at <= now => {
                if reached {
                    let to = SocketAddr::new(self.server, config.udp[0]);
                    let mut keeper = Exchange::new(now, Socket::Main, to, Ask::Proof, rng);
                    keeper.expire(now, act);
                    self.after = After::Asking(Box::new(keeper));
                } else {
                    self.again(now, config, rng, act);
                }
            }
            After::Asking(keeper) => {
                keeper.expire(now, act);
                let seen = keeper.seen().copied();
                let same = seen.is_some_and(|seen| Some(seen.mapped) == public);
                match (keeper.is_over(), same) {
                    (false, _) => {}
                    (true, true) => {
                        if let (Some(udp), Some(seen)) = (&mut self.known.0, seen) {
                            udp.proof = seen.proof;
                        }
                        self.after = After::Resting(now + self.pause());
                    }
                    // The mapping is another one, or nothing comes through any more.
                    (true, false) => self.again(now, config, rng, act),
                }
            }
            After::Resting(_) => {}
        }
    }

    /// Takes over what the tests say, if it is more than was known.
    fn learn(&mut self, own: Own<'_>, signalling: bool) {
        let testing = matches!(self.after, After::Testing);
        if testing || self.failures > 0 {
            let over = self.udp.is_over();
            let worth = over || (self.known.0.is_none() && self.udp.is_worth_reporting());
            if worth {
                let alive = signalling || self.tcp.is_reached();
                let mut new = self.udp.behaviour(own, alive);
                if let Some(old) = self.known.0.filter(|old| old.public == new.public && self.has_worked) {
                    // The mappings that there were, and many others since, say nothing of steps.
                    let symmetric = new.mapping.is == old.mapping.is;
                    new.port_step = new.port_step.or(old.port_step.filter(|_| symmetric));
                } else {
                    self.latest_port = None;
                }
                self.known.0 = Some(new);
            }
            if self.tcp.is_over() {
                let alive = signalling || self.udp.is_reached();
                self.known.1 = Some(self.tcp.behaviour(alive));
            }
        }
        if let (Some(udp), Some(lifetime)) = (&mut self.known.0, &self.lifetime) {
            udp.lifetime = lifetime.found();
        }
        if let Some(udp) = &mut self.known.0 {
            udp.latest_port = self.latest_port.filter(|_| udp.port_step.is_some());
        }
    }

    /// Asks then how far the ports have gone, or later if that is planned already.
    fn look(&mut self, at: Instant) {
        if self.known.0.is_some_and(|udp| udp.port_step.is_some()) {
            self.look = self.look.max(Some(at));
        }
    }

    fn forget_latest(&mut self, act: &mut impl FnMut(Action)) {
        if self.latest.take().is_some() {
            act(Action::Close(Socket::Latest(self.server.is_ipv4())));
        }
    }

    fn rest(&mut self, now: Instant, rng: &mut Rng, act: &mut impl FnMut(Action)) {
        self.failures = if self.udp.is_reached() { 0 } else { self.failures.saturating_add(1) };
        self.has_worked |= self.udp.is_reached();
        self.after = After::Resting(now + self.pause());
        let known = self.known.0.unwrap_or_default();
        if self.lifetime.is_none() && known.translated == Some(true) && known.proof.is_some() {
            let to = SocketAddr::new(self.server, self.udp.first_port());
            self.lifetime = Some(LifetimeProbe::new(now, to, rng, act));
        }
    }

    /// Until the next look.
    fn pause(&self) -> Duration {
        match self.failures {
            0 => {
                let measured = self.known.0.and_then(|udp| udp.lifetime);
                measured
                    .filter(|lifetime| lifetime.below.is_some())
                    .map_or(KEEP, |lifetime| lifetime.keepalive().min(KEEP))
            }
            // The line was down, and will be back without a word.
            _ if self.has_worked => KEEP,
            failures => (RETRY * 2_u32.saturating_pow(failures - 1)).min(MAX_RETRY),
        }
    }

    /// Tests again in the same network.
    fn again(&mut self, now: Instant, config: &Config, rng: &mut Rng, act: &mut impl FnMut(Action)) {
        self.udp.abandon(act);
        self.udp = UdpProbe::new(now, self.server, config.udp, rng, act);
        self.tcp = TcpProbe::new(now, self.server, config.tcp);
        self.after = After::Testing;
    }

    fn end(&mut self, act: &mut impl FnMut(Action)) {
        self.udp.abandon(act);
        self.forget_latest(act);
        if let Some(lifetime) = &mut self.lifetime {
            lifetime.end(act);
        }
    }

    fn public(&self) -> Option<SocketAddr> {
        self.known.0.and_then(|udp| udp.public)
    }

    fn keeper(&mut self) -> Option<&mut Exchange> {
        match &mut self.after {
            After::Asking(keeper) => Some(keeper),
            After::Testing | After::Resting(_) => None,
        }
    }

    fn deadline(&self) -> Option<(Instant, &'static str)> {
        let after = match &self.after {
            After::Testing => None,
            After::Resting(at) => Some((*at, "keep the mapping alive, or try again")),
            After::Asking(keeper) => keeper.deadline().map(|at| (at, "repeat the keepalive")),
        };
        let udp = self.udp.deadline().map(|at| (at, "repeat a test of the NAT"));
        let latest = self.latest.as_ref().and_then(Exchange::deadline);
        let latest = latest.into_iter().chain(self.look).min();
        let udp = earlier(udp, latest.map(|at| (at, "ask how far the ports have gone")));
        let tests = earlier(udp, self.tcp.deadline().map(|at| (at, "test the NAT over TCP")));
        let lifetime = self.lifetime.as_ref().and_then(LifetimeProbe::deadline);
        earlier(earlier(after, tests), lifetime.map(|at| (at, "look whether an idle mapping lives")))
    }
}

/// Whether a host with these addresses can have a way to `server`: it has an address of that family that
/// reaches as far.
fn is_within_reach(server: IpAddr, addresses: &[IpAddr]) -> bool {
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let fits = |ip: &&IpAddr| ip.is_ipv4() == server.is_ipv4() && !link_local(ip);
    addresses.iter().filter(fits).any(|ip| server.is_loopback() || !ip.is_loopback())
}

/// How many times the families are looked at in a row.
const CHAIN: usize = 8;
/// How long interfaces may take to settle.
const SETTLE: Duration = Duration::from_millis(500);
/// How often the mapping is refreshed and looked at, if nothing shorter has been measured: below the 30 s
/// of the most forgetful NATs in use. 20,000 nodes make 1,000 requests a second.
const KEEP: Duration = Duration::from_secs(20);
/// How often relays that came may have something tested anew.
const RETEST: Duration = Duration::from_secs(300);
/// The first pause before trying again where nothing came through; it doubles.
const RETRY: Duration = Duration::from_secs(30);
/// The longest one.
const MAX_RETRY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
