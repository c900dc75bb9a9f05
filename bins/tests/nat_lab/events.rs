//! What happens to a connection while it carries bytes: nothing may be lost.

use inp2p_core::path::Rung;

use crate::arguments::Arguments;
use crate::expected::expected;
use crate::kind::{Kind, silent};
use crate::lab::{Node, target};
use crate::liar;
use crate::netns::Namespace;
use crate::pair::reaches;
use crate::reports;
use crate::transfer::Transfer;
use crate::world::{Options, Place, World};

/// A check of this kind.
pub(crate) type Event = fn(&Arguments);

/// All of them, with their names.
pub(crate) const EVENTS: [(&str, Event); 11] = [
    ("NAT report: by a server with two addresses", reports::two_addresses),
    ("NAT report: by a server with one address", reports::one_address),
    ("NAT report: by a server with one address and a relay", reports::one_address_and_a_relay),
    ("same LAN: over private addresses", same_lan),
    ("NAT unknown: tried all the same", nat_unknown),
    ("NAT forgets all: conntrack flushed", nat_forgets_all),
    ("NAT has given the TCP port away: a second one", port_given_away),
    ("NAT reloads: another port for everything", nat_reloads),
    ("server killed and started again", server_killed),
    ("a liar claims a public address: nobody else sees anything", liar::claims_a_public_address),
    ("a liar claims a neighbour: that one sees a few packets", liar::claims_a_neighbour),
];

/// Two nodes at the two ends of a forward to an echo, with a link on the best rung that there is.
pub(crate) struct Two {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) here: Place,
    pub(crate) there: Place,
    pub(crate) world: World,
}

impl Two {
    /// Behind these NATs.
    pub(crate) fn behind(a: Kind, b: Kind) -> Self {
        let mut world = World::new(Options::default());
        let (here, there) = (world.place(a), world.place(b));
        let two = Self::at(world, here, there);
        let expected = expected(a, b);
        reaches(&two.a, expected.rung.unwrap().as_str(), expected.within);
        two
    }

    /// At these places.
    pub(crate) fn at(world: World, here: Place, there: Place) -> Self {
        let echo = there.host.run(target::echo);
        let b = there.online(world.node("b"));
        let a = here.online(world.node("a").forward("b", echo));
        Self { a, b, here, there, world }
    }

    /// Begins to send so many bytes there and back.
    pub(crate) fn transfer(&self, length: usize) -> Transfer {
        Transfer::begin(self.here.connect(&self.a), length)
    }
}

/// Lets no more than this leave by an interface, so that a transfer lasts.
pub(crate) fn limit(namespace: &Namespace, interface: &str, megabits: u32) {
    let shape = format!("tbf rate {megabits}mbit burst 64kb latency 50ms");
    namespace.tool("tc", &format!("qdisc replace dev {interface} root {shape}"));
}

fn same_lan(arguments: &Arguments) {
    let mut world = World::new(Options::default());
    let mut here = world.place(Kind::PortRestricted);
    let (host, address) = here.home.as_mut().unwrap().host();
    let there = Place { host, address, home: None };
    let two = Two::at(world, here, there);
    reaches(&two.a, Rung::UdpDirect.as_str(), crate::lab::DEADLINE);
    two.transfer(arguments.mebibytes << 20).finish();
    assert_eq!(two.a.peer().remote.map(|remote| remote.ip()), Some(two.there.address.into()));
    assert_eq!(two.b.peer().remote.map(|remote| remote.ip()), Some(two.here.address.into()));
}

/// No answer of STUN comes, so nothing is known of the NATs: UDP is tried all the same (OpenP2P's type 314).
fn nat_unknown(arguments: &Arguments) {
    let mut world = World::new(Options::default());
    world.server_host.rules(
        "table ip silent { chain own { type filter hook input priority 0;\n\
         udp dport { 27182, 27183 } drop\ntcp dport { 27180, 27181 } drop\n}\n}",
    );
    let (here, there) = (world.place(Kind::PortRestricted), world.place(Kind::Public));
    let echo = there.host.run(target::echo);
    let a = here.online(world.node("a").forward("b", echo));
    // It has given up to ask, and has learnt nothing from it that would be true.
    a.wait_until("through with its questions", |status| (status.nat.udp.kind == "blocked").then_some(()));
    let b = there.online(world.node("b"));
    reaches(&a, Rung::UdpDirect.as_str(), crate::lab::DEADLINE);
    Two { a, b, here, there, world }.transfer(arguments.mebibytes << 20).finish();
}

fn nat_forgets_all(arguments: &Arguments) {
    let two = Two::behind(Kind::PortRestricted, Kind::Public);
    limit(&two.here.host, "eth0", 100);
    let transfer = two.transfer(arguments.mebibytes << 20);
    for percent in [20, 50, 80] {
        transfer.reach(percent);
        two.here.nat().tool("conntrack", "-F");
    }
    transfer.finish();
}

/// The SYN of the peer has come while the own one leaves, and has taken its port on a router without a firewall: for
/// as long as its entry lives, which is made here before, since it is a matter of microseconds.
fn port_given_away(arguments: &Arguments) {
    const PORT: &str = "5000";
    let mut world = World::new(Options::default());
    let (here, there) = (world.place(Kind::Bare), world.place(Kind::UdpBlocked));
    let entry = format!(
        "-I -p tcp -s {} -d {} --sport {PORT} --dport {PORT} --state SYN_SENT -t 120",
        there.public(),
        here.public(),
    );
    here.nat().rules(&silent(PORT.parse().unwrap()));
    here.nat().tool("conntrack", &entry);
    let echo = there.host.run(target::echo);
    let node = |name| world.node(name).with(&["-p2p-port", PORT]);
    let (b, a) = (there.online(node("b")), here.online(node("a").forward("b", echo)));
    reaches(&a, Rung::TcpPunch.as_str(), crate::lab::DEADLINE);
    Two { a, b, here, there, world }.transfer(arguments.mebibytes << 20).finish();
}

fn nat_reloads(arguments: &Arguments) {
    let two = Two::behind(Kind::PortRestricted, Kind::Public);
    limit(&two.here.host, "eth0", 100);
    let transfer = two.transfer(arguments.mebibytes << 20);
    transfer.reach(30);
    let rules = Kind::Symmetric.rules(&two.here.home.as_ref().unwrap().public.to_string(), "192.168.1.2");
    two.here.nat().rules(&format!("flush ruleset\n{rules}"));
    two.here.nat().tool("conntrack", "-F");
    transfer.finish();
}

fn server_killed(arguments: &Arguments) {
    let mut two = Two::behind(Kind::PortRestricted, Kind::Public);
    limit(&two.here.host, "eth0", 100);
    let transfer = two.transfer(arguments.mebibytes << 20);
    transfer.reach(30);
    two.world.restart_server();
    transfer.finish();
    two.a.wait_until("logged in again", |status| {
        (status.server.connected && status.server.relogins == 1).then_some(())
    });
}
