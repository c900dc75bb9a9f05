//! A client or a server on a runtime, until it ends or is told to end.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use inp2p_core::agent::io::Exit;
use inp2p_driver::net::{Net, TimerIo};
use inp2p_driver::setup::{AgentSetup, Ports, ServerSetup};
use inp2p_runtime_tokio::TokioNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info};

use crate::cli::given::Given;
use crate::failure::Failure;
use crate::signals::Stop;

/// The runtime that is compiled in.
pub(crate) const RUNTIME: &str = "tokio";

/// The name of the runtime that `-runtime` asks for.
pub(crate) fn runtime(given: Given<'_>) -> Result<&'static str, Failure> {
    match given.parsed::<String>("runtime")?.as_deref() {
        None | Some(RUNTIME) => Ok(RUNTIME),
        Some(name @ ("smol" | "async-std")) => {
            Err(Failure::Usage(format!("-runtime {name} is not compiled into this program: use tokio")))
        }
        Some(_) => Err(Failure::usage("-runtime: use tokio")),
    }
}

/// Runs `main` on the runtime, with a worker a core, to its end.
pub(crate) fn on_runtime<M, F, T>(main: M) -> Result<T, Failure>
where
    M: FnOnce(TokioNet) -> F,
    F: Future<Output = Result<T, Failure>>,
{
    raise_descriptor_limit();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    inp2p_runtime_tokio::run(workers, main)
        .map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?
}

/// Each forwarded connection takes a descriptor, and the usual soft limit of 1024 is there for programs that
/// use `select`. The hard limit is the administrator's word.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        debug!(?current, "the limit of open descriptors cannot be raised");
    }
}

/// A client, to its end.
pub(crate) async fn agent<N: Net>(net: N, setup: AgentSetup, mut stop: Stop) -> Result<(), Failure> {
    let mut agent = inp2p_driver::agent::start(net.clone(), setup).await?;
    let ended = match select(pin!(agent.wait()), pin!(stop.asked())).await {
        Either::Left((exit, _)) => Some(exit),
        Either::Right(_) => None,
    };
    match ended {
        Some(Exit::Stopped) => Ok(()),
        Some(Exit::Refused(reason)) => Err(Failure::Failed(reason)),
        None => {
            info!("stopping: open connections have 10 s to end");
            agent.shutdown();
            at_most(&net, DRAIN, agent.wait()).await;
            Ok(())
        }
    }
}

/// A server, to its end.
pub(crate) async fn server<N: Net>(net: N, setup: ServerSetup, mut stop: Stop) -> Result<(), Failure> {
    let mut server = inp2p_driver::server::start(net.clone(), setup).await?;
    let Ports { ws, stun_udp, stun_tcp } = server.ports();
    info!(
        version = crate::VERSION,
        %ws,
        stun_udp1 = %stun_udp[0],
        stun_udp2 = %stun_udp[1],
        stun_tcp1 = %stun_tcp[0],
        stun_tcp2 = %stun_tcp[1],
        "inp2ps listens"
    );
    let ended = match select(pin!(server.wait()), pin!(stop.asked())).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    };
    match ended {
        Some(result) => result.map_err(Failure::Failed),
        None => {
            info!("stopping");
            server.shutdown();
            at_most(&net, DRAIN, server.wait()).await;
            Ok(())
        }
    }
}

/// Waits for `future`, but not longer than `limit`.
pub(crate) async fn at_most<N: Net, T>(
    net: &N,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    match select(pin!(future), pin!(sleep(net, limit))).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

/// Waits for `time` to pass.
pub(crate) async fn sleep<N: Net>(net: &N, time: Duration) {
    let at = net.now() + time;
    let mut timer = net.timer();
    // The clock decides, not the timer: it may be early.
    while net.now() < at {
        std::future::poll_fn(|cx| timer.poll_at(cx, Some(at))).await;
    }
}

/// How long open connections may take to end after the first signal.
const DRAIN: Duration = Duration::from_secs(10);
