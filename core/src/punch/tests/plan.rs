use super::*;
use crate::nat::Finding;

const ATTEMPT: AttemptId = AttemptId([1; 16]);

fn side(mapping: Dependence, filtering: Dependence, port_step: Option<i32>) -> NatReport {
    let known = |is| Finding { is, confirmed: true };
    let behaviour = Behaviour {
        translated: Some(true),
        mapping: known(mapping),
        filtering: known(filtering),
        port_step,
        ..Behaviour::default()
    };
    NatReport { udp4: Some(behaviour), ..NatReport::default() }
}

fn candidate(kind: CandidateKind, address: &str) -> Candidate {
    Candidate { kind, transport: Transport::Udp, address: address.parse().unwrap() }
}

/// A NAT that keeps ports, and shows the node at this one.
fn keeping(filtering: Dependence, port: u16) -> NatReport {
    let mut side = side(EndpointIndependent, filtering, None);
    let behaviour = side.udp4.as_mut().unwrap();
    behaviour.preserves_port = true;
    behaviour.public = Some(SocketAddr::from(([192, 0, 2, 1], port)));
    side
}

fn plan(own: &NatReport, peer: &NatReport, candidates: &[Candidate], rungs: RungSet) -> Plan {
    plan_of(own, peer, candidates, rungs, (Role::Controlling, Effort::Full))
}

fn plan_of(
    own: &NatReport,
    peer: &NatReport,
    candidates: &[Candidate],
    rungs: RungSet,
    (role, effort): (Role, Effort),
) -> Plan {
    Plan::new(&Situation { attempt: ATTEMPT, own, peer, role, candidates, rungs, effort })
}

