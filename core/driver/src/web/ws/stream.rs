//! A byte stream inside a WebSocket: a relayed link where a raw connection cannot pass.
//!
//! The bytes travel in binary messages, whose bounds mean nothing. An empty message ends the sender's
//! direction, as FIN does; a connection that closes without one is one that broke.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{Buf, Bytes};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{Message, WebSocket, WebSocketConfig};

use super::{MAX_MESSAGE, PollIo, would_block};
use crate::relay::ByteStream;

/// See the module.
pub(crate) struct WsBytes<S: AsyncRead + AsyncWrite + Unpin> {
    socket: Box<WebSocket<PollIo<S>>>,
    waiting: Arc<Waiting>,
    /// What is left of the last message.
    incoming: Bytes,
    peer_ended: bool,
    ended: bool,
    local: SocketAddr,
    remote: SocketAddr,
}

/// The connection has one waker, and its two directions may have one each.
#[derive(Debug, Default)]
struct Waiting {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

/// The configuration of such a connection.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(CHUNK)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * CHUNK)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

impl<S: AsyncRead + AsyncWrite + Unpin> WsBytes<S> {
    /// On a connection whose upgrade is done.
    pub(crate) fn new(mut socket: Box<WebSocket<PollIo<S>>>, local: SocketAddr, remote: SocketAddr) -> Self {
        let waiting = Arc::new(Waiting::default());
        socket.get_mut().set_waker(&Waker::from(Arc::clone(&waiting)));
        Self { socket, waiting, incoming: Bytes::new(), peer_ended: false, ended: false, local, remote }
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        match self.socket.flush() {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) if would_block(&error) => Poll::Pending,
            Err(error) => Poll::Ready(Err(self.failure(error))),
        }
    }

    fn send(&mut self, message: Bytes) -> io::Result<()> {
        match self.socket.write(Message::Binary(message)) {
            Ok(()) => Ok(()),
            // It has been taken all the same, and is flushed later.
            Err(error) if would_block(&error) => Ok(()),
            Err(error) => Err(self.failure(error)),
        }
    }

    fn failure(&self, error: Error) -> io::Error {
        match error {
            Error::Io(error) => error,
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
            ) => io::ErrorKind::ConnectionReset.into(),
            other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for WsBytes<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.waiting.reader.register(cx.waker());
        // Whoever reads was woken, perhaps because there is room for what waits to be sent.
        if let Poll::Ready(Err(error)) = self.flush() {
            return Poll::Ready(Err(error));
        }
        for _ in 0..BUDGET {
            if !self.incoming.is_empty() {
                let n = buf.len().min(self.incoming.len());
                self.incoming.copy_to_slice(buf.get_mut(..n).unwrap_or_default());
                return Poll::Ready(Ok(n));
            }
            if self.peer_ended {
                return Poll::Ready(Ok(0));
            }
            match self.socket.read() {
                Ok(Message::Binary(message)) if message.is_empty() => self.peer_ended = true,
                Ok(Message::Binary(message)) => self.incoming = message,
                Ok(Message::Text(_)) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Ok(Message::Close(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                // Reading on sends the pong.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(error) if would_block(&error) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(self.failure(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.waiting.writer.register(cx.waker());
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.flush())?;
        let chunk = buf.get(..CHUNK).unwrap_or(buf);
        if !chunk.is_empty() {
            self.send(Bytes::copy_from_slice(chunk))?;
        }
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting.writer.register(cx.waker());
        self.flush()
    }

    fn shutdown(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.ended, true) {
            self.send(Bytes::new())?;
        }
        Ok(())
    }

    fn abort(&mut self) {
        self.ended = true;
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.remote)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drop for WsBytes<S> {
    /// A stream that is dropped ends, as a connection does; as far as it goes at once.
    fn drop(&mut self) {
        if !std::mem::replace(&mut self.ended, true) && self.send(Bytes::new()).is_ok() {
            let _ = self.flush();
        }
    }
}

/// A record of TLS: what is inside are records.
const CHUNK: usize = 16 * 1024;
/// Messages without bytes before others have their turn.
const BUDGET: usize = 32;
