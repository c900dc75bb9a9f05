//! What goes away and comes back: the server, a node.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_core::status::Status;
use lab::target;
use lab::{DEADLINE, End, Lab, Node, echo, end_of};

/// The node is logged in again.
fn back(node: &Node, logins: u64) {
    let again = |status: &Status| (status.server.connected && status.server.relogins > logins).then_some(());
    node.wait_within(Duration::from_secs(15), "back within 15 s", again);
}

#[test]
fn a_server_restart_leaves_open_connections_usable() {
    let lab = Lab::new("server");
    let mut server = lab.server();
    let b = lab.node(&server, "b").online();
    let a = lab.node(&server, "a").forward("b", target::echo()).online();
    let mut open = a.connect();
    echo(&mut open, b"before").unwrap();
    // Streams may move once, when a better rung comes in second.
    let switches = a.wait_until("on the best rung", |status| {
        let peer = status.peers.first()?;
        (peer.rung == Some(Rung::UdpDirect)).then_some(peer.switches)
    });

    for round in 0..2 {
        let ports = server.ports();
        assert_eq!(server.program.terminate(), 0);
        for node in [&a, &b] {
            node.wait_until("without a server", |status| (!status.server.connected).then_some(()));
        }
        echo(&mut open, b"while it is away").unwrap();
        // A session that is up serves new connections too: signalling is not in their way.
        echo(&mut a.connect(), b"new while it is away").unwrap();
        server = lab.server_on(ports);
        back(&a, round);
        back(&b, round);
        echo(&mut open, b"after").unwrap();
        echo(&mut a.connect(), b"new after").unwrap();
    }
    drop(open);
    let now = a.peer().switches;
    assert_eq!(now, switches, "one link all the while");
}

#[test]
fn a_killed_server_is_survived_as_well() {
    let lab = Lab::new("kill9s");
    let mut server = lab.server();
    let _b = lab.node(&server, "b").online();
    let a = lab.node(&server, "a").forward("b", target::echo()).online();
    let mut open = a.connect();
    echo(&mut open, b"before").unwrap();
    let ports = server.ports();
    server.program.kill();
    echo(&mut open, b"while it is away").unwrap();
    let _server = lab.server_on(ports);
    back(&a, 0);
    echo(&mut open, b"after").unwrap();
}

#[test]
fn streams_of_a_killed_target_node_end_with_a_reset_when_it_returns() {
    let lab = Lab::new("target");
    let server = lab.server();
    let mut b = lab.node(&server, "b").online();
    let a = lab.node(&server, "a").forward("b", target::echo()).online();
    let mut open = a.connect();
    echo(&mut open, b"before").unwrap();
    b.program.kill();
    let _b = lab.node(&server, "b").online();
    assert_eq!(end_of(&mut open), End::Reset);
    works_again(&a);
}

#[test]
fn streams_of_a_killed_target_node_end_with_a_reset_when_it_stays_away() {
    let lab = Lab::new("away");
    let server = lab.server();
    let mut b = lab.node(&server, "b").online();
    let a = lab.node(&server, "a").forward("b", target::echo()).online();
    let mut open = a.connect();
    open.set_read_timeout(Some(Duration::from_secs(45))).unwrap();
    echo(&mut open, b"before").unwrap();
    b.program.kill();
    assert_eq!(end_of(&mut open), End::Reset);
    let _b = lab.node(&server, "b").online();
    works_again(&a);
}

#[test]
fn streams_of_a_killed_opening_node_reset_its_targets() {
    let lab = Lab::new("opener");
    let (listening, heard) = target::told_of_the_end();
    let server = lab.server();
    let _b = lab.node(&server, "b").online();
    let mut a = lab.node(&server, "a").forward("b", listening).online();
    let mut open = a.connect();
    echo(&mut open, b"x").unwrap();
    a.program.kill();
    let a = lab.node(&server, "a").forward("b", target::echo()).online();
    let end = heard.recv_timeout(DEADLINE * 2).unwrap();
    assert!(end.is_err(), "a clean end would pass for a whole answer: {end:?}");
    works_again(&a);
}

#[test]
fn a_node_that_stops_in_order_lets_its_connections_end() {
    let lab = Lab::new("drain");
    let server = lab.server();
    let _b = lab.node(&server, "b").online();
    let mut a = lab.node(&server, "a").forward("b", target::echo()).online();
    echo(&mut a.connect(), b"before").unwrap();
    assert_eq!(a.program.terminate(), 0);
    let nodes = || lab::body(&lab::http(server.ws(), "/api/v1/health")).contains("\"nodes\":1").then_some(());
    assert!(lab::poll(DEADLINE, nodes).is_some(), "the server learns of it at once");
}

#[test]
fn a_terminal_that_closes_ends_a_node_in_order_unless_it_was_started_to_outlive_it() {
    let lab = Lab::new("hangup");
    let server = lab.server();
    let mut a = lab.node(&server, "a").online();
    a.program.signal(rustix::process::Signal::HUP);
    // As the tests themselves were started.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    if u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 0 {
        assert_eq!(a.program.wait_for_exit(), 0);
        assert!(a.program.log().contains("node stopped"), "{}", a.program.log());
    } else {
        assert!(a.status().server.connected, "it goes on");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let lab = Lab::new("second");
    let server = lab.server();
    let _b = lab.node(&server, "b").online();
    let mut a = lab.node(&server, "a").forward("b", target::echo()).online();
    let mut open = a.connect();
    echo(&mut open, b"open").unwrap();
    a.program.signal(rustix::process::Signal::INT);
    a.program.wait_for_log("stopping");
    a.program.signal(rustix::process::Signal::INT);
    // The first may have been enough if the drain was quick.
    assert!([0, 1].contains(&a.program.wait_for_exit()));
}

/// A forward comes to life again without a restart of anything. The first tries may still be refused.
fn works_again(a: &Node) {
    let works = lab::poll(DEADLINE, || echo(&mut a.connect(), b"again").ok());
    assert!(works.is_some(), "{:#?}\n{}", a.status(), a.program.log());
}
