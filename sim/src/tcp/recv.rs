//! The receiving half of a connection: bytes in order, what came early, and the window.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSliceMut;

use bytes::{Buf, Bytes};

#[derive(Debug)]
pub(crate) struct RecvHalf {
    /// In order, not read yet.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// The next byte wanted.
    next: u64,
    /// What came out of order, by sequence number. The window bounds it.
    early: BTreeMap<u64, (Bytes, bool)>,
    /// All data and the FIN have come.
    eof: bool,
    /// The limit that the peer knows.
    advertised: u64,
}

impl RecvHalf {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            queued: 0,
            next: 0,
            early: BTreeMap::new(),
            eof: false,
            advertised: RECV_BUFFER as u64,
        }
    }

    /// Takes in a segment; true if a reader has news.
    pub(crate) fn take_in(&mut self, seq: u64, data: Bytes, fin: bool) -> bool {
        let end = seq + data.len() as u64;
        if self.eof || end + u64::from(fin) <= self.next || end > self.advertised {
            return false;
        }
        if seq > self.next {
            self.early.entry(seq).or_insert((data, fin));
            return false;
        }
        self.append(seq, data, fin);
        while let Some(entry) = self.early.first_entry()
            && *entry.key() <= self.next
        {
            let (seq, (data, fin)) = entry.remove_entry();
            self.append(seq, data, fin);
        }
        true
    }

    pub(crate) fn read(&mut self, bufs: &mut [IoSliceMut<'_>]) -> usize {
        let mut total = 0;
        for buf in bufs {
            let mut filled = 0;
            while filled < buf.len()
                && let Some(front) = self.queue.front_mut()
            {
                let take = front.len().min(buf.len() - filled);
                front.copy_to_slice(&mut buf[filled..filled + take]);
                filled += take;
                if front.is_empty() {
                    self.queue.pop_front();
                }
            }
            total += filled;
        }
        self.queued -= total;
        total
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The limit to tell the peer, which it then knows.
    pub(crate) fn advertise(&mut self) -> u64 {
        self.advertised = self.advertised.max(self.limit());
        self.advertised
    }

    /// Whether so much has been read since the peer was last told that it should be told now.
    pub(crate) fn window_opened(&self) -> bool {
        !self.eof && self.limit().saturating_sub(self.advertised) >= (RECV_BUFFER / 4) as u64
    }

    pub(crate) fn unread(&self) -> bool {
        self.queued > 0
    }

    pub(crate) fn eof(&self) -> bool {
        self.eof
    }

    fn limit(&self) -> u64 {
        self.next + RECV_BUFFER.saturating_sub(self.queued) as u64
    }

    fn append(&mut self, seq: u64, mut data: Bytes, fin: bool) {
        let known = usize::try_from(self.next.saturating_sub(seq)).unwrap_or(usize::MAX);
        if known > data.len() {
            return;
        }
        data.advance(known);
        self.next += data.len() as u64 + u64::from(fin);
        self.queued += data.len();
        self.eof |= fin;
        if !data.is_empty() {
            self.queue.push_back(data);
        }
    }
}

/// The receive window. Systems begin lower and grow to several MiB; this is enough for 6 MB/s at 40 ms, and
/// small enough that a reader that stops is felt soon.
pub(crate) const RECV_BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn part(range: std::ops::Range<u64>) -> Bytes {
        range.map(|byte| byte as u8).collect::<Vec<_>>().into()
    }

    fn read_all(recv: &mut RecvHalf) -> Vec<u8> {
        let mut buffer = [0; 1000];
        let read = recv.read(&mut [IoSliceMut::new(&mut buffer)]);
        buffer[..read].to_vec()
    }

    #[test]
    fn what_comes_early_waits_for_the_gap_to_close() {
        let mut recv = RecvHalf::new();
        assert!(!recv.take_in(20, part(20..30), true));
        assert!(!recv.take_in(10, part(10..20), false));
        assert_eq!((recv.next(), recv.eof()), (0, false));
        assert!(recv.take_in(0, part(0..10), false));
        assert_eq!((recv.next(), recv.eof()), (31, true));
        assert_eq!(read_all(&mut recv), part(0..30));
    }

    #[test]
    fn what_comes_again_in_other_pieces_is_taken_once() {
        let mut recv = RecvHalf::new();
        recv.take_in(5, part(5..15), false);
        recv.take_in(0, part(0..8), false);
        recv.take_in(12, part(12..20), true);
        assert!(!recv.take_in(0, part(0..20), true));
        assert_eq!((recv.next(), recv.eof()), (21, true));
        assert_eq!(read_all(&mut recv), part(0..20));
    }

    #[test]
    fn the_window_bounds_what_is_kept() {
        let mut recv = RecvHalf::new();
        let end = RECV_BUFFER as u64;
        assert!(!recv.take_in(end - 5, part(0..5), false) && recv.early.len() == 1);
        assert!(!recv.take_in(end - 4, part(0..5), false) && recv.early.len() == 1);
    }
}
