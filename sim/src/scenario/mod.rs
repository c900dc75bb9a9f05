//! Scenarios: a small internet, what its people do, and what goes wrong, as plain data.
//!
//! A scenario is one line of text ([`Scenario`] is `Display` and `FromStr`), and that line is the whole of
//! it: the same line gives the same run. A number gives one too ([`Scenario::generate`]), by a proptest
//! strategy ([`Scenario::strategy`]), so what fails can be shrunk piece by piece.
//!
//! ```
//! use inp2p_sim::scenario::Scenario;
//!
//! let line = "seed 7; node open v6; node cgnat expiry 30 delay 30 loss 5; forward 1 0; \
//!             stream 0 at 5000 up 1000 down 70000 orderly; fault at 9000 nat-reboot 1";
//! let scenario: Scenario = line.parse().unwrap();
//! assert_eq!(scenario.to_string(), line);
//! ```
//!
//! What may be expected of a scenario is not part of it: [`crate::oracle`] derives that.

mod arbitrary;
mod nat;
mod text;

use std::time::Duration;

pub use self::nat::{Assignment, Quirks, Site, V6};
pub use self::text::BadScenario;
use crate::link::{LinkConfig, Loss};
use crate::nat::Preset;

/// A run, before it is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scenario {
    /// All chance: keys, and what links do.
    pub seed: u64,
    /// Whether the server relays.
    pub server_relay: bool,
    /// The nodes, two at least. There is one server besides, which has a public address.
    pub nodes: Vec<Node>,
    /// Which nodes are shared with another user.
    pub shares: Vec<Share>,
    /// Port forwards, from the start of their nodes on.
    pub forwards: Vec<Forward>,
    /// What local programs do with the forwards.
    pub streams: Vec<Stream>,
    /// What goes wrong.
    pub faults: Vec<Trouble>,
}

/// A node and what lies between it and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Where it lives.
    pub place: Place,
    /// Its access line; that of the house or of the carrier if it shares one.
    pub line: Line,
    /// How its NATs depart from what their preset says.
    pub quirks: Quirks,
    /// Its IPv6, if it has any.
    pub v6: Option<V6>,
    /// For whom it relays, if it does.
    pub relay: Option<Relay>,
    /// The user whose node it is.
    pub user: u8,
}

/// A node of one user that those of another one may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which.
    pub node: usize,
    /// With whom.
    pub user: u8,
}

/// For whom a node relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// For the nodes of its own user.
    Private,
    /// For those of all users.
    Super,
}

/// Where a node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind a NAT of its own.
    Own(Preset),
    /// In the house of that earlier node, which has a NAT.
    With(usize),
    /// In a house of its own, with a home router, behind the carrier's NAT of that earlier node.
    Beside(usize),
}

/// An access line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// One way, in milliseconds.
    pub delay: u16,
    /// At most, in milliseconds.
    pub jitter: u16,
    /// Packets of a thousand that get lost.
    pub loss: u16,
    /// Whether loss comes in bursts of about ten packets.
    pub bursts: bool,
    /// Packets of a thousand that arrive twice.
    pub duplicate: u16,
    /// Packets of a thousand that are overtaken.
    pub reorder: u16,
    /// Datagrams of a thousand that have a bit changed on the way.
    pub corrupt: u16,
    /// Kilobits a second; 0 is no limit.
    pub rate: u32,
    /// Kilobytes that may wait where there is a limit; what comes on top is dropped.
    pub queue: u16,
    /// Kilobits of UDP a second that the carrier lets pass; 0 is no limit.
    pub udp_rate: u32,
    /// The largest packet.
    pub mtu: u16,
    /// Whether larger ones vanish without a word, and the routers bound the segments of TCP, which would
    /// not get on otherwise.
    pub black_hole: bool,
}

/// A port forward: `from` listens, `to` dials its own loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// A node.
    pub from: usize,
    /// Another one.
    pub to: usize,
}

/// One connection through a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Which forward.
    pub forward: usize,
    /// When the local program connects, in milliseconds from the beginning.
    pub at: u32,
    /// Bytes to the target.
    pub up: u32,
    /// Bytes from the target.
    pub down: u32,
    /// How the two ends behave.
    pub manner: Manner,
}

/// How the two ends of a connection behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// Both send, end their side, and read to the end.
    Orderly,
    /// The local program sends and ends its side; the target answers after that.
    Ask,
    /// The target sends and ends its side; the local program answers after that.
    Greet,
    /// As orderly, with twenty silent seconds in the middle of both directions.
    Idle,
    /// As orderly, but the target reads no more than a little at a time.
    SlowTarget,
    /// As orderly, but the local program reads no more than a little at a time.
    SlowClient,
    /// The local program resets its connection after half of what it had to send.
    ClientResets,
    /// The target resets its connection after half of what it had to send.
    TargetResets,
}

