//! The answer to a STUN Binding request (RFC 8489, RFC 5780), over UDP or TCP; any STUN client may use it.
//!
//! Nothing is kept between requests and nothing is allocated for an honest one. To be of no use to those who
//! forge source addresses or tie two servers together:
//! - only Binding requests are answered: no response, no indication, nothing malformed, and nothing that
//!   comes from a STUN port of our own;
//! - an answer says no more than was asked: XOR-MAPPED-ADDRESS, OTHER-ADDRESS if there is one, and
//!   FINGERPRINT if the request had one. A bare request of 20 bytes gets 32 over IPv4 and 44 over IPv6, or 44
//!   and 68 from a server with two addresses; no answer exceeds [`MAX_REPLY`]. An error has no reason phrase,
//!   RESPONSE-ORIGIN comes only with what CHANGE-REQUEST asked for, and no answer names its SOFTWARE;
//! - what is ours alone (a proof; an answer to another port) is given only in answers that are not longer
//!   than their requests.
//!
//! A node that relays answers too ([`Responder::of_relay`]), by one port of one address: it proves nothing, and
//! RESPONSE-PORT, which it takes so that filters can be measured from its address, gets answers that are not
//! longer than their requests.
//!
//! Left to the caller: to send each answer from the socket that [`Answer::change`] names, and how many answers
//! a network may have ([`super::limit`]). Credentials are not asked for, so what proves them is passed over
//! (section 12).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smallvec::SmallVec;
use stun_types::attribute::{
    AttributeFromRaw, AttributeStaticType, AttributeType, ErrorCode, Fingerprint, MessageIntegrity,
    MessageIntegritySha256, Nonce, PasswordAlgorithm, RawAttribute, Realm, UnknownAttributes, Userhash,
    Username, XorMappedAddress,
};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageHeader, MessageType, MessageWrite, MessageWriteExt,
    MessageWriteMutSlice, StunWriteError, TransactionId,
};

use super::attribute::{
    ADDRESS_PROOF, CHANGE_IP, CHANGE_PORT, CHANGE_REQUEST, OTHER_ADDRESS, OTHER_PORT, RESPONSE_ORIGIN,
    RESPONSE_PORT, RETURN_TO, address_value, attribute,
};
use super::proof::{Proof, ProofKey};
use crate::path::Transport;

/// What answers: the same for all sockets of a server.
#[derive(Debug, Clone)]
pub struct Responder {
    /// None for a relay's.
    proofs: Option<ProofKey>,
    ports: [u16; 2],
}

/// A request's way here.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// What carried it.
    pub transport: Transport,
    /// Where it came from.
    pub source: SocketAddr,
    /// The address of ours that it was sent to, where known.
    pub origin: Option<SocketAddr>,
    /// The address of ours that differs from `origin` in IP address and port; none unless we have two IP
    /// addresses of its family.
    pub other: Option<SocketAddr>,
    /// The wall clock, since 1970.
    pub unix: Duration,
    /// Whether there is more to do than there should be: then what is costly is left undone.
    pub busy: bool,
}

/// An answer; its bytes are the first of the buffer that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// How many bytes it has.
    pub length: usize,
    /// Where it goes to.
    pub to: SocketAddr,
    /// From which socket.
    pub change: Change,
}

/// What differs between the address that an answer leaves from and the one that its request was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The IP address. Only if [`Arrival::other`] is known.
    pub ip: bool,
    /// The port.
    pub port: bool,
}

impl Responder {
    /// One that proves addresses by `proofs`. `ports` are the UDP STUN ports: what comes from one of them is
    /// another STUN server, or pretends to be.
    pub fn new(proofs: ProofKey, ports: [u16; 2]) -> Self {
        Self { proofs: Some(proofs), ports }
    }

    /// A relay's, for its one port.
    pub fn of_relay() -> Self {
        // Whoever else uses the number of its own port is no relay: nodes may all be given the same.
        Self { proofs: None, ports: [0; 2] }
    }

    /// Answers `request`, or says that there is no answer. `out` must hold [`MAX_REPLY`] bytes, or there is
    /// never one.
    pub fn respond(&self, request: &[u8], arrival: &Arrival, out: &mut [u8]) -> Option<Answer> {
        // On a socket of both families an IPv4 client shows as `::ffff:a.b.c.d`, which it is not.
        let source = SocketAddr::new(arrival.source.ip().to_canonical(), arrival.source.port());
        // The library's writers panic where there is no room.
        if out.len() < MAX_REPLY || !self.is_answerable(arrival.transport, source) {
            return None;
        }
        let length = request.len();
        let mut request = Request::read(request, arrival, self.proofs.is_none())?;
        if !request.unknown.is_empty() {
            let length = request.unknown_attributes(out).ok()?;
            return Some(Answer { length, to: source, change: Change::default() });
        }
        if self.proofs.is_none() {
            // There is no other port.
            request.change = Change::default();
        }
        let proofs = self.proofs.as_ref().filter(|_| request.wants_proof);
        let proof = proofs.map(|proofs| proofs.prove(arrival.transport, source, arrival.unix));
        // Nothing that is written here exceeds `out`, or comes after the fingerprint.
        let reply = request.success(source, arrival, proof, out).ok()?;
        let to = match request.return_to {
            None => source,
            Some(wanted) => self.returned(wanted, source, arrival).filter(|_| reply <= length)?,
        };
        let to = match request.response_port {
            None => to,
            Some(port) => {
                let fits = self.proofs.is_some() || reply <= length;
                self.redirected(port, source, arrival).filter(|_| fits)?
            }
        };
        let reply = match proof {
            Some(_) if reply > length => request.success(source, arrival, None, out).ok()?,
            Some(_) | None => reply,
        };
        Some(Answer { length: reply, to, change: request.change })
    }

