//! The world: hosts, networks and gateways, and the loop that runs them.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, Time};
use crate::executor::{Executor, Turn, lock};
use crate::fabric::{Gateway, GatewayId, Network, NetworkId, Owner, Port, PortId};
use crate::host::{Attachment, Host, HostId};
use crate::link::{Link, LinkConfig};
use crate::log::{Entry, Place};
use crate::nat::{Nat, NatConfig, Side};
use crate::net::SimNet;
use crate::state::{INTERNET, State};
use crate::store::SimStore;

/// A simulated internet. It is run by one thread, that of the test.
#[derive(Debug)]
pub struct World {
    pub(crate) shared: Arc<Shared>,
}

/// What may be set before a world begins.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The wall clock at the beginning, since 1970.
    pub unix_start: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        // 1 January 2026.
        Self { unix_start: Duration::from_secs(1_767_225_600) }
    }
}

/// What a host holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Tasks that have not ended.
    pub tasks: usize,
    /// UDP sockets.
    pub udp: usize,
    /// Listeners, TCP and Unix.
    pub listeners: usize,
    /// TCP connections and Unix streams, those that wait for their end included.
    pub connections: usize,
    /// Timers that were ever set and not dropped.
    pub timers: usize,
}

pub(crate) struct Shared {
    pub(crate) clock: Arc<Clock>,
    pub(crate) executor: Executor,
    pub(crate) state: Mutex<State>,
}

