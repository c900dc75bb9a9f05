//! A peer whose report lies about its addresses: what third parties get to see of it.
//!
//! The liar is the released program: it has the victim's address on an interface that leads nowhere, and so claims
//! it as its own. Nothing direct leads from the honest node to it, so that one tries all that it is told.

use std::net::Ipv4Addr;

use inp2p_core::path::Rung;

use crate::arguments::Arguments;
use crate::events::Two;
use crate::internet::SERVER;
use crate::kind::Kind;
use crate::lab::DEADLINE;
use crate::netns::{Namespace, join};
use crate::pair::reaches;
use crate::world::{Options, Place, World};

/// Claims the public address of a host that has nothing to do with it: the server passes it on to nobody.
pub(crate) fn claims_a_public_address(_: &Arguments) {
    let mut world = World::new(Options::default());
    let (here, there) = (world.place(Kind::PortRestricted), world.place(Kind::PortRestricted));
    let (victim, address) = world.internet.public_host();
    let (_nowhere, public) = (claim(&there.host, address), there.public());
    here.nat().rules(&format!(
        "table ip block {{ chain pass {{ type filter hook forward priority -10;\n\
         ip daddr {public} drop\nip saddr {public} drop\n}}\n}}"
    ));
    assert_eq!(seen_after_an_attempt(world, here, there, &victim), [0, 0]);
}

/// Claims the private address of another host of the home that both are in, which the server cannot tell from its
/// own: that host gets no more than the budget of an address that is only claimed.
pub(crate) fn claims_a_neighbour(_: &Arguments) {
    let mut world = World::new(Options::default());
    let mut here = world.place(Kind::PortRestricted);
    let home = here.home.as_mut().unwrap();
    let ((host, address), (victim, neighbour)) = (home.host(), home.host());
    let _nowhere = claim(&host, neighbour);
    // Its true address is out of reach.
    here.host.rules(&format!(
        "table ip block {{ chain own {{ type filter hook output priority -10;\nip daddr {address} drop\n}}\n}}"
    ));
    let there = Place { host, address, home: None };
    let [udp, tcp] = seen_after_an_attempt(world, here, there, &victim);
    assert!(udp > 0 && tcp > 0, "the lie was not passed on: {udp} datagrams, {tcp} segments");
    assert!(udp <= UDP_BUDGET && tcp <= TCP_BUDGET, "{udp} datagrams, {tcp} segments");
}

/// Gives a host an address more, on an interface that leads nowhere, and does not answer for it. The other end of
/// the interface.
fn claim(host: &Namespace, address: Ipv4Addr) -> Namespace {
    let nowhere = Namespace::new("nowhere");
    join((host, "more0"), (&nowhere, "end0"));
    host.sysctl("ipv4/conf/all/arp_ignore", "1");
    host.ip(&format!("addr add {address}/32 dev more0"));
    nowhere
}

/// How many UDP datagrams and TCP segments a host has got when the first attempt of the honest node `a` at `here` to
/// reach the liar `b` at `there` is over.
fn seen_after_an_attempt(world: World, here: Place, there: Place, victim: &Namespace) -> [u32; 2] {
    victim.rules(&format!(
        "table ip seen {{ chain own {{ type filter hook prerouting priority -400;\n\
         ip saddr {SERVER} accept\nmeta l4proto udp counter\nmeta l4proto tcp counter\n}}\n}}"
    ));
    let two = Two::at(world, here, there);
    reaches(&two.a, Rung::ServerRelay.as_str(), DEADLINE);
    two.a.wait_until("through with an attempt", |status| {
        // What became of the rungs is told at its end.
        (!status.peers.first()?.attempts.is_empty()).then_some(())
    });
    let listed = victim.tool("nft", "list table ip seen");
    let counts = listed.lines().filter_map(|line| {
        let after = line.split_once("counter packets ")?.1;
        after.split(' ').next()?.parse().ok()
    });
    let counts: Vec<u32> = counts.collect();
    counts.try_into().unwrap_or_else(|_| panic!("{listed}"))
}

/// What an address that is only claimed may get in an attempt: five probes, and ten datagrams of a handshake where the
/// honest node is the one to begin it (`punch::aim`, `session::datagrams`).
const UDP_BUDGET: u32 = 15;
/// One connection: its SYN, and what the system repeats of it in the 8 s that an attempt lasts.
const TCP_BUDGET: u32 = 4;
