//! Two sessions and some relays in memory: when relays are dialled, what goes through them, and what a session
//! says of them.

use super::*;
use crate::agent::io::Via;
use crate::nat::NatReport;
use crate::punch::{Budget, Effort};
use crate::relay::ticket::VALID;
use crate::relay::{Access, Answer, Credential, Proof, Reason, RelayOffer, Ticket, TicketKey, Tier};
use crate::time::WallClock;

const UNIX: Duration = Duration::from_secs(1_700_000_000);
const ATTEMPT: AttemptId = AttemptId([9; 16]);

/// A relay that pairs whoever comes for the same attempt, or refuses all.
struct Relay {
    tier: Tier,
    refuses: Option<Reason>,
    /// Whether it answers the dial at all.
    there: bool,
    /// What answers at its address in its place; nothing for silence. It can be reached in a WebSocket then.
    instead: Option<&'static [u8]>,
    /// Whether dials hang until the test lets them through ([`World::let_in`]).
    hangs: bool,
    gate: crate::relay::Gate,
}

/// A connection of a node to a relay.
struct Leg {
    at: usize,
    link: LinkId,
    relay: usize,
    reception: crate::relay::Reception,
    /// Whether it has been let in.
    admitted: bool,
    from_node: Vec<u8>,
    to_node: Vec<u8>,
}

struct World {
    now: Instant,
    start: Instant,
    sessions: [Session; 2],
    relays: Vec<Relay>,
    legs: Vec<Leg>,
    news: [Vec<SessionNews>; 2],
    /// When which relay was dialled, by the first side.
    dialled: Vec<(Duration, usize)>,
    /// When the server was dialled in a WebSocket, by the first side.
    websockets: Vec<Duration>,
    /// Dials that hang: whose, and to which relay.
    hanging: Vec<(usize, LinkId, usize)>,
    tickets: u8,
}

fn relay_key(relay: usize) -> PublicKey {
    keys(u8::try_from(50 + relay).unwrap()).1
}

