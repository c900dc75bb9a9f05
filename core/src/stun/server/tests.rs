//! Answers, and the silence that is due to everything else.

use proptest::prelude::*;
use stun_types::message::MessageWriteVec;

use super::*;
use crate::stun::attribute::address_of;
use crate::stun::client::{self, Ask};

/// The transaction id of RFC 5769's vectors.
const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

/// RFC 5769 section 2.1: a request as ICE makes it.
const ICE_REQUEST: &[u8] =
    b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10STUN test client\
    \x00\x24\x00\x04\x6e\x00\x01\xff\
    \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
    \x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\
    \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap();
    let cookie = [0x21, 0x12, 0xa4, 0x42];
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), &cookie, &TRANSACTION, attributes].concat()
}

fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    let padding = vec![0; value.len().wrapping_neg() % 4];
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), value, &padding].concat()
}

fn with_fingerprint(attributes: &[u8]) -> Vec<u8> {
    let mut bytes = message(1, &[attributes, &[0; 8]].concat());
    let at = bytes.len() - 8;
    let sum = Fingerprint::compute(&[&bytes[..at]]);
    let key = [0x53, 0x54, 0x55, 0x4e];
    bytes[at..at + 4].copy_from_slice(&[0x80, 0x28, 0, 4]);
    for i in 0..4 {
        bytes[at + 4 + i] = sum[i] ^ key[i];
    }
    bytes
}

/// The answer of a server with one address.
fn reply_to(request: &[u8], source: &str) -> Vec<u8> {
    answer(request, &arrival(Transport::Udp, source)).map_or_else(Vec::new, |(bytes, _)| bytes)
}

fn answer(request: &[u8], arrival: &Arrival) -> Option<(Vec<u8>, Answer)> {
    let mut out = [0; MAX_REPLY];
    let answer = responder().respond(request, arrival, &mut out)?;
    Some((out[..answer.length].to_vec(), answer))
}

fn responder() -> Responder {
    Responder::new(ProofKey::new([9; 32]), [27182, 27183])
}

fn arrival(transport: Transport, source: &str) -> Arrival {
    let source = source.parse().unwrap();
    let unix = Duration::from_secs(1_780_000_000);
    Arrival { transport, source, origin: None, other: None, unix, busy: false }
}

/// At a server with a second address.
fn arrival_at_two(source: &str) -> Arrival {
    let source: SocketAddr = source.parse().unwrap();
    let (origin, other) = if source.is_ipv4() {
        ("203.0.113.1:27182", "203.0.113.2:27183")
    } else {
        ("[2001:db8::1]:27182", "[2001:db8::2]:27183")
    };
    let addresses = (origin.parse().ok(), other.parse().ok());
    Arrival { origin: addresses.0, other: addresses.1, ..arrival(Transport::Udp, &source.to_string()) }
}

const SOURCE: &str = "192.0.2.1:32853";
const SOURCE_V6: &str = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";

#[test]
fn the_mapped_address_is_that_of_rfc_5769() {
    let reply = reply_to(&message(1, &[]), SOURCE);
    // Section 2.2.
    let address = b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";
    assert_eq!(reply, message(0x0101, address));

    let reply = reply_to(&message(1, &[]), "[2001:db8:1234:5678:11:2233:4455:6677]:32853");
    // Section 2.3.
    let address =
        b"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9";
    assert_eq!(reply, message(0x0101, address));
}

#[test]
fn an_independent_reader_finds_the_address() {
    for source in [SOURCE, "[2001:db8::1]:7", "127.0.0.1:1"] {
        for request in [message(1, &[]), with_fingerprint(&[])] {
            let reply = reply_to(&request, source);
            let reply = Message::from_bytes(&reply).unwrap();
            let mapped: XorMappedAddress = reply.attribute().unwrap();
            assert_eq!(mapped.addr(reply.transaction_id()), source.parse().unwrap());
        }
    }
}

