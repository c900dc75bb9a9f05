//! A link over one TCP connection: preface, TLS handshake, then records.
//!
//! The caller owns the buffers. [`TcpLink::receive`] takes what came from the socket and hands plaintext to
//! a sink; [`TcpLink::seal`] appends records to the bytes that go to the kernel; whatever the handshake
//! itself has to say is appended by both to the same output, in order.

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls_pki_types::ServerName;

use super::preface::{self, Preface, Role};
use super::raw_key::LinkKeys;
use crate::ids::{AttemptId, PublicKey};

/// The most plaintext that one record takes (RFC 8446 section 5.1).
pub const MAX_RECORD: usize = 16_384;

/// What a record adds to its plaintext: header, content type and tag (RFC 8446 section 5.2), rounded up.
const RECORD_OVERHEAD: usize = 32;

/// The longest record there is: what [`TcpLink::receive`] may leave unused in its input.
pub const MAX_RECORD_BYTES: usize = MAX_RECORD + 256 + 5;

/// Why a link ended. The peer's or the network's doing; never this node's caller's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// The other end did not open with the preface of this attempt.
    #[error("the other end is not part of this attempt")]
    Preface,
    /// The TLS handshake or a record failed: wrong key, altered bytes.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The peer ended the link in order.
    #[error("closed by the peer")]
    Closed,
}

/// The machine.
pub struct TcpLink {
    state: State,
    tls: Tls,
}

impl fmt::Debug for TcpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpLink").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    /// Waiting for the peer's preface.
    Preface(Expect),
    /// TLS, up to the moment when data may flow both ways.
    Handshake,
    Up,
    Failed(LinkError),
}

struct Expect {
    attempt: AttemptId,
    punch_key: [u8; 32],
    role: Role,
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expect").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

enum Tls {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

impl TcpLink {
    /// Begins on a connection that is up. Appends this side's preface, and if it is the TLS client its first
    /// flight, to `out`. `role` is this node's.
    ///
    /// # Errors
    /// If TLS refuses the keys: a programming error or a crippled crypto provider.
    pub fn new(
        keys: &LinkKeys,
        role: Role,
        peer: &PublicKey,
        attempt: AttemptId,
        punch_key: &[u8; 32],
        out: &mut Vec<u8>,
    ) -> Result<Self, LinkError> {
        let tls = match role {
            Role::Controlling => {
                // The name is never sent (SNI is off) nor checked (the key is); TLS only wants one.
                let name = ServerName::try_from("inp2p.invalid").map_err(|_| LinkError::Preface)?;
                let config = keys.client(peer).map_err(LinkError::Tls)?;
                UnbufferedClientConnection::new(config, name).map(|tls| Tls::Client(Box::new(tls)))
            }
            Role::Controlled => {
                let config = keys.server(peer).map_err(LinkError::Tls)?;
                UnbufferedServerConnection::new(Arc::clone(&config)).map(|tls| Tls::Server(Box::new(tls)))
            }
        }
        .map_err(LinkError::Tls)?;
        let expect = Expect { attempt, punch_key: *punch_key, role: role.other() };
        let mut link = Self { state: State::Preface(expect), tls };
        out.extend_from_slice(&preface::encode(attempt, punch_key, role));
        // The TLS client speaks first: its hello rides behind the preface.
        link.drive(&mut [], out, &mut |_| {})?;
        Ok(link)
    }

    /// Takes the peer's preface where somebody else has read it from the socket, to know whose it is.
    ///
    /// # Errors
    /// If it does not prove the attempt.
    pub fn preface(&mut self, preface: &Preface) -> Result<(), LinkError> {
        let State::Preface(expect) = &self.state else { return Err(LinkError::Preface) };
        if preface.attempt == expect.attempt && preface.proves(&expect.punch_key, expect.role) {
            self.state = State::Handshake;
            return Ok(());
        }
        self.state = State::Failed(LinkError::Preface);
        Err(LinkError::Preface)
    }

    /// Whether data may flow both ways: the peer has proved its key on this very connection.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    /// Takes received bytes, decrypts them, and gives plaintext to `sink` piece by piece, in order. Returns
    /// how many bytes of `input` are done with; the rest, at most [`MAX_RECORD_BYTES`], must be offered again
    /// with more behind it. What TLS has to answer is appended to `out`.
    ///
    /// # Errors
    /// The link is over; the same error from then on.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<usize, LinkError> {
        let mut used = 0;
        match &self.state {
            State::Preface(_) => {
                let Some(bytes) = input.first_chunk::<{ preface::LENGTH }>() else { return Ok(0) };
                let preface = Preface::parse(bytes).ok_or(LinkError::Preface);
                match preface.and_then(|preface| self.preface(&preface)) {
                    Ok(()) => used = preface::LENGTH,
                    Err(error) => return Err(self.fail(error)),
                }
            }
            State::Handshake | State::Up => {}
            State::Failed(error) => return Err(error.clone()),
        }
        let rest = input.get_mut(used..).unwrap_or_default();
        match self.drive(rest, out, sink) {
            Ok(n) => Ok(used + n),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Encrypts `plain`, at most [`MAX_RECORD`] bytes, as one record behind `out`.
    ///
    /// # Errors
    /// If the link is not up or cannot go on.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LinkError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        loop {
            let sealed = match &mut self.tls {
                Tls::Client(tls) => seal(tls.process_tls_records(&mut []), plain, out),
                Tls::Server(tls) => seal(tls.process_tls_records(&mut []), plain, out),
            };
            match sealed {
                Ok(true) => return Ok(()),
                // What TLS itself had to say, a key update for one, is out now.
                Ok(false) => {}
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    /// Tells the peer that nothing follows, so that it does not take the end for a cut.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if !self.is_up() {
            return;
        }
        match &mut self.tls {
            Tls::Client(tls) => close(tls.process_tls_records(&mut []), out),
            Tls::Server(tls) => close(tls.process_tls_records(&mut []), out),
        }
    }

