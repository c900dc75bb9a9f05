//! Message bodies: one MessagePack map with field names a message.
//!
//! Addresses are text (`"1.2.3.4:5"`), keys and nonces are binary, lists are arrays, enums are the names of
//! their variants: easy to write in any language. A field that is not known is passed over, so that a later
//! version may add some.
//!
//! A body is judged in two steps. [`skim`] walks its structure without keeping any of it: one map and
//! nothing behind it, text for keys, no extension types, depth and list lengths bounded. Only then serde
//! reads it, and may believe the lengths that it finds. Lists and texts are bounded further by type, where
//! [`super::message`] declares them with [`list`] and [`text`].

use std::fmt;
use std::marker::PhantomData;

use nom::bytes::complete::take;
use nom::error::{Error, ErrorKind};
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use super::message::{MAX_PEERS, Message};

/// Why a message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends within the header.
    #[error("the message is shorter than its header")]
    Short,
    /// It exceeds the bound of its state.
    #[error("the message is too long")]
    TooLong,
    /// Its body is written in another version of the protocol.
    #[error("the message is of protocol version {0}; this is version {version}", version = super::VERSION)]
    Version(u8),
    /// It is not what was expected.
    #[error("the message is of kind {got:#06x} where {expected:#06x} was expected")]
    Kind {
        /// What would have been right.
        expected: u16,
        /// What came.
        got: u16,
    },
    /// It answers, or asks, out of turn.
    #[error("the message has the request id {got} where {expected} was expected")]
    Request {
        /// What would have been right.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// The body is not one MessagePack map within the bounds.
    #[error("the message's body is not a well-formed map")]
    Structure,
    /// The body is a map, but not of the fields that its kind has.
    #[error("the message's fields are wrong: {0}")]
    Fields(String),
}

/// Reads a body.
///
/// # Errors
/// If it is not one map within the bounds, or not of the fields that the message has.
pub fn decode<M: Message>(body: &[u8]) -> Result<M, Malformed> {
    skim(body)?;
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body).with_human_readable();
    M::deserialize(&mut deserializer).map_err(|error| {
        // The text may quote what the peer sent: bounded here, escaped by whoever prints it.
        Malformed::Fields(error.to_string().chars().take(MAX_REASON).collect())
    })
}

/// Writes a body behind what `out` holds already.
pub fn encode<M: Message>(message: &M, out: &mut Vec<u8>) {
    let mut serializer = rmp_serde::Serializer::new(out).with_struct_map().with_human_readable();
    #[expect(clippy::expect_used, reason = "memory takes every write, and messages are plain structs")]
    message.serialize(&mut serializer).expect("a message can be encoded");
}

/// Checks that `body` is one map, whole, within [`MAX_DEPTH`] and [`MAX_ITEMS`]. Allocates nothing.
///
/// # Errors
/// [`Malformed::Structure`].
pub fn skim(body: &[u8]) -> Result<(), Malformed> {
    let map = matches!(body.first(), Some(0x80..=0x8f | 0xde | 0xdf));
    match value(body, MAX_DEPTH) {
        Ok(([], ())) if map => Ok(()),
        Ok(_) | Err(_) => Err(Malformed::Structure),
    }
}

/// A list of at most `MAX` items, for `#[serde(deserialize_with = "list::<_, _, MAX>")]`. A longer one is an error.
pub fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} items")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::with_capacity(items.size_hint().unwrap_or(0).min(MAX));
            while let Some(item) = items.next_element()? {
                if list.len() == MAX {
                    return Err(de::Error::invalid_length(MAX.saturating_add(1), &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// A text of at most `MAX` bytes, for `#[serde(deserialize_with = "text::<_, MAX>")]`. A longer one is an error.
pub fn text<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<String, D::Error> {
    struct Bounded<const MAX: usize>;

    impl<const MAX: usize> Visitor<'_> for Bounded<MAX> {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a text of at most {MAX} bytes")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            if text.len() > MAX {
                return Err(E::invalid_length(text.len(), &self));
            }
            Ok(text.to_owned())
        }
    }
    deserializer.deserialize_str(Bounded::<MAX>)
}

/// As [`text`], where there may be none.
pub fn maybe_text<'de, D: Deserializer<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    struct Text<const MAX: usize>(String);

    impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            text::<D, MAX>(deserializer).map(Self)
        }
    }
    Ok(Option::<Text<MAX>>::deserialize(deserializer)?.map(|text| text.0))
}

/// Passes over one value. `depth` is how many more containers may be opened.
fn value(input: &[u8], depth: usize) -> IResult<&[u8], ()> {
    let (input, marker) = be_u8(input)?;
    match marker {
        // Small integers, nil, booleans.
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Ok((input, ())),
        0xcc | 0xd0 => skip(input, 1),
        0xcd | 0xd1 => skip(input, 2),
        0xca | 0xce | 0xd2 => skip(input, 4),
        0xcb | 0xcf | 0xd3 => skip(input, 8),
        // Text and binary.
        0xa0..=0xbf => skip(input, (marker & 0x1f).into()),
        0xc4 | 0xd9 => be_u8(input).and_then(|(input, length)| skip(input, length.into())),
        0xc5 | 0xda => be_u16(input).and_then(|(input, length)| skip(input, length.into())),
        0xc6 | 0xdb => be_u32(input).and_then(|(input, length)| skip(input, length)),
        0x90..=0x9f => array(input, (marker & 0x0f).into(), depth),
        0xdc => be_u16(input).and_then(|(input, count)| array(input, count.into(), depth)),
        0xdd => be_u32(input).and_then(|(input, count)| array(input, count, depth)),
        0x80..=0x8f => map(input, (marker & 0x0f).into(), depth),
        0xde => be_u16(input).and_then(|(input, count)| map(input, count.into(), depth)),
        0xdf => be_u32(input).and_then(|(input, count)| map(input, count, depth)),
        // Extension types and the one marker that MessagePack never uses.
        0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => refuse(input, ErrorKind::Tag),
    }
}

fn skip(input: &[u8], length: u32) -> IResult<&[u8], ()> {
    take(length).map(|_| ()).parse(input)
}

fn array(mut input: &[u8], count: u32, depth: usize) -> IResult<&[u8], ()> {
    let Some(depth) = depth.checked_sub(1).filter(|_| count <= MAX_ITEMS) else {
        return refuse(input, ErrorKind::TooLarge);
    };
    for _ in 0..count {
        (input, ()) = value(input, depth)?;
    }
    Ok((input, ()))
}

fn map(mut input: &[u8], count: u32, depth: usize) -> IResult<&[u8], ()> {
    let Some(depth) = depth.checked_sub(1).filter(|_| count <= MAX_ITEMS) else {
        return refuse(input, ErrorKind::TooLarge);
    };
    for _ in 0..count {
        if !matches!(input.first(), Some(0xa0..=0xbf | 0xd9..=0xdb)) {
            return refuse(input, ErrorKind::Tag);
        }
        (input, ()) = value(input, depth)?;
        (input, ()) = value(input, depth)?;
    }
    Ok((input, ()))
}

fn refuse(input: &[u8], kind: ErrorKind) -> IResult<&[u8], ()> {
    Err(nom::Err::Error(Error::new(input, kind)))
}

/// How deep containers may be nested: a list of maps within the message's map is three, and later
/// versions may need a little more.
pub const MAX_DEPTH: usize = 8;
/// The most items of one list or map: the longest list of all messages.
pub const MAX_ITEMS: u32 = MAX_PEERS as u32;
/// The longest explanation of wrong fields, in characters: a line of the log.
const MAX_REASON: usize = 200;

#[cfg(test)]
mod tests;
