//! A port forward's rule: `[BIND:]PORT:NODE:[HOST:]PORT[/tcp]`.
//!
//! `2222:nodeB:22` listens on 127.0.0.1:2222, and what connects there reaches 127.0.0.1:22 as seen from
//! nodeB. BIND is an address, HOST an address or a name that nodeB resolves; both are 127.0.0.1 unless
//! given, and IPv6 addresses stand in brackets. The listening port may be 0: the system chooses. The node
//! may be another user's, `NODE@USER`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::ids::PeerName;
use crate::tunnel::target::{Host, Target, port_number, quote};
use crate::wire::message::MAX_RULE;

/// `[BIND:]PORT:NODE:[HOST:]PORT[/tcp]`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardRule {
    /// Its name; the rule's text unless the file gives one.
    pub name: String,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The peer.
    pub peer: PeerName,
    /// What the peer dials: `HOST:PORT`, IPv6 in brackets.
    pub target: String,
    /// Whether it is in force.
    pub enabled: bool,
}

/// Why a rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("forward {rule:?}: {problem}; the form is [BIND:]PORT:NODE:[HOST:]PORT[/tcp], like 2222:nodeB:22")]
pub struct BadRule {
    rule: String,
    problem: String,
}

impl FromStr for ForwardRule {
    type Err = BadRule;
    fn from_str(text: &str) -> Result<Self, BadRule> {
        parse(text).map_err(|problem| BadRule { rule: quote(text), problem })
    }
}

impl fmt::Display for ForwardRule {
    /// The rule's shortest text, whatever its name is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.listen {
            SocketAddr::V4(listen) if *listen.ip() == Ipv4Addr::LOCALHOST => write!(f, "{}", listen.port())?,
            listen => write!(f, "{listen}")?,
        }
        let target = self.target.strip_prefix("127.0.0.1:").unwrap_or(&self.target);
        write!(f, ":{}:{target}", self.peer)
    }
}

fn parse(text: &str) -> Result<ForwardRule, String> {
    if text.len() > MAX_RULE {
        return Err(format!("it is longer than {MAX_RULE} bytes"));
    }
    let rule = match text.rsplit_once('/') {
        None => text,
        Some((rule, "tcp")) => rule,
        Some((_, "udp")) => return Err("udp is not forwarded by this version, only tcp is".into()),
        Some((_, other)) => {
            return Err(format!("{:?} is not a protocol that is forwarded, only tcp is", quote(other)));
        }
    };

    let parts = split(rule)?;
    // Whether the first of four parts is BIND or PORT, its digits say: no address is digits only.
    let (bind, port, node, host, target_port) = match parts.as_slice() {
        [port, node, target] => (None, port, node, None, target),
        [port, node, host, target] if is_number(port) => (None, port, node, Some(host), target),
        [bind, port, node, target] => (Some(bind), port, node, None, target),
        [bind, port, node, host, target] => (Some(bind), port, node, Some(host), target),
        _ => return Err("it has too few or too many parts (an IPv6 address stands in brackets)".into()),
    };

    let bind = bind.map_or(Ok(LOOPBACK), |bind| parse_bind(bind))?;
    let port = port_number(port).filter(|_| is_number(port)).ok_or_else(|| {
        format!("{:?} is not a port to listen on: use 1 to 65535, or 0 to let the system choose", quote(port))
    })?;
    let peer: PeerName = node.parse().map_err(|error| format!("{error}"))?;
    let host = host.map_or(Ok(Host::Address(LOOPBACK)), |host| host.parse());
    let host = host.map_err(|error| error.to_string())?;
    let target_port = port_number(target_port)
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{:?} is not a port to connect to: use 1 to 65535", quote(target_port)))?;

    Ok(ForwardRule {
        name: text.to_owned(),
        listen: SocketAddr::new(bind, port),
        peer,
        target: Target { host, port: target_port }.to_string(),
        enabled: true,
    })
}

/// The parts between the colons that are not in brackets.
fn split(rule: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut rest = rule;
    loop {
        let end = if rest.starts_with('[') {
            let closed = rest.find(']').and_then(|at| at.checked_add(1));
            closed.ok_or("a bracket is not closed")?
        } else {
            rest.find(':').unwrap_or(rest.len())
        };
        let (part, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        parts.push(part);
        match after.strip_prefix(':') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err("a colon must follow the bracket".into()),
        }
    }
}

