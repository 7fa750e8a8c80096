//! What is seen while it runs: one line on stderr every second.
//!
//! Owns: the counters of a run, the line. Does not own: the summary ([`crate::report`]).

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::histogram::Latencies;

/// What has happened so far, and how long it took.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) latencies: Latencies,
}

impl Counters {
    pub(crate) fn new() -> Result<Arc<Self>, String> {
        let counters =
            Self { done: AtomicU64::new(0), failed: AtomicU64::new(0), latencies: Latencies::new()? };
        Ok(Arc::new(counters))
    }

    pub(crate) fn add_done(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn add_failed(&self, more: u64) {
        self.failed.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Whether and how progress is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    is_terminal: bool,
}

/// Shows progress until it is dropped.
#[derive(Debug)]
pub(crate) struct Showing {
    is_terminal: bool,
    _task: Option<JoinSet<()>>,
}

impl Drop for Showing {
    fn drop(&mut self) {
        if self._task.is_some() && self.is_terminal {
            write("\r\x1b[K");
        }
    }
}

impl Progress {
    /// Shown on a terminal, or where it is asked for; never when it is to be quiet.
    pub(crate) fn new(is_asked_for: bool, is_quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_shown: !is_quiet && (is_asked_for || is_terminal), is_terminal }
    }

    /// A line every second from now on: how many `what` are done.
    pub(crate) fn show(self, what: &'static str, counters: &Arc<Counters>) -> Showing {
        let task = self.is_shown.then(|| {
            let (counters, mut task) = (Arc::clone(counters), JoinSet::new());
            task.spawn(async move {
                let started = Instant::now();
                let mut every = tokio::time::interval(Duration::from_secs(1));
                let (mut before, mut at) = (counters.done(), every.tick().await);
                loop {
                    let now = every.tick().await;
                    let done = counters.done();
                    let per_second = (done - before) as f64 / (now - at).as_secs_f64();
                    (before, at) = (done, now);
                    let text = line(started.elapsed(), what, per_second, done, &counters);
                    write(&if self.is_terminal { format!("\r{text}\x1b[K") } else { format!("{text}\n") });
                }
            });
            task
        });
        Showing { is_terminal: self.is_terminal, _task: task }
    }
}

fn line(elapsed: Duration, what: &str, per_second: f64, done: u64, counters: &Counters) -> String {
    let mut text = format!("{:>4} s  {per_second:>8.0} {what}/s  {done} in all", elapsed.as_secs());
    if counters.latencies.len() > 0 {
        text += &format!("  p99 {:.1} ms", counters.latencies.p99_ms());
    }
    if counters.failed() > 0 {
        text += &format!("  {} failed", counters.failed());
    }
    text
}

fn write(text: &str) {
    // Nobody looks any more: not a reason to stop.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_there_is() {
        let counters = Counters::new().unwrap();
        assert_eq!(
            line(Duration::from_secs(3), "acks", 12.4, 40, &counters),
            "   3 s        12 acks/s  40 in all"
        );
        counters.latencies.record(Duration::from_millis(2));
        counters.add_failed(1);
        let text = line(Duration::from_secs(3), "acks", 12.4, 40, &counters);
        assert!(text.ends_with("p99 2.0 ms  1 failed"), "{text}");
    }
}
