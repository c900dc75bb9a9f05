//! The front of the server's TCP port: it accepts, tells by the first byte what a connection is, and hands
//! it on.
//!
//! 0x16 is a TLS handshake (RFC 8446 section 5.1), with HTTP inside; `A` to `Z` is the method of a plain
//! HTTP request; 0xD1 begins the relay preface; anything else, and silence, closes.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::{mpsc, oneshot};
use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsAcceptor;
use futures_util::AsyncReadExt;
use futures_util::future::{poll_fn, select};
use inp2p_core::ids::ConnId;

use crate::compat::Compat;
use crate::net::{ListenIo, Net};
use crate::relay::{Carrier, Relay};
use crate::web::admin::{AdminClient, AdminKey};
use crate::web::identity::Cidr;
use crate::web::slots::{Slot, Slots};
use crate::web::time::{by, sleep_until, yield_now};
use crate::web::ws::Outbox;
use crate::web::{http, rest};

/// What the front needs to know.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// [`crate::web::tls::server_config`].
    pub tls: Arc<rustls::ServerConfig>,
    /// What REST asks for.
    pub admin_key: AdminKey,
    /// Whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Cidr>,
}

/// What happens to signalling connections. Of each, `Opened` comes first and `Closed` last, both once.
#[derive(Debug)]
pub enum FrontEvent {
    /// The WebSocket upgrade is done; nobody has logged in.
    Opened {
        /// Its name, never used again.
        conn: ConnId,
        /// Where it comes from, seen through trusted proxies.
        remote: SocketAddr,
        /// Its sending side.
        outbox: Outbox,
    },
    /// A whole binary message.
    Received {
        /// Which connection.
        conn: ConnId,
        /// Its content.
        message: Bytes,
    },
    /// The connection is gone. It also follows [`Outbox::close`].
    Closed {
        /// Which.
        conn: ConnId,
    },
}

/// A front that is at work. Dropping it ends accepting; connections that are there go on.
#[derive(Debug)]
pub struct Front {
    local: SocketAddr,
    _running: oneshot::Sender<()>,
}

impl Front {
    /// Where it listens: the real port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// Serves `listener`: signalling, whose events go to `events`; REST, whose calls go to `admin`;
/// `health`, which shows `online`, the number of nodes that are logged in; and `relay`, if there is one.
pub fn serve<N: Net>(
    net: &N,
    listener: N::Listener,
    config: FrontConfig,
    events: mpsc::Sender<FrontEvent>,
    admin: AdminClient,
    online: Arc<AtomicUsize>,
    relay: Option<Relay<N>>,
) -> io::Result<Front> {
    let local = listener.local_addr()?;
    let shared = Arc::new(Shared {
        net: net.clone(),
        tls: config.tls.into(),
        admin_key: config.admin_key,
        trusted_proxies: config.trusted_proxies,
        slots: Arc::default(),
        next_conn: AtomicU64::new(1),
        events,
        admin,
        online,
        relay,
    });
    let (running, stopped) = oneshot::channel();
    net.spawn("front", async move {
        select(pin!(accept(shared, listener)), stopped).await;
    });
    Ok(Front { local, _running: running })
}

/// What all connections of a front share.
pub(crate) struct Shared<N: Net> {
    pub(crate) net: N,
    tls: TlsAcceptor,
    pub(crate) admin_key: AdminKey,
    pub(crate) trusted_proxies: Vec<Cidr>,
    slots: Arc<Slots>,
    next_conn: AtomicU64,
    pub(crate) events: mpsc::Sender<FrontEvent>,
    pub(crate) admin: AdminClient,
    pub(crate) online: Arc<AtomicUsize>,
    pub(crate) relay: Option<Relay<N>>,
}

impl<N: Net> Shared<N> {
    /// The name of the next signalling connection.
    pub(crate) fn next_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is known of a connection before the first request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The other end, which may be a proxy's.
    pub(crate) address: SocketAddr,
    /// Whether TLS is below.
    pub(crate) tls: bool,
    /// Shared by the requests; the last one frees it.
    pub(crate) slot: Arc<Slot>,
}

async fn accept<N: Net>(shared: Arc<Shared<N>>, mut listener: N::Listener) {
    let mut failing = false;
    loop {
        // In batches, so that a flood of connections does not keep this task running.
        for _ in 0..ACCEPT_BATCH {
            match poll_fn(|cx| listener.poll_accept(cx)).await {
                Ok((stream, address)) => {
                    failing = false;
                    accepted(&shared, stream, address);
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot accept connections; trying again until it works");
                    }
                    failing = true;
                    sleep_until(&shared.net, shared.net.now() + ACCEPT_PAUSE).await;
                }
            }
        }
        yield_now().await;
    }
}

