//! The STUN ports: sockets around the pure answer of the core.
//!
//! Each UDP socket has a task of its own. An answer that has to leave from another socket (RFC 5780
//! CHANGE-REQUEST) is handed to that one's task. A socket that is bound to all addresses stands for the
//! first and the second one alike: it knows at which of them a request came in, and chooses by which an
//! answer leaves.

use std::future::{Future as _, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt as _;
use inp2p_core::path::Transport;
use inp2p_core::stun::limit::Limiter;
use inp2p_core::stun::proof::ProofKey;
use inp2p_core::stun::server::{Arrival, Change, MAX_REPLY, MAX_REQUEST, Responder};
use inp2p_core::time::WallClock;
use smallvec::SmallVec;
use tracing::debug;

use crate::accept::{Accepting, until_stopped};
use crate::exact::{read_exact, write_all};
use crate::net::{Net, RECV_BUFFER_BYTES, RecvBatch, RecvMeta, StreamIo as _, Transmit, UdpIo};

/// What all STUN sockets of one transport know.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The two ports.
    pub(crate) ports: [u16; 2],
    /// The two addresses, if there are two.
    pub(crate) addresses: Option<[IpAddr; 2]>,
    /// By which proofs are dated.
    pub(crate) clock: WallClock,
}

impl Site {
    /// The address of ours that differs in both from the one that a request came to.
    fn other(&self, ip: IpAddr, port: usize) -> Option<SocketAddr> {
        let [first, second] = self.addresses?;
        let other = if ip == second { first } else { second };
        let alike = other.is_ipv4() == ip.is_ipv4() && other.is_loopback() == ip.is_loopback();
        alike.then_some(SocketAddr::new(other, self.port(1 - port.min(1))))
    }

    fn port(&self, index: usize) -> u16 {
        self.ports.get(index).copied().unwrap_or_default()
    }
}

/// One of the UDP sockets.
pub(crate) struct UdpPort<U> {
    pub(crate) socket: U,
    /// The address that it is bound to; none for all.
    pub(crate) ip: Option<IpAddr>,
    /// Whether it has the first port or the second.
    pub(crate) port: usize,
}

/// The address that a socket is bound to, none for all, and which of the two ports it has.
type Place = (Option<IpAddr>, usize);

/// An answer on its way to the socket that it is to leave from.
struct Parcel {
    transmit: Transmit,
    reply: SmallVec<[u8; MAX_REPLY]>,
}

/// Answers Binding requests on all these sockets until the guards that are returned are dropped.
pub(crate) fn serve_udp<N: Net>(
    net: &N,
    sockets: Vec<UdpPort<N::Udp>>,
    site: &Site,
    proofs: &ProofKey,
) -> Vec<oneshot::Sender<()>> {
    let places: Vec<_> = sockets.iter().map(|port| (port.ip, port.port)).collect();
    let (outlets, queues): (Vec<_>, Vec<_>) = sockets.iter().map(|_| mpsc::channel(PARCELS)).unzip();
    let mut guards = Vec::new();
    for (port, queue) in sockets.into_iter().zip(queues) {
        let (guard, stop) = oneshot::channel();
        guards.push(guard);
        let mut secret = [0; 16];
        secret.iter_mut().zip(net.seed()).for_each(|(byte, drawn)| *byte = drawn);
        let task = Udp {
            net: net.clone(),
            index: port.port,
            ip: port.ip,
            socket: port.socket,
            site: site.clone(),
            responder: Responder::new(proofs.clone(), site.ports),
            limiter: Limiter::new(secret),
            outlets: places.iter().copied().zip(outlets.iter().cloned()).collect(),
            queue,
            stop,
        };
        net.spawn("stun udp", task.run());
    }
    guards
}

struct Udp<N: Net> {
    net: N,
    socket: N::Udp,
    ip: Option<IpAddr>,
    index: usize,
    site: Site,
    responder: Responder,
    limiter: Limiter,
    /// All sockets, this one among them.
    outlets: Vec<(Place, mpsc::Sender<Parcel>)>,
    queue: mpsc::Receiver<Parcel>,
    stop: oneshot::Receiver<()>,
}

