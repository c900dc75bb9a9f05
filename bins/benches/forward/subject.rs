//! What is measured: the path from a client's connection to the target.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::lab::process::Program;
use crate::lab::{DEADLINE, Lab, Node, Server, poll};

/// A way to the target.
#[derive(Clone, Copy)]
pub(crate) enum Subject {
    /// None: straight to the target.
    Raw,
    /// One HAProxy in TCP mode.
    Haproxy,
    /// Two in a row.
    HaproxyTwice,
    /// Our forward on a rung and a runtime.
    Ours { name: &'static str, rung: &'static str, runtime: &'static str },
}

/// One that runs, until it is dropped.
pub(crate) struct Running {
    entry: SocketAddr,
    programs: Vec<Program>,
    nodes: Vec<Node>,
    server: Option<Server>,
    lab: Lab,
}

impl Subject {
    pub(crate) const ALL: [Self; 7] = [
        Self::Raw,
        Self::Haproxy,
        Self::HaproxyTwice,
        Self::Ours { name: "udp-direct", rung: "udp-direct", runtime: "tokio" },
        Self::Ours { name: "tcp-direct", rung: "tcp-direct", runtime: "tokio" },
        Self::Ours { name: "server-relay", rung: "server-relay", runtime: "tokio" },
        Self::Ours { name: "udp-direct-smol", rung: "udp-direct", runtime: "smol" },
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Haproxy => "haproxy",
            Self::HaproxyTwice => "haproxy-x2",
            Self::Ours { name, .. } => name,
        }
    }

    /// Starts it, or says why it cannot be measured here.
    pub(crate) fn start(self, target: SocketAddr) -> Result<Running, String> {
        let lab = Lab::new(&format!("bench-{}", self.name()));
        let mut running =
            Running { entry: target, programs: Vec::new(), nodes: Vec::new(), server: None, lab };
        match self {
            Self::Raw => {}
            Self::Haproxy => running.haproxy()?,
            Self::HaproxyTwice => {
                running.haproxy()?;
                running.haproxy()?;
            }
            Self::Ours { rung, runtime, .. } => running.ours(rung, runtime)?,
        }
        Ok(running)
    }
}

impl Running {
    /// Where clients connect.
    pub(crate) fn entry(&self) -> SocketAddr {
        self.entry
    }

    /// What all its processes have used so far, in user space and in the kernel.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let nodes = self.nodes.iter().map(|node| &node.program);
        let server = self.server.iter().map(|server| &server.program);
        self.programs.iter().chain(nodes).chain(server).map(Program::processor_seconds).sum()
    }

    /// Puts an HAProxy before what there is.
    fn haproxy(&mut self) -> Result<(), String> {
        let found = Command::new("haproxy").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err("haproxy is not installed".to_owned());
        }
        let entry = free_port();
        let mut config =
            String::from("global\n nbthread 2\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n");
        let _ = writeln!(config, " timeout client 60s\n timeout server 60s\nlisten forward");
        let _ = writeln!(config, " bind {entry}\n server target {}", self.entry);
        let file = self.lab.file(&format!("haproxy-{}.cfg", entry.port()), config);
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file);
        self.programs.push(Program::start("haproxy", command));
        let listens = || std::net::TcpStream::connect(entry).is_ok().then_some(());
        poll(DEADLINE, listens).ok_or("haproxy does not listen")?;
        self.entry = entry;
        Ok(())
    }

    /// A server, a node beside the target, and a node with a forward to it.
    fn ours(&mut self, rung: &str, runtime: &str) -> Result<(), String> {
        let server = self.lab.server();
        let arguments = ["-rungs", rung, "-runtime", runtime];
        let mut far = self.lab.node(&server, "far").with(&arguments).start();
        if poll(Duration::from_millis(500), || (!far.program.runs()).then_some(())).is_some() {
            return Err(far.program.log());
        }
        let near = self.lab.node(&server, "near").with(&arguments).forward("far", self.entry).online();
        self.entry = near.listens();
        let up = || {
            let status = near.try_status()?;
            let peer = status.peers.first()?;
            (peer.rung.map(|rung| rung.to_string()).as_deref() == Some(rung)).then_some(())
        };
        poll(DEADLINE, up).ok_or(format!("no link on {rung}"))?;
        self.nodes.extend([far, near]);
        self.server = Some(server);
        Ok(())
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
