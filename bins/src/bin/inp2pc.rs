//! The client.

use std::process::ExitCode;

fn main() -> ExitCode {
    inp2p_bins::inp2pc(std::env::args_os())
}
