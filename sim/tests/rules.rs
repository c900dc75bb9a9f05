//! Where two events cross: a scenario for each rule of the protocol that is easy to get wrong, as far as a run
//! of the whole can show it. What only one machine can show (memory, formats, order on a link) is tested beside
//! that machine in the core.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use inp2p_core::path::Rung;
use inp2p_core::server::STATE_FILE;
use inp2p_driver::net::{ListenIo as _, Net, Store as _, StreamIo as _, TcpConfig};
use inp2p_driver::setup::ServerSetup;
use inp2p_sim::run::{End, Flaw, Keep, Report, run, run_flawed, run_with};
use inp2p_sim::scenario::Scenario;
use inp2p_sim::{LinkConfig, SimStore, World, programs};

fn holds(line: &str) -> Report {
    let scenario: Scenario = line.parse().unwrap();
    let report = run(&scenario, Keep::Nothing);
    assert!(report.problems.is_empty(), "{scenario}\n{report}");
    report
}

/// The scenario fails with the flaw, for this reason.
fn fails_with(flaw: Flaw, line: &str, reason: &str) {
    let flawed = run_flawed(&line.parse().unwrap(), flaw);
    let found = flawed.problems.iter().any(|problem| problem.contains(reason));
    assert!(found, "{flaw:?} is not noticed by {line}\n{flawed}");
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

/// A world in which the server runs.
fn with_server(seed: u64) -> World {
    let world = World::new(seed);
    let server = world.public_host("server", 10, LinkConfig::default());
    world.program(server, |net| {
        let inner = net.clone();
        net.spawn("main", async move {
            let _server = inp2p_driver::server::start(inner.clone(), programs::server(&inner)).await.unwrap();
            std::future::pending::<()>().await;
        });
    });
    world
}

/// A key holds one name on a server.
#[test]
fn rule_01_a_second_name_for_one_key_is_refused() {
    let world = with_server(1);
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

/// Readers that read a lot, so that their windows grow, and then stop: what is held for all of them together is
/// bounded, at either end.
#[test]
fn rule_09_readers_that_stop_bound_what_a_session_holds() {
    let world = with_server(9);
    for (name, number, forwards) in [("a", 11, &["2000:b:22"][..]), ("b", 12, &[])] {
        let host = world.public_host(name, number, LinkConfig::default());
        let net = world.net(host);
        world.spawn(host, "main", async move {
            let _agent =
                inp2p_driver::agent::start(net.clone(), programs::node(&net, name, "server", forwards))
                    .await
                    .unwrap();
            net.spawn("target", readers_that_stop(net.clone()));
            net.sleep(Duration::from_secs(5)).await;
            if name == "a" {
                for _ in 0..READERS {
                    net.spawn("writer", writer(net.clone()));
                }
            }
            std::future::pending::<()>().await;
        });
    }
    world.run_for(Duration::from_secs(60));
    let taken = TAKEN.load(std::sync::atomic::Ordering::Relaxed);
    let wanted = READERS * APPETITE;
    assert!(taken >= wanted, "the readers did not get what they wanted: {taken}");
    // Four buffers of a quarter of a megabyte lie on the way of each stream; and the writers' session retains what
    // the readers' has not passed on, so that no byte counts twice.
    let most = READERS * 4 * (256 << 10) + (8 << 20) + READERS * (16 << 10);
    assert!(taken - wanted <= most, "{} bytes are held, {most} at most", taken - wanted);
}

const READERS: usize = 8;
const APPETITE: usize = 4 << 20;
/// What the writers' sockets have taken.
static TAKEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

async fn readers_that_stop(net: inp2p_sim::SimNet) {
    let local = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 22)));
    let mut listener = net.listen(&TcpConfig { local, ..TcpConfig::default() }).unwrap();
    while let Ok((mut stream, _)) = std::future::poll_fn(|cx| listener.poll_accept(cx)).await {
        net.spawn("reader", async move {
            let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
            while read < APPETITE {
                let slices = &mut [std::io::IoSliceMut::new(&mut buffer)];
                match std::future::poll_fn(|cx| stream.poll_read(cx, slices)).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => read += n,
                }
            }
            std::future::pending::<()>().await;
        });
    }
}

