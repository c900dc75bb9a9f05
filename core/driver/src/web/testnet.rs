//! A network in memory, on virtual time, for the tests beside this file: one thread runs all tasks, and
//! when none can go on the clock jumps to the next timer. So a deadline of seconds takes no time, and what
//! would hang for ever is a panic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::net::{Interface, ListenIo, Net, RecvBatch, Store, StreamIo, TcpConfig, TimerIo, Transmit, UdpIo};

#[derive(Clone)]
pub(crate) struct TestNet(Arc<World>);

struct World {
    start: Instant,
    state: Mutex<State>,
    ready: Mutex<VecDeque<Arc<Task>>>,
}

#[derive(Default)]
struct State {
    elapsed: Duration,
    timers: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
    next_port: u16,
    listeners: BTreeMap<Address, Arc<Mutex<Backlog>>>,
    /// Addresses that never answer.
    silent: BTreeSet<SocketAddr>,
    names: BTreeMap<String, Vec<SocketAddr>>,
    seeds: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Tcp(SocketAddr),
    Local(PathBuf),
}

#[derive(Default)]
struct Backlog {
    streams: VecDeque<(TestStream, SocketAddr)>,
    waker: Option<Waker>,
}

struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    world: Arc<World>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.world.clone().ready.lock().unwrap().push_back(self);
    }
}

impl TestNet {
    pub(crate) fn new() -> Self {
        let state = State { next_port: 40_000, ..State::default() };
        Self(Arc::new(World { start: Instant::now(), state: Mutex::new(state), ready: Mutex::default() }))
    }

    /// Runs `main`, and whatever it spawns, until it is done.
    pub(crate) fn run<T: Send + 'static>(&self, main: impl Future<Output = T> + Send + 'static) -> T {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        self.spawn("main", async move {
            let value = main.await;
            *slot.lock().unwrap() = Some(value);
        });
        loop {
            while let Some(task) = self.pop() {
                let mut future = task.future.lock().unwrap();
                let Some(running) = future.as_mut() else { continue };
                let waker = Waker::from(task.clone());
                if running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    *future = None;
                }
            }
            if let Some(value) = result.lock().unwrap().take() {
                return value;
            }
            let mut state = self.state();
            let Some((&(at, _), _)) = state.timers.first_key_value() else {
                panic!("every task waits for something that will not happen");
            };
            state.elapsed = state.elapsed.max(at - self.0.start);
            let later = state.timers.split_off(&(at, u64::MAX));
            let due = std::mem::replace(&mut state.timers, later);
            drop(state);
            due.into_values().for_each(Waker::wake);
        }
    }

    /// How much time has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.state().elapsed
    }

    /// Lets `address` never answer.
    pub(crate) fn silence(&self, address: &str) {
        self.state().silent.insert(address.parse().unwrap());
    }

    /// Gives `name` addresses.
    pub(crate) fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.state().names.insert(name.to_owned(), addresses);
    }

    /// Connects as `from`, without waiting.
    pub(crate) fn dial(&self, from: &str, to: SocketAddr) -> TestStream {
        let config = TcpConfig { local: Some(from.parse().unwrap()), ..TcpConfig::default() };
        self.connect(&config, to).unwrap()
    }

    /// Connects to a Unix socket.
    pub(crate) fn dial_local(&self, path: &Path) -> TestStream {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.connect_to(&Address::Local(path.to_owned()), nowhere, nowhere)
    }

    fn connect_to(&self, address: &Address, from: SocketAddr, to: SocketAddr) -> TestStream {
        let Some(backlog) = self.state().listeners.get(address).cloned() else {
            let mut refused = pair(from, to).0;
            refused.refused = true;
            return refused;
        };
        let (ours, theirs) = pair(from, to);
        let mut backlog = backlog.lock().unwrap();
        backlog.streams.push_back((theirs, from));
        if let Some(waker) = backlog.waker.take() {
            waker.wake();
        }
        ours
    }

    fn listen_at(&self, address: Address, local: SocketAddr) -> TestListener {
        let backlog = Arc::<Mutex<Backlog>>::default();
        self.state().listeners.insert(address.clone(), backlog.clone());
        TestListener { net: self.clone(), address, local, backlog }
    }

    fn pop(&self) -> Option<Arc<Task>> {
        self.0.ready.lock().unwrap().pop_front()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

impl Net for TestNet {
    type Udp = NoUdp;
    type Stream = TestStream;
    type Listener = TestListener;
    type Timer = TestTimer;

    fn now(&self) -> Instant {
        self.0.start + self.elapsed()
    }

    fn unix_now(&self) -> Duration {
        // In 2026, so that certificates are judged on a fixed day.
        Duration::from_secs(1_780_000_000) + self.elapsed()
    }

    fn seed(&self) -> [u8; 32] {
        let mut state = self.state();
        state.seeds += 1;
        [state.seeds; 32]
    }

    fn bind_udp(&self, _: SocketAddr) -> io::Result<NoUdp> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn listen(&self, config: &TcpConfig) -> io::Result<TestListener> {
        let local = config.local.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 27183)));
        Ok(self.listen_at(Address::Tcp(local), local))
    }

    fn listen_local(&self, path: &Path) -> io::Result<TestListener> {
        Ok(self.listen_at(Address::Local(path.to_owned()), SocketAddr::from(([0, 0, 0, 0], 0))))
    }

    fn connect(&self, config: &TcpConfig, to: SocketAddr) -> io::Result<TestStream> {
        let from = config.local.unwrap_or_else(|| {
            let mut state = self.state();
            state.next_port += 1;
            SocketAddr::from((Ipv4Addr::LOCALHOST, state.next_port))
        });
        if self.state().silent.contains(&to) {
            let mut silent = pair(from, to).0;
            silent.silent = true;
            return Ok(silent);
        }
        Ok(self.connect_to(&Address::Tcp(to), from, to))
    }

    fn timer(&self) -> TestTimer {
        let mut state = self.state();
        state.next_id += 1;
        TestTimer { net: self.clone(), id: state.next_id, at: None }
    }

    fn spawn(&self, _: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = Task { future: Mutex::new(Some(Box::pin(task))), world: self.0.clone() };
        Arc::new(task).wake();
    }

    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        let found = match host.parse::<IpAddr>() {
            Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
            Err(_) => self.state().names.get(host).cloned().ok_or(io::Error::other("no such host")),
        };
        std::future::ready(found)
    }

    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        Ok(Vec::new())
    }
}

