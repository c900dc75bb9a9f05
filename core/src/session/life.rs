//! Whether a link is alive, and how long its round trip is: pings and what comes back.

use std::time::{Duration, Instant};

use super::Ending;

/// Whether the link is alive, judged by what comes back.
///
/// An idle link is pinged every 15 s, or oftener where a NAT forgets sooner, and is dead after two pings without an
/// answer, 25 s in all. A link on which bytes are outstanding is pinged after a second of silence, and is dead after
/// three. One that does not answer bytes or a ping for a second is *suspect*: told once, so that others can be sought
/// meanwhile.
#[derive(Debug)]
pub(super) struct Life {
    last_received: Instant,
    last_ping: Instant,
    /// How often an idle link is pinged.
    idle: Duration,
    /// Bytes went out since something came in.
    outstanding: bool,
    /// Frames of streams went out or came in since the last ping: the round trip is worth measuring again.
    pub(super) active: bool,
    /// The ping that is on its way went out on a link that bore streams: its silence means as much as that of
    /// bytes.
    urgent: bool,
    /// That the link is suspect has been told.
    suspected: bool,
    /// When a ping was last answered: then both directions worked.
    answered: Option<Instant>,
    ping: Ping,
    pub(super) wants_ping: bool,
    /// The PING that is on its way went out twice.
    repeated: bool,
    count: u64,
    pub(super) rtt: Option<Duration>,
    /// The round trip without what waits in queues: windows are sized by it, and not by the queues that they
    /// make.
    pub(super) floor: Option<Duration>,
    /// So many pings are still to follow each other at once: the first one shares its round trip with the
    /// handshakes, and later ones may share theirs with bulk data.
    early: u8,
}

#[derive(Debug)]
enum Ping {
    None,
    /// On its way since then; so many before it went unanswered.
    Sent(Instant, u32),
}

impl Life {
    pub(super) fn new(now: Instant) -> Self {
        let mut life = Self {
            last_received: now,
            last_ping: now,
            idle: IDLE,
            outstanding: false,
            active: false,
            urgent: false,
            suspected: false,
            answered: None,
            ping: Ping::None,
            wants_ping: false,
            repeated: false,
            count: 0,
            rtt: None,
            floor: None,
            early: EARLY,
        };
        // The first one measures the round trip.
        life.want_ping(now);
        life
    }

    /// How often something must leave for the NATs on the way to remember the link, as far as is known.
    pub(super) fn keepalive(&mut self, every: Duration) {
        self.idle = every.clamp(SHORTEST_IDLE, IDLE);
    }

    pub(super) fn payload(&self) -> [u8; 8] {
        self.count.to_be_bytes()
    }

    /// A ping counts from the moment it is wanted: a connection that takes no bytes is as dead as one that
    /// brings none.
    pub(super) fn want_ping(&mut self, now: Instant) {
        self.wants_ping = true;
        self.urgent |= std::mem::take(&mut self.active);
        self.last_ping = now;
        self.ping = match self.ping {
            Ping::None => Ping::Sent(now, 0),
            Ping::Sent(_, missed) => {
                self.repeated = true;
                Ping::Sent(now, missed + 1)
            }
        };
    }

