//! Unix listeners. They are about files of this machine, so only real networks can be held against this.

use std::fs;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::{accept, read_to_end, within, write_all};
use crate::net::{ListenIo, Net, StreamIo};

/// A program connects, bytes pass both ways, and the file is gone afterwards.
pub async fn a_local_socket_serves_and_goes<N: Net>(net: N) {
    let folder = Folder::new("serves");
    let path = folder.path("socket");
    let mut listener = net.listen_local(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(listener.local_addr().unwrap().ip().is_unspecified());

    let connecting = path.clone();
    let program = std::thread::spawn(move || {
        let mut stream = UnixStream::connect(connecting).unwrap();
        stream.write_all(b"question").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let (mut stream, peer) = within(&net, "the program", accept(&mut listener)).await;
    assert!(peer.ip().is_unspecified());
    poll_fn(|cx| stream.poll_connected(cx)).await.unwrap();
    assert_eq!(within(&net, "the question", read_to_end(&mut stream)).await.unwrap(), b"question");
    write_all(&mut stream, b"answer").await;
    drop(stream);
    assert_eq!(program.join().unwrap(), "answer");

    drop(listener);
    assert!(!path.exists());
}

/// The socket file of a program that was killed is replaced.
pub async fn a_stale_socket_file_is_replaced<N: Net>(net: N) {
    let folder = Folder::new("stale");
    let path = folder.path("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the file of a dead listener stays");
    let _listener = net.listen_local(&path).unwrap();
    UnixStream::connect(&path).unwrap();
}

/// A socket that somebody listens on is left to him, and so is a file that is no socket.
pub async fn a_used_path_is_refused<N: Net>(net: N) {
    let folder = Folder::new("used");
    let path = folder.path("socket");
    let first = net.listen_local(&path).unwrap();
    let refused = |path| net.listen_local(path).map(drop).unwrap_err().kind();
    assert_eq!(refused(&path), io::ErrorKind::AddrInUse);
    UnixStream::connect(&path).unwrap();
    drop(first);

    let file = folder.path("file");
    fs::write(&file, "precious").unwrap();
    assert_eq!(refused(&file), io::ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

/// A listener whose file was replaced by another one's does not take that away.
pub async fn another_listeners_file_stays<N: Net>(net: N) {
    let folder = Folder::new("replaced");
    let path = folder.path("socket");
    let first = net.listen_local(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _second = net.listen_local(&path).unwrap();
    drop(first);
    UnixStream::connect(&path).unwrap();
}

/// A folder for one check, removed with all in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        // Paths of Unix sockets are short (108 bytes); the system's own temporary folder is.
        let folder = std::env::temp_dir().join(format!("inp2p-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
