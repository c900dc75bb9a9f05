//! QUIC as a link wants it: what of the library's defaults is kept, and what not and why.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, ConnectionId, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, NoneTokenStore,
    ServerConfig, TransportConfig, VarInt,
};

use super::id::{InitialId, Label, LinkIds};
use super::keys::{NoClock, NoTokens, ResetKey};
use super::{UdpConfig, UdpError, window};
use crate::link::Role;
use crate::rng::Rng;

/// An endpoint for one link, and what the client connects with.
pub(super) fn endpoint(
    config: &UdpConfig<'_>,
    label: Label,
    initial: InitialId,
    rng: &mut Rng,
) -> Result<(Endpoint, Option<ClientConfig>), UdpError> {
    let ids: [u8; 32] = rng.fork("connection ids").bytes();
    let mut quic = EndpointConfig::new(Arc::new(ResetKey(rng.fork("reset key").bytes())));
    quic.cid_generator(move || Box::new(LinkIds { label, rng: Rng::new(ids) }))
        .supported_versions(vec![VERSION_1])
        // A datagram whose fixed bit is not set is told from STUN and probes by nobody.
        .grease_quic_bit(false)
        .rng_seed(Some(rng.fork("quic").bytes()));
    let transport = Arc::new(transport()?);
    let (server, client) = match config.role {
        Role::Controlling => {
            let tls = config.keys.client(&config.peer).map_err(UdpError::Tls)?;
            let tls = QuicClientConfig::try_from(tls).map_err(|error| crippled(&error))?;
            let mut client = ClientConfig::new(Arc::new(tls));
            client
                .transport_config(transport)
                .token_store(Arc::new(NoneTokenStore))
                .initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&initial.0)));
            (None, Some(client))
        }
        Role::Controlled => {
            let tls = config.keys.server(&config.peer).map_err(UdpError::Tls)?;
            let tls = QuicServerConfig::try_from(tls).map_err(|error| crippled(&error))?;
            let mut server = ServerConfig::new(Arc::new(tls), Arc::new(NoTokens));
            server
                .transport_config(transport)
                .time_source(Arc::new(NoClock))
                // Its peer's address never changes: the path layer sees to that.
                .migration(false)
                .max_incoming(1)
                .incoming_buffer_size(INCOMING)
                .incoming_buffer_size_total(INCOMING);
            (Some(Arc::new(server)), None)
        }
    };
    // The driver's sockets never fragment, so path MTU discovery is allowed.
    Ok((Endpoint::new(Arc::new(quic), server, true, None), client))
}

fn transport() -> Result<TransportConfig, UdpError> {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).map_err(|error| crippled(&error))?;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(FIRST_LANES))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(size(window::STREAM))
        .receive_window(size(window::IDLE))
        .send_window(window::IDLE)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .max_idle_timeout(Some(idle))
        // The session pings: it must know the answer, and QUIC's would only say that QUIC lives.
        .keep_alive_interval(None)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(INITIAL_MTU)
        .min_mtu(INITIAL_MTU)
        // Its defaults: up to an Ethernet's frame with IPv6, again every ten minutes, and back to the least
        // where full packets are lost in a row (RFC 8899 section 4.3).
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        // Who watches need not learn the round trip.
        .allow_spin(false);
    Ok(transport)
}

/// How many lanes the peer may have open, with `open` of them in use and `now` the limit.
pub(super) fn lanes(open: u64, now: u64) -> u64 {
    let (least, most) = (u64::from(FIRST_LANES), u64::from(MAX_LANES));
    if open * 2 > now {
        (now * 2).clamp(least, most)
    } else if open * 8 < now {
        (now / 2).clamp(least, most)
    } else {
        now
    }
}

fn size(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).unwrap_or(VarInt::MAX)
}

fn crippled(error: &dyn std::fmt::Display) -> UdpError {
    UdpError::Tls(rustls::Error::General(error.to_string()))
}

/// The only address that QUIC ever sees: one for documentation (RFC 5737), which no datagram goes to.
pub(super) const SYNTHETIC: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443));
/// Never sent (SNI is off) nor checked (the key is); TLS only wants one.
pub(super) const SERVER_NAME: &str = "inp2p.invalid";
const VERSION_1: u32 = 1;
/// Behind the session's own judgement, which gives an idle link up after 25 s, and an active one much earlier.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The first retransmission comes three of these later. RFC 9002 says 333 ms; but what is lost here is mostly
/// what came before the peer's hole was open, and a spurious Initial costs nothing.
const INITIAL_RTT: Duration = Duration::from_millis(150);
/// What every path of QUIC carries (RFC 9000 section 14).
const INITIAL_MTU: u16 = 1200;
/// What a client may send before its first packet was accepted: a ClientHello of two datagrams, twice.
const INCOMING: u64 = 8 * 1024;
/// As many lanes as there may be unanswered streams, and a quarter for those that are just ending. More are
/// allowed when they are used: the library sets memory aside for each one that is allowed.
pub(super) const FIRST_LANES: u32 = 320;
/// One for each of a session's 4,096 streams, and a quarter for those that are just ending.
const MAX_LANES: u32 = 5120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_allowed_as_they_are_used_and_never_without_end() {
        assert_eq!(lanes(0, 320), 320);
        assert_eq!(lanes(161, 320), 640);
        assert_eq!(lanes(5000, 5120), 5120);
        assert_eq!(lanes(100, 5120), 2560);
        assert_eq!(lanes(79, 640), 320);
        assert_eq!(lanes(80, 640), 640);
    }
}
