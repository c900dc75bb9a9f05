//! What a connection is, by its first byte, and how long it may take to say so.

use std::time::Duration;

use futures_util::{AsyncReadExt, AsyncWriteExt};

use super::*;

const HEALTH: &str = r#"{"status":"ok","version":"0.1.0","nodes":0}"#;

#[test]
fn health_is_the_same_bytes_over_plain_and_tls_from_anywhere() {
    with_server(|world| async move {
        for from in [LOOPBACK, ELSEWHERE] {
            let plain = request(world.plain(from), "GET /api/v1/health HTTP/1.1", "").await;
            let tls = request(world.tls(from).await, "GET /api/v1/health HTTP/1.1", "").await;
            for reply in [plain, tls] {
                assert_eq!((reply.status, reply.body.as_str()), (200, HEALTH));
                assert_eq!(reply.header("content-type"), Some("application/json"));
                assert_eq!(reply.header("content-length"), Some(&*HEALTH.len().to_string()));
            }
        }
        set_online(&world, 12);
        let reply = request(world.plain(ELSEWHERE), "GET /api/v1/health HTTP/1.1", "").await;
        assert_eq!(reply.body, r#"{"status":"ok","version":"0.1.0","nodes":12}"#);
    });
}

#[test]
fn garbage_closes() {
    with_server(|world| async move {
        for first in [0x00, 0x15, 0x17, b'a', b'@', b'[', b' ', 0x80, 0xD1, 0xff] {
            let mut stream = world.plain(ELSEWHERE);
            stream.write_all(&[first, 1, 2, 3]).await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"", "{first:#x}");
        }
        assert_eq!(world.net.elapsed(), Duration::ZERO);
    });
}

#[test]
fn silence_closes_after_5_s() {
    with_server(|world| async move {
        let mut rest = Vec::new();
        world.plain(ELSEWHERE).read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        assert_eq!(world.net.elapsed(), Duration::from_secs(5));
    });
}

#[test]
fn a_tls_handshake_that_stops_closes_after_5_s() {
    with_server(|world| async move {
        let mut stream = world.plain(ELSEWHERE);
        stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(world.net.elapsed(), Duration::from_secs(5));
    });
}

#[test]
fn a_slow_header_closes_after_5_s() {
    with_server(|world| async move {
        let mut stream = world.plain(ELSEWHERE);
        stream.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: server\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
        assert_eq!(world.net.elapsed(), Duration::from_secs(5));
    });
}

#[test]
fn an_idle_connection_closes_5_s_after_its_answer() {
    with_server(|world| async move {
        let mut stream = world.plain(ELSEWHERE);
        stream.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: server\r\n\r\n").await.unwrap();
        let reply = read_reply(stream).await;
        assert_eq!(reply.body, HEALTH);
        assert_eq!(world.net.elapsed(), Duration::from_secs(5));
    });
}

#[test]
fn a_connection_ends_in_order_after_a_minute() {
    with_server(|world| async move {
        let mut stream = world.plain(ELSEWHERE);
        let mut answers = 0;
        loop {
            stream.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: server\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(HEALTH.as_bytes()) {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                answer.push(byte[0]);
            }
            answers += 1;
            let next = world.net.now() + Duration::from_secs(4);
            let mut byte = [0];
            match crate::web::time::by(&world.net, next, stream.read(&mut byte)).await {
                Ok(read) => break assert_eq!(read.unwrap(), 0),
                Err(_) => continue,
            }
        }
        assert_eq!((answers, world.net.elapsed()), (15, Duration::from_secs(60)));
    });
}

#[test]
fn a_header_over_8_kib_is_refused() {
    with_server(|world| async move {
        for header in [format!("X: {}", "x".repeat(9000)), "X: 1\r\n".repeat(150).trim_end().to_owned()] {
            let head = format!("GET /api/v1/health HTTP/1.1\r\n{header}");
            assert_eq!(request(world.plain(ELSEWHERE), &head, "").await.status, 431);
        }
    });
}

#[test]
fn a_request_needs_one_host_that_makes_sense() {
    with_server(|world| async move {
        for (host, status) in
            [("", 400), ("Host: a\r\nHost: b\r\n", 400), ("Host: a b\r\n", 400), ("Host: a\r\n", 200)]
        {
            let mut stream = world.plain(ELSEWHERE);
            let head = format!("GET /api/v1/health HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(read_reply(stream).await.status, status, "{host:?}");
        }
    });
}

#[test]
fn dropping_the_front_ends_accepting() {
    with_server(|world| async move {
        let address = world.address();
        drop(world.front);
        // The accepting task has its turn before the refused connection is looked at.
        crate::web::time::sleep_until(&world.net, world.net.now() + Duration::from_millis(1)).await;
        let mut stream = world.net.dial(ELSEWHERE, address);
        let connected =
            std::future::poll_fn(|cx| crate::net::StreamIo::poll_connected(&mut stream, cx)).await;
        assert!(connected.is_err());
    });
}

#[test]
fn the_self_signed_certificate_is_kept() {
    let store = TestStore::default();
    let first = tls::Pem::self_signed(&store, &["server.example".to_owned()]).unwrap();
    let second = tls::Pem::self_signed(&store, &[]).unwrap();
    assert_eq!(first.certificates, second.certificates);
    let files = store.0.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(files, ["server.crt", "server.key"]);
}

#[test]
fn bad_pem_names_the_flag() {
    let net = TestNet::new();
    let good = tls::Pem::self_signed(&TestStore::default(), &[]).unwrap();
    let other = tls::Pem::self_signed(&TestStore::default(), &[]).unwrap();
    let message = |certificates: &[u8], key: &[u8]| {
        let pem = tls::Pem::given(certificates.to_vec(), key.to_vec());
        tls::server_config(&net, provider(), &pem).unwrap_err().to_string()
    };
    assert!(message(b"", &good.key).starts_with("-tls-cert holds no certificate"));
    assert!(message(&good.certificates, b"nonsense").starts_with("-tls-key holds no private key"));
    let mixed = message(&good.certificates, &other.key);
    assert!(mixed.starts_with("-tls-key is not the key of -tls-cert"), "{mixed}");
    let ca = tls::client_config(&net, provider(), Some(b"nonsense")).unwrap_err().to_string();
    assert!(ca.starts_with("-server-ca holds no certificate"), "{ca}");
}

#[test]
fn the_admin_key_is_made_once_and_checked() {
    let net = TestNet::new();
    let store = TestStore::default();
    assert!(AdminKey::load_or_make(&net, &store).unwrap().matches(KEY.as_bytes()));
    assert_eq!(store.0.lock().unwrap()["admin.key"], format!("{KEY}\n").as_bytes());
    assert!(AdminKey::load_or_make(&net, &store).unwrap().matches(KEY.as_bytes()));
    assert_eq!(format!("{:?}", AdminKey::load_or_make(&net, &store).unwrap()), "AdminKey(***)");
    store.0.lock().unwrap().insert("admin.key".to_owned(), b"short".to_vec());
    assert!(AdminKey::load_or_make(&net, &store).is_err());
}
