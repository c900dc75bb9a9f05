//! The relay service: connections come in, prove what they may, and are joined in pairs.
//!
//! ```text
//! listener / front ──▶ greet ──▶ desk ──▶ splice
//!                      says who   joins    moves bytes, within the limit
//! ```
//! It is the same for a node (`-relay`, `-super`) on its own port and for the server on its signalling port,
//! raw or inside a WebSocket. One task a connection, until it is joined; from then on the task of the one that
//! waited owns both, and the other's ends. The core decides ([`inp2p_core::relay`]); this only moves bytes.
//! It never connects to anything.

mod carrier;
mod check;
mod desk;
mod greet;
mod listen;
mod splice;
mod strangers;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inp2p_core::auth::Identity;
use inp2p_core::relay::pairing::Limits;
use inp2p_core::relay::{Bandwidth, Gate};
use inp2p_core::rng::Rng;
use inp2p_core::wire::message::RelayLoad;

pub use self::carrier::{ByteStream, Carrier};
pub use self::check::check;
pub(crate) use self::check::check_stun;
pub(crate) use self::listen::listen;

use self::desk::Desk;
use crate::net::Net;

/// A relay that serves. A clone is the same relay.
pub struct Relay<N: Net>(Arc<Shared<N>>);

/// What all its connections share.
struct Shared<N: Net> {
    net: N,
    identity: Identity,
    desk: Mutex<Desk<N>>,
    bandwidth: Mutex<Bandwidth>,
    /// Whether there is a limit: without one nobody takes that lock.
    limited: AtomicBool,
    bytes: AtomicU64,
}

impl<N: Net> Relay<N> {
    /// A relay of that identity, which lets nobody in until [`Self::gate`] has been given keys and a clock.
    /// `mbps` is what all pairs share; 0 for no limit.
    pub fn new(net: N, identity: Identity, limits: Limits, mbps: u64) -> Self {
        let desk = Mutex::new(Desk::new(Gate::new(identity.public()), limits, Rng::new(net.seed())));
        let bandwidth = Mutex::new(Bandwidth::new(net.now(), mbps));
        let (limited, bytes) = (AtomicBool::new(mbps > 0), AtomicU64::new(0));
        Self(Arc::new(Shared { net, identity, desk, bandwidth, limited, bytes }))
    }

    /// Hands the judge of who may use it to `change`: keys and clock are set there.
    pub fn gate<T>(&self, change: impl FnOnce(&mut Gate) -> T) -> T {
        change(&mut self.0.desk().gate)
    }

    /// How much it has to do: pairs, and bytes since the start. How fast they pass is for others to measure.
    pub fn load(&self) -> RelayLoad {
        let sessions = u32::try_from(self.0.desk().pairing.pairs()).unwrap_or(u32::MAX);
        RelayLoad { sessions, mbps: 0, bytes: self.0.bytes.load(Ordering::Relaxed) }
    }
}

impl<N: Net> Shared<N> {
    fn desk(&self) -> MutexGuard<'_, Desk<N>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bandwidth(&self) -> MutexGuard<'_, Bandwidth> {
        self.bandwidth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N: Net> Clone for Relay<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N: Net> fmt::Debug for Relay<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("key", &self.0.identity.public()).finish_non_exhaustive()
    }
}
