//! The command lines.
//!
//! Flags are Go-style: `-name value`, `-name=value` and the same with two dashes. [`argv`] brings them into
//! the one form that clap reads, [`commands`] says which flags there are, [`given`] adds the environment and
//! turns text into typed values. What the configuration file and the defaults add is up to the programs.

pub mod argv;
pub mod commands;
mod errors;
pub mod given;

use std::ffi::OsString;

use clap::{ArgMatches, Command};

use crate::VERSION;
use crate::failure::Failure;
use crate::output;

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// To run, with these flags.
    Run(ArgMatches),
    /// Help or the version: it has been printed.
    Shown,
}

/// Reads a command line; help and version are answered here.
pub fn parse(command: Command, argv: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    let program = command.get_name().to_owned();
    let argv = argv::normalise(&command, argv);
    match command.try_get_matches_from(argv) {
        Ok(matches) => {
            if matches.get_flag("version") || matches.subcommand_name() == Some("version") {
                output::result(format!("{program} {VERSION}"));
                return Ok(Parsed::Shown);
            }
            Ok(Parsed::Run(matches))
        }
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            // clap writes two dashes; one is how these programs have always been called.
            output::result(error.to_string().replace("--", "-"));
            Ok(Parsed::Shown)
        }
        Err(error) => Err(Failure::Usage(errors::one_line(&program, &error))),
    }
}
