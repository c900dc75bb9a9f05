//! The prober before NATs of each kind, in a small model of the world.

mod relays;
mod world;

use std::collections::BTreeSet;

use super::Dependence::{
    AddressAndPortDependent as PerPort, AddressDependent as PerAddress, EndpointIndependent as ForAll,
    Unknown,
};
use world::*;

use super::*;
use crate::path::Transport;

fn confirmed(is: Dependence) -> Finding {
    Finding { is, confirmed: true }
}

fn presumed(is: Dependence) -> Finding {
    Finding { is, confirmed: false }
}

#[test]
fn every_mapping_and_filter_is_named_with_a_server_of_two_addresses() {
    for (mapping, kind) in [(ForAll, Kind::Cone), (PerAddress, Kind::Symmetric), (PerPort, Kind::Symmetric)] {
        for filtering in [ForAll, PerAddress, PerPort] {
            let found = World::new(Some(Nat { mapping, filtering, step: 2, ..HOME }), 2).udp();
            assert_eq!(found.mapping, confirmed(mapping), "{filtering}");
            assert_eq!(found.filtering, confirmed(filtering), "{mapping}");
            assert_eq!(found.kind(), kind);
            assert_eq!(found.public.map(|public| public.ip()), Some(OUTSIDE));
            assert_eq!(found.port_step, (kind == Kind::Symmetric).then_some(2), "{mapping} {filtering}");
        }
    }
}

#[test]
fn with_one_address_what_cannot_be_told_apart_is_marked() {
    for (mapping, expected) in
        [(ForAll, presumed(ForAll)), (PerAddress, presumed(ForAll)), (PerPort, confirmed(PerPort))]
    {
        let found = World::new(Some(Nat { mapping, step: 1, ..HOME }), 1).udp();
        assert_eq!(found.mapping, expected);
    }
    for (filtering, expected) in
        [(ForAll, presumed(PerAddress)), (PerAddress, presumed(PerAddress)), (PerPort, confirmed(PerPort))]
    {
        let found = World::new(Some(Nat { filtering, ..HOME }), 1).udp();
        assert_eq!(found.filtering, expected);
    }
}

#[test]
fn a_public_host_has_no_nat() {
    for servers in [1, 2] {
        let (report, world) = World::new(None, servers).probe(700);
        for found in [report.udp4.unwrap(), report.tcp4.unwrap()] {
            assert_eq!((found.kind(), found.kind().legacy()), (Kind::None, 0));
            assert_eq!(found.mapping, confirmed(ForAll));
            assert_eq!(found.public, Some(SocketAddr::new(OUTSIDE, PORT)));
            assert_eq!((found.hairpin, found.lifetime), (None, None));
        }
        assert_eq!(world.sockets.len(), 1, "all others are closed");
    }
}

#[test]
fn tcp_is_measured_from_the_listening_port() {
    for (mapping, servers, expected) in [
        (ForAll, 2, confirmed(ForAll)),
        (ForAll, 1, presumed(ForAll)),
        (PerAddress, 2, confirmed(PerAddress)),
        (PerPort, 1, confirmed(PerPort)),
    ] {
        let found = World::new(Some(Nat { mapping, step: 1, ..HOME }), servers).probe(5).0.tcp4.unwrap();
        assert_eq!(found.mapping, expected);
        assert_eq!(found.filtering, presumed(Unknown));
        assert!(found.proof.is_some());
    }
}

#[test]
fn udp_is_through_with_its_mappings_before_tcp_makes_any() {
    for (servers, step) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let (report, mut world) = World::new(Some(Nat { mapping: PerPort, step, ..HOME }), servers).probe(5);
        let step = Some(i32::from(step));
        assert_eq!([report.udp4.unwrap().port_step, report.tcp4.unwrap().port_step], [step; 2]);
        world.made.dedup();
        // The last one is to see how long it lives.
        assert_eq!(world.made, [Transport::Udp, Transport::Tcp, Transport::Udp]);
    }
}

#[test]
fn tcp_does_not_wait_for_udp_that_does_not_pass() {
    let mut world = World::new(Some(HOME), 1);
    world.udp_passes = false;
    let (_, mut world) = world.probe(0);
    world.run(1);
    assert!(world.prober.report().tcp4.unwrap().public.is_some());
    assert!(world.prober.report().udp4.unwrap().public.is_none());
}

