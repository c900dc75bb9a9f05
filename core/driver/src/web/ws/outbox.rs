//! What waits to be sent on a WebSocket connection: a queue that is filled without waiting.
//!
//! The control task must never wait for one slow peer, so it pushes and goes on. No message may be lost
//! either, because each is sealed under a counter: a queue that overflows ends its connection.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// The sending side of a connection. Dropping it closes the connection (1001, going away).
pub struct Outbox(Arc<Queue>);

/// The queue has no room. The connection ends; its `Closed` event follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection does not take what is sent to it")]
pub struct QueueFull;

impl Outbox {
    /// An empty queue, and the side that the connection's task reads.
    pub(crate) fn new(trusted: bool) -> (Self, Arc<Queue>) {
        let content = Content { messages: VecDeque::new(), bytes: 0, end: None, trusted };
        let queue = Arc::new(Queue { content: Mutex::new(content), reader: AtomicWaker::new() });
        (Self(queue.clone()), queue)
    }

    /// Queues one binary message. After [`Self::close`] it is dropped silently.
    pub fn send(&self, message: impl Into<Bytes>) -> Result<(), QueueFull> {
        let message = message.into();
        let mut content = self.0.lock();
        let outcome = match content.end {
            Some(End::Overflow) => return Err(QueueFull),
            Some(End::Close { .. }) => return Ok(()),
            None if content.messages.len() >= MAX_QUEUED_MESSAGES
                || content.bytes.saturating_add(message.len()) > MAX_QUEUED_BYTES =>
            {
                content.end = Some(End::Overflow);
                // They will not be sent any more: free them now and not when the blocked task notices.
                content.messages = VecDeque::new();
                content.bytes = 0;
                Err(QueueFull)
            }
            None => {
                content.bytes += message.len();
                content.messages.push_back(message);
                Ok(())
            }
        };
        drop(content);
        self.0.reader.wake();
        outcome
    }

    /// Closes the connection with a code (RFC 6455 section 7.4) and a reason of at most 123 bytes, once
    /// what was queued is out. The first call counts.
    pub fn close(&self, code: u16, reason: &'static str) {
        let mut content = self.0.lock();
        if content.end.is_none() {
            content.end = Some(End::Close { code, reason });
        }
        drop(content);
        self.0.reader.wake();
    }

    /// The peer has logged in: from now on it may send whole-sized messages, and it no longer counts as a
    /// stranger. To be called before the answer that lets the peer go on is sent.
    pub fn raise_limit(&self) {
        self.0.lock().trusted = true;
        self.0.reader.wake();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close(GOING_AWAY, "");
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

/// What both sides share.
pub(crate) struct Queue {
    content: Mutex<Content>,
    reader: AtomicWaker,
}

struct Content {
    messages: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    trusted: bool,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Close { code: u16, reason: &'static str },
    Overflow,
}

/// What the connection's task is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send this.
    Message(Bytes),
    /// All is sent: close.
    Close { code: u16, reason: &'static str },
    /// The queue ran over: drop the connection.
    Overflow,
    /// Nothing; the task will be woken.
    Nothing,
}

impl Queue {
    /// Takes what is next.
    pub(crate) fn next(&self, cx: &mut Context<'_>) -> Next {
        // Registered before looking, so that what is pushed in between is not missed.
        self.reader.register(cx.waker());
        let mut content = self.lock();
        if let Some(message) = content.messages.pop_front() {
            content.bytes -= message.len();
            if content.messages.is_empty() && content.messages.capacity() > KEPT_CAPACITY {
                content.messages = VecDeque::new();
            }
            return Next::Message(message);
        }
        match content.end {
            Some(End::Close { code, reason }) => Next::Close { code, reason },
            Some(End::Overflow) => Next::Overflow,
            None => Next::Nothing,
        }
    }

    /// Whether the queue has run over, for a task that cannot write. It is woken when that changes.
    pub(crate) fn overflowed(&self, cx: &mut Context<'_>) -> bool {
        self.reader.register(cx.waker());
        matches!(self.lock().end, Some(End::Overflow))
    }

    /// Whether [`Outbox::raise_limit`] was called.
    pub(crate) fn trusted(&self) -> bool {
        self.lock().trusted
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // A panic elsewhere leaves the content whole: every change is made at once.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Going away (RFC 6455 section 7.4.1).
pub(crate) const GOING_AWAY: u16 = 1001;
/// A node that many peers reach for at once, after a restart of the server, gets some hundreds of messages in a
/// moment; more mean that it stopped reading.
const MAX_QUEUED_MESSAGES: usize = 1024;
/// Four messages of the largest size, or 256 of 1 KiB: what one stuck node may cost the server.
const MAX_QUEUED_BYTES: usize = 256 * 1024;
/// An idle connection keeps room for this many messages and gives the rest back.
const KEPT_CAPACITY: usize = 8;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn next(queue: &Queue) -> Next {
        queue.next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn close_comes_after_what_was_queued() {
        let (outbox, queue) = Outbox::new(false);
        outbox.send(vec![1]).unwrap();
        outbox.close(4001, "replaced");
        outbox.close(1000, "second");
        outbox.send(vec![2]).unwrap();
        assert_eq!(next(&queue), Next::Message(vec![1].into()));
        assert_eq!(next(&queue), Next::Close { code: 4001, reason: "replaced" });
    }

    #[test]
    fn too_many_messages_end_the_connection() {
        let (outbox, queue) = Outbox::new(true);
        for _ in 0..MAX_QUEUED_MESSAGES {
            outbox.send(vec![0]).unwrap();
        }
        assert_eq!(outbox.send(vec![0]), Err(QueueFull));
        assert_eq!(outbox.send(vec![0]), Err(QueueFull));
        assert_eq!(next(&queue), Next::Overflow);
    }

    #[test]
    fn too_many_bytes_end_the_connection() {
        let (outbox, queue) = Outbox::new(true);
        outbox.send(vec![0; MAX_QUEUED_BYTES]).unwrap();
        assert_eq!(outbox.send(vec![0]), Err(QueueFull));
        assert!(queue.overflowed(&mut Context::from_waker(Waker::noop())));
    }

    #[test]
    fn dropping_the_outbox_closes() {
        let (outbox, queue) = Outbox::new(true);
        drop(outbox);
        assert_eq!(next(&queue), Next::Close { code: GOING_AWAY, reason: "" });
    }
}
