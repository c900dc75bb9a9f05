//! Network namespaces: made, entered and removed.
//!
//! Each is named `inp2p-PID-NUMBER-ROLE` after the process that made it. It goes, with all that runs in it,
//! when its value is dropped, which a panic does too; [`sweep_on_signals`] does it on SIGINT and SIGTERM.
//! What a killed process left behind, [`sweep_dead`] finds by the number in the name.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::lab::process::Ran;

/// A network namespace with nothing but a loopback interface.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one; `role` is for people who look at the list.
    pub(crate) fn new(role: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("{}{number}-{role}", prefix(process::id())) };
        ip(&format!("netns add {}", namespace.name));
        ip(&format!("-n {} link set lo up", namespace.name));
        namespace
    }

    /// Does `work` in a thread that is inside. The sockets, threads and processes that it makes stay there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = File::open(Path::new(FOLDER).join(&self.name)).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs `ip` with these words inside.
    pub(crate) fn ip(&self, words: &str) {
        ip(&format!("-n {} {words}", self.name));
    }

    /// Runs a program inside, which has to succeed: its output.
    pub(crate) fn tool(&self, program: &str, words: &str) -> String {
        self.run(|| checked(program, words, ""))
    }

    /// Adds rules in the language of `nft`.
    pub(crate) fn rules(&self, rules: &str) {
        self.run(|| checked("nft", "-f -", rules));
    }

    /// Sets a value below `/proc/sys/net`.
    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(name);
        self.run(|| fs::write(&path, value)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        sweep(&self.name);
    }
}

/// Joins two namespaces: an interface here, an interface there.
pub(crate) fn join(one: (&Namespace, &str), other: (&Namespace, &str)) {
    let ((here, name), (there, peer)) = (one, other);
    ip(&format!("link add {name} netns {} type veth peer name {peer} netns {}", here.name, there.name));
    here.ip(&format!("link set {name} up"));
    there.ip(&format!("link set {peer} up"));
}

/// Whether this process may make namespaces; if not, why.
pub(crate) fn may() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    let name = format!("{}try", prefix(process::id()));
    let mut command = Command::new("ip");
    command.args(["netns", "add", &name]);
    let made = Ran::of(command);
    sweep(&name);
    if made.code == 0 { Ok(()) } else { Err(format!("needs network namespaces: {}", made.stderr.trim())) }
}

/// Removes what processes of this program left behind that were killed.
pub(crate) fn sweep_dead() {
    for name in namespaces() {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let Some(owner) = owner else { continue };
        let runs = fs::read_link(format!("/proc/{owner}/exe"))
            .is_ok_and(|program| program.to_string_lossy().contains("nat_lab"));
        if !runs {
            sweep(&name);
            remove_folders(owner);
        }
    }
}

/// Removes everything on SIGINT and SIGTERM, and ends this process.
pub(crate) fn sweep_on_signals() {
    let mut signals = Signals::new([SIGINT, SIGTERM]).unwrap();
    thread::spawn(move || {
        signals.forever().next();
        let own = prefix(process::id());
        namespaces().iter().filter(|name| name.starts_with(&own)).for_each(|name| sweep(name));
        remove_folders(process::id());
        process::exit(130);
    });
}

/// Ends what runs in a namespace and removes it, whatever its state.
fn sweep(name: &str) {
    let quietly = |words: &[&str]| {
        let output = Command::new("ip").args(words).stderr(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    for pid in quietly(&["netns", "pids", name]).split_whitespace() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    quietly(&["netns", "del", name]);
}

/// Removes the folders of the tests of a process.
fn remove_folders(owner: u32) {
    let own = prefix(owner);
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&own) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn namespaces() -> Vec<String> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn prefix(owner: u32) -> String {
    format!("{PREFIX}{owner}-")
}

fn ip(words: &str) {
    checked("ip", words, "");
}

/// Runs a program that has to succeed: its output.
fn checked(program: &str, words: &str, input: &str) -> String {
    let mut command = Command::new(program);
    command.args(words.split_whitespace());
    let ran = Ran::with_input(command, input);
    assert_eq!(ran.code, 0, "{program} {words}\n{input}\n{}", ran.stderr);
    ran.stdout
}

/// Where `ip netns` keeps them.
const FOLDER: &str = "/run/netns";
const PREFIX: &str = "inp2p-";
