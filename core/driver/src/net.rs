//! All that the driver sees of the world: sockets, time, randomness, files. [`Net`] is implemented by
//! `Os<R>` for real sockets on any runtime, and by the simulator on virtual time.
//!
//! Every `poll_*` follows the contract of [`std::future::Future::poll`]: on `Pending` the waker of the
//! latest call, and of no earlier one, is woken when it may be worth trying again. A socket keeps one waker
//! a direction, so one task waits for a socket; but many may send by a UDP socket ([`UdpIo::try_send`]).

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::conduit::Conduit;

/// A network, a clock and a place to run tasks.
pub trait Net: Clone + Send + Sync + 'static {
    /// A UDP socket.
    type Udp: UdpIo;
    /// A TCP or Unix connection.
    type Stream: StreamIo;
    /// A TCP or Unix listener.
    type Listener: ListenIo<Stream = Self::Stream>;
    /// A timer.
    type Timer: TimerIo;

    /// The monotonic clock. It goes on while the machine sleeps, where the system has such a clock.
    fn now(&self) -> Instant;

    /// The wall clock, since 1970. It may jump.
    fn unix_now(&self) -> Duration;

    /// 32 fresh secret bytes: the seed of one core machine.
    fn seed(&self) -> [u8; 32];

    /// Binds a UDP socket. The unspecified IPv6 address means all addresses, IPv6 and IPv4 (only the latter
    /// on a host without IPv6); an unspecified IPv4 address means IPv4 alone.
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Self::Udp>;

    /// Listens for TCP.
    fn listen(&self, config: &TcpConfig) -> io::Result<Self::Listener>;

    /// Listens on a Unix socket at `path`, which only its owner may use (mode 0600). A stale socket file is
    /// replaced; one that somebody listens on is `AddrInUse`.
    fn listen_local(&self, path: &Path) -> io::Result<Self::Listener>;

    /// Begins to connect to `to`; [`StreamIo::poll_connected`] tells when it is done.
    fn connect(&self, config: &TcpConfig, to: SocketAddr) -> io::Result<Self::Stream>;

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Runs `task` to its end; `name` is for traces.
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static);

    /// The addresses of `host`, which may be an address already; never empty when `Ok`.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// The addresses of this host's interfaces that are up.
    fn interfaces(&self) -> io::Result<Vec<Interface>>;
}

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// The interface's name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The length of the network prefix in bits.
    pub prefix: u8,
}

/// Whether a connection from `ip` is dead on a host that has these addresses: that one is gone, and there are
/// others. Without any the interface may only be down, and bring the address back.
pub(crate) fn is_lost(addresses: &[IpAddr], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let others = |address: &IpAddr| address.is_ipv4() == ip.is_ipv4() && !address.is_loopback();
    let mut addresses = addresses.iter().map(IpAddr::to_canonical).filter(others).peekable();
    !ip.is_loopback() && addresses.peek().is_some() && addresses.all(|address| address != ip)
}

/// How to bind a TCP socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConfig {
    /// The local address; none leaves it to the system (for [`Net::listen`]: all addresses, IPv6 and IPv4,
    /// which the unspecified IPv6 address means too, with a port).
    pub local: Option<SocketAddr>,
    /// Whether other sockets may share the local port (reuse-address and reuse-port): for punching.
    pub share_port: bool,
    /// Whether the connection carries a link: unsent bytes in the kernel are bounded
    /// ([`LINK_UNSENT_BYTES`]), so that a bulk copy does not delay a terminal.
    pub link: bool,
}

/// How much of a link's data the kernel may hold unsent: enough for one wake-up of the sender at 10 Gbit/s,
/// and no more, because what sits there cannot be overtaken.
pub const LINK_UNSENT_BYTES: u32 = 64 * 1024;

