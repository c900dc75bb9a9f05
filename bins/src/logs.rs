//! Logs: one line an event on stderr, as text or as JSON, with nothing in it that a terminal would obey.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use crate::output;

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = BadFormat;
    fn from_str(name: &str) -> Result<Self, BadFormat> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(BadFormat),
        }
    }
}

/// A name that is no log format's.
#[derive(Debug, thiserror::Error)]
#[error("use text or json")]
pub(crate) struct BadFormat;

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Threshold(pub(crate) Level);

impl Default for Threshold {
    fn default() -> Self {
        Self(Level::INFO)
    }
}

impl FromStr for Threshold {
    type Err = BadLevel;
    fn from_str(name: &str) -> Result<Self, BadLevel> {
        let level = match name {
            "error" => Level::ERROR,
            "warn" => Level::WARN,
            "info" => Level::INFO,
            "debug" => Level::DEBUG,
            "trace" => Level::TRACE,
            _ => return Err(BadLevel),
        };
        Ok(Self(level))
    }
}

/// A name that is no log level's.
#[derive(Debug, thiserror::Error)]
#[error("use error, warn, info, debug or trace")]
pub(crate) struct BadLevel;

/// Starts to log. Called once; a second call changes nothing.
pub(crate) fn start(threshold: Threshold, format: Format) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(threshold.0)
        .with_writer(Lines)
        .with_ansi(false)
        // A closed stderr is no reason to fail, nor one that could be reported anywhere.
        .log_internal_errors(false);
    let _ = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Hands out [`Line`]s.
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line
    }
}

/// Writes each event, which arrives whole, as one escaped line. The escapes are valid in JSON strings too,
/// and outside of strings JSON has no characters that need any.
struct Line;

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl Write for Line {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = output::escape(text.strip_suffix('\n').unwrap_or(&text));
        let mut stderr = io::stderr().lock();
        stderr.write_all(line.as_bytes())?;
        stderr.write_all(b"\n")?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
