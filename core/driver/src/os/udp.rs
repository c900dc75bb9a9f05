//! UDP sockets by quinn-udp: batches and GRO in, GSO out, ECN and destination addresses both ways.
//!
//! Fragmentation is forbidden (the sender learns of a small MTU by `EMSGSIZE` or by loss), as QUIC's path MTU
//! discovery wants it (RFC 9000 section 14).

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use quinn_udp::{BATCH_SIZE, EcnCodepoint, UdpSocketState};
use smallvec::SmallVec;
use socket2::Socket;

use super::opts;
use super::reactor::{Direction, Outcome, Reactor, Ready};
use crate::net::{RecvBatch, RecvMeta, Transmit, UdpIo};

/// A UDP socket.
pub struct OsUdp<R: Reactor> {
    io: R::Io<Socket>,
    state: UdpSocketState,
    local: SocketAddr,
    /// Whether the socket speaks IPv6, so that an IPv4 destination must be mapped.
    is_v6: bool,
}

impl<R: Reactor> OsUdp<R> {
    pub(super) fn bind(reactor: &R, local: SocketAddr) -> io::Result<Self> {
        let socket = opts::datagram(local)?;
        let state = UdpSocketState::new((&socket).into())?;
        let bound = opts::inet(&socket.local_addr()?);
        Ok(Self { io: reactor.register(socket)?, state, local: bound, is_v6: bound.is_ipv6() })
    }
}

impl<R: Reactor> UdpIo for OsUdp<R> {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<usize>> {
        let mut metas = [quinn_udp::RecvMeta::default(); BATCH_SIZE];
        self.io.poll_io(cx, Direction::Read, |socket| {
            let (buffers, described) = batch.fill();
            let mut slices: SmallVec<[IoSliceMut<'_>; BATCH_SIZE]> =
                buffers.iter_mut().take(BATCH_SIZE).map(|buffer| IoSliceMut::new(buffer)).collect();
            let filled = self.state.recv(socket.into(), &mut slices, &mut metas)?;
            for (described, meta) in described.iter_mut().zip(metas.iter()).take(filled) {
                *described = describe(meta);
            }
            let room = slices.len();
            Ok(if filled < room { Outcome::Exhausted(filled) } else { Outcome::Open(filled) })
        })
    }

    fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        let socket = self.io.source();
        let quic = quinn_udp::Transmit {
            destination: if self.is_v6 { mapped(transmit.to) } else { transmit.to },
            ecn: EcnCodepoint::from_bits(transmit.ecn),
            contents: bytes,
            segment_size: transmit.segment,
            src_ip: transmit.from,
        };
        let Some(hops) = transmit.hops else { return send(socket, &self.state, &quic) };
        let usual = opts::hops(socket, transmit.to)?;
        opts::set_hops(socket, transmit.to, u32::from(hops))?;
        let sent = send(socket, &self.state, &quic);
        opts::set_hops(socket, transmit.to, usual)?;
        sent
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_ready(cx, Direction::Write)
    }

    fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }
}

impl<R: Reactor> fmt::Debug for OsUdp<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsUdp").field("local", &self.local).finish_non_exhaustive()
    }
}

fn send(socket: &Socket, state: &UdpSocketState, transmit: &quinn_udp::Transmit<'_>) -> io::Result<()> {
    let segment = transmit.segment_size.unwrap_or(usize::MAX).max(1);
    let segments = transmit.contents.len().div_ceil(segment);
    if segments <= state.max_gso_segments().max(1) {
        match state.try_send(socket.into(), transmit) {
            // A network card that cannot segment shows only now; quinn-udp has taken note.
            Err(error) if is_no_offload(&error) && segments > 1 && state.max_gso_segments() == 1 => {}
            result => return result,
        }
    }
    for (index, datagram) in transmit.contents.chunks(segment).enumerate() {
        let one = quinn_udp::Transmit { contents: datagram, segment_size: None, ..transmit.clone() };
        match state.try_send(socket.into(), &one) {
            // The first ones are out and must not go twice: the rest counts as lost on the way.
            Err(error) if index > 0 && error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

fn is_no_offload(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::INVAL))
}

fn describe(meta: &quinn_udp::RecvMeta) -> RecvMeta {
    RecvMeta {
        from: opts::canonical(meta.addr),
        to: meta.dst_ip.map(|ip| ip.to_canonical()),
        len: meta.len,
        stride: meta.stride,
        ecn: meta.ecn.map_or(0, |ecn| ecn as u8),
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        SocketAddr::V6(_) => address,
    }
}
