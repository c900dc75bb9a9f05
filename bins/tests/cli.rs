//! The command lines: forms of flags, exit codes, what is said when something is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use lab::process::{Program, Ran};
use lab::{Lab, TOKEN, body, http};

/// Runs `inp2pc` to its end.
fn inp2pc(lab: &Lab, arguments: &[&str]) -> Ran {
    Ran::of(lab.inp2pc(arguments))
}

/// Runs `inp2ps` to its end.
fn inp2ps(lab: &Lab, arguments: &[&str]) -> Ran {
    Ran::of(lab.inp2ps(arguments))
}

/// One line on stderr that begins with `text`, behind the program's name; this exit code; nothing on stdout.
#[track_caller]
fn assert_refused(ran: &Ran, code: i32, text: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    let line = ran.stderr.lines().last().unwrap_or_default();
    let said = line.split_once(": ").map_or("", |(_, said)| said);
    assert!(said.starts_with(text), "{ran:?}");
    assert_eq!(ran.stdout, "", "results only");
}

#[test]
fn help_and_version_are_results() {
    let lab = Lab::new("help");
    for arguments in [["-version"], ["--version"], ["version"]] {
        let ran = inp2pc(&lab, &arguments);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "inp2pc 0.1.0\n", ""));
        assert_eq!(inp2ps(&lab, &arguments).stdout, "inp2ps 0.1.0\n");
    }
    for arguments in [["-h"], ["-help"], ["--help"]] {
        let (client, server) = (inp2pc(&lab, &arguments), inp2ps(&lab, &arguments));
        assert_eq!((client.code, server.code), (0, 0));
        for flag in [" -serverhost ", " -newconfig", " -peer-key ", " -control ", " -log-format ", "INP2P_"] {
            assert!(client.stdout.contains(flag), "{flag}: {}", client.stdout);
        }
        for flag in [" -ws-port ", " -stun-tcp2 ", " -tls-cert ", " -server-relay-bw ", "INP2P_"] {
            assert!(server.stdout.contains(flag), "{flag}: {}", server.stdout);
        }
        assert!(!client.stdout.contains("--"), "one dash, as these programs have always had");
    }
}

