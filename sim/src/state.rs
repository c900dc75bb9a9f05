//! Everything in the world that is not a task, under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::clock::{Clock, Time};
use crate::fabric::{Flight, Gateway, Network, Port, PortId, in_prefix};
use crate::fault::Fault;
use crate::host::{Host, HostId, is_unix, loopback};
use crate::log::{Event, Log, Place};
use crate::queue::{Due, Queue, What};
use crate::rng::Rng;
use crate::slab::{Key, Slab};
use crate::tcp::Listener;
use crate::tcp::conn::Conn;
use crate::tcp::segment::{Segment, Tag};
use crate::timer::TimerSlot;
use crate::udp::UdpSocket;
use crate::world::Settings;

pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<Clock>,
    pub(crate) queue: Queue,
    pub(crate) log: Log,
    /// What the network does by chance.
    pub(crate) rng: Rng,
    /// The seeds of the hosts' machines.
    pub(crate) seeds: Rng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) networks: Vec<Network>,
    pub(crate) ports: Vec<Port>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) names: BTreeMap<String, Vec<IpAddr>>,
    /// Partitions: from whom to whom nothing passes.
    pub(crate) cut: BTreeSet<(HostId, HostId)>,
    pub(crate) flights: Slab<Flight>,
    pub(crate) timers: Slab<TimerSlot>,
    pub(crate) udp: Slab<UdpSocket>,
    pub(crate) conns: Slab<Conn>,
    pub(crate) listeners: Slab<Listener>,
    pub(crate) faults: Slab<Fault>,
    /// Faults that are due, for the run loop to inject: they drop tasks, which must not happen under a lock.
    pub(crate) due_faults: Vec<Fault>,
    pub(crate) tags: Tag,
    /// Segments on their way from a connection into packets.
    pub(crate) outgoing: Vec<Segment>,
}

impl State {
    pub(crate) fn new(seed: u64, settings: Settings, clock: Arc<Clock>) -> Self {
        Self {
            settings,
            clock,
            queue: Queue::default(),
            log: Log::new(),
            rng: Rng::new(seed, 0),
            seeds: Rng::new(seed, 1),
            hosts: Vec::new(),
            networks: Vec::new(),
            ports: Vec::new(),
            gateways: Vec::new(),
            names: BTreeMap::new(),
            cut: BTreeSet::new(),
            flights: Slab::default(),
            timers: Slab::default(),
            udp: Slab::default(),
            conns: Slab::default(),
            listeners: Slab::default(),
            faults: Slab::default(),
            due_faults: Vec::new(),
            tags: 0,
            outgoing: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(crate) fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0 as usize]
    }

    pub(crate) fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    pub(crate) fn port(&self, id: PortId) -> &Port {
        &self.ports[id.0 as usize]
    }

    pub(crate) fn name_of(&self, place: Place) -> &str {
        match place {
            Place::Host(id) => &self.host(id).name,
            Place::Gateway(id) => &self.gateways[id.0 as usize].name,
            Place::Network(id) => &self.networks[id.0 as usize].name,
            Place::World => "world",
        }
    }

    /// Does what is due.
    pub(crate) fn happen(&mut self, due: Due, what: What) {
        match what {
            What::Timer(key) => {
                if let Some((host, task, set)) = self.timer_due(key, due) {
                    self.log.add(due.at, Place::Host(host), Event::Timer(task, set));
                }
            }
            What::Packet(key) => {
                if let Some(flight) = self.flights.remove(key) {
                    self.arrived(flight);
                }
            }
            What::Tcp(key) => self.tcp_due(key, due),
            What::Writable(key) => {
                if let Some(socket) = self.udp.find_mut(key) {
                    socket.writable();
                }
            }
            What::Fault(key) => self.due_faults.extend(self.faults.remove(key)),
        }
    }

    /// The source address for packets from `host` to `to`; none without a route.
    pub(crate) fn source(&self, id: HostId, to: IpAddr) -> Option<IpAddr> {
        let host = self.host(id);
        if to.is_loopback() {
            return Some(loopback(to));
        }
        if is_unix(to) || host.is_local(to) {
            return Some(to);
        }
        let up = || host.interfaces.iter().filter(|interface| interface.up);
        let family = |address: &IpAddr| address.is_ipv4() == to.is_ipv4();
        let on_link = up().flat_map(|interface| &interface.addresses);
        let on_link = on_link.filter(|(address, prefix)| in_prefix(to, *address, *prefix));
        let beyond = up().filter(|interface| {
            let network = self.port(interface.port).network;
            network == INTERNET || self.networks[network.0 as usize].gateway.is_some()
        });
        let beyond = beyond.flat_map(|interface| &interface.addresses);
        on_link.chain(beyond).map(|(address, _)| *address).find(family)
    }

    /// The MTU of the interface that has the address.
    pub(crate) fn mtu(&self, host: HostId, from: IpAddr) -> u16 {
        let owner = self.host(host).owner(from);
        owner.map_or(crate::world::LOOPBACK_MTU, |interface| self.port(interface.port).up.config.mtu)
    }

    /// Looks a name up; addresses stand for themselves.
    pub(crate) fn lookup(&self, name: &str, port: u16) -> Vec<SocketAddr> {
        let addresses = match name.trim_end_matches('.') {
            "localhost" => vec![loopback(IpAddr::from([0; 16])), loopback(IpAddr::from([0; 4]))],
            name => match name.parse() {
                Ok(address) => vec![address],
                Err(_) => self.names.get(name).cloned().unwrap_or_else(|| self.addresses_of(name)),
            },
        };
        addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
    }

    fn addresses_of(&self, name: &str) -> Vec<IpAddr> {
        let host = self.hosts.iter().find(|host| host.name == name);
        let interfaces = host.into_iter().flat_map(|host| &host.interfaces);
        interfaces.flat_map(|interface| &interface.addresses).map(|(address, _)| *address).collect()
    }

    pub(crate) fn schedule_fault(&mut self, at: Time, fault: Fault) {
        let key = self.faults.insert(fault);
        self.queue.push(at, What::Fault(key));
    }

    pub(crate) fn new_tag(&mut self) -> Tag {
        self.tags = self.tags.wrapping_add(1);
        self.tags
    }

    /// All connections of a host, in order of their addresses.
    pub(crate) fn connections_of(&self, host: HostId) -> Vec<Key> {
        self.host(host).connections.values().copied().collect()
    }
}

/// The first network of every world.
pub(crate) const INTERNET: crate::fabric::NetworkId = crate::fabric::NetworkId(0);
