//! The sending half of a connection: what is queued, what is in flight, and when to send it again.
//!
//! Retransmission timer after RFC 6298, congestion control after RFC 5681 with the recovery of RFC 6582,
//! both in units of segments that stand for bursts.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Time;

#[derive(Debug)]
pub(crate) struct SendHalf {
    /// What is not acknowledged: first what was sent, from `next` on what is to be sent.
    chunks: VecDeque<Chunk>,
    next: usize,
    /// The first byte not acknowledged, the first never sent, and the first never queued.
    una: u64,
    sent: u64,
    end: u64,
    fin: bool,
    /// What the receiver will take.
    limit: u64,
    cwnd: u64,
    ssthresh: u64,
    duplicates: u32,
    /// Fast recovery lasts until this is acknowledged.
    recover: Option<u64>,
    /// The first chunk is to be sent again before anything else.
    resend: bool,
    srtt: Option<Duration>,
    rttvar: Duration,
    backoff: u32,
    deadline: Option<Time>,
    /// Since when nothing has come back for what was sent: data, or the probe of a shut window.
    silent_since: Option<Time>,
}

#[derive(Debug)]
struct Chunk {
    seq: u64,
    data: Bytes,
    fin: bool,
    sent: Option<Time>,
    again: bool,
}

/// A segment to send.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) seq: u64,
    pub(crate) data: Bytes,
    pub(crate) fin: bool,
}

/// What a timer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    Nothing,
    /// Segments are to be sent again.
    Resend,
    /// Ask whether the window is still shut.
    Probe,
    /// The peer has been silent for too long.
    Dead,
}

