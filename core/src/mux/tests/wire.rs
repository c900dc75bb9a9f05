//! Frames and the parser: the table of [`super::super::frame`], any split, any rubbish.

use std::borrow::Cow;

use proptest::prelude::*;

use crate::mux::{Decoder, Frame, HEADER, MAX_RESET_TEXT, MAX_SYN, Protocol, Violation};

/// A frame that owns what it holds.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Syn(u32, Protocol, String, u64),
    Data(u32, Vec<u8>, bool),
    Window(u32, u64, u64),
    Reset(u32, u16, String),
    Ping([u8; 8]),
    Pong([u8; 8]),
}

impl Owned {
    fn of(frame: &Frame<'_>) -> Self {
        match frame {
            Frame::Syn { stream, protocol, target, limit } => {
                Self::Syn(*stream, *protocol, (*target).to_owned(), *limit)
            }
            Frame::Data { stream, bytes, fin } => Self::Data(*stream, bytes.to_vec(), *fin),
            Frame::Window { stream, consumed, limit } => Self::Window(*stream, *consumed, *limit),
            Frame::Reset { stream, code, text } => Self::Reset(*stream, *code, text.clone().into_owned()),
            Frame::Ping(bytes) => Self::Ping(*bytes),
            Frame::Pong(bytes) => Self::Pong(*bytes),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let frame = match self {
            Self::Syn(stream, protocol, target, limit) => {
                Frame::Syn { stream: *stream, protocol: *protocol, target, limit: *limit }
            }
            Self::Data(stream, bytes, fin) => Frame::Data { stream: *stream, bytes, fin: *fin },
            Self::Window(stream, consumed, limit) => {
                Frame::Window { stream: *stream, consumed: *consumed, limit: *limit }
            }
            Self::Reset(stream, code, text) => {
                Frame::Reset { stream: *stream, code: *code, text: Cow::Borrowed(text) }
            }
            Self::Ping(bytes) => Frame::Ping(*bytes),
            Self::Pong(bytes) => Frame::Pong(*bytes),
        };
        let mut out = vec![0xEE; 70_000];
        let length = frame.encode(&mut out).unwrap();
        out.truncate(length);
        out
    }
}

/// Parses `pieces` one after another; the parts of one DATA frame are joined again.
fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Owned>, Option<Violation>) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::<Owned>::new();
    let mut expected = 0;
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(frame)) => frames.push(Owned::of(&frame)),
                Ok(None) => break,
                Err(violation) => {
                    // The failure is final.
                    assert_eq!(decoder.next(&mut [0u8; 64].as_slice()), Err(violation));
                    return (frames, Some(violation));
                }
            }
            expected += 1;
            assert_eq!(frames.len(), expected);
        }
        assert!(piece.is_empty(), "the parser takes all of its input");
    }
    (frames, None)
}

/// Joins neighbouring parts of the same stream, since where they were cut is not part of the meaning.
fn joined(frames: Vec<Owned>) -> Vec<Owned> {
    let mut whole = Vec::<Owned>::new();
    for frame in frames {
        match (whole.last_mut(), frame) {
            (Some(Owned::Data(stream, bytes, fin)), Owned::Data(next, more, last))
                if *stream == next && !*fin =>
            {
                bytes.extend(more);
                *fin = last;
            }
            (_, frame) => whole.push(frame),
        }
    }
    whole
}

fn header(stream: u32, flags: u8, length: usize) -> Vec<u8> {
    let mut bytes = stream.to_be_bytes().to_vec();
    bytes.push(flags);
    bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
    bytes
}

fn frames() -> impl Strategy<Value = Vec<Owned>> {
    let stream = 1..100u32;
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Other)];
    let frame = prop_oneof![
        (stream.clone(), protocol, ".{0,60}", any::<u64>())
            .prop_map(|(stream, protocol, target, limit)| Owned::Syn(stream, protocol, target, limit)),
        (stream.clone(), prop::collection::vec(any::<u8>(), 0..3000), any::<bool>())
            .prop_map(|(stream, bytes, fin)| Owned::Data(stream, bytes, fin)),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Owned::Data(0, bytes, false)),
        (stream.clone(), any::<u64>(), any::<u64>()).prop_map(|(s, c, l)| Owned::Window(s, c, l)),
        (stream, any::<u16>(), ".{0,60}").prop_map(|(stream, code, text)| Owned::Reset(stream, code, text)),
        any::<[u8; 8]>().prop_map(Owned::Ping),
        any::<[u8; 8]>().prop_map(Owned::Pong),
    ];
    prop::collection::vec(frame, 0..20)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frames in frames()) {
        let bytes: Vec<u8> = frames.iter().flat_map(Owned::encode).collect();
        let (decoded, violation) = decode([bytes.as_slice()]);
        prop_assert_eq!(violation, None);
        prop_assert_eq!(&decoded, &frames);
        let again: Vec<u8> = decoded.iter().flat_map(Owned::encode).collect();
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn any_split_gives_the_same_frames(
        frames in frames(),
        rubbish in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut bytes: Vec<u8> = frames.iter().flat_map(Owned::encode).collect();
        bytes.extend(rubbish);
        let (whole, violation) = decode([bytes.as_slice()]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (pieces, split_violation) = decode(cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]));
        prop_assert_eq!(violation, split_violation);
        prop_assert_eq!(joined(whole.clone()), joined(pieces));
        let (single, single_violation) = decode(bytes.chunks(1));
        prop_assert_eq!(violation, single_violation);
        prop_assert_eq!(joined(whole), joined(single));
    }

    #[test]
    fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        decode([bytes.as_slice()]);
    }

    /// Rubbish behind a good header of each kind reaches the readers of the payloads.
    #[test]
    fn rubbish_in_a_payload_never_panics(
        kind in prop::sample::select(vec![0x01u8, 0x20, 0x40]),
        payload in prop::collection::vec(any::<u8>(), 1..1024),
    ) {
        let mut bytes = header(7, kind, payload.len());
        bytes.extend(&payload);
        let (frames, _) = decode([bytes.as_slice()]);
        if let Some(Owned::Reset(_, _, text)) = frames.first() {
            prop_assert!(text.len() <= MAX_RESET_TEXT);
        }
    }

    /// A SYN whose MessagePack nests or claims lengths it does not have.
    #[test]
    fn hostile_syn_never_panics(
        prefix in prop::collection::vec(prop::sample::select(
            vec![0x81u8, 0x83, 0x91, 0xdd, 0xdf, 0xdb, 0xc6, 0xff, 0xa6, 0xc9]), 1..1000),
    ) {
        let mut bytes = header(7, 0x01, prefix.len());
        bytes.extend(&prefix);
        decode([bytes.as_slice()]);
    }
}

