//! The client's configuration file: JSON, whose keys are pinned.
//!
//! It is read whole and strictly: an unknown key, a key given twice and a value of the wrong kind are errors
//! with line and column, so that a slip of the keyboard does not silently become a default. It is written
//! whole or not at all, readable for its owner only.

mod entry;
mod secret;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use inp2p_core::agent::PushPolicy;
use inp2p_core::ids::{NodeName, PeerName, UserName};
use inp2p_core::path::Rung;
use inp2p_core::tunnel::{Allow, ForwardRule};
use serde::{Deserialize, Serialize};

pub use entry::{Forward, KeyText, PeerKey, Text};
pub use secret::StoredToken;

use crate::failure::Failure;
use crate::files;

/// The whole file. What is absent is left to the defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the server is, and how to know it.
    pub server: Server,
    /// The node's name.
    pub node: Option<NodeName>,
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// The token, as a string: 64 bits do not survive a JSON number in every program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<StoredToken>,
    /// The node's service as a relay.
    pub relay: Relay,
    /// Its port forwards.
    pub forwards: Vec<Forward>,
    /// What it dials for its peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
    /// The rungs that may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rungs: Option<Vec<Rung>>,
    /// Which forwards the server may push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Text<PushPolicy>>,
    /// The node's own port for its peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p2p_port: Option<u16>,
    /// The peers' identity keys, pinned.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub peer_keys: BTreeMap<PeerName, KeyText>,
}

/// Where the server is, and how to know it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Its name or address.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// `ws` in place of `wss`.
    pub insecure: Option<bool>,
    /// A file of PEM certificates that the server's must chain to.
    pub ca: Option<String>,
    /// Its identity key, pinned.
    pub key: Option<KeyText>,
}

/// The node's service as a relay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// Whether to serve.
    pub enabled: Option<bool>,
    /// Whether to serve all users.
    #[serde(rename = "super")]
    pub super_relay: Option<bool>,
    /// On which TCP port.
    pub port: Option<u16>,
    /// The bandwidth shared by those it relays for.
    pub bandwidth_mbps: Option<u32>,
}

impl Config {
    /// Reads the file; none where there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, Failure> {
        let mut content = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let reason = files::reason(&error);
                return Err(Failure::Usage(format!(
                    "cannot read {}: {reason}: make it readable, or name another file with -config",
                    path.display()
                )));
            }
        }
        if content.len() as u64 > MAX_BYTES {
            return Err(Failure::Usage(format!(
                "{}: longer than 1 MiB: not a configuration file",
                path.display()
            )));
        }
        let config: Self = serde_json::from_slice(&content).map_err(|error| malformed(path, &error))?;
        if config.token.is_some() {
            files::warn_if_open_to_others(path);
        }
        Ok(Some(config))
    }

    /// Writes the file anew, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let mut content = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))?;
        content.push(b'\n');
        files::save(path, &content)
    }

    /// The file's forwards.
    pub fn forwards(&self) -> Vec<ForwardRule> {
        self.forwards.iter().map(|forward| forward.rule().clone()).collect()
    }
}

fn malformed(path: &Path, error: &serde_json::Error) -> Failure {
    let (line, column) = (error.line(), error.column());
    let reason = error.to_string();
    // serde_json puts the place last; here it belongs first, as compilers have it.
    let reason = reason.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&reason);
    let reason = reason.replace("field `", "key `");
    let path = path.display();
    Failure::Usage(format!(
        "{path}, line {line}, column {column}: {reason}: mend it, or make it anew with -newconfig"
    ))
}

/// Far above any real file (a thousand forwards take 200 KB), and harmless to read.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
