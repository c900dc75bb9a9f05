//! What goes wrong. Faults are plain data, so that a scenario can hold them, and are injected now
//! ([`World::inject`]) or at a time ([`World::inject_at`]).

use std::net::IpAddr;
use std::time::Duration;

use crate::executor::lock;
use crate::fabric::{GatewayId, NetworkId};
use crate::host::{HostId, Power, Role};
use crate::link::{Link, LinkConfig};
use crate::log::{Event, Place};
use crate::net::SimNet;
use crate::state::State;
use crate::world::{Shared, World, parse_addresses};

/// Something that goes wrong, or is mended.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Nothing that one host sends reaches the other one; the way back stays open.
    Cut {
        /// The sender.
        from: HostId,
        /// The receiver.
        to: HostId,
    },
    /// The end of [`Fault::Cut`].
    Heal {
        /// The sender.
        from: HostId,
        /// The receiver.
        to: HostId,
    },
    /// The wires of all interfaces of a host are cut. Addresses stay, nobody is told.
    Offline(HostId),
    /// The end of [`Fault::Offline`].
    Online(HostId),
    /// An interface goes down: its addresses are gone, and sending from them fails.
    InterfaceDown(HostId, String),
    /// The end of [`Fault::InterfaceDown`].
    InterfaceUp(HostId, String),
    /// An interface gets other addresses, and may be attached to another network.
    Roam {
        /// Whose.
        host: HostId,
        /// Which interface.
        interface: String,
        /// Where to; none stays where it is.
        network: Option<NetworkId>,
        /// The new addresses, with their prefixes, like `192.168.1.7/24`.
        addresses: Vec<String>,
    },
    /// The links of an interface change.
    Links {
        /// Whose.
        host: HostId,
        /// Which interface.
        interface: String,
        /// Both directions.
        config: LinkConfig,
    },
    /// The outer links of a gateway change.
    GatewayLinks {
        /// Which.
        gateway: GatewayId,
        /// Both directions.
        config: LinkConfig,
    },
    /// A gateway forgets all mappings.
    GatewayReboot(GatewayId),
    /// The machine stops dead: no packet says so. Its files stay.
    Crash(HostId),
    /// The program is killed; the system lives on and closes its sockets.
    Kill(HostId),
    /// The program starts (again), after [`Fault::Kill`] or [`Fault::Crash`].
    Restart(HostId),
    /// The machine goes to sleep. Its monotonic clock goes on, as Linux's boot-time clock does.
    Suspend(HostId),
    /// The machine wakes up.
    Resume(HostId),
    /// The wall clock jumps by so many seconds.
    WallClock(HostId, i64),
}

impl World {
    /// Injects a fault now.
    ///
    /// # Panics
    ///
    /// When the fault names an interface that the host does not have, or an address that is none.
    pub fn inject(&self, fault: Fault) {
        self.shared.inject(fault);
    }

    /// Injects a fault after so much time.
    pub fn inject_at(&self, after: Duration, fault: Fault) {
        let at = self.now() + after;
        lock(&self.shared.state).schedule_fault(at, fault);
    }

    /// Cuts two hosts off from each other, both ways.
    pub fn partition(&self, a: HostId, b: HostId) {
        self.inject(Fault::Cut { from: a, to: b });
        self.inject(Fault::Cut { from: b, to: a });
    }

    /// The end of [`World::partition`].
    pub fn heal(&self, a: HostId, b: HostId) {
        self.inject(Fault::Heal { from: a, to: b });
        self.inject(Fault::Heal { from: b, to: a });
    }
}

impl Shared {
    pub(crate) fn inject(self: &std::sync::Arc<Self>, fault: Fault) {
        let now = self.clock.now();
        lock(&self.state).log.add(now, Place::World, Event::Fault(format!("{fault:?}")));
        match fault {
            Fault::Crash(host) => {
                lock(&self.state).crash(host);
                self.executor.resume(host);
                drop(self.executor.take(Some(host)));
            }
            Fault::Kill(host) => {
                // The sockets close in an orderly way while this life goes on; what they spawn ends with it.
                drop(self.executor.take(Some(host)));
                lock(&self.state).host_mut(host).life += 1;
                drop(self.executor.take(Some(host)));
            }
            Fault::Restart(host) => {
                let mut state = lock(&self.state);
                let restarted = state.host_mut(host);
                restarted.power = Power::On;
                let (life, program) = (restarted.life, restarted.program.clone());
                drop(state);
                if let Some(program) = program {
                    program(SimNet::new(self.clone(), host, life));
                }
            }
            Fault::Suspend(host) => {
                let mut state = lock(&self.state);
                let host_state = state.host_mut(host);
                if host_state.power == Power::On {
                    host_state.power = Power::Suspended(now);
                    self.executor.suspend(host);
                }
            }
            Fault::Resume(host) => {
                lock(&self.state).resume(host);
                self.executor.resume(host);
            }
            Fault::Cut { .. }
            | Fault::Heal { .. }
            | Fault::Offline(_)
            | Fault::Online(_)
            | Fault::InterfaceDown(..)
            | Fault::InterfaceUp(..)
            | Fault::Roam { .. }
            | Fault::Links { .. }
            | Fault::GatewayLinks { .. }
            | Fault::GatewayReboot(_)
            | Fault::WallClock(..) => lock(&self.state).inject(fault),
        }
    }
}