fn address(relay: usize) -> SocketAddr {
    ([192, 0, 2, u8::try_from(relay).unwrap()], 27185).into()
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    fn new(tiers: &[Tier]) -> Self {
        let now = Instant::now();
        let [low, high] = seeds();
        let relay = |(at, tier): (usize, &Tier)| {
            let mut gate = crate::relay::Gate::new(relay_key(at));
            gate.set_clock(WallClock::new(now, UNIX));
            gate.set_ticket_key(now, TicketKey::new(1, [8; 32]));
            Relay { tier: *tier, refuses: None, there: true, instead: None, hangs: false, gate }
        };
        Self {
            now,
            start: now,
            sessions: [session(now, low, high, 1), session(now, high, low, 2)],
            relays: tiers.iter().enumerate().map(relay).collect(),
            legs: Vec::new(),
            news: [Vec::new(), Vec::new()],
            dialled: Vec::new(),
            websockets: Vec::new(),
            hanging: Vec::new(),
            tickets: 0,
        }
    }

    fn access(&mut self, side: usize, relay: usize) -> Access {
        let [low, high] = seeds().map(|seed| keys(seed).1);
        let (own, peer) = if side == 0 { (low, high) } else { (high, low) };
        self.tickets += 1;
        let ticket = TicketKey::new(1, [8; 32]).seal(&Ticket {
            relay: relay_key(relay),
            own,
            peer,
            attempt: ATTEMPT,
            account: [0; 8],
            not_after: UNIX + (self.now - self.start) + VALID,
            nonce: [self.tickets; 16],
        });
        let tier = self.relays[relay].tier;
        let name = (tier != Tier::Server).then(|| format!("r{relay}").parse().unwrap());
        let offer = RelayOffer {
            attempt: ATTEMPT,
            relay: name,
            tier,
            key: relay_key(relay),
            addresses: vec![address(relay)],
            websocket: tier == Tier::Server,
            credential: Credential::Ticket(ticket),
        };
        Access { proof: Proof::Ticket(ticket), offer }
    }

    fn accesses(&mut self, side: usize) -> Vec<Access> {
        (0..self.relays.len()).map(|relay| self.access(side, relay)).collect()
    }

    /// Begins the attempt on both sides; with `direct`, an address that never answers is dialled besides.
    fn attempt(&mut self, direct: bool) {
        for side in 0..2 {
            let candidate = Candidate {
                kind: CandidateKind::Host,
                transport: Transport::Tcp,
                address: ([10, 0, 0, 1], 5).into(),
            };
            let attempt = Attempt {
                id: ATTEMPT,
                punch_key: [7; 32],
                candidates: if direct { vec![candidate] } else { Vec::new() },
                rungs: RungSet::from_iter([
                    Rung::TcpDirect,
                    Rung::PrivateRelay,
                    Rung::SuperRelay,
                    Rung::ServerRelay,
                ]),
                relays: self.accesses(side),
                own_nat: NatReport::default(),
                peer_nat: NatReport::default(),
                tcp_in: None,
                effort: Effort::Full,
                budget: Budget::default(),
            };
            self.sessions[side].attempt(self.now, attempt);
        }
        self.settle();
    }

    fn settle(&mut self) {
        while self.act() | self.carry() {}
    }

    fn act(&mut self) -> bool {
        let mut acted = false;
        for at in 0..2 {
            while let Some(action) = self.sessions[at].poll_action() {
                acted = true;
                match action {
                    Action::Dial { link, to, .. } => {
                        let Some(relay) = (0..self.relays.len()).find(|relay| address(*relay) == to) else {
                            continue;
                        };
                        if at == 0 {
                            self.dialled.push((self.now - self.start, relay));
                        }
                        match self.relays[relay].instead {
                            Some(answer) => {
                                self.sessions[at].connected(self.now, link);
                                self.sessions[at].receive(self.now, link, &mut answer.to_vec());
                            }
                            None => self.dial(at, link, relay),
                        }
                    }
                    Action::OpenSocket { link, .. } => self.sessions[at].opened(self.now, link, None),
                    Action::CloseSocket(_) => {}
                    Action::DialServer { link } => {
                        let server = self.relays.iter().position(|relay| relay.tier == Tier::Server);
                        let relay = server.unwrap();
                        if at == 0 {
                            self.websockets.push(self.now - self.start);
                        }
                        self.dial(at, link, relay);
                    }
                    Action::Close { link, .. } => self.hang_up(at, link),
                    Action::News(news) => self.news[at].push(news),
                    Action::PeerLeaving(_) | Action::Route(_) | Action::Unroute { .. } => {}
                }
            }
            while self.sessions[at].mux().poll_event().is_some() {}
        }
        acted
    }

    fn dial(&mut self, at: usize, link: LinkId, relay: usize) {
        if self.relays[relay].hangs {
            return self.hanging.push((at, link, relay));
        }
        self.meet(at, link, relay);
    }

    /// A dial of a side that hung goes through: the first of them, or the last.
    fn let_in(&mut self, side: usize, first: bool) {
        let mut own = (0..self.hanging.len()).filter(|at| self.hanging[*at].0 == side);
        let place = if first { own.next() } else { own.next_back() };
        let (at, link, relay) = self.hanging.remove(place.unwrap());
        self.meet(at, link, relay);
    }

    fn meet(&mut self, at: usize, link: LinkId, relay: usize) {
        if !self.relays[relay].there {
            return self.sessions[at].closed(self.now, link, "connection refused");
        }
        let reception = crate::relay::Reception::new([self.tickets; 32]);
        let (from_node, to_node) = (Vec::new(), Vec::new());
        self.legs.push(Leg { at, link, relay, reception, admitted: false, from_node, to_node });
        self.sessions[at].connected(self.now, link);
    }

    /// A side ends its connection to a relay, which ends the other's.
    fn hang_up(&mut self, at: usize, link: LinkId) {
        self.hanging.retain(|(side, hanging, _)| (*side, *hanging) != (at, link));
        let Some(place) = self.legs.iter().position(|leg| (leg.at, leg.link) == (at, link)) else { return };
        let leg = self.legs.remove(place);
        if let Some(other) = self.partner(leg.at, leg.relay).filter(|_| leg.admitted) {
            let other = self.legs.remove(other);
            self.sessions[other.at].closed(self.now, other.link, "the connection was closed");
        }
    }

    fn partner(&self, at: usize, relay: usize) -> Option<usize> {
        self.legs.iter().position(|leg| leg.at != at && leg.relay == relay && leg.admitted)
    }

    fn carry(&mut self) -> bool {
        let mut moved = false;
        for place in 0..self.legs.len() {
            let Some(leg) = self.legs.get_mut(place) else { return true };
            let mut out = Vec::new();
            self.sessions[leg.at].transmit(self.now, leg.link, &mut out, BURST);
            moved |= !out.is_empty();
            leg.from_node.extend(out);
            if !leg.admitted {
                moved |= self.greet(place);
            }
            let Some((at, relay, admitted)) =
                self.legs.get(place).map(|leg| (leg.at, leg.relay, leg.admitted))
            else {
                return true;
            };
            if let Some(other) = self.partner(at, relay).filter(|_| admitted) {
                let bytes = std::mem::take(&mut self.legs[place].from_node);
                moved |= !bytes.is_empty();
                self.legs[other].to_node.extend(bytes);
            }
            let leg = &mut self.legs[place];
            if !leg.to_node.is_empty() {
                let before = leg.to_node.len();
                let used = self.sessions[leg.at].receive(self.now, leg.link, &mut leg.to_node);
                leg.to_node.drain(..used);
                moved |= used > 0 && before > 0;
            }
            moved |= self.act();
        }
        moved
    }

    /// What a relay does with a connection that has not been let in.
    fn greet(&mut self, place: usize) -> bool {
        let leg = &mut self.legs[place];
        let wants = leg.reception.wants();
        if wants == 0 || leg.from_node.len() < wants {
            return false;
        }
        let bytes: Vec<u8> = leg.from_node.drain(..wants).collect();
        let heard = leg.reception.receive(&bytes, &mut leg.to_node).unwrap();
        let Some(crate::relay::handshake::Heard::Response(response)) = heard else { return true };
        let relay = &mut self.relays[leg.relay];
        let admitted = match relay.refuses {
            Some(reason) => Err(reason),
            None => relay.gate.admit(self.now, leg.reception.challenge(), &response).map(drop),
        };
        let (at, relay) = (leg.at, leg.relay);
        match admitted {
            Err(reason) => Answer::Refused(reason).encode(&mut leg.to_node),
            Ok(()) => {
                leg.admitted = true;
                if let Some(other) = self.partner(at, relay) {
                    for place in [place, other] {
                        Answer::Paired.encode(&mut self.legs[place].to_node);
                    }
                } else {
                    Answer::Waiting.encode(&mut self.legs[place].to_node);
                }
            }
        }
        true
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        self.settle();
        while let Some((at, why)) =
            self.sessions.iter().filter_map(Session::deadline).min().filter(|(at, _)| *at <= end)
        {
            self.now = self.now.max(at);
            for session in &mut self.sessions {
                session.tick(self.now);
            }
            self.settle();
            let next = self.sessions.iter().filter_map(Session::deadline).min();
            assert!(next.is_none_or(|(next, _)| next > at), "a deadline that never moves: {why}");
        }
        self.now = end;
    }

    fn ups(&self, at: usize) -> Vec<(Rung, Option<String>)> {
        let up = |news: &SessionNews| match news {
            SessionNews::Up { rung, via, .. } => Some((*rung, via.as_ref().map(Via::shown))),
            _ => None,
        };
        self.news[at].iter().filter_map(up).collect()
    }
}

