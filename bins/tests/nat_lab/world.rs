//! The programs in the lab: a server, and nodes behind NATs.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::internet::{Home, Internet, SERVER, SERVER2};
use crate::kind::Kind;
use crate::lab::process::Program;
use crate::lab::{Lab, Node, NodeBuilder, TOKEN};
use crate::netns::Namespace;

/// An internet with a server on it.
pub(crate) struct World {
    pub(crate) server: Program,
    pub(crate) server_host: Namespace,
    pub(crate) internet: Internet,
    pub(crate) lab: Lab,
    options: Options,
}

/// How the server is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Whether it uses its second address.
    pub(crate) two_addresses: bool,
    /// Whether signalling is on port 443.
    pub(crate) on_443: bool,
    /// What the server and node `a` run on, and what all others do.
    pub(crate) runtimes: [&'static str; 2],
}

impl Default for Options {
    fn default() -> Self {
        Self { two_addresses: false, on_443: false, runtimes: ON.get() }
    }
}

/// Sets what the programs of this thread's check run on.
pub(crate) fn run_on(runtimes: [&'static str; 2]) {
    ON.set(runtimes);
}

thread_local! {
    static ON: Cell<[&'static str; 2]> = const { Cell::new(["tokio"; 2]) };
}

/// A place for a node: its own namespace, and the home around it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) host: Namespace,
    /// Its address on its own interface.
    pub(crate) address: Ipv4Addr,
    /// None for a public host.
    pub(crate) home: Option<Home>,
}

impl World {
    /// A new one, in a folder of its own.
    pub(crate) fn new(options: Options) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let lab = Lab::new(&format!("lab{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let mut internet = Internet::new();
        let server_host = internet.server();
        let server = start_server(&lab, &server_host, options);
        Self { server, server_host, internet, lab, options }
    }

    /// Ends the server without warning and starts it again.
    pub(crate) fn restart_server(&mut self) {
        self.server.kill();
        self.server = start_server(&self.lab, &self.server_host, self.options);
    }

    /// A place for a node behind a NAT of this kind.
    pub(crate) fn place(&mut self, kind: Kind) -> Place {
        if kind == Kind::Public {
            let (host, address) = self.internet.public_host();
            return Place { host, address, home: None };
        }
        let mut home = self.internet.home(kind);
        let (host, address) = home.host();
        Place { host, address, home: Some(home) }
    }

    /// A node, to be completed and started by [`World::start`].
    pub(crate) fn node(&self, name: &str) -> NodeBuilder {
        let server = SocketAddr::from((SERVER, self.signalling_port()));
        let [first, others] = self.options.runtimes;
        self.lab.node_at(&server, name).with(&["-runtime", if name == "a" { first } else { others }])
    }

    fn signalling_port(&self) -> u16 {
        if self.options.on_443 { 443 } else { 27183 }
    }
}

impl Place {
    /// Starts a node here and waits until it has logged in.
    pub(crate) fn online(&self, node: NodeBuilder) -> Node {
        self.host.run(|| node.online())
    }

    /// The address by which the internet sees it.
    pub(crate) fn public(&self) -> Ipv4Addr {
        self.home.as_ref().map_or(self.address, |home| home.public)
    }

    /// The NAT next to the node.
    pub(crate) fn nat(&self) -> &Namespace {
        &self.home.as_ref().unwrap().nats[0]
    }

    /// A connection through the only forward of the node that runs here.
    pub(crate) fn connect(&self, node: &Node) -> TcpStream {
        self.host.run(|| node.connect())
    }
}

fn start_server(lab: &Lab, host: &Namespace, options: Options) -> Program {
    let data = lab.path("server").display().to_string();
    let (bind, second) = (SERVER.to_string(), SERVER2.to_string());
    let other = format!("{}={}", OTHER_USER.0, OTHER_USER.1);
    let mut command = lab.inp2ps(&["-token", TOKEN, "-token", &other, "-bind", &bind, "-data", &data]);
    command.args(["-runtime", options.runtimes[0]]);
    if options.two_addresses {
        command.args(["-stun-ip2", &second]);
    }
    if options.on_443 {
        command.args(["-ws-port", "443"]);
    }
    let server = host.run(|| Program::start("inp2ps", command));
    server.wait_for_log("inp2ps listens");
    server
}

/// A second user, and the token.
pub(crate) const OTHER_USER: (&str, &str) = ("other", "87654321");
