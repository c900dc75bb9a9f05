//! The arithmetic of ports: those that a NAT gives out, ahead of a known one or in a random order.

use std::net::SocketAddr;

use crate::ids::AttemptId;
use crate::rng::Rng;

/// The lowest port that NATs give out (RFC 4787 REQ-3: none of the well-known ones).
const FIRST: u16 = 1024;
/// How many there are from there on: 2^10 · 3^2 · 7.
pub(super) const COUNT: u32 = 64_512;
/// The lowest port of a second socket, and how many there are: up to 32,767, where Linux's own begin.
const SPARE: u16 = 16_384;

/// The address whose port is `count` steps of `step` after that of `known`, around the end of the ports.
pub(super) fn ahead(known: SocketAddr, step: i32, count: i32) -> SocketAddr {
    let offset = i64::from(known.port()) - i64::from(FIRST) + i64::from(step) * i64::from(count);
    SocketAddr::new(known.ip(), port(offset))
}

/// The port of a side's further socket, which both sides can tell, if its NAT keeps ports: by where the server saw the
/// side, and the other one, by the attempt, and by which socket it is. No two of an attempt are the same. It is below
/// those that systems give out by themselves, so it is rarely in use.
pub(super) fn spare(side: u16, other: u16, attempt: AttemptId, turn: u16) -> u16 {
    let salt = u16::from_be_bytes([attempt.0[0], attempt.0[1]]).wrapping_add(turn);
    SPARE + (side.wrapping_mul(31) ^ other.wrapping_mul(17) ^ salt) % SPARE
}

fn port(offset: i64) -> u16 {
    let within = offset.rem_euclid(i64::from(COUNT));
    u16::try_from(within).unwrap_or_default().saturating_add(FIRST)
}

/// All ports in an order that nobody foresees, none twice: `factor` shares no divisor with [`COUNT`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Shuffled {
    factor: u32,
    start: u32,
    next: u32,
}

impl Shuffled {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut draw = || u32::try_from(rng.below(COUNT.into())).unwrap_or_default();
        let start = draw();
        // Three eighths of the numbers will do, so some of the next ten thousand does.
        let factor = (draw()..).take(10_000).find(|factor| factor % 2 * (factor % 3) * (factor % 7) != 0);
        Self { factor: factor.unwrap_or(1), start, next: 0 }
    }
}

impl Iterator for Shuffled {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.next == COUNT {
            return None;
        }
        let offset = i64::from(self.start) + i64::from(self.factor) * i64::from(self.next);
        self.next += 1;
        Some(port(offset))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_shuffled_ports_are_all_of_them_once() {
        for seed in 0..8 {
            let ports = Shuffled::new(&mut Rng::new([seed; 32]));
            let set: BTreeSet<u16> = ports.collect();
            assert_eq!(set.len(), COUNT as usize);
            assert_eq!(set.first(), Some(&FIRST));
        }
    }

    #[test]
    fn further_sockets_have_ports_of_their_own_in_each_attempt() {
        let of = |attempt: u8, turn| spare(40_000, 50_000, AttemptId([attempt; 16]), turn);
        let ports: BTreeSet<u16> = [of(1, 0), of(1, 1), of(2, 0), of(2, 1)].into();
        assert_eq!(ports.len(), 4);
        assert!(ports.iter().all(|port| (SPARE..2 * SPARE).contains(port)));
    }

    #[test]
    fn ports_ahead_wrap_at_both_ends() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        assert_eq!(ahead(at(5000), 2, 3), at(5006));
        assert_eq!(ahead(at(65_535), 1, 1), at(1024));
        assert_eq!(ahead(at(1024), -1, 1), at(65_535));
        assert_eq!(ahead(at(80), 1, 0), at(64_592));
    }
}