const ALL: [Tier; 3] = [Tier::Private, Tier::Super, Tier::Server];

#[test]
fn a_relay_carries_the_session_and_is_named() {
    let mut world = World::new(&ALL);
    world.attempt(false);
    world.advance(Duration::from_secs(1));
    for at in 0..2 {
        assert!(world.sessions[at].is_up());
        assert_eq!(world.ups(at), [(Rung::PrivateRelay, Some("r0".to_owned()))]);
        let rtt = |news: &SessionNews| matches!(news, SessionNews::RelayRtt { .. });
        assert_eq!(world.news[at].iter().filter(|news| rtt(news)).count(), 1);
    }
    let key = world.sessions[0].mux().open(Protocol::Tcp, "10.0.0.1:22").unwrap();
    world.settle();
    assert!(world.sessions[0].mux().bytes(key).is_some());
    // Nothing else was dialled, and the attempt is over.
    assert_eq!(world.dialled.len(), 1);
    let outcomes = world.news[0].iter().find_map(|news| match news {
        SessionNews::AttemptDone { outcomes, .. } => Some(outcomes.clone()),
        _ => None,
    });
    let outcomes = outcomes.unwrap();
    let of = |rung| outcomes.iter().find(|outcome| outcome.rung == rung).unwrap().outcome;
    assert_eq!([of(Rung::PrivateRelay), of(Rung::ServerRelay)], [Verdict::Connected, Verdict::Skipped]);
}

