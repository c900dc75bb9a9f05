//! Targets of forwards: small servers in threads that last as long as the test's process.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

use super::hash;

/// Serves each connection by `serve`, in a thread of its own.
pub(crate) fn serve(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            // The test sees at its own end of the connection what became of it here.
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Sends back what comes, and ends when its client does.
pub(crate) fn echo() -> SocketAddr {
    serve(|mut stream| {
        stream.set_nodelay(true)?;
        let mut back = stream.try_clone()?;
        io::copy(&mut stream, &mut back)?;
        back.shutdown(Shutdown::Write)
    })
}

/// Reads to the end, then answers the SHA-256 of it.
pub(crate) fn hasher() -> SocketAddr {
    serve(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(&hash(&all))
    })
}

/// Sends `content` and ends.
pub(crate) fn source(content: Vec<u8>) -> SocketAddr {
    serve(move |mut stream| {
        stream.write_all(&content)?;
        stream.shutdown(Shutdown::Write)?;
        // Closing with unread data would reset what was sent.
        io::copy(&mut stream, &mut io::sink()).map(drop)
    })
}

/// Sends back one byte, reads to the end, and tells how it came.
pub(crate) fn told_of_the_end() -> (SocketAddr, mpsc::Receiver<Result<usize, io::ErrorKind>>) {
    let (told, heard) = mpsc::channel();
    let listening = serve(move |mut stream| {
        let mut first = [0; 1];
        stream.read_exact(&mut first)?;
        stream.write_all(&first)?;
        let _ = told.send(stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind()));
        Ok(())
    });
    (listening, heard)
}

/// Sends for as long as somebody takes it.
pub(crate) fn endless() -> SocketAddr {
    serve(|mut stream| {
        let block = [0x5a; 64 * 1024];
        loop {
            stream.write_all(&block)?;
        }
    })
}

/// A port on which nobody listens, and nobody can while this lives.
pub(crate) struct Refusing {
    _bound: OwnedFd,
    pub(crate) address: SocketAddr,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&bound, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = getsockname(&bound).unwrap().try_into().unwrap();
        Self { _bound: bound, address }
    }
}
