//! The plaintext side of one link, whatever carries it: frames in, frames out, stream 0, and the pings that
//! prove it alive.

use std::time::{Duration, Instant};

use super::control::{self, Control, Reader};
use super::life::Life;
use super::nomination::Nomination;
use super::{Ending, LinkId};
use crate::mux::{Decoder, Frame};

/// One link's lane.
#[derive(Debug)]
pub(super) struct Lane {
    reader: Reader,
    /// Stream 0 bytes that have yet to be framed, from `written` on.
    control: Vec<u8>,
    written: usize,
    /// A PING of the peer that has yet to be answered. One is enough: the next one makes an older one moot.
    pong: Option<[u8; 8]>,
    life: Life,
    proof: Option<Proof>,
}

/// The proof that a link bears more than a trickle: so many bytes of pings, and an answer to the one behind them.
#[derive(Debug)]
struct Proof {
    /// What has yet to be sent of it.
    left: usize,
    until: Instant,
}

/// How far a proof is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proven {
    Yes,
    NotYet,
    TooLate,
}

impl Lane {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            reader: Reader::default(),
            control: Vec::new(),
            written: 0,
            pong: None,
            life: Life::new(now),
            proof: None,
        }
    }

    /// See [`Life::keepalive`].
    pub(super) fn keepalive(&mut self, every: Duration) {
        self.life.keepalive(every);
    }

    /// Queues a message of stream 0.
    pub(super) fn say(&mut self, message: &Control) {
        control::encode(message, &mut self.control);
    }

    /// Takes plaintext that came over the link, whose parser is `decoder`.
    pub(super) fn take(
        &mut self,
        now: Instant,
        link: LinkId,
        decoder: &mut Decoder,
        mut bytes: &[u8],
        nomination: &mut Nomination,
    ) -> Result<(), Ending> {
        self.life.received(now);
        while let Some(frame) = decoder.next(&mut bytes)? {
            self.frame(now, link, frame, nomination)?;
        }
        Ok(())
    }

    /// Takes a frame that came over the link.
    pub(super) fn frame(
        &mut self,
        now: Instant,
        link: LinkId,
        frame: Frame<'_>,
        nomination: &mut Nomination,
    ) -> Result<(), Ending> {
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
        Ok(())
    }

    /// Whether the link has proven that it bears more than a trickle. The proof begins with the first call, which
    /// has to come before anything is sent.
    pub(super) fn proven(&mut self, now: Instant) -> Proven {
        let proof = self.proof.get_or_insert(Proof { left: PROOF, until: now + PROOF_TIME });
        match (self.life.has_answered(), now < proof.until) {
            (true, _) => Proven::Yes,
            (false, true) => Proven::NotYet,
            (false, false) => Proven::TooLate,
        }
    }

    /// When [`Self::proven`] comes to another result by time alone.
    pub(super) fn proof_deadline(&self) -> Option<Instant> {
        self.proof.as_ref().filter(|_| !self.life.has_answered()).map(|proof| proof.until)
    }

    /// Something came that only the peer can have sent.
    pub(super) fn heard(&mut self, now: Instant) {
        self.life.received(now);
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
        if let Some(proof) = &mut self.proof {
            while proof.left > 0 && put(Frame::Ping(FILLER), &mut n) {
                proof.left = proof.left.saturating_sub(PING);
            }
            if proof.left > 0 {
                return n;
            }
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
        self.pong.is_some()
            || self.proof.as_ref().is_some_and(|proof| proof.left > 0)
            || self.life.wants_ping
            || self.written < self.control.len()
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

    /// Whether the peer has been silent for so long that another link had better be used, if there is one.
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.life.is_suspect(now)
    }

    /// Whether that has just become so: said once, until something comes.
    pub(super) fn take_suspicion(&mut self, now: Instant) -> bool {
        self.life.take_suspicion(now)
    }

    /// Whether both directions have worked since then.
    pub(super) fn answered_since(&self, since: Instant) -> bool {
        self.life.answered_since(since)
    }

    /// Asks at once whether the peer is still there.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.life.doubt(now);
    }

    /// Lets time pass; an error if the link has died of silence.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Ending> {
        self.life.tick(now)
    }

    pub(super) fn deadline(&self) -> (Instant, &'static str) {
        self.life.deadline()
    }
}

/// Stream 0 goes out in frames of this size at most: several fit a record, and none is starved.
const CONTROL_PART: usize = 4096;
/// Several congestion windows of a connection's beginning: what is policed to a trickle does not get that through in
/// [`PROOF_TIME`], or shows how much it loses.
const PROOF: usize = 64 * 1024;
/// How long a proof may take: fifteen round trips over a long path.
const PROOF_TIME: Duration = Duration::from_secs(4);
/// The length of a PING.
const PING: usize = 15;
/// What pings that only fill bear: no number of a ping that measures.
const FILLER: [u8; 8] = [0xff; 8];
