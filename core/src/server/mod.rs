//! The server: logins, the registry of nodes, and bringing pairs of nodes together.

mod config;
pub mod io;

use std::time::{Duration, Instant};

pub use config::{Caps, ServerConfig};
use io::{Action, Input};

/// The server.
#[derive(Debug)]
pub struct Server {
    _config: ServerConfig,
}

impl Server {
    /// A server. `state` is the content of [`STATE_FILE`], where there is one.
    pub fn new(
        config: ServerConfig,
        state: Option<&[u8]>,
        seed: [u8; 32],
        now: Instant,
        unix: Duration,
    ) -> Result<Self, StateError> {
        let _ = (state, seed, now, unix);
        Ok(Self { _config: config })
    }

    /// Takes in what happened. Actions and the deadline may have changed afterwards.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        let _ = (now, input);
    }

    /// The next thing to do, first in first out.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// When [`Input::Tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// How many nodes are online.
    pub fn online(&self) -> usize {
        0
    }
}

/// Why a server could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} is damaged ({0}): restore it from a backup; removing it forgets which node name belongs to which \
     key, and names go to whoever comes first",
    file = STATE_FILE
)]
pub struct StateError(pub(crate) String);

/// The file that holds the server's state; see [`io::Action::Save`].
pub const STATE_FILE: &str = "nodes.json";
