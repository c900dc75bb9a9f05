//! Bytes through an echo behind a forward: sent, read back at the same time, and compared.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::lab::{bytes, hash, poll};

/// One that is under way.
#[derive(Debug)]
pub(crate) struct Transfer {
    length: usize,
    arrived: Arc<AtomicUsize>,
    expected: [u8; 32],
    sender: JoinHandle<std::io::Result<()>>,
    reader: JoinHandle<std::io::Result<[u8; 32]>>,
}

impl Transfer {
    /// Begins to send `length` bytes over a connection to an echo, and to read them back.
    pub(crate) fn begin(mut stream: TcpStream, length: usize) -> Self {
        let content = bytes(length as u64, length);
        let expected = hash(&content);
        let mut out = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            out.write_all(&content)?;
            out.shutdown(Shutdown::Write)
        });
        let arrived = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&arrived);
        let reader = thread::spawn(move || {
            let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
            loop {
                let read = stream.read(&mut buffer)?;
                if read == 0 {
                    return Ok(hasher.finalize().into());
                }
                hasher.update(&buffer[..read]);
                count.fetch_add(read, Ordering::Relaxed);
            }
        });
        Self { length, arrived, expected, sender, reader }
    }

    /// Waits until so many hundredths of it are back.
    pub(crate) fn reach(&self, percent: usize) {
        let wanted = self.length / 100 * percent;
        let there = poll(Duration::from_secs(120), || {
            let over = self.reader.is_finished();
            (over || self.arrived.load(Ordering::Relaxed) >= wanted).then_some(!over)
        });
        let arrived = self.arrived.load(Ordering::Relaxed);
        assert!(there == Some(true), "over, or stuck, at {arrived} of {} bytes", self.length);
    }

    /// Waits for its end: all has come back, and is what was sent.
    pub(crate) fn finish(self) {
        let sent = self.sender.join().unwrap();
        let hash = self.reader.join().unwrap();
        let arrived = self.arrived.load(Ordering::Relaxed);
        assert!(
            sent.is_ok() && arrived == self.length && hash.as_ref().is_ok_and(|hash| *hash == self.expected),
            "{arrived} of {} bytes came back, or others than were sent: {sent:?}, {:?}",
            self.length,
            hash.err(),
        );
    }
}
