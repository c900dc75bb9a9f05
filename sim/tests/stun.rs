//! The server's STUN ports, as any client sees them.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::*;
use futures_util::future::{Either, select};
use inp2p_core::stun::client::{self, Ask, Message, Seen};
use inp2p_core::stun::server::Change;
use inp2p_driver::net::Net;
use inp2p_sim::{HostId, LinkConfig, SimNet, SimUdp, World, programs};

const FIRST: &str = "198.18.0.10";
const SECOND: &str = "198.18.0.11";
const UDP: [u16; 2] = [27_182, 27_183];
const TCP: [u16; 2] = [27_180, 27_181];

/// A server with two addresses, of which it may use one or both, and a host that asks.
fn lab(bind: Option<&'static str>, second: bool) -> (World, HostId, HostId) {
    let world = World::new(1);
    let server = world.host("server");
    let line = LinkConfig::default();
    world.attach(server, world.internet(), &[&format!("{FIRST}/32"), &format!("{SECOND}/32")], line.clone());
    let client = world.public_host("client", 1, line);
    world.program(server, move |net| {
        let inner = net.clone();
        net.spawn("main", async move {
            let mut setup = programs::server(&inner);
            setup.bind = bind.map(|ip| ip.parse().unwrap());
            setup.stun_ip2 = second.then(|| SECOND.parse().unwrap());
            let _server = inp2p_driver::server::start(inner, setup).await.unwrap();
            std::future::pending::<()>().await;
        });
    });
    world.run_for(Duration::from_secs(1));
    (world, server, client)
}

/// Asks over UDP: what was seen, or the error, and where the answer came from; none if there is none.
async fn ask(
    net: &SimNet,
    socket: &mut SimUdp,
    to: SocketAddr,
    question: Ask,
) -> Option<(Result<Seen, u16>, SocketAddr)> {
    let transaction = net.seed()[..12].try_into().unwrap();
    send_to(socket, to, &client::request(transaction, question)).await.unwrap();
    let timeout = net.sleep(Duration::from_secs(1));
    let Either::Left((received, _)) = select(Box::pin(receive(socket)), Box::pin(timeout)).await else {
        return None;
    };
    let (from, bytes) = received.into_iter().next().unwrap();
    match client::read(&bytes) {
        Some(Message::Answer(of, result)) if of == transaction => Some((result, from)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_come_from_the_address_and_port_that_were_asked_for() {
    for bind in [None, Some(FIRST)] {
        let (world, _, client) = lab(bind, true);
        let net = world.net(client);
        world.block_on(client, LIMIT, async move {
            let mut socket = net.bind_udp(at("::", 5000)).unwrap();
            let (ips, own) = ([FIRST, SECOND], at("198.18.0.1", 5000));
            for (ip, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let to = at(ips[ip], UDP[port]);
                let (seen, from) = ask(&net, &mut socket, to, Ask::Proof).await.unwrap();
                let seen = seen.unwrap();
                assert_eq!((seen.mapped, from), (own, to));
                assert_eq!(seen.other, Some(at(ips[1 - ip], UDP[1 - port])));
                for change in [(false, true), (true, false), (true, true)] {
                    let question = Ask::Change(Change { ip: change.0, port: change.1 });
                    let (seen, from) = ask(&net, &mut socket, to, question).await.unwrap();
                    assert_eq!(seen.unwrap().mapped, own);
                    let expected = at(ips[ip ^ usize::from(change.0)], UDP[port ^ usize::from(change.1)]);
                    assert_eq!(from, expected, "{bind:?}");
                }
            }
        });
    }
}

#[test]
fn with_one_address_only_the_port_changes_and_only_for_our_own_nodes() {
    let (world, _, client) = lab(None, false);
    let net = world.net(client);
    world.block_on(client, LIMIT, async move {
        let mut socket = net.bind_udp(at("::", 5000)).unwrap();
        let to = at(FIRST, UDP[0]);
        let (seen, from) = ask(&net, &mut socket, to, Ask::Proof).await.unwrap();
        assert_eq!((seen.unwrap().other, from), (None, to));
        let question = Ask::Change(Change { ip: false, port: true });
        assert_eq!(ask(&net, &mut socket, to, question).await.unwrap(), (Err(420), to));
        let (_, from) = ask(&net, &mut socket, to, Ask::OtherPort).await.unwrap();
        assert_eq!(from, at(FIRST, UDP[1]));
    });
}

#[test]
fn an_answer_reaches_another_socket_that_has_shown_itself() {
    let (world, _, client) = lab(None, false);
    let net = world.net(client);
    world.block_on(client, LIMIT, async move {
        let mut one = net.bind_udp(at("::", 5000)).unwrap();
        let mut two = net.bind_udp(at("::", 5001)).unwrap();
        let to = at(FIRST, UDP[0]);
        let (seen, _) = ask(&net, &mut one, to, Ask::Proof).await.unwrap();
        let question = Ask::ReturnTo(5000, seen.unwrap().proof.unwrap());
        assert_eq!(ask(&net, &mut two, to, question).await, None, "it goes elsewhere");
        assert_eq!(receive(&mut one).await.len(), 1);
    });
}

#[test]
fn servers_that_are_tied_together_fall_silent() {
    let (world, server, _) = lab(None, false);
    let other = world.public_host("other", 12, LinkConfig::default());
    world.program(other, |net| {
        let inner = net.clone();
        net.spawn("main", async move {
            let _server = inp2p_driver::server::start(inner.clone(), programs::server(&inner)).await.unwrap();
            std::future::pending::<()>().await;
        });
    });
    world.run_for(Duration::from_secs(1));
    let before = world.events();
    // What somebody who forges sources would send: one's request in the name of the other. The simulator
    // cannot forge, so the socket of one of them says it.
    let _ = server;
    let net = world.net(other);
    world.block_on(other, LIMIT, async move {
        let mut socket = net.bind_udp(at("::", 27_190)).unwrap();
        send_to(&mut socket, at(FIRST, UDP[0]), &client::request([7; 12], Ask::Proof)).await.unwrap();
    });
    world.run_for(Duration::from_secs(10));
    assert!(world.events() - before < 50, "{}", world.timeline(20));
}

#[test]
fn tcp_connections_are_answered_again_and_again_and_closed_when_idle() {
    for (bind, ips) in [(None, [FIRST, SECOND]), (Some(FIRST), [FIRST, SECOND])] {
        let (world, _, client) = lab(bind, true);
        let net = world.net(client);
        world.block_on(client, LIMIT, async move {
            for (ip, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let mut stream = connect(&net, at(ips[ip], TCP[port])).await.unwrap();
                let own = inp2p_driver::net::StreamIo::local_addr(&stream).unwrap();
                for number in 0..3 {
                    let request = client::request([number; 12], Ask::Proof);
                    let (head, tail) = request.split_at(7);
                    write_all(&mut stream, head).await.unwrap();
                    net.sleep(Duration::from_millis(100)).await;
                    write_all(&mut stream, tail).await.unwrap();
                    let reply = read_exact(&mut stream, 72).await.unwrap();
                    let Some(Message::Answer(of, Ok(seen))) = client::read(&reply) else { panic!() };
                    assert_eq!((of, seen.mapped), ([number; 12], own));
                    assert_eq!(seen.other, Some(at(ips[1 - ip], TCP[1 - port])));
                }
                let start = net.now();
                assert_eq!(read_to_end(&mut stream).await.unwrap(), b"");
                assert!((4..=6).contains(&(net.now() - start).as_secs()));
            }
        });
    }
}
