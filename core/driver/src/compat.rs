//! A [`StreamIo`] as libraries want it: `futures_io`'s `AsyncRead` and `AsyncWrite`, for hyper,
//! tungstenite and futures-rustls.
//!
//! Bytes that were read already (a port tells protocols apart by the first byte) are put back in front:
//! [`Compat::with_prefix`]. Control connections go through here; the data path uses [`StreamIo`] itself.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_io::{AsyncRead, AsyncWrite};

use crate::net::StreamIo;

/// A connection that reads and writes in `futures_io`'s terms. It must be connected before.
#[derive(Debug)]
pub struct Compat<S> {
    stream: S,
    /// Read before the stream is.
    prefix: Bytes,
}

impl<S: StreamIo> Compat<S> {
    /// `stream` from its next byte on.
    pub fn new(stream: S) -> Self {
        Self::with_prefix(stream, Bytes::new())
    }

    /// `prefix`, then `stream`.
    pub fn with_prefix(stream: S, prefix: impl Into<Bytes>) -> Self {
        Self { stream, prefix: prefix.into() }
    }

    /// The stream itself: its addresses, for example.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream itself: to abort it, for example. Reading from it skips what is left of the prefix.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream, and what is left of the prefix.
    pub fn into_inner(self) -> (S, Bytes) {
        (self.stream, self.prefix)
    }
}

impl<S: StreamIo> AsyncRead for Compat<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_vectored(cx, &mut [IoSliceMut::new(buf)])
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.prefix.is_empty() {
            return self.stream.poll_read(cx, bufs);
        }
        let before = self.prefix.len();
        for buf in bufs {
            let taken = buf.len().min(self.prefix.len());
            if let Some(room) = buf.get_mut(..taken) {
                self.prefix.copy_to_slice(room);
            }
        }
        Poll::Ready(Ok(before - self.prefix.len()))
    }
}

impl<S: StreamIo> AsyncWrite for Compat<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bufs)
    }

    /// Nothing is held back here.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the sending direction; the other one goes on.
    fn poll_close(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stream.shutdown() {
            // The peer was faster: its reset has ended this direction too.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
