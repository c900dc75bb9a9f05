//! Why a stream was reset: the codes of RST. A code that is not known is shown as its number, with the text
//! that came with it.

/// No particular reason.
pub const NONE: u16 = 0;
/// The connection at that end broke, or its program gave it up.
pub const ABORTED: u16 = 1;
/// The target refused the connection.
pub const REFUSED: u16 = 2;
/// There is no way to the target.
pub const UNREACHABLE: u16 = 3;
/// The target did not answer in time.
pub const TIMEOUT: u16 = 4;
/// The node's policy does not allow the target.
pub const NOT_ALLOWED: u16 = 5;
/// The target's name could not be resolved.
pub const NO_SUCH_HOST: u16 = 6;
/// A cap on streams was reached; try later.
pub const TOO_MANY: u16 = 7;
/// The protocol of the stream is not known there.
pub const UNSUPPORTED: u16 = 8;
/// The peer no longer had the stream when the link was resumed: its RST was lost with the old link.
pub const GONE: u16 = 9;
/// There was no link for too long.
pub const NO_LINK: u16 = 10;
/// The peer's process was started anew.
pub const RESTARTED: u16 = 11;
/// The node is stopping.
pub const STOPPING: u16 = 12;
