//! Many nodes at once.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use inp2p_driver::agent::AgentHandle;
use inp2p_driver::net::Net;
use inp2p_sim::nat::Preset;
use inp2p_sim::{LinkConfig, World, programs};

#[test]
fn a_thousand_nodes_behind_all_kinds_of_nats_log_in_at_once() {
    const NODES: u16 = 1_000;
    let world = World::new(1);
    world.keep_log(0);
    let server = world.public_host("server", u16::MAX, LinkConfig::default());
    world.program(server, |net| {
        let inner = net.clone();
        net.spawn("main", async move {
            // Where every firewall lets it be reached.
            let setup = inp2p_driver::setup::ServerSetup { ws_port: 443, ..programs::server(&inner) };
            let _server = inp2p_driver::server::start(inner, setup).await.unwrap();
            std::future::pending::<()>().await;
        });
    });
    let agents: Arc<Mutex<Vec<AgentHandle>>> = Arc::default();
    let mut hosts = Vec::new();
    for number in 0..NODES {
        let preset = Preset::ALL[usize::from(number) % Preset::ALL.len()];
        let home = world.home(&format!("node{number}"), number, preset, LinkConfig::default());
        hosts.push(home.host);
        let agents = agents.clone();
        world.program(home.host, move |net| {
            let (inner, agents) = (net.clone(), agents.clone());
            net.spawn("main", async move {
                let mut setup = programs::node(&inner, &format!("node{number}"), "server", &[]);
                setup.port = 443;
                let agent = inp2p_driver::agent::start(inner, setup).await.unwrap();
                agents.lock().unwrap().push(agent);
            });
        });
    }
    world.run_for(Duration::from_secs(60));
    let agents = std::mem::take(&mut *agents.lock().unwrap());
    assert_eq!(agents.len(), usize::from(NODES));
    let status = async move {
        let mut connected = 0;
        for agent in &agents {
            connected += usize::from(agent.status().await.server.connected);
        }
        connected
    };
    assert_eq!(world.block_on(server, common::LIMIT, status), usize::from(NODES));
    // Its listeners and stun sockets apart, the server holds a connection a node.
    assert_eq!(world.counts(server).connections, usize::from(NODES));
}
