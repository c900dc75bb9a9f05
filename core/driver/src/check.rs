//! The server's look at a relay: connects to it once and has it prove its key, see
//! [`inp2p_core::relay::check`].

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use inp2p_core::ids::PublicKey;
use inp2p_core::relay::check;

use crate::exact::{read_exact, write_all};
use crate::net::{Net, StreamIo as _, TcpConfig, TimerIo as _};

/// How long the relay took to answer, or why it did not, for people.
pub(crate) async fn relay<N: Net>(net: N, to: SocketAddr, key: PublicKey) -> Result<Duration, String> {
    let nonce = net.seed();
    let mut timer = net.timer();
    let until = net.now() + PATIENCE;
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{to} refuses connections"),
        io::ErrorKind::TimedOut => format!("{to} does not answer"),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => format!("{to} is no relay"),
        _ => format!("{to}: {error}"),
    };
    let mut stream = net.connect(&TcpConfig::default(), to).map_err(explain)?;
    let connected = poll_fn(|cx| match stream.poll_connected(cx) {
        Poll::Ready(connected) => Poll::Ready(connected),
        Poll::Pending => timer.poll_at(cx, Some(until)).map(|()| Err(io::ErrorKind::TimedOut.into())),
    });
    connected.await.map_err(explain)?;

    let begun = net.now();
    write_all(&mut stream, &check::CHECK_OPENING, &mut timer, until).await.map_err(explain)?;
    let mut challenge = [0; check::CHECK_CHALLENGE];
    read_exact(&mut stream, &mut challenge, &mut timer, until).await.map_err(explain)?;
    let rtt = net.now().saturating_duration_since(begun);
    if !check::is_challenge(&challenge) {
        return Err(format!("{to} is no relay of this version"));
    }
    write_all(&mut stream, &check::request(&nonce), &mut timer, until).await.map_err(explain)?;
    let mut answer = [0; check::CHECK_ANSWER];
    read_exact(&mut stream, &mut answer, &mut timer, until).await.map_err(explain)?;
    if check::proves(&key, &nonce, &answer) { Ok(rtt) } else { Err(format!("{to} is another node's relay")) }
}

/// How long a look may take: three round trips on a bad line, and a lost SYN.
const PATIENCE: Duration = Duration::from_secs(5);
