//! What a peer can get wrong on a link, so that the link has to end. Streams survive that end: a new link
//! resumes them.

/// A broken rule of the multiplexer. The link that it came on ends, with this as the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The flags are not those of a frame kind, nor FIN alone or with DATA.
    #[error("flags {0:#04x} make no frame")]
    Flags(u8),
    /// The length does not fit the frame's kind.
    #[error("a frame with flags {flags:#04x} cannot be {length} bytes long")]
    Length {
        /// The frame's flags.
        flags: u8,
        /// The length that its header gives.
        length: u16,
    },
    /// Stream 0 has a frame that it cannot have, or another stream one that only stream 0 can have.
    #[error("a frame with flags {flags:#04x} cannot be on stream {stream}")]
    Stream {
        /// The stream.
        stream: u32,
        /// The frame's flags.
        flags: u8,
    },
    /// The content of a SYN could not be read.
    #[error("a SYN could not be read")]
    Syn,
    /// A SYN has an id of the other side's parity, or above [`super::MAX_ID`].
    #[error("stream {0} cannot be opened by this peer")]
    Parity(u32),
    /// The stream of the frame was never opened.
    #[error("stream {0} was never opened")]
    UnknownStream(u32),
    /// A second SYN for the same stream.
    #[error("stream {0} was opened twice")]
    DuplicateSyn(u32),
    /// DATA or WINDOW on a stream that the opener has not opened yet.
    #[error("stream {0} has a frame before its SYN")]
    BeforeSyn(u32),
    /// DATA from the acceptor before its answer to the SYN.
    #[error("stream {0} has data before its SYN was answered")]
    BeforeAnswer(u32),
    /// More bytes than the limit allows.
    #[error("stream {0} exceeds its credit")]
    Credit(u32),
    /// DATA or a second FIN behind a FIN.
    #[error("stream {0} has data behind its end")]
    AfterFin(u32),
    /// A WINDOW takes back what an earlier one gave.
    #[error("stream {0} has a window that goes backwards")]
    WindowBackwards(u32),
    /// A WINDOW acknowledges what was never sent.
    #[error("stream {0} has bytes acknowledged that were never sent")]
    ConsumedUnsent(u32),
    /// Streams were opened far beyond the caps, without waiting for the refusals.
    #[error("too many streams opened at once")]
    SynFlood,
    /// Streams were opened and reset unanswered, over and over (the pattern of CVE-2023-44487).
    #[error("too many streams reset before they were answered")]
    RapidReset,
    /// A RESUME does not fit what this side has.
    #[error("the peer's RESUME contradicts this side at stream {0}")]
    Resume(u32),
}
