//! What has to be true of a run.

use inp2p_core::path::Rung;

use super::Report;
use super::stage::{Stage, node_name};
use super::traffic::{End, Half, Record};
use crate::host::HostId;
use crate::oracle::{self, Fate};
use crate::scenario::{Manner, Scenario, Stream};
use crate::world::Counts;

/// That every forward works on the best rung there is, or says why not.
pub(super) fn forwards(stage: &Stage, scenario: &Scenario, report: &mut Report) {
    let probes = stage.ledger.records().split_off(scenario.streams.len());
    for node in 0..scenario.nodes.len() {
        match stage.status(node) {
            None => report.problems.push(format!("node {node} does not answer for its status")),
            Some(status) if !status.server.connected => {
                let why = status.server.error.unwrap_or_default();
                report
                    .problems
                    .push(format!("node {node} is not logged in a minute after all was calm: {why}"));
            }
            Some(_) => {}
        }
    }
    for ((at, forward), (_, record)) in scenario.forwards.iter().enumerate().zip(&probes) {
        let status = stage.status(forward.from);
        let peer = node_name(forward.to);
        let peer = status.as_ref().and_then(|status| status.peers.iter().find(|entry| entry.node == peer));
        let rung = peer.and_then(|peer| peer.rung);
        report.rungs.push(rung);
        let best = oracle::best(scenario, forward.from, forward.to);
        let (from, to) = (forward.from, forward.to);
        if rung != best {
            let why = peer.and_then(|peer| peer.error.clone()).unwrap_or_default();
            let (rung, best) = (name(rung), name(best));
            report.problems.push(format!(
                "forward {at} ({from} to {to}) is on {rung} a minute after all was calm, and {best} is possible: {why}"
            ));
        }
        let reason = status.as_ref().and_then(|status| {
            status.forwards.iter().find(|entry| entry.listen.ends_with(&format!(":{}", 2000 + at)))
        });
        let reason = reason.and_then(|entry| entry.error.as_deref()).unwrap_or_default();
        match (best, record.client.end) {
            (Some(_), End::Done) => {}
            (Some(_), end) => report.problems.push(format!(
                "forward {at} ({from} to {to}) does not work a minute after all was calm: {end:?} {reason}"
            )),
            (None, End::Broken(_)) if !reason.is_empty() => {}
            (None, end) => report.problems.push(format!(
                "forward {at} ({from} to {to}), which cannot work, does not refuse with a reason: {end:?} {reason:?}"
            )),
        }
    }
}

/// What is true of every stream, and what its fate should have been.
pub(super) fn streams(scenario: &Scenario, report: &mut Report) {
    for (at, (stream, record)) in report.streams.clone().iter().enumerate() {
        let mut problem = |what: &str| {
            report.problems.push(format!("stream {at} ({}): {what}: {record:?}", stream.manner.name()));
        };
        let Record { client, target, met } = record;
        for (from, to, whom) in [(client, target, "the target"), (target, client, "the local program")] {
            if to.wrong.is_some() {
                problem(&format!("a wrong byte came to {whom}"));
            }
            if to.received > from.sent {
                problem(&format!("more came to {whom} than was sent"));
            }
            if to.ended && !(from.finished && to.received == from.sent) {
                problem(&format!("{whom} saw an orderly end before all had come"));
            }
        }
        if *met > 1 {
            problem("the target was connected to twice");
        }
        if client.end == End::Open || target.end == End::Open {
            problem("it hangs");
        }
        if at >= scenario.streams.len() {
            // A probe, which `forwards` has judged.
            continue;
        }
        match oracle::fate(scenario, stream) {
            Fate::Completes if !completed(stream, record) => problem("it did not complete"),
            Fate::Refused if *met > 0 || !matches!(client.end, End::Broken(_)) => {
                problem("it was not refused");
            }
            Fate::Completes | Fate::Refused | Fate::Any => {}
        }
    }
}

fn completed(stream: &Stream, Record { client, target, met }: &Record) -> bool {
    let done = |half: &Half| half.end == End::Done && half.finished;
    let broken = |half: &Half| matches!(half.end, End::Broken(_));
    match stream.manner {
        Manner::ClientResets => client.aborted && (broken(target) || *met == 0),
        Manner::TargetResets => target.aborted && broken(client),
        Manner::Orderly
        | Manner::Ask
        | Manner::Greet
        | Manner::Idle
        | Manner::SlowTarget
        | Manner::SlowClient => done(client) && done(target),
    }
}

/// That nodes send only where they may.
pub(super) fn addresses(stage: &Stage, report: &mut Report) {
    for node in 0..stage.nodes.len() {
        let strange = stage.strange_addresses(node);
        if !strange.is_empty() {
            report.problems.push(format!("node {node} sent to addresses that nobody has seen: {strange:?}"));
        }
    }
}

/// That nobody holds more than it may.
pub(super) fn caps(stage: &Stage, report: &mut Report) {
    let peers = stage.nodes.len();
    let streams = stage.ledger.records().len();
    // The server holds a connection a node, and for a while those that broke without its knowledge.
    check(stage, stage.server, "the server", PER_NODE * peers + OWN, report);
    for (number, host) in stage.nodes.iter().enumerate() {
        // Each stream has two sockets at either end, and each peer's session its links.
        let most = OWN + 4 * streams + LINKS * peers;
        check(stage, *host, &format!("node {number}"), most, report);
    }
}

fn check(stage: &Stage, host: HostId, name: &str, most: usize, report: &mut Report) {
    let Counts { tasks, connections, timers, .. } = stage.world.counts(host);
    let largest = connections.max(tasks).max(timers);
    if largest > most && report.problems.len() < MOST_PROBLEMS {
        let counts = stage.world.counts(host);
        report.problems.push(format!("{name} holds too much at {}: {counts:?}", stage.world.now()));
    }
}

/// That nothing is left.
pub(super) fn leftovers(stage: &Stage, report: &mut Report) {
    let nodes = stage.nodes.iter().enumerate().map(|(number, host)| (node_name(number), *host));
    for (name, host) in nodes.chain([("server".to_owned(), stage.server)]) {
        let counts = stage.world.counts(host);
        if counts != Counts::default() {
            let tasks = stage.world.tasks(host);
            report
                .problems
                .push(format!("something is left on {name} after the end: {counts:?}, tasks {tasks:?}"));
        }
    }
}

fn name(rung: Option<Rung>) -> &'static str {
    rung.map_or("no rung", Rung::as_str)
}

/// Connections of one node that the server may hold, those included that ended a minute ago.
const PER_NODE: usize = 24;

/// Sockets, tasks or timers of a program that does nothing.
const OWN: usize = 48;

/// The connections that a session may hold at a time.
const LINKS: usize = 48;

/// Enough to see what is wrong.
const MOST_PROBLEMS: usize = 20;
