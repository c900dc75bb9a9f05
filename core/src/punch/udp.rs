//! The machine that punches one attempt's way through, by the plan.
//!
//! It sends requests ([`probe`]) where the plan says and answers the peer's. A request of the peer shows
//! that the peer reaches this side at a socket and from an address that nobody may have known before (a
//! *peer-reflexive* one, RFC 8445 section 7.3.1.3); it is asked back at once, and the answer shows that the
//! path works both ways. Whatever does not prove the attempt's key changes nothing.
//!
//! # The loop
//!
//! Like all machines of the control plane: hand in an [`Input`], do every [`Action`] in order, come back
//! with [`Input::Tick`] at the deadline. It is over after [`Input::Linked`] or [`Input::Stop`], and holds no new socket then but
//! the one that the link uses, which it has handed over.
//!
//! # What is bounded
//!
//! At most 576 new sockets (a row and two rounds of guessing), one being opened at a time. At most 200 requests a
//! second ([`GAP`]), those of the plan in all; five to an address that the peer only claims; `MAX_KNOWN` paths on which
//! the peer was heard; `MAX_ANSWERS` answers a second, each as long as its request. A request that was caught and sent on
//! from elsewhere makes that place one of those paths: it gets an answer, a few requests and `UNPROVEN_FLIGHTS`
//! datagrams of a handshake, and no more, because it cannot answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::aim::{Aim, Known};
use super::budget::Budget;
use super::fan::GAP;
use super::plan::{Plan, Way};
use super::ports::Shuffled;
use super::spread::Spread;
use super::why::Why;
use crate::due::earlier;
use crate::ids::{AttemptId, SockId};
use crate::link::Role;
use crate::link::udp::probe::{self, Kind, Probe, ProbeKey, Transaction};
use crate::link::udp::{ProbeTag, UdpPath};
use crate::rng::Rng;

/// What a puncher is made of.
#[derive(Debug)]
pub struct Config<'a> {
    /// This node's part.
    pub role: Role,
    /// The attempt.
    pub attempt: AttemptId,
    /// The attempt's punch key.
    pub punch_key: &'a [u8; 32],
    /// The node's own port for IPv4.
    pub main4: SockId,
    /// The same for IPv6: the same socket, where one serves both.
    pub main6: SockId,
    /// What to do.
    pub plan: Plan,
    /// What guesses draw on.
    pub budget: Budget,
    /// Whether the server has nothing to do with it.
    pub is_blind: bool,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram that begins as a probe does, with this attempt's tag.
    Datagram {
        /// Where it came in.
        socket: SockId,
        /// Where it came from.
        from: SocketAddr,
        /// What it says.
        bytes: &'a [u8],
    },
    /// What came of [`Action::Open`]: the new socket, or none if there is none to be had.
    Opened(Option<SockId>),
    /// The handshake has heard the peer on this socket, where no probe need have come: it stays open.
    Heard(SockId),
    /// The attempt's link is up on this socket: all others are to be closed.
    Linked(SockId),
    /// A newer attempt seeks: two at a time would be more probes than a peer is to get.
    Yield,
    /// The attempt is over.
    Stop,
    /// Nothing but time.
    Tick,
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bind a UDP socket to this port, or to any; [`Input::Opened`] says what came of it.
    Open(Option<u16>),
    /// Send a probe. One that cannot be sent counts as lost.
    Send {
        /// From where.
        socket: SockId,
        /// To where.
        to: SocketAddr,
        /// The time to live; none for the usual one.
        ttl: Option<u8>,
        /// What.
        bytes: [u8; probe::LENGTH],
    },
    /// Close a new socket.
    Close(SockId),
    /// The peer was heard on this path: the handshake may try it.
    Found {
        /// Where.
        path: UdpPath,
        /// How many datagrams may go there; none for any number, because the peer has answered there. A path
        /// is found twice, then.
        limit: Option<u32>,
        /// The round trip, if it was seen.
        rtt: Option<Duration>,
    },
    /// Punching has failed, or is not to be tried. Addresses of interfaces may still be probed.
    GaveUp(Why),
}

