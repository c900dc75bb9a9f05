//! REST: who may call, what each route answers, and that the description is true.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::AsyncWriteExt;
use serde_json::{Value, json};

use super::*;
use crate::web::openapi;
use crate::web::routes::ROUTES;

const FORWARD: &str = "PUT /api/v1/nodes/default/nodeA/forwards/web";

#[test]
fn without_the_key_nothing_but_health_is_told() {
    with_server(|mut world| async move {
        world.answer_admin();
        let wrong_key = KEY.replace("01", "02");
        for header in [
            String::new(),
            "\r\nAuthorization: Bearer".to_owned(),
            "\r\nAuthorization: Bearer ".to_owned(),
            format!("\r\nAuthorization: Bearer {wrong_key}"),
            format!("\r\nAuthorization: Bearer {}", &KEY[..63]),
            format!("\r\nAuthorization: Bearer {KEY}0"),
            format!("\r\nAuthorization: Basic {KEY}"),
            format!("\r\nAuthorization: {KEY}"),
            format!("\r\nAuthorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}"),
        ] {
            for line in
                ["GET /api/v1/nodes", "GET /api/v1/no-such-thing", "POST /api/v1/nodes", "GET /api/v1/%zz"]
            {
                let reply =
                    request(world.tls(ELSEWHERE).await, &format!("{line} HTTP/1.1{header}"), "").await;
                assert_eq!((reply.status, reply.error().as_str()), (401, "unauthorized"), "{line} {header}");
                assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"));
            }
        }
    });
}

#[test]
fn the_key_opens_over_tls_and_from_loopback_only() {
    with_server(|mut world| async move {
        world.answer_admin();
        let head = with_key("GET /api/v1/nodes");
        assert_eq!(request(world.tls(ELSEWHERE).await, &head, "").await.status, 200);
        assert_eq!(request(world.plain(LOOPBACK), &head, "").await.status, 200);
        assert_eq!(request(world.plain("[::1]:5"), &head, "").await.status, 200);
        assert_eq!(request(world.plain("[::ffff:127.0.0.1]:5"), &head, "").await.status, 200);
        for from in [ELSEWHERE, "10.0.0.1:5", "[::ffff:198.51.100.7]:5"] {
            let reply = request(world.plain(from), &head, "").await;
            assert_eq!((reply.status, reply.error().as_str()), (403, "tls-required"), "{from}");
        }
        for forwarded in ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1"] {
            let head = format!("{head}\r\n{forwarded}");
            for from in [LOOPBACK, ELSEWHERE, "10.0.0.1:5"] {
                let reply = request(world.plain(from), &head, "").await;
                assert_eq!(
                    (reply.status, reply.error().as_str()),
                    (403, "tls-required"),
                    "{from} {forwarded}"
                );
            }
        }
    });
}

#[test]
fn web_pages_of_other_sites_are_refused() {
    with_server(|mut world| async move {
        world.answer_admin();
        let head = with_key("GET /api/v1/nodes");
        for origin in ["https://evil.example", "null", "http://server:27183", "https://server"] {
            let head = format!("{head}\r\nOrigin: {origin}");
            let reply = request(world.tls(ELSEWHERE).await, &head, "").await;
            assert_eq!((reply.status, reply.error().as_str()), (403, "origin"), "{origin}");
        }
        let head = format!("{head}\r\nOrigin: https://server:27183");
        assert_eq!(request(world.tls(ELSEWHERE).await, &head, "").await.status, 200);
    });
}

async fn ok(world: &World, line: &str, body: &str) -> Value {
    let content = if body.is_empty() { "" } else { "\r\nContent-Type: application/json" };
    let reply = request(world.plain(LOOPBACK), &(with_key(line) + content), body).await;
    assert_eq!(reply.status, 200, "{line}: {reply:?}");
    reply.json()
}

async fn refused(world: &World, line: &str, body: &str) -> (u16, String) {
    let content = if body.is_empty() { "" } else { "\r\nContent-Type: application/json" };
    let reply = request(world.plain(LOOPBACK), &(with_key(line) + content), body).await;
    (reply.status, reply.error())
}

