//! Parts of the configuration file that are text with a meaning: read strictly, with the place of an error,
//! and written as they were.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;

use inp2p_core::ids::{PeerName, PublicKey};
use inp2p_core::tunnel::{BadRule, ForwardRule};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A value with a text form: what was written, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<T> {
    /// As it was written.
    pub written: String,
    /// What it means.
    pub value: T,
}

impl<T: FromStr> FromStr for Text<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        Ok(Self { written: text.to_owned(), value: text.parse()? })
    }
}

impl<T> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format!("{text:?}: {error}")))
    }
}

/// A public key as 64 hexadecimal digits.
pub type KeyText = Text<PublicKey>;

/// A port forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Forward(ForwardRule);

impl Forward {
    /// The rule.
    pub fn rule(&self) -> &ForwardRule {
        &self.0
    }
}

impl From<ForwardRule> for Forward {
    fn from(rule: ForwardRule) -> Self {
        Self(rule)
    }
}

/// A forward as the file spells it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    name: Option<String>,
    listen: SocketAddr,
    node: PeerName,
    target: String,
    #[serde(default = "tcp")]
    protocol: String,
    #[serde(default = "yes")]
    enabled: bool,
}

impl TryFrom<Fields> for Forward {
    type Error = String;
    fn try_from(fields: Fields) -> Result<Self, String> {
        let Fields { name, listen, node, target, protocol, enabled } = fields;
        // One syntax, one set of checks: those of -forward.
        let text = format!("{listen}:{node}:{target}/{protocol}");
        let mut rule: ForwardRule = text.parse().map_err(|error: BadRule| error.to_string())?;
        if let Some(name) = name {
            rule.name = name;
        }
        rule.enabled = enabled;
        Ok(Self(rule))
    }
}

impl From<Forward> for Fields {
    fn from(Forward(rule): Forward) -> Self {
        Self {
            name: Some(rule.name),
            listen: rule.listen,
            node: rule.peer,
            target: rule.target,
            protocol: tcp(),
            enabled: rule.enabled,
        }
    }
}

fn tcp() -> String {
    "tcp".to_owned()
}

fn yes() -> bool {
    true
}

/// `NODE=KEY`, as `-peer-key` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerKey {
    /// The peer.
    pub peer: PeerName,
    /// Its key.
    pub key: KeyText,
}

impl FromStr for PeerKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (peer, key) = text.split_once('=').ok_or("use NODE=KEY")?;
        let peer = peer.parse().map_err(|error| format!("{error}"))?;
        let key = key.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { peer, key })
    }
}
