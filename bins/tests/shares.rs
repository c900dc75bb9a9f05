//! Nodes of two users, one of them shared, as real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::net::SocketAddr;
use std::time::Duration;

use lab::target;
use lab::{End, Lab, Node, Server, TOKEN, echo, end_of};

/// A server with the users alice and bob, bob's node `b`, and alice's node `a` with a forward to it.
fn world(lab: &Lab, target: SocketAddr) -> (Server, Node, Node) {
    let [alice, bob] = ["alice", "bob"].map(|user| format!("{user}={TOKEN}"));
    let server = lab.server_of(&["-token", &alice, "-token", &bob]);
    let b = lab.node(&server, "b").with(&["-user", "bob"]).online();
    let a = lab.node(&server, "a").with(&["-user", "alice"]).forward("b@bob", target).online();
    (server, a, b)
}

const SHARE: &str = "/shares/bob/b/alice";

fn shared(a: &Node) {
    let linked = |status: &inp2p_core::status::Status| status.peers.first()?.rung.map(|_| ());
    a.wait_until("linked", linked);
}

#[test]
fn a_shared_node_is_reached_for_its_targets_alone_and_revoking_ends_its_streams() {
    let lab = Lab::new("share");
    let (echoing, other) = (target::echo(), target::echo());
    let (server, a, b) = world(&lab, echoing);
    // Not shared: not there, whatever it is asked for.
    let mut refused = a.connect();
    assert_eq!(end_of(&mut refused), End::Reset);
    assert!(b.status().peers.is_empty());

    let (status, body) = server.rest(&lab, "PUT", SHARE, &format!("[\"{echoing}\"]"));
    assert_eq!((status, body.as_str()), (200, "{}"));
    let listed =
        format!(r#"{{"shares":[{{"node":"b","targets":["{echoing}"],"to":"alice","user":"bob"}}]}}"#);
    assert_eq!(server.rest(&lab, "GET", "/shares", ""), (200, listed));
    shared(&a);
    let mut open = a.connect();
    echo(&mut open, b"across users").unwrap();

    // A target that is not shared is refused, though the node itself allows it.
    let mut forward = lab.node(&server, "a2").with(&["-user", "alice"]).forward("b@bob", other).online();
    shared(&forward);
    assert_eq!(end_of(&mut forward.connect()), End::Reset);
    let error = forward.wait_until("the reason", |status| status.forwards[0].error.clone());
    assert!(error.contains("not among the targets"), "{error}");
    assert_eq!(forward.program.terminate(), 0);

    // Nor is the way back open: who was let in has shared nothing.
    let back = lab.node(&server, "b2").with(&["-user", "bob"]).forward("a@alice", echoing).online();
    assert_eq!(end_of(&mut back.connect()), End::Reset);

    let (status, _) = server.rest(&lab, "DELETE", SHARE, "");
    assert_eq!(status, 200);
    open.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(end_of(&mut open), End::Reset, "revoking ends streams at once");
    assert_eq!(end_of(&mut a.connect()), End::Reset);
    assert_eq!(server.rest(&lab, "DELETE", SHARE, "").0, 404);
}

#[test]
fn a_narrower_share_ends_only_the_streams_that_it_leaves_out() {
    let lab = Lab::new("narrow");
    let (kept, dropped) = (target::echo(), target::echo());
    let (server, a, _b) = world(&lab, kept);
    server.rest(&lab, "PUT", SHARE, &format!("[\"{kept}\",\"{dropped}\"]"));
    shared(&a);
    let second = lab.node(&server, "a2").with(&["-user", "alice"]).forward("b@bob", dropped).online();
    shared(&second);
    let (mut stays, mut goes) = (a.connect(), second.connect());
    echo(&mut stays, b"one").unwrap();
    echo(&mut goes, b"two").unwrap();
    assert_eq!(server.rest(&lab, "PUT", SHARE, &format!("[\"{kept}\"]")).0, 200);
    assert_eq!(end_of(&mut goes), End::Reset);
    echo(&mut stays, b"still there").unwrap();
}

#[test]
fn the_figures_and_the_relays_are_served() {
    let lab = Lab::new("figures");
    let server = lab.server();
    let _a = lab.node(&server, "a").online();
    let (status, text) = server.rest(&lab, "GET", "/metrics", "");
    assert_eq!(status, 200);
    assert!(text.contains("\ninp2p_nodes_online 1\n"), "{text}");
    assert!(text.contains("inp2p_map_cap{map=\"nodes\"} 20000"), "{text}");
    assert_eq!(server.rest(&lab, "GET", "/relays", ""), (200, r#"{"relays":[]}"#.to_owned()));
    assert_eq!(server.rest(&lab, "PUT", "/shares/default/a/nobody", "[]").0, 404);
}