    /// Where RETURN-TO leads, if its proof is good.
    fn returned(
        &self,
        (port, proof): (u16, Proof),
        source: SocketAddr,
        arrival: &Arrival,
    ) -> Option<SocketAddr> {
        let to = SocketAddr::new(source.ip(), port);
        let proofs = self.proofs.as_ref()?;
        let seen = |to| proofs.verify_within(arrival.transport, to, &proof, arrival.unix, RETURN_MINUTES);
        (!arrival.busy && self.is_answerable(arrival.transport, to) && seen(to)).then_some(to)
    }

    /// Where RESPONSE-PORT leads: to a port that programs choose for themselves, and only at ease. Whoever can
    /// forge a source could forge that port as well, and others reach ports of their own address alone.
    fn redirected(&self, port: u16, source: SocketAddr, arrival: &Arrival) -> Option<SocketAddr> {
        let to = SocketAddr::new(source.ip(), port);
        let chosen = port >= FIRST_USER_PORT;
        (chosen && !arrival.busy && self.is_answerable(arrival.transport, to)).then_some(to)
    }

    /// Whether a request can honestly come from `source`, and is worth an answer.
    fn is_answerable(&self, transport: Transport, source: SocketAddr) -> bool {
        let broadcast = |ip| matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        let ip = source.ip();
        let loops = transport == Transport::Udp && self.ports.contains(&source.port());
        source.port() != 0 && !loops && !ip.is_unspecified() && !ip.is_multicast() && !broadcast(ip)
    }
}

/// How many bytes the STUN message at the start of a TCP stream has, header included (RFC 8489 section
/// 6.2.2). It is there once `received` has as many.
///
/// # Errors
/// If it does not begin as one does, or is longer than [`MAX_REQUEST`].
pub fn message_length(received: &[u8]) -> Result<usize, NotStun> {
    use stun_types::message::StunParseError::Truncated;

    match MessageHeader::from_bytes(received) {
        Ok(header) => {
            let length = MessageHeader::LENGTH.saturating_add(header.data_length().into());
            if length <= MAX_REQUEST { Ok(length) } else { Err(NotStun) }
        }
        Err(Truncated { .. }) => Ok(MessageHeader::LENGTH),
        Err(_) => Err(NotStun),
    }
}

/// What came over a stream is no STUN message that is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a STUN message, or one of more than {MAX_REQUEST} bytes")]
pub struct NotStun;

/// A Binding request, read.
struct Request {
    transaction: TransactionId,
    fingerprint: bool,
    change: Change,
    /// Whether the answer is to say where it comes from.
    wants_origin: bool,
    wants_proof: bool,
    /// Port and proof of another place that the answer is to go to.
    return_to: Option<(u16, Proof)>,
    /// The port that the answer is to go to.
    response_port: Option<u16>,
    /// Attributes that must be understood, and are not. At most [`MAX_UNKNOWN`].
    unknown: SmallVec<[AttributeType; MAX_UNKNOWN]>,
}

impl Request {
    /// None for all that is not one whole Binding request. The library's own reader is not used: it warns
    /// in the log about every malformed packet, which anybody may send. `relay`: it is asked of one.
    fn read(bytes: &[u8], arrival: &Arrival, relay: bool) -> Option<Self> {
        let header = MessageHeader::from_bytes(bytes).ok()?;
        let kind = header.get_type();
        let mut rest = bytes.get(MessageHeader::LENGTH..)?;
        if !kind.has_class(MessageClass::Request)
            || !kind.has_method(BINDING)
            || rest.len() != usize::from(header.data_length())
            || bytes.len() > MAX_REQUEST
        {
            return None;
        }

        let mut request = Self {
            transaction: header.transaction_id(),
            fingerprint: false,
            change: Change::default(),
            wants_origin: false,
            wants_proof: false,
            return_to: None,
            response_port: None,
            unknown: SmallVec::new(),
        };
        let mut protected = false;
        while !rest.is_empty() {
            let before = bytes.len().checked_sub(rest.len()).and_then(|offset| bytes.get(..offset))?;
            let (after, (kind, value)) = attribute(rest).ok()?;
            rest = after;
            match kind {
                Fingerprint::TYPE => {
                    // It is the last attribute (section 14.7), so the header's length is that of its sum.
                    let claimed = Fingerprint::from_raw_ref(&RawAttribute::new(kind, value)).ok()?;
                    if !rest.is_empty() || *claimed.fingerprint() != Fingerprint::compute(&[before]) {
                        return None;
                    }
                    request.fingerprint = true;
                }
                MessageIntegrity::TYPE | MessageIntegritySha256::TYPE => protected = true,
                // What comes behind the integrity is not protected by it, and to be ignored (section 14.5).
                _ if protected => (),
                _ => request.note(kind, value, arrival, relay)?,
            }
        }
        Some(request)
    }

