//! What one direction of a splice passes through: a pipe of the kernel, where it moves bytes between sockets by
//! itself, and a buffer elsewhere.
//!
//! A conduit is filled from one stream ([`crate::net::StreamIo::poll_fill`]) and drained into another
//! ([`crate::net::StreamIo::poll_drain`]), in turns: it is filled only when it is empty, because a full pipe
//! and an empty socket give the same answer.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};

use crate::net::StreamIo;
#[cfg(target_os = "linux")]
pub(crate) use crate::os::pipe::Pipe;

/// See the module.
pub struct Conduit(Kind);

enum Kind {
    Copy(Buffer),
    #[cfg(target_os = "linux")]
    Pipe(Pipe),
}

/// Bytes on their way. The memory is taken at first use.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Conduit {
    /// A buffer, which every stream can use.
    pub fn copying() -> Self {
        Self(Kind::Copy(Buffer::default()))
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn piping(pipe: Pipe) -> Self {
        Self(Kind::Pipe(pipe))
    }

    /// The pipe, if it is one.
    #[cfg(target_os = "linux")]
    pub(crate) fn pipe(&mut self) -> Option<&mut Pipe> {
        match &mut self.0 {
            Kind::Copy(_) => None,
            Kind::Pipe(pipe) => Some(pipe),
        }
    }

    /// How many bytes are in it.
    pub fn held(&self) -> usize {
        match &self.0 {
            Kind::Copy(buffer) => buffer.end - buffer.start,
            #[cfg(target_os = "linux")]
            Kind::Pipe(pipe) => pipe.held(),
        }
    }

    /// Gives back the memory of a conduit that is empty and not likely to be used soon.
    pub fn relax(&mut self) {
        match &mut self.0 {
            Kind::Copy(buffer) if buffer.start == buffer.end => *buffer = Buffer::default(),
            Kind::Copy(_) => {}
            #[cfg(target_os = "linux")]
            Kind::Pipe(_) => {}
        }
    }

    /// Reads up to `limit` bytes of `stream` into an empty conduit, by copying; 0 is the end of the stream.
    pub(crate) fn copy_from<S: StreamIo + ?Sized>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let Kind::Copy(buffer) = &mut self.0 else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        if buffer.bytes.is_empty() {
            buffer.bytes = vec![0; BUFFER];
        }
        let limit = limit.min(buffer.bytes.len());
        let room = buffer.bytes.get_mut(..limit).unwrap_or_default();
        let read = ready!(stream.poll_read(cx, &mut [IoSliceMut::new(room)]))?;
        (buffer.start, buffer.end) = (0, read);
        Poll::Ready(Ok(read))
    }

    /// Writes a part of what is held into `stream`, by copying.
    pub(crate) fn copy_into<S: StreamIo + ?Sized>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Kind::Copy(buffer) = &mut self.0 else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let bytes = buffer.bytes.get(buffer.start..buffer.end).unwrap_or_default();
        let written = ready!(stream.poll_write(cx, &[IoSlice::new(bytes)]))?;
        if written == 0 && !bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        buffer.start += written;
        Poll::Ready(Ok(written))
    }
}

impl fmt::Debug for Conduit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conduit").field("held", &self.held()).finish_non_exhaustive()
    }
}

/// As much as a socket's receive buffer holds at first, and what one system call copies well.
const BUFFER: usize = 64 * 1024;