/// Something that goes wrong and is mended again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// When it begins, in milliseconds from the beginning.
    pub at: u32,
    /// After how many milliseconds it is mended; what lasts no time of its own ignores it.
    pub lasts: u32,
    /// What.
    pub what: What,
}

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The server.
    Server,
    /// A node.
    Node(usize),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Nothing that the first one sends reaches the second one.
    Cut(Party, Party),
    /// The wire is cut, and nobody is told.
    Offline(Party),
    /// The interface goes down.
    InterfaceDown(Party),
    /// The machine stops dead; it starts again when it is mended.
    Crash(Party),
    /// The program is killed, and started again.
    Kill(Party),
    /// The machine sleeps.
    Suspend(Party),
    /// The node gets another address, for good.
    Roam(usize),
    /// The node moves into another network for good, with this NAT before it.
    Move(usize, Preset),
    /// The node's NATs forget everything, once.
    NatReboot(usize),
    /// The node's access line becomes that one.
    Weather(usize, Line),
    /// The wall clock jumps by so many seconds, for good.
    WallClock(Party, i32),
}

impl Scenario {
    /// Whether one node may know of another: of its own user's nodes, and of those shared with that user.
    pub fn knows(&self, node: usize, other: usize) -> bool {
        let (user, others) = (self.nodes[node].user, self.nodes[other].user);
        user == others || self.shares.contains(&Share { node: other, user })
    }

    /// When the last thing goes wrong, or is mended.
    pub fn calm_from(&self) -> Duration {
        let ends = self.faults.iter().map(Trouble::end);
        ends.max().unwrap_or(Duration::ZERO)
    }
}

impl Trouble {
    /// When it is over.
    pub fn end(&self) -> Duration {
        let lasts = if self.what.lasts() { self.lasts } else { 0 };
        Duration::from_millis(u64::from(self.at) + u64::from(lasts))
    }
}

impl What {
    /// Whether it is mended after a time, and not done with at once.
    pub fn lasts(&self) -> bool {
        match self {
            Self::Cut(..)
            | Self::Offline(_)
            | Self::InterfaceDown(_)
            | Self::Crash(_)
            | Self::Kill(_)
            | Self::Suspend(_)
            | Self::Weather(..) => true,
            Self::Roam(_) | Self::Move(..) | Self::NatReboot(_) | Self::WallClock(..) => false,
        }
    }

    /// Whether it befalls `party`.
    pub fn befalls(&self, party: Party) -> bool {
        match *self {
            Self::Cut(from, to) => from == party || to == party,
            Self::Offline(who)
            | Self::InterfaceDown(who)
            | Self::Crash(who)
            | Self::Kill(who)
            | Self::Suspend(who)
            | Self::WallClock(who, _) => who == party,
            Self::Roam(node) | Self::Move(node, _) | Self::NatReboot(node) | Self::Weather(node, _) => {
                Party::Node(node) == party
            }
        }
    }
}

impl Line {
    /// What the network makes of it.
    pub fn config(&self) -> LinkConfig {
        let share = |of_thousand: u16| f64::from(of_thousand) / 1000.0;
        let loss = match (self.loss, self.bursts) {
            (0, _) => Loss::None,
            (loss, false) => Loss::Random(share(loss)),
            // Half of the packets in a burst get lost, so bursts make up twice the share of the loss.
            (loss, true) => Loss::Bursts { enter: share(loss) / 5.0, leave: 0.1, good: 0.0, bad: 0.5 },
        };
        LinkConfig {
            delay: Duration::from_millis(self.delay.into()),
            jitter: Duration::from_millis(self.jitter.into()),
            rate: (self.rate > 0).then(|| u64::from(self.rate) * 1000),
            loss,
            duplicate: share(self.duplicate),
            reorder: share(self.reorder),
            corrupt: share(self.corrupt),
            queue: usize::from(self.queue) * 1024,
            udp_rate: (self.udp_rate > 0).then(|| u64::from(self.udp_rate) * 1000),
            mtu: self.mtu,
            too_big: !self.black_hole,
            clamps_mss: self.black_hole,
            ..LinkConfig::default()
        }
    }
}

impl Default for Line {
    /// Ten milliseconds and nothing else.
    fn default() -> Self {
        Self {
            delay: 10,
            jitter: 0,
            loss: 0,
            bursts: false,
            duplicate: 0,
            reorder: 0,
            corrupt: 0,
            rate: 0,
            queue: 256,
            udp_rate: 0,
            mtu: 1500,
            black_hole: false,
        }
    }
}

impl Node {
    /// A node behind a NAT of its own, on a good line.
    pub fn behind(preset: Preset) -> Self {
        Self {
            place: Place::Own(preset),
            line: Line::default(),
            quirks: Quirks::default(),
            v6: None,
            relay: None,
            user: 0,
        }
    }
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Orderly,
        Self::Ask,
        Self::Greet,
        Self::Idle,
        Self::SlowTarget,
        Self::SlowClient,
        Self::ClientResets,
        Self::TargetResets,
    ];

    /// Whether one side breaks the connection off.
    pub fn resets(self) -> bool {
        matches!(self, Self::ClientResets | Self::TargetResets)
    }
}
