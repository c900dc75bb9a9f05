//! The status, for people: one line a thing, and under a peer that cannot be reached, or through a relay only, why,
//! rung by rung.

use std::fmt::Write;

use inp2p_core::path::Verdict;
use inp2p_core::status::{ForwardStatus, NatView, PeerState, PeerStatus, Status};

use crate::output::escape;

/// The whole table.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut text, status);
    text
}

fn write(out: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(out, "node      {} (inp2pc {}, {})", escape(&status.node), status.version, status.runtime)?;
    writeln!(out, "key       {}", escape(&status.key))?;
    let server = &status.server;
    let transport = if server.tls { "wss" } else { "ws" };
    let state = if server.connected { "connected" } else { "not connected" };
    write!(out, "server    {} {state} by {transport}", escape(&server.address))?;
    if server.relogins > 0 {
        write!(out, ", {} logins since the first", server.relogins)?;
    }
    match &server.error {
        Some(error) => writeln!(out, ": {}", escape(error))?,
        None => writeln!(out)?,
    }
    let nat = &status.nat;
    for (transport, view) in [
        ("udp", Some(&nat.udp)),
        ("tcp", Some(&nat.tcp)),
        ("udp6", nat.udp6.as_ref()),
        ("tcp6", nat.tcp6.as_ref()),
    ] {
        view.map_or(Ok(()), |view| write_nat(out, transport, view))?;
    }
    let relay = &status.relay;
    if relay.enabled {
        let whom = if relay.super_relay { "all users" } else { "the own user" };
        write!(out, "relay     for {whom} on port {}, {} sessions", relay.port, relay.sessions)?;
        match &relay.reason {
            Some(reason) => writeln!(out, ": {}", escape(reason))?,
            None => writeln!(out)?,
        }
    }

    writeln!(out, "\npeers     {}", count(status.peers.len()))?;
    status.peers.iter().try_for_each(|peer| write_peer(out, peer))?;
    writeln!(out, "\nforwards  {}", count(status.forwards.len()))?;
    status.forwards.iter().try_for_each(|forward| write_forward(out, forward))
}

/// `nat       udp   symmetric, mapping ..., filtering ..., seen at 203.0.113.7:40000`.
fn write_nat(out: &mut String, transport: &str, nat: &NatView) -> std::fmt::Result {
    let kind = if nat.kind == "none" { "none (no NAT)" } else { &nat.kind };
    write!(out, "nat       {transport:<5} {}", escape(kind))?;
    if nat.mapping != "unknown" {
        write!(out, ", mapping {}", escape(&nat.mapping))?;
    }
    if nat.filtering != "unknown" {
        write!(out, ", filtering {}", escape(&nat.filtering))?;
    }
    match nat.public {
        Some(public) => writeln!(out, ", seen at {public}"),
        None => writeln!(out),
    }
}

fn write_peer(out: &mut String, peer: &PeerStatus) -> std::fmt::Result {
    let state = match peer.state {
        PeerState::Connecting => "connecting",
        PeerState::Connected => "connected",
        PeerState::Offline => "offline",
        PeerState::Failed => "failed",
    };
    write!(out, "  {:<20} {state:<10}", escape(&peer.node))?;
    if let Some(rung) = peer.rung {
        write!(out, " {rung}")?;
    }
    if let Some(via) = &peer.via {
        write!(out, " via {}", escape(via))?;
    }
    if let Some(remote) = peer.remote {
        write!(out, " {remote}")?;
    }
    if let Some(rtt) = peer.rtt_ms {
        write!(out, " rtt {rtt:.1} ms")?;
    }
    let (sent, received) = (bytes(peer.bytes_sent), bytes(peer.bytes_received));
    writeln!(out, " sent {sent} received {received} streams {}", peer.streams)?;
    if let Some(error) = &peer.error {
        writeln!(out, "    {}", escape(error))?;
    }
    // Of a link without a relay there is nothing to explain.
    if peer.state == PeerState::Connected && peer.via.is_none() {
        return Ok(());
    }
    for attempt in &peer.attempts {
        let (rung, ms, reason) = (attempt.rung.as_str(), attempt.ms, escape(&attempt.reason));
        match attempt.outcome {
            Verdict::Connected => writeln!(out, "    {rung:<14} connected after {ms} ms")?,
            Verdict::Failed => writeln!(out, "    {rung:<14} failed after {ms} ms: {reason}")?,
            Verdict::Skipped => writeln!(out, "    {rung:<14} skipped: {reason}")?,
        }
    }
    Ok(())
}

