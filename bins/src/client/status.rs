//! The `status` subcommand: asks the running client over its control socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use inp2p_core::status::Status;

use super::table;
use crate::cli::given::Given;
use crate::failure::Failure;
use crate::{files, output};

/// Prints the status, as a table or as JSON.
pub(super) fn main(given: Given<'_>, socket: &Path) -> Result<(), Failure> {
    let as_json = given.switch("json")? == Some(true);
    let (status, json) = fetch(socket)?;
    if as_json {
        output::result(json);
    } else {
        output::result(table::render(&status));
    }
    Ok(())
}

/// The status of the client behind `socket`, and the JSON that it answered.
pub fn fetch(socket: &Path) -> Result<(Status, String), Failure> {
    let shown = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::Failed(format!(
            "no client runs behind {shown}: start one, or name its -config or its -control socket"
        )),
        _ => Failure::Failed(format!("cannot open {shown}: {}", files::reason(&error))),
    })?;
    let mut answer = Vec::new();
    let exchange = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(REQUEST))
        .and_then(|()| stream.take(MAX_ANSWER).read_to_end(&mut answer));
    exchange.map_err(|error| {
        let reason = match error.kind() {
            // What a read is told whose time is over.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!(
                    "the client behind it has said nothing for {} s: it hangs or is stopped",
                    PATIENCE.as_secs()
                )
            }
            _ => files::reason(&error),
        };
        Failure::Failed(format!("no answer from {shown}: {reason}"))
    })?;
    let strange = |what: &str| Failure::Failed(format!("{shown} does not answer as inp2pc does: {what}"));
    let answer = String::from_utf8(answer).map_err(|_| strange("not UTF-8"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| strange("not HTTP"))?;
    let line = head.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) != Some("200") {
        return Err(strange(line));
    }
    let status = serde_json::from_str(body).map_err(|error| strange(&error.to_string()))?;
    Ok((status, body.to_owned()))
}

/// HTTP/1.0 has neither chunks nor kept connections: the body ends where the connection does.
const REQUEST: &[u8] = b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n";

/// The client answers from memory; one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A thousand peers and forwards take about 1 MB.
const MAX_ANSWER: u64 = 16 << 20;
