//! What is guessed, in all.

use std::collections::BTreeSet;

use super::*;
use crate::agent::guesses::{BUDGET, WITHOUT_SERVER};
use crate::link::Role;
use crate::nat::{Behaviour, Dependence, Finding, Lifetime, NatReport};
use crate::path::{Candidate, CandidateKind, RungSet, Transport};
use crate::punch::{Effort, Plan};
use crate::session::Attempt;
use crate::wire::message::PunchStart;

fn behind(mapping: Dependence) -> NatReport {
    let known = |is| Finding { is, confirmed: true };
    let filtering = known(Dependence::AddressAndPortDependent);
    let side =
        Behaviour { translated: Some(true), mapping: known(mapping), filtering, ..Behaviour::default() };
    NatReport { udp4: Some(side), ..NatReport::default() }
}

/// What an attempt with the first node may add to its NAT's table.
fn entries(attempt: &Attempt) -> u32 {
    Plan::new(&attempt.situation(Role::Controlling)).entries()
}

/// A node that has one port for all, and the server's word of peers that have one for each.
struct Told {
    world: World,
    node: usize,
    peers: u8,
}

impl Told {
    fn new(own: NatReport) -> Self {
        let mut world = World::new(1);
        let node = world.add(Setup::new("a", 1));
        world.run(secs(5));
        world.tell(node, Input::Nat(Some(Box::new(own))));
        Self { world, node, peers: 0 }
    }

    /// An attempt with the next peer begins.
    fn begin(&mut self) -> Attempt {
        self.peers += 1;
        let start = PunchStart {
            attempt: AttemptId([self.peers; 16]),
            peer: format!("b{}", self.peers).parse().unwrap(),
            key: key(100 + self.peers),
            candidates: vec![Candidate {
                kind: CandidateKind::ServerReflexive,
                transport: Transport::Udp,
                address: ([192, 0, 2, self.peers], 5000).into(),
            }],
            rungs: RungSet::ALL,
            punch_key: [3; 32].into(),
            asked: false,
            targets: None,
            tcp_at_ms: None,
            relays: Vec::new(),
            nat: behind(Dependence::AddressAndPortDependent),
        };
        let (now, node) = (self.world.now, &mut self.world.nodes[self.node]);
        node.agent.punch_start(now, start).unwrap();
        while let Some(action) = node.agent.poll_action() {
            if let Action::Attempt { attempt, .. } = action {
                return *attempt;
            }
        }
        panic!("no attempt");
    }

    fn guessed(&mut self, attempt: &Attempt, entries: u32) {
        let peer = format!("b{}", attempt.id.0[0]);
        self.world.news(self.node, &peer, SessionNews::Guessed { attempt: attempt.id, entries });
    }
}

#[test]
fn all_that_a_node_guesses_stays_within_one_budget() {
    let mut told = Told::new(behind(Dependence::EndpointIndependent));
    let first = told.begin();
    assert_eq!((first.effort, entries(&first)), (Effort::Full, 1_200));
    assert_eq!(told.begin().effort, Effort::Plain);
    // It was lucky: there is room for one round, and then for none.
    told.guessed(&first, 500);
    let second = told.begin();
    assert_eq!((second.effort, entries(&second)), (Effort::Once, 400));
    let more: Vec<Attempt> = (0..50).map(|_| told.begin()).collect();
    assert!(500 + 400 + more.iter().map(entries).sum::<u32>() <= BUDGET);
    assert_eq!(more.last().unwrap().effort, Effort::Plain);
    // Mappings are forgotten.
    told.world.run(secs(136));
    assert_eq!(told.begin().effort, Effort::Full);
}

#[test]
fn what_mappings_live_for_counts_if_it_is_known() {
    let mut own = behind(Dependence::EndpointIndependent);
    let lifetime = Some(Lifetime { at_least: 25, below: Some(55) });
    own.udp4 = own.udp4.map(|side| Behaviour { lifetime, ..side });
    let mut told = Told::new(own);
    let first = told.begin();
    told.guessed(&first, 1_200);
    told.world.run(secs(54));
    assert_eq!(told.begin().effort, Effort::Plain);
    told.world.run(secs(1));
    assert_eq!(told.begin().effort, Effort::Full);
}

/// When a node has guessed without the server, and for what attempts.
fn guesses(world: &World, node: usize, since: Instant) -> Vec<(Instant, AttemptId)> {
    let attempts = world.nodes[node].attempts.iter().filter(|(at, ..)| *at >= since);
    let guesses = attempts.filter(|(.., attempt)| attempt.effort != Effort::Plain);
    guesses
        .map(|(at, _, _, attempt)| {
            assert_eq!(attempt.effort, Effort::Once);
            assert!((1..=WITHOUT_SERVER).contains(&entries(attempt)));
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
    assert!((120..=256).contains(&apart[0]), "{apart:?}");
    assert_eq!(apart.last(), Some(&1_024), "{apart:?}");
    // The others keep their pace.
    let attempts = world.nodes[a].attempts.iter().filter(|(at, ..)| *at >= begun).count();
    assert!(attempts > 90, "{attempts}");
}
