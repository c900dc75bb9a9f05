//! TCP between two hosts on the internet, 40 ms apart.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod common;

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use common::*;
use inp2p_driver::net::{Net, StreamIo, TcpConfig};
use inp2p_sim::{Fault, LinkConfig, World};

const LINK: TcpConfig = TcpConfig { local: None, share_port: false, link: true };

fn echo_world(seed: u64, link: LinkConfig) -> (World, inp2p_sim::HostId, inp2p_sim::HostId) {
    let (world, a, b) = two_hosts(seed, link);
    world.program(b, |net| {
        let task = echo(net.clone(), 7);
        net.spawn("echo server", task);
    });
    (world, a, b)
}

#[test]
fn bytes_come_back_and_half_close_passes_both_ways() {
    let (world, a, b) = echo_world(1, LinkConfig::default());
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let start = net.now();
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        assert_eq!(net.now() - start, Duration::from_millis(40));
        write_all(&mut stream, b"hello").await.unwrap();
        stream.shutdown().unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"hello");
    });
    world.run_for(Duration::from_secs(120));
    assert_eq!((world.counts(a).connections, world.counts(b).connections), (0, 0));
}

#[test]
fn a_megabyte_arrives_whole_whatever_the_link_does() {
    let rough = LinkConfig {
        jitter: Duration::from_millis(3),
        duplicate: 0.02,
        reorder: 0.05,
        ..LinkConfig::default().with_loss(0.05).with_rate(50_000_000, 100_000)
    };
    for (seed, link) in [(1, LinkConfig::default()), (2, rough.clone()), (3, rough)] {
        let (world, a, _) = echo_world(seed, link);
        let net = world.net(a);
        world.block_on(a, LIMIT, async move {
            let mut stream = connect(&net, at(B, 7)).await.unwrap();
            let sent = bytes(1 << 20);
            let mut received = Vec::new();
            let mut written = 0;
            let mut buffer = vec![0; 10_000];
            poll_fn(|cx| {
                while written < sent.len()
                    && let Poll::Ready(n) = stream.poll_write(cx, &[IoSlice::new(&sent[written..])])
                {
                    written += n.unwrap();
                    if written == sent.len() {
                        stream.shutdown().unwrap();
                    }
                }
                let mut bufs = [std::io::IoSliceMut::new(&mut buffer)];
                while let Poll::Ready(n) = stream.poll_read(cx, &mut bufs) {
                    match n.unwrap() {
                        0 => return Poll::Ready(()),
                        n => received.extend_from_slice(&bufs[0][..n]),
                    }
                }
                Poll::Pending
            })
            .await;
            assert!(received == bytes(1 << 20));
        });
    }
}

#[test]
fn a_reader_that_stops_holds_the_writer_back() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let net = world.net(b);
    world.spawn(b, "reader", async move {
        let mut listener = listen(&net, 7);
        let mut stream = accept(&mut listener).await;
        net.sleep(Duration::from_secs(100)).await;
        assert_eq!(read_to_end(&mut stream).await.unwrap(), bytes(2 << 20));
        stream.shutdown().unwrap();
    });
    let written = Arc::new(Mutex::new(0));
    let (net, count) = (world.net(a), written.clone());
    world.spawn(a, "writer", async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        for piece in bytes(2 << 20).chunks(4096) {
            write_all(&mut stream, piece).await.unwrap();
            *count.lock().unwrap() += piece.len();
        }
        stream.shutdown().unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"");
        *count.lock().unwrap() = usize::MAX;
    });
    world.run_for(Duration::from_secs(90));
    let held_back_at = *written.lock().unwrap();
    assert!((256 << 10..=512 << 10).contains(&held_back_at), "{held_back_at}");
    world.run_for(Duration::from_secs(30));
    assert_eq!(*written.lock().unwrap(), usize::MAX);
}

