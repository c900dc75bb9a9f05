//! What the demo's forward leads to: a server that echoes, hashes or serves. The first byte of a connection
//! says which.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use sha2::{Digest, Sha256};

use super::pattern::Pattern;

/// Sends back what comes, until the client ends its direction.
pub(super) const ECHO: u8 = b'e';
/// Takes everything, then answers its SHA-256.
pub(super) const HASH: u8 = b'h';
/// Followed by a seed and a length, u64 each: serves that pattern.
pub(super) const SERVE: u8 = b's';

/// Listens on loopback, in threads that last as long as the process.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("target".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A thread that cannot be started, like one that fails, closes its connection; the other end
            // of it counts that.
            let _ = thread::Builder::new().spawn(move || serve(stream));
        }
    })?;
    Ok(address)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut what = [0];
    stream.read_exact(&mut what)?;
    match what {
        [ECHO] => {
            io::copy(&mut stream.try_clone()?, &mut stream)?;
        }
        [HASH] => {
            let mut hasher = Sha256::new();
            io::copy(&mut stream, &mut hasher)?;
            stream.write_all(&hasher.finalize())?;
        }
        [SERVE] => {
            let mut pattern = Pattern::new(number(&mut stream)?, number(&mut stream)?);
            while let Some(block) = pattern.next() {
                stream.write_all(block)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn number(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
