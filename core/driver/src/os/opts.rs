//! How sockets are made: family, flags and options, before anything is sent.
//!
//! An unspecified IPv6 address stands for all addresses of both families (`IPV6_V6ONLY` off); on a host
//! without IPv6 it becomes the unspecified IPv4 address. Options of a listener pass to what it accepts
//! (Linux copies them), so accepting costs no further system call.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::net::{LINK_UNSENT_BYTES, TcpConfig};

/// A TCP listener, bound and listening.
pub(super) fn listening(config: &TcpConfig) -> io::Result<Socket> {
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let socket = bound_any_family(config.local.unwrap_or(all), |domain| {
        let socket = tcp(domain, config)?;
        // Without it a restart would wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        Ok(socket)
    })?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A TCP socket that is on its way to `to`.
pub(super) fn connecting(config: &TcpConfig, to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(Domain::for_address(to), config)?;
    if let Some(local) = config.local {
        socket.bind(&local.into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => Ok(socket),
        Err(error) if in_progress(&error) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// A bound UDP socket.
pub(super) fn datagram(local: SocketAddr) -> io::Result<Socket> {
    let socket = bound_any_family(local, |domain| non_blocking(domain, Type::DGRAM, Some(Protocol::UDP)))?;
    // The kernel cuts what exceeds the system's limit (net.core.rmem_max); less is slower, not wrong.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
    Ok(socket)
}

/// How many hops datagrams to `to`'s family go.
pub(super) fn hops(socket: &Socket, to: SocketAddr) -> io::Result<u32> {
    if to.is_ipv4() { socket.ttl_v4() } else { socket.unicast_hops_v6() }
}

/// Makes datagrams to `to`'s family go so far. A dual-stack socket has a number of its own for each family.
pub(super) fn set_hops(socket: &Socket, to: SocketAddr, hops: u32) -> io::Result<()> {
    if to.is_ipv4() { socket.set_ttl_v4(hops) } else { socket.set_unicast_hops_v6(hops) }
}

/// A socket in non-blocking mode that child processes do not inherit.
pub(super) fn non_blocking(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    #[cfg(target_os = "linux")]
    {
        Socket::new(domain, kind.nonblocking(), protocol)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let socket = Socket::new(domain, kind, protocol)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// An IPv4-mapped IPv6 address as the IPv4 address that it stands for.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
    }
}

/// The canonical form of a socket's address, the unspecified one for a Unix socket.
pub(super) fn inet(address: &SockAddr) -> SocketAddr {
    address.as_socket().map_or(UNSPECIFIED, canonical)
}

/// What stands for the address of a Unix socket.
pub(super) const UNSPECIFIED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn tcp(domain: Domain, config: &TcpConfig) -> io::Result<Socket> {
    let socket = non_blocking(domain, Type::STREAM, Some(Protocol::TCP))?;
    // Frames are written whole, and small ones should leave at once.
    socket.set_tcp_nodelay(true)?;
    if config.share_port {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
    }
    if config.link {
        #[cfg(target_os = "linux")]
        {
            socket.set_tcp_notsent_lowat(LINK_UNSENT_BYTES)?;
            socket.set_tcp_user_timeout(Some(LINK_USER_TIMEOUT))?;
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (LINK_UNSENT_BYTES, LINK_USER_TIMEOUT);
    }
    Ok(socket)
}

/// A socket bound to `local`, or to all IPv4 addresses if `local` means all addresses and IPv6 is missing.
fn bound_any_family(local: SocketAddr, make: impl Fn(Domain) -> io::Result<Socket>) -> io::Result<Socket> {
    match bound(local, &make) {
        Err(error) if local.is_ipv6() && local.ip().is_unspecified() && family_missing(&error) => {
            bound(SocketAddr::from((Ipv4Addr::UNSPECIFIED, local.port())), &make)
        }
        other => other,
    }
}

fn bound(local: SocketAddr, make: impl Fn(Domain) -> io::Result<Socket>) -> io::Result<Socket> {
    let socket = make(Domain::for_address(local))?;
    if local.is_ipv6() {
        // The default is the administrator's (net.ipv6.bindv6only), the meaning is ours.
        socket.set_only_v6(!local.ip().is_unspecified())?;
    }
    socket.bind(&local.into())?;
    Ok(socket)
}

/// Whether the host has no IPv6: the family is not compiled in, or switched off.
fn family_missing(error: &io::Error) -> bool {
    let missing = [Errno::AFNOSUPPORT, Errno::PROTONOSUPPORT, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| missing.contains(&errno))
}

fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || Errno::from_io_error(error) == Some(Errno::INPROGRESS)
}

/// Connections that wait to be accepted: a fifth of a second at 5,000 new ones a second, so that a busy
/// moment costs nobody a SYN retransmission (1 s).
const BACKLOG: i32 = 1024;

/// How long a link's bytes may stay unacknowledged. A peer that vanished without a reset (power, network)
/// is otherwise noticed only after the kernel's retransmissions, a quarter of an hour. The
/// link's own pings find it out sooner while anything is outstanding; this is for what they do not see.
const LINK_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Room for datagrams while the task is busy elsewhere: 2 ms at 10 Gbit/s.
const UDP_BUFFER_BYTES: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.1:80".parse().unwrap());
        let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(canonical(v6), v6);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn accepted_connections_inherit_the_options_of_their_listener() {
        let config = TcpConfig { local: Some(loopback()), link: true, ..TcpConfig::default() };
        let listener = listening(&config).unwrap();
        let to = listener.local_addr().unwrap().as_socket().unwrap();
        let _client = std::net::TcpStream::connect(to).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), LINK_UNSENT_BYTES);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(LINK_USER_TIMEOUT));
    }

    #[test]
    fn a_port_in_use_is_refused_unless_it_is_shared() {
        let config = TcpConfig { local: Some(loopback()), ..TcpConfig::default() };
        let first = listening(&config).unwrap();
        let taken = inet(&first.local_addr().unwrap());
        let again = listening(&TcpConfig { local: Some(taken), ..TcpConfig::default() });
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);

        let shared = TcpConfig { local: Some(loopback()), share_port: true, ..TcpConfig::default() };
        let first = listening(&shared).unwrap();
        let port = inet(&first.local_addr().unwrap());
        listening(&TcpConfig { local: Some(port), ..shared }).unwrap();
    }
}
