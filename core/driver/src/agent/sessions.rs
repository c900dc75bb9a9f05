//! The sessions of a node: made when one is wanted, ended when there are too many.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use futures_channel::{mpsc, oneshot};
use inp2p_core::ids::PeerName;
use tracing::warn;

use super::Control;
use crate::meter::SessionMeter;
use crate::net::Net;
use crate::session::{self, Command};

/// A session, as the control task knows it.
pub(super) struct Entry<N: Net> {
    pub(super) commands: mpsc::Sender<Command<N>>,
    /// Commands that it was too busy to take.
    pub(super) backlog: VecDeque<Command<N>>,
    pub(super) meter: Arc<SessionMeter>,
    /// Ends when the session does.
    pub(super) ended: oneshot::Receiver<()>,
}

impl<N: Net> Entry<N> {
    pub(super) fn send(&mut self, command: Command<N>) {
        if self.backlog.is_empty() {
            match self.commands.try_send(command) {
                Ok(()) => {}
                Err(error) if error.is_full() => self.backlog.push_back(error.into_inner()),
                // It has ended, because the node is stopping.
                Err(_) => {}
            }
        } else {
            self.backlog.push_back(command);
        }
        if self.backlog.len() > BACKLOG {
            // The oldest attempts are over by now.
            self.backlog.pop_front();
        }
    }
}

impl<N: Net> Control<N> {
    /// The session with a peer, made if there is none.
    pub(super) fn session(&mut self, peer: &PeerName) -> Option<mpsc::Sender<Command<N>>> {
        if let Some(entry) = self.sessions.get(peer) {
            return Some(entry.commands.clone());
        }
        if self.sessions.len() >= SESSIONS && !self.evict() {
            warn!(%peer, "no session: this node has too many");
            return None;
        }
        self.next_session += 1;
        let (commands, queue) = mpsc::channel(session::COMMANDS);
        let (end, ended) = oneshot::channel();
        let meter = Arc::new(SessionMeter::default());
        let task = session::run(
            self.net.clone(),
            peer.clone(),
            self.next_session,
            (Arc::clone(&self.common), self.port.clone()),
            (commands.clone(), queue),
            self.news_in.clone(),
            Arc::clone(&meter),
        );
        self.net.spawn("session", async move {
            task.await;
            drop(end);
        });
        self.sessions.insert(
            peer.clone(),
            Entry { commands: commands.clone(), backlog: VecDeque::new(), meter, ended },
        );
        if let Some(every) = self.keepalive {
            self.command(peer, Command::Keepalive(every));
        }
        Some(commands)
    }

    pub(super) fn command(&mut self, peer: &PeerName, command: Command<N>) {
        if let Some(entry) = self.sessions.get_mut(peer) {
            entry.send(command);
        }
    }

    /// Makes room for another session: ends one that the agent has no use for any more.
    pub(super) fn evict(&mut self) -> bool {
        let known: BTreeSet<String> = self.agent.status().peers.into_iter().map(|peer| peer.node).collect();
        let Some(peer) = self.sessions.keys().find(|peer| !known.contains(&peer.to_string())).cloned() else {
            return false;
        };
        if let Some(mut entry) = self.sessions.remove(&peer) {
            entry.send(Command::Leave);
        }
        true
    }
}

/// Commands that wait for a busy session: attempts, which are worth nothing after some seconds.
const BACKLOG: usize = 64;

/// Sessions of one node: as many peers as it may name to the server.
const SESSIONS: usize = 1024;
