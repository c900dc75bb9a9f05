//! The node's side of signalling: from a host name to a WebSocket connection.
//!
//! Addresses are tried in turn, the next one when the last has failed or has had 250 ms (RFC 8305, in
//! short), families alternating; the first that connects is used. Then TLS, unless `-insecure`, and the
//! upgrade. All of it has 10 s. What goes wrong becomes one line for people: the node tries again by itself,
//! and the line stands in its status until it succeeds.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_channel::mpsc;
use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_util::future::{Either, poll_fn, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, SinkExt};
use rustls_pki_types::ServerName;
use tungstenite::error::Error as WsError;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::client::{ClientHandshake, generate_key};
use tungstenite::http;
use tungstenite::protocol::{WebSocket, WebSocketConfig};

use crate::compat::Compat;
use crate::net::{Net, StreamIo, TcpConfig};
use crate::relay::ByteStream;
use crate::web::time::{by, sleep_until};
use crate::web::ws::{self, Connection, Inbox, Outbox, PollIo};
use crate::words::in_words;

/// The server, as its clients are told of it.
#[derive(Debug, Clone)]
pub struct SignalServer {
    /// Name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// TLS ([`crate::web::tls::client_config`]); none for `-insecure`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Where it was reached last.
    pub known: Known,
}

/// The addresses that a server's name had when it was reached last; shared by all clones.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<Mutex<Vec<SocketAddr>>>);

impl Known {
    fn get(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, addresses: Vec<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }
}

/// A signalling connection that is up; nobody has logged in.
#[derive(Debug)]
pub struct Signal {
    /// The server's address.
    pub remote: SocketAddr,
    /// All addresses of its name, that one first.
    pub addresses: Vec<IpAddr>,
    /// Our address on the way to it.
    pub local: SocketAddr,
    /// Its sending side. Dropping it closes the connection.
    pub outbox: Outbox,
    /// What comes in. Not taking from it stops the reading.
    pub events: mpsc::Receiver<SignalEvent>,
}

/// What happens to a signalling connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalEvent {
    /// A whole binary message.
    Received(Bytes),
    /// The connection is gone, and why, for people. The last event.
    Closed(String),
}

