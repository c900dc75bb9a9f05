//! A link over UDP: QUIC (RFC 9000) with raw public keys, on a path that may move under it.
//!
//! # What it is made of
//!
//! - **QUIC** is quinn-proto: one endpoint with one connection a link. The controlling side is the client. The
//!   key of each side is its identity, as on a TCP link; no 0-RTT, no session ticket, no Retry, no migration.
//!   QUIC sees one peer at one synthetic address.
//! - **The path layer** maps that address to a socket of ours and a real address. The handshake goes to every
//!   candidate at once, so QUIC's Initial is the check of a direct path; the first authentic answer fixes the
//!   path, and from then on only the answer to a [`probe`] moves it.
//! - **Attribution** comes before QUIC: the first destination id of a connection can be told by the attempt's
//!   two ends alone, and all later ids bear a label of this link ([`Demux`]). What fits no link never gets to
//!   the cryptography of one. QUIC is not asked for stateless resets, version negotiation or Retry, so nothing
//!   that is not authentic is ever answered.
//! - **Lanes**: each multiplexed stream has a QUIC stream of its own, so a lost packet stalls one stream only.
//! - **Windows** are ours, and small while nothing happens.
//!
//! # The loop that drives it
//!
//! With one `now` a turn:
//!
//! 1. [`UdpLink::datagram`] for each datagram that [`Demux::route`] gave to this link, probes included;
//!    [`UdpLink::tick`] once [`UdpLink::deadline`] has come.
//! 2. [`UdpLink::receive`]: frames go up, to an [`Upper`]. An error ends the link.
//! 3. [`UdpLink::transmit`]: frames come down, as many as keep the link busy and no more.
//! 4. [`UdpLink::poll_transmit`] until there is nothing to send.
//!
//! After [`UdpLink::close`] the last step is done once more, and the link dropped.
//!
//! # What it leaves to others
//!
//! Which candidates there are, and punching them open; whether the link is alive, which the session's pings
//! tell (QUIC's own timeout is only behind them); what the frames mean; the sockets. Time and seed come in.

mod config;
mod demux;
mod id;
mod keys;
mod lane;
mod lanes;
mod loss;
mod packet;
mod paths;
pub mod probe;
mod quic;
mod window;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use self::demux::{Demux, Held, Route};
pub use self::id::{InitialId, Label, ProbeTag};
use self::lanes::Lanes;
use self::loss::Loss;
pub use self::packet::Packet;
pub use self::paths::UdpPath;
use self::paths::{Heard, Paths};
use self::probe::ProbeKey;
use self::quic::Quic;
use self::window::Window;
pub use self::window::Windows;
use super::preface::Role;
use super::raw_key::LinkKeys;
use crate::ids::{AttemptId, PublicKey, SockId};
use crate::mux::{Frame, Mux, Violation};
use crate::rng::Rng;

/// What a link is made of.
#[derive(Debug)]
pub struct UdpConfig<'a> {
    /// This node's keys.
    pub keys: &'a LinkKeys,
    /// This node's part: the controlling side is QUIC's client.
    pub role: Role,
    /// The key that the peer must prove.
    pub peer: PublicKey,
    /// The attempt that the link belongs to.
    pub attempt: AttemptId,
    /// The attempt's punch key.
    pub punch_key: &'a [u8; 32],
    /// What tells this link from the others of the same port.
    pub index: u32,
    /// 32 secret bytes, used for no other link: connection ids, skipped packet numbers and the like are drawn
    /// from it.
    pub seed: [u8; 32],
}

/// The layer above a link: stream 0 and the multiplexer.
pub trait Upper {
    /// Why it ends the link.
    type Error: From<UdpError>;

    /// The epoch under which the streams move over this very link; none if they do not. It only ever rises,
    /// with gaps of none.
    fn carrying(&self) -> Option<u32>;

