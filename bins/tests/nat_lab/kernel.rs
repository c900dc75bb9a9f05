//! What the kernel's NATs do, measured with bare sockets, and held to what the simulator's are held to.
//!
//! Four peers look at a home: two addresses with two ports each. Whether something does *not* arrive is told
//! by something that does: packets of one sender keep their order here. Only where nothing at all may
//! arrive is a second waited for it.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use inp2p_sim::nat::{Numbers, SEEN, Seen, Unsolicited};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_ip_ttl, set_socket_reuseaddr, set_socket_reuseport, set_socket_timeout,
};
use rustix::net::{AddressFamily, SocketType, bind, connect, listen, socket};

use crate::internet::{Home, Internet, SERVER, SERVER2};
use crate::kind::{Kind, silent};
use crate::netns::Namespace;

/// A check of the kernel.
pub(crate) type Measurement = fn();

/// All of them, with their names.
pub(crate) const MEASUREMENTS: [(&str, Measurement); 8] = [
    ("kernel: NATs are seen as the simulator's", as_the_simulator),
    ("kernel: two hosts share a port where peers tell them apart", shared_port),
    ("kernel: what comes early takes the port, without a firewall", early_takes_the_port),
    ("kernel: a SYN that is not refused yet takes the port", early_syn_takes_the_port),
    ("kernel: an opener that dies on the way takes nothing", opener_dies_on_the_way),
    ("kernel: what comes in refreshes a mapping", inbound_refreshes),
    ("kernel: TCP opens from both sides at once", simultaneous_open),
    ("kernel: the SYN of another connection keeps TCP from opening", foreign_opener),
];

/// A home with a host, and the peers.
struct Bench {
    node: Namespace,
    home: Home,
    peers: Namespace,
    _internet: Internet,
}

impl Bench {
    fn new(kind: Kind) -> Self {
        let mut internet = Internet::new();
        let peers = internet.server();
        let mut home = internet.home(kind);
        let (node, _) = home.host();
        Self { node, home, peers, _internet: internet }
    }

    fn udp(&self) -> UdpSocket {
        self.node.run(|| udp((Ipv4Addr::UNSPECIFIED, INSIDE)))
    }

    fn peer(&self, index: usize) -> UdpSocket {
        self.peers.run(|| udp(PEERS[index]))
    }

    /// The outside address of a port inside, where ports are kept.
    fn outside(&self) -> SocketAddr {
        (self.home.public, INSIDE).into()
    }
}

fn as_the_simulator() {
    let kinds = [
        Kind::FullCone,
        Kind::AddressRestricted,
        Kind::PortRestricted,
        Kind::Sequential,
        Kind::Symmetric,
        Kind::UdpBlocked,
    ];
    for (kind, (preset, expected)) in kinds.into_iter().zip(SEEN) {
        assert_eq!(seen(kind), expected, "{kind}, in the simulator {preset}");
    }
}

fn seen(kind: Kind) -> Seen {
    let bench = Bench::new(kind);
    let (node, peers) = (bench.udp(), [0, 1, 2, 3].map(|index| bench.peer(index)));
    let first = send(&node, PEERS[0]).and_then(|()| source(&peers[0]));
    let mut udp_admitted = 0;
    if let Ok(outside) = first {
        for peer in peers.iter().rev() {
            // The first one, which may, is the last one.
            peer.send_to(&[0], outside).unwrap();
        }
        let mut last = None;
        while last != Some(PEERS[0].into()) {
            last = Some(source(&node).unwrap());
            udp_admitted += 1;
        }
    }
    let mut udp_ports: Vec<u16> = first.iter().map(SocketAddr::port).collect();
    for (peer, to) in peers.iter().zip(PEERS).skip(1) {
        udp_ports.extend(send(&node, to).and_then(|()| source(peer)).map(|from| from.port()));
    }
    let listeners = bench.peers.run(|| PEERS.map(|peer| TcpListener::bind(peer).unwrap()));
    let tcp = listeners.iter().zip(PEERS).map(|(listener, to)| {
        let _stream = bench.node.run(|| tcp(INSIDE, to.into())).unwrap();
        listener.accept().unwrap().1.port()
    });
    let tcp_ports: Vec<u16> = tcp.collect();
    let hairpin = first.is_ok_and(|outside| hairpins(&bench, &node, outside));
    Seen {
        udp_ports: distinct(&udp_ports),
        udp_admitted,
        tcp_ports: distinct(&tcp_ports),
        numbers: Numbers::of(INSIDE, &tcp_ports),
        hairpin,
        unsolicited: unsolicited(&bench),
    }
}

/// Whether another host of the home reaches the first one by its outside address, and is seen by its own.
fn hairpins(bench: &Bench, node: &UdpSocket, outside: SocketAddr) -> bool {
    // The bench's home has handed out one address; this is the next.
    let host = Namespace::new("other");
    let ip = bench.home.plug(&host, 3);
    let other = host.run(|| udp((ip, OTHER)));
    send(&other, outside).unwrap();
    source(node).is_ok_and(|from| from == (bench.home.public, OTHER).into())
}

