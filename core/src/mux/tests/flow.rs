//! Credit, windows, memory, and what survives a change of links.

use super::*;
use crate::mux::stream::Stream;
use crate::mux::{MAX_MEMORY, MAX_RESET_TEXT, MAX_SYN, ResumeStream, code};

/// Moves `bytes` from a to b with a reader that takes what comes; a round trip takes `rtt`.
fn transfer(pair: &mut Pair, keys: (Key, Key), mut bytes: usize, rtt: Duration) {
    let chunk = vec![3; 64 * 1024];
    while bytes > 0 {
        let mut n = 1;
        while n > 0 && bytes > 0 {
            n = pair.a.write(keys.0, &chunk[..chunk.len().min(bytes)]);
            bytes -= n;
        }
        pair.a_to_b();
        pair.now += rtt / 2;
        read(pair.now, &mut pair.b, keys.1);
        pair.b_to_a();
        pair.now += rtt / 2;
    }
}

fn receive_window(pair: &Pair, key: Key) -> usize {
    pair.b.slots.at(pair.b.slots.find(key).unwrap()).unwrap().recv.window
}

#[test]
fn a_window_grows_for_a_reader_that_keeps_up_to_what_the_path_can_use() {
    // What exceeds a round trip at 10 Gbit/s would only lie in the link.
    for (rtt, window) in [(Duration::from_micros(200), 256 << 10), (Duration::from_millis(100), 4 << 20)] {
        let mut pair = Pair::new();
        pair.b.set_rtt(rtt);
        let keys = pair.stream();
        let begin = pair.now;
        transfer(&mut pair, keys, 8 << 20, rtt);
        assert_eq!(receive_window(&pair, keys.1), window, "rtt {rtt:?}");
        // 16 KiB at a time it would take 512 of them.
        assert!(pair.now - begin < rtt * 60, "rtt {rtt:?}: {:?}", pair.now - begin);
    }
}

/// What fills a line of two megabits takes longer than a ping, and so does all that waits for acknowledgements.
#[test]
fn a_window_grows_where_it_takes_longer_than_a_ping_to_come() {
    let rtt = Duration::from_millis(600);
    let mut pair = Pair::new();
    pair.b.set_rtt(rtt);
    let keys = pair.stream();
    transfer(&mut pair, keys, 8 << 20, rtt + Duration::from_millis(66));
    assert_eq!(receive_window(&pair, keys.1), 4 << 20);
}

#[test]
fn a_window_stays_small_for_a_slow_reader() {
    let mut pair = Pair::new();
    pair.b.set_rtt(Duration::from_millis(10));
    let (a, b) = pair.stream();
    for _ in 0..100 {
        while pair.a.write(a, &[1; 4096]) > 0 {}
        pair.pump();
        pair.b.consume(pair.now, b, 4096);
        pair.pass(Duration::from_millis(40));
    }
    assert_eq!(receive_window(&pair, b), 16 * 1024);
}

#[test]
fn a_reader_that_stops_holds_only_its_window() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    for _ in 0..100 {
        while pair.a.write(a, &[1; 4096]) > 0 {}
        pair.pump();
    }
    assert_eq!(pair.b.readable(b).concat().len(), 16 * 1024);
    assert_eq!(pair.a.writable(a), 0);
    let (c, d) = pair.stream();
    pair.a.write(c, b"others go on");
    pair.pump();
    assert_eq!(read(pair.now, &mut pair.b, d), b"others go on");
}

#[test]
fn windows_are_rare_and_the_writer_wakes() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.write(a, &[1; 16_384]);
    pair.a_to_b();
    assert_eq!(pair.a.writable(a), 0);
    events(&mut pair.b);
    let mut windows = 0;
    for _ in 0..16_384 / 64 {
        pair.b.consume(pair.now, b, 64);
        windows += sent(pair.now, &mut pair.b).len();
    }
    assert!((2..=4).contains(&windows), "{windows}: about one for each quarter of the window");
    judge(&mut pair.a, [window(1, 8192, 16_384 + 8192)]).unwrap();
    assert_eq!(events(&mut pair.a), [Event::Writable { key: a }]);
    assert_eq!(pair.a.writable(a), 8192);
}