    /// It has gone into a record now: the round trip begins here.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.wants_ping = false;
        if let Ping::Sent(sent, _) = &mut self.ping {
            *sent = now;
        }
    }

    pub(super) fn pong(&mut self, now: Instant, payload: [u8; 8]) -> bool {
        let Ping::Sent(sent, _) = self.ping else { return false };
        if payload != self.payload() {
            return false;
        }
        self.ping = Ping::None;
        self.urgent = false;
        self.answered = Some(now);
        self.count += 1;
        if std::mem::take(&mut self.repeated) {
            // Which of the two was answered cannot be told (Karn's rule, RFC 6298 section 3).
            return false;
        }
        let sample = now.saturating_duration_since(sent);
        // RFC 6298's smoothing: an eighth of each new sample.
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        // Down at once, up within minutes: the path may have become longer, but a copy that fills the queues
        // must not make itself a larger window.
        self.floor = Some(self.floor.map_or(sample, |floor| sample.min((floor * 255 + sample) / 256)));
        if self.early > 0 {
            self.early -= 1;
            self.want_ping(now);
        }
        true
    }

    pub(super) fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.outstanding = false;
        self.suspected = false;
        if let Ping::Sent(_, missed) = &mut self.ping {
            // Alive; the answer itself may be behind bulk data.
            *missed = 0;
        }
    }

    pub(super) fn sent(&mut self, now: Instant) {
        if !self.outstanding {
            // Silence before there was anything to answer is no evidence.
            self.outstanding = true;
            self.last_received = self.last_received.max(now);
        }
        self.active = true;
    }

    /// Asks at once whether the peer is still there: there is reason to doubt it.
    pub(super) fn doubt(&mut self, now: Instant) {
        if matches!(self.ping, Ping::None) {
            self.want_ping(now);
        }
        self.urgent = true;
    }

    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Ending> {
        if now < self.due().0 {
            return Ok(());
        }
        match self.ping {
            Ping::Sent(_, missed) if self.is_urgent() || missed > 0 => Err(Ending::Silent),
            Ping::None | Ping::Sent(..) => {
                self.want_ping(now);
                Ok(())
            }
        }
    }

    /// Whether bytes or a ping are unanswered for so long that another link had better be used.
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_at().is_some_and(|at| now >= at)
    }

    /// Whether the link has just become suspect: said once, until something comes.
    pub(super) fn take_suspicion(&mut self, now: Instant) -> bool {
        self.is_suspect(now) && !std::mem::replace(&mut self.suspected, true)
    }

    /// Whether a ping was ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// Whether both directions have worked since then.
    pub(super) fn answered_since(&self, since: Instant) -> bool {
        self.answered.is_some_and(|at| at > since)
    }

    pub(super) fn deadline(&self) -> (Instant, &'static str) {
        let suspicion = self.suspect_at().filter(|_| !self.suspected);
        let suspicion = suspicion.map(|at| (at, "link: no answer, so it is suspect"));
        suspicion.into_iter().fold(self.due(), |due, at| due.min(at))
    }

    fn suspect_at(&self) -> Option<Instant> {
        match self.ping {
            // The one before has not been answered either.
            Ping::Sent(_, 1..) => Some(self.last_received + self.suspect_after()),
            _ if self.outstanding => Some(self.last_received + self.suspect_after()),
            Ping::Sent(sent, 0) => Some(sent.max(self.last_received) + self.suspect_after()),
            Ping::None => None,
        }
    }

    fn suspect_after(&self) -> Duration {
        self.rtt.map_or(SUSPECT, |rtt| SUSPECT.max(rtt * 3))
    }

    fn is_urgent(&self) -> bool {
        self.outstanding || self.urgent
    }

    fn due(&self) -> (Instant, &'static str) {
        match self.ping {
            Ping::Sent(sent, _) => {
                let silent = sent.max(self.last_received);
                let dead = if self.outstanding {
                    self.last_received + self.dead_after()
                } else if self.urgent {
                    silent + self.dead_after()
                } else {
                    silent + DEAD_IDLE
                };
                (dead, "link: answer to a ping overdue")
            }
            Ping::None if self.outstanding => {
                (self.last_received + self.suspect_after(), "link: silence while bytes are outstanding")
            }
            Ping::None if self.active => (self.last_ping + MEASURE, "link: measure the round trip"),
            Ping::None => (self.last_ping.max(self.last_received) + self.idle, "link: idle ping"),
        }
    }

    /// Where the path is so long that it is suspect late, it is dead late.
    fn dead_after(&self) -> Duration {
        DEAD_ACTIVE.max(self.suspect_after() * 2)
    }
}

/// Silence that makes a link with outstanding bytes suspect, where three round trips are not longer. The round trip
/// that is measured holds what waits in queues.
const SUSPECT: Duration = Duration::from_secs(1);
/// Silence after which an active link is dead: two retransmissions of TCP or QUIC would have come through.
const DEAD_ACTIVE: Duration = Duration::from_secs(3);
/// An idle link's ping is repeated once after this, then the link is dead: worse networks stall for 2 or 3 s.
const DEAD_IDLE: Duration = Duration::from_secs(5);
/// Below the shortest mapping lifetimes seen in NATs (30 s), with room for one loss.
const IDLE: Duration = Duration::from_secs(15);
/// Oftener than this would drain a telephone's battery.
const SHORTEST_IDLE: Duration = Duration::from_secs(5);
/// Pings right after the first one.
const EARLY: u8 = 4;
/// How often the round trip is measured while bytes flow.
const MEASURE: Duration = Duration::from_secs(1);
