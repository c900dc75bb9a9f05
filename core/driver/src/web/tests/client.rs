//! The node's way to the server, and what it says when there is none.

use std::time::Duration;

use futures_util::AsyncReadExt;

use super::*;
use crate::net::ListenIo;
use crate::web::{Known, SignalServer, connect_signal};

async fn failure(net: &TestNet, server: &SignalServer) -> String {
    let message = connect_signal(net, server).await.unwrap_err().to_string();
    assert!(!message.contains(char::is_control), "{message:?}");
    message
}

fn to(host: &str, tls: Option<Arc<rustls::ClientConfig>>) -> SignalServer {
    SignalServer { host: host.to_owned(), port: 27183, tls, known: Known::default() }
}

/// A listener that takes one connection, sends `answer` once it has read something, and closes.
fn one_answer(net: &TestNet, answer: &'static [u8]) {
    let mut listener = net.listen(&TcpConfig::default()).unwrap();
    net.spawn("other service", async move {
        let (stream, _) = std::future::poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        let mut stream = Compat::new(stream);
        let _ = stream.read(&mut [0; 64]).await;
        let _ = stream.write_all(answer).await;
    });
}

#[test]
fn the_next_address_is_tried_when_one_refuses_and_after_250_ms() {
    let net = TestNet::new();
    net.name(
        "server.example",
        &["[2001:db8::1]:27183", "192.0.2.1:27183", "192.0.2.2:27183", "127.0.0.1:27183"],
    );
    net.silence("[2001:db8::1]:27183");
    net.silence("192.0.2.2:27183");
    let mut world = server(&net, &[]);
    net.clone().run(async move {
        let signal = connect_signal(&net, &to("server.example", None)).await.unwrap();
        assert_eq!(signal.remote, world.address());
        assert!(matches!(world.events.next().await, Some(FrontEvent::Opened { .. })));
        // The silent ones had 250 ms each, the refusing one nothing.
        assert_eq!(net.elapsed(), Duration::from_millis(500));
    });
}

#[test]
fn families_take_turns() {
    let net = TestNet::new();
    let addresses: Vec<String> = (1..=3).map(|n| format!("[2001:db8::{n}]:27183")).collect();
    let mut addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    addresses.push("127.0.0.1:27183");
    net.name("server.example", &addresses);
    addresses.iter().take(3).for_each(|address| net.silence(address));
    let _world = server(&net, &[]);
    net.clone().run(async move {
        connect_signal(&net, &to("server.example", None)).await.unwrap();
        assert_eq!(net.elapsed(), Duration::from_millis(250));
    });
}

/// As after an outage, during which the resolver was asked in vain.
#[test]
fn a_server_whose_name_is_not_found_is_reached_where_it_was_before() {
    let net = TestNet::new();
    net.name("server.example", &["127.0.0.1:27183"]);
    let _world = server(&net, &[]);
    net.clone().run(async move {
        let server = to("server.example", None);
        connect_signal(&net, &server).await.unwrap();
        assert_eq!(net.elapsed(), Duration::ZERO);
        net.name("server.example", &[]);
        connect_signal(&net, &server).await.unwrap();
        assert_eq!(net.elapsed(), Duration::from_millis(500));
        // What the name says counts, where it says something.
        net.name("server.example", &["192.0.2.1:27183"]);
        assert!(failure(&net, &server).await.contains("192.0.2.1:27183: connection refused"));
        assert!(failure(&net, &to("elsewhere.example", None)).await.contains("cannot find the server"));
    });
}

