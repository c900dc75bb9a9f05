//! Knocking: requests to the addresses where the peer may be, until one of them answers.
//!
//! The controlling side needs none, since the first flight of QUIC goes to every address. The other side may
//! be behind a NAT or a firewall, which lets nothing in that was not asked for: its knocks open that, and they
//! show the controlling side an address that nobody may have told it.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::link::udp::UdpPath;

/// The knocks of one attempt.
#[derive(Debug)]
pub(super) struct Knocks {
    began: Instant,
    /// How many times it has been knocked.
    done: usize,
    /// Where, and whether the server has seen the peer there.
    paths: SmallVec<[(UdpPath, bool); 4]>,
}

impl Knocks {
    /// Knocks at all of `paths` from now on; each comes with whether the server has seen the peer there.
    pub(super) fn new(now: Instant, paths: impl Iterator<Item = (UdpPath, bool)>) -> Self {
        Self { began: now, done: 0, paths: paths.collect() }
    }

    /// No more knocks.
    pub(super) fn stop(&mut self) {
        self.paths.clear();
    }

    /// Where to knock now, if it is time.
    pub(super) fn due(&mut self, now: Instant) -> impl Iterator<Item = UdpPath> + use<'_> {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now);
        let proven_only = self.done >= UNPROVEN;
        self.done += usize::from(is_due);
        self.paths
            .iter()
            .filter(move |(_, proven)| is_due && (*proven || !proven_only))
            .map(|(path, _)| *path)
    }

    /// When it is time to knock.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let after = SCHEDULE.get(self.done).filter(|_| !self.paths.is_empty())?;
        Some(self.began + Duration::from_millis(*after))
    }
}

/// When it is knocked, in milliseconds: often at first, when both sides have just been told to begin.
const SCHEDULE: [u64; 12] = [0, 100, 200, 400, 800, 1200, 1600, 2400, 3200, 4400, 5600, 7000];

/// How often where nobody vouches that the peer is there: a liar could have named anybody.
const UNPROVEN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SockId;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn an_address_that_nobody_vouches_for_hears_five_knocks() {
        let path = |port| UdpPath::new(SockId(0), ([192, 0, 2, 1], port).into());
        let mut knocks = Knocks::new(Instant::now(), [(path(1), false), (path(2), true)].into_iter());
        let mut heard = [0; 2];
        while let Some(at) = knocks.deadline() {
            assert_eq!(knocks.due(at - Duration::from_millis(1)).count(), 0);
            knocks.due(at).for_each(|path| heard[usize::from(path.remote.port()) - 1] += 1);
        }
        assert_eq!(heard, [UNPROVEN, SCHEDULE.len()]);
    }
}
