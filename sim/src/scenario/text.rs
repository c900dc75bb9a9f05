//! Scenarios as a line of text: clauses with a semicolon between them, each a few words.
//!
//! Times are in milliseconds, shares in thousandths, rates in kilobits a second. What is left out of a line
//! has its default.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};

use super::{
    Assignment, Forward, Line, Manner, Node, Party, Place, Quirks, Relay, Scenario, Share, Stream, Trouble,
    V6, What,
};
use crate::nat::Preset;

/// Why a text is no scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadScenario(String);

impl fmt::Display for BadScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadScenario {}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}", self.seed)?;
        f.write_str(if self.server_relay { "; server relay" } else { "" })?;
        for node in &self.nodes {
            match node.place {
                Place::Own(preset) => write!(f, "; node {}", preset.name())?,
                Place::With(host) => write!(f, "; node with {host}")?,
                Place::Beside(host) => write!(f, "; node beside {host}")?,
            }
            f.write_str(match node.v6 {
                None => "",
                Some(V6::Firewalled) => " v6",
                Some(V6::Open) => " v6-open",
            })?;
            f.write_str(match node.relay {
                None => "",
                Some(Relay::Private) => " relay",
                Some(Relay::Super) => " super",
            })?;
            if node.user > 0 {
                write!(f, " user {}", node.user)?;
            }
            write!(f, "{}{}", node.quirks, node.line)?;
        }
        for share in &self.shares {
            write!(f, "; share {} {}", share.node, share.user)?;
        }
        for forward in &self.forwards {
            write!(f, "; forward {} {}", forward.from, forward.to)?;
        }
        for Stream { forward, at, up, down, manner } in &self.streams {
            write!(f, "; stream {forward} at {at} up {up} down {down} {}", manner.name())?;
        }
        for fault in &self.faults {
            write!(f, "; fault at {}", fault.at)?;
            if fault.what.lasts() {
                write!(f, " for {}", fault.lasts)?;
            }
            write!(f, " {}", fault.what)?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let mut word = |name: &str, value: u32, usual: u32| match value == usual {
            true => Ok(()),
            false => write!(f, " {name} {value}"),
        };
        word("delay", self.delay.into(), usual.delay.into())?;
        word("jitter", self.jitter.into(), usual.jitter.into())?;
        word(if self.bursts { "bursts" } else { "loss" }, self.loss.into(), usual.loss.into())?;
        word("duplicate", self.duplicate.into(), usual.duplicate.into())?;
        word("reorder", self.reorder.into(), usual.reorder.into())?;
        word("corrupt", self.corrupt.into(), usual.corrupt.into())?;
        word("rate", self.rate, usual.rate)?;
        word("queue", self.queue.into(), usual.queue.into())?;
        word("udp-rate", self.udp_rate, usual.udp_rate)?;
        word("mtu", self.mtu.into(), usual.mtu.into())?;
        f.write_str(if self.black_hole { " black-hole" } else { "" })
    }
}

impl fmt::Display for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [("table", self.table), ("expiry", self.expiry), ("tcp-expiry", self.tcp_expiry)];
        for (name, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
            write!(f, " {name} {number}")?;
        }
        let flags = [
            ("forgetful", self.forgetful),
            ("hairpin", self.hairpin == Some(true)),
            ("no-hairpin", self.hairpin == Some(false)),
            ("resets", self.resets),
        ];
        for (name, _) in flags.into_iter().filter(|(_, flag)| *flag) {
            write!(f, " {name}")?;
        }
        match self.ports {
            None => Ok(()),
            Some(Assignment::Preserving) => f.write_str(" preserving"),
            Some(Assignment::Random) => f.write_str(" random"),
            Some(Assignment::Step(step)) => write!(f, " step {step}"),
            Some(Assignment::Block(size)) => write!(f, " block {size}"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(from, to) => write!(f, "cut {from} {to}"),
            Self::Offline(who) => write!(f, "offline {who}"),
            Self::InterfaceDown(who) => write!(f, "interface-down {who}"),
            Self::Crash(who) => write!(f, "crash {who}"),
            Self::Kill(who) => write!(f, "kill {who}"),
            Self::Suspend(who) => write!(f, "suspend {who}"),
            Self::Roam(node) => write!(f, "roam {node}"),
            Self::Move(node, preset) => write!(f, "move {node} {preset}"),
            Self::NatReboot(node) => write!(f, "nat-reboot {node}"),
            Self::Weather(node, line) => write!(f, "weather {node}{line}"),
            Self::WallClock(who, seconds) => write!(f, "wall-clock {who} {seconds}"),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Node(node) => write!(f, "{node}"),
        }
    }
}

