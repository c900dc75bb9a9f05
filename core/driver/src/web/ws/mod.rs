//! One WebSocket connection (RFC 6455) that carries signalling, on either side.
//!
//! One task owns the connection. It hands whole binary messages to the control task through a bounded
//! channel, and stops reading while that is full; it sends what the control task pushed into the
//! [`Outbox`]. The frames are tungstenite's, which is used as the state machine that it is at heart:
//! between it and the stream stands no adapter that remembers wakers, and its limits can be changed while
//! the connection lives, so that a stranger who has not logged in cannot make us hold 64 KiB.
//!
//! Text is refused (1003), a message over the limit too (1009), so are frames from a client that are not
//! masked (1002). Extensions are never negotiated, so there is no compression. Pings are answered.
//! Whether a silent peer is still there is not asked here: the heartbeats of the protocol tell.

mod outbox;
mod poll_io;
mod stream;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_channel::mpsc;
use futures_io::{AsyncRead, AsyncWrite};
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Message, WebSocket, WebSocketConfig};

use crate::net::Net;
use crate::web::slots::Slot;
use crate::web::time::{by, expired};

pub(crate) use self::stream::{WsBytes, config as bytes_config};
pub(crate) use outbox::{GOING_AWAY, Queue};
pub use outbox::{Outbox, QueueFull};
pub(crate) use poll_io::PollIo;

/// Where received messages go: a bounded channel, and the event that a message becomes in it.
pub(crate) struct Inbox<E, F> {
    pub(crate) events: mpsc::Sender<E>,
    pub(crate) event: F,
}

/// A connection whose upgrade is done.
pub(crate) struct Connection<'a, N: Net, S> {
    pub(crate) net: &'a N,
    pub(crate) socket: Box<WebSocket<PollIo<S>>>,
    pub(crate) queue: &'a Queue,
    /// Held until the peer has logged in.
    pub(crate) slot: Option<Arc<Slot>>,
}

/// The configuration of a connection whose peer has logged in, or has not.
pub(crate) fn config(trusted: bool) -> WebSocketConfig {
    let limit = Some(if trusted { MAX_MESSAGE } else { MAX_MESSAGE_BEFORE_LOGIN });
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(limit)
        .max_frame_size(limit)
}

