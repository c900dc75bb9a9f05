//! How often, how soon and at what cost pairs of NATs are punched, over many seeds: `sim punching SEEDS`.

use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_sim::nat::Preset;
use inp2p_sim::oracle::{self, Chance};
use inp2p_sim::run::{Meeting, meetings};
use inp2p_sim::scenario::{Forward, Line, Node, Scenario};

use crate::parallel::in_parallel;

/// What is asked of a pair.
#[derive(Debug, Clone, Copy)]
struct Demand {
    /// How many packets of a hundred get lost between the two, and of a thousand on either's line.
    loss: (u16, u16),
    /// Of a hundred seeds, within [`SOON`] and [`LATE`] after the wish.
    soon: f64,
    late: f64,
}

/// Runs so many seeds of every pair that can be punched, or of those of one NAT, prints a table, and says whether all
/// demands are met.
pub(crate) fn punching(seeds: u64, of: Option<Preset>) -> bool {
    println!("| pair | loss | in 10 s | in 30 s | median | 95 % | probes at most | in a second |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut met = true;
    for (at, own) in Preset::ALL.into_iter().enumerate() {
        for peer in Preset::ALL.into_iter().skip(at) {
            let pair = pair(own, peer, 0, 0);
            let chance = oracle::chance(&pair, 0, 1, Rung::UdpPunch);
            let direct = oracle::chance(&pair, 0, 1, Rung::UdpDirect) == Chance::Surely;
            let asked = of.is_none_or(|of| [own, peer].contains(&of));
            if !asked || direct || chance < Chance::Likely {
                continue;
            }
            for demand in DEMANDS {
                met &= row((own, peer), demand, seeds);
            }
        }
    }
    met
}

fn row((own, peer): (Preset, Preset), demand: Demand, seeds: u64) -> bool {
    let all = in_parallel(seeds, |seed| {
        meetings(&pair(own, peer, demand.loss.1, seed), LATE).pop().flatten().unwrap_or_default()
    });
    let mut times: Vec<Option<Duration>> =
        all.iter().map(|meeting| meeting.reached(Rung::UdpPunch)).collect();
    // Those that were never reached are the last.
    times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
    let share = |within: Duration| {
        let count = times.iter().flatten().filter(|time| **time <= within).count();
        count as f64 * 100.0 / times.len().max(1) as f64
    };
    let at = |percent: usize| match times.get((times.len() * percent).div_ceil(100).saturating_sub(1)) {
        Some(Some(time)) => format!("{:.2} s", time.as_secs_f64()),
        Some(None) | None => "never".to_owned(),
    };
    let most = |of: fn(&Meeting) -> usize| all.iter().map(of).max().unwrap_or_default();
    let (probes, busiest) = (most(|meeting| meeting.probes), most(|meeting| meeting.busiest));
    let fits = share(SOON) >= demand.soon && share(LATE) >= demand.late && busiest <= PROBES_A_SECOND;
    let mark = if fits { "" } else { " **too few**" };
    println!(
        "| {own}, {peer} | {} % | {:.1} %{mark} | {:.1} % | {} | {} | {probes} | {busiest} |",
        demand.loss.0,
        share(SOON),
        share(LATE),
        at(50),
        at(95),
    );
    if !fits {
        let late = all
            .iter()
            .enumerate()
            .filter(|(_, one)| one.reached(Rung::UdpPunch).is_none_or(|time| time > SOON));
        let seeds: Vec<usize> = late.map(|(seed, _)| seed).take(20).collect();
        println!(
            "  late or never with seeds {seeds:?}, as in: sim meet '{}'",
            pair(own, peer, demand.loss.1, 0)
        );
    }
    fits
}

/// Two nodes on lines that lose so many packets of a thousand each.
pub(crate) fn pair(own: Preset, peer: Preset, loss: u16, seed: u64) -> Scenario {
    let node = |preset| Node { line: Line { loss, ..Line::default() }, ..Node::behind(preset) };
    Scenario {
        seed,
        nodes: vec![node(own), node(peer)],
        forwards: vec![Forward { from: 0, to: 1 }],
        ..Scenario::default()
    }
}

/// What the lines lose, the connections to the server lose too, so one side may hear late of an attempt, or of what
/// the other one is behind: what is lost then is made up for by the next one.
const DEMANDS: [Demand; 3] = [
    Demand { loss: (0, 0), soon: 98.0, late: 99.0 },
    Demand { loss: (5, 25), soon: 98.0, late: 99.0 },
    Demand { loss: (20, 106), soon: 95.0, late: 98.0 },
];

const SOON: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(30);

/// The bound of an attempt; and a few requests to where the peer was heard.
const PROBES_A_SECOND: usize = 220;
