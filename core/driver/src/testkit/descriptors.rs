//! What happens when descriptors run out. It changes a limit of the whole process, so the check wants a
//! process for itself.

use std::fs::File;
use std::future::poll_fn;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{accept, connect, listener, read_exact, within, write_all};
use crate::net::{ListenIo, Net};

/// With no descriptor left accepting reports it; with one free again the waiting connection is accepted.
pub async fn exhausted_descriptors_are_reported_and_pass<N: Net>(net: N) {
    let (mut listener, at) = listener(&net);
    let mut client = within(&net, "the connection", connect(&net, at)).await.unwrap();
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }

    let refused = within(&net, "the report", poll_fn(|cx| listener.poll_accept(cx))).await;
    assert_eq!(Errno::from_io_error(&refused.map(drop).unwrap_err()), Some(Errno::MFILE));

    drop(taken);
    let (mut server, _) = within(&net, "the waiting connection", accept(&mut listener)).await;
    setrlimit(Resource::Nofile, before).unwrap();
    write_all(&mut client, b"x").await;
    within(&net, "a byte", read_exact(&mut server, &mut [0])).await;
}