/// The machine.
#[derive(Debug)]
pub struct Puncher {
    role: Role,
    tag: ProbeTag,
    key: ProbeKey,
    rng: Rng,
    main: [SockId; 2],
    end: Instant,
    aims: Vec<Aim>,
    fans: VecDeque<Spread>,
    /// The random ports of all fans, so that none is tried twice.
    shuffled: Shuffled,
    known: SmallVec<[Known; 2]>,
    /// The peer's requests that showed a path, so that a copy from elsewhere shows no other.
    heard: VecDeque<Transaction>,
    asked: VecDeque<Asked>,
    /// New sockets that are open.
    sockets: Vec<SockId>,
    /// The one on which the handshake has heard the peer.
    kept: Option<SockId>,
    /// Whether a socket was asked for and has not come.
    is_opening: bool,
    /// When the next request may leave.
    free: Instant,
    /// How many answers were given since when.
    answered: (Instant, u32),
    probes: u32,
    guesses: u32,
    budget: Budget,
    is_blind: bool,
    /// Whether more would be guessed if there were room.
    is_spared: bool,
    has_given_up: bool,
    stage: Stage,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Requests leave by the plan.
    Seeking,
    /// A path works both ways, or the time is up: only answers leave, and requests to where the peer was
    /// heard.
    Done,
    /// Nothing leaves any more.
    Over,
}

#[derive(Debug)]
struct Asked {
    path: UdpPath,
    transaction: Transaction,
    at: Instant,
}

impl Puncher {
    /// Begins: there are actions at once. `seed` is 32 fresh secret bytes.
    pub fn new(config: Config<'_>, now: Instant, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed);
        let plan = config.plan;
        let main = [config.main4, config.main6];
        let of = |remote: SocketAddr| main[usize::from(remote.is_ipv6())];
        let aims = plan.targets.iter().map(|target| {
            let path = UdpPath::new(of(target.address), target.address);
            Aim::new(now, path, target.trust, plan.hold)
        });
        let mut puncher = Self {
            role: config.role,
            tag: ProbeTag::new(config.attempt, config.punch_key),
            key: ProbeKey::of_attempt(config.attempt, config.punch_key),
            main,
            end: now + plan.length,
            aims: aims.collect(),
            fans: plan.fans.into_iter().map(|fan| Spread::new(now, fan, config.main4)).collect(),
            shuffled: Shuffled::new(&mut rng),
            known: SmallVec::new(),
            heard: VecDeque::new(),
            asked: VecDeque::new(),
            sockets: Vec::new(),
            kept: None,
            is_opening: false,
            free: now,
            answered: (now, 0),
            probes: 0,
            guesses: 0,
            budget: config.budget,
            is_blind: config.is_blind,
            is_spared: plan.is_spared,
            has_given_up: false,
            stage: Stage::Seeking,
            actions: VecDeque::new(),
            rng,
        };
        if let Way::Hopeless(why) = plan.way {
            puncher.gave_up(why);
            if puncher.aims.is_empty() {
                puncher.stage = Stage::Done;
            }
        }
        puncher.send_what_is_due(now);
        puncher
    }

    /// What tells this attempt's probes.
    pub fn tag(&self) -> ProbeTag {
        self.tag
    }

