//! The path layer below QUIC. QUIC sees one peer at one address that never changes; this decides from which
//! socket to which real address its datagrams go.
//!
//! - **Seeking**: no datagram of the peer has been authenticated. Those that QUIC has to send, its handshake's,
//!   go to every live candidate (RFC 8445's candidate pairs, with QUIC's Initial as the check); a candidate
//!   that is added later gets the first of them too.
//! - **Fixed**: the source of the first authenticated datagram is the path, and nothing else is sent to.
//!
//! A fixed path moves only by evidence that whoever is at the new address holds the key *now*: an authentic
//! datagram from another source is good for one request to it, and the answer to that moves the path (the
//! place of PATH_CHALLENGE, RFC 9000 section 8.2, which QUIC cannot do because it sees one address). A datagram
//! that somebody copied and sent on from elsewhere therefore moves nothing.
//!
//! A NAT that forgets a mapping cuts off a receiver that has nothing to say. So the end of a burst of
//! datagrams is followed by a request along the path ([`Lull`]): it makes a new mapping, and shows the peer
//! where it is.
//!
//! What this leaves to others: which candidates there are and who may be probed (`agent`, the server), and
//! what to tell QUIC when the path moves.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::id::ProbeTag;
use super::probe::{self, Kind, Probe, ProbeKey, Transaction};
use crate::ids::SockId;
use crate::link::Role;
use crate::rng::Rng;

/// A socket of ours and the peer's real address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UdpPath {
    /// The socket.
    pub socket: SockId,
    /// The address; IPv4 is never IPv4 mapped into IPv6.
    pub remote: SocketAddr,
}

impl UdpPath {
    /// A path between these two.
    pub fn new(socket: SockId, remote: SocketAddr) -> Self {
        Self { socket, remote: SocketAddr::new(remote.ip().to_canonical(), remote.port()) }
    }
}

/// The paths of one link.
#[derive(Debug)]
pub(super) struct Paths {
    role: Role,
    tag: ProbeTag,
    key: ProbeKey,
    state: State,
    /// Requests that may still be answered; at most [`MAX_ASKED`].
    asked: VecDeque<Asked>,
    /// Probes to send; at most [`MAX_OUTBOX`].
    outbox: VecDeque<(UdpPath, [u8; probe::LENGTH])>,
    /// When a source other than the path last earned a request.
    earned: Option<Instant>,
    /// The path before this one, and when it was left: what was under way on it is no news.
    left: Option<(UdpPath, Instant)>,
    /// How many answers were given since when.
    answered: (Option<Instant>, u32),
    lull: Lull,
    rng: Rng,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one of these a link, and it seeks only once")]
enum State {
    Seeking {
        candidates: SmallVec<[Candidate; 8]>,
        /// The first datagrams of the handshake, and when they were made: what a candidate is begun with.
        first: SmallVec<[Arc<[u8]>; 2]>,
        first_at: Option<Instant>,
        /// What still goes out, and where.
        queue: VecDeque<(UdpPath, Arc<[u8]>)>,
    },
    Fixed(UdpPath),
}

#[derive(Debug)]
struct Candidate {
    path: UdpPath,
    /// How many datagrams it may still get; none for any number.
    left: Option<u32>,
}

#[derive(Debug)]
struct Asked {
    path: UdpPath,
    transaction: Transaction,
    at: Instant,
}

/// What a probe led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It proves nothing.
    Nothing,
    /// The peer holds the key.
    Peer,
    /// The peer is at the end of another path, which datagrams take from now on.
    Moved,
}

impl Paths {
    pub(super) fn new(role: Role, tag: ProbeTag, key: ProbeKey, rng: Rng) -> Self {
        Self {
            role,
            tag,
            key,
            state: State::Seeking {
                candidates: SmallVec::new(),
                first: SmallVec::new(),
                first_at: None,
                queue: VecDeque::new(),
            },
            asked: VecDeque::new(),
            outbox: VecDeque::new(),
            earned: None,
            left: None,
            answered: (None, 0),
            lull: Lull::default(),
            rng,
        }
    }

    /// From now on probes are made and proven under this key, and no other.
    pub(super) fn rekey(&mut self, key: ProbeKey) {
        self.key = key;
        self.asked.clear();
        self.outbox.clear();
    }

    pub(super) fn tag(&self) -> ProbeTag {
        self.tag
    }

    /// The path that datagrams take.
    pub(super) fn current(&self) -> Option<UdpPath> {
        match &self.state {
            State::Seeking { .. } => None,
            State::Fixed(path) => Some(*path),
        }
    }

