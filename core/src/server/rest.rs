//! What the REST calls ask of the server. Each is answered once: at once, or when the node has answered.

use std::time::Instant;

use super::asks::Asked;
use super::io::{Action, AdminError, AdminReply, AdminRequest, KeyText, NodeView};
use super::{NodeId, Server};
use crate::ids::{ConnId, PublicKey};
use crate::tunnel::ForwardRule;
use crate::wire::Envelope;
use crate::wire::message::{Code, MAX_RULE, MAX_TEXT, PushForward, PushForwardReply, Refused};

impl Server {
    /// Takes in a REST call.
    pub(super) fn admin(&mut self, now: Instant, id: u64, request: AdminRequest) {
        let reply = match request {
            AdminRequest::Nodes => {
                Ok(AdminReply::Nodes(self.pins.iter().map(|(name, key)| self.view(name, key)).collect()))
            }
            AdminRequest::Node(user, node) => {
                let name = NodeId { user, node };
                let key = self.pins.key(&name).ok_or_else(|| unknown(&name));
                key.map(|key| AdminReply::Node(Box::new(self.view(&name, key))))
            }
            AdminRequest::ForgetKey(user, node) => self.forget(now, &NodeId { user, node }),
            AdminRequest::PushForward { user, node, name, rule } => {
                match self.push(now, id, &NodeId { user, node }, name, rule) {
                    Ok(()) => return,
                    Err(error) => Err(error),
                }
            }
            AdminRequest::Relays => Ok(AdminReply::Relays(self.relays.views())),
            AdminRequest::Shares => Ok(AdminReply::Shares(self.shares.views())),
            AdminRequest::Share { user, node, to, targets } => {
                self.share(now, &NodeId { user, node }, &to, targets)
            }
            AdminRequest::Metrics => Ok(AdminReply::Metrics(self.metrics())),
        };
        self.actions.push_back(Action::AdminReply { id, reply });
    }

    /// The node's answer to a pushed forward becomes the answer of the call.
    pub(super) fn pushed(&mut self, admin: u64, removes: bool, envelope: &Envelope<'_>) {
        let reply = if let Ok(refused) = envelope.decode::<Refused>() {
            Err(refusal(&refused))
        } else {
            match envelope.decode::<PushForwardReply>() {
                Ok(_) if removes => Ok(AdminReply::Done),
                Ok(reply) => Ok(AdminReply::Listening(reply.listen)),
                Err(error) => {
                    let message = format!("the node's answer could not be read: {error}");
                    Err(AdminError { status: 502, code: "bad-answer", message })
                }
            }
        };
        self.actions.push_back(Action::AdminReply { id: admin, reply });
    }

    /// A request of the server will not be answered any more.
    pub(super) fn unanswered(&mut self, asked: Asked, error: AdminError) {
        match asked {
            Asked::PushForward { admin, .. } => {
                self.actions.push_back(Action::AdminReply { id: admin, reply: Err(error) });
            }
            Asked::PunchStart(_)
            | Asked::PeerOnline
            | Asked::RelayKeys
            | Asked::RelayCheck
            | Asked::RelayOffer(_)
            | Asked::RelayNews
            | Asked::Shares => self.counters.unanswered += 1,
        }
    }

    /// Frees a name. Whoever is logged in under it must log in anew, and may well be first to do so.
    fn forget(&mut self, now: Instant, name: &NodeId) -> Result<AdminReply, AdminError> {
        if !self.pins.forget(now, name) {
            return Err(unknown(name));
        }
        if let Some(conn) = self.registry.conn(name) {
            self.end(conn, CLOSE_KEY_FORGOTTEN, "the key was forgotten");
        }
        tracing::info!(user = %name.user, node = %name.node, "key forgotten");
        Ok(AdminReply::Done)
    }

    fn push(
        &mut self,
        now: Instant,
        admin: u64,
        node: &NodeId,
        name: String,
        rule: Option<String>,
    ) -> Result<(), AdminError> {
        let bad = |message: String| AdminError { status: 400, code: "bad-request", message };
        if name.is_empty() || name.len() > MAX_TEXT || name.chars().any(char::is_control) {
            return Err(bad(format!("a forward's name is 1 to {MAX_TEXT} bytes of text")));
        }
        if let Some(rule) = &rule {
            if rule.len() > MAX_RULE {
                return Err(bad(format!("a forward's rule is at most {MAX_RULE} bytes long")));
            }
            rule.parse::<ForwardRule>().map_err(|error| bad(error.to_string()))?;
        }
        let conn = self.registry.conn(node).ok_or_else(|| match self.pins.key(node) {
            Some(_) => offline(node),
            None => unknown(node),
        })?;
        let asked = Asked::PushForward { admin, removes: rule.is_none() };
        let request = self.asks.open(now, conn, asked).ok_or_else(|| busy(node))?;
        self.registry.send(&mut self.actions, conn, request, &PushForward { name, rule });
        Ok(())
    }

    fn view(&self, name: &NodeId, key: PublicKey) -> NodeView {
        let online = self.registry.named(name).map(|(_, online)| online);
        let reported = online.and_then(|online| online.reported.as_ref());
        NodeView {
            user: name.user.clone(),
            node: name.node.clone(),
            key: KeyText(key),
            online: online.is_some(),
            remote: online.map(|online| online.remote),
            since: online.map(|online| online.since).or_else(|| self.pins.last_login(name)),
            software: reported.map(|reported| reported.software.clone()),
            platform: reported.map(|reported| reported.platform.clone()),
        }
    }

    /// What a call gets whose node is gone before it answered.
    pub(super) fn gone_before_answer(conn: ConnId) -> AdminError {
        tracing::debug!(?conn, "connection ended with requests unanswered");
        AdminError { status: 502, code: "offline", message: "the node left before it answered".into() }
    }

    /// What a call gets whose node does not answer in time.
    pub(super) fn no_answer() -> AdminError {
        AdminError { status: 504, code: "timeout", message: "the node did not answer in time".into() }
    }
}

fn unknown(name: &NodeId) -> AdminError {
    AdminError { status: 404, code: "unknown-node", message: format!("no node {name} is known") }
}

fn offline(name: &NodeId) -> AdminError {
    AdminError { status: 409, code: "offline", message: format!("{name} is not online") }
}

fn busy(name: &NodeId) -> AdminError {
    AdminError {
        status: 503,
        code: "busy",
        message: format!("{name} owes too many answers: try again later"),
    }
}

fn refusal(refused: &Refused) -> AdminError {
    let (status, code) = match refused.code {
        Code::Unsupported => (501, "unsupported"),
        Code::BadRequest => (400, "bad-request"),
        Code::NotAllowed => (403, "not-allowed"),
        Code::Busy => (503, "busy"),
        Code::Timeout => (504, "timeout"),
        Code::Oneself => (400, "oneself"),
        Code::NotFound => (404, "not-found"),
        Code::Failed => (409, "failed"),
        Code::Version
        | Code::UnknownNode
        | Code::WrongToken
        | Code::TooManyFailures
        | Code::NameTaken
        | Code::KeyInUse
        | Code::Replaced
        | Code::Offline
        | Code::Other => (502, "refused"),
    };
    AdminError { status, code, message: refused.to_string() }
}

/// WebSocket close code (RFC 6455 section 7.4.2: 4000 to 4999 are ours): the node's key was forgotten.
const CLOSE_KEY_FORGOTTEN: u16 = 4002;