#[test]
fn wrong_usage_is_one_line_and_code_2() {
    let lab = Lab::new("usage");
    let base = ["-serverhost", "127.0.0.1", "-node", "a", "-token", "1"];
    let with = |more: &[&str]| inp2pc(&lab, &[&base, more].concat());
    for (ran, text) in [
        (inp2pc(&lab, &[]), "no server: give -serverhost HOST"),
        (inp2pc(&lab, &["-serverhost", "h", "-token", "1"]), "no node name: give -node NAME"),
        (
            inp2pc(&lab, &["-serverhost", "h", "-node", "a"]),
            "no token: give -token-file FILE or -token TOKEN",
        ),
        (inp2pc(&lab, &["-nod", "a"]), "there is no flag -nod: did you mean -node?"),
        (inp2pc(&lab, &["-node"]), "-node needs a value"),
        (inp2pc(&lab, &["stats"]), "there is no subcommand stats"),
        (with(&["-serverport", "65536"]), "-serverport 65536: not a port"),
        (with(&["-serverport", "0"]), "-serverport 0"),
        (with(&["-node", "a b"]), "-node: \"a b\" is not a name"),
        (with(&["-relay=maybe"]), "-relay maybe: use true or false"),
        (with(&["-bw", "-1"]), "-bw -1: not a bandwidth"),
        (with(&["-log-level", "loud"]), "-log-level loud: use error, warn, info, debug or trace"),
        (with(&["-log-format", "xml"]), "-log-format xml: use text or json"),
        (with(&["-runtime", "glommio"]), "-runtime glommio: no such runtime, use "),
        (with(&["-rungs", "tcp-direct,pigeon"]), "-rungs tcp-direct,pigeon: \"pigeon\" is not a rung"),
        (with(&["-push", "some"]), "-push: \"some\" is no push policy"),
        (with(&["-forward", "2222:nodeB"]), "-forward: forward \"2222:nodeB\": "),
        (with(&["-forward", "2222:a:22"]), "forward \"2222:a:22\" leads to this node itself"),
        (
            with(&["-forward", "2222:b:22", "-forward", "2222:c:22"]),
            "forwards \"2222:b:22\" and \"2222:c:22\" both",
        ),
        (with(&["-forward", "2222:a:22", "-newconfig"]), "forward \"2222:a:22\" leads to this node itself"),
        (with(&["-serverhost", "https://h"]), "the server \"https://h\" is no name and no address"),
        (with(&["-allow", "10.0.0.0/33:*"]), "-allow: allow \"10.0.0.0/33:*\": "),
        (with(&["-server-key", "00"]), "-server-key 00: not a key"),
        (with(&["-peer-key", "b"]), "-peer-key b: use NODE=KEY"),
        (with(&["-server-ca", "none.pem"]), "-server-ca: cannot read none.pem: no such file or directory"),
        (with(&["-token-file", "none"]), "-token and -token-file: give one of them"),
        (inp2ps(&lab, &[]), "no token: give -token-file FILE or -token TOKEN"),
        (inp2ps(&lab, &["-token-file", "/dev/null"]), "-token-file: /dev/null holds no token"),
        (inp2ps(&lab, &["-token", "1", "-ws-port", "x"]), "-ws-port x: not a port"),
        (inp2ps(&lab, &["-token", "1", "-token", "2"]), "-token: user default has a token already"),
        (inp2ps(&lab, &["-token", "a b=1"]), "-token: what is before the = is not a user's name"),
        (inp2ps(&lab, &["-token", "1", "-bind", "here"]), "-bind here: not an IP address"),
        (
            inp2ps(&lab, &["-token", "1", "-trusted-proxy", "10.0.0.0/33"]),
            "-trusted-proxy: \"10.0.0.0/33\" is not a network",
        ),
        (inp2ps(&lab, &["-token", "1", "-tls-cert", "c.pem"]), "-tls-cert needs -tls-key"),
        (
            inp2ps(&lab, &["-token", "1", "-bind", "127.0.0.1", "-stun-ip2", "127.0.0.1"]),
            "-stun-ip2 127.0.0.1 needs two addresses of one family",
        ),
        (inp2ps(&lab, &["-token", "1", "-runtime", "threads"]), "-runtime threads: no such runtime, use "),
    ] {
        assert_refused(&ran, 2, text);
    }
    let left = lab::entries(&lab.path("."));
    for file in ["config.json", "inp2pc.key"] {
        assert!(!left.contains(&file.to_owned()), "nothing is written on wrong usage: {left:?}");
    }
}

#[test]
fn a_runtime_that_is_not_compiled_in_is_refused_with_those_that_are() {
    let lab = Lab::new("runtimes");
    let runtimes = [
        ("tokio", cfg!(feature = "tokio")),
        ("smol", cfg!(feature = "smol")),
        ("async-std", cfg!(feature = "async-std")),
    ];
    let compiled_in: Vec<_> = runtimes.iter().filter(|(_, is_in)| *is_in).map(|(name, _)| *name).collect();
    let choice = compiled_in.join(" or ");
    for program in [inp2pc, inp2ps] {
        let help = program(&lab, &["-h"]);
        assert!(help.stdout.contains(&format!("Async runtime: {choice} [{}]", compiled_in[0])), "{help:?}");
    }
    for (name, is_in) in runtimes {
        // An error of its own: nothing is served.
        let ran = inp2ps(&lab, &["-token", "1", "-bind", "nowhere", "-runtime", name]);
        if is_in {
            assert_refused(&ran, 2, "-bind nowhere: not an IP address");
        } else {
            let text = format!("-runtime {name}: not compiled into this program, use {choice}");
            assert_refused(&ran, 2, &text);
            assert_refused(&inp2pc(&lab, &["demo", "-runtime", name]), 2, &text);
        }
    }
}

