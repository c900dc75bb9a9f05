//! Nodes that relay, as real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use inp2p_core::status::Status;
use lab::{DEADLINE, Lab, Node, Server};

fn reachable(relay: &Node) {
    relay.wait_until("reachable", |status: &Status| status.relay.reachable.then_some(()));
}

/// The relays that the server knows, as it shows them.
fn listed(server: &Server, lab: &Lab) -> String {
    server.rest(lab, "GET", "/relays", "").1
}

#[test]
fn a_relay_is_looked_at_from_outside_and_says_what_came_of_it() {
    let lab = Lab::new("relay");
    let server = lab.server();
    let mut r = lab.node(&server, "r").with(&["-relay", "-relay-port", "0", "-bw", "7"]).online();
    reachable(&r);
    let relay = r.status().relay;
    assert!(relay.port >= 1024 && relay.enabled && !relay.super_relay && relay.reason.is_none());
    assert_eq!((relay.limit_mbps, relay.sessions, relay.bytes), (7, 0, 0));
    let shown = listed(&server, &lab);
    assert!(shown.contains(&format!("127.0.0.1:{}", relay.port)), "{shown}");
    assert!(shown.contains("\"reachable\":true") && shown.contains("\"super\":false"), "{shown}");

    let s = lab.node(&server, "s").with(&["-super", "-relay-port", "0"]).online();
    reachable(&s);
    assert!(s.status().relay.super_relay);
    assert!(listed(&server, &lab).contains("\"super\":true"));
    let (_, metrics) = server.rest(&lab, "GET", "/metrics", "");
    assert!(metrics.contains("inp2p_relays{kind=\"private\",reachable=\"true\"} 1"), "{metrics}");
    assert!(metrics.contains("inp2p_relays{kind=\"super\",reachable=\"true\"} 1"), "{metrics}");

    // What is gone is not listed.
    assert_eq!(r.program.terminate(), 0);
    let gone = lab::poll(DEADLINE, || (!listed(&server, &lab).contains("\"node\":\"r\"")).then_some(()));
    assert!(gone.is_some(), "{}", listed(&server, &lab));
    // A port that is taken ends the program with the flag's name.
    let taken = s.status().relay.port.to_string();
    let (code, log) = lab.node(&server, "t").with(&["-relay", "-relay-port", &taken]).refused();
    assert!(code == 1 && log.contains("-relay-port"), "{log}");
}
