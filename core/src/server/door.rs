//! Connections that have not logged in: who is at the door, how far each has come, and how long it may stay.
//!
//! Each has ten seconds for the two messages of a login, one after the other, in clear, of at most
//! [`MAX_CLEAR`](crate::wire::MAX_CLEAR) bytes; anything else ends it. How many there are is bounded, in all
//! and by where they come from. Loopback has only the first bound: whoever can connect from there is on the
//! server's host already, and a proxy on it that is not configured as trusted must not be cut off with all
//! who come through it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::config::{Caps, ServerConfig};
use super::failures::{Failures, Source};
use crate::auth::LoginError;
use crate::auth::login::{HELLO_REQUEST, PROOF_REQUEST, ServerLogin, ServerProved};
use crate::due::Due;
use crate::ids::ConnId;
use crate::rng::Rng;
use crate::wire::encode;
use crate::wire::message::{Code, Refused};

/// Those who are at the door.
#[derive(Debug)]
pub(super) struct Door {
    visitors: BTreeMap<ConnId, Visitor>,
    from: BTreeMap<Source, usize>,
    due: Due<ConnId>,
    failures: Failures,
    rng: Rng,
}

#[derive(Debug)]
struct Visitor {
    remote: SocketAddr,
    until: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It has said nothing yet.
    Silent,
    /// It has been challenged.
    Challenged(Box<ServerLogin>),
}

/// What comes of a message.
#[derive(Debug)]
pub(super) enum Step {
    /// The login goes on.
    Answer(Vec<u8>),
    /// Token and identity are proven. The visitor has left the door.
    Proven(SocketAddr, Box<ServerProved>),
    /// The login failed. The visitor has left the door.
    Failed {
        /// What to say, in clear.
        answer: Vec<u8>,
        /// Why, for the log and the close frame.
        reason: &'static str,
    },
}

impl Door {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            visitors: BTreeMap::new(),
            from: BTreeMap::new(),
            due: Due::default(),
            failures: Failures::default(),
            rng,
        }
    }

    /// Lets a connection in, if there is room.
    pub(super) fn enter(&mut self, now: Instant, conn: ConnId, remote: SocketAddr, caps: &Caps) -> bool {
        let source = Source::of(remote.ip());
        let there = self.from.get(&source).copied().unwrap_or(0);
        let full = self.visitors.len() >= caps.unauthenticated
            || there >= caps.unauthenticated_per_address && !source.is_loopback();
        if full || self.visitors.contains_key(&conn) {
            return false;
        }
        let until = now + LOGIN_TIMEOUT;
        self.put(conn, Visitor { remote, until, stage: Stage::Silent });
        true
    }

    /// The connection is gone, or has gone through. Says whether it was there.
    pub(super) fn leave(&mut self, conn: ConnId) -> bool {
        self.take(conn).is_some()
    }

    /// All who are there.
    pub(super) fn conns(&self) -> Vec<ConnId> {
        self.visitors.keys().copied().collect()
    }

    /// Takes in a message of a connection that is at the door; none if it is not.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        conn: ConnId,
        message: &[u8],
        config: &ServerConfig,
    ) -> Option<Step> {
        let visitor = self.take(conn)?;
        let source = Source::of(visitor.remote.ip());
        let request = match visitor.stage {
            Stage::Silent => HELLO_REQUEST,
            Stage::Challenged(_) => PROOF_REQUEST,
        };
        // Asked at both steps: many logins of one address may be on their way at once.
        if let Some(left) = self.failures.blocked(now, source) {
            let text =
                format!("too many failed logins from this address; try again in {} s", left.as_secs() + 1);
            return Some(failed(
                request,
                &Refused::new(Code::TooManyFailures, text),
                "too many failed logins",
            ));
        }
        let step = match visitor.stage {
            Stage::Silent => {
                let token = |user: &_| config.users.get(user).cloned();
                let challenge = ServerLogin::challenge(message, token, &config.identity, &mut self.rng);
                challenge.map(|(login, answer)| {
                    let stage = Stage::Challenged(Box::new(login));
                    self.put(conn, Visitor { stage, ..visitor });
                    Step::Answer(answer)
                })
            }
            Stage::Challenged(login) => {
                login.prove(message).map(|proved| Step::Proven(visitor.remote, Box::new(proved)))
            }
        };
        Some(step.unwrap_or_else(|error| {
            // Only these two tell the other side whether it guessed right.
            if matches!(error, LoginError::WrongToken | LoginError::BadNodeSignature) {
                self.failures.failed(now, source);
            }
            tracing::debug!(?conn, remote = %visitor.remote, %error, "login failed");
            failed(request, &error.refusal(), "login failed")
        }))
    }

    /// The next connection whose time is over. It has left the door.
    pub(super) fn expire(&mut self, now: Instant) -> Option<ConnId> {
        while let Some(conn) = self.due.pop(now) {
            if self.leave(conn) {
                return Some(conn);
            }
        }
        None
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.due.next().map(|at| (at, "login of a node"))
    }

    fn put(&mut self, conn: ConnId, visitor: Visitor) {
        let source = Source::of(visitor.remote.ip());
        *self.from.entry(source).or_default() += 1;
        self.due.insert(visitor.until, conn);
        self.visitors.insert(conn, visitor);
    }

    fn take(&mut self, conn: ConnId) -> Option<Visitor> {
        let visitor = self.visitors.remove(&conn)?;
        self.due.remove(visitor.until, conn);
        let source = Source::of(visitor.remote.ip());
        if let Some(there) = self.from.get_mut(&source) {
            *there = there.saturating_sub(1);
            if *there == 0 {
                self.from.remove(&source);
            }
        }
        Some(visitor)
    }

    /// Addresses that are remembered for failed logins.
    pub(super) fn failures(&self) -> usize {
        self.failures.len()
    }

    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.from.values().sum::<usize>(), self.visitors.len());
        self.visitors.len().max(self.due.len())
    }
}

fn failed(request: u32, refused: &Refused, reason: &'static str) -> Step {
    Step::Failed { answer: encode(request, refused), reason }
}

/// How long a login may take, from the opened connection on: two round trips on the worst of lines.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