#[test]
fn what_was_consumed_is_acknowledged_within_a_tick() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.write(a, b"keystroke");
    pair.pump();
    read(pair.now, &mut pair.b, b);
    assert!(!pair.b.wants_transmit(), "not worth a frame yet");
    pair.now = pair.b.deadline().unwrap().0;
    pair.b.tick(pair.now);
    assert_eq!(sent(pair.now, &mut pair.b), ["WINDOW 1 9"]);
}

#[test]
fn a_limit_is_never_taken_back() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    transfer(&mut pair, (a, b), 8 << 20, Duration::from_millis(1));
    let outstanding =
        |pair: &Pair| pair.b.slots.at(pair.b.slots.find(b).unwrap()).unwrap().recv.outstanding();
    let granted = outstanding(&pair);
    assert!(granted > 1 << 20);
    for _ in 0..20 {
        pair.pass(Duration::from_secs(1));
        pair.pump();
    }
    assert_eq!(receive_window(&pair, b), 16 * 1024, "an idle stream is trusted with little");
    assert!(outstanding(&pair) >= granted, "but what it was promised holds");
    assert!(pair.b.recv_pool.used() >= granted - 16 * 1024);
    // What the peer uses of it is not granted again: the share comes back.
    let mut written = 0;
    while written < granted {
        let n = pair.a.write(a, &vec![1; granted - written]);
        written += n;
        pair.a_to_b();
        let n = pair.b.readable(b).concat().len();
        pair.now += Duration::from_secs(10);
        pair.b.consume(pair.now, b, n);
        pair.b_to_a();
    }
    for _ in 0..3 {
        pair.pass(Duration::from_secs(1));
    }
    assert!(pair.b.recv_pool.used() < granted / 2, "{}", pair.b.recv_pool.used());
}

#[test]
fn idle_streams_hold_no_buffers() {
    let mut pair = Pair::new();
    let keys: Vec<_> = (0..100).map(|_| pair.stream()).collect();
    for &(a, b) in &keys {
        transfer(&mut pair, (a, b), 1 << 20, Duration::from_millis(1));
    }
    assert!(pair.a.stats().memory > 1 << 20);
    // An acknowledgement that did not fill a WINDOW comes with the first tick, memory goes with the next.
    for _ in 0..12 {
        pair.pass(Duration::from_secs(1));
        pair.pump();
    }
    for mux in [&pair.a, &pair.b] {
        assert_eq!(mux.stats().memory, 100 * size_of::<Stream>());
        assert_eq!(mux.deadline(), None);
    }
    assert_eq!(pair.a.send_pool.used(), 0);
}

/// A sender whose memory is short retains less than the receiver's window.
#[test]
fn a_sender_short_of_memory_does_not_stall() {
    let mut pair = Pair::new();
    pair.a.send_pool = crate::mux::pool::Pool::new(0);
    let (a, b) = pair.stream();
    let slot = pair.b.slots.find(b).unwrap();
    let recv = &mut pair.b.slots.at_mut(slot).unwrap().recv;
    recv.window = 4 << 20;
    recv.limit = 4 << 20;
    recv.reserved = 4 << 20;
    judge(&mut pair.a, [window(1, 0, 4 << 20)]).unwrap();
    let mut left = 1 << 20;
    for _ in 0..200 {
        left -= pair.a.write(a, &vec![1; left]);
        pair.pump();
        read(pair.now, &mut pair.b, b);
        pair.pump();
    }
    assert_eq!(left, 0);
}

#[test]
fn readers_that_stop_cannot_exceed_the_stated_memory() {
    assert!(size_of::<Stream>() + MAX_SYN.max(MAX_RESET_TEXT) <= 2048, "{}", size_of::<Stream>());
    let mut pair = Pair::new();
    pair.a.set_rtt(Duration::from_millis(1));
    pair.b.set_rtt(Duration::from_millis(1));
    let keys: Vec<_> = (0..4096).map(|_| pair.stream()).collect();
    assert!(pair.a.open(Protocol::Tcp, "host:1").is_err());
    // Both directions of all streams; the windows of the first ones grow, then all readers stop.
    for &(a, b) in &keys[..40] {
        transfer(&mut pair, (a, b), 6 << 20, Duration::from_millis(1));
    }
    for &(a, b) in &keys {
        while pair.a.write(a, &[1; 65_536]) > 0 {}
        while pair.b.write(b, &[1; 65_536]) > 0 {}
    }
    pair.pump();
    for &(a, b) in &keys {
        while pair.a.write(a, &[1; 65_536]) > 0 {}
        while pair.b.write(b, &[1; 65_536]) > 0 {}
    }
    pair.pump();
    for mux in [&pair.a, &pair.b] {
        let memory = mux.stats().memory;
        assert!(memory <= MAX_MEMORY, "{memory}");
        assert!(memory > 4096 * 2 * 16 * 1024, "{memory}: the test fills it");
        assert!(mux.send_pool.used() <= 8 << 20 && mux.recv_pool.used() <= 8 << 20);
    }
}

