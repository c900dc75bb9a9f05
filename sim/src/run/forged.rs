//! STUN answers whose proof has been tampered with, and whose checksum says that all is well.

/// Changes one bit of a message's proof, and mends its FINGERPRINT (RFC 8489 section 14.7); what has none, or is no
/// STUN message, stays as it is.
pub(super) fn spoil_proof(message: &mut [u8]) {
    if message.first().is_none_or(|first| *first > 3) {
        return;
    }
    let (mut at, mut spoilt) = (HEADER, false);
    while let Some([kind_high, kind_low, length_high, length_low]) =
        message.get(at..at + 4).and_then(|head| <[u8; 4]>::try_from(head).ok())
    {
        let kind = u16::from_be_bytes([kind_high, kind_low]);
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        match kind {
            PROOF => {
                if let Some(byte) = message.get_mut(at + 4) {
                    *byte ^= 1;
                    spoilt = true;
                }
            }
            FINGERPRINT if spoilt => {
                let sum = crc32(message.get(..at).unwrap_or_default()) ^ 0x5354_554e;
                if let Some(place) = message.get_mut(at + 4..at + 8) {
                    place.copy_from_slice(&sum.to_be_bytes());
                }
            }
            _ => {}
        }
        at += 4 + length.next_multiple_of(4);
    }
}

/// That of ITU V.42, which FINGERPRINT is made of.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

/// The length of a STUN message's header.
const HEADER: usize = 20;
const FINGERPRINT: u16 = 0x8028;
/// Ours, as `docs/protocol.md` has it.
const PROOF: u16 = 0xc2f0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
