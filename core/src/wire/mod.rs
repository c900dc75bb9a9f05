//! wire.
pub mod message;