    /// Takes in what happened. Actions and the deadline may have changed afterwards.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Opened(socket) => self.opened(socket),
            _ if self.stage == Stage::Over => {}
            Input::Datagram { socket, from, bytes } => {
                self.datagram(now, UdpPath::new(socket, from), bytes);
            }
            Input::Heard(socket) => self.kept = Some(socket),
            Input::Linked(socket) => self.stop(Some(socket)),
            Input::Yield => {
                if self.stage == Stage::Seeking {
                    self.give_up();
                }
            }
            Input::Stop => self.stop(None),
            Input::Tick => {}
        }
        self.send_what_is_due(now);
    }

    /// The next thing to do, first in first out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        if self.stage == Stage::Over {
            return None;
        }
        let due = self.due().map(|at| (at.max(self.free), "punch: send a probe"));
        let end = (self.stage == Stage::Seeking).then_some((self.end, "punch: give up"));
        earlier(due, end)
    }

    /// Whether it still tries to find a path.
    pub fn is_seeking(&self) -> bool {
        self.stage == Stage::Seeking
    }

    /// When it gives up, unless a path is found.
    pub fn end(&self) -> Instant {
        self.end
    }

    /// How many requests were sent.
    pub fn probes(&self) -> u32 {
        self.probes
    }

    fn datagram(&mut self, now: Instant, path: UdpPath, bytes: &[u8]) {
        let Some(probe) = Probe::parse(bytes) else { return };
        if probe.tag != self.tag || !probe.proves(&self.key, self.role.other()) || !self.is_own(path.socket) {
            return;
        }
        match probe.kind {
            Kind::Request => {
                if self.is_new(path, probe.transaction) && self.hear(now, path, None) && self.may_answer(now)
                {
                    self.send(path, None, Kind::Answer, probe.transaction);
                }
            }
            Kind::Answer => {
                let matches = |asked: &Asked| asked.transaction == probe.transaction && asked.path == path;
                let Some(at) = self.asked.iter().position(matches) else { return };
                let Some(asked) = self.asked.remove(at) else { return };
                if now < asked.at + PATIENCE {
                    self.hear(now, path, Some(now.saturating_duration_since(asked.at)));
                }
            }
        }
    }

    /// Whether a request may show a path. One that was copied on its way and comes from elsewhere does not.
    fn is_new(&mut self, path: UdpPath, transaction: Transaction) -> bool {
        if self.known.iter().any(|known| known.path == path) {
            return true;
        }
        if self.heard.contains(&transaction) {
            return false;
        }
        if self.heard.len() == MAX_HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back(transaction);
        true
    }

    /// The peer proved itself on this path; with a round trip it did so in answer to this side. Whether the
    /// path is one of those that are remembered.
    fn hear(&mut self, now: Instant, path: UdpPath, rtt: Option<Duration>) -> bool {
        let at = match self.known.iter().position(|known| known.path == path) {
            Some(at) => at,
            None if self.known.len() < MAX_KNOWN => {
                self.known.push(Known::new(now, path));
                if rtt.is_none() {
                    let limit = Some(UNPROVEN_FLIGHTS);
                    self.actions.push_back(Action::Found { path, limit, rtt });
                }
                self.known.len() - 1
            }
            None => return false,
        };
        let Some(known) = self.known.get_mut(at).filter(|known| rtt.is_some() && !known.is_confirmed) else {
            return true;
        };
        known.is_confirmed = true;
        self.actions.push_back(Action::Found { path, limit: None, rtt });
        self.finish();
        true
    }

    /// A socket is there, or none is to be had. One that comes too late is closed.
    fn opened(&mut self, socket: Option<SockId>) {
        self.is_opening = false;
        match (socket, self.fans.front_mut()) {
            (Some(socket), Some(fan)) => {
                fan.opened(socket);
                self.sockets.push(socket);
            }
            (None, Some(fan)) => fan.no_more(),
            (Some(socket), None) => self.actions.push_back(Action::Close(socket)),
            (None, None) => {}
        }
    }

    /// There is nothing more to look for: sockets by which nothing was heard are closed.
    fn finish(&mut self) {
        let heard: SmallVec<[SockId; 4]> =
            self.known.iter().map(|known| known.path.socket).chain(self.kept).collect();
        self.finish_as(Stage::Done, &heard);
    }

    fn stop(&mut self, winner: Option<SockId>) {
        self.known.clear();
        self.asked = VecDeque::new();
        self.finish_as(Stage::Over, winner.as_slice());
    }

    /// Nothing more is sought, and of the new sockets these are left.
    fn finish_as(&mut self, stage: Stage, kept: &[SockId]) {
        self.stage = self.stage.max(stage);
        self.aims.clear();
        self.fans.clear();
        let (kept, closed): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sockets).into_iter().partition(|socket| kept.contains(socket));
        self.sockets = kept;
        self.actions.extend(closed.into_iter().map(Action::Close));
    }

    fn is_own(&self, socket: SockId) -> bool {
        self.main.contains(&socket) || self.sockets.contains(&socket)
    }

    fn may_answer(&mut self, now: Instant) -> bool {
        let (since, count) = &mut self.answered;
        if now >= *since + ANSWERS_SPAN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= MAX_ANSWERS
    }

    /// When the next request is due, though it may not be free to leave yet.
    fn due(&self) -> Option<Instant> {
        let known = self.known.iter().filter_map(Known::next);
        let aims = self.aims.iter().filter_map(|aim| aim.next().map(|(at, _)| at));
        let fan = self.fans.front().filter(|_| !self.is_opening).map(Spread::due);
        known.chain(aims).chain(fan).min()
    }

    fn send_what_is_due(&mut self, now: Instant) {
        if self.stage == Stage::Seeking && now >= self.end {
            self.give_up();
        }
        while self.stage != Stage::Over && self.free <= now && self.due().is_some_and(|at| at <= now) {
            if self.send_one(now) {
                // A burst of a few at once, and no more than 200 in any second.
                self.free = self.free.max(now.checked_sub(BURST).unwrap_or(now)) + GAP;
            }
        }
    }

    /// Sends the first of what is due; false if that had to be left for now, or was nothing. What was heard
    /// comes first, then addresses, then ports.
    fn send_one(&mut self, now: Instant) -> bool {
        if let Some(known) = self.known.iter_mut().find(|known| known.next().is_some_and(|at| at <= now)) {
            known.sent();
            let path = known.path;
            self.ask(now, path, None);
            return true;
        }
        let is_due = |aim: &&mut Aim| aim.next().is_some_and(|(at, _)| at <= now);
        if let Some(aim) = self.aims.iter_mut().find(is_due) {
            let ttl = aim.next().and_then(|(_, ttl)| ttl);
            aim.sent();
            let path = aim.path;
            self.ask(now, path, ttl);
            return true;
        }
        let Some(fan) = self.fans.front_mut().filter(|_| !self.is_opening) else { return false };
        fan.inherit(&self.sockets);
        let is_new = fan.makes_entry();
        let room = if fan.is_guess() { Budget::room_to_guess } else { Budget::room };
        if is_new && room(&self.budget, now, self.is_blind) == 0 {
            self.is_spared = true;
            self.fans.pop_front();
            return false;
        }
        if fan.wants_socket() {
            // Opened when its first probe leaves: so many at once would be a burst of their own.
            self.is_opening = true;
            self.actions.push_back(Action::Open(fan.port()));
            return false;
        }
        let renews = fan.renews_entries();
        let aim = fan.next(now, &mut self.shuffled);
        if fan.is_over() {
            self.fans.pop_front();
        }
        let Some((path, ttl)) = aim else { return false };
        self.guesses += u32::from(!renews);
        if is_new {
            self.budget.take(now, self.is_blind);
        } else if renews {
            self.budget.renew(now, self.is_blind);
        }
        self.ask(now, path, ttl);
        true
    }

    fn ask(&mut self, now: Instant, path: UdpPath, ttl: Option<u8>) {
        while self.asked.front().is_some_and(|asked| now >= asked.at + PATIENCE) {
            self.asked.pop_front();
        }
        let transaction = Transaction(self.rng.bytes());
        self.asked.push_back(Asked { path, transaction, at: now });
        self.probes += 1;
        self.send(path, ttl, Kind::Request, transaction);
    }

    fn send(&mut self, path: UdpPath, ttl: Option<u8>, kind: Kind, transaction: Transaction) {
        let bytes = probe::encode(kind, self.role, self.tag, transaction, &self.key);
        self.actions.push_back(Action::Send { socket: path.socket, to: path.remote, ttl, bytes });
    }

    fn give_up(&mut self) {
        let why = match self.known.is_empty() {
            false => Why::OneWay,
            true if self.is_spared => Why::Spared { probes: self.probes },
            true => Why::Silence { probes: self.probes, guesses: self.guesses },
        };
        self.finish();
        self.gave_up(why);
    }

    fn gave_up(&mut self, why: Why) {
        if !std::mem::replace(&mut self.has_given_up, true) {
            self.actions.push_back(Action::GaveUp(why));
        }
    }
}

/// Paths on which the peer was heard: two families, a few interfaces, and a few ports that were hit at the
/// same time.
const MAX_KNOWN: usize = 8;
/// More than there are paths.
const MAX_HEARD: usize = 64;
/// A flight of a handshake, and its repetition, to where the peer was heard but has not answered.
const UNPROVEN_FLIGHTS: u32 = 4;
/// How long an answer counts: longer than any round trip.
const PATIENCE: Duration = Duration::from_secs(3);
/// Answers a second: a peer asks at most 200 times a second, but a path where it was answered no more.
const MAX_ANSWERS: u32 = 50;
const ANSWERS_SPAN: Duration = Duration::from_secs(1);
/// How much may leave at once, as a time: ten probes, one to each address of a peer that has many.
const BURST: Duration = Duration::from_micros(9 * 5_250);
