//! Streams in a link: the frames, their parser, and (to come) the multiplexer itself.

mod decoder;
mod frame;
mod violation;

#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use frame::{Frame, HEADER, MAX_RESET_TEXT, MAX_SYN, Protocol};
pub use violation::Violation;

/// x
pub const MAX_ID: u32 = 1 << 30;
/// Codes.
pub mod code {}
