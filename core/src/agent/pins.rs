//! The keys that this node has met and holds to: the servers', by their address as configured, and the
//! peers', by name. Written at first use; from then on another key is an error, until the user accepts it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::ConfigError;
use super::reconnect::Kept;
use crate::ids::{PeerName, PublicKey};

/// The pins, as the pin file has them.
#[derive(Debug, Default)]
pub(super) struct Pins {
    servers: BTreeMap<String, PublicKey>,
    peers: BTreeMap<PeerName, PublicKey>,
    /// What finds peers again while there is no server.
    kept: BTreeMap<PeerName, Kept>,
}

/// The file's content: text throughout, so that a person can read it and take a line out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    servers: BTreeMap<String, String>,
    peers: BTreeMap<PeerName, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reconnect: BTreeMap<PeerName, Kept>,
}

impl Pins {
    /// The pins of a file's content; none at the first start.
    pub(super) fn load(content: Option<&[u8]>) -> Result<Self, ConfigError> {
        let Some(content) = content else { return Ok(Self::default()) };
        let file: File =
            serde_json::from_slice(content).map_err(|error| ConfigError::Pins(error.to_string()))?;
        if file.version != VERSION {
            let text = format!("version {}, this program reads {VERSION}", file.version);
            return Err(ConfigError::Pins(text));
        }
        let mut kept = file.reconnect;
        while kept.len() > MAX_KEPT {
            kept.pop_last();
        }
        Ok(Self { servers: keys(file.servers)?, peers: keys(file.peers)?, kept })
    }

    /// What finds peers again while there is no server.
    pub(super) fn kept(&self) -> impl Iterator<Item = (PeerName, Kept)> {
        self.kept.clone().into_iter()
    }

    /// Keeps what finds a peer again. Gives the file's new content, if that is news.
    pub(super) fn keep_peer(&mut self, peer: &PeerName, kept: Kept) -> Option<Vec<u8>> {
        if self.kept.get(peer) == Some(&kept) {
            return None;
        }
        if self.kept.len() >= MAX_KEPT && !self.kept.contains_key(peer) {
            self.kept.pop_first();
        }
        self.kept.insert(peer.clone(), kept);
        Some(self.content())
    }

    pub(super) fn server(&self, address: &str) -> Option<PublicKey> {
        self.servers.get(address).copied()
    }

    pub(super) fn peer(&self, peer: &PeerName) -> Option<PublicKey> {
        self.peers.get(peer).copied()
    }

    /// Holds to a server's key. Gives the file's new content, if that is news.
    pub(super) fn pin_server(&mut self, address: &str, key: PublicKey) -> Option<Vec<u8>> {
        pin(&mut self.servers, address.to_owned(), key).then(|| self.content())
    }

    /// Holds to a peer's key. Gives the file's new content, if that is news.
    pub(super) fn pin_peer(&mut self, peer: &PeerName, key: PublicKey) -> Option<Vec<u8>> {
        pin(&mut self.peers, peer.clone(), key).then(|| self.content())
    }

    fn content(&self) -> Vec<u8> {
        let file = File {
            version: VERSION,
            servers: self.servers.iter().map(|(address, key)| (address.clone(), key.to_string())).collect(),
            peers: self.peers.iter().map(|(peer, key)| (peer.clone(), key.to_string())).collect(),
            reconnect: self.kept.clone(),
        };
        #[expect(clippy::expect_used, reason = "memory takes every write, and the maps have text for keys")]
        let mut content = serde_json::to_vec_pretty(&file).expect("pins can be encoded");
        content.push(b'\n');
        content
    }
}

fn keys<N: Ord + ToString>(texts: BTreeMap<N, String>) -> Result<BTreeMap<N, PublicKey>, ConfigError> {
    let key = |(name, text): (N, String)| match text.parse() {
        Ok(key) => Ok((name, key)),
        Err(error) => Err(ConfigError::Pins(format!("{}: {error}", name.to_string()))),
    };
    texts.into_iter().map(key).collect()
}

fn pin<N: Ord + ToString>(pins: &mut BTreeMap<N, PublicKey>, name: N, key: PublicKey) -> bool {
    if pins.get(&name) == Some(&key) {
        return false;
    }
    if pins.len() >= MAX_PINS && !pins.contains_key(&name) {
        tracing::warn!(
            name = name.to_string(),
            "too many keys are pinned already: this one is not, remove old lines from the pin file"
        );
        return false;
    }
    pins.insert(name, key);
    true
}

/// The version of the file's format.
const VERSION: u32 = 1;
/// The most keys of servers, and of peers: four times the peers that a node has at a time.
const MAX_PINS: usize = 4096;
/// Peers that can be found again without a server; with 32 addresses each, a megabyte.
const MAX_KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pinned_is_there_after_a_restart() {
        let (one, two) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let peer: PeerName = "b@other".parse().unwrap();
        let mut pins = Pins::load(None).unwrap();
        assert!(pins.pin_server("host:1", one).is_some());
        let content = pins.pin_peer(&peer, two).unwrap();
        assert!(pins.pin_peer(&peer, two).is_none());
        let pins = Pins::load(Some(&content)).unwrap();
        assert_eq!((pins.server("host:1"), pins.server("host:2")), (Some(one), None));
        assert_eq!(pins.peer(&peer), Some(two));
    }

    #[test]
    fn a_damaged_file_is_refused_with_advice() {
        for content in [
            "",
            "{",
            "[]",
            r#"{"version":2,"servers":{},"peers":{}}"#,
            r#"{"version":1,"servers":{},"peers":{"b":"12"}}"#,
            r#"{"version":1,"servers":{},"peers":{"b b":"12"}}"#,
            r#"{"version":1,"servers":{},"peers":{},"more":1}"#,
        ] {
            let error = Pins::load(Some(content.as_bytes())).unwrap_err().to_string();
            assert!(error.contains("restore it from a backup"), "{error}");
        }
    }
}
