//! Opening, answering, ending, and what a peer must not do: a test a rule.

use super::*;
use crate::mux::code;
use crate::mux::{MAX_ID, MAX_TARGET, OpenError};

#[test]
fn a_stream_carries_both_ways_and_closes() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    assert_eq!(pair.a.write(a, b"question"), 8);
    pair.a.finish(a);
    pair.pump();
    assert_eq!(events(&mut pair.b), [Event::Readable { key: b }]);
    assert_eq!(read(pair.now, &mut pair.b, b), b"question");
    assert_eq!(events(&mut pair.b), [Event::Finished { key: b }]);
    pair.b.finished(b);
    pair.b.write(b, b"answer");
    pair.b.finish(b);
    pair.pump();
    assert_eq!(events(&mut pair.a), [Event::Readable { key: a }]);
    assert_eq!(read(pair.now, &mut pair.a, a), b"answer");
    assert_eq!(events(&mut pair.a), [Event::Finished { key: a }]);
    pair.a.finished(a);
    pair.pump();
    assert_eq!(events(&mut pair.a), [Event::Closed { key: a }]);
    assert_eq!(events(&mut pair.b), [Event::Closed { key: b }]);
    assert_eq!(pair.a.stats().streams + pair.b.stats().streams, 0);
    assert_eq!((pair.a.stats().bytes_sent, pair.a.stats().bytes_received), (8, 6));
}

#[test]
fn half_close_passes_both_ways() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.b.finish(b);
    pair.pump();
    assert_eq!(events(&mut pair.a), [Event::Finished { key: a }]);
    pair.a.finished(a);
    pair.a.write(a, b"still here");
    pair.pump();
    assert_eq!(read(pair.now, &mut pair.b, b), b"still here");
    assert_eq!(pair.b.write(b, b"no more"), 0, "its own direction has ended");
}

#[test]
fn ids_are_taken_in_the_link_and_without_gaps() {
    let mut pair = Pair::new();
    let first = pair.a.open(Protocol::Tcp, "given-up:1").unwrap();
    pair.a.open(Protocol::Tcp, "one:1").unwrap();
    pair.a.reset(first, code::ABORTED, "");
    pair.a.open(Protocol::Tcp, "two:1").unwrap();
    assert_eq!(sent(pair.now, &mut pair.a), ["SYN 1 one:1", "SYN 3 two:1"]);
    pair.b.open(Protocol::Tcp, "three:1").unwrap();
    assert_eq!(sent(pair.now, &mut pair.b), ["SYN 2 three:1"]);
}

#[test]
fn data_goes_with_the_syn() {
    let mut pair = Pair::new();
    let key = pair.a.open(Protocol::Tcp, "host:1").unwrap();
    assert_eq!(pair.a.write(key, &[1; 20_000]), 16_384, "the initial credit");
    pair.a.finish(key);
    assert_eq!(sent(pair.now, &mut pair.a), ["SYN 1 host:1", "DATA 1 16384 FIN"]);
}

#[test]
fn a_fin_needs_no_credit() {
    let mut pair = Pair::new();
    let (a, _) = pair.stream();
    pair.a.write(a, &[1; 16_384]);
    pair.a_to_b();
    assert_eq!(pair.a.writable(a), 0);
    pair.a.finish(a);
    assert_eq!(sent(pair.now, &mut pair.a), ["DATA 1 0 FIN"]);
}

#[test]
fn at_most_256_syns_are_unanswered_and_later_ones_keep_their_order() {
    let mut pair = Pair::new();
    for n in 0..300 {
        pair.a.open(Protocol::Tcp, &n.to_string()).unwrap();
    }
    let syns = sent(pair.now, &mut pair.a);
    assert_eq!(syns.len(), 256);
    assert!(!pair.a.wants_transmit());
    // An answer of either kind lets the next one go.
    judge(&mut pair.a, [window(1, 0, 16_384), rst(3)]).unwrap();
    assert_eq!(sent(pair.now, &mut pair.a), ["SYN 513 256", "SYN 515 257"]);
}

#[test]
fn the_acceptor_sends_nothing_before_its_answer() {
    let mut pair = Pair::new();
    let a = pair.a.open(Protocol::Tcp, "host:1").unwrap();
    pair.a.write(a, b"early");
    pair.pump();
    let Some(Event::Incoming { key, protocol: Protocol::Tcp, target }) = pair.b.poll_event() else {
        panic!("no stream")
    };
    assert_eq!(target, "host:1");
    assert_eq!(pair.b.writable(key), 0);
    pair.b.finish(key);
    assert_eq!(read(pair.now, &mut pair.b, key), b"early");
    assert!(!pair.b.wants_transmit());
    pair.b.accept(key);
    assert_eq!(sent(pair.now, &mut pair.b), ["WINDOW 1 5", "DATA 1 0 FIN"]);
}

