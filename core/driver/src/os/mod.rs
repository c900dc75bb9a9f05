//! The real network: [`Os`] implements [`Net`] with this machine's sockets, on any runtime.
//!
//! All socket code is here, written once. A runtime brings a [`Reactor`] (readiness, a timer, a place to run
//! tasks: about a hundred lines) and gets a [`Net`]. Everything that is non-blocking by nature (socket
//! options, system calls, address resolution on threads of its own, files) needs no runtime and takes none.
//!
//! Addresses that leave this module are canonical: an IPv4 peer of a dual-stack socket is an IPv4 address,
//! never an IPv4-mapped IPv6 one (RFC 4291 section 2.5.5.2).

mod clock;
mod interfaces;
mod limits;
mod listen;
mod local;
mod opts;
#[cfg(target_os = "linux")]
pub(crate) mod pipe;
mod reactor;
mod resolve;
mod store;
mod tcp;
mod udp;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::net::{Interface, Net, TcpConfig};

pub use clock::OsTimer;
pub use limits::raise_descriptor_limit;
pub use listen::OsListener;
pub use reactor::{Direction, Outcome, Reactor, Ready, Source};
pub use store::{FileStore, replace_file};
pub use tcp::OsStream;
pub use udp::OsUdp;

/// This machine's network on the runtime `R`. A clone is the same network.
#[derive(Clone)]
pub struct Os<R> {
    reactor: R,
    clock: clock::Clock,
    resolver: Arc<resolve::Resolver>,
}

impl<R: Reactor> Os<R> {
    /// The network of this machine, whose sockets `reactor` watches.
    pub fn new(reactor: R) -> Self {
        Self { reactor, clock: clock::Clock::start(), resolver: Arc::default() }
    }
}

impl<R: Reactor> Net for Os<R> {
    type Udp = OsUdp<R>;
    type Stream = OsStream<R>;
    type Listener = OsListener<R>;
    type Timer = OsTimer<R::Timer>;

    fn now(&self) -> Instant {
        self.clock.now()
    }

    #[allow(clippy::disallowed_methods, reason = "this is where the wall clock comes from")]
    fn unix_now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// # Panics
    /// When the system has no randomness to give: there is nothing safe to do without it.
    fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        if let Err(error) = getrandom::fill(&mut seed) {
            panic!("the system's random number generator fails: {error}");
        }
        seed
    }

    fn bind_udp(&self, local: SocketAddr) -> io::Result<Self::Udp> {
        OsUdp::bind(&self.reactor, local)
    }

    fn listen(&self, config: &TcpConfig) -> io::Result<Self::Listener> {
        OsListener::new(&self.reactor, opts::listening(config)?, None)
    }

    fn listen_local(&self, path: &Path) -> io::Result<Self::Listener> {
        let (socket, file) = local::listening(path)?;
        OsListener::new(&self.reactor, socket, Some(file))
    }

    fn connect(&self, config: &TcpConfig, to: SocketAddr) -> io::Result<Self::Stream> {
        OsStream::connect(&self.reactor, config, to)
    }

    fn timer(&self) -> Self::Timer {
        OsTimer::new(self.clock, self.reactor.timer())
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.reactor.spawn(name, task);
    }

    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        self.resolver.resolve(host, port)
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        interfaces::up()
    }
}

impl<R> fmt::Debug for Os<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Os").finish_non_exhaustive()
    }
}
