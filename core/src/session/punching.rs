//! Punching for a link over UDP: what the puncher wants done, and what it finds, between it, the link and the
//! driver.
//!
//! Until the link is up, probes are the puncher's, and the paths that it finds become the link's candidates.
//! Then it ends, and with it all sockets that it had opened but the one that the link uses. That one lives as
//! long as the link.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use super::{Action, LinkId};
use crate::ids::SockId;
use crate::link::UdpLink;
use crate::link::udp::{Transmit, probe};
use crate::punch::Why;
use crate::punch::udp::{self, Input, Puncher};

/// The punching of one link.
#[derive(Debug)]
pub(super) struct Punch {
    puncher: Puncher,
    /// What it sends; as much as is due at once.
    outbox: VecDeque<(Transmit, [u8; probe::LENGTH])>,
    /// Its sockets that are open.
    sockets: Vec<SockId>,
    /// Why it was given up.
    why: Option<Why>,
    /// Whether the link is up.
    is_linked: bool,
}

impl Punch {
    pub(super) fn new(puncher: Puncher) -> Self {
        Self { puncher, outbox: VecDeque::new(), sockets: Vec::new(), why: None, is_linked: false }
    }

    /// Whether this datagram is for the puncher, before the link is up.
    pub(super) fn takes(bytes: &[u8]) -> bool {
        bytes.first() == Some(&probe::FIRST_BYTE)
    }

    /// A probe came.
    pub(super) fn datagram(&mut self, now: Instant, socket: SockId, from: SocketAddr, bytes: &[u8]) {
        self.puncher.handle(now, Input::Datagram { socket, from, bytes });
    }

    /// What came of opening a socket.
    pub(super) fn opened(&mut self, now: Instant, socket: Option<SockId>) {
        self.sockets.extend(socket);
        self.puncher.handle(now, Input::Opened(socket));
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.puncher.handle(now, Input::Tick);
    }

    /// The handshake has heard the peer on this socket.
    pub(super) fn heard(&mut self, now: Instant, socket: SockId) {
        self.puncher.handle(now, Input::Heard(socket));
    }

    /// The link is up on this socket: nothing else is needed.
    pub(super) fn linked(&mut self, now: Instant, socket: SockId) {
        if !std::mem::replace(&mut self.is_linked, true) {
            self.puncher.handle(now, Input::Linked(socket));
        }
    }

    /// A newer attempt seeks. What has been heard goes on.
    pub(super) fn give_way(&mut self, now: Instant) {
        self.puncher.handle(now, Input::Yield);
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.puncher.deadline()
    }

    /// When it is given up, unless a path is found.
    pub(super) fn end(&self) -> Instant {
        self.puncher.end()
    }

    /// Why it was given up, told once.
    pub(super) fn why(&mut self) -> Option<Why> {
        self.why.take()
    }

    /// The next probe.
    pub(super) fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.outbox.pop_front()?;
        out.extend_from_slice(&bytes);
        Some(transmit)
    }

    /// Passes on what the puncher wants.
    pub(super) fn settle(&mut self, id: LinkId, link: &mut UdpLink, actions: &mut VecDeque<Action>) {
        while let Some(action) = self.puncher.poll_action() {
            match action {
                udp::Action::Open(port) => actions.push_back(Action::OpenSocket { link: id, port }),
                udp::Action::Close(socket) => self.close(socket, actions),
                udp::Action::Send { socket, to, ttl, bytes } => {
                    let transmit = Transmit { socket, to, segment: None, ecn: 0, hops: ttl };
                    self.outbox.push_back((transmit, bytes));
                }
                udp::Action::Found { path, limit, .. } => link.add_candidate(path, limit),
                udp::Action::GaveUp(why) => self.why = Some(why),
            }
        }
    }

    /// The link is over: so is everything that was for it.
    pub(super) fn stop(&mut self, now: Instant, actions: &mut VecDeque<Action>) {
        self.puncher.handle(now, Input::Stop);
        self.outbox.clear();
        for socket in std::mem::take(&mut self.sockets) {
            actions.push_back(Action::CloseSocket(socket));
        }
    }

    fn close(&mut self, socket: SockId, actions: &mut VecDeque<Action>) {
        if let Some(at) = self.sockets.iter().position(|open| *open == socket) {
            self.sockets.swap_remove(at);
            self.outbox.retain(|(transmit, _)| transmit.socket != socket);
            actions.push_back(Action::CloseSocket(socket));
        }
    }
}