    /// Takes a frame: stream 0's and pings at any time, all others only while [`Self::carrying`] is some.
    ///
    /// # Errors
    /// If the peer broke a rule.
    fn take(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), Self::Error>;

    /// Fills `out` with whole frames of stream 0 and pings; the number of bytes, 0 if there are none.
    fn fill(&mut self, now: Instant, out: &mut [u8]) -> usize;

    /// The streams. Used only while [`Self::carrying`] is some.
    fn mux(&mut self) -> &mut Mux;
}

/// What is to be sent: the bytes that [`UdpLink::poll_transmit`] filled its buffer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The socket to send by.
    pub socket: SockId,
    /// Where to.
    pub to: SocketAddr,
    /// The length of each datagram but the last, when the buffer holds several.
    pub segment: Option<usize>,
    /// Two ECN bits (RFC 3168), 0 for none.
    pub ecn: u8,
    /// How many hops it may go; none for the system's usual number.
    pub hops: Option<u8>,
}

/// Why a link ended, or could not begin.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum UdpError {
    /// TLS refused this side's own keys or provider.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// QUIC failed: wrong key, altered bytes, a broken rule.
    #[error("QUIC: {0}")]
    Quic(String),
    /// Nothing was heard of the peer for too long.
    #[error("no answer from the peer")]
    Silent,
    /// The peer ended the link in order.
    #[error("closed by the peer: {0}")]
    ClosedByPeer(String),
    /// This side ended the link.
    #[error("closed")]
    Closed,
    /// A lane could not be read.
    #[error(transparent)]
    Frame(#[from] Violation),
    /// The peer broke a rule about lanes.
    #[error("the peer broke a rule: {0}")]
    Lane(&'static str),
}

/// The machine.
pub struct UdpLink {
    state: State,
    quic: Quic,
    paths: Paths,
    lanes: Lanes,
    window: Window,
    loss: Loss,
    label: Label,
    initial: InitialId,
    role: Role,
    dropped: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Handshake,
    Up,
    Ended(UdpError),
}

impl fmt::Debug for UdpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpLink")
            .field("label", &self.label)
            .field("state", &self.state)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl UdpLink {
    /// A link that is not up. The controlling side's goes to the candidates that are added; the other side's
    /// waits for an Initial with [`Self::initial_id`].
    ///
    /// # Errors
    /// If TLS refuses the keys: a programming error or a crippled crypto provider.
    pub fn new(now: Instant, config: &UdpConfig<'_>) -> Result<Self, UdpError> {
        let mut rng = Rng::new(config.seed);
        let label = Label::new(config.index, &mut rng.fork("label"));
        // The controlling side is the client, and the client's id is what the other side waits for.
        let initial = InitialId::new(config.attempt, config.punch_key, Role::Controlling);
        let (endpoint, client) = config::endpoint(config, label, initial, &mut rng)?;
        let tag = ProbeTag::new(config.attempt, config.punch_key);
        let key = ProbeKey::of_attempt(config.attempt, config.punch_key);
        Ok(Self {
            state: State::Handshake,
            quic: Quic::new(now, endpoint, client)?,
            paths: Paths::new(config.role, tag, key, rng.fork("probes")),
            lanes: Lanes::new(config.role),
            window: Window::new(now),
            loss: Loss::new(now),
            label,
            initial,
            role: config.role,
            dropped: 0,
        })
    }

    /// What all connection ids of this link begin with: for [`Demux::add_link`].
    pub fn label(&self) -> Label {
        self.label
    }

    /// The id that the first Initial to this link bears; none on the side that sends it.
    pub fn initial_id(&self) -> Option<InitialId> {
        match self.role {
            Role::Controlling => None,
            Role::Controlled => Some(self.initial),
        }
    }

    /// What this link's probes are tagged with: for [`Demux::add_tag`].
    pub fn probe_tag(&self) -> ProbeTag {
        self.paths.tag()
    }

    /// A path on which the peer may be reached. While none is fixed the handshake goes along it too, in at most
    /// `limit` datagrams. At most 16 are taken.
    pub fn add_candidate(&mut self, path: UdpPath, limit: Option<u32>) {
        self.paths.add_candidate(path, limit);
    }

    /// The path is none any more, like one by a socket that was closed. A fixed path stays.
    pub fn remove_candidate(&mut self, path: UdpPath) {
        self.paths.remove_candidate(path);
    }

    /// What went by socket `old` goes by `new` from now on: the network changed, and the port with it. The peer
    /// finds the new source out by itself.
    pub fn replace_socket(&mut self, old: SockId, new: SockId) {
        self.paths.replace_socket(old, new);
    }

    /// Asks whether the peer is at the end of another path. If it answers, the link moves there.
    pub fn probe_path(&mut self, now: Instant, path: UdpPath) {
        self.paths.ask(now, path);
    }

    /// Whether data may flow both ways: the peer has proved its key on this very connection.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Why the link is over, if it is.
    pub fn ending(&self) -> Option<&UdpError> {
        match &self.state {
            State::Ended(error) => Some(error),
            State::Handshake | State::Up => None,
        }
    }

    /// The path that datagrams take; none as long as no datagram of the peer was authentic.
    pub fn path(&self) -> Option<UdpPath> {
        self.paths.current()
    }

    /// QUIC's smoothed round trip (RFC 9002), once the link is up.
    pub fn rtt(&self) -> Option<Duration> {
        if self.is_up() { self.quic.rtt() } else { None }
    }

    /// The largest datagram that is known to get through, in bytes.
    pub fn mtu(&self) -> Option<u16> {
        self.quic.mtu()
    }

    /// What QUIC may hold for this link now.
    pub fn windows(&self) -> Windows {
        self.window.get()
    }

    /// How many lanes there are, stream 0's included.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// How many datagrams were for this link by their first bytes, and yet nobody's.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many frames have come that only the peer can have sent: while it rises, the peer is alive.
    pub fn frames(&self) -> u64 {
        self.quic.frames()
    }

    /// How many of a hundred packets get lost, where that is so many for so long that the path had better be left.
    pub fn loses(&self) -> Option<u8> {
        self.loss.verdict()
    }

    /// Takes a datagram that came by `socket` from `from`: QUIC's or a probe.
    pub fn datagram(&mut self, now: Instant, socket: SockId, from: SocketAddr, ecn: u8, datagram: &[u8]) {
        if let State::Ended(_) = self.state {
            return;
        }
        let path = UdpPath::new(socket, from);
        match Packet::of(datagram) {
            Packet::Probe => match self.paths.probe(now, path, datagram) {
                Heard::Nothing => self.dropped += 1,
                Heard::Peer => {}
                Heard::Moved => {
                    self.quic.moved(now);
                    self.loss.forget();
                }
            },
            Packet::Link(label) if label == self.label => self.quic_datagram(now, path, ecn, datagram),
            Packet::Initial(id) if Some(id) == self.initial_id() => {
                self.quic_datagram(now, path, ecn, datagram);
            }
            Packet::Link(_) | Packet::Initial(_) | Packet::Stun | Packet::Other => self.dropped += 1,
        }
    }

    /// Gives frames that have come to `upper`, each lane's in order.
    ///
    /// # Errors
    /// The link is over, or is to be: it must be closed.
    pub fn receive<U: Upper>(&mut self, now: Instant, upper: &mut U) -> Result<(), U::Error> {
        if let Some(conn) = self.quic.connection() {
            // What came before an orderly end still counts.
            let read = self.lanes.read(now, conn, upper)?;
            if self.window.read(now, read, conn.rtt()) {
                self.quic.set_windows(self.window.get());
            }
            self.settle();
        }
        match &self.state {
            State::Ended(error) => Err(error.clone().into()),
            State::Handshake | State::Up => Ok(()),
        }
    }

    /// Takes frames from `upper`, as many as keep the link busy; how many bytes of streams, stream 0 apart,
    /// that was. `scratch` is room for one turn, like a TLS record's 16 KiB, and at least
    /// [`crate::mux::MIN_TRANSMIT`] long; it holds nothing between two calls.
    pub fn transmit<U: Upper>(&mut self, now: Instant, upper: &mut U, scratch: &mut [u8]) -> usize {
        if !self.is_up() {
            return 0;
        }
        let Some(conn) = self.quic.connection() else { return 0 };
        let mut written = self.lanes.write(now, conn, upper, scratch);
        if self.lanes.is_stalled() {
            // More than an idle link's window holds: as much as may fly, then.
            conn.set_send_window(self.window.send(now, conn.congestion_state().window()));
            written += self.lanes.write(now, conn, upper, scratch);
        }
        self.settle();
        written
    }

    /// Fills `out`, which is cleared first, with the next datagram, or with up to `max_segments` of the same
    /// length of which the last may be shorter.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        out.clear();
        let single = |path: UdpPath, ecn| Transmit {
            socket: path.socket,
            to: path.remote,
            segment: None,
            ecn,
            hops: None,
        };
        if let Some(path) = self.paths.poll_probe(out) {
            return Some(single(path, 0));
        }
        if let Some(path) = self.paths.current() {
            let (segment, ecn) = self.quic.poll_transmit(now, max_segments.max(1), out)?;
            return Some(Transmit { segment, ..single(path, ecn) });
        }
        loop {
            // Without ECN: whether a path bears it is learnt on the one that is chosen.
            if let Some(path) = self.paths.poll_flight(out) {
                return Some(single(path, 0));
            }
            if !self.paths.wants_flight() {
                return None;
            }
            self.quic.poll_transmit(now, 1, out)?;
            self.paths.fan_out(now, out);
            out.clear();
        }
    }

    /// Whether bytes that `upper` gave are still to be taken by QUIC: the window is full.
    pub fn is_stalled(&self) -> bool {
        self.lanes.is_stalled()
    }

    /// Ends the link and tells the peer why, which goes out with the next [`Self::poll_transmit`].
    pub fn close(&mut self, now: Instant, reason: &str) {
        self.quic.close(now, reason);
        if self.ending().is_none() {
            self.state = State::Ended(UdpError::Closed);
        }
    }

    /// When [`Self::tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let quic = self.quic.deadline();
        [quic, self.paths.deadline(), self.window.deadline()].into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant) {
        self.quic.tick(now);
        self.paths.tick(now);
        self.weigh(now);
        if self.window.tick(now) {
            self.quic.set_windows(self.window.get());
            self.quic.fit_lanes();
        }
        self.settle();
    }

    fn quic_datagram(&mut self, now: Instant, path: UdpPath, ecn: u8, datagram: &[u8]) {
        // On the path itself it does not matter: only other sources are judged by it.
        let judge = self.paths.current() != Some(path);
        let authentic = self.quic.datagram(now, ecn, datagram, judge);
        self.paths.heard(now, path, authentic);
        self.weigh(now);
        self.settle();
    }

    /// Takes note of what gets lost.
    fn weigh(&mut self, now: Instant) {
        if self.loss.is_due(now) && self.is_up() {
            let (sent, lost) = self.quic.sent_and_lost();
            self.loss.observe(now, sent, lost);
        }
    }

    /// Takes note of what QUIC did.
    fn settle(&mut self) {
        while let Some(event) = self.quic.poll_event(&mut self.lanes) {
            match event {
                quic::Event::Connected(exported) => {
                    self.paths.rekey(ProbeKey::of_link(exported));
                    self.state = State::Up;
                }
                quic::Event::Lost(error) => {
                    if self.ending().is_none() {
                        self.state = State::Ended(error);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