fn write_forward(out: &mut String, forward: &ForwardStatus) -> std::fmt::Result {
    let route = format!("{} -> {} {}", forward.listen, forward.node, forward.target);
    write!(out, "  {:<44} {:<10}", escape(&route), escape(&forward.state))?;
    let (sent, received) = (bytes(forward.bytes_sent), bytes(forward.bytes_received));
    writeln!(out, " open {} of {} sent {sent} received {received}", forward.active, forward.total)?;
    match &forward.error {
        Some(error) => writeln!(out, "    {}", escape(error)),
        None => Ok(()),
    }
}

fn count(number: usize) -> String {
    if number == 0 { "none".to_owned() } else { number.to_string() }
}

/// `1.2 MiB`.
fn bytes(number: u64) -> String {
    if number < 1024 {
        return format!("{number} B");
    }
    let mut scaled = number as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    format!("{scaled:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use inp2p_core::path::{Outcome, Rung, Verdict};
    use inp2p_core::status::{ForwardStatus, PeerState, PeerStatus, RelayStatus, ServerStatus, Status};

    use super::{bytes, render};

    fn status() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            node: "nodeA".to_owned(),
            key: "00".repeat(32),
            runtime: "tokio".to_owned(),
            server: ServerStatus {
                address: "127.0.0.1:27183".to_owned(),
                connected: true,
                tls: true,
                ..Default::default()
            },
            peers: vec![PeerStatus {
                node: "nodeB".to_owned(),
                key: None,
                state: PeerState::Failed,
                rung: None,
                via: None,
                remote: None,
                rtt_ms: None,
                bytes_sent: 0,
                bytes_received: 1536,
                streams: 0,
                switches: 0,
                error: Some("no rung worked\u{1b}[2J".to_owned()),
                attempts: vec![Outcome {
                    rung: Rung::TcpDirect,
                    outcome: Verdict::Failed,
                    reason: "connection refused".to_owned(),
                    ms: 12,
                }],
            }],
            forwards: vec![ForwardStatus {
                name: "2222:nodeB:22".to_owned(),
                listen: "127.0.0.1:2222".to_owned(),
                protocol: "tcp".to_owned(),
                node: "nodeB".to_owned(),
                target: "127.0.0.1:22".to_owned(),
                state: "failed".to_owned(),
                error: Some("address already in use".to_owned()),
                active: 0,
                total: 0,
                bytes_sent: 0,
                bytes_received: 0,
            }],
            relay: RelayStatus { port: 27185, limit_mbps: 10, ..Default::default() },
            ..Default::default()
        }
    }

    #[test]
    fn a_failed_peer_shows_why_rung_by_rung() {
        let text = render(&status());
        assert!(text.contains("tcp-direct     failed after 12 ms: connection refused"), "{text}");
    }

    #[test]
    fn a_relayed_peer_shows_why_rung_by_rung_and_a_direct_one_does_not() {
        let mut status = status();
        status.peers[0].state = PeerState::Connected;
        assert!(!render(&status).contains("tcp-direct"));
        status.peers[0].via = Some("server".to_owned());
        let text = render(&status);
        assert!(text.contains(" via server"), "{text}");
        assert!(text.contains("tcp-direct     failed after 12 ms: connection refused"), "{text}");
    }

    #[test]
    fn the_nat_is_shown() {
        let mut status = status();
        status.nat.udp.kind = "cone".to_owned();
        status.nat.udp.mapping = "endpoint-independent".to_owned();
        status.nat.udp.public = Some("203.0.113.7:40000".parse().unwrap());
        let text = render(&status);
        let line = "nat       udp   cone, mapping endpoint-independent, seen at 203.0.113.7:40000\n";
        assert!(text.contains(line) && text.contains("nat       tcp   unknown\n"), "{text}");
    }

    #[test]
    fn a_failed_forward_shows_why() {
        assert!(render(&status()).contains("    address already in use\n"));
    }

    #[test]
    fn what_a_peer_chose_does_not_reach_the_terminal_raw() {
        assert!(!render(&status()).contains('\u{1b}'));
    }

    #[test]
    fn bytes_are_shown_in_units() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(u64::MAX)],
            ["0 B", "1023 B", "1.5 KiB", "16.0 EiB"]
        );
    }
}
