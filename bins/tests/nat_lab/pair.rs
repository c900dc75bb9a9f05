//! A pair of NATs: two nodes behind them find the best path there is, and bytes go both ways intact.

use std::time::{Duration, Instant};

use inp2p_core::status::{PeerState, PeerStatus};

use crate::expected::expected;
use crate::kind::Kind;
use crate::lab::{DEADLINE, End, Node, end_of, poll, target};
use crate::transfer::Transfer;
use crate::world::{Options, Place, World};

/// What came of a pair.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The rung, or `none`.
    pub(crate) rung: String,
    /// From both being logged in to the link on that rung.
    pub(crate) connected: Duration,
    /// Bytes a second, both ways together; none without a link.
    pub(crate) rate: Option<f64>,
}

/// The runtimes of the two sides, and pairs that between them take every way to a peer.
pub(crate) const RUNTIMES: [[&str; 2]; 3] = [["smol", "smol"], ["tokio", "smol"], ["smol", "tokio"]];
pub(crate) const CORE: [[Kind; 2]; 4] = [
    [Kind::Public, Kind::PortRestricted],
    [Kind::PortRestricted, Kind::Bare],
    [Kind::UdpBlocked, Kind::PortRestricted],
    [Kind::Symmetric, Kind::PortRestricted],
];

/// Runs a pair; `mebibytes` go each way.
pub(crate) fn run([a, b]: [Kind; 2], runtimes: [&'static str; 2], mebibytes: usize) -> Found {
    let options = Options { on_443: [a, b].contains(&Kind::Only443), runtimes, ..Options::default() };
    let mut world = World::new(options);
    let (here, there) = (world.place(a), world.place(b));
    let echo = there.host.run(target::echo);
    let peer = there.online(world.node("b"));
    let node = here.online(world.node("a").forward("b", echo));
    assert_eq!([node.status().runtime, peer.status().runtime], runtimes);
    let start = Instant::now();
    let expected = expected(a, b);
    let Some(rung) = expected.rung else {
        refused(&here, &node);
        return Found { rung: "none".to_owned(), connected: start.elapsed(), rate: None };
    };
    // A better one than this list knows of is no fault.
    let found = node.wait_within(expected.within, &format!("on {rung} or better"), |status| {
        status.peers.first()?.rung.filter(|found| *found <= rung)
    });
    let connected = start.elapsed();
    let begin = Instant::now();
    let bytes = Transfer::begin(here.connect(&node), mebibytes << 20).finish();
    let rate = Some(2.0 * bytes as f64 / begin.elapsed().as_secs_f64());
    // Its link has not become worse while it carried the bytes, and both ends name the same rung.
    let rungs = || [&node, &peer].map(|node| node.peer().rung);
    let same = poll(DEADLINE, || match rungs() {
        [Some(one), Some(other)] if one == other => Some(one),
        _ => None,
    });
    let last = same.unwrap_or_else(|| panic!("the ends name different rungs: {:?}", rungs()));
    assert!(last <= found, "{found}, then {last}\n{}", node.program.log());
    Found { rung: last.to_string(), connected, rate }
}

/// Waits until the only peer is connected on this rung.
pub(crate) fn reaches(node: &Node, rung: &str, within: Duration) -> PeerStatus {
    node.wait_within(within, &format!("on {rung}"), |status| {
        let peer = status.peers.first()?;
        (peer.state == PeerState::Connected && peer.rung?.as_str() == rung).then(|| peer.clone())
    })
}

/// Nothing leads to the peer: that is said, and connections are refused.
fn refused(place: &Place, node: &Node) {
    let peer = node.wait_until("refused", |status| {
        let peer = status.peers.first()?;
        (peer.state == PeerState::Failed).then(|| peer.clone())
    });
    assert!(peer.error.is_some() && !peer.attempts.is_empty(), "without a reason: {peer:#?}");
    let mut stream = place.connect(node);
    assert!(end_of(&mut stream) != End::Open, "a connection to nowhere stays open");
}
