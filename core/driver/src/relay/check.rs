//! The server's check of a relay, from outside: can it be reached, and is it the one that it says?

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use inp2p_core::ids::PublicKey;
use inp2p_core::relay::handshake::Checker;

use crate::exact::{read_exact, write_all};
use crate::net::{Net, StreamIo as _, TcpConfig, TimerIo as _};

/// Connects to what should be the relay of that key; how long it took to answer.
///
/// # Errors
/// Why it is of no use, for people.
pub async fn check<N: Net>(net: &N, to: SocketAddr, key: PublicKey) -> Result<Duration, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => format!("{to} does not answer"),
        io::ErrorKind::ConnectionRefused => format!("{to} refuses connections"),
        _ => format!("{to}: {error}"),
    };
    let deadline = net.now() + TIME;
    let mut timer = net.timer();
    let mut stream = net.connect(&TcpConfig::default(), to).map_err(failed)?;
    poll_fn(|cx| match stream.poll_connected(cx) {
        Poll::Pending => timer.poll_at(cx, Some(deadline)).map(|()| Err(io::ErrorKind::TimedOut.into())),
        ready => ready,
    })
    .await
    .map_err(failed)?;
    let mut out = Vec::new();
    let mut checker = Checker::new(key, net.seed(), &mut out);
    let asked = net.now();
    let mut rtt = None;
    loop {
        write_all(&mut stream, &out, &mut timer, deadline).await.map_err(failed)?;
        let mut bytes = vec![0; checker.wants()];
        read_exact(&mut stream, &mut bytes, &mut timer, deadline).await.map_err(failed)?;
        // The challenge comes at once; what follows it is arithmetic.
        let rtt = *rtt.get_or_insert(net.now().saturating_duration_since(asked));
        out.clear();
        if checker.receive(&bytes, &mut out).map_err(|error| format!("{to}: {error}"))? {
            return Ok(rtt);
        }
    }
}

/// For all of it: a SYN and its repetitions after 1 and 3 s, and two round trips.
const TIME: Duration = Duration::from_secs(5);
