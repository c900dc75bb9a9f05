//! The requests of a node, and the answers as it reads them.
//!
//! Left to others: when to repeat a request and when to give it up. An answer belongs to a request by its
//! transaction id, 96 random bits, which nobody off the path can guess; so neither side signs anything.

use std::net::SocketAddr;

use stun_types::attribute::{
    AttributeFromRaw, AttributeStaticType, AttributeType, ErrorCode, Fingerprint, RawAttribute,
    XorMappedAddress,
};
use stun_types::message::{BINDING, MessageClass, MessageHeader};

use super::attribute::{
    ADDRESS_PROOF, CHANGE_IP, CHANGE_PORT, CHANGE_REQUEST, OTHER_ADDRESS, OTHER_PORT, RESPONSE_PORT,
    RETURN_TO, address_of, attribute,
};
use super::proof::Proof;
use super::server::{Change, MAX_REQUEST};

/// The id that a request and its answer share.
pub type Transaction = [u8; 12];

/// What a request asks for beyond the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ask {
    /// A proof of the address.
    #[default]
    Proof,
    /// An answer from elsewhere, as RFC 5780 has it. Only for servers that said OTHER-ADDRESS.
    Change(Change),
    /// An answer from the server's other port.
    OtherPort,
    /// An answer to another port of this host's public address.
    ReturnTo(u16, Proof),
    /// The same of a relay, which knows no proofs (RFC 5780 section 7.5).
    ToPort(u16),
}

/// A Binding request.
pub fn request(transaction: Transaction, ask: Ask) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0];
    bytes.extend(MAGIC_COOKIE);
    bytes.extend(transaction);
    match ask {
        Ask::Proof => {}
        Ask::Change(change) => {
            let ip = if change.ip { CHANGE_IP } else { 0 };
            let port = if change.port { CHANGE_PORT } else { 0 };
            push(&mut bytes, CHANGE_REQUEST, &[0, 0, 0, ip | port]);
        }
        Ask::OtherPort => push(&mut bytes, OTHER_PORT, &[]),
        Ask::ReturnTo(port, proof) => {
            let value = [&port.to_be_bytes(), &[0, 0], &proof.0[..]].concat();
            push(&mut bytes, RETURN_TO, &value);
        }
        Ask::ToPort(port) => {
            let [high, low] = port.to_be_bytes();
            push(&mut bytes, RESPONSE_PORT, &[high, low, 0, 0]);
        }
    }
    // What is ours comes in answers that are not longer than the request: this is the padding for them.
    push(&mut bytes, ADDRESS_PROOF, &[0; PADDING]);
    // The answer has one too, then: an address that was damaged on the way would be believed for minutes.
    let length = (bytes.len() + FINGERPRINT).saturating_sub(MessageHeader::LENGTH);
    if let (Some(place), Ok(length)) = (bytes.get_mut(2..4), u16::try_from(length)) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    let sum = u32::from_be_bytes(Fingerprint::compute(&[&bytes])) ^ FINGERPRINT_MASK;
    push(&mut bytes, Fingerprint::TYPE, &sum.to_be_bytes());
    bytes
}

/// `value` must have a multiple of four bytes.
fn push(bytes: &mut Vec<u8>, kind: AttributeType, value: &[u8]) {
    bytes.extend(kind.value().to_be_bytes());
    bytes.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(value);
}

/// A message that may concern a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A Binding request: one of our own that came back by hairpinning, or somebody's check.
    Request(Transaction),
    /// The answer to one.
    Answer(Transaction, Result<Seen, u16>),
}

/// What a server saw; or an error code in its place (RFC 8489 section 14.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The address that the request came from.
    pub mapped: SocketAddr,
    /// The server's other address.
    pub other: Option<SocketAddr>,
    /// By which the server will know `mapped` again.
    pub proof: Option<Proof>,
}

