//! Sweeps what kills links under a flow of bytes, and says how long the flow stood still: relays that die, direct
//! links that die, roaming, lines that are cut, NATs that forget, carriers that police UDP.
//!
//! The judge of every run sees to it that no byte is lost or doubled. Here it is added how long a flow may stand
//! still, when it has to be on its best rung again, and that the session does not run to and fro.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use inp2p_core::path::Rung;
use inp2p_sim::run::{End, Keep, Report};
use inp2p_sim::scenario::Scenario;

use crate::parallel::in_parallel;

/// What dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Relay,
    Direct,
    RoamUdp,
    RoamTcp,
    Outage,
    Forgotten,
    Policed,
    Serverless,
}

/// All of them, with how long the flow may stand still.
const DEATHS: [(Death, Limit); 8] = [
    (Death::Relay, Limit { most: 4_500, all: 5_000 }),
    (Death::Direct, Limit { most: 4_500, all: 5_500 }),
    (Death::RoamUdp, Limit { most: 3_000, all: 5_000 }),
    (Death::RoamTcp, Limit { most: 4_500, all: 6_000 }),
    (Death::Outage, Limit { most: 3_000, all: 5_500 }),
    (Death::Forgotten, Limit { most: 2_000, all: 3_000 }),
    (Death::Policed, Limit { most: 5_000, all: 6_000 }),
    (Death::Serverless, Limit { most: 3_000, all: 5_000 }),
];

/// In milliseconds, on top of how long nothing can get through.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// Of nineteen runs in twenty.
    most: u64,
    /// Of every run.
    all: u64,
}

/// A run, and what else is known of it.
struct Case {
    line: String,
    /// How long nothing can get through.
    outage: Duration,
    /// From when on the best rung is possible again.
    healed: Duration,
}

/// What came of one.
struct Outcome {
    seed: u64,
    death: usize,
    stall: Duration,
    problems: Vec<String>,
    line: String,
}

/// Runs so many seeds on all processors. Whether all is as it has to be.
pub(crate) fn sweep(first: u64, count: u64, judged: impl Fn(&Scenario, Keep) -> Report + Sync) -> bool {
    let begun = Instant::now();
    let outcomes = in_parallel(count, |done| {
        let outcome = outcome(first + done, &judged);
        super::progress(done + 1, count, begun);
        outcome
    });
    println!("{count} seeds from {first} in {:.0?}", begun.elapsed());
    let mut good = true;
    for (at, (death, limit)) in DEATHS.iter().enumerate() {
        let runs: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.death == at).collect();
        good &= table(*death, *limit, &runs);
    }
    good
}

/// Shows what came of one kind.
fn table(death: Death, limit: Limit, runs: &[&Outcome]) -> bool {
    if runs.is_empty() {
        return true;
    }
    let mut stalls: Vec<(Duration, u64)> = runs.iter().map(|run| (run.stall, run.seed)).collect();
    stalls.sort();
    let share = |of_hundred: usize| stalls[(stalls.len() * of_hundred).div_ceil(100).max(1) - 1].0;
    let failed: Vec<&&Outcome> = runs.iter().filter(|run| !run.problems.is_empty()).collect();
    let (worst, _) = stalls[stalls.len() - 1];
    let within = |stall: Duration, limit: u64| stall <= Duration::from_millis(limit);
    let holds = within(share(95), limit.most) && within(worst, limit.all);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{:<10} {:>6} runs, stall 50 % {:.2?}, 95 % {:.2?}, all {worst:.2?} ({:.1?} and {:.1?} at most: {}), {} failed",
        format!("{death:?}"),
        runs.len(),
        share(50),
        share(95),
        Duration::from_millis(limit.most),
        Duration::from_millis(limit.all),
        if holds { "yes" } else { "NO" },
        failed.len()
    );
    println!("{text}");
    for run in failed.iter().take(SHOWN) {
        println!("  seed {}: {}\n    {}", run.seed, run.problems.join("\n    "), run.line);
    }
    let shown = if within(share(95), limit.most) { limit.all } else { limit.most };
    for (stall, seed) in stalls.iter().rev().take(SHOWN).filter(|(stall, _)| !within(*stall, shown)) {
        println!("  seed {seed} stalls for {stall:.2?}\n    {}", case(*seed).1.line);
    }
    holds && failed.is_empty()
}

