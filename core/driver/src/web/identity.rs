//! Who speaks: one function yields a connection's identity, for the log, for login and for REST alike, so
//! that no two places read different headers.
//!
//! `X-Forwarded-For` is believed from `-trusted-proxy` addresses only, and read from the right: what
//! stands left of the first address that is no trusted proxy was written by a stranger.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};

/// A network: an address and the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a network was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: write it like 10.0.0.0/8, fd00::/8 or 192.0.2.1")]
pub struct BadCidr(String);

impl Cidr {
    /// Whether `address` lies in it. An IPv4 address in IPv6 clothes counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;
    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| bad())?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest {
            return Err(bad());
        }
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Where it comes from, seen through trusted proxies. Port 0 where a proxy does not tell it.
    pub(crate) remote: SocketAddr,
    /// Whether it comes from this very machine, and not through a proxy on it.
    pub(crate) local: bool,
}

/// Who sent a request with these headers over a connection from `peer`.
pub(crate) fn sender(peer: SocketAddr, headers: &HeaderMap, trusted: &[Cidr]) -> Sender {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if !is_trusted(peer.ip()) {
        // Whoever says that it forwards is a proxy, though not one of ours: its clients may be anywhere.
        let forwarded = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        return Sender { remote: peer, local: peer.ip().is_loopback() && !forwarded };
    }
    let mut sender = Sender { remote: peer, local: peer.ip().is_loopback() };
    let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    let hops = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        let Some(hop) = std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())) else {
            // Something stood there, so the trusted proxy did not speak for itself.
            sender.local = false;
            break;
        };
        // The loopback of another machine is not ours.
        sender = Sender { remote: hop, local: sender.local && hop.ip().is_loopback() };
        if !is_trusted(hop.ip()) {
            break;
        }
    }
    sender
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 0),
        Err(_) => text.parse().ok()?,
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// De facto standard, RFC 7239 section 7.4.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, lines: &[&str], trusted: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<Cidr> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let sender = sender(peer.parse().unwrap(), &headers, &trusted);
        (sender.remote.to_string(), sender.local)
    }

    #[test]
    fn a_stranger_cannot_choose_its_address() {
        let claim = ["127.0.0.1"];
        assert_eq!(seen("198.51.100.1:5", &claim, &[]), ("198.51.100.1:5".into(), false));
        assert_eq!(seen("198.51.100.1:5", &claim, &["10.0.0.0/8"]), ("198.51.100.1:5".into(), false));
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_counts() {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        let chain = ["127.0.0.1, 203.0.113.9", "10.1.2.3"];
        assert_eq!(seen("10.0.0.1:5", &chain, &trusted), ("203.0.113.9:0".into(), false));
        assert_eq!(seen("[fd00::1]:5", &["[2001:db8::9]:77"], &trusted), ("[2001:db8::9]:77".into(), false));
        assert_eq!(
            seen("[::ffff:10.0.0.1]:5", &["2001:db8::9"], &trusted),
            ("[2001:db8::9]:0".into(), false)
        );
        assert_eq!(seen("10.0.0.1:5", &["192.0.2.7:80"], &trusted), ("192.0.2.7:80".into(), false));
    }

    #[test]
    fn what_cannot_be_read_is_laid_to_the_proxy() {
        let trusted = ["127.0.0.1"];
        assert_eq!(seen("127.0.0.1:5", &["unknown"], &trusted), ("127.0.0.1:5".into(), false));
        assert_eq!(seen("127.0.0.1:5", &["203.0.113.9, unknown"], &trusted), ("127.0.0.1:5".into(), false));
    }

    #[test]
    fn a_proxy_on_this_machine_does_not_make_its_clients_local() {
        assert_eq!(seen("127.0.0.1:5", &[], &[]), ("127.0.0.1:5".into(), true));
        assert_eq!(seen("[::1]:5", &[], &[]), ("[::1]:5".into(), true));
        assert_eq!(seen("127.0.0.1:5", &["127.0.0.1"], &[]), ("127.0.0.1:5".into(), false));
        assert_eq!(seen("127.0.0.1:5", &["203.0.113.9"], &["127.0.0.0/8"]), ("203.0.113.9:0".into(), false));
        assert_eq!(seen("127.0.0.1:5", &[], &["127.0.0.0/8"]), ("127.0.0.1:5".into(), true));
        assert_eq!(seen("10.0.0.1:5", &["127.0.0.1"], &["10.0.0.0/8"]), ("127.0.0.1:0".into(), false));
    }

    #[test]
    fn networks_are_read_and_compared_bit_by_bit() {
        let network = |text: &str| text.parse::<Cidr>();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("0.0.0.0/0").unwrap().contains(ip("203.0.113.9")));
        assert!(network("::/0").unwrap().contains(ip("2001:db8::1")));
        assert!(!network("::/0").unwrap().contains(ip("203.0.113.9")));
        assert!(network("192.0.2.128/25").unwrap().contains(ip("192.0.2.255")));
        assert!(!network("192.0.2.128/25").unwrap().contains(ip("192.0.2.127")));
        assert!(network("192.0.2.1").unwrap().contains(ip("192.0.2.1")));
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "host/8", "10.0.0.0/8/8"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
