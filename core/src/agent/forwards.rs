//! The node's port forwards: which there are, where each listens or why it does not, and which the server
//! may add. A pushed forward lives until it is taken away or the program ends: the configuration stays the
//! user's own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::MAX_FORWARDS;
use super::config::{ConfigError, PushPolicy};
use super::io::Action;
use crate::ids::{ConnId, NodeName, PeerName, UserName};
use crate::status::ForwardStatus;
use crate::tunnel::{BadRule, ForwardRule};
use crate::wire::message::{Code, PushForward, Refused};

/// All forwards, in the order in which they came.
#[derive(Debug)]
pub(super) struct Forwards {
    list: Vec<Forward>,
    policy: PushPolicy,
    node: NodeName,
    user: UserName,
}

#[derive(Debug)]
struct Forward {
    rule: ForwardRule,
    state: State,
    /// Whether the server added it.
    pushed: bool,
    /// Whether its failure has been logged.
    warned: bool,
}

#[derive(Debug)]
enum State {
    /// It is not in force.
    Disabled,
    /// The driver has been asked to listen; the server may wait for the answer.
    Opening(Option<Waiter>),
    /// It listens there.
    Listening(SocketAddr),
    /// It does not, for this reason, and will be tried again.
    Failed { reason: String, retry: Instant },
}

/// A request of the server that will be answered once the listener is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) conn: ConnId,
    pub(super) request: u32,
}

/// What a push comes to.
#[derive(Debug)]
pub(super) enum Pushed {
    /// Done already: where it listens; nowhere when it was taken away.
    Done(String),
    /// The answer follows when the listener's result is there.
    Later,
}

/// Whether a node of that name may have these forwards.
///
/// # Errors
/// What is wrong with them.
pub fn check_forwards(rules: &[ForwardRule], node: &NodeName, user: &UserName) -> Result<(), ConfigError> {
    Forwards::new(rules.to_vec(), PushPolicy::Off, node.clone(), user.clone()).map(drop)
}

impl Forwards {
    /// The configured ones; none listens yet.
    pub(super) fn new(
        rules: Vec<ForwardRule>,
        policy: PushPolicy,
        node: NodeName,
        user: UserName,
    ) -> Result<Self, ConfigError> {
        if rules.len() > MAX_FORWARDS {
            return Err(ConfigError::TooManyForwards(rules.len()));
        }
        let mut forwards = Self { list: Vec::new(), policy, node, user };
        for mut rule in rules {
            rule.peer = own(&forwards.user, rule.peer);
            if forwards.is_oneself(&rule.peer) {
                return Err(ConfigError::ForwardToOneself(rule.name));
            }
            if forwards.position(&rule.name).is_some() {
                return Err(ConfigError::ForwardNameTwice(rule.name));
            }
            // The system chooses another port for each that asks for none.
            let listens_there = |other: &&Forward| other.rule.enabled && other.rule.listen == rule.listen;
            if rule.enabled
                && rule.listen.port() != 0
                && let Some(other) = forwards.list.iter().find(listens_there)
            {
                return Err(ConfigError::ListenTwice(rule.listen, other.rule.name.clone(), rule.name));
            }
            forwards.list.push(Forward { rule, state: State::Disabled, pushed: false, warned: false });
        }
        Ok(forwards)
    }

    /// Asks for the listeners of all that are in force.
    pub(super) fn start(&mut self, out: &mut VecDeque<Action>) {
        for forward in self.list.iter_mut().filter(|forward| forward.rule.enabled) {
            forward.listen(None, out);
        }
    }

    /// What became of a listener. Gives who waited for it, and the answer.
    pub(super) fn result(
        &mut self,
        now: Instant,
        name: &str,
        result: Result<SocketAddr, String>,
    ) -> Option<(Waiter, Result<String, Refused>)> {
        let index = self.position(name)?;
        let forward = self.list.get_mut(index)?;
        let waiter = match forward.state {
            State::Opening(waiter) => waiter,
            // A listener that ends later, or an answer to nothing.
            State::Listening(_) => None,
            State::Disabled | State::Failed { .. } => return None,
        };
        let answer = match result {
            Ok(address) => {
                tracing::info!(forward = name, listen = %address, "forward listens");
                forward.state = State::Listening(address);
                forward.warned = false;
                Ok(address.to_string())
            }
            Err(reason) => {
                let listen = forward.rule.listen;
                let text = format!("cannot listen on {listen}: {reason}");
                if waiter.is_some() {
                    // The one who pushed it learns that it failed; it is not there then.
                    tracing::warn!(forward = name, %listen, reason, "pushed forward does not listen: dropped");
                    self.list.remove(index);
                } else {
                    if !forward.warned {
                        tracing::warn!(forward = name, %listen, reason, "forward does not listen: retried every 30 s");
                    }
                    forward.warned = true;
                    forward.state = State::Failed { reason, retry: now + RETRY };
                }
                Err(Refused::new(Code::Failed, text))
            }
        };
        waiter.map(|waiter| (waiter, answer))
    }

