//! What pairs of NATs make of it: how many seeds succeed, how fast, and with how many probes.

use std::time::Duration;

use super::nat::{
    ADDRESS_CONE, ByAddress, ByPort, CONE, Choice, FULL_CONE, Kind, LINUX, REGULAR, SYMMETRIC, nat,
};
use super::world::{Outcome, World};
use crate::punch::Why;

/// Runs both orders of a pair, so that each is controlling once.
fn runs(pair: [Kind; 2], loss: u64, seeds: u64) -> Vec<Outcome> {
    let orders = [pair, [pair[1], pair[0]]];
    let all = (0..seeds).flat_map(|seed| orders.map(|pair| (pair, seed)));
    all.map(|(pair, seed)| World::new(pair, seed).lossy(loss).run()).collect()
}

/// How many of a thousand were through within `limit`.
fn share(outcomes: &[Outcome], limit: u64) -> usize {
    let limit = Duration::from_millis(limit);
    let good = outcomes.iter().filter(|outcome| outcome.took.is_some_and(|took| took <= limit)).count();
    good * 1000 / outcomes.len()
}

fn within_budget(outcomes: &[Outcome], probes: usize) {
    for outcome in outcomes {
        assert!(outcome.busiest_second <= 200, "{outcome:?}");
        assert!(outcome.probes.into_iter().all(|sent| sent <= probes), "{outcome:?}");
    }
}

const RTT: u64 = 40;

#[test]
fn cone_pairs_take_at_most_two_round_trips() {
    for pair in
        [[CONE, CONE], [LINUX, LINUX], [FULL_CONE, LINUX], [ADDRESS_CONE, CONE], [FULL_CONE, FULL_CONE]]
    {
        let outcomes = runs(pair, 0, 10);
        assert_eq!(share(&outcomes, 2 * RTT), 1000, "{pair:?} {:?}", outcomes[0]);
        // The controlling side, which goes on by a handshake, hears the peer earlier.
        let half = Duration::from_millis(RTT / 2 + 20);
        assert!(outcomes.iter().all(|outcome| outcome.heard.is_some_and(|heard| heard <= half)));
        within_budget(&outcomes, 800);
    }
}

#[test]
fn plain_punching_bears_loss() {
    for pair in [[CONE, CONE], [LINUX, LINUX], [FULL_CONE, SYMMETRIC], [ADDRESS_CONE, REGULAR]] {
        let (some, many) = (runs(pair, 5, 60), runs(pair, 20, 60));
        assert!(share(&some, 5_000) >= 990, "{pair:?} {}", share(&some, 5_000));
        assert!(share(&many, 5_000) >= 990, "{pair:?} {}", share(&many, 5_000));
        within_budget(&many, 800);
    }
}

#[test]
fn a_nat_that_takes_harm_from_early_packets_is_spared_them() {
    for late in [0, 5, 15, 40] {
        for side in [0, 1] {
            for routers in [1, 2, 4] {
                let mut world = World::new([LINUX, LINUX], late).skew(side, late);
                world.routers = routers;
                // News that is later than a way from node to node is told to nobody in time.
                if late <= 10 || routers > 1 {
                    let outcome = world.run();
                    let quickly = outcome.took.is_some_and(|took| took < Duration::from_millis(400));
                    assert!(quickly, "{side} {late} ms late, {routers} routers: {outcome:?}");
                }
            }
        }
    }
}

/// One side hears of the attempt later than its peer by so much; it takes that long then, and so many new sockets.
fn late_sides(delays: [u64; 4], most: Duration, sockets: usize) {
    for pair in [[LINUX, LINUX], [CONE, LINUX], [LINUX, CONE]] {
        for late in delays {
            for side in [0, 1] {
                let outcome = World::new(pair, late).skew(side, late).run();
                let in_time = outcome.took.is_some_and(|took| took < most);
                assert!(in_time, "{pair:?}, {side} {late} ms late: {outcome:?}");
                assert!(outcome.most_open <= sockets);
            }
        }
    }
}

#[test]
fn a_side_that_hears_of_the_attempt_a_second_late_has_a_third_socket() {
    late_sides([600, 900, 1_100, 1_300], Duration::from_millis(4_000), 2);
}

#[test]
fn a_nat_that_has_taken_harm_is_passed_by_a_second_socket() {
    late_sides([60, 100, 250, 450], Duration::from_millis(1_600), 1);
}

#[test]
fn many_random_ports_against_a_filter_by_port_are_guessed_within_ten_seconds() {
    for cone in [CONE, LINUX] {
        let outcomes = runs([cone, SYMMETRIC], 0, 80);
        assert!(share(&outcomes, 10_000) >= 990, "{cone:?} {}", share(&outcomes, 10_000));
        within_budget(&outcomes, 1_200 + 40);
        assert!(outcomes.iter().all(|outcome| outcome.most_open <= 512));
        let lossy = runs([cone, SYMMETRIC], 5, 25);
        assert!(share(&lossy, 10_000) >= 980, "{cone:?} {}", share(&lossy, 10_000));
    }
}

