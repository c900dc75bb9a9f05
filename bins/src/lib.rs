//! The two programs: `inp2ps`, the signalling server, and `inp2pc`, the client.
//!
//! This crate reads flags, environment and files, hands the driver a finished setup, and turns what comes
//! of it into log lines, results and exit codes. It decides nothing about the protocol.
//!
//! A program of one's own can run [`demo::run`] on a network of its own, without a runtime that is compiled in
//! here.
//!
//! Results go to stdout, everything else to stderr; exit codes are those of [`failure::Failure`].

#![cfg_attr(
    not(any(feature = "tokio", feature = "smol", feature = "async-std")),
    allow(dead_code, reason = "without a runtime only the demo is left")
)]

use std::ffi::OsString;
use std::process::ExitCode;

pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod failure;
mod files;
mod logs;
pub mod output;
mod run;
mod server;
mod signals;
mod terminal;
mod token;

use failure::Failure;

/// The version of both programs, as `-version` and `health` show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The client's program. `argv` begins with the program's name.
pub fn inp2pc(argv: impl IntoIterator<Item = OsString>) -> ExitCode {
    finish("inp2pc", client::main(argv))
}

/// The server's program. `argv` begins with the program's name.
pub fn inp2ps(argv: impl IntoIterator<Item = OsString>) -> ExitCode {
    finish("inp2ps", server::main(argv))
}

fn finish(program: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(program, &failure);
            ExitCode::from(failure.code())
        }
    }
}
