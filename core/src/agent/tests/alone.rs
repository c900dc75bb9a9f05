//! An agent alone, with a server of the test's own: whatever that one may say.

use proptest::prelude::*;

use super::*;
use crate::auth::SecureChannel;
use crate::auth::login::{PROOF_REQUEST, ServerLogin};
use crate::ids::{AttemptId, ConnId, PublicKey};
use crate::nat::NatReport;
use crate::path::RungSet;
use crate::relay::RelaySecret;
use crate::rng::Rng;
use crate::wire::encode;
use crate::wire::message::{
    LoginDone, PeerOnline, PunchStart, PunchStartReply, PushForward, PushRelayCheck, PushRelayKeys,
    PushRelayNews, PushRelayOffer, PushShares, RelayReport, RelaySecrets, kind,
};

/// What a server may ask of a node.
const PUSHES: [u16; 8] = [
    kind::PUNCH_START,
    kind::PEER_ONLINE,
    kind::PUSH_FORWARD,
    kind::PUSH_RELAY_KEYS,
    kind::PUSH_RELAY_CHECK,
    kind::PUSH_RELAY_OFFER,
    kind::PUSH_RELAY_NEWS,
    kind::PUSH_SHARES,
];

/// An agent that talks to a server of the test's own.
struct Alone {
    agent: Agent,
    now: Instant,
    conn: ConnId,
    channel: Option<SecureChannel>,
    rng: Rng,
}

impl Alone {
    fn new(setup: &Setup) -> Self {
        let now = World::new(1).now;
        let mut agent = Agent::new(setup.config(), None, [4; 32], now, secs(0)).unwrap();
        agent.handle(now, Input::Listening { tcp: 4000, udp: None });
        agent.handle(now, Input::Interfaces(&[[198, 51, 100, 7].into()]));
        Self { agent, now, conn: ConnId(1), channel: None, rng: Rng::new([5; 32]) }
    }

    fn tell(&mut self, message: &[u8]) {
        let conn = self.conn;
        self.agent.handle(self.now, Input::SignalReceived { conn, message });
    }

    /// Everything that was sent, as it went out.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(action) = self.agent.poll_action() {
            if let Action::SendSignal { message, .. } = action {
                sent.push(message);
            }
        }
        sent
    }

    fn log_in(&mut self) {
        let (conn, remote) = (self.conn, ([203, 0, 113, 1], 27183).into());
        self.agent.handle(self.now, Input::SignalOpened { conn, remote, tls: true });
        let hello = self.sent().remove(0);
        let identity = crate::world::identity(200);
        let token = |_: &_| Some(crate::world::token("12345678"));
        let (login, challenge) = ServerLogin::challenge(&hello, token, &identity, &mut self.rng).unwrap();
        self.tell(&challenge);
        let proof = self.sent().remove(0);
        let mut proved = login.prove(&proof).unwrap();
        let done = LoginDone {
            mac: proved.mac.into(),
            server_time_ms: 5_000_000,
            observed: ([198, 51, 100, 7], 5).into(),
            heartbeat_ms: 30_000,
            software: "9".to_owned(),
            stun: None,
            stun_relays: Vec::new(),
        };
        let message = proved.channel.sealer.seal(&encode(PROOF_REQUEST, &done));
        self.channel = Some(proved.channel);
        self.tell(&message);
        assert!(self.agent.status().server.connected);
    }

    /// Sends a message sealed and gives all that the agent has sent since.
    fn ask(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        let sealed = self.channel.as_mut().unwrap().sealer.seal(message);
        self.tell(&sealed);
        let sent = self.sent();
        let opener = &mut self.channel.as_mut().unwrap().opener;
        sent.iter().map(|message| opener.open(message).unwrap()).collect()
    }
}

