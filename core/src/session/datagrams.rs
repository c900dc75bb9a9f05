//! Links over UDP as the driver sees them: datagrams in, datagrams out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::carrier::{Above, Carrier, Slot, Stage, Udp};
use super::lane::Lane;
use super::punching::Punch;
use super::{Action, Ending, LinkId, Session};
use crate::ids::{AttemptId, SockId};
use crate::link::udp::{InitialId, Label, ProbeTag, Transmit, UdpConfig, UdpPath};
use crate::link::{Role, UdpLink};
use crate::path::Transport;
use crate::punch::udp::{Config, Puncher};
use crate::punch::{Effort, Plan, Trust};

/// What leads to a link over UDP: for [`crate::link::udp::Demux`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpRoute {
    /// The link.
    pub link: LinkId,
    /// What its connection ids begin with.
    pub label: Label,
    /// What the first Initial to it bears, where it waits for one.
    pub initial: Option<InitialId>,
    /// What its probes bear.
    pub tag: ProbeTag,
}

impl Session {
    /// Begins a link over UDP for an attempt that has just begun.
    pub(super) fn seek(&mut self, now: Instant, id: AttemptId) {
        let Some(socket) = self.config.socket else { return };
        let Some(run) = self.runs.iter().find(|run| run.id() == id).filter(|run| run.attempt.wants_udp())
        else {
            return;
        };
        if let Some(reason) = self.distrusts_udp(now) {
            if let Some(run) = self.runs.iter_mut().find(|run| run.id() == id) {
                run.without_udp(reason);
            }
            return;
        }
        let plan = Plan::new(&run.attempt.situation(self.role));
        if let Some(why) = plan.nothing_to_do() {
            if let Some(run) = self.runs.iter_mut().find(|run| run.id() == id) {
                run.punch_failed(why);
            }
            return;
        }
        let paths: Vec<(UdpPath, Option<u32>)> = plan
            .targets
            .iter()
            .filter(|target| plan.knocks || target.trust == Trust::Claimed)
            .map(|target| {
                let limit = (target.trust == Trust::Claimed).then_some(UNPROVEN);
                (UdpPath::new(socket, target.address), limit)
            })
            .collect();
        let config = UdpConfig {
            keys: &self.config.keys,
            role: self.role,
            peer: self.config.peer,
            attempt: id,
            punch_key: &run.attempt.punch_key,
            index: self.next_link,
            seed: self.rng.bytes(),
        };
        let mut link = match UdpLink::new(now, &config) {
            Ok(link) => link,
            // Our own keys or ciphers: those of TCP will say the same.
            Err(error) => {
                if let Some(run) = self.runs.iter_mut().find(|run| run.id() == id) {
                    run.failed(Transport::Udp, None, &error.to_string());
                }
                return;
            }
        };
        if self.role == Role::Controlling {
            // Where the peer's NAT takes no harm, QUIC's own first flight is as good as a probe.
            paths.into_iter().for_each(|(path, limit)| link.add_candidate(path, limit));
        }
        let config = Config {
            role: self.role,
            attempt: id,
            punch_key: &run.attempt.punch_key,
            main4: socket,
            main6: socket,
            plan,
            budget: run.attempt.budget.clone(),
            is_blind: run.attempt.effort != Effort::Full,
        };
        for slot in &mut self.links {
            if let Carrier::Udp(older) = &mut slot.carrier
                && !older.link.is_up()
            {
                older.punch.give_way(now);
            }
        }
        let punch = Punch::new(Puncher::new(config, now, self.rng.bytes()));
        let end = punch.end();
        if let Some(run) = self.runs.iter_mut().find(|run| run.id() == id) {
            run.lasts_until(end);
        }
        let mut lane = Lane::new(now);
        self.keepalive.into_iter().for_each(|every| lane.keepalive(every));
        let udp = Udp { link, lane, punch, frames: 0, greeted: false, met: false, path: None };
        let udp = Box::new(udp);
        let link = self.add_slot(now, id, None, Carrier::Udp(udp));
        if let Some((id, udp)) = self.udp_mut(link) {
            let route = udp.route(id);
            self.actions.push_back(Action::Route(route));
        }
        self.digest(now);
    }

    /// How often something must leave for the NAT before this node to remember a mapping of UDP, as measured:
    /// idle links over UDP are pinged as often, within 5 s and 15 s.
    pub fn keepalive(&mut self, every: Duration) {
        self.keepalive = Some(every);
        for slot in &mut self.links {
            if let Carrier::Udp(udp) = &mut slot.carrier {
                udp.lane.keepalive(every);
            }
        }
    }

    /// Takes a datagram that was routed to `link`; [`Self::digest`] follows, once for many of them.
    pub fn datagram(
        &mut self,
        now: Instant,
        link: LinkId,
        socket: SockId,
        from: SocketAddr,
        ecn: u8,
        bytes: &[u8],
    ) {
        let Some((_, udp)) = self.udp_mut(link) else { return };
        if Punch::takes(bytes) && !udp.link.is_up() {
            udp.punch.datagram(now, socket, from, bytes);
        } else {
            udp.link.datagram(now, socket, from, ecn, bytes);
        }
    }

    /// What came of [`Action::OpenSocket`]: the socket, or none if there is none to be had.
    pub fn opened(&mut self, now: Instant, link: LinkId, socket: Option<SockId>) {
        match self.udp_mut(link) {
            Some((_, udp)) => udp.punch.opened(now, socket),
            None => self.actions.extend(socket.map(Action::CloseSocket)),
        }
        self.digest(now);
    }

