//! What one UDP port receives, and whose it is. The port's task routes by this and does no more.
//!
//! What fits no link never reaches QUIC: an Initial must bear the id that only this attempt's peer can tell,
//! and every other packet a label of ours. Initials of an attempt that is not known here *yet* (the other
//! side's news of it may have come first) are held for a moment, within caps.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::id::{InitialId, Label, ProbeTag};
use super::packet::Packet;
use super::probe::Probe;
use crate::ids::SockId;

/// The routes of one port. `D` names whom a datagram goes to, like a session and its link.
#[derive(Debug)]
pub struct Demux<D> {
    labels: BTreeMap<Label, D>,
    initials: BTreeMap<InitialId, D>,
    tags: BTreeMap<ProbeTag, D>,
    held: VecDeque<Held>,
    dropped: u64,
}

/// Whom a datagram goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<D> {
    /// To the STUN client and server.
    Stun,
    /// A probe with this one's tag. It is not proven yet.
    Probe(D),
    /// To this link's QUIC.
    Quic(D),
    /// It was kept: [`Demux::add_link`] may give it out.
    Held,
    /// Nobody wants it.
    Dropped,
}

/// An Initial that came before its attempt was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The socket that it came by.
    pub socket: SockId,
    /// Where it came from.
    pub from: SocketAddr,
    /// Its two ECN bits.
    pub ecn: u8,
    /// The datagram.
    pub bytes: Box<[u8]>,
    id: InitialId,
    at: Instant,
}

impl<D: Copy> Demux<D> {
    /// No routes.
    pub fn new() -> Self {
        Self {
            labels: BTreeMap::new(),
            initials: BTreeMap::new(),
            tags: BTreeMap::new(),
            held: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Datagrams with this label, and Initials with this id (of a link that waits for one), go to `to`. Returns
    /// the Initials that came before; they are for `to`, too.
    pub fn add_link(&mut self, label: Label, initial: Option<InitialId>, to: D) -> Vec<Held> {
        self.labels.insert(label, to);
        let Some(initial) = initial else { return Vec::new() };
        self.initials.insert(initial, to);
        let (ours, rest) = std::mem::take(&mut self.held).into_iter().partition(|held| held.id == initial);
        self.held = rest;
        Vec::from(ours)
    }

    /// The link is gone.
    pub fn remove_link(&mut self, label: Label, initial: Option<InitialId>) {
        self.labels.remove(&label);
        if let Some(initial) = initial {
            self.initials.remove(&initial);
        }
    }

    /// Probes with this tag go to `to`.
    pub fn add_tag(&mut self, tag: ProbeTag, to: D) {
        self.tags.insert(tag, to);
    }

    /// Neither an attempt nor a link with this tag is left.
    pub fn remove_tag(&mut self, tag: ProbeTag) {
        self.tags.remove(&tag);
    }

    /// Finds out whose a datagram is.
    pub fn route(
        &mut self,
        now: Instant,
        socket: SockId,
        from: SocketAddr,
        ecn: u8,
        datagram: &[u8],
    ) -> Route<D> {
        let route = match Packet::of(datagram) {
            Packet::Stun => Route::Stun,
            Packet::Probe => {
                let to = Probe::parse(datagram).and_then(|probe| self.tags.get(&probe.tag));
                to.map_or(Route::Dropped, |&to| Route::Probe(to))
            }
            Packet::Link(label) => self.labels.get(&label).map_or(Route::Dropped, |&to| Route::Quic(to)),
            Packet::Initial(id) => match self.initials.get(&id) {
                Some(&to) => Route::Quic(to),
                None => {
                    self.hold(now, Held { socket, from, ecn, bytes: Box::default(), id, at: now }, datagram)
                }
            },
            Packet::Other => Route::Dropped,
        };
        self.dropped += u64::from(matches!(route, Route::Dropped));
        route
    }

    /// How many datagrams nobody wanted.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When [`Self::tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        Some((self.held.front()?.at + HOLD, "port: drop an Initial of no known attempt"))
    }

    /// Drops what was held in vain.
    pub fn tick(&mut self, now: Instant) {
        while self.held.front().is_some_and(|held| now >= held.at + HOLD) {
            self.held.pop_front();
            self.dropped += 1;
        }
    }

    fn hold(&mut self, now: Instant, held: Held, datagram: &[u8]) -> Route<D> {
        self.tick(now);
        let ip = held.from.ip();
        let same = self.held.iter().filter(|other| other.from.ip() == ip).count();
        // Shorter ones are no client's (RFC 9000 section 14.1); longer ones no path's of ours.
        if !(MIN_INITIAL..=MAX_INITIAL).contains(&datagram.len())
            || self.held.len() >= MAX_HELD
            || same >= MAX_HELD_ADDRESS
        {
            return Route::Dropped;
        }
        self.held.push_back(Held { bytes: datagram.into(), ..held });
        Route::Held
    }
}

impl<D: Copy> Default for Demux<D> {
    fn default() -> Self {
        Self::new()
    }
}

/// How much later than the other side's this side's news of an attempt may be.
const HOLD: Duration = Duration::from_secs(3);
/// In all: 96 KiB.
const MAX_HELD: usize = 64;
/// From one address: four flights of two datagrams.
const MAX_HELD_ADDRESS: usize = 8;
const MIN_INITIAL: usize = 1200;
const MAX_INITIAL: usize = 1500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AttemptId;
    use crate::link::Role;
    use crate::link::udp::probe::{self, Kind, ProbeKey, Transaction};
    use crate::rng::Rng;

