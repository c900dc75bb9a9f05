//! Order on the link, and how a buffer is filled.

use super::*;
use crate::mux::MIN_TRANSMIT;

/// Streams from a to b, all with the limit that `limit` says and that much data waiting.
fn bulk(pair: &mut Pair, streams: usize, bytes: usize) -> Vec<Key> {
    let keys: Vec<Key> = (0..streams).map(|_| pair.stream().0).collect();
    for (&key, id) in keys.iter().zip((1..).step_by(2)) {
        judge(&mut pair.a, [window(id, 0, 1 << 30)]).unwrap();
        assert_eq!(pair.a.write(key, &vec![7; bytes]), bytes);
    }
    keys
}

fn next_frames(pair: &mut Pair, out: usize) -> Vec<String> {
    let mut buffer = vec![0; out];
    let n = pair.a.transmit(pair.now, &mut buffer);
    let (mut decoder, mut input, mut frames) = (Decoder::new(), &buffer[..n], Vec::new());
    while let Some(frame) = decoder.next(&mut input).unwrap() {
        if let Frame::Data { stream, bytes, .. } = frame {
            frames.push(format!("{stream}:{}", bytes.len()));
        } else {
            frames.push(format!("{frame:?}").chars().take_while(|c| c.is_alphabetic()).collect());
        }
    }
    frames
}

#[test]
fn bulk_streams_take_turns_of_one_record() {
    let mut pair = Pair::new();
    bulk(&mut pair, 3, 64 * 1024);
    let turns: Vec<_> = (0..6).flat_map(|_| next_frames(&mut pair, 16 * 1024)).collect();
    assert_eq!(turns, ["1:16377", "3:16377", "5:16377", "1:16377", "3:16377", "5:16377"]);
    assert_eq!(next_frames(&mut pair, 64 * 1024).len(), 4, "a longer buffer is shared too");
}

#[test]
fn a_keystroke_overtakes_bulk_copies() {
    let mut pair = Pair::new();
    let (terminal, _) = pair.stream();
    let keys: Vec<Key> = (0..10).map(|_| pair.stream().0).collect();
    for (&key, id) in keys.iter().zip((3..).step_by(2)) {
        judge(&mut pair.a, [window(id, 0, 1 << 30)]).unwrap();
        pair.a.write(key, &[7; 256 * 1024]);
    }
    for _ in 0..15 {
        next_frames(&mut pair, 16 * 1024);
    }
    pair.a.write(terminal, b"x");
    assert_eq!(next_frames(&mut pair, 16 * 1024)[0], "1:1");
}

#[test]
fn a_stream_that_comes_back_at_once_does_not_starve_the_others() {
    let mut pair = Pair::new();
    let (busy, _) = pair.stream();
    let keys = [pair.stream().0, pair.stream().0];
    judge(&mut pair.a, [1, 3, 5].map(|id| window(id, 0, 1 << 30))).unwrap();
    for key in keys {
        pair.a.write(key, &[7; 64 * 1024]);
    }
    let mut others = 0;
    for _ in 0..9 {
        pair.a.write(busy, &[1; 16_377]);
        others += next_frames(&mut pair, 16 * 1024).iter().filter(|turn| !turn.starts_with("1:")).count();
    }
    assert!(others >= 5, "{others} of 9 turns for {} others", keys.len());
}

#[test]
fn control_frames_come_before_data() {
    let mut pair = Pair::new();
    let keys = bulk(&mut pair, 2, 64 * 1024);
    next_frames(&mut pair, 16 * 1024);
    pair.a.reset(keys[0], 1, "");
    pair.a.open(Protocol::Tcp, "host:1").unwrap();
    let frames = next_frames(&mut pair, 16 * 1024);
    assert!(
        matches!(&frames[..], [rst, syn, data] if rst == "Reset" && syn == "Syn" && data.starts_with("3:"))
    );
}

#[test]
fn frames_are_whole_in_any_buffer() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    judge(&mut pair.a, [window(1, 0, 1 << 30)]).unwrap();
    let bytes: Vec<u8> = (0..16_384u32).map(|n| n as u8).collect();
    pair.a.write(a, &bytes);
    for n in 0..300 {
        pair.a.open(Protocol::Tcp, &"x".repeat(n)).unwrap();
    }
    let mut size = MIN_TRANSMIT;
    while pair.a.wants_transmit() {
        let mut out = vec![0; size];
        let n = pair.a.transmit(pair.now, &mut out);
        assert!(n > 0);
        let mut input = &out[..n];
        let mut decoder = Decoder::new();
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            pair.b.receive(pair.now, frame).unwrap();
        }
        size += 1;
    }
    assert_eq!(pair.b.readable(b).concat(), bytes);
}
