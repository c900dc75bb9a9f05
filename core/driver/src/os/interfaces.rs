//! The addresses of this host.

use std::io;

use if_addrs::IfAddr;

use crate::net::Interface;

/// All addresses of the interfaces that are up, loopback and link-local ones included.
pub(super) fn up() -> io::Result<Vec<Interface>> {
    let mut addresses: Vec<_> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter(if_addrs::Interface::is_oper_up)
        .map(|interface| Interface {
            address: interface.ip(),
            prefix: match &interface.addr {
                IfAddr::V4(v4) => v4.prefixlen,
                IfAddr::V6(v6) => v6.prefixlen,
            },
            name: interface.name,
        })
        .collect();
    // The kernel's order is by chance; a sorted list can be compared with the one before.
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn loopback_is_among_them() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let all = super::up().unwrap();
        assert!(all.iter().any(|interface| interface.address == loopback && interface.prefix == 8));
    }
}