    /// Acts on the datagrams that have come, and on what time has brought the links over UDP.
    pub fn digest(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(slot) = self.links.get_mut(at) {
            at += 1;
            let id = slot.id;
            let digested = self.digest_link(now, id).and_then(|()| self.greet(now, id));
            let Some(ending) = digested.err() else {
                self.greeted(now, id);
                continue;
            };
            self.settle(now);
            self.end(now, id, &ending.to_string());
            // Others may have gone with it: those that are looked at twice have nothing new.
            at = 0;
        }
        self.judge(now);
        self.settle(now);
    }

    /// Takes frames of streams for the links over UDP, as many as keep them busy. [`Self::poll_transmit`]
    /// follows.
    pub fn fill(&mut self, now: Instant) {
        let Self { links, nomination, record, .. } = self;
        for slot in links {
            let Carrier::Udp(udp) = &mut slot.carrier else { continue };
            let Udp { link, lane, .. } = &mut **udp;
            let mut above = Above { id: slot.id, lane, nomination };
            if link.transmit(now, &mut above, &mut record[..]) > 0 {
                lane.sent_data(now);
            }
        }
    }

    /// Fills `out` with the next datagram of a link over UDP, or with up to `max_segments` of the same length of
    /// which the last may be shorter.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        self.links.iter_mut().find_map(|slot| match &mut slot.carrier {
            Carrier::Udp(udp) => {
                out.clear();
                let probe = udp.punch.poll_transmit(out);
                probe.or_else(|| udp.link.poll_transmit(now, max_segments, out))
            }
            Carrier::Dialled | Carrier::Tcp(_) => None,
        })
    }

    /// A datagram could not be sent, and why. It counts as lost; but where nothing else is heard of that
    /// address, this is the reason.
    pub fn unsent(&mut self, to: SocketAddr, reason: &str) {
        for run in self.runs.iter_mut().filter(|run| run.is_running() && !run.is_up) {
            if run.attempt.paths().any(|candidate| candidate.address == to) {
                run.failed(Transport::Udp, Some(to), reason);
            }
        }
    }

    /// Lets time pass for the links over UDP.
    pub(super) fn tick_udp(&mut self, now: Instant) {
        for slot in &mut self.links {
            let Carrier::Udp(udp) = &mut slot.carrier else { continue };
            if udp.link.deadline().is_some_and(|(deadline, _)| deadline <= now) {
                udp.link.tick(now);
            }
            udp.punch.tick(now);
        }
        self.digest(now);
    }

    fn digest_link(&mut self, now: Instant, id: LinkId) -> Result<(), Ending> {
        self.follow(id);
        let Self { links, nomination, runs, actions, .. } = self;
        let Some(slot) = links.iter_mut().find(|slot| slot.id == id) else { return Ok(()) };
        let Slot { attempt, carrier, remote, direct, doubted, .. } = slot;
        let Carrier::Udp(udp) = carrier else { return Ok(()) };
        let Udp { link, lane, punch, frames, path, .. } = &mut **udp;
        if path.is_none()
            && let Some(first) = link.path()
        {
            *path = Some(first);
            *remote = Some(first.remote);
            punch.heard(now, first.socket);
            let run = runs.iter().find(|run| run.id() == *attempt);
            *direct = run.is_some_and(|run| run.attempt.is_host(Transport::Udp, first.remote));
        }
        punch.settle(id, link, actions);
        let heard = link.frames();
        if heard != *frames {
            *frames = heard;
            *doubted = false;
            lane.heard(now);
        }
        if link.is_up()
            && let Some(path) = link.path()
        {
            punch.linked(now, path.socket);
            punch.settle(id, link, actions);
        } else if let Some(why) = punch.why()
            && let Some(run) = runs.iter_mut().find(|run| run.id() == *attempt)
        {
            run.punch_failed(why);
        }
        link.receive(now, &mut Above { id, lane, nomination })
    }

    /// Says hello on a link that is up, unless that has to prove something first.
    fn greet(&mut self, now: Instant, id: LinkId) -> Result<(), Ending> {
        if !self.may_greet(now, id)? {
            return Ok(());
        }
        let Self { links, nomination, .. } = self;
        let Some(slot) = links.iter_mut().find(|slot| slot.id == id) else { return Ok(()) };
        let Carrier::Udp(udp) = &mut slot.carrier else { return Ok(()) };
        udp.lane.say(&nomination.hello(slot.direct));
        udp.greeted = true;
        slot.stage = Stage::Greeted;
        if udp.met {
            let seen_direct = slot.seen_direct;
            self.ready(now, id, seen_direct);
        }
        Ok(())
    }

    /// Takes note of a path that has moved.
    fn follow(&mut self, id: LinkId) {
        let Some(slot) = self.links.iter_mut().find(|slot| slot.id == id) else { return };
        let Carrier::Udp(udp) = &mut slot.carrier else { return };
        let (Some(before), Some(path)) = (udp.path, udp.link.path()) else { return };
        if before != path {
            udp.path = Some(path);
            slot.remote = Some(path.remote);
            self.reconsider(id, true);
        }
    }

    fn udp_mut(&mut self, link: LinkId) -> Option<(LinkId, &mut Udp)> {
        self.links.iter_mut().find(|slot| slot.id == link).and_then(|slot| match &mut slot.carrier {
            Carrier::Udp(udp) => Some((slot.id, &mut **udp)),
            Carrier::Dialled | Carrier::Tcp(_) => None,
        })
    }
}

impl Udp {
    pub(super) fn route(&self, link: LinkId) -> UdpRoute {
        UdpRoute {
            link,
            label: self.link.label(),
            initial: self.link.initial_id(),
            tag: self.link.probe_tag(),
        }
    }
}

/// Datagrams to an address that nobody vouches for: five flights of two.
const UNPROVEN: u32 = 10;