fn punch(peer: &str, attempt: u8, key: PublicKey) -> PunchStart {
    PunchStart {
        attempt: AttemptId([attempt; 16]),
        peer: peer.parse().unwrap(),
        key,
        candidates: Vec::new(),
        rungs: RungSet::ALL,
        punch_key: [3; 32].into(),
        asked: false,
        targets: None,
        tcp_at_ms: None,
        relays: Vec::new(),
        nat: NatReport::default(),
    }
}

fn refused(answers: &[Vec<u8>], request: u32) -> Option<Code> {
    let answer = answers.iter().map(|answer| Envelope::parse(answer).unwrap());
    let answer = answer.into_iter().find(|answer| answer.request == request && answer.is_reply()).unwrap();
    answer.decode::<Refused>().ok().map(|refused| refused.code)
}

#[test]
fn every_request_of_the_server_is_answered() {
    let mut alone = Alone::new(&Setup::new("a", 1));
    alone.log_in();
    assert_eq!(alone.agent.unix(alone.now + secs(7)), secs(5_007));
    for unknown in (0..kind::REPLY).step_by(11) {
        if PUSHES.contains(&unknown) {
            continue;
        }
        let mut message = vec![1];
        message.extend(unknown.to_be_bytes());
        message.extend([0, 0, 0, 7, 0xc1]);
        assert_eq!(refused(&alone.ask(&message), 7), Some(Code::Unsupported));
    }
    for known in PUSHES {
        let mut message = vec![1];
        message.extend(known.to_be_bytes());
        // No map at all.
        message.extend([0, 0, 0, 8, 0xc1]);
        assert_eq!(refused(&alone.ask(&message), 8), Some(Code::BadRequest), "{known:#06x}");
    }
    assert_eq!(refused(&alone.ask(&encode(9, &punch("a", 1, key(7)))), 9), Some(Code::Oneself));
    assert_eq!(refused(&alone.ask(&encode(9, &punch("b", 1, key(1)))), 9), Some(Code::Oneself));
    let nothing = PunchStart { rungs: RungSet::NONE, ..punch("b", 1, key(2)) };
    assert_eq!(refused(&alone.ask(&encode(9, &nothing)), 9), Some(Code::NotAllowed));
    assert_eq!(refused(&alone.ask(&encode(10, &punch("b", 1, key(2)))), 10), None);
    assert_eq!(alone.agent.counters().attempts, 1);
    // The same attempt again is answered, and not begun again.
    assert_eq!(refused(&alone.ask(&encode(11, &punch("b", 1, key(2)))), 11), None);
    assert_eq!(alone.agent.counters().attempts, 1);
    // Replies to nothing are not.
    assert!(alone.ask(&encode(12, &PunchStartReply {})).is_empty());
    assert!(alone.ask(&encode(0, &Refused::new(Code::Busy, ""))).is_empty());
}

/// The first grievance with the original: what it did not know, or could not do, it did not answer.
#[test]
fn every_push_kind_is_answered() {
    let mut setup = Setup::new("a", 1);
    setup.relay = Some(RelayReport { super_relay: false, port: 27185, bandwidth_mbps: 10 });
    let mut alone = Alone::new(&setup);
    alone.log_in();
    let keys = RelaySecrets { user: vec![RelaySecret::new(1, [1; 32])], tickets: None };
    alone.ask(&encode(20, &punch("b", 1, key(2))));
    let offer = |attempt| PushRelayOffer {
        attempt: AttemptId([attempt; 16]),
        peer: "b".parse().unwrap(),
        offers: Vec::new(),
    };
    let pushes = [
        (encode(21, &PushRelayKeys { keys }), None),
        (encode(22, &PushRelayCheck { reachable: false, reason: "closed\u{7}".into() }), None),
        (encode(23, &offer(1)), None),
        (encode(24, &offer(2)), Some(Code::NotFound)),
        (encode(25, &PushRelayNews {}), None),
        (encode(26, &PushShares { shares: Vec::new() }), None),
        (encode(27, &PeerOnline { peers: vec!["b".parse().unwrap()] }), None),
        (encode(28, &PushForward { name: "x".into(), rule: None }), Some(Code::NotFound)),
    ];
    for (request, (push, code)) in (21..).zip(pushes) {
        assert_eq!(refused(&alone.ask(&push), request), code, "{request}");
    }
    let relay = alone.agent.status().relay;
    assert_eq!((relay.reachable, relay.reason.as_deref()), (false, Some("closed")));
}

