//! A link: one direction of the wire between an interface and its network. It delays, loses, repeats,
//! reorders and drops.
//!
//! A link keeps the order of what passes it, jitter or not: real links do, and a receiver takes reordering
//! for loss. Packets overtake each other only by [`LinkConfig::reorder`].

use std::time::Duration;

use crate::clock::Time;
use crate::rng::Rng;

/// What a link does to packets.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    /// How long a packet travels.
    pub delay: Duration,
    /// By how much longer at most; drawn evenly for each packet.
    pub jitter: Duration,
    /// Bits a second; none for no limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for a link with a rate; what comes on top is dropped (tail drop).
    pub queue: usize,
    /// Which packets get lost.
    pub loss: Loss,
    /// The probability that a packet arrives twice.
    pub duplicate: f64,
    /// The probability that a packet is held back by up to [`Self::reorder_by`], so that later ones overtake.
    pub reorder: f64,
    /// By how much at most.
    pub reorder_by: Duration,
    /// The probability that a byte of a UDP payload is changed on the way. TCP has no such thing here: its
    /// checksum would turn it into loss.
    pub corrupt: f64,
    /// Bits of UDP a second that a carrier lets pass; what comes faster is dropped.
    pub udp_rate: Option<u64>,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// Whether a packet above the MTU is answered with ICMP "too big", or vanishes (a black hole).
    pub too_big: bool,
    /// Whether the maximum segment size that TCP connections agree on is bounded by the MTU, as routers do
    /// before tunnels and DSL lines.
    pub clamps_mss: bool,
}

/// Which packets get lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// None.
    None,
    /// Each with this probability.
    Random(f64),
    /// In bursts, by the Gilbert-Elliott model: two states, each with a probability of loss, and with each
    /// packet a probability of going over to the other one.
    Bursts {
        /// From the good state to the bad one.
        enter: f64,
        /// Back.
        leave: f64,
        /// Loss in the good state.
        good: f64,
        /// Loss in the bad state.
        bad: f64,
    },
}

impl LinkConfig {
    /// A wire in a house: 0.1 ms, no limit, no loss.
    pub fn lan() -> Self {
        Self { delay: Duration::from_micros(100), ..Self::default() }
    }

    /// The same with another delay.
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same with random loss.
    pub fn with_loss(mut self, probability: f64) -> Self {
        self.loss = Loss::Random(probability);
        self
    }

    /// The same with a rate in bits a second and a queue of that many bytes.
    pub fn with_rate(mut self, rate: u64, queue: usize) -> Self {
        self.rate = Some(rate);
        self.queue = queue;
        self
    }
}

impl Default for LinkConfig {
    /// A good access line: 10 ms, no jitter, no limit, no loss, Ethernet's MTU.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            rate: None,
            queue: 256 * 1024,
            loss: Loss::None,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            corrupt: 0.0,
            udp_rate: None,
            mtu: 1500,
            too_big: true,
            clamps_mss: false,
        }
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) config: LinkConfig,
    /// When what has been taken in will have left.
    free_at: Time,
    /// When the last packet arrives; none that keeps the order may be earlier.
    last_arrival: Time,
    /// Whether the Gilbert-Elliott model is in its bad state.
    bad: bool,
    /// The policer's bucket: bits of UDP, and when it was filled last.
    bucket: f64,
    filled_at: Time,
}

/// What becomes of a packet that is given to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    Arrives { at: Time, again: Option<Time>, corrupted: bool },
    Dropped(DropCause),
}

/// Why a packet ended before its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropCause {
    /// The link lost it.
    Loss,
    /// The link's queue was full.
    QueueFull,
    /// The carrier's limit for UDP was exceeded.
    Policed,
    /// It is larger than the link's MTU.
    TooBig,
    /// The interface is down or out of reach.
    Offline,
    /// A partition lies between the two hosts.
    Partitioned,
    /// The host that should receive it has crashed or sleeps.
    HostDown,
    /// Nobody has the destination address, or the host no longer has the source address.
    NoRoute,
    /// It went through too many gateways.
    HopLimit,
    /// Nobody listens there (for TCP a reset goes back).
    NoSocket,
    /// The socket's receive buffer, or the listener's backlog, was full.
    ReceiverFull,
    /// The gateway has no mapping for it.
    NoMapping,
    /// The gateway has a mapping, but does not let this source use it.
    Filtered,
    /// It went to the outside address of its own gateway, which does not send it back.
    NoHairpin,
    /// The gateway's rules forbid it.
    Forbidden,
    /// The gateway's table or its ports are full.
    TableFull,
}

