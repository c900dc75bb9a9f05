//! What came of the checks, as lines and as the table of docs/lab.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::lab::process::Ran;
use crate::pair::Found;

/// How one run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Well(Option<Found>),
    Badly,
}

/// All runs, by check.
#[derive(Debug)]
pub(crate) struct Report {
    checks: Vec<(String, Vec<Ended>)>,
}

impl Ended {
    /// For the terminal.
    pub(crate) fn line(&self, took: Duration) -> String {
        let took = took.as_secs_f64();
        match self {
            Self::Well(Some(found)) => {
                let rate = found.rate.map_or_else(String::new, |rate| format!(", {:.0} MB/s", rate / 1e6));
                let after = found.connected.as_secs_f64();
                format!("ok, {} after {after:.2} s{rate} ({took:.1} s in all)", found.rung)
            }
            Self::Well(None) => format!("ok, {took:.1} s"),
            Self::Badly => format!("FAILED, {took:.1} s"),
        }
    }
}

impl Report {
    /// For these checks, in this order.
    pub(crate) fn new(names: impl Iterator<Item = String>) -> Self {
        Self { checks: names.map(|name| (name, Vec::new())).collect() }
    }

    /// Notes a run.
    pub(crate) fn add(&mut self, check: &str, ended: Ended) {
        if let Some((_, runs)) = self.checks.iter_mut().find(|(name, _)| name == check) {
            runs.push(ended);
        }
    }

    /// Runs that ended well.
    pub(crate) fn passed(&self) -> usize {
        self.runs() - self.failed()
    }

    /// Runs that did not.
    pub(crate) fn failed(&self) -> usize {
        let runs = self.checks.iter().flat_map(|(_, runs)| runs);
        runs.filter(|ended| matches!(ended, Ended::Badly)).count()
    }

    /// How many runs of a check there are.
    pub(crate) fn count(&self, check: &str) -> usize {
        self.checks.iter().find(|(name, _)| name == check).map_or(0, |(_, runs)| runs.len())
    }

    /// All runs.
    pub(crate) fn runs(&self) -> usize {
        self.checks.iter().map(|(_, runs)| runs.len()).sum()
    }

    /// Puts the table between the marks of a file.
    pub(crate) fn write(&self, file: &Path, arguments: &Arguments) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let marked = text.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
        let (head, tail) = marked.unwrap_or_else(|| panic!("{} has no place for a table", file.display()));
        fs::write(file, format!("{head}{BEGIN}\n\n{}\n{END}{tail}", self.table(arguments))).unwrap();
    }

    fn table(&self, arguments: &Arguments) -> String {
        let said = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words);
            Ran::of(command).stdout.trim().to_owned()
        };
        let mut table = format!(
            "{}, Linux {}. Wanted are {} runs of each pair and rung, {} of each event (with ten times the bytes where something is survived), one of each on other runtimes; {} MiB each way in each run. So far {} runs, {} of them failed.\n\n\
             | check | rung | ended well | link after: median, longest | MB/s, both ways together: median |\n\
             |---|---|---|---|---|\n",
            said("date", &["-u", "+%Y-%m-%d"]),
            said("uname", &["-r"]),
            arguments.runs,
            2 * arguments.runs,
            arguments.mebibytes,
            self.runs(),
            self.failed(),
        );
        for (name, runs) in self.checks.iter().filter(|(_, runs)| !runs.is_empty()) {
            let found: Vec<&Found> = runs
                .iter()
                .filter_map(|run| match run {
                    Ended::Well(found) => found.as_ref(),
                    Ended::Badly => None,
                })
                .collect();
            let well = runs.iter().filter(|run| matches!(run, Ended::Well(_))).count();
            let rung = found.first().map_or("", |found| found.rung.as_str());
            let linked: Vec<f64> = found
                .iter()
                .filter(|found| found.rate.is_some())
                .map(|found| found.connected.as_secs_f64())
                .collect();
            let after = sorted(linked).map_or_else(String::new, |all| {
                format!("{:.2} s, {:.2} s", all[all.len() / 2], all[all.len() - 1])
            });
            let rate = sorted(found.iter().filter_map(|found| found.rate).collect())
                .map_or_else(String::new, |all| format!("{:.0}", all[all.len() / 2] / 1e6));
            let _ = writeln!(table, "| {name} | {rung} | {well} of {} | {after} | {rate} |", runs.len());
        }
        table
    }
}

/// In order; none if there are none.
fn sorted(mut all: Vec<f64>) -> Option<Vec<f64>> {
    all.sort_by(f64::total_cmp);
    (!all.is_empty()).then_some(all)
}

const BEGIN: &str = "<!-- lab-table: begin; made by `just lab-full` -->";
const END: &str = "<!-- lab-table: end -->";