#[test]
fn a_window_that_opens_unheard_is_found_open_by_a_probe() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let net = world.net(b);
    world.spawn(b, "reader", async move {
        let mut listener = listen(&net, 7);
        let mut stream = accept(&mut listener).await;
        net.sleep(Duration::from_secs(10)).await;
        assert_eq!(read_to_end(&mut stream).await.unwrap(), bytes(1 << 20));
        write_all(&mut stream, b"done").await.unwrap();
    });
    world.inject_at(Duration::from_secs(9), Fault::Cut { from: b, to: a });
    world.inject_at(Duration::from_secs(11), Fault::Heal { from: b, to: a });
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        write_all(&mut stream, &bytes(1 << 20)).await.unwrap();
        stream.shutdown().unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"done");
    });
}

#[test]
fn a_links_unsent_bytes_are_bounded() {
    let slow = LinkConfig::default().with_rate(100_000, 1 << 20);
    let (world, a, _) = echo_world(1, slow);
    let net = world.net(a);
    let accepted = world.block_on(a, LIMIT, async move {
        let mut stream = connect_from(&net, &LINK, at(B, 7)).await.unwrap();
        let mut accepted = 0;
        poll_fn(|cx| {
            while let Poll::Ready(n) = stream.poll_write(cx, &[IoSlice::new(&[0; 4096])]) {
                accepted += n.unwrap();
            }
            Poll::Ready(accepted)
        })
        .await
    });
    assert!((64 << 10..=128 << 10).contains(&accepted), "{accepted}");
}

#[test]
fn nobody_listening_refuses_after_one_round_trip() {
    let (world, a, _) = two_hosts(1, LinkConfig::default());
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let start = net.now();
        let error = connect(&net, at(B, 9)).await.unwrap_err();
        assert_eq!(
            (error.kind(), net.now() - start),
            (ErrorKind::ConnectionRefused, Duration::from_millis(40))
        );
    });
}

#[test]
fn an_address_that_nobody_has_times_out() {
    let (world, a, _) = two_hosts(1, LinkConfig::default());
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let start = net.now();
        let error = connect(&net, at("203.0.113.99", 9)).await.unwrap_err();
        assert_eq!((error.kind(), net.now() - start), (ErrorKind::TimedOut, Duration::from_secs(127)));
        let start = net.now();
        let error = connect_from(&net, &LINK, at("203.0.113.99", 9)).await.unwrap_err();
        assert_eq!((error.kind(), net.now() - start), (ErrorKind::TimedOut, Duration::from_secs(15)));
    });
}

