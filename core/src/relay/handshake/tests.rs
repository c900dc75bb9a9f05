#![expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]

use std::time::{Duration, Instant};

use super::*;
use crate::auth::{Identity, Token};
use crate::link::LinkKeys;
use crate::relay::Tier;
use crate::relay::gate::{Admitted, Gate};
use crate::relay::offer::{Credential, RelayOffer};
use crate::relay::ticket::{LENGTH, Ticket, TicketKey};
use crate::relay::totp::{RelaySecret, TotpKey};
use crate::rng::Rng;
use crate::time::{ServerClock, WallClock};

const UNIX: Duration = Duration::from_secs(1_700_000_010);
const ATTEMPT: AttemptId = AttemptId([7; 16]);
const MINUTE: Duration = Duration::from_secs(60);

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn link_keys(seed: u8) -> LinkKeys {
    LinkKeys::new(rustls::crypto::aws_lc_rs::default_provider(), &[seed; 32]).unwrap()
}

fn totp_key(secret: u32) -> TotpKey {
    let token: Token = "12345678901234567890".parse().unwrap();
    TotpKey::derive(&RelaySecret::new(secret, [u8::try_from(secret).unwrap(); 32]), &token)
}

/// A relay at the server's time, and its challenges.
struct Relay {
    gate: Gate,
    rng: Rng,
    start: Instant,
}

impl Relay {
    fn new(seed: u8) -> Self {
        let start = Instant::now() + MINUTE * 60;
        let mut gate = Gate::new(identity(seed).public());
        gate.set_clock(WallClock::new(start, UNIX));
        gate.set_codes([totp_key(1)]);
        gate.set_ticket_key(start, ticket_key());
        Self { gate, rng: Rng::new([seed; 32]), start }
    }

    /// What comes of these messages of a node, each of them whole, on one connection.
    fn hear(&mut self, at: Instant, messages: &[Vec<u8>]) -> Result<Admitted, Reason> {
        let mut reception = Reception::new(self.rng.bytes());
        let mut bytes = messages.concat();
        while reception.wants() > 0 && reception.wants() <= bytes.len() {
            let rest = bytes.split_off(reception.wants());
            match reception.receive(&bytes, &mut Vec::new())? {
                Some(Heard::Response(response)) => {
                    return self.gate.admit(at, reception.challenge(), &response);
                }
                Some(Heard::Check(_)) => return Err(Reason::Late),
                None => {}
            }
            bytes = rest;
        }
        Err(Reason::Late)
    }

    /// A whole handshake of `dialer`, and the two messages that it sent.
    fn meet(
        &mut self,
        at: Instant,
        mut dialer: Dialer,
        opening: Vec<u8>,
    ) -> (Result<Admitted, Reason>, [Vec<u8>; 2]) {
        let mut reception = Reception::new(self.rng.bytes());
        let (mut to_node, mut response) = (Vec::new(), Vec::new());
        assert_eq!(reception.receive(&opening, &mut to_node), Ok(None));
        assert!(!dialer.has_responded());
        assert_eq!(dialer.receive(at, &to_node, &mut response), Ok(CHALLENGE));
        assert!(dialer.has_responded());
        let (head, rest) = response.split_at(reception.wants());
        assert_eq!(reception.receive(head, &mut Vec::new()), Ok(None));
        assert_eq!(reception.wants(), rest.len());
        let Ok(Some(Heard::Response(whole))) = reception.receive(rest, &mut Vec::new()) else {
            panic!("not a response")
        };
        assert_eq!(reception.wants(), 0);
        let judged = self.gate.admit(at, reception.challenge(), &whole);
        (judged, [opening, response])
    }
}

fn ticket_key() -> TicketKey {
    TicketKey::new(3, [8; 32])
}

fn ticket() -> Ticket {
    Ticket {
        relay: identity(9).public(),
        own: identity(1).public(),
        peer: identity(2).public(),
        attempt: ATTEMPT,
        account: [5; 8],
        not_after: UNIX + MINUTE,
        nonce: [6; 16],
    }
}

fn access(proof: Proof) -> Access {
    let credential = match &proof {
        Proof::Ticket(ticket) => Credential::Ticket(*ticket),
        Proof::Totp { .. } => Credential::Totp,
    };
    let offer = RelayOffer {
        attempt: ATTEMPT,
        relay: None,
        tier: Tier::Server,
        key: identity(9).public(),
        addresses: vec![],
        websocket: false,
        credential,
    };
    Access { offer, proof }
}

