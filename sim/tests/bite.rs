//! A run notices what is broken: for each thing that goes wrong, nodes that cannot cope with it fail, and
//! the real ones do not.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

use inp2p_core::path::Rung;
use inp2p_sim::run::{Flaw, Keep, Mishap, Report, run, run_flawed};
use inp2p_sim::scenario::Scenario;

/// The scenario holds with the real programs and fails with the flaw, for this reason.
fn bites(flaw: Flaw, line: &str, reason: &str) {
    let scenario: Scenario = line.parse().unwrap();
    let sound = run(&scenario, Keep::Nothing);
    assert!(sound.problems.is_empty(), "{line}\n{sound}");
    let flawed = run_flawed(&scenario, flaw);
    let found = flawed.problems.iter().any(|problem| problem.contains(reason));
    assert!(found, "{flaw:?} is not noticed by {line}\n{flawed}");
}

const PAIR: &str = "seed 1; node open; node port-restricted; forward 0 1";

/// What breaks a link, with nodes that connect once.
fn needs_a_new_link(fault: &str) {
    bites(Flaw::ConnectsOnce, &format!("{PAIR}; fault {fault}"), "does not work");
}

/// What breaks the signalling connections, with nodes that connect once.
fn needs_a_new_login(fault: &str) {
    bites(Flaw::ConnectsOnce, &format!("{PAIR}; fault {fault}"), "not logged in");
}

#[test]
fn a_crash_of_a_node() {
    needs_a_new_link("at 10000 for 20000 crash 0");
}

#[test]
fn a_crash_of_the_peer() {
    // The one that dials is the one that lives on.
    let line = "seed 1; node port-restricted; node open; forward 0 1; fault at 10000 for 20000 crash 1";
    bites(Flaw::ConnectsOnce, line, "does not work");
}

#[test]
fn a_program_that_is_killed() {
    needs_a_new_link("at 10000 for 5000 kill 0");
}

#[test]
fn a_wire_that_is_cut() {
    needs_a_new_link("at 10000 for 60000 offline 1");
}

#[test]
fn an_interface_that_goes_down() {
    needs_a_new_link("at 10000 for 60000 interface-down 1");
}

#[test]
fn a_cut_in_one_direction() {
    needs_a_new_link("at 10000 for 60000 cut 0 1");
}

#[test]
fn roaming() {
    needs_a_new_link("at 10000 roam 1");
}

#[test]
fn a_move_into_another_network() {
    needs_a_new_link("at 10000 move 1 cgnat");
}

/// What keeps an idle link alive is the session's pings.
#[test]
fn a_nat_that_forgets_what_is_idle() {
    let line = "seed 1; node open; node udp-blocked random tcp-expiry 40; forward 0 1; \
                stream 0 at 12000 up 10 down 10 orderly; fault at 90000 wall-clock server 1";
    bites(Flaw::DeafTimers("session"), line, "does not work");
}

/// Nothing copes with a table that has no room; the run says so.
#[test]
fn a_nat_without_room() {
    let line = |table: u16| format!("seed 1; node open; node port-restricted table {table}; forward 0 1");
    let problems = |table: u16| run(&line(table).parse().unwrap(), Keep::Nothing).problems;
    assert_eq!(problems(50), Vec::<String>::new());
    assert!(problems(1).iter().any(|problem| problem.contains("does not work")), "{:?}", problems(1));
}

#[test]
fn a_nat_that_forgets() {
    // One that gives the same ports again would not be noticed.
    let line = "seed 1; node open; node symmetric-random; forward 0 1; fault at 10000 nat-reboot 1";
    bites(Flaw::ConnectsOnce, line, "does not work");
}

/// A SYN that arrives before the other side's own has left, because that is late, is refused, and with that its own
/// NAT is shut again. Both sides dial anew at the next instant that they share.
#[test]
fn a_nat_that_refuses_what_nobody_asked_for() {
    let line = |seed: u64, quirk: &str| {
        // What gets lost comes late.
        let nodes = format!("node udp-blocked{quirk} delay 1 loss 100; node udp-blocked{quirk}");
        format!("seed {seed}; {nodes}; forward 0 1").parse::<Scenario>().unwrap()
    };
    let punched = |report: &Report| report.rungs == [Some(Rung::TcpPunch)];
    let flawed = |seed, quirk| run_flawed(&line(seed, quirk), Flaw::TakesNoForAnAnswer);
    let failed: Vec<u64> = (0..SEEDS).filter(|seed| !punched(&flawed(*seed, " resets"))).collect();
    assert!(failed.len() >= 2, "{failed:?}");
    for seed in 0..SEEDS {
        let sound = run(&line(seed, " resets"), Keep::Nothing);
        assert!(sound.problems.is_empty() && punched(&sound), "seed {seed}\n{sound}");
        // Where what came too early vanishes the system sends it again, and the flaw does no harm.
        let calm = flawed(seed, "");
        assert!(calm.problems.is_empty() && punched(&calm), "seed {seed}\n{calm}");
    }
}