impl State {
    /// The faults that change the network or a clock and touch no task.
    fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::Cut { from, to } => {
                self.cut.insert((from, to));
            }
            Fault::Heal { from, to } => {
                self.cut.remove(&(from, to));
            }
            Fault::Offline(host) => self.wires(host, true),
            Fault::Online(host) => self.wires(host, false),
            Fault::InterfaceDown(host, name) => self.set_interface(host, &name, false),
            Fault::InterfaceUp(host, name) => self.set_interface(host, &name, true),
            Fault::Roam { host, interface, network, addresses } => {
                let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                self.roam(host, &interface, network, &parse_addresses(&addresses));
            }
            Fault::Links { host, interface, config } => {
                let index = self.interface(host, &interface);
                let port = self.host(host).interfaces[index].port;
                self.set_links(port.0, &config);
            }
            Fault::GatewayLinks { gateway, config } => {
                let port = self.gateways[gateway.0 as usize].outside;
                self.set_links(port.0, &config);
            }
            Fault::GatewayReboot(gateway) => {
                if let Some(nat) = &mut self.gateways[gateway.0 as usize].nat {
                    nat.reboot();
                }
            }
            Fault::WallClock(host, seconds) => {
                self.host_mut(host).wall_ahead += i128::from(seconds) * 1_000_000_000;
            }
            Fault::Crash(_) | Fault::Kill(_) | Fault::Restart(_) | Fault::Suspend(_) | Fault::Resume(_) => {}
        }
    }

    /// Nothing of the host is left but its files and its place in the network.
    fn crash(&mut self, id: HostId) {
        for key in self.connections_of(id) {
            self.conns.remove(key);
        }
        let leftover: Vec<_> =
            self.conns.iter().filter(|(_, conn)| conn.host == id).map(|(key, _)| key).collect();
        for key in leftover {
            self.conns.remove(key);
        }
        let host = self.host_mut(id);
        host.life += 1;
        host.power = Power::Off;
        host.connections.clear();
        host.unix.clear();
        let bindings = std::mem::take(&mut host.bindings);
        for binding in bindings.into_values().flatten() {
            match binding.role {
                Role::Datagrams => drop(self.udp.remove(binding.socket)),
                Role::Listener => drop(self.listeners.remove(binding.socket)),
                Role::Connection => {}
            }
        }
    }

    fn resume(&mut self, id: HostId) {
        let now = self.now();
        let Power::Suspended(since) = self.host(id).power else { return };
        self.host_mut(id).power = Power::On;
        for key in self.connections_of(id) {
            // Its timers slept too; driving it sets them anew.
            self.drive(key, |conn, _, _| {
                conn.put_off(now - since);
                conn.scheduled = None;
            });
        }
    }

    fn wires(&mut self, host: HostId, offline: bool) {
        let ports: Vec<_> = self.host(host).interfaces.iter().map(|interface| interface.port).collect();
        for port in ports {
            self.ports[port.0 as usize].offline = offline;
        }
    }

    fn set_interface(&mut self, host: HostId, name: &str, up: bool) {
        let index = self.interface(host, name);
        let interface = &mut self.host_mut(host).interfaces[index];
        interface.up = up;
        let port = interface.port;
        self.ports[port.0 as usize].offline = !up;
    }

    fn set_links(&mut self, port: u32, config: &LinkConfig) {
        let port = &mut self.ports[port as usize];
        port.up = Link::new(config.clone());
        port.down = Link::new(config.clone());
    }

    fn roam(&mut self, host: HostId, name: &str, network: Option<NetworkId>, addresses: &[(IpAddr, u8)]) {
        let index = self.interface(host, name);
        let interface = &mut self.host_mut(host).interfaces[index];
        let old = std::mem::replace(&mut interface.addresses, addresses.to_vec());
        let port = interface.port;
        let from = self.port(port).network;
        let to = network.unwrap_or(from);
        self.ports[port.0 as usize].network = to;
        for (address, _) in old {
            self.networks[from.0 as usize].addresses.remove(&address);
        }
        self.announce(to, port, addresses);
    }

    fn interface(&self, host: HostId, name: &str) -> usize {
        let interfaces = &self.host(host).interfaces;
        let found = interfaces.iter().position(|interface| interface.name == name);
        found.unwrap_or_else(|| panic!("host {:?} has no interface {name:?}", self.host(host).name))
    }
}
