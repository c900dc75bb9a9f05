//! What may be expected of a scenario, by reasoning of its own.
//!
//! Two questions are answered here without looking at the programs: by which rung two nodes should reach
//! each other once everything is calm, and whether a connection had any right to break. Both are kept apart
//! from the code under test on purpose, and are as simple as the model of the network lets them be.

mod paths;

use std::time::Duration;

use inp2p_core::path::Rung;

use crate::nat::Preset;
use crate::scenario::{Forward, Manner, Party, Relay, Scenario, Site, Stream, Trouble, What};

/// Whether a rung leads from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chance {
    /// It cannot.
    Never,
    /// With luck.
    Perhaps,
    /// Nearly always: where ports have to be guessed or predicted. How often is for `tests/punching.rs`.
    Likely,
    /// It has to.
    Surely,
}

/// The best rung that there has to be between two nodes, once everything is calm; none if no rung has
/// to lead there.
pub fn best(scenario: &Scenario, a: usize, b: usize) -> Option<Rung> {
    Rung::ALL.into_iter().find(|rung| chance(scenario, a, b, *rung) == Chance::Surely)
}

/// The best rung that is to be expected between two nodes who have the network for themselves.
pub fn expected(scenario: &Scenario, a: usize, b: usize) -> Option<Rung> {
    Rung::ALL.into_iter().find(|rung| chance(scenario, a, b, *rung) >= Chance::Likely)
}

/// Whether a rung may lead from one node to another, once everything is calm.
pub fn chance(scenario: &Scenario, a: usize, b: usize, rung: Rung) -> Chance {
    let chance = undisturbed(scenario, a, b, rung);
    let is_starved = || is_starved(scenario, a) || is_starved(scenario, b);
    if chance > Chance::Perhaps && is_starved() { Chance::Perhaps } else { chance }
}

/// The same where nobody fills the tables of NATs.
fn undisturbed(scenario: &Scenario, a: usize, b: usize, rung: Rung) -> Chance {
    match rung {
        _ if !scenario.knows(a, b) => Chance::Never,
        Rung::ServerRelay if scenario.server_relay => Chance::Surely,
        Rung::ServerRelay => Chance::Never,
        Rung::PrivateRelay | Rung::SuperRelay => relayed(scenario, a, b, rung),
        Rung::UdpDirect | Rung::UdpPunch => {
            let chance = paths::between(&scenario.ends_at(a), &scenario.ends_at(b), rung);
            let unsure =
                |node| is_crowded(scenario, node) || (rung == Rung::UdpPunch && clashes(scenario, node));
            if unsure(a) || unsure(b) { chance.min(Chance::Perhaps) } else { chance }
        }
        Rung::TcpDirect => paths::between(&scenario.ends_at(a), &scenario.ends_at(b), rung),
        Rung::TcpPunch => {
            let chance = paths::between(&scenario.ends_at(a), &scenario.ends_at(b), rung);
            let unsure = |node| clashes(scenario, node) || is_renumbered(scenario, node);
            if unsure(a) || unsure(b) { chance.min(Chance::Perhaps) } else { chance }
        }
    }
}

/// Whether another node of the house may have the port that a NAT would keep, or this one at an address that it has
/// left: then its port differs from peer to peer, by who of the house talks, or has talked, to that peer.
fn clashes(scenario: &Scenario, node: usize) -> bool {
    let site = scenario.ends_at(node);
    let mut mates = (0..scenario.nodes.len()).filter(|mate| *mate != node);
    let mut is_shared = || {
        mates.any(|mate| {
            [scenario.begins_at(mate), scenario.ends_at(mate)].iter().any(|at| at.house == site.house)
        })
    };
    let roams = |fault: &Trouble| matches!(fault.what, What::Roam(who) if who == node);
    paths::keeps_ports_by_peer(&site) && (is_shared() || scenario.faults.iter().any(roams))
}

/// Whether the node's TCP port may be another one than it knows of: its NAT has forgotten all, and does not give
/// the same again. A node notices that by its UDP port, and by its connection to the server, both of which may
/// have come out the same.
fn is_renumbered(scenario: &Scenario, node: usize) -> bool {
    let site = scenario.ends_at(node);
    let reboots = |fault: &Trouble| matches!(fault.what, What::NatReboot(other) if scenario.begins_at(other).carrier == site.carrier);
    paths::gives_other_ports(&site) && scenario.faults.iter().any(reboots)
}

