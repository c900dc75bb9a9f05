//! What was given on the command line or in the environment, typed.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;

use clap::ArgMatches;

use crate::failure::Failure;
use crate::output;

/// The flags, and behind each its environment variable. An empty variable counts as not set.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    matches: &'a ArgMatches,
    environment: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Given<'a> {
    /// Flags out of `matches`, variables by `environment`.
    pub fn new(matches: &'a ArgMatches, environment: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { matches, environment }
    }

    /// The same environment with a subcommand's flags.
    pub fn within(self, matches: &'a ArgMatches) -> Self {
        Self { matches, ..self }
    }

    /// Whether the flag or its variable is there.
    pub fn has(&self, name: &str) -> bool {
        self.source(name).is_some()
    }

    /// Where the value comes from, where there is one.
    pub fn source(&self, name: &str) -> Option<Source> {
        if self.flags(name).next().is_some() {
            return Some(Source::Flag(format!("-{name}")));
        }
        let variable = variable(name);
        let set = (self.environment)(&variable).is_some_and(|value| !value.is_empty());
        set.then_some(Source::Environment(variable))
    }

    /// The value as it was written.
    pub fn raw(&self, name: &str) -> Option<OsString> {
        match self.source(name)? {
            Source::Flag(_) => self.flags(name).last(),
            Source::Environment(variable) => (self.environment)(&variable),
        }
    }

    /// The value as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    /// The value as a `T`.
    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Failure> {
        let (Some(source), Some(value)) = (self.source(name), self.raw(name)) else { return Ok(None) };
        parse(&source, &value).map(Some)
    }

    /// The values of a repeatable flag. In the environment they are separated by white space.
    pub fn list<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Vec<T>, Failure> {
        let Some(source) = self.source(name) else { return Ok(Vec::new()) };
        self.raw_list(name).iter().map(|value| parse(&source, value)).collect()
    }

    /// The values of a repeatable flag, as they were written.
    pub fn raw_list(&self, name: &str) -> Vec<OsString> {
        match self.source(name) {
            None => Vec::new(),
            Some(Source::Flag(_)) => self.flags(name).collect(),
            Some(Source::Environment(variable)) => {
                let value = (self.environment)(&variable).unwrap_or_default();
                match value.to_str() {
                    Some(text) => text.split_whitespace().map(OsString::from).collect(),
                    None => vec![value],
                }
            }
        }
    }

    /// A switch.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, Failure> {
        Ok(self.parsed::<Switch>(name)?.map(|switch| switch.0))
    }

    /// A port.
    pub fn port(&self, name: &str) -> Result<Option<u16>, Failure> {
        Ok(self.parsed::<Port>(name)?.map(|port| port.0))
    }

    fn flags(&self, name: &str) -> impl Iterator<Item = OsString> + use<'a> {
        let values = self.matches.try_get_raw(name).ok().flatten();
        values.into_iter().flatten().map(OsString::from)
    }
}

impl fmt::Debug for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matches may hold a token.
        f.write_str("Given")
    }
}

/// Where a value comes from, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag(String),
    /// An environment variable.
    Environment(String),
}

impl Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Environment(name) => f.write_str(name),
        }
    }
}

/// The variable of a flag: `INP2P_WS_PORT` for `ws-port`.
fn variable(name: &str) -> String {
    format!("INP2P_{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn parse<T: FromStr<Err: Display>>(source: &Source, value: &OsString) -> Result<T, Failure> {
    let Some(text) = value.to_str() else {
        return Err(Failure::Usage(format!("{source} is not UTF-8 text")));
    };
    text.parse().map_err(|error: T::Err| {
        let error = output::escape(&error.to_string());
        // Some errors repeat what they are about.
        match shown(text) {
            shown if error.contains(&format!("{shown:?}")) => Failure::Usage(format!("{source}: {error}")),
            shown => Failure::Usage(format!("{source} {shown}: {error}")),
        }
    })
}

/// A value as a message repeats it: bounded and escaped.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{dots}", output::escape(&cut))
}