impl FromStr for Scenario {
    type Err = BadScenario;

    fn from_str(text: &str) -> Result<Self, BadScenario> {
        let mut scenario = Self::default();
        for clause in text.split(';') {
            let mut words = Words(clause.split_whitespace());
            let parsed = scenario.clause(&mut words).and_then(|()| words.end());
            parsed.map_err(|why| BadScenario(format!("{:?}: {why}", clause.trim())))?;
        }
        scenario.check().map_err(BadScenario)?;
        Ok(scenario)
    }
}

impl Scenario {
    fn clause(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        match words.word()? {
            "seed" => self.seed = words.number()?,
            "server" => match words.word()? {
                "relay" => self.server_relay = true,
                other => return Err(format!("a server has no {other:?}")),
            },
            "node" => {
                let place = match words.word()? {
                    "with" => Place::With(words.number()?),
                    "beside" => Place::Beside(words.number()?),
                    preset => Place::Own(Preset::from_str(preset)?),
                };
                let mut node = Node { place, ..Node::behind(Preset::Open) };
                words.all(|words, word| {
                    if word == "user" {
                        node.user = words.number()?;
                        return Ok(true);
                    }
                    Ok(node.own_word(word)
                        || words.quirk(&mut node.quirks, word)?
                        || words.line_word(&mut node.line, word)?)
                })?;
                self.nodes.push(node);
            }
            "share" => self.shares.push(Share { node: words.number()?, user: words.number()? }),
            "forward" => self.forwards.push(Forward { from: words.number()?, to: words.number()? }),
            "stream" => self.streams.push(Stream {
                forward: words.number()?,
                at: words.named("at")?,
                up: words.named("up")?,
                down: words.named("down")?,
                manner: words.manner()?,
            }),
            "fault" => self.faults.push(words.trouble()?),
            other => return Err(format!("a clause cannot begin with {other:?}")),
        }
        Ok(())
    }

    /// That every number names something.
    fn check(&self) -> Result<(), String> {
        let nodes = self.nodes.len();
        if nodes < 2 {
            return Err("a scenario has two nodes at least".to_owned());
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let earlier = |host: usize| self.nodes.get(host).filter(|_| host < number).map(|host| host.place);
            let fits = match node.place {
                Place::Own(_) => true,
                Place::With(host) => match earlier(host) {
                    Some(Place::Own(preset)) => preset != Preset::Open,
                    Some(Place::Beside(_)) => true,
                    Some(Place::With(_)) | None => false,
                },
                Place::Beside(host) => earlier(host) == Some(Place::Own(Preset::Cgnat)),
            };
            if !fits {
                let (how, host) = match node.place {
                    Place::Own(_) => continue,
                    Place::With(host) => ("with", host),
                    Place::Beside(host) => ("beside", host),
                };
                return Err(format!("node {number} cannot live {how} node {host}"));
            }
        }
        let shares = |node: &&Node| !matches!(node.place, Place::Own(_)) && node.line != Line::default();
        if let Some(at) = self.nodes.iter().position(|node| shares(&node)) {
            return Err(format!("node {at} has no line of its own"));
        }
        let lost =
            |forward: &&Forward| forward.from >= nodes || forward.to >= nodes || forward.from == forward.to;
        if let Some(forward) = self.forwards.iter().find(lost) {
            return Err(format!("no forward leads from {} to {}", forward.from, forward.to));
        }
        let lost = |share: &&Share| {
            self.nodes.get(share.node).is_none_or(|node| node.user == share.user)
                || self.nodes.iter().all(|node| node.user != share.user)
        };
        if let Some(share) = self.shares.iter().find(lost) {
            return Err(format!("node {} cannot be shared with user {}", share.node, share.user));
        }
        if let Some(stream) = self.streams.iter().find(|stream| stream.forward >= self.forwards.len()) {
            return Err(format!("there is no forward {}", stream.forward));
        }
        let exists = |party: Party| match party {
            Party::Server => true,
            Party::Node(node) => node < nodes,
        };
        for fault in &self.faults {
            let fits = match fault.what {
                What::Cut(from, to) => exists(from) && exists(to) && from != to,
                What::Offline(who)
                | What::InterfaceDown(who)
                | What::Crash(who)
                | What::Kill(who)
                | What::Suspend(who)
                | What::WallClock(who, _) => exists(who),
                What::Roam(node) | What::Move(node, _) | What::NatReboot(node) | What::Weather(node, _) => {
                    node < nodes
                }
            };
            if !fits {
                return Err(format!("{} names what is not there", fault.what));
            }
        }
        Ok(())
    }
}

