//! Where two events cross: a scenario for each rule of the protocol that is easy to get wrong, as far as a run
//! of the whole can show it. What only one machine can show (memory, formats, order on a link) is tested beside
//! that machine in the core.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_driver::net::Net;
use inp2p_sim::run::{End, Keep, Report, run};
use inp2p_sim::scenario::Scenario;
use inp2p_sim::{LinkConfig, World, programs};

fn holds(line: &str) -> Report {
    let scenario: Scenario = line.parse().unwrap();
    let report = run(&scenario, Keep::Nothing);
    assert!(report.problems.is_empty(), "{scenario}\n{report}");
    report
}

/// A stream that has twenty silent seconds in its middle, and goes on over whatever link there is then.
const LONG: &str = "stream 0 at 12000 up 100000 down 100000 idle";

/// Both sides ask for each other at one instant: it is one attempt, and the lower key nominates one link of all
/// that come up. The session has that one alone.
#[test]
fn rule_01_two_that_reach_for_each_other_at_once_agree_on_one_link() {
    for seed in 0..20 {
        let streams = "stream 0 at 0 up 10 down 10 orderly; stream 1 at 0 up 10 down 10 orderly";
        let report =
            holds(&format!("seed {seed}; node open; node open; forward 0 1; forward 1 0; {streams}"));
        assert_eq!(report.rungs[0], report.rungs[1], "seed {seed}");
        // The first link that is up, and the better one if that was not it.
        assert!(report.switches.iter().all(|switches| *switches <= 2), "seed {seed} {:?}", report.switches);
    }
}

/// A key holds one name on a server.
#[test]
fn rule_01_a_second_name_for_one_key_is_refused() {
    let world = World::new(1);
    let server = world.public_host("server", 10, LinkConfig::default());
    world.program(server, |net| {
        let inner = net.clone();
        net.spawn("main", async move {
            let _server = inp2p_driver::server::start(inner.clone(), programs::server(&inner)).await.unwrap();
            std::future::pending::<()>().await;
        });
    });
    let connected = ["a", "b"].map(|name| {
        let host = world.public_host(name, u16::from(name.as_bytes()[0]), LinkConfig::default());
        let net = world.net(host);
        let slot = Arc::new(Mutex::new(None));
        let result = slot.clone();
        world.spawn(host, "main", async move {
            let mut setup = programs::node(&net, name, "server", &[]);
            setup.agent.identity = inp2p_core::auth::Identity::from_seed([7; 32]);
            let agent = inp2p_driver::agent::start(net.clone(), setup).await.unwrap();
            net.sleep(Duration::from_secs(5)).await;
            *result.lock().unwrap() = Some(agent.status().await.server.connected);
        });
        world.run_for(Duration::from_secs(2));
        slot
    });
    world.run_for(Duration::from_secs(10));
    // The second one's program ends: it is refused at its first login.
    assert_eq!(*connected[0].lock().unwrap(), Some(true));
    assert_ne!(*connected[1].lock().unwrap(), Some(true));
}

/// An epoch belongs to a nomination: the way from UDP to TCP and back again loses nothing.
#[test]
fn rule_02_an_older_link_may_be_nominated_again() {
    for who in [0, 1] {
        // A carrier that lets no UDP of any size pass for a while.
        let report = holds(&format!(
            "seed 2; node open; node port-restricted; forward 0 1; {LONG}; stream 0 at 30000 up 50000 down 50000 ask; \
             fault at 20000 for 40000 weather {who} udp-rate 1"
        ));
        assert_eq!(report.rungs, [Some(Rung::UdpDirect)]);
    }
}

/// A link that is silent in one direction is left, whichever side notices, and streams outlast that.
#[test]
fn rule_03_a_link_that_is_silent_one_way_is_replaced() {
    for cut in ["cut 0 1", "cut 1 0"] {
        for node in ["open", "port-restricted", "udp-blocked"] {
            holds(&format!(
                "seed 3; node open; node {node}; forward 0 1; {LONG}; fault at 12100 for 5000 {cut}"
            ));
        }
    }
}

/// A process that starts anew is another instance: streams of the old one end when it is met, and those of the
/// new one are not taken for them.
#[test]
fn rule_04_a_new_instance_ends_the_old_ones_streams() {
    let report = holds(
        "seed 4; node open; node port-restricted; forward 0 1; stream 0 at 12000 up 100000 down 100000 idle; \
         fault at 14000 for 1000 kill 1; stream 0 at 45000 up 10 down 10 orderly",
    );
    assert!(matches!(report.streams[0].1.client.end, End::Broken(_)), "{:?}", report.streams[0]);
    assert_eq!(report.streams[1].1.client.end, End::Done);
}

