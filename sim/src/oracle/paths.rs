//! Which paths there can be between two places, by their NATs alone.
//!
//! The terms are those of RFC 4787, and the reasoning is that of RFC 5128: two NATs can be passed if each side
//! knows, or can guess, the outside port that the other one will have for it.

use inp2p_core::path::Rung;

use super::Chance;
use crate::nat::Preset;
use crate::scenario::{Assignment, Site, V6};

/// Whether that rung leads from one place to the other.
pub(super) fn between(a: &Site, b: &Site, rung: Rung) -> Chance {
    let certain = |is: bool| if is { Chance::Surely } else { Chance::Never };
    match rung {
        Rung::UdpDirect => certain(datagrams(a, b)),
        Rung::TcpDirect => certain(dials(a, b) || dials(b, a)),
        Rung::UdpPunch => udp_punch(a, b),
        Rung::TcpPunch => tcp_punch(a, b),
        Rung::PrivateRelay | Rung::SuperRelay | Rung::ServerRelay => Chance::Never,
    }
}

/// Whether datagrams pass between addresses that at least one of the two has on an interface of its own.
fn datagrams(a: &Site, b: &Site) -> bool {
    // Whoever is told an address opens its own NAT or firewall to it, and for IPv6 both are told.
    let opened = dials(a, b) || dials(b, a) || (a.v6.is_some() && b.v6.is_some());
    a.house == b.house || (has_udp(a) && has_udp(b) && opened)
}

/// Whether `from` may open a TCP connection to an address of `to` that it is told.
fn dials(from: &Site, to: &Site) -> bool {
    if from.house == to.house {
        // Both are seen at one public address, so each is told the other's private one.
        return true;
    }
    // Everybody listens on a port of its own, which no firewall lets through that knows 443 alone.
    from.preset != Preset::Only443 && (to.preset == Preset::Open || (from.v6.is_some() && takes_v6(to)))
}

/// Whether IPv6 of anybody gets there. A firewall that knows 443 alone keeps the answers in.
fn takes_v6(to: &Site) -> bool {
    (to.v6 == Some(V6::Open) && to.preset != Preset::Only443)
        || (to.v6.is_some() && to.preset == Preset::Open)
}

fn has_udp(site: &Site) -> bool {
    !matches!(site.preset, Preset::UdpBlocked | Preset::Only443)
}

/// What others know of the outside port that a NAT will give to what is sent to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// It is the one that the server has seen.
    Known,
    /// It follows from those that the server has seen.
    Regular,
    /// Nothing.
    Unknown,
}

fn port(site: &Site) -> Port {
    match (site.preset, site.quirks.ports) {
        (Preset::SymmetricRandom | Preset::Only443, None | Some(Assignment::Random)) => Port::Unknown,
        (Preset::SymmetricSequential, Some(Assignment::Random)) => Port::Unknown,
        // One that keeps the inside port has the same for all peers, whatever it is meant to have.
        (_, Some(Assignment::Preserving)) => Port::Known,
        (Preset::SymmetricRandom | Preset::SymmetricSequential | Preset::Only443, _) => Port::Regular,
        _ => Port::Known,
    }
}

/// Whether a NAT has a mapping for each peer and keeps the inside port where it is free for that peer.
pub(super) fn keeps_ports_by_peer(site: &Site) -> bool {
    let symmetric =
        matches!(site.preset, Preset::SymmetricRandom | Preset::SymmetricSequential | Preset::Only443);
    symmetric && site.quirks.ports == Some(Assignment::Preserving)
}

/// Whether a NAT does not keep the inside port.
pub(super) fn gives_other_ports(site: &Site) -> bool {
    site.preset == Preset::Cgnat || site.quirks.ports.is_some_and(|ports| ports != Assignment::Preserving)
}

/// Whether the two guess ports to reach each other, and that may take all the ports that the NAT before `site` has
/// for a host, for as long as mappings live.
pub(super) fn takes_all_ports(site: &Site, peer: &Site) -> bool {
    let symmetric = matches!(site.preset, Preset::SymmetricRandom | Preset::SymmetricSequential);
    // Each entry takes a port.
    let few = matches!(site.quirks.ports, Some(Assignment::Block(size)) if size < GUESSES);
    symmetric && few && guess(site, peer)
}

