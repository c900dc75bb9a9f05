//! The bytes that the demo moves, by blocking sockets in threads: what a local program would do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::pattern::Pattern;
use super::target::{ECHO, HASH, SERVE};

/// The load on one forwarded port.
#[derive(Clone, Copy)]
pub(super) struct Load {
    forward: SocketAddr,
}

impl Load {
    /// For the forward that listens there.
    pub(super) fn new(forward: SocketAddr) -> Self {
        Self { forward }
    }

    /// All of it; each result is one line.
    pub(super) fn run(self, mut line: impl FnMut(String)) -> Result<(), String> {
        let there = self.send(BULK)?;
        line(format!("to target    {}, SHA-256 equal", rate(BULK, there)));
        let back = self.fetch(BULK)?;
        line(format!("from target  {}, SHA-256 equal", rate(BULK, back)));
        let took = self.many_short(SHORT)?;
        let millis = took.as_millis();
        line(format!(
            "short        {SHORT} connections at once, 1 KiB there and back each: {millis} ms, 0 failed"
        ));
        let mut times = self.round_trips(ROUND_TRIPS)?;
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).map_or(0, Duration::as_micros);
        let (half, most) = (at(50), at(99));
        line(format!(
            "latency      64 bytes there and back, {ROUND_TRIPS} times: p50 {half} us, p99 {most} us"
        ));
        Ok(())
    }

    /// How long each of `count` round trips of 64 bytes took, one after another on one connection.
    pub(super) fn round_trips(self, count: usize) -> Result<Vec<Duration>, String> {
        self.try_round_trips(count).map_err(|error| format!("round trips: {error}"))
    }

    fn try_round_trips(self, count: usize) -> io::Result<Vec<Duration>> {
        let mut stream = self.open(ECHO)?;
        let mut times = Vec::with_capacity(count);
        for number in 0..count {
            let message = [number as u8; 64];
            let mut echo = [0; 64];
            let start = Instant::now();
            stream.write_all(&message)?;
            stream.read_exact(&mut echo)?;
            times.push(start.elapsed());
            if echo != message {
                return Err(io::Error::other("the echo is not what was sent"));
            }
        }
        Ok(times)
    }

    /// Sends `length` bytes, ends its direction, and reads the hash of what arrived: how long that took.
    fn send(self, length: u64) -> Result<Duration, String> {
        let expected = Pattern::new(SEED, length).hash();
        let start = Instant::now();
        let arrived = self.try_send(length).map_err(|error| format!("to target: {error}"))?;
        let took = start.elapsed();
        if arrived != expected { Err("to target: SHA-256 differs".to_owned()) } else { Ok(took) }
    }

    fn try_send(self, length: u64) -> io::Result<[u8; 32]> {
        let mut stream = self.open(HASH)?;
        let mut pattern = Pattern::new(SEED, length);
        while let Some(block) = pattern.next() {
            stream.write_all(block)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut hash = [0; 32];
        stream.read_exact(&mut hash)?;
        Ok(hash)
    }

    /// Reads `length` bytes and hashes them: how long that took.
    fn fetch(self, length: u64) -> Result<Duration, String> {
        let expected = Pattern::new(SEED, length).hash();
        let start = Instant::now();
        let arrived = self.try_fetch(length).map_err(|error| format!("from target: {error}"))?;
        let took = start.elapsed();
        if arrived != expected { Err("from target: SHA-256 differs".to_owned()) } else { Ok(took) }
    }

    fn try_fetch(self, length: u64) -> io::Result<[u8; 32]> {
        let mut stream = self.open(SERVE)?;
        stream.write_all(&[SEED.to_be_bytes(), length.to_be_bytes()].concat())?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(hasher.finalize().into()),
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
    }

    /// Opens `count` connections at once, each for 1 KiB there and back: how long all took.
    fn many_short(self, count: usize) -> Result<Duration, String> {
        let start = Instant::now();
        let failed: Vec<String> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..count).map(|number| scope.spawn(move || self.short(number as u8))).collect();
            let ends = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panic"))));
            ends.filter_map(Result::err).map(|error| error.to_string()).collect()
        });
        match failed.first() {
            None => Ok(start.elapsed()),
            Some(reason) => Err(format!("short connections: {} of {count} failed: {reason}", failed.len())),
        }
    }

    fn short(self, byte: u8) -> io::Result<()> {
        let mut stream = self.open(ECHO)?;
        let message = [byte; 1024];
        stream.write_all(&message)?;
        stream.shutdown(Shutdown::Write)?;
        let mut echo = Vec::new();
        stream.read_to_end(&mut echo)?;
        if echo != message { Err(io::Error::other("the echo is not what was sent")) } else { Ok(()) }
    }

    fn open(self, what: u8) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.forward, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        stream.write_all(&[what])?;
        Ok(stream)
    }
}

fn rate(bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-9);
    format!("{} MiB in {seconds:.2} s: {:.0} MB/s", bytes >> 20, bytes as f64 / seconds / 1e6)
}

/// What is moved each way.
const BULK: u64 = 256 << 20;
/// Connections at once: more than a browser opens, fewer than the usual limit of descriptors allows at five
/// a connection.
const SHORT: usize = 200;
/// Enough for a p99.
const ROUND_TRIPS: usize = 2000;
/// Any seed will do: the bytes are no secret.
const SEED: u64 = 0x1f2e_3d4c_5b6a_7988;
/// For one system call: a transfer that stands still that long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
