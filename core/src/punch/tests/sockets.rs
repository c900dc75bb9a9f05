//! Which of the further sockets stay open.

use std::time::{Duration, Instant};

use super::nat::{CONE, SYMMETRIC};
use super::world::{World, puncher};
use crate::ids::SockId;
use crate::punch::udp::{Action, Input, Puncher};

/// A puncher that has opened sockets for a second, and how many.
fn opened() -> (Puncher, Instant, u32) {
    let world = World::new([CONE, SYMMETRIC], 1);
    let mut puncher = puncher(1, world.now, world.plan(1));
    let mut count = 0;
    let mut now = world.now;
    while now < world.now + Duration::from_secs(3) {
        puncher.handle(now, Input::Tick);
        while let Some(action) = puncher.poll_action() {
            if matches!(action, Action::Open(_)) {
                count += 1;
                puncher.handle(now, Input::Opened(Some(SockId(1_000 + count))));
            }
        }
        now += Duration::from_millis(5);
    }
    assert!(count > 10, "{count}");
    (puncher, now, count)
}

fn closed(puncher: &mut Puncher) -> Vec<SockId> {
    let actions = std::iter::from_fn(|| puncher.poll_action());
    actions
        .filter_map(|action| if let Action::Close(socket) = action { Some(socket) } else { None })
        .collect()
}

/// The handshake's first packet may arrive where all probes were lost.
#[test]
fn the_socket_of_the_link_stays_open_though_no_probe_came_there() {
    let (mut puncher, now, count) = opened();
    let winner = SockId(1_005);
    puncher.handle(now, Input::Linked(winner));
    let closed = closed(&mut puncher);
    assert_eq!(closed.len(), usize::try_from(count - 1).unwrap());
    assert!(!closed.contains(&winner));
}

#[test]
fn a_handshake_that_has_begun_keeps_its_socket() {
    let (mut puncher, now, count) = opened();
    let socket = SockId(1_005);
    puncher.handle(now, Input::Heard(socket));
    puncher.handle(now, Input::Yield);
    let given_up = closed(&mut puncher);
    assert_eq!(given_up.len(), usize::try_from(count - 1).unwrap());
    assert!(!given_up.contains(&socket));
    puncher.handle(now, Input::Stop);
    assert_eq!(closed(&mut puncher), [socket]);
}
