//! The node's control socket: plain HTTP on a Unix socket that only its owner may use (mode 0600), so
//! nobody has to log in. `GET /status` brings the node's status, all else is 404.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use inp2p_core::status::Status;

use crate::accept::{Accepting, until_stopped};
use crate::compat::Compat;
use crate::net::Net;
use crate::web::http::{self, Answer, failure, json};
use crate::web::time::by;

/// The place for one answer. A sender that is dropped unanswered counts as "stopping".
pub type StatusCall = oneshot::Sender<Status>;

/// Asks the control task for the status.
#[derive(Debug, Clone)]
pub struct StatusClient(Arc<Mutex<mpsc::Sender<StatusCall>>>);

impl StatusClient {
    /// A client, and where the control task finds what is asked.
    pub fn new() -> (Self, mpsc::Receiver<StatusCall>) {
        let (calls, queue) = mpsc::channel(MAX_CONNECTIONS);
        (Self(Arc::new(Mutex::new(calls))), queue)
    }

    async fn ask<N: Net>(&self, net: &N) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_send(answer).ok()?;
        by(net, net.now() + ANSWER_TIME, answered).await.ok()?.ok()
    }
}

/// A control socket that is at work. Dropping it ends accepting.
#[derive(Debug)]
pub struct Local(#[expect(dead_code, reason = "its drop is the signal")] oneshot::Sender<()>);

/// Serves `listener` ([`Net::listen_local`]).
pub fn serve_local<N: Net>(net: &N, listener: N::Listener, status: StatusClient) -> Local {
    let (running, stopped) = oneshot::channel();
    let own = net.clone();
    net.spawn("control socket", async move {
        until_stopped(stopped, accept(&own, listener, status)).await;
    });
    Local(running)
}

async fn accept<N: Net>(net: &N, listener: N::Listener, status: StatusClient) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut accepting = Accepting::new(net, listener, "on the control socket");
    loop {
        let (stream, _) = accepting.next().await;
        let Some(place) = Place::take(&open) else { continue };
        let (own, status) = (net.clone(), status.clone());
        net.spawn("control connection", async move {
            http::serve(&own, Compat::new(stream), |request| answer(&own, &status, request)).await;
            drop(place);
        });
    }
}

async fn answer<N: Net>(net: &N, status: &StatusClient, request: Request<Incoming>) -> Answer {
    if request.uri().path() != "/status" {
        return failure(StatusCode::NOT_FOUND, "not-found", "there is /status, and nothing else");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "use GET");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match status.ask(net).await {
        Some(status) => json(StatusCode::OK, &status),
        None => failure(StatusCode::SERVICE_UNAVAILABLE, "busy", "the client is busy or stopping"),
    }
}

/// One of [`MAX_CONNECTIONS`].
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |count| (count < MAX_CONNECTIONS).then_some(count + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(open.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One person and some scripts.
const MAX_CONNECTIONS: usize = 16;
/// The control task answers within a tick.
const ANSWER_TIME: Duration = Duration::from_secs(5);
