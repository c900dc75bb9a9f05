//! Relays: two that belong together are joined, and what passes is what was sent.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future;
use inp2p_core::auth::Identity;
use inp2p_core::ids::{AttemptId, PublicKey};
use inp2p_core::link::LinkKeys;
use inp2p_core::relay::pairing::Limits;
use inp2p_core::relay::{
    Access, Credential, DialError, Dialer, Proof, Reason, RelayOffer, Ticket, TicketKey, Tier,
};
use inp2p_core::time::WallClock;

use super::{connect, listener, pattern, read, read_to_end, within, write_all};
use crate::net::{Net, StreamIo};
use crate::relay::{self, Relay};
use crate::setup::ciphers;

/// A relay that listens, and the server that makes its tickets.
pub struct World<N: Net> {
    net: N,
    /// The relay.
    pub relay: Relay<N>,
    at: SocketAddr,
    key: PublicKey,
    tickets: TicketKey,
    unix: Duration,
    running: Option<oneshot::Sender<()>>,
}

impl<N: Net> World<N> {
    /// `mbps` is what those who are relayed share; 0 for no limit.
    pub fn new(net: &N, mbps: u64) -> Self {
        let (listener, at) = listener(net);
        Self::at(net, listener, at, mbps)
    }

    fn at(net: &N, listener: N::Listener, at: SocketAddr, mbps: u64) -> Self {
        let (running, stop) = oneshot::channel();
        let mut world = Self::without_port(net, mbps);
        world.at = at;
        world.running = Some(running);
        net.spawn("relay", relay::listen(net.clone(), listener, world.relay.clone(), stop));
        world
    }

    /// The same world, seen from another process: its relay is at that address.
    pub fn elsewhere(net: &N, at: SocketAddr) -> Self {
        Self { at, ..Self::without_port(net, 0) }
    }

    /// Where the relay is.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// A relay that listens nowhere by itself.
    pub fn without_port(net: &N, mbps: u64) -> Self {
        let identity = Identity::from_seed([9; 32]);
        let (key, tickets) = (identity.public(), TicketKey::new(1, [8; 32]));
        let unix = Duration::from_secs(1_700_000_000);
        let relay = Relay::new(net.clone(), identity, Limits::NODE, mbps);
        relay.gate(|gate| {
            gate.set_clock(WallClock::new(net.now(), unix));
            gate.set_ticket_key(net.now(), tickets.clone());
        });
        let at = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { net: net.clone(), relay, at, key, tickets, unix, running: None }
    }

    /// What node `own` needs for an attempt with node `peer`, with a ticket that is good for a minute.
    pub fn access(&self, own: u8, peer: u8, attempt: u8) -> Access {
        let proof = self.ticket(own, peer, attempt, [attempt; 16]);
        let credential = match &proof {
            Proof::Ticket(ticket) => Credential::Ticket(*ticket),
            Proof::Totp { .. } => Credential::Totp,
        };
        let offer = RelayOffer {
            attempt: AttemptId([attempt; 16]),
            relay: None,
            tier: Tier::Super,
            key: self.key,
            addresses: vec![self.at],
            websocket: false,
            credential,
        };
        Access { offer, proof }
    }

    fn ticket(&self, own: u8, peer: u8, attempt: u8, mut nonce: [u8; 16]) -> Proof {
        nonce[0] = own;
        let ticket = Ticket {
            relay: self.key,
            own: public(own),
            peer: public(peer),
            attempt: AttemptId([attempt; 16]),
            account: [own; 8],
            not_after: self.unix + Duration::from_secs(60),
            nonce,
        };
        Proof::Ticket(self.tickets.seal(&ticket))
    }

    /// Goes to the relay, says `early` right behind the response, and waits for the other end.
    pub async fn meet(&self, own: u8, peer: u8, access: &Access, early: &[u8]) -> Result<Met<N>, DialError> {
        let stream = connect(&self.net, self.at).await.unwrap();
        let (stream, heard) = self.meet_over(stream, (own, peer), access, early).await?;
        Ok(Met { stream, heard })
    }

    /// The same on a connection that is there; gives it back, and what was heard of the other end already.
    pub async fn meet_over<S: StreamIo>(
        &self,
        stream: S,
        (own, peer): (u8, u8),
        access: &Access,
        early: &[u8],
    ) -> Result<(S, Vec<u8>), DialError> {
        let mut arrived = Arrived::new(stream, own, peer, access);
        arrived.listen(&self.net, early, Dialer::is_paired).await?;
        Ok((arrived.stream, arrived.heard))
    }

