//! A network that lets only HTTP through: the server's relay inside a WebSocket.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use inp2p_core::path::Rung;
use inp2p_core::status::Status;
use lab::{Lab, echo, target};

/// What a filter does with a connection that does not begin with TLS or HTTP.
#[derive(Clone, Copy)]
enum Filter {
    /// It closes it.
    Closes,
    /// It answers like a web server.
    Answers,
}

/// A filter before `server`: lets TLS and HTTP pass. It lives as long as the test.
fn filtered(server: SocketAddr, filter: Filter) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut near) = stream else { return };
            thread::spawn(move || {
                let mut first = [0];
                if near.read_exact(&mut first).is_err() {
                    return;
                }
                if !matches!(first, [0x16 | b'A'..=b'Z']) {
                    if matches!(filter, Filter::Answers) {
                        let _ = near.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
                    }
                    return;
                }
                let mut far = TcpStream::connect(server).unwrap();
                far.write_all(&first).unwrap();
                let (mut near_read, mut far_read) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut far_read, &mut near);
                    let _ = near.shutdown(Shutdown::Both);
                });
                let _ = std::io::copy(&mut near_read, &mut far);
                let _ = far.shutdown(Shutdown::Both);
            });
        }
    });
    at
}

#[test]
fn where_only_http_passes_the_server_relays_inside_a_websocket() {
    for (filter, scheme) in [(Filter::Closes, &[][..]), (Filter::Answers, &["-insecure"])] {
        let lab = Lab::new("http-only");
        let server = lab.server();
        let filtered = filtered(server.ws(), filter);
        let arguments = [&["-rungs", "server-relay"], scheme].concat();
        let b = lab.node_at(&filtered, "b").with(&arguments).online();
        let a = lab.node_at(&filtered, "a").with(&arguments).forward("b", target::echo()).online();
        echo(&mut a.connect(), b"inside a WebSocket").unwrap();
        let on = |status: &Status| {
            let peer = status.peers.first()?;
            (peer.rung == Some(Rung::ServerRelay)).then(|| peer.via.clone())
        };
        assert_eq!(a.wait_until("the relay", on), Some("server".to_owned()));
        drop(b);
    }
}
