//! The file that a long run is kept in, a line a run, so that it can be made in slices.
//!
//! Its first line says what was run: results of other programs, or of another kernel, are not mixed with these.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::arguments::Arguments;
use crate::pair::Found;
use crate::report::Ended;

/// The file, and what was in it.
#[derive(Debug)]
pub(crate) struct Results {
    file: File,
    /// By check, in the order in which they were run.
    pub(crate) earlier: Vec<(String, Ended)>,
}

impl Results {
    /// Opens the file, or begins it.
    ///
    /// # Errors
    /// If it cannot be opened, or holds something else.
    pub(crate) fn open(path: &str, arguments: &Arguments) -> Result<Self, String> {
        let explain = |error: std::io::Error| format!("{path}: {error}");
        if let Some(folder) = Path::new(path).parent() {
            fs::create_dir_all(folder).map_err(explain)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(explain)?;
        let text = fs::read_to_string(path).map_err(explain)?;
        let head = head(arguments);
        let mut lines = text.lines();
        match lines.next() {
            None => writeln!(file, "{head}").map_err(explain)?,
            Some(known) if known == head => {}
            Some(known) => {
                return Err(format!("{path} is of {known:?}, this is {head:?}: remove it to begin anew"));
            }
        }
        // The last line of a run that was killed may be half a line.
        Ok(Self { file, earlier: lines.filter_map(parse).collect() })
    }

    /// Notes a run.
    pub(crate) fn add(&mut self, check: &str, ended: &Ended) {
        let line = match ended {
            Ended::Badly => format!("{check}\tFAILED\t\t\t"),
            Ended::Well(None) => format!("{check}\tok\t\t\t"),
            Ended::Well(Some(Found { rung, connected, rate })) => {
                let rate = rate.map_or_else(String::new, |rate| format!("{rate:.0}"));
                format!("{check}\tok\t{rung}\t{}\t{rate}", connected.as_millis())
            }
        };
        writeln!(self.file, "{line}").unwrap();
    }
}

fn parse(line: &str) -> Option<(String, Ended)> {
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    let (check, word, rung, ms, rate) = (next()?, next()?, next()?, next()?, next()?);
    let ended = match (word, rung) {
        ("FAILED", _) => Ended::Badly,
        ("ok", "") => Ended::Well(None),
        ("ok", rung) => Ended::Well(Some(Found {
            rung: rung.to_owned(),
            connected: Duration::from_millis(ms.parse().ok()?),
            rate: rate.parse().ok(),
        })),
        _ => return None,
    };
    Some((check.to_owned(), ended))
}

/// What is run, and how.
fn head(arguments: &Arguments) -> String {
    let mut hasher = Sha256::new();
    for program in [env!("CARGO_BIN_EXE_inp2pc"), env!("CARGO_BIN_EXE_inp2ps")] {
        hasher.update(fs::read(program).unwrap());
    }
    let programs: String = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    format!("programs {programs}, Linux {}, {} MiB", kernel.trim(), arguments.mebibytes)
}
