//! Which of a node's claimed addresses its peer is told.
//!
//! A node may claim any address, and whoever is told one will send there: the server must not let a node
//! aim its peers at a third party. What it has seen itself, the address that the signalling connection
//! comes from, is proof. Beyond that:
//!
//! - **loopback** only where both nodes are seen on loopback: then they are on the server's own host;
//! - **link-local** only where both are seen at loopback or link-local addresses;
//! - **private** (RFC 1918, RFC 6598, RFC 4193) where both share a public address, so that they are likely
//!   behind the same NAT, or where both are seen at addresses that are not global, so that they are in the
//!   server's own network. Where one is seen over IPv4 and the other over IPv6 nothing can be compared, and
//!   they are told too: they harm nobody outside the receiver's own network;
//! - **global IPv6** as claimed: a node has several, and is seen at one of them;
//! - **global IPv4** only as seen, by the signalling port or by a STUN port (`reflexive`), or of a node on the
//!   server's own host.
//!
//! Of addresses that were not seen at most [`MAX_CLAIMED`] are told for each of UDP and TCP.

use std::net::{IpAddr, Ipv6Addr};

use crate::path::{Candidate, CandidateKind, Transport};

/// The candidates of a node seen at `owner` that a peer seen at `receiver` is told, in the given order.
pub(super) fn offered(candidates: &[Candidate], owner: IpAddr, receiver: IpAddr) -> Vec<Candidate> {
    let (owner, receiver) = (owner.to_canonical(), receiver.to_canonical());
    let mut claimed = [0_usize; 2];
    let mut offered: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        let ip = candidate.address.ip().to_canonical();
        if candidate.address.port() == 0 || offered.contains(candidate) {
            continue;
        }
        let [udp, tcp] = &mut claimed;
        let claimed = match candidate.transport {
            Transport::Udp => udp,
            Transport::Tcp => tcp,
        };
        // The STUN ports have seen it.
        let proven = candidate.kind == CandidateKind::ServerReflexive;
        let seen = ip == owner || proven;
        let may = may_be_told(ip, owner, receiver) || (proven && scope(ip) == Scope::Global);
        if !may || (!seen && *claimed == MAX_CLAIMED) {
            continue;
        }
        *claimed += usize::from(!seen);
        offered.push(*candidate);
    }
    offered
}

/// How far an address reaches, the shortest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// Not the address of one host.
    None,
    Loopback,
    Link,
    Private,
    Global,
}

fn scope(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => Scope::Loopback,
        IpAddr::V4(v4) if v4.is_link_local() => Scope::Link,
        IpAddr::V4(v4) if v4.is_private() || is_shared(v4.octets()) => Scope::Private,
        IpAddr::V4(v4) if v4.is_multicast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240 => Scope::None,
        IpAddr::V4(_) => Scope::Global,
        IpAddr::V6(v6) if v6.is_loopback() => Scope::Loopback,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Scope::Link,
        IpAddr::V6(v6) if v6.is_unique_local() => Scope::Private,
        IpAddr::V6(v6) if v6.is_multicast() || v6.is_unspecified() => Scope::None,
        IpAddr::V6(_) => Scope::Global,
    }
}

/// The addresses between a provider's NAT and its customers (RFC 6598).
fn is_shared([a, b, ..]: [u8; 4]) -> bool {
    a == 100 && (64..128).contains(&b)
}

pub(super) fn may_be_told(ip: IpAddr, owner: IpAddr, receiver: IpAddr) -> bool {
    let (from, to) = (scope(owner), scope(receiver));
    match scope(ip) {
        Scope::None => false,
        Scope::Loopback => from == Scope::Loopback && to == Scope::Loopback,
        Scope::Link => from <= Scope::Link && to <= Scope::Link,
        Scope::Private => match (from, to) {
            (Scope::Global, Scope::Global) => same_site(owner, receiver),
            (Scope::Global, _) | (_, Scope::Global) => false,
            _ => true,
        },
        Scope::Global => ip == owner || ip.is_ipv6() || from == Scope::Loopback,
    }
}

