//! What waiting costs. It measures the whole process, so the check wants a process for itself.

use std::fs;
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::time::Duration;

use futures_util::future;
use rustix::time::{ClockId, clock_gettime};

use super::{LOOPBACK_V4, accept, any_port, connect, listener, pair, pause, read, within, write_all};
use crate::net::{ListenIo, Net, RECV_BUFFER_BYTES, RecvBatch, StreamIo, TimerIo, UdpIo};

/// Tasks that wait on listeners, streams, datagrams and timers, all of which were busy once, take no processor
/// time. A loop that spins takes all of a processor; one that only looks now and then is found by how often it
/// does, on Linux.
pub async fn waiting_takes_no_processor_time<N: Net>(net: N) {
    let mut busy = Vec::new();
    for _ in 0..100 {
        let (mut client, mut server) = pair(&net).await;
        let (own, (mut listener, at)) = (net.clone(), listener(&net));
        let (ready, waits) = futures_channel::oneshot::channel();
        busy.push(waits);
        net.spawn("waits", async move {
            let udp = own.bind_udp(any_port(LOOPBACK_V4)).unwrap();
            let mut batch = RecvBatch::new(1, RECV_BUFFER_BYTES);
            let far = own.now() + Duration::from_secs(3600);
            let mut timer = own.timer();
            let mut buf = [0; 4096];
            write_all(&mut client, &buf).await;
            let (passing, _) = future::join(connect(&own, at), accept(&mut listener)).await;
            drop(passing);
            // A part of it only: the rest stays in the kernel, and is no news.
            read(&mut server, &mut buf[..100]).await.unwrap();
            let _ = ready.send(());
            let forever = future::join4(
                poll_fn(|cx| client.poll_read(cx, &mut [IoSliceMut::new(&mut buf)]).map(drop)),
                poll_fn(|cx| listener.poll_accept(cx).map(drop)),
                poll_fn(|cx| udp.poll_recv(cx, &mut batch).map(drop)),
                poll_fn(|cx| timer.poll_at(cx, Some(far))),
            );
            forever.await;
            drop(server);
        });
    }
    within(&net, "the tasks to wait", future::join_all(busy)).await;
    // What the beginning has left to do is done.
    pause(&net, Duration::from_millis(100)).await;
    let (time, waits) = (processor_time(), waits_begun());
    pause(&net, Duration::from_secs(1)).await;
    let (time, waits) = (processor_time() - time, waits_begun() - waits);
    assert!(time < ALMOST_NOTHING, "a second of waiting took {time:?} of processor time");
    assert!(waits < A_FEW, "a second of waiting was {waits} short ones");
}

/// Of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// How often any thread of this process has begun to wait; only Linux tells.
fn waits_begun() -> u64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let of_one = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    };
    statuses.filter_map(of_one).sum()
}

/// Two wake-ups (the timer that is waited for, and a reactor's own) are well below it, on any machine.
const ALMOST_NOTHING: Duration = Duration::from_millis(20);

/// The same two wake-ups, each of which may go through several threads, are about five; a loop that looks every
/// hundredth of a second begins to wait a hundred times.
const A_FEW: u64 = 50;