/// Why there is no connection, in one line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// The host has no address.
    #[error("cannot find the server {host:?}: {reason}")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
    /// No address of the host took the connection.
    #[error("cannot connect to the server: {0}")]
    Connect(String),
    /// TLS did not come about.
    #[error("TLS with the server {address} failed: {reason}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The other side is no signalling server.
    #[error("the server {address} refused signalling: {reason}")]
    Upgrade {
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// Connects to the server, and starts the connection's task.
pub async fn connect_signal<N: Net>(net: &N, server: &SignalServer) -> Result<Signal, SignalError> {
    let deadline = net.now() + CONNECT_TIME;
    let way = Way::to(net, server, deadline).await?;
    let (local, remote) = (way.local, way.remote);
    let others = way.addresses.iter().copied().filter(|ip| *ip != remote.ip());
    let addresses = std::iter::once(remote.ip()).chain(others).collect();
    // The server has not proven anything yet, but it is the one that we chose: whole-sized messages.
    let target = Target { path: "/ws", config: ws::config(true) };
    let signal = match way.tls(net, server, deadline).await? {
        Secured::Plain(stream) => {
            start(net, upgrade(net, server, stream, remote, target, deadline).await?, local, remote)
        }
        Secured::Tls(stream) => {
            start(net, upgrade(net, server, *stream, remote, target, deadline).await?, local, remote)
        }
    };
    Ok(Signal { addresses, ..signal })
}

/// Connects to the server's relay inside a WebSocket, for networks that let nothing else through.
pub async fn connect_relay<N: Net>(
    net: &N,
    server: &SignalServer,
) -> Result<Box<dyn ByteStream>, SignalError> {
    let deadline = net.now() + CONNECT_TIME;
    let way = Way::to(net, server, deadline).await?;
    let (local, remote) = (way.local, way.remote);
    let target = Target { path: "/relay", config: ws::bytes_config() };
    Ok(match way.tls(net, server, deadline).await? {
        Secured::Plain(stream) => {
            let socket = upgrade(net, server, stream, remote, target, deadline).await?;
            Box::new(ws::WsBytes::new(socket, local, remote))
        }
        Secured::Tls(stream) => {
            let socket = upgrade(net, server, *stream, remote, target, deadline).await?;
            Box::new(ws::WsBytes::new(socket, local, remote))
        }
    })
}

/// Which WebSocket of the server.
struct Target {
    path: &'static str,
    config: WebSocketConfig,
}

/// A connection to the server.
struct Way<S> {
    stream: Compat<S>,
    local: SocketAddr,
    remote: SocketAddr,
    /// All addresses of the server's name.
    addresses: Vec<IpAddr>,
}

/// The same with TLS, unless `-insecure`.
enum Secured<S> {
    Plain(Compat<S>),
    Tls(Box<TlsStream<Compat<S>>>),
}

impl<S: StreamIo> Way<S> {
    async fn to<N: Net<Stream = S>>(
        net: &N,
        server: &SignalServer,
        deadline: Instant,
    ) -> Result<Self, SignalError> {
        let (stream, remote, addresses) = connect(net, server, deadline).await?;
        let addresses = addresses.into_iter().map(|address| address.ip()).collect();
        let local = stream.local_addr().map_err(|error| SignalError::Connect(in_words(&error)))?;
        Ok(Self { stream: Compat::new(stream), local, remote, addresses })
    }

    async fn tls<N: Net<Stream = S>>(
        self,
        net: &N,
        server: &SignalServer,
        deadline: Instant,
    ) -> Result<Secured<S>, SignalError> {
        let Some(tls) = &server.tls else { return Ok(Secured::Plain(self.stream)) };
        let failed = |reason| SignalError::Tls { address: self.remote, reason };
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| failed(format!("{:?} is neither a host name nor an address", server.host)))?;
        match by(net, deadline, TlsConnector::from(tls.clone()).connect(name, self.stream)).await {
            Ok(Ok(stream)) => Ok(Secured::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(failed(tls_reason(&error))),
            Err(_) => Err(failed(too_slow())),
        }
    }
}

/// A TCP connection to the first address that takes it.
///
/// Where the server has been reached before, a name that cannot be looked up at once does not keep it from being
/// reached again: whoever comes back from an outage would wait for what the resolver asked while there was no
/// network.
async fn connect<N: Net>(
    net: &N,
    server: &SignalServer,
    deadline: Instant,
) -> Result<(N::Stream, SocketAddr, Vec<SocketAddr>), SignalError> {
    let known = server.known.get();
    let answered = AtomicBool::new(false);
    let may_remember = || !known.is_empty() && !answered.load(Ordering::Relaxed);
    let named = async {
        let addresses = look_up(net, server, deadline).await?;
        answered.store(true, Ordering::Relaxed);
        race(net, server, deadline, addresses).await
    };
    let remembered = async {
        sleep_until(net, net.now() + LOOK_UP).await;
        if !may_remember() {
            std::future::pending::<()>().await;
        }
        race(net, server, deadline, known.clone()).await
    };
    let connected = match select(pin!(named), pin!(remembered)).await {
        Either::Left((Ok(connected), _)) | Either::Right((Ok(connected), _)) => connected,
        Either::Right((Err(_), named)) => named.await?,
        Either::Left((Err(error), _)) if !may_remember() => return Err(error),
        Either::Left((Err(error), remembered)) => remembered.await.map_err(|_| error)?,
    };
    server.known.set(connected.2.clone());
    Ok(connected)
}

async fn look_up<N: Net>(
    net: &N,
    server: &SignalServer,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, SignalError> {
    let unknown = |reason| SignalError::Resolve { host: server.host.clone(), reason };
    match by(net, deadline, net.resolve(&server.host, server.port)).await {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(unknown("it has no address".to_owned())),
        Ok(Err(error)) => Err(unknown(in_words(&error))),
        Err(_) => Err(unknown(too_slow())),
    }
}

/// Dials these addresses in turn, and those that are silent again and again: the system itself repeats a SYN ever
/// more seldom.
async fn race<N: Net>(
    net: &N,
    server: &SignalServer,
    deadline: Instant,
    addresses: Vec<SocketAddr>,
) -> Result<(N::Stream, SocketAddr, Vec<SocketAddr>), SignalError> {
    let mut left = alternate(addresses.clone());
    let mut failures: Vec<String> = Vec::new();
    let race = async {
        let mut running = FuturesUnordered::new();
        let mut silent: Vec<SocketAddr> = Vec::new();
        while let Some(address) = left.pop_front() {
            running.push(dial(net, address).map(move |outcome| (address, outcome)));
            silent.push(address);
            let wait = if left.is_empty() { AGAIN } else { HEAD_START };
            let mut next = Box::pin(sleep_until(net, net.now() + wait));
            loop {
                match select(running.next(), &mut next).await {
                    Either::Left((Some((address, Ok(stream))), _)) => return Some((stream, address)),
                    Either::Left((Some((address, Err(error))), _)) => {
                        silent.retain(|other| *other != address);
                        let failure = format!("{address}: {}", in_words(&error));
                        if !failures.contains(&failure) {
                            failures.push(failure);
                        }
                        if !left.is_empty() {
                            break;
                        }
                    }
                    Either::Left((None, _)) => break,
                    // The latest has had its time: on to the next address.
                    Either::Right(_) => {
                        if left.is_empty() {
                            left.extend(silent.drain(..));
                        }
                        break;
                    }
                }
            }
        }
        None
    };
    match by(net, deadline, race).await {
        Ok(Some((stream, remote))) => Ok((stream, remote, addresses)),
        Ok(None) => Err(SignalError::Connect(failures.join("; "))),
        Err(_) => {
            failures.push(format!("{}:{}: {}", server.host, server.port, too_slow()));
            Err(SignalError::Connect(failures.join("; ")))
        }
    }
}

async fn dial<N: Net>(net: &N, address: SocketAddr) -> io::Result<N::Stream> {
    let mut stream = net.connect(&TcpConfig::default(), address)?;
    poll_fn(|cx| stream.poll_connected(cx)).await?;
    Ok(stream)
}

/// The addresses with the families taking turns, beginning with that of the first, which the system
/// prefers.
fn alternate(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut other = other.into_iter();
    let mut all: VecDeque<_> =
        preferred.into_iter().flat_map(|address| [Some(address), other.next()]).flatten().collect();
    all.extend(other);
    all.truncate(MAX_ADDRESSES);
    all
}

/// The WebSocket handshake (RFC 6455 section 4.1).
async fn upgrade<N, S>(
    net: &N,
    server: &SignalServer,
    stream: S,
    remote: SocketAddr,
    target: Target,
    deadline: Instant,
) -> Result<Box<WebSocket<PollIo<S>>>, SignalError>
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |reason| SignalError::Upgrade { address: remote, reason };
    let request = request(server, target.path).map_err(|error| failed(error.to_string()))?;
    let handshake = ClientHandshake::start(PollIo::new(stream), request, Some(target.config))
        .map_err(|error| failed(error.to_string()))?;
    let mut handshake = Some(handshake);
    let handshake = poll_fn(|cx| {
        let Some(mut step) = handshake.take() else { return Poll::Pending };
        step.get_mut().get_mut().set_waker(cx.waker());
        match step.handshake() {
            Ok((socket, _)) => Poll::Ready(Ok(Box::new(socket))),
            Err(HandshakeError::Interrupted(step)) => {
                handshake = Some(step);
                Poll::Pending
            }
            Err(HandshakeError::Failure(error)) => Poll::Ready(Err(error)),
        }
    });
    match by(net, deadline, handshake).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(failed(upgrade_reason(error))),
        Err(_) => Err(failed(too_slow())),
    }
}

