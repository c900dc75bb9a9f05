//! Flags, environment, configuration file and defaults, in this order, made into one setup.

use std::net::IpAddr;
use std::path::Path;

use inp2p_core::agent::{AgentConfig, PushPolicy, check_forwards};
use inp2p_core::auth::Token;
use inp2p_core::ids::{NodeName, UserName};
use inp2p_core::path::{Rung, RungSet};
use inp2p_core::status::RelayStatus;
use inp2p_core::tunnel::{AllowRule, ForwardRule};
use inp2p_driver::setup::{AgentSetup, RelaySetup, ciphers};
use tracing::warn;

use super::{config_file, control, key};
use crate::VERSION;
use crate::cli::given::{Given, Mbps};
use crate::config::{Config, Forward, KeyText, PeerKey, Relay, StoredToken, Text};
use crate::failure::Failure;
use crate::{files, token};

/// Reads all of it, and only when all of it is sound makes what is to be made: the node key where there is
/// none and, with `-newconfig`, the file.
pub(super) fn read(given: Given<'_>, runtime: &'static str) -> Result<AgentSetup, Failure> {
    let path = config_file(given);
    let anew = given.switch("newconfig")? == Some(true);
    let file = if anew { Config::default() } else { Config::load(&path)?.unwrap_or_default() };
    let config = overlay(given, file)?;
    let required = required(given, &config)?;
    let server_ca =
        config.server.ca.as_ref().map(|ca| files::read("server-ca", Path::new(ca))).transpose()?;
    check_forwards(&config.forwards(), &required.node, &config.user.clone().unwrap_or_default())
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if config.rungs.as_ref().is_some_and(Vec::is_empty) {
        return Err(Failure::usage(
            "\"rungs\" is empty: name those that may be used, or leave it out for all",
        ));
    }
    warn_of_what_does_nothing(given, &config);

    let folder = files::folder(&path);
    let store = files::store("config", folder.clone())?;
    let identity = key::load_or_make(&*store, &folder)?;
    if anew {
        let token = required.token_is_written.then(|| StoredToken(required.token.clone()));
        Config { token, ..whole(&config) }.save(&path)?;
    }

    let relay = relay(&config);
    let agent = AgentConfig {
        node: required.node,
        user: config.user.clone().unwrap_or_default(),
        token: required.token,
        identity,
        server_pin: config.server.key.as_ref().map(|key| key.value),
        peer_pins: config.peer_keys.iter().map(|(peer, key)| (peer.clone(), key.value)).collect(),
        forwards: config.forwards(),
        push: config.push.as_ref().map(|push| push.value).unwrap_or_default(),
        rungs: config.rungs.as_ref().map_or(RungSet::ALL, |rungs| rungs.iter().copied().collect()),
        software: VERSION.to_owned(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        runtime: runtime.to_owned(),
        server_address: address(&required.host, required.port),
        tls: !required.insecure,
        stun_udp: [given.port("stun-udp1")?, given.port("stun-udp2")?],
        stun_tcp: [given.port("stun-tcp1")?, given.port("stun-tcp2")?],
        relay: relay_status(relay),
    };
    Ok(AgentSetup {
        agent,
        allow: config.allow.unwrap_or_default(),
        host: required.host,
        port: required.port,
        insecure: required.insecure,
        server_ca,
        p2p_port: config.p2p_port.unwrap_or_default(),
        control: Some(control(given)),
        relay,
        runtime,
        crypto: ciphers(),
        store,
    })
}

/// What there must be, from wherever it comes.
struct Required {
    host: String,
    port: u16,
    insecure: bool,
    node: NodeName,
    token: Token,
    /// Whether the token belongs into a file that is written anew: not if it has a file of its own.
    token_is_written: bool,
}

fn required(given: Given<'_>, config: &Config) -> Result<Required, Failure> {
    let missing = |what: &str| Failure::Usage(format!("{what}, or put it into the configuration file"));
    let host = config.server.host.clone().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| missing("no server: give -serverhost HOST"))?;
    // Brackets are how people write an IPv6 address beside a port.
    let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.to_owned(),
        None => host,
    };
    if !is_host(&host) {
        return Err(Failure::Usage(format!(
            "the server {host:?} is no name and no address: give the name or address alone (-serverhost HOST), and \
             the port by -serverport"
        )));
    }
    let node = config.node.clone().ok_or_else(|| missing("no node name: give -node NAME"))?;
    let (token, token_is_written) = match (token::own(given, config.user.as_ref())?, &config.token) {
        (Some(own), _) => own,
        (None, Some(stored)) => (stored.0.clone(), true),
        (None, None) => return Err(missing("no token: give -token-file FILE or -token TOKEN")),
    };
    let port = config.server.port.unwrap_or(SERVER_PORT);
    if port == 0 {
        return Err(Failure::usage("-serverport 0: no server listens there, use the server's -ws-port"));
    }
    Ok(Required {
        host,
        port,
        insecure: config.server.insecure.unwrap_or_default(),
        node,
        token,
        token_is_written,
    })
}