fn outcome(seed: u64, judged: impl Fn(&Scenario, Keep) -> Report) -> Outcome {
    let (death, case) = case(seed);
    let scenario: Scenario = match case.line.parse() {
        Ok(scenario) => scenario,
        Err(error) => {
            let problems = vec![format!("no scenario: {error}")];
            return Outcome { seed, death, stall: Duration::ZERO, problems, line: case.line };
        }
    };
    let report = judged(&scenario, Keep::Nothing);
    let mut problems = report.problems.clone();
    let mut stall = Duration::ZERO;
    if let Some((_, record)) = report.streams.first() {
        stall = record.target.stall.saturating_sub(case.outage);
        if record.client.end != End::Done {
            problems.push(format!("the flow did not end: {:?}", record.client.end));
        }
    }
    if let Some(links) = report.links.first() {
        problems.extend(flaps(links));
        problems.extend(late(links, report.rungs.first().copied().flatten(), case.healed));
    }
    Outcome { seed, death, stall, problems, line: case.line }
}

/// A session that works goes to another link once in ten seconds at most; what replaces a link that is gone, and
/// the better link that its race brings a moment later, are no choice.
fn flaps(links: &[(Duration, Option<Rung>)]) -> Option<String> {
    let promotions: Vec<Duration> = links
        .windows(2)
        .filter(|pair| matches!((pair[0].1, pair[1].1), (Some(before), Some(after)) if after < before))
        .map(|pair| pair[1].0)
        .collect();
    let often = promotions.windows(2).any(|pair| pair[1] - pair[0] < SETTLED);
    let ups: Vec<Duration> = links.iter().filter(|(_, rung)| rung.is_some()).map(|(at, _)| *at).collect();
    let wild = ups.windows(4).any(|four| four[3] - four[0] < SETTLED);
    (often || wild).then(|| format!("it flaps: {}", shown(links)))
}

/// Within a minute after that is possible the session is on the rung on which it ends.
fn late(links: &[(Duration, Option<Rung>)], best: Option<Rung>, healed: Duration) -> Option<String> {
    let back = links.iter().rev().take_while(|(_, rung)| *rung == best).last()?.0;
    (back > healed + Duration::from_secs(60)).then(|| format!("late on {best:?}: {}", shown(links)))
}

fn shown(links: &[(Duration, Option<Rung>)]) -> String {
    let words = links.iter().map(|(at, rung)| format!("{at:.1?} {}", rung.map_or("none", Rung::as_str)));
    words.collect::<Vec<_>>().join(", ")
}

