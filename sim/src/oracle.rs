//! What may be expected of a scenario, by reasoning of its own.
//!
//! Two questions are answered here without looking at the programs: by which rung two nodes should reach
//! each other once everything is calm, and whether a connection had any right to break. Both are kept apart
//! from the code under test on purpose, and are as simple as the model of the network lets them be.

use std::time::Duration;

use inp2p_core::path::Rung;

use crate::nat::Preset;
use crate::scenario::{Manner, Party, Scenario, Stream, Trouble, What};

/// The rungs that exist so far, best first.
pub const RUNGS: &[Rung] = &[Rung::UdpDirect, Rung::TcpDirect];

/// The best rung between two nodes, once everything is calm; none if no rung that exists leads there.
pub fn best(scenario: &Scenario, a: usize, b: usize) -> Option<Rung> {
    RUNGS.iter().copied().find(|rung| match rung {
        Rung::UdpDirect => {
            let udp = |node| !matches!(scenario.preset(node), Preset::UdpBlocked | Preset::Only443);
            let both = (udp(a) && udp(b)) || scenario.home(a) == scenario.home(b);
            // Whoever is told a public address opens its own NAT to it.
            both && (dials(scenario, a, b) || dials(scenario, b, a))
        }
        Rung::TcpDirect => dials(scenario, a, b) || dials(scenario, b, a),
        Rung::UdpPunch | Rung::TcpPunch | Rung::PrivateRelay | Rung::SuperRelay | Rung::ServerRelay => false,
    })
}

/// Whether `from` may open a TCP connection to an address of `to` that it is told.
fn dials(scenario: &Scenario, from: usize, to: usize) -> bool {
    if scenario.home(from) == scenario.home(to) {
        // Both are seen at one public address, so each is told the other's private one.
        return true;
    }
    // Everybody listens on a port of its own, which no firewall lets through that knows 443 alone.
    scenario.preset(to) == Preset::Open && scenario.preset(from) != Preset::Only443
}

/// What has to come of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It does all that it was to do.
    Completes,
    /// There is no path: it is reset at the local program's side and never seen at the target.
    Refused,
    /// It may break off, at any point, but not go wrong, and not hang.
    Any,
}

/// What has to come of the connections of a scenario.
pub fn fate(scenario: &Scenario, stream: &Stream) -> Fate {
    let forward = scenario.forwards[stream.forward];
    let begin = Duration::from_millis(stream.at.into());
    if best(scenario, forward.from, forward.to).is_none() {
        let absent = |fault: &Trouble| {
            matches!(fault.what, What::Crash(who) | What::Kill(who) | What::Suspend(who)
                if who == Party::Node(forward.from))
        };
        return if scenario.faults.iter().any(absent) { Fate::Any } else { Fate::Refused };
    }
    let harmful: Vec<&Trouble> =
        scenario.faults.iter().filter(|fault| harms(fault, scenario, stream)).collect();
    match harmful[..] {
        [] if begin >= LOGIN => Fate::Completes,
        // A link that breaks is replaced before the streams have waited too long for it.
        [fault]
            if begin >= LOGIN
                && at(fault) >= LOGIN
                && is_brief(fault)
                && server_is_there(scenario, fault) =>
        {
            let opening = at(fault) < begin + OPENING && begin < fault.end() + RECOVERY;
            if opening { Fate::Any } else { Fate::Completes }
        }
        _ => Fate::Any,
    }
}

/// Whether a fault can have to do with how a connection fares.
fn harms(fault: &Trouble, scenario: &Scenario, stream: &Stream) -> bool {
    let forward = scenario.forwards[stream.forward];
    let ends = [forward.from, forward.to];
    let housemate = |node: usize| ends.iter().any(|end| scenario.home(*end) == scenario.home(node));
    match fault.what {
        What::WallClock(..) => false,
        // A house has one NAT and one line.
        What::NatReboot(node) | What::Weather(node, _) => housemate(node),
        _ if ends.iter().any(|end| fault.what.befalls(Party::Node(*end))) => match fault.what {
            What::Cut(from, to) => {
                let inside = |party: Party| match party {
                    Party::Server => true,
                    Party::Node(node) => ends.contains(&node),
                };
                inside(from) && inside(to)
            }
            _ => true,
        },
        // A link that is up needs no server, and neither does a connection on it.
        _ if fault.what.befalls(Party::Server) => at(fault) < LOGIN,
        _ => false,
    }
}

/// Whether nothing is wrong with the server while nodes need it because of `fault`: there is no new link
/// without one.
fn server_is_there(scenario: &Scenario, fault: &Trouble) -> bool {
    let mut server = scenario.faults.iter().filter(|other| other.what.befalls(Party::Server));
    server.all(|other| other.end() + RECOVERY < at(fault) || at(other) > fault.end() + RECOVERY)
}

/// Whether streams that are open outlast it, however it hits.
fn is_brief(fault: &Trouble) -> bool {
    let lasts = fault.end().saturating_sub(at(fault));
    match fault.what {
        What::Crash(_) | What::Kill(_) => false,
        What::Cut(..) | What::Offline(_) | What::InterfaceDown(_) | What::Suspend(_) => lasts <= BRIEF,
        What::Weather(_, line) => lasts <= BRIEF || (line.loss <= 30 && line.delay <= 200),
        What::Roam(_) | What::NatReboot(_) | What::WallClock(..) => true,
    }
}

fn at(fault: &Trouble) -> Duration {
    Duration::from_millis(fault.at.into())
}

/// How long a connection may take by itself: its manner, and its bytes at the slowest rate there is.
pub fn length(stream: &Stream) -> Duration {
    let own = match stream.manner {
        Manner::Idle => Duration::from_secs(20),
        Manner::SlowTarget | Manner::SlowClient => Duration::from_secs(10),
        Manner::Orderly | Manner::Ask | Manner::Greet | Manner::ClientResets | Manner::TargetResets => {
            Duration::ZERO
        }
    };
    own + Duration::from_millis(u64::from(stream.up + stream.down) / 50) + Duration::from_secs(10)
}

/// By then nodes have logged in and have their links, where nothing went wrong, on the worst of usual lines.
pub const LOGIN: Duration = Duration::from_secs(10);

/// What a link may be gone for so that a new one is there before the streams end, which wait 30 s.
const BRIEF: Duration = Duration::from_secs(5);

/// How long a connection that is being opened waits for a link.
const OPENING: Duration = Duration::from_secs(10);

/// How long nodes may take to be whole again.
pub const RECOVERY: Duration = Duration::from_secs(60);
