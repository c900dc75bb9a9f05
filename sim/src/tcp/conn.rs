//! One end of a connection: the states of RFC 9293 section 3.3.2, as far as two programs can tell them apart.

use std::io;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::recv::RecvHalf;
use super::segment::{Payload, Segment, Tag};
use super::send::{Expired, INITIAL_RTO, SendHalf};
use crate::clock::Time;
use crate::host::HostId;
use crate::queue::Due;
use crate::slab::Key;

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) host: HostId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The listener that it came to, until it is accepted.
    pub(crate) listener: Option<Key>,
    /// Whether a program holds it. One that nobody holds ends by itself.
    pub(crate) held: bool,
    /// How many unsent bytes a writer may queue.
    pub(crate) unsent: usize,
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Its next event in the queue.
    pub(crate) scheduled: Option<Due>,
    tag: Tag,
    mss: u16,
    user_timeout: Duration,
    state: State,
    /// This side ended its direction first, so it waits in TIME-WAIT.
    ended_first: bool,
    /// When a connection that nobody holds stops waiting for the peer's FIN.
    abandon_at: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    SynSent {
        tries: u32,
        retry_at: Time,
    },
    SynReceived {
        peer: Tag,
        tries: u32,
        retry_at: Time,
    },
    Open {
        peer: Tag,
    },
    TimeWait {
        peer: Tag,
        until: Time,
    },
    /// Over; with an error, unless both sides ended it in order.
    Closed(Option<io::ErrorKind>),
}

/// What makes a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) host: HostId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) tag: Tag,
    /// What a packet may carry by the MTU of the own interface.
    pub(crate) mss: u16,
    pub(crate) unsent: usize,
    pub(crate) user_timeout: Duration,
}

impl Conn {
    pub(crate) fn connect(ends: Ends, now: Time, out: &mut Vec<Segment>) -> Self {
        out.push(Segment::Syn { tag: ends.tag, mss: ends.mss });
        let state = State::SynSent { tries: 0, retry_at: now + INITIAL_RTO };
        Self::new(ends, None, state)
    }

    pub(crate) fn accept(
        ends: Ends,
        listener: Key,
        peer: Tag,
        mss: u16,
        now: Time,
        out: &mut Vec<Segment>,
    ) -> Self {
        let state = State::SynReceived { peer, tries: 0, retry_at: now + INITIAL_RTO };
        let mut conn = Self::new(ends, Some(listener), state);
        conn.mss = conn.mss.min(mss);
        out.push(conn.syn_ack(peer));
        conn
    }