/// A UDP socket: batches in, segmentation offload out.
///
/// Many tasks may send by it, each with [`Self::try_send`]; but one task alone waits for it, since only the
/// waker of the latest poll in each direction is kept. Whoever meets `WouldBlock` has that task wake it.
pub trait UdpIo: Send + Sync + 'static {
    /// Where it is bound.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Receives up to a batch of datagrams; the number of filled entries is at least 1.
    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<usize>>;

    /// Sends `bytes` now, as one datagram, or as several of `transmit.segment` bytes each. With an error of
    /// kind `WouldBlock` nothing was sent, and [`Self::poll_writable`] tells when to try again.
    fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()>;

    /// Waits until a send that would have blocked may be worth another try. It may be wrong now and then.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// How many segments one send may carry.
    fn max_segments(&self) -> usize;

    /// Sends, and waits where that would block: for a socket that one task has for itself.
    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit, bytes: &[u8]) -> Poll<io::Result<()>> {
        loop {
            match self.try_send(transmit, bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_writable(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }
}

/// Where a datagram goes to.
#[derive(Debug, Clone, Copy)]
pub struct Transmit {
    /// The destination.
    pub to: SocketAddr,
    /// The source address, where the socket is bound to all.
    pub from: Option<IpAddr>,
    /// The length of each datagram but the last, when `bytes` holds several.
    pub segment: Option<usize>,
    /// Two ECN bits (RFC 3168), 0 for none.
    pub ecn: u8,
    /// How many hops it may go; none for the system's usual number. With a few it opens the NATs near by and
    /// gets no further. It is for single datagrams, now and then: what other tasks send by the same socket at
    /// that very moment may fall as short.
    pub hops: Option<u8>,
}

impl Transmit {
    /// One datagram, with nothing particular about it.
    pub fn plain(to: SocketAddr) -> Self {
        Self { to, from: None, segment: None, ecn: 0, hops: None }
    }
}

/// One received buffer: one datagram, or several of `stride` bytes that came from the same source.
#[derive(Debug, Clone, Copy)]
pub struct RecvMeta {
    /// Where it came from.
    pub from: SocketAddr,
    /// The address that it was sent to, where known.
    pub to: Option<IpAddr>,
    /// How many bytes the buffer holds.
    pub len: usize,
    /// The length of each datagram in it but the last.
    pub stride: usize,
    /// Two ECN bits (RFC 3168).
    pub ecn: u8,
}

/// How large a receive buffer must be: a system with receive offload joins datagrams of one source up to the
/// longest UDP payload, and what does not fit its buffer is lost.
pub const RECV_BUFFER_BYTES: usize = 65_536;

/// Buffers for one batch, of [`RECV_BUFFER_BYTES`] each. Made once a socket and reused.
pub struct RecvBatch {
    buffers: Vec<Box<[u8]>>,
    metas: Vec<RecvMeta>,
}

impl RecvBatch {
    /// `count` buffers of `size` bytes.
    pub fn new(count: usize, size: usize) -> Self {
        let empty =
            RecvMeta { from: SocketAddr::from(([0, 0, 0, 0], 0)), to: None, len: 0, stride: 0, ecn: 0 };
        Self {
            buffers: (0..count).map(|_| vec![0; size].into_boxed_slice()).collect(),
            metas: vec![empty; count],
        }
    }

    /// The buffers and their descriptions, for the socket to fill.
    pub fn fill(&mut self) -> (&mut [Box<[u8]>], &mut [RecvMeta]) {
        (&mut self.buffers, &mut self.metas)
    }

    /// How many bytes the first `filled` buffers hold.
    pub fn bytes(&self, filled: usize) -> usize {
        self.metas.iter().take(filled).map(|meta| meta.len).sum()
    }

    /// The datagrams of the first `filled` buffers.
    pub fn datagrams(&self, filled: usize) -> impl Iterator<Item = (&RecvMeta, &[u8])> {
        self.metas.iter().zip(&self.buffers).take(filled).flat_map(|(meta, buffer)| {
            let bytes = buffer.get(..meta.len).unwrap_or_default();
            bytes.chunks(meta.stride.max(1)).map(move |datagram| (meta, datagram))
        })
    }
}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch").field("buffers", &self.buffers.len()).finish_non_exhaustive()
    }
}

/// A byte stream: TCP, or a Unix socket.
pub trait StreamIo: Send + Unpin + 'static {
    /// Waits until the connection that [`Net::connect`] began is up. An accepted stream is ready at once.
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads; `Ok(0)` is the other side's end of stream, when `bufs` had room.
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>;

    /// Writes a part of `bufs`.
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// A conduit for bytes that come from a stream of this kind and go to another one: where the system can
    /// move them by itself, one in which it does.
    fn conduit() -> Conduit {
        Conduit::copying()
    }

    /// Moves up to `limit` bytes of this stream into `conduit`, which must be empty and of this kind of
    /// stream; `Ok(0)` is the other side's end of stream.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        conduit: &mut Conduit,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        conduit.copy_from(self, cx, limit)
    }

    /// Moves a part of what `conduit` holds into this stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>, conduit: &mut Conduit) -> Poll<io::Result<usize>> {
        conduit.copy_into(self, cx)
    }

    /// Ends the sending direction (FIN); the other one goes on.
    fn shutdown(&mut self) -> io::Result<()>;

    /// Makes the close that follows a reset in place of an orderly end (`SO_LINGER` 0).
    fn abort(&mut self);

    /// The local address; for a Unix socket the unspecified one.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The peer's address; for a Unix socket the unspecified one.
    fn peer_addr(&self) -> io::Result<SocketAddr>;
}

/// A listener.
pub trait ListenIo: Send + Unpin + 'static {
    /// What it accepts.
    type Stream: StreamIo;

    /// Waits for a connection. An error that concerns one connection only is passed over; one that
    /// concerns the listener (descriptors exhausted) is returned, and the caller waits before the next try.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, SocketAddr)>>;

    /// Where it listens: the real port where 0 was asked for.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A timer that can be set anew at any time.
pub trait TimerIo: Send + Unpin + 'static {
    /// Ready once `at` has come, however often it is asked; never for `None`. The waker of the latest call is woken at
    /// `at`; asking again with the same instant costs nothing. Whoever asks decides by the clock, not by this answer,
    /// what has expired.
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()>;

    /// Has the task polled again at `at`, if not before; at once if that has come. For one that is about to return
    /// [`Poll::Pending`].
    fn wake_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) {
        if self.poll_at(cx, at).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

/// The few small files of a program: keys, pins, state. Names have no folder in them.
pub trait Store: Send + Sync + 'static {
    /// The file's content, or none where there is no such file.
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the file whole, or leaves it as it was: temporary file, fsync, rename. Mode 0600.
    fn save(&self, name: &str, content: &[u8]) -> io::Result<()>;
}
