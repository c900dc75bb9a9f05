//! Whether a link is alive, and how long its round trip is: pings and what comes back.

use std::time::{Duration, Instant};

use super::Ending;

/// Whether the link is alive, judged by what comes back.
///
/// An idle link is pinged every 15 s, or oftener where a NAT forgets sooner, and is dead after two pings
/// without an answer, 25 s in all. A link on which bytes are outstanding is pinged after a second of silence and is dead 3 s later.
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
        self.active = false;
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

    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Ending> {
        if now < self.deadline().0 {
            return Ok(());
        }
        match self.ping {
            Ping::Sent(_, missed) if self.outstanding || missed > 0 => Err(Ending::Silent),
            Ping::None | Ping::Sent(..) => {
                self.want_ping(now);
                Ok(())
            }
        }
    }

    /// Whether bytes are outstanding for so long that another link had better be used.
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.outstanding && now >= self.last_received + self.suspect_after()
    }

    fn suspect_after(&self) -> Duration {
        self.rtt.map_or(SUSPECT, |rtt| SUSPECT.max(rtt * 4))
    }

    pub(super) fn deadline(&self) -> (Instant, &'static str) {
        match self.ping {
            Ping::Sent(sent, _) => {
                let since = sent.max(self.last_received);
                let patience = if self.outstanding { DEAD_ACTIVE } else { DEAD_IDLE };
                (since + patience, "link: answer to a ping overdue")
            }
            Ping::None if self.outstanding => {
                (self.last_received + self.suspect_after(), "link: silence while bytes are outstanding")
            }
            Ping::None if self.active => (self.last_ping + MEASURE, "link: measure the round trip"),
            Ping::None => (self.last_ping.max(self.last_received) + self.idle, "link: idle ping"),
        }
    }
}

/// Silence that makes a link with outstanding bytes suspect, where four round trips are not longer.
const SUSPECT: Duration = Duration::from_secs(1);
/// An active link is dead after as much more: two retransmissions of TCP or QUIC would have come through.
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
