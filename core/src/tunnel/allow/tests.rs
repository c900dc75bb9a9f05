//! What gets through, and what does not, however it is spelt.

use proptest::prelude::*;

use super::*;

fn allow(rules: &[&str]) -> Allow {
    rules.iter().map(|rule| rule.parse::<AllowRule>().unwrap_or_else(|error| panic!("{error}"))).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// How the target `spelling:80` fares before anything is resolved: by address if it is one, else by name.
fn judge(allow: &Allow, spelling: &str) -> Verdict {
    match format!("{spelling}:80").parse::<Target>() {
        Err(_) => Verdict::NoTarget,
        Ok(target) => match &target.host {
            Host::Address(ip) if allow.permits(&target, *ip) => Verdict::Dialled,
            Host::Address(_) => Verdict::Refused,
            Host::Name(name) if allow.by_name(name, 80) => Verdict::Dialled,
            Host::Name(_) => Verdict::OnlyAsWhatItResolvesTo,
        },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Dialled,
    Refused,
    /// A name that no rule names.
    OnlyAsWhatItResolvesTo,
    NoTarget,
}

#[test]
fn every_spelling_of_an_address_is_judged_as_that_address() {
    use Verdict::{Dialled, NoTarget, OnlyAsWhatItResolvesTo, Refused};

    // By default only loopback; and with everything opened that a careless rule can open.
    let default = Allow::default();
    let wide = allow(&["0.0.0.0/0:*", "::/0:*"]);
    for (spelling, by_default, at_most) in [
        // Loopback.
        ("127.0.0.1", Dialled, Dialled),
        ("127.0.0.2", Dialled, Dialled),
        ("127.255.255.254", Dialled, Dialled),
        ("[::1]", Dialled, Dialled),
        ("[0:0:0:0:0:0:0:1]", Dialled, Dialled),
        ("[0000:0000:0000:0000:0000:0000:0000:0001]", Dialled, Dialled),
        ("[::0001]", Dialled, Dialled),
        ("[::ffff:127.0.0.1]", Dialled, Dialled),
        ("[::ffff:7f00:1]", Dialled, Dialled),
        ("[::FFFF:7F00:0001]", Dialled, Dialled),
        ("[0:0:0:0:0:ffff:127.0.0.1]", Dialled, Dialled),
        ("[::127.0.0.1]", Dialled, Dialled),
        ("[64:ff9b::127.0.0.1]", Refused, Refused),
        ("[64:ff9b::7f00:1]", Refused, Refused),
        // Spellings that only some resolvers take for an address.
        ("127.1", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("127.0.1", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("0177.0.0.1", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("0x7f.0.0.1", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("0x7f000001", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("2130706433", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("017700000001", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("127.0.0.01", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("127.0.0.1.", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("0", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("localhost", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("LOCALHOST.", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("127.0.0.1.nip.io", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("169.254.169.254.nip.io", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        ("256.0.0.1", OnlyAsWhatItResolvesTo, OnlyAsWhatItResolvesTo),
        // No target at all.
        ("", NoTarget, NoTarget),
        (" 127.0.0.1", NoTarget, NoTarget),
        ("127.0.0.1 ", NoTarget, NoTarget),
        ("127.0.0.1\0", NoTarget, NoTarget),
        ("127.0.0.1\n", NoTarget, NoTarget),
        ("127\u{3002}0.0.1", NoTarget, NoTarget),
        ("\u{2460}27.0.0.1", NoTarget, NoTarget),
        ("user@127.0.0.1", NoTarget, NoTarget),
        ("127.0.0.1/8", NoTarget, NoTarget),
        ("127.0.0.1#x", NoTarget, NoTarget),
        ("::1", NoTarget, NoTarget),
        ("[::1", NoTarget, NoTarget),
        ("[::1%lo]", NoTarget, NoTarget),
        ("[127.0.0.1]", NoTarget, NoTarget),
        ("[[::1]]", NoTarget, NoTarget),
        ("-127.0.0.1", NoTarget, NoTarget),
        (".localhost", NoTarget, NoTarget),
        // Unspecified and "this network": a way to the own host that is not called loopback.
        ("0.0.0.0", Refused, Refused),
        ("0.0.0.1", Refused, Refused),
        ("0.255.255.255", Refused, Refused),
        ("[::]", Refused, Refused),
        ("[0:0:0:0:0:0:0:0]", Refused, Refused),
        ("[::ffff:0.0.0.0]", Refused, Refused),
        ("[::ffff:0:0]", Refused, Refused),
        ("[64:ff9b::]", Refused, Refused),
        ("[::2]", Refused, Refused),
        // Link-local, with the address of cloud metadata.
        ("169.254.169.254", Refused, Refused),
        ("169.254.0.0", Refused, Refused),
        ("[::ffff:169.254.169.254]", Refused, Refused),
        ("[::ffff:a9fe:a9fe]", Refused, Refused),
        ("[::169.254.169.254]", Refused, Refused),
        ("[64:ff9b::a9fe:a9fe]", Refused, Refused),
        ("[fe80::1]", Refused, Refused),
        ("[febf:ffff::1]", Refused, Refused),
        // Multicast, reserved, broadcast.
        ("224.0.0.1", Refused, Refused),
        ("239.255.255.255", Refused, Refused),
        ("240.0.0.1", Refused, Refused),
        ("255.255.255.255", Refused, Refused),
        ("[ff02::1]", Refused, Refused),
        ("[ff0e::1]", Refused, Refused),
        ("[::ffff:224.0.0.1]", Refused, Refused),
        ("[::ffff:255.255.255.255]", Refused, Refused),
        // Everybody else.
        ("126.255.255.255", Refused, Dialled),
        ("128.0.0.1", Refused, Dialled),
        ("10.0.0.1", Refused, Dialled),
        ("192.168.1.1", Refused, Dialled),
        ("[::ffff:10.0.0.1]", Refused, Dialled),
        ("[64:ff9b::10.0.0.1]", Refused, Dialled),
        ("169.253.255.255", Refused, Dialled),
        ("169.255.0.0", Refused, Dialled),
        ("223.255.255.255", Refused, Dialled),
        ("1.1.1.1", Refused, Dialled),
        ("[2001:db8::1]", Refused, Dialled),
        ("[fd00::1]", Refused, Dialled),
        ("[fec0::1]", Refused, Dialled),
        ("[fe7f:ffff::1]", Refused, Dialled),
    ] {
        assert_eq!(judge(&default, spelling), by_default, "{spelling:?} by default");
        assert_eq!(judge(&wide, spelling), at_most, "{spelling:?} with everything opened");
    }
}

#[test]
fn ports_are_those_of_the_rule() {
    let allow = allow(&["10.0.0.0/8:22,80-82,443", "10.1.0.0/16:*"]);
    for (address, port, dialled) in [
        ("10.2.0.1", 22, true),
        ("10.2.0.1", 79, false),
        ("10.2.0.1", 80, true),
        ("10.2.0.1", 82, true),
        ("10.2.0.1", 83, false),
        ("10.2.0.1", 443, true),
        ("10.2.0.1", 1, false),
        ("10.1.2.3", 1, true),
        ("10.1.2.3", 65_535, true),
        ("11.0.0.1", 22, false),
    ] {
        assert_eq!(allow.by_address(ip(address), port), dialled, "{address}:{port}");
    }
}

#[test]
fn a_link_local_address_needs_a_rule_of_its_own() {
    let metadata = ip("169.254.169.254");
    for (rule, dialled) in [
        ("169.254.169.254:80", true),
        ("169.254.0.0/16:80", true),
        ("[::ffff:169.254.169.254]:80", true),
        ("::ffff:169.254.0.0/112:80", true),
        ("168.0.0.0/7:80", false),
        ("169.254.0.0/15:80", false),
        ("0.0.0.0/0:80", false),
    ] {
        assert_eq!(allow(&[rule]).by_address(metadata, 80), dialled, "{rule}");
    }
    assert!(allow(&["fe80::/10:80"]).by_address(ip("fe80::1"), 80));
    assert!(allow(&["[fe80::1]:80"]).by_address(ip("fe80::1"), 80));
    assert!(!allow(&["fe00::/9:80"]).by_address(ip("fe80::1"), 80));
}

#[test]
fn unspecified_and_multicast_addresses_are_never_dialled() {
    let allow =
        allow(&["0.0.0.0:*", "0.0.0.0/8:*", "[::]:*", "224.0.0.0/4:*", "ff00::/8:*", "255.255.255.255:*"]);
    for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"] {
        assert!(!allow.by_address(ip(address), 80), "{address}");
    }
}

#[test]
fn names_are_compared_as_dns_does() {
    let allow = allow(&["DB.lan.:5432", "localhost:80"]);
    for name in ["db.lan", "db.lan.", "DB.LAN"] {
        assert!(allow.by_name(name, 5432), "{name}");
        assert!(!allow.by_name(name, 5433), "{name}");
    }
    for name in ["xdb.lan", "db.lan.evil.example", "b.lan", "db.lan..", ""] {
        assert!(!allow.by_name(name, 5432), "{name}");
    }
    // A rule by name says nothing of an address, nor the other way round.
    assert!(!allow.by_address(ip("127.0.0.1"), 80));
    assert!(!Allow::default().by_name("localhost", 80));
    assert!(!Allow::default().by_name("127.0.0.1", 80));
}

#[test]
fn a_name_that_is_rebound_opens_nothing() {
    let allow = allow(&["db.lan:80", "10.0.0.0/8:80"]);
    let db: Target = "db.lan:80".parse().unwrap();
    let evil: Target = "evil.example:80".parse().unwrap();
    for (address, for_db, for_evil) in [
        ("192.168.1.5", true, false),
        ("2001:db8::5", true, false),
        ("10.0.0.5", true, true),
        ("::ffff:10.0.0.5", true, true),
        // However trusted the name, it does not lead to this host or its link.
        ("127.0.0.1", false, false),
        ("::1", false, false),
        ("::ffff:127.0.0.1", false, false),
        ("0.0.0.0", false, false),
        ("::", false, false),
        ("169.254.169.254", false, false),
        ("64:ff9b::a9fe:a9fe", false, false),
        ("fe80::1", false, false),
        ("224.0.0.1", false, false),
    ] {
        assert_eq!(allow.permits(&db, ip(address)), for_db, "db.lan at {address}");
        assert_eq!(allow.permits(&evil, ip(address)), for_evil, "evil.example at {address}");
    }
}

#[test]
fn localhost_by_name_leads_to_loopback_and_only_there() {
    let by_name = allow(&["localhost:80"]);
    let target: Target = "LocalHost:80".parse().unwrap();
    assert!(by_name.permits(&target, ip("127.0.0.1")));
    assert!(by_name.permits(&target, ip("::1")));
    assert!(!by_name.permits(&target, ip("169.254.169.254")));
    assert!(!by_name.permits(&"127.0.0.1:80".parse().unwrap(), ip("127.0.0.1")));
    // And by default, since loopback is open by address.
    assert!(Allow::default().permits(&target, ip("127.0.0.1")));
    assert!(!Allow::default().permits(&target, ip("10.0.0.1")));
}

#[test]
fn an_address_is_dialled_as_itself_only() {
    let target: Target = "127.0.0.1:80".parse().unwrap();
    assert!(Allow::default().permits(&target, ip("127.0.0.1")));
    assert!(Allow::default().permits(&target, ip("::ffff:127.0.0.1")));
    assert!(!Allow::default().permits(&target, ip("127.0.0.2")));
}

#[test]
fn nothing_is_allowed_without_a_rule() {
    let none = allow(&[]);
    assert!(!none.by_address(ip("127.0.0.1"), 80) && !none.by_name("localhost", 80));
}

#[test]
fn rules_are_shown_in_their_shortest_form() {
    for (text, shown) in [
        ("127.0.0.0/8:*", "127.0.0.0/8:*"),
        ("10.0.0.5/32:22", "10.0.0.5:22"),
        ("[::1]:*", "[::1]:*"),
        ("::1/128:80,443", "[::1]:80,443"),
        ("[fd00::]/8:8000-8999", "fd00::/8:8000-8999"),
        ("fd00::/8:22-22,80", "fd00::/8:22,80"),
        ("::ffff:10.0.0.0/104:1", "10.0.0.0/8:1"),
        ("::/0:1", "::/0:1"),
        ("DB.lan.:5432", "db.lan:5432"),
    ] {
        assert_eq!(text.parse::<AllowRule>().unwrap().to_string(), shown);
    }
}

#[test]
fn an_error_says_what_is_wrong_and_shows_the_form() {
    for (text, says) in [
        ("", "ports are missing"),
        ("10.0.0.1", "ports are missing"),
        (":80", "\"\" is not a host"),
        ("::1:80", "\"::1\" is not a host"),
        ("a b:80", "\"a b\" is not a host"),
        ("10.0.0.1:", "\"\" is not `*`"),
        ("10.0.0.1:0", "\"0\" is not `*`"),
        ("10.0.0.1:65536", "\"65536\" is not `*`"),
        ("10.0.0.1:9-8", "\"9-8\" is not `*`"),
        ("10.0.0.1:80,", "\"\" is not `*`"),
        ("10.0.0.1:80,*", "\"*\" is not `*`"),
        ("10.0.0.1:1-2-3", "\"1-2-3\" is not `*`"),
        ("10.0.0.0/33:80", "0 to 32"),
        ("10.0.0.0/-1:80", "0 to 32"),
        ("10.0.0.0/:80", "0 to 32"),
        ("fd00::/129:80", "0 to 128"),
        ("10.0.0.1/8:80", "write 10.0.0.0/8 or 10.0.0.1/32"),
        ("host/8:80", "\"host\" is not an address"),
    ] {
        let error = text.parse::<AllowRule>().unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
        assert!(error.contains("HOST-OR-CIDR:PORTS"), "{error}");
    }
    let many = format!("10.0.0.1:{}", vec!["1"; 65].join(","));
    assert!(many.parse::<AllowRule>().unwrap_err().to_string().contains("more than 64"));
}

#[test]
fn a_rule_for_nat64_opens_nothing_else() {
    let allow = allow(&["64:ff9b::/96:*"]);
    assert!(allow.by_address(ip("64:ff9b::8.8.8.8"), 80));
    for address in ["8.8.8.8", "127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::"] {
        assert!(!allow.by_address(ip(address), 80), "{address}");
    }
}

#[test]
fn in_a_file_it_is_a_list_of_texts() {
    let texts = ["127.0.0.0/8:*".to_owned(), "[::1]:*".to_owned()];
    let file = rmp_serde::to_vec(&texts).unwrap();
    assert_eq!(rmp_serde::to_vec(&Allow::default()).unwrap(), file);
    assert_eq!(rmp_serde::from_slice::<Allow>(&file).unwrap(), Allow::default());
    let wrong = rmp_serde::to_vec(&["127.0.0.1"]).unwrap();
    let error = rmp_serde::from_slice::<Allow>(&wrong).unwrap_err().to_string();
    assert!(error.contains("the ports are missing"), "{error}");
}

proptest! {
    #[test]
    fn what_is_shown_reads_as_the_same(
        ip: IpAddr, prefix in 0_u8..=128, ports in prop::collection::vec((1..=u16::MAX, 0_u16..9), 1..5), all: bool,
    ) {
        let prefix = if ip.is_ipv4() { prefix % 33 } else { prefix };
        let network = simplified(Network { address: masked(ip, prefix), prefix });
        let ranges = ports.iter().map(|(first, more)| (*first, first.saturating_add(*more))).collect();
        let ports = if all { Ports::All } else { Ports::Some(ranges) };
        let rule = AllowRule { whom: Whom::Network(network), ports };
        prop_assert_eq!(rule.to_string().parse::<AllowRule>(), Ok(rule));
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,40}", nearly in "[0-9a-f:/.,*\\[\\]-]{0,30}") {
        let _ = text.parse::<AllowRule>();
        let _ = nearly.parse::<AllowRule>();
    }

    #[test]
    fn a_network_holds_the_addresses_that_share_its_prefix(ip: IpAddr, prefix in 0_u8..=128, flip in 0_u8..128) {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let (prefix, flip) = (prefix % (width + 1), flip % width);
        let other: IpAddr = match ip {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ (1 << (31 - flip))).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() ^ (1 << (127 - flip))).into(),
        };
        let network = Network { address: masked(ip, prefix), prefix };
        prop_assert!(network.contains(ip));
        prop_assert_eq!(network.contains(other), flip >= prefix);
    }
}
