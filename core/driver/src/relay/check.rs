//! The server's checks of a relay, from outside: can it be reached, and is it the one that it says; does its UDP port
//! answer STUN?

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

use inp2p_core::ids::PublicKey;
use inp2p_core::relay::handshake::Checker;
use inp2p_core::stun::client::{Ask, Message, Transaction, read, request};
use tracing::debug;

use crate::exact::{read_exact, write_all};
use crate::net::{
    Net, RECV_BUFFER_BYTES, RecvBatch, StreamIo as _, TcpConfig, TimerIo as _, Transmit, UdpIo as _,
};

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

/// Asks addresses by STUN, from a port that nobody has heard of; those that answer.
pub(crate) async fn check_stun<N: Net>(net: &N, to: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let socket = match net.bind_udp(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)) {
        Ok(socket) => socket,
        Err(error) => {
            debug!(%error, "cannot open a socket to ask relays by STUN");
            return Vec::new();
        }
    };
    let mut transaction = Transaction::default();
    transaction.iter_mut().zip(net.seed()).for_each(|(byte, drawn)| *byte = drawn);
    let mut batch = RecvBatch::new(1, RECV_BUFFER_BYTES);
    let mut timer = net.timer();
    let mut answered = Vec::new();
    let mut at = net.now();
    for pause in PAUSES {
        for address in to.iter().filter(|address| !answered.contains(*address)) {
            // What cannot be sent is as good as lost.
            let _ = socket.try_send(&Transmit::plain(*address), &request(transaction, Ask::Proof));
        }
        at += pause;
        poll_fn(|cx| {
            for _ in 0..TURNS {
                if answered.len() == to.len() || timer.poll_at(cx, Some(at)).is_ready() {
                    return Poll::Ready(());
                }
                match socket.poll_recv(cx, &mut batch) {
                    Poll::Pending => return Poll::Pending,
                    // Such as an ICMP error: nobody is there.
                    Poll::Ready(Err(error)) => debug!(%error, "asking a relay by STUN"),
                    Poll::Ready(Ok(filled)) => {
                        for (meta, bytes) in batch.datagrams(filled) {
                            let from = SocketAddr::new(meta.from.ip().to_canonical(), meta.from.port());
                            let ours =
                                matches!(read(bytes), Some(Message::Answer(id, Ok(_))) if id == transaction);
                            if ours && to.contains(&from) && !answered.contains(&from) {
                                answered.push(from);
                            }
                        }
                    }
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    answered
}

/// Between the requests, and behind the last.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(700),
    Duration::from_secs(1),
];

/// Batches before other tasks have their turn.
const TURNS: usize = 16;

/// For all of it: a SYN and its repetitions after 1 and 3 s, and two round trips.
const TIME: Duration = Duration::from_secs(5);
