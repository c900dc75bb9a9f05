//! Those who forge probes, or catch them and send them on.

use std::time::{Duration, Instant};

use super::nat::{CONE, MAIN, SYMMETRIC};
use super::world::{ATTEMPT, PUNCH, World, path, puncher, role};
use crate::ids::{AttemptId, SockId};
use crate::link::udp::ProbeTag;
use crate::link::udp::probe::{self, Kind, ProbeKey, Transaction};
use crate::punch::udp::{Action, Input, Puncher};
use crate::rng::Rng;

fn drain(puncher: &mut Puncher) -> Vec<Action> {
    std::iter::from_fn(|| puncher.poll_action()).collect()
}

/// Gives it a socket when it asks for one.
fn drain_all(puncher: &mut Puncher, now: Instant) -> Vec<Action> {
    let mut all = Vec::new();
    while let Some(action) = puncher.poll_action() {
        if matches!(action, Action::Open(_)) {
            puncher.handle(now, Input::Opened(Some(SockId(u32::try_from(all.len()).unwrap() + 1))));
        }
        all.push(action);
    }
    all
}

fn sends(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Send { .. })).count()
}

#[test]
fn a_hundred_thousand_forged_probes_change_nothing() {
    let world = World::new([CONE, SYMMETRIC], 1);
    for side in [0, 1] {
        let mut punchers = [0, 1].map(|_| puncher(side, world.now, world.plan(side)));
        let mut now = world.now;
        let mut rng = Rng::new([5; 32]);
        let tag = ProbeTag::new(ATTEMPT, &PUNCH);
        let key = ProbeKey::of_attempt(ATTEMPT, &[8; 32]);
        for n in 0..50_000_u32 {
            let kind = if n % 2 == 0 { Kind::Request } else { Kind::Answer };
            let mut bytes = probe::encode(kind, role(1 - side), tag, Transaction(rng.bytes()), &key);
            if n % 3 == 0 {
                // One of this side's own, thrown back.
                let own = ProbeKey::of_attempt(ATTEMPT, &PUNCH);
                bytes = probe::encode(kind, role(side), tag, Transaction(rng.bytes()), &own);
            }
            let from = path(1024 + u16::try_from(n % 60_000).unwrap()).remote;
            punchers[0].handle(now, Input::Datagram { socket: MAIN, from, bytes: &bytes });
            if n % 100 == 0 {
                now += Duration::from_millis(9);
                punchers.iter_mut().for_each(|puncher| puncher.handle(now, Input::Tick));
                let [attacked, alone] = punchers.each_mut().map(|puncher| drain_all(puncher, now));
                assert_eq!(attacked, alone);
            }
        }
    }
}

#[test]
fn an_answer_to_no_question_or_from_elsewhere_finds_nothing() {
    let world = World::new([CONE, CONE], 1);
    let mut puncher = puncher(0, world.now, world.plan(0));
    drain(&mut puncher);
    let now = world.now + Duration::from_secs(1);
    puncher.handle(now, Input::Tick);
    let asked = drain(&mut puncher);
    let Some(Action::Send { bytes, .. }) = asked.first() else { panic!("{asked:?}") };
    let transaction = probe::Probe::parse(bytes).unwrap().transaction;
    let (tag, key) = (ProbeTag::new(ATTEMPT, &PUNCH), ProbeKey::of_attempt(ATTEMPT, &PUNCH));
    for transaction in [transaction, Transaction([3; 12])] {
        let bytes = probe::encode(Kind::Answer, role(1), tag, transaction, &key);
        puncher.handle(now, Input::Datagram { socket: MAIN, from: path(5).remote, bytes: &bytes });
    }
    let found = drain(&mut puncher).into_iter().any(|action| matches!(action, Action::Found { .. }));
    assert!(!found && puncher.is_seeking());
}

#[test]
fn a_request_that_was_caught_and_sent_on_leads_to_a_handful_of_datagrams() {
    let world = World::new([CONE, CONE], 1);
    let mut puncher = puncher(0, world.now, world.plan(0));
    drain(&mut puncher);
    let (tag, key) = (ProbeTag::new(ATTEMPT, &PUNCH), ProbeKey::of_attempt(ATTEMPT, &PUNCH));
    let bytes = probe::encode(Kind::Request, role(1), tag, Transaction([1; 12]), &key);
    let mut now = world.now;
    let mut to_victims = 0;
    for n in 0..10_000_u32 {
        let from = path(1024 + u16::try_from(n).unwrap()).remote;
        puncher.handle(now, Input::Datagram { socket: MAIN, from, bytes: &bytes });
        now += Duration::from_millis(1);
        puncher.handle(now, Input::Tick);
        let actions = drain(&mut puncher);
        let victim: Vec<Action> = actions
            .into_iter()
            .filter(|action| match action {
                Action::Send { to, .. } => to.ip() == from.ip(),
                Action::Found { limit, .. } => {
                    assert!(limit.is_some());
                    true
                }
                Action::Open(_) | Action::Close(_) | Action::GaveUp(_) => false,
            })
            .collect();
        to_victims += sends(&victim);
    }
    assert!(to_victims <= 10, "{to_victims}");
}

#[test]
fn a_replay_at_full_rate_is_answered_within_a_cap() {
    let world = World::new([CONE, CONE], 1);
    let mut puncher = puncher(0, world.now, world.plan(0));
    drain(&mut puncher);
    let (tag, key) = (ProbeTag::new(ATTEMPT, &PUNCH), ProbeKey::of_attempt(ATTEMPT, &PUNCH));
    let bytes = probe::encode(Kind::Request, role(1), tag, Transaction([1; 12]), &key);
    for _ in 0..10_000 {
        puncher.handle(world.now, Input::Datagram { socket: MAIN, from: path(5).remote, bytes: &bytes });
    }
    assert!(sends(&drain(&mut puncher)) <= 60);
}

#[test]
fn the_probes_of_another_attempt_are_nobodys() {
    let world = World::new([CONE, CONE], 1);
    let mut puncher = puncher(0, world.now, world.plan(0));
    drain(&mut puncher);
    let other = AttemptId([8; 16]);
    let (tag, key) = (ProbeTag::new(other, &PUNCH), ProbeKey::of_attempt(other, &PUNCH));
    let bytes = probe::encode(Kind::Request, role(1), tag, Transaction([1; 12]), &key);
    puncher.handle(world.now, Input::Datagram { socket: MAIN, from: path(5).remote, bytes: &bytes });
    assert!(drain(&mut puncher).is_empty());
}
