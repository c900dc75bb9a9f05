//! The users' relay secrets: what nodes of one user prove to its own relays.
//!
//! Random, so that nothing on any wire can be searched for the token; each has a number. They lie in the
//! store, are handed to the user's nodes inside the sealed channel, and are replaced every [`ROTATION`]. For
//! [`OVERLAP`] after that both hold, since not every node hears of it at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::StateError;
use crate::ids::UserName;
use crate::relay::RelaySecret;
use crate::relay::ticket::Account;
use crate::rng::Rng;
use crate::time::WallClock;

/// The secrets of all users.
#[derive(Debug)]
pub(super) struct Secrets {
    users: BTreeMap<UserName, Secret>,
    /// What relays know users by: random, and new with each start.
    accounts: BTreeMap<UserName, Account>,
    rng: Rng,
    /// Whether the store has to be written.
    changed: bool,
    /// When [`Self::rotate`] has something to do.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Secret {
    current: RelaySecret,
    /// Since when it holds, in seconds since 1970.
    since: u64,
    /// The one before, for the overlap.
    previous: Option<RelaySecret>,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    users: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    user: UserName,
    id: u32,
    key: Hex,
    since: u64,
}

/// 32 bytes as 64 hexadecimal digits.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex([u8; 32]);

impl TryFrom<String> for Hex {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        // The text form of a public key is the same.
        let key: crate::ids::PublicKey = text.parse().map_err(|_| "a secret is 64 hexadecimal digits")?;
        Ok(Self(key.0))
    }
}
impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        crate::ids::PublicKey(hex.0).to_string()
    }
}

impl Secrets {
    /// The secrets of a file's content, for these users; those who have none get one.
    pub(super) fn load<'a>(
        content: Option<&[u8]>,
        users: impl Iterator<Item = &'a UserName>,
        rng: Rng,
        (now, clock): (Instant, &WallClock),
    ) -> Result<Self, StateError> {
        let mut known = BTreeMap::new();
        if let Some(content) = content {
            let bad = |text: String| StateError::new(SECRETS_FILE, text);
            let file: File = serde_json::from_slice(content).map_err(|error| bad(error.to_string()))?;
            if file.version != VERSION {
                return Err(bad(format!("version {}, this server reads {VERSION}", file.version)));
            }
            for Entry { user, id, key, since } in file.users {
                let current = RelaySecret::new(id, key.0);
                known.insert(user, Secret { current, since, previous: None });
            }
        }
        let mut secrets =
            Self { users: BTreeMap::new(), accounts: BTreeMap::new(), rng, changed: false, due: None };
        for user in users {
            let secret = known.remove(user).unwrap_or_else(|| {
                secrets.changed = true;
                let current = RelaySecret::random(1, &mut secrets.rng);
                Secret { current, since: clock.unix(now).as_secs(), previous: None }
            });
            secrets.users.insert(user.clone(), secret);
            let account = secrets.rng.bytes();
            secrets.accounts.insert(user.clone(), account);
        }
        secrets.schedule(now, clock);
        Ok(secrets)
    }

    /// The secrets of a user that hold, the newest first.
    pub(super) fn of(&self, user: &UserName) -> Vec<RelaySecret> {
        let secret = self.users.get(user);
        secret
            .into_iter()
            .flat_map(|secret| [Some(&secret.current), secret.previous.as_ref()])
            .flatten()
            .cloned()
            .collect()
    }

    /// What relays know a user by.
    pub(super) fn account(&self, user: &UserName) -> Account {
        self.accounts.get(user).copied().unwrap_or_default()
    }

    /// Replaces what is old. The users whose nodes have to be told.
    pub(super) fn rotate(&mut self, now: Instant, clock: &WallClock) -> Vec<UserName> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let unix = clock.unix(now).as_secs();
        let mut told = Vec::new();
        for (user, secret) in &mut self.users {
            let age = unix.saturating_sub(secret.since);
            if age >= ROTATION.as_secs() {
                let id = secret.current.id.checked_add(1).unwrap_or(1);
                let next = RelaySecret::random(id, &mut self.rng);
                secret.previous = Some(std::mem::replace(&mut secret.current, next));
                secret.since = unix;
                self.changed = true;
            } else if age >= OVERLAP.as_secs() && secret.previous.is_some() {
                secret.previous = None;
            } else {
                continue;
            }
            told.push(user.clone());
        }
        self.schedule(now, clock);
        told
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.due.map(|at| (at, "change of relay secrets"))
    }

    fn schedule(&mut self, now: Instant, clock: &WallClock) {
        let unix = clock.unix(now).as_secs();
        let due = self.users.values().map(|secret| {
            let life = if secret.previous.is_some() { OVERLAP } else { ROTATION };
            secret.since.saturating_add(life.as_secs())
        });
        // One that begins in the future, after the clock was set back, is due a life from now at the latest.
        let left = due.min().map(|due| Duration::from_secs(due.saturating_sub(unix)).min(ROTATION));
        self.due = left.map(|left| now + left.max(Duration::from_secs(1)));
    }

    /// The content to write, if the store does not hold it yet.
    pub(super) fn unsaved(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.changed).then(|| self.content())
    }

    fn content(&self) -> Vec<u8> {
        let users = self.users.iter().map(|(user, secret)| Entry {
            user: user.clone(),
            id: secret.current.id,
            key: Hex(*secret.current.reveal()),
            since: secret.since,
        });
        let file = File { version: VERSION, users: users.collect() };
        #[expect(clippy::expect_used, reason = "memory takes every write, and the map has text for keys")]
        serde_json::to_vec_pretty(&file).expect("secrets can be encoded")
    }
}

