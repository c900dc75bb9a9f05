//! The load: a target in this process, and clients that talk to it through a subject.
//!
//! A client's first byte says what the target is to do. What arrives is counted where it arrives, so bytes that
//! are parked in somebody's buffers do not count as delivered.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{connect, target};

/// What is known of one subject.
pub(crate) struct Figures {
    /// Up with one stream, down with one, up with eight, down with eight.
    pub(crate) gbits: [f64; 4],
    /// Median and 99th percentile of round trips of 64 bytes, with nothing else under way.
    pub(crate) idle: (Duration, Duration),
    /// The same while a download fills the forward.
    pub(crate) loaded: (Duration, Duration),
    pub(crate) connections: Connections,
    /// How many answers came that followed our end of the stream, and how many should have.
    pub(crate) half_closes: (usize, usize),
    /// Processor seconds of the subject's processes by 10^9 bytes of bulk.
    pub(crate) processor_per_gb: f64,
}

/// One bulk transfer.
pub(crate) struct Bulk {
    pub(crate) entry: SocketAddr,
    pub(crate) direction: Direction,
    pub(crate) streams: usize,
    pub(crate) time: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// What a bulk transfer came to.
pub(crate) struct Moved {
    pub(crate) gbits: f64,
    /// All bytes, those before the clock ran included.
    pub(crate) bytes: u64,
}

/// Connections that carried one byte there and back.
pub(crate) struct Connections {
    pub(crate) by_second: f64,
    pub(crate) failed: u64,
}

/// Starts the target.
pub(crate) fn target() -> SocketAddr {
    target::serve(|mut stream| {
        stream.set_nodelay(true)?;
        let mut mode = [0];
        stream.read_exact(&mut mode)?;
        match mode {
            ECHO => echo(stream),
            SINK => sink(stream),
            SOURCE => source(stream),
            _ => answer_at_the_end(stream),
        }
    })
}

/// Moves bytes for a while.
pub(crate) fn bulk(bulk: &Bulk) -> Moved {
    let stop = AtomicBool::new(false);
    let here = AtomicU64::new(0);
    let received = match bulk.direction {
        Direction::Up => &SUNK,
        Direction::Down => &here,
    };
    let start = received.load(Ordering::Relaxed);
    thread::scope(|scope| {
        for _ in 0..bulk.streams {
            scope.spawn(|| match bulk.direction {
                Direction::Up => push(bulk.entry, &stop),
                Direction::Down => pull(bulk.entry, &stop, &here),
            });
        }
        // Windows grow and buffers fill first.
        thread::park_timeout(bulk.time / 4);
        let (from, began) = (received.load(Ordering::Relaxed), Instant::now());
        thread::park_timeout(bulk.time);
        let (bytes, elapsed) = (received.load(Ordering::Relaxed) - from, began.elapsed());
        stop.store(true, Ordering::Relaxed);
        let gbits = bytes as f64 * 8e-9 / elapsed.as_secs_f64();
        Moved { gbits, bytes: received.load(Ordering::Relaxed) - start }
    })
}

/// Round trips of 64 bytes on one warm connection.
pub(crate) fn round_trips(entry: SocketAddr, time: Duration) -> (Duration, Duration) {
    let mut stream = open(entry, ECHO);
    let mut taken = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let began = Instant::now();
        crate::lab::echo(&mut stream, &[7; 64]).unwrap();
        taken.push(began.elapsed());
    }
    taken.sort_unstable();
    (taken[taken.len() / 2], taken[taken.len() * 99 / 100])
}

/// The same while one download takes all that it can get.
pub(crate) fn round_trips_under_load(entry: SocketAddr, time: Duration) -> (Duration, Duration) {
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| pull(entry, &stop, &received));
        thread::park_timeout(time / 4);
        let figures = round_trips(entry, time);
        stop.store(true, Ordering::Relaxed);
        figures
    })
}

/// Opens connections, `at_once` at a time, one byte there and back on each.
pub(crate) fn connections(entry: SocketAddr, time: Duration, at_once: usize) -> Connections {
    let (done, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while began.elapsed() < time {
                    let good = TcpStream::connect_timeout(&entry, PATIENCE).and_then(one_byte).is_ok();
                    if good { &done } else { &failed }.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let by_second = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    Connections { by_second, failed: failed.load(Ordering::Relaxed) }
}

/// Ends the sending direction and waits for an answer, so often; how often it came.
pub(crate) fn half_closes(entry: SocketAddr, times: usize) -> usize {
    let passes = |_: &usize| {
        let mut stream = open(entry, AT_THE_END);
        let mut answer = Vec::new();
        stream.write_all(b"question").is_ok()
            && stream.shutdown(Shutdown::Write).is_ok()
            && stream.read_to_end(&mut answer).is_ok()
            && answer == b"question"
    };
    (0..times).filter(passes).count()
}

fn one_byte(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&AT_THE_END)?;
    stream.write_all(b"1")?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    if back == b"1" { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn open(entry: SocketAddr, mode: [u8; 1]) -> TcpStream {
    let mut stream = connect(entry);
    stream.write_all(&mode).unwrap();
    stream
}

fn push(entry: SocketAddr, stop: &AtomicBool) {
    let mut stream = open(entry, SINK);
    let block = vec![0xa5; BLOCK];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&block).unwrap();
    }
}

fn pull(entry: SocketAddr, stop: &AtomicBool, received: &AtomicU64) {
    let mut stream = open(entry, SOURCE);
    let mut block = vec![0; 2 * BLOCK];
    while !stop.load(Ordering::Relaxed) {
        let n = stream.read(&mut block).unwrap();
        assert!(n > 0, "the download ended");
        received.fetch_add(n as u64, Ordering::Relaxed);
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut back = stream.try_clone()?;
    io::copy(&mut stream, &mut back).map(drop)
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut block = vec![0; 2 * BLOCK];
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(()),
            n => SUNK.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}

fn source(mut stream: TcpStream) -> io::Result<()> {
    let block = vec![0x5a; BLOCK];
    loop {
        stream.write_all(&block)?;
    }
}

fn answer_at_the_end(mut stream: TcpStream) -> io::Result<()> {
    let mut question = Vec::new();
    stream.read_to_end(&mut question)?;
    stream.write_all(&question)?;
    stream.shutdown(Shutdown::Write)
}

/// What all sinks have received.
static SUNK: AtomicU64 = AtomicU64::new(0);

/// What a client's first byte asks for: everything back at once,
const ECHO: [u8; 1] = *b"E";
/// to be read and counted,
const SINK: [u8; 1] = *b"S";
/// an endless download,
const SOURCE: [u8; 1] = *b"G";
/// or everything back once the client has ended.
const AT_THE_END: [u8; 1] = *b"C";

/// As much as one system call moves: more does not make the generator cheaper.
const BLOCK: usize = 128 * 1024;

/// After so long a connection counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
