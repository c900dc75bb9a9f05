//! Stub.
use crate::clock::Time;
use crate::link::DropCause;
use crate::packet::Packet;
use crate::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Inside,
    Outside,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Forward(Packet),
    Hairpin(Packet),
    Drop(Packet, DropCause),
    Answer { packet: Packet, cause: DropCause, answer: Packet },
}

#[derive(Debug)]
pub(crate) struct Nat;

/// Stub.
#[derive(Debug, Clone)]
pub struct NatConfig;

impl Nat {
    pub(crate) fn new(_config: NatConfig, _outside: Vec<std::net::IpAddr>) -> Self {
        Self
    }
    pub(crate) fn reboot(&mut self) {}

    pub(crate) fn pass(&mut self, _now: Time, _side: Side, packet: Packet, _rng: &mut Rng) -> Verdict {
        Verdict::Forward(packet)
    }
}