#[test]
fn a_refusal_reaches_the_opener_with_its_reason() {
    let mut pair = Pair::new();
    let a = pair.a.open(Protocol::Tcp, "host:1").unwrap();
    pair.pump();
    let Some(Event::Incoming { key, .. }) = pair.b.poll_event() else { panic!("no stream") };
    pair.b.reset(key, code::REFUSED, "connection refused");
    pair.pump();
    let text = "connection refused".to_owned();
    assert_eq!(events(&mut pair.a), [Event::Reset { key: a, code: code::REFUSED, text }]);
    assert_eq!((pair.a.slots.len(), pair.b.slots.len()), (0, 0));
}

#[test]
fn a_reset_drops_what_waits_and_nothing_follows_it() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.write(a, b"lost");
    pair.a.reset(a, code::ABORTED, "gone");
    assert_eq!(pair.a.write(a, b"stale"), 0);
    pair.b.write(b, b"crossing");
    assert_eq!(sent(pair.now, &mut pair.b), ["DATA 1 8"]);
    judge(&mut pair.a, [data(1, b"crossing"), window(1, 0, 99_999)]).unwrap();
    assert_eq!(sent(pair.now, &mut pair.a), ["RST 1 1 gone"]);
    judge(&mut pair.a, [data(1, b"late"), window(1, 0, 99_999), rst(1)]).unwrap();
    assert!(!pair.a.wants_transmit(), "frames for a closed id are dropped");
    assert_eq!(events(&mut pair.a), []);
}

#[test]
fn rst_never_answers_rst() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.reset(a, code::ABORTED, "");
    pair.b.reset(b, code::ABORTED, "");
    judge(&mut pair.a, [rst(1)]).unwrap();
    assert!(!pair.a.wants_transmit());
    assert_eq!(sent(pair.now, &mut pair.b).len(), 1);
    assert_eq!((pair.a.slots.len(), pair.b.slots.len()), (0, 0));
}

#[test]
fn a_stream_reset_before_the_application_heard_of_it_is_never_heard_of() {
    let mut pair = Pair::new();
    judge(&mut pair.b, [syn(1), data(1, b"x"), rst(1)]).unwrap();
    assert_eq!(events(&mut pair.b), []);
    assert_eq!(pair.b.slots.len(), 0);
}

#[test]
fn a_stale_key_is_harmless() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.reset(a, code::ABORTED, "");
    pair.pump();
    events(&mut pair.b);
    let (c, _) = pair.stream();
    assert_eq!(a.index(), c.index(), "the slot is used again");
    let now = pair.now;
    for (mux, key) in [(&mut pair.a, a), (&mut pair.b, b)] {
        mux.accept(key);
        mux.finish(key);
        mux.finished(key);
        mux.wrote(key, 10);
        mux.consume(now, key, 10);
        mux.reset(key, 1, "");
        assert_eq!(mux.writable(key) + mux.write(key, b"x") + mux.space(key)[0].len(), 0);
        assert!(mux.readable(key)[0].is_empty() && mux.bytes(key).is_none());
    }
    assert!(!pair.a.wants_transmit() && !pair.b.wants_transmit());
    assert_eq!(pair.a.stats().streams, 1);
}

