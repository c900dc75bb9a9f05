//! Scenarios by number: they hold, they repeat, and they are what their lines say.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

use std::process::Command;

use inp2p_sim::run::{Keep, run};
use inp2p_sim::scenario::Scenario;
use proptest::strategy::ValueTree;

#[test]
fn a_hundred_scenarios_hold() {
    for seed in 0..100 {
        let scenario = Scenario::generate(seed);
        let report = run(&scenario, Keep::Nothing);
        assert!(report.problems.is_empty(), "seed {seed} (just sim-replay {seed}):\n{scenario}\n{report}");
    }
}

/// The last line of a sweep in a process of its own.
fn hash_of_sweep() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(["sweep", "20", "1000"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap().to_owned()
}

#[test]
fn the_same_seeds_give_the_same_hash_in_two_processes() {
    let first = hash_of_sweep();
    assert!(first.starts_with("hash "), "{first}");
    assert_eq!(first, hash_of_sweep());
}

#[test]
fn a_replay_with_its_timeline_is_the_same_run() {
    let scenario = Scenario::generate(3);
    let (quiet, shown) = (run(&scenario, Keep::Nothing), run(&scenario, Keep::Timeline));
    assert_eq!((quiet.hash, quiet.events), (shown.hash, shown.events));
    assert!(quiet.timeline.is_empty() && shown.timeline.contains("logged in"));
}

#[test]
fn every_scenario_is_its_line() {
    for seed in 0..2_000 {
        let scenario = Scenario::generate(seed);
        assert_eq!(scenario.to_string().parse(), Ok(scenario));
    }
}

#[test]
fn what_is_shrunk_is_a_scenario_still() {
    for seed in 0..50 {
        let mut tree = Scenario::tree(seed);
        let mut steps = 0;
        while tree.simplify() && steps < 200 {
            let scenario = tree.current();
            assert_eq!(scenario.to_string().parse(), Ok(scenario));
            steps += 1;
        }
    }
}

#[test]
fn a_line_that_names_what_is_not_there_is_refused() {
    let refused = |line: &str| line.parse::<Scenario>().unwrap_err().to_string();
    assert_eq!(refused("seed 1; node open"), "a scenario has two nodes at least");
    assert_eq!(refused("node open; node open; forward 0 2"), "no forward leads from 0 to 2");
    assert_eq!(refused("node open; node with 0"), "node 1 cannot live with node 0");
    assert_eq!(refused("node opne; node open"), {
        let known = "open, full-cone, address-restricted, port-restricted, bare, symmetric-sequential, \
                     symmetric-random, cgnat, udp-blocked, only-443";
        format!("\"node opne\": \"opne\" is no NAT; there are {known}")
    });
}
