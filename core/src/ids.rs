//! The names of things: nodes, users, keys, attempts, sockets. Each is a type of its own, checked once
//! where it enters, so that no later code has to ask again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A node's name: 1 to 64 characters of `[A-Za-z0-9._-]`, unique within its user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// A user's name: the same alphabet as [`NodeName`]; those who share a token share a user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
pub struct BadName(String);

fn check(name: &str) -> Result<(), BadName> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(());
    }
    // What came in may be long or hold control characters; Debug escapes it, the cut bounds it.
    Err(BadName(name.chars().take(MAX_NAME).collect()))
}

macro_rules! name_type {
    ($type:ident) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = BadName;
            fn from_str(name: &str) -> Result<Self, BadName> {
                check(name)?;
                Ok(Self(name.to_owned()))
            }
        }
        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(name: String) -> Result<Self, BadName> {
                check(&name)?;
                Ok(Self(name))
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
name_type!(NodeName);
name_type!(UserName);

impl Default for UserName {
    /// `default`: the user of a token that was given without a name.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// A peer as one of its users names it: `NODE`, or `NODE@USER` for a node that another user shares.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName {
    /// The node.
    pub node: NodeName,
    /// Its user, where that is another one.
    pub user: Option<UserName>,
}

impl FromStr for PeerName {
    type Err = BadName;
    fn from_str(name: &str) -> Result<Self, BadName> {
        let (node, user) = match name.split_once('@') {
            Some((node, user)) => (node, Some(user.parse()?)),
            None => (name, None),
        };
        Ok(Self { node: node.parse()?, user })
    }
}
impl TryFrom<String> for PeerName {
    type Error = BadName;
    fn try_from(name: String) -> Result<Self, BadName> {
        name.parse()
    }
}
impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        name.to_string()
    }
}
impl From<NodeName> for PeerName {
    fn from(node: NodeName) -> Self {
        Self { node, user: None }
    }
}
impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{}@{user}", self.node),
            None => write!(f, "{}", self.node),
        }
    }
}
impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ed25519 public key (RFC 8032), a node's or the server's identity. Its text form, in flags, files and
/// JSON, is 64 lower-case hexadecimal digits. Its order decides which of two nodes is controlling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteArray<32>", into = "serde_bytes::ByteArray<32>")]
pub struct PublicKey(pub [u8; 32]);

impl From<serde_bytes::ByteArray<32>> for PublicKey {
    fn from(bytes: serde_bytes::ByteArray<32>) -> Self {
        Self(bytes.into_array())
    }
}
impl From<PublicKey> for serde_bytes::ByteArray<32> {
    fn from(key: PublicKey) -> Self {
        Self::new(key.0)
    }
}
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for PublicKey {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut key = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(BadKey);
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| BadKey)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| BadKey)?;
        }
        Ok(Self(key))
    }
}

/// Why a key's text form was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: a key is 64 hexadecimal digits, as `inp2pc status` shows it")]
pub struct BadKey;

/// One try of a pair of nodes to find a path. The server chooses it; both sides of a pair have the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteArray<16>", into = "serde_bytes::ByteArray<16>")]
pub struct AttemptId(pub [u8; 16]);

impl From<serde_bytes::ByteArray<16>> for AttemptId {
    fn from(bytes: serde_bytes::ByteArray<16>) -> Self {
        Self(bytes.into_array())
    }
}
impl From<AttemptId> for serde_bytes::ByteArray<16> {
    fn from(id: AttemptId) -> Self {
        Self::new(id.0)
    }
}
impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits tell attempts apart in a log.
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A signalling connection, named by the machine that opened it or by the driver that accepted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A UDP socket of this node, named by the machine that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SockId(pub u32);

/// The longest node or user name, in bytes: fits a line of `status` and a DNS label's neighbourhood.
const MAX_NAME: usize = 64;
