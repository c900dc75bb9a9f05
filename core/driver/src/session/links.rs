//! The session's links: dialling, reading, writing, closing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_util::SinkExt as _;
use inp2p_core::agent::io::SessionNews;
use inp2p_core::path::Verdict;
use inp2p_core::punch::tcp::From;
use inp2p_core::session::{Action, LinkId, Session};
use tracing::debug;

use super::wire::{IDLE_SCRATCH, SCRATCH, Wire};
use super::{Command, Task, WIRES, target};
use crate::net::{Net, TcpConfig, is_lost};
use crate::relay::{ByteStream, Carrier};
use crate::web::connect_relay;

impl<N: Net> Task<N> {
    /// Reads the links. Whether something came.
    pub(super) fn receive(&mut self, now: Instant) -> bool {
        let Some(core) = &mut self.core else { return false };
        let mut more = false;
        let mut ended: Vec<(LinkId, String)> = Vec::new();
        let room = if self.open > 0 { SCRATCH } else { IDLE_SCRATCH };
        for wire in &mut self.wires {
            if !wire.connected {
                match wire.poll_connected() {
                    Poll::Pending => continue,
                    Poll::Ready(Ok(())) => core.connected(now, wire.link),
                    Poll::Ready(Err(error)) => {
                        ended.push((wire.link, target::explain(&error)));
                        continue;
                    }
                }
            }
            match wire.receive(now, core, &mut self.scratch, room) {
                Ok(again) => more |= again,
                Err(reason) => ended.push((wire.link, reason)),
            }
        }
        self.lost(now, ended) || more
    }

    /// Writes the links. Whether a link has more to write and can.
    pub(super) fn transmit(&mut self, now: Instant) -> bool {
        let Some(core) = &mut self.core else { return false };
        let mut more = false;
        let mut ended: Vec<(LinkId, String)> = Vec::new();
        for wire in self.wires.iter_mut().filter(|wire| wire.connected) {
            match wire.transmit(now, core) {
                Ok(again) => more |= again,
                Err(reason) => ended.push((wire.link, reason)),
            }
        }
        self.lost(now, ended) || more
    }

    /// The host has other addresses than before: a connection from one that is gone is dead, though nobody says
    /// so, and all else has to show that it still works.
    pub(super) fn network_changed(&mut self, now: Instant, addresses: &[IpAddr]) {
        let gone = |wire: &Wire<Carrier<N::Stream>>| {
            wire.local_addr().is_ok_and(|local| is_lost(addresses, local.ip()))
        };
        let dead = self.wires.iter().filter(|wire| gone(wire));
        let dead =
            dead.map(|wire| (wire.link, "this host has lost the address it was connected from".to_owned()));
        let dead: Vec<(LinkId, String)> = dead.collect();
        self.lost(now, dead);
        if let Some(core) = &mut self.core {
            core.network_changed(now);
        }
    }

    /// These connections are of no use any more, whether or not the core still knows of them: one that was long
    /// on its way may have come for a link that it had given up. Whether there were any.
    fn lost(&mut self, now: Instant, ended: Vec<(LinkId, String)>) -> bool {
        let any = !ended.is_empty();
        for (link, reason) in ended {
            self.wires.retain(|wire| wire.link != link);
            if let Some(core) = &mut self.core {
                core.closed(now, link, &reason);
            }
        }
        any
    }

    /// Does what the core wants done.
    pub(super) fn act(&mut self, now: Instant) -> bool {
        let mut acted = false;
        while let Some(action) = self.core.as_mut().and_then(Session::poll_action) {
            acted = true;
            match action {
                Action::Dial { link, to, from } => self.dial(now, link, to, from),
                Action::DialServer { link } => self.dial_server(link),
                Action::Route(route) => self.datagrams.add(route),
                Action::Unroute { route, farewell } => self.datagrams.remove(route, farewell),
                Action::OpenSocket { link, port } => {
                    let socket = self.datagrams.open(port);
                    if let Some(core) = &mut self.core {
                        core.opened(now, link, socket);
                    }
                }
                Action::CloseSocket(socket) => self.datagrams.close(socket),
                Action::Close { link, farewell, reset } => {
                    if let Some(at) = self.wires.iter().position(|wire| wire.link == link) {
                        self.wires.swap_remove(at).close(&farewell, reset);
                    }
                }
                Action::News(news) => self.hear(news),
                Action::PeerLeaving(reason) => debug!(peer = %self.peer, reason, "the peer is leaving"),
            }
        }
        acted
    }

