//! Connections: bytes, ends, resets, addresses.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::Poll;

use futures_channel::oneshot;
use futures_util::future;
use futures_util::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    LOOPBACK_V4, accept, any_port, connect, listener, once, pair, pattern, read, read_exact, read_to_end,
    within, write_all,
};
use crate::compat::Compat;
use crate::net::{Net, StreamIo, TcpConfig};

/// Many slices of odd sizes, written in part each time, come back as they were sent.
pub async fn bytes_come_back_in_order<N: Net>(net: N) {
    let (mut client, mut server) = pair(&net).await;
    let sent = pattern(4 << 20);
    net.spawn("echo", async move {
        // More slices than one system call takes.
        let mut bufs = vec![vec![0; 50]; 1500];
        bufs[0] = vec![0; 1000];
        bufs[1] = vec![0; 70_000];
        loop {
            let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
            let mut n = poll_fn(|cx| server.poll_read(cx, &mut slices)).await.unwrap();
            if n == 0 {
                return server.shutdown().unwrap();
            }
            for buf in &bufs {
                let part = n.min(buf.len());
                write_all(&mut server, &buf[..part]).await;
                n -= part;
            }
        }
    });
    let back = within(&net, "the echo", exchange(&mut client, &sent)).await;
    assert!(back == sent, "what came back differs from what was sent");
}

