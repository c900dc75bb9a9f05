//! What `status` shows of the agent.

use super::Agent;
use super::io::Via;
use super::peer::Peer;
use crate::ids::PeerName;
use crate::status::{PeerStatus, PortStatus, ServerStatus, Status};

impl Agent {
    /// What `status` shows. What only the driver knows (round-trip times, counters of bytes, streams and
    /// connections) is zero or none.
    pub fn status(&self) -> Status {
        let peers = self.peers.iter().filter(|(_, peer)| peer.is_worth_showing());
        Status {
            version: self.config.software.clone(),
            node: self.config.node.to_string(),
            key: self.config.identity.public().to_string(),
            runtime: self.config.runtime.clone(),
            server: ServerStatus {
                address: self.config.server_address.clone(),
                connected: self.signal.online().is_some(),
                tls: self.signal.tls(),
                relogins: self.signal.relogins(),
                error: self.signal.error().map(str::to_owned),
            },
            nat: self.nat.report.status(),
            peers: peers.map(|(name, peer)| self.peer(name, peer)).collect(),
            forwards: self.forwards.status(),
            relay: self.relaying.status(),
            port: PortStatus::default(),
        }
    }

    fn peer(&self, name: &PeerName, peer: &Peer) -> PeerStatus {
        let key = self.config.peer_pins.get(name).copied();
        let key = key.or_else(|| self.pins.peer(name)).or_else(|| peer.key());
        PeerStatus {
            node: name.to_string(),
            key: key.map(|key| key.to_string()),
            state: peer.state(),
            rung: peer.link().map(|link| link.rung),
            via: peer.link().and_then(|link| link.via.as_ref()).map(Via::shown),
            remote: peer.link().map(|link| link.remote),
            rtt_ms: None,
            bytes_sent: 0,
            bytes_received: 0,
            streams: 0,
            switches: peer.switches(),
            error: peer.error().map(str::to_owned),
            attempts: peer.outcomes().to_vec(),
        }
    }
}