#[test]
fn a_host_without_a_way_out_is_told_at_once() {
    let world = World::new(1);
    let lan = world.lan("island");
    let host = world.host("a");
    world.attach(host, lan, &["192.168.1.2/24"], LinkConfig::lan());
    let error = world.net(host).connect(&TcpConfig::default(), at(B, 9)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
}

#[test]
fn abort_resets_the_peer_after_what_was_sent() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let net = world.net(a);
    world.spawn(a, "aborter", async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        write_all(&mut stream, b"last words").await.unwrap();
        stream.abort();
    });
    let net = world.net(b);
    world.block_on(b, LIMIT, async move {
        let mut listener = listen(&net, 7);
        let mut stream = accept(&mut listener).await;
        assert_eq!(read_exact(&mut stream, 10).await.unwrap(), b"last words");
        assert_eq!(read(&mut stream, &mut [0; 10]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(write_all(&mut stream, b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
    assert_eq!((world.counts(a).connections, world.counts(b).connections), (0, 0));
}

#[test]
fn closing_with_unread_bytes_resets() {
    let (world, a, _) = echo_world(1, LinkConfig::default());
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        write_all(&mut stream, b"hello").await.unwrap();
        net.sleep(Duration::from_secs(1)).await;
        drop(stream);
    });
    world.run_for(Duration::from_secs(1));
    assert!(world.log().iter().any(|entry| entry.event.to_string().contains("tcp reset")));
}

#[test]
fn writing_to_one_that_is_gone_ends_in_a_reset() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let net = world.net(b);
    world.spawn(b, "closer", async move {
        drop(accept(&mut listen(&net, 7)).await);
    });
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"");
        write_all(&mut stream, b"anyone?").await.unwrap();
        net.sleep(Duration::from_secs(1)).await;
        assert_eq!(write_all(&mut stream, b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_partition_times_the_connection_out_on_both_sides() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let ended = Arc::new(Mutex::new(Vec::new()));
    async fn talk(net: inp2p_sim::SimNet, mut stream: inp2p_sim::SimStream) -> (ErrorKind, u64) {
        read_exact(&mut stream, 5).await.unwrap();
        net.sleep_until(net.now() + Duration::from_secs(2)).await;
        let start = net.now();
        write_all(&mut stream, b"into the void").await.unwrap();
        let error = read(&mut stream, &mut [0; 9]).await.unwrap_err();
        (error.kind(), (net.now() - start).as_secs())
    }
    let (net, ends) = (world.net(b), ended.clone());
    world.spawn(b, "server", async move {
        let mut listener = net.listen(&TcpConfig { local: Some(at(B, 7)), ..LINK }).unwrap();
        let mut stream = accept(&mut listener).await;
        write_all(&mut stream, b"hello").await.unwrap();
        let end = talk(net, stream).await;
        ends.lock().unwrap().push(end);
    });
    let (net, ends) = (world.net(a), ended.clone());
    world.spawn(a, "client", async move {
        let mut stream = connect_from(&net, &LINK, at(B, 7)).await.unwrap();
        write_all(&mut stream, b"hello").await.unwrap();
        let end = talk(net, stream).await;
        ends.lock().unwrap().push(end);
    });
    world.run_for(Duration::from_secs(1));
    world.partition(a, b);
    world.run_for(Duration::from_secs(60));
    assert_eq!(*ended.lock().unwrap(), [(ErrorKind::TimedOut, 15), (ErrorKind::TimedOut, 15)]);
}

#[test]
fn a_short_partition_only_delays() {
    let (world, a, b) = echo_world(1, LinkConfig::default());
    world.inject_at(Duration::from_secs(1), Fault::Cut { from: a, to: b });
    world.inject_at(Duration::from_secs(6), Fault::Heal { from: a, to: b });
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        net.sleep(Duration::from_secs(2)).await;
        write_all(&mut stream, b"hello").await.unwrap();
        assert_eq!(read_exact(&mut stream, 5).await.unwrap(), b"hello");
        assert!(net.now() - net.now() < Duration::from_secs(10));
    });
    assert!(world.now().elapsed() < Duration::from_secs(12), "{}", world.now());
}

#[test]
fn a_crashed_host_is_silent_and_resets_old_connections_once_it_is_back() {
    let (world, a, b) = echo_world(1, LinkConfig::default());
    world.inject_at(Duration::from_secs(1), Fault::Crash(b));
    world.inject_at(Duration::from_secs(5), Fault::Restart(b));
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        net.sleep(Duration::from_secs(2)).await;
        write_all(&mut stream, b"hello?").await.unwrap();
        let error = read(&mut stream, &mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        write_all(&mut stream, b"hello").await.unwrap();
        assert_eq!(read_exact(&mut stream, 5).await.unwrap(), b"hello");
    });
    assert!(world.now().elapsed() > Duration::from_secs(5));
    world.inject(Fault::Crash(b));
    assert_eq!(world.counts(b), inp2p_sim::Counts::default());
    assert!(world.now().elapsed() < Duration::from_secs(10), "{}", world.now());
}