    /// Ends all links, and tells the peer.
    pub(super) fn end_links(&mut self, now: Instant, reason: &str) {
        if let Some(core) = &mut self.core {
            core.close(now, reason);
        }
        self.act(now);
    }

    /// How to connect from a port that other connections may use too, such as the one that the node listens on.
    fn from_port(port: u16, to: SocketAddr) -> TcpConfig {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let local = Some(SocketAddr::new(any, port));
        TcpConfig { local, share_port: true, link: true }
    }

    fn dial(&mut self, now: Instant, link: LinkId, to: SocketAddr, from: From) {
        debug!(peer = %self.peer, %to, "dialling");
        let config = match from {
            From::Any => TcpConfig { link: true, ..TcpConfig::default() },
            From::Listening => Self::from_port(self.common.listening, to),
            From::Second(port) => Self::from_port(port, to),
        };
        match self.net.connect(&config, to) {
            Ok(stream) => self.add_wire(now, link, Carrier::Plain(stream), false),
            Err(error) => {
                if let Some(core) = &mut self.core {
                    core.closed(now, link, &target::explain(&error));
                }
            }
        }
    }

    /// Connects to the server's relay inside a WebSocket, which takes several round trips: in a task of its own.
    fn dial_server(&mut self, link: LinkId) {
        debug!(peer = %self.peer, "dialling the server's relay in a WebSocket");
        let (net, common) = (self.net.clone(), Arc::clone(&self.common));
        let (mut commands, generation) = (self.own_commands.clone(), self.generation);
        self.net.spawn("relay dial", async move {
            let stream = connect_relay(&net, &common.server).await.map_err(|error| error.to_string());
            // A session that has ended does not need it any more.
            let _ = commands.send(Command::Entered { generation, link, stream }).await;
        });
    }

    /// What came of [`Self::dial_server`].
    pub(super) fn entered(
        &mut self,
        now: Instant,
        link: LinkId,
        stream: Result<Box<dyn ByteStream>, String>,
    ) {
        match stream {
            Ok(stream) => {
                self.add_wire(now, link, Carrier::Inside(stream), true);
                if let Some(core) = &mut self.core {
                    core.connected(now, link);
                }
            }
            Err(reason) => {
                if let Some(core) = &mut self.core {
                    core.closed(now, link, &reason);
                }
            }
        }
    }

    pub(super) fn add_wire(
        &mut self,
        now: Instant,
        link: LinkId,
        stream: Carrier<N::Stream>,
        connected: bool,
    ) {
        let free = (0..WIRES).find(|place| self.wires.iter().all(|wire| wire.place != *place));
        let Some(place) = free else {
            if let Some(core) = &mut self.core {
                core.closed(now, link, "too many connections at once");
            }
            return;
        };
        let bits = (self.wire_bits + place * 2, self.wire_bits + place * 2 + 1);
        let mut wire = Wire::new(link, stream, place, bits, &self.ready);
        wire.connected = connected;
        self.wires.push(wire);
        self.ready.set(bits.0);
    }

    fn hear(&mut self, news: SessionNews) {
        match &news {
            SessionNews::Up { rung, remote, .. } => {
                self.unreachable = None;
                self.meter.switched();
                // The agent tells people of it.
                debug!(peer = %self.peer, %rung, %remote, "link up");
            }
            SessionNews::Moved { rung, remote } => {
                debug!(peer = %self.peer, %rung, %remote, "the path moved")
            }
            SessionNews::Down { reason, .. } => {
                debug!(peer = %self.peer, reason, "link down");
                self.unreachable = Some(reason.clone());
                if self.open > 0 {
                    self.wanted();
                }
            }
            SessionNews::AttemptDone { outcomes, .. } => {
                let failed = outcomes.iter().find(|outcome| outcome.outcome == Verdict::Failed);
                if let Some(failed) = failed.filter(|_| !self.core.as_ref().is_some_and(Session::is_up)) {
                    self.unreachable = Some(format!("{}: {}", failed.rung, failed.reason));
                }
            }
            SessionNews::Poor { rung, reason } => {
                debug!(peer = %self.peer, %rung, reason, "the link is poor")
            }
            SessionNews::Suspect => debug!(peer = %self.peer, "the link does not answer"),
            SessionNews::Wanted
            | SessionNews::Agreed(_)
            | SessionNews::RelayRtt { .. }
            | SessionNews::RelayFailed { .. }
            | SessionNews::RelaysWanted { .. } => {}
        }
        self.news_backlog.push_back(news);
    }
}