/// All flags, at the lengths where rules change, on stream 0 and on another one.
#[test]
fn every_header_is_judged_by_the_table() {
    const CREDIT: usize = 16 * 1024;
    for flags in 0..=255u8 {
        for length in [0, 1, 2, 8, 16, 17, 258, 259, 1024, 1025, CREDIT, CREDIT + 1, 65_535] {
            for stream in [0, 1, u32::MAX] {
                let kind = match flags {
                    0x01 => Some((1..=1024, stream != 0)),
                    0x02 => Some((0..=0, stream != 0)),
                    0x04 => Some((0..=65_535, true)),
                    0x06 => Some((0..=65_535, stream != 0)),
                    0x08 | 0x10 => Some((8..=8, stream == 0)),
                    0x20 => Some((2..=258, stream != 0)),
                    0x40 => Some((16..=16, stream != 0)),
                    _ => None,
                };
                let expected = match kind {
                    None => Some(Violation::Flags(flags)),
                    Some((lengths, _)) if !lengths.contains(&length) => {
                        let length = u16::try_from(length).unwrap();
                        Some(Violation::Length { flags, length })
                    }
                    Some((_, false)) => Some(Violation::Stream { stream, flags }),
                    // The content of zeros is no MessagePack map.
                    Some(_) if flags == 0x01 => Some(Violation::Syn),
                    Some(_) => None,
                };
                let mut bytes = header(stream, flags, length);
                // A bad header is found before the payload is there.
                if expected.is_some() && flags != 0x01 {
                    assert_eq!(decode([bytes.as_slice()]).1, expected);
                }
                bytes.resize(HEADER + length, 0);
                let (frames, violation) = decode([bytes.as_slice()]);
                assert_eq!(violation, expected, "flags {flags:#x} length {length} stream {stream}");
                assert_eq!(frames.len(), usize::from(expected.is_none()));
                if let (0x02 | 0x04 | 0x06, Some(frame)) = (flags, frames.first()) {
                    let content = vec![0; length];
                    assert_eq!(*frame, Owned::Data(stream, content, flags & 0x02 != 0));
                }
            }
        }
    }
}

#[test]
fn fin_comes_with_the_last_part_only() {
    let bytes = Owned::Data(3, b"abcdef".to_vec(), true).encode();
    let (frames, _) = decode([&bytes[..9], &bytes[9..10], &bytes[10..]]);
    let part = |bytes: &[u8], fin| Owned::Data(3, bytes.to_vec(), fin);
    assert_eq!(frames, [part(b"ab", false), part(b"c", false), part(b"def", true)]);
}

#[test]
fn a_syn_may_have_keys_of_later_versions() {
    let body = b"\x84\xa8protocol\xa4warp\xa5extra\x92\x01\x02\xa6target\xa3h:1\xa5limit\xcd\x40\x00";
    let mut bytes = header(9, 0x01, body.len());
    bytes.extend(body);
    let (frames, violation) = decode([bytes.as_slice()]);
    assert_eq!(violation, None);
    assert_eq!(frames, [Owned::Syn(9, Protocol::Other, "h:1".to_owned(), 16_384)]);
}

#[test]
fn a_reset_with_a_long_or_broken_text_is_cut_between_characters() {
    let long = Frame::Reset { stream: 1, code: 7, text: "é".repeat(200).into() };
    let mut out = [0; 1000];
    let length = long.encode(&mut out).unwrap();
    let (frames, _) = decode([&out[..length]]);
    assert_eq!(frames, [Owned::Reset(1, 7, "é".repeat(128))]);

    let mut bytes = header(1, 0x20, 258);
    bytes.extend([0, 7]);
    bytes.extend([0xff; 256]);
    let (frames, violation) = decode([bytes.as_slice()]);
    assert_eq!(violation, None);
    // Each broken byte became a character of three; 85 of them fit.
    assert_eq!(frames, [Owned::Reset(1, 7, "\u{fffd}".repeat(85))]);
}

#[test]
fn what_does_not_fit_is_not_encoded() {
    let data = Frame::Data { stream: 1, bytes: &[0; 10], fin: false };
    assert_eq!(data.encode(&mut [0; 16]), None);
    assert_eq!(data.encode(&mut [0; 17]), Some(17));
    let target = "x".repeat(MAX_SYN);
    let syn = Frame::Syn { stream: 1, protocol: Protocol::Tcp, target: &target, limit: 0 };
    assert_eq!(syn.encode(&mut [0; 4096]), None);
    let huge = Frame::Data { stream: 1, bytes: &[0; 65_536], fin: false };
    assert_eq!(huge.encode(&mut vec![0; 70_000]), None);
}
