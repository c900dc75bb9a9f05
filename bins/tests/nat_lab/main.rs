//! The real-NAT lab: the programs behind NATs of the Linux kernel, in network namespaces.
//!
//! `just lab` runs each check once, `just lab-full` as often as docs/lab.md says, and writes its table.
//! Without root, namespaces or the programs that it needs, everything is skipped by name and counted so.
//!
//! ```text
//! nat_lab [FILTER] [--full | --runs N --mib N] [--table FILE]
//! ```

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
mod netns;
mod pair;
mod report;
mod reports;
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
use std::time::Instant;

use arguments::Arguments;
use events::{EVENTS, Event};
use expected::RUNGS;
use kernel::{MEASUREMENTS, Measurement};
use kind::Kind;
use ladder::{LADDER, Step};
use pair::{CORE, Found, RUNTIMES};
use report::{Ended, Report};
use survive::{SURVIVALS, Survival};

/// A check that may be repeated.
struct Check {
    name: String,
    work: Work,
}

enum Work {
    Pair([Kind; 2], [&'static str; 2]),
    Step(Step),
    Survival(Survival),
    Event(Event),
    Kernel(Measurement),
}

impl Check {
    fn run(&self, arguments: &Arguments) -> Option<Found> {
        match self.work {
            Work::Pair(kinds, runtimes) => Some(pair::run(kinds, runtimes, arguments.mebibytes)),
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
            Work::Survival(_) if arguments.runs > 1 => 2 * arguments.runs,
            Work::Survival(_) | Work::Pair(..) | Work::Step(_) | Work::Kernel(_) | Work::Event(_) => {
                arguments.runs
            }
        }
    }

    /// Whether it leaves the processors to others.
    fn only_waits(&self) -> bool {
        match self.work {
            Work::Pair([a, b], _) => expected::expected(a, b).rung.is_none(),
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
    let checks: Vec<Check> =
        all().into_iter().filter(|check| check.name.contains(&arguments.filter)).collect();
    if let Err(missing) = possible() {
        checks.iter().for_each(|check| println!("{} ... skipped: {missing}", check.name));
        println!("\nlab: 0 passed; 0 failed; {} skipped", checks.len());
        return ExitCode::SUCCESS;
    }
    netns::sweep_dead();
    netns::sweep_on_signals();
    let report = run(&checks, &arguments);
    let failed = report.failed();
    println!("\nlab: {} passed; {failed} failed; 0 skipped", report.passed());
    if let Some(file) = &arguments.table {
        report.write(Path::new(file), &arguments);
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All checks.
fn all() -> Vec<Check> {
    let mut checks = Vec::new();
    for (index, a) in Kind::ALL.into_iter().enumerate() {
        for b in Kind::ALL.into_iter().skip(index) {
            checks.push(Check { name: format!("pair {a} x {b}"), work: Work::Pair([a, b], ["tokio"; 2]) });
        }
    }
    for runtimes in RUNTIMES {
        for [a, b] in CORE {
            let name = format!("runtimes {}: pair {a} x {b}", runtimes.join(" and "));
            checks.push(Check { name, work: Work::Pair([a, b], runtimes) });
        }
    }
    let kernel = |(name, measure): (&str, _)| Check { name: name.to_owned(), work: Work::Kernel(measure) };
    checks.extend(MEASUREMENTS.map(kernel));
    let steps = LADDER.into_iter().filter(|step| RUNGS.contains(&step.rung));
    checks.extend(steps.map(|step| Check { name: step.name(), work: Work::Step(step) }));
    for (name, survival, needs) in SURVIVALS {
        if needs.iter().all(|rung| RUNGS.contains(rung)) {
            checks.push(Check { name: name.to_owned(), work: Work::Survival(survival) });
        }
    }
    checks.extend(EVENTS.map(|(name, event)| Check { name: name.to_owned(), work: Work::Event(event) }));
    checks
}

/// Runs them: those that only wait beside each other, the others [`AT_ONCE`] at a time.
fn run(checks: &[Check], arguments: &Arguments) -> Report {
    let report = Mutex::new(Report::new(checks.iter().map(|check| check.name.clone())));
    let (waiting, busy): (Vec<_>, Vec<_>) = checks.iter().partition(|check| check.only_waits());
    for (checks, at_once) in [(waiting, WAITING_AT_ONCE), (busy, AT_ONCE)] {
        let runs: Vec<&Check> =
            checks.into_iter().flat_map(|check| vec![check; check.runs(arguments)]).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(check) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let start = Instant::now();
                        let ended = match catch_unwind(AssertUnwindSafe(|| check.run(arguments))) {
                            Ok(found) => Ended::Well(found),
                            Err(_) => Ended::Badly,
                        };
                        println!("{} ... {}", check.name, ended.line(start.elapsed()));
                        report.lock().unwrap().add(&check.name, ended);
                    }
                });
            }
        });
    }
    report.into_inner().unwrap()
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

/// How many checks run at the same time: each keeps a core busy while it copies.
const AT_ONCE: usize = 2;
/// The same for checks that wait for something to fail.
const WAITING_AT_ONCE: usize = 12;