#[test]
fn relays_wait_for_the_direct_rungs_and_each_tier_for_the_one_before() {
    let ms = |ms| Duration::from_millis(ms);
    let dialled = |direct: bool, silent: bool| {
        let mut world = World::new(&[Tier::Private, Tier::Private, Tier::Super, Tier::Server]);
        for relay in &mut world.relays {
            // They take the connection, and no peer comes: the other side is not told of them.
            relay.there = silent;
        }
        let relays = world.accesses(0);
        let candidate = Candidate {
            kind: CandidateKind::Host,
            transport: Transport::Tcp,
            address: ([10, 0, 0, 1], 5).into(),
        };
        let candidates = if direct { vec![candidate] } else { Vec::new() };
        let rungs = RungSet::from_iter(Rung::ALL.into_iter().filter(|rung| *rung > Rung::UdpPunch));
        let attempt = Attempt {
            id: ATTEMPT,
            punch_key: [7; 32],
            candidates,
            rungs,
            relays,
            own_nat: NatReport::default(),
            peer_nat: NatReport::default(),
            tcp_in: None,
            effort: Effort::Full,
            budget: Budget::default(),
        };
        world.sessions[0].attempt(world.now, attempt);
        world.advance(Duration::from_secs(2));
        world.dialled
    };
    assert_eq!(dialled(true, true), [(ms(250), 0), (ms(250), 1), (ms(500), 2), (ms(750), 3)]);
    // Where nothing else can be tried, they need not wait; and a tier that has failed is not waited for.
    assert_eq!(dialled(false, true), [(ms(0), 0), (ms(0), 1), (ms(250), 2), (ms(500), 3)]);
    assert_eq!(dialled(false, false), [(ms(0), 0), (ms(0), 1), (ms(0), 2), (ms(0), 3)]);
}

#[test]
fn a_relay_of_no_use_is_reported_and_the_next_one_used() {
    let mut world = World::new(&ALL);
    world.relays[0].refuses = Some(Reason::Busy);
    world.relays[1].there = false;
    world.attempt(false);
    world.advance(Duration::from_secs(1));
    for at in 0..2 {
        assert_eq!(world.ups(at), [(Rung::ServerRelay, Some("server".to_owned()))]);
        let failed: Vec<PublicKey> = world.news[at]
            .iter()
            .filter_map(|news| match news {
                SessionNews::RelayFailed { relay, .. } => Some(*relay),
                _ => None,
            })
            .collect();
        assert_eq!(failed, [relay_key(0), relay_key(1)]);
    }
}

#[test]
fn a_permission_that_is_too_old_has_the_session_ask_for_another_at_once() {
    let wanted = |world: &World| {
        world.news[0].iter().filter(|news| matches!(news, SessionNews::RelaysWanted { .. })).count()
    };
    for reason in [Reason::Stale, Reason::UnknownKey, Reason::Skew, Reason::Used] {
        let mut world = World::new(&[Tier::Private]);
        world.relays[0].refuses = Some(reason);
        world.attempt(false);
        assert_eq!(wanted(&world), 1, "{reason}");
        let failed = |news: &SessionNews| matches!(news, SessionNews::RelayFailed { .. });
        assert!(!world.news[0].iter().any(failed), "the relay itself is as good as before");
        world.relays[0].refuses = None;
        for side in 0..2 {
            let relays = world.accesses(side);
            world.sessions[side].relays(world.now, ATTEMPT, relays);
        }
        world.advance(Duration::from_millis(10));
        assert_eq!(world.ups(0), [(Rung::PrivateRelay, Some("r0".to_owned()))]);
    }
    // It does not ask for ever.
    let mut world = World::new(&[Tier::Private]);
    world.relays[0].refuses = Some(Reason::Stale);
    world.attempt(false);
    for _ in 0..5 {
        let relays = world.accesses(0);
        world.sessions[0].relays(world.now, ATTEMPT, relays);
        world.settle();
    }
    assert_eq!(wanted(&world), 2);
}

