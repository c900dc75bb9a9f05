//! Timers. Only the order of things is checked, and that nothing rings before its time.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{once, pause, within};
use crate::net::{Net, TimerIo};

/// Timers ring in the order of their instants, whatever the order they were set in, and none too early.
pub async fn timers_ring_in_order<N: Net>(net: N) {
    let start = net.now();
    let mut timers = [60, 20, 40].map(|after| (start + Duration::from_millis(after), net.timer()));
    for (at, timer) in &mut timers {
        let _ = once(|cx| timer.poll_at(cx, Some(*at))).await;
    }
    // Asked from the latest to the earliest: time that passes between the questions cannot make a later one
    // look ready alone.
    timers.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let mut left = timers.len();
    let all = poll_fn(|cx| {
        let ready = timers.each_mut().map(|(at, timer)| timer.poll_at(cx, Some(*at)).is_ready());
        let now = net.now();
        assert!(ready.is_sorted(), "a later timer rang before an earlier one: {ready:?}");
        for ((at, _), ready) in timers.iter().zip(ready) {
            assert!(!ready || now >= *at, "rang early");
        }
        let pending = ready.iter().filter(|ready| !**ready).count();
        assert!(pending <= left, "a timer that rang is not ready any more");
        left = pending;
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    });
    within(&net, "the last timer", all).await;
}

/// An instant that has passed is ready at once; no instant never is.
pub async fn the_past_is_ready_and_none_never<N: Net>(net: N) {
    let mut timer = net.timer();
    assert!(once(|cx| timer.poll_at(cx, None)).await.is_pending());
    let now = net.now();
    assert!(once(|cx| timer.poll_at(cx, Some(now))).await.is_ready());
    if let Some(past) = now.checked_sub(Duration::from_secs(10)) {
        assert!(once(|cx| timer.poll_at(cx, Some(past))).await.is_ready());
    }
    assert!(once(|cx| timer.poll_at(cx, Some(now))).await.is_ready(), "ready once is ready again");
    assert!(once(|cx| timer.poll_at(cx, None)).await.is_pending());
}

/// A timer can be set earlier, later, and again after it rang.
pub async fn a_timer_can_be_set_anew<N: Net>(net: N) {
    let mut timer = net.timer();
    let far = net.now() + Duration::from_secs(3600);
    assert!(once(|cx| timer.poll_at(cx, Some(far))).await.is_pending());
    let soon = net.now() + Duration::from_millis(20);
    within(&net, "an earlier instant", poll_fn(|cx| timer.poll_at(cx, Some(soon)))).await;
    assert!(net.now() >= soon);

    let first = net.now() + Duration::from_millis(20);
    assert!(once(|cx| timer.poll_at(cx, Some(first))).await.is_pending());
    let later = first + Duration::from_millis(40);
    within(&net, "a later instant", poll_fn(|cx| timer.poll_at(cx, Some(later)))).await;
    assert!(net.now() >= later, "rang at the instant that no longer held");

    let again = net.now() + Duration::from_millis(10);
    within(&net, "an instant after it rang", poll_fn(|cx| timer.poll_at(cx, Some(again)))).await;
    assert!(net.now() >= again);
}

/// The waker of the latest call is woken, also with the same instant.
pub async fn the_latest_waker_is_woken<N: Net>(net: N) {
    let mut timer = net.timer();
    let at = net.now() + Duration::from_millis(30);
    assert!(timer.poll_at(&mut Context::from_waker(Waker::noop()), Some(at)).is_pending());
    within(&net, "the timer", poll_fn(|cx| timer.poll_at(cx, Some(at)))).await;
}

/// A timer that is dropped leaves the others alone.
pub async fn a_dropped_timer_leaves_the_others_alone<N: Net>(net: N) {
    let at = net.now() + Duration::from_millis(20);
    let mut timers: Vec<_> = (0..100).map(|_| net.timer()).collect();
    for timer in &mut timers {
        assert!(once(|cx| timer.poll_at(cx, Some(at))).await.is_pending());
    }
    let mut kept = timers.split_off(99);
    drop(timers);
    within(&net, "the kept timer", poll_fn(|cx| kept[0].poll_at(cx, Some(at)))).await;
}

/// Waiting costs no turns: a task that waits is not polled meanwhile.
pub async fn waiting_does_not_poll<N: Net>(net: N) {
    let mut polls = 0;
    let at = net.now() + Duration::from_millis(200);
    let mut timer = net.timer();
    poll_fn(|cx| {
        polls += 1;
        timer.poll_at(cx, Some(at))
    })
    .await;
    assert!(polls <= 5, "polled {polls} times in one wait");
    pause(&net, Duration::from_millis(1)).await;
}