fn unsolicited(bench: &Bench) -> Unsolicited {
    let error = bench.peers.run(|| tcp(OTHER, (bench.home.public, OTHER).into())).map(drop).unwrap_err();
    match error.kind() {
        ErrorKind::ConnectionRefused => Unsolicited::Reset,
        ErrorKind::TimedOut => Unsolicited::Drop,
        _ => panic!("{error}"),
    }
}

/// As the simulator's [`inp2p_sim::nat::Ports::Preserving`] has it.
fn shared_port() {
    let mut bench = Bench::new(Kind::PortRestricted);
    let (other, _) = bench.home.host();
    let other = other.run(|| udp((Ipv4Addr::UNSPECIFIED, INSIDE)));
    let (node, peers) = (bench.udp(), [0, 1].map(|index| bench.peer(index)));
    send(&node, PEERS[0]).unwrap();
    send(&other, PEERS[1]).unwrap();
    assert_eq!([&peers[0], &peers[1]].map(|peer| source(peer).unwrap()), [bench.outside(); 2]);
    send(&other, PEERS[0]).unwrap();
    assert_ne!(source(&peers[0]).unwrap(), bench.outside(), "the same peer sees two hosts at one port");
}

fn early_takes_the_port() {
    for (kind, kept) in [(Kind::Bare, false), (Kind::PortRestricted, true)] {
        let bench = Bench::new(kind);
        let (node, peer) = (bench.udp(), bench.peer(0));
        peer.send_to(&[0], bench.outside()).unwrap();
        send(&node, PEERS[0]).unwrap();
        assert_eq!(loop_over_errors(&peer).unwrap() == bench.outside(), kept, "{kind}: UDP");

        let listener = bench.peers.run(|| TcpListener::bind(PEERS[1]).unwrap());
        bench.peers.run(|| tcp_from(PEERS[1].into(), bench.outside())).map(drop).unwrap_err();
        let stream = bench.node.run(|| tcp(INSIDE, PEERS[1].into()));
        // A router that has answered with a reset forgets the connection when the port is asked for again.
        assert!(stream.is_ok(), "{kind}: {stream:?}");
        assert_eq!(listener.accept().unwrap().1, bench.outside(), "{kind}: TCP");
    }
}

/// The answer to a SYN frees the port again; until it has left, what leaves that port gets another one, and so does
/// what follows it. From a second port all is well.
fn early_syn_takes_the_port() {
    let bench = Bench::new(Kind::Bare);
    bench.home.nats[0].rules(&silent(INSIDE));
    let early = bench.peers.run(|| tcp_from(PEERS[1].into(), bench.outside())).map(drop).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::TimedOut);
    let listener = bench.peers.run(|| TcpListener::bind(PEERS[1]).unwrap());
    let outside = |port| {
        let _stream = bench.node.run(|| tcp(port, PEERS[1].into())).unwrap();
        listener.accept().unwrap().1
    };
    assert_ne!(outside(INSIDE), bench.outside());
    assert_eq!(outside(OTHER), (bench.home.public, OTHER).into());
}

fn opener_dies_on_the_way() {
    let bench = Bench::new(Kind::Bare);
    let (node, peer) = (bench.udp(), bench.peer(0));
    // It passes the peer's own NAT, if there is one, and the router in the middle does not pass it on.
    set_ip_ttl(&peer, 1).unwrap();
    peer.send_to(&[0], bench.outside()).unwrap();
    send(&node, PEERS[0]).unwrap();
    assert_eq!(loop_over_errors(&peer).unwrap(), bench.outside());
}

fn inbound_refreshes() {
    let bench = Bench::new(Kind::PortRestricted);
    let nat = &bench.home.nats[0];
    let lasts = |seconds: &str| {
        nat.sysctl("netfilter/nf_conntrack_udp_timeout", seconds);
        nat.sysctl("netfilter/nf_conntrack_udp_timeout_stream", seconds);
    };
    let (node, peer) = (bench.udp(), bench.peer(0));
    lasts("10");
    send(&node, PEERS[0]).unwrap();
    let outside = source(&peer).unwrap();
    assert!(remaining(nat) <= 10);
    lasts("100");
    peer.send_to(&[0], outside).unwrap();
    source(&node).unwrap();
    assert!(remaining(nat) > 10, "what comes in does not refresh");
}

/// How many seconds the only UDP mapping of a NAT has left.
fn remaining(nat: &Namespace) -> u32 {
    let listed = nat.tool("conntrack", &format!("-L -p udp --orig-port-src {INSIDE}"));
    listed.split_whitespace().nth(2).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{listed}"))
}

