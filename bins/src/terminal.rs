//! A password from the terminal, without echo.

use std::io::{self, BufRead};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::output;

/// Asks for one line on the terminal that is stdin and does not show it. Ctrl-C gives up.
pub(crate) fn read_hidden(question: &str) -> io::Result<Zeroizing<String>> {
    let stdin = io::stdin();
    let as_before = tcgetattr(&stdin)?;
    output::ask(question);
    let quiet = Quiet::start(as_before)?;
    let mut line = Zeroizing::new(Vec::new());
    let read = read_line(&mut stdin.lock(), &mut line);
    drop(quiet);
    output::ask("\n");
    read?;
    String::from_utf8(line.to_vec()).map(Zeroizing::new).map_err(|_| io::Error::other("not UTF-8 text"))
}

fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let Some(byte) = buffer.first().copied() else {
            return if line.is_empty() { Err(cancelled()) } else { Ok(()) };
        };
        input.consume(1);
        match byte {
            b'\n' | b'\r' => return Ok(()),
            CTRL_C => return Err(cancelled()),
            byte => line.push(byte),
        }
    }
}

fn cancelled() -> io::Error {
    io::Error::other("cancelled")
}

/// While it lives, the terminal neither echoes nor sends signals; Ctrl-C ends the line as a character, so
/// that the terminal can be put back as it was before the program ends.
struct Quiet(Termios);

impl Quiet {
    fn start(as_before: Termios) -> io::Result<Self> {
        let mut quiet = as_before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(as_before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

const CTRL_C: u8 = 3;
