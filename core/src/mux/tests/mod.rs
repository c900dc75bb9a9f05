//! What the multiplexer promises, claim by claim.

mod flow;
mod lanes;
mod model;
mod rules;
mod turns;
mod wire;

use std::time::{Duration, Instant};

use super::{Config, Decoder, Event, Frame, Key, Mux, Protocol, Resume, Side, Violation};

/// Where time begins. Only differences matter.
fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    Instant::now()
}

/// Two sides with a link between them that loses nothing.
struct Pair {
    now: Instant,
    a: Mux,
    b: Mux,
}

impl Pair {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = start();
        let mut a = Mux::new(Side::Controlling, config);
        let mut b = Mux::new(Side::Controlled, config);
        a.attach(now, &Resume::default()).unwrap();
        b.attach(now, &Resume::default()).unwrap();
        Self { now, a, b }
    }

    /// Carries frames both ways until there are none.
    fn pump(&mut self) {
        while self.a_to_b() + self.b_to_a() > 0 {}
    }

    fn a_to_b(&mut self) -> usize {
        carry(self.now, &mut self.a, &mut self.b)
    }

    fn b_to_a(&mut self) -> usize {
        carry(self.now, &mut self.b, &mut self.a)
    }

    /// A stream from a to b that b has accepted. No event is left.
    fn stream(&mut self) -> (Key, Key) {
        let a = self.a.open(Protocol::Tcp, "host:1").unwrap();
        self.pump();
        let incoming = events(&mut self.b).into_iter().find_map(|event| match event {
            Event::Incoming { key, .. } => Some(key),
            _ => None,
        });
        let b = incoming.expect("a stream");
        self.b.accept(b);
        self.pump();
        assert!(events(&mut self.a).contains(&Event::Accepted { key: a }));
        (a, b)
    }

    /// The link dies with all that is in it, and the next one is attached.
    fn resume(&mut self) {
        self.a.detach();
        self.b.detach();
        let (a, b) = (self.a.resume(), self.b.resume());
        self.a.attach(self.now, &b).unwrap();
        self.b.attach(self.now, &a).unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.a.tick(self.now);
        self.b.tick(self.now);
    }
}

/// Carries what `from` has to `to`, in records of 16 KiB; returns how many bytes.
fn carry(now: Instant, from: &mut Mux, to: &mut Mux) -> usize {
    let mut out = [0; 16 * 1024];
    let mut decoder = Decoder::new();
    let mut carried = 0;
    while from.wants_transmit() {
        let n = from.transmit(now, &mut out);
        if n == 0 {
            break;
        }
        carried += n;
        let mut input = &out[..n];
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            to.receive(now, frame).unwrap();
        }
    }
    carried
}

/// What `mux` sends next, as frames in words.
fn sent(now: Instant, mux: &mut Mux) -> Vec<String> {
    let mut out = vec![0; 1 << 20];
    let n = mux.transmit(now, &mut out);
    let mut input = &out[..n];
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next(&mut input).unwrap() {
        frames.push(match frame {
            Frame::Syn { stream, target, .. } => format!("SYN {stream} {target}"),
            Frame::Data { stream, bytes, fin } => {
                format!("DATA {stream} {}{}", bytes.len(), if fin { " FIN" } else { "" })
            }
            Frame::Window { stream, consumed, .. } => format!("WINDOW {stream} {consumed}"),
            Frame::Reset { stream, code, text } => format!("RST {stream} {code} {text}"),
            Frame::Ping(_) | Frame::Pong(_) => "PING or PONG".to_owned(),
        });
    }
    frames
}

fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.poll_event()).collect()
}

/// Consumes all that can be read, and returns it.
fn read(now: Instant, mux: &mut Mux, key: Key) -> Vec<u8> {
    let bytes = mux.readable(key).concat();
    mux.consume(now, key, bytes.len());
    bytes
}

fn data<'a>(stream: u32, bytes: &'a [u8]) -> Frame<'a> {
    Frame::Data { stream, bytes, fin: false }
}

fn syn(stream: u32) -> Frame<'static> {
    Frame::Syn { stream, protocol: Protocol::Tcp, target: "host:1", limit: 16_384 }
}

fn window(stream: u32, consumed: u64, limit: u64) -> Frame<'static> {
    Frame::Window { stream, consumed, limit }
}

fn rst(stream: u32) -> Frame<'static> {
    Frame::Reset { stream, code: 1, text: "".into() }
}

/// Hands frames in until one is a violation.
fn judge(mux: &mut Mux, frames: impl IntoIterator<Item = Frame<'static>>) -> Result<(), Violation> {
    let now = start();
    frames.into_iter().try_for_each(|frame| mux.receive(now, frame))
}
