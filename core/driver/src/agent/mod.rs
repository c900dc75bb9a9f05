//! The node's control task: it owns the agent's machine, does what it asks, and tells it what came of it.
//! Sessions, forwards and the signalling connection have tasks of their own.

mod forwards;
mod sessions;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use forwards::Forward;
use futures_channel::{mpsc, oneshot};
use futures_util::{SinkExt as _, StreamExt as _};
use inp2p_core::agent::io::{Action, Exit, Input, SessionNews};
use inp2p_core::agent::{Agent, PINS_FILE};
use inp2p_core::ids::{AttemptId, ConnId, PeerName};
use inp2p_core::link::LinkKeys;
use inp2p_core::nat;
use inp2p_core::rng::Rng;
use inp2p_core::status::Status;
use inp2p_core::time::WallClock;
use inp2p_core::tunnel::ForwardRule;
use inp2p_core::wire::message::StunPorts;
use sessions::Entry;
use tracing::{debug, error, info};

use crate::DUE;
use crate::net::{ListenIo as _, Net, Store, TcpConfig, TimerIo as _, UdpIo as _, is_lost};
use crate::peers::{self, Registry};
use crate::port::Port;
use crate::prober::{Probing, Told};
use crate::service::Service;
use crate::session::{Command, Common, News};
use crate::setup::{AgentSetup, StartError};
use crate::web::{self, Known, Local, Signal, SignalEvent, SignalServer, StatusCall, StatusClient, tls};
use crate::words::{self, in_words};

/// A node that runs.
#[derive(Debug)]
pub struct AgentHandle {
    stop: mpsc::UnboundedSender<()>,
    exit: oneshot::Receiver<Exit>,
    status: mpsc::Sender<StatusCall>,
    /// What there was to show at the start.
    first: Status,
}

impl AgentHandle {
    /// Lets it end in order: open streams have a few seconds to finish.
    pub fn shutdown(&self) {
        // It may have ended by itself.
        let _ = self.stop.unbounded_send(());
    }

    /// Waits until it has ended, and says how.
    pub async fn wait(&mut self) -> Exit {
        let failed = |_| Exit::Refused("the node's control task failed".to_owned());
        (&mut self.exit).await.unwrap_or_else(failed)
    }

    /// What `status` shows; once the node has ended, what it showed at its start.
    pub async fn status(&self) -> Status {
        let (answer, answered) = oneshot::channel();
        let asked = self.status.clone().send(answer).await;
        match answered.await {
            Ok(status) if asked.is_ok() => status,
            Ok(_) | Err(_) => self.first.clone(),
        }
    }
}

