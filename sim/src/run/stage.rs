//! The world of a scenario: machines, programs, and faults as the scenario means them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inp2p_core::server::SHARES_FILE;
use inp2p_core::status::Status;
use inp2p_driver::agent::AgentHandle;
use inp2p_driver::net::Net;
use inp2p_driver::server::ServerHandle;
use inp2p_driver::setup::{ServerRelay, ServerSetup};

use super::flaw::{Flaw, FlawedNet};
use super::traffic::{self, Ledger, SERVICE_PORT};
use crate::executor::lock;
use crate::fabric::GatewayId;
use crate::fault::Fault;
use crate::host::HostId;
use crate::link::LinkConfig;
use crate::nat::Preset;
use crate::net::SimNet;
use crate::programs;
use crate::scenario::{Party, Place, Relay, Scenario, Share, Trouble, What};
use crate::topology::{Home, prefix, public};
use crate::world::World;

/// A scenario's world.
pub(crate) struct Stage {
    pub(crate) world: World,
    scenario: Scenario,
    pub(crate) server: HostId,
    pub(crate) nodes: Vec<HostId>,
    /// By node: the house it lives in.
    homes: Vec<Home>,
    /// By node: the NAT on whose line it was in the beginning.
    first_gateways: Vec<Option<GatewayId>>,
    pub(crate) ledger: Arc<Ledger>,
    running: Arc<Running>,
    /// Machines that do not run, or sleep, with the fault that is to end that.
    away: BTreeMap<Party, Trouble>,
    /// By node: how often it has had a new address, and a new network.
    roamed: Vec<u16>,
    moved: Vec<u16>,
    flaw: Option<Flaw>,
    /// Who has had which public address.
    names: BTreeMap<IpAddr, String>,
}

/// The programs' handles.
#[derive(Default)]
struct Running {
    server: Mutex<Option<ServerHandle>>,
    agents: Mutex<Vec<Option<Arc<AgentHandle>>>>,
    /// Why one did not start.
    failures: Mutex<Vec<String>>,
}

impl Stage {
    pub(crate) fn new(scenario: &Scenario, world: World, flaw: Option<Flaw>) -> Self {
        let running = Arc::new(Running::default());
        lock(&running.agents).resize_with(scenario.nodes.len(), || None);
        let server = world.public_host("server", SERVER_NUMBER, LinkConfig::default());
        let mut homes: Vec<Home> = Vec::new();
        for (number, node) in scenario.nodes.iter().enumerate() {
            let (name, site) = (node_name(number), scenario.begins_at(number));
            let own = FIRST_NUMBER + small(number);
            homes.push(match node.place {
                Place::Own(_) => world.house(&name, own, site.nats(), node.line.config(), site.v6.is_some()),
                Place::With(house) => world.housemate(&name, &homes[house], FIRST_MATE + small(number)),
                Place::Beside(other) => {
                    let nat = site.nats().into_iter().next().unwrap_or_default();
                    world.neighbour(&name, &homes[other], own, nat, site.v6.is_some())
                }
            });
        }
        let ledger = Arc::default();
        let mut stage = Self {
            server,
            nodes: homes.iter().map(|home| home.host).collect(),
            first_gateways: homes.iter().map(|home| home.gateways.last().copied()).collect(),
            homes,
            ledger,
            running,
            away: BTreeMap::new(),
            roamed: vec![0; scenario.nodes.len()],
            moved: vec![0; scenario.nodes.len()],
            scenario: scenario.clone(),
            flaw,
            world,
            names: BTreeMap::new(),
        };
        stage.names.insert(stage.server_address(), "server".to_owned());
        (0..stage.nodes.len()).for_each(|node| stage.note(node, &stage.homes[node].public.clone()));
        stage.start_server();
        (0..scenario.nodes.len()).for_each(|number| stage.start_node(number));
        stage
    }