fn with_ticket(ticket: &Ticket) -> Access {
    access(Proof::Ticket(ticket_key().seal(ticket)))
}

fn with_code(relay: &Relay) -> Access {
    access(Proof::Totp { key: totp_key(1), clock: WallClock::new(relay.start, UNIX) })
}

fn dialer(own: u8, peer: u8, access: &Access) -> (Dialer, Vec<u8>) {
    let mut opening = Vec::new();
    let dialer =
        Dialer::new(link_keys(own), identity(own).public(), identity(peer).public(), access, &mut opening);
    (dialer, opening)
}

fn admitted(account: Option<[u8; 8]>) -> Admitted {
    Admitted { attempt: ATTEMPT, own: identity(1).public(), peer: identity(2).public(), account }
}

#[test]
fn a_code_and_a_ticket_both_open_the_gate() {
    let mut relay = Relay::new(9);
    for (access, account) in [(with_code(&relay), None), (with_ticket(&ticket()), Some([5; 8]))] {
        let (dialer, opening) = dialer(1, 2, &access);
        assert_eq!(relay.meet(relay.start, dialer, opening).0, Ok(admitted(account)));
    }
}

#[test]
fn relay_authentication_survives_clocks_off_by_ten_years() {
    let ten_years = Duration::from_secs(10 * 365 * 86_400);
    let start = Instant::now() + MINUTE * 60;
    for wrong in [UNIX - ten_years, UNIX, UNIX + ten_years] {
        for relay_wrong in [UNIX - ten_years, UNIX, UNIX + ten_years] {
            // Each has a wall clock of its own, and hears the server's time in an answer.
            let known = |local: Duration, rtt_ms: u64| {
                let local = WallClock::new(start, local);
                let mut server = ServerClock::default();
                server.observe(start, start + Duration::from_millis(rtt_ms), UNIX);
                let now = start + MINUTE * 30;
                assert_eq!(local.unix(now), local.unix(start) + MINUTE * 30);
                (now, WallClock::new(now, server.unix(now).unwrap()))
            };
            let mut relay = Relay::new(9);
            let (now, clock) = known(relay_wrong, 1_000);
            relay.gate.set_clock(clock);
            let (_, clock) = known(wrong, 40);
            let access = access(Proof::Totp { key: totp_key(1), clock });
            for _ in 0..2 {
                let (dialer, opening) = dialer(1, 2, &access);
                assert_eq!(relay.meet(now, dialer, opening).0, Ok(admitted(None)));
            }
        }
    }
}

#[test]
fn a_second_connection_in_the_same_window_is_not_denied() {
    let mut relay = Relay::new(9);
    let access = with_code(&relay);
    for _ in 0..100 {
        let (dialer, opening) = dialer(1, 2, &access);
        assert_eq!(relay.meet(relay.start, dialer, opening).0, Ok(admitted(None)));
    }
}

#[test]
fn clocks_that_disagree_about_the_server_are_told_so() {
    let mut relay = Relay::new(9);
    let clock = WallClock::new(relay.start, UNIX + MINUTE * 2);
    let (node, opening) = dialer(1, 2, &access(Proof::Totp { key: totp_key(1), clock }));
    assert_eq!(relay.meet(relay.start, node, opening).0, Err(Reason::Skew));
    let (node, opening) = dialer(1, 2, &with_ticket(&Ticket { not_after: UNIX + MINUTE * 2, ..ticket() }));
    assert_eq!(relay.meet(relay.start, node, opening).0, Err(Reason::Skew));
}

#[test]
fn no_recorded_message_opens_the_gate_again() {
    let mut relay = Relay::new(9);
    let mut recorded = Vec::new();
    for n in 0..20_u8 {
        let access = match n % 2 {
            0 => with_code(&relay),
            _ => with_ticket(&Ticket { nonce: [n; 16], ..ticket() }),
        };
        let (dialer, opening) = dialer(1, 2, &access);
        let (judged, messages) = relay.meet(relay.start, dialer, opening);
        assert!(judged.is_ok());
        recorded.push(messages);
    }
    let mut accepted = 0;
    for messages in &recorded {
        accepted += usize::from(relay.hear(relay.start, messages).is_ok());
    }
    let loose: Vec<Vec<u8>> = recorded.concat();
    let mut rng = Rng::new([1; 32]);
    for _ in 0..2_000 {
        let count = rng.below(4) + 1;
        let mut draw = |_| loose[usize::try_from(rng.below(loose.len() as u64)).unwrap()].clone();
        let messages: Vec<Vec<u8>> = (0..count).map(&mut draw).collect();
        accepted += usize::from(relay.hear(relay.start, &messages).is_ok());
    }
    assert_eq!(accepted, 0);
}

