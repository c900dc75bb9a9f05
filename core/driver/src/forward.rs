//! The listeners of forwards: local programs connect here.

use std::future::poll_fn;
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::future::{self, Either};
use futures_util::{SinkExt as _, pin_mut};
use tracing::warn;

use crate::net::{ListenIo as _, Net, TimerIo as _};
use crate::session::{Command, Origin};

/// Accepts until `stop` is dropped, and hands each connection to the peer's session.
pub(crate) async fn run<N: Net>(
    net: N,
    mut listener: N::Listener,
    origin: Origin,
    mut session: mpsc::Sender<Command<N>>,
    stop: oneshot::Receiver<()>,
) {
    let accept = async {
        let mut timer = net.timer();
        loop {
            match poll_fn(|cx| listener.poll_accept(cx)).await {
                Ok((stream, _)) => {
                    let command = Command::Open { stream, origin: origin.clone() };
                    // A session that is busy makes the backlog of the listener wait. One that has ended takes
                    // the connection with it, because the node is stopping.
                    if session.send(command).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot accept connections for a forward; trying again");
                    pause(&net, &mut timer, PAUSE).await;
                }
            }
        }
    };
    pin_mut!(accept);
    match future::select(accept, stop).await {
        Either::Left(_) | Either::Right(_) => {}
    }
}

/// Waits.
pub(crate) async fn pause<N: Net>(net: &N, timer: &mut N::Timer, length: Duration) {
    let at = net.now() + length;
    poll_fn(|cx| timer.poll_at(cx, Some(at))).await;
}

/// How long to wait when the system has no more descriptors: others must close theirs first.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);
