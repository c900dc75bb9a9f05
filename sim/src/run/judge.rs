//! What has to be true of a run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use inp2p_core::path::{Outcome, Rung};
use inp2p_core::status::PeerStatus;
use inp2p_core::wire::UNANSWERED;

use super::Report;
use super::logbook::Line;
use super::stage::{Stage, node_name};
use super::traffic::{End, Half, Record};
use crate::clock::Time;
use crate::fabric::in_prefix;
use crate::host::HostId;
use crate::oracle::{self, Fate};
use crate::scenario::{Manner, Party, Scenario, Stream, Trouble, What};
use crate::world::Counts;

/// That every forward works on the best rung there is, or says why not.
pub(super) fn forwards(stage: &Stage, scenario: &Scenario, report: &mut Report) {
    let probes = stage.ledger.records().split_off(scenario.streams.len());
    for node in 0..scenario.nodes.len() {
        match stage.status(node) {
            None => report.problems.push(format!("node {node} does not answer for its status")),
            Some(status) if !status.server.connected && !oracle::is_starved(scenario, node) => {
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
        let peer = stage.named(forward.from, forward.to);
        let peer = status.as_ref().and_then(|status| status.peers.iter().find(|entry| entry.node == peer));
        let rung = peer.and_then(|peer| peer.rung);
        report.rungs.push(rung);
        report.switches.push(peer.map_or(0, |peer| peer.switches));
        let best = match oracle::best(scenario, forward.from, forward.to) {
            best if rung.is_some_and(|rung| oracle::is_luck(scenario, forward, rung, best)) => rung,
            Some(best)
                if best.is_udp() && rung == oracle::without_udp(scenario, forward) && left_udp(peer) =>
            {
                rung
            }
            best => best,
        };
        let (from, to) = (forward.from, forward.to);
        // The other user's node may have a link to this one, to which it leads.
        let best = if scenario.knows(from, to) { best } else { None };
        let is_theirs = !scenario.knows(from, to) && scenario.knows(to, from);
        if rung != best && !is_theirs {
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

/// That what is asked once all is calm is answered in time. On a line that loses, what was asked or answered
/// may be on its way for longer; and a connection that a NAT has forgotten, or whose address is gone, may take
/// three heartbeats to be given up. One that was cut off is silent for up to as long again as it was cut off, since
/// TCP doubles the time between its repetitions (RFC 6298), and what is asked then is answered after that.
pub(super) fn answers(lines: &[Line], scenario: &Scenario, from: Time, report: &mut Report) {
    let breaks = |fault: &Trouble| matches!(fault.what, What::NatReboot(_) | What::Roam(_) | What::Move(..));
    if scenario.nodes.iter().any(|node| node.line.loss > 0) || scenario.faults.iter().any(breaks) {
        return;
    }
    let cuts = scenario.faults.iter().filter(|fault| match fault.what {
        What::Cut(one, two) => [one, two].contains(&Party::Server),
        What::Offline(_) | What::InterfaceDown(_) | What::Suspend(_) | What::Weather(..) => true,
        _ => false,
    });
    let backed_off = cuts.map(|fault| fault.end() + Duration::from_millis(fault.lasts.into()) + ANSWER);
    let from = backed_off.map(|at| Time::ZERO + at).fold(from, Time::max);
    for line in lines.iter().filter(|line| line.target == UNANSWERED && line.at >= from) {
        report.problems.push(format!("a request was not answered, at {}: {}", line.at, line.text));
    }
}

/// What is true of every stream, and what its fate should have been.
pub(super) fn streams(scenario: &Scenario, report: &mut Report) {
    for (at, (stream, record)) in report.streams.clone().iter().enumerate() {
        let mut problem = |what: &str| {
            report.problems.push(format!("stream {at} ({}): {what}: {record:?}", stream.manner.name()));
        };
        let Record { client, target, met, met_at: _ } = record;
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

fn completed(stream: &Stream, Record { client, target, met, .. }: &Record) -> bool {
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

/// That nodes send only where they may: to addresses at which the server had seen somebody by then, or which
/// had written to them; to private addresses where somebody else shares their public one; and to the global
/// IPv6 addresses that their peers claim.
pub(super) fn addresses(stage: &Stage, scenario: &Scenario, report: &mut Report) {
    for (node, host) in stage.nodes.iter().enumerate() {
        let carriers = |node: usize| [scenario.begins_at(node).carrier, scenario.ends_at(node).carrier];
        let mut others = (0..scenario.nodes.len()).filter(|other| *other != node);
        let shares = others.any(|other| carriers(other).iter().any(|own| carriers(node).contains(own)));
        let seen =
            |by: HostId, ip: IpAddr, at: Time| stage.world.heard(by, ip).is_some_and(|heard| heard <= at);
        let may = |(ip, at): (IpAddr, Time)| match ip {
            _ if ip.is_loopback() || ip == stage.server_address() => true,
            _ if seen(stage.server, ip, at) || seen(*host, ip, at) => true,
            IpAddr::V4(v4) => shares && (v4.is_private() || in_prefix(ip, SHARED, 10)),
            IpAddr::V6(_) => in_prefix(ip, CLAIMED, 32),
        };
        let strange: Vec<_> = stage.world.sent_to(*host).into_iter().filter(|to| !may(*to)).collect();
        if !strange.is_empty() {
            report.problems.push(format!("node {node} sent to addresses that nobody had seen: {strange:?}"));
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
    let Counts { tasks, connections, timers, udp, listeners } = stage.world.counts(host);
    let largest = connections.max(tasks).max(timers);
    if (largest > most || udp > MOST_UDP || listeners > OWN) && report.problems.len() < MOST_PROBLEMS {
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

/// Whether the peer has shown that UDP was left because of what got lost.
fn left_udp(peer: Option<&PeerStatus>) -> bool {
    let lost = |outcome: &Outcome| outcome.rung.is_udp() && outcome.reason.contains(" lost");
    peer.is_some_and(|peer| peer.attempts.iter().any(lost))
}

fn name(rung: Option<Rung>) -> &'static str {
    rung.map_or("no rung", Rung::as_str)
}

/// How long a request waits for its answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The addresses between a carrier and its customers (RFC 6598), and those of all nodes' IPv6.
const SHARED: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0));
const CLAIMED: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));

/// Connections of one node that the server may hold, those included that ended a minute ago.
const PER_NODE: usize = 24;

/// Sockets, tasks or timers of a program that does nothing.
const OWN: usize = 48;

/// A node's port in both families, or the server's two, what is open for moments only, and the sockets by which
/// two peers' ports are guessed at a time.
const MOST_UDP: usize = 8 + 1_024;

/// The connections that a session may hold at a time.
const LINKS: usize = 48;

/// Enough to see what is wrong.
const MOST_PROBLEMS: usize = 20;
