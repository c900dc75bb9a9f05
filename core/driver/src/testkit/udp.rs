//! UDP: batches, segmentation, addresses, ECN.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use futures_channel::mpsc;
use futures_util::StreamExt as _;
use futures_util::task::AtomicWaker;

use super::{LOOPBACK_V4, LOOPBACK_V6, any_port, has_v6, pattern, within};
use crate::net::{Net, RECV_BUFFER_BYTES, RecvBatch, RecvMeta, Transmit, UdpIo};

/// A datagram arrives whole, with the addresses of both ends.
pub async fn a_datagram_carries_its_addresses<N: Net>(net: N) {
    let (a, b) = (bind(&net, LOOPBACK_V4), bind(&net, LOOPBACK_V4));
    let (from, to) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    send(&a, Transmit::plain(to), b"hello").await;
    let (meta, bytes) = receive(&net, &b, 1).await.remove(0);
    assert_eq!(bytes, b"hello");
    assert_eq!(meta.from, from);
    assert!(meta.to.is_none_or(|ip| ip == LOOPBACK_V4));
}

/// More datagrams than one batch holds, of many sizes, arrive each once.
pub async fn batches_hold_every_datagram<N: Net>(net: N) {
    const COUNT: usize = 100;
    let (a, b) = (bind(&net, LOOPBACK_V4), bind(&net, LOOPBACK_V4));
    let to = b.local_addr().unwrap();
    let bytes = pattern(COUNT * 13);
    for len in 1..=COUNT {
        send(&a, Transmit::plain(to), &bytes[..len * 13]).await;
    }
    let mut seen = BTreeMap::new();
    for (_, datagram) in receive(&net, &b, COUNT).await {
        assert!(datagram == bytes[..datagram.len()]);
        *seen.entry(datagram.len()).or_insert(0) += 1;
    }
    assert!(seen.len() == COUNT && seen.values().all(|&count| count == 1), "{seen:?}");
}

/// One send carries several datagrams, the last one shorter, whether or not the system can segment that many.
pub async fn one_send_carries_several_segments<N: Net>(net: N) {
    let (a, b) = (bind(&net, LOOPBACK_V4), bind(&net, LOOPBACK_V4));
    let to = b.local_addr().unwrap();
    let most = a.max_segments();
    assert!(most >= 1);
    for (segment, count) in [(1200, 1), (1200, 2), (1200, most.min(50)), (100, most), (100, most + 5)] {
        let bytes = pattern((count - 1) * segment + 70);
        send(&a, Transmit { segment: Some(segment), ..Transmit::plain(to) }, &bytes).await;
        let got = receive(&net, &b, count).await;
        let sizes: Vec<_> = got.iter().map(|(_, datagram)| datagram.len()).collect();
        assert!(sizes.iter().rev().skip(1).all(|&size| size == segment), "{sizes:?}");
        let whole: Vec<u8> = got.into_iter().flat_map(|(_, datagram)| datagram).collect();
        assert!(whole == bytes);
    }
}

/// A socket on all addresses speaks to both families, and names IPv4 peers by their IPv4 addresses.
pub async fn a_socket_on_all_addresses_speaks_both_families<N: Net>(net: N) {
    let all = bind(&net, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let port = all.local_addr().unwrap().port();
    let mut ips = vec![LOOPBACK_V4];
    if has_v6(&net) {
        ips.push(LOOPBACK_V6);
    }
    for ip in ips {
        let peer = bind(&net, ip);
        let address = peer.local_addr().unwrap();
        send(&peer, Transmit::plain(SocketAddr::new(ip, port)), b"question").await;
        let (meta, question) = receive(&net, &all, 1).await.remove(0);
        assert_eq!((meta.from, question.as_slice()), (address, &b"question"[..]));
        assert_eq!(meta.to, Some(ip));
        send(&all, Transmit { from: meta.to, ..Transmit::plain(meta.from) }, b"answer").await;
        let (meta, answer) = receive(&net, &peer, 1).await.remove(0);
        assert_eq!((meta.from, answer.as_slice()), (SocketAddr::new(ip, port), &b"answer"[..]));
    }
}

/// A socket on all addresses answers from the address that was asked. It wants a host on which all of
/// 127.0.0.0/8 is local, as on Linux.
pub async fn an_answer_leaves_from_the_address_that_was_asked<N: Net>(net: N) {
    for all in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        let (all, peer) = (bind(&net, all), bind(&net, LOOPBACK_V4));
        let asked = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), all.local_addr().unwrap().port()));
        send(&peer, Transmit::plain(asked), b"question").await;
        let (meta, _) = receive(&net, &all, 1).await.remove(0);
        assert_eq!(meta.to, Some(asked.ip()));
        send(&all, Transmit { from: meta.to, ..Transmit::plain(meta.from) }, b"answer").await;
        let (meta, _) = receive(&net, &peer, 1).await.remove(0);
        assert_eq!(meta.from, asked);
    }
}

