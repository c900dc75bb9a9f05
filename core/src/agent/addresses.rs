//! Where this node can be reached: its host candidates (RFC 8445 section 5.1.1.1).

use std::net::IpAddr;

use crate::path::{Candidate, CandidateKind, Transport};

/// The addresses of the interfaces, and the ports on which the node waits for its peers.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    tcp: Option<u16>,
    udp: Option<u16>,
    /// None until the first time they are told.
    interfaces: Option<Vec<IpAddr>>,
}

/// What is new about the interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// They are known now, for the first time.
    First,
    /// They have changed.
    Changed,
}

impl Addresses {
    /// The node waits on these ports. Says whether that is news.
    pub(super) fn listening(&mut self, tcp: u16, udp: Option<u16>) -> bool {
        let old = (self.tcp.replace(tcp), std::mem::replace(&mut self.udp, udp));
        old != (Some(tcp), udp)
    }

    /// The interfaces have these addresses. Their order is no news.
    pub(super) fn replace(&mut self, addresses: &[IpAddr]) -> News {
        let mut new: Vec<IpAddr> = Vec::new();
        for address in addresses.iter().map(IpAddr::to_canonical).take(MAX_ADDRESSES) {
            if !new.contains(&address) {
                new.push(address);
            }
        }
        match self.interfaces.replace(new.clone()) {
            None => News::First,
            Some(old) if old.len() == new.len() && new.iter().all(|ip| old.contains(ip)) => News::None,
            Some(_) => News::Changed,
        }
    }

    /// The candidates to report over a signalling connection to `server`, in the system's order, at most
    /// [`MAX_OF_FAMILY`] addresses a family, each for UDP and for TCP.
    ///
    /// Loopback is among them, and first, only if the server is reached over loopback: any other server's
    /// nodes are on other hosts. IPv6 link-local addresses never are, since they mean nothing without the
    /// name of an interface.
    pub(super) fn candidates(&self, server: IpAddr) -> Vec<Candidate> {
        let ports = [(Transport::Udp, self.udp), (Transport::Tcp, self.tcp)];
        let ports = ports.into_iter().filter_map(|(transport, port)| Some((transport, port?)));
        let server = server.to_canonical();
        let local = server.is_loopback();
        let interfaces = self.interfaces.as_deref().unwrap_or_default();
        let loopback = interfaces.iter().filter(|ip| local && ip.is_loopback() && **ip != server);
        let others = interfaces.iter().filter(|ip| is_host(ip));
        let all = local.then_some(&server).into_iter().chain(loopback).chain(others);
        let (mut v4, mut v6) = (0, 0);
        let room = |ip: &&IpAddr| {
            let count = if ip.is_ipv4() { &mut v4 } else { &mut v6 };
            *count += 1;
            *count <= MAX_OF_FAMILY
        };
        all.filter(room)
            .flat_map(|ip| {
                ports.clone().map(|(transport, port)| Candidate {
                    kind: CandidateKind::Host,
                    transport,
                    address: (*ip, port).into(),
                })
            })
            .collect()
    }
}

/// Whether an address is one that other hosts may reach.
fn is_host(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local())
        }
    }
}

/// The most addresses a family: hosts with containers have dozens of addresses that lead nowhere, and each
/// costs every peer a connection attempt.
const MAX_OF_FAMILY: usize = 8;
/// The most addresses that are looked at: with one a container, some hosts have thousands.
const MAX_ADDRESSES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn reported(addresses: &Addresses, server: &str) -> Vec<String> {
        let candidates = addresses.candidates(server.parse().unwrap());
        let (udp, tcp): (Vec<Candidate>, Vec<Candidate>) =
            candidates.into_iter().partition(|candidate| candidate.transport == Transport::Udp);
        let ports = |of: &[Candidate], less: u16| -> Vec<(IpAddr, u16)> {
            let address = |candidate: &Candidate| (candidate.address.ip(), candidate.address.port() - less);
            of.iter().map(address).collect()
        };
        assert_eq!(ports(&udp, 1), ports(&tcp, 0), "each address is reported for both");
        tcp.iter().map(|candidate| candidate.address.to_string()).collect()
    }

    #[test]
    fn loopback_is_reported_to_a_server_on_this_host_alone() {
        let mut addresses = Addresses::default();
        addresses.replace(&ips(&["127.0.0.1", "192.0.2.1", "::1", "fe80::1", "2001:db8::1"]));
        assert!(reported(&addresses, "198.51.100.1").is_empty());
        addresses.listening(4000, Some(4001));
        assert_eq!(reported(&addresses, "198.51.100.1"), ["192.0.2.1:4000", "[2001:db8::1]:4000"]);
        assert_eq!(
            reported(&addresses, "127.0.0.1"),
            ["127.0.0.1:4000", "[::1]:4000", "192.0.2.1:4000", "[2001:db8::1]:4000"]
        );
        addresses.replace(&[]);
        assert_eq!(reported(&addresses, "::1"), ["[::1]:4000"]);
    }

    #[test]
    fn candidates_are_bounded_by_family() {
        let mut addresses = Addresses::default();
        let many: Vec<IpAddr> = (0..=255).map(|host| IpAddr::from([10, 0, 0, host])).collect();
        addresses.listening(4000, Some(4001));
        addresses.replace(&many);
        assert_eq!(reported(&addresses, "198.51.100.1").len(), MAX_OF_FAMILY);
    }

    #[test]
    fn another_order_is_no_news() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.replace(&ips(&["192.0.2.1", "192.0.2.2"])), News::First);
        let other_order = ips(&["192.0.2.2", "192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1"]);
        assert_eq!(addresses.replace(&other_order), News::None);
        assert_eq!(addresses.replace(&[]), News::Changed);
        assert_eq!(addresses.replace(&other_order), News::Changed);
        assert!(
            addresses.listening(1, None) && !addresses.listening(1, None) && addresses.listening(1, Some(2))
        );
    }
}
