//! From HTTP to WebSocket, on the server (RFC 6455 section 4.2).
//!
//! Nodes are no browsers: a request that carries an `Origin` comes from a web page, and is refused. That
//! alone keeps pages that somebody visits from speaking to the server with their visitor's address.

use std::sync::Arc;

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::SinkExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONNECTION, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, Version};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use crate::net::Net;
use crate::relay::{Carrier, Relay};
use crate::web::front::{FrontEvent, Peer, Shared};
use crate::web::http::{Answer, HyperIo, failure};
use crate::web::identity::sender;
use crate::web::ws::{self, Connection, Inbox, Outbox, PollIo};

/// What goes on inside a WebSocket.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint<N: Net> {
    /// Signalling, at `/ws`.
    Signalling,
    /// What the server's relay hears on connections of its own too, at `/relay`.
    Relay(Relay<N>),
}

/// Answers a request to a WebSocket endpoint, and starts the connection's task.
pub(crate) fn answer<N, S>(
    shared: &Arc<Shared<N>>,
    peer: &Peer,
    mut request: Request<Incoming>,
    endpoint: Endpoint<N>,
) -> Answer
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if request.method() != Method::GET {
        let mut answer =
            failure(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "a WebSocket begins with GET");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return answer;
    }
    let headers = request.headers();
    if headers.contains_key(ORIGIN) {
        return failure(StatusCode::FORBIDDEN, "origin", "this is not for web pages");
    }
    let upgrade = request.version() == Version::HTTP_11
        && has_token(headers, CONNECTION, "upgrade")
        && has_token(headers, UPGRADE, "websocket")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if !upgrade {
        let mut answer = failure(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade-required",
            "this is a WebSocket (version 13) endpoint",
        );
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    }
    let key = match one(headers, SEC_WEBSOCKET_KEY) {
        Some(key) if key.len() == KEY_LENGTH => key,
        _ => {
            return failure(
                StatusCode::BAD_REQUEST,
                "bad-request",
                "Sec-WebSocket-Key is not 16 bytes in base64",
            );
        }
    };
    let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) else {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", "no answer to Sec-WebSocket-Key");
    };
    let remote = sender(peer.address, headers, &shared.trusted_proxies).remote;
    let upgraded = hyper::upgrade::on(&mut request);
    let (shared, peer) = (shared.clone(), peer.clone());
    match endpoint {
        Endpoint::Signalling => shared.net.clone().spawn("signalling", async move {
            let Ok(upgraded) = upgraded.await else { return };
            let Some(socket) = take_over::<S>(upgraded, ws::config(false)) else { return };
            signalling(&shared, socket, peer, remote).await;
        }),
        Endpoint::Relay(relay) => shared.net.clone().spawn("relayed", async move {
            let Ok(upgraded) = upgraded.await else { return };
            let Some(socket) = take_over::<S>(upgraded, ws::bytes_config()) else { return };
            let bytes = ws::WsBytes::new(socket, peer.address, remote);
            relay.serve(Carrier::Inside(Box::new(bytes)), &[], remote, peer.slot).await;
        }),
    }

    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

/// The stream that hyper was given, with a WebSocket on it. In a box, because a task has a place for each
/// of its steps: what is moved through them would be held several times over.
fn take_over<S>(upgraded: Upgraded, config: WebSocketConfig) -> Option<Box<WebSocket<PollIo<S>>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let parts = upgraded.downcast::<HyperIo<S>>().ok()?;
    let (io, config) = (PollIo::new(parts.io.0), Some(config));
    // What hyper had read already is copied, so that its buffer can go.
    Some(Box::new(WebSocket::from_partially_read(io, parts.read_buf.to_vec(), Role::Server, config)))
}

/// One signalling connection, from `Opened` to `Closed`.
async fn signalling<N, S>(
    shared: &Arc<Shared<N>>,
    socket: Box<WebSocket<PollIo<S>>>,
    peer: Peer,
    remote: std::net::SocketAddr,
) where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let conn = shared.next_conn();
    let mut events = shared.events.clone();
    let (outbox, queue) = Outbox::new(false);
    if events.send(FrontEvent::Opened { conn, remote, outbox }).await.is_err() {
        return;
    }
    tracing::debug!(conn = conn.0, %remote, tls = peer.tls, "signalling connection opened");
    let inbox = Inbox { events: events.clone(), event: |message| FrontEvent::Received { conn, message } };
    let connection = Connection { net: &shared.net, socket, queue: &queue, slot: Some(peer.slot) };
    let why = connection.run(inbox).await;
    tracing::debug!(conn = conn.0, %remote, why, "signalling connection closed");
    // If nobody is left to hear it, nobody misses it.
    let _ = events.send(FrontEvent::Closed { conn }).await;
}

/// Whether one of the comma-separated words of a header is `token`, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let mut lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.any(|line| line.split(',').any(|word| word.trim().eq_ignore_ascii_case(token)))
}

/// A header that must be there exactly once.
pub(crate) fn one(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// 16 bytes in base64.
const KEY_LENGTH: usize = 24;
