//! Whole runtimes: how they begin and end, and what becomes of their tasks. Each check runs in a process of its
//! own, because it looks at what the process has, or breaks something on purpose.

use std::fs;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use super::{PATIENCE, accept, connect, listener, pair, pause, read, within, write_all};
use crate::net::{Net, StreamIo, TimerIo};

/// A runtime that can be started again and again.
pub trait Start {
    /// Its network.
    type Net: Net;

    /// Starts it, with `workers` threads where it has any, and runs what `main` returns to its end.
    fn start<F: Future>(workers: usize, main: impl FnOnce(Self::Net) -> F) -> io::Result<F::Output>;
}

/// Runs `check` in a process of its own: the same test program, asked for the one test of this path.
///
/// # Panics
/// If the check does.
pub fn alone(path: &str, check: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return check();
    }
    // The harness knows tests by their path without the crate.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    let program = std::env::current_exe().unwrap();
    let ran = Command::new(program).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("1 passed"), "{name} on its own:\n{out}\n{error}");
}

/// Tasks that are left at the end are dropped before it, with all that they hold.
pub fn tasks_left_behind_are_dropped<R: Start>() {
    let held = Arc::new(());
    let holds = Arc::clone(&held);
    R::start(2, |net| async move {
        for _ in 0..100 {
            let (holds, own) = (Arc::clone(&holds), net.clone());
            let (started, starts) = oneshot::channel();
            net.spawn("left behind", async move {
                let _held = (holds, own);
                started.send(()).unwrap();
                pending::<()>().await;
            });
            starts.await.unwrap();
        }
    })
    .unwrap();
    assert_eq!(Arc::strong_count(&held), 1);
}

/// A panic ends the task that it happens in, and no other, on one thread too.
pub fn a_panic_ends_its_own_task_only<R: Start>() {
    R::start(1, |net| async move {
        for _ in 0..10 {
            let (panics, panicked) = oneshot::channel::<()>();
            net.spawn("panics", async move {
                let _panics = panics;
                panic!("as this check wants it");
            });
            assert!(within(&net, "the panic", panicked).await.is_err());
        }
        let (works, worked) = oneshot::channel();
        net.spawn("works", async move { works.send(42).unwrap() });
        assert_eq!(within(&net, "a task after a panic", worked).await, Ok(42));
    })
    .unwrap();
}

/// A panic of the main future comes out of the start, and the tasks are dropped.
pub fn a_panic_of_main_drops_the_tasks_too<R: Start>() {
    let held = Arc::new(());
    let holds = Arc::clone(&held);
    let main = |net: R::Net| async move {
        let (started, starts) = oneshot::channel();
        net.spawn("left behind", async move {
            let _held = holds;
            started.send(()).unwrap();
            pending::<()>().await;
        });
        starts.await.unwrap();
        panic!("as this check wants it");
    };
    let ended = catch_unwind(AssertUnwindSafe(|| R::start(2, main)));
    assert!(ended.is_err());
    assert_eq!(Arc::strong_count(&held), 1);
}

/// Tasks, sockets and timers can be made on a thread that is none of the runtime's.
pub fn the_network_can_be_used_from_any_thread<R: Start>() {
    R::start(2, |net| async move {
        let (done, finished) = oneshot::channel();
        let outside = net.clone();
        let thread = thread::spawn(move || {
            let (mut listener, at) = listener(&outside);
            let mut stream = outside.connect(&Default::default(), at).unwrap();
            let at = outside.now() + Duration::from_millis(10);
            let mut timer = outside.timer();
            outside.spawn("of another thread", async move {
                poll_fn(|cx| timer.poll_at(cx, Some(at))).await;
                poll_fn(|cx| stream.poll_connected(cx)).await.unwrap();
                write_all(&mut stream, b"x").await;
                let (mut accepted, _) = accept(&mut listener).await;
                let _ = done.send(read(&mut accepted, &mut [0]).await.unwrap());
            });
        });
        assert_eq!(within(&net, "the task of another thread", finished).await, Ok(1));
        thread.join().unwrap();
    })
    .unwrap();
}

/// What a task spawns while it is dropped is dropped as well.
pub fn a_task_spawned_at_the_end_is_dropped<R: Start>() {
    struct SpawnsWhenDropped<N: Net>(N, Option<Arc<()>>);

    impl<N: Net> Drop for SpawnsWhenDropped<N> {
        fn drop(&mut self) {
            let held = self.1.take();
            self.0.spawn("too late", async move {
                let _held = held;
                pending::<()>().await;
            });
        }
    }

    let held = Arc::new(());
    let holds = Arc::clone(&held);
    let left = R::start(2, |net| async move {
        let (started, starts) = oneshot::channel();
        let last = SpawnsWhenDropped(net.clone(), Some(holds));
        net.spawn("left behind", async move {
            let _last = last;
            started.send(()).unwrap();
            pending::<()>().await;
        });
        starts.await.unwrap();
        net
    })
    .unwrap();
    assert_eq!(Arc::strong_count(&held), 1);
    left.spawn("later still", async move {
        let _held = held;
        panic!("a runtime that has ended runs no task");
    });
}

/// A runtime that has ended has closed its sockets and stopped its threads, however it was left.
pub fn ends_leave_nothing_open<R: Start>() {
    let once = || {
        R::start(2, |net| async move {
            for _ in 0..20 {
                let (mut client, mut server) = pair(&net).await;
                let own = net.clone();
                net.spawn("left in the middle", async move {
                    let (_listener, _) = listener(&own);
                    write_all(&mut client, b"x").await;
                    let _ = read(&mut client, &mut [0]).await;
                });
                read(&mut server, &mut [0]).await.unwrap();
                let own = net.clone();
                net.spawn("left waiting", async move { pause(&own, Duration::from_secs(3600)).await });
                let refused = connect(&net, server.peer_addr().unwrap()).await;
                assert!(refused.is_err());
            }
        })
        .unwrap();
    };
    // A process-wide reactor opens what it keeps at its first use.
    once();
    let before = open();
    for _ in 0..10 {
        once();
    }
    // A thread that has ended is listed for a moment longer: perhaps still in what was counted before, too.
    let more = || {
        let now = open();
        now.0 > before.0 || now.1 > before.1
    };
    let deadline = Instant::now() + PATIENCE;
    while more() && Instant::now() < deadline {
        thread::yield_now();
    }
    assert!(!more(), "descriptors and threads: {before:?}, after ten more ends {:?}", open());
}

/// How many descriptors and threads this process has; of the latter only Linux tells.
fn open() -> (usize, usize) {
    let entries = |folder: &str| fs::read_dir(folder).map_or(0, Iterator::count);
    (entries("/dev/fd"), entries("/proc/self/task"))
}

/// The variable that tells the process of [`alone`] from the one that started it.
const ALONE: &str = "INP2P_TESTKIT_ALONE";