impl SendHalf {
    pub(crate) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            next: 0,
            una: 0,
            sent: 0,
            end: 0,
            fin: false,
            // What a peer takes before it has named a window; the handshake carries none here.
            limit: super::recv::RECV_BUFFER as u64,
            cwnd: SEGMENT as u64,
            ssthresh: u64::MAX,
            duplicates: 0,
            recover: None,
            resend: false,
            srtt: None,
            rttvar: Duration::ZERO,
            backoff: 0,
            deadline: None,
            silent_since: None,
        }
    }

    /// How many bytes may be queued, when at most `unsent` may wait unsent.
    pub(crate) fn room(&self, unsent: usize) -> usize {
        let waiting = usize::try_from(self.end - self.sent).unwrap_or(usize::MAX);
        let buffered = usize::try_from(self.end - self.una).unwrap_or(usize::MAX);
        unsent.saturating_sub(waiting).min(SEND_BUFFER.saturating_sub(buffered))
    }

    /// Whether a writer that was held back is worth waking: systems wait for a good part of the room.
    pub(crate) fn writable(&self, unsent: usize) -> bool {
        self.room(unsent) >= unsent.min(SEND_BUFFER) / 2
    }

    pub(crate) fn queue(&mut self, mut data: Bytes) {
        debug_assert!(!self.fin, "no data after FIN");
        if let Some(last) = self.chunks.back_mut()
            && last.sent.is_none()
            && last.data.len() + data.len() <= COALESCED
        {
            self.end += data.len() as u64;
            last.data = [&last.data[..], &data[..]].concat().into();
            return;
        }
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(SEGMENT));
            self.push(piece, false);
        }
    }

    pub(crate) fn finish(&mut self) {
        if !self.fin {
            self.fin = true;
            self.push(Bytes::new(), true);
        }
    }

    pub(crate) fn finishing(&self) -> bool {
        self.fin
    }

    /// Whether the peer has all, FIN included.
    pub(crate) fn finished(&self) -> bool {
        self.fin && self.chunks.is_empty()
    }

    pub(crate) fn una(&self) -> u64 {
        self.una
    }

    /// The sequence number of what would be sent next.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn next_piece(&mut self, now: Time) -> Option<Piece> {
        if std::mem::take(&mut self.resend) && self.next > 0 {
            return self.send(0, now);
        }
        let chunk = self.chunks.get(self.next)?;
        let (seq, length) = (chunk.seq, chunk.length());
        let flight = seq - self.una;
        if !chunk.fin && seq + length > self.limit {
            if flight > 0 {
                return None;
            }
            if self.limit <= seq {
                self.deadline = self.deadline.or_else(|| Some(now + self.rto()));
                return None;
            }
            self.split(self.limit - seq);
        } else if flight > 0 && flight + length > self.cwnd {
            return None;
        }
        self.next += 1;
        self.send(self.next - 1, now)
    }

    /// Takes in an acknowledgement; `bare` is one that came without data. True if it acknowledged anything.
    pub(crate) fn acknowledged(&mut self, now: Time, ack: u64, limit: u64, bare: bool) -> bool {
        let moved = limit > self.limit;
        self.limit = self.limit.max(limit);
        if self.next == 0 && self.deadline.is_some() {
            // The answer to a window probe: the peer lives (RFC 9293 section 3.8.6.1).
            self.silent_since = None;
            if moved {
                self.deadline = None;
                self.backoff = 0;
            }
        }
        if ack <= self.una || ack > self.sent {
            if bare && ack == self.una && self.una < self.sent && !moved {
                self.duplicate();
            }
            return false;
        }
        let (mut sample, mut repeated) = (None, false);
        while let Some(chunk) = self.chunks.front()
            && chunk.seq + chunk.length() <= ack
        {
            sample = chunk.sent;
            repeated |= chunk.again;
            self.chunks.pop_front();
            self.next = self.next.saturating_sub(1);
        }
        // What waited behind a loss tells how long that took to mend, and nothing of the round trip.
        if let Some(sent) = sample.filter(|_| !repeated) {
            self.measured(now - sent);
        }
        let bytes = ack - self.una;
        self.una = ack;
        self.backoff = 0;
        self.duplicates = 0;
        match self.recover {
            Some(recover) if ack < recover => self.resend = true,
            Some(_) => self.recover = None,
            None if self.cwnd < self.ssthresh => self.cwnd += bytes,
            None => self.cwnd += (SEGMENT as u64 * bytes / self.cwnd.max(1)).max(1),
        }
        self.cwnd = self.cwnd.min(SEND_BUFFER as u64);
        let outstanding = self.una < self.sent;
        self.deadline = outstanding.then(|| now + self.rto());
        self.silent_since = outstanding.then_some(now);
        true
    }

    pub(crate) fn deadline(&self, user_timeout: Duration) -> Option<Time> {
        let dead = self.silent_since.map(|since| since + user_timeout);
        self.deadline.map(|deadline| dead.map_or(deadline, |dead| dead.min(deadline)))
    }

    pub(crate) fn expired(&mut self, now: Time, user_timeout: Duration) -> Expired {
        if self.silent_since.is_some_and(|since| now - since >= user_timeout) {
            return Expired::Dead;
        }
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return Expired::Nothing;
        }
        self.backoff += 1;
        self.deadline = Some(now + self.rto());
        if self.next == 0 && self.una == self.sent {
            self.silent_since = self.silent_since.or(Some(now));
            return Expired::Probe;
        }
        self.ssthresh = ((self.sent - self.una) / 2).max(2 * SEGMENT as u64);
        self.again();
        Expired::Resend
    }

    /// Sends all that is in flight again, as the congestion window allows: after a time-out, or since the
    /// path takes smaller packets only.
    pub(crate) fn again(&mut self) {
        self.cwnd = SEGMENT as u64;
        self.recover = None;
        self.duplicates = 0;
        self.next = 0;
    }

    /// The host slept for so long: its timers did too.
    pub(crate) fn put_off(&mut self, by: Duration) {
        self.deadline = self.deadline.map(|at| at + by);
        self.silent_since = self.silent_since.map(|at| at + by);
    }

    fn push(&mut self, data: Bytes, fin: bool) {
        let chunk = Chunk { seq: self.end, data, fin, sent: None, again: false };
        self.end += chunk.length();
        self.chunks.push_back(chunk);
    }

    fn send(&mut self, index: usize, now: Time) -> Option<Piece> {
        let chunk = self.chunks.get_mut(index)?;
        chunk.again = chunk.sent.is_some();
        chunk.sent = Some(now);
        let piece = Piece { seq: chunk.seq, data: chunk.data.clone(), fin: chunk.fin };
        self.sent = self.sent.max(chunk.seq + chunk.length());
        self.deadline = self.deadline.or_else(|| Some(now + self.rto()));
        self.silent_since = self.silent_since.or(Some(now));
        Some(piece)
    }

    /// Cuts the next chunk, so that its first part fits the window.
    fn split(&mut self, at: u64) {
        let Some(chunk) = self.chunks.get_mut(self.next) else { return };
        let rest = chunk.data.split_off(usize::try_from(at).unwrap_or(usize::MAX).min(chunk.data.len()));
        let rest =
            Chunk { seq: chunk.seq + at, data: rest, fin: false, sent: chunk.sent, again: chunk.again };
        self.chunks.insert(self.next + 1, rest);
    }

    fn duplicate(&mut self) {
        self.duplicates += 1;
        if self.duplicates == DUPLICATES && self.recover.is_none() {
            self.recover = Some(self.sent);
            self.ssthresh = ((self.sent - self.una) / 2).max(2 * SEGMENT as u64);
            self.cwnd = self.ssthresh;
            self.resend = true;
        }
    }

    fn measured(&mut self, rtt: Duration) {
        match self.srtt {
            None => {
                self.srtt = Some(rtt);
                self.rttvar = rtt / 2;
            }
            Some(srtt) => {
                self.rttvar = self.rttvar * 3 / 4 + srtt.abs_diff(rtt) / 4;
                self.srtt = Some(srtt * 7 / 8 + rtt / 8);
            }
        }
    }

    fn rto(&self) -> Duration {
        let base = self.srtt.map_or(INITIAL_RTO, |srtt| srtt + (self.rttvar * 4).max(MIN_RTO));
        (base * 2_u32.saturating_pow(self.backoff.min(16))).min(MAX_RTO)
    }
}

impl Chunk {
    fn length(&self) -> u64 {
        self.data.len() as u64 + u64::from(self.fin)
    }
}

/// The most that one segment carries: ten packets of Ethernet's size, the initial window (RFC 6928).
pub(crate) const SEGMENT: usize = 10 * 1448;

/// What a connection buffers for sending, acknowledged or not: as [`super::recv::RECV_BUFFER`].
pub(crate) const SEND_BUFFER: usize = 256 * 1024;

/// Small writes that wait are joined up to one packet's size, as systems do.
const COALESCED: usize = 1448;

/// Acknowledgements for the same byte that mean loss (RFC 5681 section 3.2).
const DUPLICATES: u32 = 3;

/// RFC 6298 section 2.1.
pub(crate) const INITIAL_RTO: Duration = Duration::from_secs(1);

/// Linux's floor for the variance term.
const MIN_RTO: Duration = Duration::from_millis(200);

/// Linux's ceiling.
const MAX_RTO: Duration = Duration::from_secs(120);