/// Reads the pins, opens the control socket and the port for peers, and begins to connect.
///
/// # Errors
/// [`StartError::Config`] if a file or the configuration is no good, [`StartError::Failed`] if a port or the
/// control socket cannot be had; nothing runs then.
#[expect(
    clippy::unused_async,
    reason = "starting may come to need waiting, and callers have an executor anyway"
)]
pub async fn start<N: Net>(net: N, setup: AgentSetup) -> Result<AgentHandle, StartError> {
    let config = |error: &dyn fmt::Display| StartError::Config(error.to_string());
    let store = setup.store;
    let pins = store.load(PINS_FILE).map_err(|error| {
        let reason = in_words(&error);
        StartError::Config(format!("cannot read {PINS_FILE} in the folder of -config: {reason}"))
    })?;
    let own = setup.agent.identity.public();
    let keys = LinkKeys::new((*setup.crypto).clone(), setup.agent.identity.seed())
        .map_err(|error| StartError::Failed(error.to_string()))?;
    let tls = match setup.insecure {
        true => None,
        false => Some(
            tls::client_config(&net, setup.crypto, setup.server_ca.as_deref())
                .map_err(|error| config(&error))?,
        ),
    };
    // First of all that another process with the same configuration would have too: its error says so.
    let control = setup.control.as_deref().map(|path| control_socket(&net, path)).transpose()?;
    let mut rng = Rng::new(net.seed());
    let mut setup_of_agent = setup.agent;
    let service = Service::start(&net, &setup_of_agent.identity, &setup_of_agent.token, setup.relay)?;
    let service = service.map(|(service, port)| {
        setup_of_agent.relay.port = port;
        service
    });
    let agent = Agent::new(setup_of_agent, pins.as_deref(), rng.bytes(), net.now(), net.unix_now())
        .map_err(|error| config(&error))?;

    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), setup.p2p_port);
    // Shared, since STUN over TCP and punching leave from it too.
    let config = TcpConfig { local: Some(any), link: true, share_port: true };
    let listener = net
        .listen(&config)
        .map_err(|error| words::unavailable("TCP", setup.p2p_port, "-p2p-port", None, &error))?;
    let port = listener.local_addr().map_err(|error| StartError::Failed(error.to_string()))?.port();
    let socket = bind_udp(&net, port, setup.p2p_port == 0)
        .map_err(|error| words::unavailable("UDP", port, "-p2p-port", None, &error))?;
    let udp_port = socket.local_addr().map_err(|error| StartError::Failed(error.to_string()))?.port();
    let (client, local_status) = StatusClient::new();
    let local = control.map(|listener| web::serve_local(&net, listener, client));

    let (called_in, called) = mpsc::channel(CALLS);
    let (udp, stun, port_guard) = Port::start(&net, socket, service.is_some(), called_in.clone());
    let probing = Probing::start(&net, &udp, stun, port);
    let registry = Registry::new(called_in);
    let (peers_guard, peers_stop) = oneshot::channel();
    net.spawn("peers", peers::run(net.clone(), listener, Arc::clone(&registry), peers_stop));
    let (stop, stopped) = mpsc::unbounded();
    let (exit, exited) = oneshot::channel();
    let (status, statuses) = mpsc::channel(1);
    let (news_in, news) = mpsc::channel(NEWS);
    let (internal_in, internal) = mpsc::channel(INTERNAL);
    let first = agent.status();
    let server = SignalServer { host: setup.host, port: setup.port, tls, known: Known::default() };
    let control = Control {
        timer: net.timer(),
        agent,
        store,
        service,
        common: Arc::new(Common {
            keys,
            own,
            instance: rng.bytes(),
            allow: setup.allow,
            server: server.clone(),
            listening: port,
        }),
        server,
        port: udp,
        registry,
        sessions: BTreeMap::new(),
        next_session: 0,
        keepalive: None,
        forwards: BTreeMap::new(),
        closing: Vec::new(),
        delayed: Vec::new(),
        signal: None,
        news_in,
        news,
        internal_in,
        internal,
        called,
        statuses: [statuses, local_status],
        stopped: Some(stopped),
        leaving: None,
        interfaces: Vec::new(),
        next_look: net.now(),
        exit: Some(exit),
        net: net.clone(),
        _local: local,
        _peers: peers_guard,
        _port: port_guard,
        probing,
    };
    net.spawn("agent", control.run(port, udp_port));
    Ok(AgentHandle { stop, exit: exited, status, first })
}

struct Control<N: Net> {
    net: N,
    timer: N::Timer,
    agent: Agent,
    store: Arc<dyn Store>,
    /// The node's own service as a relay; none if it is to be none.
    service: Option<Service<N>>,
    server: SignalServer,
    common: Arc<Common>,
    port: Port<N>,
    registry: Arc<Registry<N>>,
    sessions: BTreeMap<PeerName, Entry<N>>,
    next_session: u64,
    /// How often idle links over UDP have to be used, where it was measured.
    keepalive: Option<Duration>,
    forwards: BTreeMap<String, Forward>,
    /// Listeners that were told to stop and have yet to.
    closing: Vec<oneshot::Receiver<()>>,
    /// What is to be listened for once they have.
    delayed: Vec<ForwardRule>,
    signal: Option<(ConnId, Option<Signal>)>,
    news_in: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    internal_in: mpsc::Sender<Internal>,
    internal: mpsc::Receiver<Internal>,
    /// Attempts that peers have begun without the server.
    called: mpsc::Receiver<AttemptId>,
    statuses: [mpsc::Receiver<StatusCall>; 2],
    /// None once told to stop.
    stopped: Option<mpsc::UnboundedReceiver<()>>,
    /// Until when sessions may finish, once told to stop.
    leaving: Option<Instant>,
    interfaces: Vec<IpAddr>,
    next_look: Instant,
    exit: Option<oneshot::Sender<Exit>>,
    _local: Option<Local>,
    _peers: oneshot::Sender<()>,
    _port: oneshot::Sender<()>,
    probing: Probing,
}