    fn start_server(&self) {
        let (running, port) = (self.running.clone(), server_port(&self.scenario));
        let relay = self.scenario.server_relay.then(ServerRelay::default);
        let shares = shares_file(&self.scenario);
        self.world.program(self.server, move |net| {
            let running = running.clone();
            let setup = programs::server(&net);
            if setup.store.load(SHARES_FILE).ok().flatten().is_none() {
                let saved = setup.store.save(SHARES_FILE, shares.as_bytes());
                debug_assert!(saved.is_ok(), "memory takes it");
            }
            net.clone().spawn("main", async move {
                let setup = ServerSetup { ws_port: port, relay, ..setup };
                match inp2p_driver::server::start(net, setup).await {
                    Ok(handle) => *lock(&running.server) = Some(handle),
                    Err(error) => lock(&running.failures).push(format!("the server: {error}")),
                }
            });
        });
    }

    fn start_node(&self, number: usize) {
        let (running, ledger) = (self.running.clone(), self.ledger.clone());
        let (name, port, flaw) = (node_name(number), server_port(&self.scenario), self.flaw);
        let relay = self.scenario.nodes[number].relay;
        let own = self.scenario.forwards.iter().enumerate().filter(|(_, forward)| forward.from == number);
        let rules: Vec<String> = own
            .map(|(at, forward)| {
                format!("{}:{}:{SERVICE_PORT}", forward_port(at), self.named(number, forward.to))
            })
            .collect();
        let user = programs::user(self.scenario.nodes[number].user);
        self.world.program(self.nodes[number], move |net: SimNet| {
            net.spawn("service", traffic::service(net.clone(), ledger.clone()));
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let mut setup = programs::node(&net, &name, "server", &rules);
            setup.port = port;
            setup.agent.user = user.clone();
            if flaw == Some(Flaw::Unsealed) {
                setup.crypto = super::unsealed::ciphers();
            }
            if let Some(relay) = relay {
                setup = programs::relaying(setup, relay == Relay::Super);
            }
            let running = running.clone();
            net.clone().spawn("main", async move {
                let started = match flaw {
                    None => inp2p_driver::agent::start(net, setup).await,
                    Some(flaw) => inp2p_driver::agent::start(FlawedNet::new(net, flaw), setup).await,
                };
                match started {
                    Ok(handle) => {
                        if let Some(slot) = lock(&running.agents).get_mut(number) {
                            *slot = Some(Arc::new(handle));
                        }
                    }
                    Err(error) => lock(&running.failures).push(format!("node {number}: {error}")),
                }
            });
        });
    }

    /// What one node calls another one.
    pub(crate) fn named(&self, node: usize, other: usize) -> String {
        let (user, others) = (self.scenario.nodes[node].user, self.scenario.nodes[other].user);
        let foreign = (user != others).then(|| format!("@{}", programs::user(others)));
        node_name(other) + &foreign.unwrap_or_default()
    }

    /// Why programs did not start.
    pub(crate) fn failures(&self) -> Vec<String> {
        lock(&self.running.failures).clone()
    }

    /// What `status` shows; none if the node does not answer within a few seconds.
    pub(crate) fn status(&self, number: usize) -> Option<Status> {
        let agent = lock(&self.running.agents).get(number).cloned().flatten()?;
        let slot: Arc<Mutex<Option<Status>>> = Arc::default();
        let inner = slot.clone();
        self.world.spawn(self.nodes[number], "status", async move {
            let status = agent.status().await;
            *lock(&inner) = Some(status);
        });
        self.world.run_until(|| lock(&slot).is_some(), Duration::from_secs(5));
        lock(&slot).take()
    }

    /// Tells all nodes to end in order.
    pub(crate) fn stop_nodes(&self) {
        for agent in lock(&self.running.agents).iter().flatten() {
            agent.shutdown();
        }
    }

    /// Tells the server to end in order, and all targets.
    pub(crate) fn stop_server(&self) {
        if let Some(server) = lock(&self.running.server).as_ref() {
            server.shutdown();
        }
        self.ledger.close();
    }

