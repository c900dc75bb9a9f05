//! What a node dials for its peers: a list of `HOST-OR-CIDR:PORTS`, by default its own loopback.
//!
//! A peer asks for a target. One given by address is judged by address. One given by name is resolved first,
//! *once*, and each address that came of it is judged, by [`Allow::permits`], before exactly that address is
//! dialled. So it does not matter what a name resolves to at another time (DNS rebinding), nor how an
//! address was spelt.
//!
//! A rule by address opens its addresses, however a peer names them. A rule by name opens whatever ordinary
//! address the name resolves to: that is to trust whoever answers for the name, but only so far. Addresses
//! by which a host reaches itself or its link are opened by name only where the name is `localhost`.
//!
//! IPv4-mapped and IPv4-compatible spellings of an IPv4 address are that IPv4 address. Unspecified, multicast
//! and reserved addresses are never dialled. Link-local ones, where clouds answer with credentials, only if a
//! rule lies wholly within their range: `0.0.0.0/0:*` does not open them. None of all these, nor loopback, is
//! reached by way of a NAT64 (RFC 6052).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::tunnel::target::{Host, Target, behind_nat64, canonical, port_number, quote};

/// What may be dialled. In files a list of texts, one a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Allow(Vec<AllowRule>);

/// One rule: `HOST-OR-CIDR:PORTS`, PORTS being `*`, or ports and ranges like `80,443,8000-8999`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowRule {
    whom: Whom,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    /// In lower case, without a dot at the end.
    Name(String),
    Network(Network),
}

/// An address and how many of its bits count; the others are 0. Never an IPv4 network in IPv6 spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ports {
    All,
    /// First and last of each range.
    Some(Vec<(u16, u16)>),
}

/// Why a rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "allow {rule:?}: {problem}; the form is HOST-OR-CIDR:PORTS, like 192.168.1.0/24:80,443 or db.lan:5432"
)]
pub struct BadAllow {
    rule: String,
    problem: String,
}

impl Allow {
    /// Whether `target`, which resolved to `address` (or is it), may be dialled there. This is the whole
    /// decision; it has to be made anew for each address.
    pub fn permits(&self, target: &Target, address: IpAddr) -> bool {
        match &target.host {
            Host::Address(ip) => canonical(*ip) == canonical(address) && self.by_address(*ip, target.port),
            Host::Name(name) => {
                let trusted = is_localhost(name) && canonical(address).is_loopback() || is_ordinary(address);
                self.by_address(address, target.port) || trusted && self.by_name(name, target.port)
            }
        }
    }

    /// Whether a rule by name opens `host`, which is not an address. What it resolves to is to be judged
    /// besides, see [`Self::permits`].
    pub fn by_name(&self, host: &str, port: u16) -> bool {
        let host = plain_name(host);
        self.0.iter().any(|rule| match &rule.whom {
            Whom::Name(name) => *name == host && rule.ports.contain(port),
            Whom::Network(_) => false,
        })
    }

    /// Whether a rule by address opens `ip`.
    pub fn by_address(&self, ip: IpAddr, port: u16) -> bool {
        let ip = canonical(ip);
        if is_never(ip) || behind_nat64(ip).is_some_and(|ip| !is_ordinary(ip)) {
            return false;
        }
        let link = LINK_LOCAL.iter().find(|network| network.contains(ip));
        self.0.iter().any(|rule| match &rule.whom {
            Whom::Name(_) => false,
            Whom::Network(network) => {
                network.contains(ip)
                    && rule.ports.contain(port)
                    && link.is_none_or(|link| link.covers(network))
            }
        })
    }

    /// The rules.
    pub fn rules(&self) -> &[AllowRule] {
        &self.0
    }
}

impl Default for Allow {
    /// The node's own loopback, every port.
    fn default() -> Self {
        let networks = [v4(127, 0, 8), Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 }];
        networks
            .map(|network| AllowRule { whom: Whom::Network(network), ports: Ports::All })
            .into_iter()
            .collect()
    }
}

impl FromIterator<AllowRule> for Allow {
    fn from_iter<I: IntoIterator<Item = AllowRule>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}

impl FromStr for AllowRule {
    type Err = BadAllow;
    fn from_str(text: &str) -> Result<Self, BadAllow> {
        parse(text).map_err(|problem| BadAllow { rule: quote(text), problem })
    }
}
impl TryFrom<String> for AllowRule {
    type Error = BadAllow;
    fn try_from(text: String) -> Result<Self, BadAllow> {
        text.parse()
    }
}
impl From<AllowRule> for String {
    fn from(rule: AllowRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.whom {
            Whom::Name(name) => write!(f, "{name}:{}", self.ports),
            Whom::Network(network) => write!(f, "{network}:{}", self.ports),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.prefix) {
            (IpAddr::V4(ip), 32) => write!(f, "{ip}"),
            (IpAddr::V6(ip), 128) => write!(f, "[{ip}]"),
            (ip, prefix) => write!(f, "{ip}/{prefix}"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Some(ranges) = self else { return f.write_str("*") };
        for (at, (first, last)) in ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        self.covers(&Self { address: ip, prefix: if ip.is_ipv4() { 32 } else { 128 } })
    }

    /// Whether every address of `inner` is one of this network's.
    fn covers(&self, inner: &Self) -> bool {
        let same_family = self.address.is_ipv4() == inner.address.is_ipv4();
        same_family && self.prefix <= inner.prefix && masked(inner.address, self.prefix) == self.address
    }
}

impl Ports {
    fn contain(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Some(ranges) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&port)),
        }
    }
}

