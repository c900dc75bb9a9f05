//! What happened, as a hash over all of it and as a readable timeline of the latest part.
//!
//! The hash covers time, place, ends, size and kind of every packet, and every fault: what repeats exactly
//! when a run repeats. Payload is left out, since ciphertext differs from run to run. Timers are shown and
//! not hashed: one that fires and changes nothing is no difference in behaviour.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::panic::Location;

use crate::clock::Time;
use crate::fabric::{GatewayId, NetworkId};
use crate::host::HostId;
use crate::link::DropCause;
use crate::packet::{Kind, Packet};

/// A line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Time,
    /// Where.
    pub place: Place,
    /// What.
    pub event: Event,
}

/// Where something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a host.
    Host(HostId),
    /// In a gateway.
    Gateway(GatewayId),
    /// In a network.
    Network(NetworkId),
    /// To the world as a whole.
    World,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A host sent a packet.
    Sent(Summary),
    /// A host received a packet.
    Received(Summary),
    /// A packet ended here.
    Dropped(Summary, DropCause),
    /// A gateway gave a packet, shown as it came, another source or destination.
    Translated(Summary, SocketAddr),
    /// A fault was injected.
    Fault(String),
    /// The timer of this task went off that was set at this place of the program.
    Timer(&'static str, &'static Location<'static>),
}

/// A packet without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// What it is.
    pub kind: Kind,
    /// Bytes on the wire, headers included.
    pub size: usize,
}

impl From<&Packet> for Summary {
    fn from(packet: &Packet) -> Self {
        Self { from: packet.from, to: packet.to, kind: packet.kind(), size: packet.size() }
    }
}

#[derive(Debug)]
pub(crate) struct Log {
    hash: u64,
    events: u64,
    entries: VecDeque<Entry>,
    keep: usize,
    /// Who has sent to whom, and since when.
    contacts: BTreeMap<(HostId, IpAddr), Time>,
    /// Who has heard from whom, and since when.
    heard: BTreeMap<(HostId, IpAddr), Time>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            hash: 0,
            events: 0,
            entries: VecDeque::new(),
            keep: DEFAULT_KEPT,
            contacts: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, at: Time, place: Place, event: Event) {
        self.hash_event(at, place, &event);
        self.events += 1;
        // Every exchange begins with one of these.
        let begins = |packet: &Summary| matches!(packet.kind, Kind::Syn | Kind::Udp);
        match (place, &event) {
            (Place::Host(host), Event::Sent(packet)) if begins(packet) => {
                self.contacts.entry((host, packet.to.ip())).or_insert(at);
            }
            (Place::Host(host), Event::Received(packet)) if begins(packet) => {
                self.heard.entry((host, packet.from.ip())).or_insert(at);
            }
            _ => {}
        }
        if self.keep == 0 {
            return;
        }
        if self.entries.len() >= self.keep {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { at, place, event });
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The addresses to which a host has sent datagrams, or opened connections, and since when.
    pub(crate) fn contacts(&self, host: HostId) -> impl Iterator<Item = (IpAddr, Time)> {
        self.contacts.iter().filter(move |((from, _), _)| *from == host).map(|((_, to), at)| (*to, *at))
    }

    /// Since when a host has had datagrams or connections from an address.
    pub(crate) fn heard(&self, host: HostId, from: IpAddr) -> Option<Time> {
        self.heard.get(&(host, from)).copied()
    }

    /// How many entries are kept for the timeline: the latest ones.
    pub(crate) fn keep(&mut self, entries: usize) {
        self.keep = entries;
        let surplus = self.entries.len().saturating_sub(entries);
        self.entries.drain(..surplus);
    }

    fn hash_event(&mut self, at: Time, place: Place, event: &Event) {
        if matches!(event, Event::Timer(..)) {
            return;
        }
        self.mix(at.nanos());
        let (kind, number) = match place {
            Place::Host(host) => (0, host.0),
            Place::Gateway(gateway) => (1, gateway.0),
            Place::Network(network) => (2, network.0),
            Place::World => (3, 0),
        };
        self.mix(kind << 32 | u64::from(number));
        match event {
            Event::Sent(packet) => self.mix_packet(1, packet),
            Event::Received(packet) => self.mix_packet(2, packet),
            Event::Dropped(packet, cause) => self.mix_packet(3 | (*cause as u64) << 8, packet),
            Event::Translated(packet, address) => {
                self.mix_packet(4, packet);
                self.mix_address(*address);
            }
            Event::Fault(fault) => {
                self.mix(5);
                fault.bytes().for_each(|byte| self.mix(u64::from(byte)));
            }
            Event::Timer(..) => {}
        }
    }

    fn mix_packet(&mut self, event: u64, packet: &Summary) {
        self.mix(event << 40 | (packet.kind as u64) << 32 | packet.size as u64);
        self.mix_address(packet.from);
        self.mix_address(packet.to);
    }

    fn mix_address(&mut self, address: SocketAddr) {
        let bits = match address.ip() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let [high, low] = [bits >> 64, bits & u128::from(u64::MAX)].map(|half| half as u64);
        self.mix(high ^ u64::from(address.port()) << 48);
        self.mix(low);
    }

    /// Folds one word in: a multiplication whose two halves are joined spreads every bit over the whole.
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.hash ^ word ^ FOLD_OFFSET) * u128::from(FOLD_FACTOR);
        self.hash = (product as u64) ^ ((product >> 64) as u64);
        self.hash = self.hash.rotate_left(23);
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(packet) => write!(f, "sends    {packet}"),
            Self::Received(packet) => write!(f, "receives {packet}"),
            Self::Dropped(packet, cause) => write!(f, "drops    {packet} ({cause})"),
            Self::Translated(packet, address) => write!(f, "maps     {packet} as {address}"),
            Self::Fault(fault) => write!(f, "fault    {fault}"),
            Self::Timer(task, set) => write!(f, "timer    of {task}, set at {}:{}", set.file(), set.line()),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} {:>5} B  {} -> {}", self.kind, self.size, self.from, self.to)
    }
}

impl fmt::Display for DropCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "lost on the link",
            Self::QueueFull => "queue full",
            Self::Policed => "above the carrier's limit for UDP",
            Self::TooBig => "larger than the MTU",
            Self::Offline => "interface down or out of reach",
            Self::Partitioned => "partitioned",
            Self::HostDown => "host down",
            Self::NoRoute => "no route",
            Self::HopLimit => "hop limit",
            Self::NoSocket => "nobody listens",
            Self::ReceiverFull => "receiver full",
            Self::NoMapping => "no mapping",
            Self::Filtered => "filtered",
            Self::NoHairpin => "no hairpin",
            Self::Forbidden => "forbidden",
            Self::TableFull => "table full",
        })
    }
}

/// Enough to see what led to a failure, at about 100 bytes each.
const DEFAULT_KEPT: usize = 10_000;

/// Two odd constants with evenly spread bits, from the fractional parts of pi and of the golden ratio.
const FOLD_OFFSET: u64 = 0x243f_6a88_85a3_08d3;
const FOLD_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
