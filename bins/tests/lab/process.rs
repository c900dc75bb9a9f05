//! Processes of a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use super::{DEADLINE, poll};

/// A running program, its stderr gathered. Killed when dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Whether it has children of its own, which only an orderly end takes along.
    has_children: bool,
}

impl Program {
    /// Starts it.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let gathered = Arc::clone(&lines);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                gathered.lock().unwrap().push(line);
            }
        });
        Self { name: name.to_owned(), child, lines, has_children: false }
    }

    /// Starts a program that has children of its own: it is asked to end before it is killed.
    pub(crate) fn start_with_children(name: &str, command: Command) -> Self {
        let mut program = Self::start(name, command);
        program.has_children = true;
        program
    }

    /// Its name in the test.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it has written to stderr.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The first line of stderr that holds `needle`, once it is there.
    pub(crate) fn wait_for_log(&self, needle: &str) -> String {
        let find = || {
            // A program that has ended will not write it any more: its stderr is gathered to the end then.
            let ended = Arc::strong_count(&self.lines) == 1;
            let line = self.lines.lock().unwrap().iter().find(|line| line.contains(needle)).cloned();
            if line.is_some() || ended { Some(line) } else { None }
        };
        let line = poll(DEADLINE, find).flatten();
        line.unwrap_or_else(|| panic!("{}: no {needle:?} in its log:\n{}", self.name, self.log()))
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn wait_for_exit(&mut self) -> i32 {
        let status = poll(DEADLINE, || self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("{}: still runs:\n{}", self.name, self.log()));
        // The reader of stderr may be behind.
        let whole = poll(DEADLINE, || (Arc::strong_count(&self.lines) == 1).then_some(()));
        assert!(whole.is_some(), "{}: its stderr stays open", self.name);
        status.code().unwrap_or(-1)
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to end in order: its exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.wait_for_exit()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The processor time that its threads have used, in user space and in the kernel.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // The name in parentheses may hold anything; user and system time are the 12th and 13th field behind it.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// A file of its folder in `/proc`.
    pub(crate) fn proc(&self, file: &str) -> String {
        let content = std::fs::read(format!("/proc/{}/{file}", self.child.id())).unwrap();
        String::from_utf8_lossy(&content).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.has_children && matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            poll(DEADLINE, || self.child.try_wait().ok().flatten());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            // Captured by the test harness and shown with the failure.
            println!("--- {}:\n{}", self.name, self.log());
        }
    }
}

/// What a program did that ran to its end.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Runs it with `input` on stdin.
    pub(crate) fn with_input(mut command: Command, input: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Guard(command.spawn().unwrap());
        // A program that does not read its input has ended already.
        let _ = child.0.stdin.take().unwrap().write_all(input.as_bytes());
        let stdout = gather(child.0.stdout.take().unwrap());
        let stderr = gather(child.0.stderr.take().unwrap());
        let status = poll(DEADLINE * 4, || child.0.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("{command:?} still runs"));
        Self {
            code: status.code().unwrap_or(-1),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }

    /// Runs it without any input.
    pub(crate) fn of(command: Command) -> Self {
        Self::with_input(command, "")
    }
}

/// A child that does not outlive the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gather(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Lets this process, which is both ends of every connection, open as many descriptors as the system allows.
pub(crate) fn allow_many_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
