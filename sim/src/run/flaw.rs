//! Broken copies of the programs, by which it is shown that a run notices.
//!
//! A check that cannot fail shows nothing. Each [`Flaw`] takes away one thing that the programs use to cope
//! (a timer, a second connection, the look at the interfaces, a half-close) by standing between the
//! unchanged driver and its network; the programs themselves stay as they are.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use inp2p_core::relay::handshake::MAX_RESPONSE;
use inp2p_driver::net::{Interface, ListenIo, Net, RecvBatch, StreamIo, TcpConfig, TimerIo, Transmit, UdpIo};

use super::forged::spoil_proof;
use super::mishap::{Mishap, Numbers};
use crate::executor::lock;
use crate::net::SimNet;
use crate::programs::{RELAY_PORT, SERVER_PORT};
use crate::tcp::{SimListener, SimStream};
use crate::timer::SimTimer;
use crate::udp::SimUdp;

/// What is broken in the nodes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The timers of the tasks of this name never go off: what they wait for in vain they wait for for ever.
    DeafTimers(&'static str),
    /// Every address is connected to once: what broke is not made anew. There is no UDP, where nothing is
    /// connected to.
    ConnectsOnce,
    /// The addresses are those of the first look.
    OldAddresses,
    /// Time is what the wall clock says.
    WallTime,
    /// The end of a direction is not passed on.
    NoHalfClose,
    /// A connection that is to be reset is closed in order.
    OrderlyResets,
    /// One byte in ten thousand of what programs hand over is another one.
    WrongBytes,
    /// What is written to a program is sometimes written twice.
    WritesTwice,
    /// A task is left behind at the end.
    LeavesTask,
    /// An error is logged.
    LogsError,
    /// Somebody is called whom nobody has mentioned.
    CallsStrangers,
    /// Nothing that the server says is heard any more after some forty seconds.
    GrowsDeaf,
    /// More tasks are started than any work needs.
    Hoards,
    /// A socket that has met with this once hears no more of peers.
    Deafens(Mishap),
    /// QUIC's packets are taken for what was sent, whatever comes.
    Unsealed,
    /// The proofs in the server's STUN answers are not the server's.
    ForgesProofs,
    /// A UDP socket that would have blocked never says that it takes something again.
    StaysBlocked,
    /// There is one UDP socket, and no further one to be had.
    OneSocket,
    /// Who has refused a connection is not called again.
    TakesNoForAnAnswer,
    /// The interfaces have other addresses than the node believes and says.
    WrongAddresses,
    /// Nothing is sent to that address.
    Shuns(IpAddr),
    /// There is no TCP to peers.
    KeepsToUdp,
    /// Where a datagram of more than 1,200 bytes has been sent none of just that size is sent any more: what was
    /// learnt of the path is never unlearnt.
    StaysLarge,
    /// Nothing follows the response to a relay's challenge until the relay has said that it will do.
    WaitsForRelays,
}

/// A network with a flaw.
#[derive(Debug, Clone)]
pub(crate) struct FlawedNet {
    inner: SimNet,
    flaw: Flaw,
    called: Arc<Mutex<BTreeSet<SocketAddr>>>,
    refused: Arc<Mutex<BTreeSet<SocketAddr>>>,
    first_look: Arc<Mutex<Option<Vec<Interface>>>>,
    /// Whether the first UDP socket has been given out.
    bound: Arc<AtomicBool>,
    begun: (Instant, Duration),
}

impl FlawedNet {
    pub(crate) fn new(inner: SimNet, flaw: Flaw) -> Self {
        let begun = (inner.now(), inner.unix_now());
        match flaw {
            Flaw::LeavesTask => inner.spawn("left behind", pending()),
            Flaw::Hoards => (0..1_000).for_each(|_| inner.spawn("hoarded", pending())),
            Flaw::LogsError => tracing::error!(target: "inp2p_sim", "a flaw"),
            Flaw::CallsStrangers => {
                let stranger = SocketAddr::from(([203, 0, 113, 77], 80));
                drop(inner.connect(&TcpConfig::default(), stranger));
            }
            _ => {}
        }
        Self {
            inner,
            flaw,
            called: Arc::default(),
            refused: Arc::default(),
            first_look: Arc::default(),
            bound: Arc::default(),
            begun,
        }
    }

    fn stream(&self, inner: SimStream, to: Option<SocketAddr>) -> FlawedStream {
        let (net, flaw) = (self.clone(), self.flaw);
        FlawedStream { inner, net, flaw, to, read: 0, wrote: 0, pieces: 0, response: 0, waiting: None }
    }

    /// An instant of the flawed clock as one of the real one.
    fn real(&self, at: Instant) -> Instant {
        match self.flaw {
            Flaw::WallTime => self.inner.now() + at.saturating_duration_since(self.now()),
            _ => at,
        }
    }
}

