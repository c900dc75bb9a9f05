//! How a pair of nodes is punched over UDP: decided once, from what both are behind.
//!
//! Both sides decide by the same rules, each from its own point of view, and need not agree to the bit: what
//! one does is of use whenever the other does what the table says.
//!
//! | this side | the peer | what is done |
//! |---|---|---|
//! | one mapping for all | one mapping for all | *plain*: both send to the other's public address |
//! | one mapping, any filter but by port | a mapping a peer | plain: its probe arrives, and is answered where it came from |
//! | one mapping, filter by port or not known yet | a mapping a peer, regular ports | *predicted*: the peer opens a row of sockets, whose ports this side can tell |
//! | one mapping, filter by port | a mapping a peer, random ports | *guessed*: the peer opens many sockets, this side tries many ports (the birthday paradox) |
//! | a mapping a peer, regular ports | the same | predicted on both sides |
//! | a mapping a peer, random ports | a mapping a peer | nothing: no port can be told |
//! | not known | any | plain; if that does not help, guessed, as if the unknown one had a mapping a peer |
//! | blocked | any | nothing |
//!
//! What is predicted or guessed can be left out ([`Effort`]), where the own NAT's table has no room for more.
//!
//! The words are RFC 4787's: mapping (section 4.1), filtering (section 5). "Filter by port" is address- and
//! port-dependent filtering.
//!
//! # Openers
//!
//! Some NATs take an unasked-for packet badly. Linux's, where its own firewall lets packets to itself in,
//! notes the sender and port as in use, and when the node behind it then sends to that sender, gives *another*
//! port than the one that the peer was told. So the first packets to such a NAT have to come after those
//! that leave it; unless this side lets all ports of the peer in, and so hears it from whichever it is. Two
//! things see to that. They begin as *openers*, with a time to live that gets them through this side's NATs
//! and no further ([`OPENERS`]). And of the two sides the controlled one sends whole probes first; the
//! controlling one waits until it hears one, or for `HOLD_CONTROLLING`, which costs no time: it is the one
//! that goes on by a handshake when it hears something. (Not if its own port depends on the peer, who cannot write first
//! then.) One side may still hear of the attempt too late for that.
//! So if nothing is heard in half a second, both try a second socket each, at ports that both can tell. These are other
//! ones in each attempt, because what was taken stays so for half a minute. A NAT that gave a socket another port for one
//! peer gives it that port for all that it begins from then on, so the second socket's probes may find nobody either.
//! Hence later a third one on each side, which has to do with the other's third one alone where both keep ports.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::fan::{Fan, GAP, Ports, Sockets};
use super::ports;
use super::why::Why;
use crate::ids::AttemptId;
use crate::link::Role;
use crate::nat::{Behaviour, Dependence, NatReport};
use crate::path::{Candidate, CandidateKind, Rung, RungSet, Transport};

/// What is known of a pair when an attempt begins.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The attempt's name on both sides.
    pub attempt: AttemptId,
    /// What this node is behind.
    pub own: &'a NatReport,
    /// What the peer is behind.
    pub peer: &'a NatReport,
    /// This node's part.
    pub role: Role,
    /// Where the peer may be, as the server told: reflexive ones have been proven to it.
    pub candidates: &'a [Candidate],
    /// The rungs that both sides may use.
    pub rungs: RungSet,
    /// How much may be guessed.
    pub effort: Effort,
}

/// How many ports may be guessed or predicted in an attempt. What leaves for each stays in the own NAT's table for
/// as long as mappings live, and a NAT has room for so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// None: the peer is looked for where it was seen.
    Plain,
    /// One round of guessing.
    Once,
    /// Both rounds.
    Full,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where probes go from the node's own port.
    pub targets: Vec<Target>,
    /// What is sent beyond that, in this order.
    pub fans: Vec<Fan>,
    /// Whether a handshake may begin at an address where the server saw the peer, before anything was heard of it
    /// there. Where that address cannot be the one, its first packets would be in vain, and those that follow, once
    /// the peer is found, far apart.
    pub knocks: bool,
    /// For how long only openers leave towards the peer's NAT; zero if it takes no harm.
    pub hold: Duration,
    /// When it has been tried long enough.
    pub length: Duration,
    /// What that amounts to.
    pub way: Way,
    /// Whether more would be done with more effort.
    pub is_spared: bool,
}

