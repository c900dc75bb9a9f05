//! The agent: a node's control plane.

mod config;
pub mod io;

use std::time::{Duration, Instant};

pub use config::{AgentConfig, ConfigError, PushPolicy, UnknownPolicy};
use io::{Action, Input};

use crate::status::Status;

/// The agent.
#[derive(Debug)]
pub struct Agent {
    _config: AgentConfig,
}

impl Agent {
    /// An agent that has yet to be told of its interfaces; it asks for its signalling connection at once.
    /// `pins` is the content of [`PINS_FILE`], where there is one.
    pub fn new(
        config: AgentConfig,
        pins: Option<&[u8]>,
        seed: [u8; 32],
        now: Instant,
        unix: Duration,
    ) -> Result<Self, ConfigError> {
        let _ = (pins, seed, now, unix);
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

    /// What `status` shows. What only the driver knows (round-trip times, counters of bytes, streams,
    /// connections) is zero or none.
    pub fn status(&self) -> Status {
        todo!()
    }
}

/// The file that holds the pinned keys; see [`io::Action::Save`].
pub const PINS_FILE: &str = "inp2pc.pins.json";
/// How many forwards a node may have, pushed ones included: each is a listener and a line of `status`.
pub const MAX_FORWARDS: usize = 1024;