impl<N: Net> Udp<N> {
    async fn run(mut self) {
        let mut batch = RecvBatch::new(BATCH, RECV_BUFFER_BYTES);
        poll_fn(|cx| {
            for _ in 0..TURNS {
                if Pin::new(&mut self.stop).poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let mut worked = false;
                if let Poll::Ready(Some(parcel)) = self.queue.poll_next_unpin(cx) {
                    worked = true;
                    let _ = self.socket.try_send(&parcel.transmit, &parcel.reply);
                }
                match self.socket.poll_recv(cx, &mut batch) {
                    Poll::Pending if worked => {}
                    Poll::Pending => return Poll::Pending,
                    // Such as an ICMP error of an earlier answer: it concerns one client only.
                    Poll::Ready(Err(error)) => debug!(%error, "STUN receive"),
                    Poll::Ready(Ok(filled)) => self.answer(&batch, filled),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn answer(&mut self, batch: &RecvBatch, filled: usize) {
        let mut reply = [0; MAX_REPLY];
        let now = self.net.now();
        let unix = self.site.clock.unix(now);
        for (meta, datagram) in batch.datagrams(filled) {
            if !self.limiter.admit(now, meta.from.ip()) {
                continue;
            }
            let ip = self.ip.or(meta.to);
            let arrival = Arrival {
                transport: Transport::Udp,
                source: meta.from,
                origin: ip.map(|ip| SocketAddr::new(ip, self.site.port(self.index))),
                other: ip.and_then(|ip| self.site.other(ip, self.index)),
                unix,
                busy: self.limiter.is_busy(),
            };
            let Some(answer) = self.responder.respond(datagram, &arrival, &mut reply) else { continue };
            let bytes = reply.get(..answer.length).unwrap_or_default();
            self.send((answer.to, answer.change), meta, &arrival, bytes);
        }
    }

    fn send(&mut self, (to, change): (SocketAddr, Change), meta: &RecvMeta, arrival: &Arrival, bytes: &[u8]) {
        let other = arrival.other.map(|other| other.ip());
        let from = if change.ip { other } else { self.ip.or(meta.to) };
        let transmit = Transmit { from, ..Transmit::plain(to) };
        if change == Change::default() {
            // Clients repeat a request that is lost; waiting for one would make all others wait.
            let _ = self.socket.try_send(&transmit, bytes);
            return;
        }
        let port = if change.port { 1 - self.index.min(1) } else { self.index };
        let leads = |(ip, index): &Place| *index == port && (ip.is_none() || *ip == from);
        if let Some((_, outlet)) = self.outlets.iter_mut().find(|(place, _)| leads(place)) {
            let _ = outlet.try_send(Parcel { transmit, reply: SmallVec::from_slice(bytes) });
        }
    }
}

/// Answers Binding requests on TCP connections until `stop` is dropped.
pub(crate) async fn tcp<N: Net>(
    net: N,
    listener: N::Listener,
    (site, index): (Site, usize),
    proofs: ProofKey,
    stop: oneshot::Receiver<()>,
) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut accepting = Accepting::new(&net, listener, "for STUN");
    until_stopped(stop, async {
        loop {
            let (stream, remote) = accepting.next().await;
            if open.load(Ordering::Relaxed) >= CONNECTIONS {
                continue;
            }
            let ip = stream.local_addr().ok().map(|local| local.ip().to_canonical());
            let arrival = Arrival {
                transport: Transport::Tcp,
                source: remote,
                origin: ip.map(|ip| SocketAddr::new(ip, site.port(index))),
                other: ip.and_then(|ip| site.other(ip, index)),
                unix: Duration::ZERO,
                busy: false,
            };
            open.fetch_add(1, Ordering::Relaxed);
            let (own, open) = (net.clone(), Arc::clone(&open));
            let responder = Responder::new(proofs.clone(), site.ports);
            let clock = site.clock;
            net.spawn("stun connection", async move {
                serve(&own, stream, &responder, &clock, arrival).await;
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    })
    .await;
}

/// Serves one connection: messages follow each other, each as long as its header says (RFC 8489 section
/// 6.2.2). Ends when the client does, after [`IDLE`] of silence, or at the first message that is no request.
async fn serve<N: Net>(
    net: &N,
    mut stream: N::Stream,
    responder: &Responder,
    clock: &WallClock,
    arrival: Arrival,
) {
    let mut timer = net.timer();
    let mut request = [0; MAX_REQUEST];
    loop {
        let until = net.now() + IDLE;
        let (header, body) = request.split_at_mut(HEADER);
        if read_exact(&mut stream, header, &mut timer, until).await.is_err() {
            return;
        }
        let length = match header {
            [_, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return,
        };
        let Some(body) = body.get_mut(..length) else { return };
        if read_exact(&mut stream, body, &mut timer, until).await.is_err() {
            return;
        }
        let mut reply = [0; MAX_REPLY];
        let arrival = Arrival { unix: clock.unix(net.now()), ..arrival };
        let whole = request.get(..HEADER + length).unwrap_or_default();
        let Some(answer) = responder.respond(whole, &arrival, &mut reply) else { return };
        let reply = reply.get(..answer.length).unwrap_or_default();
        if write_all(&mut stream, reply, &mut timer, until).await.is_err() {
            return;
        }
    }
}

/// The length of a STUN header (RFC 8489 section 5).
const HEADER: usize = 20;

/// Datagrams a system call: as many as one takes. Their buffers are two megabytes a socket, of which only what
/// was ever written to takes memory: a page each, where nobody sends more.
const BATCH: usize = 32;

/// Batches before other tasks of the thread have their turn.
const TURNS: usize = 32;

/// Answers that wait for another socket; one that does not fit is repeated by its client.
const PARCELS: usize = 256;

/// How long a TCP connection may be silent: a client has several requests at most, at once.
const IDLE: Duration = Duration::from_secs(5);

/// TCP connections a port at a time; each is a descriptor and 2 KiB.
const CONNECTIONS: usize = 1024;