#[test]
fn peers_that_reach_for_this_node_are_bounded_and_forwards_keep_their_place() {
    let mut alone = Alone::new(&Setup::new("a", 1).forward("2222:b:22"));
    alone.log_in();
    let mut busy = 0;
    for peer in 0..2 * MAX_PEERS {
        let start = PunchStart { attempt: AttemptId((peer as u128).to_be_bytes()), ..punch("b", 1, key(2)) };
        let start = PunchStart { peer: format!("n{peer}").parse().unwrap(), ..start };
        busy += usize::from(refused(&alone.ask(&encode(9, &start)), 9) == Some(Code::Busy));
    }
    assert_eq!(busy, MAX_PEERS + 1);
    // Once their attempts are over, they make room.
    for peer in 0..MAX_PEERS - 1 {
        let event = failed(AttemptId((peer as u128).to_be_bytes()));
        let peer: PeerName = format!("n{peer}").parse().unwrap();
        alone.agent.handle(alone.now, Input::Session { peer: &peer, event });
    }
    alone.ask(&encode(8, &Refused::new(Code::Other, "")));
    assert_eq!(refused(&alone.ask(&encode(9, &punch("new", 9, key(2)))), 9), None);
    assert!(alone.agent.status().peers.iter().any(|peer| peer.node == "b"));
}

#[test]
fn the_longest_report_fits_a_message() {
    let mut setup = Setup::new("a", 1);
    let rules: Vec<String> = (0..MAX_PEERS).map(|peer| format!("{}:{peer:0>64}:22", 1000 + peer)).collect();
    let rules: Vec<&'static str> = rules.into_iter().map(|rule| &*rule.leak()).collect();
    setup.forwards = rules;
    let mut alone = Alone::new(&setup);
    alone.log_in();
    let reports = alone.sent();
    assert!(reports[0].len() > 50_000 && reports[0].len() <= crate::wire::MAX_SEALED);
}

/// Kind, request id and body.
fn message() -> impl Strategy<Value = (u16, u32, Vec<u8>)> {
    (any::<u16>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..80))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_messages_harm_nobody(
        stage in 0..4,
        messages in prop::collection::vec(message(), 1..50),
    ) {
        let mut alone = Alone::new(&Setup::new("a", 1).forward("2222:b:22"));
        let (conn, remote) = (alone.conn, ([203, 0, 113, 1], 27183).into());
        match stage {
            0 => {}
            1 => alone.agent.handle(alone.now, Input::SignalOpened { conn, remote, tls: true }),
            _ => alone.log_in(),
        }
        for (kind, request, body) in messages {
            let mut message = vec![1];
            message.extend((kind & 0x80ff).to_be_bytes());
            message.extend(request.to_be_bytes());
            message.extend(&body);
            if stage == 3 {
                let answers = alone.ask(&message);
                let answered = answers.iter().any(|answer| {
                    let envelope = Envelope::parse(answer).unwrap();
                    envelope.request == request && envelope.is_reply()
                });
                prop_assert_eq!(kind & kind::REPLY == 0, answered);
            } else {
                alone.tell(&message);
                alone.now += Duration::from_millis(request.into()).min(secs(30));
                alone.agent.handle(alone.now, Input::Tick);
                let deadline = alone.agent.deadline();
                prop_assert!(deadline.is_none_or(|(at, _)| at > alone.now), "{:?}", deadline);
            }
            prop_assert!(alone.agent.peers.iter().count() <= MAX_PEERS);
        }
    }

    #[test]
    fn arbitrary_pins_are_read_or_refused(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = pins::Pins::load(Some(&content));
    }
}