#[test]
fn a_peer_that_breaks_a_rule_is_told_apart_from_one_that_is_late() {
    let open = |frames: Vec<Frame<'static>>| {
        let mut pair = Pair::new();
        pair.stream();
        judge(&mut pair.b, frames)
    };
    let fin = |stream| Frame::Data { stream, bytes: &[], fin: true };
    // b holds stream 1, opened by a, and nothing else.
    assert_eq!(open(vec![syn(2)]), Err(Violation::Parity(2)), "b's own parity");
    assert_eq!(open(vec![syn(MAX_ID + 1)]), Err(Violation::Parity(MAX_ID + 1)));
    assert_eq!(open(vec![syn(1)]), Err(Violation::DuplicateSyn(1)));
    assert_eq!(open(vec![data(3, b"x")]), Err(Violation::UnknownStream(3)));
    assert_eq!(open(vec![data(2, b"x")]), Err(Violation::UnknownStream(2)));
    assert_eq!(open(vec![window(5, 0, 0)]), Err(Violation::UnknownStream(5)));
    assert_eq!(open(vec![rst(2)]), Err(Violation::UnknownStream(2)));
    assert_eq!(open(vec![syn(5), data(3, b"x")]), Err(Violation::BeforeSyn(3)));
    assert_eq!(open(vec![syn(5), window(3, 0, 0)]), Err(Violation::BeforeSyn(3)));
    assert_eq!(open(vec![fin(1), data(1, b"x")]), Err(Violation::AfterFin(1)));
    assert_eq!(open(vec![fin(1), fin(1)]), Err(Violation::AfterFin(1)));
    assert_eq!(open(vec![window(1, 1, 99_999)]), Err(Violation::ConsumedUnsent(1)));
    assert_eq!(open(vec![window(1, 0, 16_383)]), Err(Violation::WindowBackwards(1)));
    assert_eq!(open(vec![data(1, &[0; 16_384])]), Ok(()));
    assert_eq!(open(vec![data(1, &[0; 16_384]), data(1, b"x")]), Err(Violation::Credit(1)));
    assert_eq!(open(vec![data(1, &[0; 16_384]), fin(1)]), Ok(()));
    assert_eq!(open(vec![syn(u32::MAX / 8 * 2 + 1)]), Err(Violation::SynFlood));
    assert_eq!(open(vec![syn(3), rst(3), data(3, b"x"), window(3, 7, 7), syn(3), rst(3)]), Ok(()));
    assert_eq!(open(vec![Frame::Ping([0; 8]), Frame::Pong([0; 8]), data(0, b"x")]), Ok(()));
}

#[test]
fn data_from_an_acceptor_that_has_not_answered_ends_the_link() {
    let mut pair = Pair::new();
    pair.a.open(Protocol::Tcp, "host:1").unwrap();
    sent(pair.now, &mut pair.a);
    assert_eq!(judge(&mut pair.a, [data(1, b"x")]), Err(Violation::BeforeAnswer(1)));
}

#[test]
fn a_window_cannot_acknowledge_the_fin_before_it_is_sent() {
    let mut pair = Pair::new();
    let (a, _) = pair.stream();
    pair.a.write(a, b"four");
    pair.a.finish(a);
    assert_eq!(judge(&mut pair.a, [window(1, 1, 99_999)]), Err(Violation::ConsumedUnsent(1)));
    pair.a_to_b();
    assert_eq!(judge(&mut pair.a, [window(1, 6, 99_999)]), Err(Violation::ConsumedUnsent(1)));
    judge(&mut pair.a, [window(1, 5, u64::MAX)]).unwrap();
    assert_eq!(judge(&mut pair.a, [window(1, 4, u64::MAX)]), Err(Violation::WindowBackwards(1)));
}

#[test]
fn a_higher_id_makes_the_lower_ones_awaited() {
    let mut pair = Pair::new();
    judge(&mut pair.b, [syn(5)]).unwrap();
    assert_eq!(pair.b.slots.len(), 3, "counted in the cap");
    judge(&mut pair.b, [syn(1), rst(3)]).unwrap();
    let targets = events(&mut pair.b);
    assert_eq!(targets.len(), 2, "{targets:?}");
    assert_eq!(pair.b.slots.len(), 2);
    // One that was given up before any link carried its SYN.
    judge(&mut pair.b, [rst(9), syn(7), data(9, b"late")]).unwrap();
    assert_eq!(events(&mut pair.b).len(), 1);
}

#[test]
fn streams_beyond_the_cap_are_refused() {
    let mut pair = Pair::with(Config { max_streams: 4, ..Config::default() });
    judge(&mut pair.b, (0..6).map(|n| syn(2 * n + 1))).unwrap();
    let rst = |id: u32| format!("RST {id} {} too many streams", code::TOO_MANY);
    assert_eq!(sent(pair.now, &mut pair.b), [rst(9), rst(11)]);
    assert_eq!(pair.b.open(Protocol::Tcp, "host:1"), Err(OpenError::TooMany(4)));
}

#[test]
fn unanswered_streams_beyond_the_cap_are_refused_and_a_flood_ends_the_link() {
    let mut pair = Pair::new();
    judge(&mut pair.b, (0..256 + 256).map(|n| syn(2 * n + 1))).unwrap();
    assert_eq!(judge(&mut pair.b, [syn(1025)]), Err(Violation::SynFlood));
    assert_eq!(events(&mut pair.b).len(), 256);
    assert_eq!(sent(pair.now, &mut pair.b).len(), 256);
}

