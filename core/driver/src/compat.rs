//! A [`StreamIo`] as the traits of futures-io, for the TLS, HTTP and WebSocket libraries.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_io::{AsyncRead, AsyncWrite};

use crate::net::StreamIo;

/// A stream, with what was already read from it put back in front.
#[derive(Debug)]
pub struct Compat<S> {
    stream: S,
    prefix: Bytes,
}

impl<S: StreamIo> Compat<S> {
    /// Nothing has been read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, prefix: Bytes::new() }
    }

    /// `bytes` were read and will be read again, before all else.
    pub fn put_back(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.prefix = Bytes::copy_from_slice(bytes.as_ref());
        self
    }
}

impl<S: StreamIo> AsyncRead for Compat<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let taken = this.prefix.len().min(buf.len());
            this.prefix.split_to(taken).copy_to_slice(buf.get_mut(..taken).unwrap_or_default());
            return Poll::Ready(Ok(taken));
        }
        this.stream.poll_read(cx, &mut [IoSliceMut::new(buf)])
    }
}

impl<S: StreamIo> AsyncWrite for Compat<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().stream.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream.poll_write(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().stream.shutdown())
    }
}
