//! Sweeps scenarios, replays one, and writes the table of NAT pairs.
//!
//! ```text
//! sim sweep SEEDS [FIRST]     runs so many seeds on all processors; ends with one line `hash HEX`
//! sim deaths SEEDS [FIRST]    runs so many flows whose links die, and says how long they stand still
//! sim replay SEED|'SCENARIO'  runs one and shows all that happened
//! sim shrink SEED             makes a scenario that fails as small as it can be
//! sim punching SEEDS [NAT]    how often and how soon each pair of NATs is punched, over so many seeds
//! sim meet 'SCENARIO'         what the wishes of node 0 come to, for each of its forwards
//! sim nat-table FILE          writes the table of NAT pairs between its marks in a page
//! sim nat-table-check FILE    says whether the page has the table as it is
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the result is for people")]

mod deaths;
mod pairs;
mod parallel;
mod punching;

use std::io::{IsTerminal as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use inp2p_sim::run::{Keep, Report, run};
use inp2p_sim::scenario::Scenario;
use parallel::in_parallel;
use proptest::strategy::ValueTree;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["sweep", count] => number(count).map(|count| sweep(0, count)),
        ["sweep", count, first] => number(count).and_then(|count| Ok(sweep(number(first)?, count))),
        ["deaths", count] => number(count).map(|count| deaths::sweep(0, count, judged)),
        ["deaths", count, first] => {
            number(count).and_then(|count| Ok(deaths::sweep(number(first)?, count, judged)))
        }
        ["replay", what] => scenario(what).map(|scenario| replay(&scenario)),
        ["punching", seeds] => number(seeds).map(|seeds| punching::punching(seeds, None)),
        ["punching", seeds, of] => {
            number(seeds).and_then(|seeds| Ok(punching::punching(seeds, Some(of.parse()?))))
        }
        ["meet", what] => scenario(what).map(|scenario| meet(&scenario)),
        ["shrink", seed] => number(seed).map(shrink),
        ["nat-table", page] => pairs::write(page),
        ["nat-table-check", page] => pairs::check(page),
        _ => {
            Err("usage: sim sweep SEEDS [FIRST] | deaths SEEDS [FIRST] | replay SEED|SCENARIO | shrink SEED \
             | punching SEEDS [NAT] | meet SCENARIO \
             | nat-table[-check] FILE"
                .to_owned())
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn scenario(text: &str) -> Result<Scenario, String> {
    match text.parse() {
        Ok(seed) => Ok(Scenario::generate(seed)),
        Err(_) => text.parse().map_err(|error| format!("{error}")),
    }
}

/// A panic is a problem like any other.
fn judged(scenario: &Scenario, keep: Keep) -> Report {
    catch_unwind(AssertUnwindSafe(|| run(scenario, keep))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("for no reason given");
        Report { problems: vec![format!("it panicked: {text}")], ..Report::default() }
    })
}

/// What the threads of a sweep share.
#[derive(Default)]
struct Sum {
    hash: u64,
    events: u64,
    simulated: Duration,
    failed: Vec<u64>,
}

fn sweep(first: u64, count: u64) -> bool {
    let begun = Instant::now();
    let sum = Mutex::new(Sum::default());
    in_parallel(count, |done| {
        let seed = first + done;
        let report = judged(&Scenario::generate(seed), Keep::Nothing);
        add(&mut sum.lock().unwrap_or_else(PoisonError::into_inner), seed, &report);
        progress(done + 1, count, begun);
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failed.sort_unstable();
    let took = begun.elapsed();
    let ratio = sum.simulated.as_secs_f64() / took.as_secs_f64();
    println!(
        "{count} seeds from {first} in {took:.1?}: {} events, {ratio:.0} x real time, {} failed {:?}",
        sum.events,
        sum.failed.len(),
        &sum.failed[..sum.failed.len().min(50)]
    );
    println!("hash {:016x}", sum.hash);
    sum.failed.is_empty()
}

fn add(sum: &mut Sum, seed: u64, report: &Report) {
    // In any order, since the threads finish in any: each is spread by its seed, then all are summed.
    let spread = (report.hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd134_2543_de82_ef95);
    sum.hash = sum.hash.wrapping_add(spread ^ spread >> 32);
    sum.events += report.events;
    sum.simulated += report.simulated;
    if !report.problems.is_empty() {
        sum.failed.push(seed);
        let scenario = Scenario::generate(seed);
        eprintln!("\nseed {seed} fails:\n{report}  to see it: just sim-replay {seed}");
        eprintln!("  as a test: #[test] fn seed_{seed}() {{ holds(\"{scenario}\"); }}");
    }
}

fn progress(done: u64, count: u64, begun: Instant) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{done} of {count} seeds, {:.0?}", begun.elapsed());
        let _ = std::io::stderr().flush();
    } else if done.is_multiple_of(500) {
        eprintln!("{done} of {count} seeds, {:.0?}", begun.elapsed());
    }
}

fn replay(scenario: &Scenario) -> bool {
    let report = judged(scenario, Keep::Timeline);
    print!("{}", report.timeline);
    println!("\n{scenario}\n{} events, hash {:016x}", report.events, report.hash);
    for (at, (stream, record)) in report.streams.iter().enumerate() {
        println!("stream {at}: {stream:?}\n  {:?}\n  {:?}", record.client, record.target);
    }
    print!("{report}");
    report.problems.is_empty()
}

fn meet(scenario: &Scenario) -> bool {
    let meetings = inp2p_sim::run::meetings(scenario, Duration::from_secs(30));
    meetings.iter().for_each(|meeting| println!("{meeting:?}"));
    meetings.iter().all(Option::is_some)
}

fn shrink(seed: u64) -> bool {
    let fails = |scenario: &Scenario| !judged(scenario, Keep::Nothing).problems.is_empty();
    let mut tree = Scenario::tree(seed);
    let mut smallest = tree.current();
    if !fails(&smallest) {
        println!("seed {seed} does not fail");
        return true;
    }
    let mut moved = tree.simplify();
    let mut tries = 0;
    while moved && tries < MOST_TRIES {
        tries += 1;
        let current = tree.current();
        if fails(&current) {
            smallest = current;
            moved = tree.simplify();
        } else {
            moved = tree.complicate();
        }
    }
    println!("after {tries} tries:\n{smallest}");
    print!("{}", judged(&smallest, Keep::Nothing));
    false
}

/// A run takes some ten milliseconds.
const MOST_TRIES: u32 = 3_000;
