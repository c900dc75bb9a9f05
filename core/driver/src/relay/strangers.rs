//! How many connections may be there that have not proven anything, in all and from one network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<BTreeMap<IpAddr, usize>>);

/// One stranger's place; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Stranger {
    all: Arc<Strangers>,
    network: IpAddr,
}

impl Strangers {
    /// A place for a connection from `address`; none if there are too many.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let network = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= STRANGERS {
            return None;
        }
        let count = counts.entry(network).or_default();
        if *count >= STRANGERS_PER_NETWORK {
            return None;
        }
        *count += 1;
        Some(Stranger { all: Arc::clone(self), network })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// What one subscriber is given: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// All of them: deadlines free 25 a second and more, and each costs a descriptor and 2 KiB.
const STRANGERS: usize = 256;
/// Those of one network: many nodes may sit behind one address, and none of them shuts the others out.
const STRANGERS_PER_NETWORK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_take_all_places() {
        let strangers = Arc::new(Strangers::default());
        let near: IpAddr = "2001:db8::1".parse().unwrap();
        let held: Vec<_> = (0..STRANGERS_PER_NETWORK).map(|_| strangers.admit(near).unwrap()).collect();
        assert!(strangers.admit("2001:db8::2".parse().unwrap()).is_none());
        let others: Vec<_> =
            (0..=u8::MAX).filter_map(|n| strangers.admit(IpAddr::from([192, 0, 2, n]))).collect();
        assert_eq!(held.len() + others.len(), STRANGERS);
        drop((held, others));
        assert!(strangers.admit(near).is_some());
        assert!(strangers.0.lock().unwrap().is_empty());
    }
}
