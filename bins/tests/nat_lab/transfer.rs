//! Bytes through an echo behind a forward: sent, read back at the same time, and compared.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::lab::{bytes, poll};

/// One that is under way. It lasts until it is told to end.
#[derive(Debug)]
pub(crate) struct Transfer {
    length: usize,
    arrived: Arc<AtomicUsize>,
    may_end: Arc<AtomicBool>,
    sender: JoinHandle<io::Result<Sent>>,
    reader: JoinHandle<io::Result<Sent>>,
}

/// How many bytes, and their SHA-256.
type Sent = (usize, [u8; 32]);

impl Transfer {
    /// Begins to send `length` bytes at least over a connection to an echo, and to read them back.
    pub(crate) fn begin(mut stream: TcpStream, length: usize) -> Self {
        // What is lost on the way shows after this time, not after that of a single answer.
        stream.set_read_timeout(Some(STUCK)).unwrap();
        stream.set_write_timeout(Some(STUCK)).unwrap();
        let mut out = stream.try_clone().unwrap();
        let may_end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&may_end);
        let sender = thread::spawn(move || {
            let (mut hasher, mut sent) = (Sha256::new(), 0);
            let mut block = bytes(length as u64, BLOCK);
            while sent < length || !ends.load(Ordering::Relaxed) {
                // No two blocks are the same, or one that is missing would not be missed.
                block[..8].copy_from_slice(&(sent as u64).to_be_bytes());
                out.write_all(&block)?;
                hasher.update(&block);
                sent += block.len();
            }
            out.shutdown(Shutdown::Write)?;
            Ok((sent, hasher.finalize().into()))
        });
        let arrived = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&arrived);
        let reader = thread::spawn(move || {
            let (mut hasher, mut buffer, mut total) = (Sha256::new(), vec![0; BLOCK], 0);
            loop {
                let read = stream.read(&mut buffer)?;
                if read == 0 {
                    return Ok((total, hasher.finalize().into()));
                }
                hasher.update(&buffer[..read]);
                total += read;
                count.store(total, Ordering::Relaxed);
            }
        });
        Self { length, arrived, may_end, sender, reader }
    }

    /// Waits until so many hundredths of it are back.
    pub(crate) fn reach(&self, percent: usize) {
        self.wait_for(self.length / 100 * percent);
    }

    /// Waits until bytes that are sent from now on have come back.
    pub(crate) fn goes_on(&self) {
        self.wait_for(self.arrived.load(Ordering::Relaxed) + MORE_THAN_IS_UNDER_WAY);
    }

    fn wait_for(&self, wanted: usize) {
        let there = poll(STUCK * 2, || {
            let over = self.reader.is_finished();
            (over || self.arrived.load(Ordering::Relaxed) >= wanted).then_some(!over)
        });
        let arrived = self.arrived.load(Ordering::Relaxed);
        assert!(there == Some(true), "over, or stuck, at {arrived} of {wanted} bytes");
    }

    /// Waits for its end: all has come back, and is what was sent. Says how many bytes that is.
    pub(crate) fn finish(self) -> usize {
        self.may_end.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        let read = self.reader.join().unwrap();
        match (sent, read) {
            (Ok(sent), Ok(read)) => {
                assert!(sent == read, "{} bytes were sent, {} came back, or others", sent.0, read.0);
                sent.0
            }
            (sent, read) => {
                let arrived = self.arrived.load(Ordering::Relaxed);
                panic!("{arrived} bytes came back; the sender: {sent:?}, the reader: {read:?}")
            }
        }
    }
}

const BLOCK: usize = 128 << 10;
/// All that lies in the buffers of both programs and the kernel, and more.
const MORE_THAN_IS_UNDER_WAY: usize = 24 << 20;
/// Streams wait 30 s for a link; a test that fails waits longer.
const STUCK: Duration = Duration::from_secs(60);
