//! Nodes that relay, as real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::net::UdpSocket;
use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_core::status::Status;
use lab::{DEADLINE, Lab, Node, Server, echo, target};

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

/// Whether a Binding request (RFC 8489) to this UDP port of loopback is answered, and rightly so.
fn answers_stun(port: u16) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let own = socket.local_addr().unwrap().port();
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    let mut answer = [0; 128];
    for _ in 0..4 {
        socket.send_to(&request, ("127.0.0.1", port)).unwrap();
        if let Ok((length, from)) = socket.recv_from(&mut answer) {
            let [high, low] = (own ^ 0x2112).to_be_bytes();
            let address = [127 ^ 0x21, 0x12, 0xa4, 1 ^ 0x42];
            let expected = [
                &[1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42][..],
                &[7; 12],
                &[0, 0x20, 0, 8, 0, 1, high, low],
                &address,
            ];
            assert_eq!((&answer[..length], from.port()), (&expected.concat()[..], port));
            return true;
        }
    }
    false
}

#[test]
fn a_relay_answers_stun_and_other_nodes_do_not() {
    let lab = Lab::new("relaystun");
    let server = lab.server();
    let port_of = |node: &Node| {
        let seen = |status: &Status| status.nat.udp.public.map(|public| public.port());
        node.wait_until("measured", seen)
    };
    let r = lab.node(&server, "r").with(&["-relay", "-relay-port", "0"]).online();
    let port = port_of(&r);
    assert_eq!((r.status().port.udp, r.status().port.dropped), (port, 0));
    // The server has asked it from outside.
    let named = format!("\"stun\":[\"127.0.0.1:{port}\"]");
    let shown = lab::poll(DEADLINE, || listed(&server, &lab).contains(&named).then_some(()));
    assert!(shown.is_some(), "no {named} in {}", listed(&server, &lab));
    assert!(answers_stun(port));

    let a = lab.node(&server, "a").online();
    assert!(!answers_stun(port_of(&a)));
}

/// What carries the only peer's link now, once it is this rung.
fn on(node: &Node, rung: Rung) -> String {
    let found = |status: &Status| {
        let peer = status.peers.first().filter(|peer| peer.rung == Some(rung))?;
        Some(peer.via.clone().unwrap_or_default())
    };
    node.wait_within(Duration::from_secs(60), &format!("on {rung}"), found)
}

const RELAYS: &[&str] = &["-rungs", "private-relay,super-relay,server-relay"];

/// The fifth grievance with the original: relays were not used in their order, and not one after the other.
#[test]
fn private_before_super_before_server_and_the_next_when_one_dies() {
    let lab = Lab::new("tiers");
    let [default, other] = ["default", "other"].map(|user| format!("{user}={}", lab::TOKEN));
    let server = lab.server_of(&["-token", &default, "-token", &other]);
    let mut private = lab.node(&server, "r").with(&["-relay", "-relay-port", "0"]).online();
    let of_other = ["-user", "other", "-super", "-relay-port", "0"];
    let mut of_all = lab.node(&server, "s").with(&of_other).online();
    reachable(&private);
    reachable(&of_all);
    let b = lab.node(&server, "b").with(RELAYS).online();
    let a = lab.node(&server, "a").with(RELAYS).forward("b", target::echo()).online();
    assert_eq!(on(&a, Rung::PrivateRelay), "r");
    assert_eq!(on(&b, Rung::PrivateRelay), "r");
    let mut open = a.connect();
    echo(&mut open, b"through the private one").unwrap();
    private.wait_until("carrying", |status| (status.relay.sessions == 1).then_some(()));

    private.program.kill();
    echo(&mut open, b"through the one of all users").unwrap();
    assert_eq!(on(&a, Rung::SuperRelay), "s@other");
    of_all.program.kill();
    echo(&mut open, b"through the server").unwrap();
    assert_eq!(on(&a, Rung::ServerRelay), "server");

    // And back, once the better one is there again.
    let private = lab.node(&server, "r").with(&["-relay", "-relay-port", "0"]).online();
    reachable(&private);
    assert_eq!(on(&a, Rung::PrivateRelay), "r");
    echo(&mut open, b"and back").unwrap();
}

#[test]
fn a_relay_of_all_users_carries_what_is_shared_across_them() {
    let lab = Lab::new("across");
    let users = ["alice", "bob", "carol"].map(|user| format!("{user}={}", lab::TOKEN));
    let server = lab.server_of(&[
        "-server-relay=false",
        "-token",
        &users[0],
        "-token",
        &users[1],
        "-token",
        &users[2],
    ]);
    let of = |user: &'static str, more: &[&'static str]| [&["-user", user], more].concat();
    // Private relays of either side are none for a pair of two users.
    let _private = lab.node(&server, "r").with(&of("alice", &["-relay", "-relay-port", "0"])).online();
    let of_all = lab.node(&server, "s").with(&of("carol", &["-super", "-relay-port", "0"])).online();
    reachable(&of_all);
    let echoing = target::echo();
    let _b = lab.node(&server, "b").with(&of("bob", RELAYS)).online();
    let a = lab.node(&server, "a").with(&of("alice", RELAYS)).forward("b@bob", echoing).online();
    assert_eq!(server.rest(&lab, "PUT", "/shares/bob/b/alice", &format!("[\"{echoing}\"]")).0, 200);
    assert_eq!(on(&a, Rung::SuperRelay), "s@carol");
    let mut open = a.connect();
    echo(&mut open, b"by ticket").unwrap();
    of_all.wait_until("counted", |status| (status.relay.bytes > 0).then_some(()));
    assert_eq!(server.rest(&lab, "DELETE", "/shares/bob/b/alice", "").0, 200);
    assert_eq!(lab::end_of(&mut open), lab::End::Reset);
}
