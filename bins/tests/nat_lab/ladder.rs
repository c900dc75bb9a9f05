//! Each rung carries bytes where NATs and firewalls make all better ones impossible.

use inp2p_core::path::Rung;

use crate::arguments::Arguments;
use crate::events::Two;
use crate::kind::Kind;
use crate::lab::Node;
use crate::pair::reaches;
use crate::world::{OTHER_USER, Options, Place, World};

/// A rung, the NATs between which it is the best one, and the relay that there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) rung: Rung,
    a: Kind,
    b: Kind,
    relay: Option<Relay>,
    /// Whether the routers of both let UDP out.
    udp: bool,
}

/// A node that serves as a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relay {
    /// For its own user.
    Private,
    /// For all, itself of another user.
    Super,
}

/// All rungs.
pub(crate) const LADDER: [Step; 14] = [
    step(Rung::UdpDirect, Kind::PortRestricted, Kind::Public, None),
    step(Rung::UdpPunch, Kind::PortRestricted, Kind::Bare, None),
    step(Rung::TcpDirect, Kind::UdpBlocked, Kind::Public, None),
    step(Rung::TcpPunch, Kind::UdpBlocked, Kind::PortRestricted, None),
    without_udp(Kind::FullCone, Kind::FullCone),
    without_udp(Kind::Double, Kind::Double),
    without_udp(Kind::PortRestricted, Kind::Bare),
    without_udp(Kind::PortRestricted, Kind::Sequential),
    without_udp(Kind::Sequential, Kind::Sequential),
    without_udp(Kind::FullCone, Kind::Symmetric),
    step(Rung::PrivateRelay, Kind::UdpBlocked, Kind::Symmetric, Some(Relay::Private)),
    step(Rung::SuperRelay, Kind::UdpBlocked, Kind::Symmetric, Some(Relay::Super)),
    step(Rung::ServerRelay, Kind::UdpBlocked, Kind::Symmetric, None),
    step(Rung::ServerRelay, Kind::Only443, Kind::Only443, None),
];

impl Step {
    /// For people.
    pub(crate) fn name(self) -> String {
        let udp = if self.udp { "" } else { " without UDP" };
        format!("rung {} between {} and {}{udp}", self.rung, self.a, self.b)
    }

    /// Takes it.
    pub(crate) fn run(self, arguments: &Arguments) {
        let on_443 = self.a == Kind::Only443;
        let mut world = World::new(Options { on_443, ..Options::default() });
        let relay = self.relay.map(|relay| relay.start(&mut world));
        let (here, there) = (world.place(self.a), world.place(self.b));
        if !self.udp {
            [&here, &there].into_iter().for_each(|place| place.nat().rules(NO_UDP));
        }
        let two = Two::at(world, here, there);
        let peer = reaches(&two.a, self.rung.as_str(), crate::lab::DEADLINE);
        let via = match self.rung {
            Rung::UdpDirect | Rung::UdpPunch | Rung::TcpDirect | Rung::TcpPunch => None,
            Rung::PrivateRelay => Some("relay"),
            Rung::SuperRelay => Some("relay@other"),
            Rung::ServerRelay => Some("server"),
        };
        assert_eq!(peer.via.as_deref(), via, "{peer:#?}");
        let bytes = two.transfer(arguments.mebibytes << 20).finish() as u64;
        assert_eq!([two.a.peer().rung, two.b.peer().rung], [Some(self.rung); 2]);
        if let Some((_, relay)) = relay {
            let carried = relay.status().relay.bytes;
            assert!(carried > 2 * bytes, "the relay says that it carried {carried} bytes");
        }
    }
}

impl Relay {
    /// One with a public address, once the server knows that it can be reached.
    pub(crate) fn start(self, world: &mut World) -> (Place, Node) {
        let place = world.place(Kind::Public);
        let node = world.node("relay").with(&["-bw", "1000"]);
        let node = match self {
            Self::Private => node.with(&["-relay"]),
            Self::Super => node.with(&["-super", "-user", OTHER_USER.0]).token(OTHER_USER.1),
        };
        let node = place.online(node);
        node.wait_until("a relay that can be reached", |status| status.relay.reachable.then_some(()));
        (place, node)
    }
}

const fn step(rung: Rung, a: Kind, b: Kind, relay: Option<Relay>) -> Step {
    Step { rung, a, b, relay, udp: true }
}

/// Between these the best rung is `tcp-punch` if no UDP leaves.
const fn without_udp(a: Kind, b: Kind) -> Step {
    Step { rung: Rung::TcpPunch, a, b, relay: None, udp: false }
}

const NO_UDP: &str =
    "table ip block { chain pass { type filter hook forward priority -10;\nmeta l4proto udp drop\n}\n}";