#[test]
fn each_failure_is_one_line_for_people() {
    let net = TestNet::new();
    net.name("two.example", &["192.0.2.1:27183", "192.0.2.2:27183"]);
    net.name("silent.example", &["192.0.2.3:27183", "192.0.2.1:27183"]);
    net.silence("192.0.2.3:27183");
    net.clone().run(async move {
        assert_eq!(
            failure(&net, &to("nowhere.example", None)).await,
            "cannot find the server \"nowhere.example\": no such host"
        );
        assert_eq!(
            failure(&net, &to("two.example", None)).await,
            "cannot connect to the server: 192.0.2.1:27183: connection refused: nothing listens there; \
             192.0.2.2:27183: connection refused: nothing listens there"
        );
        let before = net.elapsed();
        assert_eq!(
            failure(&net, &to("silent.example", None)).await,
            "cannot connect to the server: 192.0.2.1:27183: connection refused: nothing listens there; \
             silent.example:27183: no answer within 10 s"
        );
        assert_eq!(net.elapsed() - before, Duration::from_secs(10));
    });
}

#[test]
fn another_service_on_the_port_is_told_apart() {
    let cases: [(&[u8], bool, &str); 6] = [
        (
            b"HTTP/1.1 404 Not Found\r\n\r\n",
            false,
            "refused signalling: it answered HTTP 404 (is that an INP2P server?)",
        ),
        (b"", false, "refused signalling: the connection was closed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", false, "refused signalling: "),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", false, "refused signalling: "),
        (b"SSH-2.0-OpenSSH_9.2\r\n", true, "the other side does not speak TLS (is that the right port?)"),
        (b"", true, "failed: the connection was closed"),
    ];
    for (answer, tls, expected) in cases {
        let net = TestNet::new();
        one_answer(&net, answer);
        let tls = tls.then(|| tls::client_config(&net, provider(), None).unwrap());
        net.clone().run(async move {
            let message = failure(&net, &to("127.0.0.1", tls)).await;
            assert!(message.contains(expected), "{message}");
        });
    }
}

#[test]
fn a_server_that_stops_answering_is_given_up_after_10_s() {
    for tls in [false, true] {
        let net = TestNet::new();
        let listener = net.listen(&TcpConfig::default()).unwrap();
        let tls = tls.then(|| tls::client_config(&net, provider(), None).unwrap());
        net.clone().run(async move {
            assert!(failure(&net, &to("127.0.0.1", tls)).await.ends_with("no answer within 10 s"));
            assert_eq!(net.elapsed(), Duration::from_secs(10));
            drop(listener);
        });
    }
}

#[test]
fn a_given_authority_is_checked_in_full() {
    let net = TestNet::new();
    let store = TestStore::default();
    let pem = tls::Pem::self_signed(&store, &[]).unwrap();
    let other = tls::Pem::self_signed(&TestStore::default(), &[]).unwrap();
    net.name("server.example", &["127.0.0.1:27183"]);
    net.name("localhost", &["127.0.0.1:27183"]);
    let config = FrontConfig {
        tls: tls::server_config(&net, provider(), &pem).unwrap(),
        admin_key: AdminKey::load_or_make(&net, &store).unwrap(),
        trusted_proxies: Vec::new(),
    };
    let listener = net.listen(&TcpConfig::default()).unwrap();
    let (events, _opened) = mpsc::channel(8);
    let _front = serve(&net, listener, config, events, AdminClient::new().0, Arc::default(), None).unwrap();
    net.clone().run(async move {
        let _opened = _opened;
        let ours = tls::client_config(&net, provider(), Some(&pem.certificates)).unwrap();
        let theirs = tls::client_config(&net, provider(), Some(&other.certificates)).unwrap();
        connect_signal(&net, &to("localhost", Some(ours.clone()))).await.unwrap();
        connect_signal(&net, &to("127.0.0.1", Some(ours.clone()))).await.unwrap();
        let wrong_name = failure(&net, &to("server.example", Some(ours))).await;
        assert!(wrong_name.contains("its certificate is for another name than -serverhost"), "{wrong_name}");
        let wrong_ca = failure(&net, &to("localhost", Some(theirs))).await;
        assert!(wrong_ca.contains("TLS with the server 127.0.0.1:27183 failed: "), "{wrong_ca}");
    });
}
