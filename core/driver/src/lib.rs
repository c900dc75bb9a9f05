//! The INP2P event loops, written once, generic over the network they run on.
//!
//! The core decides; the driver does. It owns the sockets, asks the core's machines what to do, does it,
//! and tells them what came of it. It sees the world through [`net::Net`] alone, so that the same loops run
//! on tokio, on smol and in the simulator.

mod accept;
pub mod agent;
pub mod compat;
pub mod conduit;
mod exact;
mod forward;
mod meter;
pub mod net;
pub mod os;
mod peers;
mod port;
mod prober;
mod ready;
pub mod relay;
pub mod server;
mod service;
mod session;
pub mod setup;
mod stun;
pub mod testkit;
pub mod web;
mod words;

/// Where, at trace, the log says which deadline has passed whenever one of the core's machines acts on one.
pub const DUE: &str = "inp2p_driver::due";
