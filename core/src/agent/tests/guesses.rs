//! What is guessed, in all.

use std::collections::BTreeSet;

use super::*;
use crate::link::Role;
use crate::punch::{Budget, Effort, Plan};
use crate::session::Attempt;

/// What an attempt with the first node may add to its NAT's table.
fn entries(attempt: &Attempt) -> u32 {
    Plan::new(&attempt.situation(Role::Controlling)).entries()
}

#[test]
fn all_attempts_of_a_node_guess_from_one_budget() {
    let (mut world, a, b) = World::pair();
    world.add(Setup::new("c", 3).forward("2223:b:22"));
    world.run(secs(5));
    let budgets = |node: usize| world.nodes[node].attempts.iter().map(|(.., attempt)| attempt.budget.clone());
    let all: Vec<Budget> = budgets(b).collect();
    assert_eq!(all.len(), 2);
    let full = all[0].room(world.now, false);
    all[0].take(world.now, false);
    assert_eq!(all[1].room(world.now, false), full - 1);
    assert!(budgets(a).all(|other| other.room(world.now, false) == full));
}

/// When a node has guessed without the server, and for what attempts.
fn guesses(world: &World, node: usize, since: Instant) -> Vec<(Instant, AttemptId)> {
    let attempts = world.nodes[node].attempts.iter().filter(|(at, ..)| *at >= since);
    let guesses = attempts.filter(|(.., attempt)| attempt.effort != Effort::Plain);
    guesses
        .map(|(at, _, _, attempt)| {
            assert_eq!(attempt.effort, Effort::Once);
            assert!((1..=480).contains(&entries(attempt)));
            (*at, attempt.id)
        })
        .collect()
}

#[test]
fn ports_are_guessed_without_the_server_by_both_sides_at_once_and_ever_more_seldom() {
    let (mut world, a, b) = World::pair();
    world.run(secs(5));
    let secret = ReconnectSecret::agree(&[1; 32], &[2; 32]);
    for (node, peer, remote) in [(a, "b", 2), (b, "a", 1)] {
        let remote = ([192, 0, 2, remote], 5000).into();
        world.news(node, peer, SessionNews::Agreed(secret));
        world.news(node, peer, SessionNews::Moved { rung: Rung::UdpPunch, remote });
    }
    world.links = false;
    world.kill_server();
    let begun = world.now;
    world.news(b, "a", down("it is gone"));
    world.run(secs(1));
    world.news(a, "b", down("it is gone"));
    world.run(secs(7_200));
    let [ours, theirs] = [a, b].map(|node| guesses(&world, node, begun));
    // The one that wants nothing has soon enough.
    let common: BTreeSet<_> = ours.iter().filter(|guess| theirs.contains(guess)).collect();
    assert!(!common.is_empty(), "{ours:?} {theirs:?}");
    assert!(
        ours.iter().all(|(_, id)| theirs.iter().all(|(at, other)| other != id || ours.contains(&(*at, *id))))
    );
    assert!(ours[0].0 - begun <= secs(3 + 8), "{ours:?}");
    let apart: Vec<u64> =
        ours.windows(2).map(|two| (two[1].0 - two[0].0).as_secs_f64().round() as u64).collect();
    // Nothing is really sent here that would take up room.
    assert!(apart[0] <= 128 && apart.is_sorted(), "{apart:?}");
    assert_eq!(apart.last(), Some(&1_024), "{apart:?}");
    // The others keep their pace.
    let attempts = world.nodes[a].attempts.iter().filter(|(at, ..)| *at >= begun).count();
    assert!(attempts > 90, "{attempts}");
}
