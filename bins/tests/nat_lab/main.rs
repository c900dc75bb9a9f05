//! The real-NAT lab: the programs behind NATs of the Linux kernel, in network namespaces.
//!
//! `just lab` runs each check once, `just lab-full` as often as docs/lab.md says, and writes its table.
//! Without root, namespaces or the programs that it needs, everything is skipped by name and counted so.
//!
//! ```text
//! nat_lab [FILTER] [--full | --runs N --mib N] [--results FILE] [--minutes N] [--table FILE]
//! ```
//!
//! With a file of results a run goes on where the last one ended, so that it can be made in slices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a failed check panics, and the results are its output"
)]

mod arguments;
mod events;
mod expected;
mod internet;
mod kernel;
mod kind;
#[path = "../lab/mod.rs"]
mod lab;
mod ladder;
mod liar;
mod netns;
mod pair;
mod report;
mod reports;
mod results;
mod ssh;
mod survive;
mod transfer;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arguments::Arguments;
use events::{EVENTS, Event};
use kernel::{MEASUREMENTS, Measurement};
use kind::Kind;
use ladder::{LADDER, Step};
use pair::{CORE, Found, RUNTIMES};
use report::{Ended, Report};
use results::Results;
use survive::{SURVIVALS, Survival};

/// A check that may be repeated.
struct Check {
    name: String,
    work: Work,
    runtimes: [&'static str; 2],
}

enum Work {
    Pair([Kind; 2]),
    Step(Step),
    Survival(Survival),
    Event(Event),
    Kernel(Measurement),
}

impl Check {
    fn run(&self, arguments: &Arguments) -> Option<Found> {
        world::run_on(self.runtimes);
        match self.work {
            Work::Pair(kinds) => Some(pair::run(kinds, self.runtimes, arguments.mebibytes)),
            Work::Step(step) => {
                step.run(arguments);
                None
            }
            Work::Kernel(measure) => {
                measure();
                None
            }
            Work::Survival(event) | Work::Event(event) => {
                event(arguments);
                None
            }
        }
    }

    /// How often it is run.
    fn runs(&self, arguments: &Arguments) -> usize {
        match self.work {
            _ if arguments.runs == 1 => 1,
            // The kernel is the same each time, and so is what runtimes are told to do.
            Work::Kernel(_) => 1,
            _ if self.runtimes != USUAL => 1,
            Work::Survival(_) | Work::Event(_) => 2 * arguments.runs,
            Work::Pair(_) | Work::Step(_) => arguments.runs,
        }
    }

    /// How often it is still to be run.
    fn left(&self, arguments: &Arguments, report: &Report) -> usize {
        self.runs(arguments).saturating_sub(report.count(&self.name))
    }

