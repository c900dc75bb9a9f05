//! Whole logins between the two sides, honest and not.

use std::net::SocketAddr;

use super::*;
use crate::auth::identity::Identity;
use crate::rng::Rng;
use crate::wire::encode;
use crate::wire::message::{LoginDone, LoginProof};

const TOKEN: u64 = 12_345_678_901_234_567_890;

/// A node and a server about to log in, and how the messages between them are treated.
struct World {
    node: Identity,
    server: Identity,
    node_token: Option<u64>,
    server_token: Option<u64>,
    pin: Option<PublicKey>,
    seed: u8,
}

/// What a login left behind.
#[derive(Debug)]
struct Done {
    client: SecureChannel,
    server: SecureChannel,
    server_key: PublicKey,
    messages: [Vec<u8>; 4],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Hello,
    Challenge,
    Proof,
    Done,
}

const STEPS: [Step; 4] = [Step::Hello, Step::Challenge, Step::Proof, Step::Done];

impl World {
    fn new() -> Self {
        Self {
            node: Identity::from_seed([1; 32]),
            server: Identity::from_seed([2; 32]),
            node_token: Some(TOKEN),
            server_token: Some(TOKEN),
            pin: None,
            seed: 0,
        }
    }

    fn start(&self) -> (ClientLogin, Vec<u8>) {
        let token = token(self.node_token.unwrap());
        let mut rng = Rng::new([3 + self.seed; 32]);
        let (user, node) = ("default".parse().unwrap(), "nodeA".parse().unwrap());
        ClientLogin::start(user, node, &self.node, &token, self.pin, None, &mut rng)
    }

    fn challenge(&self, hello: &[u8]) -> Result<(ServerLogin, Vec<u8>), LoginError> {
        let mut rng = Rng::new([4 + self.seed; 32]);
        ServerLogin::challenge(hello, |_| self.server_token.map(token), &self.server, &mut rng)
    }

    /// The whole login; `tamper` may change each message on its way.
    fn login(&self, mut tamper: impl FnMut(Step, &mut Vec<u8>)) -> Result<Done, LoginError> {
        let (client, mut hello) = self.start();
        tamper(Step::Hello, &mut hello);
        let (server, mut challenge) = self.challenge(&hello)?;
        tamper(Step::Challenge, &mut challenge);
        let (client, mut proof) = client.challenge(&challenge, &self.node)?;
        tamper(Step::Proof, &mut proof);
        let ServerProved { mut channel, mac, .. } = server.prove(&proof)?;
        let mut done = channel.sealer.seal(&encode(PROOF_REQUEST, &login_done(mac)));
        tamper(Step::Done, &mut done);
        let (client, answer, server_key) = client.done(&done)?;
        assert_eq!(answer.server_time_ms, 1_700_000_000_000);
        Ok(Done { client, server: channel, server_key, messages: [hello, challenge, proof, done] })
    }
}

fn token(number: u64) -> Token {
    number.to_string().parse().unwrap()
}

