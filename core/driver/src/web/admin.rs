//! The way from REST to the control task, and the key that opens it.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use inp2p_core::server::io::{AdminError, AdminReply, AdminRequest};
use subtle::ConstantTimeEq;

use crate::net::{Net, Store};
use crate::web::time::by;
use crate::words::in_words;

/// A request on its way to the control task, with the place for its answer. A sender that is dropped
/// unanswered counts as "stopping".
pub type AdminCall = (AdminRequest, oneshot::Sender<Result<AdminReply, AdminError>>);

/// Asks the control task.
///
/// There is one sender in all, because each clone of a sender has a place of its own in the channel.
#[derive(Debug, Clone)]
pub struct AdminClient(Arc<Mutex<mpsc::Sender<AdminCall>>>);

impl AdminClient {
    /// A client, and where the control task finds what is asked.
    pub fn new() -> (Self, mpsc::Receiver<AdminCall>) {
        let (calls, queue) = mpsc::channel(MAX_CALLS);
        (Self(Arc::new(Mutex::new(calls))), queue)
    }

    /// Asks, and waits for the answer, but not for ever.
    pub(crate) async fn ask<N: Net>(&self, net: &N, request: AdminRequest) -> Result<AdminReply, AdminError> {
        let unavailable =
            |status, code, message: &str| AdminError { status, code, message: message.to_owned() };
        let (answer, answered) = oneshot::channel();
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner).try_send((request, answer));
        if let Err(error) = sent {
            return Err(match error.is_full() {
                true => unavailable(503, "busy", "too many requests wait already; try again"),
                false => unavailable(503, "stopping", "the server is stopping"),
            });
        }
        match by(net, net.now() + ANSWER_TIME, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable(503, "stopping", "the server is stopping")),
            Err(_) => Err(unavailable(504, "timeout", "no answer in time; what was asked may still happen")),
        }
    }
}

/// What a REST call has to show: 64 hexadecimal digits.
#[derive(Clone)]
pub struct AdminKey(String);

impl AdminKey {
    /// The key that the store keeps as `admin.key`; made if there is none.
    pub fn load_or_make<N: Net>(net: &N, store: &dyn Store) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("cannot read or write {KEY_FILE} in the folder of -data: {}", in_words(&error)),
            )
        };
        if let Some(content) = store.load(KEY_FILE).map_err(named)? {
            let key = String::from_utf8_lossy(&content).trim().to_owned();
            if key.len() == KEY_DIGITS && key.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Ok(Self(key));
            }
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{KEY_FILE} is not {KEY_DIGITS} hexadecimal digits: remove it to have a new one made"
                ),
            ));
        }
        let key: String = net.seed().iter().map(|byte| format!("{byte:02x}")).collect();
        // With a line end, for those who look at it; who reads it by `$(cat admin.key)` does not see it.
        store.save(KEY_FILE, format!("{key}\n").as_bytes()).map_err(named)?;
        Ok(Self(key))
    }

    /// Whether `shown` is the key. The time that it takes tells nothing.
    pub(crate) fn matches(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey(***)")
    }
}

/// The key's file in the store.
const KEY_FILE: &str = "admin.key";
/// 256 bits.
const KEY_DIGITS: usize = 64;
/// Calls that wait for the control task. It answers within a tick, but for those that ask a node.
const MAX_CALLS: usize = 64;
/// A node that is asked to set up a forward has 10 s, which the server watches; this is the watch's watch.
const ANSWER_TIME: Duration = Duration::from_secs(15);