/// Reads a message; none for all that is no Binding request nor an answer to one.
pub fn read(bytes: &[u8]) -> Option<Message> {
    let header = MessageHeader::from_bytes(bytes).ok()?;
    let kind = header.get_type();
    let mut rest = bytes.get(MessageHeader::LENGTH..)?;
    if !kind.has_method(BINDING)
        || rest.len() != usize::from(header.data_length())
        || bytes.len() > MAX_REQUEST
    {
        return None;
    }
    let id = header.transaction_id();
    let transaction: Transaction = bytes.get(8..MessageHeader::LENGTH)?.try_into().ok()?;
    let is_error = match kind.class() {
        MessageClass::Request => return Some(Message::Request(transaction)),
        MessageClass::Indication => return None,
        MessageClass::Success => false,
        MessageClass::Error => true,
    };

    let (mut mapped, mut plain, mut other, mut proof, mut code) = (None, None, None, None, None);
    while !rest.is_empty() {
        let before = bytes.len().checked_sub(rest.len()).and_then(|offset| bytes.get(..offset))?;
        let (after, (kind, value)) = attribute(rest).ok()?;
        rest = after;
        let raw = RawAttribute::new(kind, value);
        match kind {
            XorMappedAddress::TYPE => {
                mapped = mapped.or(XorMappedAddress::from_raw_ref(&raw).ok().map(|mapped| mapped.addr(id)));
            }
            MAPPED_ADDRESS => plain = plain.or(address_of(value)),
            OTHER_ADDRESS => other = other.or(address_of(value)),
            ADDRESS_PROOF => proof = proof.or(<[u8; Proof::LENGTH]>::try_from(value).ok().map(Proof)),
            ErrorCode::TYPE => {
                code = code.or(ErrorCode::from_raw_ref(&raw).ok().map(|error| error.code()));
            }
            Fingerprint::TYPE => {
                let claimed = Fingerprint::from_raw_ref(&raw).ok()?;
                if !rest.is_empty() || *claimed.fingerprint() != Fingerprint::compute(&[before]) {
                    return None;
                }
            }
            _ => {}
        }
    }
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let result = match (is_error, code, mapped.or(plain)) {
        (true, code, _) => Err(code?),
        (false, _, mapped) => Ok(Seen { mapped: canonical(mapped?), other: other.map(canonical), proof }),
    };
    Some(Message::Answer(transaction, result))
}

/// RFC 8489 section 5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// The attribute of a checksum, in bytes, and what that is masked with (RFC 8489 section 14.7).
const FINGERPRINT: usize = 8;
const FINGERPRINT_MASK: u32 = 0x5354_554e;
/// What servers of the time of RFC 3489 send, and some of today's send besides.
const MAPPED_ADDRESS: AttributeType = AttributeType::new(0x0001);
/// So that a request is as long as the longest answer that it gets: header 20, two IPv6 addresses of 24, a
/// proof of 20, a fingerprint of 8; the header, the attribute's own and the fingerprint take 32 of them.
const PADDING: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRANSACTION: Transaction = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    /// RFC 5769 section 2.2.
    const IPV4_RESPONSE: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\
        \xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0btest vector\x20\
        \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
        \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
        \x80\x28\x00\x04\xc0\x7d\x4c\x96";

    /// RFC 5769 section 2.3.
    const IPV6_RESPONSE: &[u8] = b"\x01\x01\x00\x48\x21\x12\xa4\x42\
        \xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0btest vector\x20\
        \x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
        \x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
        \x80\x28\x00\x04\xc8\xfb\x0b\x4c";

    #[test]
    fn the_answers_of_rfc_5769_read_as_it_says() {
        for (bytes, address) in [
            (IPV4_RESPONSE, "192.0.2.1:32853"),
            (IPV6_RESPONSE, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
        ] {
            let seen = Seen { mapped: address.parse().unwrap(), other: None, proof: None };
            assert_eq!(read(bytes), Some(Message::Answer(TRANSACTION, Ok(seen))));
            let mut damaged = bytes.to_vec();
            damaged[30] ^= 1;
            assert_eq!(read(&damaged), None, "its fingerprint is wrong");
        }
    }

    #[test]
    fn an_old_servers_address_counts_where_there_is_no_other() {
        let mut bytes = [&[1, 1, 0, 12][..], &MAGIC_COOKIE, &TRANSACTION, &[0, 1, 0, 8]].concat();
        bytes.extend([0, 1, 0x12, 0x34, 192, 0, 2, 7]);
        let seen = Seen { mapped: "192.0.2.7:4660".parse().unwrap(), other: None, proof: None };
        assert_eq!(read(&bytes), Some(Message::Answer(TRANSACTION, Ok(seen))));
    }

    #[test]
    fn requests_read_as_requests() {
        for ask in [
            Ask::Proof,
            Ask::Change(Change { ip: true, port: true }),
            Ask::OtherPort,
            Ask::ReturnTo(7, Proof([1; 16])),
        ] {
            let bytes = request(TRANSACTION, ask);
            assert_eq!(read(&bytes), Some(Message::Request(TRANSACTION)), "{ask:?}");
            // An independent reader agrees.
            assert!(stun_types::message::Message::from_bytes(&bytes).is_ok(), "{ask:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = read(&bytes);
        }

        #[test]
        fn arbitrary_attributes_never_panic(
            class in prop_oneof![Just(0x0101_u16), Just(0x0111)],
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
            let _ = read(&[&class.to_be_bytes()[..], &length, &MAGIC_COOKIE, &TRANSACTION, &rest].concat());
        }
    }
}
