//! Deadlines for futures, on the clock of a [`Net`].

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::net::{Net, TimerIo};

/// The deadline came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// Runs `future` until `deadline`; it is dropped then.
pub(crate) async fn by<N: Net, F: Future>(
    net: &N,
    deadline: Instant,
    future: F,
) -> Result<F::Output, Elapsed> {
    let mut timer = net.timer();
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match expired(net, &mut timer, cx, deadline) {
            true => Poll::Ready(Err(Elapsed)),
            false => Poll::Pending,
        }
    })
    .await
}

/// Waits until `deadline`.
pub(crate) async fn sleep_until<N: Net>(net: &N, deadline: Instant) {
    let mut timer = net.timer();
    poll_fn(|cx| match expired(net, &mut timer, cx, deadline) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Lets the other tasks have a turn.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether `deadline` has come. If not, the task is woken when it does. The clock decides, and the timer
/// only wakes: a runtime may answer late, or, within its own rounding, early.
pub(crate) fn expired<N: Net>(
    net: &N,
    timer: &mut N::Timer,
    cx: &mut Context<'_>,
    deadline: Instant,
) -> bool {
    if net.now() >= deadline {
        return true;
    }
    timer.wake_at(cx, Some(deadline));
    false
}
