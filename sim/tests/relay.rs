//! Relays on the simulated network, where bytes are copied and hours cost nothing.

use std::future::{Future, poll_fn};
use std::io::{IoSlice, IoSliceMut};
use std::time::Duration;

use futures_util::future::{join_all, select};
use inp2p_driver::net::{Net, StreamIo, TimerIo};
use inp2p_driver::testkit::relay::{self, World as Relayed};
use inp2p_sim::{SimNet, World};

fn simulated<F: Future<Output = ()> + Send + 'static>(check: impl FnOnce(SimNet) -> F) {
    let world = World::new(1);
    let host = world.host("host");
    let check = check(world.net(host));
    world.block_on(host, Duration::from_secs(3600), check);
}

#[test]
fn who_waits_in_vain_is_told_so() {
    simulated(relay::who_waits_in_vain_is_told_so);
}

/// Sends as fast as it is taken.
async fn pour<N: Net>(mut stream: N::Stream) {
    let bytes = vec![7; 64 * 1024];
    loop {
        let sent = poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(&bytes)])).await;
        if sent.is_err() {
            return;
        }
    }
}

/// Counts what comes in.
async fn count<N: Net>(mut stream: N::Stream, total: &mut u64) {
    let mut buf = vec![0; 64 * 1024];
    loop {
        match poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(&mut buf)])).await {
            Ok(0) | Err(_) => return,
            Ok(n) => *total += n as u64,
        }
    }
}

#[test]
fn twenty_pairs_share_the_limit_fairly() {
    simulated(|net| async move {
        let seconds = 20;
        let world = Relayed::new(&net, 10);
        let mut totals = vec![0; 20];
        let mut readers = Vec::new();
        for (attempt, total) in totals.iter_mut().enumerate() {
            let (one, two) = world.pair(u8::try_from(attempt).unwrap()).await;
            net.spawn("pour", pour::<SimNet>(one));
            readers.push(count::<SimNet>(two, total));
        }
        let mut timer = net.timer();
        let end = net.now() + Duration::from_secs(seconds);
        let time = poll_fn(|cx| timer.poll_at(cx, Some(end)));
        drop(select(Box::pin(join_all(readers)), time).await);
        let sum: u64 = totals.iter().sum();
        let rate = sum as f64 / (seconds * 1_250_000) as f64;
        assert!((0.95..1.05).contains(&rate), "{:+.1} %", (rate - 1.0) * 100.0);
        let squares: f64 = totals.iter().map(|total| (*total as f64).powi(2)).sum();
        let jain = (sum as f64).powi(2) / (totals.len() as f64 * squares);
        assert!(jain > 0.9, "Jain {jain}: {totals:?}");
    });
}