/// One address of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// How it is known.
    pub trust: Trust,
}

/// How an address is known to be the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// The server saw the peer there.
    Observed,
    /// The peer says so. Such an address gets few probes.
    Claimed,
}

/// The method, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Probes to the peer's address, until one arrives.
    Plain,
    /// The ports of a regular NAT, or of two.
    Predicted,
    /// This side opens many ports, and the peer tries to hit one.
    GuessedByPeer,
    /// The peer opens many ports, and this side tries to hit one.
    Guessed,
    /// Nothing, and why.
    Hopeless(Why),
}

impl Plan {
    /// Decides.
    pub fn new(situation: &Situation<'_>) -> Self {
        let mut plan = Self {
            targets: Vec::new(),
            fans: Vec::new(),
            knocks: true,
            hold: Duration::ZERO,
            length: PLAIN,
            way: Way::Plain,
            is_spared: false,
        };
        plan.way = plan.punching(situation);
        plan.add_hosts(situation);
        plan
    }

    /// How many entries of the own NAT's table it may take up by guessing and predicting.
    pub fn entries(&self) -> u32 {
        let many = self.fans.iter().map(Fan::pairs).filter(|pairs| *pairs > 1);
        many.fold(0, u32::saturating_add)
    }

    /// Why neither side needs to begin, if so. Where only the peer's addresses are missing, the peer may still
    /// reach this side; and UDP that was blocked when it was measured may pass by now.
    pub fn nothing_to_do(&self) -> Option<Why> {
        match self.way {
            Way::Hopeless(why @ (Why::BothSymmetric | Why::NotAmongRungs)) if self.targets.is_empty() => {
                Some(why)
            }
            Way::Hopeless(_) | Way::Plain | Way::Predicted | Way::Guessed | Way::GuessedByPeer => None,
        }
    }

    /// Punching proper: reflexive addresses. Ports are guessed for IPv4 alone; IPv6 keeps its own.
    fn punching(&mut self, situation: &Situation<'_>) -> Way {
        if !situation.rungs.contains(Rung::UdpPunch) {
            // Where this side can be reached directly, it waits for the peer to begin.
            let direct = situation.rungs.contains(Rung::UdpDirect);
            return if direct { Way::Plain } else { Way::Hopeless(Why::NotAmongRungs) };
        }
        let (v6, v4): (Vec<_>, Vec<_>) =
            reflexive(situation.candidates, Transport::Udp).partition(SocketAddr::is_ipv6);
        for address in v6.iter().copied().take(MAX_OBSERVED) {
            let blocked = [situation.own, situation.peer].map(|report| report.udp6);
            if !blocked.into_iter().flatten().any(|side| side.blocked) {
                self.targets.push(Target { address, trust: Trust::Observed });
            }
        }
        let own = situation.own.udp4.unwrap_or_default();
        let peer = situation.peer.udp4.unwrap_or_default();
        let way = match v4.first() {
            _ if own.blocked => Way::Hopeless(Why::OwnUdpBlocked),
            _ if peer.blocked => Way::Hopeless(Why::PeerUdpBlocked),
            None => Way::Hopeless(Why::NoAddress),
            Some(public) => self.pair(&own, &peer, *public, situation),
        };
        let way = self.spare(way, situation.effort);
        // A filter that is not known may let in what is predicted to no purpose.
        let open =
            |side: &Behaviour| Mapping::of(side) == Mapping::One && side.filtering.is == Dependence::Unknown;
        let plain = match way {
            Way::Plain | Way::GuessedByPeer | Way::Guessed => true,
            Way::Predicted => open(&own) || open(&peer),
            Way::Hopeless(_) => false,
        };
        if plain {
            let observed = v4.iter().take(MAX_OBSERVED);
            self.targets.extend(observed.map(|&address| Target { address, trust: Trust::Observed }));
        }
        match way {
            // What IPv6 has is enough to go on.
            Way::Hopeless(_) if !self.targets.is_empty() => Way::Plain,
            way => way,
        }
    }

