//! How long things took.
//!
//! Owns: the histogram and the names of its figures. Does not own: from when it was measured: at a fixed rate that is the
//! intended time ([`crate::pace`]).

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::Report;

/// An hour, in microseconds.
const LONGEST: u64 = 3_600_000_000;

/// Times in microseconds, to three digits, of all tasks together.
#[derive(Debug)]
pub(crate) struct Latencies(Mutex<Histogram<u64>>);

impl Latencies {
    pub(crate) fn new() -> Result<Self, String> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| error.to_string())?;
        Ok(Self(Mutex::new(histogram)))
    }

    pub(crate) fn record(&self, took: Duration) {
        self.record_all(std::iter::once(took));
    }

    /// Under one lock: an acknowledgement rarely comes alone.
    pub(crate) fn record_all(&self, took: impl IntoIterator<Item = Duration>) {
        let Ok(mut histogram) = self.0.lock() else { return };
        for one in took {
            let micros = u64::try_from(one.as_micros()).unwrap_or(u64::MAX);
            histogram.saturating_record(micros.max(1));
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.lock().map(|histogram| histogram.len()).unwrap_or_default()
    }

    /// In ms, for the progress line.
    pub(crate) fn p99_ms(&self) -> f64 {
        self.0.lock().map(|histogram| histogram.value_at_quantile(0.99) as f64 / 1e3).unwrap_or_default()
    }

    /// `{name}_p50_us` and on; nothing if nothing was recorded.
    pub(crate) fn report(&self, name: &str, report: &mut Report) {
        let Ok(histogram) = self.0.lock() else { return };
        if histogram.is_empty() {
            return;
        }
        for (part, at) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            report.add(&format!("{name}_{part}_us"), histogram.value_at_quantile(at));
        }
        report.add(&format!("{name}_max_us"), histogram.max());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::pace::Steady;

    fn at(latencies: &Latencies, name: &str) -> u64 {
        let mut report = Report::default();
        latencies.report("x", &mut report);
        report.value()[name].as_u64().unwrap()
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let latencies = Latencies::new().unwrap();
        latencies.record_all((1..=1_000).map(Duration::from_millis));
        assert_eq!(latencies.len(), 1_000);
        for (name, ms) in [("x_p50_us", 500), ("x_p99_us", 990), ("x_p999_us", 999), ("x_max_us", 1_000)] {
            assert!(at(&latencies, name).abs_diff(ms * 1_000) <= ms, "{name}");
        }
        let mut report = Report::default();
        Latencies::new().unwrap().report("none", &mut report);
        assert_eq!(report.value(), serde_json::json!({}));
    }

    /// A server that answers in 1 ms but for one second of ten in which it stands still. Who waits for each answer before
    /// the next request sees one slow request; users of a steady rate see a tenth of all of them.
    #[test]
    fn a_standstill_is_seen_by_everything_that_was_meant_for_it() {
        let start = Instant::now();
        let pace = Steady::new(start, 100.0);
        let ms = Duration::from_millis;
        let (stop, go_on) = (start + ms(5_000), start + ms(6_000));
        let (corrected, naive) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        let mut free = start;
        for n in 0..1_000 {
            let sent = pace.at(n).max(free);
            let answered = if (stop..go_on).contains(&sent) { go_on + ms(1) } else { sent + ms(1) };
            free = answered;
            corrected.record(answered - pace.at(n));
            naive.record(answered - sent);
        }
        assert!(at(&naive, "x_p99_us") < 2_000, "one in a thousand is not in its p99");
        assert!(at(&corrected, "x_p99_us") > 850_000, "{}", at(&corrected, "x_p99_us"));
    }
}
