//! Tasks on smol: how they end.

use std::future::pending;
use std::sync::Arc;

use futures_channel::oneshot;
use inp2p_driver::net::Net;
use inp2p_runtime_smol::run;

#[test]
fn tasks_left_behind_are_dropped() {
    let held = Arc::new(());
    run(2, |net| {
        let held = Arc::clone(&held);
        async move {
            let own = net.clone();
            let (started, starts) = oneshot::channel();
            net.spawn("left behind", async move {
                let _held = (held, own);
                started.send(()).unwrap();
                pending::<()>().await;
            });
            starts.await.unwrap();
        }
    })
    .unwrap();
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_panic_ends_its_own_task_only() {
    run(1, |net| async move {
        let (panics, panicked) = oneshot::channel::<()>();
        net.spawn("panics", async move {
            let _panics = panics;
            panic!("as this test wants it");
        });
        assert!(panicked.await.is_err());
        let (works, worked) = oneshot::channel();
        net.spawn("works", async move { works.send(42).unwrap() });
        assert_eq!(worked.await, Ok(42));
    })
    .unwrap();
}
