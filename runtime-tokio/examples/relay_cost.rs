//! What a relay costs: processor time a gigabyte, beside HAProxy in TCP mode, in the same run.
//!
//! `cargo run --release -p inp2p-runtime-tokio --example relay_cost [GIGABYTES [STREAMS]]` starts a relay (this
//! program again) and an HAProxy, each in a process of its own, pushes the same bytes through both, and reads
//! from `/proc` what either used. The sending and the receiving ends are in this process and are not counted.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that fails panics")]
#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::future::poll_fn;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use futures_util::future::{join, join_all};
use inp2p_driver::net::{ListenIo, Net, StreamIo, TcpConfig};
use inp2p_driver::testkit::relay::World;
use inp2p_runtime_tokio::{TokioNet, run};

type Stream = <TokioNet as Net>::Stream;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "serve") {
        return run(2, |net| async move {
            let world = World::new(&net, 0);
            println!("{}", world.address());
            std::future::pending().await
        })
        .unwrap();
    }
    let number = |at: usize, default| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (gigabytes, streams): (u64, u64) = (number(0, 2), number(1, 1));
    run(2, move |net| async move {
        let bytes = gigabytes * 1_000_000_000 / streams;
        let mut child = Process(
            Command::new(std::env::current_exe().unwrap())
                .arg("serve")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let world = World::elsewhere(&net, line.trim().parse().unwrap());
        let mut pairs = Vec::new();
        for attempt in 0..streams {
            pairs.push(world.pair(u8::try_from(attempt).unwrap()).await);
        }
        let ours = measure(&child, pairs, bytes).await;

        let any = TcpConfig { local: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..TcpConfig::default() };
        let mut sink = net.listen(&any).unwrap();
        let entry = net.listen(&any).unwrap().local_addr().unwrap();
        let behind = sink.local_addr().unwrap();
        let config = std::env::temp_dir().join(format!("inp2p-relay-cost-{}.cfg", std::process::id()));
        std::fs::write(
            &config,
            format!(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 listen l\n bind {entry}\n server s {behind}\n"
            ),
        )
        .unwrap();
        let other = Process(Command::new("haproxy").arg("-db").arg("-f").arg(&config).spawn().unwrap());
        let mut pairs = Vec::new();
        for _ in 0..streams {
            let one = loop {
                let mut stream = net.connect(&TcpConfig::default(), entry).unwrap();
                if poll_fn(|cx| stream.poll_connected(cx)).await.is_ok() {
                    break stream;
                }
            };
            pairs.push((one, poll_fn(|cx| sink.poll_accept(cx)).await.unwrap().0));
        }
        let theirs = measure(&other, pairs, bytes).await;
        let _ = std::fs::remove_file(config);
        println!("relay    {ours:.3} s/GB\nhaproxy  {theirs:.3} s/GB\nratio    {:.2}", ours / theirs);
    })
    .unwrap();
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Processor time so far, of all threads, in seconds.
    fn used(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }
}

/// Seconds of processor time a gigabyte.
async fn measure(process: &Process, pairs: Vec<(Stream, Stream)>, bytes: u64) -> f64 {
    let before = process.used();
    let total = bytes * pairs.len() as u64;
    join_all(pairs.into_iter().map(|(one, two)| join(push(one, bytes), pull(two, bytes)))).await;
    (process.used() - before) / (total as f64 / 1e9)
}

async fn push(mut stream: Stream, bytes: u64) {
    let chunk = vec![0x5a; 128 * 1024];
    let mut left = bytes;
    while left > 0 {
        let piece = &chunk[..usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len())];
        left -= poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(piece)])).await.unwrap() as u64;
    }
    stream.shutdown().unwrap();
    let _ = poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(&mut [0])])).await;
}

async fn pull(mut stream: Stream, bytes: u64) {
    let mut buf = vec![0; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        let n = poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(&mut buf)])).await.unwrap();
        assert_ne!(n, 0, "it ended {left} bytes early");
        left -= n as u64;
    }
}
