//! The cap on connections that have not proven anything yet.
//!
//! A stranger can open connections faster than deadlines end them, so their number is bounded in all and
//! for each network. A connection holds its [`Slot`] until it is gone or has logged in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many slots are taken, and by whom.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// No entry is 0, so there are at most [`MAX_WAITING`].
    by_network: BTreeMap<IpAddr, usize>,
}

/// One connection's place. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    /// None where only the sum is counted.
    network: Option<IpAddr>,
}

impl Slots {
    /// A place for a connection from `address`; none if the cap is reached. `exempt` addresses stand for
    /// many clients (proxies) or for ourselves, and count towards the sum only.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, exempt: bool) -> Option<Slot> {
        let network = (!exempt).then(|| network_of(address));
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= MAX_WAITING {
            return None;
        }
        if let Some(network) = network {
            let count = taken.by_network.entry(network).or_default();
            if *count >= MAX_WAITING_PER_NETWORK {
                return None;
            }
            *count += 1;
        }
        taken.all += 1;
        Some(Slot { slots: self.clone(), network })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        let Some(network) = self.network else { return };
        if let Some(count) = taken.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                taken.by_network.remove(&network);
            }
        }
    }
}

/// What one subscriber is given: an IPv4 address, or an IPv6 /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            std::net::Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// All connections that have not logged in. Each costs at most about 20 KiB: 80 MiB under attack. Their
/// deadlines free 400 a second and more, so a whole fleet that reconnects at once still gets through.
const MAX_WAITING: usize = 4096;
/// Those of one network: an eighth of all, so that no single one shuts the others out, and yet enough for
/// an office behind one address whose nodes all reconnect at once.
const MAX_WAITING_PER_NETWORK: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_take_all_places() {
        let slots = Arc::new(Slots::default());
        let near: IpAddr = "2001:db8::1".parse().unwrap();
        let same: IpAddr = "2001:db8::ffff".parse().unwrap();
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        let held: Vec<_> = (0..MAX_WAITING_PER_NETWORK).map(|_| slots.take(near, false).unwrap()).collect();
        assert!(slots.take(same, false).is_none());
        assert!(slots.take(other, false).is_some());
        drop(held);
        assert!(slots.take(same, false).is_some());
    }

    #[test]
    fn the_sum_is_bounded_for_exempt_addresses_too() {
        let slots = Arc::new(Slots::default());
        let proxy: IpAddr = "127.0.0.1".parse().unwrap();
        let held: Vec<_> = (0..MAX_WAITING).map(|_| slots.take(proxy, true).unwrap()).collect();
        assert!(slots.take(proxy, true).is_none());
        drop(held);
        assert!(slots.take(proxy, true).is_some());
        assert!(slots.0.lock().unwrap().by_network.is_empty());
    }
}
