//! How many STUN requests a second one core of the server answers: the real program, real sockets, loopback.
//!
//! Clients in this process keep many requests under way on many sockets, each request a datagram of its own,
//! and check every answer. The figure that counts is answers by second of processor time that `inp2ps` used:
//! on a machine whose other cores are free the server reaches it on the clock too. Asked for with and without
//! a proof (an HMAC an answer), since nodes ask for one and the rest of the world does not.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed measurement panics, and it prints")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use inp2p_core::stun::client::{Ask, Message, Transaction, read, request};

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
        for _ in 0..CLIENTS {
            scope.spawn(|| client(port, ask, &stop, &answers));
        }
        thread::sleep(WARM_UP);
        let before = (answers.load(Ordering::Relaxed), Instant::now(), server.processor());
        thread::sleep(MEASURED);
        let counted = answers.load(Ordering::Relaxed) - before.0;
        let (wall, processor) = (before.1.elapsed().as_secs_f64(), server.processor() - before.2);
        stop.store(true, Ordering::Relaxed);
        (f64::from(u32::try_from(counted).unwrap()), wall, processor)
    })
}

/// Keeps a window of requests under way on each of its sockets.
fn client(server: SocketAddr, ask: Option<Ask>, stop: &AtomicBool, answers: &AtomicU64) {
    let sockets: Vec<_> = (0..SOCKETS).map(|_| socket(server)).collect();
    let requests: Vec<Vec<u8>> = (0..WINDOW).map(|id| wire([id; 12], ask)).collect();
    let mut buffer = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        for socket in &sockets {
            requests.iter().for_each(|request| drop(socket.send(request)));
        }
        for socket in &sockets {
            for _ in 0..WINDOW {
                // What is lost is over with its turn.
                let Ok(length) = socket.recv(&mut buffer) else { break };
                let Some(Message::Answer(_, Ok(seen))) = read(&buffer[..length]) else { panic!("no answer") };
                assert_eq!(seen.mapped, socket.local_addr().unwrap());
                assert_eq!(seen.proof.is_some(), ask.is_some());
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn wire(transaction: Transaction, ask: Option<Ask>) -> Vec<u8> {
    match ask {
        Some(ask) => request(transaction, ask),
        None => [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &transaction].concat(),
    }
}

fn socket(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket
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

/// Threads that ask, and sockets of each, and requests under way on each socket: enough that the server's
/// queue never runs empty, few enough that it never overflows.
const CLIENTS: usize = 2;
const SOCKETS: usize = 32;
const WINDOW: u8 = 16;
/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// What counts.
const MEASURED: Duration = Duration::from_secs(3);
