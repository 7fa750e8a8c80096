//! The ends of sessions as a subscriber of NATS sees them.
//!
//! Owns: collecting the messages with the moment of their arrival, and the judgement: everybody ended, once, and how late.
//! Does not own: what a message says (`landfall-event`).

use async_nats::{Client, Message};
use futures_util::{FutureExt as _, StreamExt as _};
use landfall_event::wire::{self, Body, Ended};
use landfall_event::{Reason, subject};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::flock::{self, Burst};
use super::unix_ms;
use crate::nats;
use crate::report::Report;

/// A message and when it arrived, in Unix ms.
pub(crate) type Arrived = (u64, Message);

/// A subscription to all events.
#[derive(Debug)]
pub(crate) struct Ends {
    client: Client,
    stop: oneshot::Sender<()>,
    collecting: JoinSet<Vec<Arrived>>,
}

impl Ends {
    /// Collects from now on. Nothing is read yet, so that reading takes no processor from what is measured.
    pub(crate) async fn subscribe(url: &str) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("NATS at {}: {error}", nats::shown(url));
        let client = nats::connect(url).await?;
        let mut events = client.subscribe(subject::WATCH_ALL).await.map_err(|error| failed(&error))?;
        settle(&client).await?;
        let (stop, mut stopped) = oneshot::channel();
        let mut collecting = JoinSet::new();
        collecting.spawn(async move {
            let mut arrived = Vec::new();
            loop {
                tokio::select! {
                    Some(message) = events.next() => arrived.push((unix_ms(), message)),
                    _ = &mut stopped => break,
                }
            }
            while let Some(Some(message)) = events.next().now_or_never() {
                arrived.push((unix_ms(), message));
            }
            arrived
        });
        Ok(Self { client, stop, collecting })
    }

    /// All that the server had before this call.
    pub(crate) async fn close(mut self) -> Result<Vec<Arrived>, String> {
        settle(&self.client).await?;
        drop(self.stop);
        let arrived = self.collecting.join_next().await;
        arrived.ok_or("nothing was collected")?.map_err(|error| error.to_string())
    }
}

/// Waits until the server has dealt with everything so far, by sending something to ourselves.
async fn settle(client: &Client) -> Result<(), String> {
    let broke = |error: &dyn std::fmt::Display| format!("the connection to NATS broke: {error}");
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.map_err(|error| broke(&error))?;
    client.publish(inbox, bytes::Bytes::new()).await.map_err(|error| broke(&error))?;
    echo.next().await.map(drop).ok_or_else(|| broke(&"no echo"))
}

/// How late everybody's end was, in ms after the device's own deadline: when it was last heard and its silence.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    messages: usize,
    /// Of their bodies.
    bytes: usize,
    again: u64,
    /// Unix ms.
    deadlines: Vec<u64>,
    detected: Vec<i64>,
    published: Vec<i64>,
}

fn after(moment: u64, deadline: u64) -> i64 {
    i64::try_from(moment).unwrap_or(i64::MAX) - i64::try_from(deadline).unwrap_or(i64::MAX)
}

impl Tally {
    /// Counts the ends of devices 0..`devices`.
    ///
    /// # Errors
    /// When one is missing or told twice, or is not what these devices' silence leads to.
    pub(crate) fn of(arrived: &[Arrived], bursts: &[Burst], devices: u32) -> Result<Self, String> {
        let mut tally = Self { again: bursts.iter().map(|burst| burst.again).sum(), ..Self::default() };
        let mut seen = vec![false; devices as usize];
        for (at, message) in arrived {
            let header =
                |name: &str| message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str);
            let event = wire::read(header, &message.payload).map_err(|error| format!("an event {error}"))?;
            let Body::Disconnected(ended) = event.body else { continue };
            let before = tally.detected.len();
            for one in &ended {
                tally.add(*at, one, bursts, &mut seen)?;
            }
            if tally.detected.len() > before {
                tally.messages += 1;
                tally.bytes += message.payload.len();
            }
        }
        let ended = tally.detected.len();
        if ended != seen.len() {
            return Err(format!("{ended} ends were told of {devices}"));
        }
        tally.deadlines.sort_unstable();
        tally.detected.sort_unstable();
        tally.published.sort_unstable();
        Ok(tally)
    }

    fn add(&mut self, at: u64, ended: &Ended, bursts: &[Burst], seen: &mut [bool]) -> Result<(), String> {
        let (name, details) = (ended.session.endpoint_id.as_str(), &ended.details);
        let Some(device) = flock::device(name) else { return Ok(()) };
        let place = seen.get_mut(device as usize).ok_or_else(|| format!("{name} ended and never was"))?;
        if std::mem::replace(place, true) {
            return Err(format!("{name} ended twice"));
        }
        if (details.reason, details.inferred) != (Reason::IdleTimeout, true) {
            return Err(format!("{name} ended for another reason: {}", details.reason.as_str()));
        }
        let burst = bursts.get(bursts.partition_point(|burst| burst.devices.end <= device));
        let burst = burst.ok_or_else(|| format!("{name} has said no last word"))?;
        // Two roundings to milliseconds, of two clocks that run alike.
        let heard = details.last_seen_at.filter(|at| {
            (burst.heard.start().saturating_sub(2)..=burst.heard.end().saturating_add(2)).contains(at)
        });
        let heard = heard.ok_or_else(|| {
            format!("{name} spoke in {:?} and was heard at {:?}", burst.heard, details.last_seen_at)
        })?;
        let deadline = heard + burst.silence_ms();
        let late = after(details.timestamp, deadline);
        if late < -2 {
            return Err(format!("{name} ended {} ms before its deadline", -late));
        }
        self.deadlines.push(deadline);
        self.detected.push(late);
        self.published.push(after(at, deadline));
        Ok(())
    }

    /// Adds the figures; `stored_at` is when nothing waited for the store any more, in Unix ms.
    pub(crate) fn report(&self, stored_at: u64, report: &mut Report) {
        let at = |sorted: &[i64], share: f64| {
            let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
            sorted.get(place).copied().unwrap_or_default()
        };
        let first = self.deadlines.first().copied().unwrap_or_default();
        let last = self.deadlines.last().copied().unwrap_or_default();
        report.add("ended", self.detected.len()).add("end_events", self.messages);
        report.add("end_event_bytes", self.bytes);
        report.add("last_words_sent_again", self.again);
        report.add("deadlines_within_ms", last - first);
        for (name, sorted) in [("detected", &self.detected), ("published", &self.published)] {
            report.add(&format!("{name}_p50_ms"), at(sorted, 0.5));
            report.add(&format!("{name}_max_ms"), at(sorted, 1.0));
        }
        report.add("stored_after_last_deadline_ms", after(stored_at, last));
    }
}

#[cfg(test)]
#[path = "ends_tests.rs"]
mod tests;
