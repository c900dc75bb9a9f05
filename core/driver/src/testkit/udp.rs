//! UDP: batches, segmentation, addresses, ECN.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{LOOPBACK_V4, LOOPBACK_V6, any_port, has_v6, pattern, within};
use crate::net::{Net, RECV_BUFFER_BYTES, RecvBatch, RecvMeta, Transmit, UdpIo};

/// A datagram arrives whole, with the addresses of both ends, the empty one included in the count of calls.
pub async fn a_datagram_carries_its_addresses<N: Net>(net: N) {
    let (mut a, mut b) = (bind(&net, LOOPBACK_V4), bind(&net, LOOPBACK_V4));
    let (from, to) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    send(&mut a, plain(to), b"hello").await;
    let (meta, bytes) = receive(&net, &mut b, 1).await.remove(0);
    assert_eq!(bytes, b"hello");
    assert_eq!(meta.from, from);
    assert!(meta.to.is_none_or(|ip| ip == LOOPBACK_V4));
}

/// More datagrams than one batch holds, of many sizes, arrive each once.
pub async fn batches_hold_every_datagram<N: Net>(net: N) {
    const COUNT: usize = 100;
    let (mut a, mut b) = (bind(&net, LOOPBACK_V4), bind(&net, LOOPBACK_V4));
    let to = b.local_addr().unwrap();
    let bytes = pattern(COUNT * 13);
    for len in 1..=COUNT {
        send(&mut a, plain(to), &bytes[..len * 13]).await;
    }
    let mut seen = BTreeMap::new();
    for (_, datagram) in receive(&net, &mut b, COUNT).await {
        assert!(datagram == bytes[..datagram.len()]);
        *seen.entry(datagram.len()).or_insert(0) += 1;
    }
    assert!(seen.len() == COUNT && seen.values().all(|&count| count == 1), "{seen:?}");
}

/// One send carries several datagrams, the last one shorter, whether or not the system can segment.
pub async fn one_send_carries_several_segments<N: Net>(net: N) {
    const SEGMENT: usize = 1200;
    let (mut a, mut b) = (bind(&net, LOOPBACK_V4), bind(&net, LOOPBACK_V4));
    let to = b.local_addr().unwrap();
    let most = a.max_segments();
    assert!(most >= 1);
    for segments in [1, 2, most.min(10), most, most + 5] {
        let bytes = pattern((segments - 1) * SEGMENT + 700);
        // 65,507 is the longest that one call may carry (a UDP datagram over IPv4).
        for bytes in bytes.chunks(SEGMENT * (65_507 / SEGMENT)) {
            send(&mut a, Transmit { segment: Some(SEGMENT), ..plain(to) }, bytes).await;
            let got = receive(&net, &mut b, bytes.len().div_ceil(SEGMENT)).await;
            let sizes: Vec<_> = got.iter().map(|(_, datagram)| datagram.len()).collect();
            assert!(sizes.iter().rev().skip(1).all(|&size| size == SEGMENT), "{sizes:?}");
            let whole: Vec<u8> = got.into_iter().flat_map(|(_, datagram)| datagram).collect();
            assert!(whole == bytes);
        }
    }
}

/// A socket on all addresses speaks to both families, names IPv4 peers by their IPv4 addresses, and answers
/// from the address that was asked.
pub async fn a_socket_on_all_addresses_speaks_both_families<N: Net>(net: N) {
    let mut all = bind(&net, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let port = all.local_addr().unwrap().port();
    let mut ips = vec![LOOPBACK_V4];
    if has_v6(&net) {
        ips.push(LOOPBACK_V6);
    }
    for ip in ips {
        let mut peer = bind(&net, ip);
        let address = peer.local_addr().unwrap();
        send(&mut peer, plain(SocketAddr::new(ip, port)), b"question").await;
        let (meta, question) = receive(&net, &mut all, 1).await.remove(0);
        assert_eq!((meta.from, question.as_slice()), (address, &b"question"[..]));
        assert_eq!(meta.to, Some(ip));
        send(&mut all, Transmit { from: meta.to, ..plain(meta.from) }, b"answer").await;
        let (meta, answer) = receive(&net, &mut peer, 1).await.remove(0);
        assert_eq!((meta.from, answer.as_slice()), (SocketAddr::new(ip, port), &b"answer"[..]));
    }
}

/// The ECN bits arrive as they were sent.
pub async fn congestion_bits_pass<N: Net>(net: N) {
    let (mut a, mut b) = (bind(&net, LOOPBACK_V4), bind(&net, LOOPBACK_V4));
    let to = b.local_addr().unwrap();
    for ecn in [0, 1, 2, 3] {
        send(&mut a, Transmit { ecn, ..plain(to) }, b"bits").await;
        let (meta, _) = receive(&net, &mut b, 1).await.remove(0);
        assert_eq!(meta.ecn, ecn);
    }
}

/// A port that another socket has is refused.
pub async fn a_udp_port_in_use_is_refused<N: Net>(net: N) {
    let first = bind(&net, LOOPBACK_V4);
    let again = net.bind_udp(first.local_addr().unwrap());
    assert_eq!(again.map(drop).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

fn bind<N: Net>(net: &N, ip: IpAddr) -> N::Udp {
    net.bind_udp(any_port(ip)).unwrap()
}

fn plain(to: SocketAddr) -> Transmit {
    Transmit { to, from: None, segment: None, ecn: 0 }
}

async fn send(socket: &mut impl UdpIo, transmit: Transmit, bytes: &[u8]) {
    poll_fn(|cx| socket.poll_send(cx, &transmit, bytes)).await.unwrap();
}

/// The next `count` datagrams, in the order of their arrival.
async fn receive<N: Net>(net: &N, socket: &mut N::Udp, count: usize) -> Vec<(RecvMeta, Vec<u8>)> {
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
