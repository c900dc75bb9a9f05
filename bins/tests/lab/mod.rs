//! A small world for the tests of the programs: real processes on loopback, files in a folder that is
//! removed, ports that the system chooses, and waiting with a deadline in place of sleeping.
//!
//! Everything that is started here ends with the value that stands for it, also when a test fails.

#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::print_stdout, reason = "the harness captures it and shows it with a failure")]

pub(crate) mod process;
pub(crate) mod target;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use inp2p_bins::client::status;
use inp2p_core::status::{ForwardStatus, PeerStatus, Status};
use process::Program;
use sha2::{Digest, Sha256};

/// The token of the tests.
pub(crate) const TOKEN: &str = "12345678";

/// A folder for one test.
pub(crate) struct Lab {
    folder: PathBuf,
    /// How many commands it has made.
    started: AtomicUsize,
}

impl Lab {
    /// `name` tells the tests of one program apart. It is short: the path of a Unix socket has 107 bytes.
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("inp2p-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self { folder, started: AtomicUsize::new(0) }
    }

    /// A path in the lab's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file in the lab's folder.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// `inp2pc` in the lab's folder, without this process's own settings.
    pub(crate) fn inp2pc(&self, arguments: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_inp2pc"), arguments)
    }

    /// `inp2ps`, likewise.
    pub(crate) fn inp2ps(&self, arguments: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_inp2ps"), arguments)
    }

    /// The program on the next of the runtimes that [`RUNTIMES`] names.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("INP2P_") {
                command.env_remove(name);
            }
        }
        if let Ok(runtimes) = std::env::var(RUNTIMES) {
            let runtimes: Vec<_> = runtimes.split(',').collect();
            let next = self.started.fetch_add(1, Ordering::Relaxed);
            command.env("INP2P_RUNTIME", runtimes[next % runtimes.len()]);
        }
        command
    }

    /// A server on loopback that listens.
    pub(crate) fn server(&self) -> Server {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        self.server_on([any; 5])
    }

    /// A server that knows the token and listens on these: signalling, UDP STUN, TCP STUN.
    pub(crate) fn server_on(&self, ports: [SocketAddr; 5]) -> Server {
        self.server_with(ports, &["-token", TOKEN])
    }

    /// A server on loopback with these arguments, its users' tokens among them.
    pub(crate) fn server_of(&self, arguments: &[&str]) -> Server {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        self.server_with([any; 5], arguments)
    }

    /// The same on those ports.
    pub(crate) fn server_with(&self, ports: [SocketAddr; 5], arguments: &[&str]) -> Server {
        let [ws, udp1, udp2, tcp1, tcp2] = ports.map(|address| address.port().to_string());
        let data = self.path("server").display().to_string();
        let mut command = self.inp2ps(&["-bind", "127.0.0.1", "-data", &data, "-ws-port", &ws]);
        command.args(arguments);
        command.args(["-stun-udp1", &udp1, "-stun-udp2", &udp2, "-stun-tcp1", &tcp1, "-stun-tcp2", &tcp2]);
        let program = Program::start("inp2ps", command);
        let line = program.wait_for_log("inp2ps listens");
        let ports = ["ws=", "stun_udp1=", "stun_udp2=", "stun_tcp1=", "stun_tcp2="]
            .map(|field| address(&line, field));
        Server { program, ports }
    }

    /// A node's command line in a folder of its own, to be completed and started.
    pub(crate) fn node(&self, server: &Server, name: &str) -> NodeBuilder {
        self.node_at(&server.ws(), name)
    }

    /// The same for a server that may not be there.
    pub(crate) fn node_at(&self, server: &SocketAddr, name: &str) -> NodeBuilder {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let mut command = self.inp2pc(&["-serverhost", &host, "-serverport", &port, "-node", name]);
        command.current_dir(&folder);
        NodeBuilder { name: name.to_owned(), command, folder, token: Some(TOKEN.to_owned()) }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) program: Program,
    ports: [SocketAddr; 5],
}

impl Server {
    /// Where it takes signalling and REST.
    pub(crate) fn ws(&self) -> SocketAddr {
        self.ports[0]
    }

    /// A REST call with the admin's key: the status and the body.
    pub(crate) fn rest(&self, lab: &Lab, method: &str, path: &str, body: &str) -> (u16, String) {
        let key = fs::read_to_string(lab.path("server").join("admin.key")).unwrap();
        let mut stream = connect(self.ws());
        write!(
            stream,
            "{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            key.trim(),
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no HTTP: {answer}")), self::body(&answer).to_owned())
    }

    /// All its addresses, for one that takes its place.
    pub(crate) fn ports(&self) -> [SocketAddr; 5] {
        self.ports
    }
}

/// A node that is not started yet.
pub(crate) struct NodeBuilder {
    name: String,
    command: Command,
    folder: PathBuf,
    token: Option<String>,
}

impl NodeBuilder {
    /// More arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Another token.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// No `-token`: it comes from elsewhere.
    pub(crate) fn no_token(mut self) -> Self {
        self.token = None;
        self
    }

