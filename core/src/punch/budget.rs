//! How many ports a node may guess.
//!
//! Each port that is tried, and each socket that is opened to be hit, leaves an entry in the table of the NAT before the
//! node, which stays as long as mappings do. A full table lets nothing new out, not even to the server. So all attempts
//! of a node draw on one budget: what they have taken up lately, whatever peer they were for, never comes to more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The budget of a node: what it is cloned into is the same one.
#[derive(Debug, Clone, Default)]
pub struct Budget(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// By when they were made: few, since those of half a second are one.
    taken: VecDeque<Taken>,
    /// How long they stay, if that was measured.
    lifetime: Option<Duration>,
}

#[derive(Debug)]
struct Taken {
    at: Instant,
    is_blind: bool,
    entries: u32,
}

impl Budget {
    /// How long the NAT keeps mappings, as far as that is known.
    pub fn measured(&self, lifetime: Option<Duration>) {
        self.with(|inner| inner.lifetime = lifetime);
    }

    /// How many more entries there may be now: for an attempt with the server, or without, which is blind.
    pub fn room(&self, now: Instant, is_blind: bool) -> u32 {
        self.room_of(MOST, now, is_blind)
    }

    /// The same for ports that are guessed and not predicted, which takes more and helps less.
    pub fn room_to_guess(&self, now: Instant, is_blind: bool) -> u32 {
        self.room_of(MOST - KEPT, now, is_blind)
    }

    fn room_of(&self, most: u32, now: Instant, is_blind: bool) -> u32 {
        self.with(|inner| {
            let lifetime = inner.lifetime.map_or(LIFETIME, |lifetime| lifetime.min(LIFETIME)) + SPAN;
            inner.taken.retain(|taken| now < taken.at + lifetime);
            let taken = |of: fn(&Taken) -> bool| {
                let entries = inner.taken.iter().filter(|taken| of(taken)).map(|taken| taken.entries);
                entries.fold(0, u32::saturating_add)
            };
            let room = most.saturating_sub(taken(|_| true));
            if is_blind { room.min(MOST_BLIND.saturating_sub(taken(|taken| taken.is_blind))) } else { room }
        })
    }

    /// One more is made.
    pub fn take(&self, now: Instant, is_blind: bool) {
        self.with(|inner| {
            let recent = inner.taken.iter_mut().rev().take(2);
            let mut same = recent.filter(|taken| taken.is_blind == is_blind && now < taken.at + SPAN);
            match same.next() {
                Some(taken) => taken.entries = taken.entries.saturating_add(1),
                None => inner.taken.push_back(Taken { at: now, is_blind, entries: 1 }),
            }
        });
    }

    /// One that was made before is used again, and stays as long as a new one. Which one of them makes no difference
    /// to their number.
    pub fn renew(&self, now: Instant, is_blind: bool) {
        self.with(|inner| {
            let is_one = |taken: &&mut Taken| taken.is_blind == is_blind && now >= taken.at + SPAN;
            if let Some(old) = inner.taken.iter_mut().rev().filter(is_one).find(|taken| taken.entries > 0) {
                old.entries -= 1;
            }
        });
        self.take(now, is_blind);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All entries at a time.
const MOST: u32 = 1_584;
/// What guesses leave of that for predictions: six rows, as many as attempts in vain may open meanwhile. They have room
/// for a whole one.
const KEPT: u32 = 384;
/// How many of them may be for attempts without the server, when it is not even known whether there still is a peer: one
/// round. The rest is left for the way back to the server, and for what is to be done then.
const MOST_BLIND: u32 = 480;
/// As long as most NATs keep mappings of UDP (RFC 4787 REQ-5), where it was not measured to be less.
const LIFETIME: Duration = Duration::from_secs(120);
/// What is made within that is counted together.
const SPAN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn what_is_taken_up_comes_back_when_the_nat_has_forgotten_it() {
        let now = Instant::now();
        let budget = Budget::default();
        let same = budget.clone();
        (0..300).for_each(|_| same.take(now, false));
        (0..400).for_each(|_| same.take(now, true));
        assert_eq!((budget.room(now, false), budget.room(now, true)), (884, 80));
        let later = now + Duration::from_secs(60);
        (0..500).for_each(|_| same.take(later, false));
        assert_eq!((budget.room(later, false), budget.room_to_guess(later, false)), (384, 0));
        (0..384).for_each(|_| same.take(later, false));
        assert_eq!((budget.room(later, false), budget.room(later, true)), (0, 0));
        assert_eq!(budget.room(now + LIFETIME, false), 0);
        assert_eq!(budget.room(now + LIFETIME + SPAN, false), 700);
        (0..100).for_each(|_| budget.renew(later + Duration::from_secs(10), false));
        assert_eq!(budget.room(now + LIFETIME + SPAN, false), 700);
        budget.measured(Some(Duration::from_secs(30)));
        assert_eq!(budget.room(later + Duration::from_secs(31), true), 480);
        assert_eq!(budget.room(later + Duration::from_secs(31), false), 1_484);
    }
}
