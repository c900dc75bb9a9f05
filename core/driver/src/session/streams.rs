//! The session's streams and the local connections they are joined to: opening, dialling, moving bytes,
//! giving up.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use inp2p_core::mux::{Event, Key, Protocol, code};
use inp2p_core::session::Session;
use inp2p_core::wire::message::Targets;
use tracing::{debug, info, warn};

use super::flows::{self, Flow, Origin, Stage, Turn};
use super::target::{self, Dialled};
use super::{Command, Leaving, STOPPING, Task, Waiting};
use crate::net::{Net, StreamIo};

impl<N: Net> Task<N> {
    pub(super) fn open_stream(&mut self, now: Instant, stream: N::Stream, origin: Origin) {
        if self.leaving != Leaving::No {
            return refuse(stream, &origin, STOPPING);
        }
        let until = now + OPENING;
        let Some(core) = &mut self.core else {
            self.wanted();
            if self.waiting.len() < WAITING {
                self.waiting.push_back(Waiting { stream, origin, until, shortened: false });
            } else {
                refuse(stream, &origin, "too many connections wait for a path to the peer");
            }
            return;
        };
        let up = core.is_up();
        match core.mux().open(Protocol::Tcp, &origin.target) {
            Ok(key) => {
                let flow = Flow::new(
                    stream,
                    key,
                    Stage::Opening { until, shortened: false },
                    Some(origin),
                    &self.ready,
                );
                self.add_flow(flow, until);
            }
            Err(error) => refuse(stream, &origin, &error.to_string()),
        }
        if !up {
            self.wanted();
        }
    }