    async fn arrive(&self, own: u8, peer: u8, access: &Access) -> Arrived<N::Stream> {
        Arrived::new(connect(&self.net, self.at).await.unwrap(), own, peer, access)
    }

    /// Two nodes that have met.
    pub async fn pair(&self, attempt: u8) -> (N::Stream, N::Stream) {
        let (one, two) = (self.access(1, 2, attempt), self.access(2, 1, attempt));
        let both = future::join(self.meet(1, 2, &one, b""), self.meet(2, 1, &two, b""));
        let (one, two) = within(&self.net, "two to meet", both).await;
        (one.unwrap().stream, two.unwrap().stream)
    }
}

/// A connection to the relay.
struct Arrived<S> {
    stream: S,
    dialer: Dialer,
    heard: Vec<u8>,
    out: Vec<u8>,
}

impl<S: StreamIo> Arrived<S> {
    fn new(stream: S, own: u8, peer: u8, access: &Access) -> Self {
        let mut out = Vec::new();
        let dialer = Dialer::new(keys(own), public(own), public(peer), access, &mut out);
        Self { stream, dialer, heard: Vec::new(), out }
    }

    async fn listen<N: Net>(
        &mut self,
        net: &N,
        early: &[u8],
        until: impl Fn(&Dialer) -> bool,
    ) -> Result<(), DialError> {
        let mut buf = [0; 500];
        loop {
            write_all(&mut self.stream, &self.out).await;
            self.out.clear();
            if until(&self.dialer) {
                return Ok(());
            }
            let before = self.dialer.has_responded();
            let n = read(&mut self.stream, &mut buf).await.unwrap();
            assert_ne!(n, 0, "the relay closed without a word");
            self.heard.extend_from_slice(&buf[..n]);
            let used = self.dialer.receive(net.now(), &self.heard, &mut self.out)?;
            self.heard.drain(..used);
            if self.dialer.has_responded() && !before {
                self.out.extend_from_slice(early);
            }
        }
    }
}

/// A connection to the other end, and what was heard of it already.
pub struct Met<N: Net> {
    stream: N::Stream,
    heard: Vec<u8>,
}

impl<N: Net> std::fmt::Debug for Met<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Met").field("heard", &self.heard.len()).finish_non_exhaustive()
    }
}

impl<N: Net> std::fmt::Debug for World<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("relay", &self.relay).finish_non_exhaustive()
    }
}

fn keys(seed: u8) -> LinkKeys {
    LinkKeys::new((*ciphers()).clone(), &[seed; 32]).unwrap()
}

fn public(seed: u8) -> PublicKey {
    Identity::from_seed([seed; 32]).public()
}