/// Whether two nodes that are seen at global addresses may be in one private network.
fn same_site(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a == b,
        (IpAddr::V6(a), IpAddr::V6(b)) => network(a) == network(b),
        _ => true,
    }
}

/// The /64, which is one link (RFC 4291 section 2.5.4).
fn network(address: Ipv6Addr) -> [u16; 4] {
    let [a, b, c, d, ..] = address.segments();
    [a, b, c, d]
}

/// The most addresses of one node and transport that its peer is told without proof.
const MAX_CLAIMED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(owner: &str, receiver: &str, addresses: &[&str]) -> Vec<String> {
        let candidates: Vec<Candidate> = addresses
            .iter()
            .map(|ip| Candidate {
                kind: CandidateKind::Host,
                transport: Transport::Tcp,
                address: (ip.parse::<IpAddr>().unwrap(), 4000).into(),
            })
            .collect();
        let told = offered(&candidates, owner.parse().unwrap(), receiver.parse().unwrap());
        told.iter().map(|candidate| candidate.address.ip().to_string()).collect()
    }

    const ALL: [&str; 6] = ["127.0.0.1", "169.254.1.1", "10.0.0.1", "203.0.113.1", "2001:db8::1", "fd00::1"];

    #[test]
    fn strangers_are_told_what_was_seen_and_global_ipv6() {
        assert_eq!(told("203.0.113.1", "198.51.100.1", &ALL), ["203.0.113.1", "2001:db8::1"]);
        assert_eq!(told("203.0.113.2", "198.51.100.1", &ALL), ["2001:db8::1"]);
    }

    #[test]
    fn neighbours_behind_one_nat_are_told_private_addresses() {
        assert_eq!(told("203.0.113.9", "203.0.113.9", &ALL), ["10.0.0.1", "2001:db8::1", "fd00::1"]);
        assert_eq!(told("2001:db8::8", "2001:db8::9", &ALL), ["10.0.0.1", "2001:db8::1", "fd00::1"]);
        assert_eq!(told("2001:db8::8", "203.0.113.9", &ALL), ["10.0.0.1", "2001:db8::1", "fd00::1"]);
    }

    #[test]
    fn nodes_in_the_servers_network_are_told_private_addresses() {
        assert_eq!(told("10.0.0.1", "10.9.9.9", &ALL), ["10.0.0.1", "2001:db8::1", "fd00::1"]);
        assert_eq!(told("10.0.0.1", "198.51.100.1", &ALL), ["2001:db8::1"]);
    }

    #[test]
    fn loopback_is_told_on_the_servers_host_alone() {
        assert_eq!(told("127.0.0.1", "::1", &ALL), ALL);
        assert_eq!(told("127.0.0.1", "::ffff:127.0.0.1", &ALL), ALL);
        assert_eq!(told("10.0.0.1", "127.0.0.1", &ALL), ["10.0.0.1", "2001:db8::1", "fd00::1"]);
        assert_eq!(told("127.0.0.1", "198.51.100.1", &ALL), ["203.0.113.1", "2001:db8::1"]);
    }

    #[test]
    fn what_is_no_host_is_never_told() {
        let none = ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "240.0.0.1"];
        assert!(told("127.0.0.1", "127.0.0.1", &none).is_empty());
    }

    #[test]
    fn claims_are_bounded_and_doubles_pass_once() {
        let many: Vec<String> = (0..40).map(|host| format!("2001:db8::{host:x}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(told("192.0.2.1", "198.51.100.1", &many).len(), MAX_CLAIMED);
        assert_eq!(told("192.0.2.1", "198.51.100.1", &["192.0.2.1", "192.0.2.1"]), ["192.0.2.1"]);
    }
}
