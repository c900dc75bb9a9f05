//! Many streams: one after another, at once, and with readers that stop.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::net::TcpStream;
use std::time::Duration;

use lab::process::allow_many_descriptors;
use lab::{DEADLINE, Lab, Node, Server, connect, echo, poll, target};

fn pair(lab: &Lab, target: std::net::SocketAddr) -> (Server, Node, Node) {
    allow_many_descriptors();
    let server = lab.server();
    let b = lab.node(&server, "b").online();
    let a = lab.node(&server, "a").forward("b", target).online();
    (server, a, b)
}

/// Waits until the forward has no open connection.
fn idle(a: &Node) {
    a.wait_until("idle", |status| (status.forwards.first()?.active == 0).then_some(()));
    a.wait_until("no stream left", |status| (status.peers.first()?.streams == 0).then_some(()));
}

/// Resident memory, once it does not grow any more within a second.
fn settled_memory(node: &Node) -> u64 {
    let mut last = node.program.memory();
    let mut same = 0;
    let settled = poll(DEADLINE, || {
        let now = node.program.memory();
        same = if now <= last { same + 1 } else { 0 };
        last = now;
        (same >= 50).then_some(now)
    });
    settled.unwrap_or(last)
}

#[test]
fn ten_thousand_streams_one_after_another_leave_nothing_behind() {
    let lab = Lab::new("sequence");
    let (_server, a, b) = pair(&lab, target::echo());
    let forward = a.listens();
    let some = |count: usize| {
        for number in 0..count {
            echo(&mut connect(forward), &(number as u64).to_be_bytes()).unwrap();
        }
    };
    // What is made once (threads' stacks, allocator arenas, tables) is there after the first thousand.
    some(1000);
    idle(&a);
    let before = [&a, &b].map(|node| (node.program.memory(), node.program.descriptors()));
    some(10_000);
    idle(&a);
    for (node, (memory, descriptors)) in [&a, &b].into_iter().zip(before) {
        let few = || (node.program.descriptors() <= descriptors + 2).then_some(());
        let now = node.program.descriptors();
        assert!(
            poll(DEADLINE, few).is_some(),
            "{}: {descriptors} descriptors became {now}",
            node.program.name()
        );
        let grown = node.program.memory().saturating_sub(memory);
        // 10,000 leaked streams of a hundred bytes would be 1 MiB; the allocator moves by less than 4.
        assert!(grown < 4096, "{}: {memory} KiB grew by {grown}", node.program.name());
    }
    assert_eq!(a.forward().total, 11_000);
}

#[test]
fn a_thousand_streams_at_once_work_and_leave_nothing_behind() {
    let lab = Lab::new("atonce");
    let (_server, a, b) = pair(&lab, target::echo());
    let forward = a.listens();
    echo(&mut connect(forward), b"first").unwrap();
    idle(&a);
    let before = [&a, &b].map(|node| node.program.descriptors());
    for round in 0..2_u64 {
        let mut open: Vec<TcpStream> = (0..1000).map(|_| connect(forward)).collect();
        for (stream, number) in open.iter_mut().zip(0_u64..) {
            echo(stream, &[round.to_be_bytes(), number.to_be_bytes()].concat()).unwrap();
        }
        let streams = a.status().peers.first().map(|peer| peer.streams);
        assert_eq!(streams, Some(1000));
        // And again, in the other order, while all are open.
        for (stream, number) in open.iter_mut().rev().zip(0_u64..) {
            echo(stream, &number.to_be_bytes()).unwrap();
        }
        drop(open);
        idle(&a);
    }
    for (node, before) in [&a, &b].into_iter().zip(before) {
        let few = || (node.program.descriptors() <= before + 2).then_some(());
        assert!(
            poll(DEADLINE, few).is_some(),
            "{}: {before}, now {}",
            node.program.name(),
            node.program.descriptors()
        );
    }
}

#[test]
fn a_hundred_readers_that_stop_cost_no_more_than_the_cap() {
    let lab = Lab::new("readers");
    let (_server, a, b) = pair(&lab, target::endless());
    let forward = a.listens();
    let before = [&a, &b].map(settled_memory);
    let stalled: Vec<TcpStream> = (0..100).map(|_| connect(forward)).collect();
    a.wait_until("all are open", |status| (status.peers.first()?.streams == 100).then_some(()));
    // Everything that can be in flight is when the counter stands still for a second.
    let mut last = (0, 0);
    let still = poll(DEADLINE, || {
        let received = a.status().peers.first()?.bytes_received;
        last = if last.0 == received { (received, last.1 + 1) } else { (received, 0) };
        (last.1 >= 40).then_some(())
    });
    assert!(still.is_some(), "bytes flow although nobody reads");
    for (node, before) in [&a, &b].into_iter().zip(before) {
        let grown = settled_memory(node).saturating_sub(before);
        // What may be held on either side: the session's pool of 8 MiB, 16 KiB of initial credit for each of
        // 100 streams, and 8 MiB in the link's windows. The allocator keeps pieces of what came and went in
        // between: half as much again.
        let cap = (8 * 1024 + 100 * 16 + 8 * 1024) * 3 / 2;
        assert!(grown < cap, "{}: grew by {grown} KiB, more than {cap}", node.program.name());
    }
    // They are slow, not dead.
    for mut stream in stalled {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut some = vec![0; 100_000];
        std::io::Read::read_exact(&mut stream, &mut some).unwrap();
        assert!(some.iter().all(|byte| *byte == 0x5a));
    }
}
