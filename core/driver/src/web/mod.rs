//! Everything that speaks HTTP or WebSocket: the front of the server's TCP port, the node's connection to
//! it, and the node's control socket.
//!
//! ```text
//! server   listener ─ sniff ─┬─ TLS ─┬─ HTTP ─┬─ /api/v1/…  REST ── AdminRequest ──> control task
//!                            │       │        └─ /ws  upgrade ── FrontEvent ──────> control task
//!                            ├───────┘                  ^───────── Outbox ────────── control task
//!                            │       └─ /relay  upgrade ──┐
//!                            └─ relay preface ───────────┴───────────────── Relay
//! node     connect_signal ── TLS ── HTTP upgrade ── SignalEvent / Outbox ── control task
//!          serve_local ── HTTP over a Unix socket ── StatusClient ── control task
//! ```
//!
//! The control task decides and never waits; each connection has a task of its own, which waits. What
//! joins them is bounded: events in, by back-pressure (a connection whose event finds no room is not read
//! on); messages out, by ending the connection that does not take them.
//!
//! Left to others: what the messages say and who may log in (`inp2p_core::server`), STUN, links.

mod admin;
mod client;
mod front;
mod http;
mod identity;
mod local;
mod openapi;
mod origin;
mod rest;
mod routes;
mod slots;
#[cfg(test)]
mod testnet;
#[cfg(test)]
mod tests;
mod time;
pub mod tls;
mod upgrade;
mod ws;

pub use admin::{AdminCall, AdminClient, AdminKey};
pub use client::{Known, Signal, SignalError, SignalEvent, SignalServer, connect_relay, connect_signal};
pub use front::{Front, FrontConfig, FrontEvent, serve};
pub use identity::{BadCidr, Cidr};
pub use local::{Local, StatusCall, StatusClient, serve_local};
pub use ws::{Outbox, QueueFull};
