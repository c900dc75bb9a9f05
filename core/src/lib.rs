//! The INP2P protocol as pure state machines.
//!
//! There is no socket, clock, thread, file, environment or ambient randomness in this crate. Time and
//! randomness are arguments; what has to be done in the world is returned as data, and what came of it is
//! handed in as data. Cargo proves the first half (`just purity`), `clippy.toml` the second.

pub mod agent;
pub mod auth;
mod due;
pub mod ids;
pub mod link;
pub mod mux;
pub mod nat;
pub mod path;
pub mod punch;
pub mod relay;
pub mod rng;
pub mod server;
pub mod session;
pub mod status;
pub mod stun;
pub mod time;
pub mod tunnel;
pub mod wire;
#[cfg(test)]
mod world;
