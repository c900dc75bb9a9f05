//! The answer to a STUN Binding request (RFC 8489), over UDP or TCP; any STUN client may use it.
//!
//! Nothing is kept between requests, nothing is allocated for an honest one, and the answer goes only to
//! where the request came from. To be of no use to those who forge source addresses or tie two servers
//! together:
//! - only Binding requests are answered: no response, no indication, nothing malformed;
//! - an answer says no more than was asked: XOR-MAPPED-ADDRESS, and FINGERPRINT if the request had one.
//!   So it is at most 1.6 times the request over IPv4 (20 bytes give 32), 2.2 times over IPv6 (44), and
//!   never more than [`MAX_REPLY`]. An error has no reason phrase for the same reason, and no answer names
//!   its SOFTWARE.
//!
//! Left to the caller: how many answers an address may have a second, and that the own service ports are
//! not answered. Credentials are not asked for, so what proves them is passed over (section 12).

use std::net::{IpAddr, SocketAddr};

use nom::bytes::complete::take;
use nom::number::complete::be_u16;
use nom::{IResult, Parser};
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

/// Answers `request`, which came from `source`. The answer is the first bytes of `out`, as many as are
/// returned; 0 means that there is none. `out` must hold [`MAX_REPLY`] bytes, or there is never one.
pub fn respond(request: &[u8], source: SocketAddr, out: &mut [u8]) -> usize {
    // The library's writers panic where there is no room.
    if out.len() < MAX_REPLY || !answerable(source) {
        return 0;
    }
    let Some(request) = Request::read(request) else { return 0 };
    let reply = if request.unknown.is_empty() {
        request.success(source, out)
    } else {
        request.unknown_attributes(out)
    };
    // Nothing that is written here exceeds `out`, or comes after the fingerprint.
    reply.unwrap_or(0)
}

/// How many bytes the STUN message at the start of a TCP stream has, header included (RFC 8489 section
/// 6.2.2). It is there once `received` has as many.
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
    /// Attributes that must be understood, and are not. At most [`MAX_UNKNOWN`].
    unknown: SmallVec<[AttributeType; MAX_UNKNOWN]>,
}

impl Request {
    /// None for all that is not one whole Binding request. The library's own reader is not used: it warns
    /// in the log about every malformed packet, which anybody may send.
    fn read(bytes: &[u8]) -> Option<Self> {
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

        let mut request =
            Self { transaction: header.transaction_id(), fingerprint: false, unknown: SmallVec::new() };
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
                _ => request.note(kind),
            }
        }
        Some(request)
    }

    fn note(&mut self, kind: AttributeType) {
        let fits = self.unknown.len() < MAX_UNKNOWN;
        if kind.comprehension_required()
            && !UNDERSTOOD.contains(&kind)
            && !self.unknown.contains(&kind)
            && fits
        {
            self.unknown.push(kind);
        }
    }

    fn success(&self, source: SocketAddr, out: &mut [u8]) -> Result<usize, StunWriteError> {
        let mut reply = self.reply(MessageClass::Success, out);
        // On a socket of both families an IPv4 client shows as `::ffff:a.b.c.d`, which it is not.
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        reply.add_attribute(&XorMappedAddress::new(source, self.transaction))?;
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

/// Whether a packet can honestly come from `source`.
fn answerable(source: SocketAddr) -> bool {
    let broadcast = |ip| matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let ip = source.ip().to_canonical();
    source.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast(ip)
}

/// One attribute: type, length, value, padding to four bytes (section 14).
fn attribute(input: &[u8]) -> IResult<&[u8], (AttributeType, &[u8])> {
    let (input, (kind, length)) = (be_u16, be_u16).parse(input)?;
    let (input, value) = take(length)(input)?;
    let (input, _) = take(length.wrapping_neg() % 4)(input)?;
    Ok((input, (AttributeType::new(kind), value)))
}

/// The longest answer, in bytes: header 20, an IPv6 address 24, fingerprint 8.
pub const MAX_REPLY: usize = 52;
/// The longest request that is read, in bytes: a packet that needs no fragments on any IPv6 path.
pub const MAX_REQUEST: usize = 1280;
/// How many attributes one error answer lists: as many as [`MAX_REPLY`] has room for.
const MAX_UNKNOWN: usize = 6;
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
