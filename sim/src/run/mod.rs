//! Runs scenarios with the unchanged driver, server and agents, and judges them.
//!
//! The run goes through what the scenario says, gives the nodes time to be whole again after the last fault,
//! tries every forward, ends all programs in order, and looks what is left. Whatever is not as it has to be
//! is a line of [`Report::problems`]:
//!
//! - what came is a prefix of what was sent, an orderly end comes after all of it, and what was reset does
//!   not look like an orderly end;
//! - a connection that had a right to complete has ([`oracle::fate`]), and none hangs;
//! - a minute after the last fault every forward works on the rung that the oracle says, or where there is
//!   none refuses with a reason;
//! - nodes send nowhere but to addresses that the server has seen, or that are in their own house;
//! - a request between a node and the server that is made once all is calm is answered in time, unless
//!   lines lose something;
//! - sockets and tasks stay below their caps while it runs, and none is left after the end;
//! - no program logs an error.

mod flaw;
mod forged;
mod judge;
mod logbook;
mod mishap;
mod punch;
mod stage;
mod traffic;
mod unsealed;

use std::fmt;
use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_driver::DUE;
use tracing::level_filters::LevelFilter;

pub use self::flaw::Flaw;
use self::logbook::Logbook;
pub use self::mishap::Mishap;
pub use self::punch::{Meeting, meetings};
use self::stage::{Stage, node_name};
pub use self::traffic::{End, Half, Record};
use crate::clock::Time;
use crate::log::{Event, Place};
use crate::oracle;
use crate::scenario::{Forward, Manner, Scenario, Stream};
use crate::world::World;

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What was not as it has to be; empty if all was.
    pub problems: Vec<String>,
    /// The hash over all that happened.
    pub hash: u64,
    /// How much happened.
    pub events: u64,
    /// How long it took in virtual time.
    pub simulated: Duration,
    /// By forward: the rung in use at the end.
    pub rungs: Vec<Option<Rung>>,
    /// By forward: how often its session had moved to another link, the first one counted.
    pub switches: Vec<u64>,
    /// By forward: when which link came to carry its session, and when none did any more, as the node that has the
    /// forward saw it.
    pub links: Vec<Vec<(Duration, Option<Rung>)>>,
    /// The scenario's streams, then one more for each forward, which tried it in the end.
    pub streams: Vec<(Stream, Record)>,
    /// What happened, for people; empty unless it was asked for.
    pub timeline: String,
}

/// What a run is to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing but the report.
    Nothing,
    /// Everything that happened, and what the programs logged.
    Timeline,
}

/// Runs a scenario.
///
/// # Panics
///
/// When a task spins, or a program panics.
pub fn run(scenario: &Scenario, keep: Keep) -> Report {
    run_with(scenario, keep, None)
}

/// Runs a scenario with nodes that have a flaw: it ought to fail.
pub fn run_flawed(scenario: &Scenario, flaw: Flaw) -> Report {
    run_with(scenario, Keep::Nothing, Some(flaw))
}

/// Runs a scenario with nodes that may have a flaw.
pub fn run_with(scenario: &Scenario, keep: Keep, flaw: Option<Flaw>) -> Report {
    let world = World::new(scenario.seed);
    let (entries, level) = match keep {
        Keep::Nothing => (0, LevelFilter::ERROR),
        Keep::Timeline => (usize::MAX, LevelFilter::DEBUG),
    };
    world.keep_log(entries);
    let book = Logbook::new(&world, level);
    let mut report = tracing::subscriber::with_default(book.clone(), || {
        let stage = Stage::new(scenario, world, flaw);
        play(scenario, stage, keep, &book)
    });
    let lines = book.lines();
    let errors = lines.iter().filter(|line| line.level == tracing::Level::ERROR);
    report
        .problems
        .extend(errors.map(|line| format!("a program logged an error at {}: {}", line.at, line.text)));
    report
}

/// Something that happens at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Mend(usize),
    Begin(usize),
    Open(usize),
}

