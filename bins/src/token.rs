//! Tokens: where a program gets its own from, and the `token` subcommand, which makes them.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::str::FromStr;

use inp2p_core::auth::{BadToken, Token};
use inp2p_core::ids::UserName;
use inp2p_core::rng::Rng;
use zeroize::Zeroizing;

use crate::cli::given::{Given, Source};
use crate::failure::Failure;
use crate::{files, output, terminal};

/// `[NAME=]TOKEN`: one user of a server.
struct Entry {
    user: UserName,
    token: Token,
}

impl FromStr for Entry {
    /// Never repeats the token; a name only where it is one.
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (user, token) = match text.split_once('=') {
            Some((user, token)) => {
                (user.parse().map_err(|_| "what is before the = is not a user's name")?, token)
            }
            None => (UserName::default(), text),
        };
        let token = token.parse::<Token>().map_err(|error| error.to_string())?;
        Ok(Self { user, token })
    }
}

/// The server's users.
pub(crate) fn users(given: Given<'_>) -> Result<BTreeMap<UserName, Token>, Failure> {
    let mut entries = Vec::new();
    match one_of(given, &["token", "token-file"])? {
        None => return Err(Failure::usage(MISSING_SERVER)),
        Some(("token", source)) => {
            for value in given.raw_list("token") {
                let text = Zeroizing::new(value.into_string().unwrap_or_default());
                entries.push((source.to_string(), text));
            }
        }
        Some((_, source)) => {
            let path = given.path("token-file").unwrap_or_default();
            let content = files::read_secret("token-file", &path)?;
            for (line, number) in content.lines().zip(1..) {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with('#') {
                    entries.push((format!("{source}, line {number}"), Zeroizing::new(line.to_owned())));
                }
            }
            if entries.is_empty() {
                return Err(Failure::Usage(format!(
                    "{source}: {} holds no token: put one into it (`inp2ps token -random` makes one)",
                    path.display()
                )));
            }
        }
    }
    let mut users = BTreeMap::new();
    for (source, text) in entries {
        let entry: Entry = text.parse().map_err(|error| Failure::Usage(format!("{source}: {error}")))?;
        if users.contains_key(&entry.user) {
            return Err(Failure::Usage(format!(
                "{source}: user {} has a token already: give one a user",
                entry.user
            )));
        }
        users.insert(entry.user, entry.token);
    }
    if users.is_empty() {
        return Err(Failure::usage(MISSING_SERVER));
    }
    Ok(users)
}

/// The client's token out of flags and environment, and whether it was written there itself rather than in
/// a file of its own; none where neither has one.
pub(crate) fn own(given: Given<'_>, user: Option<&UserName>) -> Result<Option<(Token, bool)>, Failure> {
    let Some((name, source)) = one_of(given, &["token", "token-file", "password-file"])? else {
        return Ok(None);
    };
    let at = |error: &dyn std::fmt::Display| Failure::Usage(format!("{source}: {error}"));
    if name == "token" {
        let text = Zeroizing::new(given.raw(name).unwrap_or_default().into_string().unwrap_or_default());
        return text.parse().map(|token| Some((token, true))).map_err(|error: BadToken| at(&error));
    }
    let path = given.path(name).unwrap_or_default();
    let content = files::read_secret(name, &path)?;
    let token = match name {
        "token-file" => content.trim().parse().map_err(|error: BadToken| at(&error))?,
        _ => {
            let needs = || Failure::Usage(format!("{source} needs -user: the token is made of both"));
            Token::derive(user.ok_or_else(needs)?.as_str(), line(&content)).map_err(|error| at(&error))?
        }
    };
    Ok(Some((token, false)))
}

/// Which one of `names` was given; two at the same level contradict each other.
fn one_of<'n>(given: Given<'_>, names: &[&'n str]) -> Result<Option<(&'n str, Source)>, Failure> {
    let given: Vec<_> = names.iter().filter_map(|name| Some((*name, given.source(name)?))).collect();
    let flags = given.iter().any(|(_, source)| matches!(source, Source::Flag(_)));
    let mut rivals = given.into_iter().filter(|(_, source)| !flags || matches!(source, Source::Flag(_)));
    let first = rivals.next();
    match (&first, rivals.next()) {
        (Some((_, one)), Some((_, two))) => Err(Failure::Usage(format!("{one} and {two}: give one of them"))),
        _ => Ok(first),
    }
}

/// The `token` subcommand: prints a token.
pub(crate) fn main(given: Given<'_>, user: Option<&std::ffi::OsStr>) -> Result<(), Failure> {
    if given.switch("random")? == Some(true) {
        output::result(random()?.reveal());
        return Ok(());
    }
    let user = user.and_then(|user| user.to_str()).ok_or_else(|| {
        Failure::usage("token needs the user's name, as in `token alice`, or -random for 64 random bits")
    })?;
    let user: UserName = user.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let password = password(&user)?;
    let token = Token::derive(user.as_str(), &password).map_err(|error| Failure::Usage(error.to_string()))?;
    output::result(token.reveal());
    Ok(())
}

fn password(user: &UserName) -> Result<Zeroizing<String>, Failure> {
    let cannot =
        |error: io::Error| Failure::Failed(format!("cannot read the password: {}", files::reason(&error)));
    let password = if io::stdin().is_terminal() {
        let once = terminal::read_hidden(&format!("Password of {user}: ")).map_err(cannot)?;
        let twice = terminal::read_hidden("The same again: ").map_err(cannot)?;
        if once != twice {
            return Err(Failure::usage("the two passwords differ: try again"));
        }
        once
    } else {
        let mut text = Zeroizing::new(String::new());
        io::stdin().take(MAX_PASSWORD).read_to_string(&mut text).map_err(cannot)?;
        Zeroizing::new(line(&text).to_owned())
    };
    if password.is_empty() {
        return Err(Failure::usage("the password is empty: type one, or use -random"));
    }
    Ok(password)
}

/// 64 random bits.
pub(crate) fn random() -> Result<Token, Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| Failure::Failed(format!("no randomness: {error}")))?;
    Ok(Token::random(&mut Rng::new(*seed)))
}

/// The first line, without its end.
fn line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

const MISSING_SERVER: &str =
    "no token: give -token-file FILE or -token TOKEN (`inp2ps token -random` makes one)";

/// Longer than any password, and all of it in one read.
const MAX_PASSWORD: u64 = 4096;
