//! A flood of the STUN port hinders nobody's login.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not see to be tests")]

mod lab;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use lab::Lab;

/// Datagrams at most: several seconds' worth of what a machine can send to itself.
const MOST: u32 = 4_000_000;

/// Sends requests, and what only looks like them, as fast as the system takes them.
fn flood(port: SocketAddr, stop: &AtomicBool, sent: &AtomicU32) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(port).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut request = [0_u8; 28];
    request[..8].copy_from_slice(&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42]);
    request[20..24].copy_from_slice(&[0xc2, 0xf0, 0, 4]);
    while !stop.load(Ordering::Relaxed) && sent.fetch_add(1, Ordering::Relaxed) < MOST {
        request[19] = request[19].wrapping_add(1);
        let length = if request[19].is_multiple_of(4) { 27 } else { 28 };
        // What the system does not take is not part of the flood. Answers are left where they are.
        let _ = socket.send(&request[..length]);
    }
}

#[test]
fn a_flood_of_the_stun_port_hinders_no_login() {
    let lab = Lab::new("flood");
    let server = lab.server();
    let (stop, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let ports = server.ports();
    thread::scope(|scope| {
        for port in &ports[1..3] {
            scope.spawn(|| flood(*port, &stop, &sent));
        }
        // A failure must not leave the threads behind.
        let nodes = std::panic::catch_unwind(|| {
            for name in ["a", "b", "c"] {
                lab.node(&server, name).online();
            }
        });
        stop.store(true, Ordering::Relaxed);
        assert!(nodes.is_ok());
    });
    assert!(sent.load(Ordering::Relaxed) > 10_000, "that was no flood");
}
