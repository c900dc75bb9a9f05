//! When UDP is left for a slower rung because it loses too much, and when it is trusted again.
//!
//! Some carriers police UDP: they let a trickle pass and drop the rest, so that the link lives and nothing moves
//! on it. The side whose packets get lost notices ([`crate::link::UdpLink::loses`]), has a link sought that is not
//! over UDP, and the controlling side nominates that whatever its rung. Nothing is sought over UDP for a while
//! then ([`Distrust`]), and the next link over UDP of the side that lost must first prove that it bears more: that
//! side says hello on it only after the peer has answered behind 64 KiB of pings. So the streams do not run to
//! and fro.

use std::time::{Duration, Instant};

use super::carrier::{Carrier, Slot};
use super::lane::Proven;
use super::{Action, Ending, LinkId, Session};
use crate::agent::io::SessionNews;
use crate::link::Role;
use crate::path::Transport;

/// What is thought of UDP.
#[derive(Debug, Default)]
pub(super) struct Distrust {
    /// Until when nothing is sought over it, as long as there is another link.
    until: Option<Instant>,
    /// When it was left, and how often of late.
    left: Option<(Instant, u32)>,
    /// Whether it was this side's packets that got lost.
    own: bool,
}

impl Distrust {
    fn leave(&mut self, now: Instant, own: bool) {
        let times = match self.left {
            Some((at, times)) if now < at + MEMORY => times + 1,
            Some(_) | None => 0,
        };
        self.left = Some((now, times));
        self.own |= own;
        self.until = Some(now + FIRST.saturating_mul(1 << times.min(MAX_DOUBLINGS)).min(LAST));
    }

    /// Whether nothing is to be sought over UDP now.
    fn forbids(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

impl Session {
    /// Leaves a link over UDP that loses too much.
    pub(super) fn judge(&mut self, now: Instant) {
        let Some(current) = self.nomination.current().filter(|current| self.nomination.carries(*current))
        else {
            return;
        };
        let Some(slot) = self.slot(current).filter(|slot| !slot.poor) else { return };
        let Carrier::Udp(udp) = &slot.carrier else { return };
        if let Some(percent) = udp.link.loses().filter(|_| !self.distrust.forbids(now)) {
            let reason = format!("{percent} % of what is sent gets lost");
            if self.role == Role::Controlled {
                self.nomination.ask_for_better(current, &reason);
            }
            self.call_poor(now, current, true, reason);
        }
    }

    /// The peer says that it loses too much over the nominated link.
    pub(super) fn told_poor(&mut self, now: Instant) {
        let Some(current) = self.nomination.current() else { return };
        let udp = |slot: &Slot| slot.transport() == Transport::Udp && !slot.poor;
        if self.slot(current).is_some_and(udp) {
            self.call_poor(now, current, false, "too much of what the peer sends gets lost".to_owned());
        }
    }

    fn call_poor(&mut self, now: Instant, link: LinkId, own: bool, reason: String) {
        let Some(slot) = self.slot_mut(link) else { return };
        slot.poor = true;
        let rung = slot.hope();
        self.distrust.leave(now, own);
        self.actions.push_back(Action::News(SessionNews::Poor { rung, reason }));
        self.choose(now);
    }

    /// Why nothing is sought over UDP now, if so. Without another link there is nothing to be choosy about.
    pub(super) fn distrusts_udp(&self, now: Instant) -> Option<&'static str> {
        let other = self.nomination.current().filter(|current| self.nomination.carries(*current));
        let other =
            other.and_then(|other| self.slot(other)).is_some_and(|slot| slot.transport() == Transport::Tcp);
        (other && self.distrust.forbids(now))
            .then_some("UDP was left a short while ago, because it lost too much")
    }

    /// Whether hello may be said on a link over UDP that has just come up, or has been up for a while.
    pub(super) fn may_greet(&mut self, now: Instant, link: LinkId) -> Result<bool, Ending> {
        let other = self.nomination.current().is_some_and(|current| current != link);
        let must_prove = self.distrust.own && other;
        let Some(Carrier::Udp(udp)) = self.slot_mut(link).map(|slot| &mut slot.carrier) else {
            return Ok(false);
        };
        if udp.greeted || !udp.link.is_up() || !must_prove {
            return Ok(!udp.greeted && udp.link.is_up());
        }
        match udp.lane.proven(now) {
            Proven::Yes if udp.link.loses().is_none() => Ok(true),
            Proven::NotYet => Ok(false),
            Proven::Yes | Proven::TooLate => Err(Ending::Lossy),
        }
    }
}

/// How long UDP is left alone: by then a policer that has taken offence at a burst has forgotten it. Doubled
/// each time.
const FIRST: Duration = Duration::from_secs(30);
/// The longest such time.
const LAST: Duration = Duration::from_secs(300);
/// The first doubled so often is beyond the last.
const MAX_DOUBLINGS: u32 = 4;
/// How long it counts that UDP was left.
const MEMORY: Duration = Duration::from_secs(900);
