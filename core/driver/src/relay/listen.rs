//! A node's relay port.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_channel::oneshot;
use tracing::{debug, warn};

use super::strangers::Strangers;
use super::{Carrier, Relay};
use crate::forward::{PAUSE, pause};
use crate::net::{ListenIo as _, Net};

/// Accepts connections until `stop` is dropped; those that are there go on.
pub(crate) async fn listen<N: Net>(
    net: N,
    mut listener: N::Listener,
    relay: Relay<N>,
    mut stop: oneshot::Receiver<()>,
) {
    let strangers = Arc::new(Strangers::default());
    let mut timer = net.timer();
    loop {
        let accepted = poll_fn(|cx| {
            if Pin::new(&mut stop).poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            listener.poll_accept(cx).map(Some)
        });
        match accepted.await {
            None => return,
            Some(Ok((stream, remote))) => {
                let Some(stranger) = strangers.admit(remote.ip()) else {
                    debug!(%remote, "too many connections that have not said what they are");
                    continue;
                };
                let relay = relay.clone();
                net.spawn("relayed", async move {
                    relay.serve(Carrier::Plain(stream), &[], remote, stranger).await;
                });
            }
            Some(Err(error)) => {
                warn!(%error, "cannot accept connections to be relayed; trying again");
                pause(&net, &mut timer, PAUSE).await;
            }
        }
    }
}