#[test]
fn a_wrong_token_is_never_repeated() {
    let lab = Lab::new("token0");
    for token in ["0", "000", "-7654321", "7654321x", "76543217654321765432176543217654321", "", "0x7654321"]
    {
        for ran in [
            inp2ps(&lab, &["-token", token]),
            inp2ps(&lab, &["-token", &format!("alice={token}")]),
            inp2pc(&lab, &["-serverhost", "h", "-node", "a", "-token", token]),
        ] {
            assert_eq!(ran.code, 2, "{token}: {ran:?}");
            assert_eq!(ran.stderr.lines().count(), 1, "{token}: {ran:?}");
            assert!(!ran.stderr.contains("7654321"), "{token}: {ran:?}");
        }
    }
    assert!(inp2ps(&lab, &["-token", "0"]).stderr.contains("the token is 0"));
    assert!(inp2ps(&lab, &["-token", "x"]).stderr.contains("the token is not a number"));
}

#[test]
fn all_forms_of_a_flag_and_its_variable_mean_the_same() {
    let lab = Lab::new("forms");
    // The bad port shows which of them counted.
    for arguments in [
        ["-serverport", "70000"].as_slice(),
        &["--serverport", "70000"],
        &["-serverport=70000"],
        &["--serverport=70000"],
    ] {
        assert_refused(&inp2pc(&lab, arguments), 2, "-serverport 70000");
    }
    let mut command = lab.inp2pc(&[]);
    command.env("INP2P_SERVERPORT", "70001");
    assert_refused(&Ran::of(command), 2, "INP2P_SERVERPORT 70001");
    let mut command = lab.inp2pc(&["-serverport", "70002"]);
    command.env("INP2P_SERVERPORT", "70001");
    assert_refused(&Ran::of(command), 2, "-serverport 70002");
    let mut command = lab.inp2pc(&["-serverhost", "h", "-node", "a", "-config", "c.json"]);
    command.env("INP2P_TOKEN", "0");
    assert_refused(&Ran::of(command), 2, "INP2P_TOKEN: the token is 0");
}

