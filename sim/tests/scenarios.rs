//! Scenarios that have found something once, and those by which the rules of the protocol are told apart.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

use inp2p_sim::run::{Keep, run};
use inp2p_sim::scenario::Scenario;

fn holds(line: &str) {
    let scenario: Scenario = line.parse().unwrap();
    let report = run(&scenario, Keep::Nothing);
    assert!(report.problems.is_empty(), "{scenario}\n{report}");
}

/// A connection in TIME-WAIT took the listener of the forward with it.
#[test]
fn a_forward_listens_on_after_its_first_connection() {
    holds(
        "seed 476; node symmetric-random; node open; forward 1 0; stream 0 at 7381 up 1408 down 1128 orderly; \
         stream 0 at 12000 up 10 down 10 orderly",
    );
}

/// One sample of the round trip that was none kept a line silent for seconds after each loss.
#[test]
fn bursts_of_loss_delay_no_opening_for_ten_seconds() {
    holds(
        "seed 25800; node full-cone; node open bursts 9; forward 0 1; forward 0 1; forward 1 0; stream 0 at 2623 \
         up 23068 down 26160 target-resets; stream 1 at 20412 up 1262 down 113275 orderly; stream 2 at 15901 up \
         1092 down 24556 target-resets; stream 2 at 27156 up 41484 down 663 orderly; stream 0 at 25166 up 921 \
         down 1303 idle; fault at 38215 roam 1",
    );
}

#[test]
fn streams_outlast_a_server_that_is_gone() {
    holds(
        "seed 1; node open; node cgnat; forward 0 1; forward 1 0; stream 0 at 15000 up 200000 down 200000 idle; \
         stream 1 at 30000 up 1000 down 50000 ask; fault at 20000 for 60000 crash server",
    );
}

#[test]
fn streams_outlast_a_change_of_address() {
    for fault in ["roam 0", "roam 1", "nat-reboot 1"] {
        holds(&format!(
            "seed 2; node open; node port-restricted; forward 0 1; stream 0 at 15000 up 100000 down 100000 idle; \
             fault at 25000 {fault}"
        ));
    }
}

#[test]
fn streams_outlast_a_few_seconds_without_a_wire() {
    for fault in ["offline 0", "offline 1", "interface-down 0", "cut 0 1", "cut 1 0", "suspend 1"] {
        holds(&format!(
            "seed 3; node open; node port-restricted; forward 0 1; stream 0 at 15000 up 100000 down 100000 idle; \
             fault at 25000 for 5000 {fault}"
        ));
    }
}

#[test]
fn both_nodes_may_reach_for_each_other_at_once() {
    holds(
        "seed 4; node open; node open; forward 0 1; forward 1 0; stream 0 at 0 up 10 down 10 orderly; stream 1 \
           at 0 up 10 down 10 orderly",
    );
}

#[test]
fn neighbours_reach_each_other_behind_any_nat() {
    for preset in ["full-cone", "port-restricted", "symmetric-random", "cgnat", "udp-blocked", "only-443"] {
        holds(&format!(
            "seed 5; node {preset}; node with 0; forward 0 1; stream 0 at 12000 up 5000 down 5000 orderly"
        ));
    }
}

#[test]
fn ipv6_is_a_path_where_one_side_lets_it_in() {
    for nodes in ["port-restricted v6-open; node cgnat v6", "open v6; node symmetric-random v6"] {
        holds(&format!(
            "seed 9; node {nodes}; forward 0 1; forward 1 0; stream 1 at 12000 up 50 down 50 orderly"
        ));
    }
}

#[test]
fn who_moves_into_another_network_takes_its_streams_along() {
    for (from, to) in [("port-restricted", "cgnat"), ("symmetric-random", "open"), ("open", "only-443")] {
        holds(&format!(
            "seed 10; node open; node {from}; forward 0 1; forward 1 0; stream 1 at 15000 up 100000 down 100000 idle; \
             fault at 25000 move 1 {to}"
        ));
    }
}

#[test]
fn neighbours_behind_one_carrier_call_no_strangers_in_their_own_houses() {
    holds(
        "seed 11; node cgnat; node beside 0; node with 0; node open; forward 0 1; forward 2 0; forward 1 3",
    );
}

#[test]
fn nats_that_forget_early_and_answer_with_resets_break_no_stream() {
    holds(
        "seed 12; node port-restricted expiry 20 tcp-expiry 40 forgetful resets random; node open; forward 0 1; \
         stream 0 at 12000 up 1000 down 1000 idle; stream 0 at 40000 up 1000 down 1000 idle",
    );
}

/// Over the server, over a node of the same user, and where both are there over the node.
#[test]
fn pairs_without_a_path_are_relayed() {
    use inp2p_core::path::Rung::{PrivateRelay, ServerRelay};
    for (relays, rung) in [
        ("server relay; node symmetric-sequential; node symmetric-random", ServerRelay),
        ("server relay; node only-443; node udp-blocked", ServerRelay),
        ("node symmetric-random; node symmetric-random; node open relay", PrivateRelay),
        ("server relay; node symmetric-random; node symmetric-random; node open super", PrivateRelay),
    ] {
        let line = format!("seed 13; {relays}; forward 0 1; stream 0 at 15000 up 50000 down 50000 orderly");
        let report = run(&line.parse().unwrap(), Keep::Nothing);
        assert!(report.problems.is_empty(), "{line}\n{report}");
        assert_eq!(report.rungs, [Some(rung)], "{line}");
    }
}

