//! What a program holds of TCP: streams and listeners.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use inp2p_driver::net::{ListenIo, StreamIo};

use super::conn::State as TcpState;
use crate::executor::lock;
use crate::host::is_unix;
use crate::slab::Key;
use crate::world::Shared;

/// A TCP connection or Unix stream of a simulated host.
#[derive(Debug)]
pub struct SimStream {
    shared: Arc<Shared>,
    key: Key,
    local: SocketAddr,
    remote: SocketAddr,
    abort: bool,
}

impl SimStream {
    pub(crate) fn new(shared: Arc<Shared>, key: Key, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { shared, key, local, remote, abort: false }
    }
}

impl StreamIo for SimStream {
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.shared.state);
        let Some(conn) = state.conns.find_mut(self.key) else { return Poll::Ready(Err(host_gone())) };
        conn.connected().map_or_else(|| pending(&mut conn.writer, cx), Poll::Ready)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.shared.state);
        let Some(conn) = state.conns.find_mut(self.key) else { return Poll::Ready(Err(host_gone())) };
        let read = conn.recv.read(bufs);
        if read > 0 {
            if conn.recv.window_opened() {
                state.drive(self.key, |conn, _, out| conn.consumed(out));
            }
            return Poll::Ready(Ok(read));
        }
        if conn.recv.eof() || bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        match conn.state() {
            TcpState::Closed(None) => Poll::Ready(Ok(0)),
            TcpState::Closed(Some(error)) => Poll::Ready(Err(error.into())),
            TcpState::SynSent { .. }
            | TcpState::SynReceived { .. }
            | TcpState::Open { .. }
            | TcpState::TimeWait { .. } => pending(&mut conn.reader, cx),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.shared.state);
        let Some(conn) = state.conns.find_mut(self.key) else { return Poll::Ready(Err(host_gone())) };
        match conn.state() {
            TcpState::Closed(Some(error)) => return Poll::Ready(Err(error.into())),
            TcpState::SynSent { .. } | TcpState::SynReceived { .. } => return pending(&mut conn.writer, cx),
            TcpState::Closed(None) | TcpState::TimeWait { .. } => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            TcpState::Open { .. } if conn.send.finishing() => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            TcpState::Open { .. } => {}
        }
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        let room = conn.send.room(conn.unsent);
        if room == 0 && wanted > 0 {
            return pending(&mut conn.writer, cx);
        }
        let length = room.min(wanted);
        let mut data = BytesMut::with_capacity(length);
        for buf in bufs {
            data.extend_from_slice(&buf[..buf.len().min(length - data.len())]);
        }
        conn.send.queue(data.freeze());
        state.drive(self.key, |conn, now, out| conn.transmit(now, out));
        Poll::Ready(Ok(length))
    }

    fn shutdown(&mut self) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        let conn = state.conns.find(self.key).ok_or_else(host_gone)?;
        match conn.connected() {
            None => Err(io::ErrorKind::NotConnected.into()),
            Some(Err(error)) => Err(error),
            Some(Ok(())) => {
                state.drive(self.key, |conn, now, out| conn.finish(now, out));
                Ok(())
            }
        }
    }

    fn abort(&mut self) {
        self.abort = true;
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(shown(self.local))
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(shown(self.remote))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let abort = self.abort;
        let mut state = lock(&self.shared.state);
        state.drive(self.key, |conn, now, out| conn.release(now, abort, out));
    }
}

/// A TCP or Unix listener of a simulated host.
#[derive(Debug)]
pub struct SimListener {
    shared: Arc<Shared>,
    key: Key,
    local: SocketAddr,
}

impl SimListener {
    pub(crate) fn new(shared: Arc<Shared>, key: Key, local: SocketAddr) -> Self {
        Self { shared, key, local }
    }
}

impl ListenIo for SimListener {
    type Stream = SimStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(SimStream, SocketAddr)>> {
        let mut state = lock(&self.shared.state);
        if let Some((key, local, remote)) = state.accept(self.key) {
            let stream = SimStream::new(self.shared.clone(), key, local, remote);
            return Poll::Ready(Ok((stream, shown(remote))));
        }
        match state.listeners.find_mut(self.key) {
            Some(listener) => pending(&mut listener.waker, cx),
            None => Poll::Ready(Err(host_gone())),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(shown(self.local))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        lock(&self.shared.state).close_listener(self.key);
    }
}

/// Keeps the waker of the latest call.
pub(crate) fn pending<T>(slot: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
    Poll::Pending
}

/// The error of a socket that outlived its host's crash; only its own task, which is about to be dropped,
/// could see it.
pub(crate) fn host_gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the host of this socket has crashed")
}

/// A Unix socket shows the unspecified address.
fn shown(address: SocketAddr) -> SocketAddr {
    if is_unix(address.ip()) { SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0) } else { address }
}
