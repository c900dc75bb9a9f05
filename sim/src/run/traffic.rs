//! The programs that use the forwards, and the ledger in which they write down what they did.
//!
//! Every byte that is sent is a function of its stream, its direction and its place, so whoever receives it
//! knows what it has to be. A stream begins with its number, by which the target knows what to do.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use inp2p_driver::net::{ListenIo, Net, StreamIo, TcpConfig, TimerIo};

use crate::clock::Time;
use crate::executor::lock;
use crate::net::SimNet;
use crate::scenario::{Manner, Stream};
use crate::tcp::SimStream;
use crate::timer::SimTimer;

/// What became of one stream.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The local program.
    pub client: Half,
    /// The target.
    pub target: Half,
    /// How many connections came to the target for it.
    pub met: u32,
    /// When its first byte came to the target.
    pub met_at: Option<Time>,
}

/// What one end did and saw.
#[derive(Debug, Clone, Default)]
pub struct Half {
    /// Bytes that its socket took.
    pub sent: u64,
    /// Whether it ended its side after all of them.
    pub finished: bool,
    /// Whether it broke the connection off.
    pub aborted: bool,
    /// Bytes that came.
    pub received: u64,
    /// Whether the other end's end was seen.
    pub ended: bool,
    /// When the first came, since it connected.
    pub first: Option<Duration>,
    /// The longest time between two pieces that came.
    pub stall: Duration,
    /// The first byte that was not the right one.
    pub wrong: Option<u64>,
    /// How it ended.
    pub end: End,
}

/// How an end of a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// It never began.
    #[default]
    Unborn,
    /// It has not ended.
    Open,
    /// The peer ended its side, and this one has said all it had to say.
    Done,
    /// By an error.
    Broken(io::ErrorKind),
    /// The machine or the process went away under it.
    Gone,
}

/// Which end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Target,
}

/// What all programs of a run share.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: Mutex<Vec<(Stream, Record)>>,
    closing: Mutex<(bool, Vec<Waker>)>,
}

impl Ledger {
    pub(crate) fn add(&self, stream: Stream) -> usize {
        let mut records = lock(&self.records);
        records.push((stream, Record::default()));
        records.len() - 1
    }

    pub(crate) fn records(&self) -> Vec<(Stream, Record)> {
        lock(&self.records).clone()
    }

