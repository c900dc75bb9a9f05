//! Tasks and time.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use common::LIMIT;
use inp2p_driver::net::{Net, TimerIo};
use inp2p_sim::{Fault, Time, World};

#[test]
fn tasks_run_in_the_order_in_which_they_were_woken() {
    let world = World::new(1);
    let host = world.host("a");
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..5 {
        let order = order.clone();
        world.spawn(host, "task", async move {
            let mut yielded = false;
            poll_fn(|cx| {
                order.lock().unwrap().push(number);
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
    }
    world.run_for(Duration::ZERO);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
}

#[test]
fn timers_fire_in_order_and_at_their_time() {
    let world = World::new(1);
    let host = world.host("a");
    let order = Arc::new(Mutex::new(Vec::new()));
    for (number, millis) in [30, 10, 20, 10].into_iter().enumerate() {
        let (order, net) = (order.clone(), world.net(host));
        world.spawn(host, "timer", async move {
            let start = net.now();
            net.sleep(Duration::from_millis(millis)).await;
            assert_eq!(net.now() - start, Duration::from_millis(millis));
            order.lock().unwrap().push(number);
        });
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(*order.lock().unwrap(), [1, 3, 2, 0]);
    assert_eq!(world.now(), Time::ZERO + Duration::from_secs(1));
}

#[test]
fn a_timer_in_the_past_is_ready_at_once() {
    let world = World::new(1);
    let host = world.host("a");
    let net = world.net(host);
    world.block_on(host, LIMIT, async move {
        net.sleep(Duration::from_secs(10)).await;
        let before = net.now();
        net.sleep_until(before - Duration::from_secs(5)).await;
        net.sleep_until(before - Duration::from_secs(80_000)).await;
        net.sleep_until(before).await;
        assert_eq!(net.now(), before);
    });
}

#[test]
fn a_timer_that_is_set_anew_fires_at_the_new_time_only() {
    let world = World::new(1);
    let host = world.host("a");
    let net = world.net(host);
    world.block_on(host, LIMIT, async move {
        let start = net.now();
        let mut timer = net.timer();
        let mut polls = 0;
        for target in [50, 200, 20, 100].map(Duration::from_millis) {
            poll_fn(|cx| {
                assert!(timer.poll_at(cx, Some(start + target)).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        poll_fn(|cx| {
            polls += 1;
            timer.poll_at(cx, Some(start + Duration::from_millis(100)))
        })
        .await;
        assert_eq!((net.now() - start, polls), (Duration::from_millis(100), 2));
        let never = poll_fn(|cx| Poll::Ready(timer.poll_at(cx, None))).await;
        assert!(never.is_pending());
    });
}

#[test]
fn a_task_that_spins_is_named() {
    let world = World::new(1);
    let host = world.host("spinner");
    world.spawn(host, "busy loop", async {
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })
        .await;
    });
    let panic = catch_unwind(AssertUnwindSafe(|| world.run_for(Duration::from_secs(1)))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("\"busy loop\"") && message.contains("\"spinner\""), "{message}");
}

#[test]
fn a_test_that_cannot_end_says_which_tasks_wait() {
    let world = World::new(1);
    let host = world.host("a");
    world.spawn(host, "waits for ever", std::future::pending());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        world.block_on(host, Duration::from_secs(5), std::future::pending::<()>());
    }));
    let message = panic.unwrap_err().downcast_ref::<String>().unwrap().clone();
    assert!(message.contains("waits for ever"), "{message}");
}

#[test]
fn a_crash_drops_the_tasks_of_its_host_and_of_no_other() {
    let world = World::new(1);
    let (a, b) = (world.host("a"), world.host("b"));
    let token = Arc::new(());
    for host in [a, a, b] {
        let token = token.clone();
        world.spawn(host, "holder", async move {
            let _token = token;
            std::future::pending::<()>().await;
        });
    }
    world.run_for(Duration::from_secs(1));
    world.inject(Fault::Crash(a));
    assert_eq!(Arc::strong_count(&token), 2);
    assert_eq!((world.counts(a).tasks, world.counts(b).tasks), (0, 1));
    drop(world);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn an_earlier_life_can_neither_bind_nor_spawn() {
    let world = World::new(1);
    let host = world.host("a");
    let old = world.net(host);
    world.inject(Fault::Crash(host));
    world.inject(Fault::Restart(host));
    assert!(old.bind_udp(([127, 0, 0, 1], 5000).into()).is_err());
    old.spawn("ghost", std::future::pending());
    assert_eq!(world.counts(host).tasks, 0);
    assert!(world.net(host).bind_udp(([127, 0, 0, 1], 5000).into()).is_ok());
}

#[test]
fn a_program_starts_again_with_its_host_and_finds_its_files() {
    use inp2p_driver::net::Store;
    let world = World::new(1);
    let host = world.host("a");
    world.program(host, |net| {
        let store = net.store();
        let starts = store.load("starts").unwrap().unwrap_or_default();
        store.save("starts", &[&starts[..], b"x"].concat()).unwrap();
    });
    world.inject_at(Duration::from_secs(1), Fault::Crash(host));
    world.inject_at(Duration::from_secs(2), Fault::Restart(host));
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.store(host).load("starts").unwrap().unwrap(), b"xx");
}

#[test]
fn a_sleeping_host_runs_nothing_and_catches_up_when_it_wakes() {
    let world = World::new(1);
    let host = world.host("a");
    let ticks = Arc::new(Mutex::new(Vec::new()));
    let (net, seen) = (world.net(host), ticks.clone());
    world.spawn(host, "ticker", async move {
        let start = net.now();
        loop {
            net.sleep(Duration::from_secs(1)).await;
            seen.lock().unwrap().push((net.now() - start).as_secs());
        }
    });
    world.run_for(Duration::from_millis(2500));
    world.inject(Fault::Suspend(host));
    world.run_for(Duration::from_secs(100));
    world.inject(Fault::Resume(host));
    world.run_for(Duration::from_millis(1600));
    assert_eq!(*ticks.lock().unwrap(), [1, 2, 102, 103]);
}

#[test]
fn the_wall_clock_jumps_and_the_monotonic_one_does_not() {
    let world = World::new(1);
    let host = world.host("a");
    let net = world.net(host);
    let (instant, unix) = (net.now(), net.unix_now());
    world.run_for(Duration::from_secs(5));
    world.inject(Fault::WallClock(host, -3600));
    assert_eq!(net.now() - instant, Duration::from_secs(5));
    assert_eq!(net.unix_now(), unix + Duration::from_secs(5) - Duration::from_secs(3600));
}
