//! Frames: a header of 7 bytes, big-endian, then the payload.
//!
//! ```text
//!  0       4       5        7
//! +-------+-------+--------+-----------------+
//! | id    | flags | length | 0..65535 bytes  |
//! +-------+-------+--------+-----------------+
//! ```
//!
//! | frame  | flags | stream | payload |
//! |--------|-------|--------|---------|
//! | SYN    | 01    | ≠ 0    | MessagePack map `{protocol, target, limit}`, at most 1,024 bytes |
//! | FIN    | 02    | ≠ 0    | none |
//! | DATA   | 04    | any    | bytes of the stream; with FIN (06) the last ones |
//! | PING   | 08    | 0      | 8 bytes, echoed by PONG |
//! | PONG   | 10    | 0      | 8 bytes |
//! | RST    | 20    | ≠ 0    | code u16, then UTF-8 text of at most 256 bytes |
//! | WINDOW | 40    | ≠ 0    | consumed u64, limit u64, both absolute |
//!
//! Whatever is not in this table is a [`Violation`]. The header is checked before any payload is looked at,
//! so a bad length is never waited for. What frames mean is the business of [`super::Mux`], and for stream
//! 0, PING and PONG of the link.

use std::borrow::Cow;
use std::fmt;

use nom::number::complete::{be_u8, be_u16, be_u32, be_u64};
use nom::{IResult, Parser};
use serde::{Deserialize, Serialize};

use super::violation::Violation;

/// One frame, or for DATA a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Opens a stream.
    Syn {
        /// The stream.
        stream: u32,
        /// What is to be spoken.
        protocol: Protocol,
        /// Whom with, as `HOST:PORT`.
        target: &'a str,
        /// Up to which offset the opener takes bytes.
        limit: u64,
    },
    /// Bytes of a stream. One DATA frame may be handed out in several parts. Stream 0 is the link's.
    Data {
        /// The stream.
        stream: u32,
        /// The bytes.
        bytes: &'a [u8],
        /// Whether the stream ends behind them; only on the last part of a frame.
        fin: bool,
    },
    /// Acknowledges and grants. Both numbers count from the stream's beginning.
    Window {
        /// The stream.
        stream: u32,
        /// What the receiver has passed on: bytes, and 1 for the FIN.
        consumed: u64,
        /// Up to which offset the sender may send bytes.
        limit: u64,
    },
    /// Ends a stream at once, both ways.
    Reset {
        /// The stream.
        stream: u32,
        /// Why, for programs: see [`super::code`].
        code: u16,
        /// Why, for people.
        text: Cow<'a, str>,
    },
    /// Wants to come back as a PONG.
    Ping([u8; 8]),
    /// A PING that came back.
    Pong([u8; 8]),
}

/// What a stream speaks to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The bytes of a TCP connection.
    Tcp,
    /// Something that this version does not know; such a stream is to be refused.
    Other,
}

impl Protocol {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Other => "other",
        }
    }

    fn from_name(name: &str) -> Self {
        match name {
            "tcp" => Self::Tcp,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Frame<'_> {
    /// The stream that the frame belongs to: 0 for the link's own.
    pub fn stream(&self) -> u32 {
        match self {
            Frame::Syn { stream, .. }
            | Frame::Data { stream, .. }
            | Frame::Window { stream, .. }
            | Frame::Reset { stream, .. } => *stream,
            Frame::Ping(_) | Frame::Pong(_) => 0,
        }
    }

    /// Writes the frame to the beginning of `out` and returns its length; `None`, with `out` spoilt, if it
    /// does not fit there or is longer than a frame can be. A reset's text is cut to what fits.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        match self {
            Frame::Syn { stream, protocol, target, limit } => {
                encode_syn(out, *stream, *protocol, target, *limit)
            }
            Frame::Data { stream, bytes, fin } => {
                let flags = data_flags(bytes.len(), *fin);
                frame(out, *stream, flags, &[bytes])
            }
            Frame::Window { stream, consumed, limit } => {
                frame(out, *stream, WINDOW, &[&consumed.to_be_bytes(), &limit.to_be_bytes()])
            }
            Frame::Reset { stream, code, text } => {
                let text = cut(text, MAX_RESET_TEXT).as_bytes();
                frame(out, *stream, RST, &[&code.to_be_bytes(), text])
            }
            Frame::Ping(bytes) => frame(out, 0, PING, &[bytes]),
            Frame::Pong(bytes) => frame(out, 0, PONG, &[bytes]),
        }
    }
}

/// The flags of a DATA frame of `length` bytes: an end without bytes is FIN alone.
pub(super) fn data_flags(length: usize, fin: bool) -> u8 {
    match (length, fin) {
        (0, true) => FIN,
        (_, true) => DATA | FIN,
        (_, false) => DATA,
    }
}

/// Writes a header to the beginning of `out`, which the caller has found to be long enough.
pub(super) fn encode_header(out: &mut [u8], stream: u32, flags: u8, length: u16) {
    let [a, b, c, d] = stream.to_be_bytes();
    let [e, f] = length.to_be_bytes();
    out[..HEADER].copy_from_slice(&[a, b, c, d, flags, e, f]);
}

/// `text`, cut to at most `max` bytes between two characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

fn frame(out: &mut [u8], stream: u32, flags: u8, parts: &[&[u8]]) -> Option<usize> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut rest = out.get_mut(..HEADER.checked_add(length)?)?;
    encode_header(rest, stream, flags, u16::try_from(length).ok()?);
    rest = &mut rest[HEADER..];
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    Some(HEADER + length)
}

