//! Who is joined with whom at a relay.
//!
//! Two connections belong together if they name the same attempt and each other's keys. The first one waits a
//! while for the second. A node that comes again while it waits takes its own place; one that comes again
//! while it is joined begins anew, for the old connection may be dead without the relay knowing it.
//!
//! Guests are counted by account, so that nobody takes all of a relay that serves many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::gate::Admitted;
use super::handshake::Reason;
use super::ticket::Account;
use crate::due::Due;
use crate::ids::{AttemptId, PublicKey};

/// A connection that was let in, named by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId(pub u64);

/// How many a relay serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are joined or wait.
    pub guests: usize,
    /// The same of one account; the relay's own user is one.
    pub per_account: usize,
}

impl Limits {
    /// What a node takes on: 512 pairs, with six descriptors each; an eighth of them for one of many users.
    pub const NODE: Self = Self { guests: 1024, per_account: 128 };
    /// What a node takes on that serves its own user only.
    pub const PRIVATE: Self = Self { guests: 1024, per_account: 1024 };
    /// What the server takes on.
    pub const SERVER: Self = Self { guests: 8192, per_account: 1024 };
}

/// What becomes of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It waits; [`Pairing::expire`] tells when it was in vain.
    Waits {
        /// Until when.
        until: Instant,
    },
    /// It is joined with that one, which had waited.
    Paired(GuestId),
}

/// The machine.
#[derive(Debug)]
pub struct Pairing {
    limits: Limits,
    guests: BTreeMap<GuestId, Guest>,
    /// Those who wait.
    waiting: BTreeMap<Seat, GuestId>,
    /// None is 0.
    accounts: BTreeMap<Option<Account>, usize>,
    due: Due<GuestId>,
    pairs: usize,
}

#[derive(Debug)]
struct Guest {
    account: Option<Account>,
    state: State,
}

#[derive(Debug)]
enum State {
    Waits { seat: Seat, until: Instant },
    Paired { with: GuestId },
}

/// One side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    attempt: AttemptId,
    own: PublicKey,
    peer: PublicKey,
}

impl Seat {
    fn opposite(self) -> Self {
        Self { own: self.peer, peer: self.own, ..self }
    }
}

impl Pairing {
    /// Nobody is there yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            guests: BTreeMap::new(),
            waiting: BTreeMap::new(),
            accounts: BTreeMap::new(),
            due: Due::default(),
            pairs: 0,
        }
    }

    /// From now on these bounds hold; those who are there stay.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The guest that `who` would take the place of: to be sent away, by [`Self::leave`], before [`Self::join`].
    pub fn rival(&self, who: &Admitted) -> Option<GuestId> {
        self.waiting.get(&seat(who)).copied()
    }

    /// Somebody was let in under a name that was never used before.
    ///
    /// # Errors
    /// [`Reason::Busy`] where there is no room, [`Reason::Replaced`] while a rival waits.
    pub fn join(&mut self, now: Instant, guest: GuestId, who: &Admitted) -> Result<Joined, Reason> {
        let seat = seat(who);
        if self.waiting.contains_key(&seat) || self.guests.contains_key(&guest) {
            return Err(Reason::Replaced);
        }
        let taken = self.accounts.get(&who.account).copied().unwrap_or(0);
        // Whoever waits keeps a place for the other end: a full house is one of pairs.
        let first = !self.waiting.contains_key(&seat.opposite());
        let places = 2 * (self.pairs + self.waiting.len());
        if (first && places + 2 > self.limits.guests) || taken >= self.limits.per_account {
            return Err(Reason::Busy);
        }
        *self.accounts.entry(who.account).or_default() += 1;
        let (state, joined) = match self.waiting.remove(&seat.opposite()) {
            Some(with) => {
                if let Some(other) = self.guests.get_mut(&with) {
                    if let State::Waits { until, .. } = other.state {
                        self.due.remove(until, with);
                    }
                    other.state = State::Paired { with: guest };
                }
                self.pairs += 1;
                (State::Paired { with }, Joined::Paired(with))
            }
            None => {
                let until = now + PATIENCE;
                self.waiting.insert(seat, guest);
                self.due.insert(until, guest);
                (State::Waits { seat, until }, Joined::Waits { until })
            }
        };
        self.guests.insert(guest, Guest { account: who.account, state });
        Ok(joined)
    }

    /// A guest is gone. If it was joined, so is the other one: its name, for the first of the two to leave.
    pub fn leave(&mut self, guest: GuestId) -> Option<GuestId> {
        match self.take(guest)? {
            State::Waits { seat, until } => {
                self.waiting.remove(&seat);
                self.due.remove(until, guest);
                None
            }
            State::Paired { with } => {
                self.pairs = self.pairs.saturating_sub(1);
                self.take(with).map(|_| with)
            }
        }
    }

    /// A guest whose other end did not come in time; it is gone from here. Called until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<GuestId> {
        let guest = self.due.next().filter(|at| *at <= now).and_then(|_| self.due.pop(now))?;
        if let Some(State::Waits { seat, .. }) = self.take(guest) {
            self.waiting.remove(&seat);
        }
        Some(guest)
    }

    /// When [`Self::expire`] is due.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        Some((self.due.next()?, "relay: the other end has not come"))
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// How many guests there are, those who wait included.
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    fn take(&mut self, guest: GuestId) -> Option<State> {
        let Guest { account, state } = self.guests.remove(&guest)?;
        if let Some(count) = self.accounts.get_mut(&account) {
            *count -= 1;
            if *count == 0 {
                self.accounts.remove(&account);
            }
        }
        Some(state)
    }
}

