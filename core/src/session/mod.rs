//! A session: what two nodes have with each other. It owns the streams and outlives every link.
//!
//! Links come and go. An [`Attempt`] (chosen by the server, the same on both sides) is a race: both nodes dial
//! what they know of each other, every connection proves the peer's key by TLS, and the controlling side
//! nominates the first that is ready; losers close. When the nominated link dies the streams wait, up to
//! [`PATIENCE`], for the next one, and go on where they were.
//!
//! This is a data-plane machine: there is no queue per packet. The loop of its driver:
//!
//! 1. do what [`Session::poll_action`] says (dial, close, tell the agent);
//! 2. for each link: give what was read to [`Session::receive`]; write what [`Session::transmit`] appends;
//! 3. move bytes between local connections and [`Session::mux`];
//! 4. at [`Session::deadline`] call [`Session::tick`].
//!
//! What this leaves to others: streams and credit (`mux`), TLS (`link`), and when to make an attempt (`agent`).

mod attempt;
mod control;
mod lane;
mod nomination;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

pub use self::attempt::Attempt;
use self::attempt::Run;
use self::control::{BadControl, Control};
use self::lane::Lane;
use self::nomination::{Nomination, Note};
use crate::agent::io::SessionNews;
use crate::ids::{AttemptId, PublicKey};
use crate::link::{LinkError, LinkKeys, MAX_RECORD, Preface, Role, TcpLink};
use crate::mux::{self, Mux, Violation};
use crate::path::Rung;

/// A link of this session, named by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// What the driver has to do.
#[derive(Debug)]
pub enum Action {
    /// Connect by TCP; then [`Session::connected`] or [`Session::closed`].
    Dial {
        /// The link that comes of it.
        link: LinkId,
        /// Where to.
        to: SocketAddr,
    },
    /// Write these last bytes, as far as they go at once, and close.
    Close {
        /// Which.
        link: LinkId,
        /// What to write behind whatever has not been written yet.
        farewell: Vec<u8>,
    },
    /// Tell the agent.
    News(SessionNews),
    /// The peer is leaving in order, and says why.
    PeerLeaving(String),
}

/// Who the two are.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// This node's keys.
    pub keys: LinkKeys,
    /// This node's identity.
    pub own: PublicKey,
    /// The peer's identity: every link must prove it.
    pub peer: PublicKey,
    /// Random, one a process.
    pub instance: [u8; 16],
    /// Counts the sessions of this process.
    pub number: u64,
}

/// The machine.
pub struct Session {
    config: SessionConfig,
    role: Role,
    nomination: Nomination,
    links: SmallVec<[Slot; 4]>,
    runs: SmallVec<[Run; MAX_RUNS]>,
    actions: VecDeque<Action>,
    next_link: u32,
    /// Since when there has been no link.
    down_since: Option<Instant>,
    /// Whether the agent believes that there is a link.
    told_up: bool,
    record: Box<[u8; MAX_RECORD]>,
}

/// One connection, from the dial on.
struct Slot {
    id: LinkId,
    attempt: AttemptId,
    remote: SocketAddr,
    /// Since when it has not been the nominated one.
    spare_since: Instant,
    open: Option<Box<Open>>,
}