/// How many entries of the table of the NAT before `site` a node there may have taken up at a time by guessing ports
/// to reach its peers, of whom `peer` is one.
pub(super) fn guessed(site: &Site, peer: &Site) -> u16 {
    let behind = |one: &Site| has_udp(one) && one.preset != Preset::Open;
    match guess(site, peer) {
        // What it takes to hit a port; and the sockets of one that is to be hit come unasked.
        true if site.preset == Preset::Bare => GUESSES + SOCKETS,
        true => GUESSES,
        // Where a NAT is not known, as after a change of networks while the server is gone, ports may be guessed
        // between any two: one round.
        false if behind(site) && behind(peer) => BLIND_GUESSES,
        false => 0,
    }
}

/// Whether the two guess or predict ports to reach each other, successfully or not.
fn guess(site: &Site, peer: &Site) -> bool {
    match udp_punch(site, peer) {
        Chance::Likely => true,
        Chance::Perhaps => [site, peer].map(port) != [Port::Known, Port::Known],
        Chance::Never | Chance::Surely => false,
    }
}

/// Whether the two are neighbours whose public address does not lead back inside.
fn is_walled(a: &Site, b: &Site) -> bool {
    a.carrier == b.carrier && a.house != b.house && !a.hairpins
}

fn udp_punch(a: &Site, b: &Site) -> Chance {
    if !has_udp(a) || !has_udp(b) || is_walled(a, b) {
        return Chance::Never;
    }
    match (port(a), port(b)) {
        // Whoever lets all ports of an address in learns the port from the first packet.
        (Port::Known, _) if lets_in_all_ports(a) => Chance::Surely,
        (_, Port::Known) if lets_in_all_ports(b) => Chance::Surely,
        // It may have lost its port to what came unasked, which nobody is careful to avoid who is told that it keeps
        // no ports.
        (Port::Known, Port::Known) if takes_other_ports(a) || takes_other_ports(b) => Chance::Perhaps,
        // Neighbours behind one carrier too, where its outside address leads back inside.
        (Port::Known, Port::Known) => Chance::Surely,
        // A guess on one side tells nothing of the other side's port.
        (Port::Unknown, Port::Unknown | Port::Regular) | (Port::Regular, Port::Unknown) => Chance::Never,
        // By the birthday paradox; or predicted, while others behind the same NAT, and other connections, take
        // ports too.
        (Port::Known, Port::Unknown | Port::Regular) | (Port::Unknown | Port::Regular, Port::Known) => {
            if takes_other_ports(a) || takes_other_ports(b) {
                Chance::Perhaps
            } else {
                Chance::Likely
            }
        }
        (Port::Regular, Port::Regular) => Chance::Likely,
    }
}

/// Whether a NAT takes the port for what comes unasked, and does not show it by keeping ports.
fn takes_other_ports(site: &Site) -> bool {
    site.preset == Preset::Bare && gives_other_ports(site)
}

fn lets_in_all_ports(site: &Site) -> bool {
    matches!(site.preset, Preset::FullCone | Preset::AddressRestricted)
}

fn tcp_punch(a: &Site, b: &Site) -> Chance {
    if a.preset == Preset::Only443 || b.preset == Preset::Only443 || is_walled(a, b) {
        return Chance::Never;
    }
    match (port(a), port(b)) {
        (Port::Known, Port::Known) => Chance::Surely,
        // Whoever lets all ports of an address in gets the SYN of a port that nobody could tell.
        (Port::Known, Port::Unknown) if lets_in_all_ports(a) => Chance::Likely,
        (Port::Unknown, Port::Known) if lets_in_all_ports(b) => Chance::Likely,
        // Connections are not guessed: a relay does better.
        (Port::Unknown, _) | (_, Port::Unknown) => Chance::Never,
        (Port::Known | Port::Regular, Port::Regular) | (Port::Regular, Port::Known) => Chance::Likely,
    }
}

/// More sockets than a row and both rounds of a guess open, and so from as many ports.
const SOCKETS: u16 = 768;
/// More than a node's guesses may take up at a time, all peers together.
const GUESSES: u16 = 1_280;
/// The same while it does not know what it is behind.
const BLIND_GUESSES: u16 = 480;
