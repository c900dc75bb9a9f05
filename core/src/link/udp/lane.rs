//! One lane: a QUIC stream that carries the frames of one multiplexed stream, or of stream 0.

use crate::mux::Decoder;

/// A lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) stage: Stage,
    /// The parser, while it is in the middle of a frame.
    pub(super) decoder: Option<Box<Decoder>>,
    /// Bytes that QUIC has not taken yet: less than a turn's.
    pub(super) unwritten: Vec<u8>,
    pub(super) sending: Sending,
    /// Whether the peer may still send.
    pub(super) receiving: bool,
    /// Whether it stands in line to be read.
    pub(super) queued: bool,
}

/// What a lane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Stream 0.
    Control,
    /// The peer's; so much of its epoch has come.
    Opening { head: [u8; EPOCH], have: usize },
    /// The peer's, of an epoch that does not carry the session yet. It is not read.
    Held(u32),
    /// The peer's; its first frame will say for which stream it is.
    Unnamed(u32),
    /// The stream's.
    Named { epoch: u32, id: u32 },
    /// Of an epoch that is over.
    Void,
}

/// This side's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// Frames may come.
    Open,
    /// It ends behind what is unwritten.
    Finishing,
    /// It has ended.
    Done,
}

impl Lane {
    pub(super) fn new(stage: Stage) -> Self {
        Self {
            stage,
            decoder: None,
            unwritten: Vec::new(),
            sending: Sending::Open,
            receiving: true,
            queued: false,
        }
    }

    /// Whether frames can be put in now.
    pub(super) fn takes(&self) -> bool {
        self.sending == Sending::Open && self.unwritten.is_empty()
    }

    /// How many bytes it may be read by: not beyond its epoch before that is judged.
    pub(super) fn wants(&self) -> usize {
        match self.stage {
            Stage::Opening { have, .. } => EPOCH - have,
            Stage::Held(_) | Stage::Void => 0,
            Stage::Control | Stage::Unnamed(_) | Stage::Named { .. } => usize::MAX,
        }
    }

    /// The epoch, where it is known.
    pub(super) fn epoch(&self) -> Option<u32> {
        match self.stage {
            Stage::Held(epoch) | Stage::Unnamed(epoch) | Stage::Named { epoch, .. } => Some(epoch),
            Stage::Control | Stage::Opening { .. } | Stage::Void => None,
        }
    }

    /// The stream, where it is known.
    pub(super) fn id(&self) -> Option<u32> {
        match self.stage {
            Stage::Named { id, .. } => Some(id),
            Stage::Control | Stage::Opening { .. } | Stage::Held(_) | Stage::Unnamed(_) | Stage::Void => None,
        }
    }

    /// Takes bytes of the epoch that the opener's half begins with; the epoch once it is whole.
    pub(super) fn gather(&mut self, bytes: &[u8]) -> Option<u32> {
        let Stage::Opening { head, have } = &mut self.stage else { return None };
        for (to, from) in head.iter_mut().skip(*have).zip(bytes) {
            *to = *from;
            *have += 1;
        }
        (*have == EPOCH).then(|| u32::from_be_bytes(*head))
    }
}

/// The length of the epoch at the beginning of a lane.
pub(super) const EPOCH: usize = 4;
