//! Answers, and the silence that is due to everything else.

use proptest::prelude::*;
use stun_types::message::MessageWriteVec;

use super::*;

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

fn reply_to(request: &[u8], source: &str) -> Vec<u8> {
    let mut out = [0; MAX_REPLY];
    let length = respond(request, source.parse().unwrap(), &mut out);
    out[..length].to_vec()
}

const SOURCE: &str = "192.0.2.1:32853";

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
    assert_eq!(reply_to(&with_fingerprint(&[]), "[2001:db8::1]:7").len(), MAX_REPLY);
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
    ] {
        assert!(reply_to(&message(1, &[]), source).is_empty(), "{source}");
    }
}

#[test]
fn a_buffer_without_room_gets_nothing() {
    let mut out = [0; MAX_REPLY - 1];
    assert_eq!(respond(&message(1, &[]), SOURCE.parse().unwrap(), &mut out), 0);
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

fn lawful(request: &[u8], reply: &[u8], source: SocketAddr) {
    let most = if source.is_ipv4() { 16 } else { 22 };
    assert!(reply.len() * 10 <= request.len() * most, "{} bytes for {}", reply.len(), request.len());
    if !reply.is_empty() {
        assert_eq!(request[..2], [0, 1]);
        assert!(Message::from_bytes(reply).unwrap().is_response());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_nor_amplify(
        request in prop::collection::vec(any::<u8>(), 0..128), ip: IpAddr, port: u16,
    ) {
        let source = SocketAddr::new(ip, port);
        lawful(&request, &reply_to(&request, &source.to_string()), source);
        let _ = message_length(&request);
    }

    #[test]
    fn arbitrary_attributes_never_panic_nor_amplify(
        kind in prop_oneof![8 => Just(1_u16), 1 => any::<u16>()],
        attributes in prop::collection::vec((0_u16..0x30, prop::collection::vec(any::<u8>(), 0..24)), 0..10),
        raw in prop::collection::vec(any::<u8>(), 0..6), ip: IpAddr, port in 1..=u16::MAX,
    ) {
        let source = SocketAddr::new(ip, port);
        let attributes: Vec<u8> = attributes
            .iter()
            .flat_map(|(kind, value)| attribute_of(*kind, value))
            .chain(raw)
            .collect();
        let request = message(kind, &attributes);
        lawful(&request, &reply_to(&request, &source.to_string()), source);
    }
}
