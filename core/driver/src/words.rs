//! Errors of the system in words for people.

use std::io;

use crate::setup::StartError;

/// An error of the system, without its number.
pub(crate) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        io::ErrorKind::ConnectionReset => "the connection was reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "no route to the network".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).replace(char::is_control, " ")
        }
    }
}

/// Why nothing can listen at an address of this machine.
pub(crate) fn cannot_listen(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another program".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => in_words(error),
    }
}

/// Why a program cannot start that needs this port, which `flag` chooses; `bind` chooses its address, where a flag
/// does.
pub(crate) fn unavailable(
    transport: &str,
    port: u16,
    flag: &str,
    bind: Option<&str>,
    error: &io::Error,
) -> StartError {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!("choose another with {flag}"),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need more rights; choose another with {flag}")
        }
        io::ErrorKind::AddrNotAvailable => format!("see {}", bind.unwrap_or(flag)),
        _ => match bind {
            Some(bind) => format!("see {flag} and {bind}"),
            None => format!("see {flag}"),
        },
    };
    StartError::Failed(format!(
        "cannot listen on {transport} port {port}: {}; {advice}",
        cannot_listen(error)
    ))
}
