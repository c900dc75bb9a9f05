//! The node's port for its peers' links.
//!
//! A connection must open with a preface within [`SAY_WITHIN`]; it names an attempt, and goes to the session
//! that made it. The peer's `PunchStart` may have come sooner than ours: an attempt that is not known yet is
//! waited for, with few connections at a time, so that strangers cost little.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future as _, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::SinkExt as _;
use inp2p_core::agent::Expected;
use inp2p_core::ids::AttemptId;
use inp2p_core::link::{Preface, Role, preface};
use tracing::debug;

use crate::accept::{Accepting, until_stopped};
use crate::exact::read_exact;
use crate::net::{Net, TimerIo as _};
use crate::session::Command;

/// Which session an attempt belongs to.
pub(crate) struct Registry<N: Net> {
    inner: Mutex<Inner<N>>,
    /// Where it is told that an expected attempt has begun.
    called: mpsc::Sender<AttemptId>,
}

struct Inner<N: Net> {
    attempts: BTreeMap<AttemptId, mpsc::Sender<Command<N>>>,
    /// In the order of their coming, oldest first.
    order: VecDeque<AttemptId>,
    /// Connections that wait for an attempt to become known.
    held: Vec<Held<N>>,
    /// Attempts that peers may begin without the server, and what proves that they mean them.
    expected: BTreeMap<AttemptId, [u8; 32]>,
    /// Connections that have yet to say what they are, and those that are held.
    strangers: BTreeMap<IpAddr, usize>,
}

struct Held<N: Net> {
    attempt: AttemptId,
    found: oneshot::Sender<mpsc::Sender<Command<N>>>,
}

impl<N: Net> Registry<N> {
    /// `called` is told when a connection comes that is of an expected attempt and of no known one.
    pub(crate) fn new(called: mpsc::Sender<AttemptId>) -> Arc<Self> {
        let inner = Inner {
            attempts: BTreeMap::new(),
            order: VecDeque::new(),
            held: Vec::new(),
            expected: BTreeMap::new(),
            strangers: BTreeMap::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), called })
    }

    /// These attempts are expected, and no others.
    pub(crate) fn expect(&self, expected: &[Expected]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.expected = expected.iter().map(|one| (one.attempt, one.punch_key.0)).collect();
    }

    /// A connection waits for an attempt: if that is expected, it has begun.
    fn call(&self, preface: &Preface) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let key = inner.expected.get(&preface.attempt);
        let proves = |role| key.is_some_and(|key| preface.proves(key, role));
        if proves(Role::Controlling) || proves(Role::Controlled) {
            // With so many that wait to be told of, this one is told of by its next packet.
            let _ = self.called.clone().try_send(preface.attempt);
        }
    }

    /// From now on connections of this attempt go to that session.
    pub(crate) fn add(&self, attempt: AttemptId, session: &mpsc::Sender<Command<N>>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.attempts.insert(attempt, session.clone()).is_none() {
            inner.order.push_back(attempt);
            if inner.order.len() > ATTEMPTS
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.attempts.remove(&oldest);
            }
        }
        let (found, held) = std::mem::take(&mut inner.held).into_iter().partition(|h| h.attempt == attempt);
        inner.held = held;
        drop(inner);
        let found: Vec<Held<N>> = found;
        for held in found {
            let _ = held.found.send(session.clone());
        }
    }

    fn find(
        &self,
        attempt: AttemptId,
    ) -> Result<mpsc::Sender<Command<N>>, oneshot::Receiver<mpsc::Sender<Command<N>>>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = inner.attempts.get(&attempt) {
            return Ok(session.clone());
        }
        let (found, receiver) = oneshot::channel();
        inner.held.retain(|held| !held.found.is_canceled());
        inner.held.push(Held { attempt, found });
        Err(receiver)
    }

    /// Counts a stranger in; false if there are too many.
    fn admit(&self, from: IpAddr) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.strangers.values().sum::<usize>() >= STRANGERS {
            return false;
        }
        let count = inner.strangers.entry(from).or_default();
        if *count >= STRANGERS_PER_ADDRESS {
            return false;
        }
        *count += 1;
        true
    }

    fn leave(&self, from: IpAddr) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inner.strangers.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                inner.strangers.remove(&from);
            }
        }
    }
}

/// Accepts peers' connections until `stop` is dropped.
pub(crate) async fn run<N: Net>(
    net: N,
    listener: N::Listener,
    registry: Arc<Registry<N>>,
    stop: oneshot::Receiver<()>,
) {
    let mut accepting = Accepting::new(&net, listener, "of peers");
    until_stopped(stop, async {
        loop {
            let (stream, remote) = accepting.next().await;
            if !registry.admit(remote.ip()) {
                debug!(%remote, "too many connections that have not said what they are");
                continue;
            }
            let (own, registry) = (net.clone(), Arc::clone(&registry));
            net.spawn("peer", async move {
                introduce(&own, stream, remote, &registry).await;
                registry.leave(remote.ip());
            });
        }
    })
    .await;
}

/// Reads the preface and brings the connection to its session.
async fn introduce<N: Net>(net: &N, mut stream: N::Stream, remote: SocketAddr, registry: &Registry<N>) {
    let deadline = net.now() + SAY_WITHIN;
    let mut timer = net.timer();
    let mut bytes = [0; preface::LENGTH];
    if let Err(error) = read_exact(&mut stream, &mut bytes, &mut timer, deadline).await {
        return debug!(%remote, %error, "no preface");
    }
    let Some(preface) = Preface::parse(&bytes) else {
        return debug!(%remote, "not a preface");
    };
    let session = match registry.find(preface.attempt) {
        Ok(session) => Some(session),
        Err(mut found) => {
            registry.call(&preface);
            let until = net.now() + HOLD;
            poll_fn(|cx| match Pin::new(&mut found).poll(cx) {
                Poll::Ready(found) => Poll::Ready(found.ok()),
                Poll::Pending => timer.poll_at(cx, Some(until)).map(|()| None),
            })
            .await
        }
    };
    match session {
        Some(mut session) => {
            let _ = session.send(Command::Accepted { stream, preface, remote }).await;
        }
        None => debug!(%remote, attempt = ?preface.attempt, "an attempt that is not known here"),
    }
}

/// How long a connection may take to send its 54 bytes.
const SAY_WITHIN: Duration = Duration::from_secs(5);

/// How long the server's word to this side may come after its word to the peer.
const HOLD: Duration = Duration::from_secs(3);

/// Connections that have not been matched to a session yet: few, since each costs a descriptor.
const STRANGERS: usize = 64;

/// The same from one address: eight are a whole attempt's dials.
const STRANGERS_PER_ADDRESS: usize = 16;

/// Attempts that are remembered; each is 100 bytes, and a node has few at a time.
const ATTEMPTS: usize = 1024;
