//! What a port forward costs: this project's, rung by rung, beside raw sockets and beside HAProxy, in one run
//! on one machine. Read the ratios: load generator, target and all programs share the same processors, so no
//! figure means much alone.
//!
//! ```text
//! cargo bench -p inp2p-bins --bench forward -- [SECONDS] [SUBJECT...]
//! ```
//!
//! Two HAProxies in a row are the floor of what a client and a server cost on one machine: two copies through
//! user space, without a cipher and without a multiplexer. Programs that are not installed are named and left
//! out. Nothing here fails because something is slow.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed measurement panics, and it prints")]

#[path = "../../tests/lab/mod.rs"]
mod lab;
mod load;
mod quic;
mod subject;

use std::time::Duration;

use load::{Bulk, Direction, Figures};
use subject::{Running, Subject};

fn main() {
    lab::process::allow_many_descriptors();
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let seconds = arguments.first().and_then(|first| first.parse().ok());
    let wanted = &arguments[usize::from(seconds.is_some())..];
    let time = Duration::from_secs_f64(seconds.unwrap_or(SECONDS));

    let target = load::target();
    let mut rows = Vec::new();
    for subject in Subject::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == subject.name()) {
            continue;
        }
        match subject.start(target) {
            Ok(running) => rows.push((subject.name(), measure(&running, time))),
            Err(why) => println!("{}: skipped, {why}", subject.name()),
        }
    }
    print(&rows);
    if wanted.is_empty() || wanted.iter().any(|name| name == QUINN) {
        let alone = quic::bulk(time);
        println!("{QUINN}, QUIC alone in one process, one stream: {alone:.2} Gbit/s");
        for (name, row) in rows.iter().filter(|(name, _)| name.starts_with("udp")) {
            println!("{name}, one stream down: {:.2} of that", row.gbits[1] / alone);
        }
    }
}

/// All figures of one subject, one measurement after the other.
fn measure(running: &Running, time: Duration) -> Figures {
    let entry = running.entry();
    let half_closes = load::half_closes(entry, HALF_CLOSES);
    let idle = load::round_trips(entry, time);
    let before = running.processor_seconds();
    let bulk = [(Direction::Up, 1), (Direction::Down, 1), (Direction::Up, 8), (Direction::Down, 8)]
        .map(|(direction, streams)| load::bulk(&Bulk { entry, direction, streams, time }));
    let processor = running.processor_seconds() - before;
    let bytes: u64 = bulk.iter().map(|bulk| bulk.bytes).sum();
    let loaded = load::round_trips_under_load(entry, time);
    let connections = load::connections(entry, time, CONNECTORS);
    Figures {
        gbits: bulk.map(|bulk| bulk.gbits),
        idle,
        loaded,
        connections,
        half_closes: (half_closes, HALF_CLOSES),
        processor_per_gb: processor / (bytes as f64 / 1e9),
    }
}

fn print(rows: &[(&str, Figures)]) {
    let floor = rows.iter().find(|(name, _)| *name == Subject::HaproxyTwice.name()).map(|(_, row)| row);
    println!(
        "\n{:<18}{:>7}{:>7}{:>7}{:>7}  {:>6}  {:>15}  {:>15}  {:>7}{:>6}  {:>7}  {:>7}",
        "Gbit/s",
        "up 1",
        "down 1",
        "up 8",
        "down 8",
        "ratio",
        "idle p50/p99 us",
        "load p50/p99 us",
        "conn/s",
        "fail",
        "half",
        "cpu s/GB",
    );
    for (name, row) in rows {
        let [up1, down1, up8, down8] = row.gbits;
        let ratio = floor.map_or(f64::NAN, |floor| (up1 + down1) / (floor.gbits[0] + floor.gbits[1]));
        let micros = |(p50, p99): (Duration, Duration)| format!("{}/{}", p50.as_micros(), p99.as_micros());
        println!(
            "{name:<18}{up1:>7.2}{down1:>7.2}{up8:>7.2}{down8:>7.2}  {ratio:>6.2}  {:>15}  {:>15}  {:>7.0}{:>6}  {:>7}  {:>7.2}",
            micros(row.idle),
            micros(row.loaded),
            row.connections.by_second,
            row.connections.failed,
            format!("{}/{}", row.half_closes.0, row.half_closes.1),
            row.processor_per_gb,
        );
    }
    println!("ratio: one stream, both directions, against haproxy-x2");
}

/// Not a way to the target, but what QUIC could do at best.
const QUINN: &str = "quinn";

/// How long one measurement takes, unless told.
const SECONDS: f64 = 3.0;

/// How often a half-close is tried: a race that loses an answer now and then shows in so many.
const HALF_CLOSES: usize = 40;

/// Connections under way at once, as a browser or a small pool has.
const CONNECTORS: usize = 16;
