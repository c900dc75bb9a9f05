//! SIGTERM, SIGINT and SIGHUP, which a terminal sends that closes: the first asks the program to end in order, the
//! second ends it at once. `nohup` keeps its meaning.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::thread;

use futures_channel::oneshot;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Tells of the first signal.
#[derive(Debug)]
pub(crate) struct Stop(oneshot::Receiver<()>);

impl Stop {
    /// Watches for signals from now on, in a thread of its own that belongs to no runtime.
    pub(crate) fn watch() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        if !ignored(SIGHUP) {
            signals.add_signal(SIGHUP)?;
        }
        let (first, asked) = oneshot::channel();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut first = Some(first);
            for _ in signals.forever() {
                match first.take() {
                    Some(first) => {
                        let _ = first.send(());
                    }
                    // Whoever asks twice does not want to wait for open connections.
                    None => std::process::exit(1),
                }
            }
        })?;
        Ok(Self(asked))
    }

    /// Waits for the first signal. May be dropped and called again.
    pub(crate) async fn asked(&mut self) {
        // An error says that the watching thread is gone, which has no end but the process's.
        let _ = (&mut self.0).await;
    }
}

/// Whether whoever started this program wants `signal` to do nothing. Where that cannot be known, it stays as it is.
fn ignored(signal: c_int) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}