/// Sends `bytes` in slices while it reads what comes, until the other side ends.
async fn exchange(stream: &mut impl StreamIo, bytes: &[u8]) -> Vec<u8> {
    let mut sent = 0;
    let mut ended = false;
    let mut back = Vec::new();
    let mut buf = vec![0; 50_000];
    poll_fn(|cx| {
        while sent < bytes.len() {
            let slices: Vec<_> = bytes[sent..].chunks(777).take(2000).map(IoSlice::new).collect();
            match stream.poll_write(cx, &slices) {
                Poll::Ready(n) => sent += n.unwrap(),
                Poll::Pending => break,
            }
        }
        if sent == bytes.len() && !ended {
            ended = true;
            stream.shutdown().unwrap();
        }
        loop {
            match stream.poll_read(cx, &mut [IoSliceMut::new(&mut buf)]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(()),
                Poll::Ready(n) => back.extend_from_slice(&buf[..n.unwrap()]),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    back
}

/// Each side may end its sending direction and still receive.
pub async fn half_close_passes_both_ways<N: Net>(net: N) {
    let request = b"all that I have to say";
    let answer = pattern(300_000);
    for connecting_side_first in [true, false] {
        let (client, server) = pair(&net).await;
        let (mut first, mut second) = if connecting_side_first { (client, server) } else { (server, client) };
        write_all(&mut first, request).await;
        first.shutdown().unwrap();
        let asked = within(&net, "the first end", read_to_end(&mut second)).await.unwrap();
        assert_eq!(asked, request);
        let respond = async {
            write_all(&mut second, &answer).await;
            second.shutdown().unwrap();
        };
        let both = future::join(respond, read_to_end(&mut first));
        let ((), answered) = within(&net, "the answer after the end", both).await;
        assert!(answered.unwrap() == answer);
    }
}

/// A reader that waits is woken by the end of the stream.
pub async fn dropping_a_stream_ends_it<N: Net>(net: N) {
    let (client, mut server) = pair(&net).await;
    let (waiting, waits) = oneshot::channel();
    net.spawn("drop", async move {
        waits.await.unwrap();
        drop(client);
    });
    let mut waiting = Some(waiting);
    let mut buf = [0; 10];
    let ended = poll_fn(|cx| {
        let read = server.poll_read(cx, &mut [IoSliceMut::new(&mut buf)]);
        if read.is_pending() {
            let _ = waiting.take().map(|waiting| waiting.send(()));
        }
        read
    });
    assert_eq!(within(&net, "the end", ended).await.unwrap(), 0);
}

/// After `abort` the peer sees a reset, never an end that looks orderly.
pub async fn abort_resets_the_peer<N: Net>(net: N) {
    let (mut client, mut server) = pair(&net).await;
    write_all(&mut client, b"unfinished").await;
    let mut buf = [0; 10];
    read_exact(&mut server, &mut buf).await;
    client.abort();
    drop(client);
    let error = within(&net, "the reset", read(&mut server, &mut buf)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// Nobody listens there: an error, at once or when it has come to light.
pub async fn a_refused_connection_is_an_error<N: Net>(net: N) {
    let (listener, at) = listener(&net);
    drop(listener);
    let refused = within(&net, "the refusal", connect(&net, at)).await;
    assert_eq!(refused.map(drop).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

/// The local port can be chosen and shared, also with a listener: as punching needs it.
pub async fn a_connection_leaves_from_the_chosen_port<N: Net>(net: N) {
    let shared = TcpConfig { local: Some(any_port(LOOPBACK_V4)), share_port: true, link: true };
    let own = net.listen(&shared).unwrap();
    let from = crate::net::ListenIo::local_addr(&own).unwrap();
    for _ in 0..2 {
        let (mut listener, at) = listener(&net);
        let mut stream = net.connect(&TcpConfig { local: Some(from), ..shared }, at).unwrap();
        let connected = poll_fn(|cx| stream.poll_connected(cx));
        let (connected, (_accepted, peer)) =
            within(&net, "the connection", future::join(connected, accept(&mut listener))).await;
        connected.unwrap();
        assert_eq!(peer, from);
        assert_eq!(stream.local_addr().unwrap(), from);
        stream.abort();
    }
}

/// Two ends that connect to each other, and neither listens: simultaneous open (RFC 9293 section 3.5). On one
/// machine the two openings cannot be made to cross, so the two ends are one socket, which connects to itself.
pub async fn both_ends_may_open_at_once<N: Net>(net: N) {
    let (listener, at) = listener(&net);
    drop(listener);
    let own = TcpConfig { local: Some(at), share_port: true, link: true };
    let mut stream = net.connect(&own, at).unwrap();
    within(&net, "the connection", poll_fn(|cx| stream.poll_connected(cx))).await.unwrap();
    assert_eq!((stream.local_addr().unwrap(), stream.peer_addr().unwrap()), (at, at));
    let mut back = [0; 5];
    write_all(&mut stream, b"hello").await;
    within(&net, "the bytes", read_exact(&mut stream, &mut back)).await;
    assert_eq!(&back, b"hello");
    stream.shutdown().unwrap();
    assert_eq!(within(&net, "the end", read(&mut stream, &mut back)).await.unwrap(), 0);
}

/// What one end calls its own address the other one calls its peer's.
pub async fn both_ends_agree_on_their_addresses<N: Net>(net: N) {
    let (client, server) = pair(&net).await;
    assert_eq!(client.local_addr().unwrap(), server.peer_addr().unwrap());
    assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    let local: SocketAddr = client.local_addr().unwrap();
    assert_eq!(local.ip(), LOOPBACK_V4);
    assert_ne!(local.port(), 0);
}

/// A writer that found no room is woken when the reader makes some.
pub async fn a_blocked_writer_goes_on_when_there_is_room<N: Net>(net: N) {
    let (mut client, mut server) = pair(&net).await;
    let sent = pattern(24 << 20);
    let expected = sent.clone();
    let (blocked, blocks) = oneshot::channel();
    net.spawn("writer", async move {
        let mut blocked = Some(blocked);
        let mut done = 0;
        poll_fn(|cx| {
            while done < sent.len() {
                match client.poll_write(cx, &[IoSlice::new(&sent[done..])]) {
                    Poll::Ready(n) => done += n.unwrap(),
                    Poll::Pending => {
                        let _ = blocked.take().map(|blocked| blocked.send(()));
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(())
        })
        .await;
    });
    let received = within(&net, "the rest", async {
        blocks.await.expect("24 MiB fitted into the kernel's buffers: the check needs more");
        read_to_end(&mut server).await.unwrap()
    })
    .await;
    assert!(received == expected);
}

/// A read that met `Pending` and was given up takes nothing from the one after it.
pub async fn a_read_given_up_loses_nothing<N: Net>(net: N) {
    let (mut client, mut server) = pair(&net).await;
    let mut buf = [0; 5];
    let nothing = once(|cx| server.poll_read(cx, &mut [IoSliceMut::new(&mut buf)])).await;
    assert!(nothing.is_pending());
    write_all(&mut client, b"hello").await;
    within(&net, "the bytes", read_exact(&mut server, &mut buf)).await;
    assert_eq!(&buf, b"hello");
}

/// Bytes read to tell protocols apart come again in front, and what is left of them can be taken back.
pub async fn sniffed_bytes_are_read_again<N: Net>(net: N) {
    let (client, mut server) = pair(&net).await;
    let mut client = Compat::new(client);
    client.write_all(b"GET / and more").await.unwrap();
    client.close().await.unwrap();
    let mut first = [0; 5];
    within(&net, "the first bytes", read_exact(&mut server, &mut first)).await;

    let mut server = Compat::with_prefix(server, first.to_vec());
    let mut buf = [0; 2];
    server.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"GE");
    let (stream, left) = server.into_inner();
    assert_eq!(&left[..], b"T /");
    let mut all = Vec::new();
    let mut server = Compat::with_prefix(stream, left);
    within(&net, "the rest", server.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"T / and more");
}
