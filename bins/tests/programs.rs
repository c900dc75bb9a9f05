//! Real programs through a forward: OpenSSH, nginx under wrk, PostgreSQL under pgbench, curl.
//!
//! Each check starts its server on an ephemeral loopback port with its files in a folder of its own. One
//! whose programs are not on this machine is skipped, by name, and counted as such. `just programs` installs
//! them and runs this with optimised binaries.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a failed check panics, and the results are its output"
)]

mod lab;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use lab::process::{Program, Ran};
use lab::{Lab, Node, Server, bytes, hash, poll};
use sha2::{Digest, Sha256};

/// A check: its name, the programs it needs, and what it does.
type Check = (&'static str, &'static [&'static str], fn(&Lab));

const CHECKS: [Check; 4] = [
    ("OpenSSH: a login, and scp of 100 MiB both ways", &["sshd", "ssh", "scp", "ssh-keygen"], openssh),
    ("nginx under wrk with 64 connections", &["nginx", "wrk"], nginx),
    ("PostgreSQL under pgbench for 10 s", &["initdb", "postgres", "pgbench", "runuser"], postgresql),
    ("1 GiB by curl", &["nginx", "curl"], curl),
];

fn main() -> ExitCode {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, needs, check) in CHECKS.into_iter().filter(|(name, ..)| name.contains(&only)) {
        let missing: Vec<_> = needs.iter().copied().filter(|program| find(program).is_none()).collect();
        if !missing.is_empty() {
            println!("{name} ... skipped: needs {}", missing.join(", "));
            skipped += 1;
            continue;
        }
        println!("{name} ...");
        let start = Instant::now();
        let lab = Lab::new("programs");
        open_to_all(&lab.path("."));
        if catch_unwind(AssertUnwindSafe(|| check(&lab))).is_ok() {
            println!("{name} ... ok, {:.1} s", start.elapsed().as_secs_f64());
            passed += 1;
        } else {
            println!("{name} ... FAILED");
            failed += 1;
        }
    }
    println!("\nprograms: {passed} passed; {failed} failed; {skipped} skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A server and two nodes; what is dialled at the forward of `a` reaches `target` behind `b`.
struct Tunnel {
    _server: Server,
    _b: Node,
    a: Node,
    port: String,
}

impl Tunnel {
    fn to(lab: &Lab, target: u16) -> Self {
        let server = lab.server();
        let b = lab.node(&server, "b").online();
        let a = lab.node(&server, "a").forward("b", (Ipv4Addr::LOCALHOST, target).into()).online();
        let port = a.listens().port().to_string();
        Self { _server: server, _b: b, a, port }
    }

    /// What passed through the forward, for the report; and that none of it failed.
    fn report(&self) {
        let forward = self.a.forward();
        assert_eq!(forward.error, None);
        println!(
            "    {} connections, {} B sent, {} B received",
            forward.total, forward.bytes_sent, forward.bytes_received
        );
    }
}

fn openssh(lab: &Lab) {
    let key = |name: &str| {
        let path = lab.path(name);
        let made = Ran::of(command("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text(&path)]));
        assert_eq!(made.code, 0, "{made:?}");
        path
    };
    let (host, user) = (key("host"), key("user"));
    let authorized = lab.file("authorized", fs::read(user.with_extension("pub")).unwrap());
    fs::set_permissions(&authorized, fs::Permissions::from_mode(0o600)).unwrap();
    let port = free_port();
    let config = lab.file(
        "sshd_config",
        format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin yes\n\
             Subsystem sftp internal-sftp\n",
            text(&host),
            text(&authorized),
        ),
    );
    // sshd run by root wants its folder for privilege separation; elsewhere it does without.
    let _ = fs::create_dir_all("/run/sshd");
    let sshd = Program::start_with_children("sshd", command("sshd", &["-D", "-e", "-f", text(&config)]));
    listens(&sshd, port);
    let tunnel = Tunnel::to(lab, port);
    let name = who();
    let login = format!("{name}@127.0.0.1");
    let options = [
        "-F",
        "none",
        "-i",
        text(&user),
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "BatchMode=yes",
    ];

    let said =
        Ran::of(command("ssh", &[&options[..], &["-p", &tunnel.port, &login, "echo $((6 * 7))"]].concat()));
    assert_eq!((said.code, said.stdout.as_str()), (0, "42\n"), "{said:?}");

    let content = bytes(5, 100 << 20);
    let original = lab.file("original", &content);
    let (there, back) = (lab.path("there"), lab.path("back"));
    for (from, to) in [
        (text(&original).to_owned(), format!("{login}:{}", text(&there))),
        (format!("{login}:{}", text(&there)), text(&back).to_owned()),
    ] {
        let copied =
            Ran::of(command("scp", &[&options[..], &["-q", "-P", &tunnel.port, &from, &to]].concat()));
        assert_eq!(copied.code, 0, "{copied:?}");
    }
    for copy in [there, back] {
        assert!(hash(&fs::read(&copy).unwrap()) == hash(&content), "{} differs", copy.display());
    }
    tunnel.report();
}

fn nginx(lab: &Lab) {
    lab.file("www/page", bytes(6, 4096));
    let (_nginx, port) = start_nginx(lab);
    let tunnel = Tunnel::to(lab, port);
    let url = format!("http://127.0.0.1:{}/page", tunnel.port);
    let ran = Ran::of(command("wrk", &["-t", "2", "-c", "64", "-d", "10s", "--latency", &url]));
    assert_eq!(ran.code, 0, "{ran:?}");
    // wrk has a line for each kind of failure, and none where there was none.
    assert!(!ran.stdout.contains("Socket errors") && !ran.stdout.contains("Non-2xx"), "{}", ran.stdout);
    let line = |word: &str| {
        ran.stdout.lines().find(|line| line.contains(word)).unwrap_or_default().trim().to_owned()
    };
    println!("    {}; {}", line("Requests/sec"), line("99%"));
    tunnel.report();
}

fn postgresql(lab: &Lab) {
    let folder = lab.path("pg");
    fs::create_dir_all(&folder).unwrap();
    let data = folder.join("data");
    let port = free_port();
    let port_text = port.to_string();
    // PostgreSQL refuses to run as root.
    let as_root = who() == "root";
    let drop_root = |program: &str, arguments: &[&str]| {
        let program = find(program).unwrap();
        let mut command = if as_root {
            let mut runuser = command("runuser", &["-u", "postgres", "--", text(&program)]);
            runuser.args(arguments);
            runuser
        } else {
            command(text(&program), arguments)
        };
        command.current_dir(&folder);
        command
    };
    if as_root {
        let owned = Ran::of(command("chown", &["postgres", text(&folder)]));
        assert_eq!(owned.code, 0, "{owned:?}");
    }
    let made = Ran::of(drop_root(
        "initdb",
        &["-D", text(&data), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"],
    ));
    assert_eq!(made.code, 0, "{made:?}");
    let serve =
        ["-D", text(&data), "-p", &port_text, "-h", "127.0.0.1", "-k", text(&folder), "-c", "fsync=off"];
    // runuser passes the request to end on to PostgreSQL.
    let postgres = Program::start_with_children("postgres", drop_root("postgres", &serve));
    listens(&postgres, port);
    let tunnel = Tunnel::to(lab, port);
    let to = ["-h", "127.0.0.1", "-p", &tunnel.port, "-U", "postgres"];
    let filled = Ran::of(command("pgbench", &[&["-i", "-s", "5", "-q"], &to[..], &["postgres"]].concat()));
    assert_eq!(filled.code, 0, "{filled:?}");
    let ran =
        Ran::of(command("pgbench", &[&["-c", "8", "-j", "2", "-T", "10"], &to[..], &["postgres"]].concat()));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("number of failed transactions: 0 ")
            || !ran.stdout.contains("failed transactions"),
        "{ran:?}"
    );
    let line =
        |word: &str| ran.stdout.lines().find(|line| line.contains(word)).unwrap_or_default().to_owned();
    println!("    {}; {}", line("tps"), line("latency average"));
    tunnel.report();
}

fn curl(lab: &Lab) {
    let content = bytes(7, 1 << 30);
    let expected = hash(&content);
    lab.file("www/big", content);
    let (_nginx, port) = start_nginx(lab);
    let tunnel = Tunnel::to(lab, port);
    let out = lab.path("out");
    let url = format!("http://127.0.0.1:{}/big", tunnel.port);
    let ran = Ran::of(command("curl", &["-sS", "--fail", "-o", text(&out), "-w", "%{speed_download}", &url]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut hasher = Sha256::new();
    std::io::copy(&mut fs::File::open(&out).unwrap(), &mut hasher).unwrap();
    let arrived: [u8; 32] = hasher.finalize().into();
    assert!(arrived == expected, "SHA-256 differs");
    println!("    {} B/s, SHA-256 equal", ran.stdout);
    tunnel.report();
}

/// nginx in the foreground, serving the lab's `www`.
fn start_nginx(lab: &Lab) -> (Program, u16) {
    let port = free_port();
    let folder = lab.path(".");
    let user = if who() == "root" { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/tmp-{kind};\n", text(&folder)))
        .collect();
    let config = lab.file(
        "nginx.conf",
        format!(
            "daemon off; {user} worker_processes 1; pid {0}/nginx.pid; error_log stderr;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; keepalive_requests 1000000; {temporary}\
             server {{ listen 127.0.0.1:{port}; root {0}/www; }} }}\n",
            text(&folder)
        ),
    );
    let nginx =
        Program::start_with_children("nginx", command("nginx", &["-c", text(&config), "-p", text(&folder)]));
    listens(&nginx, port);
    (nginx, port)
}

/// Waits until somebody listens there.
fn listens(program: &Program, port: u16) {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let up = poll(lab::DEADLINE, || std::net::TcpStream::connect(to).ok());
    assert!(up.is_some(), "{} does not listen:\n{}", program.name(), program.log());
}

/// A port that was free just now. These servers cannot be asked which one they chose.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The user that runs this.
fn who() -> String {
    Ran::of(command("id", &["-un"])).stdout.trim().to_owned()
}

/// Other users (PostgreSQL's) have to reach their folder.
fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)));
    command.args(arguments);
    command
}

/// Where a program is. Debian keeps servers, and all of PostgreSQL, off the usual path.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