#[test]
fn a_ticket_is_good_once() {
    let mut relay = Relay::new(9);
    let access = with_ticket(&ticket());
    let (node, opening) = dialer(1, 2, &access);
    assert!(relay.meet(relay.start, node, opening).0.is_ok());
    let (node, opening) = dialer(1, 2, &access);
    assert_eq!(relay.meet(relay.start, node, opening).0, Err(Reason::Used));
}

#[test]
fn a_stolen_ticket_without_the_nodes_key_is_refused_and_not_used_up() {
    let mut relay = Relay::new(9);
    let access = with_ticket(&ticket());
    // The thief says that it is node 1, but signs with its own key.
    let mut opening = Vec::new();
    let thief = Dialer::new(link_keys(4), identity(1).public(), identity(2).public(), &access, &mut opening);
    assert_eq!(relay.meet(relay.start, thief, opening).0, Err(Reason::Denied));
    // Or it says who it is.
    let (thief, opening) = dialer(4, 2, &access);
    assert_eq!(relay.meet(relay.start, thief, opening).0, Err(Reason::Denied));
    let (owner, opening) = dialer(1, 2, &access);
    assert!(relay.meet(relay.start, owner, opening).0.is_ok());
}

#[test]
fn a_ticket_for_another_relay_or_attempt_or_peer_or_time_is_refused() {
    let mut relay = Relay::new(9);
    let start = relay.start;
    for (wrong, reason) in [
        (Ticket { relay: identity(8).public(), ..ticket() }, Reason::WrongRelay),
        (Ticket { attempt: AttemptId([8; 16]), ..ticket() }, Reason::Denied),
        (Ticket { peer: identity(3).public(), ..ticket() }, Reason::Denied),
        (Ticket { own: identity(2).public(), peer: identity(1).public(), ..ticket() }, Reason::Denied),
        (Ticket { not_after: UNIX - Duration::from_millis(1), ..ticket() }, Reason::Stale),
    ] {
        let (node, opening) = dialer(1, 2, &with_ticket(&wrong));
        assert_eq!(relay.meet(start, node, opening).0, Err(reason), "{wrong:?}");
    }
    // The very last moment is good.
    let (node, opening) = dialer(1, 2, &with_ticket(&ticket()));
    assert!(relay.meet(start + MINUTE, node, opening).0.is_ok());
}

#[test]
fn a_response_to_one_relay_is_worth_nothing_at_another() {
    // A relay passes the challenge of another one on, and the response back.
    let (mut near, mut far) = (Relay::new(9), Relay::new(8));
    let challenge: [u8; 32] = far.rng.bytes();
    let (mut node, _) = dialer(1, 2, &with_code(&near));
    let mut response = Vec::new();
    node.receive(near.start, &encode_challenge(&challenge), &mut response).unwrap();
    let (_, response) = Response::parse(&response).unwrap();
    assert_eq!(far.gate.admit(far.start, &challenge, &response), Err(Reason::Denied));
    assert_eq!(near.gate.admit(near.start, &challenge, &response), Ok(admitted(None)));
}

#[test]
fn a_response_that_was_altered_in_any_byte_is_refused() {
    for access in [with_code(&Relay::new(9)), with_ticket(&ticket())] {
        let mut relay = Relay::new(9);
        let (mut node, _) = dialer(1, 2, &access);
        let challenge = [4; 32];
        let mut good = Vec::new();
        let access_start = relay.start;
        node.receive(access_start, &encode_challenge(&challenge), &mut good).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let judged = Response::parse(&bytes)
                .ok()
                .filter(|(rest, _)| rest.is_empty())
                .map(|(_, response)| relay.gate.admit(relay.start, &challenge, &response));
            assert!(!matches!(judged, Some(Ok(_))), "byte {at}");
        }
        let (_, response) = Response::parse(&good).unwrap();
        assert!(relay.gate.admit(relay.start, &challenge, &response).is_ok(), "unaltered");
    }
}

