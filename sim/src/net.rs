//! The network as one host sees it: [`Net`] on virtual time.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use inp2p_driver::net::{Interface, Net, TcpConfig, TimerIo};

use crate::clock::Time;
use crate::executor::lock;
use crate::fault::Fault;
use crate::host::{HostId, Power};
use crate::slab::Key;
use crate::state::State;
use crate::store::SimStore;
use crate::tcp::{SimListener, SimStream};
use crate::timer::SimTimer;
use crate::udp::SimUdp;
use crate::world::Shared;

/// One life of a simulated host. What it made dies with the host; a later life has another one.
#[derive(Clone)]
pub struct SimNet {
    shared: Arc<Shared>,
    host: HostId,
    life: u32,
}

impl SimNet {
    pub(crate) fn new(shared: Arc<Shared>, host: HostId, life: u32) -> Self {
        Self { shared, host, life }
    }

    /// Which host this is.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The host's files.
    pub fn store(&self) -> Arc<SimStore> {
        lock(&self.shared.state).host(self.host).store.clone()
    }

    /// Connects to a Unix socket of this host, as a command-line tool would.
    pub fn connect_local(&self, path: &Path) -> io::Result<SimStream> {
        let mut state = self.alive()?;
        let key = state.unix_connect(self.host, path)?;
        Ok(self.stream(&state, key))
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// Waits until then.
    pub async fn sleep_until(&self, at: Instant) {
        let mut timer = self.timer();
        poll_fn(|cx| timer.poll_at(cx, Some(at))).await;
    }

    /// The time since the world began.
    pub(crate) fn time(&self) -> Time {
        self.shared.clock.now()
    }

    /// The name of the task that is being polled.
    pub(crate) fn current_task(&self) -> Option<&'static str> {
        self.shared.executor.current().map(|(_, name)| name)
    }

    /// Injects a fault now, once the running task waits.
    pub fn inject(&self, fault: Fault) {
        let now = self.shared.clock.now();
        lock(&self.shared.state).schedule_fault(now, fault);
    }

    /// Locks the world, if this life of the host still goes on.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.shared.state);
        let host = state.host(self.host);
        if host.life != self.life || host.power == Power::Off {
            return Err(io::Error::new(io::ErrorKind::NetworkDown, "this life of the host is over"));
        }
        Ok(state)
    }

    fn stream(&self, state: &State, key: Key) -> SimStream {
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let (local, remote) = state.conns.find(key).map_or((none, none), |conn| (conn.local, conn.remote));
        SimStream::new(self.shared.clone(), key, local, remote)
    }

    fn listener(&self, state: &State, key: Key) -> SimListener {
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let local = state.listeners.find(key).map_or(none, |listener| listener.local);
        SimListener::new(self.shared.clone(), key, local)
    }

    /// Whether any interface is up with its wire intact.
    fn online(&self) -> bool {
        let state = lock(&self.shared.state);
        let mut up = state.host(self.host).interfaces.iter().filter(|interface| interface.up);
        up.any(|interface| !state.port(interface.port).offline)
    }
}

impl Net for SimNet {
    type Udp = SimUdp;
    type Stream = SimStream;
    type Listener = SimListener;
    type Timer = SimTimer;

    fn now(&self) -> Instant {
        self.shared.clock.instant()
    }

    fn unix_now(&self) -> Duration {
        let state = lock(&self.shared.state);
        let world = state.settings.unix_start + self.shared.clock.now().elapsed();
        let ahead = state.host(self.host).wall_ahead;
        let nanos = i128::try_from(world.as_nanos()).unwrap_or(i128::MAX).saturating_add(ahead);
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }

    fn seed(&self) -> [u8; 32] {
        lock(&self.shared.state).seeds.seed()
    }

    fn bind_udp(&self, local: SocketAddr) -> io::Result<SimUdp> {
        let mut state = self.alive()?;
        let key = state.udp_bind(self.host, local)?;
        let local = state.udp.find(key).map_or(local, |socket| socket.local);
        Ok(SimUdp::new(self.shared.clone(), key, local))
    }

    fn listen(&self, config: &TcpConfig) -> io::Result<SimListener> {
        let mut state = self.alive()?;
        let key = state.tcp_listen(self.host, config)?;
        Ok(self.listener(&state, key))
    }

    fn listen_local(&self, path: &Path) -> io::Result<SimListener> {
        let mut state = self.alive()?;
        let key = state.unix_listen(self.host, path)?;
        Ok(self.listener(&state, key))
    }

    fn connect(&self, config: &TcpConfig, to: SocketAddr) -> io::Result<SimStream> {
        let mut state = self.alive()?;
        let key = state.tcp_connect(self.host, config, to)?;
        Ok(self.stream(&state, key))
    }

    fn timer(&self) -> SimTimer {
        SimTimer::new(self.shared.clone(), self.host)
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        // The lock must be gone before the task of a host that is no more is dropped: its sockets lock.
        let alive = self.alive().is_ok();
        if alive {
            self.shared.executor.spawn(self.host, name, Box::pin(task));
        }
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if host != "localhost" {
            if !self.online() {
                self.sleep(RESOLVE_TIMEOUT).await;
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{host}: no answer")));
            }
            self.sleep(RESOLVE_DELAY).await;
        }
        let addresses = lock(&self.shared.state).lookup(host, port);
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host}: no such name")));
        }
        Ok(addresses)
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        let state = self.alive()?;
        let loopback = [(IpAddr::from([127, 0, 0, 1]), 8), (std::net::Ipv6Addr::LOCALHOST.into(), 128)];
        let named = |name: &str, (address, prefix)| Interface { name: name.to_owned(), address, prefix };
        let mut all: Vec<Interface> = loopback.into_iter().map(|address| named("lo", address)).collect();
        for interface in state.host(self.host).interfaces.iter().filter(|interface| interface.up) {
            all.extend(interface.addresses.iter().map(|address| named(&interface.name, *address)));
        }
        // As real ones are listed.
        all.sort();
        Ok(all)
    }
}

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNet").field("host", &self.host).field("life", &self.life).finish_non_exhaustive()
    }
}

/// A name server near by.
const RESOLVE_DELAY: Duration = Duration::from_millis(20);

/// What resolvers wait by default.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
