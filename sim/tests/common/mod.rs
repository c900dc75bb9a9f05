//! What the tests share: small worlds, and TCP and UDP in the shape of async functions.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "this is test code, which clippy does not see outside of a #[test]")]

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::time::Duration;

use inp2p_driver::net::{ListenIo, Net, RecvBatch, StreamIo, TcpConfig, Transmit, UdpIo};
use inp2p_sim::{HostId, LinkConfig, SimListener, SimNet, SimStream, SimUdp, World};

/// Long enough for anything that ends at all.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

pub(crate) const A: &str = "198.51.100.1";
pub(crate) const B: &str = "198.51.100.2";

/// Two hosts on the internet, 10 ms from it each, so 40 ms round trip.
pub(crate) fn two_hosts(seed: u64, link: LinkConfig) -> (World, HostId, HostId) {
    let world = World::new(seed);
    let hosts = ["a", "b"].map(|name| world.host(name));
    for (host, address) in hosts.into_iter().zip([A, B]) {
        world.attach(host, world.internet(), &[&format!("{address}/32")], link.clone());
    }
    (world, hosts[0], hosts[1])
}

pub(crate) fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

pub(crate) fn listen(net: &SimNet, port: u16) -> SimListener {
    let config = TcpConfig { local: Some(at("::", port)), ..TcpConfig::default() };
    net.listen(&config).unwrap()
}

pub(crate) async fn accept(listener: &mut SimListener) -> SimStream {
    poll_fn(|cx| listener.poll_accept(cx)).await.unwrap().0
}

pub(crate) async fn connect(net: &SimNet, to: SocketAddr) -> io::Result<SimStream> {
    connect_from(net, &TcpConfig::default(), to).await
}

pub(crate) async fn connect_from(net: &SimNet, config: &TcpConfig, to: SocketAddr) -> io::Result<SimStream> {
    let mut stream = net.connect(config, to)?;
    poll_fn(|cx| stream.poll_connected(cx)).await?;
    Ok(stream)
}

pub(crate) async fn read(stream: &mut SimStream, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(buffer)])).await
}

pub(crate) async fn read_to_end(stream: &mut SimStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match read(stream, &mut buffer).await? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

pub(crate) async fn read_exact(stream: &mut SimStream, length: usize) -> io::Result<Vec<u8>> {
    let mut all = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match read(stream, &mut all[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
    }
    Ok(all)
}

pub(crate) async fn write_all(stream: &mut SimStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(bytes)])).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Answers every connection with what it sends, and ends its side when the peer has ended.
pub(crate) async fn echo(net: SimNet, port: u16) {
    let mut listener = listen(&net, port);
    loop {
        let mut stream = accept(&mut listener).await;
        net.spawn("echo", async move {
            let mut buffer = [0; 4096];
            while let Ok(n) = read(&mut stream, &mut buffer).await {
                if n == 0 || write_all(&mut stream, &buffer[..n]).await.is_err() {
                    let _ = stream.shutdown();
                    break;
                }
            }
        });
    }
}

/// Sends so many bytes through a forward on port 2222 of this host, to an echo, and checks that they come back.
pub(crate) async fn through(net: &SimNet, length: usize) {
    let mut stream = connect(net, at("127.0.0.1", 2222)).await.unwrap();
    let sent = bytes(length);
    let mut back = Vec::new();
    for piece in sent.chunks(50_000) {
        write_all(&mut stream, piece).await.unwrap();
        back.extend(read_exact(&mut stream, piece.len()).await.unwrap());
    }
    stream.shutdown().unwrap();
    assert_eq!(read_to_end(&mut stream).await.unwrap(), b"");
    assert!(back == sent);
}

pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

pub(crate) async fn send_to(socket: &mut SimUdp, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let transmit = Transmit::plain(to);
    poll_fn(|cx| socket.poll_send(cx, &transmit, bytes)).await
}

/// The datagrams of one batch, with their sources.
pub(crate) async fn receive(socket: &mut SimUdp) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut batch = RecvBatch::new(8, 65_536);
    let filled = poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
    batch.datagrams(filled).map(|(meta, bytes)| (meta.from, bytes.to_vec())).collect()
}
