//! How long bytes stand still when a path dies, over seeds: nothing is lost or doubled (the judge sees to that),
//! the next path takes over in time, and nothing flaps. All times are virtual.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_sim::run::{End, Flaw, Keep, Report, run, run_flawed};
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

/// The addresses at which TCP links end are gone, and nobody says so to the peer.
#[test]
fn roaming_stalls_a_flow_over_tcp_for_five_seconds_at_most() {
    for fault in ["roam 0", "roam 1", "move 1 udp-blocked"] {
        let nodes = format!("node open; node udp-blocked {PACED}");
        let (stalls, _) = stalls(10, &format!("{nodes}; forward 0 1; {FLOW}; fault at 20000 {fault}"));
        assert!(p95(&stalls) <= 5 * S, "{fault} {stalls:?}");
    }
}

/// A carrier begins to police UDP: small packets pass, and hardly any other. It is left for TCP, through both NATs
/// too, once; and taken up again after the carrier has come to its senses.
#[test]
fn a_flow_leaves_policed_udp_for_tcp_within_six_seconds_and_returns() {
    for (other, udp, tcp) in
        [("open", Rung::UdpDirect, Rung::TcpDirect), ("port-restricted", Rung::UdpPunch, Rung::TcpPunch)]
    {
        for rate in [16, 64, 200] {
            let nodes = format!("node {other}; node port-restricted {PACED}");
            let fault = format!("fault at 18000 for 40000 weather 1 {PACED} udp-rate {rate}");
            let (stalls, reports) = stalls(2, &format!("{nodes}; forward 0 1; {FLOW}; {fault}"));
            assert!(*stalls.last().unwrap() <= 6 * S, "{other} {rate} {stalls:?}");
            for report in reports {
                let links: Vec<(Duration, Option<Rung>)> =
                    report.links[0].iter().filter(|(at, _)| *at > 5 * S).copied().collect();
                let rungs: Vec<Option<Rung>> =
                    links.iter().map(|(_, rung)| *rung).filter(Option::is_some).collect();
                assert_eq!(rungs, [Some(tcp), Some(udp)], "{other} {rate} {links:?}");
                assert!(
                    links.windows(2).all(|two| two[0].1.is_none() || two[1].0 - two[0].0 > 10 * S),
                    "{links:?}"
                );
            }
        }
    }
}

/// Who cannot go over to TCP is without a link for as long as the carrier polices, and the flow is given up.
#[test]
fn a_flow_that_cannot_leave_policed_udp_breaks() {
    let fault = format!("fault at 18000 for 40000 weather 1 {PACED} udp-rate 16");
    let line = format!("seed 0; node open; node port-restricted {PACED}; forward 0 1; {FLOW}; {fault}");
    let end = |report: Report| report.streams[0].1.client.end;
    let scenario = line.parse().unwrap();
    assert_eq!(end(run(&scenario, Keep::Nothing)), End::Done);
    assert_ne!(end(run_flawed(&scenario, Flaw::KeepsToUdp)), End::Done);
}

/// What the log and `status` say of it.
#[test]
fn a_session_that_leaves_udp_says_why() {
    let fault = format!("fault at 18000 for 40000 weather 1 {PACED} udp-rate 200");
    let said = (0..4).map(|seed| {
        let line =
            format!("seed {seed}; node open; node port-restricted {PACED}; forward 0 1; {FLOW}; {fault}");
        run(&line.parse().unwrap(), Keep::Timeline).timeline
    });
    let said: Vec<String> = said.collect();
    assert!(said.iter().all(|said| said.contains("rung=udp-direct reason=\"left for tcp-direct: ")));
    assert!(said.iter().any(|said| said.contains("% of what is sent gets lost")));
}

/// Two better links within ten seconds: a relay comes, and a little later the direct way opens. The second one is
/// taken when the session has kept to the first for ten seconds.
#[test]
fn a_session_goes_over_to_a_better_link_once_in_ten_seconds() {
    for seed in 0..5 {
        let line = format!(
            "seed {seed}; server relay; node open; node open {PACED}; node open relay; forward 0 1; {FLOW}; \
             fault at 1 for 24000 cut 0 1; fault at 1 for 24000 cut 1 0; fault at 1 for 22500 kill 2"
        );
        let report = run(&line.parse().unwrap(), Keep::Nothing);
        assert!(report.problems.is_empty(), "{line}\n{report}");
        let better = report.links[0].windows(2).filter(|two| two[0].1.is_some() && two[1].1 < two[0].1);
        let better: Vec<Duration> = better.map(|two| two[1].0).collect();
        assert_eq!(report.rungs, [Some(Rung::UdpDirect)]);
        assert!(better.len() >= 2, "seed {seed}: {:?}", report.links[0]);
        // From nomination to nomination; seen here is when streams move, which over a relay takes longer.
        let apart = better.windows(2).all(|two| two[1] - two[0] >= S * 19 / 2);
        assert!(apart, "seed {seed}: {:?}", report.links[0]);
    }
}

/// Nothing is being sent when the peer's process dies and another one takes its place.
#[test]
fn a_peer_that_was_started_anew_is_noticed_before_anything_is_sent() {
    let line = "seed 4; node open; node port-restricted; forward 0 1; \
                stream 0 at 25000 up 10 down 10 orderly; fault at 14000 for 1000 kill 1";
    let report = run(&line.parse().unwrap(), Keep::Nothing);
    assert!(report.problems.is_empty(), "{report}");
    let ups = report.links[0].iter().filter(|(at, rung)| *at > 14 * S && *at < 20 * S && rung.is_some());
    assert_eq!(ups.count(), 1, "{:?}", report.links[0]);
    assert!(report.streams[0].1.client.first.unwrap() < S / 2, "{:?}", report.streams[0]);
}

/// Server and link are gone at once, and the link's way is open again a few seconds later: the two find each other by
/// what they know.
#[test]
fn known_peers_reconnect_without_the_server() {
    for nodes in [
        format!("node open; node port-restricted {PACED}"),
        format!("node open; node udp-blocked {PACED}"),
        format!("node port-restricted; node port-restricted {PACED}"),
    ] {
        for server in ["kill server", "offline server"] {
            let faults = format!(
                "fault at 19000 for 60000 {server}; fault at 20000 for 5000 cut 0 1; fault at 20000 for 5000 cut 1 0"
            );
            let (stalls, _) = stalls(3, &format!("{nodes}; forward 0 1; {FLOW}; {faults}"));
            assert!(*stalls.last().unwrap() <= 15 * S, "{nodes} {server} {stalls:?}");
        }
    }
}

/// The same for a process that has been started anew meanwhile, which knows its peer from its files. It is the one
/// behind the NAT: the other one's new port would be known to nobody.
#[test]
fn a_node_that_starts_without_the_server_finds_its_peer() {
    for seed in 0..5 {
        let line = format!(
            "seed {seed}; node open; node port-restricted; forward 0 1; fault at 15000 for 90000 offline server; \
             fault at 20000 for 2000 kill 1; stream 0 at 60000 up 1000 down 1000 orderly"
        );
        let report = run(&line.parse().unwrap(), Keep::Nothing);
        assert!(report.problems.is_empty(), "{line}\n{report}");
        assert_eq!(report.streams[0].1.client.end, End::Done, "{line}");
    }
}
