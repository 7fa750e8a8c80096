//! `storm`: all devices are gone at once, or all come back at once.
//!
//! Owns: dropping them, and coming again. Does not own: opening them ([`crate::connect`]), the events of it
//! ([`crate::events`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::clock::{Clock, unix_us};
use crate::events::presence::{self, Presence};
use crate::fleet::{Crowd, Device, Fleet, Opening, open_all};
use crate::lanes;
use crate::pace::{Job, Order, Schedule};
use crate::progress::Progress;
use crate::report::Report;
use crate::says::Says;

/// Connections that are closed before the readers of events have their turn.
const TURN: usize = 64;

/// What happens to all of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Every connection is closed, without a word of its protocol.
    Drop,
    /// Every connection is reset.
    Reset,
    /// Every connection is closed, and all come back at that moment.
    Reconnect,
}

/// Settings of the scenario.
#[derive(Args, Debug)]
pub(crate) struct Storm {
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    opening: Opening,
    /// What happens to all of them at once.
    #[arg(long, value_enum, default_value = "drop")]
    what: What,
    /// Seconds to hold the connections before.
    #[arg(long, default_value_t = 2)]
    hold: u64,
    /// The gateway's NATS: the events of the ends, and of coming back, are read there.
    #[arg(long)]
    nats: Option<String>,
    /// Seconds in which all must be told, and be back.
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

impl Storm {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        if !self.crowd.server.carrier.is_stream() {
            return Err("a storm is one of connections: MQTT over TCP, TLS or WebSocket".into());
        }
        let (says, count) = (Says::nothing(), self.opening.connections);
        // Twice as many while those before are remembered.
        let fleet = Fleet::new(&self.crowd, count, count.saturating_mul(2), &says)?;
        let opened = open_all(&fleet, &self.opening, &says, progress).await?.complete()?;
        tokio::time::sleep(Duration::from_secs(self.hold)).await;
        let watching = match &self.nats {
            Some(nats) => Some(Presence::start(nats, (0..count).map(|n| fleet.name(n))).await?),
            None => None,
        };
        let mut report = Report::default();
        report.add("connections", count);
        let (clock, started) = (Clock::now(), Instant::now());
        let closed = self.end(opened.devices).await;
        report.add("closed_within_us", u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        let mut back = None;
        if self.what == What::Reconnect {
            back = Some(self.come_back(&fleet, started, progress, &mut report).await?);
        }
        if let Some(watching) = watching {
            let begun = back.as_ref().map_or(0, |back| back.devices);
            let patience = Duration::from_secs(self.patience);
            let found = watching.wait((begun, closed.len()), patience).await?;
            let closed: Vec<Option<u64>> = closed.into_iter().map(Some).collect();
            report.add("end_events", found.end_events);
            presence::report("ended", &found.ended, &closed, &mut report)?;
            if begun > 0 {
                let since = vec![Some(clock.unix_us(started)); closed.len()];
                presence::report("begun", &found.begun, &since, &mut report)?;
            }
        }
        Ok(report)
    }

    /// Ends all connections. Returns when each was, in µs of Unix time.
    async fn end(&self, devices: Vec<(u32, Device)>) -> Vec<u64> {
        let mut closed = Vec::with_capacity(devices.len());
        for (place, (_, device)) in devices.into_iter().enumerate() {
            closed.push(unix_us());
            match device {
                Device::Mqtt(mqtt) if self.what == What::Reset => mqtt.link.reset(),
                gone => drop(gone),
            }
            if place % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        closed
    }

    /// All come back at once; who does not get in tries again, as devices do, a second later or so.
    async fn come_back(
        &self,
        fleet: &Arc<Fleet>,
        started: Instant,
        progress: Progress,
        report: &mut Report,
    ) -> Result<Back, String> {
        let (counters, held) = (Arc::new(std::sync::atomic::AtomicU64::new(0)), Arc::default());
        let until = started + Duration::from_secs(self.patience);
        let work = {
            let (fleet, again, held) = (Arc::clone(fleet), Arc::clone(&counters), Arc::clone(&held));
            move |job: Job| {
                let (fleet, again, held) = (Arc::clone(&fleet), Arc::clone(&again), Arc::clone(&held));
                async move {
                    let n = u32::try_from(job.n).unwrap_or(u32::MAX);
                    let mqtt = insist(&fleet, n, until, &again).await?;
                    let held: &std::sync::Mutex<Vec<crate::mqtt::Mqtt>> = &held;
                    held.lock().map_err(|error| error.to_string())?.push(mqtt);
                    Ok(())
                }
            }
        };
        let count = self.opening.connections;
        let at_once = usize::try_from(count).unwrap_or(usize::MAX);
        let schedule = Schedule::count(Order::Burst(started), count.into());
        let outcome = lanes::run(("reconnects", progress), at_once, schedule, work).await?;
        report.add("back", outcome.counters.done());
        report.add("back_within_us", u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        report.add("tried_again", counters.load(std::sync::atomic::Ordering::Relaxed));
        outcome.report_failures(report);
        outcome.counters.latencies.report("back", report);
        let devices = usize::try_from(outcome.counters.done()).unwrap_or(usize::MAX);
        Ok(Back { devices, _held: held })
    }
}

/// Those that came back, who stay while the events are waited for.
struct Back {
    devices: usize,
    _held: Arc<std::sync::Mutex<Vec<crate::mqtt::Mqtt>>>,
}

/// Tries until it is in, or time is up.
async fn insist(
    fleet: &Fleet,
    n: u32,
    until: Instant,
    again: &std::sync::atomic::AtomicU64,
) -> Result<crate::mqtt::Mqtt, String> {
    loop {
        let connecting = tokio::time::timeout_at(until.into(), fleet.connect(n));
        let why = match connecting.await {
            Ok(Ok((mqtt, _))) => return Ok(mqtt),
            Ok(Err(why)) => why,
            Err(_) => "not back in time".to_owned(),
        };
        // Not all at the same moment again: 0.5 to 1.5 s.
        let pause = Duration::from_millis(500 + u64::from(n.wrapping_mul(2_654_435_761) >> 22));
        if Instant::now() + pause >= until {
            return Err(format!("{}: {why}", fleet.name(n)));
        }
        again.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(pause).await;
    }
}