/// What predicts a port begins where the ports are, and a repetition of the tests must not take those that others
/// took meanwhile for an irregularity.
#[test]
fn how_far_ports_have_gone_is_asked_when_mappings_were_made() {
    let (report, mut world) = World::new(Some(Nat { mapping: PerPort, step: 1, ..HOME }), 1).probe(5);
    let udp = report.udp4.unwrap();
    assert_eq!((udp.port_step, udp.latest_port), (Some(1), None));
    world.last_outside += 200;
    world.tell(Input::Mapped(Duration::from_millis(500)));
    world.run(1);
    let then = world.prober.report().udp4.unwrap();
    assert_eq!(then.latest_port, Some(world.last_outside));
    assert_eq!(then, Behaviour { latest_port: then.latest_port, ..udp });
    assert!(!world.sockets.values().any(|open| matches!(open, Socket::Latest(_))));

    world.last_outside += 200;
    world.tell(Input::Signalling(true));
    world.run(5);
    assert_eq!(world.prober.report().udp4.unwrap().port_step, Some(1));
}

#[test]
fn ports_that_do_not_go_in_steps_are_not_asked_for() {
    let (_, mut world) = World::new(Some(HOME), 1).probe(5);
    let sent = world.sent;
    world.tell(Input::Mapped(Duration::ZERO));
    world.run(1);
    assert_eq!(world.sent, sent);
}

#[test]
fn hairpinning_is_seen_whatever_the_filter() {
    for hairpin in [false, true] {
        for filtering in [ForAll, PerPort] {
            let found = World::new(Some(Nat { hairpin, filtering, ..HOME }), 1).udp();
            assert_eq!(found.hairpin, Some(hairpin), "{filtering}");
        }
    }
}

#[test]
fn port_preservation_is_seen() {
    assert!(World::new(Some(HOME), 1).udp().preserves_port);
    assert!(!World::new(Some(Nat { step: 1, ..HOME }), 1).udp().preserves_port);
}

#[test]
fn udp_that_does_not_pass_is_blocked_if_the_server_is_there() {
    let mut world = World::new(Some(HOME), 1);
    world.udp_passes = false;
    let (report, mut world) = world.probe(5);
    assert_eq!(report.udp4.unwrap().kind(), Kind::Blocked, "TCP shows that the server is there");
    assert_eq!(report.tcp4.unwrap().kind(), Kind::Cone);

    world.udp_passes = true;
    world.run(60);
    assert_eq!(world.prober.report().udp4.unwrap().kind(), Kind::Cone, "it is tried again");
}

#[test]
fn where_nothing_passes_the_signalling_connection_decides() {
    let mut world = World::new(Some(HOME), 0);
    world.udp_passes = false;
    world.tcp_passes = false;
    let (report, mut world) = world.probe(20);
    for found in [report.udp4.unwrap(), report.tcp4.unwrap()] {
        assert_eq!((found.kind(), found.kind().legacy()), (Kind::Unknown, 314));
    }
    world.tell(Input::Signalling(true));
    world.run(5);
    let report = *world.prober.report();
    assert_eq!(report.udp4.unwrap().kind(), Kind::Blocked);
    assert_eq!(report.tcp4.unwrap().kind(), Kind::Blocked);
}

#[test]
fn one_lost_datagram_in_three_changes_nothing() {
    for (mapping, filtering) in [(ForAll, PerPort), (ForAll, ForAll), (PerPort, PerPort)] {
        let mut world = World::new(Some(Nat { mapping, filtering, step: 1, ..HOME }), 2);
        world.loss = Some(3);
        let found = world.udp();
        assert_eq!((found.mapping.is, found.filtering.is), (mapping, filtering));
    }
}

#[test]
fn the_lifetime_of_an_idle_mapping_is_found_between_two_rungs() {
    for (seconds, expected) in [
        (20, Lifetime { at_least: 0, below: Some(25) }),
        (30, Lifetime { at_least: 25, below: Some(55) }),
        (120, Lifetime { at_least: 115, below: Some(175) }),
        (7_200, Lifetime { at_least: 295, below: None }),
    ] {
        for step in [0, 1] {
            let nat = Nat { expiry: Duration::from_secs(seconds), step, ..HOME };
            let (report, world) = World::new(Some(nat), 1).probe(900);
            assert_eq!(report.udp4.unwrap().lifetime, Some(expected), "{seconds}");
            assert_eq!(world.sockets.len(), 1, "all others are closed");
        }
    }
}