#[test]
fn the_environment_goes_before_the_file_and_a_flag_before_both() {
    let lab = Lab::new("order");
    lab.file("config.json", r#"{"server": {"host": "h"}, "node": "a", "rungs": ["pigeon"]}"#);
    assert_refused(&inp2pc(&lab, &["-token", "1"]), 2, "config.json, line 1, column ");
    lab.file("config.json", r#"{"server": {"host": "h"}, "node": "a", "token": "1"}"#);
    let mut command = lab.inp2pc(&[]);
    command.env("INP2P_NODE", "not a name");
    assert_refused(&Ran::of(command), 2, "INP2P_NODE: \"not a name\" is not a name");
    let mut command = lab.inp2pc(&["-node", "nor this"]);
    command.env("INP2P_NODE", "not a name");
    assert_refused(&Ran::of(command), 2, "-node: \"nor this\" is not a name");
}

#[test]
fn a_malformed_file_is_named_with_line_and_left_alone() {
    let lab = Lab::new("malformed");
    let content = "{\n  \"node\": \"a\",\n  \"tokn\": \"1\"\n}\n";
    let path = lab.file("config.json", content);
    let flags = ["-serverhost", "127.0.0.1", "-node", "a", "-token", "1"];
    assert_refused(&inp2pc(&lab, &flags), 2, "config.json, line 3, column 8: unknown key `tokn`");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
    assert!(!lab.path("inp2pc.key").exists(), "nothing is made while something is wrong");
}

#[test]
fn an_unreadable_file_is_an_error() {
    let lab = Lab::new("unreadable");
    fs::create_dir(lab.path("config.json")).unwrap();
    let flags = ["-serverhost", "127.0.0.1", "-node", "a", "-token", "1"];
    assert_refused(&inp2pc(&lab, &flags), 2, "cannot read config.json: is a directory");
}

#[test]
fn tokens_are_those_of_openp2p() {
    let lab = Lab::new("tokens");
    let token = |arguments: &[&str], input: &str| Ran::with_input(lab.inp2pc(arguments), input);
    assert_eq!(token(&["token", "admin"], "admin\n").stdout, "5189669952497224095\n");
    assert_eq!(token(&["token", "1234"], "56789").stdout, format!("{}\n", 0xb909_56c7_75a4_1001_u64));
    assert_eq!(Ran::with_input(lab.inp2ps(&["token", "admin"]), "admin\r\n").stdout, "5189669952497224095\n");
    assert_refused(&token(&["token", "admin"], ""), 2, "the password is empty");
    assert_refused(&token(&["token"], "x"), 2, "token needs the user's name");
    assert_refused(&token(&["token", "a b"], "x"), 2, "\"a b\" is not a name");
    let random = token(&["token", "-random"], "").stdout;
    assert!(random.trim().parse::<u64>().unwrap() != 0);
    assert_ne!(random, token(&["token", "-random"], "").stdout);
}

#[test]
fn health_is_exact_and_ports_in_use_are_named() {
    let lab = Lab::new("health");
    let mut server = lab.server();
    let answer = http(server.ws(), "/api/v1/health");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(body(&answer), r#"{"status":"ok","version":"0.1.0","nodes":0}"#);

    let port = server.ws().port().to_string();
    let zeros =
        ["-bind", "127.0.0.1", "-stun-udp1", "0", "-stun-udp2", "0", "-stun-tcp1", "0", "-stun-tcp2", "0"];
    let other = [&["-token", TOKEN, "-data", "other", "-ws-port", &port], zeros.as_slice()].concat();
    let ran = inp2ps(&lab, &other);
    assert_eq!(ran.code, 1, "{ran:?}");
    let said = ran.stderr.lines().last().unwrap_or_default();
    assert!(said.starts_with("inp2ps: ") && said.contains(&port) && said.contains("in use"), "{ran:?}");

    assert_eq!(server.program.terminate(), 0);
}

#[test]
fn a_stun_port_in_use_ends_the_server_too() {
    let lab = Lab::new("stunport");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    for (flag, port) in
        [("-stun-udp2", udp.local_addr().unwrap().port()), ("-stun-tcp1", tcp.local_addr().unwrap().port())]
    {
        let mut arguments = vec!["-token", TOKEN, "-bind", "127.0.0.1", "-ws-port", "0"];
        for other in ["-stun-udp1", "-stun-udp2", "-stun-tcp1", "-stun-tcp2"] {
            arguments.extend([other, "0"]);
        }
        let port = port.to_string();
        arguments.extend([flag, &port]);
        let ran = inp2ps(&lab, &arguments);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.lines().last().unwrap_or_default().contains(&port), "{ran:?}");
    }
}

#[test]
fn flags_without_effect_get_one_warning_each() {
    let lab = Lab::new("warn");
    let server = lab.server();
    let flags = [
        "-bw",
        "5",
        "-relay-port",
        "1",
        "-stun-udp1",
        "1",
        "-stun-tcp2",
        "2",
        "-rungs",
        "tcp-punch,tcp-direct",
    ];
    let node = lab.node(&server, "a").with(&flags).online();
    let log = node.program.log();
    for flag in ["-bw has", "-relay-port has"] {
        assert_eq!(
            log.lines().filter(|line| line.contains("WARN") && line.contains(flag)).count(),
            1,
            "{flag}: {log}"
        );
    }
    for flag in ["-stun-udp2", "-rungs"] {
        assert!(!log.contains(flag), "{log}");
    }

    let zeros = ["-ws-port", "0", "-stun-udp1", "0", "-stun-udp2", "0", "-stun-tcp1", "0", "-stun-tcp2", "0"];
    let more =
        ["-token", TOKEN, "-data", "d", "-bind", "127.0.0.1", "-server-relay", "-server-relay-bw", "5"];
    let server = Program::start("inp2ps", lab.inp2ps(&[more.as_slice(), &zeros].concat()));
    server.wait_for_log("inp2ps listens");
    let log = server.log();
    assert!(!log.contains("-server-relay"), "{log}");
}

#[test]
fn newconfig_writes_the_command_line_and_the_next_start_needs_none() {
    let lab = Lab::new("newconfig");
    let server = lab.server();
    lab.file("a/config.json", "{ not even JSON");
    let mut first =
        lab.node(&server, "a").with(&["-config", "config.json", "-newconfig", "-forward", "0:b:22"]).online();
    let path = first.path("config.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(first.path("inp2pc.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&path).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(written["token"], TOKEN);
    assert_eq!(written["server"]["port"], server.ws().port());
    assert_eq!(written["forwards"][0]["listen"], "127.0.0.1:0");
    assert_eq!(written["forwards"][0]["target"], "127.0.0.1:22");
    assert_eq!(written["rungs"].as_array().unwrap().len(), 7);
    assert_eq!(first.program.terminate(), 0);

    let mut command = lab.inp2pc(&[]);
    command.current_dir(lab.path("a"));
    let again = Program::start("a", command);
    again.wait_for_log("inp2pc starts");
    lab::poll(lab::DEADLINE, || {
        body(&http(server.ws(), "/api/v1/health")).contains("\"nodes\":1").then_some(())
    })
    .unwrap_or_else(|| panic!("{}", again.log()));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn without_newconfig_nothing_is_written_but_the_key() {
    let lab = Lab::new("nofile");
    let server = lab.server();
    let mut node = lab.node(&server, "a").online();
    assert!(!node.path("config.json").exists());
    assert_eq!(node.program.terminate(), 0);
    assert!(!node.path("inp2pc.sock").exists(), "the control socket goes with its client");
}

#[test]
fn a_token_may_come_from_files_and_stays_there() {
    let lab = Lab::new("tokenfile");
    let server = lab.server();
    let token = lab.file("token", format!("{TOKEN}\n")).display().to_string();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let node = lab.node(&server, "a").no_token().with(&["-token-file", &token, "-newconfig"]).online();
    assert!(!fs::read_to_string(node.path("config.json")).unwrap().contains(TOKEN));
    assert!(!node.program.log().contains("chmod"), "{}", node.program.log());

    let password = lab.file("password", "admin\n").display().to_string();
    let needs_user = inp2pc(&lab, &["-serverhost", "h", "-node", "b", "-password-file", &password]);
    assert_refused(&needs_user, 2, "-password-file needs -user");
}

#[test]
fn status_says_when_no_client_runs() {
    let lab = Lab::new("status");
    assert_refused(&inp2pc(&lab, &["status"]), 1, "no client runs behind ./inp2pc.sock");
    assert_refused(
        &inp2pc(&lab, &["status", "-json", "-control", "x.sock"]),
        1,
        "no client runs behind x.sock",
    );
    lab.file("stale.sock", "");
    assert_refused(
        &inp2pc(&lab, &["-control", "stale.sock", "status"]),
        1,
        "no client runs behind stale.sock",
    );
}

#[test]
fn a_client_that_hangs_is_told_from_one_that_does_not_run() {
    let lab = Lab::new("hangs");
    let path = lab.path("hangs.sock");
    let _hangs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let ran = inp2pc(&lab, &["status", "-control", "hangs.sock"]);
    assert_refused(&ran, 1, "no answer from hangs.sock: the client behind it has said nothing for 5 s");
}

#[test]
fn status_shows_the_running_client() {
    let lab = Lab::new("status2");
    let server = lab.server();
    let node = lab.node(&server, "a").with(&["-forward", "0:b:22"]).online();
    node.listens();
    let config = node.path("config.json").display().to_string();
    let table = inp2pc(&lab, &["status", "-config", &config]);
    assert_eq!(table.code, 0, "{table:?}");
    assert!(table.stdout.contains("node      a (inp2pc 0.1.0, tokio)"), "{}", table.stdout);
    let json = inp2pc(&lab, &["-config", &config, "status", "-json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["node"], "a");
    assert_eq!(json["server"]["connected"], true);
    assert_eq!(json["server"]["tls"], true, "wss is the default");
    assert_eq!(json["forwards"][0]["state"], "listening");
}

#[test]
fn json_logs_are_one_object_a_line() {
    let lab = Lab::new("jsonlog");
    let server = lab.server();
    let mut node = lab.node(&server, "a").with(&["-log-format", "json"]).online();
    assert_eq!(node.program.terminate(), 0);
    let log = node.program.log();
    assert!(log.lines().count() > 0);
    for line in log.lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line["level"].is_string()),
            "{line}"
        );
    }
}
