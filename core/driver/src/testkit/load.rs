//! Many at once: no wake-up is lost, thousands of sockets are no trouble, and nobody spins.

use std::future::poll_fn;
use std::io::IoSliceMut;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_channel::mpsc;
use futures_util::future::{self, Either};
use futures_util::{FutureExt, StreamExt};

use super::{PATIENCE, accept, connect, listener, pair, pause, read_exact, within, write_all};
use crate::net::{Net, StreamIo};
use crate::os::raise_descriptor_limit;

/// Two hundred tasks play ping-pong in pairs. One lost wake-up stops a pair for ever.
pub async fn no_wake_up_is_lost<N: Net>(net: N) {
    const PAIRS: usize = 100;
    const ROUNDS: u32 = 300;
    let (done, mut finished) = mpsc::unbounded();
    for _ in 0..PAIRS {
        let (client, server) = pair(&net).await;
        for (mut stream, serves) in [(client, true), (server, false)] {
            let done = done.clone();
            net.spawn("ping-pong", async move {
                let mut ball = [0; 4];
                for round in 0..ROUNDS {
                    if serves {
                        write_all(&mut stream, &round.to_be_bytes()).await;
                    }
                    read_exact(&mut stream, &mut ball).await;
                    assert_eq!(u32::from_be_bytes(ball), round);
                    if !serves {
                        write_all(&mut stream, &ball).await;
                    }
                }
                let _ = done.unbounded_send(());
            });
        }
    }
    drop(done);
    let count = within(&net, "the last ping-pong", finished.by_ref().count()).await;
    assert_eq!(count, 2 * PAIRS);
}

/// Tasks on other threads wake each other through sockets while the sockets move from task to task.
pub async fn a_socket_can_move_between_tasks<N: Net>(net: N) {
    let (client, mut server) = pair(&net).await;
    let (pass, mut passed) = mpsc::unbounded();
    let _ = pass.unbounded_send(client);
    within(&net, "every hand-over", async {
        for round in 0..200_u8 {
            let mut client = passed.next().await.unwrap();
            let pass = pass.clone();
            let (waits, waiting) = futures_channel::oneshot::channel();
            net.spawn("holder", async move {
                let mut waits = Some(waits);
                let mut buf = [0];
                let read = poll_fn(|cx| {
                    let read = client.poll_read(cx, &mut [IoSliceMut::new(&mut buf)]);
                    let _ = waits.take().map(|waits| waits.send(()));
                    read
                });
                assert_eq!(read.await.unwrap(), 1);
                assert_eq!(buf, [round]);
                let _ = pass.unbounded_send(client);
            });
            waiting.await.unwrap();
            write_all(&mut server, &[round]).await;
        }
    })
    .await;
}

/// A thousand connections (two thousand sockets) are open at the same time, and each carries bytes.
pub async fn two_thousand_sockets_are_open_at_once<N: Net>(net: N) {
    let limit = raise_descriptor_limit();
    // Other checks run beside this one in the same process: it leaves them more than half.
    let count = usize::try_from(limit / 5).unwrap_or(usize::MAX).min(1000);
    if count < 1000 {
        tracing::warn!(limit, count, "fewer connections than wanted: the limit of descriptors is low");
    }
    let (mut listener, at) = listener(&net);
    let echo = net.clone();
    net.spawn("acceptor", async move {
        for _ in 0..count {
            let (mut server, _) = accept(&mut listener).await;
            echo.spawn("echo", async move {
                let mut number = [0; 8];
                for _ in 0..2 {
                    read_exact(&mut server, &mut number).await;
                    write_all(&mut server, &number).await;
                }
            });
        }
    });
    within(&net, "all connections", async {
        let opened = future::join_all((0..count).map(|_| connect(&net, at))).await;
        let mut open: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
        for _ in 0..2 {
            let carry = open.iter_mut().enumerate().map(|(i, stream)| async move {
                let number = (i as u64).to_be_bytes();
                write_all(stream, &number).await;
                let mut back = [0; 8];
                read_exact(stream, &mut back).await;
                assert_eq!(back, number);
            });
            future::join_all(carry).await;
        }
    })
    .await;
}

/// Connections come and go five thousand times: registering is cheap and nothing is left over.
pub async fn connections_come_and_go<N: Net>(net: N) {
    const TOTAL: usize = 5000;
    const AT_ONCE: usize = 50;
    raise_descriptor_limit();
    let (mut listener, at) = listener(&net);
    let echo = net.clone();
    net.spawn("acceptor", async move {
        for _ in 0..TOTAL {
            let (mut server, _) = accept(&mut listener).await;
            echo.spawn("echo", async move {
                let mut byte = [0];
                read_exact(&mut server, &mut byte).await;
                write_all(&mut server, &byte).await;
            });
        }
    });
    let one = async |i: usize| {
        let mut stream = connect(&net, at).await.unwrap();
        write_all(&mut stream, &[i as u8]).await;
        let mut byte = [0];
        read_exact(&mut stream, &mut byte).await;
        assert_eq!(byte, [i as u8]);
        // A reset leaves no TIME_WAIT, so the check does not eat up the host's ports.
        stream.abort();
    };
    let lanes = (0..AT_ONCE).map(|_| async {
        for i in 0..TOTAL / AT_ONCE {
            one(i).await;
        }
    });
    within(&net, "the last connection", future::join_all(lanes)).await;
}

/// A task whose socket and timer are idle is left alone, also after the socket was busy.
pub async fn an_idle_socket_does_not_wake_its_task<N: Net>(net: N) {
    let (mut client, mut server) = pair(&net).await;
    let mut buf = [0; 16];
    write_all(&mut client, &buf).await;
    read_exact(&mut server, &mut buf).await;
    let mut polls = 0;
    let idle = poll_fn(|cx| {
        polls += 1;
        server.poll_read(cx, &mut [IoSliceMut::new(&mut buf)])
    });
    match future::select(pin!(idle), pin!(pause(&net, Duration::from_millis(200)))).await {
        Either::Left(_) => panic!("an idle socket had something to read"),
        Either::Right(_) => {}
    }
    assert!(polls <= 5, "polled {polls} times while nothing happened");
}

/// A task that always has work lets the others run.
pub async fn a_busy_task_starves_nobody<N: Net>(net: N) {
    let (mut client, mut server) = pair(&net).await;
    let deadline = net.now() + PATIENCE;
    let (stop, mut stopped) = futures_channel::oneshot::channel::<()>();
    let clock = net.clone();
    net.spawn("busy", async move {
        poll_fn(|cx| {
            if clock.now() > deadline || stopped.poll_unpin(cx).is_ready() {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    });
    write_all(&mut client, b"x").await;
    within(&net, "a byte beside a busy task", read_exact(&mut server, &mut [0])).await;
    drop(stop);
}