/// Streams that open while there is no link, from both sides, are told apart after it is back.
#[test]
fn rule_05_streams_that_open_while_the_link_is_gone_are_opened_once() {
    for fault in ["offline 1", "cut 0 1", "cut 1 0", "suspend 1"] {
        let mut line = "seed 5; node open; node port-restricted; forward 0 1; forward 1 0".to_owned();
        for stream in 0..12 {
            let manner = ["orderly", "ask", "greet", "client-resets", "target-resets", "idle"][stream % 6];
            line +=
                &format!("; stream {} at {} up 3000 down 3000 {manner}", stream % 2, 19_500 + 300 * stream);
        }
        let report = holds(&format!("{line}; fault at 20000 for 4000 {fault}"));
        assert!(report.streams.iter().all(|(_, record)| record.met <= 1), "{fault}");
    }
}

/// The end of a direction is a byte like any other: it is acknowledged, and sent again after a link is lost.
#[test]
fn rule_06_an_end_that_crosses_the_loss_of_a_link_arrives_once() {
    for at in [12_000, 12_030, 12_060, 12_090, 12_120] {
        for manner in ["ask", "greet", "orderly"] {
            holds(&format!(
                "seed 6; node open; node port-restricted; forward 0 1; stream 0 at 12000 up 200 down 200 {manner}; \
                 fault at {at} for 3000 cut 1 0; fault at {at} nat-reboot 1"
            ));
        }
    }
}

/// The list of three hundred streams does not fit one frame.
#[test]
fn rule_07_hundreds_of_streams_resume() {
    let mut line = "seed 7; node open; node symmetric-random; forward 0 1".to_owned();
    for stream in 0..300 {
        line += &format!("; stream 0 at {} up 400 down 400 idle", 12_000 + 5 * stream);
    }
    let report = holds(&format!("{line}; fault at 20000 for 3000 offline 1; fault at 26000 roam 0"));
    assert!(report.streams.iter().all(|(_, record)| record.client.end == End::Done));
}

/// Each stream has a lane of its own on a link over UDP: resets and ends of some leave the others alone, also
/// where datagrams get lost, overtake, come twice and come changed.
#[test]
fn rule_08_lanes_live_and_end_apart_on_a_rough_line() {
    for quality in ["loss 30", "bursts 20", "reorder 50", "duplicate 50", "corrupt 30", "mtu 1280 black-hole"]
    {
        let mut line = format!("seed 8; node open; node port-restricted {quality}; forward 0 1; forward 1 0");
        for stream in 0..12 {
            let manner =
                ["orderly", "ask", "client-resets", "target-resets", "slow-target", "greet"][stream % 6];
            line +=
                &format!("; stream {} at {} up 40000 down 40000 {manner}", stream % 2, 30_000 + 100 * stream);
        }
        let report = holds(&format!("{line}; fault at 32000 roam 0"));
        assert_eq!(report.rungs[0], Some(Rung::UdpDirect), "{quality}");
    }
}

/// A change of address, and a NAT that has forgotten, move the path and not the session.
#[test]
fn rule_11_a_rebinding_keeps_the_link() {
    for fault in ["nat-reboot 1", "roam 1", "roam 0"] {
        let calm = holds(&format!("seed 11; node open; node symmetric-random; forward 0 1; {LONG}"));
        let report = holds(&format!(
            "seed 11; node open; node symmetric-random; forward 0 1; {LONG}; fault at 20000 {fault}"
        ));
        assert_eq!(report.rungs, [Some(Rung::UdpDirect)], "{fault}");
        if fault == "nat-reboot 1" {
            assert_eq!(report.switches, calm.switches, "{fault}");
        }
    }
}

/// The first packet of a peer may come before the server's word that there is an attempt.
#[test]
fn rule_12_whose_packets_are_early_is_waited_for() {
    for (one, other) in [(1, 400), (400, 1), (1, 1_000)] {
        holds(&format!(
            "seed 12; node open delay {one}; node open delay {other}; forward 0 1; forward 1 0; \
             stream 0 at 20000 up 10 down 10 orderly"
        ));
    }
}

/// After an outage of the server of any length nodes are back in ten to twenty-five seconds, all of them.
#[test]
fn rule_16_nodes_are_back_soon_after_an_outage_of_any_length() {
    for seconds in [5, 60, 900] {
        holds(&format!(
            "seed 16; node open; node cgnat; node only-443; node udp-blocked; forward 0 1; forward 0 3; \
             fault at 10000 for {} kill server",
            seconds * 1000
        ));
    }
}

/// Nothing in a run depends on what the ciphers draw.
#[test]
fn rule_19_two_runs_of_one_scenario_are_the_same() {
    let line =
        format!("seed 19; node open; node port-restricted; forward 0 1; {LONG}; fault at 20000 roam 1");
    let (first, second) = (holds(&line), holds(&line));
    assert_eq!((first.hash, first.events), (second.hash, second.events));
}