/// The case of a seed, and which death it is.
fn case(seed: u64) -> (usize, Case) {
    let mut chance = Chance(seed);
    let place = usize::try_from(seed % DEATHS.len() as u64).unwrap_or(0);
    let at = 17_000 + chance.below(6_000);
    // Bytes that flow evenly for twelve seconds, from 15 s on, whatever delays there are.
    let delays = [5, 10, 20, 40, 80];
    let mut line = |extra: &str| format!("delay {} {extra}", chance.pick(&delays));
    let (one, two, three) = (line("rate 2000"), line(""), line(""));
    let flow = "forward 0 1; stream 0 at 15000 up 3000000 down 100 orderly";
    let (mut outage, mut healed) = (0, at);
    let rest = match DEATHS[place].0 {
        Death::Relay => {
            let what = chance.pick(&["crash 2", "kill 2", "offline 2"]);
            let lasts = 20_000 + chance.below(60_000);
            healed = at + lasts;
            let relays = chance.pick(&["", "; node open relay"]);
            format!(
                "server relay; node symmetric-random {one}; node symmetric-random {two}; node open relay {three}\
                 {relays}; {flow}; fault at {at} for {lasts} {what}"
            )
        }
        Death::Direct => {
            let lasts = 10_000 + chance.below(40_000);
            healed = at + lasts;
            let (a, b) = chance.pick(&[
                ("open", "port-restricted"),
                ("port-restricted", "port-restricted"),
                ("full-cone", "symmetric-random"),
                ("open", "udp-blocked"),
            ]);
            format!(
                "server relay; node {a} {two}; node {b} {one}; {flow}; fault at {at} for {lasts} cut 0 1; \
                 fault at {at} for {lasts} cut 1 0"
            )
        }
        Death::RoamUdp => {
            let what = chance.pick(&[
                "roam 0",
                "roam 1",
                "move 1 cgnat",
                "move 1 port-restricted",
                "move 0 full-cone",
            ]);
            let b = chance.pick(&["port-restricted", "full-cone", "symmetric-random"]);
            format!("node open {two}; node {b} {one}; {flow}; fault at {at} {what}")
        }
        Death::RoamTcp => {
            let what = chance.pick(&["roam 0", "roam 1", "move 1 udp-blocked"]);
            format!("node open {two}; node udp-blocked {one}; {flow}; fault at {at} {what}")
        }
        Death::Outage => {
            outage = 500 + chance.below(9_000);
            healed = at + outage;
            let what = chance.pick(&["offline 0", "offline 1", "interface-down 1", "suspend 0"]);
            let b = chance.pick(&["port-restricted", "udp-blocked", "symmetric-random"]);
            format!("node open {two}; node {b} {one}; {flow}; fault at {at} for {outage} {what}")
        }
        Death::Forgotten => {
            let b = chance.pick(&["symmetric-random", "cgnat random", "port-restricted", "udp-blocked"]);
            format!("node open {two}; node {b} {one}; {flow}; fault at {at} nat-reboot 1")
        }
        Death::Serverless => {
            outage = 4_000 + chance.below(4_000);
            let lasts = outage;
            healed = at + lasts + 60_000;
            let (a, b) = chance.pick(&[
                ("open", "port-restricted"),
                ("open", "symmetric-random"),
                ("open", "udp-blocked"),
                ("full-cone", "port-restricted"),
                ("port-restricted", "port-restricted"),
            ]);
            let gone = chance.pick(&["kill server", "offline server"]);
            format!(
                "node {a} {two}; node {b} {one}; {flow}; fault at {} for 60000 {gone}; \
                 fault at {at} for {lasts} cut 0 1; fault at {at} for {lasts} cut 1 0",
                at - 1_000
            )
        }
        Death::Policed => {
            let lasts = 20_000 + chance.below(40_000);
            healed = at + lasts;
            let rate = chance.pick(&[16, 32, 64, 100, 200, 300]);
            let b = chance.pick(&["port-restricted", "full-cone"]);
            let a = chance.pick(&["open", "port-restricted"]);
            format!(
                "node {a} {two}; node {b} {one}; {flow}; fault at {at} for {lasts} weather 1 {one} udp-rate {rate}"
            )
        }
    };
    let millis = |ms: u64| Duration::from_millis(ms);
    (place, Case { line: format!("seed {seed}; {rest}"), outage: millis(outage), healed: millis(healed) })
}

/// Splitmix64 (Steele, Lea and Flood 2014), which is chance enough for choosing.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap_or(0)]
    }
}

/// As long as a session keeps to a link that works: ten seconds, less what the switch itself takes, after which it
/// is seen.
const SETTLED: Duration = Duration::from_millis(9_500);
/// Runs of a kind that are shown where they fail.
const SHOWN: usize = 12;