#[test]
fn bytes_lost_with_a_link_come_again_once() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.write(a, b"arrives ");
    pair.a_to_b();
    pair.a.write(a, b"is lost ");
    pair.a.finish(a);
    assert_eq!(sent(pair.now, &mut pair.a), ["DATA 1 8 FIN"]);
    assert_eq!(pair.a.stats().bytes_sent, 16);
    pair.resume();
    pair.pump();
    assert_eq!(read(pair.now, &mut pair.b, b), b"arrives is lost ");
    assert_eq!(events(&mut pair.b).last(), Some(&Event::Finished { key: b }));
    assert_eq!(pair.a.stats().bytes_sent, 16, "each byte counts once");
}

#[test]
fn bytes_that_a_resume_acknowledges_are_retained_no_longer() {
    let mut pair = Pair::new();
    let (a, _) = pair.stream();
    pair.a.write(a, &[1; 16_384]);
    pair.pump();
    let retained = |pair: &Pair| pair.a.slots.at(pair.a.slots.find(a).unwrap()).unwrap().send.ring.len();
    assert_eq!(retained(&pair), 16_384, "received, but not consumed");
    pair.resume();
    assert_eq!(retained(&pair), 0);
    pair.pump();
    assert_eq!(pair.a.writable(a), 0, "it gives no credit");
}

#[test]
fn a_window_lost_with_a_link_comes_with_the_resume() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.write(a, &[1; 16_384]);
    assert_eq!(pair.a.writable(a), 0);
    pair.a_to_b();
    read(pair.now, &mut pair.b, b);
    assert_eq!(sent(pair.now, &mut pair.b).len(), 1);
    pair.resume();
    assert_eq!(events(&mut pair.a), [Event::Writable { key: a }]);
    assert_eq!(pair.a.writable(a), 16_384);
}

#[test]
fn a_syn_lost_with_a_link_comes_again_with_its_data() {
    let mut pair = Pair::new();
    let a = pair.a.open(Protocol::Tcp, "host:1").unwrap();
    pair.a.write(a, b"early");
    assert_eq!(sent(pair.now, &mut pair.a).len(), 2);
    pair.resume();
    assert_eq!(sent(pair.now, &mut pair.a), ["SYN 1 host:1", "DATA 1 5"]);
}

#[test]
fn an_answer_lost_with_a_link_comes_again() {
    let mut pair = Pair::new();
    let a = pair.a.open(Protocol::Tcp, "host:1").unwrap();
    pair.pump();
    let Some(Event::Incoming { key, .. }) = pair.b.poll_event() else { panic!("no stream") };
    pair.b.accept(key);
    assert_eq!(sent(pair.now, &mut pair.b), ["WINDOW 1 0"]);
    pair.resume();
    pair.pump();
    assert_eq!(events(&mut pair.a), [Event::Accepted { key: a }]);
}

#[test]
fn a_stream_that_was_not_answered_is_not_answered_by_a_resume() {
    let mut pair = Pair::new();
    pair.a.open(Protocol::Tcp, "host:1").unwrap();
    pair.pump();
    pair.resume();
    // The opener names its stream again, for links on which that opens the lane of the answer.
    assert_eq!(sent(pair.now, &mut pair.a), ["WINDOW 1 0"]);
    pair.b.receive(pair.now, window(1, 0, 16_384)).unwrap();
    assert_eq!(pair.b_to_a(), 0);
    assert_eq!(events(&mut pair.a), []);
}

