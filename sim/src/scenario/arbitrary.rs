//! Scenarios by chance.
//!
//! There is one strategy, for property tests and for sweeps: [`Scenario::generate`] runs it on a generator
//! seeded with the number. It draws numbers that mean something only later, modulo how many nodes and
//! forwards there are, so that a shrunk scenario loses a node without losing its meaning.
//!
//! Each scenario knows a few kinds of fault only (swarm testing): what is left out of a run lets other
//! things happen more often than a mixture of all would.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::{Forward, Line, Manner, Node, Party, Place, Scenario, Stream, Trouble, What};
use crate::nat::Preset;

impl Scenario {
    /// The scenario of that number.
    pub fn generate(seed: u64) -> Self {
        Self::tree(seed).current()
    }

    /// The same, as something that can be shrunk.
    ///
    /// # Panics
    ///
    /// Never: nothing in the strategy is filtered.
    pub fn tree(seed: u64) -> impl ValueTree<Value = Self> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let strategy = Self::strategy().prop_map(move |scenario| Self { seed, ..scenario });
        strategy.new_tree(&mut runner).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Any scenario.
    pub fn strategy() -> impl Strategy<Value = Self> {
        let forwards = vec((any::<u8>(), any::<u8>()), 1..=4);
        let parts = (vec(node(), 2..=6), forwards, vec(stream(), 0..=6), any::<u16>(), vec(trouble(), 0..=5));
        let seed = any::<u64>().no_shrink();
        (seed, parts).prop_map(|(seed, (nodes, forwards, streams, swarm, faults))| {
            let nodes = settle(nodes);
            let count = nodes.len();
            let forwards: Vec<Forward> = forwards.into_iter().map(|pair| forward(pair, count)).collect();
            let streams = streams
                .into_iter()
                .map(|stream| Stream { forward: stream.forward % forwards.len(), ..stream });
            let streams = streams.collect();
            let faults = faults.into_iter().filter(|fault| (swarm >> fault.kind) & 1 == 1);
            let faults = faults.map(|fault| fault.meant(count)).collect();
            Self { seed, nodes, forwards, streams, faults }
        })
    }
}

/// A preset, a wish to live with somebody, and a line.
type RawNode = (Preset, Option<u8>, Line);

fn node() -> impl Strategy<Value = RawNode> {
    // Nodes that can be reached by everybody make most of what can be seen.
    let preset = prop_oneof![Just(Preset::Open), select(&Preset::ALL[..])];
    (preset, proptest::option::weighted(0.15, any::<u8>()), line())
}

/// A line on which things work: what is worse is weather.
fn line() -> impl Strategy<Value = Line> {
    let delay = prop_oneof![3 => Just(10_u16), 1 => 0..150_u16];
    let quirks = (small(20), small(20), any::<bool>(), small(20), small(20));
    let rate = prop_oneof![6 => Just(0_u32), 1 => 1_000..50_000_u32];
    let mtu = prop_oneof![6 => Just(1500_u16), 1 => 1280..1500_u16];
    (delay, quirks, rate, mtu).prop_map(|(delay, (jitter, loss, bursts, duplicate, reorder), rate, mtu)| {
        let bursts = bursts && loss > 0;
        Line { delay, jitter, loss, bursts, duplicate, reorder, rate, mtu }
    })
}

/// Usually nothing.
fn small(most: u16) -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(0_u16), 1 => 0..=most]
}

fn stream() -> impl Strategy<Value = Stream> {
    let size = || prop_oneof![3 => 0..2_000_u32, 2 => 0..40_000_u32, 1 => 0..300_000_u32];
    let manner = prop_oneof![2 => Just(Manner::Orderly), 3 => select(&Manner::ALL[..])];
    (any::<u8>(), 1_000..30_000_u32, size(), size(), manner).prop_map(|(forward, at, up, down, manner)| {
        // Some milliseconds for every kilobyte is what a slow reader takes.
        let most = if matches!(manner, Manner::SlowTarget | Manner::SlowClient) { 60_000 } else { u32::MAX };
        Stream { forward: forward.into(), at, up: up.min(most), down: down.min(most), manner }
    })
}

/// A fault that is yet to be given machines.
#[derive(Debug, Clone, Copy)]
struct RawTrouble {
    kind: u16,
    at: u32,
    lasts: u32,
    one: u8,
    two: u8,
    line: Line,
    seconds: i32,
}

fn trouble() -> impl Strategy<Value = RawTrouble> {
    let at = prop_oneof![1 => 0..8_000_u32, 4 => 8_000..40_000_u32];
    let lasts = prop_oneof![2 => 100..4_000_u32, 2 => 4_000..20_000_u32, 1 => 20_000..90_000_u32];
    let weather =
        (line(), 0..300_u16, 0..400_u16).prop_map(|(line, loss, delay)| Line { loss, delay, ..line });
    // Ten years either way.
    let seconds = -315_360_000..315_360_000_i32;
    (0..KINDS, at, lasts, any::<u8>(), any::<u8>(), weather, seconds).prop_map(
        |(kind, at, lasts, one, two, line, seconds)| RawTrouble { kind, at, lasts, one, two, line, seconds },
    )
}

/// How many kinds of faults [`RawTrouble::meant`] knows.
const KINDS: u16 = 10;

impl RawTrouble {
    fn meant(self, nodes: usize) -> Trouble {
        let party = |number: u8| match usize::from(number) % (nodes + 1) {
            0 => Party::Server,
            node => Party::Node(node - 1),
        };
        let (one, two) = (party(self.one), party(self.two));
        let node = usize::from(self.one) % nodes;
        let what = match self.kind {
            0 => What::Offline(one),
            1 => What::Crash(one),
            2 => What::Kill(one),
            3 => What::Roam(node),
            4 => What::NatReboot(node),
            5 => What::InterfaceDown(one),
            6 => What::Suspend(one),
            7 => What::Weather(node, self.line),
            8 => What::WallClock(one, self.seconds),
            _ if one == two => What::Offline(one),
            _ => What::Cut(one, two),
        };
        Trouble { at: self.at, lasts: if what.lasts() { self.lasts } else { 0 }, what }
    }
}

/// Gives each node a home.
fn settle(raw: Vec<RawNode>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for (preset, with, line) in raw {
        let houses: Vec<usize> = nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| matches!(node.place, Place::Own(preset) if preset != Preset::Open))
            .map(|(number, _)| number)
            .collect();
        let host = with.and_then(|wish| houses.get(usize::from(wish) % houses.len().max(1)).copied());
        nodes.push(match host {
            Some(host) => Node { place: Place::With(host), line: Line::default() },
            None => Node { place: Place::Own(preset), line },
        });
    }
    nodes
}

fn forward((from, to): (u8, u8), nodes: usize) -> Forward {
    let from = usize::from(from) % nodes;
    let to = usize::from(to) % (nodes - 1);
    Forward { from, to: if to >= from { to + 1 } else { to } }
}
