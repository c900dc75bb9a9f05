//! The listeners of forwards: local programs connect here.

use futures_channel::{mpsc, oneshot};
use futures_util::SinkExt as _;

use crate::accept::{Accepting, until_stopped};
use crate::net::Net;
use crate::session::{Command, Origin};

/// Accepts until `stop` is dropped, and hands each connection to the peer's session.
pub(crate) async fn run<N: Net>(
    net: N,
    listener: N::Listener,
    origin: Origin,
    mut session: mpsc::Sender<Command<N>>,
    stop: oneshot::Receiver<()>,
) {
    let mut accepting = Accepting::new(&net, listener, "for a forward");
    until_stopped(stop, async {
        loop {
            let (stream, _) = accepting.next().await;
            let command = Command::Open { stream, origin: origin.clone() };
            // A session that is busy makes the backlog of the listener wait. One that has ended takes the
            // connection with it, because the node is stopping.
            if session.send(command).await.is_err() {
                return;
            }
        }
    })
    .await;
}
