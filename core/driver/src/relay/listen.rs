//! A node's relay port.

use std::sync::Arc;

use futures_channel::oneshot;
use tracing::debug;

use super::strangers::Strangers;
use super::{Carrier, Relay};
use crate::accept::{Accepting, until_stopped};
use crate::net::Net;

/// Accepts connections until `stop` is dropped; those that are there go on.
pub(crate) async fn listen<N: Net>(
    net: N,
    listener: N::Listener,
    relay: Relay<N>,
    stop: oneshot::Receiver<()>,
) {
    let strangers = Arc::new(Strangers::default());
    let mut accepting = Accepting::new(&net, listener, "to be relayed");
    until_stopped(stop, async {
        loop {
            let (stream, remote) = accepting.next().await;
            let Some(stranger) = strangers.admit(remote.ip()) else {
                debug!(%remote, "too many connections that have not said what they are");
                continue;
            };
            let relay = relay.clone();
            net.spawn("relayed", async move {
                relay.serve(Carrier::Plain(stream), &[], remote, stranger).await;
            });
        }
    })
    .await;
}
