//! An SSH session that stays open.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::lab::process::{Program, Ran};
use crate::lab::{DEADLINE, Lab, poll};
use crate::netns::Namespace;

/// An OpenSSH server on loopback.
pub(crate) struct Server {
    _sshd: Program,
    key: PathBuf,
    pub(crate) address: SocketAddr,
}

/// A session in which the other side says again what it is told.
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Server {
    /// Starts one inside a namespace.
    pub(crate) fn start(lab: &Lab, host: &Namespace) -> Self {
        let key = |name: &str| {
            let path = lab.path(name);
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path);
            let made = Ran::of(command);
            assert_eq!(made.code, 0, "{made:?}");
            path
        };
        let (host_key, key) = (key("host"), key("user"));
        let authorized = lab.file("authorized", fs::read(key.with_extension("pub")).unwrap());
        fs::set_permissions(&authorized, fs::Permissions::from_mode(0o600)).unwrap();
        let config = lab.file(
            "sshd_config",
            format!(
                "ListenAddress 127.0.0.1:{PORT}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
                 StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
                 PermitRootLogin yes\n",
                text(&host_key),
                text(&authorized),
            ),
        );
        // sshd run by root wants its folder for privilege separation.
        let _ = fs::create_dir_all("/run/sshd");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", text(&config)]);
        let sshd = host.run(|| Program::start_with_children("sshd", command));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let up = host.run(|| poll(DEADLINE, || TcpStream::connect(address).ok()));
        assert!(up.is_some(), "sshd does not listen:\n{}", sshd.log());
        Self { _sshd: sshd, key, address }
    }

    /// A session from inside a namespace to a local port that leads here.
    pub(crate) fn session(&self, host: &Namespace, port: u16) -> Session {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-i", text(&self.key), "-p", &port.to_string()]);
        for option in
            ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        {
            command.args(["-o", option]);
        }
        command.args(["root@127.0.0.1", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = host.run(|| command.spawn().unwrap());
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, output) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Session { child, input, output }
    }
}

impl Session {
    /// Types a line, and waits until it is said again.
    pub(crate) fn says(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap_or_else(|error| panic!("ssh at {line:?}: {error}"));
        let said = self.output.recv_timeout(PATIENCE);
        assert_eq!(said.as_deref(), Ok(line), "ssh says something else, or nothing more");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Everybody has a namespace of its own, and so all ports.
const PORT: u16 = 2222;
/// Streams wait 30 s for a link; a test that fails waits longer.
const PATIENCE: Duration = Duration::from_secs(60);
