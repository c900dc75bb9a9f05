//! A session: what two nodes have with each other. It owns the streams and outlives every link.
//!
//! Links come and go. An [`Attempt`] (chosen by the server, the same on both sides) is a race: both nodes try
//! what they know of each other, by UDP and by TCP, every connection proves the peer's key by TLS, and the
//! controlling side nominates the first that is ready, then a better one; losers close. When the nominated link dies the streams wait, up to
//! [`PATIENCE`], for the next one, and go on where they were.
//!
//! This is a data-plane machine: there is no queue per packet. The loop of its driver:
//!
//! 1. do what [`Session::poll_action`] says (dial, route, close, tell the agent);
//! 2. for each link over TCP: give what was read to [`Session::receive`]; write what [`Session::transmit`]
//!    appends;
//! 3. for all links over UDP: give what came to [`Session::datagram`], then [`Session::digest`] once; call
//!    [`Session::fill`], then send what [`Session::poll_transmit`] gives, until it gives nothing;
//! 4. move bytes between local connections and [`Session::mux`];
//! 5. at [`Session::deadline`] call [`Session::tick`].
//!
//! What this leaves to others: streams and credit (`mux`), TLS and QUIC (`link`), and when to make an attempt
//! (`agent`). This file only routes: `race` says which link carries the session, `datagrams` has the links over
//! UDP, `attempt` what is tried and what became of it.

mod attempt;
mod carrier;
mod control;
mod datagrams;
mod distrust;
mod io;
mod lane;
mod life;
mod nomination;
mod opening;
mod punching;
mod race;
mod relay;
mod tcp;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

pub use self::attempt::Attempt;
use self::attempt::Run;
use self::carrier::{Carrier, Slot, Stage};
use self::control::{BadControl, Control};
pub use self::datagrams::UdpRoute;
use self::distrust::Distrust;
pub use self::io::{Action, LinkId, SessionConfig};
use self::lane::Lane;
use self::nomination::Nomination;
use crate::agent::io::SessionNews;
use crate::ids::{AttemptId, PublicKey};
use crate::link::{LinkError, MAX_RECORD, Role, UdpError};
use crate::mux::{self, Mux, Violation};
use crate::path::{Candidate, CandidateKind, Transport};
use crate::punch::tcp::From;
use crate::rng::Rng;