#[test]
fn the_mapping_is_kept_alive_and_a_new_one_noticed() {
    let (report, mut world) = World::new(Some(Nat { step: 1, ..HOME }), 1).probe(300);
    let public = report.udp4.unwrap().public;
    assert!(public.is_some());
    let live = world.by_scope.iter().filter(|((port, ..), _)| *port == PORT).count();
    assert_eq!(live, 1, "it is still there");
    // The NAT restarts.
    world.by_scope.clear();
    world.mappings.clear();
    world.run(30);
    let after = world.prober.report().udp4.unwrap();
    assert_ne!(after.public, public);
    assert_eq!(after.mapping.is, ForAll);
}

#[test]
fn a_change_of_network_is_measured_anew() {
    let (report, mut world) = World::new(Some(HOME), 2).probe(30);
    assert_eq!(report.udp4.unwrap().kind(), Kind::Cone);
    world.nat = None;
    world.tell(Input::Network { addresses: &[OUTSIDE], port: PORT });
    world.run(5);
    assert_eq!(world.prober.report().udp4.unwrap().kind(), Kind::None);
    world.tell(Input::Network { addresses: &[IpAddr::from([127, 0, 0, 1])], port: PORT });
    world.run(5);
    assert_eq!(*world.prober.report(), NatReport::default(), "there is no way to the server");
}

#[test]
fn reports_come_when_there_is_news_and_the_first_after_one_round_trip() {
    let (_, mut world) = World::new(Some(HOME), 2).probe(0);
    world.run(1);
    let early = world.reports.iter().filter_map(|report| report.udp4).find(|udp| udp.public.is_some());
    assert_eq!(early.unwrap().mapping.is, ForAll);
    world.run(800);
    let count = world.reports.len();
    assert!(count < 20, "{count}");
    world.run(800);
    assert_eq!(world.reports.len(), count, "a proof that is renewed is no news");
}

#[test]
fn strangers_change_nothing() {
    let (report, mut world) = World::new(Some(HOME), 1).probe(5);
    let forged = [vec![1, 1, 0, 0], vec![0; 20], client::request([9; 12], Ask::Proof)];
    for bytes in &forged {
        for socket in [Socket::Main, Socket::Fresh(true), Socket::Idle(false)] {
            world.tell(Input::Datagram { socket, from: ([192, 0, 2, 1], 1).into(), bytes });
        }
    }
    world.tell(Input::Exchanged { id: 77, result: None });
    assert_eq!(world.prober.report().without_proofs(), report.without_proofs());
}

#[test]
fn a_server_elsewhere_is_not_probed_from_loopback_alone() {
    let addresses: BTreeSet<IpAddr> = [[127, 0, 0, 1].into()].into();
    let addresses: Vec<IpAddr> = addresses.into_iter().collect();
    assert!(is_within_reach([127, 0, 0, 1].into(), &addresses));
    assert!(!is_within_reach(SERVERS[0], &addresses));
    assert!(!is_within_reach("2001:db8::1".parse().unwrap(), &["fe80::1".parse().unwrap(), INSIDE]));
}

/// A connection of earlier tests may have had the same ends and not be over yet.
#[test]
fn tcp_that_fails_at_once_is_tried_again_a_second_later() {
    let mut world = World::new(Some(HOME), 1);
    world.tcp_passes = false;
    let (_, mut world) = world.probe(0);
    world.run(1);
    world.tcp_passes = true;
    world.run(2);
    assert!(!world.prober.report().tcp4.unwrap().blocked);
}

/// The server may be another process than before, and what it gave before the login has not been told.
#[test]
fn a_proof_from_before_a_login_is_told_after_it() {
    let mut world = World::new(Some(HOME), 1);
    world.udp_passes = false;
    let (_, mut world) = world.probe(20);
    world.tell(Input::Signalling(true));
    world.run(20);
    world.tell(Input::Signalling(false));
    // Tests go on meanwhile; in the minutes that pass the proofs are renewed.
    while !matches!(world.prober.families[0].after, After::Testing)
        || world.elapsed() < Duration::from_secs(90)
    {
        world.run(1);
        assert!(world.elapsed() < Duration::from_secs(900));
    }
    world.run(1);
    let before = world.reports.len();
    world.tell(Input::Signalling(true));
    world.run(1);
    assert!(world.reports.len() > before);
    assert_eq!(world.reports.last(), Some(world.prober.report()));
}