/// Both ways, at once, many times what the buffers hold; each end is passed on by itself.
pub async fn a_relay_passes_on_what_was_sent_and_how_it_ended<N: Net>(net: N) {
    let world = World::new(&net, 0);
    let (one, two) = world.pair(1).await;
    let (there, back) = (pattern(3 << 20), pattern(5 << 20));
    let send = |mut stream: N::Stream, bytes: Vec<u8>| async move {
        let mut sent = 0;
        let mut all = Vec::new();
        let mut ended = false;
        let mut buf = vec![0; 64 * 1024];
        poll_fn(|cx| {
            while sent < bytes.len() {
                match stream.poll_write(cx, &[IoSlice::new(&bytes[sent..])]) {
                    Poll::Ready(n) => sent += n.unwrap(),
                    Poll::Pending => break,
                }
                if sent == bytes.len() {
                    stream.shutdown().unwrap();
                }
            }
            while !ended {
                match stream.poll_read(cx, &mut [IoSliceMut::new(&mut buf)]) {
                    Poll::Ready(Ok(0)) => ended = true,
                    Poll::Ready(n) => all.extend_from_slice(&buf[..n.unwrap()]),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if sent == bytes.len() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        all
    };
    let both = future::join(send(one, there.clone()), send(two, back.clone()));
    let (came_back, came_there) = within(&net, "the transfers", both).await;
    let lengths = (came_there.len(), came_back.len());
    assert!(came_there == there && came_back == back, "what came differs from what was sent: {lengths:?}");
    assert_eq!(world.relay.load().bytes, 8 << 20);
}

/// What is said before the other end is there waits for it, and comes first.
pub async fn what_is_said_early_comes_first<N: Net>(net: N) {
    let world = World::new(&net, 0);
    let (one, two) = (world.access(1, 2, 1), world.access(2, 1, 1));
    let both = future::join(world.meet(1, 2, &one, b"hello of one"), world.meet(2, 1, &two, b"hello of two"));
    let (one, two) = within(&net, "two to meet", both).await;
    let mut ends = [(one.unwrap(), b"hello of two"), (two.unwrap(), b"hello of one")];
    for (met, _) in &mut ends {
        met.stream.shutdown().unwrap();
    }
    for (met, expected) in ends {
        let Met { mut stream, mut heard } = met;
        heard.extend(within(&net, "what was said", read_to_end(&mut stream)).await.unwrap());
        assert_eq!(heard, expected);
    }
}

/// One that is reset is not one that ended.
pub async fn a_reset_is_passed_on_as_an_error<N: Net>(net: N) {
    let world = World::new(&net, 0);
    let (mut one, mut two) = world.pair(1).await;
    write_all(&mut one, b"unfinished").await;
    let mut buf = [0; 10];
    within(&net, "the bytes", async {
        let mut have = 0;
        while have < buf.len() {
            have += read(&mut two, &mut buf[have..]).await.unwrap();
        }
    })
    .await;
    one.abort();
    drop(one);
    let error = within(&net, "the reset", read(&mut two, &mut buf)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A refusal is a word, and never a bare close, even to one that has said much already.
pub async fn a_relay_that_refuses_says_why<N: Net>(net: N) {
    let world = World::new(&net, 0);
    let early = pattern(20_000);
    let used = world.access(1, 2, 1);
    let other = world.access(2, 1, 1);
    let both = future::join(world.meet(1, 2, &used, b""), world.meet(2, 1, &other, b""));
    let (one, two) = within(&net, "two to meet", both).await;
    let again = within(&net, "the refusal", world.meet(1, 2, &used, &early)).await.unwrap_err();
    assert_eq!(again, DialError::Refused { reason: Reason::Used });
    let thief = world.access(3, 2, 2);
    let thief = within(&net, "the refusal", world.meet(1, 2, &thief, &early)).await.unwrap_err();
    assert_eq!(thief, DialError::Refused { reason: Reason::Denied });
    drop((one, two));
}

/// The later connection of a node counts: the earlier one hears of it.
pub async fn who_comes_again_takes_its_own_place<N: Net>(net: N) {
    let world = World::new(&net, 0);
    let [first, second, other] = [world.access(1, 2, 1), world.access(1, 2, 2), world.access(2, 1, 1)];
    // The same attempt, but a ticket that was not used.
    let second = Access { offer: first.offer.clone(), proof: world.ticket(1, 2, 1, second.offer.attempt.0) };
    let mut earlier = world.arrive(1, 2, &first).await;
    within(&net, "a place", earlier.listen(&net, b"", Dialer::is_waiting)).await.unwrap();
    let mut later = world.arrive(1, 2, &second).await;
    within(&net, "a place", later.listen(&net, b"", Dialer::is_waiting)).await.unwrap();
    let refused = within(&net, "the word", earlier.listen(&net, b"", Dialer::is_paired)).await;
    assert_eq!(refused, Err(DialError::Refused { reason: Reason::Replaced }));
    let both = future::join(later.listen(&net, b"", Dialer::is_paired), world.meet(2, 1, &other, b""));
    let (one, two) = within(&net, "two to meet", both).await;
    assert!(one.is_ok() && two.is_ok());
}

/// One whose other end does not come is told so, on whatever clock there is.
pub async fn who_waits_in_vain_is_told_so<N: Net>(net: N) {
    let world = World::new(&net, 0);
    let alone = world.access(1, 2, 1);
    let alone = within(&net, "the word", world.meet(1, 2, &alone, b"")).await.unwrap_err();
    assert_eq!(alone, DialError::Refused { reason: Reason::NoPeer });
}

/// The server's check tells a relay that answers from what is none.
pub async fn a_check_tells_whether_the_relay_is_there<N: Net>(net: N) {
    let world = World::new(&net, 0);
    let right = within(&net, "the check", relay::check(&net, world.at, world.key)).await;
    assert!(right.is_ok(), "{right:?}");
    let wrong = within(&net, "the check", relay::check(&net, world.at, public(7))).await.unwrap_err();
    assert!(wrong.contains("another relay"), "{wrong}");
    let (listener, nobody) = listener(&net);
    drop(listener);
    let nobody = within(&net, "the check", relay::check(&net, nobody, world.key)).await.unwrap_err();
    assert!(nobody.contains("refuses"), "{nobody}");
}
