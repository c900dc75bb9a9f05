//! Listeners, and what belongs to finding an address: resolving, interfaces.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use futures_util::future;

use super::{
    LOOPBACK_V4, LOOPBACK_V6, accept, any_port, connect, has_v6, listen_again, listener, read_exact, within,
    write_all,
};
use crate::net::{ListenIo, Net, StreamIo, TcpConfig};

/// A second listener on the same port is refused.
pub async fn a_port_in_use_is_refused<N: Net>(net: N) {
    let (_first, at) = listener(&net);
    let again = net.listen(&TcpConfig { local: Some(at), ..TcpConfig::default() });
    assert_eq!(again.map(drop).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

/// A listener on all addresses takes IPv4 and IPv6, and calls an IPv4 peer by its IPv4 address.
pub async fn all_addresses_are_of_both_families<N: Net>(net: N) {
    let everywhere = [None, Some(any_port(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))];
    for local in everywhere {
        let mut listener = net.listen(&TcpConfig { local, ..TcpConfig::default() }).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ips = vec![LOOPBACK_V4];
        if has_v6(&net) {
            ips.push(LOOPBACK_V6);
        }
        for ip in ips {
            let both = future::join(connect(&net, SocketAddr::new(ip, port)), accept(&mut listener));
            let (client, (server, peer)) = within(&net, "the connection", both).await;
            assert_eq!(peer, client.unwrap().local_addr().unwrap());
            assert_eq!(peer.ip(), ip);
            assert_eq!(server.local_addr().unwrap(), SocketAddr::new(ip, port));
        }
    }
}

/// Connections that wait are all accepted, and each is the one that it says it is.
pub async fn every_waiting_connection_is_accepted<N: Net>(net: N) {
    let (mut listener, at) = listener(&net);
    let mut clients = Vec::new();
    for i in 0..50_u8 {
        let mut client = within(&net, "a connection", connect(&net, at)).await.unwrap();
        write_all(&mut client, &[i]).await;
        clients.push(client);
    }
    for _ in 0..50 {
        let (mut server, peer) = within(&net, "a waiting connection", accept(&mut listener)).await;
        let mut number = [0];
        within(&net, "its number", read_exact(&mut server, &mut number)).await;
        assert_eq!(clients[usize::from(number[0])].local_addr().unwrap(), peer);
    }
}

/// A port is free again when its listener is gone, though its connections linger.
pub async fn a_port_can_be_listened_on_again<N: Net>(net: N) {
    let (mut first, at) = listener(&net);
    let (client, server) = future::join(connect(&net, at), accept(&mut first)).await;
    drop((first, server, client));
    listen_again(&net, at).await;
}

/// Names are looked up, addresses taken as they are; many at a time.
pub async fn names_resolve<N: Net>(net: N) {
    let lookups = (0..100).map(|port| net.resolve("localhost", port));
    for (port, found) in within(&net, "localhost", future::join_all(lookups)).await.into_iter().enumerate() {
        let found = found.unwrap();
        assert!(!found.is_empty());
        assert!(
            found.iter().all(|address| address.ip().is_loopback() && usize::from(address.port()) == port)
        );
    }
    within(&net, "one more", net.resolve("localhost", 1)).await.unwrap();
    assert_eq!(net.resolve("192.0.2.7", 80).await.unwrap(), ["192.0.2.7:80".parse().unwrap()]);
    assert_eq!(net.resolve("[2001:db8::7]", 80).await.unwrap(), ["[2001:db8::7]:80".parse().unwrap()]);
}

/// The host's addresses include its loopback address.
pub async fn interfaces_include_loopback<N: Net>(net: N) {
    let all = net.interfaces().unwrap();
    assert!(all.iter().any(|one| one.address == LOOPBACK_V4), "{all:?}");
}