    fn fail(&mut self, error: LinkError) -> LinkError {
        self.state = State::Failed(error.clone());
        error
    }

    /// Runs TLS until it wants more input.
    fn drive(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<usize, LinkError> {
        let mut used = 0;
        loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let (discard, step) = match &mut self.tls {
                Tls::Client(tls) => step(tls.process_tls_records(rest), out, sink),
                Tls::Server(tls) => step(tls.process_tls_records(rest), out, sink),
            };
            used += discard;
            match step? {
                Step::Again => {}
                Step::Blocked => return Ok(used),
                Step::Traffic => {
                    self.state = State::Up;
                    return Ok(used);
                }
            }
        }
    }
}

enum Step {
    Again,
    Blocked,
    Traffic,
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Vec<u8>,
    sink: &mut dyn FnMut(&[u8]),
) -> (usize, Result<Step, LinkError>) {
    let mut discard = status.discard;
    let state = match status.state {
        Ok(state) => state,
        Err(error) => return (discard, Err(LinkError::Tls(error))),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            let mut step = Ok(Step::Again);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        sink(record.payload);
                    }
                    Err(error) => {
                        step = Err(LinkError::Tls(error));
                        break;
                    }
                }
            }
            step
        }
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut data, out);
            Ok(Step::Again)
        }
        ConnectionState::TransmitTlsData(data) => {
            // `out` is what will be transmitted, whole and in order.
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Blocked),
        ConnectionState::WriteTraffic(_) => Ok(Step::Traffic),
        ConnectionState::PeerClosed | ConnectionState::Closed => Err(LinkError::Closed),
        // 0-RTT is never offered; anything that rustls may add is treated alike.
        _ => Err(LinkError::Tls(rustls::Error::General("unexpected TLS state".to_owned()))),
    };
    (discard, step)
}

/// Seals `plain`, or does what TLS wants done before; whether `plain` is sealed.
fn seal<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<bool, LinkError> {
    match status.state.map_err(LinkError::Tls)? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let mut exhausted = false;
            append(out, plain.len() + RECORD_OVERHEAD, |space| match traffic.encrypt(plain, space) {
                Ok(n) => Ok(n),
                // A key update (RFC 8446 section 4.6.3) may go in front, and wants more room.
                Err(EncryptError::InsufficientSize(short)) => Err(Some(short)),
                Err(EncryptError::EncryptExhausted) => {
                    exhausted = true;
                    Err(None)
                }
            });
            match exhausted {
                true => {
                    Err(LinkError::Tls(rustls::Error::General("this link's keys are used up".to_owned())))
                }
                false => Ok(true),
            }
        }
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut data, out);
            Ok(false)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(false)
        }
        _ => Err(LinkError::Tls(rustls::Error::HandshakeNotComplete)),
    }
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    append(out, 0, |space| match data.encode(space) {
        Ok(n) => Ok(n),
        Err(EncodeError::InsufficientSize(short)) => Err(Some(short)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
    });
}

fn close<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) {
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        append(out, 0, |space| match traffic.queue_close_notify(space) {
            Ok(n) => Ok(n),
            Err(EncryptError::InsufficientSize(short)) => Err(Some(short)),
            Err(EncryptError::EncryptExhausted) => Err(None),
        });
    }
}

