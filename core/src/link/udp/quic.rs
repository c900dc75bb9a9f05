//! The endpoint and the connection of one link: datagrams in and out, timers, and what happened.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint,
    FrameStats, VarInt,
};

use super::config::{self, SERVER_NAME, SYNTHETIC};
use super::lanes::Lanes;
use super::{UdpError, Windows, window};

/// QUIC.
#[derive(Debug)]
pub(super) struct Quic {
    endpoint: Endpoint,
    /// None on the side that waits for an Initial.
    connection: Option<(ConnectionHandle, Box<Connection>)>,
    /// The endpoint's answers to what is no connection's, which are never sent.
    answers: Vec<u8>,
    /// Where datagrams are copied to, since QUIC keeps what waits for a lost packet. Many share one allocation.
    room: BytesMut,
    /// How much of it is made at a time: nothing beyond the datagram while the link is idle.
    ahead: usize,
    /// The connection's timer, kept because asking for it wants more than a look.
    timer: Option<Instant>,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// The handshake is done; 32 bytes that only its two ends know.
    Connected([u8; 32]),
    /// The connection is over.
    Lost(UdpError),
}

impl Quic {
    pub(super) fn new(
        now: Instant,
        mut endpoint: Endpoint,
        client: Option<ClientConfig>,
    ) -> Result<Self, UdpError> {
        let connection = match client {
            Some(client) => {
                let (handle, connection) = endpoint
                    .connect(now, client, SYNTHETIC, SERVER_NAME)
                    .map_err(|error| UdpError::Quic(error.to_string()))?;
                Some((handle, Box::new(connection)))
            }
            None => None,
        };
        Ok(Self { endpoint, connection, answers: Vec::new(), room: BytesMut::new(), ahead: 0, timer: None })
    }

    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut().map(|(_, connection)| &mut **connection)
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.connection.as_ref().map(|(_, connection)| connection.rtt())
    }

    /// How many packets were sent, and how many of them got lost; those that try the path's MTU apart.
    pub(super) fn sent_and_lost(&self) -> (u64, u64) {
        let path = self.connection.as_ref().map(|(_, connection)| connection.stats().path);
        path.map_or((0, 0), |path| {
            (path.sent_packets.saturating_sub(path.sent_plpmtud_probes), path.lost_packets)
        })
    }

    pub(super) fn mtu(&self) -> Option<u16> {
        self.connection.as_ref().map(|(_, connection)| connection.stats().path.current_mtu)
    }

    /// Takes a datagram. With `judge` it tells whether anything in it was authentic and new, else false.
    pub(super) fn datagram(&mut self, now: Instant, ecn: u8, datagram: &[u8], judge: bool) -> bool {
        let before = if judge { self.frames() } else { 0 };
        if self.room.capacity() < datagram.len() && !self.room.try_reclaim(self.ahead.max(datagram.len())) {
            self.room = BytesMut::with_capacity(self.ahead.max(datagram.len()));
        }
        self.room.extend_from_slice(datagram);
        let bytes = self.room.split();
        if self.ahead == 0 {
            self.room = BytesMut::new();
        }
        let ecn = EcnCodepoint::from_bits(ecn);
        match self.endpoint.handle(now, SYNTHETIC, None, ecn, bytes, &mut self.answers) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((own, connection)) = &mut self.connection
                    && *own == handle
                {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                if self.connection.is_some() {
                    self.endpoint.ignore(incoming);
                } else {
                    match self.endpoint.accept(incoming, now, &mut self.answers, None) {
                        Ok((handle, connection)) => self.connection = Some((handle, Box::new(connection))),
                        // What is not even encrypted as an Initial is nobody's: the peer's may still come.
                        Err(error) => tracing::debug!(cause = %error.cause, "Initial not accepted"),
                    }
                }
            }
            // Stateless resets and version negotiation: nothing that is not authentic is answered.
            Some(DatagramEvent::Response(_)) | None => {}
        }
        self.answers.clear();
        self.drive();
        judge && self.frames() > before
    }

    /// The length of each datagram, if there are several, and the ECN bits of all.
    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        out: &mut Vec<u8>,
    ) -> Option<(Option<usize>, u8)> {
        let transmit = self.connection()?.poll_transmit(now, max_segments, out);
        self.drive();
        let transmit = transmit?;
        Some((transmit.segment_size, transmit.ecn.map_or(0, |ecn| ecn as u8)))
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        Some((self.timer?, "link: QUIC's timer"))
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if let Some(connection) = self.connection() {
            connection.handle_timeout(now);
            self.drive();
        }
    }

    /// The path is another one: its round trip, its MTU and what it bears have to be learnt anew.
    pub(super) fn moved(&mut self, now: Instant) {
        if let Some(connection) = self.connection() {
            connection.path_changed(now);
            // An answer to this tells what was lost on the old path, before any timer does.
            connection.ping();
            self.drive();
        }
    }

    pub(super) fn set_windows(&mut self, windows: Windows) {
        self.ahead = if windows.receive > window::IDLE { ROOM } else { 0 };
        if let Some(connection) = self.connection() {
            connection.set_receive_window(VarInt::from_u64(windows.receive).unwrap_or(VarInt::MAX));
            connection.set_send_window(windows.send);
        }
    }

    /// Allows the peer as many lanes as it uses, and some.
    pub(super) fn fit_lanes(&mut self) {
        let Some(connection) = self.connection() else { return };
        let now = connection.max_concurrent_streams(Dir::Bi);
        let open = connection.streams().remote_open_streams(Dir::Bi);
        let fit = config::lanes(open, now);
        if fit != now {
            connection.set_max_concurrent_streams(Dir::Bi, VarInt::from_u64(fit).unwrap_or(VarInt::MAX));
        }
    }

    pub(super) fn close(&mut self, now: Instant, reason: &str) {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        if let Some(connection) = self.connection() {
            connection.close(now, VarInt::from_u32(0), Bytes::from(reason));
            self.drive();
        }
    }

    /// What happened; what concerns streams goes to `lanes`.
    pub(super) fn poll_event(&mut self, lanes: &mut Lanes) -> Option<Event> {
        while let Some(event) = self.connection()?.poll() {
            match event {
                quinn_proto::Event::Stream(event) => {
                    let opened = matches!(event, quinn_proto::StreamEvent::Opened { .. });
                    lanes.event(self.connection()?, event);
                    if opened {
                        self.fit_lanes();
                    }
                }
                quinn_proto::Event::Connected => {
                    let mut exported = [0; 32];
                    let session = self.connection()?.crypto_session();
                    return Some(match session.export_keying_material(&mut exported, EXPORTER, b"") {
                        Ok(()) => Event::Connected(exported),
                        Err(_) => Event::Lost(UdpError::Quic("no key could be exported".to_owned())),
                    });
                }
                quinn_proto::Event::ConnectionLost { reason } => return Some(Event::Lost(lost(reason))),
                quinn_proto::Event::HandshakeDataReady
                | quinn_proto::Event::DatagramReceived
                | quinn_proto::Event::DatagramsUnblocked => {}
            }
        }
        None
    }

    /// Carries what the connection and the endpoint have to say to each other.
    fn drive(&mut self) {
        let Self { endpoint, connection, timer, .. } = self;
        let Some((handle, connection)) = connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        *timer = connection.poll_timeout();
    }

    /// How many frames were received: only what is authentic and new is counted.
    pub(super) fn frames(&self) -> u64 {
        self.connection.as_ref().map_or(0, |(_, connection)| count(&connection.stats().frame_rx))
    }
}

