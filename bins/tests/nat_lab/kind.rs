//! The NATs that netfilter can make, as rules of nftables.
//!
//! What they do to a packet that nobody inside asked for is as on real devices: a home router drops it
//! before it counts; one without a firewall answers it, and the entry that it leaves in the connection
//! table keeps the port from the host inside, which then gets another one.

use std::fmt;

/// What is between a node and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nothing: a public address.
    Public,
    /// One mapping for all, everybody may send to it, and it hairpins.
    FullCone,
    /// One mapping for all; addresses that were written to may send to it.
    AddressRestricted,
    /// The usual home router: masquerade behind a firewall.
    PortRestricted,
    /// Masquerade without a firewall: unasked packets are answered by the router itself.
    Bare,
    /// A mapping for each peer, on random ports, and resets for what is unasked.
    Symmetric,
    /// A mapping for each peer, on consecutive ports.
    Sequential,
    /// A home router behind a carrier's NAT.
    Double,
    /// A home router that loses one packet in twenty, both ways.
    Lossy,
    /// A home router that lets no UDP out.
    UdpBlocked,
    /// A company's firewall: TCP to port 443 and nothing else.
    Only443,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 11] = [
        Self::Public,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Bare,
        Self::Symmetric,
        Self::Sequential,
        Self::Double,
        Self::Lossy,
        Self::UdpBlocked,
        Self::Only443,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Bare => "bare",
            Self::Symmetric => "symmetric",
            Self::Sequential => "sequential",
            Self::Double => "double",
            Self::Lossy => "lossy",
            Self::UdpBlocked => "udp-blocked",
            Self::Only443 => "only-443",
        }
    }

    /// The rules of the router next to the node, which has `wan0` outside with the address `outside`, and
    /// `lan0` inside, where the first host is `inside`.
    pub(crate) fn rules(self, outside: &str, inside: &str) -> String {
        let masquerade = leave("masquerade");
        match self {
            Self::Public => String::new(),
            Self::FullCone => open_to("meta l4proto . th dport", "meta l4proto . th sport", outside, inside),
            Self::AddressRestricted => open_to(
                "ip saddr . meta l4proto . th dport",
                "ip daddr . meta l4proto . th sport",
                outside,
                inside,
            ),
            Self::PortRestricted | Self::Double => table(&[firewall(&[]), masquerade]),
            Self::Bare => table(&[masquerade]),
            Self::Symmetric => table(&[firewall(&[]), leave("masquerade fully-random"), refuse()]),
            Self::Sequential => table(&[firewall(&[]), leave(&counted(outside))]),
            Self::Lossy => table(&[firewall(&["numgen random mod 100 < 5 drop"]), masquerade]),
            Self::UdpBlocked => table(&[firewall(&["meta l4proto udp drop"]), masquerade]),
            Self::Only443 => table(&[
                firewall(&["iifname lan0 tcp dport != 443 drop", "iifname lan0 meta l4proto != tcp drop"]),
                leave("masquerade fully-random"),
                refuse(),
            ]),
        }
    }

    /// Whether a carrier's NAT comes behind the router.
    pub(crate) fn is_double(self) -> bool {
        self == Self::Double
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Lets out what `first` does not drop, and in what belongs to it. What is for the router itself is dropped
/// before it is entered in the connection table.
fn firewall(first: &[&str]) -> String {
    let established = "ct state established,related accept";
    let pass = [&["policy drop"], first, &[established, "iifname lan0 accept"]].concat();
    let own = ["policy drop", established, "iifname != wan0 accept"];
    chain("pass", FORWARD, &pass) + &chain("own", "type filter hook input priority filter", &own)
}

/// Masquerade whose mappings are open to more than the peers written to: what leaves notes `note` in a set,
/// and what comes from outside, or from inside to the outside address, gets in if `key` is there.
fn open_to(key: &str, note: &str, outside: &str, inside: &str) -> String {
    let kind = format!("typeof {key}; flags dynamic, timeout; timeout 120s; size 4096;");
    let enter = format!("ip daddr {outside} {key} @known dnat to {inside}");
    let around = format!("ip saddr {inside}/24 oifname lan0 ct status dnat snat to {outside}");
    table(&[
        format!("set known {{ {kind} }}"),
        // Before the firewall's chain, whose verdicts end the way through it alone.
        chain(
            "note",
            "type filter hook forward priority -1",
            &[&format!("iifname lan0 update @known {{ {note} }}")],
        ),
        chain("enter", "type nat hook prerouting priority dstnat", &[&enter]),
        firewall(&["ct status dnat accept"]),
        chain("around", "type nat hook postrouting priority srcnat", &[&around]),
        leave("masquerade"),
    ])
}

/// Answers a SYN that nobody asked for with a reset, as companies' firewalls do.
fn refuse() -> String {
    let rule = "iifname wan0 tcp flags & (syn | ack) == syn reject with tcp reset";
    chain("refuse", "type filter hook input priority -1", &[rule])
}

/// Keeps the resets of a router from leaving that are for what came to one of its ports.
pub(crate) fn silent(port: u16) -> String {
    let rule = format!("tcp sport {port} tcp flags & rst == rst drop");
    format!("table ip silent {{\n{}\n}}\n", chain("out", "type filter hook output priority raw", &[&rule]))
}

fn leave(translation: &str) -> String {
    let hook = "type nat hook postrouting priority srcnat";
    chain("leave", hook, &[&format!("oifname wan0 {translation}")])
}

/// The next port for each connection. The range of one port keeps netfilter from reusing a mapping of the
/// same socket. A number of `numgen` has the wrong byte order for a port, hence the map.
fn counted(outside: &str) -> String {
    let ports: Vec<String> = (0..COUNTED).map(|number| format!("{number} : {}", 30_000 + number)).collect();
    let port = format!("numgen inc mod {COUNTED} map {{ {} }}", ports.join(", "));
    format!("meta l4proto {{ tcp, udp }} snat ip to {outside} : {port}")
}

fn chain(name: &str, hook: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("  {rule};\n")).collect();
    format!("chain {name} {{\n  {hook};\n{rules}}}\n")
}

fn table(parts: &[String]) -> String {
    format!("table ip lab {{\n{}\n}}\n", parts.join("\n"))
}

/// More than one check opens connections.
const COUNTED: u16 = 4_000;
const FORWARD: &str = "type filter hook forward priority filter";