#[test]
fn a_killed_program_leaves_its_system_to_say_goodbye() {
    let (world, a, b) = echo_world(1, LinkConfig::default());
    world.inject_at(Duration::from_secs(1), Fault::Kill(b));
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"");
        assert_eq!(connect(&net, at(B, 7)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
    assert_eq!(world.counts(b).listeners, 0);
}

#[test]
fn a_restart_with_the_same_ports_gets_a_new_connection() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let net = world.net(b);
    world.spawn(b, "server", async move {
        let mut listener = listen(&net, 7);
        let mut old = accept(&mut listener).await;
        assert_eq!(read(&mut old, &mut [0; 9]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        write_all(&mut accept(&mut listener).await, b"welcome back").await.unwrap();
        std::future::pending().await
    });
    let config = TcpConfig { local: Some(at(A, 4000)), share_port: true, ..TcpConfig::default() };
    let net = world.net(a);
    world.spawn(a, "first life", async move {
        let _stream = connect_from(&net, &config, at(B, 7)).await.unwrap();
        std::future::pending().await
    });
    world.run_for(Duration::from_secs(1));
    world.inject(Fault::Crash(a));
    world.inject(Fault::Restart(a));
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut stream = connect_from(&net, &config, at(B, 7)).await.unwrap();
        assert_eq!(read_exact(&mut stream, 12).await.unwrap(), b"welcome back");
    });
}

#[test]
fn a_connection_that_waits_for_its_end_makes_room_for_a_new_one() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let net = world.net(b);
    world.spawn(b, "server", async move {
        let mut listener = listen(&net, 7);
        loop {
            // Whoever ends first has to wait.
            let mut stream = accept(&mut listener).await;
            stream.shutdown().unwrap();
            read_to_end(&mut stream).await.unwrap();
        }
    });
    let config = TcpConfig { local: Some(at(A, 4000)), share_port: true, ..TcpConfig::default() };
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        for _ in 0..2 {
            let start = net.now();
            let mut stream = connect_from(&net, &config, at(B, 7)).await.unwrap();
            assert_eq!(net.now() - start, Duration::from_millis(40));
            read_to_end(&mut stream).await.unwrap();
            drop(stream);
            net.sleep(Duration::from_secs(1)).await;
        }
    });
}

#[test]
fn simultaneous_open_yields_one_connection() {
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let mut done = Vec::new();
    for (host, own, other, delay) in [(a, A, B, 0), (b, B, A, 7)] {
        let net = world.net(host);
        let slot = Arc::new(Mutex::new(None));
        done.push(slot.clone());
        world.spawn(host, "puncher", async move {
            net.sleep(Duration::from_millis(delay)).await;
            let config = TcpConfig { local: Some(at(own, 5000)), share_port: true, ..TcpConfig::default() };
            let mut stream = connect_from(&net, &config, at(other, 5000)).await.unwrap();
            write_all(&mut stream, own.as_bytes()).await.unwrap();
            stream.shutdown().unwrap();
            *slot.lock().unwrap() = Some(read_to_end(&mut stream).await.unwrap());
        });
    }
    world.run_for(Duration::from_secs(1));
    let received = done.iter().map(|slot| slot.lock().unwrap().take().unwrap());
    assert_eq!(received.collect::<Vec<_>>(), [B.as_bytes(), A.as_bytes()]);
    assert_eq!((world.counts(a).connections, world.counts(b).connections), (1, 1));
}

