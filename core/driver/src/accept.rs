//! Accepting connections, as all of this program's listeners do it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::select;
use tracing::warn;

use crate::net::{ListenIo as _, Net, TimerIo as _};

/// A listener that goes on whatever happens.
pub(crate) struct Accepting<N: Net> {
    net: N,
    listener: N::Listener,
    timer: N::Timer,
    whose: &'static str,
    /// Whether the latest try failed, which has been told then.
    failing: bool,
}

impl<N: Net> Accepting<N> {
    /// `whose` connections they are, for the log: "of peers".
    pub(crate) fn new(net: &N, listener: N::Listener, whose: &'static str) -> Self {
        Self { net: net.clone(), listener, timer: net.timer(), whose, failing: false }
    }

    /// The next connection, and where it comes from. Errors are told, and waited for to pass.
    pub(crate) async fn next(&mut self) -> (N::Stream, SocketAddr) {
        loop {
            match poll_fn(|cx| self.listener.poll_accept(cx)).await {
                Ok(accepted) => {
                    self.failing = false;
                    return accepted;
                }
                Err(error) => {
                    if !self.failing {
                        warn!(%error, "cannot accept connections {}; trying again until it works", self.whose);
                    }
                    self.failing = true;
                    let at = self.net.now() + PAUSE;
                    poll_fn(|cx| self.timer.poll_at(cx, Some(at))).await;
                }
            }
        }
    }
}

/// Does `work` until it ends or `stop` is dropped.
pub(crate) async fn until_stopped(stop: oneshot::Receiver<()>, work: impl Future<Output = ()>) {
    select(pin!(work), stop).await;
}

/// How long to wait when the system has no more descriptors: others must close theirs first.
const PAUSE: Duration = Duration::from_millis(100);
