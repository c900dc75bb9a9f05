//! The table of NAT pairs: which rung is expected between two nodes, which is reached, and how long the
//! first byte takes.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_sim::nat::Preset;
use inp2p_sim::oracle;
use inp2p_sim::run::{Half, Keep, meetings, run};
use inp2p_sim::scenario::{Forward, Manner, Node, Scenario, Stream};

use crate::parallel::in_parallel;
use crate::punching::pair;

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
        ..Scenario::default()
    };
    let report = run(&scenario, Keep::Nothing);
    let (expected, reached) = (oracle::expected(&scenario, 0, 1), report.rungs.first().copied().flatten());
    let wish = reached.map(|_| wish(own, peer));
    let is_soon = wish.is_none_or(|trips| most_trips(own, peer, reached).is_none_or(|most| trips <= most));
    let fits = expected == reached && report.problems.is_empty() && is_soon;
    let name = |rung: Option<Rung>| rung.map_or("none", |rung| rung.as_str());
    let trips = |half: &Half| {
        half.first
            .map_or_else(|| "never".to_owned(), |first| format!("{:.1}", first.as_secs_f64() / ROUND_TRIP))
    };
    let mut cell = match reached {
        None => "none".to_owned(),
        Some(rung) => {
            let times: Vec<String> = report.streams.iter().map(|(_, record)| trips(&record.client)).collect();
            let late = if is_soon { "" } else { " (**late**)" };
            format!("{rung} {:.1}{late} / {}", wish.unwrap_or(f64::INFINITY), times.join(" / "))
        }
    };
    if expected != reached {
        let _ = write!(cell, " (**expected {}**)", name(expected));
    }
    if !fits {
        eprintln!("{own} to {peer}: expected {}, reached {}\n{report}", name(expected), name(reached));
    }
    (cell, fits)
}

/// From the wish for the peer to the first byte at the target, in round trips: the median.
fn wish(own: Preset, peer: Preset) -> f64 {
    let all = in_parallel(SEEDS, |seed| {
        let meetings = meetings(&pair(own, peer, 0, seed), Duration::from_secs(30));
        meetings.into_iter().next().flatten().and_then(|meeting| meeting.first_byte)
    });
    let mut times: Vec<Duration> = all.into_iter().map(|time| time.unwrap_or(Duration::MAX)).collect();
    times.sort();
    times[times.len() / 2].as_secs_f64() / ROUND_TRIP
}

/// How many round trips that may take: three where one of the two is reached at its own address, and half a one
/// more where its peer's port has to show first; four where both are behind a NAT with one mapping for all. The
/// page says where they go.
fn most_trips(own: Preset, peer: Preset, reached: Option<Rung>) -> Option<f64> {
    use Preset::{
        AddressRestricted, Bare, Cgnat, FullCone, PortRestricted, SymmetricRandom, SymmetricSequential,
    };
    let is_cone = |preset| matches!(preset, FullCone | AddressRestricted | PortRestricted | Bare | Cgnat);
    match reached? {
        Rung::UdpDirect if matches!(own, SymmetricSequential | SymmetricRandom) => Some(3.55),
        Rung::UdpDirect => Some(3.05),
        Rung::UdpPunch if is_cone(own) && is_cone(peer) => Some(4.05),
        _ => None,
    }
}

/// As many as make the median a figure of the pair, whichever of the two has the lower key.
const SEEDS: u64 = 25;

/// All lines are of ten milliseconds: twenty from anybody to anybody, and twenty back.
const ROUND_TRIP: f64 = 0.04;

const BEGIN: &str = "<!-- nat-table: begin; made by `just nat-table` -->";
const END: &str = "<!-- nat-table: end -->";

const INTRODUCTION: &str = "
What the simulator finds between two nodes that are each behind a NAT of this kind, with the rungs that this
version has. Rows: the node with the forward; columns: its peer. Each cell has the rung, which is the best one
possible (a pair for which that is not so is marked), and three times in round trips between the nodes: from the
node's request to the server (`ConnectReq`) to the first byte of a waiting local program at the target, the median
of 25 seeds; from a local program's connection to the first byte of the answer, when both nodes start at that
moment and have yet to log in; and the same when they have a link. `none`: no rung of this version leads there,
and connections are refused with a reason.

";
