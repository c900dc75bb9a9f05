//! The table of NAT pairs: which rung is expected between two nodes, which is reached, and how long the
//! first byte takes.

use std::fmt::Write as _;
use std::fs;

use inp2p_sim::nat::Preset;
use inp2p_sim::oracle;
use inp2p_sim::run::{Half, Keep, run};
use inp2p_sim::scenario::{Forward, Manner, Node, Scenario, Stream};

/// Puts the table into the page, at its end if it has no place for it; a page that is not there is made.
pub(crate) fn write(page: &str) -> Result<bool, String> {
    let old = match fs::read_to_string(page) {
        Ok(old) if old.contains(BEGIN) => old,
        Ok(old) => format!("{old}\n## What the simulator reaches\n\n{BEGIN}\n{END}\n"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("# NATs\n\n{BEGIN}\n{END}\n"),
        Err(error) => return Err(format!("{page}: {error}")),
    };
    let (table, as_expected) = table();
    fs::write(page, with(&old, &table)?).map_err(|error| format!("{page}: {error}"))?;
    Ok(as_expected)
}

/// Whether the page has the table as it is.
pub(crate) fn check(page: &str) -> Result<bool, String> {
    let old = fs::read_to_string(page).map_err(|error| format!("{page}: {error}"))?;
    let (table, as_expected) = table();
    if with(&old, &table)? != old {
        return Err(format!("the table in {page} is not what the simulator finds: run `just nat-table`"));
    }
    Ok(as_expected)
}

/// The page with this table between the marks.
fn with(page: &str, table: &str) -> Result<String, String> {
    let (before, rest) = page.split_once(BEGIN).ok_or_else(|| format!("the page has no mark {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("the page has no mark {END}"))?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

/// The table, and whether every pair is on the rung that the oracle says.
fn table() -> (String, bool) {
    let mut text = String::from(INTRODUCTION);
    let mut as_expected = true;
    // Writing to a String cannot fail.
    let _ = write!(text, "| |");
    for peer in Preset::ALL {
        let _ = write!(text, " {peer} |");
    }
    let _ = write!(text, "\n|---|{}\n", "---|".repeat(Preset::ALL.len()));
    for own in Preset::ALL {
        let _ = write!(text, "| **{own}** |");
        for peer in Preset::ALL {
            let (cell, fits) = cell(own, peer);
            as_expected &= fits;
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text.push('\n');
    (text, as_expected)
}

fn cell(own: Preset, peer: Preset) -> (String, bool) {
    // One that waits for everything from the start; the run's own last try finds a link.
    let early = Stream { forward: 0, at: 0, up: 1, down: 1, manner: Manner::Orderly };
    let scenario = Scenario {
        seed: 1,
        server_relay: false,
        nodes: vec![Node::behind(own), Node::behind(peer)],
        forwards: vec![Forward { from: 0, to: 1 }],
        streams: vec![early],
        faults: Vec::new(),
    };
    let report = run(&scenario, Keep::Nothing);
    let (expected, reached) = (oracle::best(&scenario, 0, 1), report.rungs.first().copied().flatten());
    let lucky = reached.is_some_and(|rung| oracle::is_luck(&scenario, &scenario.forwards[0], rung, expected));
    let fits = (expected == reached || lucky) && report.problems.is_empty();
    let name = |rung: Option<inp2p_core::path::Rung>| rung.map_or("none", |rung| rung.as_str());
    let trips = |half: &Half| {
        half.first
            .map_or_else(|| "never".to_owned(), |first| format!("{:.1}", first.as_secs_f64() / ROUND_TRIP))
    };
    let mut cell = match reached {
        None => "none".to_owned(),
        Some(rung) => {
            let times: Vec<String> = report.streams.iter().map(|(_, record)| trips(&record.client)).collect();
            format!("{rung} {}", times.join(" / "))
        }
    };
    if expected != reached && !lucky {
        let _ = write!(cell, " (**expected {}**)", name(expected));
    }
    if !fits {
        eprintln!("{own} to {peer}: expected {}, reached {}\n{report}", name(expected), name(reached));
    }
    (cell, fits)
}

/// All lines are of ten milliseconds: twenty from anybody to anybody, and twenty back.
const ROUND_TRIP: f64 = 0.04;

const BEGIN: &str = "<!-- nat-table: begin; made by `just nat-table` -->";
const END: &str = "<!-- nat-table: end -->";

const INTRODUCTION: &str = "
What the simulator finds between two nodes that are each behind a NAT of this kind, with the rungs that this
version has. Rows: the node with the forward; columns: its peer. Each cell has the rung, which is the best one
possible (a pair for which that is not so is marked), and the time from a local program's connection to the
first byte of the answer, in round trips between the nodes: when both nodes start at that moment and have yet
to log in, and when they have a link. `none`: no rung of this version leads there, and connections are
refused with a reason.

";
