//! Scenarios by chance.
//!
//! There is one strategy, for property tests and for sweeps: [`Scenario::generate`] runs it on a generator
//! seeded with the number. It draws numbers that mean something only later, modulo how many nodes and
//! forwards there are, so that a shrunk scenario loses a node without losing its meaning.
//!
//! Each scenario knows a few kinds of fault only (swarm testing): what is left out of a run lets other
//! things happen more often than a mixture of all would.

use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::{
    Assignment, Forward, Line, Manner, Node, Party, Place, Quirks, Relay, Scenario, Share, Stream, Trouble,
    V6, What,
};
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
        let forwards = vec((any::<u8>(), any::<u8>()), 1..=MOST_FORWARDS);
        let parts = (
            vec(node(), 2..=MOST_NODES),
            forwards,
            vec(stream(), 0..=6),
            any::<u16>(),
            vec(trouble(), 0..=5),
        );
        let server_relay = weighted(RELAYS);
        let seed = any::<u64>().no_shrink();
        (seed, server_relay, parts, users()).prop_map(
            |(seed, server_relay, (nodes, forwards, streams, swarm, faults), users)| {
                let mut nodes = settle(nodes);
                let count = nodes.len();
                let forwards: Vec<Forward> = forwards.into_iter().map(|pair| forward(pair, count)).collect();
                let streams = streams
                    .into_iter()
                    .map(|stream| Stream { forward: stream.forward % forwards.len(), ..stream });
                let streams = streams.collect();
                let faults = faults.into_iter().filter(|fault| (swarm >> fault.kind) & 1 == 1);
                let faults = faults.map(|fault| fault.meant(count)).collect();
                let shares = users.map(|users| users.meant(&mut nodes, &forwards)).unwrap_or_default();
                Self { seed, server_relay, nodes, shares, forwards, streams, faults }
            },
        )
    }
}

/// Whose nodes they are, where they are not all one user's.
#[derive(Debug, Clone)]
struct RawUsers {
    of_nodes: Vec<u8>,
    /// By forward: whether its target is shared, if it leads to another user's node.
    shared: Vec<bool>,
}

fn users() -> impl Strategy<Value = Option<RawUsers>> {
    let users = (vec(0..USERS, MOST_NODES), vec(weighted(0.85), MOST_FORWARDS));
    proptest::option::weighted(0.3, users.prop_map(|(of_nodes, shared)| RawUsers { of_nodes, shared }))
}

impl RawUsers {
    /// Gives the nodes their users; which of them are shared with whom.
    fn meant(self, nodes: &mut [Node], forwards: &[Forward]) -> Vec<Share> {
        nodes.iter_mut().zip(self.of_nodes).for_each(|(node, user)| node.user = user);
        let mut shares = Vec::new();
        for (forward, shared) in forwards.iter().zip(self.shared) {
            let share = Share { node: forward.to, user: nodes[forward.from].user };
            if shared && nodes[forward.to].user != share.user && !shares.contains(&share) {
                shares.push(share);
            }
        }
        shares
    }
}

/// A node that is yet to be given neighbours.
#[derive(Debug, Clone, Copy)]
struct RawNode {
    preset: Preset,
    /// A wish to live in a house that is there already, and whether it is enough to share the carrier.
    with: Option<(u8, bool)>,
    line: Line,
    quirks: Quirks,
    v6: Option<V6>,
    relay: Option<Relay>,
}

fn node() -> impl Strategy<Value = RawNode> {
    // Nodes that can be reached by everybody make most of what can be seen.
    let preset = prop_oneof![Just(Preset::Open), select(&Preset::ALL[..])];
    let with = proptest::option::weighted(0.2, any::<(u8, bool)>());
    let v6 = prop_oneof![8 => Just(None), 2 => Just(Some(V6::Firewalled)), 1 => Just(Some(V6::Open))];
    let relay = prop_oneof![Just(Relay::Private), Just(Relay::Super)];
    let relay = proptest::option::weighted(RELAYS / 2.0, relay);
    (preset, with, line(), quirks(), v6, relay).prop_map(|(preset, with, line, quirks, v6, relay)| RawNode {
        preset,
        with,
        line,
        quirks,
        v6,
        relay,
    })
}