    fn add_flow(&mut self, flow: Flow<N::Stream>, until: Instant) {
        let (slot, key) = (flow.key.index(), flow.key);
        self.deadlines.insert((until, slot), key);
        let (read, write) = flows::bits(slot);
        self.ready.set(read);
        self.ready.set(write);
        if self.flows.len() <= slot {
            self.flows.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.flows.get_mut(slot) {
            *place = Some(flow);
            self.open += 1;
        }
    }

    fn take_flow(&mut self, key: Key) -> Option<Flow<N::Stream>> {
        let place = self.flows.get_mut(key.index())?;
        let flow = place.take_if(|flow| flow.key == key)?;
        if let Stage::Dialling(until) | Stage::Opening { until, .. } = flow.stage {
            self.deadlines.remove(&(until, key.index()));
        }
        self.open -= 1;
        Some(flow)
    }

    fn flow(&mut self, key: Key) -> Option<&mut Flow<N::Stream>> {
        self.flows.get_mut(key.index())?.as_mut().filter(|flow| flow.key == key)
    }

    /// Moves the bytes of one flow.
    pub(super) fn pump(&mut self, now: Instant, slot: usize) -> bool {
        let Some(core) = &mut self.core else { return false };
        let Some(flow) = self.flows.get_mut(slot).and_then(Option::as_mut) else { return false };
        let key = flow.key;
        if let Stage::Dialling(until) = flow.stage {
            match flow.poll_dial() {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => {
                    self.deadlines.remove(&(until, slot));
                    flow.established(core.mux());
                }
                Poll::Ready(Err(error)) => {
                    core.mux().reset(key, target::code_of(&error), &target::explain(&error));
                    drop(self.take_flow(key));
                    return true;
                }
            }
        }
        match flow.pump(now, core.mux()) {
            Turn::Settled => false,
            Turn::More => {
                let (read, write) = flows::bits(slot);
                self.ready.set(read);
                self.ready.set(write);
                true
            }
            Turn::Broken => {
                if let Some(flow) = self.take_flow(key) {
                    flow.abort(None);
                }
                true
            }
        }
    }

    /// Acts on what the streams have to say.
    pub(super) fn events(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.core.as_mut().and_then(|core| core.mux().poll_event()) {
            any = true;
            match event {
                Event::Incoming { key, protocol, target } => self.incoming(now, key, protocol, &target),
                Event::Accepted { key } => {
                    let slot = key.index();
                    if let Some(flow) = self.flow(key)
                        && let Stage::Opening { until, .. } = flow.stage
                    {
                        flow.accepted();
                        self.deadlines.remove(&(until, slot));
                    }
                    self.pump(now, slot);
                }
                Event::Readable { key } | Event::Writable { key } | Event::Finished { key } => {
                    self.pump(now, key.index());
                }
                Event::Reset { key, code, text } => {
                    if let Some(flow) = self.take_flow(key) {
                        debug!(peer = %self.peer, code, reason = text, "stream reset");
                        let ours = matches!(
                            code,
                            code::ABORTED | code::NO_LINK | code::RESTARTED | code::STOPPING | code::GONE
                        );
                        let refused = !ours && matches!(flow.stage, Stage::Opening { .. });
                        let target = flow.target();
                        // A program that tries again and again gets one line.
                        if let (Some(target), true, true) = (target, flow.abort(Some(&text)), refused) {
                            warn!(peer = %self.peer, %target, reason = text, "connection refused by the peer");
                        }
                    }
                }
                Event::Closed { key } => {
                    if let Some(flow) = self.take_flow(key) {
                        flow.close();
                    }
                }
            }
        }
        any
    }

    /// A stream that the peer opened: dials its target.
    fn incoming(&mut self, now: Instant, key: Key, protocol: Protocol, target: &str) {
        let dialled = match protocol {
            _ if self.leaving != Leaving::No => Dialled::Refused(code::STOPPING, STOPPING.to_owned()),
            Protocol::Tcp => target::dial(&self.net, &self.policy, target),
            Protocol::Other => {
                Dialled::Refused(code::UNSUPPORTED, "this version forwards TCP only".to_owned())
            }
        };
        if let Dialled::Lookup(target) = dialled {
            let (net, policy, mut commands) =
                (self.net.clone(), self.policy.clone(), self.own_commands.clone());
            let generation = self.generation;
            self.net.spawn("target", async move {
                let dialled = target::look_up(&net, &policy, &target).await;
                // The session may be gone; then nobody waits for this.
                let _ = commands.send(Command::Dialled { generation, key, dialled }).await;
            });
            return;
        }
        self.dialled(now, key, dialled);
    }

    pub(super) fn dialled(&mut self, now: Instant, key: Key, dialled: Dialled<N>) {
        let Some(core) = &mut self.core else { return };
        match dialled {
            // The stream may have ended while the name was looked up; the connection closes unused then.
            _ if core.mux().bytes(key).is_none() => {}
            // What is shared may have changed while the name was looked up.
            Dialled::Begun { target, to, .. } if !self.policy.permits(&target, to.ip()) => {
                self.dialled(now, key, target::forbidden(&target.to_string()));
            }
            Dialled::Begun { stream, target, to } => {
                self.refusal = None;
                let until = now + DIALLING;
                let mut flow = Flow::new(stream, key, Stage::Dialling(until), None, &self.ready);
                flow.dialled = Some((target, to.ip()));
                self.add_flow(flow, until);
            }
            Dialled::Refused(code, text) => {
                if self.refusal.as_ref() != Some(&text) {
                    info!(peer = %self.peer, reason = text, "refused to connect for the peer");
                    self.refusal = Some(text.clone());
                }
                core.mux().reset(key, code, &text);
            }
            Dialled::Lookup(_) => core.mux().reset(key, code::UNREACHABLE, "looked up twice"),
        }
    }

    /// A dial or an opening took too long.
    pub(super) fn overdue(&mut self, now: Instant, key: Key) {
        let up = self.core.as_ref().is_some_and(Session::is_up);
        let reason = self.no_path();
        let Some(flow) = self.flow(key) else { return };
        match flow.stage {
            // The far side has its own patience with the target, and will answer.
            Stage::Opening { .. } if up => {
                let until = now + OPENING;
                flow.stage = Stage::Opening { until, shortened: false };
                self.deadlines.insert((until, key.index()), key);
            }
            Stage::Opening { .. } => self.give_up(key, code::NO_LINK, &reason),
            Stage::Dialling(_) => self.give_up(key, code::TIMEOUT, "the target did not answer in 10 s"),
            Stage::Open => {}
        }
    }

    fn give_up(&mut self, key: Key, code: u16, reason: &str) {
        if let Some(core) = &mut self.core {
            core.mux().reset(key, code, reason);
        }
        if let Some(flow) = self.take_flow(key) {
            flow.abort(Some(reason));
        }
    }

    /// There is no way to the peer for now: those who wait for one wait no longer than a peer that is just
    /// starting anew needs to come back.
    pub(super) fn shorten_openings(&mut self) {
        if self.core.as_ref().is_some_and(Session::is_up) {
            return;
        }
        let shorter = |until: Instant| until.checked_sub(OPENING - GRACE).unwrap_or(until);
        for waiting in self.waiting.iter_mut().filter(|waiting| !waiting.shortened) {
            waiting.until = shorter(waiting.until);
            waiting.shortened = true;
        }
        let Self { flows, deadlines, .. } = self;
        for flow in flows.iter_mut().flatten() {
            if let Stage::Opening { until, shortened: false } = flow.stage {
                deadlines.remove(&(until, flow.key.index()));
                let until = shorter(until);
                deadlines.insert((until, flow.key.index()), flow.key);
                flow.stage = Stage::Opening { until, shortened: true };
            }
        }
    }

    /// What a peer of another user may have dialled has changed: what it may not any more ends at once.
    pub(super) fn restrict(&mut self, targets: Targets) {
        self.policy.share = Some(Arc::new(targets.0.into_iter().collect()));
        let Self { flows, policy, .. } = self;
        let forbidden = |flow: &&Flow<N::Stream>| {
            flow.dialled.as_ref().is_some_and(|(target, ip)| !policy.permits(target, *ip))
        };
        let keys: Vec<Key> = flows.iter().flatten().filter(forbidden).map(|flow| flow.key).collect();
        for key in keys {
            self.give_up(key, code::NOT_ALLOWED, "the target is not shared any more");
        }
    }

    pub(super) fn no_path(&self) -> String {
        let reason = self.unreachable.as_deref().unwrap_or("the peer did not answer in time");
        format!("no path to {}: {reason}", self.peer)
    }

    /// Ends all streams by a reset, towards the peer too.
    pub(super) fn end_flows(&mut self, code: u16, reason: &str) {
        for flow in &mut self.flows {
            if let Some(flow) = flow.take() {
                if let Some(core) = &mut self.core {
                    core.mux().reset(flow.key, code, reason);
                }
                flow.abort(Some(reason));
            }
        }
        self.open = 0;
        self.deadlines.clear();
    }
}

/// Ends a local connection that never became a stream.
pub(super) fn refuse<S: StreamIo>(mut stream: S, origin: &Origin, why: &str) {
    origin.meter.opened();
    let news = origin.meter.failed(why);
    origin.meter.closed();
    if news {
        warn!(target = %origin.target, reason = why, "forwarded connection refused");
    }
    stream.abort();
}

/// Local connections that wait for the first word of a peer: as many as a session may have streams.
const WAITING: usize = 4096;

/// How long a local connection waits for a path: what a person waits before trying again.
const OPENING: Duration = Duration::from_secs(10);

/// How long it waits when the server says that the peer is not there: a program that is started anew is back
/// within that time.
const GRACE: Duration = Duration::from_secs(2);

/// How long a target may take to answer: three SYNs.
const DIALLING: Duration = Duration::from_secs(10);