    /// A place where the peer may be; at most `limit` datagrams go there.
    pub(super) fn add_candidate(&mut self, path: UdpPath, limit: Option<u32>) {
        let State::Seeking { candidates, first, queue, .. } = &mut self.state else { return };
        if let Some(known) = candidates.iter_mut().find(|known| known.path == path) {
            if limit.is_none() {
                known.left = None;
            }
            return;
        }
        if candidates.len() == MAX_CANDIDATES {
            return;
        }
        let mut candidate = Candidate { path, left: limit };
        queue.extend(first.iter().filter(|_| candidate.spend()).map(|bytes| (path, Arc::clone(bytes))));
        candidates.push(candidate);
    }

    /// It is none any more: its socket is gone, or somebody else answered there.
    pub(super) fn remove_candidate(&mut self, path: UdpPath) {
        if let State::Seeking { candidates, queue, .. } = &mut self.state {
            candidates.retain(|candidate| candidate.path != path);
            queue.retain(|(to, _)| *to != path);
        }
    }

    /// What went by one socket goes by another one.
    pub(super) fn replace_socket(&mut self, old: SockId, new: SockId) {
        let swap = |path: &mut UdpPath| {
            if path.socket == old {
                path.socket = new;
            }
        };
        match &mut self.state {
            State::Seeking { candidates, queue, .. } => {
                candidates.iter_mut().for_each(|candidate| swap(&mut candidate.path));
                queue.iter_mut().for_each(|(path, _)| swap(path));
            }
            State::Fixed(path) => swap(path),
        }
        self.asked.iter_mut().for_each(|asked| swap(&mut asked.path));
        self.outbox.iter_mut().for_each(|(path, _)| swap(path));
    }

    /// Whether QUIC's next datagram can go out while no path is fixed.
    pub(super) fn wants_flight(&self) -> bool {
        matches!(&self.state, State::Seeking { candidates, .. } if !candidates.is_empty())
    }

    /// Sends a datagram of the handshake to every candidate.
    pub(super) fn fan_out(&mut self, now: Instant, datagram: &[u8]) {
        let State::Seeking { candidates, first, first_at, queue } = &mut self.state else { return };
        let bytes: Arc<[u8]> = datagram.into();
        if *first_at.get_or_insert(now) == now && first.len() < MAX_FIRST {
            first.push(Arc::clone(&bytes));
        }
        for candidate in candidates {
            if candidate.spend() && queue.len() < MAX_QUEUE {
                queue.push_back((candidate.path, Arc::clone(&bytes)));
            }
        }
    }

    /// The next datagram that was fanned out.
    pub(super) fn poll_flight(&mut self, out: &mut Vec<u8>) -> Option<UdpPath> {
        let State::Seeking { queue, .. } = &mut self.state else { return None };
        let (path, bytes) = queue.pop_front()?;
        out.extend_from_slice(&bytes);
        Some(path)
    }

    /// The next probe.
    pub(super) fn poll_probe(&mut self, out: &mut Vec<u8>) -> Option<UdpPath> {
        let (path, bytes) = self.outbox.pop_front()?;
        out.extend_from_slice(&bytes);
        Some(path)
    }

    /// QUIC was given a datagram that came along `path`, and found it authentic or not.
    pub(super) fn heard(&mut self, now: Instant, path: UdpPath, authentic: bool) {
        match self.current() {
            Some(current) if current == path => self.lull.heard(now),
            Some(_) if authentic => self.earn(now, path),
            None if authentic => {
                self.state = State::Fixed(path);
                self.lull.heard(now);
            }
            Some(_) | None => {}
        }
    }

    /// A datagram that begins as a probe does.
    pub(super) fn probe(&mut self, now: Instant, path: UdpPath, datagram: &[u8]) -> Heard {
        let Some(probe) = Probe::parse(datagram) else { return Heard::Nothing };
        if probe.tag != self.tag || !probe.proves(&self.key, self.role.other()) {
            return Heard::Nothing;
        }
        match probe.kind {
            Kind::Request => self.answer(now, path, probe.transaction),
            Kind::Answer => self.answered(now, path, probe.transaction),
        }
    }

    /// Asks whether the peer is at the end of `path`; its answer moves the link there.
    pub(super) fn ask(&mut self, now: Instant, path: UdpPath) {
        while self.asked.front().is_some_and(|asked| now >= asked.at + ANSWER_PATIENCE)
            || self.asked.len() >= MAX_ASKED
        {
            self.asked.pop_front();
        }
        let transaction = Transaction(self.rng.bytes());
        self.asked.push_back(Asked { path, transaction, at: now });
        self.send(path, Kind::Request, transaction);
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.current()?;
        Some((self.lull.deadline()?, "link: silence after many datagrams"))
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let Some(path) = self.current() else { return };
        if self.lull.deadline().is_some_and(|deadline| now >= deadline) {
            self.lull.asked(now);
            self.ask(now, path);
        }
    }

