//! An asynchronous stream as a non-blocking one, which is what tungstenite reads and writes.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_io::{AsyncRead, AsyncWrite};

/// `WouldBlock` stands for `Pending`. One task owns the connection, so one waker serves both directions; it
/// is set anew in each poll.
#[derive(Debug)]
pub(crate) struct PollIo<S> {
    io: S,
    waker: Waker,
}

impl<S> PollIo<S> {
    /// No task waits yet.
    pub(crate) fn new(io: S) -> Self {
        Self { io, waker: Waker::noop().clone() }
    }

    /// The task that asks now.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        self.waker.clone_from(waker);
    }

    /// The stream itself.
    pub(crate) fn io(&mut self) -> Pin<&mut S>
    where
        S: Unpin,
    {
        Pin::new(&mut self.io)
    }
}

impl<S: AsyncRead + Unpin> Read for PollIo<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut self.io).poll_read(&mut Context::from_waker(&self.waker), buf))
    }
}

impl<S: AsyncWrite + Unpin> Write for PollIo<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match blocking(Pin::new(&mut self.io).poll_write(&mut Context::from_waker(&self.waker), buf))? {
            // tungstenite takes it for granted that this does not happen.
            0 if !buf.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        blocking(Pin::new(&mut self.io).poll_flush(&mut Context::from_waker(&self.waker)))
    }
}

fn blocking<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
