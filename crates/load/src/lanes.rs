//! Doing many things, so many at a time.
//!
//! Owns: the tasks, waiting for each thing's intended time, counting what came of them. Does not own: the times
//! ([`crate::pace`]), what is done.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::alarm::Alarm;
use crate::pace::{Job, Schedule};
use crate::progress::{Counters, Progress};
use crate::report::Report;

/// What came of all of them.
pub(crate) struct Outcome {
    /// Done, failed, and how long each took that was done, from when it was meant to begin.
    pub(crate) counters: Arc<Counters>,
    pub(crate) first_failure: Option<String>,
    /// Whether there was no time for all that was meant to begin.
    pub(crate) fell_behind: bool,
    pub(crate) took: Duration,
}

impl Outcome {
    /// Adds the figures of rounds, say: `rounds`, `rounds_per_second`, `round_p50_us`.
    pub(crate) fn report(&self, many: &str, one: &str, report: &mut Report) {
        let (done, seconds) = (self.counters.done(), self.took.as_secs_f64());
        report.add("seconds", (seconds * 1e3).round() / 1e3).add(many, done);
        report.add(&format!("{many}_per_second"), (done as f64 / seconds).round());
        self.report_failures(report);
        report.add("fell_behind", self.fell_behind);
        self.counters.latencies.report(one, report);
    }

    pub(crate) fn report_failures(&self, report: &mut Report) {
        report.add("failed", self.counters.failed());
        if let Some(why) = &self.first_failure {
            report.add("first_failure", why.as_str());
        }
    }
}

/// Does all of `schedule`, at most `at_once` at a time, and shows how many `what` are done. What fails is counted.
pub(crate) async fn run<F, Done>(
    (what, progress): (&'static str, Progress),
    at_once: usize,
    schedule: Schedule,
    work: F,
) -> Result<Outcome, String>
where
    F: Fn(Job) -> Done + Clone + Send + 'static,
    Done: Future<Output = Result<(), String>> + Send + 'static,
{
    let (counters, started) = (Counters::new()?, Instant::now());
    let shared = Arc::new(Mutex::new((schedule, None)));
    let showing = progress.show(what, &counters);
    let mut lanes = JoinSet::new();
    for _ in 0..at_once.max(1) {
        lanes.spawn(lane(Arc::clone(&shared), Arc::clone(&counters), work.clone()));
    }
    while let Some(done) = lanes.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    drop(showing);
    let mut shared = shared.lock().map_err(|error| error.to_string())?;
    let (fell_behind, first_failure) = (shared.0.is_behind(), shared.1.take());
    Ok(Outcome { counters, first_failure, fell_behind, took: started.elapsed() })
}

/// One thing after the other.
async fn lane<F, Done>(
    shared: Arc<Mutex<(Schedule, Option<String>)>>,
    counters: Arc<Counters>,
    work: F,
) -> Result<(), String>
where
    F: Fn(Job) -> Done,
    Done: Future<Output = Result<(), String>>,
{
    let failed = |error: std::io::Error| format!("a timer: {error}");
    let mut alarm = None;
    loop {
        let now = Instant::now();
        let job = shared.lock().ok().and_then(|mut shared| shared.0.next(now));
        let Some(job) = job else { return Ok(()) };
        if job.from > now {
            let alarm = match &mut alarm {
                Some(alarm) => alarm,
                none => none.insert(Alarm::new().map_err(failed)?),
            };
            alarm.until(job.from).await.map_err(failed)?;
        }
        match work(job).await {
            Ok(()) => {
                counters.add_done(1);
                counters.latencies.record(job.from.elapsed());
            }
            Err(why) => {
                counters.add_failed(1);
                if let Ok(mut shared) = shared.lock() {
                    shared.1.get_or_insert(why);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::pace::{Order, Steady};

    #[tokio::test]
    async fn each_is_done_once_and_not_before_its_time() {
        let (start, sum) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let schedule = Schedule::count(Order::At(Steady::new(start, 1_000.0)), 50);
        let counted = Arc::clone(&sum);
        let work = move |job: Job| {
            let counted = Arc::clone(&counted);
            async move {
                assert!(Instant::now() >= job.from);
                counted.fetch_add(job.n, Ordering::Relaxed);
                if job.n == 7 { Err("seven".to_owned()) } else { Ok(()) }
            }
        };
        let outcome = run(("things", Progress::new(false, true)), 4, schedule, work).await.unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), 49 * 50 / 2);
        assert!(start.elapsed() >= Duration::from_millis(49));
        let mut report = Report::default();
        outcome.report("things", "thing", &mut report);
        let report = report.value();
        assert_eq!((&report["things"], &report["failed"]), (&49.into(), &1.into()), "{report}");
        assert_eq!((&report["first_failure"], &report["fell_behind"]), (&"seven".into(), &false.into()));
        assert!(report["thing_p50_us"].is_u64(), "{report}");
    }
}
