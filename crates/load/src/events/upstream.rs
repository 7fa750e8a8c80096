//! The events of messages that were sent with a stamp.
//!
//! Owns: finding each message once, and its way's time. Does not own: the stamp ([`crate::says`]).

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use landfall_event::Stream;
use landfall_event::wire::Body;
use tokio::task::JoinSet;

use super::{Arrival, follow};
use crate::histogram::Latencies;
use crate::report::Report;
use crate::says::Stamp;

/// How long nothing may come while something is missing.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// A message's times in µs of Unix time: meant to be sent, stored, read.
type Times = (u64, u64, u64);

/// What was found of one run.
#[derive(Default)]
struct Found {
    /// Of each device, a bit for each number.
    seen: Vec<Vec<u64>>,
    count: u64,
    twice: u64,
    times: Vec<Times>,
}

impl Found {
    fn take(&mut self, run: u32, arrival: &Arrival) {
        let Body::Upstream(upstream) = &arrival.event.body else { return };
        let Some(stamp) = Stamp::read(&upstream.payload.bytes).filter(|stamp| stamp.run == run) else {
            return;
        };
        let device = usize::try_from(stamp.device).unwrap_or(usize::MAX);
        let Some(seen) = self.seen.get_mut(device) else { return };
        let (word, bit) = (usize::try_from(stamp.seq / 64).unwrap_or(0), 1_u64 << (stamp.seq % 64));
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        let Some(word) = seen.get_mut(word) else { return };
        if *word & bit != 0 {
            self.twice += 1;
            return;
        }
        *word |= bit;
        self.count += 1;
        self.times.push((stamp.at_us, arrival.stored_us, arrival.read_us));
    }
}

/// Listens to one run.
pub(crate) struct Heard {
    found: Arc<Mutex<Found>>,
    reading: JoinSet<String>,
}

impl Heard {
    pub(crate) async fn start(nats: &str, run: u32, devices: u32) -> Result<Self, String> {
        let seen = vec![Vec::new(); usize::try_from(devices).unwrap_or_default()];
        let found = Arc::new(Mutex::new(Found { seen, ..Found::default() }));
        let place = Arc::clone(&found);
        let each = move |arrival: Arrival| {
            if let Ok(mut found) = place.lock() {
                found.take(run, &arrival);
            }
        };
        Ok(Self { reading: follow(nats, Stream::Messages, each).await?, found })
    }

    /// Waits for the events of `sent` messages and adds the figures: of those meant for `window`, in µs of Unix time.
    pub(crate) async fn finish(
        mut self,
        sent: u64,
        window: Range<u64>,
        report: &mut Report,
    ) -> Result<(), String> {
        let count = || self.found.lock().map(|found| found.count).unwrap_or_default();
        let (mut before, mut since) = (count(), tokio::time::Instant::now());
        while count() < sent && since.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
            if count() > before {
                (before, since) = (count(), tokio::time::Instant::now());
            }
            if let Some(ended) = self.reading.try_join_next() {
                return Err(ended.unwrap_or_else(|error| error.to_string()));
            }
        }
        let found = self.found.lock().map_err(|error| error.to_string())?;
        report.add("events", found.count).add("events_missing", sent.saturating_sub(found.count));
        report.add("events_twice", found.twice);
        let (stored, read) = (Latencies::new()?, Latencies::new()?);
        let counted = || found.times.iter().filter(|(at, ..)| window.contains(at));
        stored.record_all(counted().map(|(at, stored, _)| Duration::from_micros(stored.saturating_sub(*at))));
        read.record_all(counted().map(|(at, _, read)| Duration::from_micros(read.saturating_sub(*at))));
        stored.report("stored", report);
        read.report("event", report);
        Ok(())
    }
}
