//! Which flags and subcommands the two programs have. Names and defaults are pinned: people and scripts
//! use them. The values are read as text here; [`super::given`] gives them their types.

use std::ffi::OsString;

use clap::builder::{IntoResettable, StyledStr};
use clap::{Arg, ArgAction, Command, value_parser};

use crate::run::Runtime;

/// The client's command line.
pub fn inp2pc() -> Command {
    let command = program("inp2pc", "INP2P client: port forwards to other nodes, peer to peer")
        .subcommand(Command::new("demo").about("Start a server and two nodes on this machine and move data through them"))
        .subcommand(
            Command::new("status")
                .about("Show what the running client does; it is found by -config or -control")
                .arg(switch("json", "As JSON")),
        )
        .subcommand(token())
        .subcommand(version())
        .after_help(format!(
            "A forward: inp2pc -serverhost your-server.com -node nodeA -token-file token -forward 2222:nodeB:22\n\n{NOTES}"
        ));
    // The order in which flags are added is that of the help.
    command
        .args(in_group(
            "Server and node",
            [
                value("serverhost", "HOST", "The server's name or address (required)"),
                value("serverport", "PORT", "The server's port [27183]"),
                value("node", "NAME", "This node's unique name, of A-Z a-z 0-9 . _ - (required)"),
                value("user", "NAME", "The user that the node belongs to [default]"),
            ],
        ))
        .args(in_group(
            "Token: one of these is required",
            [
                value("token-file", "FILE", "File that holds the token: keeps it out of the process list"),
                value("token", "TOKEN", "The token, the same number as on the server, not 0"),
                value("password-file", "FILE", "File that holds the password; with -user it makes the token"),
            ],
        ))
        .args(in_group(
            "Forwards",
            [
                many("forward", "RULE", "[BIND:]PORT:NODE:[HOST:]PORT, like 2222:nodeB:22; repeatable"),
                many(
                    "allow",
                    "RULE",
                    "HOST-OR-CIDR:PORTS that peers may have dialled here; repeatable [loopback, every port]",
                ),
                value("push", "WHICH", "Forwards that the server may push: off, loopback, any [loopback]"),
            ],
        ))
        .args(in_group(
            "Security",
            [
                switch(
                    "insecure",
                    "ws:// in place of wss://; the login stays safe, sizes and times are visible",
                ),
                value("server-ca", "FILE", "PEM certificates that the server's must chain to"),
                value("server-key", "KEY", "The server's identity key, pinned [pinned at the first login]"),
                many(
                    "peer-key",
                    "NODE=KEY",
                    "A peer's identity key, pinned; repeatable [pinned on first use]",
                ),
            ],
        ))
        .args(in_group(
            "Paths",
            [
                value("rungs", "LIST", "Rungs that may be used, separated by commas [all seven]"),
                value("p2p-port", "PORT", "This node's own port for its peers, 0 for any [0]"),
                value("stun-udp1", "PORT", "The server's first UDP STUN port [as the server says]"),
                value("stun-udp2", "PORT", "The server's second UDP STUN port [as the server says]"),
                value("stun-tcp1", "PORT", "The server's first TCP STUN port [as the server says]"),
                value("stun-tcp2", "PORT", "The server's second TCP STUN port [as the server says]"),
            ],
        ))
        .args(in_group(
            "Relay",
            [
                switch("relay", "Serve as a relay for the own user"),
                switch("super", "Serve as a relay for all users"),
                value("relay-port", "PORT", "The relay's TCP port [27185]"),
                value("bw", "MBPS", "Bandwidth shared by those it relays for [10]"),
            ],
        ))
        .args(in_group(
            "Files",
            [
                value("config", "FILE", "Configuration file; the node key lies beside it [config.json]")
                    .global(true),
                switch("newconfig", "Ignore the existing file, use the command line and write the file anew"),
                value("control", "FILE", "Control socket [inp2pc.sock beside the configuration file]")
                    .global(true),
            ],
        ))
        .args(in_group("Program", general()))
}

