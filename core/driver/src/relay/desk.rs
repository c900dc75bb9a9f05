//! Where those who were let in wait for each other. One lock, taken a few times a connection, never for data.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_channel::oneshot;
use inp2p_core::relay::handshake::Response;
use inp2p_core::relay::pairing::{GuestId, Joined, Limits};
use inp2p_core::relay::{Admitted, Gate, Pairing, Reason};
use inp2p_core::rng::Rng;

use super::Carrier;
use crate::net::Net;

/// See the module.
pub(super) struct Desk<N: Net> {
    pub(super) gate: Gate,
    pub(super) pairing: Pairing,
    rng: Rng,
    /// The ears of those who wait.
    seats: BTreeMap<GuestId, oneshot::Sender<Call<N>>>,
    last: u64,
}

/// What a guest that waits is told.
pub(super) enum Call<N: Net> {
    /// The other end is there.
    Partner(Carrier<N::Stream>),
    /// It has to go.
    Leave(Reason),
}

/// What becomes of a guest.
pub(super) enum Place<N: Net> {
    /// It waits, until then at most.
    Wait(GuestId, Instant, oneshot::Receiver<Call<N>>),
    /// It goes to that one, whose task takes over.
    Go(oneshot::Sender<Call<N>>),
}

impl<N: Net> Desk<N> {
    pub(super) fn new(gate: Gate, limits: Limits, rng: Rng) -> Self {
        Self { gate, pairing: Pairing::new(limits), rng, seats: BTreeMap::new(), last: 0 }
    }

    /// 32 fresh random bytes.
    pub(super) fn challenge(&mut self) -> [u8; 32] {
        self.rng.bytes()
    }

    /// Judges a response, and gives the guest its place.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        challenge: &[u8; 32],
        response: &Response,
    ) -> Result<(Admitted, Place<N>), Reason> {
        let who = self.gate.admit(now, challenge, response)?;
        if let Some(rival) = self.pairing.rival(&who) {
            self.pairing.leave(rival);
            self.send_away(rival, Reason::Replaced);
        }
        self.last += 1;
        let guest = GuestId(self.last);
        match self.pairing.join(now, guest, &who)? {
            Joined::Waits { until } => {
                let (seat, ear) = oneshot::channel();
                self.seats.insert(guest, seat);
                Ok((who, Place::Wait(guest, until, ear)))
            }
            Joined::Paired(with) => match self.seats.remove(&with) {
                Some(seat) => Ok((who, Place::Go(seat))),
                None => {
                    self.pairing.leave(guest);
                    Err(Reason::NoPeer)
                }
            },
        }
    }

    /// Sends those away whose other end did not come.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(guest) = self.pairing.expire(now) {
            self.send_away(guest, Reason::NoPeer);
        }
    }

    /// A guest's task has ended, its pair with it.
    pub(super) fn leave(&mut self, guest: GuestId) {
        self.seats.remove(&guest);
        self.pairing.leave(guest);
    }

    fn send_away(&mut self, guest: GuestId, reason: Reason) {
        if let Some(seat) = self.seats.remove(&guest) {
            // Its task may have ended by itself.
            let _ = seat.send(Call::Leave(reason));
        }
    }
}
