//! What a relay gets to see of two nodes, and what it can do to them.
#![expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]

use std::time::{Duration, Instant};

use super::gate::Gate;
use super::handshake::{Heard, Reception};
use super::pairing::{GuestId, Joined, Limits, Pairing};
use super::{Access, Answer, Credential, Dialer, Proof, RelayOffer, RelaySecret, Tier, TotpKey};
use crate::auth::Identity;
use crate::ids::{AttemptId, PublicKey};
use crate::link::{LinkKeys, Role, TcpLink};
use crate::time::WallClock;

const UNIX: Duration = Duration::from_secs(1_700_000_000);
const ATTEMPT: AttemptId = AttemptId([7; 16]);
const SECRET: &[u8] = b"attack at dawn, and bring the good biscuits";

/// A node at a relay: the handshake, and the link behind it.
struct Node {
    dialer: Dialer,
    link: TcpLink,
    /// What goes to the peer once the response is out.
    early: Vec<u8>,
    out: Vec<u8>,
    held: Vec<u8>,
    received: Vec<u8>,
    said: bool,
}

impl Node {
    fn new(now: Instant, own: u8, peer: u8) -> Self {
        let keys = LinkKeys::new(rustls::crypto::aws_lc_rs::default_provider(), &[own; 32]).unwrap();
        let offer = RelayOffer {
            attempt: ATTEMPT,
            relay: None,
            tier: Tier::Private,
            key: public(9),
            addresses: vec![],
            websocket: false,
            credential: Credential::Totp,
        };
        let access = Access { offer, proof: Proof::Totp { key: totp(), clock: WallClock::new(now, UNIX) } };
        let (mut early, mut out) = (Vec::new(), Vec::new());
        let role = if public(own) < public(peer) { Role::Controlling } else { Role::Controlled };
        let link = TcpLink::new(&keys, role, &public(peer), ATTEMPT, &[3; 32], &mut early).unwrap();
        let dialer = Dialer::new(keys, public(own), public(peer), &access, &mut out);
        Self { dialer, link, early, out, held: Vec::new(), received: Vec::new(), said: false }
    }

    fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<(), String> {
        self.held.extend_from_slice(bytes);
        if !self.dialer.is_paired() {
            let used =
                self.dialer.receive(now, &self.held, &mut self.out).map_err(|error| error.to_string())?;
            self.held.drain(..used);
            if self.dialer.has_responded() {
                self.out.append(&mut self.early);
            }
        }
        if self.dialer.is_paired() {
            let received = &mut self.received;
            let sink = &mut |bytes: &[u8]| received.extend_from_slice(bytes);
            let used =
                self.link.receive(&mut self.held, &mut self.out, sink).map_err(|error| error.to_string())?;
            self.held.drain(..used);
        }
        if self.link.is_up() && !self.said {
            self.said = true;
            self.link.seal(SECRET, &mut self.out).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn public(seed: u8) -> PublicKey {
    Identity::from_seed([seed; 32]).public()
}

fn totp() -> TotpKey {
    TotpKey::derive(&RelaySecret::new(1, [1; 32]), &"12345".parse().unwrap())
}

/// Two nodes at an honest relay that records. `alter` is the byte of what is passed on, counted over both
/// directions, that changes on its way. What each node received, how it ended, and what was recorded.
fn relayed(alter: Option<usize>) -> ([Vec<u8>; 2], Option<String>, Vec<u8>) {
    let now = Instant::now();
    let mut gate = Gate::new(public(9));
    gate.set_clock(WallClock::new(now, UNIX));
    gate.set_codes([totp()]);
    let mut pairing = Pairing::new(Limits::NODE);
    let mut nodes = [Node::new(now, 1, 2), Node::new(now, 2, 1)];
    let mut receptions = [Reception::new([4; 32]), Reception::new([5; 32])];
    let mut paired = false;
    let mut recorded = Vec::new();
    for at in [0, 1].repeat(20) {
        let mut bytes = std::mem::take(&mut nodes[at].out);
        let mut answers: [Vec<u8>; 2] = Default::default();
        while receptions[at].wants() > 0 && bytes.len() >= receptions[at].wants() {
            let rest = bytes.split_off(receptions[at].wants());
            if let Some(Heard::Response(response)) = receptions[at].receive(&bytes, &mut answers[at]).unwrap()
            {
                let who = gate.admit(now, receptions[at].challenge(), &response).unwrap();
                match pairing.join(now, GuestId(at as u64), &who).unwrap() {
                    Joined::Waits { .. } => Answer::Waiting.encode(&mut answers[at]),
                    Joined::Paired(_) => {
                        paired = true;
                        answers.iter_mut().for_each(|answer| Answer::Paired.encode(answer));
                    }
                }
            }
            bytes = rest;
        }
        for (node, answer) in nodes.iter_mut().zip(&answers) {
            node.receive(now, answer).unwrap();
        }
        if !paired {
            // It stays in the socket.
            bytes.append(&mut nodes[at].out);
            nodes[at].out = bytes;
            continue;
        }
        let from = recorded.len();
        recorded.extend_from_slice(&bytes);
        if let Some(byte) = alter.and_then(|alter| alter.checked_sub(from)).and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0x20;
        }
        if let Err(error) = nodes[1 - at].receive(now, &bytes) {
            return (nodes.map(|node| node.received), Some(error), recorded);
        }
    }
    (nodes.map(|node| node.received), None, recorded)
}

#[test]
fn a_relay_sees_no_plaintext() {
    let (received, error, recorded) = relayed(None);
    assert_eq!((received, error), ([SECRET.to_vec(), SECRET.to_vec()], None));
    assert!(!recorded.windows(8).any(|window| SECRET.windows(8).any(|secret| secret == window)));
    // Nor what would let it take part: the user's secret, the punch key.
    assert!(!recorded.windows(32).any(|window| window == [1; 32] || window == [3; 32]));
}

#[test]
fn what_a_relay_alters_only_ever_ends_the_link_with_an_error() {
    let length = relayed(None).2.len();
    // Every byte of the prefaces and of what opens each record, and a sample of the rest.
    let (mut unnoticed, mut waiting) = (0, 0);
    for at in (0..length).filter(|at| *at < 130 || at % 23 == 0) {
        let (received, error, _) = relayed(Some(at));
        for received in &received {
            assert!(SECRET.starts_with(received), "byte {at}: wrong data");
        }
        if error.is_none() {
            let whole = received.iter().all(|received| received == SECRET);
            // The version in the header of a record in clear means nothing (RFC 8446 section 5.1) ...
            unnoticed += usize::from(whole);
            // ... and a record that was made longer waits for its rest, which a deadline ends.
            waiting += usize::from(!whole);
        }
    }
    assert!(unnoticed <= 6 && waiting <= 6, "{unnoticed} unnoticed, {waiting} waiting");
}