#[test]
fn a_reset_lost_with_a_link_is_found_out_with_its_reason_and_no_rst_is_sent() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.b.reset(b, code::REFUSED, "nobody listens");
    assert_eq!(sent(pair.now, &mut pair.b).len(), 1);
    // The first RESUME is lost too.
    assert_eq!(pair.b.resume().resets.len(), 1);
    let peer = pair.a.resume();
    pair.b.attach(pair.now, &peer).unwrap();
    pair.resume();
    let text = "nobody listens".to_owned();
    assert_eq!(events(&mut pair.a), [Event::Reset { key: a, code: code::REFUSED, text }]);
    assert_eq!(pair.a_to_b() + pair.b_to_a(), 0);
    // Now it is known there.
    pair.resume();
    assert_eq!(pair.b.resume().resets, []);
}

#[test]
fn so_many_reasons_are_kept_and_the_latest_ones() {
    let mut pair = Pair::new();
    let streams: Vec<_> = (0..100).map(|_| pair.stream()).collect();
    for (at, (_, b)) in streams.iter().enumerate() {
        pair.b.reset(*b, code::REFUSED, &at.to_string());
    }
    assert_eq!(sent(pair.now, &mut pair.b).len(), 100);
    pair.resume();
    let told = events(&mut pair.a);
    let gone = told.iter().filter(|event| matches!(event, Event::Reset { code: code::GONE, .. })).count();
    assert_eq!((told.len(), gone), (100, 36));
    assert!(matches!(told.last(), Some(Event::Reset { text, .. }) if text == "99"), "{told:?}");
}

#[test]
fn a_reset_that_no_link_carried_keeps_its_reason() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.b.detach();
    pair.b.reset(b, code::TIMEOUT, "too slow");
    pair.resume();
    pair.pump();
    let text = "too slow".to_owned();
    assert_eq!(events(&mut pair.a), [Event::Reset { key: a, code: code::TIMEOUT, text }]);
}

#[test]
fn an_own_stream_given_up_before_the_peer_saw_it_leaves_nothing_there() {
    let mut pair = Pair::new();
    let first = pair.a.open(Protocol::Tcp, "first:1").unwrap();
    let second = pair.a.open(Protocol::Tcp, "second:1").unwrap();
    pair.a.open(Protocol::Tcp, "third:1").unwrap();
    sent(pair.now, &mut pair.a);
    // The SYNs are lost; so is the RST of the first, the second's has not gone yet.
    pair.a.reset(first, code::ABORTED, "");
    assert_eq!(sent(pair.now, &mut pair.a).len(), 1);
    pair.a.reset(second, code::ABORTED, "");
    pair.resume();
    pair.pump();
    let incoming = events(&mut pair.b);
    assert!(matches!(&incoming[..], [Event::Incoming { target, .. }] if target == "third:1"), "{incoming:?}");
    assert_eq!(pair.b.slots.len(), 1);
}

#[test]
fn a_lost_last_acknowledgement_is_no_error() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.finish(a);
    pair.b.finish(b);
    pair.pump();
    pair.a.finished(a);
    pair.b.finished(b);
    pair.a_to_b();
    // b has closed; its own acknowledgement is lost.
    assert_eq!(sent(pair.now, &mut pair.b), ["WINDOW 1 1"]);
    assert_eq!(events(&mut pair.b).last(), Some(&Event::Closed { key: b }));
    pair.resume();
    assert_eq!(events(&mut pair.a).last(), Some(&Event::Closed { key: a }));
}

#[test]
fn a_resume_that_cannot_be_true_is_refused_and_changes_nothing() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.write(a, b"hello");
    pair.pump();
    pair.b.consume(pair.now, b, 5);
    judge(&mut pair.a, [window(1, 5, 16_384)]).unwrap();
    pair.a.detach();
    let truth = pair.b.resume();
    let first = truth.streams[0];
    let with = |stream| Resume { streams: vec![stream], ..truth.clone() };
    let lies = [
        with(ResumeStream { received: 4, ..first }),
        with(ResumeStream { received: 6, ..first }),
        with(ResumeStream { received: u64::MAX, ..first }),
        with(ResumeStream { limit: 16_383, ..first }),
        with(ResumeStream { fin: true, ..first }),
        with(ResumeStream { syn: false, ..first }),
        with(ResumeStream { id: 0, ..first }),
        with(ResumeStream { id: 2, ..first }),
        with(ResumeStream { id: 3, ..first }),
        Resume { streams: vec![first, first], ..truth.clone() },
        Resume { seen: 0, ..truth.clone() },
        Resume { seen: 3, ..truth.clone() },
        Resume { allocated: 1, ..truth.clone() },
        Resume { allocated: u32::MAX - 1, ..truth.clone() },
        Resume::default(),
    ];
    for (at, lie) in lies.iter().enumerate() {
        assert!(pair.a.attach(pair.now, lie).is_err(), "lie {at}: {lie:?}");
        assert!(!pair.a.wants_transmit());
    }
    pair.a.attach(pair.now, &truth).unwrap();
    assert_eq!(pair.a.stats().streams, 1);
}

