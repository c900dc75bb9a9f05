//! Bytes through a forwarded port, between real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use inp2p_core::path::Rung;
use inp2p_core::status::PeerState;
use lab::process::Program;
use lab::target::{self, Refusing};
use lab::{DEADLINE, End, Lab, Node, Server, body, bytes, connect, echo, end_of, hash, http};

/// A server, `a` with a forward to `target`, and `b`, which dials it.
fn pair(lab: &Lab, target: SocketAddr) -> (Server, Node, Node) {
    let server = lab.server();
    let b = lab.node(&server, "b").online();
    let a = lab.node(&server, "a").forward("b", target).online();
    (server, a, b)
}

#[test]
fn the_quick_start_works_word_for_word() {
    let lab = Lab::new("quick");
    // These are the documented ports, so another run of this test on this machine has to end first.
    let server =
        "-token 12345678 -ws-port 27183 -stun-udp1 27182 -stun-udp2 27183 -stun-tcp1 27180 -stun-tcp2 27181";
    let ws = SocketAddr::from((Ipv4Addr::LOCALHOST, 27183));
    let free = lab::poll(DEADLINE * 4, || TcpListener::bind(ws).ok().map(drop));
    assert!(free.is_some(), "port 27183 stays in use on this machine");
    let mut server = Program::start("inp2ps", lab.inp2ps(&server.split(' ').collect::<Vec<_>>()));
    server.wait_for_log("inp2ps listens");
    assert_eq!(body(&http(ws, "/api/v1/health")), r#"{"status":"ok","version":"0.1.0","nodes":0}"#);

    let echo_at = target::echo();
    let mut nodes = Vec::new();
    for (name, more) in [("nodeA", "-relay "), ("nodeB", "")] {
        let line = format!(
            "-serverhost localhost -serverport 27183 -node {name} -token 12345678 {more}-config config.json -newconfig"
        );
        let mut command = lab.inp2pc(&line.split(' ').collect::<Vec<_>>());
        std::fs::create_dir(lab.path(name)).unwrap();
        command.current_dir(lab.path(name));
        nodes.push(Program::start(name, command));
    }
    let both = || body(&http(ws, "/api/v1/health")).contains(r#""nodes":2"#).then_some(());
    assert!(lab::poll(DEADLINE, both).is_some(), "{}\n{}", nodes[0].log(), nodes[1].log());
    for name in ["nodeA", "nodeB"] {
        let mode = std::fs::metadata(lab.path(name).join("config.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    // The file that was written is what a later start runs on; a flag adds the forward for this run.
    assert_eq!(nodes[0].terminate(), 0);
    let rule = format!("0:nodeB:{echo_at}");
    let mut command = lab.inp2pc(&["-forward", &rule]);
    command.current_dir(lab.path("nodeA"));
    nodes[0] = Program::start("nodeA", command);
    let socket = lab.path("nodeA").join("inp2pc.sock");
    let listens = lab::poll(DEADLINE, || {
        let (status, _) = inp2p_bins::client::status::fetch(&socket).ok()?;
        let listens = status.forwards.first()?.listen.parse::<SocketAddr>().ok()?;
        (status.server.connected && status.server.tls && listens.port() != 0).then_some(listens)
    });
    let listens = listens.unwrap_or_else(|| panic!("{}", nodes[0].log()));
    echo(&mut connect(listens), b"word for word").unwrap();
    assert_eq!(server.terminate(), 0);
}

#[test]
fn bytes_arrive_as_they_were_sent_both_ways() {
    let lab = Lab::new("bytes");
    let content = bytes(1, 32 << 20);
    let expected = hash(&content);
    let (_server, a, _b) = pair(&lab, target::hasher());
    let mut stream = a.connect();
    stream.write_all(&content).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut arrived = [0; 32];
    stream.read_exact(&mut arrived).unwrap();
    assert_eq!(arrived, expected, "to the target");
    assert_eq!(end_of(&mut stream), End::Clean);

    let lab = Lab::new("bytes2");
    let (_server, a, _b) = pair(&lab, target::source(content));
    let mut back = Vec::new();
    a.connect().read_to_end(&mut back).unwrap();
    assert_eq!(hash(&back), expected, "from the target");
}

#[test]
fn the_link_and_its_bytes_show_in_status_on_both_sides() {
    let lab = Lab::new("shown");
    let (_server, a, b) = pair(&lab, target::echo());
    let mut stream = a.connect();
    echo(&mut stream, &bytes(2, 1000)).unwrap();
    let peer = a.wait_until("connected", |status| {
        let peer = status.peers.first()?;
        let is_up = peer.state == PeerState::Connected && peer.bytes_received >= 1000;
        (is_up && peer.rung == Some(Rung::UdpDirect) && peer.rtt_ms.is_some()).then(|| peer.clone())
    });
    assert_eq!((peer.node.as_str(), peer.via, peer.streams), ("b", None, 1));
    assert!(peer.remote.is_some());
    b.wait_until("the same rung", |status| {
        let peer = status.peers.first()?;
        (peer.node == "a" && peer.rung == Some(Rung::UdpDirect)).then_some(())
    });
    let forward = a.wait_until("a whole round trip", |status| {
        let forward = status.forwards.first()?;
        (forward.bytes_sent == 1000 && forward.bytes_received == 1000).then(|| forward.clone())
    });
    assert_eq!((forward.active, forward.total, forward.error), (1, 1, None));
    drop(stream);
    a.wait_until("idle", |status| (status.forwards.first()?.active == 0).then_some(()));
}

#[test]
fn both_nodes_can_open() {
    let lab = Lab::new("both");
    let server = lab.server();
    let (one, two) = (target::echo(), target::echo());
    let a = lab.node(&server, "a").forward("b", one).online();
    let b = lab.node(&server, "b").forward("a", two).online();
    echo(&mut a.connect(), b"from a").unwrap();
    echo(&mut b.connect(), b"from b").unwrap();
}

#[cfg(all(feature = "tokio", feature = "smol"))]
#[test]
fn nodes_of_different_runtimes_talk_to_each_other() {
    let lab = Lab::new("mixed");
    let server = lab.server();
    let b = lab.node(&server, "b").with(&["-runtime", "tokio"]).online();
    let a = lab.node(&server, "a").with(&["-runtime", "smol"]).forward("b", target::echo()).online();
    for (node, runtime) in [(&a, "smol"), (&b, "tokio")] {
        assert_eq!(node.status().runtime, runtime);
        assert!(node.program.wait_for_log("inp2pc starts").contains(&format!("runtime=\"{runtime}\"")));
    }
    let mut stream = a.connect();
    for round in 0..10 {
        echo(&mut stream, &bytes(round, 100_000)).unwrap();
    }
}

#[test]
fn over_ws_it_works_as_over_wss() {
    let lab = Lab::new("ws");
    let server = lab.server();
    let _b = lab.node(&server, "b").with(&["-insecure"]).online();
    let a = lab.node(&server, "a").with(&["-insecure"]).forward("b", target::echo()).online();
    assert!(!a.status().server.tls);
    echo(&mut a.connect(), b"plain").unwrap();
}

#[test]
fn half_close_passes_to_the_target() {
    let lab = Lab::new("half1");
    // Answers only once its client has ended its direction.
    let (_server, a, _b) = pair(&lab, target::hasher());
    let mut stream = a.connect();
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, hash(b"question"));
}

#[test]
fn half_close_passes_back_from_the_target() {
    let lab = Lab::new("half2");
    let (told, heard) = mpsc::channel();
    // Ends its own direction first, then reads on.
    let greeting = target::serve(move |mut stream| {
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest).map(|_| rest);
        let _ = told.send(end.map_err(|error| error.kind()));
        Ok(())
    });
    let (_server, a, _b) = pair(&lab, greeting);
    let mut stream = a.connect();
    let mut hello = Vec::new();
    stream.read_to_end(&mut hello).unwrap();
    assert_eq!(hello, b"hello");
    let late = bytes(3, 1 << 20);
    stream.write_all(&late).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), Ok(late));
}

#[test]
fn a_reset_passes_through() {
    let lab = Lab::new("reset");
    let (listening, heard) = target::told_of_the_end();
    let (_server, a, _b) = pair(&lab, listening);
    let mut stream = a.connect();
    // A stream that is reset before its target was dialled would have no target to reset.
    echo(&mut stream, b"x").unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_refused_target_resets_the_client_and_says_why() {
    let lab = Lab::new("refused");
    let refusing = Refusing::new();
    let (_server, a, b) = pair(&lab, refusing.address);
    let mut stream = a.connect();
    assert_eq!(end_of(&mut stream), End::Reset);
    let error = a.wait_until("an error", |status| status.forwards.first()?.error.clone());
    assert!(error.contains("refused"), "{error}");
    a.program.wait_for_log("refused");
    assert!(!b.program.log().contains("ERROR"), "{}", b.program.log());
}

#[test]
fn a_target_outside_allow_is_not_dialled() {
    let lab = Lab::new("allow");
    let (told, heard) = mpsc::channel();
    let forbidden = target::serve(move |_| {
        let _ = told.send(());
        Ok(())
    });
    let server = lab.server();
    let b = lab.node(&server, "b").with(&["-allow", "127.0.0.1:1-2"]).online();
    let a = lab.node(&server, "a").forward("b", forbidden).online();
    assert_eq!(end_of(&mut a.connect()), End::Reset);
    let error = a.wait_until("an error", |status| status.forwards.first()?.error.clone());
    assert!(error.contains("allow"), "{error}");
    b.program.wait_for_log("allow");
    assert!(heard.try_recv().is_err(), "the target was dialled");
}

#[test]
fn a_peer_that_is_not_there_resets_the_client_and_says_why() {
    let lab = Lab::new("nopeer");
    let server = lab.server();
    let a = lab.node(&server, "a").forward("ghost", target::echo()).online();
    assert_eq!(end_of(&mut a.connect()), End::Reset);
    let peer = a.wait_until("a reason", |status| {
        let peer = status.peers.first()?;
        peer.error.is_some().then(|| peer.clone())
    });
    assert!(matches!(peer.state, PeerState::Offline | PeerState::Failed), "{peer:?}");
}

#[test]
fn a_reader_that_stops_does_not_slow_the_others() {
    let lab = Lab::new("stalled");
    let content = bytes(4, 16 << 20);
    let expected = hash(&content);
    let server = lab.server();
    let (source, echoes) = (target::source(content), target::echo());
    let _b = lab.node(&server, "b").online();
    let rule = format!("0:b:{source}");
    let a = lab.node(&server, "a").with(&["-forward", &rule]).forward("b", echoes).online();
    let [bulk, small] = a.wait_until("listening", |status| {
        let [one, two] = status.forwards.as_slice() else { return None };
        let parse = |text: &str| text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
        let by_target = |target: &SocketAddr| {
            [one, two]
                .into_iter()
                .find(|forward| forward.target == target.to_string())
                .and_then(|it| parse(&it.listen))
        };
        Some([by_target(&source)?, by_target(&echoes)?])
    });
    let fetch = move || {
        let start = Instant::now();
        let mut all = Vec::new();
        connect(bulk).read_to_end(&mut all).unwrap();
        assert_eq!(hash(&all), expected);
        start.elapsed()
    };
    let alone = fetch();

    // One reader stops for five seconds, while round trips and whole transfers go on beside it.
    let mut stalled = connect(bulk);
    let since = Instant::now();
    let mut terminal = connect(small);
    let mut slowest = Duration::ZERO;
    let mut transfers = Vec::new();
    while since.elapsed() < Duration::from_secs(5) {
        transfers.push(thread::spawn(fetch).join().unwrap());
        let start = Instant::now();
        echo(&mut terminal, &[1; 64]).unwrap();
        slowest = slowest.max(start.elapsed());
    }
    transfers.sort_unstable();
    let median = transfers[transfers.len() / 2];
    // Head-of-line blocking would make these five seconds; a busy machine makes them a few times longer.
    assert!(slowest < Duration::from_secs(2), "a round trip took {slowest:?}");
    assert!(median < alone * 4 + Duration::from_millis(500), "{median:?} beside it, {alone:?} alone");

    let mut all = Vec::new();
    stalled.read_to_end(&mut all).unwrap();
    assert_eq!(hash(&all), expected, "and it loses nothing itself");
}

#[test]
fn a_port_in_use_fails_its_forward_only() {
    let lab = Lab::new("inuse");
    let server = lab.server();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let rule = format!("{}:b:1", taken.local_addr().unwrap().port());
    let echoes = target::echo();
    let _b = lab.node(&server, "b").online();
    let a = lab.node(&server, "a").with(&["-forward", &rule]).forward("b", echoes).online();
    let (error, works) = a.wait_until("one failed, one listening", |status| {
        let of = |state: &str| status.forwards.iter().find(|forward| forward.state == state);
        Some((of("failed")?.error.clone()?, of("listening")?.listen.parse().ok()?))
    });
    assert!(error.contains("in use"), "{error}");
    echo(&mut connect(works), b"works").unwrap();
}
