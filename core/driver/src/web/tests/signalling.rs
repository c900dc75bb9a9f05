//! The WebSocket endpoint of the server.

use std::time::Duration;

use bytes::Bytes;
use futures_util::AsyncReadExt;
use inp2p_core::ids::ConnId;

use super::*;
use crate::web::{Known, Outbox, SignalEvent, SignalServer, connect_signal};

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl World {
    fn signal_server(&self, tls: bool) -> SignalServer {
        let address = self.address();
        let tls = tls.then(|| tls::client_config(&self.net, provider(), None).unwrap());
        SignalServer { host: address.ip().to_string(), port: address.port(), tls, known: Known::default() }
    }

    async fn opened(&mut self) -> (ConnId, SocketAddr, Outbox) {
        match self.events.next().await.unwrap() {
            FrontEvent::Opened { conn, remote, outbox } => (conn, remote, outbox),
            other => panic!("{other:?}"),
        }
    }

    async fn received(&mut self) -> (ConnId, Bytes) {
        match self.events.next().await.unwrap() {
            FrontEvent::Received { conn, message } => (conn, message),
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self) -> ConnId {
        match self.events.next().await.unwrap() {
            FrontEvent::Closed { conn } => conn,
            other => panic!("{other:?}"),
        }
    }

    /// A connection that is upgraded by hand, for frames that no library would send.
    async fn raw(&self, headers: &str) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
        let mut stream = self.plain(ELSEWHERE);
        let head = format!("GET /ws HTTP/1.1\r\nHost: server\r\n{UPGRADE}{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            head.push(byte[0]);
        }
        let reply = parse_reply(&head);
        assert_eq!(reply.status, 101, "{reply:?}");
        // RFC 6455 section 1.3 has this very key and its answer.
        assert_eq!(reply.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(reply.header("sec-websocket-extensions"), None);
        stream
    }
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![first, 0x80 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A short frame of the server: its first byte and payload.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[1])];
    stream.read_exact(&mut payload).await.unwrap();
    (head[0], payload)
}

/// The code of the close frame that comes next, and that the end of the stream follows it.
async fn close_code(stream: &mut (impl AsyncRead + Unpin)) -> u16 {
    let (first, payload) = read_frame(stream).await;
    assert_eq!(first, 0x88);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    u16::from_be_bytes([payload[0], payload[1]])
}

#[test]
fn binary_messages_pass_both_ways_over_ws_and_wss() {
    with_server(|mut world| async move {
        for tls in [false, true] {
            let mut signal = connect_signal(&world.net, &world.signal_server(tls)).await.unwrap();
            assert_eq!(signal.remote, world.address());
            let (conn, remote, outbox) = world.opened().await;
            assert_eq!(remote, signal.local);
            outbox.raise_limit();
            for size in [0, 1, 125, 126, 4096, 65_536] {
                // The wake-up for the raised limit comes before the client's message.
                outbox.send(vec![7; size]).unwrap();
                assert_eq!(signal.events.next().await, Some(SignalEvent::Received(vec![7; size].into())));
                signal.outbox.send(vec![8; size]).unwrap();
                assert_eq!(world.received().await, (conn, vec![8; size].into()));
            }
            outbox.send(b"last".to_vec()).unwrap();
            outbox.close(4001, "replaced");
            assert_eq!(signal.events.next().await, Some(SignalEvent::Received(b"last".as_slice().into())));
            let why = "closed by the other side (4001 replaced)".to_owned();
            assert_eq!(signal.events.next().await, Some(SignalEvent::Closed(why)));
            assert_eq!(signal.events.next().await, None);
            assert_eq!(world.closed().await, conn);
        }
        assert_eq!(world.net.elapsed(), Duration::ZERO);
    });
}