/// Quirks with which everything that works without them has to work.
fn quirks() -> impl Strategy<Value = Quirks> {
    let rarely = |range: std::ops::Range<u16>| prop_oneof![5 => Just(0_u16), 1 => range];
    let flags = (weighted(0.2), weighted(0.2), weighted(0.2));
    // The shortest that people report: 20 s for UDP; a minute for TCP.
    let numbers = (rarely(100..2_000), rarely(20..120), rarely(60..600));
    let ports = prop_oneof![
        8 => Just(None),
        1 => Just(Some(Assignment::Preserving)),
        1 => Just(Some(Assignment::Random)),
        1 => (1..20_u16).prop_map(|step| Some(Assignment::Step(step))),
        1 => (64..1_024_u16).prop_map(|size| Some(Assignment::Block(size))),
    ];
    (numbers, flags, ports).prop_map(|((table, expiry, tcp_expiry), (forgetful, hairpin, resets), ports)| {
        let hairpin = hairpin.then_some(true);
        Quirks { table, expiry, tcp_expiry, forgetful, hairpin, resets, ports }
    })
}

/// A line on which things work: what is worse is weather.
fn line() -> impl Strategy<Value = Line> {
    let delay = prop_oneof![3 => Just(10_u16), 1 => 0..150_u16];
    let quirks = (small(20), small(20), any::<bool>(), small(20), small(20), small(10));
    let rate = prop_oneof![6 => Just((0_u32, 256_u16)), 1 => (1_000..50_000_u32, 32..1_024_u16)];
    let udp_rate = prop_oneof![8 => Just(0_u32), 1 => 500..20_000_u32];
    let mtu = prop_oneof![6 => Just((1500_u16, false)), 1 => (1280..1500_u16, any::<bool>())];
    (delay, quirks, rate, udp_rate, mtu).prop_map(
        |(delay, (jitter, loss, bursts, duplicate, reorder, corrupt), (rate, queue), udp_rate, mtu)| {
            let (bursts, (mtu, black_hole)) = (bursts && loss > 0, mtu);
            Line {
                delay,
                jitter,
                loss,
                bursts,
                duplicate,
                reorder,
                corrupt,
                rate,
                queue,
                udp_rate,
                mtu,
                black_hole,
            }
        },
    )
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
    preset: Preset,
}

fn trouble() -> impl Strategy<Value = RawTrouble> {
    let at = prop_oneof![1 => 0..8_000_u32, 4 => 8_000..40_000_u32];
    let lasts = prop_oneof![2 => 100..4_000_u32, 2 => 4_000..20_000_u32, 1 => 20_000..90_000_u32];
    let weather =
        (line(), 0..300_u16, 0..400_u16).prop_map(|(line, loss, delay)| Line { loss, delay, ..line });
    // Ten years either way.
    let seconds = -315_360_000..315_360_000_i32;
    let preset = prop_oneof![Just(Preset::Open), select(&Preset::ALL[..])];
    (0..KINDS, at, lasts, any::<(u8, u8)>(), weather, seconds, preset).prop_map(
        |(kind, at, lasts, (one, two), line, seconds, preset)| RawTrouble {
            kind,
            at,
            lasts,
            one,
            two,
            line,
            seconds,
            preset,
        },
    )
}

const MOST_NODES: usize = 6;
const MOST_FORWARDS: usize = 4;

/// One whose nodes are many, and two of whom have few.
const USERS: u8 = 3;

/// How often the server relays, and every other time a node.
const RELAYS: f64 = 0.4;

/// How many kinds of faults [`RawTrouble::meant`] knows.
const KINDS: u16 = 11;

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
            9 => What::Move(node, self.preset),
            _ if one == two => What::Offline(one),
            _ => What::Cut(one, two),
        };
        Trouble { at: self.at, lasts: if what.lasts() { self.lasts } else { 0 }, what }
    }
}

/// Gives each node a home.
fn settle(raw: Vec<RawNode>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for RawNode { preset, with, line, quirks, v6, relay } in raw {
        let (wish, shares) = with.unzip();
        let found = |fits: fn(Place) -> bool| {
            let all = nodes.iter().enumerate().filter(|(_, node)| fits(node.place));
            let all: Vec<usize> = all.map(|(number, _)| number).collect();
            wish.and_then(|wish| all.get(usize::from(wish) % all.len().max(1)).copied())
        };
        let carrier = found(|place| place == Place::Own(Preset::Cgnat)).filter(|_| shares == Some(true));
        let house = found(|place| match place {
            Place::Own(preset) => preset != Preset::Open,
            Place::Beside(_) => true,
            Place::With(_) => false,
        });
        let (line_of_others, own) =
            (Line::default(), Node { line, quirks, v6, relay, ..Node::behind(preset) });
        nodes.push(match (carrier, house) {
            (Some(host), _) => Node { place: Place::Beside(host), line: line_of_others, ..own },
            (None, Some(host)) => Node { place: Place::With(host), ..Node::behind(Preset::Open) },
            (None, None) => own,
        });
    }
    nodes
}

fn forward((from, to): (u8, u8), nodes: usize) -> Forward {
    let from = usize::from(from) % nodes;
    let to = usize::from(to) % (nodes - 1);
    Forward { from, to: if to >= from { to + 1 } else { to } }
}