    /// The server wants to add a forward, or to take one away.
    pub(super) fn push(
        &mut self,
        waiter: Waiter,
        push: &PushForward,
        out: &mut VecDeque<Action>,
    ) -> Result<Pushed, Refused> {
        if self.policy == PushPolicy::Off {
            return Err(Refused::new(
                Code::NotAllowed,
                "this node takes no forwards from the server (-push off)",
            ));
        }
        let there = self.position(&push.name);
        let forward = there.and_then(|index| self.list.get(index));
        if forward.is_some_and(|forward| !forward.pushed) {
            let text = "a forward of that name is configured at the node itself";
            return Err(Refused::new(Code::NotAllowed, text));
        }
        if forward.is_some_and(|forward| matches!(forward.state, State::Opening(_))) {
            return Err(Refused::new(Code::Busy, "the forward of that name is just being set up"));
        }
        let Some(text) = &push.rule else {
            let index =
                there.ok_or_else(|| Refused::new(Code::NotFound, "no forward of that name is there"))?;
            self.remove(index, out);
            return Ok(Pushed::Done(String::new()));
        };
        let rule = self.accept(push, text)?;
        if let Some(Forward { rule: same, state: State::Listening(address), .. }) = forward
            && *same == rule
        {
            return Ok(Pushed::Done(address.to_string()));
        }
        if there.is_none() && self.list.len() >= MAX_FORWARDS {
            return Err(Refused::new(Code::Busy, "this node has as many forwards as it can"));
        }
        if let Some(index) = there {
            self.remove(index, out);
        }
        let mut forward = Forward { rule, state: State::Disabled, pushed: true, warned: false };
        forward.listen(Some(waiter), out);
        self.list.push(forward);
        Ok(Pushed::Later)
    }

    /// Tries those again that could not listen: the port may be free now.
    pub(super) fn expire(&mut self, now: Instant, out: &mut VecDeque<Action>) {
        for forward in &mut self.list {
            if matches!(forward.state, State::Failed { retry, .. } if retry <= now) {
                forward.listen(None, out);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let retries = self.list.iter().filter_map(|forward| match forward.state {
            State::Failed { retry, .. } => Some(retry),
            State::Disabled | State::Opening(_) | State::Listening(_) => None,
        });
        retries.min().map(|at| (at, "retry of a forward's listener"))
    }

    /// The peers of all forwards that are in force.
    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerName> {
        let in_force = |forward: &&Forward| !matches!(forward.state, State::Disabled);
        self.list.iter().filter(in_force).map(|forward| &forward.rule.peer)
    }

    pub(super) fn status(&self) -> Vec<ForwardStatus> {
        let view = |forward: &Forward| {
            let (state, error, listen) = match &forward.state {
                State::Disabled => ("disabled", None, forward.rule.listen),
                State::Opening(_) => ("opening", None, forward.rule.listen),
                State::Listening(address) => ("listening", None, *address),
                State::Failed { reason, .. } => ("failed", Some(reason.clone()), forward.rule.listen),
            };
            ForwardStatus {
                name: forward.rule.name.clone(),
                listen: listen.to_string(),
                protocol: "tcp".to_owned(),
                node: forward.rule.peer.to_string(),
                target: forward.rule.target.clone(),
                state: state.to_owned(),
                error,
                active: 0,
                total: 0,
                bytes_sent: 0,
                bytes_received: 0,
            }
        };
        self.list.iter().map(view).collect()
    }

    /// The rule of a push, if the policy lets it in.
    fn accept(&self, push: &PushForward, text: &str) -> Result<ForwardRule, Refused> {
        let bad = |text: String| Refused::new(Code::BadRequest, text);
        if push.name.is_empty() || push.name.chars().any(char::is_control) {
            return Err(bad("a forward needs a name without control characters".to_owned()));
        }
        let mut rule: ForwardRule = text.parse().map_err(|error: BadRule| bad(error.to_string()))?;
        rule.name.clone_from(&push.name);
        rule.peer = own(&self.user, rule.peer);
        rule.enabled = true;
        if self.is_oneself(&rule.peer) {
            return Err(Refused::new(Code::Oneself, "the forward leads to the node itself"));
        }
        if self.policy == PushPolicy::Loopback && !rule.listen.ip().is_loopback() {
            let text = "this node takes only forwards that listen on loopback (-push loopback)";
            return Err(Refused::new(Code::NotAllowed, text));
        }
        Ok(rule)
    }

    fn remove(&mut self, index: usize, out: &mut VecDeque<Action>) {
        if index < self.list.len() {
            let forward = self.list.remove(index);
            if matches!(forward.state, State::Listening(_) | State::Opening(_)) {
                out.push_back(Action::Unlisten { name: forward.rule.name });
            }
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|forward| forward.rule.name == name)
    }

    fn is_oneself(&self, peer: &PeerName) -> bool {
        peer.user.is_none() && peer.node == self.node
    }
}

impl Forward {
    fn listen(&mut self, waiter: Option<Waiter>, out: &mut VecDeque<Action>) {
        self.state = State::Opening(waiter);
        out.push_back(Action::Listen { rule: self.rule.clone() });
    }
}

/// A peer by the shortest name: `NODE@USER` is `NODE` to a node of that user, and in all that the server
/// says.
pub(super) fn own(user: &UserName, peer: PeerName) -> PeerName {
    PeerName { user: peer.user.filter(|other| other != user), node: peer.node }
}

/// How long until a listener that failed is tried again: whoever frees the port need not restart the node.
const RETRY: Duration = Duration::from_secs(30);
