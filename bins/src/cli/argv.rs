//! Go-style flags as clap reads them: two dashes, and the value joined to its flag by `=`.
//!
//! As in Go's `flag` package, a flag that takes a value takes the next argument whatever it looks like, so
//! that a value may begin with a dash; and `--` ends the flags.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{ArgAction, Command};

/// The arguments (the first is the program's name) in clap's form. Unknown flags are passed on for clap to
/// refuse.
pub fn normalise(command: &Command, argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut takes_value = BTreeMap::new();
    collect_flags(command, &mut takes_value);

    let mut argv = argv.into_iter();
    let mut normal: Vec<OsString> = argv.next().into_iter().collect();
    while let Some(argument) = argv.next() {
        let Some((name, value)) = split_flag(&argument) else {
            let ends_flags = argument == "--";
            normal.push(argument);
            if ends_flags {
                normal.extend(argv);
                break;
            }
            continue;
        };
        let mut flag = b"--".to_vec();
        flag.extend_from_slice(name);
        let wants_one = std::str::from_utf8(name).is_ok_and(|name| takes_value.get(name) == Some(&true));
        let next = if value.is_none() && wants_one { argv.next() } else { None };
        if let Some(value) = value.or(next.as_ref().map(|next| next.as_bytes())) {
            flag.push(b'=');
            flag.extend_from_slice(value);
        }
        normal.push(OsString::from_vec(flag));
    }
    normal
}

/// The name and the joined value of `-name`, `--name`, `-name=value`, `--name=value`; none for anything else.
fn split_flag(argument: &OsStr) -> Option<(&[u8], Option<&[u8]>)> {
    let bytes = argument.as_bytes().strip_prefix(b"-")?;
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if bytes.is_empty() {
        return None;
    }
    let mut parts = bytes.splitn(2, |byte| *byte == b'=');
    let name = match parts.next()? {
        b"h" => b"help",
        name => name,
    };
    Some((name, parts.next()))
}

/// Which flags there are in `command` and its subcommands, and whether each takes a value.
fn collect_flags(command: &Command, takes_value: &mut BTreeMap<String, bool>) {
    for argument in command.get_arguments() {
        if let Some(name) = argument.get_long() {
            let is_switch = argument.is_require_equals_set();
            let wants_one = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) && !is_switch;
            takes_value.insert(name.to_owned(), wants_one);
        }
    }
    command.get_subcommands().for_each(|inner| collect_flags(inner, takes_value));
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::normalise;
    use crate::cli::commands::inp2pc;

    fn normal(line: &str) -> Vec<String> {
        let argv = line.split(' ').map(OsString::from);
        normalise(&inp2pc(), argv).into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn all_four_forms_mean_the_same() {
        for line in ["x -node a", "x --node a", "x -node=a", "x --node=a"] {
            assert_eq!(normal(line), ["x", "--node=a"], "{line}");
        }
    }

    #[test]
    fn a_switch_takes_no_argument_of_its_own() {
        assert_eq!(normal("x -relay -node a -super=false"), ["x", "--relay", "--node=a", "--super=false"]);
        assert_eq!(normal("x -relay status"), ["x", "--relay", "status"]);
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        assert_eq!(normal("x -node -5 -user --"), ["x", "--node=-5", "--user=--"]);
    }

    #[test]
    fn a_flag_at_the_end_is_left_for_clap_to_refuse() {
        assert_eq!(normal("x -node"), ["x", "--node"]);
    }

    #[test]
    fn two_dashes_alone_end_the_flags() {
        assert_eq!(normal("x token -- -relay"), ["x", "token", "--", "-relay"]);
    }

    #[test]
    fn flags_of_subcommands_are_known_and_unknown_ones_passed_on() {
        assert_eq!(
            normal("x status -json -config c -what 1"),
            ["x", "status", "--json", "--config=c", "--what", "1"]
        );
        assert_eq!(normal("x -h"), ["x", "--help"]);
        assert_eq!(normal("x -"), ["x", "-"]);
    }

    #[test]
    fn an_equals_sign_in_a_value_stays() {
        assert_eq!(normal("x -peer-key b=00"), ["x", "--peer-key=b=00"]);
        assert_eq!(normal("x -peer-key=b=00"), ["x", "--peer-key=b=00"]);
    }
    proptest! {
        #[test]
        fn whatever_is_typed_is_taken_and_the_normal_form_is_one(
            typed in prop::collection::vec("-{0,3}(node|relay|h|json|[a-z]{0,3})=?.{0,5}", 0..6),
            raw in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut argv: Vec<OsString> = std::iter::once("x".to_owned()).chain(typed).map(OsString::from).collect();
            argv.push(OsString::from_vec(raw));
            let once = normalise(&inp2pc(), argv);
            prop_assert_eq!(normalise(&inp2pc(), once.clone()), once);
        }
    }
}