/// The machine.
pub struct Session {
    config: SessionConfig,
    role: Role,
    nomination: Nomination,
    links: SmallVec<[Slot; 4]>,
    runs: SmallVec<[Run; MAX_RUNS]>,
    actions: VecDeque<Action>,
    next_link: u32,
    /// Where the peer says that its own interfaces are, by UDP, as the latest attempt has it: what tells whether
    /// a path that has moved is direct.
    hosts: SmallVec<[SocketAddr; attempt::MAX_PATHS]>,
    /// Since when there has been no link.
    down_since: Option<Instant>,
    /// Whether the agent believes that there is a link.
    told_up: bool,
    /// When a better link last took over from one that worked.
    promoted: Option<Instant>,
    distrust: Distrust,
    /// How often idle links over UDP must be used for a NAT to remember them, where it was measured.
    keepalive: Option<Duration>,
    rng: Rng,
    record: Box<[u8; MAX_RECORD]>,
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Ending {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Udp(#[from] UdpError),
    #[error(transparent)]
    Frame(#[from] Violation),
    #[error(transparent)]
    Control(#[from] BadControl),
    #[error("the peer broke a rule: {0}")]
    Rule(&'static str),
    #[error("no answer from the peer")]
    Silent,
    #[error("UDP loses too much still")]
    Lossy,
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
        let mut rng = Rng::new(config.seed);
        let share = rng.fork("reconnect").bytes();
        Some(Self {
            nomination: Nomination::new(role, (config.instance, config.number), share),
            config,
            role,
            links: SmallVec::new(),
            runs: SmallVec::new(),
            actions: VecDeque::new(),
            next_link: 0,
            hosts: SmallVec::new(),
            down_since: Some(now),
            told_up: false,
            promoted: None,
            distrust: Distrust::default(),
            keepalive: None,
            rng,
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
        self.slot(current)?.lane()?.rtt()
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
            self.finish(now, &mut oldest);
            self.hang_up(now, oldest.id());
        }
        let dials: SmallVec<[(SocketAddr, bool); attempt::MAX_DIALS]> = attempt
            .dials()
            .map(|candidate| (candidate.address, attempt.is_host(Transport::Tcp, candidate.address)))
            .collect();
        let id = attempt.id;
        // What comes of it takes over unless the link that there is shows that it works.
        self.doubt(now);
        let host =
            |known: &&Candidate| (known.kind, known.transport) == (CandidateKind::Host, Transport::Udp);
        let hosts = attempt.candidates.iter().filter(host).map(|known| known.address);
        self.hosts = hosts.take(attempt::MAX_PATHS).collect();
        if let Some(current) = self.nomination.current() {
            self.reconsider(current, false);
            self.settle(now);
        }
        self.runs.push(Run::new(now, attempt));
        self.seek(now, id);
        for (to, direct) in dials {
            let link = self.add_slot(now, id, Some(to), Carrier::Dialled);
            if let Some(slot) = self.slot_mut(link) {
                slot.direct = direct;
            }
            self.actions.push_back(Action::Dial { link, to, from: From::Any });
        }
        self.prepare_opening(id, now);
        self.dial_relays(now);
    }

    /// There is reason to doubt that the link still works, such as news of the peer or of the network: it has to
    /// show that it does, and is suspect if it does not soon.
    pub fn doubt(&mut self, now: Instant) {
        if let Some(current) = self.nomination.current()
            && let Some(lane) = self.slot_mut(current).and_then(Slot::lane_mut)
        {
            lane.doubt(now);
        }
    }

    /// The network has changed: the link has to show that it still works, and what was learnt of UDP is old.
    pub fn network_changed(&mut self, now: Instant) {
        self.distrust = Distrust::default();
        self.doubt(now);
    }

    /// The connection could not be made, or ended, or failed.
    pub fn closed(&mut self, now: Instant, link: LinkId, reason: &str) {
        self.end(now, link, reason);
    }

    /// Whether there is something to send over this link.
    pub fn wants_transmit(&self, link: LinkId) -> bool {
        let Some(slot) = self.slot(link) else { return false };
        let (early, up) = match &slot.carrier {
            Carrier::Dialled => return false,
            Carrier::Tcp(tcp) => (!tcp.early.is_empty(), tcp.link.is_up()),
            Carrier::Udp(udp) => (false, udp.link.is_up()),
        };
        let streams = self.nomination.carries(link) && self.nomination.mux.wants_transmit();
        early || (up && (streams || slot.lane().is_some_and(Lane::wants_transmit)))
    }

    /// Leaves in order: tells the peer. The driver resets what streams are left, lets the links take what
    /// there is to send, and then has them closed ([`Self::close`]).
    pub fn leave(&mut self, reason: &str) {
        let goaway = Control::Goaway { reason: reason.to_owned() };
        for slot in self.links.iter_mut().filter(|slot| slot.stage == Stage::Ready) {
            if let Some(lane) = slot.lane_mut() {
                lane.say(&goaway);
            }
        }
    }

    /// Whether the links have been given all that there is to send.
    pub fn is_flushed(&self) -> bool {
        !self.links.iter().any(|slot| self.wants_transmit(slot.id))
    }

    /// Ends all links. What the driver has to do for it is left to [`Self::poll_action`].
    pub fn close(&mut self, now: Instant, reason: &str) {
        self.close_where(now, reason, |_| true);
    }

    /// When [`Self::tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let links = self.links.iter().map(|slot| match slot.lane() {
            Some(lane) if self.nomination.current() == Some(slot.id) => lane.deadline(),
            lane => {
                let spare = (slot.spare_since + LINK_PATIENCE, "session: a link that was not nominated");
                let proof =
                    lane.and_then(Lane::proof_deadline).map(|at| (at, "session: proof of a link over UDP"));
                proof.into_iter().fold(spare, |first, at| first.min(at))
            }
        });
        let udp = self.links.iter().filter_map(|slot| match &slot.carrier {
            Carrier::Udp(udp) => [udp.link.deadline(), udp.punch.deadline()].into_iter().flatten().min(),
            Carrier::Dialled | Carrier::Tcp(_) => None,
        });
        let promotion = self.promotion().map(|at| (at, "session: a better link takes over"));
        let relay = self.relay_deadline().map(|at| (at, "session: a relay's turn"));
        let runs = self.runs.iter().map(|run| match run.deadline() {
            Some(deadline) => (deadline, "session: attempt fails"),
            None => (run.expiry(), "session: attempt forgotten"),
        });
        let openings = self.runs.iter().filter(|run| run.is_running());
        let openings = openings.filter_map(|run| run.opening.as_ref()?.deadline());
        let down =
            self.down_since.map(|since| (since + PATIENCE, "session: streams waited in vain for a link"));
        let mux = self.nomination.mux.deadline();
        links
            .chain(udp)
            .chain(promotion)
            .chain(relay)
            .chain(runs)
            .chain(openings)
            .chain(down)
            .chain(mux)
            .min()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant) {
        self.nomination.mux.tick(now);
        let mut dead: SmallVec<[(LinkId, String); 4]> = SmallVec::new();
        let current = self.nomination.current();
        for slot in &mut self.links {
            let (id, spare_since) = (slot.id, slot.spare_since);
            match slot.lane_mut() {
                Some(lane) if current == Some(id) => {
                    if let Err(ending) = lane.tick(now) {
                        dead.push((id, ending.to_string()));
                    } else if lane.take_suspicion(now) {
                        self.actions.push_back(Action::News(SessionNews::Suspect));
                    }
                }
                _ if now >= spare_since + LINK_PATIENCE => dead.push((id, "timed out".to_owned())),
                _ => {}
            }
        }
        for (link, reason) in dead {
            self.end(now, link, &reason);
        }
        self.tick_udp(now);
        self.tick_openings(now);
        self.dial_relays(now);
        self.choose(now);
        self.ask_when_suspect(now);
        self.settle(now);
        let mut runs = std::mem::take(&mut self.runs);
        for run in &mut runs {
            if run.deadline().is_some_and(|deadline| now >= deadline) {
                self.finish(now, run);
                self.hang_up(now, run.id());
            }
        }
        runs.retain(|run| now < run.expiry());
        self.runs = runs;
        if self.down_since.is_some_and(|since| now >= since + PATIENCE) {
            self.down_since = None;
            self.nomination.reset_all(mux::code::NO_LINK, "no link to the peer for 30 s");
        }
    }

    fn slot(&self, link: LinkId) -> Option<&Slot> {
        self.links.iter().find(|slot| slot.id == link)
    }

    fn slot_mut(&mut self, link: LinkId) -> Option<&mut Slot> {
        self.links.iter_mut().find(|slot| slot.id == link)
    }

    fn add_slot(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        remote: Option<SocketAddr>,
        carrier: Carrier,
    ) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        self.links.push(Slot {
            id,
            attempt,
            remote,
            direct: false,
            seen_direct: false,
            rung: None,
            spare_since: now,
            stage: Stage::Handshake,
            doubted: false,
            poor: false,
            relay: None,
            carrier,
        });
        id
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
