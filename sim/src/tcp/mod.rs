//! TCP as two programs see it. Each end is a state machine of its own (`conn`) that knows the other one
//! only by the packets that reach it, so that resets, partitions, crashes and gateways that forget have
//! the effects that they have in life: simultaneous open, half-open connections, a reset from a restarted
//! host, a connection that times out.
//!
//! What is modelled of RFC 9293: the handshake with its retransmissions, simultaneous open, refusal, data
//! in order under a receive window, half-close, reset, TIME-WAIT, retransmission and window probes, and a
//! plain congestion window (RFC 5681), so that a sender does not flood a slow link.
//!
//! What is not: a segment here is up to `SEGMENT` (14,480) bytes, which stands for the burst of packets that
//! segmentation offload makes of it, and a link draws loss once for it. Loss therefore delays bytes and
//! slows a connection down, but throughput under loss is not that of any real TCP. Sequence numbers count
//! from zero; in place of random initial ones each end has a tag, so that what belongs to an earlier
//! connection between the same addresses is told apart exactly. No urgent data, no delayed
//! acknowledgements, no SACK option (though out-of-order data is kept).

pub(crate) mod conn;
pub(crate) mod recv;
pub(crate) mod segment;
pub(crate) mod send;
mod socket;
mod stack;

pub use socket::{SimListener, SimStream};
pub(crate) use socket::{host_gone, pending};
pub(crate) use stack::Listener;
