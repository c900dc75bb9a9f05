//! The proof of an observed address: stateless, like a SYN cookie.
//!
//! A node reports its server-reflexive addresses by itself, and other nodes send probes there. Without proof
//! it could name anybody's address and have them bombarded. So the STUN server hands out, on request, 16
//! bytes of HMAC-SHA256 over the transport, the address that it saw and the minute, under a secret of its
//! own. Whoever shows them later did receive a packet there, at that time.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::path::Transport;

/// What proves that the server saw an address.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteArray<16>", into = "serde_bytes::ByteArray<16>")]
pub struct Proof(pub [u8; Self::LENGTH]);

impl Proof {
    /// Its length in bytes: long enough that nobody guesses one within its minutes.
    pub const LENGTH: usize = 16;
}

/// The server's secret. Proofs do not outlive it, so a fresh one at each start is right.
#[derive(Clone)]
pub struct ProofKey(Hmac<Sha256>);

impl ProofKey {
    /// A key of 32 secret bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        // HMAC itself pads shorter keys with zeros to the hash's block.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&secret);
        Self(Hmac::new(&block.into()))
    }

    /// The proof that `address` was seen at `unix`, the wall clock since 1970.
    pub fn prove(&self, transport: Transport, address: SocketAddr, unix: Duration) -> Proof {
        self.at(transport, address, minute(unix))
    }

    /// Whether `proof` shows that `address` was seen within the last [`VALID_MINUTES`].
    pub fn verify(&self, transport: Transport, address: SocketAddr, proof: &Proof, unix: Duration) -> bool {
        self.verify_within(transport, address, proof, unix, VALID_MINUTES)
    }

    /// The same for another time than [`VALID_MINUTES`]. It costs one HMAC a minute, about half a
    /// microsecond each.
    pub fn verify_within(
        &self,
        transport: Transport,
        address: SocketAddr,
        proof: &Proof,
        unix: Duration,
        minutes: u64,
    ) -> bool {
        let now = minute(unix);
        (now.saturating_sub(minutes)..=now)
            .rev()
            .any(|minute| bool::from(self.at(transport, address, minute).0.ct_eq(&proof.0)))
    }

    fn at(&self, transport: Transport, address: SocketAddr, minute: u64) -> Proof {
        let transport = match transport {
            Transport::Udp => 17_u8,
            Transport::Tcp => 6,
        };
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut mac = self.0.clone();
        mac.update(LABEL);
        mac.update(&[transport]);
        mac.update(&ip.octets());
        mac.update(&address.port().to_be_bytes());
        mac.update(&minute.to_be_bytes());
        let mut proof = [0; Proof::LENGTH];
        for (byte, drawn) in proof.iter_mut().zip(mac.finalize().into_bytes()) {
            *byte = drawn;
        }
        Proof(proof)
    }
}

fn minute(unix: Duration) -> u64 {
    unix.as_secs() / 60
}

impl From<serde_bytes::ByteArray<16>> for Proof {
    fn from(bytes: serde_bytes::ByteArray<16>) -> Self {
        Self(bytes.into_array())
    }
}

impl From<Proof> for serde_bytes::ByteArray<16> {
    fn from(proof: Proof) -> Self {
        Self::new(proof.0)
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has it may use it.
        f.write_str("Proof(***)")
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(***)")
    }
}

/// For how many whole minutes a proof is good: a report follows its measurement within seconds, or after
/// the next login, which an outage of the server may delay by a minute or two.
pub const VALID_MINUTES: u64 = 3;
/// Keeps this use of the key apart from any other.
const LABEL: &[u8] = b"inp2p-stun-proof-v1";

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1_780_000_000);

    #[test]
    fn a_proof_holds_for_what_it_was_given_for_and_for_some_minutes() {
        let key = ProofKey::new([7; 32]);
        let address: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let proof = key.prove(Transport::Udp, address, AT);
        assert!(key.verify(Transport::Udp, address, &proof, AT));
        assert!(key.verify(Transport::Udp, address, &proof, AT + Duration::from_secs(60 * VALID_MINUTES)));
        assert!(!key.verify(
            Transport::Udp,
            address,
            &proof,
            AT + Duration::from_secs(60 * (VALID_MINUTES + 1))
        ));
        assert!(!key.verify(Transport::Tcp, address, &proof, AT));
        assert!(!key.verify(Transport::Udp, "192.0.2.1:4001".parse().unwrap(), &proof, AT));
        assert!(!key.verify(Transport::Udp, "192.0.2.2:4000".parse().unwrap(), &proof, AT));
        assert!(!ProofKey::new([8; 32]).verify(Transport::Udp, address, &proof, AT));
        assert!(!key.verify(Transport::Udp, address, &Proof([0; 16]), AT));
        // A clock that went back.
        assert!(!key.verify(Transport::Udp, address, &proof, AT - Duration::from_secs(60)));
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_both_forms() {
        let key = ProofKey::new([7; 32]);
        let proof = key.prove(Transport::Tcp, "192.0.2.1:4000".parse().unwrap(), AT);
        assert!(key.verify(Transport::Tcp, "[::ffff:192.0.2.1]:4000".parse().unwrap(), &proof, AT));
    }

    #[test]
    fn nothing_of_it_shows_in_logs() {
        let key = ProofKey::new([7; 32]);
        let proof = key.prove(Transport::Udp, "192.0.2.1:1".parse().unwrap(), AT);
        assert_eq!(format!("{key:?} {proof:?}"), "ProofKey(***) Proof(***)");
    }
}
