//! A byte stream to a node or to a relay: a connection, or one inside a WebSocket.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::conduit::Conduit;
use crate::net::StreamIo;

/// See the module. It is a [`StreamIo`] itself, so whoever uses it need not tell.
pub enum Carrier<S> {
    /// A connection.
    Plain(S),
    /// A byte stream inside something else.
    Inside(Box<dyn ByteStream>),
}

/// A byte stream inside something else, such as a WebSocket. The contract is that of [`StreamIo`].
pub trait ByteStream: Send {
    /// As [`StreamIo::poll_read`], for one buffer.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;

    /// As [`StreamIo::poll_write`], for one buffer. What was taken may wait here until [`Self::poll_flush`].
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>;

    /// Waits until all that was taken has been passed on.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// As [`StreamIo::shutdown`].
    fn shutdown(&mut self) -> io::Result<()>;

    /// As [`StreamIo::abort`]: without the end that an orderly close has, it cannot be taken for one.
    fn abort(&mut self);

    /// As [`StreamIo::local_addr`].
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// As [`StreamIo::peer_addr`].
    fn peer_addr(&self) -> io::Result<SocketAddr>;
}

impl<S> Carrier<S> {
    /// Waits until all that was written has been passed on.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Inside(stream) => stream.poll_flush(cx),
        }
    }
}

/// Its conduit is the copying one, the only one that works for both kinds; `splice` takes the stream's own where both
/// ends are plain.
impl<S: StreamIo> StreamIo for Carrier<S> {
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_connected(cx),
            Self::Inside(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_read(cx, bufs),
            Self::Inside(stream) => match bufs.iter_mut().find(|buf| !buf.is_empty()) {
                Some(buf) => stream.poll_read(cx, buf),
                None => Poll::Ready(Ok(0)),
            },
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_write(cx, bufs),
            Self::Inside(stream) => match bufs.iter().find(|buf| !buf.is_empty()) {
                Some(buf) => stream.poll_write(cx, buf),
                None => Poll::Ready(Ok(0)),
            },
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        conduit: &mut Conduit,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_fill(cx, conduit, limit),
            Self::Inside(_) => conduit.copy_from(self, cx, limit),
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, conduit: &mut Conduit) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_drain(cx, conduit),
            Self::Inside(_) => conduit.copy_into(self, cx),
        }
    }

    fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown(),
            Self::Inside(stream) => stream.shutdown(),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Plain(stream) => stream.abort(),
            Self::Inside(stream) => stream.abort(),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.local_addr(),
            Self::Inside(stream) => stream.local_addr(),
        }
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr(),
            Self::Inside(stream) => stream.peer_addr(),
        }
    }
}

impl<S> fmt::Debug for Carrier<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Inside(_) => "Inside",
        })
    }
}
