//! How many STUN requests a second one core of the server answers: the real program, real sockets, loopback.
//!
//! A thread of this process keeps many requests under way on many sockets, each request a datagram of its own,
//! and checks every answer. The figures are answers by second of processor time that `inp2ps` used, and of the
//! clock: on a machine with a second core that is free the two come near each other. Asked for with and without
//! a proof (an HMAC an answer), since nodes ask for one and the rest of the world does not.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed measurement panics, and it prints")]

use std::io::{BufRead, BufReader, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use inp2p_core::stun::client::{Ask, Message, Transaction, read, request};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

fn main() {
    let folder = std::env::temp_dir().join(format!("inp2p-{}-bench-stun", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (server, port) = Server::start(&folder);
    for (name, ask) in [("bare", None), ("with a proof", Some(Ask::Proof))] {
        let (answers, wall, processor) = measure(&server, port, ask);
        println!(
            "STUN requests {name}: {:.0} answers by second of server processor time, {:.0} a second of the clock",
            answers / processor,
            answers / wall,
        );
    }
    drop(server);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Answers, seconds of the clock, seconds of the server's processor time.
fn measure(server: &Server, port: SocketAddr, ask: Option<Ask>) -> (f64, f64, f64) {
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| client(port, ask, &stop, &answers));
        thread::sleep(WARM_UP);
        let before = (answers.load(Ordering::Relaxed), Instant::now(), server.processor());
        thread::sleep(MEASURED);
        let counted = answers.load(Ordering::Relaxed) - before.0;
        let (wall, processor) = (before.1.elapsed().as_secs_f64(), server.processor() - before.2);
        stop.store(true, Ordering::Relaxed);
        (f64::from(u32::try_from(counted).unwrap()), wall, processor)
    })
}

/// Keeps a window of requests under way on each of its sockets. It never sleeps, and takes answers by the batch, so
/// that the server's queue does not run empty where each of the two has a processor.
fn client(server: SocketAddr, ask: Option<Ask>, stop: &AtomicBool, answers: &AtomicU64) {
    let mut sockets: Vec<_> = (0..SOCKETS).map(|_| Asking::new(server)).collect();
    let request = wire([7; 12], ask);
    let mut buffers = vec![[0; 2048]; BATCH_SIZE];
    while !stop.load(Ordering::Relaxed) {
        for socket in &mut sockets {
            let heard = socket.hear(&mut buffers, ask.is_some());
            answers.fetch_add(heard as u64, Ordering::Relaxed);
            socket.ask(&request);
        }
    }
}

/// A client's socket.
struct Asking {
    socket: UdpSocket,
    state: UdpSocketState,
    own: SocketAddr,
    under_way: usize,
    heard: Instant,
}

impl Asking {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        let state = UdpSocketState::new((&socket).into()).unwrap();
        let own = socket.local_addr().unwrap();
        Self { socket, state, own, under_way: 0, heard: Instant::now() }
    }

    /// Checks the answers that are there; how many.
    fn hear(&mut self, buffers: &mut [[u8; 2048]], proven: bool) -> usize {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let Ok(filled) = self.state.recv((&self.socket).into(), &mut slices, &mut metas) else {
            if self.heard.elapsed() > PATIENCE {
                // What is lost is over.
                (self.under_way, self.heard) = (0, Instant::now());
            }
            return 0;
        };
        let mut answers = 0;
        for (meta, buffer) in metas.iter().zip(&slices).take(filled) {
            for answer in buffer[..meta.len].chunks(meta.stride) {
                let Some(Message::Answer(_, Ok(seen))) = read(answer) else { panic!("no answer") };
                assert_eq!(seen.mapped, self.own);
                assert_eq!(seen.proof.is_some(), proven);
                answers += 1;
            }
        }
        self.under_way = self.under_way.saturating_sub(answers);
        self.heard = Instant::now();
        answers
    }

    fn ask(&mut self, request: &[u8]) {
        while self.under_way < WINDOW && self.socket.send(request).is_ok() {
            self.under_way += 1;
        }
    }
}

fn wire(transaction: Transaction, ask: Option<Ask>) -> Vec<u8> {
    match ask {
        Some(ask) => request(transaction, ask),
        None => [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &transaction].concat(),
    }
}

/// The program, which is killed when this is dropped.
struct Server(Child);

impl Server {
    fn start(folder: &std::path::Path) -> (Self, SocketAddr) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_inp2ps"))
            .args([
                "-token",
                "1",
                "-bind",
                "127.0.0.1",
                "-ws-port",
                "0",
                "-stun-udp1",
                "0",
                "-stun-udp2",
                "0",
            ])
            .args(["-stun-tcp1", "0", "-stun-tcp2", "0", "-data"])
            .arg(folder)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("stun_udp1=")?;
            rest.split(' ').next()?.parse().ok()
        });
        // What it goes on to say must not make it wait.
        thread::spawn(move || lines.for_each(drop));
        (Self(child), port.unwrap())
    }

    /// Seconds of processor time that its threads have used: the first field of each one's `schedstat`, in
    /// nanoseconds (the kernel's `Documentation/scheduler/sched-stats`).
    fn processor(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let spent = tasks.map(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
        });
        spent.sum::<Duration>().as_secs_f64()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sockets that ask, and requests under way on each: enough that the server's queue never runs empty, few enough
/// that it never overflows.
const SOCKETS: usize = 32;
const WINDOW: usize = 16;
/// After so long a request or its answer is lost.
const PATIENCE: Duration = Duration::from_millis(50);
/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// What counts.
const MEASURED: Duration = Duration::from_secs(3);
