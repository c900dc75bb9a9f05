//! Which link carries the session: the race of an attempt, and what takes over from what.
//!
//! The controlling side nominates the first link that is ready, the very first one between two processes as soon as
//! the peer has proven its key there, and a better one of the same attempt when that is ready: streams move, and
//! lose nothing. Such a promotion happens once in ten seconds at most. A newer attempt's link that is as good takes
//! over only where the nominated one has not answered since that attempt began, and a worse one when the nominated
//! link is suspect or loses too much (`distrust`), or when the peer says so.

use std::time::{Duration, Instant};

use super::attempt::Run;
use super::carrier::{Carrier, Slot, Stage};
use super::nomination::Note;
use super::opening::Opening;
use super::{Action, LinkId, Session};
use crate::agent::io::SessionNews;
use crate::ids::AttemptId;
use crate::link::Role;
use crate::path::{Rung, Transport};

impl Session {
    /// Acts on what the links heard.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(note) = self.nomination.poll_note() {
            match note {
                Note::Ready(link, direct) => self.ready(now, link, direct),
                Note::Nominated(link, rung) => self.nominated(now, link, rung),
                Note::Attached(link) => self.attached(now, link),
                Note::Renewed(link) => {
                    // Whatever the old process held is void; only the link that brought the news is the new
                    // one's, and those may be that have brought nothing yet.
                    let attempt = self.slot(link).map(|slot| slot.attempt);
                    self.close_where(now, "the peer has restarted", |slot| {
                        slot.id != link && (Some(slot.attempt) != attempt || slot.stage == Stage::Ready)
                    });
                    self.tell_down(now, "the peer has restarted", true);
                }
                Note::Superseded(link) => {
                    if let Some(slot) = self.slot_mut(link) {
                        slot.spare_since = now;
                    }
                }
                Note::SwitchWanted { lossy: false } => self.nominate_another(now),
                Note::SwitchWanted { lossy: true } => self.told_poor(now),
                Note::Agreed(secret) => {
                    self.actions.push_back(Action::News(SessionNews::Agreed(secret)));
                }
                Note::Leaving(reason) => self.actions.push_back(Action::PeerLeaving(reason)),
            }
        }
        while let Some((link, message)) = self.nomination.poll_outbox() {
            if let Some(lane) = self.slot_mut(link).and_then(Slot::lane_mut) {
                lane.say(&message);
            }
        }
    }

    /// This side's hello is out on a link. Between two processes that have never met, the controlling side does not
    /// wait for the peer's: there are no streams that the peer could tell of, and their first bytes save a round
    /// trip. Which of two rungs the link is the peer's hello may tell; both have to be allowed.
    pub(super) fn greeted(&mut self, now: Instant, link: LinkId) {
        if self.role == Role::Controlled || !self.nomination.is_fresh() {
            return;
        }
        let Some(slot) = self.slot(link).filter(|slot| slot.stage == Stage::Greeted) else { return };
        let (attempt, worse, better) = (slot.attempt, slot.rung_with(false), slot.rung_with(true));
        let allowed = |run: &Run| [worse, better].into_iter().all(|rung| run.attempt.rungs.contains(rung));
        if self.runs.iter().any(|run| run.id() == attempt && allowed(run)) {
            if let Some(slot) = self.slot_mut(link) {
                slot.rung = Some(worse);
            }
            self.nominate(now, link, worse);
        }
    }

    pub(super) fn ready(&mut self, now: Instant, link: LinkId, direct: bool) {
        let Some(slot) = self.slot_mut(link) else { return };
        slot.seen_direct = direct;
        if let Carrier::Udp(udp) = &mut slot.carrier
            && !udp.greeted
        {
            udp.met = true;
            return;
        }
        if slot.stage == Stage::Ready {
            // It sees this node elsewhere than before.
            return self.regrade(link, false);
        }
        slot.stage = Stage::Ready;
        if self.role == Role::Controlled {
            match self.nomination.current() {
                None => self.nomination.ask_for(link, "no link here"),
                // The link itself may not bear even that.
                Some(current) if current != link && self.slot(current).is_some_and(|slot| slot.poor) => {
                    self.nomination.ask_for_better(link, "it loses too much");
                }
                Some(_) => {}
            }
            return;
        }
        let Some(slot) = self.slot_mut(link) else { return };
        let (attempt, rung) = (slot.attempt, slot.rung_now());
        slot.rung = Some(rung);
        if let Some(run) = self.runs.iter_mut().find(|run| run.id() == attempt) {
            if !run.attempt.rungs.contains(rung) {
                let reason = format!("it would be {rung}, which is not among the rungs that may be used");
                return self.end(now, link, &reason);
            }
            run.ready(now, rung);
        }
        if self.nomination.carries(link) {
            // It was nominated before.
            self.attached(now, link);
        }
        self.choose(now);
        self.drop_losers(now);
    }

    /// A path has moved, or where the peer's interfaces are is news: judges anew whether the peer is seen at one
    /// of them, and tells the peer.
    pub(super) fn reconsider(&mut self, link: LinkId, moved: bool) {
        let Self { links, hosts, nomination, .. } = self;
        let Some(slot) = links.iter_mut().find(|slot| slot.id == link) else { return };
        let (true, Some(remote)) = (slot.transport() == Transport::Udp, slot.remote) else { return };
        let direct = hosts.contains(&remote);
        if std::mem::replace(&mut slot.direct, direct) != direct
            && slot.stage >= Stage::Greeted
            && let Some(lane) = slot.lane_mut()
        {
            lane.say(&nomination.hello(direct));
        }
        self.regrade(link, moved);
    }

    /// Computes the rung of a link that has one anew: both sides do, and come to the same.
    fn regrade(&mut self, link: LinkId, moved: bool) {
        let Some(slot) = self.slot_mut(link) else { return };
        let (Some(before), rung, Some(remote)) = (slot.rung, slot.rung_now(), slot.remote) else { return };
        slot.rung = Some(rung);
        if (moved || rung != before) && self.nomination.carries(link) {
            self.actions.push_back(Action::News(SessionNews::Moved { rung, remote }));
        }
    }

    /// Controlling side: nominates a link that is ready, if there is reason to.
    pub(super) fn choose(&mut self, now: Instant) {
        if self.role == Role::Controlled {
            return;
        }
        let Some(best) = self.best_but(None) else { return };
        let (id, attempt, rung) = best;
        let Some(current) = self.nomination.current().and_then(|current| self.slot(current)) else {
            return self.nominate(now, id, rung);
        };
        if current.id == id {
            return;
        }
        if current.poor || current.lane().is_some_and(|lane| lane.is_suspect(now)) {
            return self.nominate_another(now);
        }
        if self.slot(id).is_some_and(|best| best.poor) {
            return;
        }
        let begun = self.runs.iter().find(|run| run.id() == attempt).map(|run| run.started);
        let works = begun.is_some_and(|begun| current.lane().is_some_and(|lane| lane.answered_since(begun)));
        let newer = attempt != current.attempt && id > current.id;
        if newer && rung <= current.hope() && !works {
            self.nominate(now, id, rung);
        } else if rung < current.hope() && self.may_promote().is_none_or(|at| now >= at) {
            self.promoted = Some(now);
            self.nominate(now, id, rung);
        }
    }

    /// When a better link may take over from one that works, if not at any time.
    fn may_promote(&self) -> Option<Instant> {
        self.promoted.map(|at| at + SETTLED)
    }

    /// When [`Self::choose`] may come to another result by time alone.
    pub(super) fn promotion(&self) -> Option<Instant> {
        let current = self.slot(self.nomination.current()?)?;
        let (id, _, rung) = self.best_but(None).filter(|_| self.role == Role::Controlling)?;
        self.may_promote().filter(|_| id != current.id && rung < current.hope())
    }

    /// The nominated link is no good: takes the best of the others.
    pub(super) fn nominate_another(&mut self, now: Instant) {
        let current = self.nomination.current();
        if let Some((next, _, rung)) = self.best_but(current) {
            if let Some(slot) = current.and_then(|current| self.slot_mut(current)) {
                (slot.doubted, slot.poor) = (true, true);
            }
            self.nominate(now, next, rung);
        }
    }

    /// Controlled side: has the other one nominate another link while the nominated one is suspect.
    pub(super) fn ask_when_suspect(&mut self, now: Instant) {
        let Some(current) = self.nomination.current().filter(|_| self.role == Role::Controlled) else {
            return;
        };
        let suspect = self.slot(current).and_then(Slot::lane).is_some_and(|lane| lane.is_suspect(now));
        if suspect && let Some((other, ..)) = self.best_but(Some(current)) {
            self.nomination.ask_for(other, "no answer");
        }
    }

    fn nominate(&mut self, now: Instant, link: LinkId, rung: Rung) {
        self.nomination.nominate(now, link, rung);
    }

    /// Of the links that are ready, all but one, the best; of several the newest attempt's.
    fn best_but(&self, not: Option<LinkId>) -> Option<(LinkId, AttemptId, Rung)> {
        let ready = self
            .links
            .iter()
            .filter(|slot| slot.stage == Stage::Ready && Some(slot.id) != not && !slot.doubted);
        let best = ready.min_by_key(|slot| (slot.poor, slot.hope(), std::cmp::Reverse(slot.id)))?;
        // Among equals of one attempt the first to be ready stays.
        let current = self.nomination.current().filter(|current| Some(*current) != not);
        let current = current.and_then(|current| self.slot(current));
        let stays =
            current.filter(|slot| !slot.poor && slot.hope() == best.hope() && slot.attempt == best.attempt);
        let best = stays.unwrap_or(best);
        Some((best.id, best.attempt, best.hope()))
    }

    /// Controlled side: the peer has nominated a link.
    fn nominated(&mut self, now: Instant, link: LinkId, rung: Rung) {
        let Some(slot) = self.slot_mut(link) else { return };
        // It may not have heard from here yet when it said so.
        let rung = rung.min(slot.rung_now());
        slot.rung = Some(rung);
        let attempt = slot.attempt;
        if let Some(run) = self.runs.iter_mut().find(|run| run.id() == attempt) {
            run.ready(now, rung);
        }
    }

    fn attached(&mut self, now: Instant, link: LinkId) {
        self.down_since = None;
        // Which rung it is, and whether it lasts, the peer's hello will tell.
        let Some(slot) = self.slot(link).filter(|slot| slot.stage == Stage::Ready) else { return };
        let (attempt, remote, rung) = (slot.attempt, slot.remote, slot.hope());
        let floor = slot.lane().and_then(super::lane::Lane::floor);
        let via = slot.relay.as_ref().map(|through| through.via());
        self.told_up = true;
        self.nomination.rtt(link, floor);
        if let Some(remote) = remote {
            self.actions.push_back(Action::News(SessionNews::Up { rung, remote, via }));
        }
        if let Some(run) = self.runs.iter_mut().find(|run| run.id() == attempt) {
            run.is_up = true;
        }
        // What carried the session before an attempt of its own: the controlled side leaves that to the
        // controlling one, which may have nominated anew meanwhile.
        let controlling = self.role == Role::Controlling;
        self.close_where(now, "another link has taken over", |slot| {
            controlling && slot.attempt != attempt && slot.id < link
        });
        self.drop_losers(now);
        self.finish_decided(now);
    }

    /// Closes what can no longer win: of the attempt whose link carries the session, all that is no better.
    fn drop_losers(&mut self, now: Instant) {
        let Some(current) = self.nomination.current().filter(|current| self.nomination.carries(*current))
        else {
            return;
        };
        let Some(winner) = self.slot(current) else { return };
        let (attempt, rung) = (winner.attempt, winner.hope());
        self.stop_openings(now, attempt, rung);
        self.close_where(now, "another link was faster", |slot| {
            slot.id != current && slot.attempt == attempt && slot.hope() >= rung
        });
    }

    /// Tells of attempts in which nothing can change any more.
    fn finish_decided(&mut self, now: Instant) {
        let mut runs = std::mem::take(&mut self.runs);
        for run in runs.iter_mut().filter(|run| run.is_up && run.is_running()) {
            let current = self.nomination.current();
            let mut rivals = self.links.iter().filter(|slot| slot.attempt == run.id());
            let waits = run.opening.as_ref().is_some_and(Opening::is_active);
            if !waits && !rivals.any(|slot| Some(slot.id) != current) {
                self.finish(now, run);
            }
        }
        self.runs = runs;
    }

    /// Dials no more for an attempt that is over: its connections would stand in the way of the next one's,
    /// which leave by the same port for the same address.
    pub(super) fn hang_up(&mut self, now: Instant, id: AttemptId) {
        self.close_where(now, "the attempt is over", |slot| {
            slot.attempt == id && slot.relay.is_none() && matches!(slot.carrier, Carrier::Dialled)
        });
    }

    pub(super) fn close_where(&mut self, now: Instant, reason: &str, doomed: impl Fn(&Slot) -> bool) {
        let actions = &mut self.actions;
        self.links.retain(|slot| {
            if !doomed(slot) {
                return true;
            }
            // Such as one of two punched connections' ends that belong to different attempts.
            let reset = slot.stage < Stage::Ready && slot.relay.is_none();
            let action = match &mut slot.carrier {
                Carrier::Dialled => Action::Close { link: slot.id, farewell: Vec::new(), reset },
                Carrier::Tcp(tcp) => {
                    let mut farewell = std::mem::take(&mut tcp.early);
                    tcp.link.close(&mut farewell);
                    Action::Close { link: slot.id, farewell, reset }
                }
                Carrier::Udp(udp) => {
                    udp.link.close(now, reason);
                    let mut bytes = Vec::new();
                    let sent = udp.link.path().and_then(|_| udp.link.poll_transmit(now, 1, &mut bytes));
                    Action::Unroute { route: udp.route(slot.id), farewell: sent.map(|sent| (sent, bytes)) }
                }
            };
            actions.push_back(action);
            if let Carrier::Udp(udp) = &mut slot.carrier {
                // Behind the last words, which may go by one of those sockets.
                udp.punch.stop(now, actions);
            }
            false
        });
    }

    pub(super) fn end(&mut self, now: Instant, link: LinkId, reason: &str) {
        self.end_by(now, link, reason, false);
    }

    /// The same; `by_peer` if it was the peer that ended the link.
    pub(super) fn end_by(&mut self, now: Instant, link: LinkId, reason: &str, by_peer: bool) {
        let Some(slot) = self.slot(link) else { return };
        let (attempt, remote, transport) = (slot.attempt, slot.remote, slot.transport());
        let unused = self.nomination.current() != Some(link);
        let through = self.slot_mut(link).and_then(|slot| slot.relay.take());
        self.close_where(now, reason, |slot| slot.id == link);
        if let Some(through) = through {
            if unused {
                self.relay_failed(now, attempt, &through, reason);
            }
        } else if let Some(run) = self.runs.iter_mut().find(|run| run.id() == attempt && run.is_running()) {
            run.failed(transport, remote, reason);
            if let Some(opening) = &mut run.opening {
                opening.ended(now, link);
            }
        }
        if self.nomination.current() == Some(link) {
            self.nomination.lost();
            match self.role {
                Role::Controlling => self.nominate_another(now),
                Role::Controlled => {
                    if let Some((other, ..)) = self.best_but(None) {
                        self.nomination.ask_for(other, reason);
                    }
                }
            }
            self.settle(now);
            if self.nomination.current().is_none() {
                self.tell_down(now, reason, by_peer);
            }
        }
        self.finish_decided(now);
    }

    /// There is no link any more. What was lost before streams moved over it is no news.
    fn tell_down(&mut self, now: Instant, reason: &str, by_peer: bool) {
        self.down_since.get_or_insert(now);
        if std::mem::take(&mut self.told_up) {
            self.actions.push_back(Action::News(SessionNews::Down { reason: reason.to_owned(), by_peer }));
        }
    }

    pub(super) fn finish(&mut self, now: Instant, run: &mut Run) {
        if let Some(outcomes) = run.finish(now) {
            let news = SessionNews::AttemptDone { attempt: run.id(), outcomes };
            self.actions.push_back(Action::News(news));
        }
    }
}

/// How long after a better link has taken over from one that worked the next one may: two that come and go must
/// not have the streams run to and fro.
const SETTLED: Duration = Duration::from_secs(10);
