//! The seven bytes before every body: version u8, kind u16, request id u32, big-endian.
//!
//! Reading an envelope says nothing of its body: a kind that is not known here still has a request id, and
//! so can be answered `unsupported`.

use nom::Parser;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::codec::{self, Malformed};
use super::message::{Message, kind};
use super::{MAX_SEALED, VERSION};

/// One signalling message, its body not yet read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The version of the protocol that the body is written in.
    pub version: u8,
    /// What the body is: one of [`kind`].
    pub kind: u16,
    /// Chosen by whoever asks, and repeated in the answer.
    pub request: u32,
    /// A MessagePack map.
    pub body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Splits a message into the header's fields and the body. Any version and any kind is accepted.
    ///
    /// # Errors
    /// If it ends within the header, or is longer than [`MAX_SEALED`].
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        if message.len() > MAX_SEALED {
            return Err(Malformed::TooLong);
        }
        let header = (be_u8::<_, ()>, be_u16, be_u32).parse(message);
        let (body, (version, kind, request)) = header.map_err(|_| Malformed::Short)?;
        Ok(Self { version, kind, request, body })
    }

    /// Whether this answers a request.
    pub fn is_reply(&self) -> bool {
        self.kind & kind::REPLY != 0
    }

    /// The body, if the envelope is of `M`'s kind and of this version.
    ///
    /// # Errors
    /// If it is not, or the body is not well formed.
    pub fn decode<M: Message>(&self) -> Result<M, Malformed> {
        if self.version != VERSION {
            return Err(Malformed::Version(self.version));
        }
        if self.kind != M::KIND {
            return Err(Malformed::Kind { expected: M::KIND, got: self.kind });
        }
        codec::decode(self.body)
    }
}

/// A whole message: header and body.
///
/// The caller keeps lists and texts within the bounds of [`super::message`], and the whole within
/// [`super::MAX_CLEAR`] or [`super::MAX_SEALED`]: the other side refuses what is longer.
pub fn encode<M: Message>(request: u32, message: &M) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL);
    out.push(VERSION);
    out.extend_from_slice(&M::KIND.to_be_bytes());
    out.extend_from_slice(&request.to_be_bytes());
    codec::encode(message, &mut out);
    out
}

/// Room for most messages without growing: a punch start with a few candidates.
const USUAL: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::message::{Goodbye, Heartbeat};

    #[test]
    fn the_header_is_seven_bytes_big_endian() {
        let message = encode(0x0102_0304, &Heartbeat::default());
        assert_eq!(message, [1, 0x00, 0x10, 1, 2, 3, 4, 0x80]);
    }

    #[test]
    fn an_unknown_kind_can_still_be_answered() {
        let envelope = Envelope::parse(&[1, 0x7a, 0xbc, 0, 0, 0, 9, 0xc1]).unwrap();
        assert_eq!((envelope.kind, envelope.request), (0x7abc, 9));
        assert!(!envelope.is_reply());
    }

    #[test]
    fn another_kind_is_not_decoded() {
        let message = encode(1, &Heartbeat::default());
        let error = Envelope::parse(&message).unwrap().decode::<Goodbye>().unwrap_err();
        assert_eq!(error, Malformed::Kind { expected: kind::GOODBYE, got: kind::HEARTBEAT });
    }

    #[test]
    fn another_version_is_not_decoded() {
        let mut message = encode(1, &Heartbeat::default());
        message[0] = 2;
        let error = Envelope::parse(&message).unwrap().decode::<Heartbeat>().unwrap_err();
        assert_eq!(error, Malformed::Version(2));
    }

    #[test]
    fn what_is_too_short_or_too_long_is_refused() {
        assert_eq!(Envelope::parse(&[1, 0, 0, 0, 0, 0]), Err(Malformed::Short));
        assert_eq!(Envelope::parse(&vec![1; MAX_SEALED + 1]), Err(Malformed::TooLong));
        assert!(Envelope::parse(&vec![1; MAX_SEALED]).is_ok());
    }

    proptest! {
        #[test]
        fn any_seven_bytes_or_more_are_an_envelope(message in prop::collection::vec(any::<u8>(), 0..64)) {
            match Envelope::parse(&message) {
                Ok(envelope) => prop_assert_eq!(envelope.body, &message[7..]),
                Err(_) => prop_assert!(message.len() < 7),
            }
        }
    }
}
