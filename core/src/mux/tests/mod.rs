//! What the multiplexer promises, claim by claim.

mod wire;