    /// None if the value is malformed.
    fn note(&mut self, kind: AttributeType, value: &[u8], arrival: &Arrival, relay: bool) -> Option<()> {
        let udp = arrival.transport == Transport::Udp;
        match kind {
            // RFC 5780 section 6.1: with a second address only, and over UDP only.
            CHANGE_REQUEST if udp && arrival.other.is_some() => {
                let &[.., flags] = <&[u8; 4]>::try_from(value).ok()?;
                self.change = Change { ip: flags & CHANGE_IP != 0, port: flags & CHANGE_PORT != 0 };
                self.wants_origin = true;
            }
            // The same. PADDING, which RFC 5780 leaves open as well, is not understood here: its answers would
            // be as long as its requests.
            RESPONSE_PORT if udp && (arrival.other.is_some() || relay) => {
                // Two bytes, and padding that some count in.
                let (port, padding) = value.split_first_chunk()?;
                self.response_port = Some(u16::from_be_bytes(*port)).filter(|_| padding.len() <= 2);
            }
            OTHER_PORT if udp => self.change.port = true,
            ADDRESS_PROOF => self.wants_proof = true,
            RETURN_TO if udp => {
                let &[high, low, _, _, ref proof @ ..] = <&[u8; 4 + Proof::LENGTH]>::try_from(value).ok()?;
                self.return_to = Some((u16::from_be_bytes([high, low]), Proof(*proof)));
            }
            _ => {
                let fits = self.unknown.len() < MAX_UNKNOWN;
                if kind.comprehension_required()
                    && !UNDERSTOOD.contains(&kind)
                    && !self.unknown.contains(&kind)
                    && fits
                {
                    self.unknown.push(kind);
                }
            }
        }
        Some(())
    }

    fn success(
        &self,
        source: SocketAddr,
        arrival: &Arrival,
        proof: Option<Proof>,
        out: &mut [u8],
    ) -> Result<usize, StunWriteError> {
        let mut reply = self.reply(MessageClass::Success, out);
        reply.add_attribute(&XorMappedAddress::new(source, self.transaction))?;
        if let Some(other) = arrival.other {
            if let Some(origin) = arrival.origin.filter(|_| self.wants_origin) {
                let ip = if self.change.ip { other.ip() } else { origin.ip() };
                let port = if self.change.port { other.port() } else { origin.port() };
                let value = address_value(SocketAddr::new(ip, port));
                reply.add_attribute(&RawAttribute::new(RESPONSE_ORIGIN, &value))?;
            }
            reply.add_attribute(&RawAttribute::new(OTHER_ADDRESS, &address_value(other)))?;
        }
        if let Some(proof) = proof {
            reply.add_attribute(&RawAttribute::new(ADDRESS_PROOF, &proof.0))?;
        }
        self.finish(reply)
    }

    fn unknown_attributes(&self, out: &mut [u8]) -> Result<usize, StunWriteError> {
        let mut reply = self.reply(MessageClass::Error, out);
        reply.add_attribute(&ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE, "")?)?;
        reply.add_attribute(&UnknownAttributes::new(&self.unknown))?;
        self.finish(reply)
    }

    fn reply<'o>(&self, class: MessageClass, out: &'o mut [u8]) -> MessageWriteMutSlice<'o> {
        let kind = MessageType::from_class_method(class, BINDING);
        Message::builder(kind, self.transaction, MessageWriteMutSlice::new(out))
    }

    fn finish(&self, mut reply: MessageWriteMutSlice<'_>) -> Result<usize, StunWriteError> {
        if self.fingerprint {
            reply.add_fingerprint()?;
        }
        Ok(reply.finish())
    }
}

/// The longest answer, in bytes: header 20, three IPv6 addresses of 24, proof 20, fingerprint 8.
pub const MAX_REPLY: usize = 120;
/// The longest request that is read, in bytes: one with the PADDING of RFC 5780 (1,500 bytes and what goes with
/// it) gets its refusal.
pub const MAX_REQUEST: usize = 1600;
/// How many attributes one error answer lists: it is then 52 bytes long, like a usual one.
const MAX_UNKNOWN: usize = 6;
/// The ports below are those of known services.
const FIRST_USER_PORT: u16 = 1024;
/// How old the proof of RETURN-TO may be: it is used after as long a silence as NATs are asked to bear.
const RETURN_MINUTES: u64 = 12;
/// The attributes of RFC 8489 that a request may carry and that must be understood. All of them are about
/// credentials, and so passed over.
const UNDERSTOOD: [AttributeType; 7] = [
    Username::TYPE,
    MessageIntegrity::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    MessageIntegritySha256::TYPE,
    PasswordAlgorithm::TYPE,
    Userhash::TYPE,
];

#[cfg(test)]
mod tests;