fn play(scenario: &Scenario, mut stage: Stage, keep: Keep, book: &Logbook) -> Report {
    let mut report = Report::default();
    for stream in &scenario.streams {
        stage.ledger.add(*stream);
    }
    for (at, step) in agenda(scenario) {
        advance(&stage, Time::ZERO + at, &mut report);
        match step {
            Step::Begin(fault) => stage.begin(&scenario.faults[fault]),
            Step::Mend(fault) => stage.mend(&scenario.faults[fault]),
            Step::Open(stream) => stage.open(scenario.streams[stream].forward, stream),
        }
    }
    // The last word on every forward.
    let probing = scenario.calm_from().max(oracle::LOGIN) + (oracle::RECOVERY - PROBE);
    advance(&stage, Time::ZERO + probing, &mut report);
    for forward in 0..scenario.forwards.len() {
        let at = u32::try_from(probing.as_millis()).unwrap_or(u32::MAX);
        let probe = Stream { forward, at, up: 500, down: 500, manner: Manner::Orderly };
        let number = stage.ledger.add(probe);
        stage.open(forward, number);
    }
    advance(&stage, Time::ZERO + probing + PROBE, &mut report);
    judge::forwards(&stage, scenario, &mut report);
    let settled = scenario.calm_from().max(oracle::LOGIN) + oracle::RECOVERY / 2;
    judge::answers(&book.lines(), scenario, Time::ZERO + settled, &mut report);
    let lengths = scenario.streams.iter().map(|s| Duration::from_millis(s.at.into()) + oracle::length(s));
    report.links = scenario.forwards.iter().map(|forward| links(&stage, book, forward)).collect();
    let all_done = lengths.max().unwrap_or(Duration::ZERO).max(scenario.calm_from() + oracle::RECOVERY);
    advance(&stage, Time::ZERO + all_done, &mut report);
    report.streams = stage.ledger.records();
    judge::streams(scenario, &mut report);
    judge::addresses(&stage, scenario, &mut report);

    stage.stop_nodes();
    advance(&stage, stage.world.now() + LEAVING, &mut report);
    stage.stop_server();
    stage.world.run_for(FORGETTING);
    judge::leftovers(&stage, &mut report);
    report.problems.extend(stage.failures().into_iter().map(|why| format!("did not start: {why}")));
    report.hash = stage.world.hash();
    report.events = stage.world.events();
    report.simulated = stage.world.now().elapsed();
    if keep == Keep::Timeline {
        report.timeline = timeline(&stage, book);
    }
    report
}

/// Which links have carried the session of a forward so far.
fn links(stage: &Stage, book: &Logbook, forward: &Forward) -> Vec<(Duration, Option<Rung>)> {
    let (host, peer) = (stage.nodes[forward.from], node_name(forward.to));
    let lines = book.lines().into_iter().filter(|line| line.host == Some(host));
    lines.filter_map(|line| Some((line.at - Time::ZERO, line.link(&peer)?))).collect()
}

/// All steps by their times; at one instant things are mended first.
fn agenda(scenario: &Scenario) -> Vec<(Duration, Step)> {
    let faults = scenario.faults.iter().enumerate();
    let begins = faults.clone().map(|(at, fault)| (millis(fault.at), Step::Begin(at)));
    let ends = faults.filter(|(_, fault)| fault.what.lasts());
    let ends = ends.map(|(at, fault)| (fault.end(), Step::Mend(at)));
    let opens = scenario.streams.iter().enumerate().map(|(at, stream)| (millis(stream.at), Step::Open(at)));
    let mut all: Vec<_> = begins.chain(ends).chain(opens).collect();
    all.sort();
    all
}

/// Lets time pass, and looks at the caps every second of it.
fn advance(stage: &Stage, until: Time, report: &mut Report) {
    while stage.world.now() < until {
        let step = (until - stage.world.now()).min(Duration::from_secs(1));
        stage.world.run_for(step);
        judge::caps(stage, report);
    }
}

/// The network's log and the programs' logs in one, by time, with the names of those who have the addresses.
fn timeline(stage: &Stage, book: &Logbook) -> String {
    use fmt::Write;
    let world = &stage.world;
    let mut lines = book.lines().into_iter().peekable();
    // Writing to a String cannot fail.
    let mut text = stage.legend();
    for entry in world.log() {
        while let Some(line) = lines.next_if(|line| line.at <= entry.at) {
            let host = line.host.map_or_else(String::new, |host| world.name_of(Place::Host(host)));
            let level = if line.target == DUE { "timer   " } else { line.level.as_str() };
            let _ = writeln!(text, "{:>16}  {host:<12} {level} {}", line.at.to_string(), line.text);
        }
        let place = world.name_of(entry.place);
        let who = match &entry.event {
            Event::Sent(packet) => stage.who(packet.to.ip()).map(|to| format!("   (to {to})")),
            Event::Received(packet) => stage.who(packet.from.ip()).map(|from| format!("   (from {from})")),
            Event::Dropped(packet, _) | Event::Translated(packet, _) => {
                let ends = [("from", packet.from), ("to", packet.to)];
                let known = ends.into_iter().filter_map(|(word, end)| Some((word, stage.who(end.ip())?)));
                let known: Vec<String> = known.map(|(word, name)| format!("{word} {name}")).collect();
                (!known.is_empty()).then(|| format!("   ({})", known.join(", ")))
            }
            Event::Fault(_) | Event::Timer(..) => None,
        };
        let _ = writeln!(
            text,
            "{:>16}  {place:<12} {}{}",
            entry.at.to_string(),
            entry.event,
            who.unwrap_or_default()
        );
    }
    text
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

/// How long the last try of a forward may take: what a connection waits for a path, and its bytes.
const PROBE: Duration = Duration::from_secs(12);

/// Longer than nodes take to leave in order.
const LEAVING: Duration = Duration::from_secs(15);

/// Longer than the longest wait of a system for the end of a connection whose peer is gone: the 924 s of
/// retransmissions (Linux's `tcp_retries2`), and a while on top.
const FORGETTING: Duration = Duration::from_secs(1_200);
