//! The `demo` subcommand: a server, two nodes and a target in this process, on loopback and on ports that
//! the system chooses; a forwarded port; real bytes through it.
//!
//! The machines, the driver and the sockets are those of the real programs. Only the files are not: keys and
//! pins stay in memory, so that nothing is left behind, however the demo ends.

mod load;
mod memory;
mod pattern;
mod target;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use inp2p_core::agent::{AgentConfig, PushPolicy};
use inp2p_core::auth::{Identity, Token};
use inp2p_core::ids::{NodeName, UserName};
use inp2p_core::path::{Rung, RungSet};
use inp2p_core::status::{ForwardStatus, Status};
use inp2p_core::tunnel::{Allow, ForwardRule};
use inp2p_driver::agent::AgentHandle;
use inp2p_driver::net::Net;
use inp2p_driver::setup::{AgentSetup, RelaySetup, ServerRelay, ServerSetup, ciphers};

use crate::client::relay_status;
use crate::failure::Failure;
use crate::run::{Main, at_most, sleep};
use crate::signals::Stop;
use crate::{VERSION, output, token};
use load::Load;
use memory::MemoryStore;

/// The demo as a program.
pub(crate) struct Demo;

impl Main for Demo {
    fn run<N: Net>(self, net: N, runtime: &'static str) -> impl Future<Output = Result<(), Failure>> {
        run(net, runtime)
    }
}

/// Runs the demo on `net`, to its end or to the first signal, and prints what comes of it. `runtime` is the name
/// that the nodes' status shows. It fails when a byte does not arrive, or in time.
pub async fn run<N: Net>(net: N, runtime: &'static str) -> Result<(), Failure> {
    let mut stop =
        Stop::watch().map_err(|error| Failure::Failed(format!("cannot watch for signals: {error}")))?;
    let target =
        target::start().map_err(|error| Failure::Failed(format!("cannot listen on loopback: {error}")))?;
    let token = token::random()?;
    let user = UserName::default();
    let server = server_setup(BTreeMap::from([(user.clone(), token.clone())]));
    let mut server = inp2p_driver::server::start(net.clone(), server).await?;
    let at = server.ports().ws;

    let rule = format!("127.0.0.1:0:{NODE_B}:{target}");
    let rule = rule.parse::<ForwardRule>().map_err(|error| Failure::Failed(format!("{rule}: {error}")))?;
    let mut nodes = Vec::new();
    for (name, forwards) in [(NODE_A, vec![rule]), (NODE_B, Vec::new())] {
        let setup = agent_setup(&net, runtime, at, name, token.clone(), forwards)?;
        nodes.push(inp2p_driver::agent::start(net.clone(), setup).await?);
    }

    let moved = match select(pin!(show(&net, at, &nodes)), pin!(stop.asked())).await {
        Either::Left((moved, _)) => moved,
        Either::Right(_) => {
            output::complain("inp2pc", "interrupted");
            Ok(())
        }
    };

    nodes.iter().for_each(AgentHandle::shutdown);
    for node in &mut nodes {
        at_most(&net, END, node.wait()).await;
    }
    server.shutdown();
    at_most(&net, END, server.wait()).await;
    moved
}

/// Waits for both nodes, moves the bytes, prints what came of it.
async fn show<N: Net>(net: &N, server: SocketAddr, nodes: &[AgentHandle]) -> Result<(), Failure> {
    let [a, b] = nodes else { return Err(Failure::failed("the demo has two nodes")) };
    let online = |status: &Status| status.server.connected.then_some(());
    settled(net, b, "node B did not log in", online).await?;
    settled(net, a, "node A did not log in", online).await?;
    let forward = settled(net, a, "the forward does not listen", listening).await?;
    output::result(format!("server       {server}, wss with its own certificate"));

    let load = Load::new(forward);
    let first = in_thread(move || load.round_trips(1)).await;
    // The first link may be about to be replaced by a better one.
    let best = |status: &Status| (status.peers.first()?.rung == Some(Rung::UdpDirect)).then_some(());
    if first.is_ok() {
        let _ = settled(net, a, "no better link", best).await;
    }
    let peers = a.status().await.peers;
    let Some(peer) = peers.first().filter(|_| first.is_ok()) else {
        let reason = peers.first().and_then(|peer| peer.error.clone());
        let reason = reason.or(first.err()).unwrap_or_else(|| "no peer".to_owned());
        return Err(Failure::Failed(format!("{NODE_A} does not reach {NODE_B}: {reason}")));
    };
    let rung = peer.rung.map_or("no rung", |rung| rung.as_str());
    let remote = peer.remote.map(|remote| format!(" at {remote}")).unwrap_or_default();
    output::result(format!("link         {NODE_A} to {NODE_B} by {rung}{remote}"));
    output::result(format!("forward      {forward} on {NODE_A} to the target behind {NODE_B}"));

    let moved = in_thread(move || load.run(output::result)).await;
    moved.map_err(|reason| Failure::Failed(format!("the demo failed: {reason}")))?;
    output::result("well done    every byte arrived as it was sent, and nothing is left behind");
    Ok(())
}

