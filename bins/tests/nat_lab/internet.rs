//! A small internet: one router, and behind it a server, public hosts and homes behind NATs.
//!
//! ```text
//!   server 198.51.100.1, .2 ──┐
//!   public host 203.0.113.N ──┤ router ├── 203.0.113.M NAT 192.168.1.1 ── 192.168.1.2, .3 hosts of a home
//!                                      └── 203.0.113.K carrier 100.64.0.1 ── 100.64.0.2 NAT 192.168.1.1 ── ...
//! ```
//!
//! No two public addresses share a link: whatever goes between them passes the router, and costs a hop.
//! All homes use the same private addresses, as homes do.

use std::net::{IpAddr, Ipv4Addr};

use crate::kind::Kind;
use crate::netns::{Namespace, join};

/// The router, and how many networks hang on it.
#[derive(Debug)]
pub(crate) struct Internet {
    router: Namespace,
    attached: u8,
}

/// A home or an office, behind a NAT of its own.
#[derive(Debug)]
pub(crate) struct Home {
    /// The NATs that its hosts pass, the nearest first.
    pub(crate) nats: Vec<Namespace>,
    /// Its public address.
    pub(crate) public: Ipv4Addr,
    hosts: u8,
}

impl Internet {
    /// One without hosts.
    pub(crate) fn new() -> Self {
        let router = Namespace::new("router");
        forwards_packets(&router);
        Self { router, attached: 0 }
    }

    /// A host with the addresses [`SERVER`] and [`SERVER2`].
    pub(crate) fn server(&mut self) -> Namespace {
        let host = Namespace::new("server");
        self.attach(&host, &[SERVER, SERVER2]);
        host
    }

    /// A host with a public address.
    pub(crate) fn public_host(&mut self) -> (Namespace, Ipv4Addr) {
        let host = Namespace::new("host");
        let address = self.next();
        self.attach(&host, &[address]);
        (host, address)
    }

    /// A home behind a NAT of this kind.
    pub(crate) fn home(&mut self, kind: Kind) -> Home {
        let public = self.next();
        let mut nats = vec![Namespace::new("nat")];
        let mut outside = public;
        if kind.is_double() {
            let carrier = Namespace::new("carrier");
            self.attach(&carrier, &[public]);
            lan(&carrier, CARRIER);
            carrier.rules(&Kind::PortRestricted.rules(&public.to_string(), "100.64.0.2"));
            outside = plug(&nats[0], "wan0", &carrier, CARRIER, 2);
            nats.push(carrier);
        } else {
            self.attach(&nats[0], &[public]);
        }
        forwards_packets(&nats[0]);
        lan(&nats[0], HOME);
        nats[0].rules(&kind.rules(&outside.to_string(), &address(HOME, 2).to_string()));
        Home { nats, public, hosts: 0 }
    }

    /// Joins a namespace to the router, by its `wan0`.
    fn attach(&mut self, host: &Namespace, addresses: &[Ipv4Addr]) {
        let port = format!("net{}", self.attached);
        self.attached += 1;
        join((host, "wan0"), (&self.router, &port));
        self.router.ip(&format!("addr add {ROUTER}/32 dev {port}"));
        for address in addresses {
            host.ip(&format!("addr add {address}/32 dev wan0"));
            self.router.ip(&format!("route add {address}/32 dev {port}"));
        }
        host.ip(&format!("route add default via {ROUTER} dev wan0 onlink"));
    }

    fn next(&self) -> Ipv4Addr {
        address([203, 0, 113], self.attached + 10)
    }
}

impl Home {
    /// Another host of this home.
    pub(crate) fn host(&mut self) -> (Namespace, Ipv4Addr) {
        let host = Namespace::new("host");
        self.hosts += 1;
        let ip = self.plug(&host, self.hosts + 1);
        (host, ip)
    }

    /// Plugs a namespace into this home's network, with this number as the end of its address.
    pub(crate) fn plug(&self, host: &Namespace, number: u8) -> Ipv4Addr {
        plug(host, "eth0", &self.nats[0], HOME, number)
    }
}

/// Gives a router a network inside, as a bridge.
fn lan(router: &Namespace, network: [u8; 3]) {
    router.ip("link add lan0 type bridge");
    router.ip(&format!("addr add {}/24 dev lan0", address(network, 1)));
    router.ip("link set lan0 up");
    forwards_packets(router);
}

/// Plugs a host into a router's network.
fn plug(host: &Namespace, interface: &str, router: &Namespace, network: [u8; 3], number: u8) -> Ipv4Addr {
    let port = format!("port{number}");
    join((host, interface), (router, &port));
    router.ip(&format!("link set {port} master lan0"));
    let ip = address(network, number);
    host.ip(&format!("addr add {ip}/24 dev {interface}"));
    host.ip(&format!("route add default via {}", address(network, 1)));
    ip
}

fn forwards_packets(router: &Namespace) {
    router.sysctl("ipv4/ip_forward", "1");
    router.sysctl("ipv4/conf/all/send_redirects", "0");
}

fn address([a, b, c]: [u8; 3], number: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, number)
}

/// The server's addresses.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const SERVER2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The router's, on all its links.
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HOME: [u8; 3] = [192, 168, 1];
/// Between a carrier and its customers (RFC 6598).
const CARRIER: [u8; 3] = [100, 64, 0];
