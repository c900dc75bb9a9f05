//! Which link carries the session, and what both ends know of the streams when that changes.
//!
//! The controlling side nominates: `SWITCH(epoch + 1)` and then `RESUME` on the link that is to carry the
//! session. The other side answers with its own `RESUME`. Each begins to send once it has the other's, from
//! where the other stands; whatever still comes over another link is dropped. An epoch belongs to a
//! nomination, not to a link, and is scoped to the two process instances: a peer that restarted has
//! forgotten every stream, so all of them end with a reset and both sides begin anew.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_bytes::ByteArray;

use super::control::{Control, Hello};
use super::{Ending, LinkId};
use crate::agent::ReconnectSecret;
use crate::link::Role;
use crate::mux::{Config, Frame, Mux, Resume, Side, code};
use crate::path::Rung;

/// The session's state that all its links share.
#[derive(Debug)]
pub(super) struct Nomination {
    pub(super) mux: Mux,
    role: Role,
    own: Hello,
    peer: Option<Instance>,
    /// The latest link on which that was heard: what another one says on an older link was said before.
    heard: LinkId,
    epoch: u64,
    carrying: Carrying,
    /// Messages for stream 0 of a link.
    outbox: VecDeque<(LinkId, Control)>,
    notes: VecDeque<Note>,
}

type Instance = (ByteArray<16>, u64);

/// Whether streams can move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrying {
    /// No link.
    Nothing,
    /// Nominated; the peer's RESUME has yet to come.
    Waiting(LinkId),
    /// Streams move.
    Attached(LinkId),
}

/// What the session must know of what was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The peer has introduced itself on a link: it may be nominated. It sees this node, or does not, at an
    /// address of this node's own interface.
    Ready(LinkId, bool),
    /// The peer has nominated this link, and says which rung it is.
    Nominated(LinkId, Rung),
    /// Streams move over this link.
    Attached(LinkId),
    /// The peer is another process than before: its older links are void.
    Renewed(LinkId),
    /// Another link has been nominated in place of this one.
    Superseded(LinkId),
    /// The peer says that the nominated link is dead, or loses too much.
    SwitchWanted {
        /// The latter.
        lossy: bool,
    },
    /// The peer is another process than before, or the first: this was agreed on.
    Agreed(ReconnectSecret),
    /// The peer is leaving.
    Leaving(String),
}

impl Nomination {
    pub(super) fn new(role: Role, (instance, number): ([u8; 16], u64), share: [u8; 32]) -> Self {
        let config = Config::default();
        let side = match role {
            Role::Controlling => Side::Controlling,
            Role::Controlled => Side::Controlled,
        };
        let credit = u32::try_from(config.initial_credit).unwrap_or(u32::MAX);
        Self {
            mux: Mux::new(side, config),
            role,
            own: Hello {
                version: VERSION,
                instance: ByteArray::new(instance),
                number,
                credit,
                direct: false,
                share: Some(ByteArray::new(share)),
            },
            peer: None,
            heard: LinkId(0),
            epoch: 0,
            carrying: Carrying::Nothing,
            outbox: VecDeque::new(),
            notes: VecDeque::new(),
        }
    }

    /// Introduces this side on a link that has just come up. `direct`: whether the peer is seen there at an
    /// address of its own interface.
    pub(super) fn hello(&self, direct: bool) -> Control {
        Control::Hello(Hello { direct, ..self.own.clone() })
    }

    /// The link that is nominated.
    pub(super) fn current(&self) -> Option<LinkId> {
        match self.carrying {
            Carrying::Nothing => None,
            Carrying::Waiting(link) | Carrying::Attached(link) => Some(link),
        }
    }

    /// Whether nothing is known of the peer's process, and nothing has been nominated: there are no streams that it
    /// could know of.
    pub(super) fn is_fresh(&self) -> bool {
        self.peer.is_none() && self.epoch == 0
    }

