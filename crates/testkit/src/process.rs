//! A child process: its log captured, its end awaited, and never left behind.
//!
//! Owns: one process of one program. Does not own: what the program is for ([`crate::gateway`], [`crate::nats`]).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::sync::watch;

use crate::wait::within;

/// The most lines that are kept of one process: a flood of log lines is a finding, not a reason to run out of memory.
const LINES_KEPT: usize = 200_000;

/// Everything that a process has written, line by line, in the order of arrival.
#[derive(Clone, Debug, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

/// A running (or ended) child process. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    input: Option<Mutex<ChildStdin>>,
    log: Log,
    /// What of it came on standard output.
    output: Log,
    written: watch::Receiver<usize>,
    ended: watch::Receiver<Option<ExitStatus>>,
    waiter: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with no input and with both its outputs captured.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start(name, command)
    }

    /// Starts `command` with an input that can be written to ([`Self::say`]), and with both its outputs captured.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_listening(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        Self::start(name, command)
    }

    fn start(name: &str, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let input = child.stdin.take().map(Mutex::new);
        let pid = Pid::from_child(&child);
        let (log, output) = (Log::default(), Log::default());
        let (tell, written) = watch::channel(0);
        let tell = Arc::new(tell);
        let readers = vec![
            reader(
                child.stdout.take().expect("stdout is piped"),
                vec![log.clone(), output.clone()],
                tell.clone(),
            ),
            reader(child.stderr.take().expect("stderr is piped"), vec![log.clone()], tell),
        ];
        let (end, ended) = watch::channel(None);
        let waiter = Some(std::thread::spawn(move || wait(&mut child, &end)));
        Self { name: name.to_owned(), pid, input, log, output, written, ended, waiter, readers }
    }

    /// Writes to its standard input. Nothing happens when it has closed it.
    ///
    /// # Panics
    /// When it was started without one.
    pub fn say(&self, bytes: impl AsRef<[u8]>) {
        let input = self.input.as_ref().expect("a process that listens");
        let mut input = input.lock().expect("nobody panics with it");
        let _ = input.write_all(bytes.as_ref()).and_then(|()| input.flush());
    }

    /// Ends its standard input.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// True until it has ended.
    pub fn is_running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Stops it (SIGSTOP) and waits until every thread of it stands still: the signal alone lets one that is running go on
    /// for a moment.
    ///
    /// # Panics
    /// When it still runs after some seconds.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !stands_still(self.pid()) {
            assert!(std::time::Instant::now() < deadline, "process {} does not stop", self.pid());
            std::thread::yield_now();
        }
    }

    /// Sends a signal; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may end at this moment, which is no fault.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `deadline`.
    pub async fn exited(&self, deadline: Duration) -> ExitStatus {
        let mut ended = self.ended.clone();
        let what = format!("the end of {} ({})", self.name, self.pid());
        let status = within(deadline, &what, ended.wait_for(Option::is_some)).await;
        status.expect("the waiting thread lives until then").expect("waited for it")
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().expect("no reader panics").join("\n")
    }

    /// What it has written to standard output so far.
    pub fn output(&self) -> String {
        self.output.lines.lock().expect("no reader panics").join("\n")
    }

    /// Waits for a line that contains `needle`, among those written already and those to come.
    ///
    /// # Panics
    /// When there is none within `deadline`, or when it ends without one; shows the log.
    pub async fn logged(&self, needle: &str, deadline: Duration) -> String {
        let mut written = self.written.clone();
        let mut ended = self.ended.clone();
        let search = async {
            let mut checked = 0;
            loop {
                written.borrow_and_update();
                if let Some(line) = self.find(needle, &mut checked) {
                    return Some(line);
                }
                tokio::select! {
                    changed = written.changed() => if changed.is_err() {
                        return self.find(needle, &mut checked);
                    },
                    // It has ended: what it wrote last may still be under way through the pipe.
                    _ = ended.wait_for(Option::is_some) => if written.changed().await.is_err() {
                        return self.find(needle, &mut checked);
                    },
                }
            }
        };
        match tokio::time::timeout(deadline, search).await {
            Ok(Some(line)) => line,
            _ => panic!("{} did not write {needle:?}; it wrote:\n{}", self.name, self.log()),
        }
    }

    /// The first line from `checked` on that contains `needle`.
    fn find(&self, needle: &str, checked: &mut usize) -> Option<String> {
        let lines = self.log.lines.lock().expect("no reader panics");
        let found = lines.get(*checked..)?.iter().find(|line| line.contains(needle)).cloned();
        *checked = lines.len();
        found
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process takes SIGKILL too, but its children may wait for it.
        self.signal(Signal::CONT);
        self.kill();
        // The readers end with the pipes. A grandchild that lives on could hold those, so they are not joined.
        self.readers.clear();
    }
}

fn wait(child: &mut Child, end: &watch::Sender<Option<ExitStatus>>) {
    if let Ok(status) = child.wait() {
        end.send_replace(Some(status));
    }
}

fn reader(
    pipe: impl Read + Send + 'static,
    logs: Vec<Log>,
    tell: Arc<watch::Sender<usize>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            match pipe.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    for log in &logs {
                        let mut lines = log.lines.lock().expect("no reader panics");
                        if lines.len() < LINES_KEPT {
                            lines.push(text.clone());
                        }
                    }
                }
            }
            tell.send_modify(|count| *count += 1);
        }
    })
}

/// The resident memory of a process in bytes; 0 when it is gone.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|rest| {
        let number = rest.trim().trim_end_matches("kB").trim();
        number.parse::<u64>().ok()
    });
    kib.unwrap_or(0) * 1024
}

/// True while a process of that id exists and is no zombie.
pub fn exists(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

/// The direct children of a process whose command name is `name`.
pub fn children(pid: u32, name: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let Some((head, rest)) = stat.rsplit_once(") ") else { return false };
        let parent = rest.split(' ').nth(1).and_then(|text| text.parse::<u32>().ok());
        head.split_once('(').is_some_and(|(_, comm)| comm == name) && parent == Some(pid) && exists(*id)
    })
    .collect()
}

/// `kill -9` of a process that the test does not hold as a [`Process`]: the gateway's own child, for one.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Is every thread of the process stopped? The state is the first word behind the name in parentheses.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('T'))
    })
}