/// The ECN bits arrive as they were sent.
pub async fn congestion_bits_pass<N: Net>(net: N) {
    let (a, b) = (bind(&net, LOOPBACK_V4), bind(&net, LOOPBACK_V4));
    let to = b.local_addr().unwrap();
    for ecn in [0, 1, 2, 3] {
        send(&a, Transmit { ecn, ..Transmit::plain(to) }, b"bits").await;
        let (meta, _) = receive(&net, &b, 1).await.remove(0);
        assert_eq!(meta.ecn, ecn);
    }
}

/// A port that another socket has is refused.
pub async fn a_udp_port_in_use_is_refused<N: Net>(net: N) {
    let first = bind(&net, LOOPBACK_V4);
    let again = net.bind_udp(first.local_addr().unwrap());
    assert_eq!(again.map(drop).unwrap_err().kind(), ErrorKind::AddrInUse);
}

/// Many tasks send by one socket. Each that is told that it would block has the socket's own task, which alone
/// waits for the socket, wake it; so everything gets out, whatever the socket takes at once.
pub async fn a_hundred_blocked_senders_are_all_woken<N: Net>(net: N) {
    const SENDERS: usize = 100;
    const EACH: usize = 40;
    let socket = Arc::new(Shared {
        io: bind(&net, LOOPBACK_V4),
        blocked: Mutex::new(Vec::new()),
        owner: AtomicWaker::new(),
    });
    let sink = bind(&net, LOOPBACK_V4);
    let to = sink.local_addr().unwrap();
    let (done, mut finished) = mpsc::unbounded();
    for _ in 0..SENDERS {
        let (socket, done) = (Arc::clone(&socket), done.clone());
        net.spawn("sender", async move {
            let bytes = pattern(60_000);
            for round in 0..EACH {
                let mut refused = round == 0;
                poll_fn(|cx| {
                    // The first of each is taken for blocked: a fast machine might never block.
                    if !std::mem::take(&mut refused) {
                        let transmit = Transmit { segment: Some(1200), ..Transmit::plain(to) };
                        match socket.io.try_send(&transmit, &bytes) {
                            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                            result => return Poll::Ready(result),
                        }
                    }
                    socket.blocked.lock().unwrap().push(cx.waker().clone());
                    socket.owner.wake();
                    Poll::Pending
                })
                .await
                .unwrap();
            }
            let _ = done.unbounded_send(());
        });
    }
    drop(done);
    let mut left = SENDERS;
    let owner = poll_fn(|cx| {
        socket.owner.register(cx.waker());
        while !socket.blocked.lock().unwrap().is_empty() {
            let Poll::Ready(ready) = socket.io.poll_writable(cx) else { break };
            ready.unwrap();
            std::mem::take(&mut *socket.blocked.lock().unwrap()).into_iter().for_each(Waker::wake);
        }
        while left > 0 {
            match finished.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => left -= 1,
                Poll::Ready(None) => panic!("{left} senders never finished"),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    });
    within(&net, "every sender's end", owner).await;
}

struct Shared<U> {
    io: U,
    /// Whom the owner is to wake.
    blocked: Mutex<Vec<Waker>>,
    owner: AtomicWaker,
}

fn bind<N: Net>(net: &N, ip: IpAddr) -> N::Udp {
    net.bind_udp(any_port(ip)).unwrap()
}

async fn send(socket: &impl UdpIo, transmit: Transmit, bytes: &[u8]) {
    poll_fn(|cx| socket.poll_send(cx, &transmit, bytes)).await.unwrap();
}

/// The next `count` datagrams, in the order of their arrival.
async fn receive<N: Net>(net: &N, socket: &N::Udp, count: usize) -> Vec<(RecvMeta, Vec<u8>)> {
    let mut batch = RecvBatch::new(8, RECV_BUFFER_BYTES);
    let mut received = Vec::new();
    while received.len() < count {
        let filled = within(net, "datagrams", poll_fn(|cx| socket.poll_recv(cx, &mut batch))).await.unwrap();
        assert!(filled >= 1);
        received.extend(batch.datagrams(filled).map(|(meta, bytes)| (*meta, bytes.to_vec())));
    }
    assert_eq!(received.len(), count);
    received
}
