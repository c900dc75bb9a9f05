//! What the programs log, with the time and the host: an error fails the run, and a replay shows the rest.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use inp2p_core::agent::LINKS;
use inp2p_core::path::Rung;
use inp2p_core::wire::UNANSWERED;
use inp2p_driver::DUE;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::clock::Time;
use crate::executor::lock;
use crate::host::HostId;
use crate::world::{Shared, World};

/// A line of a log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: Time,
    /// Whose; none of what is dropped outside of all tasks.
    pub(crate) host: Option<HostId>,
    pub(crate) level: Level,
    /// Which part of the programs.
    pub(crate) target: &'static str,
    pub(crate) text: String,
}

impl Line {
    /// Which link carries the session with `peer` from then on; none within if none does. None at all if the line
    /// is about something else.
    pub(crate) fn link(&self, peer: &str) -> Option<Option<Rung>> {
        let word = |name: &str| self.text.split(' ').find_map(|word| word.strip_prefix(name));
        let about = self.target == LINKS && word("peer=") == Some(peer);
        about.then(|| word("rung=").and_then(|rung| rung.parse().ok()))
    }
}

/// Lines of one thread's programs.
#[derive(Clone)]
pub(crate) struct Logbook {
    shared: Arc<Shared>,
    most: LevelFilter,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Logbook {
    pub(crate) fn new(world: &World, most: LevelFilter) -> Self {
        Self { shared: world.shared.clone(), most, lines: Arc::default() }
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        lock(&self.lines).clone()
    }
}

impl Subscriber for Logbook {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.is_event() && metadata.target().starts_with("inp2p");
        // What is judged, and of what is finer than the level asked for why timers fired.
        let wanted = match metadata.target() {
            UNANSWERED | LINKS => true,
            DUE => self.most >= LevelFilter::DEBUG,
            _ => *metadata.level() <= self.most,
        };
        ours && wanted
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let host = self.shared.executor.current().map(|(host, _)| host);
        let (at, level) = (self.shared.clock.now(), *event.metadata().level());
        let target = event.metadata().target();
        lock(&self.lines).push(Line { at, host, level, target, text: text.0 });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let gap = if self.0.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{gap}{value:?}"),
            name => write!(self.0, "{gap}{name}={value:?}"),
        };
    }
}
