//! What can be seen of a NAT from outside of it, as a table: the model and the kernel are held to the same.
//!
//! Four peers look: two addresses with two ports each. The node sends to them from one port.

use super::{Preset, Unsolicited};

/// What the peers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// From how many ports one UDP socket is seen to send to the four peers; 0 where nothing comes out.
    pub udp_ports: usize,
    /// How many of the four may send to the port that the first one sees, when only that one was written to.
    pub udp_admitted: usize,
    /// From how many ports connections that leave one local port are seen to come.
    pub tcp_ports: usize,
    /// How these ports are chosen.
    pub numbers: Numbers,
    /// Whether a host inside reaches another one by its outside address.
    pub hairpin: bool,
    /// What becomes of a SYN that nobody inside asked for: it vanishes, or is answered with a reset.
    pub unsolicited: Unsolicited,
}

/// How ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// As inside.
    Kept,
    /// One after the other.
    Counted,
    /// Without order.
    Scattered,
}

impl Numbers {
    /// What these outside ports of one inside port show.
    pub fn of(inside: u16, outside: &[u16]) -> Self {
        let follows = |pair: &[u16]| pair[1] == pair[0].wrapping_add(1);
        if outside.iter().all(|port| *port == inside) {
            Self::Kept
        } else if outside.windows(2).all(follows) {
            Self::Counted
        } else {
            Self::Scattered
        }
    }
}

/// What is seen of the presets that netfilter can make too.
pub const SEEN: [(Preset, Seen); 7] = [
    (Preset::FullCone, Seen { udp_admitted: 4, hairpin: true, ..HOME }),
    (Preset::AddressRestricted, Seen { udp_admitted: 2, ..HOME }),
    (Preset::PortRestricted, HOME),
    (Preset::Bare, Seen { unsolicited: Unsolicited::Reset, ..HOME }),
    (Preset::SymmetricSequential, Seen { udp_ports: 4, tcp_ports: 4, numbers: Numbers::Counted, ..HOME }),
    (
        Preset::SymmetricRandom,
        Seen {
            udp_ports: 4,
            tcp_ports: 4,
            numbers: Numbers::Scattered,
            unsolicited: Unsolicited::Reset,
            ..HOME
        },
    ),
    (Preset::UdpBlocked, Seen { udp_ports: 0, udp_admitted: 0, ..HOME }),
];

/// A home router that follows RFC 4787 and RFC 5382.
const HOME: Seen = Seen {
    udp_ports: 1,
    udp_admitted: 1,
    tcp_ports: 1,
    numbers: Numbers::Kept,
    hairpin: false,
    unsolicited: Unsolicited::Drop,
};
