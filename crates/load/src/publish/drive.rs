//! The messages of one device, many at a time: what is due goes out together, what is acknowledged comes in together.
//!
//! Owns: when which message is sent, what it is measured from, what is counted. Does not own: bytes ([`Pipe`]).

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::alarm::Alarm;
use crate::histogram::Latencies;
use crate::pace::{GRACE, Steady};
use crate::progress::Counters;

/// A message: its number with its device, and when it was meant to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) seq: u64,
    pub(crate) from: Instant,
}

/// What came of messages, by their places in the window.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) acked: Vec<u16>,
    /// Answered with a no.
    pub(crate) refused: Vec<u16>,
    /// Given up.
    pub(crate) lost: Vec<u16>,
}

/// Bytes of one device's messages.
pub(crate) trait Pipe: Send {
    /// Whether messages are acknowledged at all.
    fn is_acked(&self) -> bool;
    /// Whether there may be another message now.
    fn has_room(&self) -> bool {
        true
    }
    /// Prepares a message with this place, 1 and on.
    fn put(&mut self, place: u16, message: Message);
    /// Sends what was put.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// Waits for answers. May be dropped half-way and called again.
    fn take(&mut self, taken: &mut Taken) -> impl Future<Output = io::Result<()>> + Send;
    /// Waits until the server has read everything, where that can be known, and says goodbye. Tells how often something was
    /// sent again.
    fn finish(self) -> impl Future<Output = io::Result<u64>> + Send;
}

/// What all devices together sent and heard.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) counters: Arc<Counters>,
    /// From when it was meant to be sent until it was written.
    pub(crate) lateness: Latencies,
    pub(crate) sent: AtomicU64,
    /// Acknowledged within the time that counts; without acknowledgements, written.
    pub(crate) counted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) again: AtomicU64,
    /// Meant for the time that counts and not acknowledged at the end, or never sent.
    pub(crate) unanswered: AtomicU64,
}

impl Tally {
    pub(crate) fn new() -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            counters: Counters::new()?,
            lateness: Latencies::new()?,
            sent: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            again: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        }))
    }
}

/// One device's part of the load.
#[derive(Debug)]
pub(crate) struct Drive {
    /// Its rate; without one, as many as its window lets.
    pub(crate) pace: Option<Steady>,
    /// Unacknowledged messages, 1 and on.
    pub(crate) window: u16,
    /// What counts lies between these.
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    pub(crate) tally: Arc<Tally>,
}

/// The places of a window.
struct Seats {
    free: Vec<u16>,
    /// From when the message there is measured.
    from: Vec<Instant>,
    window: usize,
}

impl Seats {
    fn new(window: u16) -> Self {
        let window = usize::from(window.max(1));
        let mut seats = Self { free: Vec::new(), from: vec![Instant::now(); window + 1], window };
        seats.free_all();
        seats
    }

    fn free_all(&mut self) {
        self.free.clear();
        self.free.extend((1..=u16::try_from(self.window).unwrap_or(u16::MAX)).rev());
    }

    fn under_way(&self) -> bool {
        self.free.len() < self.window
    }

    fn from(&self, place: u16) -> Option<Instant> {
        self.from.get(usize::from(place)).copied()
    }
}

impl Drive {
    /// Sends and hears until the end.
    pub(crate) async fn run<P: Pipe>(self, mut pipe: P) -> io::Result<()> {
        let (mut seats, mut taken, mut next) = (Seats::new(self.window), Taken::default(), 0_u64);
        let alarm = self.pace.map(|_| Alarm::new()).transpose()?;
        let end = self.until + GRACE;
        let over = tokio::time::sleep_until(end.into());
        tokio::pin!(over);
        loop {
            let due = self.put_due(&mut pipe, &mut seats, &mut next, Instant::now());
            pipe.flush().await?;
            if !pipe.is_acked() {
                seats.free_all();
            }
            match (due, &alarm) {
                (None, _) if !seats.under_way() => break,
                (Some(due), None)
                    if due <= Instant::now() && !seats.free.is_empty() && !seats.under_way() =>
                {
                    // Nobody acknowledges, so there is nothing to wait for but the socket.
                    tokio::task::yield_now().await;
                    continue;
                }
                (Some(due), Some(alarm)) if !seats.free.is_empty() && pipe.has_room() => tokio::select! {
                    done = pipe.take(&mut taken), if seats.under_way() => done?,
                    done = alarm.until(due) => done?,
                    () = &mut over => break,
                },
                _ => tokio::select! {
                    done = pipe.take(&mut taken) => done?,
                    () = &mut over => break,
                },
            }
            self.settle(&mut taken, &mut seats, Instant::now());
        }
        self.give_up(&seats, next, Instant::now());
        let finishing = tokio::time::timeout(GRACE, pipe.finish());
        let again = finishing
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the server reads no more"))??;
        self.tally.again.fetch_add(again, Ordering::Relaxed);
        Ok(())
    }

