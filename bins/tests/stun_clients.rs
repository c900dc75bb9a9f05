//! STUN clients of other makers against our server: coturn's two, aiostun and aioice; and tshark looks at all
//! that passes meanwhile.
//!
//! The server has two addresses of loopback, as `-stun-ip2` wants them. A check whose programs are not on this
//! machine is skipped, by name, and counted as such. `just stun-clients` installs them and runs this.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a failed check panics, and the results are its output"
)]

mod lab;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use lab::process::{Program, Ran};
use lab::{Lab, Server, TOKEN, poll};

/// A check: its name, what it needs, and what it does.
type Check = (&'static str, &'static str, fn(&Ports));

const CHECKS: [Check; 7] = [
    ("turnutils_stunclient", "turnutils_stunclient", stunclient),
    ("turnutils_natdiscovery: mapping", "turnutils_natdiscovery", mapping),
    ("turnutils_natdiscovery: filtering", "turnutils_natdiscovery", filtering),
    ("turnutils_natdiscovery: hairpinning", "turnutils_natdiscovery", hairpinning),
    ("aiostun over UDP", "aiostun", aiostun_udp),
    ("aiostun over TCP", "aiostun", aiostun_tcp),
    ("aioice", "aioice", aioice),
];

/// The server's STUN ports.
struct Ports {
    udp: [SocketAddr; 2],
    tcp: [SocketAddr; 2],
}

