//! Simultaneous opens over TCP: what the puncher of an attempt wants dialled, and which links come of it.

use std::time::Instant;

use smallvec::SmallVec;

use super::carrier::Carrier;
use super::{Action, LinkId, Session};
use crate::ids::AttemptId;
use crate::path::{Rung, Transport};
use crate::punch::Why;
use crate::punch::tcp::{self, Input, Plan, TcpPuncher};

/// The simultaneous opens of one attempt.
#[derive(Debug)]
pub(super) struct Opening {
    puncher: TcpPuncher,
    /// Those under way, by the puncher's number.
    dialled: SmallVec<[(u32, LinkId); 4]>,
}

impl Opening {
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.puncher.deadline()
    }

    /// Whether more is to come.
    pub(super) fn is_active(&self) -> bool {
        self.puncher.deadline().is_some()
    }

    /// Something as good is there, or the attempt is over.
    pub(super) fn stop(&mut self, now: Instant) {
        self.puncher.handle(now, Input::Stop);
    }

    /// The link is over: if it was one of these, it may be tried again.
    pub(super) fn ended(&mut self, now: Instant, link: LinkId) {
        if let Some(at) = self.dialled.iter().position(|(_, dialled)| *dialled == link) {
            let (number, _) = self.dialled.swap_remove(at);
            self.puncher.handle(now, Input::Failed(number));
        }
    }
}

impl Session {
    /// Makes ready for the common instant of an attempt that has just begun.
    pub(super) fn prepare_opening(&mut self, id: AttemptId, now: Instant) {
        let Some(run) = self.runs.iter_mut().find(|run| run.id() == id) else { return };
        let plan = Plan::new(&run.attempt.situation(self.role));
        match (plan.hopeless, run.attempt.tcp_in) {
            (Some(why), _) => run.opening_failed(why),
            (None, None) => run.opening_failed(Why::NoInstant),
            (None, Some(after)) => {
                let puncher = TcpPuncher::new(plan, now + after);
                run.opening = Some(Opening { puncher, dialled: SmallVec::new() });
            }
        }
    }

    /// Dials what is due.
    pub(super) fn tick_openings(&mut self, now: Instant) {
        let mut wanted: SmallVec<[(AttemptId, u32, tcp::Dial); 4]> = SmallVec::new();
        for run in self.runs.iter_mut().filter(|run| run.is_running()) {
            let (id, Some(opening)) = (run.id(), &mut run.opening) else { continue };
            opening.puncher.handle(now, Input::Tick);
            let mut given_up = None;
            while let Some(action) = opening.puncher.poll_action() {
                match action {
                    tcp::Action::Dial { number, dial } => wanted.push((id, number, dial)),
                    tcp::Action::GaveUp(why) => given_up = Some(why),
                }
            }
            if let Some(why) = given_up {
                run.opening_failed(why);
            }
        }
        for (id, number, dial) in wanted {
            if dial.from != tcp::From::Any {
                // An older attempt's would stand in its way.
                self.close_where(now, "a newer attempt dials", |slot| {
                    slot.attempt != id
                        && slot.remote == Some(dial.to)
                        && slot.relay.is_none()
                        && matches!(slot.carrier, Carrier::Dialled)
                });
            }
            let link = self.add_slot(now, id, Some(dial.to), Carrier::Dialled);
            if let Some(run) = self.runs.iter_mut().find(|run| run.id() == id) {
                let direct = run.attempt.is_host(Transport::Tcp, dial.to);
                if let Some(opening) = &mut run.opening {
                    opening.dialled.push((number, link));
                }
                if let Some(slot) = self.slot_mut(link) {
                    slot.direct = direct;
                }
            }
            self.actions.push_back(Action::Dial { link, to: dial.to, from: dial.from });
        }
    }

    /// A link of this attempt carries the session: what would be no better is not tried any more.
    pub(super) fn stop_openings(&mut self, now: Instant, id: AttemptId, rung: Rung) {
        if rung <= Rung::TcpPunch
            && let Some(run) = self.runs.iter_mut().find(|run| run.id() == id)
            && let Some(opening) = &mut run.opening
        {
            opening.stop(now);
        }
    }
}
