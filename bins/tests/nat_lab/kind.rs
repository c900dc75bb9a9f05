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
    /// One mapping for all, and everybody may send to it.
    FullCone,
    /// One mapping for all; addresses that were written to may send to it.
    AddressRestricted,
    /// The usual home router: masquerade behind a firewall.
    PortRestricted,
    /// Masquerade without a firewall: unasked packets are answered by the router itself.
    Bare,
    /// A mapping for each peer, on random ports.
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
        let all_in = |known: &str| {
            let hook = "type nat hook prerouting priority dstnat";
            let rule = format!("{known} meta l4proto {{ tcp, udp }} dnat to {inside}");
            chain("enter", hook, &[&format!("iifname wan0 ip daddr {outside} {rule}")])
        };
        let masquerade = leave("masquerade");
        match self {
            Self::Public => String::new(),
            Self::FullCone => table(&[all_in(""), masquerade]),
            Self::AddressRestricted => table(&[
                "set known { type ipv4_addr; flags dynamic, timeout; timeout 120s; size 4096; }".to_owned(),
                chain("note", FORWARD, &["iifname lan0 oifname wan0 update @known { ip daddr }"]),
                all_in("ip saddr @known"),
                masquerade,
            ]),
            Self::PortRestricted | Self::Double => table(&[firewall(&[]), masquerade]),
            Self::Bare => table(&[masquerade]),
            Self::Symmetric => table(&[firewall(&[]), leave("masquerade fully-random")]),
            // The range of one port keeps netfilter from reusing a mapping of the same socket.
            Self::Sequential => table(&[
                firewall(&[]),
                leave(&format!(
                    "meta l4proto {{ tcp, udp }} snat ip to {outside} : numgen inc mod 20000 offset 30000"
                )),
            ]),
            Self::Lossy => table(&[firewall(&["numgen random mod 100 < 5 drop"]), masquerade]),
            Self::UdpBlocked => table(&[firewall(&["meta l4proto udp drop"]), masquerade]),
            Self::Only443 => table(&[
                firewall(&["iifname lan0 tcp dport != 443 drop", "iifname lan0 meta l4proto != tcp drop"]),
                leave("masquerade fully-random"),
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

fn leave(translation: &str) -> String {
    let hook = "type nat hook postrouting priority srcnat";
    chain("leave", hook, &[&format!("oifname wan0 {translation}")])
}

fn chain(name: &str, hook: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("  {rule};\n")).collect();
    format!("chain {name} {{\n  {hook};\n{rules}}}\n")
}

fn table(parts: &[String]) -> String {
    format!("table ip lab {{\n{}\n}}\n", parts.join("\n"))
}

const FORWARD: &str = "type filter hook forward priority filter";