    /// Ends the targets' listeners.
    pub(crate) fn close(&self) {
        let mut closing = lock(&self.closing);
        closing.0 = true;
        let wakers = std::mem::take(&mut closing.1);
        drop(closing);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll_closing(&self, cx: &Context<'_>) -> Poll<()> {
        let mut closing = lock(&self.closing);
        if closing.0 {
            return Poll::Ready(());
        }
        if !closing.1.iter().any(|waker| waker.will_wake(cx.waker())) {
            closing.1.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn plan(&self, stream: usize) -> Option<Stream> {
        lock(&self.records).get(stream).map(|(plan, _)| *plan)
    }

    fn write<T>(&self, stream: usize, role: Role, write: impl FnOnce(&mut Half) -> T) -> Option<T> {
        let mut records = lock(&self.records);
        let (_, record) = records.get_mut(stream)?;
        Some(write(match role {
            Role::Client => &mut record.client,
            Role::Target => &mut record.target,
        }))
    }
}

/// Connects to a forward and plays the local program's part.
pub(crate) async fn client(net: SimNet, port: u16, stream: usize, ledger: Arc<Ledger>) {
    let Some(plan) = ledger.plan(stream) else { return };
    let mut end = Ending::new(ledger.clone(), stream, Role::Client);
    let begun = net.now();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = match net.connect(&TcpConfig::default(), to) {
        Ok(mut io) => poll_fn(|cx| io.poll_connected(cx)).await.map(|()| io),
        Err(error) => Err(error),
    };
    let played = match connected {
        Ok(io) => Player::new(&net, io, Part::of(&plan, Role::Client), stream, ledger, begun).play().await,
        Err(error) => Err(error),
    };
    end.reached(&played);
}

/// Accepts the connections that forwards lead here.
pub(crate) async fn service(net: SimNet, ledger: Arc<Ledger>) {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, SERVICE_PORT));
    let Ok(mut listener) = net.listen(&TcpConfig { local: Some(local), ..TcpConfig::default() }) else {
        return;
    };
    loop {
        let accepted = poll_fn(|cx| match ledger.poll_closing(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => listener.poll_accept(cx).map(|accepted| accepted.ok()),
        });
        let Some((io, _)) = accepted.await else { return };
        net.spawn("target", target(net.clone(), io, ledger.clone()));
    }
}

async fn target(net: SimNet, mut io: SimStream, ledger: Arc<Ledger>) {
    let mut number = [0; NUMBER];
    let mut filled = 0;
    while filled < NUMBER {
        let read = poll_fn(|cx| io.poll_read(cx, &mut [IoSliceMut::new(&mut number[filled..])])).await;
        match read {
            // A client that resets its connection may be gone before it has said anything.
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
    }
    let stream = usize::try_from(u32::from_be_bytes(number)).unwrap_or(usize::MAX);
    let Some(plan) = ledger.plan(stream) else { return };
    if let Some((_, record)) = lock(&ledger.records).get_mut(stream) {
        record.met += 1;
        record.met_at.get_or_insert(net.time());
    }
    let mut end = Ending::new(ledger.clone(), stream, Role::Target);
    ledger.write(stream, Role::Target, |half| half.received = NUMBER as u64);
    let begun = net.now();
    let played = Player::new(&net, io, Part::of(&plan, Role::Target), stream, ledger, begun).play().await;
    end.reached(&played);
}

/// Writes down how an end ended, even where its task is dropped.
struct Ending {
    ledger: Arc<Ledger>,
    stream: usize,
    role: Role,
    end: End,
}

impl Ending {
    fn new(ledger: Arc<Ledger>, stream: usize, role: Role) -> Self {
        ledger.write(stream, role, |half| half.end = End::Open);
        Self { ledger, stream, role, end: End::Gone }
    }

    fn reached(&mut self, played: &io::Result<()>) {
        self.end = match played {
            Ok(()) => End::Done,
            Err(error) => End::Broken(error.kind()),
        };
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.ledger.write(self.stream, self.role, |half| half.end = self.end);
    }
}

/// What one end is to do.
struct Part {
    role: Role,
    send: u64,
    /// Says nothing before the other side has ended.
    answers: bool,
    /// Is silent for so long once it has sent so much.
    pause: Option<(u64, Duration)>,
    /// Breaks off once it has sent so much.
    breaks: Option<u64>,
    slow: bool,
}

impl Part {
    fn of(plan: &Stream, role: Role) -> Self {
        let (send, answering, resetting, slow) = match role {
            Role::Client => {
                (NUMBER as u64 + u64::from(plan.up), Manner::Greet, Manner::ClientResets, Manner::SlowClient)
            }
            Role::Target => (u64::from(plan.down), Manner::Ask, Manner::TargetResets, Manner::SlowTarget),
        };
        Self {
            role,
            send,
            answers: plan.manner == answering,
            pause: match plan.manner {
                Manner::Idle => Some((send / 2, IDLE)),
                manner if manner == resetting => Some((send / 2, THOUGHT)),
                _ => None,
            },
            breaks: (plan.manner == resetting).then_some(send / 2),
            slow: plan.manner == slow,
        }
    }

    /// How much may be sent before something else happens.
    fn until(&self, sent: u64) -> u64 {
        let stops = [self.breaks, self.pause.map(|(at, _)| at), self.introduction(sent)];
        stops.into_iter().flatten().filter(|at| *at > sent).chain([self.send]).min().unwrap_or(0)
    }

    /// The client that is to answer says its number first, or the target would not know.
    fn introduction(&self, sent: u64) -> Option<u64> {
        (self.role == Role::Client && sent < NUMBER as u64).then_some(NUMBER as u64)
    }
}

struct Player<'a> {
    net: &'a SimNet,
    io: SimStream,
    timer: SimTimer,
    part: Part,
    stream: usize,
    ledger: Arc<Ledger>,
    begun: Instant,
    sent: u64,
    received: u64,
    finished: bool,
    ended: bool,
    silent_until: Option<Instant>,
    read_from: Option<Instant>,
    /// When something came last, since the beginning.
    heard_at: Option<Duration>,
    buffer: Vec<u8>,
}

impl<'a> Player<'a> {
    fn new(
        net: &'a SimNet,
        io: SimStream,
        part: Part,
        stream: usize,
        ledger: Arc<Ledger>,
        begun: Instant,
    ) -> Self {
        let received = if part.role == Role::Target { NUMBER as u64 } else { 0 };
        let buffer = vec![0; if part.slow { 1 << 10 } else { 1 << 14 }];
        Self {
            net,
            io,
            timer: net.timer(),
            part,
            stream,
            ledger,
            begun,
            sent: 0,
            received,
            finished: false,
            ended: false,
            silent_until: None,
            read_from: None,
            heard_at: None,
            buffer,
        }
    }

