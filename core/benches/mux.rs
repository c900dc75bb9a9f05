//! What the multiplexer costs by itself: bytes a second through two of them in memory, one way, on one
//! thread, in records of 16 KiB. `cargo bench -p inp2p-core --bench mux`.
//!
//! Sockets, TLS and the copy into the far socket are not in it: the writer fills the ring in place as a
//! socket's read would (without the copy), and the reader looks at the first byte of what it consumes.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::expect_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use inp2p_core::mux::{Config, Decoder, Event, Key, Mux, Protocol, Resume, Side};

struct Pair {
    now: Instant,
    a: Mux,
    b: Mux,
    out: Vec<u8>,
}

impl Pair {
    fn new(out: usize) -> Self {
        let now = Instant::now();
        let mut a = Mux::new(Side::Controlling, Config::default());
        let mut b = Mux::new(Side::Controlled, Config::default());
        for mux in [&mut a, &mut b] {
            mux.set_rtt(Duration::from_micros(200));
            mux.attach(now, &Resume::default()).expect("a new process");
        }
        Self { now, a, b, out: vec![0; out] }
    }

    fn pump(&mut self) {
        self.now = Instant::now();
        loop {
            let moved = carry(self.now, &mut self.a, &mut self.b, &mut self.out)
                + carry(self.now, &mut self.b, &mut self.a, &mut self.out);
            if moved == 0 {
                return;
            }
        }
    }

    fn stream(&mut self) -> (Key, Key) {
        let a = self.a.open(Protocol::Tcp, "127.0.0.1:80").expect("room for a stream");
        self.pump();
        let incoming = std::iter::from_fn(|| self.b.poll_event()).find_map(|event| match event {
            Event::Incoming { key, .. } => Some(key),
            _ => None,
        });
        let b = incoming.expect("the stream arrives");
        self.b.accept(b);
        self.pump();
        while self.a.poll_event().is_some() {}
        (a, b)
    }
}

fn carry(now: Instant, from: &mut Mux, to: &mut Mux, out: &mut [u8]) -> usize {
    let mut carried = 0;
    let mut decoder = Decoder::new();
    while from.wants_transmit() {
        let n = from.transmit(now, out);
        let mut input = &out[..n];
        while let Some(frame) = decoder.next(&mut input).expect("frames") {
            to.receive(now, frame).expect("frames");
        }
        carried += n;
        // A link takes a few records and then looks for what came back.
        if carried >= 128 * 1024 {
            break;
        }
    }
    carried
}

fn bulk(streams: usize, chunk: usize, total: usize) -> f64 {
    let mut pair = Pair::new(16 * 1024);
    let keys: Vec<_> = (0..streams).map(|_| pair.stream()).collect();
    let begin = Instant::now();
    let mut received = 0;
    while received < total {
        for &(a, _) in &keys {
            let mut left = chunk;
            while left > 0 {
                let [first, second] = pair.a.space(a);
                let n = (first.len() + second.len()).min(left);
                if n == 0 {
                    break;
                }
                black_box(first);
                pair.a.wrote(a, n);
                left -= n;
            }
        }
        pair.now = Instant::now();
        while carry(pair.now, &mut pair.a, &mut pair.b, &mut pair.out) > 0 {
            while let Some(event) = pair.b.poll_event() {
                let Event::Readable { key } = event else { continue };
                let parts = pair.b.readable(key);
                black_box(parts[0].first());
                let n = parts[0].len() + parts[1].len();
                pair.b.consume(pair.now, key, n);
                received += n;
            }
            carry(pair.now, &mut pair.b, &mut pair.a, &mut pair.out);
        }
        while pair.a.poll_event().is_some() {}
    }
    received as f64 / begin.elapsed().as_secs_f64()
}

fn opens(total: usize) -> f64 {
    let mut pair = Pair::new(16 * 1024);
    let begin = Instant::now();
    for _ in 0..total {
        let (a, b) = pair.stream();
        for (mux, key) in [(&mut pair.a, a), (&mut pair.b, b)] {
            mux.write(key, &[1; 64]);
            mux.finish(key);
        }
        pair.pump();
        for (mux, key) in [(&mut pair.a, a), (&mut pair.b, b)] {
            mux.consume(pair.now, key, 64);
            mux.finished(key);
        }
        pair.pump();
        while pair.a.poll_event().is_some() {}
        while pair.b.poll_event().is_some() {}
    }
    assert_eq!(pair.a.stats().streams, 0);
    total as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    // `cargo test` runs it too: then it only has to work.
    let scale = if std::env::args().any(|arg| arg == "--bench") { 1 } else { 1000 };
    for (streams, chunk) in [(1, 64 * 1024), (1, 256 * 1024), (8, 64 * 1024), (100, 16 * 1024), (1, 64)] {
        let total = if chunk == 64 { 1 << 28 } else { 16usize << 30 } / scale;
        let speed = bulk(streams, chunk, total);
        let small = if chunk == 64 { speed / 64.0 / 1e6 } else { 0.0 };
        println!(
            "{streams:4} streams, {chunk:6} bytes a write: {:6.2} GB/s {small:5.2} M frames/s",
            speed / 1e9
        );
    }
    println!("{:.0} streams opened, used and closed a second", opens(200_000 / scale));
}
