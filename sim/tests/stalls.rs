//! How long bytes stand still when a path dies, over seeds: nothing is lost or doubled (the judge sees to that),
//! the next path takes over in time, and nothing flaps. All times are virtual.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_sim::run::{End, Keep, Report, run};
use inp2p_sim::scenario::Scenario;

/// Three megabytes over lines of two megabits: twelve seconds of bytes that flow evenly, from 15 s on.
const FLOW: &str = "stream 0 at 15000 up 3000000 down 100 orderly";
const PACED: &str = "rate 2000";

/// Runs the scenario with so many seeds; gives the stalls in order, and the reports.
fn stalls(seeds: u64, line: &str) -> (Vec<Duration>, Vec<Report>) {
    let reports: Vec<Report> = (0..seeds)
        .map(|seed| {
            let scenario: Scenario = format!("seed {seed}; {line}").parse().unwrap();
            let report = run(&scenario, Keep::Nothing);
            assert!(report.problems.is_empty(), "{scenario}\n{report}");
            assert_eq!(report.streams[0].1.client.end, End::Done, "{scenario}");
            report
        })
        .collect();
    let mut all: Vec<Duration> = reports.iter().map(|report| report.streams[0].1.target.stall).collect();
    all.sort();
    (all, reports)
}

/// The stall that 95 of 100 do not exceed.
fn p95(stalls: &[Duration]) -> Duration {
    stalls[(stalls.len() * 95).div_ceil(100) - 1]
}

const S: Duration = Duration::from_secs(1);

#[test]
fn a_flow_over_a_calm_path_does_not_stall() {
    let (stalls, _) = stalls(3, &format!("node open; node port-restricted {PACED}; forward 0 1; {FLOW}"));
    assert!(*stalls.last().unwrap() < S / 2, "{stalls:?}");
}

#[test]
fn a_relay_that_dies_stalls_a_flow_for_five_seconds_at_most() {
    for fault in ["for 60000 crash 2", "for 60000 kill 2", "for 60000 offline 2"] {
        let nodes = format!("node symmetric-random {PACED}; node symmetric-random; node open relay");
        let (stalls, reports) =
            stalls(10, &format!("server relay; {nodes}; forward 0 1; {FLOW}; fault at 20000 {fault}"));
        assert!(*stalls.last().unwrap() <= 5 * S, "{fault} {stalls:?}");
        for report in reports {
            // To the node's relay, to the server's when that dies, and back to the node's.
            assert_eq!(report.rungs, [Some(Rung::PrivateRelay)], "{fault}");
            assert!(report.switches[0] <= 4, "{fault}: {:?} flaps", report.switches);
        }
    }
}

#[test]
fn roaming_stalls_a_flow_over_udp_for_five_seconds_at_most() {
    for (nodes, fault) in [
        (format!("node open; node port-restricted {PACED}"), "roam 1"),
        (format!("node open; node port-restricted {PACED}"), "move 1 cgnat"),
        (format!("node open {PACED}; node symmetric-random"), "roam 0"),
    ] {
        let (stalls, reports) = stalls(10, &format!("{nodes}; forward 0 1; {FLOW}; fault at 20000 {fault}"));
        assert!(p95(&stalls) <= 5 * S, "{nodes} {fault} {stalls:?}");
        assert!(reports.iter().all(|report| report.switches[0] <= 4), "{nodes} {fault}");
    }
}

#[test]
fn a_rebinding_stalls_a_flow_for_five_seconds_at_most() {
    for nodes in ["node open; node symmetric-random", "node open; node cgnat random"] {
        let (stalls, _) =
            stalls(10, &format!("{nodes} {PACED}; forward 0 1; {FLOW}; fault at 20000 nat-reboot 1"));
        assert!(p95(&stalls) <= 5 * S, "{nodes} {stalls:?}");
    }
}

/// Between the two nodes nothing passes any more, and both still reach the server.
#[test]
fn a_direct_link_that_dies_is_back_on_a_relay_within_six_seconds_and_direct_again_within_a_minute() {
    let faults = "fault at 20000 for 30000 cut 0 1; fault at 20000 for 30000 cut 1 0";
    let line =
        format!("server relay; node open; node port-restricted {PACED}; forward 0 1; {FLOW}; {faults}");
    let (stalls, reports) = stalls(10, &line);
    assert!(*stalls.last().unwrap() <= 6 * S, "{stalls:?}");
    for report in reports {
        // The judge looks a minute after the cut has healed.
        assert_eq!(report.rungs, [Some(Rung::UdpDirect)]);
        assert!(report.switches[0] <= 6, "{:?} flaps", report.switches);
    }
}

#[test]
fn a_link_through_a_nat_that_soon_forgets_is_used_often_enough() {
    // Unasked, the node behind the NAT would be silent for longer than its NAT remembers.
    for at in [130_000, 133_000, 136_000, 139_000, 142_000] {
        let nodes = "node open; node port-restricted expiry 12; forward 0 1";
        let late = "fault at 140000 wall-clock server 1";
        let line = format!("seed 1; {nodes}; stream 0 at {at} up 10 down 10 orderly; {late}");
        let report = run(&line.parse().unwrap(), Keep::Nothing);
        assert!(report.problems.is_empty(), "{report}");
        let first = report.streams[0].1.client.first;
        assert!(first.is_some_and(|first| first < S / 2), "{at} {first:?}");
    }
}
