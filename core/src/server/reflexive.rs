//! Server-reflexive addresses (RFC 8445 section 5.1.1.2): those that this server's own STUN ports saw.
//!
//! A node reports them by itself, and its peers will send there: so each has to come with the proof that the
//! STUN port gave for it. What comes without one is left out, of the candidates and of what the peer is told of
//! the node's NATs.

use std::net::SocketAddr;
use std::time::Duration;

use crate::nat::NatReport;
use crate::path::{Candidate, CandidateKind};
use crate::stun::proof::ProofKey;

/// The report with what is proven in it, and without proofs; and the candidates that follow. What the same
/// connection has proven before, `known`, needs no new proof: a node reports again whenever anything else is
/// new, and old proofs are with it then.
pub(super) fn proven(
    report: &NatReport,
    known: &[Candidate],
    proofs: Option<&ProofKey>,
    unix: Duration,
) -> (NatReport, Vec<Candidate>) {
    let mut proven = *report;
    let mut candidates = Vec::new();
    for (transport, behaviour) in proven.parts_mut() {
        let proof = behaviour.proof.take();
        let candidate = |address| Candidate { kind: CandidateKind::ServerReflexive, transport, address };
        let verifies = |address| {
            proofs.zip(proof).is_some_and(|(key, proof)| key.verify(transport, address, &proof, unix))
        };
        let is_seen = |address: &SocketAddr| known.contains(&candidate(*address)) || verifies(*address);
        behaviour.public = behaviour.public.filter(is_seen);
        // Without a NAT it is the host candidate's address, and only the server's word for it is new.
        candidates.extend(behaviour.public.map(candidate));
    }
    (proven, candidates)
}

/// What a node may claim by itself: addresses of its interfaces.
pub(super) fn claimed(candidates: &[Candidate]) -> impl Iterator<Item = Candidate> {
    candidates.iter().copied().filter(|candidate| candidate.kind == CandidateKind::Host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Behaviour;
    use crate::path::Transport;

    const AT: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn only_what_the_stun_ports_have_seen_is_passed_on() {
        let key = ProofKey::new([7; 32]);
        let address = "203.0.113.7:4000".parse().unwrap();
        let seen = |transport, unix| Behaviour {
            public: Some(address),
            proof: Some(key.prove(transport, address, unix)),
            ..Behaviour::default()
        };
        let udp4 = Some(seen(Transport::Udp, AT));
        let (told, candidates) = proven(&NatReport { udp4, ..NatReport::default() }, &[], Some(&key), AT);
        assert_eq!(candidates.iter().map(|one| one.address).collect::<Vec<_>>(), [address]);
        assert_eq!(told.udp4.and_then(|udp| udp.public), Some(address));
        assert!(told.udp4.is_some_and(|udp| udp.proof.is_none()), "a proof is the node's own");

        let other = "203.0.113.8:4000".parse().unwrap();
        let lies = [
            // Another address, another transport, an old one, none at all.
            Behaviour { public: Some(other), ..seen(Transport::Udp, AT) },
            seen(Transport::Tcp, AT),
            seen(Transport::Udp, AT - Duration::from_secs(3600)),
            Behaviour { proof: None, ..seen(Transport::Udp, AT) },
        ];
        for lie in lies {
            let report = NatReport { udp4: Some(lie), ..NatReport::default() };
            let (told, candidates) = proven(&report, &[], Some(&key), AT);
            assert!(candidates.is_empty() && told.udp4.is_some_and(|udp| udp.public.is_none()));
        }
        let (_, candidates) = proven(&NatReport { udp4, ..NatReport::default() }, &[], None, AT);
        assert!(candidates.is_empty());
    }

    #[test]
    fn what_a_connection_has_proven_stays_proven_when_the_proof_is_old() {
        let key = ProofKey::new([7; 32]);
        let address = "203.0.113.7:4000".parse().unwrap();
        let proof = Some(key.prove(Transport::Udp, address, AT));
        let udp4 = Some(Behaviour { public: Some(address), proof, ..Behaviour::default() });
        let report = NatReport { udp4, ..NatReport::default() };
        let (_, known) = proven(&report, &[], Some(&key), AT);
        let later = AT + Duration::from_secs(3600);
        let (told, again) = proven(&report, &known, Some(&key), later);
        assert_eq!((&again, told.udp4.and_then(|udp| udp.public)), (&known, Some(address)));
        assert!(proven(&report, &[], Some(&key), later).1.is_empty(), "another connection's");

        let other = Behaviour { public: "203.0.113.8:4000".parse().ok(), proof, ..Behaviour::default() };
        let report = NatReport { udp4: Some(other), tcp4: udp4, ..NatReport::default() };
        assert!(
            proven(&report, &known, Some(&key), later).1.is_empty(),
            "another address, another transport"
        );
    }

    #[test]
    fn a_node_claims_addresses_of_its_interfaces_alone() {
        let address = "203.0.113.7:4000".parse().unwrap();
        let of = |kind| Candidate { kind, transport: Transport::Udp, address };
        let all = [CandidateKind::ServerReflexive, CandidateKind::Host, CandidateKind::PeerReflexive].map(of);
        assert_eq!(claimed(&all).collect::<Vec<_>>(), [of(CandidateKind::Host)]);
    }
}
