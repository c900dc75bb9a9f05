//! The plaintext side of one link: frames in, frames out, stream 0, and the pings that prove it alive.

use std::time::{Duration, Instant};

use super::control::{self, Control, Reader};
use super::nomination::Nomination;
use super::{Ending, LinkId};
use crate::mux::{Decoder, Frame};

/// One link's lane.
#[derive(Debug)]
pub(super) struct Lane {
    decoder: Decoder,
    reader: Reader,
    /// Stream 0 bytes that have yet to be framed, from `written` on.
    control: Vec<u8>,
    written: usize,
    /// A PING of the peer that has yet to be answered. One is enough: the next one makes an older one moot.
    pong: Option<[u8; 8]>,
    life: Life,
}

impl Lane {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            decoder: Decoder::new(),
            reader: Reader::default(),
            control: Vec::new(),
            written: 0,
            pong: None,
            life: Life::new(now),
        }
    }

    /// Queues a message of stream 0.
    pub(super) fn say(&mut self, message: &Control) {
        control::encode(message, &mut self.control);
    }

    /// Takes plaintext that came over the link.
    pub(super) fn take(
        &mut self,
        now: Instant,
        link: LinkId,
        mut bytes: &[u8],
        nomination: &mut Nomination,
    ) -> Result<(), Ending> {
        self.life.received(now);
        while let Some(frame) = self.decoder.next(&mut bytes)? {
            match frame {
                Frame::Data { stream: 0, bytes, fin: _ } => {
                    self.reader.push(bytes);
                    while let Some(message) = self.reader.next()? {
                        nomination.hear(now, link, message)?;
                    }
                }
                Frame::Ping(payload) => self.pong = Some(payload),
                Frame::Pong(payload) => {
                    if self.life.pong(now, payload) {
                        nomination.rtt(link, self.life.floor);
                    }
                }
                Frame::Syn { .. } | Frame::Data { .. } | Frame::Window { .. } | Frame::Reset { .. } => {
                    self.life.active = true;
                    nomination.frame(now, link, frame)?;
                }
            }
        }
        Ok(())
    }

    /// Fills `out` with what this link itself has to say; the number of bytes.
    pub(super) fn fill(&mut self, now: Instant, out: &mut [u8]) -> usize {
        let mut n = 0;
        let mut put = |frame: Frame<'_>, n: &mut usize| match frame.encode(&mut out[*n..]) {
            Some(done) => {
                *n += done;
                true
            }
            None => false,
        };
        if let Some(payload) = self.pong
            && put(Frame::Pong(payload), &mut n)
        {
            self.pong = None;
        }
        if self.life.wants_ping && put(Frame::Ping(self.life.payload()), &mut n) {
            self.life.pinged(now);
        }
        while let Some(rest) = self.control.get(self.written..).filter(|rest| !rest.is_empty()) {
            let part = rest.len().min(CONTROL_PART);
            if !put(Frame::Data { stream: 0, bytes: &rest[..part], fin: false }, &mut n) {
                break;
            }
            self.written += part;
        }
        if self.written == self.control.len() && self.written > 0 {
            self.control = Vec::new();
            self.written = 0;
        }
        n
    }

    /// Whether [`Self::fill`] has something.
    pub(super) fn wants_transmit(&self) -> bool {
        self.pong.is_some() || self.life.wants_ping || self.written < self.control.len()
    }

    /// Stream bytes went out: from now on silence counts.
    pub(super) fn sent_data(&mut self, now: Instant) {
        self.life.sent(now);
    }

    /// The smoothed round trip.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.life.rtt
    }

    /// The round trip without what waits in queues.
    pub(super) fn floor(&self) -> Option<Duration> {
        self.life.floor
    }

    /// Lets time pass; an error if the link has died of silence.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Ending> {
        self.life.tick(now)
    }

    pub(super) fn deadline(&self) -> (Instant, &'static str) {
        self.life.deadline()
    }
}

/// Whether the link is alive, judged by what comes back.
///
/// An idle link is pinged every 15 s and is dead after two pings without an answer, 25 s in all. A link on
/// which bytes are outstanding is pinged after a second of silence and is dead 3 s later.
#[derive(Debug)]
struct Life {
    last_received: Instant,
    last_ping: Instant,
    /// Bytes went out since something came in.
    outstanding: bool,
    /// Frames of streams went out or came in since the last ping: the round trip is worth measuring again.
    active: bool,
    ping: Ping,
    wants_ping: bool,
    /// The PING that is on its way went out twice.
    repeated: bool,
    count: u64,
    rtt: Option<Duration>,
    /// The round trip without what waits in queues: windows are sized by it, and not by the queues that they
    /// make.
    floor: Option<Duration>,
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
    fn new(now: Instant) -> Self {
        let mut life = Self {
            last_received: now,
            last_ping: now,
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

    fn payload(&self) -> [u8; 8] {
        self.count.to_be_bytes()
    }

    /// A ping counts from the moment it is wanted: a connection that takes no bytes is as dead as one that
    /// brings none.
    fn want_ping(&mut self, now: Instant) {
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
    fn pinged(&mut self, now: Instant) {
        self.wants_ping = false;
        if let Ping::Sent(sent, _) = &mut self.ping {
            *sent = now;
        }
    }

    fn pong(&mut self, now: Instant, payload: [u8; 8]) -> bool {
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

    fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.outstanding = false;
        if let Ping::Sent(_, missed) = &mut self.ping {
            // Alive; the answer itself may be behind bulk data.
            *missed = 0;
        }
    }

    fn sent(&mut self, now: Instant) {
        if !self.outstanding {
            // Silence before there was anything to answer is no evidence.
            self.outstanding = true;
            self.last_received = self.last_received.max(now);
        }
        self.active = true;
    }

    fn tick(&mut self, now: Instant) -> Result<(), Ending> {
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

    fn deadline(&self) -> (Instant, &'static str) {
        match self.ping {
            Ping::Sent(sent, _) => {
                let since = sent.max(self.last_received);
                let patience = if self.outstanding { DEAD_ACTIVE } else { DEAD_IDLE };
                (since + patience, "link: answer to a ping overdue")
            }
            Ping::None if self.outstanding => {
                (self.last_received + SUSPECT, "link: silence while bytes are outstanding")
            }
            Ping::None if self.active => (self.last_ping + MEASURE, "link: measure the round trip"),
            Ping::None => (self.last_ping.max(self.last_received) + IDLE, "link: idle ping"),
        }
    }
}

/// Stream 0 goes out in frames of this size at most: several fit a record, and none is starved.
const CONTROL_PART: usize = 4096;
/// Silence that makes a link with outstanding bytes suspect.
const SUSPECT: Duration = Duration::from_secs(1);
/// An active link is dead after as much more: two retransmissions of TCP or QUIC would have come through.
const DEAD_ACTIVE: Duration = Duration::from_secs(3);
/// An idle link's ping is repeated once after this, then the link is dead: worse networks stall for 2 or 3 s.
const DEAD_IDLE: Duration = Duration::from_secs(5);
/// Below the shortest mapping lifetimes seen in NATs (30 s), with room for one loss.
const IDLE: Duration = Duration::from_secs(15);
/// Pings right after the first one.
const EARLY: u8 = 4;
/// How often the round trip is measured while bytes flow.
const MEASURE: Duration = Duration::from_secs(1);