#[test]
fn a_port_in_use_is_refused_unless_shared() {
    let (world, a, _) = two_hosts(1, LinkConfig::default());
    let net = world.net(a);
    let config = |share_port| TcpConfig { local: Some(at("0.0.0.0", 80)), share_port, link: false };
    let first = net.listen(&config(false)).unwrap();
    assert_eq!(net.listen(&config(false)).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(net.listen(&config(true)).unwrap_err().kind(), ErrorKind::AddrInUse);
    let any = net.listen(&TcpConfig::default()).unwrap();
    drop(first);
    let _first = net.listen(&config(true)).unwrap();
    let _second = net.listen(&config(true)).unwrap();
    let connecting = TcpConfig { local: Some(at(A, 80)), share_port: true, link: false };
    let _stream = net.connect(&connecting, at(B, 80)).unwrap();
    assert_eq!(net.connect(&connecting, at(B, 80)).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    let foreign = TcpConfig { local: Some(at(B, 80)), ..TcpConfig::default() };
    assert_eq!(net.listen(&foreign).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    drop(any);
}

#[test]
fn loopback_and_unix_sockets_stay_in_the_host() {
    use inp2p_driver::net::ListenIo;
    let (world, a, b) = two_hosts(1, LinkConfig::default());
    let path = std::path::Path::new("control.sock");
    let other = world.net(b);
    let net = world.net(a);
    world.block_on(a, LIMIT, async move {
        let mut listener = net.listen_local(path).unwrap();
        assert_eq!(net.listen_local(path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(other.connect_local(path).unwrap_err().kind(), ErrorKind::NotFound);
        let mut client = net.connect_local(path).unwrap();
        let mut server = accept(&mut listener).await;
        write_all(&mut client, b"status").await.unwrap();
        assert_eq!(read_exact(&mut server, 6).await.unwrap(), b"status");
        assert!(server.peer_addr().unwrap().ip().is_unspecified());
        assert!(listener.local_addr().unwrap().ip().is_unspecified());
        drop(listener);
        let _again = net.listen_local(path).unwrap();

        let config = TcpConfig { local: Some(at("127.0.0.1", 0)), ..TcpConfig::default() };
        let mut listener = net.listen(&config).unwrap();
        let to = listener.local_addr().unwrap();
        let _client = connect(&net, to).await.unwrap();
        let _server = accept(&mut listener).await;
        assert_eq!(connect(&other, to).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(connect(&net, at(A, to.port())).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_black_hole_for_large_packets_stalls_and_icmp_saves() {
    for (too_big, outcome) in [(true, None), (false, Some(ErrorKind::TimedOut))] {
        let world = World::new(1);
        let (a, b) = (world.host("a"), world.host("b"));
        let lan = world.lan("home");
        world.attach(a, lan, &["192.168.1.2/24"], LinkConfig::lan());
        world.attach(b, world.internet(), &[&format!("{B}/32")], LinkConfig::default());
        let narrow = LinkConfig { mtu: 1400, too_big, ..LinkConfig::default() };
        let internet = (world.internet(), &["203.0.113.1/32"][..]);
        world.gateway("router", (lan, &["192.168.1.1/24"]), internet, None, narrow);
        let net = world.net(b);
        world.spawn(b, "server", async move { echo(net, 7).await });
        let net = world.net(a);
        let error = world.block_on(a, LIMIT, async move {
            let mut stream = connect_from(&net, &LINK, at(B, 7)).await.unwrap();
            write_all(&mut stream, b"small").await.unwrap();
            assert_eq!(read_exact(&mut stream, 5).await.unwrap(), b"small");
            write_all(&mut stream, &bytes(5000)).await.unwrap();
            read_exact(&mut stream, 5000).await.err()
        });
        assert_eq!(error.map(|error| error.kind()), outcome);
    }
}

#[test]
fn the_timers_of_a_sleeping_hosts_connections_sleep_too() {
    let (world, a, _) = echo_world(1, LinkConfig::default());
    world.inject_at(Duration::from_millis(1010), Fault::Suspend(a));
    world.inject_at(Duration::from_secs(8 * 3600), Fault::Resume(a));
    let net = world.net(a);
    world.block_on(a, Duration::from_secs(9 * 3600), async move {
        let mut stream = connect(&net, at(B, 7)).await.unwrap();
        net.sleep(Duration::from_millis(960)).await;
        write_all(&mut stream, b"hello").await.unwrap();
        net.sleep(Duration::from_millis(100)).await;
        // The echo was sent to a sleeping host and given up since.
        write_all(&mut stream, b"again").await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}
