//! What a datagram is, by its first bytes: STUN, a probe, or QUIC and for whom (RFC 9443's idea, with one more
//! kind; the QUIC part by RFC 8999 and RFC 9000 section 17). Nothing is decrypted here.

use nom::bytes::complete::{tag, take};
use nom::combinator::verify;
use nom::number::complete::u8;
use nom::{IResult, Parser};

use super::id::{CONNECTION, INITIAL, InitialId, Label};
use super::probe;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// STUN (RFC 8489).
    Stun,
    /// A probe of ours, well-formed or not.
    Probe,
    /// QUIC for the link with this label.
    Link(Label),
    /// The first of QUIC that is to become a link.
    Initial(InitialId),
    /// Nothing that any link could want: another version of QUIC, version negotiation, Retry, 0-RTT, rubbish.
    Other,
}

impl Packet {
    /// Looks at a datagram.
    pub fn of(datagram: &[u8]) -> Self {
        match datagram.first() {
            Some(0..=3) => Self::Stun,
            Some(&probe::FIRST_BYTE) => Self::Probe,
            Some(first) if first & LONG == LONG => match long(datagram) {
                Ok((_, (first, id))) => long_packet(first, id),
                Err(_) => Self::Other,
            },
            Some(first) if first & LONG == FIXED => match short(datagram) {
                Ok((_, id)) => label(id),
                Err(_) => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// The first byte and the destination id of a long header.
fn long(datagram: &[u8]) -> IResult<&[u8], (u8, &[u8])> {
    let (rest, (first, _, length)) =
        (u8, tag(&VERSION_1[..]), verify(u8, |&length| usize::from(length) <= MAX_ID)).parse(datagram)?;
    let (rest, id) = take(length)(rest)?;
    Ok((rest, (first, id)))
}

/// The destination id of a short header: its length is ours to know.
fn short(datagram: &[u8]) -> IResult<&[u8], &[u8]> {
    let (rest, (_, id)) = (u8, take(CONNECTION)).parse(datagram)?;
    Ok((rest, id))
}

fn long_packet(first: u8, id: &[u8]) -> Packet {
    let kind = (first & KIND) >> 4;
    match (kind, <[u8; INITIAL]>::try_from(id)) {
        (KIND_INITIAL, Ok(id)) => Packet::Initial(InitialId(id)),
        (KIND_INITIAL | KIND_HANDSHAKE, Err(_)) if id.len() == CONNECTION => label(id),
        _ => Packet::Other,
    }
}

fn label(id: &[u8]) -> Packet {
    id.first_chunk().map_or(Packet::Other, |label| Packet::Link(Label(*label)))
}

/// The header-form and the fixed bit: both set in a long header, the latter alone in a short one. We do not
/// grease it (RFC 9287).
const LONG: u8 = 0xc0;
const FIXED: u8 = 0x40;
/// The packet type in a long header.
const KIND: u8 = 0x30;
const KIND_INITIAL: u8 = 0;
const KIND_HANDSHAKE: u8 = 2;
const VERSION_1: [u8; 4] = [0, 0, 0, 1];
/// RFC 9000 section 17.2.
const MAX_ID: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(first: u8, version: u32, id: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        bytes.extend(version.to_be_bytes());
        bytes.push(u8::try_from(id.len()).unwrap());
        bytes.extend(id);
        bytes.extend([0; 1200]);
        bytes
    }

    #[test]
    fn first_bytes_tell_the_kinds_apart() {
        for first in 0..=255 {
            let packet = Packet::of(&[&[first][..], &[0; 40]].concat());
            match first {
                0..=3 => assert_eq!(packet, Packet::Stun),
                0x20 => assert_eq!(packet, Packet::Probe),
                0x40..=0x7f => assert_eq!(packet, Packet::Link(Label([0; 8]))),
                _ => assert_eq!(packet, Packet::Other),
            }
        }
        assert_eq!(Packet::of(&[]), Packet::Other);
    }

    #[test]
    fn only_initials_may_bear_the_first_id_and_nothing_else_of_quic_passes() {
        let first = [7; 16];
        let ours = [9; 12];
        assert_eq!(Packet::of(&header(0xc0, 1, &first)), Packet::Initial(InitialId(first)));
        assert_eq!(Packet::of(&header(0xc3, 1, &ours)), Packet::Link(Label([9; 8])));
        assert_eq!(Packet::of(&header(0xe0, 1, &ours)), Packet::Link(Label([9; 8])));
        for (first_byte, version, id) in [
            (0xe0, 1, &first[..]),
            (0xd0, 1, &ours),
            (0xf0, 1, &ours),
            (0xc0, 0, &ours),
            (0xc0, 2, &first),
            (0xc0, 1, &[0; 21]),
            (0xc0, 1, &[]),
            (0x80, 1, &ours),
        ] {
            assert_eq!(Packet::of(&header(first_byte, version, id)), Packet::Other, "{first_byte:#x}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_is_looked_at_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Packet::of(&bytes);
        }
    }
}