#[test]
fn a_fingerprint_is_answered_by_a_fingerprint() {
    let bare = reply_to(&message(1, &[]), SOURCE);
    assert_eq!(bare.len(), 32);
    let reply = reply_to(&with_fingerprint(&[]), SOURCE);
    assert_eq!(reply.len(), 40);
    // The library's reader checks the sum.
    assert!(Message::from_bytes(&reply).unwrap().has_attribute(Fingerprint::TYPE));
    assert_eq!(reply_to(&with_fingerprint(&[]), "[2001:db8::1]:7").len(), 52);
}

#[test]
fn a_wrong_fingerprint_gets_no_answer() {
    let good = with_fingerprint(&attribute_of(0x8022, b"test"));
    assert!(!reply_to(&good, SOURCE).is_empty());
    // The sum covers the transaction id and everything between.
    for at in 8..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x40;
        let is_still_a_fingerprint = !(good.len() - 8..good.len() - 4).contains(&at);
        let reply = reply_to(&damaged, SOURCE);
        assert!(reply.is_empty() || !is_still_a_fingerprint, "byte {at}");
    }
}

#[test]
fn a_fingerprint_that_is_not_last_gets_no_answer() {
    let first = with_fingerprint(&[]);
    let behind = [&first[20..], &attribute_of(0x8022, b"more")].concat();
    assert!(reply_to(&message(1, &behind), SOURCE).is_empty());
}

#[test]
fn an_ipv4_client_on_a_socket_of_both_families_sees_its_ipv4_address() {
    assert_eq!(reply_to(&message(1, &[]), "[::ffff:192.0.2.1]:32853"), reply_to(&message(1, &[]), SOURCE));
}

#[test]
fn unknown_attributes_are_named_in_a_420() {
    let attributes = [
        attribute_of(0x0003, &[0, 0, 0, 6]),
        attribute_of(0x7abc, b"x"),
        attribute_of(0x0003, &[0, 0, 0, 2]),
        attribute_of(0xfabc, b"optional"),
    ];
    let reply = reply_to(&message(1, &attributes.concat()), SOURCE);
    let error = b"\x00\x09\x00\x04\x00\x00\x04\x14\x00\x0a\x00\x04\x00\x03\x7a\xbc";
    assert_eq!(reply, message(0x0111, error));
}

#[test]
fn many_unknown_attributes_do_not_make_a_long_answer() {
    let attributes: Vec<u8> = (0x100..0x180).flat_map(|kind| attribute_of(kind, b"")).collect();
    let reply = reply_to(&message(1, &attributes), SOURCE);
    let reply = Message::from_bytes(&reply).unwrap();
    let unknown: UnknownAttributes = reply.attribute().unwrap();
    assert!((0x100..0x106).all(|kind| unknown.has_attribute(kind.into())));
    assert!(!unknown.has_attribute(0x106.into()));
}

#[test]
fn an_ice_request_is_read_and_told_what_is_not_understood() {
    let reply = reply_to(ICE_REQUEST, SOURCE);
    let reply = Message::from_bytes(&reply).unwrap();
    assert_eq!(reply.attribute::<ErrorCode>().unwrap().code(), 420);
    // PRIORITY; USERNAME and MESSAGE-INTEGRITY are known.
    let unknown: UnknownAttributes = reply.attribute().unwrap();
    assert_eq!(unknown, UnknownAttributes::new(&[0x24.into()]));
}

#[test]
fn credentials_are_passed_over() {
    let username = attribute_of(0x0006, b"evtj:h6vY");
    let integrity = attribute_of(0x0008, &[0; 20]);
    // What comes behind the integrity does not count.
    let ignored = attribute_of(0x7abc, b"x");
    let reply = reply_to(&message(1, &[username, integrity, ignored].concat()), SOURCE);
    assert_eq!(reply, reply_to(&message(1, &[]), SOURCE));
}

#[test]
fn nothing_but_binding_requests_is_answered() {
    // Indication, success, error; Allocate and others; no kind at all.
    for kind in [0x0011, 0x0101, 0x0111, 0x0003, 0x0000, 0x0002, 0x3eef] {
        assert!(reply_to(&message(kind, &[]), SOURCE).is_empty(), "{kind:#06x}");
    }
    let reply = reply_to(&message(1, &[]), SOURCE);
    assert!(reply_to(&reply, SOURCE).is_empty(), "a reply is never answered");
}

