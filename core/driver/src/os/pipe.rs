//! A pipe of the kernel between two sockets: splice(2), so that what a relay passes on never enters the
//! program.
//!
//! A pipe begins at the system's usual 64 KiB, and grows at the first sign of a bulk transfer. An
//! unprivileged user has a quota of pipe memory (`pipe-user-pages-soft`): what cannot grow stays as it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

/// See the module.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    capacity: usize,
    /// Whether it has grown, or cannot.
    grown: bool,
}

impl Pipe {
    /// An empty pipe.
    pub(crate) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity = fcntl_getpipe_size(&write)?;
        Ok(Self { read, write, held: 0, capacity, grown: false })
    }

    /// How many bytes are in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `limit` bytes from `socket` into the pipe, which must be empty: `WouldBlock` then means that
    /// the socket is. 0 is the end of the stream.
    pub(crate) fn fill(&mut self, socket: impl AsFd, limit: usize) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "a pipe that is not empty cannot tell that it is full");
        let length = limit.min(self.capacity);
        let moved = splice(socket, None, &self.write, None, length, FLAGS)?;
        self.held += moved;
        if moved >= GROW_AT && !self.grown {
            self.grown = true;
            if let Ok(capacity) = fcntl_setpipe_size(&self.write, GROWN) {
                self.capacity = capacity;
            }
        }
        Ok(moved)
    }

    /// Moves what is held into `socket`, as far as that takes it.
    pub(crate) fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.read, None, socket, None, self.held, FLAGS)?;
        if moved == 0 && self.held > 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
/// The most that an unprivileged program may ask for (`pipe-max-size`): fewer turns for the same bytes.
const GROWN: usize = 1 << 20;
/// So much at once is no terminal any more.
const GROW_AT: usize = 32 * 1024;