fn request(server: &SignalServer, path: &str) -> Result<http::Request<()>, http::Error> {
    let host = match server.host.contains(':') {
        true => format!("[{}]:{}", server.host, server.port),
        false => format!("{}:{}", server.host, server.port),
    };
    http::Request::get(format!("ws://{host}{path}"))
        .header(http::header::HOST, host)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "websocket")
        .header(http::header::SEC_WEBSOCKET_VERSION, "13")
        .header(http::header::SEC_WEBSOCKET_KEY, generate_key())
        .header(http::header::USER_AGENT, concat!("inp2p/", env!("CARGO_PKG_VERSION")))
        .body(())
}

fn start<N, S>(net: &N, socket: Box<WebSocket<PollIo<S>>>, local: SocketAddr, remote: SocketAddr) -> Signal
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (outbox, queue) = Outbox::new(true);
    let (mut events, taken) = mpsc::channel(EVENTS);
    let task = {
        let net = net.clone();
        async move {
            let inbox = Inbox { events: events.clone(), event: SignalEvent::Received };
            let connection = Connection { net: &net, socket, queue: &queue, slot: None };
            let why = connection.run(inbox).await;
            // If nobody is left to hear it, nobody misses it.
            let _ = events.send(SignalEvent::Closed(why)).await;
        }
    };
    net.spawn("signalling", task);
    Signal { remote, addresses: vec![remote.ip()], local, outbox, events: taken }
}

fn tls_reason(error: &io::Error) -> String {
    use rustls::{CertificateError, Error as TlsError};
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return in_words(error);
    };
    match error {
        TlsError::InvalidMessage(_) => {
            "the other side does not speak TLS (is that the right port?)".to_owned()
        }
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is not from the authority of -server-ca".to_owned()
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name than -serverhost".to_owned(),
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired (or the clock here is wrong)".to_owned()
        }
        // Certificates, alerts and so on, all of them short sentences.
        other => other.to_string(),
    }
}

fn upgrade_reason(error: WsError) -> String {
    match error {
        WsError::Http(answer) => {
            format!("it answered HTTP {} (is that an INP2P server?)", answer.status().as_u16())
        }
        WsError::Io(error) => in_words(&error),
        WsError::Protocol(tungstenite::error::ProtocolError::HandshakeIncomplete) => {
            "the connection was closed".to_owned()
        }
        // Broken rules of the handshake; nothing of it comes from the other side word for word.
        other => other.to_string(),
    }
}

fn too_slow() -> String {
    format!("no answer within {} s", CONNECT_TIME.as_secs())
}

/// For resolving, connecting, TLS and upgrade together. Reconnects are 5 to 10 s apart, so waiting longer
/// for one try would only delay the next.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a name may take to be looked up before the addresses that it had are tried.
const LOOK_UP: Duration = Duration::from_millis(500);
/// When an address that is silent is dialled anew.
const AGAIN: Duration = Duration::from_secs(2);
/// RFC 8305 section 5, "Connection Attempt Delay".
const HEAD_START: Duration = Duration::from_millis(250);
/// At 250 ms each, more would not have their turn within a reasonable time.
const MAX_ADDRESSES: usize = 8;
/// Messages that wait for the control task; beyond them the server's wait in its queue.
const EVENTS: usize = 16;
