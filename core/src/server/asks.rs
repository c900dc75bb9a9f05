//! The requests that the server issues, and what is waiting for each answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::due::Due;
use crate::ids::{AttemptId, ConnId};
use crate::wire::message::{self, Message};

/// What was asked, and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// To begin an attempt; nobody waits.
    PunchStart(AttemptId),
    /// To take note of peers that came online; nobody waits.
    PeerOnline,
    /// To take new relay secrets; nobody waits.
    RelayKeys,
    /// To take note of whether its relay can be reached; nobody waits.
    RelayCheck,
    /// To meet a peer at a relay; nobody waits.
    RelayOffer(AttemptId),
    /// To take note of a relay that came; nobody waits.
    RelayNews,
    /// To take note of whom it is shared with; nobody waits.
    Shares,
    /// To set a forward up or take it away; a REST call waits.
    PushForward {
        /// The call.
        admin: u64,
        /// Whether the forward is taken away.
        removes: bool,
    },
}

impl Asked {
    /// The kind of the reply that grants it.
    pub(super) fn reply_kind(&self) -> u16 {
        match self {
            Self::PunchStart(_) => message::PunchStartReply::KIND,
            Self::PeerOnline => message::PeerOnlineReply::KIND,
            Self::RelayKeys => message::PushRelayKeysReply::KIND,
            Self::RelayCheck => message::PushRelayCheckReply::KIND,
            Self::RelayOffer(_) => message::PushRelayOfferReply::KIND,
            Self::RelayNews => message::PushRelayNewsReply::KIND,
            Self::Shares => message::PushSharesReply::KIND,
            Self::PushForward { .. } => message::PushForwardReply::KIND,
        }
    }
}

/// The open requests of all connections.
#[derive(Debug, Default)]
pub(super) struct Asks {
    open: BTreeMap<(ConnId, u32), (Instant, Asked)>,
    due: Due<(ConnId, u32)>,
    last: u32,
}

impl Asks {
    /// Opens a request and gives its id; none if the connection owes too many answers already.
    pub(super) fn open(&mut self, now: Instant, conn: ConnId, asked: Asked) -> Option<u32> {
        if self.open.range((conn, 0)..=(conn, u32::MAX)).count() >= MAX_OPEN {
            return None;
        }
        // One counter for all: an id comes back after 2^32 requests, long after its time is over. 0 is
        // for messages that are no request.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let at = now + ANSWER_TIMEOUT;
        self.open.insert((conn, self.last), (at, asked));
        self.due.insert(at, (conn, self.last));
        Some(self.last)
    }

    /// An answer came.
    pub(super) fn close(&mut self, conn: ConnId, request: u32) -> Option<Asked> {
        let (at, asked) = self.open.remove(&(conn, request))?;
        self.due.remove(at, (conn, request));
        Some(asked)
    }

    /// The next request whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Asked> {
        let key = self.due.pop(now)?;
        self.open.remove(&key).map(|(_, asked)| asked)
    }

    /// The connection is gone: what it will never answer.
    pub(super) fn drop_all(&mut self, conn: ConnId) -> Vec<Asked> {
        let requests: Vec<u32> =
            self.open.range((conn, 0)..=(conn, u32::MAX)).map(|((_, request), _)| *request).collect();
        requests.into_iter().filter_map(|request| self.close(conn, request)).collect()
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.due.next().map(|at| (at, "answer of a node"))
    }

    pub(super) fn len(&self) -> usize {
        self.open.len().max(self.due.len())
    }
}

/// How long a node has to answer: a round trip on a bad line, with two retransmissions of TCP.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most requests that one connection may owe an answer to: a node whose peers all reach for it at once
/// gets more than a hundred attempts in a round trip, and one that answers nothing is not worth more.
pub(super) const MAX_OPEN: usize = 256;