pub(super) fn encode_syn(
    out: &mut [u8],
    stream: u32,
    protocol: Protocol,
    target: &str,
    limit: u64,
) -> Option<usize> {
    let room = out.len().min(HEADER + MAX_SYN);
    let mut body = out.get_mut(HEADER..room)?;
    let before = body.len();
    rmp_serde::encode::write_named(&mut body, &SynBody { protocol: protocol.as_str(), target, limit })
        .ok()?;
    let length = before - body.len();
    encode_header(out, stream, SYN, u16::try_from(length).ok()?);
    Some(HEADER + length)
}

/// A header that names a frame of the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stream: u32,
    pub(super) kind: Kind,
    pub(super) length: u16,
}

/// What the flags say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Syn,
    Data { fin: bool },
    Ping,
    Pong,
    Reset,
    Window,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Result<Self, Violation> {
        let read: IResult<&[u8], (u32, u8, u16)> = (be_u32, be_u8, be_u16).parse(bytes);
        let Ok((_, (stream, flags, length))) = read else {
            return Err(Violation::Flags(0));
        };
        let (kind, lengths) = match flags {
            SYN => (Kind::Syn, 1..=MAX_SYN),
            FIN => (Kind::Data { fin: true }, 0..=0),
            DATA => (Kind::Data { fin: false }, 0..=MAX_DATA),
            DATA_FIN => (Kind::Data { fin: true }, 0..=MAX_DATA),
            PING => (Kind::Ping, 8..=8),
            PONG => (Kind::Pong, 8..=8),
            RST => (Kind::Reset, 2..=2 + MAX_RESET_TEXT),
            WINDOW => (Kind::Window, 16..=16),
            _ => return Err(Violation::Flags(flags)),
        };
        if !lengths.contains(&usize::from(length)) {
            return Err(Violation::Length { flags, length });
        }
        let fits = match kind {
            Kind::Data { fin: false } => true,
            Kind::Ping | Kind::Pong => stream == 0,
            Kind::Syn | Kind::Data { fin: true } | Kind::Reset | Kind::Window => stream != 0,
        };
        if !fits {
            return Err(Violation::Stream { stream, flags });
        }
        Ok(Self { stream, kind, length })
    }

    /// Reads the payload of a frame that is not DATA.
    pub(super) fn read<'a>(self, payload: &'a [u8]) -> Result<Frame<'a>, Violation> {
        let stream = self.stream;
        match self.kind {
            Kind::Syn => {
                let body = SynBody::read(payload).ok_or(Violation::Syn)?;
                let protocol = Protocol::from_name(body.protocol);
                Ok(Frame::Syn { stream, protocol, target: body.target, limit: body.limit })
            }
            Kind::Data { fin } => Ok(Frame::Data { stream, bytes: payload, fin }),
            Kind::Ping => Ok(Frame::Ping(self.exact(payload)?)),
            Kind::Pong => Ok(Frame::Pong(self.exact(payload)?)),
            Kind::Reset => {
                let read: IResult<&[u8], u16> = be_u16(payload);
                let (text, code) = read.map_err(|_| self.wrong_length())?;
                Ok(Frame::Reset { stream, code, text: lossy(text) })
            }
            Kind::Window => {
                let read: IResult<&[u8], (u64, u64)> = (be_u64, be_u64).parse(payload);
                let (_, (consumed, limit)) = read.map_err(|_| self.wrong_length())?;
                Ok(Frame::Window { stream, consumed, limit })
            }
        }
    }

    fn exact(self, payload: &[u8]) -> Result<[u8; 8], Violation> {
        payload.try_into().map_err(|_| self.wrong_length())
    }

    fn wrong_length(self) -> Violation {
        let flags = match self.kind {
            Kind::Syn => SYN,
            Kind::Data { fin } => data_flags(usize::from(self.length), fin),
            Kind::Ping => PING,
            Kind::Pong => PONG,
            Kind::Reset => RST,
            Kind::Window => WINDOW,
        };
        Violation::Length { flags, length: self.length }
    }
}

/// A reset's text as it came, made readable: no peer can put broken UTF-8, or more than fits, into a log.
fn lossy(text: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(text) {
        // The replacement characters may have made it longer than what came in.
        Cow::Owned(text) => Cow::Owned(cut(&text, MAX_RESET_TEXT).to_owned()),
        Cow::Borrowed(text) => Cow::Borrowed(text),
    }
}

/// The content of a SYN. Later versions may add keys; those that are not known are passed over.
#[derive(Serialize, Deserialize)]
struct SynBody<'a> {
    protocol: &'a str,
    target: &'a str,
    limit: u64,
}

impl<'a> SynBody<'a> {
    fn read(payload: &'a [u8]) -> Option<Self> {
        let mut body = rmp_serde::Deserializer::from_read_ref(payload);
        body.set_max_depth(MAX_SYN_DEPTH);
        Self::deserialize(&mut body).ok()
    }
}

/// The length of a header.
pub const HEADER: usize = 7;
/// The longest content of a SYN: a host name is at most 253 bytes, the rest is room for later keys.
pub const MAX_SYN: usize = 1024;
/// The longest text of a reset, in bytes: one line for a person.
pub const MAX_RESET_TEXT: usize = 256;
/// The longest payload of a frame: what a u16 can say.
const MAX_DATA: usize = 65_535;
/// How deep the content of a SYN may nest: ours is one map, later versions get a little room; the bound
/// keeps the reader's recursion small.
const MAX_SYN_DEPTH: usize = 8;

pub(super) const SYN: u8 = 0x01;
pub(super) const FIN: u8 = 0x02;
pub(super) const DATA: u8 = 0x04;
const DATA_FIN: u8 = DATA | FIN;
pub(super) const PING: u8 = 0x08;
pub(super) const PONG: u8 = 0x10;
pub(super) const RST: u8 = 0x20;
pub(super) const WINDOW: u8 = 0x40;