/// What this task's own helpers send it.
enum Internal {
    /// What came of a signalling connection.
    Signal(ConnId, Result<Signal, String>),
}

impl<N: Net> Control<N> {
    async fn run(mut self, tcp: u16, udp: u16) {
        let now = self.net.now();
        self.agent.handle(now, Input::Listening { tcp, udp: Some(udp) });
        self.agent.handle(now, Input::Nat(None));
        self.look(now);
        let exit = poll_fn(|cx| self.poll(cx)).await;
        if let Some(sender) = self.exit.take() {
            let _ = sender.send(exit);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        for _ in 0..TURNS {
            let now = self.net.now();
            let mut worked = self.stop(now, cx);
            worked |= self.look(now);
            worked |= self.flush(now, cx);
            worked |= self.hear_signal(now, cx);
            if let Poll::Ready(Some((peer, event))) = self.news.poll_next_unpin(cx) {
                worked = true;
                if matches!(event, SessionNews::Suspect | SessionNews::Down { .. }) {
                    // Perhaps it is this host's own network that has changed.
                    self.next_look = now;
                }
                self.agent.handle(now, Input::Session { peer: &peer, event });
            }
            if let Poll::Ready(Some(attempt)) = self.called.poll_next_unpin(cx) {
                worked = true;
                self.agent.handle(now, Input::Called { attempt });
            }
            if let Poll::Ready(report) = self.probing.poll_report(cx) {
                worked = true;
                self.agent.handle(now, Input::Nat(Some(report)));
            }
            if let Poll::Ready(Some(Internal::Signal(conn, opened))) = self.internal.poll_next_unpin(cx) {
                worked = true;
                self.opened(now, conn, opened);
            }
            if let Some((_, why)) = self.agent.deadline().filter(|(deadline, _)| *deadline <= now) {
                worked = true;
                tracing::trace!(target: DUE, "due: {why}");
                self.agent.handle(now, Input::Tick);
            }
            if let Some(exit) = self.act(now) {
                return Poll::Ready(exit);
            }
            for at in 0..self.statuses.len() {
                let call = self.statuses.get_mut(at).map(|calls| calls.poll_next_unpin(cx));
                if let Some(Poll::Ready(Some(answer))) = call {
                    worked = true;
                    let _ = answer.send(self.status());
                }
            }
            if !worked {
                let deadline = self.agent.deadline().map(|(deadline, _)| deadline);
                let at = [deadline, Some(self.next_look), self.leaving].into_iter().flatten().min();
                self.timer.wake_at(cx, at);
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends in order: first the forwards, then the sessions, then the agent.
    fn stop(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        if let Some(stopped) = &mut self.stopped
            && stopped.poll_next_unpin(cx).is_ready()
        {
            self.stopped = None;
            self.forwards.values_mut().for_each(|forward| forward.listening = None);
            self.sessions.values_mut().for_each(|entry| entry.send(Command::Leave));
            self.leaving = Some(now + LEAVE);
        }
        let Some(until) = self.leaving else { return false };
        let running =
            self.sessions.values_mut().any(|entry| Pin::new(&mut entry.ended).poll(cx).is_pending());
        if running && now < until {
            return false;
        }
        self.leaving = None;
        self.agent.handle(now, Input::Shutdown);
        true
    }

    /// Looks at the interfaces now and then.
    fn look(&mut self, now: Instant) -> bool {
        if now < self.next_look {
            return false;
        }
        self.next_look = now + LOOK;
        if let Some(service) = &self.service {
            // The better its clock, the fewer it turns away.
            service.clock(WallClock::new(now, self.agent.unix(now)));
            self.agent.handle(now, Input::RelayLoad(service.load()));
        }
        match self.net.interfaces() {
            Ok(interfaces) => {
                let mut addresses: Vec<IpAddr> = interfaces.into_iter().map(|one| one.address).collect();
                addresses.sort_unstable();
                addresses.dedup();
                if addresses != self.interfaces {
                    self.interfaces = addresses;
                    self.network_changed(now);
                }
            }
            Err(error) => debug!(%error, "cannot read the interfaces"),
        }
        true
    }

    fn network_changed(&mut self, now: Instant) {
        let addresses: Arc<[IpAddr]> = self.interfaces.as_slice().into();
        for entry in self.sessions.values_mut() {
            entry.send(Command::Network(Arc::clone(&addresses)));
        }
        // Nobody says that a connection from an address that is gone is dead.
        let lost = |signal: &Signal| is_lost(&self.interfaces, signal.local.ip());
        if let Some((conn, _)) = self.signal.take_if(|(_, signal)| signal.as_ref().is_some_and(lost)) {
            self.probing.tell(Told::Signalling(false));
            let reason = "this host has lost the address it was connected from";
            self.agent.handle(now, Input::SignalClosed { conn, reason });
        }
        // Behind that, so that nothing is asked over a dead connection.
        self.agent.handle(now, Input::Interfaces(&self.interfaces));
        self.probing.tell(Told::Network(self.interfaces.clone()));
    }

    /// Does what had to wait: commands for sessions that were busy, and forwards whose port was in use.
    fn flush(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        for entry in self.sessions.values_mut().filter(|entry| !entry.backlog.is_empty()) {
            while let Poll::Ready(Ok(())) = entry.commands.poll_ready(cx)
                && let Some(command) = entry.backlog.pop_front()
            {
                let _ = entry.commands.start_send(command);
            }
        }
        if self.closing.is_empty() {
            return false;
        }
        self.closing.retain_mut(|ended| Pin::new(ended).poll(cx).is_pending());
        if !self.closing.is_empty() {
            return false;
        }
        for rule in std::mem::take(&mut self.delayed) {
            self.listen(now, &rule);
        }
        true
    }

    /// Has the NATs measured against the server that the node is logged in at.
    fn probe(&mut self, server: IpAddr, ports: StunPorts) {
        let all = self.signal.iter().filter_map(|(_, signal)| signal.as_ref());
        let others = all.flat_map(|signal| signal.addresses.iter().copied());
        let servers = std::iter::once(server).chain(others).collect();
        self.probing.tell(Told::Servers(servers, nat::Config { udp: ports.udp, tcp: ports.tcp }));
        self.probing.tell(Told::Signalling(true));
    }

    fn hear_signal(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some((conn, Some(signal))) = &mut self.signal else { return false };
        let conn = *conn;
        match signal.events.poll_next_unpin(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(SignalEvent::Received(message))) => {
                self.agent.handle(now, Input::SignalReceived { conn, message: &message });
            }
            Poll::Ready(Some(SignalEvent::Closed(reason))) => {
                self.signal = None;
                self.probing.tell(Told::Signalling(false));
                self.agent.handle(now, Input::SignalClosed { conn, reason: &reason });
            }
            Poll::Ready(None) => {
                self.signal = None;
                self.probing.tell(Told::Signalling(false));
                self.agent.handle(now, Input::SignalClosed { conn, reason: "the connection ended" });
            }
        }
        true
    }

    fn opened(&mut self, now: Instant, conn: ConnId, opened: Result<Signal, String>) {
        match &mut self.signal {
            Some((wanted, place)) if *wanted == conn => match opened {
                Ok(signal) => {
                    let remote = signal.remote;
                    *place = Some(signal);
                    self.agent
                        .handle(now, Input::SignalOpened { conn, remote, tls: self.server.tls.is_some() });
                }
                Err(reason) => {
                    self.signal = None;
                    self.agent.handle(now, Input::SignalClosed { conn, reason: &reason });
                }
            },
            // Closed meanwhile: dropping it closes it.
            Some(_) | None => {}
        }
    }

    fn act(&mut self, now: Instant) -> Option<Exit> {
        while let Some(action) = self.agent.poll_action() {
            match action {
                Action::OpenSignal { conn } => self.open_signal(conn),
                Action::SendSignal { conn, message } => {
                    if let Some((current, Some(signal))) = &self.signal
                        && *current == conn
                        && signal.outbox.send(message).is_err()
                    {
                        debug!("the server does not take what is sent to it; the connection ends");
                    }
                }
                Action::CloseSignal { conn, code } => {
                    if let Some((_, Some(signal))) = self.signal.take_if(|(current, _)| *current == conn) {
                        signal.outbox.close(code, "");
                        self.probing.tell(Told::Signalling(false));
                    }
                }
                Action::Probe { server, ports } => self.probe(server, ports),
                Action::StunRelays(relays) => self.probing.tell(Told::Relays(relays)),
                Action::Mapped(after) => self.probing.tell(Told::Mapped(after)),
                // A port that is being given up is free once its task has ended.
                Action::Listen { rule } if self.closing.is_empty() => self.listen(now, &rule),
                Action::Listen { rule } => self.delayed.push(rule),
                Action::Unlisten { name } => {
                    if let Some(forward) = self.forwards.remove(&name) {
                        self.closing.extend(forward.ended);
                    }
                }
                Action::Attempt { peer, key, attempt, targets } => {
                    if let Some(commands) = self.session(&peer) {
                        let id = attempt.id;
                        // The session first: it must know of the attempt before a connection comes to it.
                        self.command(&peer, Command::Attempt { key, attempt, targets });
                        self.registry.add(id, &commands);
                    }
                }
                Action::Expect(expected) => {
                    self.registry.expect(&expected);
                    self.port.expect(&expected);
                }
                Action::Doubt { peer } => self.command(&peer, Command::Doubt),
                Action::Offers { peer, attempt, relays } => {
                    self.command(&peer, Command::Offers { attempt, relays });
                }
                Action::Restrict { peer, targets, end } => {
                    self.command(&peer, Command::Restrict { targets, end });
                    if end {
                        self.sessions.remove(&peer);
                    }
                }
                Action::Keepalive(every) => {
                    self.keepalive = Some(every);
                    self.sessions.values_mut().for_each(|entry| entry.send(Command::Keepalive(every)));
                }
                Action::RelaySecrets(secrets) => {
                    if let Some(service) = &self.service {
                        service.secrets(now, WallClock::new(now, self.agent.unix(now)), &secrets);
                    }
                }
                Action::Unreachable { peer, reason } => self.command(&peer, Command::Unreachable(reason)),
                Action::Save { name, content } => {
                    if let Err(error) = self.store.save(name, &content) {
                        error!(%error, file = name, "cannot save; the node goes on from memory");
                    }
                }
                Action::Exit(exit) => return Some(exit),
            }
        }
        None
    }

    fn open_signal(&mut self, conn: ConnId) {
        self.signal = Some((conn, None));
        let (net, server, mut internal) = (self.net.clone(), self.server.clone(), self.internal_in.clone());
        self.net.spawn("signal", async move {
            let opened = web::connect_signal(&net, &server).await.map_err(|error| error.to_string());
            let _ = internal.send(Internal::Signal(conn, opened)).await;
        });
    }
}

impl<N: Net> Drop for Control<N> {
    fn drop(&mut self) {
        // However this task ends, the sessions end too.
        self.sessions.values_mut().for_each(|entry| entry.send(Command::Leave));
        info!("node stopped");
    }
}

/// The control socket, open.
fn control_socket<N: Net>(net: &N, path: &Path) -> Result<N::Listener, StartError> {
    net.listen_local(path).map_err(|error| {
        let (reason, advice) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                "something is there already".to_owned(),
                "is another inp2pc running with this configuration?",
            ),
            _ => (in_words(&error), "choose another place with -control"),
        };
        let path = path.display();
        StartError::Failed(format!("cannot open the control socket {path}: {reason}: {advice}"))
    })
}

/// Opens the node's UDP port: the same as that for TCP, or another one if it may be any.
fn bind_udp<N: Net>(net: &N, port: u16, any: bool) -> io::Result<N::Udp> {
    let all = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    match net.bind_udp(all(port)) {
        Err(error) if any && error.kind() == io::ErrorKind::AddrInUse => net.bind_udp(all(0)),
        result => result,
    }
}

/// How often the interfaces are looked at: a change of network is felt within that time, or when a link does not
/// answer.
const LOOK: Duration = Duration::from_secs(1);

/// How long sessions have to end; a second is left for the goodbye to the server, of ten in all.
const LEAVE: Duration = Duration::from_millis(8500);

/// News of sessions that wait for this task; what does not fit waits in the sessions.
const NEWS: usize = 256;

/// Results of this task's own helpers: one signalling connection is opened at a time.
const INTERNAL: usize = 4;

/// Attempts that peers have begun without the server, and that this task has yet to begin.
const CALLS: usize = 16;

/// Inputs that are handled before other tasks of the thread have their turn.
const TURNS: usize = 64;
