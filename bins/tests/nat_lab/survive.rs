//! An SSH session and a long download outlive what carries them.

use inp2p_core::path::Rung;

use crate::arguments::Arguments;
use crate::events::limit;
use crate::kind::Kind;
use crate::lab::{Node, target};
use crate::ladder::Relay;
use crate::pair::reaches;
use crate::ssh::{Server, Session};
use crate::transfer::Transfer;
use crate::world::{Options, Place, World};

/// A check of this kind.
pub(crate) type Survival = fn(&Arguments);

/// All of them, with their names.
pub(crate) const SURVIVALS: [(&str, Survival); 4] = [
    ("survives: from a relay to a better rung", promotion),
    ("survives: the relay killed", relay_killed),
    ("survives: another address of the client", another_address),
    ("survives: the server killed and started again", server_killed),
];

/// Two nodes behind home routers, a session and a download between them.
struct Work {
    session: Session,
    transfer: Transfer,
    a: Node,
    _b: Node,
    _ssh: Server,
    here: Place,
    _there: Place,
    world: World,
}

impl Work {
    fn begin(arguments: &Arguments, mut world: World, kinds: [Kind; 2], blocked: bool, rung: Rung) -> Self {
        let [here, there] = kinds.map(|kind| world.place(kind));
        if blocked {
            let other = there.public();
            here.nat().rules(&format!(
                "table ip block {{ chain pass {{ type filter hook forward priority -10;\n\
                 ip daddr {other} drop\nip saddr {other} drop\n}}\n}}"
            ));
        }
        let ssh = Server::start(&world.lab, &there.host);
        let echo = there.host.run(target::echo);
        let b = there.online(world.node("b"));
        let a = here.online(world.node("a").forward("b", ssh.address).forward("b", echo));
        reaches(&a, rung.as_str(), crate::lab::DEADLINE);
        // So that it lasts, and leaves the processors to others.
        limit(&here.host, "eth0", 400);
        let ports: Vec<u16> = a.wait_until("listening", |status| {
            let ports = status.forwards.iter().map(|forward| forward.listen.rsplit_once(':')?.1.parse().ok());
            ports.collect()
        });
        let mut session = ssh.session(&here.host, ports[0]);
        session.says("first");
        let stream = here.host.run(|| crate::lab::connect(([127, 0, 0, 1], ports[1]).into()));
        let transfer = Transfer::begin(stream, (arguments.mebibytes * 1024 / 100) << 20);
        transfer.reach(5);
        Self { session, transfer, a, _b: b, _ssh: ssh, here, _there: there, world }
    }

    /// Both go on.
    fn go_on(&mut self, after: &str) {
        self.session.says(after);
        self.transfer.goes_on();
    }

    fn end(mut self) {
        self.session.says("last");
        self.transfer.finish();
        self.session.says("after the last");
    }
}

fn promotion(arguments: &Arguments) {
    let mut world = World::new(Options::default());
    let _relay = Relay::Private.start(&mut world);
    let mut work = Work::begin(arguments, world, HOMES, true, Rung::PrivateRelay);
    work.here.nat().tool("nft", "delete table ip block");
    reaches(&work.a, Rung::UdpPunch.as_str(), crate::lab::DEADLINE * 3);
    work.go_on("without a relay");
    work.end();
}

fn relay_killed(arguments: &Arguments) {
    let mut world = World::new(Options::default());
    let (_place, mut relay) = Relay::Private.start(&mut world);
    let mut work = Work::begin(arguments, world, HOMES, true, Rung::PrivateRelay);
    relay.program.kill();
    work.go_on("without the relay");
    reaches(&work.a, Rung::ServerRelay.as_str(), crate::lab::DEADLINE);
    work.end();
}

fn another_address(arguments: &Arguments) {
    let world = World::new(Options::default());
    let mut work = Work::begin(arguments, world, HOMES, false, Rung::UdpPunch);
    let host = &work.here.host;
    host.ip("addr del 192.168.1.2/24 dev eth0");
    host.ip("addr add 192.168.1.77/24 dev eth0");
    host.ip("route replace default via 192.168.1.1");
    work.go_on("at another address");
    reaches(&work.a, Rung::UdpPunch.as_str(), crate::lab::DEADLINE * 3);
    work.end();
}

fn server_killed(arguments: &Arguments) {
    let world = World::new(Options::default());
    let mut work = Work::begin(arguments, world, HOMES, false, Rung::UdpPunch);
    work.world.restart_server();
    work.go_on("while the server starts");
    work.a.wait_until("logged in again", |status| {
        (status.server.connected && status.server.relogins == 1).then_some(())
    });
    work.end();
}

const HOMES: [Kind; 2] = [Kind::PortRestricted, Kind::PortRestricted];
