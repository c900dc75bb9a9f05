//! The STUN ports: sockets around the pure answer of the core.

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use inp2p_core::stun::server::{MAX_REPLY, respond};
use tracing::{debug, warn};

use crate::exact::{read_exact, write_all};
use crate::forward::{PAUSE, pause};
use crate::net::{ListenIo as _, Net, RECV_BUFFER_BYTES, RecvBatch, Transmit, UdpIo};

/// Answers Binding requests on a UDP socket until `stop` is dropped.
pub(crate) async fn udp<N: Net>(mut socket: N::Udp, mut stop: oneshot::Receiver<()>) {
    let mut batch = RecvBatch::new(BATCH, RECV_BUFFER_BYTES);
    poll_fn(|cx| {
        for _ in 0..TURNS {
            if Pin::new(&mut stop).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            match socket.poll_recv(cx, &mut batch) {
                Poll::Pending => return Poll::Pending,
                // Such as an ICMP error of an earlier answer: it concerns one client only.
                Poll::Ready(Err(error)) => debug!(%error, "STUN receive"),
                Poll::Ready(Ok(filled)) => answer(&mut socket, cx, &batch, filled),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn answer<U: UdpIo>(socket: &mut U, cx: &mut Context<'_>, batch: &RecvBatch, filled: usize) {
    let mut reply = [0; REPLY];
    for (meta, datagram) in batch.datagrams(filled) {
        let length = respond(datagram, meta.from, &mut reply);
        if let Some(reply) = reply.get(..length).filter(|reply| !reply.is_empty()) {
            let transmit = Transmit { to: meta.from, from: meta.to, segment: None, ecn: 0 };
            // Clients repeat a request that is lost; waiting for one would make all others wait.
            let _ = socket.poll_send(cx, &transmit, reply);
        }
    }
}

/// Answers Binding requests on TCP connections until `stop` is dropped.
pub(crate) async fn tcp<N: Net>(net: N, mut listener: N::Listener, mut stop: oneshot::Receiver<()>) {
    let open = Arc::new(AtomicUsize::new(0));
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
                if open.load(Ordering::Relaxed) >= CONNECTIONS {
                    continue;
                }
                open.fetch_add(1, Ordering::Relaxed);
                let (net, open) = (net.clone(), Arc::clone(&open));
                net.clone().spawn("stun connection", async move {
                    serve(&net, stream, remote).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Some(Err(error)) => {
                warn!(%error, "cannot accept STUN connections; trying again");
                pause(&net, &mut timer, PAUSE).await;
            }
        }
    }
}

/// Serves one connection: messages follow each other, each as long as its header says (RFC 8489 section
/// 6.2.2). Ends when the client does, after [`IDLE`] of silence, or at the first message that is no request.
async fn serve<N: Net>(net: &N, mut stream: N::Stream, remote: SocketAddr) {
    let mut timer = net.timer();
    let mut request = [0; DATAGRAM];
    loop {
        let until = net.now() + IDLE;
        let (header, body) = request.split_at_mut(HEADER);
        if read_exact(&mut stream, header, &mut timer, until).await.is_err() {
            return;
        }
        let length = match header {
            [_, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return,
        };
        let Some(body) = body.get_mut(..length) else { return };
        if read_exact(&mut stream, body, &mut timer, until).await.is_err() {
            return;
        }
        let mut reply = [0; REPLY];
        let length = respond(request.get(..HEADER + length).unwrap_or_default(), remote, &mut reply);
        let reply = reply.get(..length).unwrap_or_default();
        if reply.is_empty() || write_all(&mut stream, reply, &mut timer, until).await.is_err() {
            return;
        }
    }
}

/// The length of a STUN header (RFC 8489 section 5).
const HEADER: usize = 20;

/// The longest request that is looked at: no Binding request of a real client comes near.
const DATAGRAM: usize = 1500;

/// Room for the longest reply.
const REPLY: usize = MAX_REPLY;

/// Datagrams a system call: with their buffers half a megabyte a socket.
const BATCH: usize = 8;

/// Batches before other tasks of the thread have their turn.
const TURNS: usize = 32;

/// How long a TCP connection may be silent: a client has several requests at most, at once.
const IDLE: Duration = Duration::from_secs(5);

/// TCP connections a port at a time; each is a descriptor and 2 KiB.
const CONNECTIONS: usize = 1024;
