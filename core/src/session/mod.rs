//! session.

use crate::ids::AttemptId;
use crate::path::{Candidate, RungSet};

/// What a session is to try, as the server's `PunchStart` says.
#[derive(Clone)]
pub struct Attempt {
    /// Its name on both sides.
    pub id: AttemptId,
    /// 32 secret bytes of both sides and the server: they authenticate prefaces and probes.
    pub punch_key: [u8; 32],
    /// Where the peer may be reached.
    pub candidates: Vec<Candidate>,
    /// The rungs that both sides may use.
    pub rungs: RungSet,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("candidates", &self.candidates)
            .field("rungs", &self.rungs)
            .finish_non_exhaustive()
    }
}
