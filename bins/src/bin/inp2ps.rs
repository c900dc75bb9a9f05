//! The signalling server.

use std::process::ExitCode;

fn main() -> ExitCode {
    inp2p_bins::inp2ps(std::env::args_os())
}
