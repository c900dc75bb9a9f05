//! Every message survives the wire, and nothing else gets through.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use serde_bytes::{ByteArray, ByteBuf};

use super::*;
use crate::ids::{AttemptId, NodeName, PeerName, PublicKey, UserName};
use crate::nat::{Behaviour, Dependence, Finding, Lifetime, NatReport};
use crate::path::{Candidate, CandidateKind, Outcome, Rung, RungSet, Transport, Verdict};
use crate::relay::{Credential, RelayOffer, RelaySecret, TicketKey, Tier};
use crate::stun::proof::Proof;
use crate::wire::message::*;
use crate::wire::{Envelope, encode as encode_message};

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,64}"
}
fn node() -> impl Strategy<Value = NodeName> {
    name().prop_map(|name| name.parse().unwrap())
}
fn user() -> impl Strategy<Value = UserName> {
    name().prop_map(|name| name.parse().unwrap())
}
fn peer() -> impl Strategy<Value = PeerName> {
    (node(), prop::option::of(user())).prop_map(|(node, user)| PeerName { node, user })
}
fn key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(PublicKey)
}
fn attempt() -> impl Strategy<Value = AttemptId> {
    any::<[u8; 16]>().prop_map(AttemptId)
}
fn bytes<const N: usize>() -> impl Strategy<Value = ByteArray<N>> {
    prop::array::uniform::<_, N>(any::<u8>()).prop_map(ByteArray::new)
}
fn share() -> impl Strategy<Value = ByteBuf> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(ByteBuf::from)
}
fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}
fn rungs() -> impl Strategy<Value = RungSet> {
    prop::sample::subsequence(Rung::ALL.to_vec(), 0..=7).prop_map(|rungs| rungs.into_iter().collect())
}
fn candidate() -> impl Strategy<Value = Candidate> {
    let kind = prop::sample::select(vec![
        CandidateKind::Host,
        CandidateKind::ServerReflexive,
        CandidateKind::PeerReflexive,
    ]);
    let transport = prop::sample::select(vec![Transport::Udp, Transport::Tcp]);
    (kind, transport, address()).prop_map(|(kind, transport, address)| Candidate { kind, transport, address })
}
fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec(candidate(), 0..=MAX_CANDIDATES)
}
fn peers() -> impl Strategy<Value = Vec<PeerName>> {
    prop::collection::vec(peer(), 0..20)
}
fn outcome() -> impl Strategy<Value = Outcome> {
    let verdict = prop::sample::select(vec![Verdict::Connected, Verdict::Failed, Verdict::Skipped]);
    (prop::sample::select(Rung::ALL.to_vec()), verdict, ".{0,40}", any::<u64>())
        .prop_map(|(rung, outcome, reason, ms)| Outcome { rung, outcome, reason, ms })
}
fn code() -> impl Strategy<Value = Code> {
    prop::sample::select(vec![
        Code::Unsupported,
        Code::BadRequest,
        Code::Version,
        Code::WrongToken,
        Code::TooManyFailures,
        Code::NameTaken,
        Code::KeyInUse,
        Code::Replaced,
        Code::UnknownNode,
        Code::Offline,
        Code::Oneself,
        Code::Busy,
        Code::NotAllowed,
        Code::Timeout,
        Code::Other,
    ])
}
fn relay() -> impl Strategy<Value = RelayReport> {
    (any::<bool>(), any::<u16>(), any::<u32>()).prop_map(|(super_relay, port, bandwidth_mbps)| RelayReport {
        super_relay,
        port,
        bandwidth_mbps,
    })
}
fn rtts() -> impl Strategy<Value = Vec<RelayRtt>> {
    prop::collection::vec((key(), any::<u32>()).prop_map(|(relay, ms)| RelayRtt { relay, ms }), 0..=MAX_RTTS)
}
fn secrets() -> impl Strategy<Value = RelaySecrets> {
    let secret = (any::<u32>(), any::<[u8; 32]>()).prop_map(|(id, key)| RelaySecret::new(id, key));
    let tickets = (any::<u32>(), any::<[u8; 32]>()).prop_map(|(id, key)| TicketKey::new(id, key));
    (prop::collection::vec(secret, 0..=MAX_SECRETS), prop::option::of(tickets))
        .prop_map(|(user, tickets)| RelaySecrets { user, tickets })
}
fn targets() -> impl Strategy<Value = Targets> {
    let rule = prop::sample::select(vec!["127.0.0.1:22", "10.0.0.0/8:80,443", "db.lan:*", "[::1]:1-9"]);
    prop::collection::vec(rule.prop_map(|rule| rule.parse().unwrap()), 0..=8).prop_map(Targets)
}
fn shares() -> impl Strategy<Value = Vec<Share>> {
    prop::collection::vec((user(), targets()).prop_map(|(user, targets)| Share { user, targets }), 0..4)
}
fn offers() -> impl Strategy<Value = Vec<RelayOffer>> {
    let tier = prop::sample::select(vec![Tier::Private, Tier::Super, Tier::Server]);
    let offer = (attempt(), prop::option::of(peer()), tier, key(), address()).prop_map(
        |(attempt, relay, tier, key, address)| {
            let addresses = vec![address];
            let credential = Credential::Totp;
            RelayOffer { attempt, relay, tier, key, addresses, websocket: false, credential }
        },
    );
    prop::collection::vec(offer, 0..=MAX_OFFERS)
}
fn short() -> impl Strategy<Value = String> {
    ".{0,64}"
}

