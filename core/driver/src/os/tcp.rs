//! Connections: TCP, and Unix sockets, which differ only in how they come about.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::Socket;

use super::opts;
use super::reactor::{Direction, Outcome, Reactor, Ready};
use crate::conduit::Conduit;
#[cfg(target_os = "linux")]
use crate::conduit::Pipe;
use crate::net::{StreamIo, TcpConfig};

/// A TCP or Unix connection.
pub struct OsStream<R: Reactor> {
    io: R::Io<Socket>,
    peer: SocketAddr,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
}

impl<R: Reactor> OsStream<R> {
    pub(super) fn connect(reactor: &R, config: &TcpConfig, to: SocketAddr) -> io::Result<Self> {
        let socket = opts::connecting(config, to)?;
        // Only now: an idle socket that has not begun to connect counts as hung up.
        let io = reactor.register(socket)?;
        Ok(Self { io, peer: opts::canonical(to), state: State::Connecting })
    }

    pub(super) fn accepted(reactor: &R, socket: Socket, peer: SocketAddr) -> io::Result<Self> {
        Ok(Self { io: reactor.register(socket)?, peer, state: State::Connected })
    }
}

impl<R: Reactor> StreamIo for OsStream<R> {
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == State::Connecting {
            ready!(self.io.poll_io(cx, Direction::Write, connected))?;
            self.state = State::Connected;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let count = bufs.len().min(MAX_SLICES);
        let bufs = bufs.get_mut(..count).unwrap_or_default();
        let room: usize = bufs.iter().map(|buf| buf.len()).sum();
        self.io.poll_io(cx, Direction::Read, |mut socket| {
            let read = match &mut *bufs {
                [buf] => socket.read(buf)?,
                bufs => socket.read_vectored(bufs)?,
            };
            // A short read emptied the kernel's buffer. None at all is the end, which does not block.
            Ok(if read > 0 && read < room { Outcome::Exhausted(read) } else { Outcome::Open(read) })
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bufs = bufs.get(..bufs.len().min(MAX_SLICES)).unwrap_or_default();
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        self.io.poll_io(cx, Direction::Write, |mut socket| {
            let written = match bufs {
                [buf] => socket.write(buf)?,
                bufs => socket.write_vectored(bufs)?,
            };
            Ok(if written < offered { Outcome::Exhausted(written) } else { Outcome::Open(written) })
        })
    }

    #[cfg(target_os = "linux")]
    fn conduit() -> Conduit {
        // Out of descriptors, or over the quota of pipes: copying always works.
        Pipe::new().map_or_else(|_| Conduit::copying(), Conduit::piping)
    }

    #[cfg(target_os = "linux")]
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        conduit: &mut Conduit,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        match conduit.pipe() {
            Some(pipe) => self.io.poll_io(cx, Direction::Read, |socket| {
                // A short move may be the pipe's doing, not the socket's: only "would block" means empty.
                pipe.fill(socket, limit).map(Outcome::Open)
            }),
            None => conduit.copy_from(self, cx, limit),
        }
    }

    #[cfg(target_os = "linux")]
    fn poll_drain(&mut self, cx: &mut Context<'_>, conduit: &mut Conduit) -> Poll<io::Result<usize>> {
        match conduit.pipe() {
            Some(pipe) => self.io.poll_io(cx, Direction::Write, |socket| {
                // What is left may be the pipe's doing, as above.
                pipe.drain(socket).map(Outcome::Open)
            }),
            None => conduit.copy_into(self, cx),
        }
    }

    fn shutdown(&mut self) -> io::Result<()> {
        if self.state == State::Connecting {
            // Linux would take it for the wish to give up connecting, and the socket would be neither
            // connected nor failed from then on.
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.io.source().shutdown(std::net::Shutdown::Write)
    }

    fn abort(&mut self) {
        // It fails on a socket that is past it, which needs no reset any more.
        let _ = self.io.source().set_linger(Some(Duration::ZERO));
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(opts::inet(&self.io.source().local_addr()?))
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<R: Reactor> fmt::Debug for OsStream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { io: _, peer, state } = self;
        f.debug_struct("OsStream").field("peer", peer).field("state", state).finish_non_exhaustive()
    }
}

/// Whether the connection is up, failed, or still on its way (which is "would block").
fn connected(socket: &Socket) -> io::Result<Outcome<()>> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(Outcome::Open(())),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error),
    }
}

/// How many slices one system call takes (`IOV_MAX` of Linux and macOS).
const MAX_SLICES: usize = 1024;