    /// Where the server is.
    pub(crate) fn server_address(&self) -> IpAddr {
        public(SERVER_NUMBER).parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Lets a local program connect to a forward, if its machine runs.
    pub(crate) fn open(&self, forward: usize, stream: usize) {
        let host = self.nodes[self.scenario.forwards[forward].from];
        let net = self.world.net(host);
        let client = traffic::client(net, forward_port(forward), stream, self.ledger.clone());
        self.world.spawn(host, "client", client);
    }

    /// A fault begins.
    pub(crate) fn begin(&mut self, fault: &Trouble) {
        let host = |party| self.host(party);
        let injected = match fault.what {
            What::Cut(from, to) => Fault::Cut { from: host(from), to: host(to) },
            What::Offline(who) => Fault::Offline(host(who)),
            What::InterfaceDown(who) => Fault::InterfaceDown(host(who), INTERFACE.to_owned()),
            // One that is away cannot go away.
            What::Crash(who) | What::Kill(who) | What::Suspend(who) if self.away.contains_key(&who) => return,
            What::Crash(who) => Fault::Crash(host(who)),
            What::Kill(who) => Fault::Kill(host(who)),
            What::Suspend(who) => Fault::Suspend(host(who)),
            What::Roam(node) => self.roam(node),
            What::Move(node, preset) => return self.relocate(node, preset),
            What::NatReboot(node) => {
                for gateway in &self.homes[node].gateways {
                    self.world.inject(Fault::GatewayReboot(*gateway));
                }
                return;
            }
            What::Weather(node, line) => self.weather(node, line.config()),
            What::WallClock(who, seconds) => Fault::WallClock(host(who), seconds.into()),
        };
        if let What::Crash(who) | What::Kill(who) | What::Suspend(who) = fault.what {
            self.away.insert(who, *fault);
        }
        self.world.inject(injected);
    }

    /// A fault is mended.
    pub(crate) fn mend(&mut self, fault: &Trouble) {
        if let What::Crash(who) | What::Kill(who) | What::Suspend(who) = fault.what
            && !self.returns(who, fault)
        {
            return;
        }
        let host = |party| self.host(party);
        let injected = match fault.what {
            What::Cut(from, to) => Fault::Heal { from: host(from), to: host(to) },
            What::Offline(who) => Fault::Online(host(who)),
            What::InterfaceDown(who) => Fault::InterfaceUp(host(who), INTERFACE.to_owned()),
            What::Crash(who) | What::Kill(who) => Fault::Restart(host(who)),
            What::Suspend(who) => Fault::Resume(host(who)),
            What::Weather(node, _) => {
                let usual = self.usual_line(node);
                if let Some(gateway) = self.first_gateways[node].filter(|_| self.moved[node] > 0) {
                    // Those who stayed behind have had the same weather.
                    self.world.inject(Fault::GatewayLinks { gateway, config: usual.clone() });
                }
                self.weather(node, usual)
            }
            What::Roam(_) | What::Move(..) | What::NatReboot(_) | What::WallClock(..) => return,
        };
        self.world.inject(injected);
    }

    /// Whether it was this fault that took the machine away, which then comes back.
    fn returns(&mut self, who: Party, fault: &Trouble) -> bool {
        let is_this = self.away.get(&who) == Some(fault);
        if is_this {
            self.away.remove(&who);
        }
        is_this
    }

    fn weather(&self, node: usize, config: LinkConfig) -> Fault {
        match self.homes[node].gateways.last() {
            Some(gateway) => Fault::GatewayLinks { gateway: *gateway, config },
            None => Fault::Links { host: self.nodes[node], interface: INTERFACE.to_owned(), config },
        }
    }

    /// Gives a node an address that nobody has had.
    fn roam(&mut self, node: usize) -> Fault {
        let times = self.roamed[node];
        self.roamed[node] += 1;
        let home = &self.homes[node];
        let addresses = if home.gateways.is_empty() {
            let number = roamed_number(node, times);
            self.names.extend(public(number).parse::<IpAddr>().map(|ip| (ip, node_name(node))));
            let v6 = home.prefix.is_some().then(|| format!("{}::2/128", prefix(number)));
            [format!("{}/32", public(number))].into_iter().chain(v6).collect()
        } else {
            home.addresses(FIRST_ROAMED + small(node) * MOST_ROAMS + times % MOST_ROAMS)
        };
        Fault::Roam { host: self.nodes[node], interface: INTERFACE.to_owned(), network: None, addresses }
    }

    /// Takes a node into another network, on the line that it has.
    fn relocate(&mut self, node: usize, preset: Preset) {
        let times = self.moved[node];
        self.moved[node] += 1;
        let number = MOVED_NUMBER + small(node) * 0x100 + times;
        let name = format!("{} moved {times}", node_name(node));
        let line = self.usual_line(node);
        self.homes[node] = self.world.relocate(self.nodes[node], &name, number, preset.nats(), line);
        self.note(node, &public(number));
    }

    /// Remembers that a node is seen at a public address.
    fn note(&mut self, node: usize, address: &str) {
        let Ok(address) = address.parse() else { return };
        // Some share one.
        let known = self.names.remove(&address).map(|name| name + "/");
        self.names.insert(address, known.unwrap_or_default() + &node_name(node));
    }

    /// Who is seen at an address.
    pub(crate) fn who(&self, address: IpAddr) -> Option<&str> {
        self.names.get(&address).map(String::as_str)
    }

    /// Who is where, in words.
    pub(crate) fn legend(&self) -> String {
        let mut text = format!("server at {}, port {}\n", self.server_address(), server_port(&self.scenario));
        for node in 0..self.nodes.len() {
            let site = self.scenario.begins_at(node);
            let mates =
                (0..self.nodes.len()).filter(|mate| self.scenario.home(*mate) == self.scenario.home(node));
            let house =
                if mates.count() > 1 { format!(" in the house of n{}", site.house) } else { String::new() };
            let addresses: Vec<&IpAddr> = self
                .names
                .iter()
                .filter(|(_, names)| names.split('/').any(|name| name == node_name(node)))
                .map(|(ip, _)| ip)
                .collect();
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "{} behind {}{house}, seen at {addresses:?}", node_name(node), site.preset);
        }
        text.push('\n');
        text
    }