fn parse_bind(bind: &str) -> Result<IpAddr, String> {
    match bind.parse() {
        Ok(Host::Address(ip)) => Ok(ip),
        Ok(Host::Name(_)) | Err(_) => Err(format!(
            "{:?} is not an address to listen on: use an IPv4 address, or an IPv6 address in brackets",
            quote(bind)
        )),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Where to listen, and what to dial, unless the rule says otherwise.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> ForwardRule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_short_form_means_loopback_on_both_sides() {
        let rule = rule("2222:nodeB:22");
        assert_eq!(rule.name, "2222:nodeB:22");
        assert_eq!(rule.listen, "127.0.0.1:2222".parse().unwrap());
        assert_eq!(rule.peer, "nodeB".parse().unwrap());
        assert_eq!(rule.target, "127.0.0.1:22");
        assert!(rule.enabled);
    }

    #[test]
    fn every_part_may_be_given() {
        for (text, listen, peer, target) in [
            ("0:b:22", "127.0.0.1:0", "b", "127.0.0.1:22"),
            ("0.0.0.0:80:b:8080/tcp", "0.0.0.0:80", "b", "127.0.0.1:8080"),
            ("80:b:db.lan:5432", "127.0.0.1:80", "b", "db.lan:5432"),
            ("80:b:10.0.0.5:5432", "127.0.0.1:80", "b", "10.0.0.5:5432"),
            ("10.0.0.1:80:b:db.lan:5432", "10.0.0.1:80", "b", "db.lan:5432"),
            ("[::1]:80:b:[2001:DB8::1]:5432", "[::1]:80", "b", "[2001:db8::1]:5432"),
            ("[::]:80:b@u:1", "[::]:80", "b@u", "127.0.0.1:1"),
            ("80:22:host:1", "127.0.0.1:80", "22", "host:1"),
            ("80:22:1", "127.0.0.1:80", "22", "127.0.0.1:1"),
        ] {
            let rule = rule(text);
            let got = (rule.listen.to_string(), rule.peer.to_string(), rule.target);
            assert_eq!(got, (listen.into(), peer.into(), target.into()), "{text}");
        }
    }

    #[test]
    fn the_shortest_text_is_shown() {
        for (text, shown) in [
            ("127.0.0.1:2222:nodeB:127.0.0.1:22/tcp", "2222:nodeB:22"),
            ("[::1]:0:b@u:localhost:22", "[::1]:0:b@u:localhost:22"),
            ("127.0.0.2:1:b:[::1]:22", "127.0.0.2:1:b:[::1]:22"),
        ] {
            assert_eq!(rule(text).to_string(), shown);
        }
    }

    #[test]
    fn an_error_says_what_is_wrong_and_shows_the_form() {
        for (text, says) in [
            ("", "too few"),
            ("2222", "too few"),
            ("2222:nodeB", "too few"),
            ("1:2:3:4:5:6", "too many"),
            (":nodeB:22", "\"\" is not a port to listen on"),
            ("x:nodeB:22", "\"x\" is not a port to listen on"),
            ("65536:nodeB:22", "\"65536\" is not a port to listen on"),
            ("+1:nodeB:22", "\"+1\" is not a port to listen on"),
            ("2222:node B:22", "\"node B\" is not a name"),
            ("2222::22", "\"\" is not a name"),
            ("2222:b@:22", "\"\" is not a name"),
            ("2222:nodeB:0", "\"0\" is not a port to connect to"),
            ("2222:nodeB:", "\"\" is not a port to connect to"),
            ("2222:nodeB:ssh", "\"ssh\" is not a port to connect to"),
            ("2222:nodeB:ho st:22", "\"ho st\" is not a host"),
            ("2222:nodeB:[::1:22", "bracket is not closed"),
            ("[::1]2222:nodeB:22", "colon must follow"),
            ("localhost:2222:nodeB:22", "\"localhost\" is not an address to listen on"),
            ("::1:2222:nodeB:22", "too many"),
            ("2222:nodeB:22/udp", "udp is not forwarded"),
            ("2222:nodeB:22/sctp", "\"sctp\" is not a protocol"),
            ("2222:nodeB:22/", "\"\" is not a protocol"),
        ] {
            let error = text.parse::<ForwardRule>().unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
            assert!(error.contains("2222:nodeB:22") && error.contains("[BIND:]PORT"), "{error}");
        }
        let long = format!("2222:nodeB:{}:22", "a".repeat(600));
        assert!(long.parse::<ForwardRule>().unwrap_err().to_string().len() < 400);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_as_the_same(
            bind: IpAddr, port: u16, node in "[A-Za-z0-9._-]{1,64}", user in prop::option::of("[a-z]{1,64}"),
            address: IpAddr, name in "[a-z][a-z0-9-]{0,20}", by_name: bool, target_port in 1..=u16::MAX,
        ) {
            let host = if by_name { Host::Name(name) } else { Host::Address(address) };
            let user = user.map(|user| user.parse().unwrap());
            let mut rule = ForwardRule {
                name: String::new(),
                listen: SocketAddr::new(bind, port),
                peer: PeerName { node: node.parse().unwrap(), user },
                target: Target { host, port: target_port }.to_string(),
                enabled: true,
            };
            rule.name = rule.to_string();
            prop_assert_eq!(rule.to_string().parse::<ForwardRule>(), Ok(rule));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,60}") {
            let _ = text.parse::<ForwardRule>();
        }

        #[test]
        fn nearly_right_text_never_panics(text in "[0-9a-b:\\[\\]./@*-]{0,40}") {
            if let Ok(rule) = text.parse::<ForwardRule>() {
                prop_assert!(rule.target.parse::<Target>().is_ok());
            }
        }
    }
}