impl Net for FlawedNet {
    type Udp = FlawedUdp;
    type Stream = FlawedStream;
    type Listener = FlawedListener;
    type Timer = FlawedTimer;

    fn now(&self) -> Instant {
        match self.flaw {
            Flaw::WallTime => self.begun.0 + self.inner.unix_now().saturating_sub(self.begun.1),
            _ => self.inner.now(),
        }
    }

    fn unix_now(&self) -> Duration {
        self.inner.unix_now()
    }

    fn seed(&self) -> [u8; 32] {
        self.inner.seed()
    }

    fn bind_udp(&self, local: SocketAddr) -> io::Result<FlawedUdp> {
        if self.bound.swap(true, Ordering::Relaxed) && self.flaw == Flaw::OneSocket {
            return Err(io::Error::other("no further socket"));
        }
        let inner = self.inner.bind_udp(local)?;
        Ok(FlawedUdp { inner, flaw: self.flaw, numbers: Mutex::default(), large: Mutex::default() })
    }

    fn listen(&self, config: &TcpConfig) -> io::Result<FlawedListener> {
        let inner = self.inner.listen(config)?;
        Ok(FlawedListener { inner, net: self.clone() })
    }

    fn listen_local(&self, path: &Path) -> io::Result<FlawedListener> {
        let inner = self.inner.listen_local(path)?;
        Ok(FlawedListener { inner, net: self.clone() })
    }

