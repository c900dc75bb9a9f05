//! SIGTERM and SIGINT: the first asks the program to end in order, the second ends it at once.

use std::io;
use std::thread;

use futures_channel::oneshot;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Tells of the first signal.
#[derive(Debug)]
pub(crate) struct Stop(oneshot::Receiver<()>);

impl Stop {
    /// Watches for signals from now on, in a thread of its own that belongs to no runtime.
    pub(crate) fn watch() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
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