#[test]
fn what_is_malformed_gets_no_answer() {
    let good = message(1, &attribute_of(0x8022, b"test"));
    for length in 0..good.len() {
        assert!(reply_to(&good[..length], SOURCE).is_empty(), "cut to {length}");
    }
    assert!(reply_to(&[&good[..], b"more"].concat(), SOURCE).is_empty(), "bytes behind the message");
    let mut cookie = good;
    cookie[4] ^= 1;
    assert!(reply_to(&cookie, SOURCE).is_empty(), "no cookie, as in RFC 3489");
    assert!(reply_to(&message(1, &[0x80, 0x22, 0, 9, 1, 2, 3, 4]), SOURCE).is_empty(), "too long a value");
    assert!(reply_to(&message(1, &[0x80, 0x22, 0]), SOURCE).is_empty(), "half an attribute");
    assert!(reply_to(&message(1, &[0; MAX_REQUEST]), SOURCE).is_empty(), "too long");
}

#[test]
fn nobody_at_an_impossible_address_is_answered() {
    for source in [
        "192.0.2.1:0",
        "0.0.0.0:5",
        "255.255.255.255:5",
        "224.0.0.1:5",
        "[::]:5",
        "[ff02::1]:5",
        "[::ffff:0.0.0.0]:5",
        "[::ffff:224.0.0.1]:5",
        // Our own STUN ports, or those of a server like ours.
        "192.0.2.1:27182",
        "127.0.0.1:27183",
    ] {
        assert!(reply_to(&message(1, &[]), source).is_empty(), "{source}");
    }
}

#[test]
fn a_buffer_without_room_gets_nothing() {
    let mut out = [0; MAX_REPLY - 1];
    assert_eq!(responder().respond(&message(1, &[]), &arrival(Transport::Udp, SOURCE), &mut out), None);
}

#[test]
fn the_length_of_a_message_on_a_stream_is_known_from_its_header() {
    let whole = message(1, &attribute_of(0x8022, b"test"));
    for length in 0..20 {
        assert_eq!(message_length(&whole[..length]), Ok(20), "{length}");
    }
    for length in 20..whole.len() {
        assert_eq!(message_length(&whole[..length]), Ok(whole.len()));
    }
    assert_eq!(message_length(&[whole.clone(), whole.clone()].concat()), Ok(whole.len()));
    assert_eq!(message_length(b"GET / HTTP/1.1"), Err(NotStun));
    assert_eq!(message_length(&[0, 1, 0, 0, 0x21, 0x13]), Err(NotStun));
    assert_eq!(message_length(&message(1, &[0; MAX_REQUEST])), Err(NotStun));
}

#[test]
fn the_librarys_own_requests_are_answered() {
    let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
    request.add_fingerprint().unwrap();
    assert_eq!(reply_to(&request.finish(), SOURCE).len(), 40);
}

#[test]
fn a_second_address_is_told_and_answered_from() {
    for (source, bare) in [(SOURCE, 44), (SOURCE_V6, 68)] {
        let at = arrival_at_two(source);
        let (reply, answered) = answer(&message(1, &[]), &at).unwrap();
        assert_eq!(reply.len(), bare);
        assert_eq!(answered, Answer { length: bare, to: at.source, change: Change::default() });
        let value = RawAttributeOf::find(&reply, OTHER_ADDRESS).unwrap();
        assert_eq!(address_of(&value), at.other);
        assert_eq!(RawAttributeOf::find(&reply, RESPONSE_ORIGIN), None);

        let (origin, other) = (at.origin.unwrap(), at.other.unwrap());
        for (flags, change, from) in [
            (0, Change { ip: false, port: false }, origin),
            (2, Change { ip: false, port: true }, SocketAddr::new(origin.ip(), other.port())),
            (4, Change { ip: true, port: false }, SocketAddr::new(other.ip(), origin.port())),
            (6, Change { ip: true, port: true }, other),
        ] {
            let request = message(1, &attribute_of(0x0003, &[0, 0, 0, flags]));
            let (reply, answered) = answer(&request, &at).unwrap();
            assert_eq!(answered.change, change);
            let value = RawAttributeOf::find(&reply, RESPONSE_ORIGIN).unwrap();
            assert_eq!(address_of(&value), Some(from));
        }
    }
}

