//! How much faster than real time a server with nodes runs (20 for 600 s, or as the arguments say): half of
//! them have a forward to the other half and send a little through it every second. Also prints the log's
//! hash, by which two runs, or a debug and a release build, are compared. A release build fails below 500 times.

#![allow(clippy::print_stdout, reason = "the result is for people")]

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use inp2p_driver::net::{ListenIo, Net, StreamIo, TcpConfig};
use inp2p_sim::nat::Preset;
use inp2p_sim::{LinkConfig, SimNet, SimStream, World, programs};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u16| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (nodes, simulated) = (number(20), Duration::from_secs(number(600).into()));
    let begun = cpu_time();
    let world = World::new(1);
    world.keep_log(0);
    let server = world.public_host("server", u16::MAX, LinkConfig::default());
    world.program(server, |net| {
        let inner = net.clone();
        net.spawn("main", async move {
            let setup = programs::server(&inner);
            let _server = inp2p_driver::server::start(inner, setup).await;
            std::future::pending::<()>().await;
        });
    });
    for number in 0..nodes {
        let preset = if number.is_multiple_of(2) {
            BEHIND[usize::from(number / 2) % BEHIND.len()]
        } else {
            Preset::Open
        };
        let home = world.home(&format!("node{number}"), number, preset, LinkConfig::default());
        world.program(home.host, move |net| start(&net, number));
    }
    world.run_for(simulated);
    let took = cpu_time() - begun;
    let ratio = simulated.as_secs_f64() / took.as_secs_f64();
    println!("{nodes} nodes, {simulated:?} simulated in {took:.2?} of one processor: {ratio:.0} x real time");
    println!("{} events, hash {:016x}", world.events(), world.hash());
    ExitCode::from(u8::from(!cfg!(debug_assertions) && ratio < 500.0))
}

/// What this thread has had of a processor: other programs on the machine do not count.
fn cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

fn start(net: &SimNet, number: u16) {
    net.spawn("echo", echo(net.clone()));
    let inner = net.clone();
    net.spawn("main", async move {
        let forward = format!("2222:node{}:22", number + 1);
        let forwards: &[&str] = if number.is_multiple_of(2) { &[&forward] } else { &[] };
        let setup = programs::node(&inner, &format!("node{number}"), "server", forwards);
        let _node = inp2p_driver::agent::start(inner.clone(), setup).await;
        if !forwards.is_empty() {
            loop {
                // One that breaks is opened again.
                let _ = chat(&inner).await;
                inner.sleep(Duration::from_secs(5)).await;
            }
        }
        std::future::pending::<()>().await;
    });
}

async fn chat(net: &SimNet) -> io::Result<()> {
    let mut stream = net.connect(&TcpConfig::default(), SocketAddr::from(([127, 0, 0, 1], 2222)))?;
    poll_fn(|cx| stream.poll_connected(cx)).await?;
    let mut buffer = [0; 1000];
    loop {
        poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(&buffer)])).await?;
        read(&mut stream, &mut buffer).await?;
        net.sleep(Duration::from_secs(1)).await;
    }
}

async fn echo(net: SimNet) {
    let config = TcpConfig { local: Some(SocketAddr::from(([127, 0, 0, 1], 22))), ..TcpConfig::default() };
    let Ok(mut listener) = net.listen(&config) else { return };
    while let Ok((mut stream, _)) = poll_fn(|cx| listener.poll_accept(cx)).await {
        net.spawn("echo", async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = read(&mut stream, &mut buffer).await {
                let _ = poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(&buffer[..read])])).await;
            }
        });
    }
}

async fn read(stream: &mut SimStream, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(buffer)])).await
}

/// The NATs of those that have the forwards, in turn.
const BEHIND: [Preset; 5] = [
    Preset::PortRestricted,
    Preset::FullCone,
    Preset::SymmetricRandom,
    Preset::Cgnat,
    Preset::SymmetricSequential,
];
