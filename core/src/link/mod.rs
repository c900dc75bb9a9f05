//! Links: authenticated, end-to-end encrypted carriers of a session.
//!
//! A link over TCP opens, both ways, with a [`preface`] that tells which attempt it belongs to, so that a
//! stranger's connection is turned away before any expensive work; then comes TLS 1.3 with raw public keys
//! on both sides (RFC 8446, RFC 7250). The *controlling* node is the TLS client, whoever dialled. A link over
//! UDP is QUIC ([`udp`]), with the same keys and the same roles.
//!
//! What this leaves to others: which addresses to dial and which link to use (`session`), what the bytes
//! mean (`mux`), and the sockets (the driver).

pub mod preface;
mod raw_key;
mod tcp;
pub mod udp;

pub use preface::{Preface, Role};
pub use raw_key::LinkKeys;
pub use tcp::{LinkError, MAX_RECORD, MAX_RECORD_BYTES, TcpLink};
pub use udp::{UdpError, UdpLink};