fn survives<M: Message + PartialEq + fmt::Debug>(request: u32, message: &M) {
    let bytes = encode_message(request, message);
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.request, request);
    assert_eq!(&envelope.decode::<M>().unwrap(), message);
}

fn nat() -> impl Strategy<Value = NatReport> {
    let finding = prop_oneof![
        Just(Finding::default()),
        Just(Finding { is: Dependence::AddressAndPortDependent, confirmed: true }),
    ];
    let behaviour = (any::<bool>(), finding, prop::option::of(any::<i32>()), any::<[u8; 16]>());
    let behaviour = behaviour.prop_map(|(known, mapping, port_step, proof)| Behaviour {
        translated: known.then_some(true),
        mapping,
        port_step,
        public: known.then(|| ([203, 0, 113, 7], 4000).into()),
        proof: known.then_some(Proof(proof)),
        lifetime: known.then_some(Lifetime { at_least: 60, below: None }),
        ..Behaviour::default()
    });
    let part = || prop::option::of(behaviour.clone());
    (part(), part(), part(), part()).prop_map(|(udp4, udp6, tcp4, tcp6)| NatReport { udp4, udp6, tcp4, tcp6 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn login_messages_survive_the_wire(
        request: u32, user in user(), node in node(), key in key(), nonce in bytes(), share in share(),
        versions in prop::collection::vec(any::<u8>(), 0..=MAX_VERSIONS),
        version: u8, signature in bytes(), mac in bytes(), observed in address(), server_time_ms: u64,
        heartbeat_ms: u64, software in short(), instance in prop::option::of(bytes()), udp: [u16; 2],
        tcp: [u16; 2], has_stun: bool, stun_relays in prop::collection::vec(address(), 0..=MAX_STUN_RELAYS),
    ) {
        let stun = has_stun.then_some(StunPorts { udp, tcp });
        let share_a = share.clone();
        survives(request, &LoginHello { versions, user, node, key, nonce, share: share_a, instance });
        survives(request, &LoginChallenge { version, key, nonce, share, signature });
        survives(request, &LoginProof { mac, signature });
        survives(request, &HeartbeatReply { server_time_ms, stun_relays: stun_relays.clone() });
        survives(
            request,
            &LoginDone { mac, server_time_ms, observed, heartbeat_ms, software, stun, stun_relays },
        );
    }

    #[test]
    fn reports_survive_the_wire(
        request: u32, software in short(), platform in short(), candidates in candidates(), rungs in rungs(),
        peers in peers(), outcomes in prop::collection::vec(outcome(), 0..=MAX_OUTCOMES),
        attempt in attempt(), code in code(), text in short(), server_time_ms: u64,
        relay in prop::option::of(relay()), rtts in rtts(), keys in secrets(), shares in shares(),
        nat in nat(),
    ) {
        survives(request, &Report { software, platform, candidates, rungs, peers: peers.clone(), relay, nat });
        let reply = ReportReply { online: peers.clone(), keys: keys.clone(), shares: shares.clone() };
        survives(request, &reply);
        survives(request, &PushRelayKeys { keys });
        survives(request, &PushShares { shares });
        survives(request, &PeerOnline { peers });
        survives(request, &PeerOnlineReply {});
        survives(request, &AttemptReport { attempt, outcomes, rtts });
        survives(request, &AttemptReportReply {});
        survives(request, &Refused { code, text });
        survives(request, &Heartbeat::default());
        let load = RelayLoad { sessions: 1, mbps: 2, bytes: server_time_ms };
        survives(request, &Heartbeat { rtt_ms: Some(3), relay: Some(load) });
        survives(request, &Goodbye {});
        survives(request, &GoodbyeReply {});
    }

    #[test]
    fn connects_and_pushes_survive_the_wire(
        request: u32, peer in peer(), candidates in candidates(), rungs in rungs(), attempt in attempt(),
        key in key(), punch_key in bytes(), asked: bool, name in short(), rule in prop::option::of(short()),
        exclude in prop::collection::vec(key(), 0..=MAX_EXCLUDED), targets in prop::option::of(targets()),
        relays in offers(), rtts in rtts(), reachable: bool, nat in nat(), tcp_at_ms: Option<u64>,
    ) {
        let connect =
            Connect { peer: peer.clone(), candidates: candidates.clone(), rungs, exclude: exclude.clone() };
        survives(request, &connect);
        survives(request, &RelayNodeReq { attempt, peer: peer.clone(), rungs, exclude, rtts });
        survives(request, &RelayNodeRsp { offers: relays.clone() });
        survives(request, &PushRelayOffer { attempt, peer: peer.clone(), offers: relays.clone() });
        survives(request, &PushRelayCheck { reachable, reason: name.clone() });
        survives(request, &PushRelayNews {});
        survives(request, &ConnectReply { attempt });
        let start = PunchStart {
            attempt, peer, key, candidates, rungs, punch_key, asked, targets, tcp_at_ms, relays, nat,
        };
        survives(request, &start);
        survives(request, &PunchStartReply {});
        survives(request, &PushForward { name: name.clone(), rule });
        survives(request, &PushForwardReply { listen: name });
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..512)) {
        decode_as_everything(&body);
    }

    #[test]
    fn damaged_messages_never_panic(
        candidates in candidates(), peers in peers(), at: prop::sample::Index, with: u8,
    ) {
        let report = Report {
            software: "1".into(), platform: "p".into(), candidates, rungs: RungSet::ALL, peers, relay: None,
            nat: NatReport::default(),
        };
        let mut body = Vec::new();
        encode(&report, &mut body);
        let at = at.index(body.len());
        body[at] = with;
        decode_as_everything(&body);
        decode_as_everything(&body[..at]);
    }

    #[test]
    fn what_is_skimmed_is_also_what_serde_consumes(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut deserializer = rmp_serde::Deserializer::new(std::io::Cursor::new(&body));
        let read = de::IgnoredAny::deserialize(&mut deserializer);
        if skim(&body).is_ok() {
            prop_assert!(read.is_ok());
            prop_assert_eq!(usize::try_from(deserializer.position()).unwrap(), body.len());
        }
    }
}

fn decode_as_everything(body: &[u8]) {
    let _ = decode::<Refused>(body);
    let _ = decode::<LoginHello>(body);
    let _ = decode::<LoginChallenge>(body);
    let _ = decode::<LoginProof>(body);
    let _ = decode::<LoginDone>(body);
    let _ = decode::<HeartbeatReply>(body);
    let _ = decode::<Report>(body);
    let _ = decode::<ReportReply>(body);
    let _ = decode::<Connect>(body);
    let _ = decode::<PunchStart>(body);
    let _ = decode::<AttemptReport>(body);
    let _ = decode::<PushForward>(body);
    let _ = decode::<PushForwardReply>(body);
}

/// `{"peers": <value>}`
fn peers_body(value: &[u8]) -> Vec<u8> {
    let mut body = vec![0x81, 0xa5];
    body.extend_from_slice(b"peers");
    body.extend_from_slice(value);
    body
}

#[test]
fn a_body_reads_as_another_implementation_would_write_it() {
    let mut body = Vec::new();
    encode(
        &Candidate {
            kind: CandidateKind::ServerReflexive,
            transport: Transport::Udp,
            address: "1.2.3.4:5".parse().unwrap(),
        }
        .in_a_connect(),
        &mut body,
    );
    let mut expected = vec![0x83, 0xa4];
    expected.extend_from_slice(b"peer\xa3b@u");
    expected.extend_from_slice(b"\xaacandidates\x91\x83");
    expected.extend_from_slice(b"\xa4kind\xb0server-reflexive");
    expected.extend_from_slice(b"\xa9transport\xa3udp");
    expected.extend_from_slice(b"\xa7address\xa91.2.3.4:5");
    expected.extend_from_slice(b"\xa5rungs\x91\xaatcp-direct");
    assert_eq!(body, expected);
}

impl Candidate {
    fn in_a_connect(self) -> Connect {
        let rungs = [Rung::TcpDirect].into_iter().collect();
        Connect { peer: "b@u".parse().unwrap(), candidates: vec![self], rungs, exclude: Vec::new() }
    }
}

#[test]
fn keys_are_binary() {
    let mut body = Vec::new();
    encode(&ConnectReply { attempt: AttemptId([7; 16]) }, &mut body);
    assert_eq!(body, [b"\x81\xa7attempt\xc4\x10".as_slice(), &[7; 16]].concat());
}

#[test]
fn unknown_fields_are_passed_over() {
    let body = b"\x83\xa3new\x91\x81\xa1x\xc4\x01\x00\xaeserver_time_ms\x05\xa4more\xcb\0\0\0\0\0\0\0\0";
    assert_eq!(
        decode::<HeartbeatReply>(body),
        Ok(HeartbeatReply { server_time_ms: 5, stun_relays: Vec::new() })
    );
}

#[test]
fn a_heartbeat_without_relays_is_answered_as_before_there_were_any() {
    let mut body = Vec::new();
    encode(&HeartbeatReply { server_time_ms: 5, stun_relays: Vec::new() }, &mut body);
    assert_eq!(body, b"\x81\xaeserver_time_ms\x05");
}

#[test]
fn unknown_codes_and_rungs_of_a_later_version_are_passed_over() {
    let refused = decode::<Refused>(b"\x82\xa4code\xaequantum-jammed\xa4text\xa0").unwrap();
    assert_eq!(refused.code, Code::Other);
    let body = b"\x83\xa4peer\xa1b\xaacandidates\x90\xa5rungs\x92\xa8by-light\xaatcp-direct";
    assert_eq!(decode::<Connect>(body).unwrap().rungs.iter().collect::<Vec<_>>(), [Rung::TcpDirect]);
}

#[test]
fn a_missing_field_is_refused_by_name() {
    let Err(Malformed::Fields(reason)) = decode::<HeartbeatReply>(b"\x80") else { panic!("decoded") };
    assert!(reason.contains("server_time_ms"), "{reason}");
}

#[test]
fn trailing_bytes_are_refused() {
    assert_eq!(decode::<Heartbeat>(b"\x80\xc0"), Err(Malformed::Structure));
}

#[test]
fn positions_in_place_of_names_are_refused() {
    assert_eq!(decode::<HeartbeatReply>(b"\x91\x05"), Err(Malformed::Structure));
    assert_eq!(decode::<HeartbeatReply>(b"\x81\x00\x05"), Err(Malformed::Structure));
}

#[test]
fn a_false_length_is_refused_before_anything_is_reserved() {
    for value in [
        [0xdd, 0xff, 0xff, 0xff, 0xff].as_slice(),
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0xc6, 0xff, 0xff, 0xff, 0xff],
        &[0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0xdc, 0xff, 0xff],
        &[0xdc, 0x04, 0x00],
    ] {
        assert_eq!(decode::<PeerOnline>(&peers_body(value)), Err(Malformed::Structure), "{value:x?}");
    }
    // Even with the bytes there, a list is bounded: 65,535 names of one letter.
    let mut value = vec![0xdc, 0xff, 0xff];
    value.extend((0..65_535).flat_map(|_| [0xa1, b'a']));
    assert_eq!(decode::<PeerOnline>(&peers_body(&value)), Err(Malformed::Structure));
}

