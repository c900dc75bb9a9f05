//! Two sides and a pipe, driven at random, against a model that knows what was written.
//!
//! Bytes travel through the real parser in random pieces; applications open, write, finish, read, accept and
//! reset at random, or do nothing. In one variant the link dies again and again with whatever is under way,
//! and the sides resume. After each step the invariants are checked; in the end everybody does his duty, and
//! nothing may be missing, doubled or left over.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::start;
use crate::mux::stream::Phase;
use crate::mux::{Config, Decoder, Event, Key, Mux, Protocol, Resume, Side, code};

/// One thing that happens; the numbers choose among what is possible.
#[derive(Clone, Copy)]
struct Step {
    what: What,
    side: usize,
    pick: usize,
    size: usize,
}

/// A failing run prints its steps so that they can be pasted into a test.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step({:?}, {}, {}, {})", self.what, self.side, self.pick, self.size)
    }
}

#[derive(Debug, Clone, Copy)]
enum What {
    Open,
    Accept,
    Write,
    Fill,
    Finish,
    Read,
    Reset,
    Transmit,
    Deliver,
    Wait,
    Cut,
    Attach,
}

/// One stream, as an all-knowing observer sees it.
#[derive(Debug, Default)]
struct Model {
    ends: [ModelEnd; 2],
}

/// One end of it.
#[derive(Debug, Default)]
struct ModelEnd {
    key: Option<Key>,
    /// May write: it opened or accepted.
    open: bool,
    written: u64,
    finished: bool,
    read: u64,
    /// Was told that the other end has finished.
    end_seen: bool,
    /// Gave the stream up.
    reset: bool,
    ended: Option<Ended>,
    /// Was told that there are bytes, and has not emptied them since.
    told_readable: bool,
    /// Found no room, and was not told of any since.
    blocked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ended {
    Closed,
    Reset(u16),
}

impl ModelEnd {
    fn is_live(&self) -> bool {
        self.key.is_some() && self.ended.is_none() && !self.reset
    }

