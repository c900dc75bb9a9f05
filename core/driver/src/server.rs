//! The server's control task, and what it stands on: the front of its TCP port and four STUN ports.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt as _;
use inp2p_core::auth::Identity;
use inp2p_core::ids::{ConnId, PublicKey};
use inp2p_core::relay::pairing::Limits;
use inp2p_core::server::io::{Action, AdminError, AdminReply, Input};
use inp2p_core::server::{SECRETS_FILE, SHARES_FILE, STATE_FILE, Saved, Server, ServerConfig};
use inp2p_core::stun::proof::ProofKey;
use inp2p_core::time::WallClock;
use inp2p_core::wire::message::StunPorts;
use tracing::{error, info, warn};

use crate::DUE;
use crate::net::{ListenIo as _, Net, Store, TcpConfig, TimerIo as _, UdpIo as _};
use crate::relay::{self, Relay};
use crate::setup::{Ports, ServerSetup, StartError};
use crate::stun;
use crate::web::{self, AdminCall, AdminClient, AdminKey, Front, FrontConfig, FrontEvent, Outbox, tls};
use crate::words;

/// A server that runs.
#[derive(Debug)]
pub struct ServerHandle {
    ports: Ports,
    stop: mpsc::UnboundedSender<()>,
    ended: oneshot::Receiver<()>,
}

impl ServerHandle {
    /// Where it listens, with real ports.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Lets it end; connections are closed with a word to each node.
    pub fn shutdown(&self) {
        // It may have ended by itself.
        let _ = self.stop.unbounded_send(());
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Why it had to end, if nobody asked it to.
    pub async fn wait(&mut self) -> Result<(), String> {
        match (&mut self.ended).await {
            Ok(()) => Ok(()),
            Err(_) => Err("the server's control task failed".to_owned()),
        }
    }
}

/// Binds all ports, reads or makes the server's keys, and begins to serve.
///
/// # Errors
/// [`StartError::Config`] if a file of the store or a PEM file is no good, [`StartError::Failed`] if a port
/// cannot be had; nothing runs then.
#[expect(
    clippy::unused_async,
    reason = "starting may come to need waiting, and callers have an executor anyway"
)]
pub async fn start<N: Net>(net: N, setup: ServerSetup) -> Result<ServerHandle, StartError> {
    let store = setup.store;
    let identity = load_identity(&net, store.as_ref())?;
    info!(key = %identity.public(), "server identity");
    let pem = match setup.tls {
        Some((certificates, key)) => tls::Pem::given(certificates, key),
        None => tls::Pem::self_signed(store.as_ref(), &[])
            .map_err(|error| StartError::Config(error.to_string()))?,
    };
    let front_config = FrontConfig {
        tls: tls::server_config(&net, Arc::clone(&setup.crypto), &pem)
            .map_err(|error| StartError::Config(error.to_string()))?,
        admin_key: AdminKey::load_or_make(&net, store.as_ref())
            .map_err(|error| StartError::Config(error.to_string()))?,
        trusted_proxies: setup.trusted_proxies,
    };
    let load = |file: &'static str| {
        store.load(file).map_err(|error| StartError::Config(cannot("read", file, &error)))
    };
    let [nodes, shares, secrets] = [load(STATE_FILE)?, load(SHARES_FILE)?, load(SECRETS_FILE)?];
    let saved = Saved { nodes: nodes.as_deref(), shares: shares.as_deref(), secrets: secrets.as_deref() };
    let (now, unix) = (net.now(), net.unix_now());
    let relay = setup
        .relay
        .map(|relay| Relay::new(net.clone(), identity.clone(), Limits::SERVER, relay.bandwidth_mbps.into()));
    let mut config = ServerConfig::new(setup.users, identity, setup.software);
    config.relay = relay.is_some();
    // All ports first: a server that lacks one does not start at all.
    let bind = |port| bind_address(setup.bind, port);
    let listener = listen(&net, bind(setup.ws_port), "-ws-port")?;
    let stun = stun_ports(&net, setup.bind, setup.stun_ip2, setup.stun_udp, setup.stun_tcp)?;
    let proofs = ProofKey::new(net.seed());
    config.proofs = Some(proofs.clone());
    let ports = |ports: [SocketAddr; 2]| ports.map(|port| port.port());
    config.stun = Some(StunPorts { udp: ports(stun.stun_udp), tcp: ports(stun.stun_tcp) });
    let server = Server::new(config, saved, net.seed(), now, unix)
        .map_err(|error| StartError::Config(error.to_string()))?;
    if let (Some(relay), Some(tickets)) = (&relay, server.relay_tickets()) {
        relay.gate(|gate| {
            gate.set_clock(WallClock::new(now, unix));
            gate.set_ticket_key(now, tickets.clone());
        });
    }

    let (events_in, events) = mpsc::channel(EVENTS);
    let (admin, calls) = AdminClient::new();
    let online = Arc::new(AtomicUsize::new(0));
    let front =
        web::serve(&net, listener, front_config, events_in, admin, Arc::clone(&online), relay.clone())
            .map_err(|error| StartError::Failed(error.to_string()))?;
    let StunSockets { udp, tcp, stun_udp, stun_tcp, addresses } = stun;
    let ports = Ports { ws: front.local_addr(), stun_udp, stun_tcp };
    // Proofs are judged by the same clock, which does not jump with the host's.
    let clock = WallClock::new(now, unix);
    let site = |of: [SocketAddr; 2]| stun::Site { ports: of.map(|port| port.port()), addresses, clock };
    let mut guards = stun::serve_udp(&net, udp, &site(stun_udp), &proofs);
    for (listener, index) in tcp {
        let (guard, stop) = oneshot::channel();
        guards.push(guard);
        let place = (site(stun_tcp), index);
        net.spawn("stun tcp", stun::tcp(net.clone(), listener, place, proofs.clone(), stop));
    }

    let (checked_in, checked) = mpsc::unbounded();
    let (stop, stopped) = mpsc::unbounded();
    let (end, ended) = oneshot::channel();
    let control = Control {
        timer: net.timer(),
        net: net.clone(),
        server,
        store,
        online,
        relay,
        events,
        calls,
        asked: BTreeMap::new(),
        next_ask: 0,
        outboxes: BTreeMap::new(),
        checked_in,
        checked,
        stopped,
        _front: front,
        _guards: guards,
    };
    net.spawn("server", async move {
        control.run().await;
        let _ = end.send(());
    });
    Ok(ServerHandle { ports, stop, ended })
}

