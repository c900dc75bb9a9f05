//! What clap found wrong, in one line.
//!
//! Nothing that may be a secret is repeated: a password typed behind `token USER`, or a token behind a flag
//! that does not exist, must not end in a terminal's scrollback or a journal.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// One line that says what is wrong and what to do.
pub(super) fn one_line(program: &str, error: &clap::Error) -> String {
    let invalid = text(error, ContextKind::InvalidArg);
    let see = format!("see {program} -h");
    match error.kind() {
        ErrorKind::UnknownArgument => match invalid.as_deref().and_then(flag_name) {
            Some(name) => match text(error, ContextKind::SuggestedArg).as_deref().and_then(flag_name) {
                Some(like) => format!("there is no flag -{name}: did you mean -{like}? {see}"),
                None => format!("there is no flag -{name}: {see}"),
            },
            None => format!("too many arguments: {see}"),
        },
        ErrorKind::InvalidSubcommand => {
            match text(error, ContextKind::InvalidSubcommand).filter(|it| harmless(it)) {
                Some(name) => format!("there is no subcommand {name}: {see}"),
                None => format!("an argument is neither a flag nor a subcommand: {see}"),
            }
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals | ErrorKind::TooFewValues => {
            match invalid.as_deref().and_then(flag_name) {
                Some(name) => format!("-{name} needs a value: {see}"),
                None => format!("a value is missing: {see}"),
            }
        }
        _ => {
            let whole = error.to_string();
            let first = whole.lines().next().unwrap_or_default();
            format!("{}: {see}", first.strip_prefix("error: ").unwrap_or(first))
        }
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

/// `ws-port` out of `--ws-port <PORT>` or `--ws-port=1`; none where it is no flag, or may be a secret.
fn flag_name(argument: &str) -> Option<&str> {
    let name = argument.strip_prefix("--")?;
    let name = name.split(['=', ' ']).next()?.trim_end_matches(['[', '<']);
    harmless(name).then_some(name)
}

/// Whether `text` can be repeated: our own names have few digits, tokens little else.
fn harmless(text: &str) -> bool {
    text.len() <= MAX_ECHO
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && text.chars().filter(char::is_ascii_digit).count() <= 1
}

/// Longer than the longest flag, shorter than what would push the advice out of sight.
const MAX_ECHO: usize = 32;
