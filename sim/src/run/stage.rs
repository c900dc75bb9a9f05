//! The world of a scenario: machines, programs, and faults as the scenario means them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inp2p_core::status::Status;
use inp2p_driver::agent::AgentHandle;
use inp2p_driver::net::Net;
use inp2p_driver::server::ServerHandle;

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
use crate::scenario::{Party, Place, Scenario, Trouble, What};
use crate::topology::{Home, public};
use crate::world::World;

/// A scenario's world.
pub(crate) struct Stage {
    pub(crate) world: World,
    scenario: Scenario,
    pub(crate) server: HostId,
    pub(crate) nodes: Vec<HostId>,
    /// By node: those of the house it lives in.
    gateways: Vec<Vec<GatewayId>>,
    pub(crate) ledger: Arc<Ledger>,
    running: Arc<Running>,
    /// Machines that do not run, or sleep, with the fault that is to end that.
    away: BTreeMap<Party, Trouble>,
    roamed: Vec<u16>,
    flaw: Option<Flaw>,
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
            let name = node_name(number);
            let home = match node.place {
                Place::Own(preset) => {
                    world.home(&name, FIRST_NUMBER + small(number), preset, node.line.config())
                }
                Place::With(house) => {
                    let house = homes[house].clone();
                    let host = world.host(&name);
                    world.attach(host, house.network, &[&private(FIRST_MATE + number)], LinkConfig::lan());
                    Home { host, ..house }
                }
            };
            homes.push(home);
        }
        let ledger = Arc::default();
        let stage = Self {
            server,
            nodes: homes.iter().map(|home| home.host).collect(),
            gateways: homes.into_iter().map(|home| home.gateways).collect(),
            ledger,
            running,
            away: BTreeMap::new(),
            roamed: vec![0; scenario.nodes.len()],
            scenario: scenario.clone(),
            flaw,
            world,
        };
        stage.start_server();
        (0..scenario.nodes.len()).for_each(|number| stage.start_node(number));
        stage
    }

    fn start_server(&self) {
        let (running, port) = (self.running.clone(), server_port(&self.scenario));
        self.world.program(self.server, move |net| {
            let running = running.clone();
            let setup = programs::server(&net);
            net.clone().spawn("main", async move {
                let setup = inp2p_driver::setup::ServerSetup { ws_port: port, ..setup };
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
        let own = self.scenario.forwards.iter().enumerate().filter(|(_, forward)| forward.from == number);
        let rules: Vec<String> = own
            .map(|(at, forward)| format!("{}:{}:{SERVICE_PORT}", forward_port(at), node_name(forward.to)))
            .collect();
        self.world.program(self.nodes[number], move |net: SimNet| {
            net.spawn("service", traffic::service(net.clone(), ledger.clone()));
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let mut setup = programs::node(&net, &name, "server", &rules);
            setup.port = port;
            setup.agent.server_address = format!("server:{port}");
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
            What::NatReboot(node) => {
                for gateway in &self.gateways[node] {
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
                let usual = self.scenario.nodes[self.scenario.home(node)].line;
                self.weather(node, usual.config())
            }
            What::Roam(_) | What::NatReboot(_) | What::WallClock(..) => return,
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
        match self.gateways[node].last() {
            Some(gateway) => Fault::GatewayLinks { gateway: *gateway, config },
            None => Fault::Links { host: self.nodes[node], interface: INTERFACE.to_owned(), config },
        }
    }

    /// Gives a node an address that nobody has had.
    fn roam(&mut self, node: usize) -> Fault {
        let times = self.roamed[node];
        self.roamed[node] += 1;
        let address = match self.scenario.preset(node) {
            Preset::Open => format!("{}/32", public(roamed_number(node, times))),
            _ => private(FIRST_ROAMED + node * MOST_ROAMS + usize::from(times) % MOST_ROAMS),
        };
        Fault::Roam {
            host: self.nodes[node],
            interface: INTERFACE.to_owned(),
            network: None,
            addresses: vec![address],
        }
    }

    fn host(&self, party: Party) -> HostId {
        match party {
            Party::Server => self.server,
            Party::Node(node) => self.nodes[node],
        }
    }

    /// What a node has sent to that it was not told by somebody who knew: neither the server, nor an address
    /// at which the server sees a node, nor one of the house it lives in.
    pub(crate) fn strange_addresses(&self, number: usize) -> Vec<IpAddr> {
        let mut known: BTreeSet<IpAddr> = BTreeSet::new();
        let mut know = |number| known.extend(public(number).parse::<IpAddr>());
        know(SERVER_NUMBER);
        for node in 0..self.nodes.len() {
            know(FIRST_NUMBER + small(node));
            (0..self.roamed[node]).for_each(|times| know(roamed_number(node, times)));
        }
        let own = self.scenario.preset(number) != Preset::Open;
        let mates =
            (0..self.nodes.len()).filter(|node| self.scenario.home(*node) == self.scenario.home(number));
        let at_home = own && mates.count() > 1;
        let is_home = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [192, 168, 1]);
        let sent_to = self.world.sent_to(self.nodes[number]);
        let may = |ip: &IpAddr| ip.is_loopback() || known.contains(ip) || (at_home && is_home(ip));
        sent_to.into_iter().filter(|ip| !may(ip)).collect()
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
    let strict = (0..scenario.nodes.len()).any(|node| scenario.preset(node) == Preset::Only443);
    if strict { 443 } else { programs::SERVER_PORT }
}

fn small(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn private(host: usize) -> String {
    format!("192.168.1.{host}/24")
}

fn roamed_number(node: usize, times: u16) -> u16 {
    0x1000 + small(node) * 0x100 + times
}

/// What tells the public addresses apart.
const SERVER_NUMBER: u16 = 1;
const FIRST_NUMBER: u16 = 0x100;

/// What tells the addresses of a house apart.
const FIRST_MATE: usize = 10;
const FIRST_ROAMED: usize = 50;
const MOST_ROAMS: usize = 16;

const INTERFACE: &str = "eth0";