fn parse(text: &str) -> Result<AllowRule, String> {
    let (whom, ports) = text.rsplit_once(':').ok_or("the ports are missing (`*` is all of them)")?;
    Ok(AllowRule { whom: parse_whom(whom)?, ports: parse_ports(ports)? })
}

fn parse_whom(text: &str) -> Result<Whom, String> {
    if let Some((address, prefix)) = text.split_once('/') {
        return parse_network(address, prefix).map(Whom::Network);
    }
    match text.parse() {
        Ok(Host::Address(ip)) => {
            let prefix = if ip.is_ipv4() { 32 } else { 128 };
            Ok(Whom::Network(simplified(Network { address: ip, prefix })))
        }
        Ok(Host::Name(name)) => Ok(Whom::Name(plain_name(&name))),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_network(address: &str, prefix: &str) -> Result<Network, String> {
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let ip: IpAddr = inner.parse().map_err(|_| format!("{:?} is not an address", quote(address)))?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = port_number(prefix).and_then(|number| u8::try_from(number).ok()).filter(|it| *it <= longest);
    let prefix = prefix.ok_or_else(|| format!("the prefix length must be 0 to {longest}"))?;
    let first = masked(ip, prefix);
    if first != ip {
        // It might be meant as the one address or as the whole network: who wrote it has to say.
        return Err(format!(
            "{ip} is not the first address of its network: write {first}/{prefix} or {ip}/{longest}"
        ));
    }
    Ok(simplified(Network { address: ip, prefix }))
}

fn parse_ports(text: &str) -> Result<Ports, String> {
    if text == "*" {
        return Ok(Ports::All);
    }
    let bad = |part: &str| {
        let part = quote(part);
        format!("{part:?} is not `*`, a port from 1 to 65535, or a range like 8000-8999")
    };
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let port = |text| port_number(text).filter(|port| *port != 0);
        let ends = port(first).zip(port(last)).filter(|(first, last)| first <= last);
        ends.ok_or_else(|| bad(part))
    };
    let ranges: Vec<_> = text.split(',').map(range).collect::<Result<_, _>>()?;
    if ranges.len() > MAX_RANGES {
        return Err(format!("it has more than {MAX_RANGES} ports and ranges"));
    }
    Ok(Ports::Some(ranges))
}

/// A network of IPv4 addresses in IPv6 spelling as the IPv4 network that it is.
fn simplified(network: Network) -> Network {
    match (canonical(network.address), network.prefix.checked_sub(96)) {
        (address @ IpAddr::V4(_), Some(prefix)) if network.address.is_ipv6() => Network { address, prefix },
        _ => network,
    }
}

/// `ip` with all bits behind the first `prefix` set to 0.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    // A shift by the whole width is none that the processor does.
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

/// DNS names are equal whatever their case, with or without the root's dot.
fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// RFC 6761 section 6.3.
fn is_localhost(name: &str) -> bool {
    let name = plain_name(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a rule by name may open `ip`.
fn is_ordinary(ip: IpAddr) -> bool {
    let ip = behind_nat64(ip).unwrap_or_else(|| canonical(ip));
    !ip.is_loopback() && !is_never(ip) && !LINK_LOCAL.iter().any(|network| network.contains(ip))
}

fn is_never(ip: IpAddr) -> bool {
    NEVER.iter().any(|network| network.contains(ip))
}

const fn v4(first: u8, second: u8, prefix: u8) -> Network {
    Network { address: IpAddr::V4(Ipv4Addr::new(first, second, 0, 0)), prefix }
}

const fn v6(first: u16, prefix: u8) -> Network {
    Network { address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), prefix }
}

/// What nobody can be connected to at, but which systems take for something else (Linux connects 0.0.0.0
/// and `::` to itself): "this network" (RFC 1122 section 3.2.1.3), multicast, reserved and broadcast.
const NEVER: [Network; 5] = [v4(0, 0, 8), v4(224, 0, 4), v4(240, 0, 4), v6(0, 128), v6(0xff00, 8)];
/// RFC 3927, RFC 4291 section 2.5.6.
const LINK_LOCAL: [Network; 2] = [v4(169, 254, 16), v6(0xfe80, 10)];
/// The most ports and ranges of one rule: more is better said in several.
const MAX_RANGES: usize = 64;

#[cfg(test)]
mod tests;
