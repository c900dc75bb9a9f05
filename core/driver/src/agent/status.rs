//! What `status` shows: the agent's view, with what the tasks have counted.

use inp2p_core::ids::PeerName;
use inp2p_core::status::{PortStatus, Status};

use super::Control;
use crate::net::Net;

impl<N: Net> Control<N> {
    pub(super) fn status(&self) -> Status {
        let mut status = self.agent.status();
        for peer in &mut status.peers {
            let entry = peer.node.parse().ok().and_then(|name: PeerName| self.sessions.get(&name));
            if let Some(entry) = entry {
                (peer.bytes_sent, peer.bytes_received, peer.streams, peer.switches) = entry.meter.read();
                if peer.rung.is_some() {
                    peer.rtt_ms = entry.meter.rtt_ms();
                }
            }
        }
        let udp = self.port.main().local_addr().map_or(0, |address| address.port());
        status.port = PortStatus { tcp: self.common.listening, udp, dropped: self.port.dropped() };
        if let Some(service) = &self.service {
            let load = service.load();
            (status.relay.sessions, status.relay.bytes) = (load.sessions.into(), load.bytes);
        }
        for forward in &mut status.forwards {
            if let Some(running) = self.forwards.get(&forward.name) {
                let error;
                (forward.active, forward.total, forward.bytes_sent, forward.bytes_received, error) =
                    running.meter.read();
                forward.error = forward.error.take().or(error);
            }
        }
        status
    }
}
