//! How pairs are brought together, watched closely: what a node's first wish for each of its peers comes to.

use std::net::IpAddr;
use std::time::Duration;

use inp2p_core::link::udp::probe;
use inp2p_core::path::Rung;
use tracing::level_filters::LevelFilter;

use super::logbook::{Line, Logbook};
use super::stage::{Stage, node_name};
use crate::clock::Time;
use crate::log::{Event, Place};
use crate::packet::{Kind, UDP_HEADER, header};
use crate::scenario::{Forward, Manner, Scenario, Stream};
use crate::world::World;

/// What came of a wish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meeting {
    /// The links that carried the session, one after the other, and how long after the wish.
    pub links: Vec<(Rung, Duration)>,
    /// When the first byte of a local program that had been waiting came to the target, after the wish.
    pub first_byte: Option<Duration>,
    /// How many probes the node, or the peer, sent to the other until the link was there, whoever sent more.
    pub probes: usize,
    /// How many of them in one second.
    pub busiest: usize,
}

impl Meeting {
    /// When there was a link on this rung, or on a better one.
    pub fn reached(&self, rung: Rung) -> Option<Duration> {
        self.links.iter().find(|(reached, _)| *reached <= rung).map(|(_, after)| *after)
    }
}

/// Watches the wishes of node 0 for the peers of its forwards, each for so long; none where the server never
/// granted a wish. Through each forward a local program connects at the start. Faults are ignored, and so are the
/// scenario's own streams.
pub fn meetings(scenario: &Scenario, length: Duration) -> Vec<Option<Meeting>> {
    let own: Vec<Forward> = scenario.forwards.iter().copied().filter(|forward| forward.from == 0).collect();
    let scenario = Scenario { forwards: own, streams: Vec::new(), faults: Vec::new(), ..scenario.clone() };
    let world = World::new(scenario.seed);
    world.keep_log(usize::MAX);
    let book = Logbook::new(&world, LevelFilter::DEBUG);
    tracing::subscriber::with_default(book.clone(), || {
        let stage = Stage::new(&scenario, world, None);
        for forward in 0..scenario.forwards.len() {
            let early = Stream { forward, at: 0, up: 0, down: 0, manner: Manner::Orderly };
            let stream = stage.ledger.add(early);
            stage.open(forward, stream);
        }
        let mut end = Time::ZERO + LOGIN;
        while stage.world.now() < end {
            stage.world.run_for(Duration::from_millis(500));
            let asked =
                (0..scenario.forwards.len()).filter_map(|at| asked(&book.lines(), &stage, &scenario, at));
            end = asked.map(|at| at + length).max().unwrap_or(end);
        }
        let meetings =
            (0..scenario.forwards.len()).map(|at| meeting(&stage, &scenario, &book.lines(), at, length));
        let meetings = meetings.collect();
        stage.stop_nodes();
        stage.stop_server();
        stage.world.run_for(Duration::from_secs(15));
        meetings
    })
}

/// When the wish was made that the server granted first.
fn asked(lines: &[Line], stage: &Stage, scenario: &Scenario, forward: usize) -> Option<Time> {
    let peer = format!("peer={}", stage.named(0, scenario.forwards[forward].to));
    let mut asked = None;
    for line in lines.iter().filter(|line| line.host == Some(stage.nodes[0])) {
        let mut words = line.text.split(' ');
        let concerns = words.any(|word| word == peer);
        if concerns && line.text.contains("asks for the peer") {
            asked = Some(line.at);
        } else if concerns && line.text.contains("attempt begins") {
            return asked;
        }
    }
    None
}

fn meeting(
    stage: &Stage,
    scenario: &Scenario,
    lines: &[Line],
    forward: usize,
    length: Duration,
) -> Option<Meeting> {
    let asked = asked(lines, stage, scenario, forward)?;
    let peer = scenario.forwards[forward].to;
    let word = format!("peer={}", stage.named(0, peer));
    let links = lines
        .iter()
        .filter(|line| line.host == Some(stage.nodes[0]) && line.at >= asked && line.at <= asked + length)
        .filter(|line| line.text.contains("link up") && line.text.split(' ').any(|part| part == word))
        .filter_map(|line| {
            let rung = line.text.split(' ').find_map(|part| part.strip_prefix("rung="))?;
            Some((Rung::ALL.into_iter().find(|known| known.as_str() == rung)?, line.at - asked))
        });
    let records = stage.ledger.records();
    let met = records.get(forward).and_then(|(_, record)| record.met_at);
    let sent = [(0, peer), (peer, 0)].map(|(from, to)| probes(stage, from, to, asked, asked + length));
    let (probes, busiest) = sent.into_iter().max().unwrap_or_default();
    Some(Meeting { links: links.collect(), first_byte: met.map(|met| met - asked), probes, busiest })
}

/// How many probes one sent to another, and how many of them in the busiest second.
fn probes(stage: &Stage, from: usize, to: usize, begin: Time, end: Time) -> (usize, usize) {
    let is_peer =
        |ip: IpAddr| stage.who(ip).is_some_and(|names| names.split('/').any(|name| name == node_name(to)));
    let host = Place::Host(stage.nodes[from]);
    let times: Vec<Time> = stage
        .world
        .log()
        .into_iter()
        .filter(|entry| entry.place == host && entry.at >= begin && entry.at <= end)
        .filter_map(|entry| match entry.event {
            Event::Sent(packet) => {
                let size = header(packet.to.ip()) + UDP_HEADER + probe::LENGTH;
                (packet.kind == Kind::Udp && packet.size == size && is_peer(packet.to.ip()))
                    .then_some(entry.at)
            }
            _ => None,
        })
        .collect();
    let within = |at: usize| times[at..].partition_point(|time| *time < times[at] + Duration::from_secs(1));
    (times.len(), (0..times.len()).map(within).max().unwrap_or_default())
}

/// By then the nodes have logged in, however much their lines lose.
const LOGIN: Duration = Duration::from_secs(90);