fn login_done(mac: [u8; 32]) -> LoginDone {
    LoginDone {
        mac: mac.into(),
        server_time_ms: 1_700_000_000_000,
        observed: SocketAddr::from(([203, 0, 113, 7], 40_000)),
        heartbeat_ms: 15_000,
        software: "0.1.0".into(),
        stun: None,
        stun_relays: Vec::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn both_sides_end_with_the_same_keys() {
    let world = World::new();
    let mut done = world.login(|_, _| ()).unwrap();
    assert_eq!(done.server_key, world.server.public());
    let up = done.client.sealer.seal(b"up");
    assert_eq!(done.server.opener.open(&up).unwrap(), b"up");
    let down = done.server.sealer.seal(b"down");
    assert_eq!(done.client.opener.open(&down).unwrap(), b"down");
    assert_eq!(done.client.exporter.export("x"), done.server.exporter.export("x"));
    assert_ne!(done.client.exporter.export("x"), done.client.exporter.export("y"));
}

#[test]
fn the_directions_have_keys_of_their_own() {
    let mut done = World::new().login(|_, _| ()).unwrap();
    let reflected = done.client.sealer.seal(b"up");
    assert!(done.client.opener.open(&reflected).is_err());
}

#[test]
fn a_right_pin_does_not_hinder() {
    let mut world = World::new();
    world.pin = Some(world.server.public());
    assert!(world.login(|_, _| ()).is_ok());
}

#[test]
fn fixed_seeds_give_fixed_messages_and_keys() {
    let done = World::new().login(|_, _| ()).unwrap();
    let hashes = done.messages.map(|message| hex(&Sha256::digest(message)));
    let expected = [
        "37b40b75144c0ada5014076c0f225de3e2456bf4f2913e99d85d18bd3687620d",
        "632d5b2a1feb4f788a18b06ca34354945e7c13412981e888f3179c232b81f926",
        "128909050047dff631fc05c4b612ff0fda880bdde4e0c4b42a68da0baab37ad1",
        "b49b405eb44becc59ddae3f84fcfde87cb816324a9ed10c28312d6118359a65c",
    ];
    assert_eq!(hashes, expected);
    assert_eq!(
        hex(&*done.client.exporter.export("test")),
        "f03add5489ff524779dbbb02983396fbbe24b94b57421127a5edf522fee38c7f"
    );
}

#[test]
fn clear_messages_stay_far_below_their_cap() {
    let done = World::new().login(|_, _| ()).unwrap();
    for (step, message) in STEPS.iter().zip(&done.messages) {
        assert!(message.len() < 400, "{step:?} has {}", message.len());
    }
}

#[test]
fn a_wrong_token_fails_at_the_server_and_gives_nothing_else_away() {
    let mut world = World::new();
    world.node_token = Some(TOKEN - 1);
    assert_eq!(world.login(|_, _| ()).unwrap_err(), LoginError::WrongToken);
}

#[test]
fn an_unknown_user_meets_the_same_shape_and_the_same_failure() {
    let known = World::new();
    let unknown = World { server_token: None, ..World::new() };
    let (_, hello) = known.start();
    let (_, challenge) = known.challenge(&hello).unwrap();
    let (_, fake) = unknown.challenge(&hello).unwrap();
    assert_eq!(challenge.len(), fake.len());
    assert_ne!(challenge, fake);
    // The node takes it as it would the real one, and fails at the same step for the same reason.
    let error = unknown.login(|_, _| ()).unwrap_err();
    assert_eq!(error, LoginError::WrongToken);
    assert_eq!(error.refusal().text, "wrong token, or no such user");
}

#[test]
fn any_changed_byte_of_any_message_makes_the_login_fail() {
    let world = World::new();
    let messages = world.login(|_, _| ()).unwrap().messages;
    for (step, message) in STEPS.into_iter().zip(&messages) {
        for at in 0..message.len() {
            for mask in [1 << (at % 8), 0xff] {
                let tampered = world.login(|now, message| {
                    if now == step {
                        message[at] ^= mask;
                    }
                });
                assert!(tampered.is_err(), "{step:?}, byte {at} ^ {mask:#04x}");
            }
        }
    }
}

#[test]
fn cut_and_lengthened_messages_make_the_login_fail() {
    let world = World::new();
    let messages = world.login(|_, _| ()).unwrap().messages;
    for (step, message) in STEPS.into_iter().zip(&messages) {
        for length in (0..message.len()).step_by(7).chain([message.len() + 1]) {
            let tampered = world.login(|now, message| {
                if now == step {
                    message.resize(length, 0);
                }
            });
            assert!(tampered.is_err(), "{step:?} cut to {length}");
        }
    }
}

#[test]
fn messages_of_another_login_do_not_fit() {
    let world = World::new();
    let earlier = World { seed: 40, ..World::new() }.login(|_, _| ()).unwrap().messages;
    for (step, old) in STEPS.into_iter().zip(&earlier) {
        let replayed = world.login(|now, message| {
            if now == step {
                message.clone_from(old);
            }
        });
        assert!(replayed.is_err(), "{step:?}");
    }
}

#[test]
fn a_replayed_node_gets_nothing_from_a_server() {
    let world = World::new();
    let recorded = world.login(|_, _| ()).unwrap().messages;
    let again = World { seed: 40, ..World::new() };
    let (server, _) = again.challenge(&recorded[0]).unwrap();
    assert_eq!(server.prove(&recorded[2]).unwrap_err(), LoginError::WrongToken);
}

#[test]
fn a_pinned_node_sends_no_proof_to_another_server() {
    let mut world = World::new();
    let pinned = Identity::from_seed([9; 32]).public();
    world.pin = Some(pinned);
    let mut proof_sent = false;
    let error = world.login(|step, _| proof_sent |= step == Step::Proof).unwrap_err();
    assert_eq!(error, LoginError::ServerKeyChanged { pinned, got: world.server.public() });
    assert!(!proof_sent);
    assert!(error.to_string().contains(&format!("-server-key {}", world.server.public())));
}

#[test]
fn an_impostor_who_names_the_pinned_key_cannot_sign() {
    let mut world = World::new();
    let real = world.server.public();
    world.pin = Some(real);
    let mut proof_sent = false;
    let error = world.login(|step, message| match step {
        Step::Challenge => {
            let mut challenge: LoginChallenge = Envelope::parse(message).unwrap().decode().unwrap();
            // All is as the server sent it but for the share: the signature covers it.
            challenge.share[5] ^= 1;
            while check_share(&challenge.share).is_err() {
                challenge.share[5] = challenge.share[5].wrapping_add(1);
            }
            *message = encode(HELLO_REQUEST, &challenge);
        }
        Step::Proof => proof_sent = true,
        Step::Hello | Step::Done => (),
    });
    assert_eq!(error.err(), Some(LoginError::BadServerSignature(real)));
    assert!(!proof_sent);
}

#[test]
fn a_server_without_the_token_cannot_finish() {
    // An impostor whom the node has no pin against lets every proof pass, and seals with what it has.
    let world = World::new();
    let (client, hello) = world.start();
    let impostor = World { server_token: None, ..World::new() };
    let (_, challenge) = impostor.challenge(&hello).unwrap();
    let (client, _) = client.challenge(&challenge, &world.node).unwrap();
    let mut sealer = Sealer::new(&[0; 32]);
    let done = sealer.seal(&encode(PROOF_REQUEST, &login_done([0; 32])));
    assert_eq!(client.done(&done).unwrap_err(), LoginError::BadServerProof);
}

#[test]
fn a_sealed_answer_without_the_servers_proof_is_refused() {
    let world = World::new();
    let (client, hello) = world.start();
    let (server, challenge) = world.challenge(&hello).unwrap();
    let (client, proof) = client.challenge(&challenge, &world.node).unwrap();
    let ServerProved { mut channel, mut mac, .. } = server.prove(&proof).unwrap();
    mac[31] ^= 1;
    let done = channel.sealer.seal(&encode(PROOF_REQUEST, &login_done(mac)));
    assert_eq!(client.done(&done).unwrap_err(), LoginError::BadServerProof);
}

#[test]
fn an_answer_in_clear_is_not_taken_for_a_sealed_one() {
    let world = World::new();
    let (client, hello) = world.start();
    let (server, challenge) = world.challenge(&hello).unwrap();
    let (client, proof) = client.challenge(&challenge, &world.node).unwrap();
    let mac = server.prove(&proof).unwrap().mac;
    let done = encode(PROOF_REQUEST, &login_done(mac));
    assert_eq!(client.done(&done).unwrap_err(), LoginError::BadServerProof);
}

#[test]
fn a_stolen_token_does_not_give_another_nodes_identity() {
    // The thief names the victim's key in its hello, and signs with its own.
    let victim = Identity::from_seed([1; 32]).public();
    let thief = World { node: Identity::from_seed([8; 32]), ..World::new() };
    let mut hello = LoginHello {
        versions: vec![VERSION],
        user: "default".parse().unwrap(),
        node: "nodeA".parse().unwrap(),
        key: victim,
        nonce: [5; 32].into(),
        share: Default::default(),
        instance: None,
    };
    let (a, b) = spake_identities(&hello);
    let (spake, share) = Spake2::start_a_with_rng(&password(&token(TOKEN)), &a, &b, Rng::new([6; 32]));
    hello.share = share.into();
    let hello = encode(HELLO_REQUEST, &hello);
    let (server, challenge) = thief.challenge(&hello).unwrap();
    let share = Envelope::parse(&challenge).unwrap().decode::<LoginChallenge>().unwrap().share;
    let transcript = Transcript::new(&hello).with(&challenge);
    let hash = transcript.hash();
    let proof = LoginProof {
        mac: agree(spake, &share).unwrap().client_mac_key(&transcript).mac(&hash).into(),
        signature: thief.node.sign(NODE_LABEL, &hash).into(),
    };
    let error = server.prove(&encode(PROOF_REQUEST, &proof)).unwrap_err();
    assert_eq!(error, LoginError::BadNodeSignature);
}

#[test]
fn shares_of_small_order_are_refused_by_both_sides() {
    // The eight points of small order, and the spellings of theirs that a decoder may take besides.
    let order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    let order_8_other = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let mut points: Vec<[u8; 32]> = [order_8, order_8_other]
        .iter()
        .map(|text| text.parse::<PublicKey>().unwrap().0)
        .chain([0, 1].map(|low| core::array::from_fn(|i| if i == 0 { low } else { 0 })))
        .chain([0xec, 0xed, 0xee].map(|low| {
            core::array::from_fn(|i| match i {
                0 => low,
                31 => 0x7f,
                _ => 0xff,
            })
        }))
        .collect();
    for at in 0..points.len() {
        let mut negative = points[at];
        negative[31] |= 0x80;
        points.push(negative);
    }
    let world = World::new();
    for point in points {
        for step in [Step::Hello, Step::Challenge] {
            let side = if step == Step::Hello { b'A' } else { b'B' };
            let share = [&[side], point.as_slice()].concat();
            assert_eq!(check_share(&share), Err(LoginError::BadShare), "{}", hex(&point));
        }
        let error = world.login(|step, message| {
            if step == Step::Hello {
                let mut hello: LoginHello = Envelope::parse(message).unwrap().decode().unwrap();
                hello.share = [b"A".as_slice(), &point].concat().into();
                *message = encode(HELLO_REQUEST, &hello);
            }
        });
        assert_eq!(error.err(), Some(LoginError::BadShare));
    }
}

#[test]
fn a_reflected_share_is_refused() {
    let world = World::new();
    let (client, hello) = world.start();
    let sent: LoginHello = Envelope::parse(&hello).unwrap().decode().unwrap();
    let transcript = Transcript::new(&hello);
    let mut challenge = LoginChallenge {
        version: VERSION,
        key: world.server.public(),
        nonce: [0; 32].into(),
        share: sent.share,
        signature: [0; 64].into(),
    };
    challenge.signature = world.server.sign(SERVER_LABEL, &server_statement(&transcript, &challenge)).into();
    let error = client.challenge(&encode(HELLO_REQUEST, &challenge), &world.node).unwrap_err();
    assert_eq!(error, LoginError::BadShare);
}

#[test]
fn a_clear_refusal_reaches_the_node_at_either_step() {
    let world = World::new();
    let refused = Refused::new(Code::Version, "too old");
    let (client, hello) = world.start();
    let answer = encode(HELLO_REQUEST, &refused);
    let error = client.challenge(&answer, &world.node).unwrap_err();
    assert_eq!(error, LoginError::Refused(refused));

    let refused = LoginError::WrongToken.refusal();
    let (client, _) = world.start();
    let (_, challenge) = world.challenge(&hello).unwrap();
    let (client, _) = client.challenge(&challenge, &world.node).unwrap();
    let error = client.done(&encode(PROOF_REQUEST, &refused)).unwrap_err();
    assert!(error.to_string().contains("wrong token"), "{error}");
    assert_eq!(error, LoginError::Refused(refused));
}

#[test]
fn a_sealed_refusal_reaches_the_node() {
    let world = World::new();
    let (client, hello) = world.start();
    let (server, challenge) = world.challenge(&hello).unwrap();
    let (client, proof) = client.challenge(&challenge, &world.node).unwrap();
    let mut proved = server.prove(&proof).unwrap();
    assert_eq!(proved.hello.node.as_str(), "nodeA");
    let refused = Refused::new(Code::NameTaken, "nodeA belongs to another key");
    let answer = proved.channel.sealer.seal(&encode(PROOF_REQUEST, &refused));
    assert_eq!(client.done(&answer).unwrap_err(), LoginError::Refused(refused));
}

#[test]
fn no_common_version_is_told() {
    let world = World::new();
    let error = world.login(|step, message| {
        if step == Step::Hello {
            let mut hello: LoginHello = Envelope::parse(message).unwrap().decode().unwrap();
            hello.versions = vec![7, 8];
            *message = encode(HELLO_REQUEST, &hello);
        }
    });
    let error = error.err().unwrap();
    assert_eq!(error, LoginError::Version { theirs: vec![7, 8] });
    assert_eq!(error.refusal().code, Code::Version);
}

#[test]
fn a_message_over_the_clear_cap_is_not_read() {
    let error = World::new().challenge(&vec![1; MAX_CLEAR + 1]).unwrap_err();
    assert_eq!(error, LoginError::Malformed(Malformed::TooLong));
}

#[test]
fn no_message_holds_the_token_in_any_spelling() {
    let spellings: Vec<Vec<u8>> = vec![
        TOKEN.to_string().into(),
        format!("{TOKEN:x}").into(),
        format!("{TOKEN:X}").into(),
        TOKEN.to_be_bytes().into(),
        TOKEN.to_le_bytes().into(),
        base64(&TOKEN.to_be_bytes()),
        base64(&TOKEN.to_le_bytes()),
        base64(TOKEN.to_string().as_bytes()),
    ];
    for node_token in [TOKEN, TOKEN - 1] {
        let mut seen = Vec::new();
        let world = World { node_token: Some(node_token), ..World::new() };
        let _ = world.login(|_, message| seen.extend_from_slice(message));
        assert!(seen.len() > 400, "{}", seen.len());
        for spelling in &spellings {
            assert!(!seen.windows(spelling.len()).any(|window| window == spelling), "{spelling:?}");
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let world = World::new();
    let (client, hello) = world.start();
    let (server, challenge) = world.challenge(&hello).unwrap();
    let shown = format!("{client:?} {server:?}");
    let (client, proof) = client.challenge(&challenge, &world.node).unwrap();
    let shown = format!("{shown} {client:?}");
    assert!(!shown.contains(&TOKEN.to_string()), "{shown}");
    let proved = server.prove(&proof).unwrap();
    // A key would show as a list of numbers.
    let shown = format!("{client:?} {:?}", proved.channel);
    assert!(!shown.contains('['), "{shown}");
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, at: u32| DIGITS[usize::try_from(group >> (18 - 6 * at) & 63).unwrap()];
    let groups = bytes.chunks_exact(3).map(|c| u32::from_be_bytes([0, c[0], c[1], c[2]]));
    groups.flat_map(|group| (0..4).map(move |at| digit(group, at))).collect()
}