#[test]
fn every_route_answers_as_its_call_does() {
    with_server(|mut world| async move {
        world.answer_admin();
        let node_a = json!({
            "user": "default", "node": "nodeA", "key": "07".repeat(32), "online": true, "remote": ELSEWHERE,
            "since": 1_780_000_000, "software": "0.1.0", "platform": "linux x86_64",
        });
        let node_b = json!({
            "user": "default", "node": "nodeB", "key": "07".repeat(32), "online": false, "remote": null,
            "since": null, "software": null, "platform": null,
        });
        assert_eq!(ok(&world, "GET /api/v1/nodes", "").await, json!({ "nodes": [node_a, node_b] }));
        assert_eq!(ok(&world, "GET /api/v1/nodes/default/nodeB", "").await, node_b);
        assert_eq!(ok(&world, "DELETE /api/v1/nodes/default/nodeB/key", "").await, json!({}));
        assert_eq!(ok(&world, "DELETE /api/v1/nodes/default/nodeA/forwards/web", "").await, json!({}));
        let relay = json!({
            "user": "default", "node": "nodeA", "key": "07".repeat(32), "super": true,
            "address": "198.51.100.7:27185", "reachable": true, "reason": null, "rtt_ms": 12,
            "limit_mbps": 10, "sessions": 1, "mbps": 2, "bytes": 3, "stun": ["198.51.100.7:4000"],
        });
        assert_eq!(ok(&world, "GET /api/v1/relays", "").await, json!({ "relays": [relay] }));
        let shared =
            json!({ "user": "default", "node": "nodeA", "to": "other", "targets": ["127.0.0.1:22"] });
        assert_eq!(ok(&world, "GET /api/v1/shares", "").await, json!({ "shares": [shared] }));
        let share = "PUT /api/v1/shares/default/nodeA/other";
        assert_eq!(ok(&world, share, r#"["127.0.0.1:22","10.0.0.0/8:80,443"]"#).await, json!({}));
        assert_eq!(ok(&world, "DELETE /api/v1/shares/default/nodeA/other", "").await, json!({}));
        assert_eq!(ok(&world, "GET /api/v1/openapi.json", "").await, openapi::document());

        let unknown = (404, "unknown-node".to_owned());
        assert_eq!(refused(&world, "GET /api/v1/nodes/default/nodeC", "").await, unknown);
        assert_eq!(refused(&world, "GET /api/v1/nodes/other/nodeA", "").await, unknown);
        assert_eq!(refused(&world, "DELETE /api/v1/nodes/default/nodeC/key", "").await, unknown);
        let nobody = (404, "unknown-user".to_owned());
        assert_eq!(refused(&world, "PUT /api/v1/shares/default/nodeA/nobody", "[]").await, nobody);
        for bad in ["{}", "[7]", r#"["127.0.0.1"]"#, r#"["127.0.0.1:99999"]"#] {
            assert_eq!(refused(&world, share, bad).await, (400, "bad-request".to_owned()), "{bad}");
        }
        let metrics = request(world.plain(LOOPBACK), &with_key("GET /api/v1/metrics"), "").await;
        assert_eq!((metrics.status, metrics.body.as_str()), (200, "inp2p_nodes_online 1\n"));
        assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    });
}

#[test]
fn a_forward_is_pushed_in_parts_or_as_a_rule() {
    with_server(|mut world| async move {
        world.answer_admin();
        let parts = r#"{"listen":"127.0.0.1:2222","node":"nodeB","target":"127.0.0.1:22"}"#;
        let listening = json!({ "listen": "web = 127.0.0.1:2222:nodeB:127.0.0.1:22" });
        assert_eq!(ok(&world, FORWARD, parts).await, listening);
        let whole = r#"{"name":"web","listen":"127.0.0.1:2222","node":"nodeB","target":"127.0.0.1:22","protocol":"tcp","enabled":true}"#;
        assert_eq!(ok(&world, FORWARD, whole).await, listening);
        let rule = r#"{"rule":"2222:nodeB:22"}"#;
        assert_eq!(ok(&world, FORWARD, rule).await, json!({ "listen": "web = 2222:nodeB:22" }));
        let encoded = "PUT /api/v1/nodes/default/nodeA/forwards/2222%3AnodeB%3A22%2Ftcp";
        assert_eq!(ok(&world, encoded, rule).await, json!({ "listen": "2222:nodeB:22/tcp = 2222:nodeB:22" }));
    });
}

#[test]
fn a_forward_that_makes_no_sense_is_refused() {
    with_server(|mut world| async move {
        world.answer_admin();
        let bad = (400, "bad-request".to_owned());
        for body in [
            "{",
            "[]",
            "{}",
            r#"{"rule":""}"#,
            r#"{"rule":"2222:nodeB:22","target":"127.0.0.1:22"}"#,
            r#"{"listen":"127.0.0.1:2222","node":"nodeB"}"#,
            r#"{"listen":"127.0.0.1:2222","node":"no de","target":"127.0.0.1:22"}"#,
            r#"{"rule":"2222:nodeB:22","name":"other"}"#,
            r#"{"rule":"2222:nodeB:22","protocol":"udp"}"#,
            r#"{"rule":"2222:nodeB:22","enabled":false}"#,
            r#"{"rule":"2222:nodeB:22","what":1}"#,
            r#"{"rule":"2222:nodeB:22\n3333:nodeB:33"}"#,
            r#"{"rule":2222}"#,
        ] {
            assert_eq!(refused(&world, FORWARD, body).await, bad, "{body}");
        }
        let long = format!(r#"{{"rule":"{}"}}"#, "x".repeat(600));
        assert_eq!(refused(&world, FORWARD, &long).await, bad);
        for content in ["", "\r\nContent-Type: text/plain", "\r\nContent-Type: application/json5"] {
            let head = with_key(FORWARD) + content;
            let reply = request(world.plain(LOOPBACK), &head, r#"{"rule":"2222:nodeB:22"}"#).await;
            assert_eq!((reply.status, reply.error().as_str()), (415, "unsupported-media-type"), "{content}");
        }
    });
}

#[test]
fn names_are_decoded_and_checked() {
    with_server(|mut world| async move {
        world.answer_admin();
        assert_eq!(ok(&world, "GET /api/v1/nodes/d%65fault/node%41", "").await["node"], "nodeA");
        let bad = (400, "bad-request".to_owned());
        for path in [
            "default/no%20de",
            "default/a%2Fb",
            "default/%00",
            "/nodeA",
            "default/%C3%A9",
            "default/%",
            "a/%ff",
        ] {
            assert_eq!(refused(&world, &format!("GET /api/v1/nodes/{path}"), "").await, bad, "{path}");
        }
        for name in ["%0A", "a%1Bb", &"x".repeat(300)] {
            let line = format!("DELETE /api/v1/nodes/default/nodeA/forwards/{name}");
            assert_eq!(refused(&world, &line, "").await, bad, "{name}");
        }
    });
}

#[test]
fn a_wrong_method_or_path_is_said() {
    with_server(|world| async move {
        let reply = request(world.plain(LOOPBACK), &with_key("POST /api/v1/nodes"), "").await;
        assert_eq!((reply.status, reply.error().as_str()), (405, "method-not-allowed"));
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
        for path in [
            "/api/v1/nodez",
            "/api/v1",
            "/api/v1/",
            "/api/v12/nodes",
            "/api/v2/nodes",
            "/",
            "/wss",
            "/favicon.ico",
        ] {
            assert_eq!(
                refused(&world, &format!("GET {path}"), "").await,
                (404, "not-found".to_owned()),
                "{path}"
            );
        }
        let head = request(world.plain(ELSEWHERE), "HEAD /api/v1/health HTTP/1.1", "").await;
        assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", Some("43")));
    });
}

#[test]
fn a_body_over_64_kib_is_refused() {
    with_server(|mut world| async move {
        world.answer_admin();
        let long = format!(r#"{{"rule":"{}"}}"#, "x".repeat(70_000));
        assert_eq!(refused(&world, FORWARD, &long).await, (413, "too-large".to_owned()));
        // In chunks its length is not known before.
        let mut stream = world.plain(LOOPBACK);
        let mut text =
            with_key(FORWARD) + "\r\nContent-Type: application/json\r\nHost: server\r\nConnection: close\r\n";
        text += &format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
        let _ = stream.write_all(text.as_bytes()).await;
        assert_eq!(read_reply(stream).await.status, 413);
    });
}

#[test]
fn a_slow_body_is_given_up_after_10_s() {
    with_server(|world| async move {
        let mut stream = world.plain(LOOPBACK);
        let text = with_key(FORWARD)
            + "\r\nContent-Type: application/json\r\nHost: server\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{";
        stream.write_all(text.as_bytes()).await.unwrap();
        let reply = read_reply(stream).await;
        assert_eq!((reply.status, reply.error().as_str()), (408, "timeout"));
        assert_eq!(world.net.elapsed(), Duration::from_secs(10));
    });
}

#[test]
fn a_control_task_that_is_gone_or_silent_is_said() {
    with_server(|mut world| async move {
        assert_eq!(refused(&world, "GET /api/v1/nodes", "").await, (504, "timeout".to_owned()));
        world.admin.close();
        while world.admin.next().await.is_some() {}
        assert_eq!(refused(&world, "GET /api/v1/nodes", "").await, (503, "stopping".to_owned()));
    });
}

#[test]
fn the_description_has_the_routes_and_no_others() {
    let document = openapi::document();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.to_ascii_uppercase(), path.clone()))
        })
        .collect();
    let served: BTreeSet<_> =
        ROUTES.iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    assert_eq!(described, served);
    let ids: BTreeSet<_> = ROUTES.iter().map(|route| route.id).collect();
    assert_eq!(ids.len(), ROUTES.len(), "operation ids are unique");
}

#[test]
fn the_description_is_true_of_nodes_and_of_every_reference() {
    let document = openapi::document();
    let schemas = &document["components"]["schemas"];
    let described: BTreeSet<_> = schemas["Node"]["properties"].as_object().unwrap().keys().cloned().collect();
    let view = serde_json::to_value(view("nodeA", true)).unwrap();
    assert_eq!(described, view.as_object().unwrap().keys().cloned().collect());
    let described: BTreeSet<_> =
        schemas["Relay"]["properties"].as_object().unwrap().keys().cloned().collect();
    let relay = serde_json::to_value(relay()).unwrap();
    assert_eq!(described, relay.as_object().unwrap().keys().cloned().collect());
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name}");
    }
}

#[test]
fn every_answer_is_described() {
    with_server(|mut world| async move {
        world.answer_admin();
        let document = openapi::document();
        for route in ROUTES {
            let described =
                &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()]["responses"];
            for (user, node) in [("default", "nodeA"), ("default", "nobody"), ("no%20name", "nodeA")] {
                let path = route
                    .path
                    .replace("{user}", user)
                    .replace("{node}", node)
                    .replace("{name}", "web")
                    .replace("{to-user}", "other");
                let line = format!("{} /api/v1{path}", route.method);
                let json = "\r\nContent-Type: application/json";
                let body = if route.body.is_some() { r#"{"rule":"2222:nodeB:22"}"# } else { "" };
                let no_key = format!("{line} HTTP/1.1");
                let replies = [
                    request(world.plain(LOOPBACK), &(with_key(&line) + json), body).await,
                    request(world.plain(LOOPBACK), &no_key, body).await,
                    request(world.plain(ELSEWHERE), &no_key, body).await,
                ];
                for reply in replies {
                    let status = reply.status.to_string();
                    assert!(described.get(&status).is_some(), "{line} answers {status}");
                }
            }
        }
    });
}