    /// Puts what is due. Returns when the next message is meant to be sent, if there is one.
    fn put_due(
        &self,
        pipe: &mut impl Pipe,
        seats: &mut Seats,
        next: &mut u64,
        now: Instant,
    ) -> Option<Instant> {
        let first = *next;
        // Without a rate, several places are filled together: a write for each would be most of what is measured.
        if self.pace.is_none() && seats.under_way() && seats.free.len() < seats.window / 4 {
            return (now < self.until).then_some(now);
        }
        let due = loop {
            let from = self.pace.map_or(now, |pace| pace.at(*next));
            if from >= self.until {
                break None;
            }
            if from > now || !pipe.has_room() {
                break Some(from);
            }
            let Some(place) = seats.free.pop() else { break Some(from) };
            if let Some(seat) = seats.from.get_mut(usize::from(place)) {
                *seat = from;
            }
            pipe.put(place, Message { seq: *next, from });
            if self.pace.is_some() {
                self.tally.lateness.record(now - from);
            }
            *next += 1;
        };
        let sent = *next - first;
        self.tally.sent.fetch_add(sent, Ordering::Relaxed);
        if !pipe.is_acked() {
            self.tally.counters.add_done(sent);
            if self.counts(now) {
                self.tally.counted.fetch_add(sent, Ordering::Relaxed);
            }
        }
        due
    }

    fn counts(&self, at: Instant) -> bool {
        at >= self.from && at < self.until
    }

    /// Frees the places of what was answered and records it. At a rate that counts which was meant for the time that
    /// counts, else that which was answered in it.
    fn settle(&self, taken: &mut Taken, seats: &mut Seats, now: Instant) {
        let tally = &self.tally;
        let waits = |places: &[u16]| -> Vec<Duration> {
            let counted = places.iter().filter_map(|place| seats.from(*place));
            let counted = counted.filter(|from| self.counts(if self.pace.is_some() { *from } else { now }));
            counted.map(|from| now - from).collect()
        };
        let waited = waits(&taken.acked);
        tally.counted.fetch_add(u64::try_from(waited.len()).unwrap_or(0), Ordering::Relaxed);
        tally.counters.latencies.record_all(waited);
        let length = |places: &[u16]| u64::try_from(places.len()).unwrap_or(0);
        tally.counters.add_done(length(&taken.acked));
        tally.counters.add_failed(length(&taken.refused) + length(&taken.lost));
        tally.refused.fetch_add(length(&taken.refused), Ordering::Relaxed);
        tally.lost.fetch_add(length(&taken.lost), Ordering::Relaxed);
        for places in [&mut taken.acked, &mut taken.refused, &mut taken.lost] {
            seats.free.append(places);
        }
    }

    /// What was meant for the time that counts and is not answered has waited until now at least.
    fn give_up(&self, seats: &Seats, next: u64, now: Instant) {
        let Some(pace) = self.pace else { return };
        let places = 1..=u16::try_from(seats.window).unwrap_or(u16::MAX);
        let waiting = places.filter(|place| seats.under_way() && !seats.free.contains(place));
        let waiting = waiting.filter_map(|place| seats.from(place));
        let unsent = (next..).map(|n| pace.at(n)).take_while(|at| *at < self.until);
        let waits: Vec<Duration> =
            waiting.chain(unsent).filter(|from| self.counts(*from)).map(|from| now - from).collect();
        self.tally.unanswered.fetch_add(u64::try_from(waits.len()).unwrap_or(0), Ordering::Relaxed);
        self.tally.counters.latencies.record_all(waits);
    }
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