impl World {
    /// A world with nothing but an internet, in which `seed` decides all chance.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Settings::default())
    }

    /// The same with other settings.
    pub fn with(seed: u64, settings: Settings) -> Self {
        let clock = Arc::new(Clock::new());
        let mut state = State::new(seed, settings, clock.clone());
        state.networks.push(Network { routers: INTERNET_ROUTERS, ..Network::new("internet") });
        Self { shared: Arc::new(Shared { clock, executor: Executor::default(), state: Mutex::new(state) }) }
    }

    /// The network of public addresses.
    pub fn internet(&self) -> NetworkId {
        INTERNET
    }

    /// Makes a network that nobody is attached to.
    pub fn lan(&self, name: &str) -> NetworkId {
        let mut state = lock(&self.shared.state);
        state.networks.push(Network::new(name));
        NetworkId(id(state.networks.len()))
    }

    /// Makes a host, running and without interfaces. Its name resolves to its addresses.
    pub fn host(&self, name: &str) -> HostId {
        let mut state = lock(&self.shared.state);
        state.hosts.push(Host::new(name));
        HostId(id(state.hosts.len()))
    }

    /// Gives a host one more interface, `eth0` being the first, with these addresses and the same link in
    /// both directions. Of several interfaces the first one that leads to a destination is used.
    ///
    /// # Panics
    ///
    /// When an address is not written like `192.168.1.7/24`, or is taken.
    pub fn attach(&self, host: HostId, network: NetworkId, addresses: &[&str], link: LinkConfig) {
        let addresses = parse_addresses(addresses);
        let mut state = lock(&self.shared.state);
        let port = state.add_port(Owner::Host(host), network, link);
        state.announce(network, port, &addresses);
        let name = format!("eth{}", state.host(host).interfaces.len());
        state.host_mut(host).interfaces.push(Attachment { name, port, up: true, addresses });
    }

    /// Joins a network to another one beyond it, by a NAT or, without one, by a plain router. `link` is the
    /// line to the network beyond. What is not translated is routed: IPv6, and all without a NAT.
    ///
    /// # Panics
    ///
    /// When an address is not written like `192.168.1.1/24`, or is taken.
    pub fn gateway(
        &self,
        name: &str,
        (inside, inside_addresses): (NetworkId, &[&str]),
        (outside, outside_addresses): (NetworkId, &[&str]),
        nat: Option<NatConfig>,
        link: LinkConfig,
    ) -> GatewayId {
        let inner = parse_addresses(inside_addresses);
        let outer = parse_addresses(outside_addresses);
        let mut state = lock(&self.shared.state);
        let gateway = GatewayId(id(state.gateways.len() + 1));
        let inside_link = LinkConfig { delay: Duration::ZERO, ..LinkConfig::lan() };
        let inside_port = state.add_port(Owner::Gateway(gateway, Side::Inside), inside, inside_link);
        let outside_port = state.add_port(Owner::Gateway(gateway, Side::Outside), outside, link);
        state.announce(inside, inside_port, &inner);
        state.announce(outside, outside_port, &outer);
        state.networks[inside.0 as usize].gateway = Some(inside_port);
        let routed = inner.iter().filter(|(address, _)| nat.is_none() || address.is_ipv6());
        let routes = routed.map(|(address, prefix)| (*address, *prefix, outside_port));
        state.networks[outside.0 as usize].routes.extend(routes);
        let nat = nat.map(|config| Nat::new(config, outer.iter().map(|(address, _)| *address).collect()));
        let name = name.to_owned();
        state.gateways.push(Gateway { name, inside: inside_port, outside: outside_port, nat });
        gateway
    }

    /// Lets a name resolve to these addresses.
    pub fn name(&self, name: &str, addresses: &[IpAddr]) {
        lock(&self.shared.state).names.insert(name.to_owned(), addresses.to_owned());
    }

    /// The present life of a host.
    pub fn net(&self, host: HostId) -> SimNet {
        let life = lock(&self.shared.state).host(host).life;
        SimNet::new(self.shared.clone(), host, life)
    }

    /// The files of a host.
    pub fn store(&self, host: HostId) -> Arc<SimStore> {
        lock(&self.shared.state).host(host).store.clone()
    }

    /// Starts `program` on a host, now and whenever the host is restarted.
    pub fn program(&self, host: HostId, program: impl Fn(SimNet) + Send + Sync + 'static) {
        lock(&self.shared.state).host_mut(host).program = Some(Arc::new(program));
        let program = lock(&self.shared.state).host(host).program.clone();
        if let Some(program) = program {
            program(self.net(host));
        }
    }

    /// Runs a task on a host.
    pub fn spawn(&self, host: HostId, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        inp2p_driver::net::Net::spawn(&self.net(host), name, task);
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// Runs until `condition` holds, and says whether it came to hold within `limit`. It is asked whenever
    /// all tasks wait.
    ///
    /// # Panics
    ///
    /// When a task spins; the message names it.
    pub fn run_until(&self, mut condition: impl FnMut() -> bool, limit: Duration) -> bool {
        let end = self.now() + limit;
        loop {
            let busy = self.run_tasks();
            if condition() {
                return true;
            }
            if busy && self.now() == end {
                return false;
            }
            // A task that is busy has taken some time by now.
            let until = if busy { end.min(self.now() + BUSY_TIME) } else { end };
            if !self.next_instant(until) {
                self.shared.clock.advance(until);
                if !busy {
                    return false;
                }
            }
        }
    }

    /// Runs for so long.
    pub fn run_for(&self, duration: Duration) {
        self.run_until(|| false, duration);
    }

    /// Runs a task on a host to its end and returns what it returned.
    ///
    /// # Panics
    ///
    /// When it has not ended within `limit`; the message names the tasks that are left.
    pub fn block_on<T: Send + 'static>(
        &self,
        host: HostId,
        limit: Duration,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        self.spawn(host, "test", async move {
            let value = task.await;
            *lock(&slot) = Some(value);
        });
        self.run_until(|| lock(&result).is_some(), limit);
        let value = lock(&result).take();
        value.unwrap_or_else(|| {
            panic!(
                "not done at {}; tasks that wait: {:?}\n{}",
                self.now(),
                self.shared.executor.names(host),
                self.timeline(50)
            )
        })
    }

    /// The hash over all that has happened.
    pub fn hash(&self) -> u64 {
        lock(&self.shared.state).log.hash()
    }

    /// How much has happened: entries of the log, those included that are no longer kept.
    pub fn events(&self) -> u64 {
        lock(&self.shared.state).log.events()
    }

    /// Sets how many entries of the log are kept.
    pub fn keep_log(&self, entries: usize) {
        lock(&self.shared.state).log.keep(entries);
    }

    /// The entries of the log that are kept.
    pub fn log(&self) -> Vec<Entry> {
        lock(&self.shared.state).log.entries().cloned().collect()
    }

    /// The last `lines` of the log, for people.
    pub fn timeline(&self, lines: usize) -> String {
        use fmt::Write;
        let state = lock(&self.shared.state);
        let skip = state.log.entries().count().saturating_sub(lines);
        let mut text = String::new();
        for entry in state.log.entries().skip(skip) {
            let place = state.name_of(entry.place);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:>16}  {place:<12} {}", entry.at.to_string(), entry.event);
        }
        text
    }

    /// The name of where something happened.
    pub fn name_of(&self, place: Place) -> String {
        lock(&self.shared.state).name_of(place).to_owned()
    }

    /// The addresses to which a host has sent datagrams, or opened connections, and since when.
    pub fn sent_to(&self, host: HostId) -> Vec<(IpAddr, Time)> {
        lock(&self.shared.state).log.contacts(host).collect()
    }

    /// Since when a host has had datagrams or connections from an address.
    pub fn heard(&self, host: HostId, from: IpAddr) -> Option<Time> {
        lock(&self.shared.state).log.heard(host, from)
    }

    /// What a host holds.
    pub fn counts(&self, host: HostId) -> Counts {
        let state = lock(&self.shared.state);
        Counts {
            tasks: self.shared.executor.names(host).len(),
            udp: state.udp.iter().filter(|(_, socket)| socket.host == host).count(),
            listeners: state.listeners.iter().filter(|(_, listener)| listener.host == host).count(),
            connections: state.conns.iter().filter(|(_, conn)| conn.host == host).count(),
            timers: state.timers.iter().filter(|(_, timer)| timer.host == host).count(),
        }
    }

    /// The names of a host's tasks that have not ended.
    pub fn tasks(&self, host: HostId) -> Vec<&'static str> {
        self.shared.executor.names(host)
    }

    /// Runs the tasks until all wait, or until one has been polled too often for a single instant, which is
    /// true.
    fn run_tasks(&self) -> bool {
        let now = self.now();
        let name = |host| lock(&self.shared.state).host(host).name.clone();
        loop {
            match self.shared.executor.poll_next(now, name) {
                Turn::Polled => {}
                Turn::AllWait => return false,
                Turn::Busy => return true,
            }
        }
    }

    /// Goes on to the next instant at which something is due, and does it; false if there is none until
    /// `end`.
    fn next_instant(&self, end: Time) -> bool {
        let mut state = lock(&self.shared.state);
        let Some(at) = state.queue.next_at().filter(|at| *at <= end) else { return false };
        self.shared.clock.advance(at.max(self.now()));
        while let Some((due, what)) = state.queue.pop_until(at) {
            state.happen(due, what);
        }
        let faults = std::mem::take(&mut state.due_faults);
        drop(state);
        for fault in faults {
            self.shared.inject(fault);
        }
        true
    }
}

