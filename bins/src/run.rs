//! A client or a server on a runtime, until it ends or is told to end. Nothing else in the programs names a
//! runtime.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::{Either, select};
use inp2p_core::agent::io::Exit;
use inp2p_driver::net::{Net, TimerIo};
use inp2p_driver::os::raise_descriptor_limit;
use inp2p_driver::setup::{AgentSetup, Ports, ServerSetup};
use tracing::info;

use crate::cli::given::Given;
use crate::failure::Failure;
use crate::signals::Stop;

/// What `-runtime` may say, the default first: a name, which is also the Cargo feature that compiles it in, and
/// how it is started. Another runtime is a line here and a dependency in `Cargo.toml`.
macro_rules! runtimes {
    ($($variant:ident $name:literal $run:path;)*) => {
        /// A runtime that is compiled in.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Runtime {
            $(#[cfg(feature = $name)] $variant,)*
        }

        impl Runtime {
            /// All that this program may be built with.
            const KNOWN: &'static [&'static str] = &[$($name),*];

            /// Those that it was built with.
            const COMPILED_IN: &'static [Self] = &[$(#[cfg(feature = $name)] Self::$variant),*];

            /// Its name, as in `-runtime`, logs and `status`.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(#[cfg(feature = $name)] Self::$variant => $name,)*
                }
            }

            #[cfg_attr(
                not(any($(feature = $name),*)),
                expect(unused_variables, reason = "without a runtime there is none to start")
            )]
            fn start<M: Main>(self, workers: usize, main: M) -> io::Result<Result<(), Failure>> {
                match self {
                    $(#[cfg(feature = $name)] Self::$variant => $run(workers, |net| main.run(net, $name)),)*
                }
            }
        }
    };
}

runtimes! {
    Tokio "tokio" inp2p_runtime_tokio::run;
    Smol "smol" inp2p_runtime_smol::run;
    AsyncStd "async-std" inp2p_runtime_smol::async_std::run;
}

impl Runtime {
    /// The one that `-runtime` asks for.
    pub(crate) fn asked(given: Given<'_>) -> Result<Self, Failure> {
        let default = Self::COMPILED_IN.first().copied();
        let otherwise = || Failure::failed("no runtime is compiled in: build with --features tokio");
        given.parsed("runtime")?.or(default).ok_or_else(otherwise)
    }

    /// Runs `main` with a worker a core, to its end.
    pub(crate) fn run(self, main: impl Main) -> Result<(), Failure> {
        raise_descriptor_limit();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        self.start(workers, main)
            .map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?
    }

    /// What the help says of the flag.
    pub(crate) fn help() -> String {
        let default = Self::COMPILED_IN.first().map_or("none", |runtime| runtime.name());
        format!("Async runtime: {} [{default}]", Self::choice())
    }

    fn choice() -> String {
        let names: Vec<_> = Self::COMPILED_IN.iter().map(|runtime| runtime.name()).collect();
        names.join(" or ")
    }
}

impl FromStr for Runtime {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let choice = Self::choice();
        match Self::COMPILED_IN.iter().find(|runtime| runtime.name() == name) {
            Some(&runtime) => Ok(runtime),
            None if Self::KNOWN.contains(&name) => Err(format!(
                "not compiled into this program, use {choice} (or build it with --features {name})"
            )),
            None => Err(format!("no such runtime, use {choice}")),
        }
    }
}

/// What a program does on a network, whichever it is.
pub(crate) trait Main {
    /// Does it, on a network of the runtime of that name.
    fn run<N: Net>(self, net: N, runtime: &'static str) -> impl Future<Output = Result<(), Failure>>;
}

/// A client, to its end.
pub(crate) struct Agent(pub(crate) AgentSetup, pub(crate) Stop);

impl Main for Agent {
    async fn run<N: Net>(self, net: N, _runtime: &'static str) -> Result<(), Failure> {
        let Self(setup, mut stop) = self;
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
}

/// A server, to its end.
pub(crate) struct Server(pub(crate) ServerSetup, pub(crate) Stop);

impl Main for Server {
    async fn run<N: Net>(self, net: N, _runtime: &'static str) -> Result<(), Failure> {
        let Self(setup, mut stop) = self;
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
