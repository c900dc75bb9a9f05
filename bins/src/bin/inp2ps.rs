//! The signalling server.

use std::process::ExitCode;

fn main() -> ExitCode {
    inp2p_bins::inp2ps(std::env::args_os())
}

#[cfg(not(any(feature = "tokio", feature = "smol", feature = "async-std")))]
compile_error!("a program needs a runtime: build with --features tokio, smol or async-std");