/// The server's command line.
pub fn inp2ps() -> Command {
    let command = program("inp2ps", "INP2P server: signalling, STUN and REST")
        .subcommand(token())
        .subcommand(version())
        .after_help(NOTES);
    command
        .args(in_group(
            "Tokens: at least one is required",
            [
                value(
                    "token-file",
                    "FILE",
                    "File of tokens, one a line, as for -token: keeps them out of the process list",
                ),
                many(
                    "token",
                    "[NAME=]TOKEN",
                    "A user's token, not 0; one without a name is for the user default; repeatable",
                ),
            ],
        ))
        .args(in_group(
            "Ports",
            [
                value("bind", "ADDRESS", "Listen address [all, IPv4 and IPv6]"),
                value("ws-port", "PORT", "TCP: signalling and REST, with TLS and without [27183]"),
                value("stun-udp1", "PORT", "First UDP STUN port [27182]"),
                value("stun-udp2", "PORT", "Second UDP STUN port [27183]"),
                value("stun-tcp1", "PORT", "First TCP STUN port [27180]"),
                value("stun-tcp2", "PORT", "Second TCP STUN port [27181]"),
                value(
                    "stun-ip2",
                    "ADDRESS",
                    "Second address of this host, for the full RFC 5780 test [none]",
                ),
                many("trusted-proxy", "CIDR", "Proxies whose X-Forwarded-For is believed; repeatable [none]"),
            ],
        ))
        .args(in_group(
            "Relay",
            [
                switch("server-relay", "Serve as the last rung [true]"),
                value("server-relay-bw", "MBPS", "Bandwidth of the server relay, 0 for no limit [0]"),
            ],
        ))
        .args(in_group(
            "Files",
            [
                value("data", "FOLDER", "Keys and state, made with mode 0700 [inp2ps-data]"),
                value("tls-cert", "FILE", "PEM certificate chain [self-signed, made in -data]"),
                value("tls-key", "FILE", "PEM private key"),
            ],
        ))
        .args(in_group("Program", general()))
}

/// What the two command lines have in common.
fn program(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
}

fn general() -> [Arg; 4] {
    [
        value("runtime", "NAME", Runtime::help()).global(true),
        value("log-level", "LEVEL", "error, warn, info, debug, trace [info]").global(true),
        value("log-format", "FORMAT", "text, json [text]").global(true),
        Arg::new("version").long("version").action(ArgAction::SetTrue).help("Print the version"),
    ]
}

fn token() -> Command {
    Command::new("token")
        .about("Print the token of a user and a password, which is asked for or read from stdin")
        .arg(Arg::new("USER").help("The user's name").value_parser(value_parser!(OsString)))
        .arg(switch("random", "64 random bits, the strongest token: no user and no password"))
}

fn version() -> Command {
    Command::new("version").about("Print the version")
}

fn in_group<const N: usize>(heading: &'static str, arguments: [Arg; N]) -> [Arg; N] {
    arguments.map(|argument| argument.help_heading(heading))
}

/// A flag with a value; given twice, the later counts, as in Go.
fn value(name: &'static str, shape: &'static str, help: impl IntoResettable<StyledStr>) -> Arg {
    Arg::new(name).long(name).value_name(shape).help(help).value_parser(value_parser!(OsString))
}

/// A flag that may be given several times, for several values.
fn many(name: &'static str, shape: &'static str, help: &'static str) -> Arg {
    value(name, shape, help).action(ArgAction::Append)
}

/// A flag that takes no value, or `=true|false`.
fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .hide_possible_values(true)
        .value_name("BOOL")
        .value_parser(value_parser!(OsString))
}

const NOTES: &str = "\
Flags: -name value, -name=value, and the same with two dashes; switches take nothing, or =true and =false.
Each flag but -h and -version has an environment variable: -ws-port is INP2P_WS_PORT; values of repeatable
flags are separated by spaces there. A flag goes before the environment, the environment before the
configuration file, the file before the default (in brackets).
Exit codes: 0 ended as asked, 1 failed while running, 2 wrong usage or configuration.";

#[cfg(test)]
mod tests {
    use super::{inp2pc, inp2ps};

    #[test]
    fn the_commands_are_sound() {
        inp2pc().debug_assert();
        inp2ps().debug_assert();
    }
}
