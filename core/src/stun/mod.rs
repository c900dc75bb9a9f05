//! stun.
