//! `status` tells each NAT by its right name, in the words of RFC 4787.

use inp2p_core::status::NatView;

use crate::arguments::Arguments;
use crate::kind::Kind;
use crate::world::{Options, World};

/// Type, mapping and filtering.
type Report = [&'static str; 3];

/// What a node has to find out, by a server with two addresses, over UDP and over TCP.
const REPORTS: [(Kind, Report, &str); 11] = [
    (Kind::Public, ["none", EI, EI], "none"),
    (Kind::FullCone, ["cone", EI, EI], "cone"),
    (Kind::AddressRestricted, ["cone", EI, AD], "cone"),
    (Kind::PortRestricted, ["cone", EI, APD], "cone"),
    (Kind::Bare, ["cone", EI, APD], "cone"),
    (Kind::Symmetric, ["symmetric", APD, APD], "symmetric"),
    (Kind::Sequential, ["symmetric", APD, APD], "symmetric"),
    (Kind::Double, ["cone", EI, APD], "cone"),
    (Kind::Lossy, ["cone", EI, APD], "cone"),
    (Kind::UdpBlocked, ["blocked", "unknown", "unknown"], "cone"),
    (Kind::Only443, ["blocked", "unknown", "unknown"], "blocked"),
];

/// A server with two addresses finds out everything.
pub(crate) fn two_addresses(_: &Arguments) {
    let mut world = World::new(Options { two_addresses: true, ..Options::default() });
    check(&mut world, true, |_, expected| expected);
}

/// A server with one address cannot send from another one: who is open to everybody is called open to
/// addresses that were written to. Nobody is called laxer than it is.
pub(crate) fn one_address(_: &Arguments) {
    let mut world = World::new(Options::default());
    check(&mut world, false, |kind, [name, mapping, filtering]| match kind {
        Kind::Public | Kind::FullCone => [name, mapping, AD],
        _ => [name, mapping, filtering],
    });
}

/// With a relay that can be reached it finds out everything, as with two addresses.
pub(crate) fn one_address_and_a_relay(_: &Arguments) {
    let mut world = World::new(Options::default());
    let place = world.place(Kind::Public);
    let relay = place.online(world.node("relay").with(&["-relay"]));
    relay.wait_until("reachable", |status| status.relay.reachable.then_some(()));
    check(&mut world, true, |_, expected| expected);
}

fn check(world: &mut World, confirmed: bool, expected: fn(Kind, Report) -> Report) {
    // Signalling is on its usual port: behind the strictest firewall there would be no server.
    let kinds: Vec<_> = REPORTS.into_iter().filter(|(kind, ..)| *kind != Kind::Only443).collect();
    let nodes: Vec<_> = kinds
        .iter()
        .map(|(kind, ..)| {
            let place = world.place(*kind);
            let node = place.online(world.node(kind.name()));
            (place, node)
        })
        .collect();
    for ((place, node), (kind, udp, tcp)) in nodes.iter().zip(kinds) {
        let udp = expected(kind, udp);
        let nat = node.wait_until(&format!("a report of {udp:?} and {tcp}"), |status| {
            let nat = &status.nat;
            (words(&nat.udp) == udp && nat.tcp.kind == tcp).then(|| nat.clone())
        });
        for view in [&nat.udp, &nat.tcp].into_iter().filter(|view| view.kind != "blocked") {
            assert_eq!(
                view.public.map(|public| public.ip()),
                Some(place.public().into()),
                "{kind}: {view:?}"
            );
        }
        if confirmed && nat.udp.kind != "blocked" {
            assert!(nat.udp.mapping_confirmed && nat.udp.filtering_confirmed, "{kind}: {:?}", nat.udp);
        }
        if kind == Kind::Sequential {
            assert_eq!(nat.udp.port_step, Some(1), "{:?}", nat.udp);
        }
    }
}

fn words(view: &NatView) -> [&str; 3] {
    [&view.kind, &view.mapping, &view.filtering]
}

const EI: &str = "endpoint-independent";
const AD: &str = "address-dependent";
const APD: &str = "address-and-port-dependent";
