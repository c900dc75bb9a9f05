//! Dialling what a peer wants to reach, as far as this node's policy lets it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use inp2p_core::mux::code;
use inp2p_core::tunnel::{Allow, Target};

use crate::net::{Net, TcpConfig};

/// How far a dial has come.
pub(crate) enum Dialled<N: Net> {
    /// Under way.
    Begun(N::Stream),
    /// The name has to be looked up first; see [`look_up`].
    Lookup(Lookup),
    /// Not to be: the code and text of the reset.
    Refused(u16, String),
}

/// A name to look up.
#[derive(Debug)]
pub(crate) struct Lookup {
    host: String,
    port: u16,
    /// Whether a rule allows the name itself, whatever it resolves to.
    by_name: bool,
}

/// Begins to dial `target`, or says why not.
pub(crate) fn dial<N: Net>(net: &N, allow: &Allow, target: &str) -> Dialled<N> {
    let Ok(parsed) = target.parse::<Target>() else {
        return Dialled::Refused(code::UNREACHABLE, format!("{target:?} is not HOST:PORT"));
    };
    let (host, port) = (parsed.host(), parsed.port());
    let by_name = allow.by_name(host, port);
    match parsed.address() {
        Some(ip) if by_name || allow.by_address(ip, port) => connect(net, &[SocketAddr::new(ip, port)]),
        Some(_) => forbidden(target),
        None => Dialled::Lookup(Lookup { host: host.to_owned(), port, by_name }),
    }
}

/// Looks the name up once, and dials an address that the policy allows: never the name again, so that a
/// second answer cannot lead elsewhere.
pub(crate) async fn look_up<N: Net>(net: &N, allow: &Allow, lookup: Lookup) -> Dialled<N> {
    let Lookup { host, port, by_name } = lookup;
    match net.resolve(&host, port).await {
        Ok(addresses) => {
            let allowed: Vec<SocketAddr> = addresses
                .into_iter()
                .filter(|address| by_name || allow.by_address(address.ip().to_canonical(), port))
                .collect();
            if allowed.is_empty() { forbidden(&format!("{host}:{port}")) } else { connect(net, &allowed) }
        }
        Err(error) => Dialled::Refused(code::NO_SUCH_HOST, format!("{host}: {}", explain(&error))),
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
        _ => error.to_string(),
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

fn connect<N: Net>(net: &N, addresses: &[SocketAddr]) -> Dialled<N> {
    let mut why = (code::NO_SUCH_HOST, "no address".to_owned());
    // Only an address of a family that this host has can be begun at all.
    for address in prefer_v4(addresses) {
        match net.connect(&TcpConfig::default(), address) {
            Ok(stream) => return Dialled::Begun(stream),
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

fn forbidden<N: Net>(target: &str) -> Dialled<N> {
    let text = format!("{target} is not among the targets that this node allows (-allow)");
    Dialled::Refused(code::NOT_ALLOWED, text)
}