    const PUNCH: [u8; 32] = [9; 32];

    fn initial(id: InitialId) -> Vec<u8> {
        let mut bytes = vec![0xc0, 0, 0, 0, 1, 16];
        bytes.extend(id.0);
        bytes.resize(1200, 0);
        bytes
    }

    fn id(attempt: u8) -> InitialId {
        InitialId::new(AttemptId([attempt; 16]), &PUNCH, Role::Controlling)
    }

    fn from(ip: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, ip], 5))
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    fn route(demux: &mut Demux<u8>, now: Instant, ip: u8, datagram: &[u8]) -> Route<u8> {
        demux.route(now, SockId(3), from(ip), 0, datagram)
    }

    #[test]
    fn each_kind_goes_its_way() {
        let (mut demux, now) = (Demux::new(), start());
        let label = Label::new(1, &mut Rng::new([1; 32]));
        demux.add_link(label, Some(id(1)), 7);
        let tag = ProbeTag::new(AttemptId([1; 16]), &PUNCH);
        demux.add_tag(tag, 8);
        let key = ProbeKey::of_attempt(AttemptId([1; 16]), &PUNCH);
        let probe = probe::encode(Kind::Request, Role::Controlled, tag, Transaction([0; 12]), &key);
        let short = [&[0x41][..], &label.0, &[0; 30]].concat();
        let mut stranger = short.clone();
        stranger[8] ^= 1;
        for (datagram, to) in [
            (&[0, 1, 0, 0][..], Route::Stun),
            (&probe, Route::Probe(8)),
            (&probe[..39], Route::Dropped),
            (&short, Route::Quic(7)),
            (&stranger, Route::Dropped),
            (&initial(id(1)), Route::Quic(7)),
            (b"GET / HTTP/1.1"[..].get(..4).unwrap(), Route::Dropped),
        ] {
            assert_eq!(route(&mut demux, now, 1, datagram), to);
        }
        assert_eq!(demux.dropped(), 3);
        demux.remove_link(label, Some(id(1)));
        demux.remove_tag(tag);
        assert_eq!(route(&mut demux, now, 1, &short), Route::Dropped);
        assert_eq!(route(&mut demux, now, 1, &probe), Route::Dropped);
        assert_eq!(route(&mut demux, now, 1, &initial(id(1))), Route::Held);
    }

    #[test]
    fn an_early_initial_waits_for_its_attempt_and_for_no_other() {
        let (mut demux, now) = (Demux::new(), start());
        assert_eq!(route(&mut demux, now, 1, &initial(id(1))), Route::Held);
        assert_eq!(route(&mut demux, now, 2, &initial(id(2))), Route::Held);
        let mut rng = Rng::new([1; 32]);
        let held = demux.add_link(Label::new(1, &mut rng), Some(id(1)), 7);
        assert_eq!(held.iter().map(|held| held.from).collect::<Vec<_>>(), [from(1)]);
        assert_eq!((held[0].socket, &held[0].bytes[..]), (SockId(3), &initial(id(1))[..]));
        let (deadline, _) = demux.deadline().unwrap();
        assert_eq!(deadline, now + HOLD);
        demux.tick(deadline);
        assert_eq!((demux.deadline(), demux.dropped()), (None, 1));
        assert!(demux.add_link(Label::new(2, &mut rng), Some(id(2)), 7).is_empty());
    }

    #[test]
    fn what_is_held_is_capped_in_all_and_for_each_address() {
        let (mut demux, now) = (Demux::new(), start());
        let held = |demux: &mut Demux<u8>, ip| {
            (0..20).filter(|_| route(demux, now, ip, &initial(id(ip))) == Route::Held).count()
        };
        assert_eq!(held(&mut demux, 1), MAX_HELD_ADDRESS);
        let more: usize = (2..100).map(|ip| held(&mut demux, ip)).sum();
        assert_eq!(more, MAX_HELD - MAX_HELD_ADDRESS);
        assert_eq!(route(&mut demux, now, 200, &initial(id(1))), Route::Dropped);
        assert_eq!(route(&mut demux, now + HOLD, 200, &initial(id(1))), Route::Held);
        assert_eq!(route(&mut demux, now + HOLD, 201, &initial(id(1))[..1199]), Route::Dropped);
    }
}