    /// Leaves out what is more than may be done, and says so.
    fn spare(&mut self, way: Way, effort: Effort) -> Way {
        match effort {
            Effort::Full => way,
            Effort::Once => {
                self.is_spared = self.fans.iter().any(|fan| fan.is_guess);
                way
            }
            Effort::Plain => {
                let before = self.fans.len();
                self.fans.retain(|fan| !fan.is_guess && fan.pairs() == 1);
                self.is_spared = self.fans.len() < before;
                if !self.is_spared {
                    return way;
                }
                self.length = PLAIN;
                Way::Plain
            }
        }
    }

    /// The table above, for the peer seen at `public`.
    fn pair(
        &mut self,
        own: &Behaviour,
        peer: &Behaviour,
        public: SocketAddr,
        situation: &Situation<'_>,
    ) -> Way {
        let Situation { role, attempt, effort, .. } = *situation;
        // Whom all ports of the peer may write to is found from whatever port the peer then has.
        let harmed = is_harmed(peer) && !is_unfiltered(own);
        let harmed_here = is_harmed(own) && !is_unfiltered(peer);
        let guess = |plan: &mut Self, after, part| {
            let is_hitter_harmed = if part == Part::Open { harmed } else { harmed_here };
            plan.guess((after, effort), part, public, is_hitter_harmed)
        };
        // Where the peer's ports go on from, if they go in steps.
        let from = SocketAddr::new(public.ip(), peer.latest_port.unwrap_or(public.port()));
        let by_peer = |side: &Behaviour| matches!(Mapping::of(side), Mapping::Own | Mapping::Regular(_));
        self.hold = match (harmed, role) {
            (false, _) => Duration::ZERO,
            // Nobody writes first to a port that only shows by what leaves it.
            (true, Role::Controlling) if !by_peer(own) => HOLD_CONTROLLING,
            (true, Role::Controlled | Role::Controlling) => HOLD_CONTROLLED,
        };
        // A filter that is not known yet is by port more often than not.
        let shut = by_peer(own) && !is_unfiltered(peer);
        self.knocks = !(harmed || by_peer(peer) || shut);
        match (Mapping::of(own), Mapping::of(peer)) {
            (Mapping::One, Mapping::One) => {
                if harmed || harmed_here {
                    self.begin_anew(own, peer, public, attempt);
                }
                Way::Plain
            }
            // A filter that is not known yet may be by port; a prediction costs little.
            (Mapping::Regular(_), Mapping::One) if !is_unfiltered(peer) => {
                self.fans.extend(row(Duration::ZERO, [public].into(), harmed));
                guess(self, LATE_GUESS, Part::Open)
            }
            (Mapping::One, Mapping::Regular(step)) if !is_unfiltered(own) => {
                let ports = PREDICTED_AHEAD.map(|ahead| ports::ahead(from, step, ahead));
                self.fans.push(Fan {
                    // The peer's row of sockets comes first, as far as this side can see to it.
                    after: PREDICT_DELAY,
                    sockets: Sockets::Main,
                    ports: Ports::Given(ports.into()),
                    passes: 6,
                    pause: Duration::from_millis(200),
                    openers: 0,
                    is_guess: false,
                });
                guess(self, LATE_GUESS, Part::Hit)
            }
            (Mapping::Regular(_), Mapping::Regular(step)) => {
                for (round, ahead) in (0..).zip(BOTH_AHEAD) {
                    let target = ports::ahead(from, step, ahead);
                    self.fans.extend(row(BOTH_ROUND * round, [target].into(), false));
                }
                Way::Predicted
            }
            (Mapping::Own | Mapping::Regular(_), Mapping::One) if is_by_port(peer) => {
                guess(self, Duration::ZERO, Part::Open)
            }
            (Mapping::One, Mapping::Own | Mapping::Regular(_)) if is_by_port(own) => {
                guess(self, Duration::ZERO, Part::Hit)
            }
            // The filter is not known to be by port: a probe from the many-ported side will tell.
            (Mapping::Own | Mapping::Regular(_), Mapping::One) if is_unfiltered(peer) => Way::Plain,
            (Mapping::One, Mapping::Own | Mapping::Regular(_)) if is_unfiltered(own) => Way::Plain,
            (Mapping::Own | Mapping::Regular(_), Mapping::One | Mapping::Unknown) => {
                guess(self, EVIDENCE, Part::Open)
            }
            (Mapping::One | Mapping::Unknown, Mapping::Own | Mapping::Regular(_)) => {
                guess(self, EVIDENCE, Part::Hit)
            }
            (Mapping::Unknown, Mapping::One) => guess(self, EVIDENCE, Part::Open),
            (Mapping::One, Mapping::Unknown) => guess(self, EVIDENCE, Part::Hit),
            (Mapping::Unknown, Mapping::Unknown) => {
                // One of the two may have many ports, and there is no telling which.
                let part = if role == Role::Controlled { Part::Open } else { Part::Hit };
                guess(self, EVIDENCE, part)
            }
            (Mapping::Own, Mapping::Own | Mapping::Regular(_)) | (Mapping::Regular(_), Mapping::Own) => {
                // A filter that lets everybody in, met by one that does not ask for the port.
                let open = |a: &Behaviour, b: &Behaviour| {
                    a.filtering.is == Dependence::EndpointIndependent && is_unfiltered(b)
                };
                if open(own, peer) || open(peer, own) {
                    Way::Plain
                } else {
                    Way::Hopeless(Why::BothSymmetric)
                }
            }
        }
    }