    fn answer(&mut self, now: Instant, path: UdpPath, transaction: Transaction) -> Heard {
        let (since, count) = &mut self.answered;
        if since.is_none_or(|since| now >= since + ANSWERS_SPAN) {
            (*since, *count) = (Some(now), 0);
        }
        if *count >= MAX_ANSWERS {
            return Heard::Nothing;
        }
        *count += 1;
        self.send(path, Kind::Answer, transaction);
        match self.current() {
            Some(current) if current != path => self.earn(now, path),
            Some(_) => {}
            None => self.add_candidate(path, None),
        }
        Heard::Peer
    }

    fn answered(&mut self, now: Instant, path: UdpPath, transaction: Transaction) -> Heard {
        let mut recent = self.asked.iter().map(|asked| {
            asked.transaction == transaction && asked.path == path && now < asked.at + ANSWER_PATIENCE
        });
        let Some(at) = recent.position(|matches| matches) else { return Heard::Nothing };
        self.asked.remove(at);
        match &mut self.state {
            State::Fixed(current) if *current == path => {
                self.lull = Lull::default();
                Heard::Peer
            }
            State::Fixed(current) => {
                self.left = Some((*current, now));
                *current = path;
                self.lull = Lull::default();
                Heard::Moved
            }
            State::Seeking { .. } => {
                self.add_candidate(path, None);
                Heard::Peer
            }
        }
    }

    /// A source has shown that the peer may be there.
    fn earn(&mut self, now: Instant, path: UdpPath) {
        if self.left.is_some_and(|(left, at)| left == path && now < at + LEFT_SPAN) {
            return;
        }
        if self.earned.is_none_or(|at| now >= at + EARN_SPAN) {
            self.earned = Some(now);
            self.ask(now, path);
        }
    }

    fn send(&mut self, path: UdpPath, kind: Kind, transaction: Transaction) {
        if self.outbox.len() < MAX_OUTBOX {
            let bytes = probe::encode(kind, self.role, self.tag, transaction, &self.key);
            self.outbox.push_back((path, bytes));
        }
    }
}

impl Candidate {
    /// Takes one datagram off what it may get.
    fn spend(&mut self) -> bool {
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// Notices when many datagrams were coming and then none. An idle link's pings are too few to count: it is
/// cut off by a lost mapping no longer than until its own next ping.
#[derive(Debug, Default)]
struct Lull {
    /// Datagrams that came without a pause.
    burst: u32,
    last: Option<Instant>,
    /// Requests since the last of them.
    tries: u32,
}

impl Lull {
    fn heard(&mut self, now: Instant) {
        let paused = self.last.is_none_or(|last| now >= last + LULL);
        self.burst = if paused { 1 } else { self.burst.saturating_add(1) };
        self.last = Some(now);
        self.tries = 0;
    }

    fn asked(&mut self, now: Instant) {
        self.tries += 1;
        self.last = Some(now);
        if self.tries == MAX_TRIES {
            *self = Self::default();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let last = self.last.filter(|_| self.burst >= BURST)?;
        Some(last + LULL * (1 << self.tries.min(MAX_TRIES)))
    }
}

/// Candidates at a time: eight addresses of the peer by each of two families' sockets.
const MAX_CANDIDATES: usize = 16;
/// How many datagrams of the first flight are kept for later candidates: a hybrid post-quantum ClientHello is
/// two.
const MAX_FIRST: usize = 4;
/// What waits to be fanned out: the first flight to every candidate.
const MAX_QUEUE: usize = MAX_FIRST * MAX_CANDIDATES;
/// Requests that are outstanding: more are never useful, because they are a second apart.
const MAX_ASKED: usize = 8;
const MAX_OUTBOX: usize = 16;
/// How long an answer counts: longer than any round trip.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);
/// One request a second for sources that nobody has vouched for.
const EARN_SPAN: Duration = Duration::from_secs(1);
/// Longer than datagrams are under way.
const LEFT_SPAN: Duration = Duration::from_secs(1);
/// Answers a second: a peer that asks us has a request a second, or a few after a lull.
const MAX_ANSWERS: u32 = 8;
const ANSWERS_SPAN: Duration = Duration::from_secs(1);
/// A pause that a sender with something to say does not make, save on the slowest links.
const LULL: Duration = Duration::from_millis(400);
/// From so many datagrams on it was a transfer, and not a ping and what it led to.
const BURST: u32 = 16;
/// Requests after a burst: 0.4, 0.8 and 1.6 s apart they come before an active link is given up.
const MAX_TRIES: u32 = 3;

#[cfg(test)]
mod tests;
