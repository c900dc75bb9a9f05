//! Dialling what a peer wants to reach, as far as this node's policy lets it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use inp2p_core::mux::code;
use inp2p_core::tunnel::{Allow, Host, Target};

use super::Common;
use crate::net::{Net, TcpConfig};
use crate::words::in_words;

/// How far a dial has come.
pub(crate) enum Dialled<N: Net> {
    /// Under way.
    Begun {
        /// The connection.
        stream: N::Stream,
        /// What was asked for.
        target: Target,
        /// Where it leads.
        to: SocketAddr,
    },
    /// The name has to be looked up first; see [`look_up`].
    Lookup(Target),
    /// Not to be: the code and text of the reset.
    Refused(u16, String),
}

/// What a peer may have dialled.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) common: Arc<Common>,
    /// What is shared with a peer of another user; none for one of the own user.
    pub(crate) share: Option<Arc<Allow>>,
}

impl Policy {
    /// Whether the node's own policy opens the target there and, for a peer of another user, what is shared
    /// with it does too.
    pub(crate) fn permits(&self, target: &Target, ip: IpAddr) -> bool {
        self.common.allow.permits(target, ip)
            && self.share.as_ref().is_none_or(|share| share.permits(target, ip))
    }
}

/// Begins to dial `target`, or says why not.
pub(crate) fn dial<N: Net>(net: &N, policy: &Policy, target: &str) -> Dialled<N> {
    match target.parse::<Target>() {
        Ok(Target { host: Host::Address(ip), port }) => {
            let parsed = Target { host: Host::Address(ip), port };
            if policy.permits(&parsed, ip) {
                connect(net, &parsed, &[SocketAddr::new(ip, port)])
            } else {
                forbidden(target)
            }
        }
        Ok(parsed @ Target { host: Host::Name(_), .. }) => Dialled::Lookup(parsed),
        Err(error) => Dialled::Refused(code::UNREACHABLE, error.to_string()),
    }
}

/// Looks the name up once, and dials an address that the policy allows: never the name again, so that a
/// second answer cannot lead elsewhere.
pub(crate) async fn look_up<N: Net>(net: &N, policy: &Policy, target: &Target) -> Dialled<N> {
    let Host::Name(name) = &target.host else { return forbidden(&target.to_string()) };
    match net.resolve(name, target.port).await {
        Ok(addresses) => {
            let allowed: Vec<SocketAddr> =
                addresses.into_iter().filter(|address| policy.permits(target, address.ip())).collect();
            if allowed.is_empty() { forbidden(&target.to_string()) } else { connect(net, target, &allowed) }
        }
        Err(error) => Dialled::Refused(code::NO_SUCH_HOST, format!("{name}: {}", explain(&error))),
    }
}

/// An error of a socket in the words that people use.
pub(crate) fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => in_words(error),
    }
}

/// The code of a reset that a failed dial gives.
pub(crate) fn code_of(error: &io::Error) -> u16 {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => code::REFUSED,
        io::ErrorKind::TimedOut => code::TIMEOUT,
        _ => code::UNREACHABLE,
    }
}

fn connect<N: Net>(net: &N, target: &Target, addresses: &[SocketAddr]) -> Dialled<N> {
    let mut why = (code::NO_SUCH_HOST, "no address".to_owned());
    // Only an address of a family that this host has can be begun at all.
    for address in prefer_v4(addresses) {
        match net.connect(&TcpConfig::default(), address) {
            Ok(stream) => return Dialled::Begun { stream, target: target.clone(), to: address },
            Err(error) => why = (code_of(&error), format!("{address}: {}", explain(&error))),
        }
    }
    Dialled::Refused(why.0, why.1)
}

/// IPv4 first: what listens on a name's IPv6 address nearly always listens on the other too.
fn prefer_v4(addresses: &[SocketAddr]) -> impl Iterator<Item = SocketAddr> {
    let family = |v4: bool| addresses.iter().copied().filter(move |a| matches!(a.ip(), IpAddr::V4(_)) == v4);
    family(true).chain(family(false))
}

/// A target that the policy does not open.
pub(crate) fn forbidden<N: Net>(target: &str) -> Dialled<N> {
    let text = format!("{target} is not among the targets that this node allows (-allow, shares)");
    Dialled::Refused(code::NOT_ALLOWED, text)
}