#[test]
fn a_resume_is_read_up_to_its_cap() {
    let stream = |id| ResumeStream { id, syn: true, received: 1 << 40, fin: false, limit: 1 << 41 };
    let mut resume =
        Resume { seen: 1, allocated: 2, streams: (1..=8192).map(stream).collect(), ..Resume::default() };
    let bytes = rmp_serde::to_vec_named(&resume).unwrap();
    assert!(bytes.len() < 300_000, "it fits a control message: {}", bytes.len());
    assert_eq!(rmp_serde::from_slice::<Resume>(&bytes).unwrap(), resume);
    resume.streams.push(stream(9000));
    let bytes = rmp_serde::to_vec_named(&resume).unwrap();
    assert!(rmp_serde::from_slice::<Resume>(&bytes).is_err());
    // A length without content.
    let mut claim = bytes[..bytes.len() - 8193 * 23].to_vec();
    claim.truncate(40);
    assert!(rmp_serde::from_slice::<Resume>(&claim).is_err());
}

#[test]
fn too_long_without_a_link_resets_all_and_the_peer_finds_out() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    let waiting = pair.a.open(Protocol::Tcp, "host:1").unwrap();
    pair.a.reset_all(code::NO_LINK, "no link for 30 s");
    let text = "no link for 30 s".to_owned();
    let reset = |key| Event::Reset { key, code: code::NO_LINK, text: text.clone() };
    assert_eq!(events(&mut pair.a), [reset(a), reset(waiting)]);
    pair.resume();
    assert!(matches!(events(&mut pair.b)[..], [Event::Reset { key, .. }] if key == b));
    let (_, _) = pair.stream();
}

#[test]
fn a_peer_that_was_started_anew_gets_the_streams_that_still_waited() {
    let mut pair = Pair::new();
    let (a, _) = pair.stream();
    pair.a.detach();
    pair.a.open(Protocol::Tcp, "waiting:1").unwrap();
    pair.a.restart(code::RESTARTED, "the peer was started anew");
    assert!(matches!(events(&mut pair.a)[..], [Event::Reset { key, .. }] if key == a));
    pair.b = Mux::new(Side::Controlled, Config::default());
    pair.resume();
    assert_eq!(sent(pair.now, &mut pair.a), ["SYN 1 waiting:1"]);
}

#[test]
fn a_lost_reset_is_not_taken_for_an_orderly_end() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.finish(a);
    pair.b.finish(b);
    pair.pump();
    pair.b.finished(b);
    // Without b's acknowledgement a cannot have closed; it gave up, and its RST is lost.
    pair.a.reset(a, code::ABORTED, "");
    assert_eq!(sent(pair.now, &mut pair.a).len(), 1);
    pair.resume();
    let last = events(&mut pair.b).pop();
    assert!(matches!(last, Some(Event::Reset { key, code: code::ABORTED, .. }) if key == b), "{last:?}");
}

#[test]
fn a_last_acknowledgement_that_was_lost_is_sent_again_before_the_stream_closes() {
    let mut pair = Pair::new();
    let (a, b) = pair.stream();
    pair.a.finish(a);
    pair.b.finish(b);
    pair.pump();
    pair.b.finished(b);
    assert_eq!(sent(pair.now, &mut pair.b), ["WINDOW 1 1"]);
    pair.a.finished(a);
    pair.resume();
    // b hears that its own FIN was passed on before it could repeat what was lost.
    pair.a_to_b();
    pair.pump();
    assert_eq!(events(&mut pair.a).last(), Some(&Event::Closed { key: a }));
    assert_eq!(events(&mut pair.b).last(), Some(&Event::Closed { key: b }));
}
