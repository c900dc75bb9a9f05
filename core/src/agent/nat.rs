//! The addresses of this host and the NATs before it: what is measured, who waits for that, and for whom a change
//! is news.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Agent;
use super::addresses::News;
use super::io::Action;
use crate::nat::NatReport;
use crate::wire::message::StunPorts;

/// What is known of the NATs before the node.
#[derive(Debug, Default)]
pub(super) struct Nat {
    pub(super) report: NatReport,
    /// Whether the prober has yet to say anything.
    pub(super) is_awaited: bool,
    /// Until when the first wishes wait for it.
    pub(super) until: Option<Instant>,
    /// The relays that answer STUN, as the server told last.
    pub(super) relays: Vec<SocketAddr>,
}

impl Agent {
    pub(super) fn interfaces(&mut self, now: Instant, addresses: &[IpAddr]) {
        let news = self.addresses.replace(addresses);
        if news != News::None {
            self.report.change(now);
        }
        if news == News::Changed {
            tracing::debug!(addresses = addresses.len(), "the addresses of this host have changed");
            // Where peers see this node is measured anew, and they had better be told.
            self.nat.is_awaited = true;
            self.nat.until = Some(now + NAT_PATIENCE);
            self.signal.network_changed(now, &mut self.actions);
            self.relaying.network_changed();
            self.peers.each(|_, peer, _| peer.network_changed(now));
        }
    }

    /// Has the NATs measured against the server's STUN ports, or those that the configuration names.
    pub(super) fn probe(&mut self, told: Option<StunPorts>) {
        let Some(server) = self.signal.online() else { return };
        let ports = |given: [Option<u16>; 2], told: Option<[u16; 2]>| {
            let [first, second] = told.map_or([None; 2], |told| told.map(Some));
            Some([given[0].or(first)?, given[1].or(second)?])
        };
        let (udp, tcp) = (told.map(|told| told.udp), told.map(|told| told.tcp));
        let ports = ports(self.config.stun_udp, udp).zip(ports(self.config.stun_tcp, tcp));
        if let Some((udp, tcp)) = ports {
            self.actions.push_back(Action::Probe { server, ports: StunPorts { udp, tcp } });
        }
    }

    /// Passes on which relays answer STUN, when that is news.
    pub(super) fn stun_relays(&mut self, relays: Vec<SocketAddr>) {
        if relays != self.nat.relays {
            self.nat.relays.clone_from(&relays);
            self.actions.push_back(Action::StunRelays(relays));
        }
    }

    pub(super) fn nat(&mut self, now: Instant, report: Option<Box<NatReport>>) {
        let Some(report) = report else {
            self.nat.is_awaited = true;
            return;
        };
        tracing::debug!(?report, "NAT behaviour");
        let old = std::mem::replace(&mut self.nat.report, *report);
        let known = [self.nat.report.udp4, self.nat.report.udp6].into_iter().flatten();
        self.nat.is_awaited &= !known.into_iter().any(|side| side.blocked || side.public.is_some());
        let lifetime = self.nat.report.udp4.and_then(|side| side.lifetime).and_then(|found| found.below);
        self.budget.measured(lifetime.map(|seconds| Duration::from_secs(seconds.into())));
        // A renewed proof is news for the server alone.
        self.report.change(now);
        if let Some(every) = self.nat.report.keepalive()
            && old.keepalive() != Some(every)
        {
            self.actions.push_back(Action::Keepalive(every));
        }
        if self.nat.report.is_settled() && !old.is_settled() {
            self.peers.each(|_, peer, _| peer.settled());
        }
        if old.reachability() != self.nat.report.reachability() {
            self.peers.each(|_, peer, _| peer.news(now));
        }
    }

    /// Until when report and wishes wait for the first word of the prober: without it they would leave out the
    /// addresses at which most peers can be reached, and the first attempt of a pair would be in vain.
    pub(super) fn awaits_nat(&self) -> Option<Instant> {
        self.nat.until.filter(|until| self.nat.is_awaited && self.now < *until)
    }
}

/// How long the report and the first wishes of a connection wait for the prober, which began before the login and needs one
/// round trip: where UDP is blocked it says nothing for longer.
pub(super) const NAT_PATIENCE: Duration = Duration::from_millis(500);
