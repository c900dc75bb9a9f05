//! Giving up: what was begun and dropped leaves nothing behind, and takes nothing from those that come after.

use std::future::{pending, poll_fn};
use std::io::IoSlice;
use std::task::Poll;

use futures_channel::oneshot;
use futures_util::future;

use super::{
    LOOPBACK_V4, accept, any_port, connect, listen_again, listener, once, pair, pattern, read_exact,
    read_to_end, within, write_all,
};
use crate::net::{ListenIo, Net, RECV_BUFFER_BYTES, RecvBatch, StreamIo, TcpConfig, Transmit, UdpIo};

/// A connection that is dropped while it is being made ends for the other side.
pub async fn a_connection_given_up_is_gone<N: Net>(net: N) {
    let (mut listener, at) = listener(&net);
    for _ in 0..20 {
        let mut stream = net.connect(&TcpConfig::default(), at).unwrap();
        let _ = once(|cx| stream.poll_connected(cx)).await;
        drop(stream);
    }
    // One that stays, so that there is an end to what is accepted.
    let mut stays = within(&net, "a connection", connect(&net, at)).await.unwrap();
    write_all(&mut stays, b"stays").await;
    loop {
        let (mut server, peer) = within(&net, "the connections", accept(&mut listener)).await;
        if peer == stays.local_addr().unwrap() {
            let mut said = [0; 5];
            within(&net, "its bytes", read_exact(&mut server, &mut said)).await;
            break;
        }
        // By a reset or in order, but without waiting.
        let _ = within(&net, "the end", read_to_end(&mut server)).await;
    }
}

/// A task that gave up accepting has not taken a connection with it.
pub async fn an_accept_given_up_loses_no_connection<N: Net>(net: N) {
    let (mut listener, at) = listener(&net);
    for _ in 0..20 {
        assert!(once(|cx| listener.poll_accept(cx)).await.is_pending());
        let client = within(&net, "a connection", connect(&net, at)).await.unwrap();
        let (_server, peer) = within(&net, "to accept it", accept(&mut listener)).await;
        assert_eq!(peer, client.local_addr().unwrap());
    }
}

/// A write that met `Pending` and was given up has sent nothing of its own.
pub async fn a_write_given_up_sends_what_it_said<N: Net>(net: N) {
    let (mut client, mut server) = pair(&net).await;
    let bytes = pattern(32 << 20);
    let mut sent = 0;
    while let Poll::Ready(n) = once(|cx| client.poll_write(cx, &[IoSlice::new(&bytes[sent..])])).await {
        sent += n.unwrap();
        assert!(sent < bytes.len(), "all of it fitted into the buffers: the check needs more");
    }
    let never_sent = vec![0xff; 1000];
    assert!(once(|cx| client.poll_write(cx, &[IoSlice::new(&never_sent)])).await.is_pending());
    let rest = async {
        write_all(&mut client, b"the end").await;
        client.shutdown().unwrap();
    };
    let both = future::join(rest, read_to_end(&mut server));
    let ((), received) = within(&net, "the rest", both).await;
    let received = received.unwrap();
    assert!(received[..sent] == bytes[..sent]);
    assert_eq!(&received[sent..], b"the end");
}

/// A datagram that comes after its receiver gave up is there for the next one.
pub async fn a_datagram_waits_for_the_next_receiver<N: Net>(net: N) {
    let (a, b) = (net.bind_udp(any_port(LOOPBACK_V4)), net.bind_udp(any_port(LOOPBACK_V4)).unwrap());
    let (a, to) = (a.unwrap(), b.local_addr().unwrap());
    let mut batch = RecvBatch::new(1, RECV_BUFFER_BYTES);
    for round in 0..20_u8 {
        assert!(once(|cx| b.poll_recv(cx, &mut batch)).await.is_pending());
        let transmit = Transmit::plain(to);
        poll_fn(|cx| a.poll_send(cx, &transmit, &[round])).await.unwrap();
        let filled = within(&net, "the datagram", poll_fn(|cx| b.poll_recv(cx, &mut batch))).await.unwrap();
        let received: Vec<_> = batch.datagrams(filled).map(|(_, bytes)| bytes.to_vec()).collect();
        assert_eq!(received, [[round]]);
    }
}

/// A task that ends in the middle of accepting closes its listener: the port is free at once.
pub async fn a_task_given_up_frees_its_port<N: Net>(net: N) {
    let (mut listener, at) = listener(&net);
    let (stop, stopped) = oneshot::channel::<()>();
    let (gone, is_gone) = oneshot::channel::<()>();
    net.spawn("accepts", async move {
        let _gone = gone;
        let accepting = async move {
            let _ = accept(&mut listener).await;
            pending::<()>().await;
        };
        future::select(Box::pin(accepting), stopped).await;
    });
    // Somebody is accepted meanwhile, so that the task has really begun.
    let client = within(&net, "a connection", connect(&net, at)).await.unwrap();
    drop((client, stop));
    assert!(within(&net, "the task's end", is_gone).await.is_err());
    listen_again(&net, at).await;
}
