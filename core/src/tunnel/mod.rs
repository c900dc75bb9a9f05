//! tunnel.
mod rule;
pub use rule::ForwardRule;