    fn usual_line(&self, node: usize) -> LinkConfig {
        self.scenario.nodes[self.scenario.begins_at(node).carrier].line.config()
    }

    fn host(&self, party: Party) -> HostId {
        match party {
            Party::Server => self.server,
            Party::Node(node) => self.nodes[node],
        }
    }
}

/// The name of a node.
pub(crate) fn node_name(number: usize) -> String {
    format!("n{number}")
}

/// Where a forward listens.
fn forward_port(number: usize) -> u16 {
    2000 + small(number)
}

/// A firewall that knows 443 alone needs a server there.
fn server_port(scenario: &Scenario) -> u16 {
    let strict = scenario.presets().any(|preset| preset == Preset::Only443);
    if strict { 443 } else { programs::SERVER_PORT }
}

/// The server's file of shares. Each is for the service that is there, and for no other.
fn shares_file(scenario: &Scenario) -> String {
    let entry = |share: &Share| {
        let (user, to) = (programs::user(scenario.nodes[share.node].user), programs::user(share.user));
        let node = node_name(share.node);
        format!(r#"{{"user":"{user}","node":"{node}","to":"{to}","targets":["127.0.0.1:{SERVICE_PORT}"]}}"#)
    };
    let entries: Vec<String> = scenario.shares.iter().map(entry).collect();
    format!(r#"{{"version":1,"shares":[{}]}}"#, entries.join(","))
}

fn small(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn roamed_number(node: usize, times: u16) -> u16 {
    0x1000 + small(node) * 0x100 + times
}

/// What tells the public addresses apart.
const SERVER_NUMBER: u16 = 1;
const FIRST_NUMBER: u16 = 0x100;
const MOVED_NUMBER: u16 = 0x4000;

/// What tells the addresses of a house apart.
const FIRST_MATE: u16 = 10;
const FIRST_ROAMED: u16 = 50;
const MOST_ROAMS: u16 = 16;

const INTERFACE: &str = "eth0";