/// Appends what `write` writes, with `room` to begin with and then as much as it asks for.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) {
    let at = out.len();
    loop {
        out.resize(at + room, 0);
        match write(out.get_mut(at..).unwrap_or_default()) {
            Ok(n) => return out.truncate(at + n),
            Err(Some(short)) if short.required_size > room => room = short.required_size,
            Err(_) => return out.truncate(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: AttemptId = AttemptId([1; 16]);
    const PUNCH: [u8; 32] = [2; 32];

    struct Pair {
        client: TcpLink,
        server: TcpLink,
        to_server: Vec<u8>,
        to_client: Vec<u8>,
    }

    fn keys(seed: u8) -> (LinkKeys, PublicKey) {
        let seed = [seed; 32];
        let keys = LinkKeys::new(rustls::crypto::aws_lc_rs::default_provider(), &seed).unwrap();
        (keys, PublicKey(ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes()))
    }

    fn pair(client_expects: PublicKey, server_expects: PublicKey, punch: &[u8; 32]) -> Pair {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let new = |seed, role, peer, punch: &[u8; 32], out: &mut Vec<u8>| {
            TcpLink::new(&keys(seed).0, role, &peer, ATTEMPT, punch, out).unwrap()
        };
        let client = new(1, Role::Controlling, client_expects, punch, &mut to_server);
        let server = new(2, Role::Controlled, server_expects, &PUNCH, &mut to_client);
        Pair { client, server, to_server, to_client }
    }

    impl Pair {
        /// Carries bytes in pieces of `piece` until both sides fall silent: what each side's sink got.
        fn settle(&mut self, piece: usize) -> Result<(Vec<u8>, Vec<u8>), LinkError> {
            let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
            let (mut in_client, mut in_server) = (Vec::new(), Vec::new());
            while !self.to_server.is_empty() || !self.to_client.is_empty() {
                feed(&mut self.server, piece, &mut self.to_server, &mut in_server, &mut at_server)
                    .map(|out| self.to_client.extend(out))?;
                feed(&mut self.client, piece, &mut self.to_client, &mut in_client, &mut at_client)
                    .map(|out| self.to_server.extend(out))?;
            }
            Ok((at_client, at_server))
        }
    }

    fn feed(
        link: &mut TcpLink,
        piece: usize,
        wire: &mut Vec<u8>,
        held: &mut Vec<u8>,
        sink: &mut Vec<u8>,
    ) -> Result<Vec<u8>, LinkError> {
        held.extend(wire.drain(..piece.min(wire.len())));
        let mut out = Vec::new();
        let used = link.receive(held, &mut out, &mut |bytes| sink.extend_from_slice(bytes))?;
        held.drain(..used);
        assert!(held.len() < MAX_RECORD_BYTES);
        Ok(out)
    }

    fn carry(pair: &mut Pair, piece: usize) -> (Vec<u8>, Vec<u8>) {
        pair.settle(piece).unwrap()
    }

    #[test]
    fn carries_bytes_both_ways_whatever_the_pieces() {
        for piece in [1, 53, 54, 55, 1000, 1 << 20] {
            let mut pair = pair(keys(2).1, keys(1).1, &PUNCH);
            carry(&mut pair, piece);
            assert!(pair.client.is_up() && pair.server.is_up());
            pair.client.seal(&[5; MAX_RECORD], &mut pair.to_server).unwrap();
            pair.client.seal(b"more", &mut pair.to_server).unwrap();
            let (_, at_server) = carry(&mut pair, piece);
            assert_eq!(at_server.len(), MAX_RECORD + 4);
            pair.server.seal(b"back", &mut pair.to_client).unwrap();
            let (at_client, _) = carry(&mut pair, piece);
            assert_eq!(at_client, b"back");
        }
    }

    #[test]
    fn a_key_other_than_the_expected_one_is_refused() {
        assert!(matches!(pair(keys(3).1, keys(1).1, &PUNCH).settle(4096), Err(LinkError::Tls(_))));
        assert!(matches!(pair(keys(2).1, keys(3).1, &PUNCH).settle(4096), Err(LinkError::Tls(_))));
    }

    #[test]
    fn another_punch_key_is_refused_before_tls() {
        assert_eq!(pair(keys(2).1, keys(1).1, &[3; 32]).settle(4096), Err(LinkError::Preface));
    }

    #[test]
    fn a_key_update_goes_in_front_of_a_record() {
        let mut pair = pair(keys(2).1, keys(1).1, &PUNCH);
        carry(&mut pair, 4096);
        for _ in 0..3 {
            let Tls::Client(tls) = &mut pair.client.tls else { panic!("not the client") };
            if let Ok(ConnectionState::WriteTraffic(traffic)) = tls.process_tls_records(&mut []).state {
                traffic.refresh_traffic_keys().unwrap();
            }
            pair.client.seal(&[7; MAX_RECORD], &mut pair.to_server).unwrap();
            pair.server.seal(b"answer", &mut pair.to_client).unwrap();
            let (at_client, at_server) = carry(&mut pair, 4096);
            assert_eq!((at_client.as_slice(), at_server.len()), (&b"answer"[..], MAX_RECORD));
        }
    }

    #[test]
    fn an_altered_record_ends_the_link_for_good() {
        let mut pair = pair(keys(2).1, keys(1).1, &PUNCH);
        carry(&mut pair, 4096);
        pair.client.seal(b"hello", &mut pair.to_server).unwrap();
        pair.to_server[9] ^= 1;
        let mut out = Vec::new();
        let mut sunk = 0;
        let mut input = pair.to_server.clone();
        assert!(pair.server.receive(&mut input, &mut out, &mut |bytes| sunk += bytes.len()).is_err());
        assert_eq!(sunk, 0);
        assert!(pair.server.receive(&mut [], &mut out, &mut |_| {}).is_err());
    }

    #[test]
    fn an_orderly_close_is_told_apart_from_a_cut() {
        let mut pair = pair(keys(2).1, keys(1).1, &PUNCH);
        carry(&mut pair, 4096);
        pair.client.close(&mut pair.to_server);
        assert_eq!(pair.settle(4096), Err(LinkError::Closed));
    }
}