fn seat(who: &Admitted) -> Seat {
    Seat { attempt: who.attempt, own: who.own, peer: who.peer }
}

/// How long a guest waits for the other end: the server tells both at the same time, so the other one is late
/// by its own connection, retries included.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
mod tests {
    use super::*;

    fn who(attempt: u8, own: u8, peer: u8) -> Admitted {
        Admitted {
            attempt: AttemptId([attempt; 16]),
            own: PublicKey([own; 32]),
            peer: PublicKey([peer; 32]),
            account: Some([own; 8]),
        }
    }

    fn pairing(guests: usize, per_account: usize) -> Pairing {
        Pairing::new(Limits { guests, per_account })
    }

    #[test]
    fn two_that_name_each_other_are_joined() {
        let now = Instant::now();
        let mut pairing = pairing(10, 10);
        assert_eq!(pairing.join(now, GuestId(1), &who(1, 1, 2)), Ok(Joined::Waits { until: now + PATIENCE }));
        // The same attempt, but another peer; and the same peers, but another attempt.
        assert_eq!(pairing.join(now, GuestId(2), &who(1, 3, 1)), Ok(Joined::Waits { until: now + PATIENCE }));
        assert_eq!(pairing.join(now, GuestId(3), &who(2, 2, 1)), Ok(Joined::Waits { until: now + PATIENCE }));
        assert_eq!(pairing.join(now, GuestId(4), &who(1, 2, 1)), Ok(Joined::Paired(GuestId(1))));
        assert_eq!((pairing.pairs(), pairing.guests()), (1, 4));
        assert_eq!(pairing.leave(GuestId(1)), Some(GuestId(4)));
        assert_eq!(pairing.leave(GuestId(4)), None);
        assert_eq!((pairing.pairs(), pairing.guests()), (0, 2));
    }

    #[test]
    fn who_waits_in_vain_is_sent_away() {
        let now = Instant::now();
        let mut pairing = pairing(10, 10);
        pairing.join(now, GuestId(1), &who(1, 1, 2)).unwrap();
        assert_eq!(pairing.deadline().map(|(at, _)| at), Some(now + PATIENCE));
        assert_eq!(pairing.expire(now), None);
        assert_eq!(pairing.expire(now + PATIENCE), Some(GuestId(1)));
        assert_eq!(pairing.expire(now + PATIENCE), None);
        assert_eq!(pairing.guests(), 0);
        assert_eq!(
            pairing.join(now, GuestId(2), &who(1, 2, 1)),
            Ok(Joined::Waits { until: now + PATIENCE }),
            "the seat is free again"
        );
    }

    #[test]
    fn who_comes_again_takes_its_own_place() {
        let now = Instant::now();
        let mut pairing = pairing(10, 10);
        pairing.join(now, GuestId(1), &who(1, 1, 2)).unwrap();
        assert_eq!(pairing.rival(&who(1, 1, 2)), Some(GuestId(1)));
        assert_eq!(pairing.rival(&who(1, 2, 1)), None);
        pairing.leave(GuestId(1));
        pairing.join(now, GuestId(2), &who(1, 1, 2)).unwrap();
        assert_eq!(pairing.join(now, GuestId(3), &who(1, 2, 1)), Ok(Joined::Paired(GuestId(2))));
        // Once more, both: the old pair may be dead on their side.
        assert_eq!(pairing.join(now, GuestId(4), &who(1, 1, 2)), Ok(Joined::Waits { until: now + PATIENCE }));
        assert_eq!(pairing.join(now, GuestId(5), &who(1, 2, 1)), Ok(Joined::Paired(GuestId(4))));
        assert_eq!(pairing.leave(GuestId(3)), Some(GuestId(2)));
        assert_eq!(pairing.pairs(), 1);
        assert_eq!(pairing.deadline(), None);
    }

    #[test]
    fn nobody_takes_more_than_its_share() {
        let now = Instant::now();
        let mut pairing = pairing(6, 2);
        pairing.join(now, GuestId(1), &who(1, 1, 2)).unwrap();
        pairing.join(now, GuestId(2), &who(2, 1, 2)).unwrap();
        assert_eq!(pairing.join(now, GuestId(3), &who(3, 1, 2)), Err(Reason::Busy));
        pairing.join(now, GuestId(4), &who(4, 5, 2)).unwrap();
        assert_eq!(pairing.join(now, GuestId(5), &who(5, 6, 2)), Err(Reason::Busy), "full");
        let other_end = pairing.join(now, GuestId(5), &who(4, 2, 5));
        assert_eq!(other_end, Ok(Joined::Paired(GuestId(4))), "its place was kept");
        pairing.leave(GuestId(1));
        pairing.join(now, GuestId(6), &who(3, 1, 2)).unwrap();
        for guest in [2, 4, 5, 6] {
            pairing.leave(GuestId(guest));
        }
        assert!(pairing.accounts.is_empty() && pairing.waiting.is_empty() && pairing.deadline().is_none());
    }
}
