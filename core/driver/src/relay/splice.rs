//! Moves bytes between two connections, both ways, until both directions have ended or one of them broke.
//!
//! Each direction is filled from one side and drained into the other, in turns. What limits it is the slower
//! of the receiver and the relay's own bandwidth: then the sender's bytes stay in the sender's socket. An
//! orderly end of one direction is passed on as such, and the other one goes on; an error ends both, as an
//! error. Silence ends them too: nodes ping each other, so a silent pair is dead.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use inp2p_core::relay::bandwidth::Flow;

use super::{Carrier, Shared};
use crate::conduit::Conduit;
use crate::net::{Net, StreamIo, TimerIo as _};

/// What a pair has carried, each way, and why it ended.
pub(super) struct Carried {
    pub(super) bytes: [u64; 2],
    pub(super) why: String,
}

/// Runs a pair to its end.
pub(super) async fn splice<N: Net>(
    shared: &Shared<N>,
    mut a: Carrier<N::Stream>,
    mut b: Carrier<N::Stream>,
    timer: &mut N::Timer,
) -> Carried {
    let plain = matches!((&a, &b), (Carrier::Plain(_), Carrier::Plain(_)));
    let mut pair = Pair {
        shared,
        there: Direction::new::<N>(plain),
        back: Direction::new::<N>(plain),
        heard: shared.net.now(),
        quiet_at: shared.net.now() + SILENCE,
    };
    let why = poll_fn(|cx| pair.poll(cx, &mut a, &mut b, timer)).await;
    if why.is_err() {
        // A broken stream must not look like one that ended.
        a.abort();
        b.abort();
    }
    let why = why.map_or_else(|error| error.to_string(), |()| "both have ended".to_owned());
    Carried { bytes: [pair.there.bytes, pair.back.bytes], why }
}

struct Pair<'a, N: Net> {
    shared: &'a Shared<N>,
    there: Direction,
    back: Direction,
    /// When something last moved.
    heard: Instant,
    /// When to look whether anything has.
    quiet_at: Instant,
}

struct Direction {
    conduit: Conduit,
    flow: Flow,
    state: State,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The end was read; what is in the conduit is still to be written.
    Ending,
    /// The end was passed on.
    Ended,
}

/// What a direction waits for.
enum Rest {
    /// A socket, or nothing at all.
    Socket,
    /// Its turn, by the limit.
    Turn(Instant),
    /// Nothing: others have their turn first.
    More,
}

impl<N: Net> Pair<'_, N> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        a: &mut Carrier<N::Stream>,
        b: &mut Carrier<N::Stream>,
        timer: &mut N::Timer,
    ) -> Poll<io::Result<()>> {
        let now = self.shared.net.now();
        let before = self.there.bytes + self.back.bytes;
        let there = self.there.poll(cx, self.shared, now, a, b)?;
        let back = self.back.poll(cx, self.shared, now, b, a)?;
        for carrier in [a, b] {
            if let Poll::Ready(Err(error)) = carrier.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
        }
        if self.there.state == State::Ended && self.back.state == State::Ended {
            return Poll::Ready(Ok(()));
        }
        if self.there.bytes + self.back.bytes > before {
            self.heard = now;
        }
        if now >= self.quiet_at {
            self.quiet_at = self.heard + SILENCE;
            if now >= self.quiet_at {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "silent for too long")));
            }
            self.there.conduit.relax();
            self.back.conduit.relax();
        }
        let mut at = self.quiet_at;
        for rest in [there, back] {
            match rest {
                Rest::Socket => {}
                Rest::Turn(turn) => at = at.min(turn),
                Rest::More => cx.waker().wake_by_ref(),
            }
        }
        timer.wake_at(cx, Some(at));
        Poll::Pending
    }
}

impl<N: Net> Drop for Pair<'_, N> {
    fn drop(&mut self) {
        let mut bandwidth = self.shared.bandwidth();
        bandwidth.leave(&mut self.there.flow);
        bandwidth.leave(&mut self.back.flow);
    }
}

impl Direction {
    fn new<N: Net>(plain: bool) -> Self {
        let conduit = if plain { <N::Stream as StreamIo>::conduit() } else { Conduit::copying() };
        Self { conduit, flow: Flow::default(), state: State::Open, bytes: 0 }
    }

    fn poll<N: Net>(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared<N>,
        now: Instant,
        from: &mut Carrier<N::Stream>,
        to: &mut Carrier<N::Stream>,
    ) -> io::Result<Rest> {
        for _ in 0..TURNS {
            while self.conduit.held() > 0 {
                if to.poll_drain(cx, &mut self.conduit)?.is_pending() {
                    return Ok(Rest::Socket);
                }
            }
            match self.state {
                State::Open => {}
                State::Ending => {
                    self.state = State::Ended;
                    // One that was reset has ended too, and reading from it will tell.
                    let _ = to.shutdown();
                    return Ok(Rest::Socket);
                }
                State::Ended => return Ok(Rest::Socket),
            }
            let limit = match shared.limited.load(Ordering::Relaxed) {
                true => match shared.bandwidth().grant(now, &mut self.flow) {
                    Ok(limit) => limit,
                    Err(at) => return Ok(Rest::Turn(at)),
                },
                false => usize::MAX,
            };
            let filled = from.poll_fill(cx, &mut self.conduit, limit)?;
            let moved = match filled {
                Poll::Ready(0) => {
                    self.state = State::Ending;
                    0
                }
                Poll::Ready(moved) => moved,
                Poll::Pending => 0,
            };
            if limit != usize::MAX {
                shared.bandwidth().charge(now, &mut self.flow, moved);
            }
            if filled.is_pending() {
                return Ok(Rest::Socket);
            }
            self.bytes += moved as u64;
            shared.bytes.fetch_add(moved as u64, Ordering::Relaxed);
        }
        Ok(Rest::More)
    }
}

/// How long a pair may be silent: nodes ping each other every 15 s at rest.
const SILENCE: Duration = Duration::from_secs(90);
/// Conduits a direction before others on the thread have their turn.
const TURNS: usize = 8;