/// What came of a look at a relay.
enum Checked {
    Relay(Result<Duration, String>),
    /// The addresses that answered STUN.
    Stun(Vec<SocketAddr>),
}

struct Control<N: Net> {
    net: N,
    timer: N::Timer,
    server: Server,
    store: Arc<dyn Store>,
    online: Arc<AtomicUsize>,
    relay: Option<Relay<N>>,
    events: mpsc::Receiver<FrontEvent>,
    calls: mpsc::Receiver<AdminCall>,
    /// REST calls that the machine has yet to answer. It answers all, each within its deadline.
    asked: BTreeMap<u64, oneshot::Sender<Result<AdminReply, AdminError>>>,
    next_ask: u64,
    outboxes: BTreeMap<ConnId, Outbox>,
    /// What came of looks at relays; the machine has few under way at a time.
    checked_in: mpsc::UnboundedSender<(u64, Checked)>,
    checked: mpsc::UnboundedReceiver<(u64, Checked)>,
    stopped: mpsc::UnboundedReceiver<()>,
    _front: Front,
    _guards: Vec<oneshot::Sender<()>>,
}

impl<N: Net> fmt::Debug for Control<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

impl<N: Net> Control<N> {
    async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
        info!("server stopped");
    }

    /// Ready when the server is to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
            let now = self.net.now();
            if self.stopped.poll_next_unpin(cx).is_ready() {
                self.server.handle(now, Input::Shutdown);
                self.act();
                return Poll::Ready(());
            }
            let mut worked = false;
            if let Poll::Ready(Some(event)) = self.events.poll_next_unpin(cx) {
                worked = true;
                self.event(now, event);
            }
            if let Poll::Ready(Some((check, checked))) = self.checked.poll_next_unpin(cx) {
                worked = true;
                let input = match checked {
                    Checked::Relay(result) => Input::RelayChecked { check, result },
                    Checked::Stun(answered) => Input::StunChecked { check, answered },
                };
                self.server.handle(now, input);
            }
            if let Poll::Ready(Some((request, answer))) = self.calls.poll_next_unpin(cx) {
                worked = true;
                self.next_ask += 1;
                self.asked.insert(self.next_ask, answer);
                if let Some(relay) = &self.relay {
                    self.server.handle(now, Input::RelayLoad(relay.load()));
                }
                self.server.handle(now, Input::Admin { id: self.next_ask, request });
            }
            if let Some((_, why)) = self.server.deadline().filter(|(deadline, _)| *deadline <= now) {
                worked = true;
                tracing::trace!(target: DUE, "due: {why}");
                self.server.handle(now, Input::Tick);
            }
            self.act();
            if !worked {
                let deadline = self.server.deadline().map(|(deadline, _)| deadline);
                self.timer.wake_at(cx, deadline);
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn event(&mut self, now: std::time::Instant, event: FrontEvent) {
        match event {
            FrontEvent::Opened { conn, remote, outbox } => {
                self.outboxes.insert(conn, outbox);
                self.server.handle(now, Input::Opened { conn, remote });
            }
            FrontEvent::Received { conn, message } => {
                self.server.handle(now, Input::Received { conn, message: &message });
            }
            FrontEvent::Closed { conn } => {
                self.outboxes.remove(&conn);
                self.server.handle(now, Input::Closed { conn });
            }
        }
    }

    /// Looks at a relay from outside, in a task of its own.
    fn check_relay(&self, check: u64, to: SocketAddr, key: PublicKey) {
        let (net, checked) = (self.net.clone(), self.checked_in.clone());
        self.net.spawn("relay check", async move {
            let result = relay::check(&net, to, key).await;
            // A server that has stopped does not ask any more.
            let _ = checked.unbounded_send((check, Checked::Relay(result)));
        });
    }

    /// Asks a relay's UDP port by STUN, likewise.
    fn check_stun(&self, check: u64, to: Vec<SocketAddr>) {
        let (net, checked) = (self.net.clone(), self.checked_in.clone());
        self.net.spawn("stun check", async move {
            let answered = relay::check_stun(&net, to).await;
            let _ = checked.unbounded_send((check, Checked::Stun(answered)));
        });
    }

    fn act(&mut self) {
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Trust { conn } => {
                    if let Some(outbox) = self.outboxes.get(&conn) {
                        outbox.raise_limit();
                    }
                }
                Action::Send { conn, message } => {
                    // A queue that overflows ends its connection, and its end is an event.
                    if self.outboxes.get(&conn).is_some_and(|outbox| outbox.send(message).is_err()) {
                        warn!(?conn, "a node does not take what is sent to it; its connection ends");
                    }
                }
                Action::Close { conn, code, reason } => {
                    if let Some(outbox) = self.outboxes.get(&conn) {
                        outbox.close(code, reason);
                    }
                }
                Action::Save { name, content } => {
                    if let Err(error) = self.store.save(name, &content) {
                        error!(%error, file = name, "cannot save; the server goes on from memory");
                    }
                }
                Action::CheckRelay { check, to, key } => self.check_relay(check, to, key),
                Action::CheckStun { check, to } => self.check_stun(check, to),
                Action::AdminReply { id, reply } => {
                    if let Some(answer) = self.asked.remove(&id) {
                        // Whoever asked may have gone.
                        let _ = answer.send(reply);
                    }
                }
            }
        }
        self.online.store(self.server.online(), Ordering::Relaxed);
    }
}