#[test]
fn a_guess_succeeds_behind_nats_that_openers_do_not_reach() {
    for cone in [CONE, LINUX] {
        for pair in [[cone, SYMMETRIC], [SYMMETRIC, cone]] {
            let outcomes = (0..25).map(|seed| {
                let mut world = World::new(pair, seed);
                world.inner = 2;
                world.run()
            });
            let outcomes: Vec<_> = outcomes.collect();
            assert!(share(&outcomes, 10_000) >= 980, "{cone:?} {}", share(&outcomes, 10_000));
            within_budget(&outcomes, 1_200 + 40);
        }
    }
}

#[test]
fn regular_ports_are_predicted() {
    for drift in [0, 3, 12, 39] {
        for step in [1, 2, -1] {
            let regular = Kind { choice: Choice::Step(step), drift, ..REGULAR };
            for cone in [CONE, LINUX] {
                let outcomes = runs([cone, regular], 5, 10);
                assert_eq!(share(&outcomes, 2_000), 1000, "{cone:?} {regular:?}");
                within_budget(&outcomes, 800);
            }
            let outcomes = runs([regular, regular], 5, 10);
            assert_eq!(share(&outcomes, 3_000), 1000, "{regular:?} twice");
            within_budget(&outcomes, 800);
        }
    }
    let busy = Kind { drift: 75, ..REGULAR };
    assert_eq!(share(&runs([busy, busy], 0, 10), 5_000), 1000, "more drift takes further rounds");
    assert_eq!(share(&runs([busy, CONE], 0, 10), 3_000), 1000);
}

#[test]
fn a_mapping_by_address_is_no_obstacle() {
    let by_address = nat(ByAddress, ByPort, Choice::Random);
    let outcomes = runs([CONE, by_address], 0, 30);
    assert!(share(&outcomes, 10_000) >= 980);
}

#[test]
fn an_unknown_nat_is_tried_plainly_and_then_guessed() {
    for kind in [CONE, LINUX, FULL_CONE] {
        let unknown = Kind { is_unknown: true, ..kind };
        for peer in [unknown, CONE, FULL_CONE] {
            assert_eq!(share(&runs([unknown, peer], 5, 20), 2_000), 1000, "{kind:?} {peer:?}");
        }
    }
    let unknown = Kind { is_unknown: true, ..SYMMETRIC };
    let outcomes = runs([unknown, CONE], 0, 30);
    assert!(share(&outcomes, 10_000) >= 980, "{}", share(&outcomes, 10_000));
    let open = runs([unknown, FULL_CONE], 0, 10);
    assert_eq!(share(&open, 1_000), 1000);
}

#[test]
fn two_symmetric_nats_are_given_up_at_once_and_say_why() {
    let outcome = World::new([SYMMETRIC, REGULAR], 1).run();
    assert_eq!(outcome.why, [Some(Why::BothSymmetric); 2]);
    assert_eq!(outcome.probes, [0, 0]);
}

#[test]
fn a_guess_that_fails_ends_says_so_and_closes_its_sockets() {
    let mut world = World::new([CONE, SYMMETRIC], 1).lossy(100);
    let outcome = world.run();
    let told = outcome.why.map(|why| matches!(why, Some(Why::Silence { guesses, .. }) if guesses >= 512));
    assert_eq!(told, [true; 2], "{outcome:?}");
    assert_eq!((world.open(0), world.open(1)), (0, 0));
    assert_eq!(outcome.most_open, 512);
}

#[test]
fn too_few_sockets_are_better_than_none() {
    let mut world = World::new([CONE, SYMMETRIC], 3);
    world.sockets = 100;
    assert!(world.run().took.is_some());
    let mut world = World::new([CONE, SYMMETRIC], 3);
    world.sockets = 0;
    assert!(matches!(world.run().why, [Some(Why::Silence { .. }), Some(Why::Silence { .. })]));
}

#[test]
fn only_the_sockets_that_were_hit_outlive_a_guess() {
    let mut world = World::new([CONE, SYMMETRIC], 2);
    assert!(world.run().took.is_some());
    assert!((1..=8).contains(&world.open(1)), "{}", world.open(1));
    world.stop(1);
    assert_eq!(world.open(1), 0);
}

/// Prints the figures that `docs/nat.md` gives.
#[test]
#[ignore = "prints a table, claims nothing"]
fn table() {
    let pairs = [
        ("cone x cone", [CONE, CONE]),
        ("linux x linux", [LINUX, LINUX]),
        ("cone x symmetric", [CONE, SYMMETRIC]),
        ("linux x symmetric", [LINUX, SYMMETRIC]),
        ("cone x regular", [CONE, REGULAR]),
        ("regular x regular", [REGULAR, REGULAR]),
        ("unknown symmetric x cone", [Kind { is_unknown: true, ..SYMMETRIC }, CONE]),
    ];
    for (name, pair) in pairs {
        for loss in [0, 5, 20] {
            let outcomes = runs(pair, loss, 250);
            let mut took: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.took).collect();
            took.sort();
            let probes: usize = outcomes.iter().map(|outcome| outcome.probes[0] + outcome.probes[1]).sum();
            #[expect(clippy::print_stderr, reason = "that is what it is for")]
            {
                eprintln!(
                    "{name:26} loss {loss:2} %: {:5.1} %, median {:?}, p95 {:?}, {} probes",
                    share(&outcomes, 10_000) as f64 / 10.0,
                    took.get(took.len() / 2),
                    took.get(took.len() * 95 / 100),
                    probes / outcomes.len(),
                );
            }
        }
    }
}
