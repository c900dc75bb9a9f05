//! How many round trips the first byte through a brand-new peer takes, over a relay, while better rungs are
//! still being tried. Virtual time makes the count exact.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use inp2p_driver::net::Net;
use inp2p_driver::setup::{ServerRelay, ServerSetup};
use inp2p_sim::{Event, HostId, Kind, LinkConfig, Place, SimNet, Summary, World, programs};

/// From one node by way of the relay to the other and back: four lines of 10 ms each way.
const ROUND_TRIP: Duration = Duration::from_millis(80);

/// What the hosts' own loopback takes: from the local program to its node, and from the node to the target.
const SLACK: Duration = Duration::from_millis(2);

/// How long it took, in round trips through the relay.
#[derive(Debug)]
struct Trips {
    /// From the moment when the relay had both nodes' responses, until the first byte was at the target.
    arrived: f64,
    /// The same until the first byte of the answer was back.
    answered: f64,
    /// From the first dial of the relay until the first byte was at the target.
    cold: f64,
}

/// Starts two nodes between which nothing passes, and opens a forward between them at once. The relay is the
/// server itself, or a third node.
fn first_byte(server_relays: bool, from_a: bool) -> Trips {
    let world = World::new(7);
    let host = |name, last| world.public_host(name, last, LinkConfig::default());
    let (server, third, a, b) = (host("server", 10), host("r", 11), host("a", 12), host("b", 13));
    world.partition(a, b);
    world.program(server, move |net| {
        net.clone().spawn("main", async move {
            let relay = server_relays.then(ServerRelay::default);
            let setup = ServerSetup { relay, ..programs::server(&net) };
            let _server = inp2p_driver::server::start(net, setup).await.unwrap();
            std::future::pending::<()>().await;
        });
    });
    if !server_relays {
        start(&world, third, "r", None);
        // The server makes sure of it before it offers it.
        world.run_for(Duration::from_secs(5));
    }
    world.keep_log(usize::MAX);
    start(&world, a, "a", from_a.then_some("2222:b:22"));
    start(&world, b, "b", (!from_a).then_some("2222:a:22"));
    let (near, far) = if from_a { (a, b) } else { (b, a) };
    let (origin, began) = (world.now(), world.net(near).now());
    let arrived: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (net, slot) = (world.net(far), arrived.clone());
    world.spawn(far, "target", async move {
        let mut stream = accept(&mut listen(&net, 22)).await;
        let byte = read_exact(&mut stream, 1).await.unwrap();
        *slot.lock().unwrap() = Some(net.now());
        write_all(&mut stream, &byte).await.unwrap();
        std::future::pending::<()>().await;
    });
    // The forward is open, and the nodes have yet to log in.
    world.run_for(Duration::from_millis(20));
    let net = world.net(near);
    let answered = world.block_on(near, LIMIT, async move {
        let mut stream = connect(&net, at("127.0.0.1", 2222)).await.unwrap();
        write_all(&mut stream, b"1").await.unwrap();
        assert_eq!(read_exact(&mut stream, 1).await.unwrap(), b"1");
        net.now()
    });
    let legs = [a, b].map(|node| leg(&world, node, server_relays));
    let dialled = legs.iter().map(|leg| leg.dialled).min().unwrap();
    let accepted = legs.iter().map(|leg| leg.responded).max().unwrap();
    let arrived = arrived.lock().unwrap().unwrap();
    let since = |moment: Instant, start: Duration| {
        let taken = (moment - began + origin.elapsed()).checked_sub(start + SLACK).unwrap();
        taken.as_secs_f64() / ROUND_TRIP.as_secs_f64()
    };
    Trips {
        arrived: since(arrived, accepted),
        answered: since(answered, accepted),
        cold: since(arrived, dialled),
    }
}

/// Starts a node: with a forward, or as a relay.
fn start(world: &World, host: HostId, name: &'static str, forward: Option<&'static str>) {
    world.program(host, move |net: SimNet| {
        net.clone().spawn("main", async move {
            let mut setup = programs::node(&net, name, "server", forward.as_slice());
            if name == "r" {
                setup = programs::relaying(setup, false);
            }
            let _node = inp2p_driver::agent::start(net, setup).await.unwrap();
            std::future::pending::<()>().await;
        });
    });
}

/// A node's connection to the relay.
struct Leg {
    dialled: Duration,
    /// When the relay had what the node answers to its challenge.
    responded: Duration,
}

fn leg(world: &World, node: HostId, server_relays: bool) -> Leg {
    let log = world.log();
    let port = if server_relays { 27_183 } else { 27_185 };
    let sent = |place, packet: &Summary| place == Place::Host(node) && packet.to.port() == port;
    let mut dials = log.iter().filter_map(|entry| match &entry.event {
        Event::Sent(packet) if packet.kind == Kind::Syn && sent(entry.place, packet) => {
            Some((entry.at, packet.from))
        }
        _ => None,
    });
    // At the server's port the node has logged in before that.
    let (dialled, from) = dials.nth(usize::from(server_relays)).unwrap();
    let mut heard = log.iter().filter_map(|entry| match &entry.event {
        Event::Received(packet) if packet.kind == Kind::Data && packet.from == from => Some(entry.at),
        _ => None,
    });
    // The first is the opening.
    let responded = heard.nth(1).unwrap();
    Leg { dialled: dialled.elapsed(), responded: responded.elapsed() }
}

#[test]
fn the_first_byte_over_a_relay_takes_two_round_trips_and_three_cold() {
    for server_relays in [false, true] {
        for from_a in [false, true] {
            let trips = first_byte(server_relays, from_a);
            assert!(trips.arrived <= 2.0, "{trips:?}");
            assert!(trips.answered <= 2.25, "{trips:?}");
            assert!(trips.cold <= 3.0, "{trips:?}");
        }
    }
}