const SEEDS: u64 = 40;

/// Neighbours in one house meet at their private addresses; without those only a NAT that hairpins brings them
/// together.
#[test]
fn a_nat_that_does_not_hairpin() {
    let line = |nat: &str| format!("seed 1; node {nat}; node with 0; forward 0 1");
    for nat in ["port-restricted", "full-cone no-hairpin"] {
        bites(Flaw::WrongAddresses, &line(nat), "does not work");
    }
    for nat in ["port-restricted hairpin", "full-cone"] {
        let report = run_flawed(&line(nat).parse().unwrap(), Flaw::WrongAddresses);
        assert_eq!(report.rungs, [Some(Rung::UdpPunch)], "{nat}\n{report}");
    }
}

/// Neighbours behind one carrier meet at their own public address, where that leads back inside.
#[test]
fn a_carrier_that_hairpins() {
    let line = "seed 1; node cgnat; node beside 0; forward 0 1";
    assert_eq!(run(&line.parse().unwrap(), Keep::Nothing).rungs, [Some(Rung::UdpPunch)]);
    // The first house's public address, and so the second's.
    bites(Flaw::Shuns([198, 18, 1, 0].into()), line, "does not work");
}

/// Where it does not, nothing but a relay leads from one to the other.
#[test]
fn a_carrier_that_does_not_hairpin() {
    let nodes = "node cgnat no-hairpin; node beside 0; forward 0 1";
    let none = run(&format!("seed 1; {nodes}").parse().unwrap(), Keep::Nothing);
    assert_eq!((none.problems, none.rungs), (vec![], vec![None]));
    let line = format!("seed 1; server relay; {nodes}");
    assert_eq!(run(&line.parse().unwrap(), Keep::Nothing).rungs, [Some(Rung::ServerRelay)]);
    // They log in once, and never call the server again.
    bites(Flaw::ConnectsOnce, &line, "server-relay is possible");
}

#[test]
fn a_machine_that_sleeps() {
    needs_a_new_link("at 10000 for 60000 suspend 1");
}

#[test]
fn a_line_that_loses_nearly_everything() {
    needs_a_new_link("at 10000 for 90000 weather 1 loss 950");
}

#[test]
fn a_path_that_bears_less_than_before() {
    let flow = format!("{PAIR}; stream 0 at 10000 up 3000000 down 100 orderly");
    let calm = run_flawed(&flow.parse().unwrap(), Flaw::StaysLarge);
    assert!(calm.problems.is_empty(), "{calm}");
    let fault = "fault at 10100 for 60000 weather 1 mtu 1280 black-hole";
    bites(Flaw::StaysLarge, &format!("{flow}; {fault}"), "udp-direct is possible");
}

#[test]
fn a_server_that_is_killed() {
    bites(
        Flaw::DeafTimers("agent"),
        &format!("{PAIR}; fault at 10000 for 5000 kill server"),
        "not logged in",
    );
}

#[test]
fn a_server_that_crashes() {
    needs_a_new_login("at 10000 for 5000 crash server");
}

#[test]
fn a_server_that_is_out_of_reach() {
    needs_a_new_login("at 10000 for 80000 offline server");
}

#[test]
fn a_server_that_sleeps() {
    needs_a_new_login("at 10000 for 80000 suspend server");
}

#[test]
fn a_wall_clock_that_jumps() {
    let faults = "fault at 20000 wall-clock 0 -7200; fault at 30000 for 5000 kill server";
    bites(Flaw::WallTime, &format!("{PAIR}; {faults}"), "not logged in");
}

#[test]
fn addresses_that_change() {
    bites(Flaw::OldAddresses, &format!("{PAIR}; fault at 10000 roam 0"), "udp-direct is possible");
}