impl Link {
    pub(crate) fn new(config: LinkConfig) -> Self {
        let zero = Time::ZERO;
        Self { config, free_at: zero, last_arrival: zero, bad: false, bucket: 0.0, filled_at: zero }
    }

    pub(crate) fn pass(
        &mut self,
        now: Time,
        size: usize,
        largest: usize,
        udp: bool,
        rng: &mut Rng,
    ) -> Passage {
        if largest > usize::from(self.config.mtu) {
            return Passage::Dropped(DropCause::TooBig);
        }
        if udp && !self.within_udp_rate(now, size) {
            return Passage::Dropped(DropCause::Policed);
        }
        if self.backlog(now) > 0 && self.backlog(now) + size > self.config.queue {
            return Passage::Dropped(DropCause::QueueFull);
        }
        if self.loses(rng) {
            return Passage::Dropped(DropCause::Loss);
        }
        if let Some(rate) = self.config.rate {
            self.free_at = self.free_at.max(now) + transmission(size, rate);
        }
        let mut at = self.free_at.max(now) + self.config.delay + rng.up_to(self.config.jitter);
        if rng.chance(self.config.reorder) {
            at = at + rng.up_to(self.config.reorder_by);
        } else {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        let again = rng.chance(self.config.duplicate).then(|| at + rng.up_to(self.config.reorder_by));
        Passage::Arrives { at, again, corrupted: udp && rng.chance(self.config.corrupt) }
    }

    /// Bytes that wait for the link.
    pub(crate) fn backlog(&self, now: Time) -> usize {
        let Some(rate) = self.config.rate else { return 0 };
        let bits = (self.free_at - now).as_nanos() * u128::from(rate) / 1_000_000_000;
        usize::try_from(bits / 8).unwrap_or(usize::MAX)
    }

    /// When no more than `bytes` will wait for the link.
    pub(crate) fn drained_at(&self, now: Time, bytes: usize) -> Time {
        let Some(rate) = self.config.rate else { return now };
        let wait = (self.free_at - now).saturating_sub(transmission(bytes, rate));
        now + wait
    }

    fn loses(&mut self, rng: &mut Rng) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::Random(probability) => rng.chance(probability),
            Loss::Bursts { enter, leave, good, bad } => {
                if rng.chance(if self.bad { leave } else { enter }) {
                    self.bad = !self.bad;
                }
                rng.chance(if self.bad { bad } else { good })
            }
        }
    }

    fn within_udp_rate(&mut self, now: Time, size: usize) -> bool {
        let Some(rate) = self.config.udp_rate else { return true };
        #[expect(clippy::cast_precision_loss, reason = "rates and sizes are far below 2^52")]
        let (rate, bits) = (rate as f64, size as f64 * 8.0);
        let filled = self.bucket + (now - self.filled_at).as_secs_f64() * rate;
        let depth = rate * POLICER_DEPTH.as_secs_f64();
        // The very first packet meets a full bucket.
        self.bucket = if self.filled_at == Time::ZERO { depth } else { filled.min(depth) };
        self.filled_at = now.max(Time::ZERO + Duration::from_nanos(1));
        if self.bucket < bits {
            return false;
        }
        self.bucket -= bits;
        true
    }
}

fn transmission(size: usize, rate: u64) -> Duration {
    let nanos = size as u128 * 8 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How long a burst a policer lets pass, in time at its rate: carriers' buckets hold some tens of milliseconds.
const POLICER_DEPTH: Duration = Duration::from_millis(50);