/// The server's identity, made at the first start.
fn load_identity<N: Net>(net: &N, store: &dyn Store) -> Result<Identity, StartError> {
    let bad = |error: &dyn fmt::Display| StartError::Config(format!("{IDENTITY_FILE}: {error}"));
    let stored = store.load(IDENTITY_FILE);
    match stored.map_err(|error| StartError::Config(cannot("read", IDENTITY_FILE, &error)))? {
        Some(content) => {
            let text = std::str::from_utf8(&content).map_err(|error| bad(&error))?;
            Identity::from_file(text).map_err(|error| bad(&error))
        }
        None => {
            let identity = Identity::from_seed(net.seed());
            let saved = store.save(IDENTITY_FILE, identity.to_file().as_bytes());
            saved.map_err(|error| StartError::Config(cannot("write", IDENTITY_FILE, &error)))?;
            Ok(identity)
        }
    }
}

/// Why a file of the store cannot be had.
fn cannot(what: &str, file: &str, error: &io::Error) -> String {
    format!("cannot {what} {file} in the folder of -data: {}", words::in_words(error))
}

/// The STUN sockets, bound.
struct StunSockets<N: Net> {
    udp: Vec<stun::UdpPort<N::Udp>>,
    tcp: Vec<(N::Listener, usize)>,
    stun_udp: [SocketAddr; 2],
    stun_tcp: [SocketAddr; 2],
    /// The first and the second address, where there is a second one.
    addresses: Option<[IpAddr; 2]>,
}