#[test]
fn lists_end_at_their_own_caps() {
    let list_of = |count: u8| {
        let outcomes = (0..count).map(|ms| Outcome {
            rung: Rung::UdpDirect,
            outcome: Verdict::Failed,
            reason: String::new(),
            ms: ms.into(),
        });
        let mut body = Vec::new();
        encode(
            &AttemptReport { attempt: AttemptId([0; 16]), outcomes: outcomes.collect(), rtts: Vec::new() },
            &mut body,
        );
        decode::<AttemptReport>(&body)
    };
    assert!(list_of(16).is_ok());
    assert!(matches!(list_of(17), Err(Malformed::Fields(_))));
}

#[test]
fn texts_end_at_their_own_caps() {
    let text_of = |length| {
        let mut body = Vec::new();
        encode(&PushForward { name: "n".repeat(length), rule: Some("r".repeat(2 * length)) }, &mut body);
        decode::<PushForward>(&body)
    };
    assert!(text_of(MAX_TEXT).is_ok());
    assert!(matches!(text_of(MAX_TEXT + 1), Err(Malformed::Fields(_))));
}

#[test]
fn a_refusal_is_cut_to_what_the_other_side_takes() {
    let refused = Refused::new(Code::Busy, "ü".repeat(200));
    assert!(refused.text.len() <= MAX_TEXT);
    survives(1, &refused);
    assert_eq!(Refused::new(Code::Busy, "\x1b[31mred\n").to_string(), "[31mred");
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| peers_body(&[vec![0x91; depth], vec![0xc0]].concat());
    assert!(skim(&nested(MAX_DEPTH - 1)).is_ok());
    assert_eq!(skim(&nested(MAX_DEPTH)), Err(Malformed::Structure));
    assert_eq!(skim(&nested(60_000)), Err(Malformed::Structure));
}

#[test]
fn extension_types_are_refused() {
    assert_eq!(skim(&peers_body(&[0xd4, 0, 0])), Err(Malformed::Structure));
    assert_eq!(skim(&peers_body(&[0xc7, 1, 0, 0])), Err(Malformed::Structure));
}
