//! What is refused, and how it is said.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::fs;
use std::net::SocketAddr;

use lab::target::Refusing;
use lab::{Lab, TOKEN};

/// The exit code, and one line of the program at the end of stderr that holds all of `words`.
#[track_caller]
fn assert_said((code, log): (i32, String), expected: i32, words: &[&str]) {
    assert_eq!(code, expected, "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("inp2pc: "), "{log}");
    for word in words {
        assert!(last.contains(word), "{word:?} is missing: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_wrong_token_ends_the_client_with_the_reason() {
    let lab = Lab::new("wrong");
    let server = lab.server();
    let refused = lab.node(&server, "a").token("7654321").refused();
    assert!(!refused.1.contains("7654321"), "{}", refused.1);
    assert_said(refused, 1, &["token"]);
    // An unknown user looks the same as a wrong token.
    assert_said(lab.node(&server, "a").with(&["-user", "nobody"]).refused(), 1, &["token"]);
    assert!(!server.program.log().contains("7654321"));
}

#[test]
fn a_name_of_another_key_is_refused_and_its_holder_undisturbed() {
    let lab = Lab::new("taken");
    let server = lab.server();
    let first = lab.node(&server, "a").online();
    assert_said(lab.node(&server, "a").in_folder(&lab, "impostor").refused(), 1, &["a", "key"]);
    assert_eq!(first.status().server.relogins, 0);
    assert!(first.status().server.connected);
}

#[test]
fn a_lost_node_key_is_made_anew_and_the_server_says_what_to_do() {
    let lab = Lab::new("lostkey");
    let server = lab.server();
    let mut node = lab.node(&server, "a").online();
    assert_eq!(node.program.terminate(), 0);
    let path = node.path("inp2pc.key");
    fs::remove_file(&path).unwrap();
    let (code, log) = lab.node(&server, "a").refused();
    assert!(log.contains("made a node key"), "{log}");
    assert_said((code, log), 1, &["a", "key"]);
    assert!(path.exists());
    // Under a name that is free the new key is as good as any.
    lab.node(&server, "b").in_folder(&lab, "a").online();
}

#[test]
fn a_malformed_node_key_is_refused_and_never_overwritten() {
    let lab = Lab::new("badkey");
    let server = lab.server();
    for content in ["", "garbage", "inp2p-key-v1 00", "-----BEGIN PRIVATE KEY-----\n"] {
        let path = lab.file("a/inp2pc.key", content);
        assert_said(lab.node(&server, "a").refused(), 2, &["inp2pc.key", "key file"]);
        assert_eq!(fs::read_to_string(path).unwrap(), content);
    }
}

#[test]
fn an_unreadable_node_key_is_refused() {
    let lab = Lab::new("dirkey");
    let server = lab.server();
    fs::create_dir_all(lab.path("a/inp2pc.key")).unwrap();
    assert_said(lab.node(&server, "a").refused(), 2, &["inp2pc.key", "cannot read"]);
}

#[test]
fn a_server_that_is_not_there_is_waited_for() {
    let lab = Lab::new("noserver");
    let nobody = Refusing::new();
    let mut node = lab.node_at(&nobody.address, "a").start();
    let error = node.wait_until("an error", |status| status.server.error.clone());
    assert!(error.contains("refused"), "{error}");
    node.program.wait_for_log("refused");
    assert!(node.program.runs(), "it keeps trying");
    assert_eq!(node.program.terminate(), 0);
}

#[test]
fn a_server_name_that_does_not_exist_is_waited_for() {
    let lab = Lab::new("nohost");
    // RFC 6761 section 6.4: never resolves.
    let any: SocketAddr = ([127, 0, 0, 1], 1).into();
    let mut node = lab.node_at(&any, "a").with(&["-serverhost", "server.invalid"]).start();
    node.wait_until("an error", |status| status.server.error.clone());
    assert!(node.program.runs());
    assert_eq!(node.program.terminate(), 0);
}

#[test]
fn a_server_with_another_identity_than_the_pinned_one_is_refused() {
    let lab = Lab::new("pin");
    let server = lab.server();
    let wrong = "11".repeat(32);
    assert_said(lab.node(&server, "a").with(&["-server-key", &wrong]).refused(), 1, &["server", "key"]);
}

#[test]
fn a_server_that_lost_its_identity_is_refused_by_those_who_know_it() {
    let lab = Lab::new("newid");
    let mut server = lab.server();
    let mut node = lab.node(&server, "a").online();
    assert_eq!(node.program.terminate(), 0);
    let ports = server.ports();
    assert_eq!(server.program.terminate(), 0);
    fs::remove_dir_all(lab.path("server")).unwrap();
    let server = lab.server_on(ports);
    assert_said(lab.node(&server, "a").refused(), 1, &["server", "key"]);
}

#[test]
fn a_bad_name_and_a_zero_token_are_usage_errors() {
    let lab = Lab::new("usage");
    let server = lab.server();
    assert_said(lab.node(&server, "a").with(&["-node", "a/b"]).refused(), 2, &["-node", "a/b"]);
    assert_said(lab.node(&server, "a").token("0").refused(), 2, &["-token", "0"]);
    assert_said(lab.node(&server, "a").token("none").refused(), 2, &["-token", "not a number"]);
}

#[test]
fn a_forward_to_oneself_is_a_usage_error() {
    let lab = Lab::new("oneself");
    let server = lab.server();
    assert_said(lab.node(&server, "a").with(&["-forward", "0:a:22"]).refused(), 2, &["a"]);
}

#[test]
fn users_do_not_see_each_other() {
    let lab = Lab::new("users");
    let any = ["-stun-udp1", "0", "-stun-udp2", "0", "-stun-tcp1", "0", "-stun-tcp2", "0", "-ws-port", "0"];
    let users = ["-bind", "127.0.0.1", "-data", "d", "-token", "alice=1001", "-token", "bob=1002"];
    let server = lab::process::Program::start("inp2ps", lab.inp2ps(&[users.as_slice(), &any].concat()));
    let line = server.wait_for_log("inp2ps listens");
    let ws = line.split("ws=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    let _bob = lab.node_at(&ws, "b").with(&["-user", "bob"]).token("1002").online();
    let target = lab::target::echo();
    let alice = lab.node_at(&ws, "a").with(&["-user", "alice"]).token("1001").forward("b", target).online();
    assert_eq!(lab::end_of(&mut alice.connect()), lab::End::Reset);
    // The same names in different users do not meet either.
    lab.node_at(&ws, "b").in_folder(&lab, "b2").with(&["-user", "alice"]).token("1001").online();
    assert_said(lab.node_at(&ws, "c").token(TOKEN).refused(), 1, &["token"]);
}