#[test]
fn a_relay_that_logged_in_again_takes_tickets_of_before_for_a_minute() {
    let mut relay = Relay::new(9);
    let start = relay.start;
    relay.gate.set_ticket_key(start, TicketKey::new(4, [9; 32]));
    let late = |nonce| with_ticket(&Ticket { nonce: [nonce; 16], not_after: UNIX + MINUTE * 2, ..ticket() });
    let (node, opening) = dialer(1, 2, &late(1));
    let almost = start + MINUTE - Duration::from_millis(1);
    assert!(relay.meet(almost, node, opening).0.is_ok());
    let (node, opening) = dialer(1, 2, &late(2));
    assert_eq!(relay.meet(start + MINUTE, node, opening).0, Err(Reason::UnknownKey));
}

#[test]
fn a_relay_that_cannot_remember_tickets_takes_none() {
    let mut relay = Relay::new(9);
    let start = relay.start;
    let fill = |relay: &mut Relay, n: u32| {
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        relay.gate.note_used(nonce, UNIX + MINUTE, UNIX)
    };
    let mut n = 0;
    while fill(&mut relay, n).is_ok() {
        n += 1;
    }
    assert_eq!(n, 65_536);
    let (node, opening) = dialer(1, 2, &with_ticket(&ticket()));
    assert_eq!(relay.meet(start, node, opening).0, Err(Reason::Busy));
    // They are forgotten when their tickets are over, and codes need no memory at all.
    let code = with_code(&relay);
    let (node, opening) = dialer(1, 2, &code);
    assert!(relay.meet(start, node, opening).0.is_ok());
    let later = start + MINUTE * 2;
    let fresh = Ticket { not_after: UNIX + MINUTE * 3, ..ticket() };
    let (node, opening) = dialer(1, 2, &with_ticket(&fresh));
    assert!(relay.meet(later, node, opening).0.is_ok());
}

#[test]
fn a_gate_without_clock_or_keys_lets_nobody_in() {
    let mut relay = Relay::new(9);
    let code = with_code(&relay);
    relay.gate.set_codes([totp_key(2)]);
    let (node, opening) = dialer(1, 2, &code);
    assert_eq!(relay.meet(relay.start, node, opening).0, Err(Reason::UnknownKey));
    relay.gate = Gate::new(identity(9).public());
    let (node, opening) = dialer(1, 2, &code);
    assert_eq!(relay.meet(relay.start, node, opening).0, Err(Reason::Skew));
}

#[test]
fn a_node_hears_every_answer_however_it_is_cut() {
    let relay = Relay::new(9);
    let mut said = encode_challenge(&[4; 32]).to_vec();
    Answer::Waiting.encode(&mut said);
    Answer::Paired.encode(&mut said);
    let handshake = said.len();
    said.extend_from_slice(b"the peer's");
    for step in 1..=said.len() {
        let (mut node, _) = dialer(1, 2, &with_code(&relay));
        let (mut response, mut held, mut left) = (Vec::new(), Vec::new(), 0);
        for piece in said.chunks(step) {
            held.extend_from_slice(piece);
            let used = node.receive(relay.start, &held, &mut response).unwrap();
            left += used;
            held.drain(..used);
        }
        assert!(node.is_paired());
        assert_eq!(left, handshake, "what is the peer's is left alone");
        assert_eq!(held, b"the peer's");
        assert!(!response.is_empty());
    }
}

#[test]
fn every_refusal_says_why() {
    let relay = Relay::new(9);
    for reason in Reason::ALL {
        let (mut node, _) = dialer(1, 2, &with_code(&relay));
        let mut said = encode_challenge(&[4; 32]).to_vec();
        Answer::Refused(reason).encode(&mut said);
        let heard = node.receive(relay.start, &said, &mut Vec::new());
        assert_eq!(heard, Err(DialError::Refused { reason }));
        assert_eq!(node.receive(relay.start, b"x", &mut Vec::new()), heard, "it stays so");
    }
    let (mut node, _) = dialer(1, 2, &with_code(&relay));
    let said = [&encode_challenge(&[4; 32])[..], &[0xd1, 0xee, 2, b'h', b'i']].concat();
    assert_eq!(node.receive(relay.start, &said, &mut Vec::new()), Err(DialError::Other(0xee)));
}