/// The file that holds the secrets; see [`super::io::Action::Save`].
pub const SECRETS_FILE: &str = "relay.secrets";
/// The version of the file's format.
const VERSION: u32 = 1;
/// How long a secret is used: whoever left the user's nodes with one is shut out after a month.
const ROTATION: Duration = Duration::from_secs(30 * 86_400);
/// How long the one before still holds: nodes that are online hear of a new one within seconds, and a relay
/// that lost its signalling goes on with the old one for a while.
const OVERLAP: Duration = Duration::from_secs(3600);

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The only way to a first Instant.
mod tests {
    use super::*;

    fn start(content: Option<&[u8]>, now: Instant, clock: &WallClock) -> Secrets {
        let users: Vec<UserName> = ["alice", "bob"].map(|user| user.parse().unwrap()).into();
        Secrets::load(content, users.iter(), Rng::new([1; 32]), (now, clock)).unwrap()
    }

    #[test]
    fn secrets_are_there_after_a_restart_and_two_hold_while_one_is_replaced() {
        let mut now = Instant::now();
        let clock = WallClock::new(now, Duration::from_secs(1_700_000_000));
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let mut secrets = start(None, now, &clock);
        let content = secrets.unsaved().unwrap();
        let first = secrets.of(&alice);
        assert_eq!((first.len(), first[0].id), (1, 1));
        assert_ne!(first, secrets.of(&bob));
        let mut secrets = start(Some(&content), now, &clock);
        assert_eq!((secrets.unsaved(), secrets.of(&alice)), (None, first.clone()));

        assert_eq!(secrets.deadline().unwrap().0, now + ROTATION);
        assert!(secrets.rotate(now + ROTATION / 2, &clock).is_empty());
        now += ROTATION;
        assert_eq!(secrets.rotate(now, &clock), [alice.clone(), bob]);
        let both = secrets.of(&alice);
        assert_eq!((both.len(), both[0].id, &both[1]), (2, 2, &first[0]));
        assert!(secrets.unsaved().is_some());
        assert_eq!(secrets.deadline().unwrap().0, now + OVERLAP);
        now += OVERLAP;
        assert_eq!(secrets.rotate(now, &clock).len(), 2);
        assert_eq!(secrets.of(&alice), both[..1]);
        assert!(secrets.deadline().unwrap().0 > now);
    }

    #[test]
    fn a_damaged_file_is_refused_with_advice() {
        let now = Instant::now();
        let clock = WallClock::new(now, Duration::from_secs(1_700_000_000));
        for content in ["", "[]", r#"{"version":2,"users":[]}"#, r#"{"version":1,"users":[7]}"#] {
            let loaded = Secrets::load(Some(content.as_bytes()), [].iter(), Rng::new([1; 32]), (now, &clock));
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains("relay.secrets is damaged"), "{error}");
        }
    }
}