fn count(frames: &FrameStats) -> u64 {
    // Each packet of ours but mere padding has one of these.
    frames.acks
        + frames.crypto
        + frames.stream
        + frames.ping
        + frames.connection_close
        + frames.new_connection_id
        + frames.retire_connection_id
        + frames.max_data
        + frames.max_stream_data
        + frames.max_streams_bidi
        + frames.data_blocked
        + frames.stream_data_blocked
        + frames.streams_blocked_bidi
        + frames.reset_stream
        + frames.stop_sending
        + u64::from(frames.handshake_done)
}

fn lost(reason: ConnectionError) -> UdpError {
    match reason {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            UdpError::ClosedByPeer(reason.chars().take(MAX_REASON).collect())
        }
        ConnectionError::TimedOut => UdpError::Silent,
        ConnectionError::LocallyClosed => UdpError::Closed,
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::CidsExhausted => UdpError::Quic(reason.to_string()),
    }
}

/// The label of what the handshake exports (RFC 5705).
const EXPORTER: &[u8] = b"EXPORTER-inp2p-probe-1";
/// Eleven full datagrams: one of them that waits for a lost packet pins no more than the others with it.
const ROOM: usize = 16 * 1024;
/// The longest reason that is sent or kept, in characters.
const MAX_REASON: usize = 256;
