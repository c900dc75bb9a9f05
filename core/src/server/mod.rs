//! server.
pub mod io;
