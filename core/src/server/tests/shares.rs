//! Nodes that are shared with another user, and the figures that the admin sees.

use super::super::io::{AdminReply, AdminRequest};
use super::*;
use crate::wire::message::PushShares;

type Conn = (ConnId, crate::auth::SecureChannel);

/// Nodes `a` of alice and `b` of bob.
fn world() -> (World, Conn, Conn) {
    let mut world = World::new(1);
    for user in ["alice", "bob"] {
        world.users.insert(user.parse().unwrap(), TOKEN.parse().unwrap());
    }
    world.kill_server();
    world.start_server();
    let a = world.log_in_raw_as(HERE, "alice", ("a", 1, TOKEN)).unwrap();
    let b = world.log_in_raw_as(HERE, "bob", ("b", 2, TOKEN)).unwrap();
    (world, a, b)
}

fn share(targets: Option<&[&str]>) -> AdminRequest {
    let targets = targets.map(|targets| targets.iter().map(|rule| rule.parse().unwrap()).collect());
    let [user, to] = ["bob", "alice"].map(|user| user.parse().unwrap());
    AdminRequest::Share { user, node: "b".parse().unwrap(), to, targets }
}

fn pushed<M: Message>(world: &mut World, conn: &mut Conn) -> Vec<M> {
    let received = std::mem::take(&mut world.raw(conn.0).received);
    let opened: Vec<_> = received.iter().map(|message| conn.1.opener.open(message).unwrap()).collect();
    opened.iter().filter_map(|message| read(message)).collect()
}

#[test]
fn a_shared_node_is_reached_for_its_targets_until_the_share_ends() {
    let (mut world, mut a, mut b) = world();
    world.request_raw(&mut b, &report(&[]));
    let online = |world: &mut World, a: &mut Conn| {
        read::<ReportReply>(&world.request_raw(a, &report(&["b@bob"]))).unwrap().online
    };
    assert!(online(&mut world, &mut a).is_empty());
    // Whether it exists or not is not to be seen.
    let refusal = |answer: Vec<u8>| read::<Refused>(&answer).unwrap();
    assert_eq!(refusal(world.request_raw(&mut a, &connect("b@bob"))).code, Code::NotAllowed);
    assert_eq!(refusal(world.request_raw(&mut a, &connect("nobody@bob"))).code, Code::NotAllowed);

    assert_eq!(world.ask_admin(share(Some(&["127.0.0.1:22", "10.0.0.0/8:80"]))), Ok(AdminReply::Done));
    assert_eq!(pushed::<PeerOnline>(&mut world, &mut a)[0].peers, ["b@bob".parse().unwrap()]);
    let told = pushed::<PushShares>(&mut world, &mut b);
    assert_eq!((told[0].shares[0].user.as_str(), told[0].shares[0].targets.0.len()), ("alice", 2));
    assert_eq!(online(&mut world, &mut a), ["b@bob".parse().unwrap()]);

    assert!(read::<ConnectReply>(&world.request_raw(&mut a, &connect("b@bob"))).is_some());
    let start = pushed::<PunchStart>(&mut world, &mut b).pop().unwrap();
    assert_eq!((start.peer.to_string(), start.targets.unwrap().0.len()), ("a@alice".to_owned(), 2));
    // The other direction stays shut.
    assert_eq!(refusal(world.request_raw(&mut b, &connect("a@alice"))).code, Code::NotAllowed);

    // It outlives the server.
    world.kill_server();
    world.start_server();
    let mut b = world.log_in_raw_as(HERE, "bob", ("b", 2, TOKEN)).unwrap();
    let reply = read::<ReportReply>(&world.request_raw(&mut b, &report(&[]))).unwrap();
    assert_eq!(reply.shares.len(), 1);

    assert_eq!(world.ask_admin(share(None)), Ok(AdminReply::Done));
    assert!(pushed::<PushShares>(&mut world, &mut b)[0].shares.is_empty());
    let mut a = world.log_in_raw_as(HERE, "alice", ("a", 1, TOKEN)).unwrap();
    assert_eq!(refusal(world.request_raw(&mut a, &connect("b@bob"))).code, Code::NotAllowed);
    assert_eq!(world.ask_admin(share(None)).unwrap_err().status, 404);
}

#[test]
fn the_asker_is_told_that_it_shares_nothing() {
    let (mut world, mut a, mut b) = world();
    world.request_raw(&mut b, &report(&[]));
    world.request_raw(&mut a, &report(&[]));
    world.ask_admin(share(Some(&[]))).unwrap();
    world.raw(a.0).received.clear();
    let answers = world.ask_raw(&mut a, &encode(78, &connect("b@bob")));
    let start = answers.iter().find_map(|message| read::<PunchStart>(message)).unwrap();
    assert_eq!(start.targets, Some(Default::default()));
}

#[test]
fn a_share_of_or_with_nobody_is_refused() {
    let (mut world, ..) = world();
    let ask = |user: &str, to: &str| AdminRequest::Share {
        user: user.parse().unwrap(),
        node: "b".parse().unwrap(),
        to: to.parse().unwrap(),
        targets: Some(Vec::new()),
    };
    for (user, to, status) in [("nobody", "alice", 404), ("bob", "nobody", 404), ("bob", "bob", 400)] {
        assert_eq!(world.ask_admin(ask(user, to)).unwrap_err().status, status, "{user} {to}");
    }
}

#[test]
fn every_map_shows_its_size_and_its_cap() {
    let (mut world, mut a, _) = world();
    world.request_raw(&mut a, &report(&[]));
    let outcomes = vec![crate::world::outcome(crate::path::Verdict::Connected)];
    world.request_raw(&mut a, &AttemptReport { attempt: AttemptId([1; 16]), outcomes, rtts: vec![] });
    let Ok(AdminReply::Metrics(text)) = world.ask_admin(AdminRequest::Metrics) else { panic!() };
    let value = |name: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name}"))
    };
    assert!((value("inp2p_nodes_online") - 2.0).abs() < 0.1);
    assert!((value("inp2p_rungs_total{rung=\"udp-direct\",outcome=\"connected\"}") - 1.0).abs() < 0.1);
    for map in ["nodes", "pins", "attempts", "interests", "asks", "relays", "shares", "unauthenticated"] {
        let size = value(&format!("inp2p_map_size{{map=\"{map}\"}}"));
        assert!(size <= value(&format!("inp2p_map_cap{{map=\"{map}\"}}")), "{map}");
    }
    // Every line is a comment or a sample, and every sample has its type.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
    }
}