/// A port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub u16);

impl FromStr for Port {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        text.parse().map(Self).map_err(|_| "not a port: use 0 to 65535")
    }
}

/// A bandwidth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mbps(pub u32);

impl FromStr for Mbps {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        text.parse().map(Self).map_err(|_| "not a bandwidth: use a whole number of Mbps")
    }
}

/// The value of a switch, in the spellings of Go's `strconv.ParseBool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Switch(bool);

impl FromStr for Switch {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self(false)),
            _ => Err("use true or false"),
        }
    }
}

/// Enough to recognise a value, and a short line still.
const MAX_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::ArgMatches;

    use super::{Given, Port};
    use crate::cli::{Parsed, commands, parse};
    use crate::failure::Failure;

    fn matches(line: &str) -> ArgMatches {
        match parse(commands::inp2pc(), line.split(' ').map(OsString::from)) {
            Ok(Parsed::Run(matches)) => matches,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        match parse(commands::inp2pc(), line.split(' ').map(OsString::from)) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_goes_before_the_environment() {
        let environment = |name: &str| match name {
            "INP2P_SERVERPORT" | "INP2P_P2P_PORT" => Some(OsString::from("2")),
            "INP2P_RELAY" => Some(OsString::from("true")),
            "INP2P_NODE" => Some(OsString::new()),
            _ => None,
        };
        let matches = matches("x -serverport 1 -super=false");
        let given = Given::new(&matches, &environment);
        assert_eq!(given.parsed("serverport"), Ok(Some(Port(1))));
        assert_eq!(given.parsed("p2p-port"), Ok(Some(Port(2))));
        assert_eq!(given.switch("relay"), Ok(Some(true)));
        assert_eq!(given.switch("super"), Ok(Some(false)));
        assert!(!given.has("node"), "an empty variable is as good as none");
        assert!(!given.has("user"));
    }

    #[test]
    fn a_flag_given_twice_counts_once_and_a_repeatable_one_twice() {
        let matches = matches("x -node a -node b -forward 1:b:1 -forward 2:b:2");
        let given = Given::new(&matches, &|_| None);
        assert_eq!(given.parsed("node"), Ok(Some("b".to_owned())));
        assert_eq!(given.list("forward"), Ok(vec!["1:b:1".to_owned(), "2:b:2".to_owned()]));
    }

    #[test]
    fn a_repeatable_variable_is_split_at_white_space() {
        let environment = |name: &str| (name == "INP2P_ALLOW").then(|| OsString::from("10.0.0.0/8:22 ::1:*"));
        let matches = matches("x");
        let given = Given::new(&matches, &environment);
        assert_eq!(given.list("allow"), Ok(vec!["10.0.0.0/8:22".to_owned(), "::1:*".to_owned()]));
    }

    #[test]
    fn a_bad_value_names_its_source() {
        let matches = matches("x -serverport 65536");
        let environment = |name: &str| (name == "INP2P_RELAY").then(|| OsString::from("yes"));
        let given = Given::new(&matches, &environment);
        let error = given.parsed::<Port>("serverport").unwrap_err();
        assert_eq!(error, Failure::usage("-serverport 65536: not a port: use 0 to 65535"));
        assert_eq!(given.switch("relay").unwrap_err(), Failure::usage("INP2P_RELAY yes: use true or false"));
    }

    #[test]
    fn refusals_say_what_to_do() {
        assert_eq!(refusal("x -nod a"), "there is no flag -nod: did you mean -node? see inp2pc -h");
        assert_eq!(refusal("x -node"), "-node needs a value: see inp2pc -h");
        assert_eq!(refusal("x stat"), "there is no subcommand stat: see inp2pc -h");
    }

    #[test]
    fn refusals_repeat_no_secret() {
        for line in
            ["x 12345678", "x -tokne=12345678", "x -12345678", "x token admin 12345678", "x token = 12345678"]
        {
            let text = refusal(line);
            assert!(!text.contains("12345678"), "{text}");
        }
    }
}
