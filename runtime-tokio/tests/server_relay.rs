//! The server's relay on its signalling port: raw, and inside WebSockets with and without TLS, joined with
//! each other.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails, its helpers too")]

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures_channel::mpsc;
use futures_util::future::join;
use inp2p_driver::net::{Net, Store, StreamIo, TcpConfig};
use inp2p_driver::relay::Carrier;
use inp2p_driver::setup::ciphers;
use inp2p_driver::testkit::relay::World;
use inp2p_driver::testkit::within;
use inp2p_driver::web::{AdminClient, AdminKey, FrontConfig, Known, SignalServer, connect_relay, serve, tls};
use inp2p_runtime_tokio::{TokioNet, run};

type Stream = Carrier<<TokioNet as Net>::Stream>;

/// Files in memory.
#[derive(Default)]
struct Memory(Mutex<Vec<(String, Vec<u8>)>>);

impl Store for Memory {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self
            .0
            .lock()
            .unwrap()
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, bytes)| bytes.clone()))
    }
    fn save(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().push((name.to_owned(), content.to_vec()));
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Raw,
    Ws,
    Wss,
}

async fn dial(net: &TokioNet, at: SocketAddr, way: Way) -> Stream {
    let tls = match way {
        Way::Raw => {
            let mut stream = net.connect(&TcpConfig::default(), at).unwrap();
            poll_fn(|cx| stream.poll_connected(cx)).await.unwrap();
            return Carrier::Plain(stream);
        }
        Way::Ws => None,
        Way::Wss => Some(tls::client_config(net, ciphers(), None).unwrap()),
    };
    let server = SignalServer { host: at.ip().to_string(), port: at.port(), tls, known: Known::default() };
    Carrier::Inside(connect_relay(net, &server).await.unwrap())
}

/// Sends `bytes`, ends, and reads to the end.
async fn exchange(mut stream: Stream, mut heard: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    let (mut sent, mut ended) = (0, false);
    let mut buf = vec![0; 60_000];
    poll_fn(|cx| {
        while sent < bytes.len() {
            match stream.poll_write(cx, &[IoSlice::new(&bytes[sent..])]) {
                std::task::Poll::Ready(n) => sent += n.unwrap(),
                std::task::Poll::Pending => break,
            }
            if sent == bytes.len() {
                stream.shutdown().unwrap();
            }
        }
        while !ended {
            match stream.poll_read(cx, &mut [IoSliceMut::new(&mut buf)]) {
                std::task::Poll::Ready(Ok(0)) => ended = true,
                std::task::Poll::Ready(n) => heard.extend_from_slice(&buf[..n.unwrap()]),
                std::task::Poll::Pending => return std::task::Poll::Pending,
            }
        }
        if sent == bytes.len() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    heard
}

#[test]
fn every_way_to_the_server_meets_every_other() {
    run(2, |net| async move {
        let store = Memory::default();
        let pem = tls::Pem::self_signed(&store, &[]).unwrap();
        let config = FrontConfig {
            tls: tls::server_config(&net, ciphers(), &pem).unwrap(),
            admin_key: AdminKey::load_or_make(&net, &store).unwrap(),
            trusted_proxies: Vec::new(),
        };
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = net.listen(&TcpConfig { local: Some(any), ..TcpConfig::default() }).unwrap();
        let (events, _taken) = mpsc::channel(8);
        let world = World::without_port(&net, 0);
        let relay = Some(world.relay.clone());
        let front =
            serve(&net, listener, config, events, AdminClient::new().0, Arc::default(), relay).unwrap();
        let at = front.local_addr();
        let (there, back) = (vec![1; 2 << 20], vec![2; 3 << 20]);
        let ways = [Way::Raw, Way::Ws, Way::Wss];
        for (attempt, (one, two)) in
            ways.iter().flat_map(|one| ways.iter().map(move |two| (one, two))).enumerate()
        {
            let attempt = u8::try_from(attempt).unwrap();
            let (access_one, access_two) = (world.access(1, 2, attempt), world.access(2, 1, attempt));
            let side = |way, names, access, bytes| {
                let (net, world) = (&net, &world);
                async move {
                    let stream = dial(net, at, way).await;
                    let (stream, heard) = world.meet_over(stream, names, access, b"").await.unwrap();
                    exchange(stream, heard, bytes).await
                }
            };
            let both = join(side(*one, (1, 2), &access_one, &there), side(*two, (2, 1), &access_two, &back));
            let (came_back, came_there) = within(&net, "the transfers", both).await;
            assert!(came_there == there && came_back == back, "{one:?} with {two:?}");
        }
    })
    .unwrap();
}
