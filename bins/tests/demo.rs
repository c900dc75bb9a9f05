//! The demo does what it says and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::fs;

use lab::Lab;
use lab::process::{Program, Ran};

/// The demo in a lab whose folder is also the folder for temporary files.
fn demo(lab: &Lab) -> std::process::Command {
    fs::create_dir_all(lab.path("empty")).unwrap();
    let mut command = lab.inp2pc(&["demo"]);
    command.current_dir(lab.path("empty")).env("TMPDIR", lab.path("empty")).env("HOME", lab.path("empty"));
    command
}

#[test]
fn the_demo_moves_every_byte_and_leaves_nothing_behind() {
    let lab = Lab::new("demo");
    let ran = Ran::of(demo(&lab));
    assert_eq!(ran.code, 0, "{ran:?}");
    for said in [
        "by udp-direct",
        "to target    256 MiB",
        "from target  256 MiB",
        "SHA-256 equal",
        "200 connections",
        "p99",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
    }
    assert_eq!(ran.stderr, "", "nothing to warn of");
    assert_eq!(lab::entries(&lab.path("empty")), Vec::<String>::new());
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind_either() {
    let lab = Lab::new("demo2");
    let mut command = demo(&lab);
    command.args(["-log-level", "info"]);
    let mut program = Program::start("demo", command);
    // Both nodes and the server live in this process: any line of theirs says that it is under way.
    program.wait_for_log("INFO");
    assert!(program.runs());
    let code = program.terminate();
    assert_eq!(code, 0, "{}", program.log());
    assert!(program.log().lines().any(|line| line == "inp2pc: interrupted"), "{}", program.log());
    assert_eq!(lab::entries(&lab.path("empty")), Vec::<String>::new());
}
