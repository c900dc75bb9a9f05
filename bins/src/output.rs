//! The only place that prints: results on stdout, the last word of a failed program on stderr.
//!
//! Nothing here panics when the reader has gone (`inp2pc status | head -1`): what cannot be written is lost.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a result to stdout, with a newline where `text` does not end with one.
pub fn result(text: impl Display) {
    let text = text.to_string();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = io::stdout().lock();
    let _ = write!(out, "{text}{end}").and_then(|()| out.flush());
}

/// Writes `PROGRAM: REASON` to stderr, as one line whatever the reason holds.
pub fn complain(program: &str, reason: impl Display) {
    let _ = writeln!(io::stderr(), "{program}: {}", escape(&reason.to_string()));
}

/// Writes a question to stderr, without a newline.
pub fn ask(question: &str) {
    let mut out = io::stderr().lock();
    let _ = write!(out, "{question}").and_then(|()| out.flush());
}

/// `text` with every control character, and every character that changes the direction of what follows,
/// as `\uXXXX`: names and reasons that a peer chose must not move the cursor, forge a line or hide one.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if is_unsafe(c) => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

fn is_unsafe(c: char) -> bool {
    // Unicode's line and paragraph separators, and its bidirectional controls (UAX #9 section 2).
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(escape("a\x1b[2Jb\r\nc\u{202e}d\u{9b}"), "a\\u001b[2Jb\\r\\nc\\u202ed\\u009b");
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        assert_eq!(escape("nodeB: 连接被拒绝 \"x\""), "nodeB: 连接被拒绝 \"x\"");
    }
}