/// Whether the NAT before a node may have no UDP port for it, because it guesses ports to reach a peer: what that
/// opens stays for as long as mappings live, up to two minutes.
fn is_crowded(scenario: &Scenario, node: usize) -> bool {
    let site = scenario.ends_at(node);
    mates(scenario, node).any(|mate| sought(scenario, mate).any(|peer| paths::takes_all_ports(&site, &peer)))
}

/// Whether it may have no room for anything, not even for the server, because of what those behind it guess.
pub fn is_starved(scenario: &Scenario, node: usize) -> bool {
    let site = scenario.ends_at(node);
    let most =
        |mate| sought(scenario, mate).map(|peer| paths::guessed(&site, &peer)).max().unwrap_or_default();
    let guessed: u16 = mates(scenario, node).map(most).fold(0, u16::saturating_add);
    site.quirks.table > 0 && guessed > 0 && site.quirks.table < guessed.saturating_add(TABLE_REST)
}

/// The nodes that are or were in a node's house, itself included.
fn mates(scenario: &Scenario, node: usize) -> impl Iterator<Item = usize> {
    let house = scenario.ends_at(node).house;
    let sites = |node: usize| [scenario.begins_at(node), scenario.ends_at(node)];
    (0..scenario.nodes.len()).filter(move |mate| sites(*mate).iter().any(|site| site.house == house))
}

/// Where those are or were whom a node wants to reach, or who want to reach it.
fn sought(scenario: &Scenario, node: usize) -> impl Iterator<Item = Site> {
    let pairs =
        scenario.forwards.iter().flat_map(|forward| [(forward.from, forward.to), (forward.to, forward.from)]);
    let peers = pairs.filter(move |(mate, _)| *mate == node).map(|(_, peer)| peer);
    peers.flat_map(|peer| [scenario.begins_at(peer), scenario.ends_at(peer)])
}

/// Whether a link of that rung, better than the best one that has to be, is no surprise: by luck, or because it
/// is left over from before one of the two moved.
pub fn is_luck(scenario: &Scenario, forward: &Forward, rung: Rung, best: Option<Rung>) -> bool {
    let ends = [forward.from, forward.to];
    let moves = |fault: &Trouble| matches!(fault.what, What::Move(node, _) if ends.contains(&node));
    let chance = chance(scenario, forward.from, forward.to, rung);
    best.is_none_or(|best| rung < best) && (chance > Chance::Never || scenario.faults.iter().any(moves))
}

/// The best rung without UDP where a line loses in bursts: one of them may look like a carrier that polices UDP, and
/// the link is lawfully left for a while, at any time.
pub fn without_udp(scenario: &Scenario, forward: &Forward) -> Option<Rung> {
    let ends = [forward.from, forward.to];
    let bursts = ends.iter().any(|node| scenario.nodes[*node].line.bursts);
    let surely = |rung: &Rung| chance(scenario, forward.from, forward.to, *rung) == Chance::Surely;
    Rung::ALL.into_iter().filter(|rung| bursts && !rung.is_udp()).find(surely)
}