    fn new(ends: Ends, listener: Option<Key>, state: State) -> Self {
        Self {
            host: ends.host,
            local: ends.local,
            remote: ends.remote,
            held: listener.is_none(),
            listener,
            unsent: ends.unsent,
            send: SendHalf::new(),
            recv: RecvHalf::new(),
            reader: None,
            writer: None,
            scheduled: None,
            tag: ends.tag,
            mss: ends.mss,
            user_timeout: ends.user_timeout,
            state,
            ended_first: false,
            abandon_at: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether the handshake is done, however it went on.
    pub(crate) fn connected(&self) -> Option<io::Result<()>> {
        match self.state {
            State::SynSent { .. } | State::SynReceived { .. } => None,
            State::Open { .. } | State::TimeWait { .. } | State::Closed(None) => Some(Ok(())),
            State::Closed(Some(kind)) => Some(Err(kind.into())),
        }
    }

    pub(crate) fn receive(&mut self, now: Time, segment: Segment, out: &mut Vec<Segment>) {
        match self.state {
            State::SynSent { .. } => self.receive_syn_sent(now, segment, out),
            State::SynReceived { peer, .. } => self.receive_syn_received(now, peer, segment, out),
            State::Open { peer } => self.receive_open(now, peer, segment, out),
            State::TimeWait { peer, .. } => {
                if let Segment::Payload(payload) = segment
                    && payload.tag == peer
                    && (payload.fin || payload.probe)
                {
                    out.push(self.bare_ack(peer));
                }
            }
            State::Closed(_) => out.extend(segment.reset()),
        }
    }

    fn receive_syn_sent(&mut self, now: Time, segment: Segment, out: &mut Vec<Segment>) {
        match segment {
            // Simultaneous open (RFC 9293 section 3.5, figure 7).
            Segment::Syn { tag, mss } => {
                self.mss = self.mss.min(mss);
                self.state = State::SynReceived { peer: tag, tries: 0, retry_at: now + INITIAL_RTO };
                out.push(self.syn_ack(tag));
            }
            Segment::SynAck { tag, ack_tag, mss } if ack_tag == self.tag => {
                self.mss = self.mss.min(mss);
                self.open(tag);
                out.push(self.bare_ack(tag));
                self.transmit(now, out);
            }
            Segment::Reset { ack_tag, .. } => {
                if ack_tag == Some(self.tag) {
                    self.close(Some(io::ErrorKind::ConnectionRefused));
                }
            }
            // It belongs to an earlier connection: the reset makes the peer forget that one.
            Segment::SynAck { .. } | Segment::Payload(_) => out.extend(segment.reset()),
        }
    }

    fn receive_syn_received(&mut self, now: Time, peer: Tag, segment: Segment, out: &mut Vec<Segment>) {
        match segment {
            Segment::Syn { tag, .. } => {
                if tag != peer {
                    self.state = State::SynReceived { peer: tag, tries: 0, retry_at: now + INITIAL_RTO };
                }
                out.push(self.syn_ack(tag));
            }
            Segment::SynAck { tag, ack_tag, .. } if tag == peer && ack_tag == self.tag => {
                self.open(peer);
                out.push(self.bare_ack(peer));
                self.transmit(now, out);
            }
            Segment::Payload(ref payload) if payload.tag == peer && payload.ack_tag == self.tag => {
                self.open(peer);
                self.receive_open(now, peer, segment, out);
            }
            Segment::Reset { tag, ack_tag } => {
                if tag == Some(peer) || ack_tag == Some(self.tag) {
                    self.close(Some(io::ErrorKind::ConnectionRefused));
                }
            }
            Segment::SynAck { .. } | Segment::Payload(_) => out.extend(segment.reset()),
        }
    }

    fn receive_open(&mut self, now: Time, peer: Tag, segment: Segment, out: &mut Vec<Segment>) {
        match segment {
            // The peer lost our acknowledgement; or it has started anew, and this "challenge" makes it
            // reset what it does not know (RFC 5961 section 4).
            Segment::Syn { .. } => out.push(self.bare_ack(peer)),
            Segment::SynAck { tag, .. } if tag == peer => out.push(self.bare_ack(peer)),
            Segment::SynAck { .. } => out.extend(segment.reset()),
            Segment::Reset { tag, ack_tag } => {
                if tag == Some(peer) || ack_tag == Some(self.tag) {
                    self.close(Some(io::ErrorKind::ConnectionReset));
                }
            }
            Segment::Payload(payload) if payload.tag != peer || payload.ack_tag != self.tag => {
                out.extend(Segment::Payload(payload).reset());
            }
            Segment::Payload(payload) => self.receive_payload(now, peer, payload, out),
        }
    }

    fn receive_payload(&mut self, now: Time, peer: Tag, payload: Payload, out: &mut Vec<Segment>) {
        if !self.held && self.listener.is_none() && !payload.data.is_empty() {
            // Nobody will ever read it; an orderly end would lie to the sender (RFC 2525 section 2.17).
            self.reset(peer, out);
            return;
        }
        let bare = payload.length() == 0 && !payload.probe;
        self.send.acknowledged(now, payload.ack, payload.limit, bare);
        if self.recv.take_in(payload.seq, payload.data, payload.fin) {
            wake(&mut self.reader);
        }
        if !bare {
            out.push(self.bare_ack(peer));
        }
        self.transmit(now, out);
        if self.send.writable(self.unsent) {
            wake(&mut self.writer);
        }
        self.settle(now);
    }

    /// ICMP: packets on the way may carry at most so many bytes.
    pub(crate) fn path_shrank(&mut self, now: Time, mss: u16, out: &mut Vec<Segment>) {
        if mss < self.mss {
            self.mss = mss.max(MIN_MSS);
            self.send.again();
            self.transmit(now, out);
        }
    }

    /// Sends what the windows allow.
    pub(crate) fn transmit(&mut self, now: Time, out: &mut Vec<Segment>) {
        let State::Open { peer } = self.state else { return };
        while let Some(piece) = self.send.next_piece(now) {
            let payload = self.payload(peer, piece.seq, piece.data, piece.fin, false);
            out.push(payload);
        }
    }

    /// A reader took something: tells the peer when that is worth a packet.
    pub(crate) fn consumed(&mut self, out: &mut Vec<Segment>) {
        if let State::Open { peer } = self.state
            && self.recv.window_opened()
        {
            out.push(self.bare_ack(peer));
        }
    }

    /// Ends the sending direction.
    pub(crate) fn finish(&mut self, now: Time, out: &mut Vec<Segment>) {
        if !self.send.finishing() {
            self.ended_first = !self.recv.eof();
            self.send.finish();
            self.transmit(now, out);
        }
    }

    /// The program lets go of it.
    pub(crate) fn release(&mut self, now: Time, abort: bool, out: &mut Vec<Segment>) {
        self.held = false;
        self.listener = None;
        self.reader = None;
        self.writer = None;
        match self.state {
            State::SynSent { .. } => self.close(None),
            State::SynReceived { peer, .. } => self.reset(peer, out),
            State::Open { peer } if abort || self.recv.unread() => self.reset(peer, out),
            State::Open { .. } => {
                self.finish(now, out);
                self.settle(now);
            }
            State::TimeWait { .. } | State::Closed(_) => {}
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match self.state {
            State::SynSent { retry_at, .. } | State::SynReceived { retry_at, .. } => Some(retry_at),
            State::Open { .. } => {
                let send = self.send.deadline(self.user_timeout);
                self.abandon_at.map_or(send, |at| Some(send.map_or(at, |send| send.min(at))))
            }
            State::TimeWait { until, .. } => Some(until),
            State::Closed(_) => None,
        }
    }

    pub(crate) fn expired(&mut self, now: Time, out: &mut Vec<Segment>) {
        match self.state {
            State::SynSent { tries, retry_at } if now >= retry_at => {
                match next_try(now, tries, SYN_RETRIES).filter(|_| waited(tries) < self.user_timeout) {
                    Some((tries, retry_at)) => {
                        self.state = State::SynSent { tries, retry_at };
                        out.push(Segment::Syn { tag: self.tag, mss: self.mss });
                    }
                    None => self.close(Some(io::ErrorKind::TimedOut)),
                }
            }
            State::SynReceived { peer, tries, retry_at } if now >= retry_at => {
                match next_try(now, tries, SYN_ACK_RETRIES) {
                    Some((tries, retry_at)) => {
                        self.state = State::SynReceived { peer, tries, retry_at };
                        out.push(self.syn_ack(peer));
                    }
                    None => self.close(Some(io::ErrorKind::TimedOut)),
                }
            }
            State::Open { .. } if self.abandon_at.is_some_and(|at| now >= at) => self.close(None),
            State::Open { peer } => match self.send.expired(now, self.user_timeout) {
                Expired::Nothing => {}
                Expired::Resend => self.transmit(now, out),
                Expired::Probe => {
                    let probe = self.payload(peer, self.send.una(), Bytes::new(), false, true);
                    out.push(probe);
                }
                Expired::Dead => self.close(Some(io::ErrorKind::TimedOut)),
            },
            State::TimeWait { until, .. } if now >= until => self.close(None),
            State::SynSent { .. } | State::SynReceived { .. } | State::TimeWait { .. } | State::Closed(_) => {
            }
        }
    }

    /// The host slept for so long, and its timers did too.
    pub(crate) fn put_off(&mut self, by: Duration) {
        self.send.put_off(by);
        self.abandon_at = self.abandon_at.map(|at| at + by);
        match &mut self.state {
            State::SynSent { retry_at: at, .. }
            | State::SynReceived { retry_at: at, .. }
            | State::TimeWait { until: at, .. } => *at = *at + by,
            State::Open { .. } | State::Closed(_) => {}
        }
    }

    fn open(&mut self, peer: Tag) {
        self.state = State::Open { peer };
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// Both directions may be over, or only the peer's may be left, of a connection that nobody holds.
    fn settle(&mut self, now: Time) {
        let State::Open { peer } = self.state else { return };
        if !self.send.finished() {
            return;
        }
        if !self.recv.eof() {
            if !self.held && self.listener.is_none() {
                self.abandon_at = self.abandon_at.or(Some(now + FIN_WAIT));
            }
        } else if self.ended_first {
            self.state = State::TimeWait { peer, until: now + TIME_WAIT };
        } else {
            self.state = State::Closed(None);
        }
    }

    fn reset(&mut self, peer: Tag, out: &mut Vec<Segment>) {
        out.push(Segment::Reset { tag: Some(self.tag), ack_tag: Some(peer) });
        self.close(None);
    }

    fn close(&mut self, error: Option<io::ErrorKind>) {
        self.state = State::Closed(error);
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    fn syn_ack(&self, peer: Tag) -> Segment {
        Segment::SynAck { tag: self.tag, ack_tag: peer, mss: self.mss }
    }

    fn bare_ack(&mut self, peer: Tag) -> Segment {
        let seq = self.send.sent();
        self.payload(peer, seq, Bytes::new(), false, false)
    }

    fn payload(&mut self, peer: Tag, seq: u64, data: Bytes, fin: bool, probe: bool) -> Segment {
        Segment::Payload(Payload {
            tag: self.tag,
            ack_tag: peer,
            seq,
            data,
            fin,
            probe,
            ack: self.recv.next(),
            limit: self.recv.advertise(),
            mss: self.mss,
        })
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// How long the handshake has taken when the wait after so many tries is over.
fn waited(tries: u32) -> Duration {
    INITIAL_RTO * (2_u32.saturating_pow(tries + 1) - 1)
}

/// The number and time of the next try, each wait twice as long as the one before.
fn next_try(now: Time, tries: u32, most: u32) -> Option<(u32, Time)> {
    (tries < most).then(|| (tries + 1, now + INITIAL_RTO * 2_u32.saturating_pow(tries + 1)))
}

/// Linux's `tcp_syn_retries`: gives up after 127 s.
const SYN_RETRIES: u32 = 6;

/// Linux's `tcp_synack_retries`: gives up after 63 s.
const SYN_ACK_RETRIES: u32 = 5;

/// Linux's TIME-WAIT.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Linux's `tcp_fin_timeout`.
const FIN_WAIT: Duration = Duration::from_secs(60);

/// No path takes less: the minimum MTU of IPv4 is 576 in practice, less two headers.
const MIN_MSS: u16 = 536;
