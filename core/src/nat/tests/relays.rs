//! What relays add where the server has one address.

use super::*;

#[test]
fn with_one_address_and_a_relay_every_mapping_and_filter_is_named() {
    for relays in [&RELAYS[..1], &RELAYS[..]] {
        for mapping in [ForAll, PerAddress, PerPort] {
            for filtering in [ForAll, PerAddress, PerPort] {
                for loss in [None, Some(7)] {
                    let mut world = World::new(Some(Nat { mapping, filtering, step: 2, ..HOME }), 1);
                    world.loss = loss;
                    let found = world.with_relays(relays).udp();
                    assert_eq!(found.mapping, confirmed(mapping), "{filtering} {loss:?}");
                    assert_eq!(found.filtering, confirmed(filtering), "{mapping} {loss:?}");
                    assert_eq!(found.public.map(|public| public.ip()), Some(OUTSIDE));
                    assert!(found.proof.is_some(), "the address is the server's to prove");
                }
            }
        }
    }
    let found = World::new(None, 1).with_relays(&RELAYS).udp();
    assert_eq!((found.mapping, found.filtering), (confirmed(ForAll), confirmed(ForAll)));
}

#[test]
fn a_relay_that_comes_later_has_what_is_not_certain_tested_anew() {
    let nat = Nat { mapping: PerAddress, step: 1, ..HOME };
    let (report, world) = World::new(Some(nat), 1).probe(10);
    assert_eq!(report.udp4.unwrap().kind(), Kind::Cone, "which it is not");
    let mut world = world.with_relays(&RELAYS[..1]);
    world.run(10);
    let found = world.prober.report().udp4.unwrap();
    assert_eq!((found.kind(), found.mapping), (Kind::Symmetric, confirmed(PerAddress)));

    // What is certain is not tested again for another one, nor one that is silent over and over.
    let sent = world.sent;
    world.tell(Input::Relays(&RELAYS));
    world.run(2);
    // What keeps the mapping alive, or measures its lifetime.
    assert!(world.sent <= sent + 2, "{sent} {}", world.sent);

    let (_, world) = World::new(Some(HOME), 1).probe(10);
    let mut world = world.with_relays(&[]);
    let sent = world.sent;
    for round in 0..30 {
        let silent = SocketAddr::new(RELAYS[0].ip(), 6_000 + round);
        world.tell(Input::Relays(&[silent]));
        world.run(10);
    }
    assert!(world.sent < sent + 60, "{sent} {}", world.sent);
    assert_eq!(world.prober.report().udp4.unwrap().mapping, presumed(ForAll));
}

#[test]
fn a_relay_in_the_same_network_or_on_the_servers_host_is_not_asked() {
    for ip in [OUTSIDE, INSIDE, SERVERS[0]] {
        let relay = SocketAddr::new(ip, 5_001);
        let found = World::new(Some(HOME), 1).with_relays(&[relay]).udp();
        assert_eq!(found.mapping, presumed(ForAll));
    }
}

#[test]
fn one_relay_that_lies_does_not_outweigh_another_and_never_gives_an_address() {
    for liar in RELAYS {
        let mut world = World::new(Some(HOME), 1).with_relays(&RELAYS);
        world.liars = vec![liar];
        let found = world.udp();
        assert_eq!(found.mapping, confirmed(ForAll));
        assert_eq!(found.public, Some(SocketAddr::new(OUTSIDE, PORT)));
    }
    let mut world = World::new(Some(HOME), 1).with_relays(&RELAYS[..1]);
    world.liars = vec![RELAYS[0]];
    let found = world.udp();
    assert_eq!((found.mapping, found.public), (confirmed(PerAddress), Some(SocketAddr::new(OUTSIDE, PORT))));
}

#[test]
fn the_servers_own_second_address_goes_before_relays() {
    let mut world = World::new(Some(HOME), 2).with_relays(&RELAYS);
    world.liars = RELAYS.to_vec();
    let found = world.udp();
    assert_eq!((found.mapping, found.filtering), (confirmed(ForAll), confirmed(PerPort)));
}