/// Whether another node relays for the two: one that is to, and that both can dial.
fn relayed(scenario: &Scenario, a: usize, b: usize, rung: Rung) -> Chance {
    let users = [a, b].map(|node| scenario.nodes[node].user);
    let is_of_both = |node: usize| users == [scenario.nodes[node].user; 2];
    let serves = |node: usize| match (scenario.nodes[node].relay, rung) {
        // To its own user a relay for all users is one of his own.
        (Some(_), Rung::PrivateRelay) => is_of_both(node),
        (Some(Relay::Super), Rung::SuperRelay) => !is_of_both(node),
        _ => false,
    };
    let leaves = |node: usize| scenario.ends_at(node).preset != Preset::Only443;
    let others = (0..scenario.nodes.len()).filter(|node| *node != a && *node != b);
    let serving = others.filter(|node| serves(*node)).map(|node| scenario.ends_at(node));
    let best = serving.map(|site| match site.preset {
        // Seen at its own address, so the server can try it, and everybody dials it there.
        Preset::Open => Chance::Surely,
        // By IPv6, or from its own house.
        _ => Chance::Perhaps,
    });
    best.max().filter(|_| leaves(a) && leaves(b)).unwrap_or(Chance::Never)
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
    let ready = ready(scenario, stream);
    let calm = Scenario { faults: Vec::new(), ..scenario.clone() };
    let (before, after) = (best(&calm, forward.from, forward.to), best(scenario, forward.from, forward.to));
    let lucky = |at: &Scenario| {
        let mut chances = Rung::ALL.into_iter().map(|rung| chance(at, forward.from, forward.to, rung));
        chances.any(|chance| matches!(chance, Chance::Perhaps | Chance::Likely))
    };
    if before.is_some() != after.is_some() || (after.is_none() && (lucky(&calm) || lucky(scenario))) {
        // Who moves has a path for a part of the time, and some find one by luck.
        return Fate::Any;
    }
    if after.is_none() {
        let absent = |fault: &Trouble| {
            // Who moves more than once may have a path between two moves.
            matches!(fault.what, What::Crash(who) | What::Kill(who) | What::Suspend(who)
                if who == Party::Node(forward.from))
                || matches!(fault.what, What::Move(who, _) if who == forward.from || who == forward.to)
        };
        return if scenario.faults.iter().any(absent) { Fate::Any } else { Fate::Refused };
    }
    if before.max(after) >= Some(Rung::PrivateRelay)
        && scenario.faults.iter().any(|fault| befalls_a_relay(fault, scenario))
    {
        return Fate::Any;
    }
    let harmful: Vec<&Trouble> =
        scenario.faults.iter().filter(|fault| harms(fault, scenario, stream)).collect();
    match harmful[..] {
        [] if begin >= ready => Fate::Completes,
        // A link that breaks is replaced before the streams have waited too long for it.
        [fault]
            if begin >= ready
                && at(fault) >= ready
                && is_brief(fault)
                && server_is_there(scenario, fault) =>
        {
            let opening = at(fault) < begin + OPENING && begin < fault.end() + RECOVERY;
            if opening { Fate::Any } else { Fate::Completes }
        }
        _ => Fate::Any,
    }
}

/// Whether a fault has to do with a machine that relays.
fn befalls_a_relay(fault: &Trouble, scenario: &Scenario) -> bool {
    let mut relays = (0..scenario.nodes.len()).filter(|node| scenario.nodes[*node].relay.is_some());
    let server = scenario.server_relay && fault.what.befalls(Party::Server);
    server || relays.any(|node| fault.what.befalls(Party::Node(node)))
}

/// Whether a fault can have to do with how a connection fares.
fn harms(fault: &Trouble, scenario: &Scenario, stream: &Stream) -> bool {
    let forward = scenario.forwards[stream.forward];
    let ends = [forward.from, forward.to];
    let carrier = |node: usize| scenario.begins_at(node).carrier;
    let neighbour = |node: usize| ends.iter().any(|end| carrier(*end) == carrier(node));
    match fault.what {
        What::WallClock(..) => false,
        // A house has one NAT and one line, and so have all customers of a carrier.
        What::NatReboot(node) | What::Weather(node, _) => neighbour(node),
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
        _ if fault.what.befalls(Party::Server) => at(fault) < ready(scenario, stream),
        _ => false,
    }
}

/// By when the two nodes of a connection have their link, where nothing goes wrong. Where the first segments
/// of a login may get lost, each time costs more than the one before.
fn ready(scenario: &Scenario, stream: &Stream) -> Duration {
    let forward = scenario.forwards[stream.forward];
    let ends = [forward.from, forward.to].into_iter();
    let relays = (0..scenario.nodes.len()).filter(|node| scenario.nodes[*node].relay.is_some());
    let mut lines = ends.chain(relays).map(|node| scenario.nodes[scenario.begins_at(node).carrier].line);
    if lines.any(|line| line.loss > 0) { LOSSY_LOGIN } else { LOGIN }
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
        What::Roam(_) | What::Move(..) | What::NatReboot(_) | What::WallClock(..) => true,
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

/// The same on a line that loses a fiftieth: three losses in a row of the first segment, and a login anew.
const LOSSY_LOGIN: Duration = Duration::from_secs(25);

/// What a link may be gone for so that a new one is there before the streams end, which wait 30 s.
const BRIEF: Duration = Duration::from_secs(5);

/// How long a connection that is being opened waits for a link.
const OPENING: Duration = Duration::from_secs(10);

/// Room in a NAT's table for all that is no guess: what a house measures, and its connections.
const TABLE_REST: u16 = 256;

/// How long nodes may take to be whole again.
pub const RECOVERY: Duration = Duration::from_secs(60);