fn simultaneous_open() {
    let mut internet = Internet::new();
    let sides = [Kind::PortRestricted, Kind::PortRestricted].map(|kind| {
        let mut home = internet.home(kind);
        (home.host().0, home)
    });
    let [(one, first), (other, second)] = &sides;
    let (to_first, to_second) = ((first.public, INSIDE).into(), (second.public, INSIDE).into());
    let streams = std::thread::scope(|scope| {
        let there = scope.spawn(|| other.run(|| tcp(INSIDE, to_first)));
        (one.run(|| tcp(INSIDE, to_second)), there.join().unwrap())
    });
    let (one, other) = (streams.0.unwrap(), streams.1.unwrap());
    assert_eq!((one.peer_addr().unwrap(), other.peer_addr().unwrap()), (to_second, to_first));
}

/// A SYN with a short time to live, of a connection that is given up, opens a NAT for the peer's SYN; but what
/// answers that has another sequence number. Without it the SYN that is late finds the peer waiting.
fn foreign_opener() {
    for opened in [false, true] {
        let mut internet = Internet::new();
        let mut homes = [Kind::PortRestricted, Kind::PortRestricted].map(|kind| internet.home(kind));
        let hosts = homes.each_mut().map(|home| home.host().0);
        let ([one, other], [first, second]) = (&hosts, &homes);
        let (to_first, to_second) = ((first.public, INSIDE).into(), (second.public, INSIDE).into());
        let _listener = one.run(listener);
        if opened {
            one.run(|| syn(INSIDE, to_second, 2)).unwrap_err();
        }
        let streams = std::thread::scope(|scope| {
            let there = scope.spawn(|| other.run(|| tcp(INSIDE, to_first)));
            let is_out = || second.nats[0].tool("conntrack", "-L -p tcp").contains("SYN_SENT").then_some(());
            crate::lab::poll(ABSENT, is_out).unwrap();
            [one.run(|| tcp(INSIDE, to_second)), there.join().unwrap()]
        });
        for stream in streams {
            assert_eq!(stream.is_err(), opened, "{stream:?}");
        }
    }
}

fn udp(at: impl Into<SocketAddr>) -> UdpSocket {
    let socket = UdpSocket::bind(at.into()).unwrap();
    socket.set_read_timeout(Some(ABSENT)).unwrap();
    socket
}

/// Sends something; a firewall may refuse it at once.
fn send(socket: &UdpSocket, to: impl Into<SocketAddr>) -> io::Result<()> {
    socket.send_to(&[0], to.into()).map(drop)
}

/// Where the next datagram comes from.
fn source(socket: &UdpSocket) -> io::Result<SocketAddr> {
    socket.recv_from(&mut [0; 8]).map(|(_, from)| from)
}

/// The same for a socket whose own datagram may have been answered by ICMP.
fn loop_over_errors(socket: &UdpSocket) -> io::Result<SocketAddr> {
    loop {
        match source(socket) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            result => return result,
        }
    }
}

/// A connection from a local port, which others may use too.
fn tcp(port: u16, to: SocketAddr) -> io::Result<TcpStream> {
    tcp_from((Ipv4Addr::UNSPECIFIED, port).into(), to)
}

fn tcp_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    loop {
        let stream = sharing(from)?;
        set_socket_timeout(stream.as_fd(), Timeout::Send, Some(ABSENT * 3))?;
        match connect(&stream, &to) {
            Ok(()) => return Ok(stream.into()),
            // That is how a connection that has not come about in time is told.
            Err(Errno::INPROGRESS) => return Err(ErrorKind::TimedOut.into()),
            // A connection that was interrupted cannot be waited for like this.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A SYN that goes a few hops only.
fn syn(port: u16, to: SocketAddr, hops: u32) -> io::Result<()> {
    let stream = sharing((Ipv4Addr::UNSPECIFIED, port).into())?;
    set_ip_ttl(&stream, hops)?;
    Ok(connect(&stream, &to)?)
}

/// Something that listens at the node's port.
fn listener() -> OwnedFd {
    let socket = sharing((Ipv4Addr::UNSPECIFIED, INSIDE).into()).unwrap();
    listen(&socket, 1).unwrap();
    socket
}

/// A TCP socket whose port others may use too.
fn sharing(from: SocketAddr) -> io::Result<OwnedFd> {
    let socket: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_reuseaddr(socket.as_fd(), true)?;
    set_socket_reuseport(socket.as_fd(), true)?;
    bind(&socket, &from)?;
    Ok(socket)
}

fn distinct(ports: &[u16]) -> usize {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    ports.len()
}

/// The peers: two addresses with two ports each.
const PEERS: [(Ipv4Addr, u16); 4] = [(SERVER, 100), (SERVER, 200), (SERVER2, 100), (SERVER2, 200)];
/// The node's port.
const INSIDE: u16 = 5000;
/// A port that nobody has written from.
const OTHER: u16 = 7000;
/// What has not come in this time does not come: packets take microseconds here.
const ABSENT: Duration = Duration::from_secs(1);
