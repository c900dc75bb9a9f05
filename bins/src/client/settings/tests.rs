use std::ffi::OsString;

use clap::ArgMatches;

use super::{address, overlay, required};
use crate::cli::given::Given;
use crate::cli::{Parsed, commands, parse};
use crate::config::Config;
use crate::failure::Failure;

fn matches(line: &str) -> ArgMatches {
    match parse(commands::inp2pc(), line.split(' ').map(OsString::from)) {
        Ok(Parsed::Run(matches)) => matches,
        other => panic!("{other:?}"),
    }
}

fn file() -> Config {
    serde_json::from_str(
        r#"{"server": {"host": "file.example", "port": 1}, "node": "file", "token": "1",
            "relay": {"enabled": true, "bandwidth_mbps": 5},
            "forwards": [{"listen": "127.0.0.1:1", "node": "b", "target": "127.0.0.1:1"}]}"#,
    )
    .unwrap()
}

/// The file under a command line, without an environment.
fn overlaid(line: &str) -> Config {
    overlay(Given::new(&matches(line), &|_| None), file()).unwrap()
}

fn missing(line: &str) -> String {
    let matches = matches(line);
    let given = Given::new(&matches, &|_| None);
    match required(given, &overlay(given, Config::default()).unwrap()) {
        Err(Failure::Usage(text)) => text,
        _ => panic!("{line} is enough"),
    }
}

#[test]
fn flags_go_before_the_file() {
    let config = overlaid("x -serverhost flag.example -relay=false -bw 7");
    assert_eq!(config.server.host.as_deref(), Some("flag.example"));
    assert_eq!(config.server.port, Some(1));
    assert_eq!(config.relay.enabled, Some(false));
    assert_eq!(config.relay.bandwidth_mbps, Some(7));
}

#[test]
fn forwards_of_the_command_line_replace_those_of_the_file() {
    let names =
        |line: &str| overlaid(line).forwards().into_iter().map(|rule| rule.listen.port()).collect::<Vec<_>>();
    assert_eq!(names("x"), [1]);
    assert_eq!(names("x -forward 2:b:2 -forward 3:b:3"), [2, 3]);
}

#[test]
fn what_is_missing_is_named() {
    assert!(missing("x -node a -token 1").starts_with("no server: give -serverhost HOST"));
    assert!(missing("x -serverhost h -token 1").starts_with("no node name: give -node NAME"));
    assert!(
        missing("x -serverhost h -node a").starts_with("no token: give -token-file FILE or -token TOKEN")
    );
}

#[test]
fn a_wrong_token_is_refused_without_being_repeated() {
    for token in ["0", "12345678x", "-12345678", "123456781234567812345678"] {
        let text = missing(&format!("x -serverhost h -node a -token {token}"));
        assert!(text.starts_with("-token: ") && !text.contains("1234"), "{text}");
    }
}

#[test]
fn two_tokens_contradict_each_other() {
    let text = missing("x -serverhost h -node a -token 1 -token-file f");
    assert_eq!(text, "-token and -token-file: give one of them");
}

#[test]
fn a_server_is_a_name_or_an_address() {
    for wrong in ["https://h", "h:27183", "[::1]:27183", "h/", "u@h", "a b"] {
        let matches = matches("x -node a -token 1");
        let environment = |name: &str| (name == "INP2P_SERVERHOST").then(|| wrong.into());
        let given = Given::new(&matches, &environment);
        match required(given, &overlay(given, Config::default()).unwrap()) {
            Err(Failure::Usage(text)) => assert!(text.contains("-serverport"), "{text}"),
            _ => panic!("{wrong} is no server"),
        }
    }
    for right in
        ["h", "h.example.", "xn--bcher-kva.example", "bücher.example", "::1", "[::1]", "fe80::1%eth0", "h_1"]
    {
        let config = overlaid(&format!("x -node a -token 1 -serverhost {right}"));
        let matches = matches("x -node a -token 1");
        assert!(required(Given::new(&matches, &|_| None), &config).is_ok(), "{right}");
    }
}

#[test]
fn addresses_are_written_as_urls_have_them() {
    assert_eq!(
        [address("h", 1), address("::1", 1), address("127.0.0.1", 1)],
        ["h:1", "[::1]:1", "127.0.0.1:1"]
    );
}
