//! A TCP segment.

use bytes::Bytes;

use crate::packet::Kind;

/// Names one end of one connection; stands in for the initial sequence number.
pub(crate) type Tag = u32;

#[derive(Debug, Clone)]
pub(crate) enum Segment {
    Syn {
        tag: Tag,
        mss: u16,
    },
    SynAck {
        tag: Tag,
        ack_tag: Tag,
        mss: u16,
    },
    Payload(Payload),
    /// Valid for the end whose tag is `ack_tag`, and for the one that talks to the end `tag`.
    Reset {
        tag: Option<Tag>,
        ack_tag: Option<Tag>,
    },
}

/// Data, or an acknowledgement alone.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) tag: Tag,
    pub(crate) ack_tag: Tag,
    pub(crate) seq: u64,
    pub(crate) data: Bytes,
    pub(crate) fin: bool,
    /// Asks for an acknowledgement in any case.
    pub(crate) probe: bool,
    pub(crate) ack: u64,
    /// What the receiver will take, as a sequence number: acknowledgement plus window.
    pub(crate) limit: u64,
    /// The largest packet of the burst that this segment stands for carries so many bytes.
    pub(crate) mss: u16,
}

impl Payload {
    /// How many sequence numbers it takes.
    pub(crate) fn length(&self) -> u64 {
        self.data.len() as u64 + u64::from(self.fin)
    }
}

impl Segment {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Syn { .. } => Kind::Syn,
            Self::SynAck { .. } => Kind::SynAck,
            Self::Reset { .. } => Kind::Reset,
            Self::Payload(payload) if payload.fin => Kind::Fin,
            Self::Payload(payload) if payload.probe => Kind::Probe,
            Self::Payload(payload) if payload.data.is_empty() => Kind::Ack,
            Self::Payload(_) => Kind::Data,
        }
    }

    pub(crate) fn size(&self, ip_header: usize) -> usize {
        let header = ip_header + TCP_HEADER;
        match self {
            Self::Payload(payload) => {
                let packets = payload.data.len().div_ceil(usize::from(payload.mss.max(1))).max(1);
                payload.data.len() + packets * header
            }
            Self::Syn { .. } | Self::SynAck { .. } | Self::Reset { .. } => header,
        }
    }

    pub(crate) fn largest(&self, ip_header: usize) -> usize {
        let header = ip_header + TCP_HEADER;
        match self {
            Self::Payload(payload) => payload.data.len().min(usize::from(payload.mss)) + header,
            Self::Syn { .. } | Self::SynAck { .. } | Self::Reset { .. } => header,
        }
    }

    /// The reset with which a host or gateway that knows no such connection answers; none answers a reset.
    pub(crate) fn reset(&self) -> Option<Self> {
        let (tag, ack_tag) = match self {
            Self::Syn { tag, .. } => (None, Some(*tag)),
            Self::SynAck { tag, ack_tag, .. } => (Some(*ack_tag), Some(*tag)),
            Self::Payload(payload) => (Some(payload.ack_tag), Some(payload.tag)),
            Self::Reset { .. } => return None,
        };
        Some(Self::Reset { tag, ack_tag })
    }
}

/// Without options.
pub(crate) const TCP_HEADER: usize = 20;