    /// Whether streams move over `link`.
    pub(super) fn carries(&self, link: LinkId) -> bool {
        self.carrying == Carrying::Attached(link)
    }

    /// The epoch under which streams move over `link`, if they do. It is 32 bits long where lanes bear it: a
    /// nomination a second would last for a century.
    pub(super) fn lane_epoch(&self, link: LinkId) -> Option<u32> {
        self.carries(link).then(|| u32::try_from(self.epoch).unwrap_or(u32::MAX))
    }

    /// Controlling side: from now on `link` carries the session.
    ///
    /// The first time between two process instances nothing is to be learnt from the other's RESUME, which can
    /// only be empty: streams move at once, and their first bytes save a round trip.
    pub(super) fn nominate(&mut self, now: Instant, link: LinkId, rung: Rung) {
        self.epoch += 1;
        self.outbox.push_back((link, Control::Switch { epoch: self.epoch, rung }));
        self.begin(link);
        if self.epoch == FIRST && self.mux.attach(now, &Resume::default()).is_ok() {
            self.carrying = Carrying::Attached(link);
            self.notes.push_back(Note::Attached(link));
        }
    }

    /// Controlled side: asks the other one, over `link`, for another nomination. Nothing is asked before there
    /// was a first.
    pub(super) fn ask_for(&mut self, link: LinkId, reason: &str) {
        self.ask(link, reason, false);
    }

    /// Controlled side: asks the other one, over the link itself, for one that loses less.
    pub(super) fn ask_for_better(&mut self, link: LinkId, reason: &str) {
        self.ask(link, reason, true);
    }

    fn ask(&mut self, link: LinkId, reason: &str, lossy: bool) {
        if self.role == Role::Controlled && self.epoch > 0 {
            let reason = reason.chars().take(MAX_REASON).collect();
            self.outbox.push_back((link, Control::SwitchReq { epoch: self.epoch, reason, lossy }));
        }
    }

    /// The nominated link is gone.
    pub(super) fn lost(&mut self) {
        self.carrying = Carrying::Nothing;
        self.mux.detach();
    }

    /// Ends all streams here; the peer learns of it with the next link, if there is one.
    pub(super) fn reset_all(&mut self, code: u16, text: &str) {
        self.mux.reset_all(code, text);
    }

    pub(super) fn poll_outbox(&mut self) -> Option<(LinkId, Control)> {
        self.outbox.pop_front()
    }

    pub(super) fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// A round trip was measured.
    pub(super) fn rtt(&mut self, link: LinkId, rtt: Option<Duration>) {
        if let (true, Some(rtt)) = (self.carries(link), rtt) {
            self.mux.set_rtt(rtt);
        }
    }

    /// A frame of a stream. Only those of the nominated link count.
    pub(super) fn frame(&mut self, now: Instant, link: LinkId, frame: Frame<'_>) -> Result<(), Ending> {
        if self.carries(link) {
            self.mux.receive(now, frame)?;
        }
        Ok(())
    }

    /// A message of stream 0.
    pub(super) fn hear(&mut self, now: Instant, link: LinkId, message: Control) -> Result<(), Ending> {
        match message {
            Control::Hello(hello) => self.hear_hello(link, &hello),
            Control::Switch { epoch, rung } => {
                if self.role == Role::Controlling || self.peer.is_none() {
                    return Err(Ending::Rule("SWITCH from the controlled side, or before a hello"));
                }
                if epoch > self.epoch {
                    self.epoch = epoch;
                    self.notes.push_back(Note::Nominated(link, rung));
                    self.begin(link);
                }
                Ok(())
            }
            Control::Resume { epoch, streams } => {
                if epoch == FIRST && self.role == Role::Controlling && streams != Resume::default() {
                    return Err(Ending::Rule("streams before the first nomination"));
                }
                if epoch == self.epoch && self.carrying == Carrying::Waiting(link) {
                    self.mux.attach(now, &streams)?;
                    self.carrying = Carrying::Attached(link);
                    self.notes.push_back(Note::Attached(link));
                }
                Ok(())
            }
            Control::SwitchReq { epoch, reason: _, lossy } => {
                if self.role == Role::Controlling && epoch == self.epoch {
                    self.notes.push_back(Note::SwitchWanted { lossy });
                }
                Ok(())
            }
            Control::Goaway { reason } => {
                self.notes.push_back(Note::Leaving(reason.chars().take(MAX_REASON).collect()));
                Ok(())
            }
        }
    }

