//! The server's program: flags and environment made into one setup, and run.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use inp2p_driver::setup::{Cidr, ServerRelay, ServerSetup, ciphers};
use tracing::info;

use crate::cli::given::{Given, Mbps};
use crate::cli::{self, Parsed, commands};
use crate::client::user_argument;
use crate::failure::Failure;
use crate::run::{self, Runtime};
use crate::signals::Stop;
use crate::{VERSION, files, logs, token};

/// Everything from the arguments to the end of the program.
pub(crate) fn main(argv: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let Parsed::Run(matches) = cli::parse(commands::inp2ps(), argv)? else { return Ok(()) };
    let environment = |name: &str| std::env::var_os(name);
    let given = Given::new(&matches, &environment);
    logs::start(
        given.parsed("log-level")?.unwrap_or_default(),
        given.parsed("log-format")?.unwrap_or_default(),
    );
    match matches.subcommand() {
        None => serve(given),
        Some(("token", inner)) => token::main(given.within(inner), user_argument(inner)),
        Some((name, _)) => Err(Failure::Usage(format!("there is no subcommand {name}"))),
    }
}

fn serve(given: Given<'_>) -> Result<(), Failure> {
    let runtime = Runtime::asked(given)?;
    let setup = setup(given)?;
    let stop =
        Stop::watch().map_err(|error| Failure::Failed(format!("cannot watch for signals: {error}")))?;
    info!(version = VERSION, users = setup.users.len(), runtime = runtime.name(), "inp2ps starts");
    runtime.run(run::Server(setup, stop))
}

fn setup(given: Given<'_>) -> Result<ServerSetup, Failure> {
    let port = |name, default| given.port(name).map(|port| port.unwrap_or(default));
    let users = token::users(given)?;
    let tls = match (given.path("tls-cert"), given.path("tls-key")) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((files::read("tls-cert", &cert)?, files::read("tls-key", &key)?)),
        (Some(_), None) => {
            return Err(Failure::usage("-tls-cert needs -tls-key: give the certificate's key"));
        }
        (None, Some(_)) => {
            return Err(Failure::usage("-tls-key needs -tls-cert: give the key's certificate"));
        }
    };
    let trusted_proxies =
        given.list::<Cidrs>("trusted-proxy")?.into_iter().flat_map(|cidrs| cidrs.0).collect();
    let bandwidth_mbps = given.parsed::<Mbps>("server-relay-bw")?.map_or(0, |mbps| mbps.0);
    let data = given.path("data").unwrap_or_else(|| PathBuf::from("inp2ps-data"));
    Ok(ServerSetup {
        users,
        bind: given.parsed::<Address>("bind")?.map(|address| address.0),
        ws_port: port("ws-port", 27183)?,
        stun_udp: [port("stun-udp1", 27182)?, port("stun-udp2", 27183)?],
        stun_tcp: [port("stun-tcp1", 27180)?, port("stun-tcp2", 27181)?],
        stun_ip2: given.parsed::<Address>("stun-ip2")?.map(|address| address.0),
        relay: given.switch("server-relay")?.unwrap_or(true).then_some(ServerRelay { bandwidth_mbps }),
        trusted_proxies,
        tls,
        software: VERSION,
        crypto: ciphers(),
        store: files::store("data", data)?,
    })
}

/// An IP address, with an error that says so.
struct Address(IpAddr);

impl FromStr for Address {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        text.parse().map(Self).map_err(|_| "not an IP address")
    }
}

/// Networks, separated by commas.
struct Cidrs(Vec<Cidr>);

impl FromStr for Cidrs {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let cidrs =
            text.split(',').map(|cidr| cidr.trim().parse::<Cidr>().map_err(|error| error.to_string()));
        cidrs.collect::<Result<_, _>>().map(Self)
    }
}
