//! What a peer is asked to dial: `HOST:PORT`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// Where to connect to. Its text is `HOST:PORT`, an IPv6 address in brackets; port 1 to 65535.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// A host by address or by name. Only what the standard spellings of an address give is an address: `127.1`,
/// `0x7f.1` and `2130706433`, which some resolvers take for one, are names here, and what they resolve to
/// is judged afterwards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, yet to be resolved: 1 to 253 of the characters `A-Z a-z 0-9 . _ -`, in the case that was given.
    Name(String),
}

/// Why a target was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// No colon, or nothing before it.
    #[error("{0:?} is not HOST:PORT, like 127.0.0.1:22, [::1]:22 or db.lan:5432")]
    Form(String),
    /// The port is none, or 0.
    #[error("{0:?} is not a port: use 1 to 65535")]
    Port(String),
    /// The host is neither an address nor a name.
    #[error("{0:?} is not a host: use an IPv4 address, an IPv6 address in brackets, or a name")]
    Host(String),
}

impl FromStr for Target {
    type Err = BadTarget;
    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| BadTarget::Form(quote(text)))?;
        if host.is_empty() {
            return Err(BadTarget::Form(quote(text)));
        }
        Ok(Self { host: host.parse()?, port: parse_port(port)? })
    }
}

impl FromStr for Host {
    type Err = BadTarget;
    /// An IPv6 address must be in brackets.
    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget::Host(quote(text));
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(bad)?;
            return Ok(Self::Address(IpAddr::V6(inner.parse().map_err(|_| bad())?)));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(ip.into()));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        // A name that begins with a dash could be taken for a flag by whatever it is handed to.
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if first && text.len() <= MAX_NAME && text.bytes().all(legal) && !text.contains("..") {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(bad())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A port that can be connected to.
fn parse_port(text: &str) -> Result<u16, BadTarget> {
    port_number(text).filter(|port| *port != 0).ok_or_else(|| BadTarget::Port(quote(text)))
}

/// A port number in digits and nothing else (the standard parser takes a plus sign too).
pub(super) fn port_number(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The address that `ip` means: IPv4 where it is only a way to write one (mapped, RFC 4291 section 2.5.5.2;
/// compatible, 2.5.5.1).
pub(super) fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => embedded(high, low),
        _ => ip,
    }
}

/// The IPv4 address that a NAT64 makes of `ip`, if it is of the well-known prefix (RFC 6052 section 2.1).
pub(super) fn behind_nat64(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V6(ip) => match ip.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(embedded(high, low)),
            _ => None,
        },
        IpAddr::V4(_) => None,
    }
}

fn embedded(high: u16, low: u16) -> IpAddr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)).into()
}

/// What is repeated of a wrong text in an error: it may be long.
pub(super) fn quote(text: &str) -> String {
    text.chars().take(MAX_QUOTE).collect()
}

/// The longest name that DNS can hold, in its usual text form (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// As much of a wrong text as helps to find it.
const MAX_QUOTE: usize = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_addresses_or_names_with_a_port() {
        for text in
            ["127.0.0.1:22", "[::1]:22", "[2001:db8::1]:65535", "db.lan:5432", "_srv-1.x:1", "127.1:80"]
        {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!(
            "[2001:DB8:0:0::1]:1".parse::<Target>().unwrap().host,
            Host::Address("2001:db8::1".parse().unwrap())
        );
        assert!(matches!("127.1:80".parse::<Target>().unwrap().host, Host::Name(_)));
        assert!(matches!("010.0.0.1:80".parse::<Target>().unwrap().host, Host::Name(_)));
    }

    #[test]
    fn everything_else_is_refused_with_the_part_that_is_wrong() {
        let long = format!("{}:1", "a".repeat(254));
        for (text, part) in [
            ("", ""),
            ("22", "22"),
            (":22", ":22"),
            ("host:", ""),
            ("host:0", "0"),
            ("host:65536", "65536"),
            ("host:+1", "+1"),
            ("host: 1", " 1"),
            ("host:ssh", "ssh"),
            ("::1:22", "::1"),
            ("[::1:22", "[::1"),
            ("[127.0.0.1]:22", "[127.0.0.1]"),
            ("[fe80::1%eth0]:22", "[fe80::1%eth0]"),
            ("-oProxy:22", "-oProxy"),
            ("a b:22", "a b"),
            ("a..b:22", "a..b"),
            (".:22", "."),
            ("ho\u{301}st:22", "ho\u{301}st"),
            ("a/b:22", "a/b"),
            (&long, &"a".repeat(80)),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.to_string().contains(&format!("{part:?}")), "{text:?}: {error}");
        }
    }

    #[test]
    fn ways_to_write_an_ipv4_address_are_that_address() {
        for (written, meant) in [
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::10.1.2.3", "10.1.2.3"),
            ("64:ff9b::10.1.2.3", "64:ff9b::10.1.2.3"),
            ("::ffff:0.0.0.0", "0.0.0.0"),
            ("::1", "::1"),
            ("::", "::"),
            ("::2", "0.0.0.2"),
            ("2001:db8::1", "2001:db8::1"),
            ("::fffe:10.1.2.3", "::fffe:10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
        ] {
            let ip: IpAddr = written.parse().unwrap();
            assert_eq!(canonical(ip), meant.parse::<IpAddr>().unwrap(), "{written}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_as_the_same(ip: IpAddr, name in "[a-z0-9]([a-z0-9-]{0,9}\\.){0,3}", port in 1..=u16::MAX) {
            let by_name = name.parse::<Host>();
            for host in by_name.into_iter().chain([Host::Address(ip)]) {
                let target = Target { host, port };
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,60}") {
            let _ = text.parse::<Target>();
        }
    }
}
