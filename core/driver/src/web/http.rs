//! HTTP/1.1 connections (RFC 9112) by hyper: what every one of them has in common, its limits above all.
//!
//! A header has 5 s and 8 KiB, a body 10 s and 64 KiB, a connection about a minute: scrapers and scripts
//! connect again, and nobody holds a place for longer. There is no `Date` header, because hyper would ask
//! the machine and not the [`Net`] for the time; every answer says that it must not be stored.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use serde::Serialize;

use crate::net::Net;
use crate::web::time::{by, expired, sleep_until};

/// Every answer fits in memory.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Serves one connection to its end, or to the end of its time. A connection that was upgraded goes on
/// elsewhere.
pub(crate) async fn serve<N, S, H, F>(net: &N, io: S, handle: H)
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = handle(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(NetTimer(net.clone()))
        .header_read_timeout(HEADER_TIME)
        .max_header_size(MAX_HEADER)
        .max_buf_size(MAX_BUFFER)
        .auto_date_header(false)
        .serve_connection(HyperIo(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let end = net.now() + CONNECTION_TIME;
    if let Either::Left((outcome, _)) = select(connection.as_mut(), pin!(sleep_until(net, end))).await {
        if let Err(error) = outcome {
            tracing::debug!(%error, "HTTP connection ended");
        }
        return;
    }
    connection.as_mut().graceful_shutdown();
    if by(net, end + LAST_ANSWER_TIME, connection).await.is_err() {
        tracing::debug!("HTTP connection cut: it took too long");
    }
}

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadBody {
    /// Longer than [`MAX_BODY`].
    TooLong,
    /// Not there in time.
    TooSlow,
    /// Cut off, or not HTTP.
    Broken,
}

/// The body of a request, whole.
pub(crate) async fn body<N: Net>(net: &N, body: Incoming) -> Result<Bytes, BadBody> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(BadBody::TooLong);
    }
    match by(net, net.now() + BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BadBody::TooLong),
        Ok(Err(_)) => Err(BadBody::Broken),
        Err(_) => Err(BadBody::TooSlow),
    }
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => json_text(status, text),
        // None of ours has a key that is no string, or a failing Serialize; but an answer is an answer.
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer could not be written"),
    }
}

/// An answer that is JSON already.
pub(crate) fn json_text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    typed(status, "application/json", text)
}

/// An answer of that media type.
pub(crate) fn typed(status: StatusCode, media_type: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An error: `{"error":{"code","message"}}`.
pub(crate) fn failure(status: StatusCode, code: &str, message: &str) -> Answer {
    json_text(status, serde_json::json!({ "error": { "code": code, "message": message } }).to_string())
}

/// A stream of ours as hyper sees it.
pub(crate) struct HyperIo<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> hyper::rt::Read for HyperIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper's buffer may not be initialised, and only unsafe code may write into it as it is. One copy
        // is nothing beside parsing HTTP.
        let mut scratch = [0; SCRATCH];
        let room = buf.remaining().min(SCRATCH);
        let Some(space) = scratch.get_mut(..room) else { return Poll::Ready(Ok(())) };
        match Pin::new(&mut self.0).poll_read(cx, space) {
            Poll::Ready(Ok(read)) => {
                buf.put_slice(scratch.get(..read).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for HyperIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// The timers of a [`Net`] as hyper sees them.
struct NetTimer<N>(N);

impl<N: Net> hyper::rt::Timer for NetTimer<N> {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.0.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(NetSleep { net: self.0.clone(), timer: Mutex::new(self.0.timer()), deadline })
    }

    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// The lock is never contended: hyper asks for `Sync`, which a timer need not be.
struct NetSleep<N: Net> {
    net: N,
    timer: Mutex<N::Timer>,
    deadline: Instant,
}

impl<N: Net> Future for NetSleep<N> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let timer = this.timer.get_mut().unwrap_or_else(PoisonError::into_inner);
        match expired(&this.net, timer, cx, this.deadline) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl<N: Net> Unpin for NetSleep<N> {}
impl<N: Net> hyper::rt::Sleep for NetSleep<N> {}

/// A header that takes longer is a slow-loris's; also how long a connection may idle between requests.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// As nginx and others have it.
const MAX_HEADER: usize = 8 * 1024;
/// hyper's buffer: a header and some body. hyper takes no less than 8 KiB.
const MAX_BUFFER: usize = 16 * 1024;
/// A share's list of targets is the longest body there is.
const MAX_BODY: usize = 64 * 1024;
/// 64 KiB in 10 s is a modem's speed.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Longer than the slowest call, so that only idlers are told to connect again.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// What a call that was under way then may still take: as long as the control task is waited for, and the
/// time to write the answer.
const LAST_ANSWER_TIME: Duration = Duration::from_secs(25);
/// On the stack, for one read.
const SCRATCH: usize = 4096;