impl Drop for World {
    /// Ends all tasks: they hold the world, which holds them.
    fn drop(&mut self) {
        loop {
            let tasks = self.shared.executor.take(None);
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        for host in &mut lock(&self.shared.state).hosts {
            host.program = None;
        }
    }
}

impl State {
    fn add_port(&mut self, owner: Owner, network: NetworkId, link: LinkConfig) -> PortId {
        let (up, down) = (Link::new(link.clone()), Link::new(link));
        self.ports.push(Port { owner, network, up, down, offline: false });
        PortId(id(self.ports.len()))
    }

    /// Lets a network know where these addresses are.
    pub(crate) fn announce(&mut self, network: NetworkId, port: PortId, addresses: &[(IpAddr, u8)]) {
        let network = &mut self.networks[network.0 as usize];
        for (address, prefix) in addresses {
            let taken = network.addresses.insert(*address, port);
            assert!(taken.is_none(), "{address} is taken in network {:?}", network.name);
            network.on_link.push((*address, *prefix));
        }
    }
}

impl Network {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            addresses: std::collections::BTreeMap::new(),
            routes: Vec::new(),
            on_link: Vec::new(),
            gateway: None,
            routers: 0,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("clock", &self.clock).finish_non_exhaustive()
    }
}

pub(crate) fn parse_addresses(texts: &[&str]) -> Vec<(IpAddr, u8)> {
    let parse = |text: &str| {
        let (address, prefix) = text.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok()?))
    };
    let checked = |text| parse(text).unwrap_or_else(|| panic!("{text:?} is not like 192.168.1.7/24"));
    texts.iter().map(|text| checked(text)).collect()
}

/// The index of the last of so many.
fn id(count: usize) -> u32 {
    u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Half of a loopback round trip on a usual machine. Not zero: time has to go on while two tasks of a host
/// talk to each other.
pub(crate) const LOOPBACK_DELAY: Duration = Duration::from_micros(20);

/// What so many polls of one task as the executor allows at one instant take on a usual machine.
const BUSY_TIME: Duration = Duration::from_millis(1);

/// Linux's.
pub(crate) const LOOPBACK_MTU: u16 = u16::MAX;

/// Routers between two public addresses: as few as there can be, so that what is to die on the way gets as far as
/// it can.
const INTERNET_ROUTERS: u8 = 1;