    /// Another folder, below the lab's.
    pub(crate) fn in_folder(mut self, lab: &Lab, folder: &str) -> Self {
        self.folder = lab.path(folder);
        fs::create_dir_all(&self.folder).unwrap();
        self.command.current_dir(&self.folder);
        self
    }

    /// A forward from a port that the system chooses to `target` behind `peer`.
    pub(crate) fn forward(self, peer: &str, target: SocketAddr) -> Self {
        let rule = format!("0:{peer}:{target}");
        self.with(&["-forward", &rule])
    }

    /// Starts it without waiting for anything.
    pub(crate) fn start(mut self) -> Node {
        if let Some(token) = &self.token {
            self.command.args(["-token", token]);
        }
        Node { program: Program::start(&self.name, self.command), folder: self.folder }
    }

    /// Starts it and waits until it has logged in.
    pub(crate) fn online(self) -> Node {
        let node = self.start();
        node.wait_until("logged in", |status| status.server.connected.then_some(()));
        node
    }

    /// Starts it and waits for it to end by itself: its exit code and what it wrote to stderr.
    pub(crate) fn refused(self) -> (i32, String) {
        let mut node = self.start();
        let code = node.program.wait_for_exit();
        (code, node.program.log())
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) program: Program,
    folder: PathBuf,
}

impl Node {
    /// A file beside its configuration.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What its control socket says; none while it says nothing.
    pub(crate) fn try_status(&self) -> Option<Status> {
        status::fetch(&self.path("inp2pc.sock")).ok().map(|(status, _)| status)
    }

    /// What its control socket says.
    pub(crate) fn status(&self) -> Status {
        self.wait_until("status", |status| Some(status.clone()))
    }

    /// What `wanted` finds in its status, as soon as it does.
    pub(crate) fn wait_until<T>(&self, what: &str, wanted: impl Fn(&Status) -> Option<T>) -> T {
        self.wait_within(DEADLINE, what, wanted)
    }

    /// The same, with another deadline.
    pub(crate) fn wait_within<T>(
        &self,
        deadline: Duration,
        what: &str,
        wanted: impl Fn(&Status) -> Option<T>,
    ) -> T {
        let mut last = None;
        let found = poll(deadline, || {
            last = self.try_status();
            last.as_ref().and_then(&wanted)
        });
        found.unwrap_or_else(|| {
            panic!("{}: not {what}: {last:#?}\n{}", self.program.name(), self.program.log())
        })
    }

    /// Where its only forward listens.
    pub(crate) fn listens(&self) -> SocketAddr {
        self.wait_until("listening", |status| {
            let forward = status.forwards.first().filter(|forward| forward.state == "listening")?;
            forward.listen.parse().ok()
        })
    }

    /// Its only forward.
    pub(crate) fn forward(&self) -> ForwardStatus {
        self.status().forwards.remove(0)
    }

    /// Its only peer.
    pub(crate) fn peer(&self) -> PeerStatus {
        self.wait_until("a peer", |status| status.peers.first().cloned())
    }

    /// A connection through its only forward.
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.listens())
    }
}

/// A connection with deadlines, so that no test hangs.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One round trip on a connection to an echo.
pub(crate) fn echo(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(message)?;
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back)?;
    assert!(back == message, "the echo is not what was sent");
    Ok(())
}

/// How a connection ended for its reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Clean,
    /// By a reset.
    Reset,
    /// Not yet.
    Open,
}

/// Reads until the connection ends, or until its read timeout.
pub(crate) fn end_of(stream: &mut TcpStream) -> End {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return End::Clean,
            Ok(_) => {}
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => return End::Open,
                std::io::ErrorKind::Interrupted => {}
                _ => return End::Reset,
            },
        }
    }
}

/// Asks a server for `path` in plain HTTP: the whole answer.
pub(crate) fn http(server: SocketAddr, path: &str) -> String {
    let mut stream = connect(server);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The body of an HTTP answer.
pub(crate) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// `length` bytes in which nothing repeats.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    });
    words.take(length).collect()
}

/// SHA-256.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Looks again and again until `look` finds something or the deadline has come.
pub(crate) fn poll<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// The address behind `field` in a log line.
fn address(line: &str, field: &str) -> SocketAddr {
    let rest = line.split_once(field).unwrap_or_else(|| panic!("no {field} in {line}")).1;
    rest.split([' ', ','])
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{field} in {line}"))
}

/// Whether a folder of the file system holds what a lab would leave behind.
pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The variable that chooses runtimes: `smol` runs every program on smol, `tokio,smol` one after another on
/// tokio and on smol, so that the two ends of a session, which are started one after the other, have different
/// ones. Without it they have the default.
pub(crate) const RUNTIMES: &str = "TEST_RUNTIMES";

/// For what takes milliseconds on an idle machine: failing tests wait it out, others do not.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