#[test]
fn response_port_leads_to_another_port_of_the_host_that_asks() {
    let request = |port: u16| message(1, &attribute_of(0x0027, &port.to_be_bytes()));
    let at_two = arrival_at_two(SOURCE);
    let (reply, answer_to) = answer(&request(40_000), &at_two).unwrap();
    assert_eq!((reply[0], answer_to.to), (1, "192.0.2.1:40000".parse().unwrap()));
    // A port of a known service, another STUN server, nobody.
    for port in [53, 1023, 27182, 27183, 0] {
        assert!(answer(&request(port), &at_two).is_none(), "{port}");
    }
    assert!(answer(&request(40_000), &Arrival { busy: true, ..at_two }).is_none());
    // RFC 5780 is for servers with two addresses.
    let (reply, _) = answer(&request(40_000), &arrival(Transport::Udp, SOURCE)).unwrap();
    assert_eq!(&reply[..2], [1, 0x11], "refused");
    let tcp = Arrival { transport: Transport::Tcp, ..at_two };
    assert_eq!(&answer(&request(40_000), &tcp).unwrap().0[..2], [1, 0x11]);
}

#[test]
fn padding_is_refused_and_not_returned() {
    let request = message(1, &attribute_of(0x0026, &[0; 1500]));
    let (reply, _) = answer(&request, &arrival_at_two(SOURCE)).unwrap();
    assert!(reply[..2] == [1, 0x11] && reply.len() <= 52);
}

#[test]
fn change_request_needs_a_second_address_and_udp() {
    let request = message(1, &attribute_of(0x0003, &[0, 0, 0, 6]));
    let refused = b"\x00\x09\x00\x04\x00\x00\x04\x14\x00\x0a\x00\x02\x00\x03\x00\x00";
    assert_eq!(reply_to(&request, SOURCE), message(0x0111, refused));
    let over_tcp = Arrival { transport: Transport::Tcp, ..arrival_at_two(SOURCE) };
    assert_eq!(answer(&request, &over_tcp).unwrap().0, message(0x0111, refused));
    for value in [&[][..], &[6], &[0; 8]] {
        let request = message(1, &attribute_of(0x0003, value));
        assert_eq!(answer(&request, &arrival_at_two(SOURCE)), None, "{value:?}");
    }
    assert_eq!(RawAttributeOf::find(&reply_to(&message(1, &[]), SOURCE), OTHER_ADDRESS), None);
}

#[test]
fn the_other_port_is_there_for_our_own_nodes() {
    let request = client::request(TRANSACTION, Ask::OtherPort);
    let (_, answered) = answer(&request, &arrival(Transport::Udp, SOURCE)).unwrap();
    assert_eq!(answered.change, Change { ip: false, port: true });
    let (_, answered) = answer(&request, &arrival(Transport::Tcp, SOURCE)).unwrap();
    assert_eq!(answered.change, Change::default());
}

#[test]
fn a_proof_is_given_to_those_who_ask_at_length() {
    for at in [arrival(Transport::Udp, SOURCE), arrival(Transport::Tcp, SOURCE), arrival_at_two(SOURCE_V6)] {
        let request = client::request(TRANSACTION, Ask::Proof);
        let (reply, _) = answer(&request, &at).unwrap();
        assert!(reply.len() <= request.len());
        let Some(client::Message::Answer(TRANSACTION, Ok(seen))) = client::read(&reply) else { panic!() };
        assert_eq!((seen.mapped, seen.other), (at.source, at.other));
        let proofs = ProofKey::new([9; 32]);
        assert!(proofs.verify(at.transport, at.source, &seen.proof.unwrap(), at.unix));

        let short = message(1, &attribute_of(0xc2f0, &[]));
        let (reply, _) = answer(&short, &at).unwrap();
        assert_eq!(RawAttributeOf::find(&reply, ADDRESS_PROOF), None);
        assert!(!reply.is_empty(), "the rest is answered");
    }
}