/// The file with whatever flags and environment say in its stead.
fn overlay(given: Given<'_>, mut config: Config) -> Result<Config, Failure> {
    replace(&mut config.server.host, given.parsed::<String>("serverhost")?);
    replace(&mut config.server.port, given.port("serverport")?);
    replace(&mut config.server.insecure, given.switch("insecure")?);
    replace(&mut config.server.ca, given.parsed::<String>("server-ca")?);
    replace(&mut config.server.key, given.parsed::<KeyText>("server-key")?);
    replace(&mut config.node, given.parsed::<NodeName>("node")?);
    replace(&mut config.user, given.parsed::<UserName>("user")?);
    replace(&mut config.relay.enabled, given.switch("relay")?);
    replace(&mut config.relay.super_relay, given.switch("super")?);
    replace(&mut config.relay.port, given.port("relay-port")?);
    replace(&mut config.relay.bandwidth_mbps, given.parsed::<Mbps>("bw")?.map(|bandwidth| bandwidth.0));
    replace(&mut config.p2p_port, given.port("p2p-port")?);
    replace(&mut config.push, given.parsed::<Text<PushPolicy>>("push")?);
    replace(&mut config.rungs, given.parsed::<Rungs>("rungs")?.map(|rungs| rungs.0));
    let forwards = given.list::<ForwardRule>("forward")?;
    if !forwards.is_empty() {
        config.forwards = forwards.into_iter().map(Forward::from).collect();
    }
    let allow = given.list::<AllowRule>("allow")?;
    if !allow.is_empty() {
        config.allow = Some(allow.into_iter().collect());
    }
    for pin in given.list::<PeerKey>("peer-key")? {
        config.peer_keys.insert(pin.peer, pin.key);
    }
    Ok(config)
}

/// The file that says all that is in force, so that a reader sees what can be changed.
fn whole(config: &Config) -> Config {
    let mut whole = config.clone();
    let relay = relay(config);
    whole.server.port.get_or_insert(SERVER_PORT);
    whole.server.insecure.get_or_insert(false);
    whole.relay = Relay {
        enabled: Some(relay.enabled),
        super_relay: Some(relay.super_relay),
        port: Some(relay.port),
        bandwidth_mbps: Some(relay.bandwidth_mbps),
    };
    whole.allow.get_or_insert_default();
    whole.rungs.get_or_insert_with(|| Rung::ALL.to_vec());
    whole
}

fn replace<T>(value: &mut Option<T>, by: Option<T>) {
    if by.is_some() {
        *value = by;
    }
}

fn relay(config: &Config) -> RelaySetup {
    let super_relay = config.relay.super_relay.unwrap_or_default();
    RelaySetup {
        // A super relay serves all users, its own among them.
        enabled: config.relay.enabled.unwrap_or_default() || super_relay,
        super_relay,
        port: config.relay.port.unwrap_or(RELAY_PORT),
        bandwidth_mbps: config.relay.bandwidth_mbps.unwrap_or(RELAY_MBPS),
    }
}

/// What `status` shows of the relay before it serves.
pub(crate) fn relay_status(relay: RelaySetup) -> RelayStatus {
    RelayStatus {
        enabled: relay.enabled,
        super_relay: relay.super_relay,
        port: relay.port,
        reachable: false,
        reason: None,
        sessions: 0,
        bytes: 0,
        limit_mbps: relay.bandwidth_mbps,
    }
}

/// What is given and does nothing gets a line: never silence.
fn warn_of_what_does_nothing(given: Given<'_>, config: &Config) {
    if !relay(config).enabled {
        for flag in ["relay-port", "bw"] {
            if given.has(flag) {
                warn!("-{flag} has no effect without -relay or -super");
            }
        }
    }
}

/// Whether `host` is a name or an address, and not, say, a URL or one with a port.
fn is_host(host: &str) -> bool {
    // The zone of a link-local address stands behind a %.
    let address = host.split('%').next().unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || !host.contains(|c: char| c.is_whitespace() || c.is_control() || "/:[]@?#\"".contains(c))
}

/// `HOST:PORT`, with an IPv6 address in brackets.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A comma-separated list of rungs.
struct Rungs(Vec<Rung>);

impl std::str::FromStr for Rungs {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rungs =
            text.split(',').map(|rung| rung.trim().parse::<Rung>().map_err(|error| error.to_string()));
        rungs.collect::<Result<_, _>>().map(Self)
    }
}

/// The original's default ports and bandwidth.
const SERVER_PORT: u16 = 27183;
const RELAY_PORT: u16 = 27185;
const RELAY_MBPS: u32 = 10;

#[cfg(test)]
mod tests;
