//! A simulated internet on virtual time that runs the unchanged INP2P driver.
//!
//! # What it is
//!
//! [`SimNet`] implements [`inp2p_driver::net::Net`], so the event loops of server and clients, with the
//! WebSocket, HTTP, TLS and QUIC inside them, run here exactly as they run on real sockets. A [`World`]
//! holds hosts, the networks that they are attached to, the gateways between those, and one clock that
//! stands still while anybody has something to do. Nothing sleeps: when all tasks wait, the clock jumps to
//! the next event.
//!
//! ```
//! use std::time::Duration;
//! use inp2p_sim::{LinkConfig, World};
//!
//! let world = World::new(7);
//! let host = world.host("a");
//! world.attach(host, world.internet(), &["198.51.100.1/24"], LinkConfig::default());
//! world.spawn(host, "nothing", async {});
//! world.run_for(Duration::from_secs(3_600));
//! assert_eq!(world.now(), inp2p_sim::Time::ZERO + Duration::from_secs(3_600));
//! ```
//!
//! # Determinism
//!
//! One thread; tasks run in the order in which they were woken; events at one instant happen in the order in
//! which they were scheduled; all chance comes from one seed. Two runs of one seed give the same
//! [`World::hash`], which covers the time, ends, size and kind of every packet, and every fault. It never
//! covers payload: ciphertext is random even where everything else repeats.
//!
//! # How a packet travels
//!
//! Host → up link of its interface → network → down link of the interface that has the destination address,
//! or of the network's gateway, which may translate it ([`nat`]) and passes it on in the network beyond.
//! Each link delays, loses, repeats, reorders and drops by its [`LinkConfig`]. A packet stands for a UDP
//! datagram or for a TCP segment, see [`tcp`] for what a segment stands for.
//!
//! # What it is not
//!
//! No model of processor time: a task's work takes no virtual time, unless it wakes itself again and again,
//! and memory is bounded by what the modelled machines bound: their buffers, queues and tables. No ARP, no routing protocol, no DNS
//! packets. Names resolve after a fixed delay.

mod clock;
mod executor;
mod fabric;
mod fault;
mod host;
mod link;
mod log;
pub mod nat;
mod net;
pub mod oracle;
mod packet;
pub mod programs;
mod queue;
mod rng;
pub mod run;
pub mod scenario;
mod slab;
mod state;
mod store;
pub mod tcp;
mod timer;
mod topology;
mod udp;
mod world;

pub use clock::Time;
pub use fabric::{GatewayId, NetworkId};
pub use fault::Fault;
pub use host::HostId;
pub use link::{DropCause, LinkConfig, Loss};
pub use log::{Entry, Event, Place, Summary};
pub use net::SimNet;
pub use packet::{Kind, Transport};
pub use store::SimStore;
pub use tcp::{SimListener, SimStream};
pub use timer::SimTimer;
pub use topology::Home;
pub use udp::SimUdp;
pub use world::{Counts, Settings, World};