async fn writer(net: inp2p_sim::SimNet) {
    let mut stream = net.connect(&TcpConfig::default(), ([127, 0, 0, 1], 2000).into()).unwrap();
    std::future::poll_fn(|cx| stream.poll_connected(cx)).await.unwrap();
    let bytes = vec![7; 64 << 10];
    while let Ok(written) =
        std::future::poll_fn(|cx| stream.poll_write(cx, &[std::io::IoSlice::new(&bytes)])).await
    {
        TAKEN.fetch_add(written, std::sync::atomic::Ordering::Relaxed);
    }
}

/// What a node says of its public address counts only with the server's own proof: without it nobody is sent there.
#[test]
fn rule_10_a_public_address_counts_only_with_its_proof() {
    let line = "seed 10; node port-restricted; node port-restricted; forward 0 1";
    assert_eq!(holds(line).rungs, [Some(Rung::UdpPunch)]);
    fails_with(Flaw::ForgesProofs, line, "udp-punch is possible");
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

/// Many sessions have one socket, on a line that takes less than they have: each waits until it is woken, and all
/// come through.
#[test]
fn rule_13_sessions_that_would_block_are_woken() {
    let mut line = "seed 13; node open rate 2000 queue 4000".to_owned();
    for _ in 0..8 {
        line += "; node open";
    }
    for node in 1..9 {
        line += &format!("; forward 0 {node}");
    }
    for forward in 0..8 {
        line += &format!("; stream {forward} at 12000 up 400000 down 10 orderly");
    }
    let report = holds(&line);
    assert!(report.streams.iter().all(|(_, record)| record.client.end == End::Done));
    // Those that are never woken leave UDP, since it does not answer any more.
    fails_with(Flaw::StaysBlocked, &line, "udp-direct is possible");
}

/// Where one NAT gives each peer a port by no rule, and the other lets in only what was sent to, ports are guessed
/// from hundreds of sockets; all of them are closed again.
#[test]
fn rule_14_ports_are_guessed_from_many_sockets() {
    let guessed = |run: &dyn Fn(&Scenario) -> Report| {
        let seeds = 0..6;
        let line = |seed| format!("seed {seed}; node port-restricted; node symmetric-random; forward 0 1");
        let reports = seeds.map(|seed| run(&line(seed).parse().unwrap()));
        reports.filter(|report| report.rungs == [Some(Rung::UdpPunch)]).count()
    };
    let sound = guessed(&|scenario| run(scenario, Keep::Nothing));
    assert!(sound >= 3, "{sound} of 6");
    assert_eq!(guessed(&|scenario| run_flawed(scenario, Flaw::OneSocket)), 0);
}

/// The server proves itself first: an impostor, with the right token even, gets no proof of the node's from one that
/// knows the server's key, and so no guess.
#[test]
fn rule_15_an_impostor_gets_no_proof_from_a_node_that_knows_the_server() {
    let world = World::new(15);
    let server = world.public_host("server", 10, LinkConfig::default());
    // The files of whoever is the server: a key that is in none of them is another one.
    let files: Arc<Mutex<Arc<SimStore>>> = Arc::default();
    let current = files.clone();
    world.program(server, move |net| {
        let (inner, store) = (net.clone(), current.lock().unwrap().clone());
        net.spawn("main", async move {
            let setup = ServerSetup { store, ..programs::server(&inner) };
            let _server = inp2p_driver::server::start(inner.clone(), setup).await.unwrap();
            std::future::pending::<()>().await;
        });
    });
    let host = world.public_host("a", 11, LinkConfig::default());
    let net = world.net(host);
    let status = Arc::new(Mutex::new(Vec::new()));
    let seen = status.clone();
    world.spawn(host, "main", async move {
        let agent =
            inp2p_driver::agent::start(net.clone(), programs::node(&net, "a", "server", &[])).await.unwrap();
        loop {
            net.sleep(Duration::from_secs(5)).await;
            let server = agent.status().await.server;
            seen.lock().unwrap().push((server.connected, server.error.unwrap_or_default()));
        }
    });
    world.run_for(Duration::from_secs(12));
    assert!(status.lock().unwrap().last().unwrap().0, "it knows the server now");
    // Whose proof was right is pinned.
    let pinned = || files.lock().unwrap().load(STATE_FILE).unwrap().unwrap_or_default();
    let names = |node: &str| String::from_utf8_lossy(&pinned()).contains(&format!("\"node\": \"{node}\""));
    assert!(names("a"));
    *files.lock().unwrap() = Arc::default();
    world.inject(inp2p_sim::Fault::Kill(server));
    world.inject_at(Duration::from_secs(1), inp2p_sim::Fault::Restart(server));
    // One that has never seen the right server shows its proof to whoever is there.
    let host = world.public_host("b", 12, LinkConfig::default());
    let net = world.net(host);
    world.spawn(host, "main", async move {
        let _agent =
            inp2p_driver::agent::start(net.clone(), programs::node(&net, "b", "server", &[])).await.unwrap();
        std::future::pending::<()>().await;
    });
    world.run_for(Duration::from_secs(60));
    let (connected, error) = status.lock().unwrap().last().unwrap().clone();
    assert!(!connected && error.contains("is pinned"), "{error}");
    assert_eq!(["a", "b"].map(names), [false, true], "a proof was shown, or none at all");
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

/// Permissions to use a relay go by the server's clock, and outlast its restart: nodes whose clocks are ten years off
/// meet at a relay, also after the keys have changed.
#[test]
fn rule_17_relays_let_nodes_in_whatever_their_clocks_say_and_after_new_keys() {
    let nodes = "server relay; node symmetric-random; node symmetric-random";
    let clocks = "fault at 12000 wall-clock 0 315360000; fault at 12000 wall-clock 1 -315360000";
    let line = format!(
        "seed 17; {nodes}; forward 0 1; {clocks}; fault at 14000 for 3000 kill server; \
         stream 0 at 45000 up 1000 down 1000 orderly"
    );
    let report = holds(&line);
    assert_eq!(report.rungs, [Some(Rung::ServerRelay)]);
    assert_eq!(report.streams[0].1.client.end, End::Done);
    fails_with(Flaw::WallTime, &line, "not logged in");
}

/// What a node has to say to its peer goes right behind its response to the relay, before the relay has answered.
#[test]
fn rule_18_the_handshake_with_the_peer_goes_right_behind_the_response_to_the_relay() {
    let line = "seed 18; node symmetric-random; node symmetric-random; node open relay; forward 0 1";
    let flights = |flaw: Option<Flaw>| {
        let report = run_with(&line.parse().unwrap(), Keep::Timeline, flaw);
        assert!(report.problems.is_empty(), "{report}");
        assert_eq!(report.rungs, [Some(Rung::PrivateRelay)]);
        ["n0", "n1"].map(|node| second_flight(&report.timeline, node))
    };
    // On one connection of the controlling side's, which is TLS's client: its first words, the relay's challenge, and
    // then, before anything else comes, more than a response alone is.
    let sound = flights(None);
    assert!(sound.into_iter().any(|bytes| bytes > 1_000), "{sound:?}");
    // Those that wait for the relay's word work as well, but later.
    let waiting = flights(Some(Flaw::WaitsForRelays));
    assert!(waiting.into_iter().all(|bytes| (100..400).contains(&bytes)), "{waiting:?}");
}

/// How many bytes a node sends to the relay between the first two pieces that come from there.
fn second_flight(timeline: &str, node: &str) -> usize {
    let (mut heard, mut sent) = (0, 0);
    for line in timeline.lines().filter(|line| line.contains(":27185") && line.contains("tcp data")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(at), Some(bytes)) = (words.iter().position(|word| *word == node), bytes_of(&words)) else {
            continue;
        };
        match words.get(at + 1) {
            Some(&"receives") => heard += 1,
            Some(&"sends") if heard == 1 => sent += bytes,
            _ => {}
        }
        if heard == 2 {
            break;
        }
    }
    sent
}

fn bytes_of(words: &[&str]) -> Option<usize> {
    let at = words.iter().position(|word| *word == "B")?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

/// Nothing in a run depends on what the ciphers draw.
#[test]
fn rule_19_two_runs_of_one_scenario_are_the_same() {
    let line =
        format!("seed 19; node open; node port-restricted; forward 0 1; {LONG}; fault at 20000 roam 1");
    let (first, second) = (holds(&line), holds(&line));
    assert_eq!((first.hash, first.events), (second.hash, second.events));
}
