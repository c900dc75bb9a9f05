//! A token in the configuration file.

use std::fmt;

use inp2p_core::auth::Token;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A token as the file has it: written as a string, read from a string or a number. No error, and no
/// `Debug`, repeats it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredToken(pub Token);

impl fmt::Debug for StoredToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for StoredToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.reveal())
    }
}

impl<'de> Deserialize<'de> for StoredToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// The visitor's own defaults would repeat the value in their errors, so each kind has a method here.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = StoredToken;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token: a number from 1 to 18446744073709551615, best as a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<StoredToken, E> {
        text.parse().map(StoredToken).map_err(|error| E::custom(error))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<StoredToken, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<StoredToken, E> {
        self.visit_str("")
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<StoredToken, E> {
        self.visit_str("")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<StoredToken, E> {
        self.visit_str("")
    }
}