#[test]
fn the_client_closes_in_order() {
    with_server(|mut world| async move {
        let signal = connect_signal(&world.net, &world.signal_server(true)).await.unwrap();
        let (conn, _, _outbox) = world.opened().await;
        signal.outbox.send(b"bye".to_vec()).unwrap();
        drop(signal.outbox);
        assert_eq!(world.received().await, (conn, b"bye".as_slice().into()));
        assert_eq!(world.closed().await, conn);
        assert_eq!(world.net.elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_client_that_vanishes_is_noticed() {
    with_server(|mut world| async move {
        let stream = world.raw("").await;
        let (conn, ..) = world.opened().await;
        drop(stream);
        assert_eq!(world.closed().await, conn);
    });
}

#[test]
fn an_outbox_that_is_dropped_closes() {
    with_server(|mut world| async move {
        let mut stream = world.raw("").await;
        let (.., outbox) = world.opened().await;
        drop(outbox);
        assert_eq!(close_code(&mut stream).await, 1001);
    });
}

#[test]
fn what_breaks_the_rules_is_closed_with_the_fitting_code() {
    let oversized = frame(0x82, &[0; 5000]);
    let mut in_parts = frame(0x02, &[0; 3000]);
    in_parts.extend(frame(0x80, &[0; 3000]));
    let cases: [(&str, Vec<u8>, u16); 8] = [
        ("text", frame(0x81, b"hello"), 1003),
        ("text that is no UTF-8", frame(0x81, &[0xff]), 1007),
        ("over 4 KiB before login", oversized, 1009),
        ("over 4 KiB in fragments", in_parts, 1009),
        ("not masked", vec![0x82, 0x01, 0x00], 1002),
        ("compressed", frame(0xc2, b"x"), 1002),
        ("unknown kind", frame(0x83, b"x"), 1002),
        ("continues nothing", frame(0x80, b"x"), 1002),
    ];
    with_server(|mut world| async move {
        for (what, bytes, code) in cases {
            let mut stream = world.raw("").await;
            let (conn, _, outbox) = world.opened().await;
            stream.write_all(&bytes).await.unwrap();
            assert_eq!(close_code(&mut stream).await, code, "{what}");
            drop(stream);
            assert_eq!(world.closed().await, conn);
            drop(outbox);
        }
    });
}

#[test]
fn over_64_kib_is_too_much_even_after_login() {
    with_server(|mut world| async move {
        let mut stream = world.raw("").await;
        let (.., outbox) = world.opened().await;
        outbox.raise_limit();
        outbox.send(b"go".to_vec()).unwrap();
        assert_eq!(read_frame(&mut stream).await, (0x82, b"go".to_vec()));
        let mut part = frame(0x02, &[0; 65_000]);
        part.extend(frame(0x80, &[0; 1000]));
        let _ = stream.write_all(&part).await;
        assert_eq!(close_code(&mut stream).await, 1009);
    });
}

#[test]
fn pings_are_answered() {
    with_server(|world| async move {
        let mut stream = world.raw("").await;
        stream.write_all(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
        assert_eq!(read_frame(&mut stream).await, (0x8a, b"hi".to_vec()));
    });
}

#[test]
fn frames_right_behind_the_upgrade_are_not_lost() {
    with_server(|mut world| async move {
        let mut stream = world.plain(ELSEWHERE);
        let mut bytes = format!("GET /ws HTTP/1.1\r\nHost: server\r\n{UPGRADE}\r\n").into_bytes();
        bytes.extend(frame(0x82, b"early"));
        stream.write_all(&bytes).await.unwrap();
        let (conn, _, _outbox) = world.opened().await;
        assert_eq!(world.received().await, (conn, b"early".as_slice().into()));
    });
}

#[test]
fn a_control_task_that_lags_stops_the_reading() {
    with_server(|mut world| async move {
        let mut stream = world.raw("").await;
        let (conn, _, _outbox) = world.opened().await;
        // Far more than the channel (8), the pipe (32 KiB) and the buffers hold.
        let writer = async {
            for number in 0..200_u8 {
                stream.write_all(&frame(0x82, &[number; 1000])).await.unwrap();
            }
            stream
        };
        let reader = async {
            for number in 0..200_u8 {
                assert_eq!(world.received().await, (conn, vec![number; 1000].into()));
            }
        };
        futures_util::future::join(writer, reader).await;
    });
}

#[test]
fn a_peer_that_takes_nothing_is_dropped_after_10_s() {
    with_server(|mut world| async move {
        let stream = world.raw("").await;
        let (conn, _, outbox) = world.opened().await;
        outbox.send(vec![0; 60_000]).unwrap();
        assert_eq!(world.closed().await, conn);
        assert_eq!(world.net.elapsed(), Duration::from_secs(10));
        drop(stream);
    });
}

#[test]
fn a_queue_that_runs_over_ends_the_connection_at_once() {
    with_server(|mut world| async move {
        let mut stream = world.raw("").await;
        let (conn, _, outbox) = world.opened().await;
        // Each byte that is read gives the connection's task a turn, in which it finds itself blocked.
        for _ in 0..3 {
            outbox.send(vec![0; 80_000]).unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            crate::web::time::yield_now().await;
        }
        outbox.send(vec![0; 120_000]).unwrap_err();
        assert_eq!(world.closed().await, conn);
        assert_eq!(world.net.elapsed(), Duration::ZERO);
        drop(stream);
    });
}

#[test]
fn a_peer_that_does_not_answer_a_close_is_dropped_after_5_s() {
    with_server(|mut world| async move {
        let mut stream = world.raw("").await;
        let (conn, _, outbox) = world.opened().await;
        outbox.close(1000, "");
        assert_eq!(close_code(&mut stream).await, 1000);
        assert_eq!(world.closed().await, conn);
        assert_eq!(world.net.elapsed(), Duration::from_secs(5));
    });
}

#[test]
fn web_pages_cannot_signal() {
    with_server(|world| async move {
        for origin in ["https://server:27183", "http://server:27183", "null", "https://evil.example"] {
            let head = format!("GET /ws HTTP/1.1\r\nOrigin: {origin}\r\n{}", UPGRADE.trim_end());
            let reply = request(world.plain(ELSEWHERE), &head, "").await;
            assert_eq!((reply.status, reply.error().as_str()), (403, "origin"), "{origin}");
        }
    });
}

#[test]
fn what_is_no_upgrade_is_told_so() {
    with_server(|world| async move {
        let plain = request(world.plain(ELSEWHERE), "GET /ws HTTP/1.1", "").await;
        assert_eq!((plain.status, plain.error().as_str()), (426, "upgrade-required"));
        assert_eq!(plain.header("sec-websocket-version"), Some("13"));
        let old = format!("GET /ws HTTP/1.1\r\n{}", UPGRADE.replace("13", "8").trim_end());
        assert_eq!(request(world.plain(ELSEWHERE), &old, "").await.status, 426);
        let no_key = format!("GET /ws HTTP/1.1\r\n{}", UPGRADE.replace("dGhl", "").trim_end());
        assert_eq!(request(world.plain(ELSEWHERE), &no_key, "").await.status, 400);
        let post = request(world.plain(ELSEWHERE), "POST /ws HTTP/1.1", "").await;
        assert_eq!((post.status, post.header("allow")), (405, Some("GET")));
    });
}

#[test]
fn a_proxy_tells_where_the_node_is() {
    let net = TestNet::new();
    let mut world = server(&net, &["198.51.100.0/24"]);
    net.run(async move {
        let _stream = world.raw("X-Forwarded-For: 127.0.0.1, 203.0.113.9\r\n").await;
        let (_, remote, _outbox) = world.opened().await;
        assert_eq!(remote, "203.0.113.9:0".parse().unwrap());
    });
}