    /// Whether it leaves the processors to others.
    fn only_waits(&self) -> bool {
        match self.work {
            Work::Pair([a, b]) => expected::expected(a, b).rung.is_none(),
            Work::Kernel(_) => true,
            Work::Step(_) | Work::Survival(_) | Work::Event(_) => false,
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut checks = all(arguments.full);
    let mut report = Report::new(checks.iter().map(|check| check.name.clone()));
    checks.retain(|check| check.name.contains(&arguments.filter));
    if let Err(missing) = possible() {
        checks.iter().for_each(|check| println!("{} ... skipped: {missing}", check.name));
        println!("\nlab: 0 passed; 0 failed; {} skipped", checks.len());
        return ExitCode::SUCCESS;
    }
    netns::sweep_dead();
    netns::sweep_on_signals();
    let results = arguments.results.as_ref().map(|path| Results::open(path, &arguments)).transpose();
    let mut results = match results {
        Ok(results) => results,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    // Those of other checks belong into the table too.
    for (check, ended) in results.iter_mut().flat_map(|results| results.earlier.drain(..)) {
        report.add(&check, ended);
    }
    let report = run(&checks, &arguments, report, results);
    let failed = report.failed();
    println!("\nlab: {} passed; {failed} failed; 0 skipped", report.passed());
    let left: usize = checks.iter().map(|check| check.left(&arguments, &report)).sum();
    if left > 0 {
        println!("lab: {left} runs are left: run it again");
    }
    if let Some(file) = &arguments.table {
        report.write(Path::new(file), &arguments);
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All checks; `full` has them on every runtime, and else a core of the pairs.
fn all(full: bool) -> Vec<Check> {
    let mut checks = on(USUAL);
    let kernel = |(name, measure): (&str, _)| (name.to_owned(), Work::Kernel(measure));
    let kernel = MEASUREMENTS.map(kernel).map(|(name, work)| Check { name, work, runtimes: USUAL });
    checks.extend(kernel);
    for runtimes in RUNTIMES {
        let mut others = on(runtimes);
        let in_core = |check: &Check| matches!(check.work, Work::Pair(kinds) if CORE.contains(&kinds));
        others.retain(|check| full || in_core(check));
        for check in others {
            let name = format!("runtimes {}: {}", runtimes.join(" and "), check.name);
            checks.push(Check { name, ..check });
        }
    }
    checks
}

/// All checks but those of the kernel, on these runtimes.
fn on(runtimes: [&'static str; 2]) -> Vec<Check> {
    let mut works: Vec<(String, Work)> = Vec::new();
    for (index, a) in Kind::ALL.into_iter().enumerate() {
        let row = Kind::ALL.into_iter().skip(index);
        works.extend(row.map(|b| (format!("pair {a} x {b}"), Work::Pair([a, b]))));
    }
    works.extend(LADDER.map(|step| (step.name(), Work::Step(step))));
    works.extend(SURVIVALS.map(|(name, survival)| (name.to_owned(), Work::Survival(survival))));
    works.extend(EVENTS.map(|(name, event)| (name.to_owned(), Work::Event(event))));
    works.into_iter().map(|(name, work)| Check { name, work, runtimes }).collect()
}

/// Runs them as often as is left to do, each once before any is run again: those that only wait beside each other,
/// the others [`AT_ONCE`] at a time.
fn run(checks: &[Check], arguments: &Arguments, report: Report, results: Option<Results>) -> Report {
    let end = arguments.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes as u64));
    let is_time = || end.is_none_or(|end| Instant::now() < end);
    let (waiting, busy): (Vec<_>, Vec<_>) = checks
        .iter()
        .map(|check| (check, check.left(arguments, &report)))
        .partition(|(check, _)| check.only_waits());
    let noted = Mutex::new((report, results));
    for (checks, at_once) in [(waiting, WAITING_AT_ONCE), (busy, AT_ONCE)] {
        let most = checks.iter().map(|(_, left)| *left).max().unwrap_or(0);
        let round = |round| checks.iter().filter(move |(_, left)| *left > round).map(|(check, _)| *check);
        let runs: Vec<&Check> = (0..most).flat_map(round).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while is_time()
                        && let Some(check) = runs.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let start = Instant::now();
                        let ended = match catch_unwind(AssertUnwindSafe(|| check.run(arguments))) {
                            Ok(found) => Ended::Well(found),
                            Err(_) => Ended::Badly,
                        };
                        println!("{} ... {}", check.name, ended.line(start.elapsed()));
                        let (report, results) = &mut *noted.lock().unwrap();
                        if let Some(results) = results {
                            results.add(&check.name, &ended);
                        }
                        report.add(&check.name, ended);
                    }
                });
            }
        });
    }
    noted.into_inner().unwrap().0
}

/// Whether the lab can be run here; if not, what is missing.
fn possible() -> Result<(), String> {
    let missing: Vec<_> = NEEDS.iter().copied().filter(|program| !is_installed(program)).collect();
    if !missing.is_empty() {
        return Err(format!("needs {}", missing.join(", ")));
    }
    netns::may()
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

const NEEDS: [&str; 6] = ["ip", "nft", "conntrack", "tc", "ssh", "ssh-keygen"];

/// What programs run on by default.
const USUAL: [&str; 2] = ["tokio", "tokio"];
/// How many checks run at the same time: each keeps a core busy while it copies.
const AT_ONCE: usize = 2;
/// The same for checks that wait for something to fail.
const WAITING_AT_ONCE: usize = 12;
