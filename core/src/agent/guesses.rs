//! How many ports the node may guess.
//!
//! Each port that is tried, and each socket that is opened for a guess, leaves an entry in the table of the NAT before
//! the node, which stays as long as mappings do. A full table lets nothing new out, not even to the server. So all
//! attempts draw on one budget: what guesses have taken up lately, whatever peer they were for, never comes to more.
//! An attempt that would need more does with less, or looks for the peer only where it was seen.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Agent;
use crate::ids::{AttemptId, PublicKey};
use crate::link::Role;
use crate::punch::{Effort, Plan, Situation};
use crate::session::Attempt;

/// What guesses have taken up.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    taken: VecDeque<Taken>,
}

#[derive(Debug)]
struct Taken {
    attempt: AttemptId,
    entries: u32,
    /// Whether the server had nothing to do with it.
    is_blind: bool,
    /// When they are gone.
    until: Instant,
}

impl Guesses {
    /// How many more entries there may be at that time, for an attempt without the server or for another.
    fn room(&mut self, now: Instant, is_blind: bool) -> u32 {
        self.taken.retain(|taken| taken.until > now);
        let taken = |of: fn(&Taken) -> bool| {
            let entries = self.taken.iter().filter(|taken| of(taken)).map(|taken| taken.entries);
            entries.fold(0, u32::saturating_add)
        };
        let room = BUDGET.saturating_sub(taken(|_| true));
        if is_blind { room.min(WITHOUT_SERVER.saturating_sub(taken(|taken| taken.is_blind))) } else { room }
    }

    /// Keeps so many for an attempt that begins.
    fn take(&mut self, now: Instant, attempt: AttemptId, entries: u32, is_blind: bool, lifetime: Duration) {
        self.taken.push_back(Taken { attempt, entries, is_blind, until: now + LONGEST + lifetime });
    }

    /// The attempt takes up no more, and has taken up so many.
    fn done(&mut self, now: Instant, attempt: AttemptId, entries: u32, lifetime: Duration) {
        if let Some(taken) = self.taken.iter_mut().find(|taken| taken.attempt == attempt) {
            taken.entries = taken.entries.min(entries);
            taken.until = now + lifetime;
        }
        self.taken.retain(|taken| taken.entries > 0);
    }
}

impl Agent {
    /// How much an attempt that begins, without the server if it is blind, may guess of what it was meant to: as much
    /// as there is room for. None if it needs to guess nothing.
    pub(super) fn afford(
        &mut self,
        now: Instant,
        peer: PublicKey,
        attempt: &Attempt,
        is_blind: bool,
    ) -> Option<Effort> {
        let own = self.config.identity.public();
        let role = if own < peer { Role::Controlling } else { Role::Controlled };
        let entries = |effort| Plan::new(&Situation { effort, ..attempt.situation(role) }).entries();
        if entries(Effort::Full) == 0 {
            return None;
        }
        let left = self.guesses.room(now, is_blind);
        let meant = [Effort::Full, Effort::Once].into_iter().filter(|effort| *effort <= attempt.effort);
        let mut possible = meant.map(|effort| (effort, entries(effort)));
        let Some((effort, entries)) = possible.find(|(_, entries)| (1..=left).contains(entries)) else {
            return Some(Effort::Plain);
        };
        let lifetime = self.lifetime();
        self.guesses.take(now, attempt.id, entries, is_blind, lifetime);
        Some(effort)
    }

    /// An attempt guesses no more.
    pub(super) fn guessed(&mut self, now: Instant, attempt: AttemptId, entries: u32) {
        let lifetime = self.lifetime();
        self.guesses.done(now, attempt, entries, lifetime);
    }

    /// How long the NAT before this node may keep an entry.
    fn lifetime(&self) -> Duration {
        let measured = self.nat.report.udp4.and_then(|side| side.lifetime).and_then(|found| found.below);
        measured.map_or(LIFETIME, |seconds| Duration::from_secs(seconds.into()).min(LIFETIME))
    }
}

/// All that guesses may take up at a time: a whole one, and little more.
pub(super) const BUDGET: u32 = 1_280;
/// How much of that may be for attempts without the server, when it is not even known whether there still is a peer: one
/// round. The rest is left for the way back to the server, and for what is to be done then.
pub(super) const WITHOUT_SERVER: u32 = 480;
/// As long as most NATs keep mappings of UDP (RFC 4787 REQ-5), where it was not measured to be less.
const LIFETIME: Duration = Duration::from_secs(120);
/// As long as an attempt may last, and the session's word of it.
const LONGEST: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn what_was_not_taken_up_is_given_back_and_what_was_comes_back_with_time() {
        let now = Instant::now();
        let mut guesses = Guesses::default();
        let (one, two) = (AttemptId([1; 16]), AttemptId([2; 16]));
        guesses.take(now, one, 1_200, false, LIFETIME);
        assert_eq!((guesses.room(now, false), guesses.room(now, true)), (80, 80));
        guesses.done(now, one, 300, LIFETIME);
        guesses.take(now, two, 400, true, LIFETIME);
        assert_eq!((guesses.room(now, false), guesses.room(now, true)), (580, 80));
        guesses.done(now, two, 0, LIFETIME);
        assert_eq!(guesses.room(now + LIFETIME - LONGEST, false), BUDGET - 300);
        assert_eq!(guesses.room(now + LIFETIME, false), BUDGET);
        assert!(guesses.taken.is_empty());
    }
}
