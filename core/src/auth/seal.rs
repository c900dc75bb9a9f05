//! The seal on every message after login: ChaCha20-Poly1305 (RFC 8439), one key a direction.
//!
//! The nonce is four zero bytes and a big-endian count of the messages so far in that direction; it is not
//! sent. So a message that is lost, repeated, reordered, cut or changed does not open, and the first one
//! that does not ends the channel: a WebSocket loses nothing, so something is wrong.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use zeroize::Zeroizing;

use crate::auth::key::Key;
use crate::wire::MAX_SEALED;

/// Both directions of one side, and what else the login agreed on.
#[derive(Debug)]
pub struct SecureChannel {
    /// For what goes out.
    pub sealer: Sealer,
    /// For what comes in.
    pub opener: Opener,
    /// For further keys that both sides shall have.
    pub exporter: Exporter,
}

/// Seals what goes out in one direction.
pub struct Sealer {
    cipher: ChaCha20Poly1305,
    count: u64,
}

/// Opens what comes in from one direction.
pub struct Opener {
    cipher: ChaCha20Poly1305,
    count: u64,
    /// The first failure: every later call repeats it.
    failed: Option<SealError>,
}

/// Why a message did not open. The channel is of no use from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not the next message of the one who holds the other key.
    #[error("a sealed message was changed on the way, or is out of order")]
    Broken,
    /// It is longer than [`MAX_SEALED`].
    #[error("a sealed message is too long")]
    TooLong,
    /// The channel has been used for as many messages as are safe.
    #[error("the sealed channel is used up")]
    UsedUp,
}

impl Sealer {
    /// A sealer for the first message of a direction.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(key.into()), count: 0 }
    }

    /// `plain` sealed: [`OVERHEAD`] bytes longer. Once the channel is used up the result is empty, which no
    /// opener takes: a nonce is never used twice.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let Some(nonce) = nonce(self.count) else { return Vec::new() };
        self.count += 1;
        // Only a plain text of 256 GiB makes the cipher fail.
        self.cipher.encrypt(&nonce, plain).unwrap_or_default()
    }
}

impl Opener {
    /// An opener for the first message of a direction.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(key.into()), count: 0, failed: None }
    }

    /// The plain text of the next message.
    ///
    /// # Errors
    /// If it is not the next message of its sender, is longer than [`MAX_SEALED`], or the channel is used up; the same
    /// error at every later call.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let opened = self.try_open(sealed);
        match &opened {
            Ok(_) => self.count += 1,
            Err(error) => self.failed = Some(*error),
        }
        opened
    }

    fn try_open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        if sealed.len() > MAX_SEALED {
            return Err(SealError::TooLong);
        }
        let nonce = nonce(self.count).ok_or(SealError::UsedUp)?;
        self.cipher.decrypt(&nonce, sealed).map_err(|_| SealError::Broken)
    }
}

fn nonce(count: u64) -> Option<Nonce> {
    if count >= MAX_MESSAGES {
        return None;
    }
    let mut nonce = Nonce::default();
    nonce.iter_mut().skip(4).zip(count.to_be_bytes()).for_each(|(to, from)| *to = from);
    Some(nonce)
}

/// Gives both sides of a login further keys that nobody else can compute.
#[derive(Debug)]
pub struct Exporter(pub(super) Key);

impl Exporter {
    /// The key for `label`: the same on both sides, another one for every label and every login.
    pub fn export(&self, label: &str) -> Zeroizing<[u8; 32]> {
        self.0.derive(label)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("count", &self.count).finish_non_exhaustive()
    }
}
impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("count", &self.count)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// How much longer a sealed message is: the Poly1305 tag.
pub const OVERHEAD: usize = 16;
/// The most messages in one direction: far below the wrap of the count, and far above what a connection can
/// carry in a lifetime.
const MAX_MESSAGES: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener) {
        (Sealer::new(&[7; 32]), Opener::new(&[7; 32]))
    }

    #[test]
    fn the_cipher_is_that_of_rfc_8439() {
        // Appendix A.5: key, text and tag; its nonce is not one that a count gives, its key is.
        let key: [u8; 32] = core::array::from_fn(|i| 0x80 + u8::try_from(i).unwrap());
        let cipher = ChaCha20Poly1305::new(&key.into());
        let nonce = Nonce::from([7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47]);
        let text = b"Ladies and Gentlemen of the class of '99: \
                     If I could offer you only one tip for the future, sunscreen would be it.";
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let payload = chacha20poly1305::aead::Payload { msg: text, aad: &aad };
        let sealed = cipher.encrypt(&nonce, payload).unwrap();
        let tag =
            [0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06, 0x91];
        assert_eq!(sealed[..4], [0xd3, 0x1a, 0x8d, 0x34]);
        assert_eq!(sealed[text.len()..], tag);
    }

    #[test]
    fn the_nonce_is_the_count() {
        assert_eq!(nonce(0x0102).unwrap().as_slice(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn what_was_sealed_opens_in_order() {
        let (mut sealer, mut opener) = pair();
        for plain in [b"one".as_slice(), b"", b"three"] {
            let sealed = sealer.seal(plain);
            assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            assert_eq!(opener.open(&sealed).unwrap(), plain);
        }
    }

    #[test]
    fn equal_messages_look_different() {
        let (mut sealer, _) = pair();
        assert_ne!(sealer.seal(b"same"), sealer.seal(b"same"));
    }

    #[test]
    fn any_change_breaks_the_seal() {
        let sealed = pair().0.seal(b"message");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(pair().1.open(&damaged), Err(SealError::Broken), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(pair().1.open(&sealed[..length]), Err(SealError::Broken), "cut to {length}");
        }
    }

    #[test]
    fn repeated_and_reordered_messages_do_not_open() {
        let (mut sealer, mut opener) = pair();
        let (one, two) = (sealer.seal(b"one"), sealer.seal(b"two"));
        assert_eq!(opener.open(&two), Err(SealError::Broken));
        let (_, mut opener) = pair();
        opener.open(&one).unwrap();
        assert_eq!(opener.open(&one), Err(SealError::Broken));
    }

    #[test]
    fn a_failure_is_final() {
        let (mut sealer, mut opener) = pair();
        let good = sealer.seal(b"one");
        assert!(opener.open(b"nonsense").is_err());
        assert_eq!(opener.open(&good), Err(SealError::Broken));
    }

    #[test]
    fn a_used_up_channel_seals_nothing_and_opens_nothing() {
        let (mut sealer, mut opener) = pair();
        (sealer.count, opener.count) = (MAX_MESSAGES - 1, MAX_MESSAGES - 1);
        let last = sealer.seal(b"last");
        assert_eq!(opener.open(&last).unwrap(), b"last");
        assert_eq!(sealer.seal(b"more"), b"");
        assert_eq!(opener.open(&last), Err(SealError::UsedUp));
    }

    #[test]
    fn a_message_over_the_cap_is_refused() {
        let (mut sealer, mut opener) = pair();
        let longest = sealer.seal(&vec![0; MAX_SEALED - OVERHEAD]);
        assert!(opener.open(&longest).is_ok());
        let longer = sealer.seal(&vec![0; MAX_SEALED - OVERHEAD + 1]);
        assert_eq!(opener.open(&longer), Err(SealError::TooLong));
    }
}
