//! The node's control socket.

use std::path::Path;

use inp2p_core::status::{RelayStatus, Status};

use super::*;
use crate::web::{StatusClient, serve_local};

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        node: "nodeA".to_owned(),
        key: "07".repeat(32),
        runtime: "tokio".to_owned(),
        relay: RelayStatus { port: 27185, limit_mbps: 10, ..Default::default() },
        ..Default::default()
    }
}

#[test]
fn status_is_told_and_nothing_else() {
    let net = TestNet::new();
    let path = Path::new("inp2pc.sock");
    let listener = net.listen_local(path).unwrap();
    let (client, mut calls) = StatusClient::new();
    let local = serve_local(&net, listener, client);
    net.clone().run(async move {
        let control = net.clone();
        net.spawn("control", async move {
            while let Some(answer) = calls.next().await {
                answer.send(status()).unwrap();
            }
            drop(control);
        });
        let dial = || Compat::new(net.dial_local(path));
        let reply = request(dial(), "GET /status HTTP/1.1", "").await;
        assert_eq!(reply.status, 200);
        assert_eq!(serde_json::from_value::<Status>(reply.json()).unwrap(), status());
        let other = request(dial(), "GET /api/v1/health HTTP/1.1", "").await;
        assert_eq!((other.status, other.error().as_str()), (404, "not-found"));
        let post = request(dial(), "POST /status HTTP/1.1", "").await;
        assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
        drop(local);
    });
}

#[test]
fn a_client_that_is_gone_is_said() {
    let net = TestNet::new();
    let path = Path::new("inp2pc.sock");
    let listener = net.listen_local(path).unwrap();
    let (client, calls) = StatusClient::new();
    drop(calls);
    let local = serve_local(&net, listener, client);
    net.clone().run(async move {
        let reply = request(Compat::new(net.dial_local(path)), "GET /status HTTP/1.1", "").await;
        assert_eq!((reply.status, reply.error().as_str()), (503, "busy"));
        drop(local);
    });
}

#[test]
fn a_seventeenth_connection_is_closed() {
    let net = TestNet::new();
    let path = Path::new("inp2pc.sock");
    let listener = net.listen_local(path).unwrap();
    let local = serve_local(&net, listener, StatusClient::new().0);
    net.clone().run(async move {
        let held: Vec<_> = (0..16).map(|_| net.dial_local(path)).collect();
        let mut rest = Vec::new();
        let mut one_more = Compat::new(net.dial_local(path));
        one_more.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        assert_eq!(net.elapsed(), std::time::Duration::ZERO);
        drop(held);
        let again = Compat::new(net.dial_local(path));
        crate::web::time::sleep_until(&net, net.now()).await;
        assert_eq!(request(again, "GET /other HTTP/1.1", "").await.status, 404);
        drop(local);
    });
}
