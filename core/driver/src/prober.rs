//! The prober's sockets: what the core's `Prober` asks for, done.
//!
//! A task of its own, beside the control task, which tells it what the network is and hears what was found. The
//! main socket is the node's port, so the mapping that is measured is the one that links use; STUN messages that
//! come in there are handed over by the port's task. Fresh and idle sockets are this task's. A STUN exchange
//! over TCP leaves from the port that the node listens on, in a task that ends by itself.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_channel::mpsc;
use futures_util::StreamExt as _;
use inp2p_core::nat::{Action, Config, Input, NatReport, Prober, Socket};
use tracing::debug;

use crate::exact::{read_exact, write_all};
use crate::net::{
    Net, RECV_BUFFER_BYTES, RecvBatch, StreamIo as _, TcpConfig, TimerIo as _, Transmit, UdpIo as _,
};
use crate::port::{MAIN, Port, PortSocket, Stun};

/// What the control task tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// Addresses of the server, the one in use first, and its STUN ports.
    Servers(Vec<IpAddr>, Config),
    /// Relays that answer STUN.
    Relays(Vec<SocketAddr>),
    /// The addresses of the interfaces.
    Network(Vec<IpAddr>),
    /// Whether the signalling connection is up.
    Signalling(bool),
    /// An attempt will have had mappings made after so long.
    Mapped(Duration),
}

/// The prober at work; it ends when this is dropped.
pub(crate) struct Probing {
    told: mpsc::Sender<Told>,
    reports: mpsc::Receiver<Box<NatReport>>,
}

impl Probing {
    /// Begins. `tcp` is the port on which the node listens.
    pub(crate) fn start<N: Net>(net: &N, port: &Port<N>, stuns: mpsc::Receiver<Stun>, tcp: u16) -> Self {
        let (told, telling) = mpsc::channel(TOLD);
        let (out, reports) = mpsc::channel(0);
        let (results_in, results) = mpsc::channel(RESULTS);
        let main = Arc::clone(port.main());
        let udp = main.local_addr().map_or(0, |address| address.port());
        let mut task = Task {
            net: net.clone(),
            timer: net.timer(),
            prober: Prober::new(net.seed()),
            main,
            ports: (udp, tcp),
            sockets: BTreeMap::new(),
            batch: None,
            telling,
            stuns: Some(stuns),
            results_in,
            results,
            out,
            unsaid: None,
        };
        net.spawn("prober", async move { poll_fn(|cx| task.poll(cx)).await });
        Self { told, reports }
    }

    /// Tells it something.
    pub(crate) fn tell(&mut self, told: Told) {
        // It takes all there is at each turn, and is told a few things a second at most.
        if self.told.try_send(told).is_err() {
            debug!("the prober is behind");
        }
    }