/// A connection that is up.
struct Open {
    tcp: TcpLink,
    lane: Lane,
    /// What the handshake has to send.
    early: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Handshake,
    /// This side's hello is out.
    Greeted,
    /// The peer's is in: the link may be nominated.
    Ready,
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Ending {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Frame(#[from] Violation),
    #[error(transparent)]
    Control(#[from] BadControl),
    #[error("the peer broke a rule: {0}")]
    Rule(&'static str),
    #[error("no answer from the peer")]
    Silent,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.config.peer)
            .field("role", &self.role)
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session without a link. None if the two keys are equal: a node cannot reach itself.
    pub fn new(now: Instant, config: SessionConfig) -> Option<Self> {
        let role = match config.own.cmp(&config.peer) {
            std::cmp::Ordering::Less => Role::Controlling,
            std::cmp::Ordering::Greater => Role::Controlled,
            std::cmp::Ordering::Equal => return None,
        };
        Some(Self {
            nomination: Nomination::new(role, config.instance, config.number),
            config,
            role,
            links: SmallVec::new(),
            runs: SmallVec::new(),
            actions: VecDeque::new(),
            next_link: 0,
            down_since: Some(now),
            told_up: false,
            record: Box::new([0; MAX_RECORD]),
        })
    }

    /// The peer's identity.
    pub fn peer(&self) -> PublicKey {
        self.config.peer
    }

    /// The streams.
    pub fn mux(&mut self) -> &mut Mux {
        &mut self.nomination.mux
    }

    /// Whether streams move now.
    pub fn is_up(&self) -> bool {
        self.nomination.current().is_some_and(|link| self.nomination.carries(link))
    }

    /// The smoothed round trip of the nominated link.
    pub fn rtt(&self) -> Option<Duration> {
        let current = self.nomination.current()?;
        let slot = self.links.iter().find(|slot| slot.id == current)?;
        slot.open.as_ref()?.lane.rtt()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Begins an attempt. One that is known already goes on as it is.
    pub fn attempt(&mut self, now: Instant, attempt: Attempt) {
        if self.runs.iter().any(|run| run.id() == attempt.id) {
            return;
        }
        if self.runs.len() == MAX_RUNS {
            let mut oldest = self.runs.remove(0);
            self.finish(now, &mut oldest, None);
        }
        let targets: SmallVec<[SocketAddr; attempt::MAX_DIALS]> = attempt.dials().collect();
        let id = attempt.id;
        self.runs.push(Run::new(now, attempt, targets.len()));
        for to in targets {
            let link = self.add_slot(now, id, to);
            self.actions.push_back(Action::Dial { link, to });
        }
    }

    /// A dial succeeded.
    pub fn connected(&mut self, now: Instant, link: LinkId) {
        let Some(at) = self.position(link) else { return };
        if let Err(error) = self.open(now, at) {
            self.end(now, link, &error.to_string());
        }
    }

    /// A connection came in that opens with the preface of one of this session's attempts. None turns it away.
    pub fn accepted(&mut self, now: Instant, preface: &Preface, remote: SocketAddr) -> Option<LinkId> {
        let run = self.runs.iter().find(|run| run.id() == preface.attempt)?;
        if self.links.len() >= MAX_LINKS || !preface.proves(&run.attempt.punch_key, self.role.other()) {
            return None;
        }
        let link = self.add_slot(now, preface.attempt, remote);
        let at = self.position(link)?;
        let opened = self.open(now, at).and_then(|()| {
            let open = self.links.get_mut(at).and_then(|slot| slot.open.as_mut());
            open.map_or(Ok(()), |open| open.tcp.preface(preface))
        });
        if opened.is_err() {
            self.links.remove(at);
            return None;
        }
        Some(link)
    }

    /// The connection could not be made, or ended, or failed.
    pub fn closed(&mut self, now: Instant, link: LinkId, reason: &str) {
        self.end(now, link, reason);
    }

    /// Takes bytes that came over a link; how many of them are done with. The rest, which is less than a
    /// record, must be offered again with more behind it.
    pub fn receive(&mut self, now: Instant, link: LinkId, input: &mut [u8]) -> usize {
        let Some(at) = self.position(link) else { return input.len() };
        let Self { links, nomination, .. } = self;
        let Some(open) = links.get_mut(at).and_then(|slot| slot.open.as_mut()) else { return input.len() };
        let Open { tcp, lane, early, stage } = &mut **open;
        let mut ending = None;
        let received = tcp.receive(input, early, &mut |bytes| {
            if ending.is_none() {
                ending = lane.take(now, link, bytes, nomination).err();
            }
        });
        if *stage == Stage::Handshake && tcp.is_up() {
            *stage = Stage::Greeted;
            lane.say(&nomination.hello());
        }
        let used = match received {
            Ok(used) => used,
            Err(error) => {
                ending.get_or_insert(Ending::Link(error));
                input.len()
            }
        };
        self.settle(now);
        if let Some(ending) = ending {
            self.end(now, link, &ending.to_string());
        }
        used
    }

    /// Appends what is to be written to a link's connection, until `out` holds `limit` bytes or more.
    pub fn transmit(&mut self, now: Instant, link: LinkId, out: &mut Vec<u8>, limit: usize) {
        let Some(at) = self.position(link) else { return };
        let Self { links, nomination, record, .. } = self;
        let Some(open) = links.get_mut(at).and_then(|slot| slot.open.as_mut()) else { return };
        out.append(&mut open.early);
        if !open.tcp.is_up() {
            return;
        }
        let mut error = None;
        while out.len() < limit {
            let mut n = open.lane.fill(now, &mut record[..]);
            // Never ahead of what this link itself has yet to say: the peer takes no frame of a stream before
            // it has the whole of this side's RESUME.
            let room = record.len() - n >= mux::MIN_TRANSMIT && !open.lane.wants_transmit();
            if nomination.carries(link) && room {
                let streams = nomination.mux.transmit(now, &mut record[n..]);
                if streams > 0 {
                    open.lane.sent_data(now);
                }
                n += streams;
            }
            if n == 0 {
                break;
            }
            if let Err(failed) = open.tcp.seal(&record[..n], out) {
                error = Some(failed);
                break;
            }
        }
        if let Some(error) = error {
            self.end(now, link, &error.to_string());
        }
    }

    /// Whether [`Self::transmit`] has something for this link.
    pub fn wants_transmit(&self, link: LinkId) -> bool {
        let open = self.links.iter().find(|slot| slot.id == link).and_then(|slot| slot.open.as_ref());
        open.is_some_and(|open| {
            !open.early.is_empty()
                || (open.tcp.is_up()
                    && (open.lane.wants_transmit()
                        || (self.nomination.carries(link) && self.nomination.mux.wants_transmit())))
        })
    }

    /// Leaves in order: tells the peer. The driver resets what streams are left, lets the links take what
    /// there is to send, and drops them.
    pub fn leave(&mut self, reason: &str) {
        let goaway = Control::Goaway { reason: reason.to_owned() };
        for slot in &mut self.links {
            if let Some(open) = slot.open.as_mut().filter(|open| open.stage == Stage::Ready) {
                open.lane.say(&goaway);
            }
        }
    }

    /// When [`Self::tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let links = self.links.iter().map(|slot| match &slot.open {
            Some(open) if self.nomination.current() == Some(slot.id) => open.lane.deadline(),
            _ => (slot.spare_since + LINK_PATIENCE, "session: a link that was not nominated"),
        });
        let runs = self.runs.iter().map(|run| match run.deadline() {
            Some(deadline) => (deadline, "session: attempt fails"),
            None => (run.expiry(), "session: attempt forgotten"),
        });
        let down =
            self.down_since.map(|since| (since + PATIENCE, "session: streams waited in vain for a link"));
        let mux = self.nomination.mux.deadline();
        links.chain(runs).chain(down).chain(mux).min()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant) {
        self.nomination.mux.tick(now);
        let mut dead: SmallVec<[(LinkId, String); 4]> = SmallVec::new();
        for slot in &mut self.links {
            let current = self.nomination.current() == Some(slot.id);
            match &mut slot.open {
                Some(open) if current => {
                    if let Err(ending) = open.lane.tick(now) {
                        dead.push((slot.id, ending.to_string()));
                    }
                }
                _ if now >= slot.spare_since + LINK_PATIENCE => dead.push((slot.id, "timed out".to_owned())),
                _ => {}
            }
        }
        for (link, reason) in dead {
            self.end(now, link, &reason);
        }
        let mut runs = std::mem::take(&mut self.runs);
        for run in &mut runs {
            if run.deadline().is_some_and(|deadline| now >= deadline) {
                self.finish(now, run, None);
            }
        }
        runs.retain(|run| now < run.expiry());
        self.runs = runs;
        if self.down_since.is_some_and(|since| now >= since + PATIENCE) {
            self.down_since = None;
            self.nomination.reset_all(mux::code::NO_LINK, "no link to the peer for 30 s");
        }
    }

    fn position(&self, link: LinkId) -> Option<usize> {
        self.links.iter().position(|slot| slot.id == link)
    }

    fn add_slot(&mut self, now: Instant, attempt: AttemptId, remote: SocketAddr) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        self.links.push(Slot { id, attempt, remote, spare_since: now, open: None });
        id
    }

