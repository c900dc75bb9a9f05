//! Hole punching (RFC 5128): how two nodes behind NATs come to talk.
//!
//! Each side sends to where the other is, or is going to be; what leaves opens the own NAT for the other's
//! answer. Everything here follows from the two NATs, as RFC 4787 tells them apart and `nat` measures them:
//!
//! - [`plan`] decides once an attempt what is sent where, when, and from which sockets;
//! - [`udp`] does it: a machine that sends, listens, and says on which paths the peer was heard;
//! - [`tcp`] does the same over TCP, by simultaneous open;
//! - `fan` is the part of a plan that tries many ports or sockets (`spread` works it off), `aim` the schedule of one address, `ports`
//!   the arithmetic, `why` the reasons for giving up, `budget` how many ports the node may guess.
//!
//! What this leaves to others: the NAT report (`nat`), whose address may be probed at all (the server, which
//! proves reflexive addresses), the handshake on a path that was found (`link`), the sockets (the driver).

mod aim;
pub mod budget;
mod fan;
pub mod plan;
mod ports;
mod spread;
pub mod tcp;
pub mod udp;
mod why;

pub use budget::Budget;
pub use fan::{Fan, GAP, Ports, Sockets};
pub use plan::{Effort, Plan, Situation, Target, Trust, Way};
pub use why::Why;

#[cfg(test)]
pub(crate) mod tests;
