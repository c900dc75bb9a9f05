//! Reading and writing whole messages on a stream, with a limit in time.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::task::Poll;
use std::time::Instant;

use crate::net::{StreamIo, TimerIo};

/// Fills `buffer`, or fails if the stream ends or `until` comes first.
pub(crate) async fn read_exact<S: StreamIo, T: TimerIo>(
    stream: &mut S,
    buffer: &mut [u8],
    timer: &mut T,
    until: Instant,
) -> io::Result<()> {
    let mut have = 0;
    poll_fn(|cx| {
        while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match stream.poll_read(cx, &mut [IoSliceMut::new(rest)]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(n)) => have += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    return timer.poll_at(cx, Some(until)).map(|()| Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Writes `bytes`, or fails if the stream ends or `until` comes first.
pub(crate) async fn write_all<S: StreamIo, T: TimerIo>(
    stream: &mut S,
    mut bytes: &[u8],
    timer: &mut T,
    until: Instant,
) -> io::Result<()> {
    poll_fn(|cx| {
        while !bytes.is_empty() {
            match stream.poll_write(cx, &[IoSlice::new(bytes)]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => bytes = bytes.get(n..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    return timer.poll_at(cx, Some(until)).map(|()| Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
