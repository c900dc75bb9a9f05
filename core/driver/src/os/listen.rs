//! Listeners: TCP, and Unix sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::SocketAddrAny;
use socket2::Socket;

use super::local::SocketFile;
use super::opts;
use super::reactor::{Direction, Outcome, Reactor, Ready};
use super::tcp::OsStream;
use crate::net::ListenIo;

/// A TCP or Unix listener. The file of a Unix listener goes when the listener does.
pub struct OsListener<R: Reactor> {
    io: R::Io<Socket>,
    reactor: R,
    local: SocketAddr,
    file: Option<SocketFile>,
}

impl<R: Reactor> OsListener<R> {
    pub(super) fn new(reactor: &R, socket: Socket, file: Option<SocketFile>) -> io::Result<Self> {
        let local = opts::inet(&socket.local_addr()?);
        Ok(Self { io: reactor.register(socket)?, reactor: reactor.clone(), local, file })
    }
}

impl<R: Reactor> ListenIo for OsListener<R> {
    type Stream = OsStream<R>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, SocketAddr)>> {
        for _ in 0..PASSED_OVER_AT_ONCE {
            match ready!(self.io.poll_io(cx, Direction::Read, accept)) {
                Ok((socket, peer)) => {
                    let stream = OsStream::accepted(&self.reactor, socket, peer)?;
                    return Poll::Ready(Ok((stream, peer)));
                }
                Err(error) if concerns_one_connection(&error) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl<R: Reactor> fmt::Debug for OsListener<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { io: _, reactor: _, local, file } = self;
        f.debug_struct("OsListener").field("local", local).field("file", file).finish_non_exhaustive()
    }
}

fn accept(listener: &Socket) -> io::Result<Outcome<(Socket, SocketAddr)>> {
    let (connection, peer) = accept_non_blocking(listener)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok(Outcome::Open((Socket::from(connection), peer.map_or(opts::UNSPECIFIED, opts::canonical))))
}

/// One system call makes the connection non-blocking and keeps child processes from inheriting it.
#[cfg(target_os = "linux")]
fn accept_non_blocking(listener: &Socket) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    use rustix::net::SocketFlags;
    Ok(rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

#[cfg(not(target_os = "linux"))]
fn accept_non_blocking(listener: &Socket) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (connection, peer) = rustix::net::acceptfrom(listener)?;
    rustix::io::fcntl_setfd(&connection, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&connection, true)?;
    Ok((connection, peer))
}

/// Linux hands an error that waits on the new connection to `accept` (accept(2), "Error handling"): it says
/// nothing about the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    let passing = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        #[cfg(target_os = "linux")]
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
        Errno::TIMEDOUT,
        Errno::PERM,
    ];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// How many failed connections one call passes over before it lets other tasks run.
const PASSED_OVER_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhausted_descriptors_concern_the_listener() {
        let of = |errno: Errno| io::Error::from(errno);
        assert!(!concerns_one_connection(&of(Errno::MFILE)));
        assert!(!concerns_one_connection(&of(Errno::NFILE)));
        assert!(!concerns_one_connection(&of(Errno::NOBUFS)));
        assert!(concerns_one_connection(&of(Errno::CONNABORTED)));
        assert!(concerns_one_connection(&of(Errno::PERM)));
    }
}