/// Somebody else's node relays for two of one user, and for one that is shared with another user, whoever of the two
/// calls; the server's relay is left alone as long as that one is there.
#[test]
fn a_super_relay_of_another_user_carries_streams() {
    use inp2p_core::path::Rung::SuperRelay;
    use inp2p_sim::run::End;
    let (node, lends) = ("node symmetric-random", "node open super user 2");
    for nodes in [
        format!("{node}; {node}; {lends}"),
        // Alice's opens what Bob shares with her, and Carol lends her node to both.
        format!("{node}; {node} user 1; {lends}; share 1 0"),
        // And where it is a node of one of the two: for the other one it is somebody else's.
        format!("{node}; {node} user 2; {lends}; share 1 0"),
        // Where UDP does not pass at all.
        format!("node udp-blocked random; node symmetric-random user 1; {lends}; share 1 0"),
    ] {
        for server in ["", "server relay; "] {
            let line = format!(
                "seed 15; {server}{nodes}; forward 0 1; stream 0 at 15000 up 50000 down 50000 orderly; stream 0 at \
                 20000 up 2000 down 90000 ask"
            );
            let report = run(&line.parse().unwrap(), Keep::Nothing);
            assert!(report.problems.is_empty(), "{line}\n{report}");
            assert_eq!(report.rungs, [Some(SuperRelay)], "{line}");
            let done = |record: &inp2p_sim::run::Record| record.client.end == End::Done && record.met == 1;
            assert!(report.streams.iter().all(|(_, record)| done(record)), "{line}\n{:?}", report.streams);
        }
    }
}

/// It dies, and their streams go on over the server.
#[test]
fn streams_outlast_a_super_relay_that_dies() {
    let nodes = "server relay; node symmetric-random; node symmetric-random user 1; node open super user 2; share 1 0";
    for fault in ["for 20000 crash 2", "for 20000 offline 2", "for 1000 kill 2"] {
        holds(&format!(
            "seed 16; {nodes}; forward 0 1; stream 0 at 20000 up 100000 down 100000 idle; fault at 25000 {fault}"
        ));
    }
}

/// The relay dies, and streams go on over the next one.
#[test]
fn streams_outlast_a_relay_that_dies() {
    let nodes = "node symmetric-random; node symmetric-random; node open relay";
    for fault in ["for 20000 crash 2", "for 20000 offline 2", "for 1000 kill 2", "for 20000 suspend 2"] {
        for server in ["server relay; ", ""] {
            let wait = if server.is_empty() && !fault.contains("kill") { 15_000 } else { 20_000 };
            holds(&format!(
                "seed 14; {server}{nodes}; forward 0 1; stream 0 at {wait} up 100000 down 100000 idle; \
                 fault at 25000 {fault}"
            ));
        }
    }
}

#[test]
fn a_pair_without_a_path_is_refused_with_a_reason() {
    holds("seed 6; node cgnat; node symmetric-random; forward 0 1; stream 0 at 12000 up 10 down 10 orderly");
}

#[test]
fn a_node_that_starts_anew_is_a_new_node_to_its_streams() {
    for fault in ["kill 1", "kill 0", "crash 1"] {
        holds(&format!(
            "seed 7; node open; node port-restricted; forward 0 1; stream 0 at 15000 up 100000 down 100000 idle; \
             fault at 25000 for 500 {fault}"
        ));
    }
}

#[test]
fn wall_clocks_do_not_matter() {
    for jump in [-315_000_000, 315_000_000] {
        for who in ["0", "1", "server"] {
            holds(&format!(
                "seed 8; node open; node open; forward 0 1; stream 0 at 12000 up 9000 down 9000 idle; fault at \
                 20000 wall-clock {who} {jump}; fault at 21000 for 1000 kill 1"
            ));
        }
    }
}

/// Its NAT forgets TCP before the next heartbeat, so it logs in anew every half minute.
#[test]
fn a_node_whose_connection_is_forgotten_again_and_again_is_not_taken_for_two() {
    let line = "seed 1; node open; node port-restricted random tcp-expiry 20; forward 0 1; \
                fault at 900000 wall-clock server 1";
    let report = run(&line.parse().unwrap(), Keep::Timeline);
    assert!(report.problems.is_empty(), "{report}");
    let logins =
        report.timeline.lines().filter(|line| line.contains("node logged in") && line.contains("node=n1"));
    assert!(logins.count() > 10);
    assert!(!report.timeline.contains("replaced each other too often"));
}

/// What the node's former process had said over a relay came after its successor had been heard, which nobody listened
/// to from then on.
#[test]
fn a_late_word_of_a_process_that_has_ended_does_not_shut_its_successor_out() {
    holds(
        "seed 10767; server relay; node udp-blocked step 1 loss 12; node with 0; node with 0; node open relay \
         delay 65 jitter 20 corrupt 1; node symmetric-sequential delay 108 bursts 10 corrupt 1; forward 0 4; \
         forward 0 1; forward 4 1; forward 1 0; fault at 3431 for 360 crash 0",
    );
}
