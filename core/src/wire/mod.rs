//! Signalling on the wire: one WebSocket message is one [`Envelope`].
//!
//! ```text
//! 0        1        3                 7
//! +--------+--------+-----------------+----------------------------+
//! | version|  kind  |   request id    |  body: one MessagePack map |
//! +--------+--------+-----------------+----------------------------+
//! ```
//!
//! Numbers are big-endian. [`envelope`] reads and writes the seven bytes, [`codec`] the body, [`message`]
//! says what may be in it. After login each envelope travels sealed, see [`crate::auth::seal`].

pub mod codec;
pub mod envelope;
pub mod message;

pub use codec::Malformed;
pub use envelope::{Envelope, encode};

/// Where, at debug, the log says that a request was not answered in time: what either side waits for ends
/// then, as if it had been refused.
pub const UNANSWERED: &str = "inp2p_core::unanswered";

/// The version of the protocol that this code speaks.
pub const VERSION: u8 = 1;

/// The longest message before login, in bytes: the largest of the login's four needs less than 600, and
/// whoever has proven nothing yet should not make the server hold more.
pub const MAX_CLEAR: usize = 4 * 1024;

/// The longest message after login, in bytes, its seal included: the longest lists fit
/// ([`message::MAX_PEERS`] names of 55 bytes each).
pub const MAX_SEALED: usize = 64 * 1024;