#[test]
fn an_answer_goes_to_another_port_only_with_its_proof() {
    for mut at in [arrival(Transport::Udp, SOURCE), arrival_at_two(SOURCE_V6)] {
        let to = SocketAddr::new(at.source.ip(), 4000);
        let proof = ProofKey::new([9; 32]).prove(Transport::Udp, to, at.unix);
        let request = client::request(TRANSACTION, Ask::ReturnTo(4000, proof));
        at.unix += Duration::from_secs(600);
        let (reply, answered) = answer(&request, &at).unwrap();
        assert_eq!(answered.to, to);
        assert!(reply.len() <= request.len());

        let forged = [
            (client::request(TRANSACTION, Ask::ReturnTo(4001, proof)), at),
            (client::request(TRANSACTION, Ask::ReturnTo(4000, Proof([0; 16]))), at),
            (request.clone(), Arrival { source: (([192, 0, 2, 2]), 1).into(), ..at }),
            (request.clone(), Arrival { busy: true, ..at }),
            (request.clone(), Arrival { unix: at.unix + Duration::from_secs(600), ..at }),
        ];
        for (request, at) in forged {
            assert_eq!(answer(&request, &at), None);
        }
        // Without the padding the answer of a server with two IPv6 addresses would be longer.
        let short = message(1, &request[20..44]);
        assert_eq!(answer(&short, &at).is_some(), at.other.is_none());
    }
}

/// The value of an attribute in a message.
struct RawAttributeOf;

impl RawAttributeOf {
    fn find(message: &[u8], kind: AttributeType) -> Option<Vec<u8>> {
        let message = Message::from_bytes(message).unwrap();
        message.raw_attribute(kind).map(|raw| raw.value.to_vec())
    }
}

/// What holds for every answer: it is an answer, and it is no good for reflection.
fn lawful(request: &[u8], answered: Option<(Vec<u8>, Answer)>, arrival: &Arrival) {
    let Some((reply, answered)) = answered else { return };
    let (length, ipv4) = (reply.len(), arrival.source.is_ipv4());
    assert_eq!(request[..2], [0, 1]);
    let read = Message::from_bytes(&reply).unwrap();
    assert!(read.is_response());
    // 1.6 and 2.2 times the request with one address, 2.2 and 3.4 times with two.
    let most = match (arrival.other.is_some(), ipv4) {
        (false, true) => 16,
        (false, false) | (true, true) => 22,
        (true, false) => 34,
    };
    assert!(length * 10 <= request.len() * most, "{length} bytes for {}", request.len());
    if request.len() == 20 {
        assert!(length <= if ipv4 { 52 } else { 92 });
    }
    let redirected = answered.to != arrival.source;
    // RESPONSE-PORT leads to where a forged source would lead as well.
    if read.has_attribute(ADDRESS_PROOF) || (redirected && !may_ask_for_port(request)) {
        assert!(length <= request.len());
    }
    assert_eq!(answered.to.ip(), arrival.source.ip());
    assert!(arrival.other.is_some() || !answered.change.ip);
}

/// Whether a RESPONSE-PORT is anywhere in the request.
fn may_ask_for_port(request: &[u8]) -> bool {
    request.chunks(4).any(|word| word.starts_with(&RESPONSE_PORT.value().to_be_bytes()))
}

fn sources() -> impl Strategy<Value = (SocketAddr, bool)> {
    (any::<IpAddr>(), any::<u16>(), any::<bool>())
        .prop_map(|(ip, port, two)| (SocketAddr::new(ip.to_canonical(), port), two))
}

