//! The parser of one lane: bytes in, frames out.
//!
//! The bytes may be split anywhere. DATA is handed out in place, part by part as it comes, and never
//! gathered; the other frames are short, and only one that is split is copied into a fixed buffer. Nothing
//! is allocated for a frame.

use super::frame::{Frame, HEADER, Header, Kind, MAX_RESET_TEXT, MAX_SYN};
use super::violation::Violation;

/// A lane's parser. Call [`Self::next`] until it has no more.
pub struct Decoder {
    state: State,
    gathered: [u8; GATHERED],
}

enum State {
    /// So many bytes of a header have been gathered.
    Header { have: usize },
    /// So many bytes of a short frame's payload have been gathered.
    Payload { header: Header, have: usize },
    /// So many bytes of a DATA frame are still to come.
    Data { stream: u32, fin: bool, left: usize },
    /// The lane is unreadable from here on.
    Failed(Violation),
}

impl Decoder {
    /// A parser at the beginning of a lane.
    pub fn new() -> Self {
        Self { state: State::Header { have: 0 }, gathered: [0; GATHERED] }
    }

    /// Whether nothing of a frame is held: a new parser would read on as well.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header { have: 0 })
    }

    /// The next frame of `input`, which moves past it; `None` once `input` is used up. An error ends the
    /// lane: it is returned again for whatever follows.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'a>>, Violation> {
        let Self { state, gathered } = self;
        loop {
            match *state {
                State::Header { have } => {
                    let Some(header) = take_header(gathered, have, input, state) else {
                        return Ok(None);
                    };
                    let header = header.inspect_err(|&violation| *state = State::Failed(violation))?;
                    let length = usize::from(header.length);
                    match header.kind {
                        Kind::Data { fin } if length == 0 => {
                            *state = State::Header { have: 0 };
                            return Ok(Some(Frame::Data { stream: header.stream, bytes: &[], fin }));
                        }
                        Kind::Data { fin } => {
                            *state = State::Data { stream: header.stream, fin, left: length };
                        }
                        Kind::Syn | Kind::Ping | Kind::Pong | Kind::Reset | Kind::Window => {
                            *state = State::Payload { header, have: 0 };
                        }
                    }
                }
                State::Payload { header, have } => {
                    let length = usize::from(header.length);
                    let payload = match input.split_at_checked(length) {
                        Some((payload, rest)) if have == 0 => {
                            *input = rest;
                            payload
                        }
                        _ => {
                            let have = gather(&mut gathered[..length], have, input);
                            if have < length {
                                *state = State::Payload { header, have };
                                return Ok(None);
                            }
                            &gathered[..length]
                        }
                    };
                    let frame = header.read(payload);
                    *state = match &frame {
                        Ok(_) => State::Header { have: 0 },
                        Err(violation) => State::Failed(*violation),
                    };
                    return frame.map(Some);
                }
                State::Data { stream, fin, left } => {
                    let part = left.min(input.len());
                    if part == 0 {
                        return Ok(None);
                    }
                    let (bytes, rest) = input.split_at(part);
                    *input = rest;
                    let last = part == left;
                    *state = match last {
                        true => State::Header { have: 0 },
                        false => State::Data { stream, fin, left: left - part },
                    };
                    return Ok(Some(Frame::Data { stream, bytes, fin: fin && last }));
                }
                State::Failed(violation) => return Err(violation),
            }
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// A header, from the input where it lies whole, else from what was gathered.
fn take_header(
    gathered: &mut [u8; GATHERED],
    have: usize,
    input: &mut &[u8],
    state: &mut State,
) -> Option<Result<Header, Violation>> {
    if have == 0
        && let Some((header, rest)) = input.split_first_chunk::<HEADER>()
    {
        *input = rest;
        return Some(Header::parse(header));
    }
    let have = gather(&mut gathered[..HEADER], have, input);
    *state = State::Header { have };
    gathered.first_chunk::<HEADER>().filter(|_| have == HEADER).map(Header::parse)
}

/// Fills `buffer`, which holds `have` bytes, from `input`; returns how many it holds then.
fn gather(buffer: &mut [u8], have: usize, input: &mut &[u8]) -> usize {
    let room = &mut buffer[have..];
    let (head, rest) = input.split_at(room.len().min(input.len()));
    room[..head.len()].copy_from_slice(head);
    *input = rest;
    have + head.len()
}

/// The longest payload that is gathered: a SYN's, which is longer than a reset's.
const GATHERED: usize = MAX_SYN;
const _: () = assert!(GATHERED >= 2 + MAX_RESET_TEXT && GATHERED >= HEADER);
