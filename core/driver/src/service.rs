//! A node's service as a relay (`-relay`, `-super`): its port, its keys, and how busy it is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use futures_channel::oneshot;
use inp2p_core::auth::{Identity, Token};
use inp2p_core::relay::TotpKey;
use inp2p_core::relay::pairing::Limits;
use inp2p_core::time::WallClock;
use inp2p_core::wire::message::{RelayLoad, RelaySecrets};
use tracing::info;

use crate::net::{ListenIo as _, Net, TcpConfig};
use crate::relay::{self, Relay};
use crate::setup::{RelaySetup, StartError};
use crate::words;

/// The service.
pub(crate) struct Service<N: Net> {
    relay: Relay<N>,
    /// The user's token, which the user's codes are made from.
    token: Token,
    /// Dropped to stop listening.
    _guard: oneshot::Sender<()>,
}

impl<N: Net> Service<N> {
    /// Opens the relay's port, if the node is to relay; it lets nobody in before it has keys. Gives the port.
    pub(crate) fn start(
        net: &N,
        identity: &Identity,
        token: &Token,
        setup: RelaySetup,
    ) -> Result<Option<(Self, u16)>, StartError> {
        if !setup.enabled {
            return Ok(None);
        }
        let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), setup.port);
        let listener = net
            .listen(&TcpConfig { local: Some(any), ..TcpConfig::default() })
            .and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
        let (port, listener) =
            listener.map_err(|error| words::unavailable("TCP", setup.port, "-relay-port", None, &error))?;
        let limits = if setup.super_relay { Limits::NODE } else { Limits::PRIVATE };
        let relay = Relay::new(net.clone(), identity.clone(), limits, setup.bandwidth_mbps.into());
        let (guard, stop) = oneshot::channel();
        net.spawn("relay", relay::listen(net.clone(), listener, relay.clone(), stop));
        info!(port, super_relay = setup.super_relay, mbps = setup.bandwidth_mbps, "relaying");
        Ok(Some((Self { relay, token: token.clone(), _guard: guard }, port)))
    }

    /// From now on these secrets hold. Without signalling it goes on with those that it has.
    pub(crate) fn secrets(&self, now: Instant, clock: WallClock, secrets: &RelaySecrets) {
        self.relay.gate(|gate| {
            gate.set_clock(clock);
            gate.set_codes(secrets.user.iter().map(|secret| TotpKey::derive(secret, &self.token)));
            if let Some(tickets) = &secrets.tickets {
                gate.set_ticket_key(now, tickets.clone());
            }
        });
    }

    /// The server's time, as it is known now.
    pub(crate) fn clock(&self, clock: WallClock) {
        self.relay.gate(|gate| gate.set_clock(clock));
    }

    /// How much it has to do.
    pub(crate) fn load(&self) -> RelayLoad {
        self.relay.load()
    }
}
