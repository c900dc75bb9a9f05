//! Figures for Prometheus, in its text format (version 0.0.4): counters since the start, and how full each
//! map is beside its cap, so that an alarm can be set before something is refused.

use std::fmt::Write as _;

use super::{Server, asks, failures, relays, shares};
use crate::path::{Rung, Verdict};

impl Server {
    /// The text of `GET /metrics`.
    pub(super) fn metrics(&self) -> String {
        let mut text = Text::default();
        let counters = &self.counters;
        text.one("inp2p_nodes_online", "gauge", "Nodes that are logged in", self.registry.len());
        text.head("inp2p_logins_total", "counter", "Logins by outcome");
        for (outcome, count) in [
            ("ok", counters.logins),
            ("failed", counters.logins_failed),
            ("refused", counters.logins_refused),
            ("turned-away", counters.turned_away),
        ] {
            text.sample("inp2p_logins_total", &format!("outcome=\"{outcome}\""), count);
        }
        for (name, help, count) in [
            ("inp2p_messages_malformed_total", "Messages that could not be read", counters.malformed),
            ("inp2p_requests_refused_total", "Requests of nodes that were refused", counters.refused),
            ("inp2p_requests_unanswered_total", "Requests to nodes without an answer", counters.unanswered),
            ("inp2p_connects_total", "Wishes for a connection that were granted", counters.connects),
            (
                "inp2p_attempts_declined_total",
                "Attempts that a node did not begin",
                counters.attempts_declined,
            ),
            (
                "inp2p_attempts_connected_total",
                "Reports of attempts with a link",
                counters.attempts_connected,
            ),
            ("inp2p_attempts_failed_total", "Reports of attempts without one", counters.attempts_failed),
        ] {
            text.one(name, "counter", help, count);
        }
        text.head("inp2p_rungs_total", "counter", "What became of rungs, as nodes report it: twice a pair");
        for (rung, row) in Rung::ALL.iter().zip(&counters.rungs) {
            for (verdict, count) in VERDICTS.iter().zip(row) {
                let labels = format!("rung=\"{rung}\",outcome=\"{}\"", word(*verdict));
                text.sample("inp2p_rungs_total", &labels, *count);
            }
        }
        self.relay_metrics(&mut text);
        text.head("inp2p_map_size", "gauge", "How much of a thing the server holds");
        let maps = self.maps();
        for (map, size, _) in &maps {
            text.sample("inp2p_map_size", &format!("map=\"{map}\""), *size);
        }
        text.head("inp2p_map_cap", "gauge", "How much of a thing the server holds at most");
        for (map, _, cap) in &maps {
            text.sample("inp2p_map_cap", &format!("map=\"{map}\""), *cap);
        }
        text.0
    }

    fn relay_metrics(&self, text: &mut Text) {
        let own = &self.own_relay.load;
        text.one(
            "inp2p_server_relay_bytes_total",
            "counter",
            "Bytes that this server has relayed",
            own.bytes,
        );
        text.one("inp2p_server_relay_sessions", "gauge", "Pairs that this server relays for", own.sessions);
        let relays = self.relays.views();
        text.head("inp2p_relays", "gauge", "Nodes that relay");
        for (kind, super_relay) in [("private", false), ("super", true)] {
            for reachable in [true, false] {
                let count = relays
                    .iter()
                    .filter(|relay| relay.super_relay == super_relay && relay.reachable == reachable)
                    .count();
                let labels = format!("kind=\"{kind}\",reachable=\"{reachable}\"");
                text.sample("inp2p_relays", &labels, count);
            }
        }
        text.head("inp2p_relay_bytes", "gauge", "Bytes that a node has relayed since it started, as it says");
        for relay in &relays {
            // Names have no character that would need escaping.
            let labels = format!("user=\"{}\",node=\"{}\"", relay.user, relay.node);
            text.sample("inp2p_relay_bytes", &labels, relay.bytes);
        }
    }

    /// Every map that others can make grow: its name, size and cap.
    fn maps(&self) -> Vec<(&'static str, usize, usize)> {
        let caps = &self.config.caps;
        let attempts = self.attempts.len();
        vec![
            ("unauthenticated", self.door.len(), caps.unauthenticated),
            ("failed-logins", self.door.failures(), failures::MAX_RECORDS),
            ("nodes", self.registry.len(), caps.nodes),
            ("pins", self.pins.iter().count(), caps.pins),
            ("attempts", attempts, caps.attempts),
            ("interests", self.news.len(), caps.interests),
            ("asks", self.asks.len(), caps.nodes.saturating_mul(asks::MAX_OPEN)),
            ("relays", self.relays.len(), caps.nodes),
            ("super-relays", self.relays.supers(), relays::MAX_SUPERS),
            ("shares", self.shares.len(), shares::MAX_IN_ALL),
        ]
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Memory takes every write.
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }
}

/// The columns of [`super::Counters::rungs`].
pub(super) const VERDICTS: [Verdict; 3] = [Verdict::Connected, Verdict::Failed, Verdict::Skipped];

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Connected => "connected",
        Verdict::Failed => "failed",
        Verdict::Skipped => "skipped",
    }
}