#[test]
fn where_the_server_lets_only_http_in_its_relay_is_reached_in_a_websocket() {
    for (instead, after) in [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], 0), (b"", 2)] {
        let mut world = World::new(&[Tier::Server]);
        world.relays[0].instead = Some(instead);
        world.attempt(false);
        world.advance(Duration::from_secs(3));
        assert_eq!(world.websockets, [Duration::from_secs(after)]);
        for at in 0..2 {
            assert!(world.sessions[at].is_up());
            assert_eq!(world.ups(at), [(Rung::ServerRelay, Some("server".to_owned()))]);
            let failed = |news: &SessionNews| matches!(news, SessionNews::RelayFailed { .. });
            assert!(!world.news[at].iter().any(failed));
        }
    }
}

#[test]
fn a_server_that_answers_is_not_asked_in_a_websocket_too() {
    for refuses in [None, Some(Reason::Busy), Some(Reason::NoPeer)] {
        let mut world = World::new(&[Tier::Server]);
        world.relays[0].refuses = refuses;
        world.attempt(false);
        world.advance(Duration::from_secs(10));
        assert!(world.websockets.is_empty(), "{refuses:?}");
    }
    // One that cannot be reached at all is tried that way at once, and then given up.
    let mut world = World::new(&[Tier::Server]);
    world.relays[0].there = false;
    world.attempt(false);
    world.advance(Duration::from_secs(10));
    assert_eq!((world.dialled.len(), world.websockets.len()), (1, 1));
    let failed = |news: &SessionNews| matches!(news, SessionNews::RelayFailed { .. });
    assert_eq!(world.news[0].iter().filter(|news| failed(news)).count(), 1);
}

/// Both ways in to the server's relay are tried, and both lead there, at either side in either order: what was sealed
/// for one use is shown on one of them.
#[test]
fn where_two_ways_to_a_relay_cross_one_is_taken_at_either_side() {
    for (firsts, together) in [[true, true], [true, false], [false, true], [false, false]]
        .into_iter()
        .flat_map(|firsts| [(firsts, false), (firsts, true)])
    {
        let mut world = World::new(&[Tier::Server]);
        world.relays[0].hangs = true;
        world.attempt(false);
        world.advance(Duration::from_millis(2_500));
        assert_eq!((world.dialled.len(), world.websockets.len(), world.hanging.len()), (1, 1, 4));
        for (side, first) in firsts.into_iter().enumerate() {
            world.let_in(side, first);
            if together {
                // The other one comes about before a word of the relay's has come by the first.
                world.let_in(side, true);
            }
            world.settle();
        }
        world.advance(Duration::from_secs(1));
        assert!(world.hanging.is_empty(), "nobody goes on with a way that is not needed any more");
        assert_eq!(world.legs.len(), 2);
        for at in 0..2 {
            assert_eq!(world.ups(at), [(Rung::ServerRelay, Some("server".to_owned()))], "{firsts:?}");
            assert_eq!(world.sessions[at].links.len(), 1);
            let trouble = |news: &&SessionNews| {
                matches!(news, SessionNews::RelayFailed { .. } | SessionNews::RelaysWanted { .. })
            };
            assert!(world.news[at].iter().find(trouble).is_none(), "{firsts:?} {together}");
        }
    }
}

#[test]
fn the_death_of_a_relay_is_the_end_of_the_link_on_both_sides() {
    let mut world = World::new(&[Tier::Private]);
    world.attempt(false);
    world.advance(Duration::from_secs(1));
    for leg in std::mem::take(&mut world.legs) {
        world.sessions[leg.at].closed(world.now, leg.link, "the connection was closed");
    }
    world.settle();
    for at in 0..2 {
        assert!(!world.sessions[at].is_up());
        let down = |news: &SessionNews| matches!(news, SessionNews::Down { .. });
        assert_eq!(world.news[at].iter().filter(|news| down(news)).count(), 1);
    }
}
