//! How far the search for a link to one peer is.
//!
//! ```text
//!            asking              promised                begin
//!  Idle ───────────────▶ Asking ─────────▶ Promised ─────────────▶ Running
//!   ▲ ▲                     │ refused,         │ nothing follows     │  │
//!   │ │       wait          │ no answer        │                     │  │
//!   │ └── Waiting ◀─────────┴──────────────────┴─────── in vain ─────┘  │
//!   └──── LinkFollows ◀──────────────────────────────── a link ─────────┘
//! ```
//!
//! `begin` leads to Running from everywhere: the other side may be the one who asked. So does `asking` to Asking,
//! once it is due: from Waiting by time, from Running if that attempt is overtaken.
//!
//! What is true of a wish or of an attempt only is kept with it, and is forgotten with it: whether a wish is
//! [overtaken](Search::settled) becomes, as the attempt begins, when that is to be overtaken by the next wish.
//! Everything here is a transition or a question; what is wanted, and what there is, is for the peer to say.

use std::time::{Duration, Instant};

use crate::path::{Rung, RungSet};

#[derive(Debug, Default)]
pub(super) enum Search {
    /// Nothing is under way.
    #[default]
    Idle,
    /// The server has been asked.
    Asking {
        /// Whether this node's NAT was measured since: the peer is told what was known before.
        overtaken: bool,
    },
    /// The server has agreed; its PunchStart follows.
    Promised { until: Instant, overtaken: bool },
    /// The session is trying.
    Running(Running),
    /// The attempt brought a link; the session's word of it is on its way.
    LinkFollows { until: Instant },
    /// The last try was in vain; the next is due then.
    Waiting { until: Instant, why: Why },
}

/// An attempt of the session's.
#[derive(Debug)]
pub(super) struct Running {
    began: Instant,
    rungs: RungSet,
    /// Whether it began before the NATs on both sides had been measured.
    blind: bool,
    /// Whether more is known than when it began.
    is_old: bool,
    /// When the next wish is due although this runs: the link was lost, or fell into doubt, meanwhile; or more is
    /// known than when it began.
    again: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The server says that the peer is not there.
    Offline,
    /// Anything else.
    Failed,
}

/// What an attempt is planned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Basis {
    /// All that there is to know of the NATs.
    Sound,
    /// What a NAT does is not known yet.
    Blind,
    /// The same, but it is known meanwhile.
    Old,
}

impl Search {
    /// The server is being asked.
    pub(super) fn asking(&mut self) {
        *self = Self::Asking { overtaken: false };
    }

    /// It is known now what this node is behind, which a wish that is under way does not say.
    pub(super) fn settled(&mut self) {
        if let Self::Asking { overtaken } | Self::Promised { overtaken, .. } = self {
            *overtaken = true;
        }
    }

    /// The server agreed.
    pub(super) fn promised(&mut self, now: Instant) {
        if let Self::Asking { overtaken } = *self {
            *self = Self::Promised { until: now + START_TIMEOUT, overtaken };
        }
    }

    /// An attempt for these rungs begins.
    pub(super) fn begin(&mut self, now: Instant, rungs: RungSet, basis: Basis) {
        let overtaken =
            matches!(self, Self::Asking { overtaken: true } | Self::Promised { overtaken: true, .. });
        let is_old = overtaken || basis == Basis::Old;
        let (blind, again) = (basis != Basis::Sound, is_old.then_some(now));
        *self = Self::Running(Running { began: now, rungs, blind, is_old, again });
    }

    /// More is known than before: an attempt that began blindly is not waited for.
    pub(super) fn known_more(&mut self, now: Instant) {
        if let Self::Running(running) = self
            && std::mem::take(&mut running.blind)
        {
            (running.is_old, running.again) = (true, Some(now));
        }
    }

    /// Whether an attempt runs that was planned by less than is known now.
    pub(super) fn is_old(&self) -> bool {
        matches!(self, Self::Running(running) if running.is_old)
    }

    /// The link, which is on this rung, is of no use any more. An attempt that looks only for better ones is not
    /// waited for then, nor one that began when all was well.
    pub(super) fn link_useless(&mut self, now: Instant, rung: Rung) {
        let Self::Running(running) = self else { return };
        if running.is_young(now) && running.rungs.contains(rung) {
            // It may bring one; but it began with what was known of the network before.
            running.again = Some(running.began + YOUNG);
        } else {
            *self = Self::Idle;
        }
    }

    /// A link has come up, on this rung. An attempt that runs may bring a better one, and is waited for; but a relay
    /// comes up whatever was known.
    pub(super) fn link_up(&mut self, rung: Rung) {
        match self {
            Self::Running(running) if running.is_old && rung.is_relay() => {}
            Self::Running(running) => (running.is_old, running.again) = (false, None),
            Self::LinkFollows { .. } | Self::Waiting { .. } => *self = Self::Idle,
            Self::Idle | Self::Asking { .. } | Self::Promised { .. } => {}
        }
    }

    /// The attempt brought a link, of which the session has yet to tell.
    pub(super) fn link_follows(&mut self, now: Instant) {
        *self = Self::LinkFollows { until: now + LINK_FOLLOWS };
    }

    /// Nothing is under way any more, and the next wish has its time.
    pub(super) fn wait(&mut self, until: Instant, why: Why) {
        *self = Self::Waiting { until, why };
    }

    /// Nothing is under way any more.
    pub(super) fn end(&mut self) {
        *self = Self::Idle;
    }

    /// There is no reason to wait any longer.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Self::Waiting { until, .. } = self {
            *until = now.min(*until);
        }
    }

    /// When a wish that is due then may be made; none while one is under way.
    pub(super) fn admits(&self, due: Instant) -> Option<Instant> {
        match self {
            Self::Idle => Some(due),
            Self::Running(running) => running.again.map(|again| again.max(due)),
            Self::LinkFollows { until } | Self::Waiting { until, .. } => Some(*until),
            Self::Asking { .. } | Self::Promised { .. } => None,
        }
    }

    /// When what is under way has taken too long.
    pub(super) fn timeout(&self) -> Option<Instant> {
        match self {
            Self::Promised { until, .. } | Self::LinkFollows { until } => Some(*until),
            Self::Running(running) => Some(running.began + ATTEMPT_TIMEOUT),
            Self::Idle | Self::Asking { .. } | Self::Waiting { .. } => None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Whether the server is being asked, or has yet to keep its word.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self, Self::Asking { .. } | Self::Promised { .. })
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Whether an attempt has just begun.
    pub(super) fn is_young(&self, now: Instant) -> bool {
        matches!(self, Self::Running(running) if running.is_young(now))
    }

    /// Whether the next try waits for a peer that is not there.
    pub(super) fn is_offline(&self) -> bool {
        matches!(self, Self::Waiting { why: Why::Offline, .. })
    }
}

impl Running {
    fn is_young(&self, now: Instant) -> bool {
        now < self.began + YOUNG
    }
}

/// How long the server may take to begin what it promised; both messages leave it together.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A session ends its attempts itself, by rung. This catches one that does not, and is longer than the
/// longest.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);
/// What has been tried for longer than that will hardly come any more.
const YOUNG: Duration = Duration::from_secs(3);
/// How long after the end of an attempt the session's word of its link may come.
const LINK_FOLLOWS: Duration = Duration::from_secs(2);
