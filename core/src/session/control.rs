//! The messages of stream 0: what the two ends of a link say to each other about the session.
//!
//! Stream 0 is a byte stream of its own on every link: u32 length (big-endian), then a MessagePack map
//! `{"type": ..., ...}` of at most [`MAX_MESSAGE`] bytes, spanning frames as it likes, without credit.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::mux::Resume;
use crate::path::Rung;

/// The longest message: a RESUME of 4,096 streams a side at up to 64 bytes each.
pub(crate) const MAX_MESSAGE: usize = 512 * 1024;

/// A message of stream 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Control {
    /// The first message on every link, from both ends.
    Hello(Hello),
    /// From the controlling side: this link carries the session from now on.
    Switch {
        /// Higher than every epoch before it between these two process instances.
        epoch: u64,
        /// The rung of the link.
        rung: Rung,
    },
    /// What this side has of every stream; ends the silence after a [`Self::Switch`].
    Resume {
        /// The epoch that it belongs to.
        epoch: u64,
        /// The streams.
        streams: Resume,
    },
    /// To the controlling side: the nominated link is dead here, nominate another one at once.
    SwitchReq {
        /// The epoch whose link is dead.
        epoch: u64,
        /// Why, for logs.
        reason: String,
        /// Whether it is not dead, but loses so much of what is sent by UDP that another transport is wanted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lossy: bool,
    },
    /// The sender is leaving in order: nothing new is to be opened.
    Goaway {
        /// Why, for logs.
        reason: String,
    },
}

/// Who speaks on this link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The version of the session protocol: 1.
    pub(crate) version: u8,
    /// Random, one a process: a new one means that the peer has forgotten every stream.
    pub(crate) instance: ByteArray<16>,
    /// Counts this process's sessions: a new one means the same.
    pub(crate) number: u64,
    /// How many bytes a stream's opener may send before it is answered.
    pub(crate) credit: u32,
    /// Whether the sender sees the receiver, on this link, at an address of the receiver's own interface.
    pub(crate) direct: bool,
    /// 32 random bytes of the sender's for this session: with the receiver's they make the secret by which the two
    /// find each other again without the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) share: Option<ByteArray<32>>,
}

/// Why stream 0 could not be read: the link ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadControl {
    #[error("a control message of {0} bytes")]
    TooLong(usize),
    #[error("a control message that cannot be read: {0}")]
    Malformed(String),
}

/// Appends `message` with its length to `out`.
pub(crate) fn encode(message: &Control, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut serializer = rmp_serde::Serializer::new(&mut *out).with_struct_map();
    let encoded = message.serialize(&mut serializer);
    debug_assert!(encoded.is_ok(), "our own messages serialise");
    let length = u32::try_from(out.len() - at - 4).unwrap_or(0);
    if let Some(head) = out.get_mut(at..at + 4) {
        head.copy_from_slice(&length.to_be_bytes());
    }
}

/// Gathers the bytes of stream 0 into messages.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    held: Vec<u8>,
    /// So many bytes of `held` have been read already.
    read: usize,
}

impl Reader {
    /// Takes a piece of stream 0.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole message. Call until it gives none: then at most one message's beginning is held.
    pub(crate) fn next(&mut self) -> Result<Option<Control>, BadControl> {
        let unread = self.held.get(self.read..).unwrap_or_default();
        let Some((head, rest)) = unread.split_first_chunk::<4>() else {
            self.forget();
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(BadControl::TooLong(length));
        }
        let Some(body) = rest.get(..length) else {
            self.forget();
            return Ok(None);
        };
        let message =
            rmp_serde::from_slice(body).map_err(|error| BadControl::Malformed(error.to_string()))?;
        self.read += 4 + length;
        Ok(Some(message))
    }

    /// Drops what has been read: once a batch, so that many short messages cost no more than one long one.
    fn forget(&mut self) {
        if self.read == self.held.len() {
            // A RESUME may have been long, and the next message may be hours away.
            self.held = Vec::new();
        } else {
            self.held.drain(..self.read);
        }
        self.read = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_any_split() {
        let messages = [
            Control::Hello(Hello {
                version: 1,
                instance: ByteArray::new([3; 16]),
                number: 7,
                credit: 16384,
                direct: true,
                share: Some(ByteArray::new([4; 32])),
            }),
            Control::Switch { epoch: 2, rung: Rung::UdpDirect },
            Control::Goaway { reason: "leaving".to_owned() },
        ];
        let mut wire = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut wire));
        for piece in 1..wire.len() {
            let mut reader = Reader::default();
            let mut read = Vec::new();
            for part in wire.chunks(piece) {
                reader.push(part);
                while let Some(message) = reader.next().unwrap() {
                    read.push(message);
                }
            }
            assert_eq!(read, messages);
        }
    }

    #[test]
    fn a_length_beyond_the_cap_is_refused_before_its_bytes_come() {
        let mut reader = Reader::default();
        reader.push(&u32::MAX.to_be_bytes());
        assert!(matches!(reader.next(), Err(BadControl::TooLong(_))));
    }
}
