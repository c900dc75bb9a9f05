//! agent.
pub mod io;
