//! What every [`Net`] must do: a set of checks that any implementation is held against, be it a runtime's or
//! the simulator's.
//!
//! A check is an async function that takes the network and panics when a claim does not hold; its name is
//! the claim. [`crate::runtime_conformance`] makes a test of each for a runtime, and
//! [`crate::net_conformance`] for a network that is no runtime's. No check measures how long something took; each
//! has a deadline ([`PATIENCE`]), after which something that was waited for has been lost.
//!
//! [`local`], [`descriptors`] and [`idle`] are about this machine's own files, limits and processor, and
//! [`runtime`] about beginning and end: a simulated network has none of these.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a check that fails panics: it is a test")]
#![allow(clippy::unused_async, reason = "all checks have the same shape")]

pub mod cancel;
pub mod descriptors;
pub mod idle;
pub mod listeners;
pub mod load;
pub mod local;
pub mod relay;
pub mod runtime;
pub mod streams;
mod suite;
pub mod timers;
pub mod udp;

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{self, Either};

use crate::net::{ListenIo, Net, StreamIo, TcpConfig, TimerIo};

/// How long a check waits for what must come. Nothing takes a second on an idle machine; the rest is for
/// machines that are busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `future`'s result.
///
/// # Panics
/// If it does not come within [`PATIENCE`].
pub async fn within<N: Net, F: Future>(net: &N, what: &str, future: F) -> F::Output {
    let deadline = net.now() + PATIENCE;
    let mut timer = net.timer();
    let expired = poll_fn(|cx| timer.poll_at(cx, Some(deadline)));
    match future::select(pin!(future), pin!(expired)).await {
        // What is found ready only because the deadline had it looked at was not announced.
        Either::Left((output, _)) if net.now() < deadline => output,
        _ => panic!("waited in vain for {what}"),
    }
}

/// Waits for `duration`, for what must *not* happen meanwhile.
async fn pause<N: Net>(net: &N, duration: Duration) {
    let at = net.now() + duration;
    let mut timer = net.timer();
    poll_fn(|cx| timer.poll_at(cx, Some(at))).await;
}

/// A listener on the loopback address, on a port that the system chooses.
fn listener<N: Net>(net: &N) -> (N::Listener, SocketAddr) {
    let config = TcpConfig { local: Some(any_port(LOOPBACK_V4)), ..TcpConfig::default() };
    let listener = net.listen(&config).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// Listens on `at`, which was in use before. Other checks of this process start programs, which hold copies of all
/// its sockets for a moment, and may be given the port themselves: so it is tried until it succeeds.
async fn listen_again<N: Net>(net: &N, at: SocketAddr) -> N::Listener {
    let config = TcpConfig { local: Some(at), ..TcpConfig::default() };
    within(net, "the port to be free", async {
        loop {
            match net.listen(&config) {
                Ok(listener) => return listener,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
            }
            pause(net, Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Two ends of a connection: the one that connected, the one that accepted.
async fn pair<N: Net>(net: &N) -> (N::Stream, N::Stream) {
    let (mut listener, at) = listener(net);
    let (connected, accepted) = future::join(connect(net, at), accept(&mut listener)).await;
    (connected.unwrap(), accepted.0)
}

async fn connect<N: Net>(net: &N, to: SocketAddr) -> io::Result<N::Stream> {
    let mut stream = net.connect(&TcpConfig::default(), to)?;
    poll_fn(|cx| stream.poll_connected(cx)).await?;
    Ok(stream)
}

async fn accept<L: ListenIo>(listener: &mut L) -> (L::Stream, SocketAddr) {
    poll_fn(|cx| listener.poll_accept(cx)).await.unwrap()
}

async fn read(stream: &mut impl StreamIo, buf: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(buf)])).await
}

async fn read_exact(stream: &mut impl StreamIo, buf: &mut [u8]) {
    let mut filled = 0;
    while filled < buf.len() {
        let read = read(stream, &mut buf[filled..]).await.unwrap();
        assert_ne!(read, 0, "the stream ended {} bytes early", buf.len() - filled);
        filled += read;
    }
}

async fn read_to_end(stream: &mut impl StreamIo) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buf = vec![0; 64 * 1024];
    loop {
        match read(stream, &mut buf).await? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

async fn write_all(stream: &mut impl StreamIo, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(bytes)])).await.unwrap();
        bytes = &bytes[written..];
    }
}

/// What `poll` says now; a `Pending` leaves no waker behind.
async fn once<T>(mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<T>) -> Poll<T> {
    poll_fn(|cx| Poll::Ready(poll(cx))).await
}

/// `len` bytes that differ enough for a lost or doubled one to show.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// Whether the host has IPv6 on its loopback interface. Checks skip that half where it has not.
fn has_v6<N: Net>(net: &N) -> bool {
    let v6 = net.interfaces().is_ok_and(|all| all.iter().any(|one| one.address == LOOPBACK_V6));
    if !v6 {
        tracing::warn!("this host has no IPv6 loopback address: the IPv6 half is skipped");
    }
    v6
}

fn any_port(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 0)
}

const LOOPBACK_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