impl<N: Net, S: AsyncRead + AsyncWrite + Unpin> Connection<'_, N, S> {
    /// Runs the connection to its end, and says why it ended, for people.
    pub(crate) async fn run<E, F: FnMut(Bytes) -> E>(mut self, mut inbox: Inbox<E, F>) -> String {
        let mut timer = self.net.timer();
        let mut blocked = None;
        let end = poll_fn(|cx| self.poll_open(cx, &mut inbox, &mut timer, &mut blocked)).await;
        // Neither the slot nor the channel is needed for what is left.
        drop(inbox);
        let (close, why) = end.explain();
        let in_order = match end {
            End::Asked { .. } | End::Refused { .. } | End::PeerClosed(_) => true,
            End::Broken(_) | End::PeerVanished | End::Stuck | End::Overflow => false,
        };
        if in_order {
            let deadline = self.net.now() + CLOSE_TIME;
            // Whether the peer takes part or not, the connection is over.
            let _ = by(self.net, deadline, self.finish(close)).await;
        }
        why
    }

    /// The connection's life up to its end.
    fn poll_open<E, F: FnMut(Bytes) -> E>(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Inbox<E, F>,
        timer: &mut N::Timer,
        blocked: &mut Option<Instant>,
    ) -> Poll<End> {
        self.socket.get_mut().set_waker(cx.waker());
        if let Poll::Ready(end) = self.poll_send(cx, timer, blocked) {
            return Poll::Ready(end);
        }
        self.poll_receive(cx, inbox)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut N::Timer,
        blocked: &mut Option<Instant>,
    ) -> Poll<End> {
        for _ in 0..BUDGET {
            // One message at a time, so that the time that a blocked write may take is a message's own.
            match self.socket.flush() {
                Ok(()) => *blocked = None,
                Err(error) if would_block(&error) => {
                    if self.queue.overflowed(cx) {
                        return Poll::Ready(End::Overflow);
                    }
                    let since = *blocked.get_or_insert_with(|| self.net.now());
                    return match expired(self.net, timer, cx, since + WRITE_TIME) {
                        true => Poll::Ready(End::Stuck),
                        false => Poll::Pending,
                    };
                }
                Err(error) => return Poll::Ready(End::from(error)),
            }
            let next = self.queue.next(cx);
            if self.slot.is_some() && self.queue.trusted() {
                self.slot = None;
                self.socket.set_config(|current| *current = config(true));
            }
            match next {
                outbox::Next::Message(message) => match self.socket.write(Message::Binary(message)) {
                    Ok(()) => {}
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Poll::Ready(End::from(error)),
                },
                outbox::Next::Close { code, reason } => return Poll::Ready(End::Asked { code, reason }),
                outbox::Next::Overflow => return Poll::Ready(End::Overflow),
                outbox::Next::Nothing => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_receive<E, F: FnMut(Bytes) -> E>(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Inbox<E, F>,
    ) -> Poll<End> {
        for _ in 0..BUDGET {
            match inbox.events.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(End::Asked { code: GOING_AWAY, reason: "" }),
                Poll::Pending => return Poll::Pending,
            }
            match self.socket.read() {
                Ok(Message::Binary(message)) => {
                    let event = (inbox.event)(message);
                    if inbox.events.start_send(event).is_err() {
                        return Poll::Ready(End::Asked { code: GOING_AWAY, reason: "" });
                    }
                }
                Ok(Message::Text(_)) => {
                    return Poll::Ready(End::Refused {
                        code: CloseCode::Unsupported,
                        reason: "binary messages only",
                    });
                }
                // Reading on sends the pong.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(frame)) => return Poll::Ready(End::PeerClosed(frame)),
                Err(error) if would_block(&error) => return Poll::Pending,
                Err(error) => return Poll::Ready(End::from(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends the close frame, ends our direction, and takes what still comes until the peer ends its own:
    /// closing a TCP connection with unread bytes resets it, and the peer might lose the close frame.
    async fn finish(&mut self, frame: Option<CloseFrame>) -> io::Result<()> {
        let mut frame = Some(frame);
        poll_fn(|cx| {
            self.socket.get_mut().set_waker(cx.waker());
            let sent = match frame.take() {
                Some(frame) => self.socket.close(frame),
                None => self.socket.flush(),
            };
            match sent {
                Err(error) if would_block(&error) => Poll::Pending,
                Ok(()) | Err(_) => Poll::Ready(()),
            }
        })
        .await;
        poll_fn(|cx| self.socket.get_mut().io().poll_close(cx)).await?;
        let mut left = DRAIN_BYTES;
        while left > 0 {
            let mut scratch = [0; 512];
            match poll_fn(|cx| self.socket.get_mut().io().poll_read(cx, &mut scratch)).await? {
                0 => break,
                taken => left = left.saturating_sub(taken),
            }
        }
        Ok(())
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// Our side closed it.
    Asked { code: u16, reason: &'static str },
    /// The peer broke a rule.
    Refused { code: CloseCode, reason: &'static str },
    /// The peer closed it in order.
    PeerClosed(Option<CloseFrame>),
    /// The peer's end of stream came without a close frame.
    PeerVanished,
    /// The stream failed.
    Broken(io::Error),
    /// One message could not be written in [`WRITE_TIME`].
    Stuck,
    /// More was queued than a connection may cost.
    Overflow,
}

impl End {
    /// The close frame that tells the peer, and the sentence that tells people.
    fn explain(&self) -> (Option<CloseFrame>, String) {
        match self {
            Self::Asked { code, reason } => {
                let frame = CloseFrame { code: (*code).into(), reason: (*reason).into() };
                (Some(frame), format!("closed by this side ({code} {reason})"))
            }
            Self::Refused { code, reason } => {
                let frame = CloseFrame { code: *code, reason: (*reason).into() };
                (Some(frame), format!("the other side broke the WebSocket rules: {reason}"))
            }
            Self::PeerClosed(None) => (None, "closed by the other side".to_owned()),
            Self::PeerClosed(Some(frame)) => {
                // The reason comes from outside: escaped, it stays on one line and says nothing to a
                // terminal. Its length is bounded by the frame's.
                let reason = frame.reason.as_str().escape_debug();
                (None, format!("closed by the other side ({} {reason})", u16::from(frame.code)))
            }
            Self::PeerVanished => (None, "the connection was cut off".to_owned()),
            Self::Broken(error) => (None, format!("the connection broke: {error}")),
            Self::Stuck => (None, format!("the other side took nothing for {} s", WRITE_TIME.as_secs())),
            Self::Overflow => (None, "the other side took too little of what was sent to it".to_owned()),
        }
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                Self::Refused { code: CloseCode::Size, reason: "message too long" }
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | Error::ConnectionClosed
            | Error::AlreadyClosed => Self::PeerVanished,
            Error::Protocol(ProtocolError::UnmaskedFrameFromClient) => {
                Self::Refused { code: CloseCode::Protocol, reason: "frame not masked" }
            }
            Error::Protocol(_) => Self::Refused { code: CloseCode::Protocol, reason: "protocol error" },
            Error::Utf8(_) => Self::Refused { code: CloseCode::Invalid, reason: "not UTF-8" },
            Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::PeerVanished,
            Error::Io(error) => Self::Broken(error),
            // Not met once the upgrade is done; the enum belongs to another crate.
            other => Self::Broken(io::Error::other(other.to_string())),
        }
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The largest message of the signalling protocol is 64 KiB; what sealing adds comes on top.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024 + 64;
/// The login's messages have less than 1 KiB. A stranger gets no more.
pub(crate) const MAX_MESSAGE_BEFORE_LOGIN: usize = 4 * 1024;
/// A usual message fits. An idle connection keeps it, so it is not larger; long messages take several reads.
const READ_BUFFER: usize = 2 * 1024;
/// One message of any size, its frame header, and the pongs that wait behind it.
const WRITE_BUFFER: usize = 2 * MAX_MESSAGE_SENT;
/// What the queue takes at most in one message ([`Outbox::send`]); above what a peer would take.
const MAX_MESSAGE_SENT: usize = 256 * 1024;
/// How long one message may wait for the peer to take it. It is as long as a login may take: a peer that
/// is slower than 64 KiB in 10 s cannot follow anyway.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long the peer has to answer a close; then the connection is dropped.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// What is taken from a peer that still sends into a connection that we have closed: four messages.
const DRAIN_BYTES: usize = 256 * 1024;
/// Messages a direction before other tasks get their turn.
const BUDGET: usize = 32;