    /// Was refused for a cap, without anybody hearing of it at the other end. The refusal's reason may be
    /// lost with a link.
    fn is_refused(&self, other: &Self) -> bool {
        let code = matches!(self.ended, Some(Ended::Reset(code::TOO_MANY | code::GONE)));
        code && other.key.is_none()
    }
}

struct World {
    config: Config,
    now: Instant,
    sides: [Mux; 2],
    decoders: [Decoder; 2],
    /// The bytes under way to each side.
    wires: [VecDeque<u8>; 2],
    /// While a side has no link: what the other one says that it has.
    resumes: [Option<Resume>; 2],
    streams: Vec<Model>,
}

impl World {
    fn new(config: Config) -> Self {
        let now = start();
        let mut sides = [Side::Controlling, Side::Controlled].map(|side| Mux::new(side, config));
        for side in &mut sides {
            side.attach(now, &Resume::default()).unwrap();
        }
        Self {
            config,
            now,
            sides,
            decoders: Default::default(),
            wires: Default::default(),
            resumes: Default::default(),
            streams: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        let Step { what, side, pick, size } = step;
        match what {
            What::Open => self.open(side),
            What::Accept => self.with_picked(side, pick, |world, stream| world.accept(side, stream)),
            What::Write => self.with_picked(side, pick, |world, stream| world.write(side, stream, size)),
            What::Fill => self.with_picked(side, pick, |world, stream| world.write(side, stream, 1 << 20)),
            What::Finish => self.with_picked(side, pick, |world, stream| world.finish(side, stream)),
            What::Read => self.with_picked(side, pick, |world, stream| world.read(side, stream, size)),
            What::Reset => self.with_picked(side, pick, |world, stream| {
                let end = &mut world.streams[stream].ends[side];
                end.reset = true;
                world.sides[side].reset(end.key.unwrap(), code::ABORTED, "given up");
            }),
            What::Transmit => {
                self.transmit(side, 1100 + size * 4);
            }
            What::Deliver => self.deliver(side, 1 + size),
            What::Wait => {
                self.now += Duration::from_millis(size as u64);
                self.sides[side].tick(self.now);
            }
            What::Cut => self.cut(),
            What::Attach => self.attach(side),
        }
        for side in [0, 1] {
            self.events(side);
            self.check(side);
        }
    }

    fn with_picked(&mut self, side: usize, pick: usize, act: impl FnOnce(&mut Self, usize)) {
        let live: Vec<usize> =
            (0..self.streams.len()).filter(|&at| self.streams[at].ends[side].is_live()).collect();
        if !live.is_empty() {
            act(self, live[pick % live.len()]);
        }
    }

    fn open(&mut self, side: usize) {
        let at = self.streams.len();
        if let Ok(key) = self.sides[side].open(Protocol::Tcp, &at.to_string()) {
            let mut model = Model::default();
            model.ends[side] = ModelEnd { key: Some(key), open: true, ..ModelEnd::default() };
            self.streams.push(model);
        }
    }

    fn accept(&mut self, side: usize, stream: usize) {
        let end = &mut self.streams[stream].ends[side];
        end.open = true;
        self.sides[side].accept(end.key.unwrap());
    }

    fn write(&mut self, side: usize, stream: usize, size: usize) {
        let end = &mut self.streams[stream].ends[side];
        let key = end.key.unwrap();
        let mut left = size;
        while left > 0 {
            let writable = self.sides[side].writable(key);
            let mut n = 0;
            for byte in self.sides[side].space(key).into_iter().flatten().take(left) {
                *byte = content(stream, side, end.written + n);
                n += 1;
            }
            assert!(n as usize <= writable && (n > 0) == (writable > 0));
            if n == 0 {
                end.blocked = end.open && !end.finished;
                return;
            }
            assert!(end.open && !end.finished, "written where it is not possible");
            self.sides[side].wrote(key, n as usize);
            end.written += n;
            left -= n as usize;
        }
    }

    fn finish(&mut self, side: usize, stream: usize) {
        let end = &mut self.streams[stream].ends[side];
        end.finished = true;
        end.blocked = false;
        self.sides[side].finish(end.key.unwrap());
    }

    fn read(&mut self, side: usize, stream: usize, size: usize) {
        let model = &mut self.streams[stream];
        let written = model.ends[1 - side].written;
        let end = &mut model.ends[side];
        let key = end.key.unwrap();
        let bytes: Vec<u8> = self.sides[side].readable(key).concat();
        let n = size.min(bytes.len());
        for (at, &byte) in (end.read..).zip(&bytes[..n]) {
            assert_eq!(byte, content(stream, 1 - side, at), "stream {stream} at {at}");
        }
        end.read += n as u64;
        assert!(end.read <= written, "more than was written");
        if n == bytes.len() {
            end.told_readable = false;
        }
        self.sides[side].consume(self.now, key, n);
        assert_eq!(self.sides[side].readable(key).concat().len(), bytes.len() - n);
    }

    fn transmit(&mut self, side: usize, size: usize) -> usize {
        let mut out = vec![0; size];
        let wanted = self.sides[side].wants_transmit();
        let n = self.sides[side].transmit(self.now, &mut out);
        // A RST that waits for an answer looks like something to send until it is its turn.
        assert!(wanted || n == 0);
        self.wires[1 - side].extend(&out[..n]);
        n
    }

    fn deliver(&mut self, side: usize, size: usize) {
        // The RESUME is in front of everything else on a link.
        if self.resumes[side].is_some() {
            return;
        }
        let size = size.min(self.wires[side].len());
        let piece: Vec<u8> = self.wires[side].drain(..size).collect();
        let mut input = piece.as_slice();
        while let Some(frame) = self.decoders[side].next(&mut input).unwrap() {
            self.sides[side].receive(self.now, frame).unwrap();
        }
    }

    fn cut(&mut self) {
        for side in [0, 1] {
            self.sides[side].detach();
            self.wires[side].clear();
            self.decoders[side] = Decoder::new();
        }
        for side in [0, 1] {
            let bytes = rmp_serde::to_vec_named(&self.sides[1 - side].resume()).unwrap();
            self.resumes[side] = Some(rmp_serde::from_slice(&bytes).unwrap());
        }
    }

    fn attach(&mut self, side: usize) {
        if let Some(resume) = self.resumes[side].take() {
            self.sides[side].attach(self.now, &resume).unwrap();
        }
    }

    fn stream_of(&self, side: usize, key: Key) -> usize {
        let stream = self.streams.iter().position(|model| model.ends[side].key == Some(key));
        stream.expect("an event of a stream that is known")
    }

    fn events(&mut self, side: usize) {
        while let Some(event) = self.sides[side].poll_event() {
            let (key, is_incoming) = match &event {
                Event::Incoming { key, target, .. } => {
                    let end = &mut self.streams[target.parse::<usize>().unwrap()].ends[side];
                    assert_eq!(end.key.replace(*key), None, "it comes once");
                    (*key, true)
                }
                Event::Accepted { key }
                | Event::Readable { key }
                | Event::Writable { key }
                | Event::Finished { key }
                | Event::Reset { key, .. }
                | Event::Closed { key } => (*key, false),
            };
            let stream = self.stream_of(side, key);
            let now = self.now;
            let (own, other) = split(&mut self.streams[stream].ends, side);
            assert!(own.is_live(), "{event:?} after the end");
            match event {
                Event::Incoming { .. } => assert!(is_incoming),
                Event::Accepted { .. } => assert!(other.open || other.reset),
                Event::Readable { .. } => {
                    own.told_readable = true;
                    assert!(!self.sides[side].readable(key)[0].is_empty());
                }
                Event::Writable { .. } => own.blocked = false,
                Event::Finished { .. } => {
                    assert!(other.finished && own.read == other.written && !own.end_seen);
                    own.end_seen = true;
                    self.sides[side].finished(key);
                }
                Event::Reset { code, .. } => {
                    own.ended = Some(Ended::Reset(code));
                    assert!(other.reset || own.is_refused(other), "a reset out of nothing: {code}");
                }
                Event::Closed { .. } => {
                    own.ended = Some(Ended::Closed);
                    assert!(own.finished && own.end_seen);
                    // Whoever gave up a stream that had ended here may have lost his RST.
                    let all = other.end_seen && other.read == own.written;
                    assert!(all || other.reset, "closed, but not all was passed on");
                }
            }
            self.sides[side].tick(now);
        }
        for stream in 0..self.streams.len() {
            let end = &self.streams[stream].ends[side];
            let Some(key) = end.key.filter(|_| end.is_live()) else {
                continue;
            };
            let readable = !self.sides[side].readable(key)[0].is_empty();
            assert!(!readable || end.told_readable, "bytes that nobody was told of");
            let slot = self.sides[side].slots.find(key).expect("a live stream has a slot");
            let held = self.sides[side].slots.at(slot).unwrap();
            // Room that comes of other streams' memory is noticed with the next acknowledgement.
            if end.blocked && held.send.ring.is_empty() {
                let credit = held.send.credit();
                assert_eq!(credit, 0, "room that nobody was told of");
            }
            let at_end = held.recv.ends_here();
            assert!(!at_end || end.end_seen, "an end that nobody was told of");
        }
    }

    /// What must always hold.
    fn check(&self, side: usize) {
        let (mux, config) = (&self.sides[side], &self.config);
        let initial = config.initial_credit;
        assert!(mux.slots.len() <= config.max_streams);
        assert!(mux.unanswered <= config.max_unanswered && mux.offered <= config.max_unanswered);
        assert!(mux.refused.len() <= config.max_unanswered);
        assert!(mux.send_pool.used() <= config.pool && mux.recv_pool.used() <= config.pool);
        let (mut retained, mut promised, mut buffered) = (0, 0, 0);
        let (mut unanswered, mut offered, mut ready) = (0, 0, 0);
        for (slot, stream) in mux.slots.iter() {
            retained += stream.send.ring.capacity().max(initial) - initial;
            promised += stream.recv.outstanding().max(initial) - initial;
            buffered += stream.recv.ring.capacity().max(initial) - initial;
            assert!(stream.send.high <= stream.send.limit + u64::from(stream.send.fin), "beyond the credit");
            assert!(stream.recv.received <= stream.recv.limit);
            assert!(stream.recv.window.max(stream.send.ring.capacity()) <= config.max_window);
            assert_eq!(stream.ready, mux.attached && stream.wants_data());
            assert!(!stream.ready || mux.fresh.contains(slot) || mux.bulk.contains(slot));
            ready += usize::from(stream.ready);
            unanswered += usize::from(matches!(
                stream.phase,
                Phase::Calling(_) | Phase::Resetting { unanswered: true, .. }
            ));
            offered += usize::from(matches!(stream.phase, Phase::Offered(_)));
        }
        assert_eq!((mux.ready, mux.unanswered, mux.offered), (ready, unanswered, offered));
        assert_eq!(retained, mux.send_pool.used());
        let live = |phase: &Phase| !matches!(phase, Phase::Resetting { .. } | Phase::Ended(_));
        let reserved = mux.slots.iter().filter(|(_, stream)| live(&stream.phase));
        let reserved: usize = reserved.map(|(_, stream)| stream.recv.reserved - initial).sum();
        assert_eq!(reserved, mux.recv_pool.used());
        assert!(promised.max(buffered) <= config.pool.max(reserved));
        assert!(mux.stats().memory <= config.max_streams * (2048 + 2 * initial) + 2 * config.pool);
    }

    /// From here on everybody does what he has to, moved by events alone, until nothing is left.
    fn settle(&mut self) {
        for side in [0, 1] {
            self.attach(side);
            for stream in 0..self.streams.len() {
                let end = &self.streams[stream].ends[side];
                if end.is_live() && !end.open {
                    self.accept(side, stream);
                }
            }
        }
        for round in 0..2000 {
            let mut moved = 0;
            for side in [0, 1] {
                self.events(side);
                for stream in 0..self.streams.len() {
                    let end = &self.streams[stream].ends[side];
                    if !end.is_live() {
                        continue;
                    }
                    if !end.open {
                        self.accept(side, stream);
                    }
                    if !self.streams[stream].ends[side].finished {
                        self.finish(side, stream);
                    }
                    if self.streams[stream].ends[side].told_readable {
                        self.read(side, stream, usize::MAX);
                    }
                }
                moved += self.transmit(side, 16 * 1024);
                self.deliver(1 - side, usize::MAX);
                self.events(side);
                self.check(side);
            }
            let idle = self.sides.iter().all(|mux| !mux.wants_transmit());
            if moved == 0 && idle && self.sides.iter().all(|mux| mux.slots.len() == 0) {
                return self.judge();
            }
            self.now += Duration::from_millis(round);
            for side in &mut self.sides {
                side.tick(self.now);
            }
        }
        panic!("it does not end: {:?} {:?}", self.sides, self.streams);
    }

    fn judge(&self) {
        for (at, model) in self.streams.iter().enumerate() {
            let whole = model.ends.iter().all(|end| end.ended == Some(Ended::Closed));
            let given_up = model.ends.iter().any(|end| end.reset);
            let [a, b] = &model.ends;
            let refused = a.is_refused(b) || b.is_refused(a);
            assert!(whole || given_up || refused, "stream {at}: {model:?}");
            if whole {
                assert_eq!(model.ends[0].read, model.ends[1].written);
                assert_eq!(model.ends[1].read, model.ends[0].written);
            }
        }
        for mux in &self.sides {
            assert_eq!(mux.stats().memory, 0);
            assert!(mux.ids.is_empty() && mux.events.is_empty() && mux.control.is_empty());
            assert_eq!((mux.unanswered, mux.offered, mux.ready), (0, 0, 0));
            assert_eq!((mux.send_pool.used(), mux.recv_pool.used()), (0, 0));
        }
        let [a, b] = [0, 1].map(|side| self.sides[side].stats());
        let lost =
            self.streams.iter().any(|model| model.ends.iter().any(|end| end.ended != Some(Ended::Closed)));
        assert!(lost || (a.bytes_sent == b.bytes_received && b.bytes_sent == a.bytes_received));
    }
}

/// The byte that `side` writes at `at`.
fn content(stream: usize, side: usize, at: u64) -> u8 {
    (stream as u64 * 31 + side as u64 * 101 + at * 7 + (at >> 8) * 3) as u8
}

fn split(ends: &mut [ModelEnd; 2], side: usize) -> (&mut ModelEnd, &ModelEnd) {
    let [first, second] = ends;
    if side == 0 { (first, second) } else { (second, first) }
}

/// Small caps, so that all of them are met.
fn small() -> Config {
    Config {
        initial_credit: 4096,
        max_streams: 10,
        max_unanswered: 4,
        pool: 48 * 1024,
        max_window: 32 * 1024,
    }
}

fn steps(with_cuts: bool) -> impl Strategy<Value = Vec<Step>> {
    let kinds = if with_cuts { 60u32 } else { 52 };
    let what = (0..kinds).prop_map(|kind| match kind {
        0..3 => What::Open,
        3..7 => What::Accept,
        7..12 => What::Write,
        12..15 => What::Fill,
        15..17 => What::Finish,
        17..25 => What::Read,
        25 => What::Reset,
        26..38 => What::Transmit,
        38..50 => What::Deliver,
        50..52 => What::Wait,
        52..54 => What::Cut,
        _ => What::Attach,
    });
    let size = prop_oneof![0..20usize, 0..2000usize, 0..20_000usize];
    let step = (what, 0..2usize, 0..12usize, size).prop_map(|(what, side, pick, size)| Step {
        what,
        side,
        pick,
        size,
    });
    prop::collection::vec(step, 0..400)
}

fn run(config: Config, steps: Vec<Step>) {
    let mut world = World::new(config);
    for step in steps {
        world.step(step);
    }
    world.settle();
}

proptest! {
    #[test]
    fn any_schedule_delivers_all_in_order(steps in steps(false)) {
        run(small(), steps);
    }

    #[test]
    fn links_that_die_lose_and_double_nothing(steps in steps(true)) {
        run(small(), steps);
    }

    #[test]
    fn it_holds_with_the_default_caps_too(steps in steps(true)) {
        run(Config::default(), steps);
    }
}
