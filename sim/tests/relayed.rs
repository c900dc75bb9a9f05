//! The whole stack through relays: a server, a relay and two nodes, the driver unchanged.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use inp2p_core::path::{Rung, RungSet};
use inp2p_driver::agent::AgentHandle;
use inp2p_driver::net::Net;
use inp2p_driver::setup::{RelaySetup, ServerRelay, ServerSetup};
use inp2p_sim::{Fault, HostId, LinkConfig, World, programs};

/// A server that relays, a private relay `r`, and two nodes that may use relays only: `a` has a forward to port 22
/// of `b`, and an echo service is there.
struct Four {
    world: World,
    hosts: [HostId; 4],
    agents: Arc<Mutex<Vec<Arc<AgentHandle>>>>,
}

impl Four {
    fn new(seed: u64, rung: Rung, clocks: [i64; 4]) -> Self {
        let world = World::new(seed);
        let names = ["server", "r", "a", "b"];
        let hosts = [10, 11, 12, 13]
            .map(|last| world.public_host(names[usize::from(last - 10)], last, LinkConfig::default()));
        for (host, seconds) in hosts.into_iter().zip(clocks) {
            world.inject(Fault::WallClock(host, seconds));
        }
        let [server, r, a, b] = hosts;
        world.program(server, |net| {
            let inner = net.clone();
            net.spawn("main", async move {
                let relay = Some(ServerRelay::default());
                let setup = ServerSetup { relay, ..programs::server(&inner) };
                let _server = inp2p_driver::server::start(inner, setup).await.unwrap();
                std::future::pending::<()>().await;
            });
        });
        let agents: Arc<Mutex<Vec<Arc<AgentHandle>>>> = Arc::default();
        let node = |host, name: &'static str, forwards: &'static [&'static str], relays: bool| {
            let slot = agents.clone();
            world.program(host, move |net| {
                let (inner, slot) = (net.clone(), slot.clone());
                net.spawn("main", async move {
                    let mut setup = programs::node(&inner, name, "server", forwards);
                    setup.agent.rungs = RungSet::from_iter([rung]);
                    if relays {
                        setup.relay = RelaySetup {
                            enabled: true,
                            super_relay: false,
                            port: 27_185,
                            bandwidth_mbps: 100,
                        };
                        setup.agent.relay.enabled = true;
                    }
                    let handle = inp2p_driver::agent::start(inner, setup).await.unwrap();
                    slot.lock().unwrap().push(Arc::new(handle));
                    std::future::pending::<()>().await;
                });
            });
        };
        node(r, "r", &[], true);
        world.run_for(Duration::from_secs(5));
        node(a, "a", &["2222:b:22"], false);
        node(b, "b", &[], false);
        let net = world.net(b);
        world.spawn(b, "echo", echo(net, 22));
        Self { world, hosts, agents }
    }

    /// Sends so many bytes through the forward and checks that they come back.
    fn carries(&self, length: usize) {
        let a = self.hosts[2];
        let net = self.world.net(a);
        self.world.block_on(a, LIMIT, async move { through(&net, length).await });
    }

    fn link(&self) -> (Option<Rung>, Option<String>) {
        let agent = self.agents.lock().unwrap()[1].clone();
        let status = self.world.block_on(self.hosts[2], LIMIT, async move { agent.status().await });
        let peer = status.peers.first().cloned().unwrap();
        (peer.rung, peer.via)
    }
}

const TEN_YEARS: i64 = 10 * 365 * 86_400;

/// A grievance with the original: its relays denied whoever had a wrong clock.
#[test]
fn relay_authentication_survives_clocks_off_by_ten_years() {
    for (rung, via) in [(Rung::PrivateRelay, "r"), (Rung::ServerRelay, "server")] {
        for clocks in [
            [0, TEN_YEARS, -TEN_YEARS, TEN_YEARS],
            [0, -TEN_YEARS, TEN_YEARS, 0],
            [-TEN_YEARS, 0, TEN_YEARS, -TEN_YEARS],
            [TEN_YEARS, 0, 0, -TEN_YEARS],
        ] {
            let four = Four::new(1, rung, clocks);
            four.world.run_for(Duration::from_secs(5));
            assert_eq!(four.link(), (Some(rung), Some(via.to_owned())), "{clocks:?}");
            four.carries(100_000);
            // Clocks that jump while it runs make no difference to the next connection either.
            let [_, r, a, b] = four.hosts;
            for (host, seconds) in [(r, -TEN_YEARS), (a, TEN_YEARS), (b, -TEN_YEARS)] {
                four.world.inject(Fault::WallClock(host, seconds));
            }
            four.carries(100_000);
        }
    }
}