fn way(own: &NatReport, peer: &NatReport) -> Way {
    plan(own, peer, &[candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000")], RungSet::ALL).way
}

use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};

#[test]
fn the_table_holds_for_both_sides() {
    let cone = side(EndpointIndependent, AddressAndPortDependent, None);
    let open = side(EndpointIndependent, EndpointIndependent, None);
    let by_address = side(EndpointIndependent, AddressDependent, None);
    let symmetric = side(AddressAndPortDependent, AddressAndPortDependent, None);
    let regular = side(AddressAndPortDependent, AddressAndPortDependent, Some(1));
    let unfiltered = side(AddressAndPortDependent, EndpointIndependent, None);
    let unknown = side(Unknown, Unknown, None);
    let none = NatReport::default();
    let hopeless = Way::Hopeless(Why::BothSymmetric);
    for (a, b, ours, theirs) in [
        (cone, cone, Way::Plain, Way::Plain),
        (cone, open, Way::Plain, Way::Plain),
        (symmetric, open, Way::Plain, Way::Plain),
        (symmetric, by_address, Way::Plain, Way::Plain),
        (symmetric, cone, Way::GuessedByPeer, Way::Guessed),
        (regular, cone, Way::Predicted, Way::Predicted),
        (regular, regular, Way::Predicted, Way::Predicted),
        (regular, open, Way::Plain, Way::Plain),
        (symmetric, symmetric, hopeless, hopeless),
        (symmetric, regular, hopeless, hopeless),
        (unfiltered, unfiltered, Way::Plain, Way::Plain),
        (unfiltered, symmetric, hopeless, hopeless),
        (unknown, cone, Way::GuessedByPeer, Way::Guessed),
        (unknown, symmetric, Way::Guessed, Way::GuessedByPeer),
        (none, cone, Way::GuessedByPeer, Way::Guessed),
    ] {
        assert_eq!((way(&a, &b), way(&b, &a)), (ours, theirs), "{a:?} {b:?}");
    }
}

#[test]
fn blocked_udp_is_said_of_the_side_that_has_it() {
    let cone = side(EndpointIndependent, AddressAndPortDependent, None);
    let blocked = Behaviour { blocked: true, ..Behaviour::default() };
    let blocked = NatReport { udp4: Some(blocked), ..NatReport::default() };
    assert_eq!(way(&blocked, &cone), Way::Hopeless(Why::OwnUdpBlocked));
    assert_eq!(way(&cone, &blocked), Way::Hopeless(Why::PeerUdpBlocked));
    assert_eq!(plan(&cone, &cone, &[], RungSet::ALL).way, Way::Hopeless(Why::NoAddress));
    let rungs = [Rung::TcpDirect].into_iter().collect();
    assert_eq!(plan(&cone, &cone, &[], rungs).way, Way::Hopeless(Why::NotAmongRungs));
}

#[test]
fn ipv6_goes_on_where_ipv4_is_hopeless() {
    let symmetric = side(AddressAndPortDependent, AddressAndPortDependent, None);
    let candidates = [
        candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000"),
        candidate(CandidateKind::ServerReflexive, "[2001:db8::1]:5000"),
    ];
    let plan = plan(&symmetric, &symmetric, &candidates, RungSet::ALL);
    assert_eq!(plan.way, Way::Plain);
    assert_eq!(plan.targets.len(), 1);
}

#[test]
fn a_liar_aims_at_eight_addresses_at_most() {
    let cone = side(EndpointIndependent, AddressAndPortDependent, None);
    let mut candidates: Vec<Candidate> =
        (1..100).map(|n| candidate(CandidateKind::Host, &format!("10.0.0.{n}:5"))).collect();
    candidates.push(candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000"));
    candidates.extend((1..50).map(|n| candidate(CandidateKind::Host, &format!("192.0.2.1:{n}"))));
    for bad in ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "[ff02::1]:1", "[fe80::1]:1", "10.1.1.1:0"] {
        candidates.insert(0, candidate(CandidateKind::Host, bad));
    }
    let plan = plan(&cone, &cone, &candidates, RungSet::ALL);
    let count = |trust| plan.targets.iter().filter(|target| target.trust == trust).count();
    assert_eq!((count(Trust::Claimed), count(Trust::Observed)), (MAX_CLAIMED, 1 + MAX_OBSERVED));
}

#[test]
fn only_what_the_rungs_allow_is_probed() {
    let cone = side(EndpointIndependent, AddressAndPortDependent, None);
    let candidates = [
        candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000"),
        candidate(CandidateKind::Host, "10.0.0.1:5000"),
    ];
    let targets = |rung| {
        let plan = plan(&cone, &cone, &candidates, [rung].into_iter().collect());
        plan.targets.iter().map(|target| target.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(targets(Rung::UdpPunch), ["192.0.2.1:5000"]);
    assert_eq!(targets(Rung::UdpDirect), ["10.0.0.1:5000"]);
    assert!(targets(Rung::TcpPunch).is_empty());
}

/// A handshake that begins where the peer cannot be is slow to go on where it is.
#[test]
fn a_handshake_begins_only_at_an_address_that_may_be_the_one() {
    let cone = side(EndpointIndependent, AddressAndPortDependent, None);
    let open = side(EndpointIndependent, EndpointIndependent, None);
    let symmetric = side(AddressAndPortDependent, AddressAndPortDependent, None);
    let regular = side(AddressAndPortDependent, AddressAndPortDependent, Some(1));
    let unknown = side(Unknown, Unknown, None);
    let unfiltered_so_far = side(EndpointIndependent, Unknown, None);
    let public = [candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000")];
    for (own, peer, knocks) in [
        (cone, cone, true),
        (symmetric, open, true),
        (unknown, cone, true),
        // Its NAT may be one that openers come first to.
        (cone, unknown, false),
        // Another port than the server saw.
        (cone, symmetric, false),
        (open, symmetric, false),
        (open, regular, false),
        // Behind a filter that asks for a port that this side does not have.
        (symmetric, cone, false),
        (symmetric, unfiltered_so_far, false),
        (regular, regular, false),
    ] {
        assert_eq!(plan(&own, &peer, &public, RungSet::ALL).knocks, knocks, "{own:?} {peer:?}");
    }
}

#[test]
fn ports_are_predicted_from_the_latest_that_is_known() {
    let cone = side(EndpointIndependent, AddressAndPortDependent, None);
    let regular = side(AddressAndPortDependent, AddressAndPortDependent, Some(1));
    let mut counted = regular;
    counted.udp4 = counted.udp4.map(|udp| Behaviour { latest_port: Some(5500), ..udp });
    let public = [candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000")];
    for own in [cone, regular] {
        let ports = |peer| -> Vec<u16> {
            let fans = plan(&own, peer, &public, RungSet::ALL).fans;
            let given = fans.iter().filter_map(|fan| match &fan.ports {
                Ports::Given(list) => Some(list.iter().map(SocketAddr::port)),
                Ports::Random(..) => None,
            });
            given.flatten().collect()
        };
        let (before, now) = (ports(&regular), ports(&counted));
        assert!(!before.is_empty() && before.iter().map(|port| port + 500).eq(now), "{before:?}");
    }
}

/// Others take up ports between the report and the attempt, as many on both sides or not: few of them leave two rounds
/// that work, and many leave one.
#[test]
fn two_that_count_meet_though_others_took_ports() {
    let regular = side(AddressAndPortDependent, AddressAndPortDependent, Some(1));
    let public = [candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000")];
    let fans = plan(&regular, &regular, &public, RungSet::ALL).fans;
    let hits = |taken: u16| -> Vec<bool> {
        let rows = fans.iter().zip(0..).map(|(fan, round)| {
            let (Ports::Given(to), Sockets::New(row)) = (&fan.ports, fan.sockets) else { panic!("{fan:?}") };
            let first = 5001 + taken + round * row;
            to.len() == 1 && (first..first + row).contains(&to[0].port())
        });
        rows.collect()
    };
    assert!((0..40).all(|taken| hits(taken)[..2] == [true; 2]));
    assert!((40..104).all(|taken| hits(taken)[2]), "the last row is for both");
}

#[test]
fn less_effort_takes_up_less_of_the_nats_table() {
    let cone = side(EndpointIndependent, AddressAndPortDependent, None);
    let symmetric = side(AddressAndPortDependent, AddressAndPortDependent, None);
    let regular = side(AddressAndPortDependent, AddressAndPortDependent, Some(1));
    let unknown = side(Unknown, Unknown, None);
    let candidates = [candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000")];
    for (own, peer, full, once) in [
        (cone, cone, 0, 0),
        (cone, symmetric, 1_200, 400),
        (symmetric, cone, 512, 256),
        (cone, regular, 1_212, 412),
        (regular, cone, 576, 320),
        (regular, regular, 192, 192),
        (unknown, unknown, 1_200, 400),
        (symmetric, symmetric, 0, 0),
    ] {
        for (effort, entries) in [(Effort::Full, full), (Effort::Once, once), (Effort::Plain, 0)] {
            let plan = plan_of(&own, &peer, &candidates, RungSet::ALL, (Role::Controlling, effort));
            assert_eq!(plan.entries(), entries, "{own:?} {peer:?} {effort:?}");
            assert_eq!(plan.is_spared, entries < full);
            assert!(plan.length >= PLAIN || effort == Effort::Once);
        }
    }
}

#[test]
fn a_guess_takes_both_sides_as_long_and_one_round_no_longer_than_a_slot() {
    let sides = [
        side(EndpointIndependent, AddressAndPortDependent, None),
        keeping(AddressAndPortDependent, 4000),
        keeping(Unknown, 4000),
        side(AddressAndPortDependent, AddressAndPortDependent, None),
        side(AddressAndPortDependent, AddressAndPortDependent, Some(1)),
        side(Unknown, Unknown, None),
    ];
    let candidates = [candidate(CandidateKind::ServerReflexive, "192.0.2.1:5000")];
    for (own, peer) in sides.iter().flat_map(|own| sides.iter().map(move |peer| (own, peer))) {
        for (effort, most) in [(Effort::Full, 13_500), (Effort::Once, 8_000), (Effort::Plain, 5_000)] {
            let plan = |own, peer, role| plan_of(own, peer, &candidates, RungSet::ALL, (role, effort));
            let plans = [plan(own, peer, Role::Controlling), plan(peer, own, Role::Controlled)];
            assert_eq!(plans[0].length, plans[1].length, "{own:?} {peer:?} {effort:?}");
            assert!(plans[0].length <= Duration::from_millis(most), "{own:?} {peer:?} {effort:?}");
            let last = plans.iter().flat_map(|plan| plan.fans.iter().map(|fan| fan.after)).max();
            assert!(last.is_none_or(|last| last < plans[0].length));
        }
    }
}

#[test]
fn both_sides_tell_the_same_further_ports() {
    let (one, other) = (keeping(AddressAndPortDependent, 4000), keeping(AddressAndPortDependent, 5000));
    let plan = |own, peer, public| {
        plan(own, peer, &[candidate(CandidateKind::ServerReflexive, public)], RungSet::ALL)
    };
    let plans = [plan(&one, &other, "192.0.2.1:5000"), plan(&other, &one, "192.0.2.1:4000")];
    // From where, and to which ports.
    let opened = |plan: &Plan| {
        let ports = plan.fans.iter().filter_map(|fan| match fan.sockets {
            Sockets::At(port) => Some(port),
            Sockets::Main | Sockets::New(_) | Sockets::Opened => None,
        });
        ports.collect::<Vec<_>>()
    };
    let aimed = |plan: &Plan| {
        let ports = plan.fans.iter().filter_map(|fan| match &fan.ports {
            Ports::Given(to) if fan.passes > fan.openers => to.first().map(SocketAddr::port),
            Ports::Given(_) | Ports::Random(..) => None,
        });
        ports.collect::<Vec<_>>()
    };
    assert_eq!(opened(&plans[0]).len(), 2);
    assert_eq!(opened(&plans[0]), aimed(&plans[1]));
    assert_eq!(opened(&plans[1]), aimed(&plans[0]));
    assert_ne!(opened(&plans[0]), opened(&plans[1]));
}