#[test]
fn what_is_no_relay_is_noticed_at_once() {
    let relay = Relay::new(9);
    for said in [&b"HTTP/1.1 400 Bad Request\r\n"[..], &[0x15, 3, 1], &[0xd1, b'I', b'2', b'R', 2]] {
        let (mut node, _) = dialer(1, 2, &with_code(&relay));
        assert_eq!(node.receive(relay.start, said, &mut Vec::new()), Err(DialError::NotARelay));
    }
}

#[test]
fn what_is_no_node_is_refused() {
    let mut relay = Relay::new(9);
    let start = relay.start;
    assert_eq!(relay.hear(start, &[b"GET /".to_vec()]), Err(Reason::Malformed));
    assert_eq!(relay.hear(start, &[OPENING.to_vec(), vec![0xff; 81]]), Err(Reason::Malformed));
    let mut rng = Rng::new([2; 32]);
    for _ in 0..2_000 {
        let mut bytes = rng.bytes::<400>().to_vec();
        bytes[80] = if rng.below(2) == 0 { KIND_CODE } else { KIND_TICKET };
        assert!(relay.hear(start, &[OPENING.to_vec(), bytes]).is_err());
    }
    // A node that would talk to itself.
    let (node, opening) = dialer(1, 1, &with_code(&relay));
    assert_eq!(relay.meet(start, node, opening).0, Err(Reason::Malformed));
}

#[test]
fn a_check_tells_the_right_relay_from_another() {
    for (seed, expected) in [(9, Ok(true)), (8, Err(CheckError::OtherKey))] {
        let (mut opening, mut heard, mut request, mut answer) = (vec![], vec![], vec![], vec![]);
        let mut checker = Checker::new(identity(9).public(), [1; 32], &mut opening);
        let mut reception = Reception::new([4; 32]);
        assert_eq!(reception.receive(&opening, &mut heard), Ok(None));
        assert_eq!(heard.len(), checker.wants());
        assert_eq!(checker.receive(&heard, &mut request), Ok(false));
        let (head, rest) = request.split_at(reception.wants());
        assert_eq!(reception.receive(head, &mut vec![]), Ok(None));
        assert_eq!(rest.len(), reception.wants());
        let Ok(Some(Heard::Check(nonce))) = reception.receive(rest, &mut vec![]) else { panic!("no check") };
        reception.prove(&identity(seed), &nonce).encode(&mut answer);
        assert_eq!(answer.len(), checker.wants());
        assert_eq!(checker.receive(&answer, &mut vec![]), expected);
        assert_eq!(checker.wants(), 0);
    }
    let mut checker = Checker::new(identity(9).public(), [1; 32], &mut vec![]);
    assert_eq!(checker.receive(b"SSH-2.0-OpenSSH_9.9", &mut vec![]), Err(CheckError::NotARelay));
}

/// The values of `docs/protocol.md`, section 17.
#[test]
fn fixed_keys_give_the_documented_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let binding = Binding {
        challenge: [4; 32],
        relay: identity(9).public(),
        own: identity(1).public(),
        peer: identity(2).public(),
        attempt: ATTEMPT,
    };
    assert_eq!(hex(&totp_key(1).code(&binding, UNIX)), CODE);
    let sealed = ticket_key().seal(&ticket());
    assert_eq!(sealed.0.len(), LENGTH);
    assert_eq!(hex(&sealed.0[LENGTH - 32..]), TICKET_MAC);
    let (mut node, _) = dialer(1, 2, &with_ticket(&ticket()));
    let mut response = Vec::new();
    node.receive(Instant::now(), &encode_challenge(&[4; 32]), &mut response).unwrap();
    assert_eq!(response.len(), MAX_RESPONSE);
    assert_eq!(hex(&response[MAX_RESPONSE - 64..]), SIGNATURE);
}

const CODE: &str = "93ab6b7055db8ff3441c8ee70c83942362221ace8f0c13a2dc37bd5e5a96ec49";
const TICKET_MAC: &str = "7b4e814e06ac3c82060337489daa2f64c2ca19d7ab30e3384358b9e90abd9767";
const SIGNATURE: &str = "608bf29d0b5ac4edc5d62ddd6394e26575f22e24adf260ae0983608c5e37868a\
    af978ea6b01f5b1f4d274958c6fdfa50333680acc30fbfd6553458a513710a07";
