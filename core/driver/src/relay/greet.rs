//! One connection of a relay, from its first byte on.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use inp2p_core::relay::handshake::{Heard, MAX_RESPONSE};
use inp2p_core::relay::pairing::GuestId;
use inp2p_core::relay::{Answer, Reason, Reception};
use tracing::debug;

use super::desk::{Call, Place};
use super::splice::splice;
use super::{Carrier, Relay, Shared};
use crate::exact::{read_exact, write_all};
use crate::net::{Net, StreamIo, TimerIo};

impl<N: Net> Relay<N> {
    /// Serves one connection to its end. `first` is what was read from it already; `stranger` is held until
    /// the connection has proven what it may.
    pub(crate) async fn serve<G>(
        &self,
        mut carrier: Carrier<N::Stream>,
        first: &[u8],
        remote: SocketAddr,
        stranger: G,
    ) {
        let shared = &self.0;
        let mut timer = shared.net.timer();
        let place = match shared.greet(&mut carrier, first, &mut timer).await {
            Ok(place) => place,
            Err(Failure::Refused(reason)) => {
                debug!(%remote, %reason, "refused");
                return shared.refuse(carrier, reason, &mut timer).await;
            }
            Err(Failure::Checked) => return shared.part(carrier, &mut timer).await,
            Err(Failure::Io(error)) => return debug!(%remote, %error, "no handshake"),
        };
        drop(stranger);
        match place {
            Place::Go(seat) => {
                if let Err(Call::Partner(carrier)) = seat.send(Call::Partner(carrier)) {
                    shared.refuse(carrier, Reason::NoPeer, &mut timer).await;
                }
            }
            Place::Wait(guest, until, ear) => {
                let leaving = Leaving { shared, guest };
                shared.wait(carrier, until, ear, &mut timer).await;
                drop(leaving);
            }
        }
    }
}

/// Why a connection gets no place.
enum Failure {
    Refused(Reason),
    /// It only wanted to know who this is.
    Checked,
    Io(io::Error),
}

/// Frees a guest's place, whatever ends its task.
struct Leaving<'a, N: Net> {
    shared: &'a Shared<N>,
    guest: GuestId,
}

impl<N: Net> Drop for Leaving<'_, N> {
    fn drop(&mut self) {
        self.shared.desk().leave(self.guest);
    }
}