fn main() -> ExitCode {
    let lab = Lab::new("stun");
    let server = lab.server_of(&["-token", TOKEN, "-stun-ip2", SECOND]);
    let ports = ports(&server);
    let capture = Capture::start(&ports);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut count = |name: &str, ended: Option<bool>| match ended {
        Some(true) => {
            println!("{name} ... ok");
            passed += 1;
        }
        Some(false) => {
            println!("{name} ... FAILED");
            failed += 1;
        }
        None => skipped += 1,
    };
    for (name, needs, check) in CHECKS {
        if is_there(needs) {
            count(name, Some(catch_unwind(AssertUnwindSafe(|| check(&ports))).is_ok()));
        } else {
            println!("{name} ... skipped: needs {needs}");
            count(name, None);
        }
    }
    match capture {
        Ok(capture) => {
            let judged = catch_unwind(AssertUnwindSafe(|| capture.judge(&ports)));
            count("tshark finds nothing malformed", Some(judged.is_ok()));
        }
        Err(reason) => {
            println!("tshark ... skipped: {reason}");
            count("tshark", None);
        }
    }
    println!("\nstun clients: {passed} passed; {failed} failed; {skipped} skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn ports(server: &Server) -> Ports {
    let [_, udp1, udp2, tcp1, tcp2] = server.ports();
    Ports { udp: [udp1, udp2], tcp: [tcp1, tcp2] }
}

/// What it sees on each port, and what follows for the RFC 5780 tests that it goes on with.
fn stunclient(ports: &Ports) {
    for port in ports.udp {
        let ran = run("turnutils_stunclient", &["-p", &port.port().to_string(), "127.0.0.1"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains("UDP reflexive addr: 127.0.0.1:"), "{ran:?}");
        let other = ports.udp.iter().find(|other| **other != port).unwrap().port();
        assert!(ran.stdout.contains(&format!("Other addr: : {SECOND}:{other}")), "{ran:?}");
        // Asked for another address and port, and for another port of its own (RESPONSE-PORT).
        assert!(ran.stdout.contains(&format!("Response origin: : {SECOND}:{other}")), "{ran:?}");
    }
}

fn mapping(ports: &Ports) {
    discovers(ports, "-m", "NAT with Endpoint Independent Mapping!");
}

fn filtering(ports: &Ports) {
    discovers(ports, "-f", "NAT with Endpoint Independent Filtering!");
}

fn hairpinning(ports: &Ports) {
    discovers(ports, "-H", "Hairpinning");
}

fn discovers(ports: &Ports, test: &str, what: &str) {
    let port = ports.udp[0].port().to_string();
    let ran = run("turnutils_natdiscovery", &[test, "-p", &port, "127.0.0.1"]);
    assert!(ran.code == 0 && ran.stdout.contains(what), "{ran:?}");
}

fn aiostun_udp(ports: &Ports) {
    ports.udp.iter().for_each(|port| aiostun("UDP", *port));
}

fn aiostun_tcp(ports: &Ports) {
    ports.tcp.iter().for_each(|port| aiostun("TCP", *port));
}

fn aiostun(transport: &str, port: SocketAddr) {
    let script = format!(
        "import asyncio, aiostun
from aiostun import constants
async def main():
    async with aiostun.Client(host='{}', port={}, proto=constants.IPPROTO_{transport}) as client:
        seen = await client.get_mapped_address()
        print(seen['ip'], seen['port'], client.get_local_addr()[1])
asyncio.run(main())",
        port.ip(),
        port.port(),
    );
    sees_itself(&script);
}

fn aioice(ports: &Ports) {
    for port in ports.udp {
        let script = format!(
            "import asyncio
from aioice import Candidate, ice
class Receiver:
    def protocol_lost(self, protocol): pass
async def main():
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: ice.StunProtocol(Receiver()), local_addr=('127.0.0.1', 0))
    own = transport.get_extra_info('sockname')[1]
    protocol.local_candidate = Candidate(foundation='1', component=1, transport='udp', priority=1,
        host='127.0.0.1', port=own, type='host')
    found, *_ = await ice.server_reflexive_candidate(protocol, ('{}', {}))
    print(found.host, found.port, own)
    transport.close()
asyncio.run(main())",
            port.ip(),
            port.port(),
        );
        sees_itself(&script);
    }
}

/// Runs a script that prints the address and port that the server saw, and the port that it had.
fn sees_itself(script: &str) {
    let mut command = Command::new(python());
    command.args(["-c", script]);
    let ran = Ran::of(command);
    let words: Vec<&str> = ran.stdout.split_whitespace().collect();
    let [ip, seen, own] = words[..] else { panic!("{ran:?}") };
    assert!(ip == "127.0.0.1" && seen == own, "{ran:?}");
}

/// A capture of all that passes between the clients and the server.
struct Capture {
    tshark: Program,
    file: PathBuf,
}

impl Capture {
    /// Begins, or says why that cannot be.
    fn start(ports: &Ports) -> Result<Self, String> {
        if !is_there("tshark") {
            return Err("needs tshark".to_owned());
        }
        // Wireshark's programs give up the rights of root before they write, in a folder that others have.
        let file = std::env::temp_dir().join(format!("inp2p-{}.pcapng", std::process::id()));
        let of = |transport: &str, ports: &[SocketAddr; 2]| {
            ports.map(|port| format!("{transport} port {}", port.port())).join(" or ")
        };
        let filter = format!("{} or {}", of("udp", &ports.udp), of("tcp", &ports.tcp));
        let mut command = Command::new("tshark");
        command.args(["-i", "lo", "-f", &filter, "-w"]).arg(&file);
        let mut tshark = Program::start("tshark", command);
        let begun = poll(lab::DEADLINE, || {
            if tshark.runs() { tshark.log().contains("Capturing on").then_some(true) } else { Some(false) }
        });
        if begun == Some(true) { Ok(Self { tshark, file }) } else { Err(tshark.log()) }
    }

    fn judge(mut self, ports: &Ports) {
        // What it has got from the kernel is all in the file once it has ended, which it does when the last
        // answers are there.
        let last = poll(lab::DEADLINE, || {
            let shown = self.read(ports, "stun.type == 0x0101 and tcp").stdout;
            (shown.lines().count() >= 1 || !is_there("aiostun")).then_some(())
        });
        self.tshark.terminate();
        last.expect("an answer over TCP in the capture");
        for (kind, what) in [("0x0001", "requests"), ("0x0101", "answers"), ("0x0111", "refusals")] {
            let found = self.read(ports, &format!("stun.type == {kind}"));
            assert!(found.code == 0 && !found.stdout.is_empty(), "no {what}: {found:?}");
            println!("    {} {what} in the capture", found.stdout.lines().count());
        }
        let bad = self.read(ports, "_ws.malformed or _ws.expert.severity >= error");
        assert!(bad.code == 0 && bad.stdout.is_empty(), "{bad:?}");
    }

    /// The packets that pass a filter, a line each.
    fn read(&self, ports: &Ports, filter: &str) -> Ran {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file).args(["-Y", filter]);
        for (transport, ports) in [("udp", ports.udp), ("tcp", ports.tcp)] {
            for port in ports {
                command.args(["-d", &format!("{transport}.port=={},stun", port.port())]);
            }
        }
        Ran::of(command)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

fn run(program: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(arguments);
    Ran::of(command)
}

/// Whether a program is in the path, or a Python module can be had.
fn is_there(name: &str) -> bool {
    if matches!(name, "aiostun" | "aioice") {
        let mut command = Command::new(python());
        command.args(["-c", &format!("import {name}")]).stdout(Stdio::null()).stderr(Stdio::null());
        return command.status().is_ok_and(|status| status.success());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// The Python that has the modules: the recipe's own.
fn python() -> OsString {
    std::env::var_os("INP2P_STUN_PYTHON").unwrap_or_else(|| "python3".into())
}

/// The server's second address.
const SECOND: &str = "127.0.0.2";