impl Node {
    fn own_word(&mut self, word: &str) -> bool {
        match word {
            "v6" => self.v6 = Some(V6::Firewalled),
            "v6-open" => self.v6 = Some(V6::Open),
            "relay" => self.relay = Some(Relay::Private),
            "super" => self.relay = Some(Relay::Super),
            _ => return false,
        }
        true
    }
}

impl Manner {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orderly => "orderly",
            Self::Ask => "ask",
            Self::Greet => "greet",
            Self::Idle => "idle",
            Self::SlowTarget => "slow-target",
            Self::SlowClient => "slow-client",
            Self::ClientResets => "client-resets",
            Self::TargetResets => "target-resets",
        }
    }
}

struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "a word is missing".to_owned())
    }

    fn end(&mut self) -> Result<(), String> {
        self.0.next().map_or(Ok(()), |word| Err(format!("{word:?} is one word too many")))
    }

    fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("{word:?} is no number that fits here"))
    }

    fn named<T: FromStr>(&mut self, name: &str) -> Result<T, String> {
        match self.word()? {
            word if word == name => self.number(),
            word => Err(format!("{word:?} stands where {name:?} belongs")),
        }
    }

    fn manner(&mut self) -> Result<Manner, String> {
        let word = self.word()?;
        let found = Manner::ALL.into_iter().find(|manner| manner.name() == word);
        found.ok_or_else(|| format!("{word:?} is no manner"))
    }

    fn party(&mut self) -> Result<Party, String> {
        match self.word()? {
            "server" => Ok(Party::Server),
            word => word.parse().map(Party::Node).map_err(|_| format!("{word:?} is no machine")),
        }
    }

    /// All the rest, word by word; `take` says whether it knew the word.
    fn all(&mut self, mut take: impl FnMut(&mut Self, &str) -> Result<bool, String>) -> Result<(), String> {
        while let Some(word) = self.0.next() {
            if !take(self, word)? {
                return Err(format!("{word:?} means nothing here"));
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<Line, String> {
        let mut line = Line::default();
        self.all(|words, word| words.line_word(&mut line, word))?;
        Ok(line)
    }

    fn line_word(&mut self, line: &mut Line, word: &str) -> Result<bool, String> {
        match word {
            "delay" => line.delay = self.number()?,
            "jitter" => line.jitter = self.number()?,
            "loss" => line.loss = self.number()?,
            "bursts" => (line.bursts, line.loss) = (true, self.number()?),
            "duplicate" => line.duplicate = self.number()?,
            "reorder" => line.reorder = self.number()?,
            "corrupt" => line.corrupt = self.number()?,
            "rate" => line.rate = self.number()?,
            "queue" => line.queue = self.number()?,
            "udp-rate" => line.udp_rate = self.number()?,
            "mtu" => line.mtu = self.number()?,
            "black-hole" => line.black_hole = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn quirk(&mut self, quirks: &mut Quirks, word: &str) -> Result<bool, String> {
        match word {
            "table" => quirks.table = self.number()?,
            "expiry" => quirks.expiry = self.number()?,
            "tcp-expiry" => quirks.tcp_expiry = self.number()?,
            "forgetful" => quirks.forgetful = true,
            "hairpin" => quirks.hairpin = Some(true),
            "no-hairpin" => quirks.hairpin = Some(false),
            "resets" => quirks.resets = true,
            "preserving" => quirks.ports = Some(Assignment::Preserving),
            "random" => quirks.ports = Some(Assignment::Random),
            "step" => quirks.ports = Some(Assignment::Step(self.number()?)),
            "block" => quirks.ports = Some(Assignment::Block(self.number()?)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn trouble(&mut self) -> Result<Trouble, String> {
        let at = self.named("at")?;
        let (lasts, what) = match self.word()? {
            "for" => (self.number()?, self.word()?),
            what => (0, what),
        };
        let what = match what {
            "cut" => What::Cut(self.party()?, self.party()?),
            "offline" => What::Offline(self.party()?),
            "interface-down" => What::InterfaceDown(self.party()?),
            "crash" => What::Crash(self.party()?),
            "kill" => What::Kill(self.party()?),
            "suspend" => What::Suspend(self.party()?),
            "roam" => What::Roam(self.number()?),
            "move" => What::Move(self.number()?, Preset::from_str(self.word()?)?),
            "nat-reboot" => What::NatReboot(self.number()?),
            "weather" => What::Weather(self.number()?, self.line()?),
            "wall-clock" => What::WallClock(self.party()?, self.number()?),
            other => return Err(format!("{other:?} is nothing that goes wrong")),
        };
        Ok(Trouble { at, lasts, what })
    }
}