    /// For a pair of which a NAT may have taken harm, by a probe that came before the peer had heard of the attempt:
    /// each side opens a second socket, at a port that both can tell, and sends to the other's from its first one.
    /// Openers leave by it before. Then the same again with a third socket and longer pauses, and from that one where
    /// both have one.
    fn begin_anew(&mut self, own: &Behaviour, peer: &Behaviour, public: SocketAddr, attempt: AttemptId) {
        let Some(seen) = own.public else { return };
        let fan = |after, sockets, to, (passes, openers), pause| Fan {
            after,
            sockets,
            ports: Ports::Given(vec![to]),
            passes,
            pause,
            openers,
            is_guess: false,
        };
        for (turn, (after, pause, whole)) in (0..).zip(ANEW) {
            let spare = |side: SocketAddr, other: SocketAddr| {
                SocketAddr::new(side.ip(), ports::spare(side.port(), other.port(), attempt, turn))
            };
            let (here, there) = (Sockets::At(spare(seen, public).port()), spare(public, seen));
            if turn > 0 && own.preserves_port && peer.preserves_port {
                self.fans.push(fan(after, here, there, (ANEW_OPENERS + whole, ANEW_OPENERS), pause));
                continue;
            }
            if own.preserves_port {
                self.fans.push(fan(after, here, public, (ANEW_OPENERS, ANEW_OPENERS), pause));
            }
            if peer.preserves_port {
                self.fans.push(fan(after + pause * ANEW_OPENERS, Sockets::Main, there, (whole, 0), pause));
            }
        }
    }

    /// The rounds of a guess, after what comes before. `harmed`: the NAT of the side that tries the ports may be.
    fn guess(
        &mut self,
        (after, effort): (Duration, Effort),
        part: Part,
        public: SocketAddr,
        harmed: bool,
    ) -> Way {
        let predicted = !self.fans.is_empty();
        let fan = |after, sockets, ports, openers| Fan {
            after,
            sockets,
            ports,
            passes: 1,
            pause: Duration::ZERO,
            openers,
            is_guess: true,
        };
        let to_public = || Ports::Given(vec![public]);
        let mut end = after;
        let mut opened = if predicted { ROW } else { 0 };
        let rounds = if effort == Effort::Once { 1 } else { GUESS_ROUNDS.len() };
        for (round, (sockets, probes)) in GUESS_ROUNDS.into_iter().take(rounds).enumerate() {
            self.fans.push(match part {
                Part::Open => fan(end, Sockets::New(sockets), to_public(), u32::from(harmed)),
                Part::Hit => fan(end, Sockets::Main, Ports::Random(public.ip(), probes), 0),
            });
            end += if round == 0 { FIRST_GUESS } else { GAP * probes };
            opened += sockets;
        }
        if harmed {
            // Where openers do not pass this side's NATs, nothing has reached the peer yet. All ports have been tried by
            // then, so what arrives takes none from it any more.
            end += GUESS_SLACK;
            if part == Part::Open {
                self.fans.push(fan(end, Sockets::Opened, to_public(), 0));
            }
            end += GAP * u32::from(opened);
        }
        // As long on both sides, whichever has less to send.
        self.length = end + LAST_WAIT;
        match part {
            _ if predicted => Way::Predicted,
            Part::Open => Way::GuessedByPeer,
            Part::Hit => Way::Guessed,
        }
    }