#[test]
fn a_half_close_that_is_not_passed_on() {
    bites(Flaw::NoHalfClose, &format!("{PAIR}; stream 0 at 12000 up 100 down 100 ask"), "it hangs");
}

#[test]
fn a_reset_that_looks_like_an_orderly_end() {
    // What has not been read would turn the close into a reset again, so only the one that resets sends.
    for stream in ["up 50000 down 0 client-resets", "up 0 down 50000 target-resets"] {
        let line = format!("{PAIR}; stream 0 at 12000 {stream}");
        bites(Flaw::OrderlyResets, &line, "orderly end before all had come");
    }
}

#[test]
fn a_wrong_byte() {
    bites(Flaw::WrongBytes, &format!("{PAIR}; stream 0 at 12000 up 50000 down 0 orderly"), "a wrong byte");
}

#[test]
fn bytes_that_come_twice() {
    bites(Flaw::WritesTwice, &format!("{PAIR}; stream 0 at 12000 up 50000 down 0 orderly"), "a wrong byte");
}

#[test]
fn a_task_that_is_left_behind() {
    bites(Flaw::LeavesTask, PAIR, "something is left on");
}

#[test]
fn an_error_in_the_log() {
    bites(Flaw::LogsError, PAIR, "logged an error");
}

#[test]
fn a_stranger_who_is_called() {
    bites(Flaw::CallsStrangers, PAIR, "that nobody had seen");
}

#[test]
fn a_request_that_is_not_answered() {
    bites(Flaw::GrowsDeaf, &format!("{PAIR}; fault at 30000 wall-clock 0 1"), "a request was not answered");
}

#[test]
fn more_tasks_than_the_cap_allows() {
    bites(Flaw::Hoards, PAIR, "holds too much");
}

/// What happens to datagrams, with nodes that are sound on a line where it does not happen.
fn needs_a_link_that_copes(flaw: Flaw, line: &str, reason: &str) {
    let pair = |line: &str| {
        format!(
            "seed 1; node open; node port-restricted{line}; forward 0 1; \
                 stream 0 at 12000 up 300000 down 300000 orderly"
        )
    };
    let calm = run_flawed(&pair("").parse().unwrap(), flaw);
    assert!(calm.problems.is_empty(), "{flaw:?} fails without a reason\n{calm}");
    bites(flaw, &pair(line), reason);
}

#[test]
fn a_line_that_corrupts() {
    needs_a_link_that_copes(Flaw::Deafens(Mishap::Damaged), " corrupt 20", "udp-direct is possible");
}

/// Without its seal QUIC passes on what it was not given, unless the first bit that is changed breaks the link.
#[test]
fn a_line_that_corrupts_what_nothing_seals() {
    let line = |seed: u64, corrupt: u32| {
        format!(
            "seed {seed}; node open; node port-restricted corrupt {corrupt}; forward 0 1; \
                 stream 0 at 12000 up 300000 down 0 orderly"
        )
        .parse::<Scenario>()
        .unwrap()
    };
    let calm = run_flawed(&line(0, 0), Flaw::Unsealed);
    assert!(calm.problems.is_empty(), "it fails without a reason\n{calm}");
    let wrong = |seed: u64| {
        let report = run_flawed(&line(seed, 20), Flaw::Unsealed);
        report.problems.iter().any(|problem| problem.contains("a wrong byte"))
    };
    assert!((0..10).any(wrong));
    assert!((0..10).all(|seed| run(&line(seed, 20), Keep::Nothing).problems.is_empty()));
}

#[test]
fn a_line_that_doubles() {
    needs_a_link_that_copes(Flaw::Deafens(Mishap::Doubled), " duplicate 20", "udp-direct is possible");
}

#[test]
fn a_line_that_reorders() {
    needs_a_link_that_copes(Flaw::Deafens(Mishap::Overtaken), " reorder 20", "udp-direct is possible");
}

/// Where lines lose, one side may hear late of an attempt; what the other one has sent by then has taken its port.
#[test]
fn a_nat_that_takes_what_comes_early() {
    let pair =
        |seed: u64, nat: &str| format!("seed {seed}; node {nat} loss 106; node {nat} loss 106; forward 0 1");
    for seed in 4..8 {
        let calm = run_flawed(&pair(seed, "port-restricted").parse().unwrap(), Flaw::OneSocket);
        assert!(calm.problems.is_empty(), "it fails without a reason\n{calm}");
        bites(Flaw::OneSocket, &pair(seed, "bare"), "udp-punch is possible");
    }
}
