//! What an agent of the world is given, in a few words.

use super::token;
use crate::agent::{AgentConfig, PushPolicy};
use crate::auth::Identity;
use crate::ids::PublicKey;
use crate::path::RungSet;
use crate::stun::proof::ProofKey;
use crate::wire::message::RelayReport;

/// An agent's configuration, in a few words.
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) key: u8,
    pub(crate) token: &'static str,
    pub(crate) user: &'static str,
    pub(crate) forwards: Vec<&'static str>,
    pub(crate) push: PushPolicy,
    pub(crate) server_pin: Option<PublicKey>,
    pub(crate) peer_pins: Vec<(&'static str, PublicKey)>,
    pub(crate) pins: Option<Vec<u8>>,
    pub(crate) address: &'static str,
    pub(crate) rungs: RungSet,
    pub(crate) relay: Option<RelayReport>,
}

impl Setup {
    pub(crate) fn new(name: &'static str, key: u8) -> Self {
        Self {
            name,
            key,
            token: "12345678",
            user: "default",
            forwards: Vec::new(),
            push: PushPolicy::default(),
            server_pin: None,
            peer_pins: Vec::new(),
            pins: None,
            address: "198.51.100.7",
            rungs: RungSet::ALL,
            relay: None,
        }
    }

    pub(crate) fn forward(mut self, rule: &'static str) -> Self {
        self.forwards.push(rule);
        self
    }

    pub(crate) fn config(&self) -> AgentConfig {
        AgentConfig {
            node: self.name.parse().unwrap(),
            user: self.user.parse().unwrap(),
            token: token(self.token),
            identity: identity(self.key),
            server_pin: self.server_pin,
            peer_pins: self.peer_pins.iter().map(|(peer, key)| (peer.parse().unwrap(), *key)).collect(),
            forwards: self.forwards.iter().map(|rule| rule.parse().unwrap()).collect(),
            push: self.push,
            rungs: self.rungs,
            software: "0.1.0".to_owned(),
            platform: "linux x86_64".to_owned(),
            runtime: "test".to_owned(),
            server_address: "server:27183".to_owned(),
            tls: true,
            stun_udp: [None; 2],
            stun_tcp: [None; 2],
            relay: crate::status::RelayStatus {
                enabled: self.relay.is_some(),
                super_relay: self.relay.is_some_and(|relay| relay.super_relay),
                port: self.relay.map_or(0, |relay| relay.port),
                ..Default::default()
            },
        }
    }
}

pub(crate) fn identity(key: u8) -> Identity {
    Identity::from_seed([key; 32])
}

/// Under which the STUN ports prove what they see.
pub(crate) fn proofs() -> ProofKey {
    ProofKey::new([77; 32])
}

pub(crate) fn key(of: u8) -> PublicKey {
    identity(of).public()
}