    /// The addresses of the peer's interfaces: QUIC's own handshake tries those, but from one side only, and
    /// a firewall before this side opens by what leaves it.
    fn add_hosts(&mut self, situation: &Situation<'_>) {
        if !situation.rungs.contains(Rung::UdpDirect) {
            return;
        }
        let observed: Vec<IpAddr> =
            reflexive(situation.candidates, Transport::Udp).map(|address| address.ip()).collect();
        let hosts = addresses(situation.candidates, Transport::Udp, |one| one.kind == CandidateKind::Host);
        let (mut seen, mut claimed) = (0, 0);
        for address in hosts {
            let (trust, count, most) = if observed.contains(&address.ip()) {
                (Trust::Observed, &mut seen, MAX_OBSERVED)
            } else {
                (Trust::Claimed, &mut claimed, MAX_CLAIMED)
            };
            if *count < most && self.targets.iter().all(|target| target.address != address) {
                *count += 1;
                self.targets.push(Target { address, trust });
            }
        }
    }
}

/// What is behind a NAT's choice of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapping {
    /// The same port for all: the public address that is known is the one.
    One,
    /// A port a peer, by this step.
    Regular(i32),
    /// A port a peer, any.
    Own,
    Unknown,
}

impl Mapping {
    pub(super) fn of(side: &Behaviour) -> Self {
        match (side.mapping.is, side.port_step) {
            (Dependence::EndpointIndependent, _) => Self::One,
            (Dependence::AddressDependent | Dependence::AddressAndPortDependent, Some(step)) if step != 0 => {
                Self::Regular(step)
            }
            (Dependence::AddressDependent | Dependence::AddressAndPortDependent, _) => Self::Own,
            (Dependence::Unknown, _) => Self::Unknown,
        }
    }
}

/// What one does in a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Open,
    Hit,
}

/// Whether a filter asks for the port that was written to.
fn is_by_port(side: &Behaviour) -> bool {
    side.filtering.is == Dependence::AddressAndPortDependent
}

fn is_unfiltered(side: &Behaviour) -> bool {
    matches!(side.filtering.is, Dependence::EndpointIndependent | Dependence::AddressDependent)
}

/// Whether a packet that comes too early may cost the peer its port: see the module's text. A NAT that does
/// not keep the inside port, or lets everything in, is no such one.
fn is_harmed(side: &Behaviour) -> bool {
    let unknown = side.mapping.is == Dependence::Unknown;
    let keeps = side.mapping.is == Dependence::EndpointIndependent && side.preserves_port;
    side.translated != Some(false) && !is_unfiltered(side) && (unknown || keeps)
}

/// A row of sockets that send to `ports`, so that some of their mappings have ports that the peer can tell.
fn row(after: Duration, ports: Vec<SocketAddr>, harmed: bool) -> Option<Fan> {
    Some(Fan {
        after,
        sockets: Sockets::New(ROW),
        ports: Ports::Given(ports),
        passes: 4,
        pause: Duration::ZERO,
        // The peer begins after the first pass, and its probes get in by it. The last one is for a carrier's NAT
        // behind this side's, which openers do not pass.
        openers: if harmed { 3 } else { 0 },
        is_guess: false,
    })
}

/// The peer's addresses as the server saw them, each once.
fn reflexive(candidates: &[Candidate], transport: Transport) -> impl Iterator<Item = SocketAddr> {
    addresses(candidates, transport, |candidate| candidate.kind != CandidateKind::Host)
}

