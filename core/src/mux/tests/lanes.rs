//! A link that gives each stream a lane.

use super::*;
use crate::mux::MIN_TRANSMIT;

/// What `mux` hands out for lanes that take bytes if `takes` says so: the stream and the frames of each turn.
fn turns(pair: &mut Pair, takes: &mut dyn FnMut(u32) -> bool) -> Vec<(u32, Vec<String>)> {
    let mut out = vec![0; 16 * 1024];
    let mut turns = Vec::new();
    while let Some((id, n)) = pair.a.transmit_lane(pair.now, &mut out, takes) {
        let (mut decoder, mut input, mut words) = (Decoder::new(), &out[..n], Vec::new());
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            assert_eq!(frame.stream(), id);
            words.push(match &frame {
                Frame::Syn { target, .. } => format!("SYN {target}"),
                Frame::Data { bytes, fin, .. } => {
                    format!("DATA {}{}", bytes.len(), if *fin { " FIN" } else { "" })
                }
                Frame::Window { consumed, .. } => format!("WINDOW {consumed}"),
                Frame::Reset { .. } => "RST".to_owned(),
                Frame::Ping(_) | Frame::Pong(_) => "PING or PONG".to_owned(),
            });
            pair.b.receive(pair.now, frame).unwrap();
        }
        turns.push((id, words));
    }
    turns
}

#[test]
fn a_lane_carries_the_frames_of_its_stream_only() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    let (c, _) = pair.stream();
    pair.a.write(a, b"aaaa");
    pair.a.write(c, b"cc");
    let new = pair.a.open(Protocol::Tcp, "host:9").unwrap();
    pair.a.write(new, b"n");
    let got = turns(&mut pair, &mut |_| true);
    let want = [(5, "SYN host:9"), (1, "DATA 4"), (3, "DATA 2"), (5, "DATA 1")];
    assert_eq!(got, want.map(|(id, frame)| (id, vec![frame.to_owned()])));
    assert!(!pair.a.wants_transmit());
    assert_eq!(read(pair.now, &mut pair.b, b), b"aaaa");
}

#[test]
fn a_full_lane_holds_its_own_stream_and_no_other() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    let (c, _) = pair.stream();
    pair.a.write(a, b"aaaa");
    pair.a.write(c, b"cc");
    let mut asked = Vec::new();
    let got = turns(&mut pair, &mut |id| {
        asked.push(id);
        id != 1
    });
    assert_eq!(got, [(3, vec!["DATA 2".to_owned()])]);
    assert_eq!(asked, [1, 3], "a held stream is not asked for again");
    assert!(!pair.a.wants_transmit(), "and it keeps nobody awake");
    pair.a.write(a, b"more");
    pair.a.finish(a);
    assert!(!pair.a.wants_transmit());
    pair.a.release(1);
    assert_eq!(turns(&mut pair, &mut |_| true), [(1, vec!["DATA 8 FIN".to_owned()])]);
    assert_eq!(read(pair.now, &mut pair.b, b), b"aaaamore");
}

#[test]
fn a_new_stream_waits_for_a_lane_without_taking_an_id() {
    let mut pair = Pair::new();
    pair.a.open(Protocol::Tcp, "host:1").unwrap();
    assert_eq!(turns(&mut pair, &mut |_| false), []);
    assert_eq!(pair.a.resume().allocated, 0);
    assert!(pair.a.wants_transmit());
    assert_eq!(turns(&mut pair, &mut |id| id == 1), [(1, vec!["SYN host:1".to_owned()])]);
}

#[test]
fn after_a_change_of_links_every_own_stream_has_a_frame_that_opens_its_lane() {
    let mut pair = Pair::new();
    let (open, _) = pair.stream();
    let answered = pair.a.open(Protocol::Tcp, "host:2").unwrap();
    pair.a_to_b();
    let unseen = pair.a.open(Protocol::Tcp, "host:3").unwrap();
    turns_lost(&mut pair);
    let given_up = pair.a.open(Protocol::Tcp, "host:4").unwrap();
    turns_lost(&mut pair);
    pair.a.reset(given_up, 1, "");
    // The first link took nothing of a stream that the peer owns: it was held, and is not any more.
    pair.resume();
    let got = turns(&mut pair, &mut |_| true);
    let ids: Vec<u32> = got.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 3, 5, 7], "{got:?}");
    for key in [open, answered, unseen] {
        assert!(pair.a.bytes(key).is_some());
    }
}

/// Lets `a` send into a link that delivers nothing.
fn turns_lost(pair: &mut Pair) {
    let mut out = vec![0; MIN_TRANSMIT];
    while pair.a.transmit_lane(pair.now, &mut out, &mut |_| true).is_some() {}
}

#[test]
fn a_lane_can_end_once_both_ends_are_acknowledged_or_after_rst() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.finish(a);
    pair.b.finish(b);
    pair.pump();
    assert!(pair.a.is_live(1) && pair.b.is_live(1), "neither end was passed on");
    pair.a.finished(a);
    pair.b.finished(b);
    pair.pump();
    assert!(!pair.a.is_live(1) && !pair.b.is_live(1));

    let (a, _) = pair.stream();
    pair.a.reset(a, 1, "");
    assert!(pair.a.is_live(3), "the RST is still to go");
    pair.pump();
    assert!(!pair.a.is_live(3) && !pair.b.is_live(3));
}

#[test]
fn a_stream_beyond_the_cap_is_live_until_it_is_refused() {
    let mut pair = Pair::with(Config { max_streams: 1, ..Config::default() });
    let (_, _) = pair.stream();
    pair.b.receive(pair.now, syn(3)).unwrap();
    assert!(pair.b.is_live(3));
    std::mem::swap(&mut pair.a, &mut pair.b);
    let mut out = [0; MIN_TRANSMIT];
    assert_eq!(pair.a.transmit_lane(pair.now, &mut out, &mut |_| false), None);
    let (id, _) = pair.a.transmit_lane(pair.now, &mut out, &mut |_| true).unwrap();
    assert_eq!(id, 3);
    assert!(!pair.a.is_live(3));
}