/// What `wanted` finds in the node's status, as soon as it finds it.
async fn settled<N: Net, T>(
    net: &N,
    node: &AgentHandle,
    otherwise: &str,
    wanted: impl Fn(&Status) -> Option<T>,
) -> Result<T, Failure> {
    let until = net.now() + START;
    loop {
        let status = node.status().await;
        if let Some(found) = wanted(&status) {
            return Ok(found);
        }
        if net.now() >= until {
            let errors = status.forwards.iter().map(|forward| &forward.error);
            let reasons: Vec<_> = errors.chain([&status.server.error]).flatten().cloned().collect();
            return Err(Failure::Failed(format!(
                "{otherwise} within {} s: {}",
                START.as_secs(),
                reasons.join("; ")
            )));
        }
        sleep(net, LOOK_AGAIN).await;
    }
}

fn listening(status: &Status) -> Option<SocketAddr> {
    let listens = |forward: &&ForwardStatus| forward.state == "listening";
    status.forwards.iter().find(listens)?.listen.parse().ok()
}

/// Runs blocking `work` in a thread of its own.
async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    let started = thread::Builder::new().name("load".to_owned()).spawn(move || {
        // The receiver is gone when the demo was interrupted.
        let _ = done.send(work());
    });
    started.map_err(|error| format!("cannot start a thread: {error}"))?;
    result.await.unwrap_or_else(|_| Err("the load's thread ended early".to_owned()))
}

fn server_setup(users: BTreeMap<UserName, Token>) -> ServerSetup {
    ServerSetup {
        users,
        bind: Some(LOOPBACK),
        ws_port: 0,
        stun_udp: [0, 0],
        stun_tcp: [0, 0],
        stun_ip2: None,
        relay: Some(ServerRelay::default()),
        trusted_proxies: Vec::new(),
        tls: None,
        software: VERSION,
        crypto: ciphers(),
        store: Arc::new(MemoryStore::default()),
    }
}

fn agent_setup<N: Net>(
    net: &N,
    runtime: &'static str,
    server: SocketAddr,
    name: &str,
    token: Token,
    forwards: Vec<ForwardRule>,
) -> Result<AgentSetup, Failure> {
    let node: NodeName = name.parse().map_err(|error| Failure::Failed(format!("{error}")))?;
    let relay = RelaySetup { enabled: false, super_relay: false, port: 0, bandwidth_mbps: 0 };
    let agent = AgentConfig {
        node,
        user: UserName::default(),
        token,
        identity: Identity::from_seed(net.seed()),
        server_pin: None,
        peer_pins: BTreeMap::new(),
        forwards,
        push: PushPolicy::Off,
        rungs: RungSet::ALL,
        software: VERSION.to_owned(),
        platform: String::new(),
        runtime: runtime.to_owned(),
        server_address: server.to_string(),
        tls: true,
        stun_udp: [None; 2],
        stun_tcp: [None; 2],
        relay: relay_status(relay),
    };
    Ok(AgentSetup {
        agent,
        allow: Allow::default(),
        host: server.ip().to_string(),
        port: server.port(),
        insecure: false,
        server_ca: None,
        p2p_port: 0,
        control: None,
        relay,
        runtime,
        crypto: ciphers(),
        store: Arc::new(MemoryStore::default()),
    })
}

const NODE_A: &str = "demo-a";
const NODE_B: &str = "demo-b";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A login takes milliseconds; a machine that is busy with a build takes seconds.
const START: Duration = Duration::from_secs(15);

/// Short against what a person notices.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// All connections are closed by then, so this is for a hang only.
const END: Duration = Duration::from_secs(10);