    fn hear_hello(&mut self, link: LinkId, hello: &Hello) -> Result<(), Ending> {
        if hello.version != VERSION {
            return Err(Ending::Rule("a session protocol of another version"));
        }
        if hello.credit < self.own.credit {
            // Less would make our first bytes overdraw what it grants.
            return Err(Ending::Rule("an initial credit below the agreed 16 KiB"));
        }
        let instance = (hello.instance, hello.number);
        match self.peer {
            Some(known) if known == instance => {
                self.heard = self.heard.max(link);
                self.notes.push_back(Note::Ready(link, hello.direct));
                return Ok(());
            }
            // What a process said may be on its way for longer than the next one takes to be heard.
            Some(known) if link < self.heard || is_earlier(instance, known) => {
                return Err(Ending::Rule("a process that the peer has left behind"));
            }
            Some(_) => {
                self.renew(instance);
                self.notes.push_back(Note::Renewed(link));
            }
            None => self.peer = Some(instance),
        }
        self.heard = link;
        if let (Some(own), Some(peer)) = (&self.own.share, &hello.share) {
            self.notes.push_back(Note::Agreed(match self.role {
                Role::Controlling => ReconnectSecret::agree(own, peer),
                Role::Controlled => ReconnectSecret::agree(peer, own),
            }));
        }
        self.notes.push_back(Note::Ready(link, hello.direct));
        Ok(())
    }

    fn renew(&mut self, instance: Instance) {
        self.peer = Some(instance);
        self.epoch = 0;
        self.carrying = Carrying::Nothing;
        self.mux.detach();
        self.mux.restart(code::RESTARTED, "the peer has restarted");
    }

    /// Falls silent, says where this side stands, and waits for the other's word.
    fn begin(&mut self, link: LinkId) {
        self.mux.detach();
        if let Some(previous) = self.current().filter(|previous| *previous != link) {
            self.notes.push_back(Note::Superseded(previous));
        }
        self.carrying = Carrying::Waiting(link);
        let resume = Control::Resume { epoch: self.epoch, streams: self.mux.resume() };
        self.outbox.push_back((link, resume));
    }
}

/// Whether one is an earlier session of the same process.
fn is_earlier((process, number): Instance, (other, than): Instance) -> bool {
    process == other && number < than
}

const VERSION: u8 = 1;

/// The epoch of the first nomination between two process instances.
const FIRST: u64 = 1;

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn what_an_ended_process_said_before_does_not_pass_for_news() {
        let now = Instant::now();
        let new = |role, process, number| Nomination::new(role, ([process; 16], number), [7; 32]);
        let mut nomination = new(Role::Controlled, 1, 1);
        for (link, process, number, is_heard) in [
            (5, 3, 1, true),
            // On its way since before.
            (4, 2, 1, false),
            (6, 3, 1, true),
            (5, 2, 1, false),
            (7, 4, 2, true),
            (8, 4, 1, false),
            (6, 3, 1, false),
            (9, 4, 2, true),
            (10, 5, 1, true),
        ] {
            let hello = new(Role::Controlling, process, number).hello(false);
            let heard = nomination.hear(now, LinkId(link), hello);
            assert_eq!(heard.is_ok(), is_heard, "{process} {number} on {link}");
        }
        assert_eq!(nomination.peer, Some((ByteArray::new([5; 16]), 1)));
    }
}