    async fn play(mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (speaks, hears) = (self.speak(cx)?, self.hear(cx)?);
            if self.finished && self.ended {
                return Poll::Ready(Ok(()));
            }
            if speaks || hears {
                continue;
            }
            let at = [self.silent_until, self.read_from].into_iter().flatten().min();
            if self.timer.poll_at(cx, at).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Whether something was done.
    fn speak(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let introduced = self.part.introduction(self.sent).is_none();
        if self.finished || (self.part.answers && introduced && !self.ended) {
            return Ok(false);
        }
        if self.silent_until.is_some_and(|until| self.net.now() < until) {
            return Ok(false);
        }
        self.silent_until = None;
        if let Some((_, pause)) = self.part.pause.take_if(|(at, _)| introduced && self.sent >= *at) {
            self.silent_until = Some(self.net.now() + pause);
            return Ok(false);
        }
        if introduced && self.part.breaks.is_some_and(|at| self.sent >= at) {
            self.io.abort();
            self.ledger.write(self.stream, self.part.role, |half| half.aborted = true);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.sent == self.part.send {
            self.io.shutdown()?;
            self.finished = true;
            self.ledger.write(self.stream, self.part.role, |half| half.finished = true);
            return Ok(true);
        }
        let until = self.part.until(self.sent).min(self.sent + (1 << 14));
        let bytes: Vec<u8> = (self.sent..until).map(|at| byte(self.stream, self.part.role, at)).collect();
        match self.io.poll_write(cx, &[IoSlice::new(&bytes)]) {
            Poll::Pending => Ok(false),
            Poll::Ready(written) => {
                self.sent += written? as u64;
                self.ledger.write(self.stream, self.part.role, |half| half.sent = self.sent);
                Ok(true)
            }
        }
    }

    /// Whether something was done.
    fn hear(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.ended || self.read_from.is_some_and(|from| self.net.now() < from) {
            return Ok(false);
        }
        self.read_from = None;
        let read = match self.io.poll_read(cx, &mut [IoSliceMut::new(&mut self.buffer)]) {
            Poll::Pending => return Ok(false),
            Poll::Ready(read) => read?,
        };
        if read == 0 {
            self.ended = true;
            self.ledger.write(self.stream, self.part.role, |half| half.ended = true);
            return Ok(true);
        }
        let peer = if self.part.role == Role::Client { Role::Target } else { Role::Client };
        let places = self.received..;
        let wrong = places.zip(&self.buffer[..read]).find(|(at, got)| byte(self.stream, peer, *at) != **got);
        self.received += read as u64;
        let after = self.net.now() - self.begun;
        let stall = self.heard_at.replace(after).map_or(Duration::ZERO, |before| after - before);
        self.ledger.write(self.stream, self.part.role, |half| {
            half.received = self.received;
            half.first.get_or_insert(after);
            half.stall = half.stall.max(stall);
            half.wrong = half.wrong.or(wrong.map(|(at, _)| at));
        });
        if self.part.slow {
            self.read_from = Some(self.net.now() + SIP);
        }
        Ok(true)
    }
}

/// The byte at this place.
fn byte(stream: usize, role: Role, at: u64) -> u8 {
    if role == Role::Client && at < NUMBER as u64 {
        let number = u32::try_from(stream).unwrap_or(u32::MAX).to_be_bytes();
        return number[usize::try_from(at).unwrap_or(0)];
    }
    // A prime that is no divisor of any buffer's size, and another one for each stream and direction.
    let mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(stream as u64 * 0x51_7cc1 + role as u64);
    (mixed >> 32) as u8
}

/// The number of its stream, big-endian, with which a client begins.
const NUMBER: usize = 4;

/// Where the targets listen.
pub(crate) const SERVICE_PORT: u16 = 22;

/// The silence of [`Manner::Idle`]: longer than the ping of an idle link.
const IDLE: Duration = Duration::from_secs(20);

/// How long one that breaks off thinks about it: about as long as bytes take to the other end, so that some
/// breaks meet a connection that is up, and some one that is being opened.
const THOUGHT: Duration = Duration::from_millis(200);

/// How often a slow reader reads.
const SIP: Duration = Duration::from_millis(50);