    /// What it has found out, when there is news.
    pub(crate) fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Box<NatReport>> {
        match self.reports.poll_next_unpin(cx) {
            Poll::Ready(Some(report)) => Poll::Ready(report),
            // It ends with the node alone.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// What came of an exchange over TCP.
type Exchanged = (u64, Option<(SocketAddr, Vec<u8>)>);

struct Task<N: Net> {
    net: N,
    timer: N::Timer,
    prober: Prober,
    main: Arc<PortSocket<N::Udp>>,
    /// The node's own, UDP's and TCP's.
    ports: (u16, u16),
    /// All but the main one.
    sockets: BTreeMap<Socket, N::Udp>,
    /// What those are read into; none while there are none.
    batch: Option<RecvBatch>,
    telling: mpsc::Receiver<Told>,
    /// None once the port is closed.
    stuns: Option<mpsc::Receiver<Stun>>,
    results_in: mpsc::Sender<Exchanged>,
    results: mpsc::Receiver<Exchanged>,
    out: mpsc::Sender<Box<NatReport>>,
    /// The latest report that the control task has yet to take.
    unsaid: Option<Box<NatReport>>,
}

impl<N: Net> Task<N> {
    /// Ready when nobody is left to tell it anything.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
            let now = self.net.now();
            let mut worked = false;
            match self.telling.poll_next_unpin(cx) {
                Poll::Ready(Some(told)) => {
                    worked = true;
                    self.told(now, told);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            worked |= self.hear(now, cx);
            if let Poll::Ready(Some((id, result))) = self.results.poll_next_unpin(cx) {
                worked = true;
                let result = result.as_ref().map(|(local, bytes)| (*local, bytes.as_slice()));
                self.prober.handle(now, Input::Exchanged { id, result });
            }
            if self.prober.deadline().is_some_and(|(at, _)| at <= now) {
                worked = true;
                self.prober.handle(now, Input::Tick);
            }
            self.act();
            if let Poll::Ready(Ok(())) = self.out.poll_ready(cx)
                && let Some(report) = self.unsaid.take()
            {
                let _ = self.out.start_send(report);
            }
            if !worked {
                let at = self.prober.deadline().map(|(at, _)| at);
                self.timer.wake_at(cx, at);
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn told(&mut self, now: Instant, told: Told) {
        match told {
            Told::Servers(servers, config) => self.prober.handle(now, Input::Servers(&servers, config)),
            Told::Relays(relays) => self.prober.handle(now, Input::Relays(&relays)),
            Told::Network(addresses) => {
                let port = self.ports.0;
                self.prober.handle(now, Input::Network { addresses: &addresses, port });
            }
            Told::Signalling(up) => self.prober.handle(now, Input::Signalling(up)),
            Told::Mapped(after) => self.prober.handle(now, Input::Mapped(after)),
        }
    }

    /// Takes what came in. Whether anything did.
    fn hear(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut heard = false;
        match self.stuns.as_mut().map(|stuns| stuns.poll_next_unpin(cx)) {
            Some(Poll::Ready(Some(stun))) => {
                heard = true;
                if stun.socket == MAIN {
                    let (socket, from) = (Socket::Main, stun.from);
                    self.prober.handle(now, Input::Datagram { socket, from, bytes: &stun.bytes });
                }
            }
            Some(Poll::Ready(None)) => self.stuns = None,
            Some(Poll::Pending) | None => {}
        }
        let Self { sockets, batch: Some(batch), prober, .. } = self else { return heard };
        for (&socket, io) in sockets {
            match io.poll_recv(cx, batch) {
                Poll::Ready(Ok(filled)) => {
                    heard = true;
                    for (meta, bytes) in batch.datagrams(filled) {
                        prober.handle(now, Input::Datagram { socket, from: meta.from, bytes });
                    }
                }
                // An answer of ICMP to what was sent: nobody there, which silence tells as well.
                Poll::Ready(Err(error)) => {
                    heard = true;
                    debug!(?socket, %error, "probing");
                }
                Poll::Pending => {}
            }
        }
        heard
    }

    fn act(&mut self) {
        while let Some(action) = self.prober.poll_action() {
            match action {
                Action::Open(socket) => self.open(socket),
                Action::Close(socket) => {
                    self.sockets.remove(&socket);
                    if self.sockets.is_empty() {
                        self.batch = None;
                    }
                }
                Action::Send { socket, to, bytes } => {
                    let transmit = Transmit::plain(to);
                    let sent = match self.sockets.get(&socket) {
                        Some(io) => io.try_send(&transmit, &bytes),
                        None if socket == Socket::Main => self.main.try_send(&transmit, &bytes),
                        None => Ok(()),
                    };
                    if let Err(error) = sent {
                        // It counts as lost, and is repeated.
                        debug!(?socket, %to, %error, "cannot send a probe of the NAT");
                    }
                }
                Action::Exchange { id, to, request } => {
                    // The SYNs leave in the order in which they were asked for, which that of ports shows.
                    let stream = dial(&self.net, self.ports.1, to);
                    let (net, mut results) = (self.net.clone(), self.results_in.clone());
                    self.net.spawn("stun exchange", async move {
                        let result = exchange(&net, stream, &request).await;
                        if let Err(error) = &result {
                            debug!(%to, %error, "STUN over TCP");
                        }
                        // Each clone has room for one message.
                        let _ = results.try_send((id, result.ok()));
                    });
                }
                Action::Report(report) => self.unsaid = Some(report),
            }
        }
    }

    fn open(&mut self, socket: Socket) {
        let (Socket::Fresh(ipv4) | Socket::Idle(ipv4) | Socket::Latest(ipv4)) = socket else { return };
        match self.net.bind_udp(SocketAddr::new(unspecified(ipv4), 0)) {
            Ok(io) => {
                self.sockets.insert(socket, io);
                self.batch.get_or_insert_with(|| RecvBatch::new(1, RECV_BUFFER_BYTES));
            }
            Err(error) => debug!(?socket, %error, "cannot open a socket to probe the NAT"),
        }
    }
}

/// Connects from the port that the node listens on.
fn dial<N: Net>(net: &N, port: u16, to: SocketAddr) -> io::Result<N::Stream> {
    let local = SocketAddr::new(unspecified(to.is_ipv4()), port);
    net.connect(&TcpConfig { local: Some(local), share_port: true, ..TcpConfig::default() }, to)
}

/// Asks one question over TCP.
async fn exchange<N: Net>(
    net: &N,
    stream: io::Result<N::Stream>,
    request: &[u8],
) -> io::Result<(SocketAddr, Vec<u8>)> {
    let mut stream = stream?;
    let (mut timer, until) = (net.timer(), net.now() + EXCHANGE);
    poll_fn(|cx| match stream.poll_connected(cx) {
        Poll::Ready(connected) => Poll::Ready(connected),
        Poll::Pending => timer.poll_at(cx, Some(until)).map(|()| Err(io::ErrorKind::TimedOut.into())),
    })
    .await?;
    let local = stream.local_addr()?;
    write_all(&mut stream, request, &mut timer, until).await?;
    let mut answer = vec![0; HEADER];
    read_exact(&mut stream, &mut answer, &mut timer, until).await?;
    let length = match answer.as_slice() {
        [_, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if length > MAX_ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer of absurd length"));
    }
    let mut body = vec![0; length];
    read_exact(&mut stream, &mut body, &mut timer, until).await?;
    answer.append(&mut body);
    // Closed in order it would keep the pair of ports busy for a minute, and the next question from here.
    stream.abort();
    Ok((local, answer))
}

fn unspecified(ipv4: bool) -> IpAddr {
    if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// How long an exchange over TCP may take: a SYN, its repetitions after 1 and 3 s, and a slow answer.
const EXCHANGE: Duration = Duration::from_secs(8);

/// The length of a STUN header (RFC 8489 section 5).
const HEADER: usize = 20;

/// The longest answer that is read, without its header: several times what a server has to say.
const MAX_ANSWER: usize = 1024;

/// How often the loop goes round before others on the thread have their turn.
const TURNS: usize = 32;

/// What the control task may tell before it is heard.
const TOLD: usize = 16;

/// Exchanges that end at the same time: four a family.
const RESULTS: usize = 8;
