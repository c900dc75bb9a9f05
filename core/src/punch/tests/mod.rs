//! Punchers against each other through NATs, and against those who forge.

mod attack;
pub(crate) mod nat;
mod pairs;
mod sockets;
mod world;