    fn open(&mut self, now: Instant, at: usize) -> Result<(), LinkError> {
        let Some(slot) = self.links.get_mut(at) else { return Ok(()) };
        let Some(run) = self.runs.iter().find(|run| run.id() == slot.attempt) else {
            return Err(LinkError::Preface);
        };
        let mut early = Vec::new();
        let (keys, peer) = (&self.config.keys, &self.config.peer);
        let tcp = TcpLink::new(keys, self.role, peer, slot.attempt, &run.attempt.punch_key, &mut early)?;
        slot.open = Some(Box::new(Open { tcp, lane: Lane::new(now), early, stage: Stage::Handshake }));
        Ok(())
    }

    /// Acts on what the links heard.
    fn settle(&mut self, now: Instant) {
        while let Some(note) = self.nomination.poll_note() {
            match note {
                Note::Ready(link) => self.ready(now, link),
                Note::Attached(link) => self.attached(now, link),
                Note::Renewed(link) => {
                    // Whatever the old process held is void; only the link that brought the news is the new one's.
                    let attempt =
                        self.position(link).and_then(|at| self.links.get(at)).map(|slot| slot.attempt);
                    self.close_where(|slot| slot.id != link && Some(slot.attempt) != attempt);
                    self.tell_down(now, "the peer has restarted");
                }
                Note::Superseded(link) => {
                    if let Some(slot) = self.links.iter_mut().find(|slot| slot.id == link) {
                        slot.spare_since = now;
                    }
                }
                Note::SwitchWanted => self.nominate_another(),
                Note::Leaving(reason) => self.actions.push_back(Action::PeerLeaving(reason)),
            }
        }
        while let Some((link, message)) = self.nomination.poll_outbox() {
            let slot = self.links.iter_mut().find(|slot| slot.id == link);
            if let Some(open) = slot.and_then(|slot| slot.open.as_mut()) {
                open.lane.say(&message);
            }
        }
    }