/// The addresses of those candidates that are wanted.
pub(super) fn addresses(
    candidates: &[Candidate],
    transport: Transport,
    wanted: impl Fn(&Candidate) -> bool,
) -> impl Iterator<Item = SocketAddr> {
    candidates
        .iter()
        .filter(move |candidate| candidate.transport == transport && wanted(candidate))
        .map(|candidate| SocketAddr::new(candidate.address.ip().to_canonical(), candidate.address.port()))
        .filter(|address| is_host(*address))
}

/// Addresses that one peer can be at, whatever it claims.
fn is_host(address: SocketAddr) -> bool {
    address.port() != 0
        && match address.ip() {
            IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
            // Link-local IPv6 addresses mean nothing without an interface.
            IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()),
        }
}

/// Openers' times to live, and when they leave. A home router is one hop away, a carrier's NAT behind it two
/// or three. More would reach the peer's NAT where few routers are between.
pub const OPENERS: [(Duration, u8); 2] = [(Duration::ZERO, 2), (Duration::from_millis(10), 3)];
/// The controlled side's first whole probe: the server tells both sides at once, and by the time that it
/// arrives the other one's opener has left, unless its news took so much longer than this one's.
const HOLD_CONTROLLED: Duration = Duration::from_millis(20);
/// The controlling side waits to be written to, but not for ever: two of the other's probes may be lost.
const HOLD_CONTROLLING: Duration = Duration::from_millis(250);

/// When further sockets are opened where NATs take harm: plain probes should have been heard. How long after the first
/// opener comes the second one, and so on, and how many whole probes there are. So one side may hear of the attempt half
/// a second after the other, and then 1.4 s.
const ANEW: [(Duration, Duration, u32); 2] = [
    (Duration::from_millis(500), Duration::from_millis(250), 4),
    (Duration::from_millis(1_800), Duration::from_millis(700), 3),
];
/// Openers of a further socket: one may get lost.
const ANEW_OPENERS: u32 = 2;

/// Addresses where the server saw the peer: a family has one, and another one at a change of network.
const MAX_OBSERVED: usize = 4;
/// Addresses that the peer only claims: what a liar may aim at.
const MAX_CLAIMED: usize = 8;

/// Sockets of a row. A node makes a dozen mappings for its own tests and for relays, and what else is
/// behind the same NAT makes some; they all advance the port between the report and the attempt.
const ROW: u16 = 64;
/// The ports that the side with one mapping tries, in steps after the known one. One of them lies in the
/// row if the port advanced by less than 128.
const PREDICTED_AHEAD: [i32; 12] = [16, 32, 48, 64, 4, 80, 96, 112, 128, 144, 160, 176];
const PREDICT_DELAY: Duration = Duration::from_millis(350);
/// Where both have steps each sends to one port from a row of sockets: it works if the row of each holds the
/// other's port, and nobody else took just that one. Each round takes up 64 more ports, and allows for some that
/// others took: up to 39, up to 55, and from 40 to 103.
const BOTH_AHEAD: [i32; 3] = [40, 120, 232];
/// Four passes of a row.
const BOTH_ROUND: Duration = Duration::from_millis(1_400);
/// When prediction has had its chance.
const LATE_GUESS: Duration = Duration::from_millis(2_000);
/// When plain probes would have shown that they do: three of them, and a round trip.
const EVIDENCE: Duration = Duration::from_millis(1_200);

/// Sockets that one side opens, and ports that the other tries, of 64,512: together 66 % in the first
/// round (the sockets open while the ports are tried), over 99 % with the second. The second round's
/// sockets are 512 with the first's.
const GUESS_ROUNDS: [(u16, u32); 2] = [(256, 400), (256, 800)];
/// 400 probes.
const FIRST_GUESS: Duration = Duration::from_millis(2_100);

/// How much later than this side the other may be with its guesses: its `PunchStart` may come later, and other probes
/// have to leave too.
const GUESS_SLACK: Duration = Duration::from_millis(500);

/// How long plain probing lasts.
pub const PLAIN: Duration = Duration::from_millis(5_000);
/// For the answer to the last probe, and for what was delayed because other probes had to leave too.
const LAST_WAIT: Duration = Duration::from_millis(1_500);

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