fn any_arrival((source, two): (SocketAddr, bool), tcp: bool) -> Arrival {
    let source = source.to_string();
    let at = if two { arrival_at_two(&source) } else { arrival(Transport::Udp, &source) };
    Arrival { transport: if tcp { Transport::Tcp } else { Transport::Udp }, ..at }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_nor_amplify(
        request in prop::collection::vec(any::<u8>(), 0..128), source in sources(), tcp: bool,
    ) {
        let at = any_arrival(source, tcp);
        lawful(&request, answer(&request, &at), &at);
        let _ = message_length(&request);
    }

    #[test]
    fn arbitrary_attributes_never_panic_nor_amplify(
        kind in prop_oneof![8 => Just(1_u16), 1 => any::<u16>()],
        attributes in prop::collection::vec(
            (
                prop_oneof![0_u16..0x30, 0xc2ef_u16..0xc2f4],
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..24),
                    prop::collection::vec(any::<u8>(), 4),
                    prop::collection::vec(any::<u8>(), 60..70),
                ],
            ),
            0..6,
        ),
        raw in prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 0..6)],
        fingerprint: bool, source in sources(), tcp: bool,
    ) {
        let attributes: Vec<u8> = attributes
            .iter()
            .flat_map(|(kind, value)| attribute_of(*kind, value))
            .chain(raw)
            .collect();
        let request = if fingerprint { with_fingerprint(&attributes) } else { message(kind, &attributes) };
        let at = any_arrival(source, tcp);
        lawful(&request, answer(&request, &at), &at);
    }
}

/// What a relay answers.
fn relays_answer(request: &[u8], arrival: &Arrival) -> Option<(Vec<u8>, Answer)> {
    let mut out = [0; MAX_REPLY];
    let answer = Responder::of_relay().respond(request, arrival, &mut out)?;
    Some((out[..answer.length].to_vec(), answer))
}

#[test]
fn a_relay_answers_as_a_server_does_but_proves_nothing() {
    let arrival = arrival(Transport::Udp, SOURCE);
    assert_eq!(
        relays_answer(&message(1, &[]), &arrival).map(|(bytes, _)| bytes),
        Some(reply_to(&message(1, &[]), SOURCE))
    );
    // Neither a proof, nor another port, nor anything longer than what was asked.
    for ask in [Ask::Proof, Ask::OtherPort] {
        let (bytes, answer) = relays_answer(&client::request(TRANSACTION, ask), &arrival).unwrap();
        // The address, and a fingerprint as the request had one.
        assert_eq!((bytes.len(), answer.change, answer.to), (40, Change::default(), arrival.source));
    }
    let proof = ProofKey::new([9; 32]).prove(Transport::Udp, SOURCE.parse().unwrap(), arrival.unix);
    assert!(relays_answer(&client::request(TRANSACTION, Ask::ReturnTo(32853, proof)), &arrival).is_none());
    let change = Ask::Change(Change { ip: true, port: true });
    let (bytes, _) = relays_answer(&client::request(TRANSACTION, change), &arrival).unwrap();
    assert!(matches!(client::read(&bytes), Some(client::Message::Answer(_, Err(420)))));
    // From any port: nodes may all be given the same one.
    for port in [27182, 27183, 4000] {
        let from = format!("192.0.2.1:{port}");
        let arrival = Arrival { source: from.parse().unwrap(), ..arrival };
        assert!(relays_answer(&message(1, &[]), &arrival).is_some());
    }
    assert!(relays_answer(&message(0x0101, &[]), &arrival).is_none(), "an answer is never answered");
}

#[test]
fn a_relay_answers_to_another_port_of_the_same_address_when_it_is_at_ease() {
    for (source, length) in [(SOURCE, 40), (SOURCE_V6, 52)] {
        let arrival = arrival(Transport::Udp, source);
        let request = client::request(TRANSACTION, Ask::ToPort(4001));
        let (bytes, answer) = relays_answer(&request, &arrival).unwrap();
        assert_eq!((answer.to, bytes.len()), (SocketAddr::new(arrival.source.ip(), 4001), length));
        assert!(bytes.len() <= request.len());
        assert!(relays_answer(&request, &Arrival { busy: true, ..arrival }).is_none());
        for port in [0, 53, 1023] {
            assert!(relays_answer(&client::request(TRANSACTION, Ask::ToPort(port)), &arrival).is_none());
        }
        // An answer that would be longer than its request is none.
        let bare = message(1, &attribute_of(0x0027, &[0x0f, 0xa1]));
        assert!(relays_answer(&bare, &arrival).is_none());
    }
}
