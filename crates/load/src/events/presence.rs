//! The events of devices that come and go.
//!
//! Owns: which device's beginnings and ends were told, and when. Does not own: who dropped them ([`crate::storm`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use landfall_event::Stream;
use landfall_event::wire::Body;
use tokio::task::JoinSet;

use super::{Arrival, follow};
use crate::histogram::Latencies;
use crate::report::Report;

const LOOK: Duration = Duration::from_millis(20);

/// What was told of a device: its number, when it was stored, when it was read, in µs of Unix time.
pub(crate) type Told = (u32, u64, u64);

/// What was told of all of them.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) begun: Vec<Told>,
    pub(crate) ended: Vec<Told>,
    /// Events that told the ends: one may tell several.
    pub(crate) end_events: u64,
}

/// Listens to some devices.
pub(crate) struct Presence {
    found: Arc<Mutex<Found>>,
    reading: JoinSet<String>,
}

impl Presence {
    /// Listens to the devices of these names from now on; a name's place is its device's number.
    pub(crate) async fn start(nats: &str, names: impl Iterator<Item = String>) -> Result<Self, String> {
        let numbers: HashMap<String, u32> = names.zip(0..).collect();
        let found = Arc::new(Mutex::new(Found::default()));
        let place = Arc::clone(&found);
        let each = move |arrival: Arrival| {
            let told = |name: &str| numbers.get(name).map(|n| (*n, arrival.stored_us, arrival.read_us));
            let Ok(mut found) = place.lock() else { return };
            match &arrival.event.body {
                Body::Connected(connected) => {
                    found.begun.extend(told(connected.session.endpoint_id.as_str()));
                }
                Body::Disconnected(ended) => {
                    let before = found.ended.len();
                    found.ended.extend(ended.iter().filter_map(|one| told(one.session.endpoint_id.as_str())));
                    found.end_events += u64::from(found.ended.len() > before);
                }
                _ => {}
            }
        };
        Ok(Self { reading: follow(nats, Stream::Connectivity, each).await?, found })
    }

    /// Waits until so many beginnings and ends were told, but no longer than `patience`.
    pub(crate) async fn wait(
        mut self,
        (begun, ended): (usize, usize),
        patience: Duration,
    ) -> Result<Found, String> {
        let started = tokio::time::Instant::now();
        loop {
            let is_there = {
                let found = self.found.lock().map_err(|error| error.to_string())?;
                found.begun.len() >= begun && found.ended.len() >= ended
            };
            if is_there || started.elapsed() > patience {
                break;
            }
            if let Some(ended) = self.reading.try_join_next() {
                return Err(ended.unwrap_or_else(|error| error.to_string()));
            }
            tokio::time::sleep(LOOK).await;
        }
        let mut found = self.found.lock().map_err(|error| error.to_string())?;
        Ok(std::mem::take(&mut *found))
    }
}

/// Adds how long after its own moment each was stored and read, and how many were not told or told again.
pub(crate) fn report(
    name: &str,
    told: &[Told],
    since: &[Option<u64>],
    report: &mut Report,
) -> Result<(), String> {
    let (stored, read) = (Latencies::new()?, Latencies::new()?);
    let mut seen = vec![0_u32; since.len()];
    for (n, stored_us, read_us) in told {
        let place = usize::try_from(*n).unwrap_or(usize::MAX);
        let (Some(Some(since)), Some(seen)) = (since.get(place), seen.get_mut(place)) else { continue };
        *seen += 1;
        stored.record(Duration::from_micros(stored_us.saturating_sub(*since)));
        read.record(Duration::from_micros(read_us.saturating_sub(*since)));
    }
    let due = since.iter().zip(&seen).filter(|(since, _)| since.is_some());
    let missing = due.clone().filter(|(_, seen)| **seen == 0).count();
    let twice = due.filter(|(_, seen)| **seen > 1).count();
    report.add(name, told.len()).add(&format!("{name}_missing"), missing);
    report.add(&format!("{name}_twice"), twice);
    stored.report(&format!("{name}_stored"), report);
    read.report(&format!("{name}_read"), report);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_held_against_its_own_moment() {
        let told = [(0, 1_500, 1_700), (2, 4_000, 4_100), (2, 9_000, 9_000), (7, 1, 1)];
        let mut found = Report::default();
        report("ended", &told, &[Some(1_000), Some(1_000), Some(3_000), None], &mut found).unwrap();
        let found = found.value();
        assert_eq!(
            (&found["ended"], &found["ended_missing"], &found["ended_twice"]),
            (&4.into(), &1.into(), &1.into())
        );
        assert_eq!(
            (&found["ended_stored_p50_us"], &found["ended_read_p50_us"]),
            (&1_000.into(), &1_100.into())
        );
    }
}
