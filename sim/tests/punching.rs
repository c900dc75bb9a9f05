//! Several peers are punched at the same time, and pairs are punched in time and within the budget; how often, over
//! many seeds and on lines that lose, is for `just sim-punching`.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_sim::run::{Keep, Meeting, meetings, run};
use inp2p_sim::scenario::Scenario;

/// What node 0's wishes for its peers come to.
fn met(line: &str) -> Vec<Meeting> {
    let scenario: Scenario = line.parse().unwrap();
    meetings(&scenario, Duration::from_secs(20)).into_iter().map(Option::unwrap).collect()
}

const TEN_SECONDS: Duration = Duration::from_secs(10);
/// Probes a second for one peer, and a few to where it was heard.
const BUDGET: usize = 220;

#[test]
fn seven_peers_behind_different_nats_are_punched_at_the_same_time() {
    let peers = "node full-cone; node address-restricted; node port-restricted; node cgnat; node cgnat random; \
                 node symmetric-sequential; node symmetric-random";
    let forwards: String = (1..=7).map(|peer| format!("; forward 0 {peer}")).collect();
    for seed in 0..8 {
        let line = format!("seed {seed}; node port-restricted; {peers}{forwards}");
        for (peer, met) in met(&line).iter().enumerate() {
            let reached = met.reached(Rung::UdpPunch);
            assert!(reached.is_some_and(|time| time <= TEN_SECONDS), "{line}: {peer} {met:?}");
            assert!(met.busiest <= BUDGET, "{line}: {peer} {met:?}");
        }
        let report = run(&line.parse().unwrap(), Keep::Nothing);
        assert!(report.problems.is_empty(), "{line}\n{report}");
        assert_eq!(report.rungs, [Some(Rung::UdpPunch); 7], "{line}");
    }
}

#[test]
fn random_ports_are_guessed_within_ten_seconds_and_the_budget() {
    let late: Vec<Meeting> = (0..25)
        .flat_map(|seed| {
            met(&format!("seed {seed}; node port-restricted; node symmetric-random; forward 0 1"))
        })
        .filter(|met| {
            assert!(met.busiest <= BUDGET && met.probes <= 1_400, "{met:?}");
            met.reached(Rung::UdpPunch).is_none_or(|time| time > TEN_SECONDS)
        })
        .collect();
    // Two in a hundred may be, but not these.
    assert!(late.is_empty(), "{late:?}");
}

/// Seeds with which one side heard of the attempt a second after the other, whose probes had taken by then what they
/// were to find.
#[test]
fn nats_that_take_what_comes_early_are_passed_though_one_side_is_late() {
    for (peer, seeds) in [("bare", &[1, 23, 41, 62, 77][..]), ("cgnat", &[41, 64])] {
        for seed in seeds {
            let line = format!("seed {seed}; node bare loss 106; node {peer} loss 106; forward 0 1");
            let met = met(&line).remove(0);
            let reached = met.reached(Rung::UdpPunch);
            assert!(reached.is_some_and(|time| time <= TEN_SECONDS), "{line}: {met:?}");
        }
    }
}

/// Seeds with which an attempt began before a NAT had been measured, or came after one that had taken up ports, or
/// lost all probes but those of the handshake.
#[test]
fn hard_pairs_are_punched_within_ten_seconds_though_a_fifth_gets_lost() {
    let sequential = ("symmetric-sequential", "symmetric-sequential", [11, 20, 26, 42, 69]);
    let random = ("port-restricted", "symmetric-random", [13, 31, 50, 90, 100]);
    let carrier = ("symmetric-random", "cgnat", [1, 29, 42, 45, 46]);
    for (own, peer, seeds) in [sequential, random, carrier] {
        for seed in seeds {
            let line = format!("seed {seed}; node {own} loss 106; node {peer} loss 106; forward 0 1");
            let met = met(&line).remove(0);
            let reached = met.reached(Rung::UdpPunch);
            assert!(reached.is_some_and(|time| time <= TEN_SECONDS), "{line}: {met:?}");
            assert!(met.busiest <= BUDGET, "{line}: {met:?}");
        }
    }
}

/// The median over who has the lower key: direct links take three round trips at most, punched ones four.
#[test]
fn the_first_byte_of_a_waiting_program_comes_after_few_round_trips() {
    let round_trip = Duration::from_millis(40);
    for (nodes, most) in [("open; node port-restricted", 3), ("port-restricted; node cgnat", 4)] {
        let mut times: Vec<Duration> = (0..15)
            .flat_map(|seed| met(&format!("seed {seed}; node {nodes}; forward 0 1")))
            .map(|met| met.first_byte.unwrap())
            .collect();
        times.sort();
        assert!(times[times.len() / 2] <= round_trip * most + Duration::from_millis(1), "{nodes} {times:?}");
    }
}