#[test]
fn a_refusal_is_not_sent_for_a_stream_that_was_reset_meanwhile() {
    let mut pair = Pair::with(Config { max_streams: 0, ..Config::default() });
    judge(&mut pair.b, (0..10_000).flat_map(|n| [syn(2 * n + 1), rst(2 * n + 1)])).unwrap();
    assert!(!pair.b.wants_transmit());
}

#[test]
fn rapid_resets_end_the_link_and_cost_no_dial() {
    let mut pair = Pair::new();
    let pairs = (0..100_000).flat_map(|n| [syn(2 * n + 1), rst(2 * n + 1)]);
    assert_eq!(judge(&mut pair.b, pairs), Err(Violation::RapidReset));
    assert_eq!(events(&mut pair.b).len(), 1, "the one with which the patience ended");
}

#[test]
fn this_side_resets_rapidly_only_so_often_and_then_waits_for_answers() {
    let mut pair = Pair::new();
    for _ in 0..2000 {
        let key = pair.a.open(Protocol::Tcp, "host:1").unwrap();
        pair.a_to_b();
        pair.a.reset(key, code::ABORTED, "");
        pair.a_to_b();
    }
    // The first 200 went at once, 256 have their SYN out and wait, the others never got an id.
    assert_eq!(pair.a.slots.len(), 256);
    let incoming = events(&mut pair.b);
    assert_eq!(incoming.len(), 256);
    for event in incoming {
        let Event::Incoming { key, .. } = event else { panic!("{event:?}") };
        pair.b.accept(key);
    }
    pair.pump();
    assert_eq!((pair.a.slots.len(), pair.b.stats().streams), (0, 0));
    assert_eq!(events(&mut pair.b).len(), 256, "each is told");
}

#[test]
fn a_target_too_long_for_a_syn_is_not_taken() {
    let mut pair = Pair::new();
    let target = "x".repeat(MAX_TARGET + 1);
    assert_eq!(pair.a.open(Protocol::Tcp, &target), Err(OpenError::TargetTooLong(MAX_TARGET + 1)));
    pair.a.open(Protocol::Tcp, &target[1..]).unwrap();
    pair.pump();
    assert_eq!(events(&mut pair.b).len(), 1);
}

#[test]
fn a_session_runs_out_of_ids_in_order() {
    let mut pair = Pair::new();
    pair.a.allocated = MAX_ID - 2 * 4096 - 1;
    pair.a.open(Protocol::Tcp, "host:1").unwrap();
    assert_eq!(sent(pair.now, &mut pair.a), [format!("SYN {} host:1", MAX_ID - 2 * 4096 + 1)]);
    assert_eq!(pair.a.open(Protocol::Tcp, "host:1"), Err(OpenError::Exhausted));
}

#[test]
fn frames_without_a_link_are_passed_over() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.b.detach();
    judge(&mut pair.b, [data(1, b"x"), data(77, b"x"), syn(2)]).unwrap();
    assert!(pair.b.readable(b)[0].is_empty());
    pair.a.write(a, b"x");
    pair.a.detach();
    assert!(!pair.a.wants_transmit());
    assert_eq!(pair.a.transmit(pair.now, &mut [0; 2000]), 0);
}

#[test]
fn ten_thousand_streams_one_after_another_leave_nothing() {
    let mut pair = Pair::new();
    for _ in 0..10_000 {
        let (a, b) = pair.stream();
        for (mux, key) in [(&mut pair.a, a), (&mut pair.b, b)] {
            mux.write(key, b"hello");
            mux.finish(key);
        }
        pair.pump();
        let now = pair.now;
        for (mux, key) in [(&mut pair.a, a), (&mut pair.b, b)] {
            assert_eq!(read(now, mux, key), b"hello");
            mux.finished(key);
        }
        pair.pump();
        assert_eq!(events(&mut pair.a).pop(), Some(Event::Closed { key: a }));
        assert_eq!(events(&mut pair.b).pop(), Some(Event::Closed { key: b }));
    }
    for mux in [&pair.a, &pair.b] {
        assert_eq!(mux.stats().memory, 0);
        assert_eq!((mux.send_pool.used(), mux.recv_pool.used()), (0, 0));
        assert!(mux.ids.is_empty());
    }
}
