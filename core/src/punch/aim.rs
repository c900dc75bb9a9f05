//! When the probes to one address leave, and how far they go.

use std::time::{Duration, Instant};

use super::plan::{OPENERS, Trust};
use crate::link::udp::UdpPath;

/// An address that is probed from the node's own port, until something is heard.
#[derive(Debug)]
pub(super) struct Aim {
    pub(super) path: UdpPath,
    trust: Trust,
    start: Instant,
    hold: Duration,
    /// How many probes were sent.
    sent: usize,
}

impl Aim {
    pub(super) fn new(start: Instant, path: UdpPath, trust: Trust, hold: Duration) -> Self {
        // Who only claims an address has no NAT there that the server would have seen the outside of.
        let hold = if trust == Trust::Observed && path.remote.is_ipv4() { hold } else { Duration::ZERO };
        Self { path, trust, start, hold, sent: 0 }
    }

    /// When the next probe leaves, and its time to live; none for the usual one.
    pub(super) fn next(&self) -> Option<(Instant, Option<u8>)> {
        let openers = if self.hold.is_zero() { 0 } else { OPENERS.len() };
        let (at, ttl) = match OPENERS.get(self.sent).filter(|_| self.sent < openers) {
            Some((at, ttl)) => (*at, Some(*ttl)),
            None => {
                let times = match self.trust {
                    Trust::Observed => &OBSERVED[..],
                    Trust::Claimed => &CLAIMED[..],
                };
                (self.hold + Duration::from_millis(*times.get(self.sent - openers)?), None)
            }
        };
        Some((self.start + at, ttl))
    }

    pub(super) fn sent(&mut self) {
        self.sent += 1;
    }
}

/// A path on which the peer was heard.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) path: UdpPath,
    heard: Instant,
    sent: usize,
    /// Whether the peer answered there.
    pub(super) is_confirmed: bool,
}

impl Known {
    pub(super) fn new(now: Instant, path: UdpPath) -> Self {
        Self { path, heard: now, sent: 0, is_confirmed: false }
    }

    /// When the next request leaves.
    pub(super) fn next(&self) -> Option<Instant> {
        let after = HEARD.get(self.sent).filter(|_| !self.is_confirmed)?;
        Some(self.heard + Duration::from_millis(*after))
    }

    pub(super) fn sent(&mut self) {
        self.sent += 1;
    }
}

/// Where the server saw the peer, in milliseconds: quickly at first, since the peer begins at the same time,
/// and then as often as it takes to be heard in spite of a fifth lost.
const OBSERVED: [u64; 15] =
    [0, 40, 100, 200, 350, 550, 800, 1_100, 1_500, 2_000, 2_500, 3_000, 3_500, 4_000, 4_500];
/// Where the peer only says that it is: five probes.
const CLAIMED: [u64; 5] = [0, 100, 300, 800, 2_000];
/// To a path on which the peer was heard.
const HEARD: [u64; 8] = [0, 60, 140, 250, 450, 800, 1_400, 2_200];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SockId;

    fn sends(trust: Trust, hold: u64) -> Vec<(u64, Option<u8>)> {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
        let start = Instant::now();
        let path = UdpPath::new(SockId(0), ([192, 0, 2, 1], 5).into());
        let mut aim = Aim::new(start, path, trust, Duration::from_millis(hold));
        let mut all = Vec::new();
        while let Some((at, ttl)) = aim.next() {
            all.push((u64::try_from((at - start).as_millis()).unwrap(), ttl));
            aim.sent();
        }
        all
    }

    #[test]
    fn openers_precede_whole_probes_where_the_peers_nat_takes_harm() {
        let held = sends(Trust::Observed, 250);
        assert_eq!(held[..4], [(0, Some(2)), (10, Some(3)), (250, None), (290, None)]);
        assert_eq!(held.len(), OBSERVED.len() + OPENERS.len());
        assert_eq!(sends(Trust::Observed, 0)[..2], [(0, None), (40, None)]);
    }

    #[test]
    fn a_claimed_address_gets_five() {
        assert_eq!(sends(Trust::Claimed, 250), CLAIMED.map(|at| (at, None)));
    }
}
