//! How many STUN answers a network may have when the server has more to do than it should.
//!
//! Whoever forges source addresses can make a server write to them. The answers are small, so that is worth
//! little; but a server that is flooded should not write to any one network without end. While it is not
//! busy, nobody is limited and nothing is counted but the sum: a site with a thousand nodes behind one
//! address may restart them all at once. Loopback is never limited, since no packet with such a source
//! comes from outside.
//!
//! A network (IPv4 /24, IPv6 /56) has a token bucket in a table of fixed size, found by a keyed hash: there
//! is nothing to grow and nothing to evict. Networks that share a bucket share its tokens, and who they are
//! nobody outside can know. A flood from everywhere spreads over all buckets and exhausts none.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The limits of one socket.
pub struct Limiter {
    secret: [u8; 16],
    buckets: Box<[Bucket]>,
    window: Option<Instant>,
    /// Requests in this window.
    count: u32,
    /// Whether the window before was full.
    was_busy: bool,
}

/// A token bucket.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In answers.
    tokens: f32,
    /// When they were counted; none is never.
    at: Option<Instant>,
}

impl Limiter {
    /// `secret` is 16 random bytes.
    pub fn new(secret: [u8; 16]) -> Self {
        let full = Bucket { tokens: BURST, at: None };
        Self { secret, buckets: vec![full; BUCKETS].into(), window: None, count: 0, was_busy: false }
    }

    /// Whether a request from `source` may be answered. Every request has to be asked for, since their
    /// number says whether the server is busy.
    pub fn admit(&mut self, now: Instant, source: IpAddr) -> bool {
        let source = source.to_canonical();
        if source.is_loopback() {
            return true;
        }
        self.count(now);
        if !self.is_busy() {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        (self.secret, network(source)).hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % BUCKETS as u64).unwrap_or(0);
        self.buckets.get_mut(index).is_some_and(|bucket| bucket.take(now))
    }

    /// Whether more requests come in than the server should have to answer.
    pub fn is_busy(&self) -> bool {
        self.was_busy || self.count > BUSY
    }

    fn count(&mut self, now: Instant) {
        let start = *self.window.get_or_insert(now);
        let passed = now.saturating_duration_since(start);
        if passed >= WINDOW {
            // After a pause the window before was an empty one.
            self.was_busy = self.count > BUSY && passed < WINDOW * 2;
            self.count = 0;
            self.window = Some(now);
        }
        self.count = self.count.saturating_add(1);
    }
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        if let Some(at) = self.at {
            let earned = now.saturating_duration_since(at).as_secs_f32() * RATE;
            self.tokens = (self.tokens + earned).min(BURST);
        }
        self.at = Some(now);
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

/// The network that an address is counted under.
fn network(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip) >> 8),
        // No IPv4 network gets here: those have 24 bits, these begin with a bit that none of them has.
        IpAddr::V6(ip) => (u128::from(ip) >> 72) | (1 << 127),
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("busy", &self.is_busy()).finish_non_exhaustive()
    }
}

/// Over which time requests are counted: short enough to feel a flood before it has done much.
const WINDOW: Duration = Duration::from_millis(100);
/// More requests than this in one window, and the socket is busy: 10,000 a second. 20,000 nodes that keep
/// their mappings alive make 1,000; a restart of the server brings them all back within ten seconds.
const BUSY: u32 = 1_000;
/// Answers a second that a network has while the socket is busy: a prober's few, for many nodes.
const RATE: f32 = 50.0;
/// How many it may have at once.
const BURST: f32 = 200.0;
/// Buckets: 400 KiB a socket. A flood of 100,000 forged sources a second takes 6 tokens a second from each.
const BUCKETS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant")]
    fn start() -> Instant {
        Instant::now()
    }

    fn source(a: u8, b: u8, c: u8) -> IpAddr {
        IpAddr::from([a, b, c, 7])
    }

    /// Makes the limiter busy from one network, for a second.
    fn flood(limiter: &mut Limiter, now: Instant) -> u32 {
        let admitted = (0..20_u32).map(|window| {
            let at = now + WINDOW * window / 2;
            (0..5_000).filter(|_| limiter.admit(at, source(203, 0, 113))).count()
        });
        u32::try_from(admitted.sum::<usize>()).unwrap()
    }

    #[test]
    fn a_server_at_ease_limits_nobody() {
        let mut limiter = Limiter::new([1; 16]);
        let now = start();
        for window in 0..50 {
            let at = now + WINDOW * window;
            assert!((0..BUSY).all(|_| limiter.admit(at, source(203, 0, 113))));
        }
        assert!(!limiter.is_busy());
    }

    #[test]
    fn a_flooding_network_gets_its_share_and_others_theirs() {
        let mut limiter = Limiter::new([1; 16]);
        let now = start();
        let admitted = flood(&mut limiter, now);
        assert!(admitted <= BUSY * 2 + 200 + 50, "{admitted}");
        assert!(limiter.is_busy());
        let then = now + Duration::from_secs(1);
        let others = (0..200).filter(|host| limiter.admit(then, source(198, 51, *host)));
        assert!(others.count() >= 195, "a few may share a bucket");
        assert!(limiter.admit(then, "2001:db8::1".parse().unwrap()));
        assert!((0..10_000).all(|_| limiter.admit(then, "127.0.0.1".parse().unwrap())), "loopback is ours");
    }

    #[test]
    fn a_flood_from_everywhere_exhausts_nobodys_tokens() {
        let mut limiter = Limiter::new([1; 16]);
        let now = start();
        let mut number = 0_u32;
        for window in 0..20 {
            for _ in 0..10_000 {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                limiter.admit(now + WINDOW * window, IpAddr::from(number.to_be_bytes()));
            }
        }
        assert!(limiter.is_busy());
        assert!(limiter.admit(now + WINDOW * 20, source(198, 51, 100)));
    }

    #[test]
    fn it_is_over_when_the_flood_is() {
        let mut limiter = Limiter::new([1; 16]);
        let now = start();
        flood(&mut limiter, now);
        let later = now + Duration::from_secs(3);
        assert!(limiter.admit(later, source(203, 0, 113)));
        assert!(!limiter.is_busy());
    }

    #[test]
    fn ipv6_networks_are_counted_as_sites() {
        let ip = |text: &str| network(text.parse::<IpAddr>().unwrap());
        assert_eq!(ip("2001:db8:0:0ff::1"), ip("2001:db8:0:000:ffff::2"));
        assert_ne!(ip("2001:db8:0:0100::1"), ip("2001:db8::1"));
        assert_eq!(ip("192.0.2.1"), ip("192.0.2.255"));
        assert_ne!(ip("192.0.2.1"), ip("192.0.3.1"));
    }
}