    fn ready(&mut self, now: Instant, link: LinkId) {
        let Some(slot) = self.links.iter_mut().find(|slot| slot.id == link) else { return };
        let attempt = slot.attempt;
        match &mut slot.open {
            Some(open) if open.stage < Stage::Ready => open.stage = Stage::Ready,
            Some(_) | None => return,
        }
        if self.role == Role::Controlled {
            return;
        }
        let current = self.nomination.current();
        let carrying = current.and_then(|current| self.links.iter().find(|slot| slot.id == current));
        match carrying {
            // Second in a race that is decided.
            Some(carrying) if carrying.attempt == attempt && self.is_up() => {
                self.end(now, link, "another connection of the attempt was faster");
            }
            // The race is still open: if the first one fails now, this one is nominated.
            Some(carrying) if carrying.attempt == attempt => {}
            Some(_) | None => self.nomination.nominate(link),
        }
    }

    fn attached(&mut self, now: Instant, link: LinkId) {
        let Some(slot) = self.links.iter().find(|slot| slot.id == link) else { return };
        let (attempt, remote) = (slot.attempt, slot.remote);
        self.down_since = None;
        self.told_up = true;
        let floor = slot.open.as_ref().and_then(|open| open.lane.floor());
        self.nomination.rtt(link, floor);
        let news = SessionNews::Up { rung: Rung::TcpDirect, remote, via: None };
        self.actions.push_back(Action::News(news));
        let mut runs = std::mem::take(&mut self.runs);
        for run in &mut runs {
            if run.id() == attempt {
                self.finish(now, run, Some(Rung::TcpDirect));
            }
        }
        self.runs = runs;
        // Losers of the race, and what carried the session before. The controlled side leaves the latter to
        // the controlling one, which may have nominated anew meanwhile.
        let controlling = self.role == Role::Controlling;
        self.close_where(|slot| {
            let older = slot.attempt != attempt && slot.id < link;
            slot.id != link && (slot.attempt == attempt || (controlling && older))
        });
    }

    /// The nominated link is no good to the peer: takes the next that is ready.
    fn nominate_another(&mut self) {
        let current = self.nomination.current();
        let ready = |slot: &&Slot| {
            Some(slot.id) != current && slot.open.as_ref().is_some_and(|open| open.stage == Stage::Ready)
        };
        if let Some(next) = self.links.iter().find(ready) {
            self.nomination.nominate(next.id);
        }
    }

    fn close_where(&mut self, doomed: impl Fn(&Slot) -> bool) {
        let actions = &mut self.actions;
        self.links.retain(|slot| {
            if !doomed(slot) {
                return true;
            }
            let mut farewell = Vec::new();
            if let Some(open) = &mut slot.open {
                farewell.append(&mut open.early);
                open.tcp.close(&mut farewell);
            }
            actions.push_back(Action::Close { link: slot.id, farewell });
            false
        });
    }

    fn end(&mut self, now: Instant, link: LinkId, reason: &str) {
        let Some(at) = self.position(link) else { return };
        let (attempt, remote) = match self.links.get(at) {
            Some(slot) => (slot.attempt, slot.remote),
            None => return,
        };
        self.close_where(|slot| slot.id == link);
        if let Some(run) = self.runs.iter_mut().find(|run| run.id() == attempt && run.is_running()) {
            run.failed(remote, reason.to_owned());
        }
        if self.nomination.current() != Some(link) {
            return;
        }
        self.nomination.lost();
        if self.role == Role::Controlling {
            self.nominate_another();
            self.settle(now);
        }
        if self.nomination.current().is_none() {
            self.tell_down(now, reason);
        }
    }

    /// There is no link any more. What was lost before streams moved over it is no news.
    fn tell_down(&mut self, now: Instant, reason: &str) {
        self.down_since.get_or_insert(now);
        if std::mem::take(&mut self.told_up) {
            self.actions.push_back(Action::News(SessionNews::Down { reason: reason.to_owned() }));
        }
    }

    fn finish(&mut self, now: Instant, run: &mut Run, connected: Option<Rung>) {
        if let Some(outcomes) = run.finish(now, connected) {
            let news = SessionNews::AttemptDone { attempt: run.id(), outcomes };
            self.actions.push_back(Action::News(news));
        }
    }
}

/// How long streams wait for a link before they are reset.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that has not been nominated for so long never will be: longer than an attempt lasts.
const LINK_PATIENCE: Duration = Duration::from_secs(15);

/// Attempts that are remembered: one that runs, and those whose connections may still come.
const MAX_RUNS: usize = 4;

/// Connections of one session at a time: eight dialled by each side, and as many again from an attempt that
/// crossed.
const MAX_LINKS: usize = 32;
