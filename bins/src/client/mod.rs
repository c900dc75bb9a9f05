//! The client's program: what its command line asks for, done.

mod key;
mod settings;
pub mod status;
mod table;

pub(crate) use settings::relay_status;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;
use tracing::{Level, info};

use crate::cli::given::Given;
use crate::cli::{self, Parsed, commands};
use crate::failure::Failure;
use crate::logs::Threshold;
use crate::run::{self, Runtime};
use crate::signals::Stop;
use crate::{demo, files, logs, token};

/// Everything from the arguments to the end of the program.
pub(crate) fn main(argv: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let Parsed::Run(matches) = cli::parse(commands::inp2pc(), argv)? else { return Ok(()) };
    let environment = |name: &str| std::env::var_os(name);
    let given = Given::new(&matches, &environment);
    // The demo's results are for people: the nodes' own news would stand between them.
    let level =
        if matches.subcommand_name() == Some("demo") { Threshold(Level::WARN) } else { Threshold::default() };
    logs::start(given.parsed("log-level")?.unwrap_or(level), given.parsed("log-format")?.unwrap_or_default());
    match matches.subcommand() {
        None => forward(given),
        Some(("status", inner)) => status::main(given.within(inner), &control(given.within(inner))),
        Some(("token", inner)) => token::main(given.within(inner), user_argument(inner)),
        Some(("demo", inner)) => Runtime::asked(given.within(inner))?.run(demo::Demo),
        Some((name, _)) => Err(Failure::Usage(format!("there is no subcommand {name}"))),
    }
}

/// Runs as a node until told to stop.
fn forward(given: Given<'_>) -> Result<(), Failure> {
    let runtime = Runtime::asked(given)?;
    let setup = settings::read(given, runtime.name())?;
    let stop =
        Stop::watch().map_err(|error| Failure::Failed(format!("cannot watch for signals: {error}")))?;
    info!(
        version = crate::VERSION,
        node = %setup.agent.node,
        server = %setup.agent.server_address,
        runtime = setup.runtime,
        "inp2pc starts"
    );
    runtime.run(run::Agent(setup, stop))
}

/// The `USER` argument of the `token` subcommand.
pub(crate) fn user_argument(matches: &ArgMatches) -> Option<&std::ffi::OsStr> {
    matches.get_one::<OsString>("USER").map(OsString::as_os_str)
}

/// The configuration file.
fn config_file(given: Given<'_>) -> PathBuf {
    given.path("config").unwrap_or_else(|| PathBuf::from("config.json"))
}

/// The control socket.
fn control(given: Given<'_>) -> PathBuf {
    given.path("control").unwrap_or_else(|| files::folder(&config_file(given)).join(CONTROL_SOCKET))
}

/// The control socket's name beside the configuration file.
const CONTROL_SOCKET: &str = "inp2pc.sock";