fn accepted<N: Net>(shared: &Arc<Shared<N>>, stream: N::Stream, address: SocketAddr) {
    let ip = address.ip().to_canonical();
    let many = ip.is_loopback() || shared.trusted_proxies.iter().any(|network| network.contains(ip));
    match shared.slots.take(ip, many) {
        Some(slot) => shared.net.spawn("connection", connection(shared.clone(), stream, address, slot)),
        None => tracing::debug!(%address, "connection refused: too many wait to log in"),
    }
}

async fn connection<N: Net>(shared: Arc<Shared<N>>, stream: N::Stream, address: SocketAddr, slot: Slot) {
    let net = &shared.net;
    let mut stream = Compat::new(stream);
    let mut first = [0];
    let read = by(net, net.now() + FIRST_BYTE_TIME, stream.read_exact(&mut first)).await;
    if !matches!(read, Ok(Ok(()))) {
        return;
    }
    let kind = First::from(first);
    if let (First::Relay, Some(relay)) = (kind, &shared.relay) {
        let carrier = Carrier::Plain(stream.into_inner().0);
        return relay.serve(carrier, &first, address, slot).await;
    }
    let stream = Compat::with_prefix(stream.into_inner().0, first.to_vec());
    let slot = Arc::new(slot);
    match kind {
        First::Tls => match by(net, net.now() + HANDSHAKE_TIME, shared.tls.accept(stream)).await {
            Ok(Ok(stream)) => requests(&shared, stream, Peer { address, tls: true, slot }).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
        },
        First::Http => requests(&shared, stream, Peer { address, tls: false, slot }).await,
        // A server that does not relay takes the relay's first byte like any other.
        First::Relay | First::Other => {
            tracing::debug!(%address, byte = first[0], "connection closed: not a protocol of this port");
        }
    }
}

async fn requests<N, S>(shared: &Arc<Shared<N>>, stream: S, peer: Peer)
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handle = |request| rest::answer::<N, S>(shared.clone(), peer.clone(), request);
    http::serve(&shared.net, stream, handle).await;
}

/// What a connection is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Tls,
    Http,
    Relay,
    Other,
}

impl From<[u8; 1]> for First {
    fn from([byte]: [u8; 1]) -> Self {
        match byte {
            0x16 => Self::Tls,
            b'A'..=b'Z' => Self::Http,
            0xD1 => Self::Relay,
            _ => Self::Other,
        }
    }
}

/// A client knows what it wants to say: 5 s are many round trips.
const FIRST_BYTE_TIME: Duration = Duration::from_secs(5);
/// Two round trips and some arithmetic.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Connections that are accepted before other tasks get their turn.
const ACCEPT_BATCH: usize = 32;
/// Out of descriptors: trying again at once would spin, and deadlines free some soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_is_told_apart() {
        for byte in 0..=u8::MAX {
            let expected = match byte {
                0x16 => First::Tls,
                0x41..=0x5a => First::Http,
                0xd1 => First::Relay,
                _ => First::Other,
            };
            assert_eq!(First::from([byte]), expected);
        }
    }
}