impl<N: Net> Shared<N> {
    async fn greet(
        &self,
        carrier: &mut Carrier<N::Stream>,
        first: &[u8],
        timer: &mut N::Timer,
    ) -> Result<Place<N>, Failure> {
        let mut reception = Reception::new(self.desk().challenge());
        let mut buffer = [0; MAX_RESPONSE];
        let mut have = first;
        loop {
            let deadline = self.net.now() + SAY_WITHIN;
            let Some(wanted) = buffer.get_mut(..reception.wants()) else {
                return Err(Failure::Refused(Reason::Malformed));
            };
            let (front, rest) = wanted.split_at_mut(have.len().min(reception.wants()));
            front.copy_from_slice(have.get(..front.len()).unwrap_or_default());
            have = &[];
            match read_exact(carrier, rest, timer, deadline).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(Failure::Refused(Reason::Late));
                }
                Err(error) => return Err(Failure::Io(error)),
            }
            let mut out = Vec::new();
            match reception.receive(wanted, &mut out).map_err(Failure::Refused)? {
                None => self.say(carrier, &out, timer).await.map_err(Failure::Io)?,
                Some(Heard::Check(nonce)) => {
                    reception.prove(&self.identity, &nonce).encode(&mut out);
                    self.say(carrier, &out, timer).await.map_err(Failure::Io)?;
                    return Err(Failure::Checked);
                }
                Some(Heard::Response(response)) => {
                    let now = self.net.now();
                    let entered = self.desk().enter(now, reception.challenge(), &response);
                    let (who, place) = entered.map_err(Failure::Refused)?;
                    debug!(node = %who.own, peer = %who.peer, attempt = ?who.attempt, "let in");
                    return Ok(place);
                }
            }
        }
    }

    /// Waits for the other end, and moves bytes once it is there.
    async fn wait(
        &self,
        mut carrier: Carrier<N::Stream>,
        until: Instant,
        mut ear: oneshot::Receiver<Call<N>>,
        timer: &mut N::Timer,
    ) {
        if self.answer(&mut carrier, Answer::Waiting, timer).await.is_err() {
            return;
        }
        let call = poll_fn(|cx| {
            loop {
                if let Poll::Ready(call) = Pin::new(&mut ear).poll(cx) {
                    return Poll::Ready(call);
                }
                if timer.poll_at(cx, Some(until)).is_pending() {
                    return Poll::Pending;
                }
                // The clock decides; a timer that rang too early is asked again.
                self.desk().expire(self.net.now());
                if self.net.now() < until {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        });
        match call.await {
            Ok(Call::Partner(mut partner)) => {
                let told = self.answer(&mut carrier, Answer::Paired, timer).await;
                let told = match told {
                    Ok(()) => self.answer(&mut partner, Answer::Paired, timer).await,
                    Err(error) => Err(error),
                };
                match told {
                    Ok(()) => {
                        let carried = splice(self, carrier, partner, timer).await;
                        debug!(bytes = ?carried.bytes, why = carried.why, "a pair has ended");
                    }
                    Err(error) => debug!(%error, "a pair has ended before it began"),
                }
            }
            Ok(Call::Leave(reason)) => self.refuse(carrier, reason, timer).await,
            Err(oneshot::Canceled) => {}
        }
    }

    async fn answer(
        &self,
        carrier: &mut Carrier<N::Stream>,
        answer: Answer,
        timer: &mut N::Timer,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        self.say(carrier, &bytes, timer).await
    }

    async fn say(
        &self,
        carrier: &mut Carrier<N::Stream>,
        bytes: &[u8],
        timer: &mut N::Timer,
    ) -> io::Result<()> {
        write_all(carrier, bytes, timer, self.net.now() + SAY_WITHIN).await?;
        // What is inside a WebSocket goes out by the next turn at the latest.
        poll_fn(|cx| match carrier.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Says why, and closes.
    async fn refuse(&self, mut carrier: Carrier<N::Stream>, reason: Reason, timer: &mut N::Timer) {
        if self.answer(&mut carrier, Answer::Refused(reason), timer).await.is_ok() {
            self.part(carrier, timer).await;
        }
    }

    /// Ends our direction, and takes what still comes until the other side ends its own: closing a connection
    /// with unread bytes resets it, and the last words might be lost.
    async fn part(&self, mut carrier: Carrier<N::Stream>, timer: &mut N::Timer) {
        if carrier.shutdown().is_err() {
            return;
        }
        let deadline = self.net.now() + PART_TIME;
        let mut scratch = [0; 1024];
        for _ in 0..PART_READS {
            let read = read_some(&mut carrier, &mut scratch, timer, deadline).await;
            if !matches!(read, Ok(1..)) {
                break;
            }
        }
    }
}

async fn read_some<S: StreamIo>(
    carrier: &mut Carrier<S>,
    buffer: &mut [u8],
    timer: &mut impl TimerIo,
    until: Instant,
) -> io::Result<usize> {
    poll_fn(|cx| {
        let _ = carrier.poll_flush(cx);
        match carrier.poll_read(cx, &mut [io::IoSliceMut::new(buffer)]) {
            Poll::Pending => timer.poll_at(cx, Some(until)).map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => ready,
        }
    })
    .await
}

/// A node knows what it wants to say: 5 s are many round trips. The same again for the response.
const SAY_WITHIN: Duration = Duration::from_secs(5);
/// How long a node that was refused has to close.
const PART_TIME: Duration = Duration::from_secs(2);
/// What is taken of it meanwhile, 64 KiB at most: what it had to say to its peer.
const PART_READS: usize = 64;
