//! The relay's judgement of who may use it. Offline: it asks nobody.
//!
//! What costs little is judged first: the permission by a few HMACs, and only then the signature, which is a
//! hundred times as dear. A ticket's nonce is noted only once the signature held, so that whoever stole a
//! ticket cannot use it up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::handshake::{Reason, Response, Shown};
use super::ticket::{Account, SealedTicket, Ticket, TicketKey, VALID};
use super::totp::{Judgement, TotpKey};
use crate::ids::{AttemptId, PublicKey};
use crate::time::WallClock;

/// The machine.
pub struct Gate {
    relay: PublicKey,
    /// The server's clock; nobody is let in without.
    clock: Option<WallClock>,
    codes: SmallVec<[TotpKey; MAX_CODE_KEYS]>,
    /// The newest last, which has no end.
    tickets: SmallVec<[(TicketKey, Option<Instant>); MAX_TICKET_KEYS]>,
    used: Used,
}

/// Who was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// What pairs the two ends.
    pub attempt: AttemptId,
    /// The node.
    pub own: PublicKey,
    /// The node that it is to be joined with.
    pub peer: PublicKey,
    /// Whose use it is; none is the relay's own user.
    pub account: Option<Account>,
}

impl Gate {
    /// The gate of the relay that has this key. It lets nobody in until it has a clock and keys.
    pub fn new(relay: PublicKey) -> Self {
        Self { relay, clock: None, codes: SmallVec::new(), tickets: SmallVec::new(), used: Used::default() }
    }

    /// What time it is at the server.
    pub fn set_clock(&mut self, clock: WallClock) {
        self.clock = Some(clock);
    }

    /// The keys of the relay's own user, in place of those before: at most two, the newest first.
    pub fn set_codes(&mut self, keys: impl IntoIterator<Item = TotpKey>) {
        self.codes = keys.into_iter().take(MAX_CODE_KEYS).collect();
    }

    /// From now on tickets are made under this key. The one before is good for [`VALID`] more, and its used
    /// tickets are remembered: nothing else tells a repetition.
    pub fn set_ticket_key(&mut self, now: Instant, key: TicketKey) {
        self.forget(now);
        if self.tickets.last().is_some_and(|(newest, _)| *newest == key) {
            return;
        }
        for (_, until) in &mut self.tickets {
            until.get_or_insert(now + VALID);
        }
        if self.tickets.len() == MAX_TICKET_KEYS {
            self.tickets.remove(0);
        }
        self.tickets.push((key, None));
    }

    /// Judges a response to `challenge`.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit(
        &mut self,
        now: Instant,
        challenge: &[u8; 32],
        response: &Response,
    ) -> Result<Admitted, Reason> {
        if response.own == response.peer {
            return Err(Reason::Malformed);
        }
        let unix = self.clock.ok_or(Reason::Skew)?.unix(now);
        self.forget(now);
        let ticket = match &response.shown {
            Shown::Code { key, code } => {
                self.judge_code(challenge, response, *key, code, unix)?;
                None
            }
            Shown::Ticket(sealed) => Some(self.judge_ticket(response, sealed, unix)?),
        };
        if !response.is_signed(challenge, &self.relay) {
            return Err(Reason::Denied);
        }
        if let Some(ticket) = ticket {
            self.used.note(ticket.nonce, ticket.not_after, unix)?;
        }
        let Response { attempt, own, peer, .. } = *response;
        Ok(Admitted { attempt, own, peer, account: ticket.map(|ticket| ticket.account) })
    }

    /// As if a ticket of that nonce had been used.
    #[cfg(test)]
    pub(super) fn note_used(
        &mut self,
        nonce: [u8; 16],
        not_after: Duration,
        unix: Duration,
    ) -> Result<(), Reason> {
        self.used.note(nonce, not_after, unix)
    }

    fn judge_code(
        &self,
        challenge: &[u8; 32],
        response: &Response,
        key: u32,
        code: &[u8; 32],
        unix: Duration,
    ) -> Result<(), Reason> {
        let key = self.codes.iter().find(|known| known.id() == key).ok_or(Reason::UnknownKey)?;
        match key.judge(&response.binding(challenge, self.relay), code, unix) {
            Judgement::Good => Ok(()),
            Judgement::Skewed => Err(Reason::Skew),
            Judgement::Wrong => Err(Reason::Denied),
        }
    }

    fn judge_ticket(
        &self,
        response: &Response,
        sealed: &SealedTicket,
        unix: Duration,
    ) -> Result<Ticket, Reason> {
        let id = sealed.key_id().ok_or(Reason::Malformed)?;
        let (key, _) = self.tickets.iter().find(|(key, _)| key.id == id).ok_or(Reason::UnknownKey)?;
        let ticket = key.open(sealed).ok_or(Reason::Denied)?;
        let of = (ticket.own, ticket.peer, ticket.attempt);
        if ticket.relay != self.relay {
            return Err(Reason::WrongRelay);
        }
        if of != (response.own, response.peer, response.attempt) {
            return Err(Reason::Denied);
        }
        if unix > ticket.not_after {
            return Err(Reason::Stale);
        }
        // The server gives none that is good for longer: the clocks are apart.
        if ticket.not_after > unix + VALID + CLOCK_ERROR {
            return Err(Reason::Skew);
        }
        if self.used.contains(&ticket.nonce) {
            return Err(Reason::Used);
        }
        Ok(ticket)
    }

    fn forget(&mut self, now: Instant) {
        self.tickets.retain(|(_, until)| until.is_none_or(|until| now < until));
        if let Some(clock) = self.clock {
            self.used.forget(clock.unix(now));
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("relay", &self.relay)
            .field("codes", &self.codes)
            .field("tickets", &self.tickets.len())
            .field("used", &self.used.nonces.len())
            .finish_non_exhaustive()
    }
}

/// The nonces of tickets that were used, as long as their tickets would be good.
#[derive(Debug, Default)]
struct Used {
    nonces: BTreeMap<[u8; 16], Duration>,
    due: BTreeSet<(Duration, [u8; 16])>,
}

impl Used {
    fn contains(&self, nonce: &[u8; 16]) -> bool {
        self.nonces.contains_key(nonce)
    }

    /// Refuses when it cannot remember: a ticket that might be used twice is not used at all.
    fn note(&mut self, nonce: [u8; 16], not_after: Duration, unix: Duration) -> Result<(), Reason> {
        if self.nonces.len() >= MAX_USED {
            return Err(Reason::Busy);
        }
        let until = not_after.max(unix) + CLOCK_ERROR;
        self.nonces.insert(nonce, until);
        self.due.insert((until, nonce));
        Ok(())
    }

    fn forget(&mut self, unix: Duration) {
        while let Some((until, nonce)) = self.due.first().copied().filter(|(until, _)| *until < unix) {
            self.due.remove(&(until, nonce));
            self.nonces.remove(&nonce);
        }
    }
}

/// Two while the server replaces one.
const MAX_CODE_KEYS: usize = 2;
/// The current key, and those of logins within the last minute: more than a relay makes.
const MAX_TICKET_KEYS: usize = 4;
/// Used tickets that are remembered, 6 MiB in all: a thousand a second for a minute, far more than the relay
/// can have pairs.
const MAX_USED: usize = 65_536;
/// How far the server's clock, as the relay knows it, may be set back or forth by a better measurement: half a
/// round trip over the worst of networks.
const CLOCK_ERROR: Duration = Duration::from_secs(30);