    fn connect(&self, config: &TcpConfig, to: SocketAddr) -> io::Result<FlawedStream> {
        if self.flaw == Flaw::ConnectsOnce && !to.ip().is_loopback() {
            // A peer's port differs from start to start; its address is what counts.
            let host = SocketAddr::new(to.ip(), 0);
            if !lock(&self.called).insert(host) {
                return Err(io::ErrorKind::NetworkUnreachable.into());
            }
        }
        let is_peer = !to.ip().is_loopback() && !SERVER.contains(&to.port());
        if self.flaw == Flaw::KeepsToUdp && is_peer {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        if self.flaw == Flaw::Shuns(to.ip()) || lock(&self.refused).contains(&to) {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        Ok(self.stream(self.inner.connect(config, to)?, Some(to)))
    }

    fn timer(&self) -> FlawedTimer {
        FlawedTimer { inner: self.inner.timer(), net: self.clone() }
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.spawn(name, task);
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.inner.resolve(host, port).await
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        let now = self.inner.interfaces()?;
        match self.flaw {
            Flaw::OldAddresses => Ok(lock(&self.first_look).get_or_insert(now).clone()),
            Flaw::WrongAddresses => {
                let wrong = |interface| Interface { address: NOWHERE, ..interface };
                Ok(now.into_iter().map(wrong).collect())
            }
            _ => Ok(now),
        }
    }
}

#[derive(Debug)]
pub(crate) struct FlawedListener {
    inner: SimListener,
    net: FlawedNet,
}

impl ListenIo for FlawedListener {
    type Stream = FlawedStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(FlawedStream, SocketAddr)>> {
        let Self { inner, net } = self;
        inner.poll_accept(cx).map_ok(|(stream, from)| (net.stream(stream, None), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

#[derive(Debug)]
pub(crate) struct FlawedTimer {
    inner: SimTimer,
    net: FlawedNet,
}

impl TimerIo for FlawedTimer {
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        if let Flaw::DeafTimers(task) = self.net.flaw
            && self.net.inner.current_task() == Some(task)
        {
            return Poll::Pending;
        }
        self.inner.poll_at(cx, at.map(|at| self.net.real(at)))
    }
}

#[derive(Debug)]
pub(crate) struct FlawedUdp {
    inner: SimUdp,
    flaw: Flaw,
    numbers: Mutex<Numbers>,
    /// To where more than [`BASE`] has been sent at once.
    large: Mutex<BTreeSet<SocketAddr>>,
}

impl UdpIo for FlawedUdp {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<usize>> {
        let Flaw::Deafens(mishap) = self.flaw else {
            let filled = ready!(self.inner.poll_recv(cx, batch))?;
            if self.flaw == Flaw::ForgesProofs {
                let (buffers, metas) = batch.fill();
                for (buffer, meta) in buffers.iter_mut().zip(metas).take(filled) {
                    let datagrams = buffer.get_mut(..meta.len).unwrap_or_default();
                    datagrams.chunks_mut(meta.stride.max(1)).for_each(spoil_proof);
                }
            }
            return Poll::Ready(Ok(filled));
        };
        loop {
            let filled = ready!(self.inner.poll_recv(cx, batch))?;
            let left = lock(&self.numbers).unwrap(mishap, batch, filled);
            if left > 0 {
                return Poll::Ready(Ok(left));
            }
        }
    }

    fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        match self.flaw {
            Flaw::ConnectsOnce => Ok(()),
            Flaw::Shuns(address) if address == transmit.to.ip() => Ok(()),
            Flaw::StaysLarge => {
                let size = transmit.segment.unwrap_or(bytes.len());
                if size > BASE {
                    lock(&self.large).insert(transmit.to);
                }
                if size == BASE && lock(&self.large).contains(&transmit.to) {
                    return Ok(());
                }
                self.inner.try_send(transmit, bytes)
            }
            Flaw::Deafens(_) => self.inner.try_send(transmit, &lock(&self.numbers).wrap(transmit.to, bytes)),
            _ => self.inner.try_send(transmit, bytes),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.flaw {
            Flaw::StaysBlocked => Poll::Pending,
            _ => self.inner.poll_writable(cx),
        }
    }

    fn max_segments(&self) -> usize {
        match self.flaw {
            Flaw::Deafens(_) => 1,
            _ => self.inner.max_segments(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct FlawedStream {
    inner: SimStream,
    net: FlawedNet,
    flaw: Flaw,
    /// Where it was to lead, if it was made here.
    to: Option<SocketAddr>,
    read: usize,
    wrote: usize,
    /// How many pieces have been read.
    pieces: usize,
    /// What has been written between the first and the second of them.
    response: usize,
    /// Who waits to write more.
    waiting: Option<Waker>,
}

impl FlawedStream {
    /// Whether it leads to a program of this host.
    fn is_local(&self) -> bool {
        self.inner.peer_addr().is_ok_and(|peer| peer.ip().is_loopback())
    }

    /// Writes no more than a response has.
    fn respond(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let room = MAX_RESPONSE.saturating_sub(self.response);
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(room).collect();
        if bytes.is_empty() {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let written = ready!(self.inner.poll_write(cx, &[IoSlice::new(&bytes)]))?;
        self.response += written;
        Poll::Ready(Ok(written))
    }
}

impl StreamIo for FlawedStream {
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connected = self.inner.poll_connected(cx);
        if self.flaw == Flaw::TakesNoForAnAnswer
            && matches!(&connected, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
        {
            lock(&self.net.refused).extend(self.to);
        }
        connected
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let server = || self.inner.peer_addr().is_ok_and(|peer| peer.port() == SERVER_PORT);
        if self.flaw == Flaw::GrowsDeaf && self.net.now() > self.net.begun.0 + DEAF_AFTER && server() {
            return Poll::Pending;
        }
        let read = self.inner.poll_read(cx, bufs);
        if matches!(read, Poll::Ready(Ok(1..))) {
            self.pieces += 1;
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
        if let Poll::Ready(Ok(length @ 1..)) = read
            && self.flaw == Flaw::WrongBytes
            && self.is_local()
        {
            let before = self.read / WRONG_EVERY;
            self.read += length;
            if self.read / WRONG_EVERY != before
                && let Some(byte) =
                    bufs.iter_mut().find(|buf| !buf.is_empty()).and_then(|buf| buf.first_mut())
            {
                *byte ^= 0x10;
            }
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.flaw == Flaw::WaitsForRelays
            && self.to.is_some_and(|to| to.port() == RELAY_PORT)
            && self.pieces == 1
        {
            return self.respond(cx, bufs);
        }
        let written = self.inner.poll_write(cx, bufs);
        if let Poll::Ready(Ok(length)) = written
            && self.flaw == Flaw::WritesTwice
            && self.is_local()
        {
            let before = self.wrote / WRONG_EVERY;
            self.wrote += length;
            if self.wrote / WRONG_EVERY != before {
                let _ = self.inner.poll_write(cx, bufs);
            }
        }
        written
    }

    fn shutdown(&mut self) -> io::Result<()> {
        if self.flaw == Flaw::NoHalfClose && self.is_local() {
            return Ok(());
        }
        self.inner.shutdown()
    }

    fn abort(&mut self) {
        if self.flaw == Flaw::OrderlyResets {
            let _ = self.inner.shutdown();
        } else {
            self.inner.abort();
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr()
    }
}

/// When [`Flaw::GrowsDeaf`] begins: after the logins, and before the last heartbeats.
const DEAF_AFTER: Duration = Duration::from_secs(40);

/// Bytes between two that a flaw changes or repeats.
const WRONG_EVERY: usize = 10_000;

/// A private address that nobody has.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 99, 99));

/// The size of datagrams that every path bears (RFC 9000 section 14).
const BASE: usize = 1200;
/// The server's TCP ports.
const SERVER: RangeInclusive<u16> = 27_180..=SERVER_PORT;