/// Binds two ports a transport, and where `bind` names one address the same two at the second one. Sockets
/// for all addresses hold the second one already.
fn stun_ports<N: Net>(
    net: &N,
    bind: Option<IpAddr>,
    second: Option<IpAddr>,
    udp_ports: [u16; 2],
    tcp_ports: [u16; 2],
) -> Result<StunSockets<N>, StartError> {
    let addresses = second.map(|second| Ok([first_address(net, bind, second)?, second])).transpose()?;
    let own = |result: io::Result<SocketAddr>| result.map_err(|error| StartError::Failed(error.to_string()));
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    let (mut stun_udp, mut stun_tcp) = ([UNBOUND; 2], [UNBOUND; 2]);
    for (index, flags) in [["-stun-udp1", "-stun-tcp1"], ["-stun-udp2", "-stun-tcp2"]].iter().enumerate() {
        let socket = bind_udp(net, bind_address(bind, udp_ports[index]), flags[0])?;
        stun_udp[index] = own(socket.local_addr())?;
        udp.push(stun::UdpPort { socket, ip: bind, port: index });
        let listener = listen(net, bind_address(bind, tcp_ports[index]), flags[1])?;
        stun_tcp[index] = own(listener.local_addr())?;
        tcp.push((listener, index));
        let Some(second) = second else { continue };
        if bind.is_none() {
            // Whether this host has that address shows at its first use.
            bind_udp(net, SocketAddr::new(second, 0), STUN_IP2)?;
            continue;
        }
        let at_second = |port: SocketAddr| SocketAddr::new(second, port.port());
        let socket = bind_udp(net, at_second(stun_udp[index]), STUN_IP2)?;
        udp.push(stun::UdpPort { socket, ip: Some(second), port: index });
        tcp.push((listen(net, at_second(stun_tcp[index]), STUN_IP2)?, index));
    }
    Ok(StunSockets { udp, tcp, stun_udp, stun_tcp, addresses })
}

/// The address that goes with the second one.
fn first_address<N: Net>(net: &N, bind: Option<IpAddr>, second: IpAddr) -> Result<IpAddr, StartError> {
    let fits = |ip: &IpAddr| {
        *ip != second && ip.is_ipv4() == second.is_ipv4() && ip.is_loopback() == second.is_loopback()
    };
    let first = match bind {
        Some(bind) => Some(bind).filter(fits),
        None => {
            let interfaces = net.interfaces().unwrap_or_default();
            let addresses = interfaces.into_iter().map(|interface| interface.address);
            let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            addresses.filter(fits).find(|ip| !link_local(ip))
        }
    };
    first.ok_or_else(|| {
        let what = "needs two addresses of one family: this one, and another one of -bind or of this host";
        StartError::Config(format!("{STUN_IP2} {second} {what}"))
    })
}

/// None means all addresses, for which [`TcpConfig::local`] with port has the IPv6 form.
fn bind_address(bind: Option<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(bind.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), port)
}

fn listen<N: Net>(net: &N, address: SocketAddr, flag: &str) -> Result<N::Listener, StartError> {
    let config = TcpConfig { local: Some(address), ..TcpConfig::default() };
    net.listen(&config).map_err(|error| unavailable("TCP", address, flag, &error))
}

fn bind_udp<N: Net>(net: &N, address: SocketAddr, flag: &str) -> Result<N::Udp, StartError> {
    net.bind_udp(address).map_err(|error| unavailable("UDP", address, flag, &error))
}

fn unavailable(transport: &str, address: SocketAddr, flag: &str, error: &io::Error) -> StartError {
    // The second address is chosen by its own flag, at the ports of the first.
    let bind = if flag == STUN_IP2 { STUN_IP2 } else { "-bind" };
    words::unavailable(transport, address.port(), flag, Some(bind), error)
}

/// The flag of the second address.
const STUN_IP2: &str = "-stun-ip2";

/// What stands for the address of a socket until it is bound.
const UNBOUND: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// The file of the server's identity.
const IDENTITY_FILE: &str = "server.identity";

/// Events of all connections that wait for the control task; what does not fit waits in its own task.
const EVENTS: usize = 1024;

/// Events that are handled before other tasks of the thread have their turn.
const TURNS: usize = 128;
