//! STUN (RFC 8489): how a node learns the address that the world sees it at.
//!
//! [`server`] answers Binding requests. The attributes of RFC 5780, the proof of an observed address and
//! the client that measures NATs belong beside it.

pub mod server;