pub(crate) struct TestTimer {
    net: TestNet,
    id: u64,
    at: Option<Instant>,
}

impl TimerIo for TestTimer {
    fn poll_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let now = self.net.now();
        let mut state = self.net.state();
        if let Some(old) = self.at.take() {
            state.timers.remove(&(old, self.id));
        }
        match at {
            Some(at) if at <= now => Poll::Ready(()),
            Some(at) => {
                self.at = Some(at);
                state.timers.insert((at, self.id), cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for TestTimer {
    fn drop(&mut self) {
        if let Some(at) = self.at {
            self.net.state().timers.remove(&(at, self.id));
        }
    }
}

pub(crate) struct TestListener {
    net: TestNet,
    address: Address,
    local: SocketAddr,
    backlog: Arc<Mutex<Backlog>>,
}

impl ListenIo for TestListener {
    type Stream = TestStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TestStream, SocketAddr)>> {
        let mut backlog = self.backlog.lock().unwrap();
        match backlog.streams.pop_front() {
            Some(accepted) => Poll::Ready(Ok(accepted)),
            None => {
                backlog.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl Drop for TestListener {
    fn drop(&mut self) {
        self.net.state().listeners.remove(&self.address);
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    ended: bool,
    /// The reader is gone: who writes is told so.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }
}

#[derive(Debug)]
pub(crate) struct TestStream {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    local: SocketAddr,
    peer: SocketAddr,
    refused: bool,
    silent: bool,
}

fn pair(a: SocketAddr, b: SocketAddr) -> (TestStream, TestStream) {
    let (there, back) = (Arc::<Mutex<Pipe>>::default(), Arc::<Mutex<Pipe>>::default());
    let end = |incoming: &Arc<_>, outgoing: &Arc<_>, local, peer| TestStream {
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        local,
        peer,
        refused: false,
        silent: false,
    };
    (end(&back, &there, a, b), end(&there, &back, b, a))
}

impl StreamIo for TestStream {
    fn poll_connected(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.silent {
            return Poll::Pending;
        }
        match self.refused {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let mut pipe = self.incoming.lock().unwrap();
        if pipe.bytes.is_empty() {
            if pipe.ended {
                return Poll::Ready(Ok(0));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut read = 0;
        for buf in bufs {
            for (place, byte) in buf.iter_mut().zip(std::iter::from_fn(|| pipe.bytes.pop_front())) {
                *place = byte;
                read += 1;
            }
        }
        pipe.wake();
        Poll::Ready(Ok(read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut pipe = self.outgoing.lock().unwrap();
        if pipe.ended || pipe.deaf {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_BYTES - pipe.bytes.len();
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = pipe.bytes.len();
        pipe.bytes.extend(bufs.iter().flat_map(|buf| buf.iter().copied()).take(room));
        pipe.wake();
        Poll::Ready(Ok(pipe.bytes.len() - before))
    }

    fn shutdown(&mut self) -> io::Result<()> {
        let mut pipe = self.outgoing.lock().unwrap();
        pipe.ended = true;
        pipe.wake();
        Ok(())
    }

    fn abort(&mut self) {}

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl Drop for TestStream {
    fn drop(&mut self) {
        let mut pipe = self.outgoing.lock().unwrap();
        pipe.ended = true;
        pipe.wake();
        drop(pipe);
        let mut pipe = self.incoming.lock().unwrap();
        pipe.deaf = true;
        pipe.wake();
    }
}

/// Nothing here speaks UDP.
pub(crate) enum NoUdp {}

impl UdpIo for NoUdp {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }

    fn poll_recv(&self, _: &mut Context<'_>, _: &mut RecvBatch) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn try_send(&self, _: &Transmit, _: &[u8]) -> io::Result<()> {
        match *self {}
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    fn max_segments(&self) -> usize {
        match *self {}
    }
}

/// Files in memory.
#[derive(Debug, Default)]
pub(crate) struct TestStore(pub(crate) Mutex<BTreeMap<String, Vec<u8>>>);

impl Store for TestStore {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    fn save(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().insert(name.to_owned(), content.to_vec());
        Ok(())
    }
}

/// What a direction holds before its writer waits: a small kernel buffer.
const PIPE_BYTES: usize = 32 * 1024;
