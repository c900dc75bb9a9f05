//! What the server tells a node of a relay that it may use for one attempt.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Tier;
use super::ticket::SealedTicket;
use crate::ids::{AttemptId, PeerName, PublicKey};
use crate::wire::codec::list;

/// One relay for one attempt. Both sides of the attempt get an offer of the same relay, each with its own
/// permission, and meet there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayOffer {
    /// The attempt; it pairs the two ends at the relay.
    pub attempt: AttemptId,
    /// The relay, as the receiver names it; none is the server.
    pub relay: Option<PeerName>,
    /// Whose relay it is.
    pub tier: Tier,
    /// The relay's identity: everything that is proven to it is bound to this key.
    pub key: PublicKey,
    /// Where it listens, as the server observed it; at most [`MAX_ADDRESSES`]. For the server itself it may be
    /// empty: the node knows where it reaches the server.
    #[serde(deserialize_with = "list::<_, _, MAX_ADDRESSES>")]
    pub addresses: Vec<SocketAddr>,
    /// Whether the relay may also be reached by a WebSocket at `/relay` of the signalling port: the server.
    #[serde(default)]
    pub websocket: bool,
    /// The permission.
    pub credential: Credential,
}

/// What a node shows besides its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// A code that the node computes itself, under the key of its user.
    Totp,
    /// A ticket that the server made.
    Ticket(SealedTicket),
}

impl RelayOffer {
    /// The relay's name in `status` and in logs.
    pub fn via(&self) -> String {
        self.relay.as_ref().map_or_else(|| SERVER.to_owned(), PeerName::to_string)
    }
}

/// Addresses of one relay: IPv4, IPv6, and as many for a host with two networks.
pub const MAX_ADDRESSES: usize = 4;

/// What stands for the server where relays are named.
const SERVER: &str = "server";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ticket::LENGTH;
    use crate::wire::codec;

    fn offer() -> RelayOffer {
        RelayOffer {
            attempt: AttemptId([7; 16]),
            relay: Some("relay1".parse().unwrap()),
            tier: Tier::Super,
            key: PublicKey([3; 32]),
            addresses: vec!["192.0.2.1:27185".parse().unwrap(), "[2001:db8::1]:27185".parse().unwrap()],
            websocket: false,
            credential: Credential::Ticket(SealedTicket([5; LENGTH])),
        }
    }

    fn packed(offer: &RelayOffer) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable();
        offer.serialize(&mut serializer).unwrap();
        bytes
    }

    fn unpacked(bytes: &[u8]) -> Option<RelayOffer> {
        codec::skim(bytes).ok()?;
        RelayOffer::deserialize(&mut rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable()).ok()
    }

    #[test]
    fn an_offer_survives_the_wire() {
        for credential in [Credential::Totp, offer().credential] {
            let offer = RelayOffer { credential, ..offer() };
            assert_eq!(unpacked(&packed(&offer)), Some(offer));
        }
        assert_eq!(offer().via(), "relay1");
        assert_eq!(RelayOffer { relay: None, ..offer() }.via(), "server");
    }

    #[test]
    fn more_addresses_than_a_relay_has_are_refused() {
        let address = offer().addresses[0];
        let many = RelayOffer { addresses: vec![address; MAX_ADDRESSES + 1], ..offer() };
        assert_eq!(unpacked(&packed(&many)), None);
    }
}
