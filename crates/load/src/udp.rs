//! `udp`: many devices that never connect. What each costs, how fast they are heard, how late their silence is told.
//!
//! Owns: the course of the measurement. Does not own: sending ([`flock`]), the events of the ends ([`ends`]).

mod ends;
mod flock;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::clock::unix_us;
use crate::metrics::Metrics;
use crate::process::{cpu, resident};
use crate::progress::Progress;
use crate::report::Report;
use ends::{Ends, Tally};
use flock::{Burst, Flock};

/// Long enough that nobody falls silent before it is wanted.
const STEADY_S: u32 = 24 * 3600;
/// How often the gateway's queue is looked at while devices arrive.
const LOOK: Duration = Duration::from_millis(25);
/// Events that may wait for the store while devices arrive: what waits is memory that is not the devices'.
const QUEUED: u64 = 5_000;
/// How long the gateway may take to store what it has, and to end everybody after the deadline.
const PATIENCE: Duration = Duration::from_secs(120);

/// Settings of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Udp {
    /// The gateway's UDP listener.
    #[arg(long, default_value = "127.0.0.1:7683")]
    server: SocketAddr,
    /// The gateway's admin interface: its metrics are read.
    #[arg(long, default_value = "127.0.0.1:8080")]
    admin: SocketAddr,
    /// The gateway's NATS: the ends of the sessions are read there.
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// Process id of the gateway: its resident memory and its CPU time are measured.
    #[arg(long)]
    pid: Option<u32>,
    /// Devices.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..10_000_000))]
    devices: u32,
    /// Sockets that they speak from. A device always speaks from the same one.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    sockets: u16,
    /// Datagrams under way, of all sockets.
    #[arg(long, default_value_t = 2048)]
    window: usize,
    /// Seconds to hold the devices before measuring their memory.
    #[arg(long, default_value_t = 5)]
    hold: u64,
    /// Seconds of heartbeats that are counted, after one that is not.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// In how many bursts, 1.5 s apart, the last heartbeats are sent. The smaller a burst, the closer the deadlines.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bursts: u32,
}

/// Unix time in ms: the gateway is on the same machine and has the same clock.
fn unix_ms() -> u64 {
    unix_us() / 1_000
}

impl Udp {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        let others = self.metrics().await?.sum("landfall_sessions");
        let flock = Flock::open(self.server, self.devices, self.sockets, self.window).await?;
        let _showing = progress.show("acks", flock.acks());
        let mut report = Report::default();
        report.add("devices", self.devices).add("sockets", self.sockets);
        self.arrive(&flock, others, &mut report).await?;
        self.touch(&flock, &mut report).await?;
        self.fall_silent(&flock, others, &mut report).await?;
        Ok(report)
    }

    async fn metrics(&self) -> Result<Metrics, String> {
        Metrics::fetch(self.admin).await
    }

    fn resident(&self) -> Result<Option<u64>, String> {
        self.pid.map(resident).transpose()
    }

    fn cpu(&self) -> Result<Option<Duration>, String> {
        self.pid.map(cpu).transpose()
    }

    /// All devices begin their sessions, no faster than the store takes it; then they are silent.
    async fn arrive(&self, flock: &Flock, others: u64, report: &mut Report) -> Result<(), String> {
        let before = self.resident()?;
        let started = Instant::now();
        let mut pacing = JoinSet::new();
        pacing.spawn(pace(self.admin, flock.pause()));
        let delivered = tokio::select! {
            delivered = flock.deliver(0..self.devices, STEADY_S, 0) => delivered?,
            Some(ended) = pacing.join_next() => {
                return Err(ended.unwrap_or_else(|error| error.to_string()));
            }
        };
        pacing.shutdown().await;
        flock.pause().store(false, Ordering::Relaxed);
        self.settled(others + u64::from(self.devices)).await?;
        let took = started.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(self.hold)).await;
        report.add("arrive_seconds", tenths(took)).add("sent_again", delivered.again);
        if let (Some(before), Some(with)) = (before, self.resident()?) {
            let each = with.saturating_sub(before) / u64::from(self.devices);
            report.add("resident_bytes_before", before).add("resident_bytes_with", with);
            report.add("bytes_per_device", each);
        }
        Ok(())
    }

    /// Waits until so many sessions are open and nothing waits for the store.
    async fn settled(&self, sessions: u64) -> Result<(), String> {
        let started = Instant::now();
        let mut looks = 0;
        loop {
            let metrics = self.metrics().await?;
            let open = metrics.sum("landfall_sessions");
            let under_way = under_way(&metrics);
            // The figures of one look are of several moments: what leaves one may not be in the next yet.
            looks = if open == sessions && under_way == 0 { looks + 1 } else { 0 };
            if looks == 2 {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!(
                    "after {} s the gateway has {open} sessions instead of {sessions}, and {under_way} events that are not stored",
                    PATIENCE.as_secs()
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Everybody's heartbeats, round and round, as fast as the gateway takes them; it counts.
    async fn touch(&self, flock: &Flock, report: &mut Report) -> Result<(), String> {
        let stop = Arc::new(AtomicBool::new(false));
        let measure = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (from, cpu_before, first) = (Instant::now(), self.cpu()?, self.metrics().await?);
            tokio::time::sleep(Duration::from_secs(self.seconds)).await;
            let (took, cpu_after, last) = (from.elapsed(), self.cpu()?, self.metrics().await?);
            stop.store(true, Ordering::Relaxed);
            let touches = taken(&last).saturating_sub(taken(&first));
            Ok::<_, String>((touches, took, cpu_after.zip(cpu_before).map(|(after, before)| after - before)))
        };
        let (stalls, measured) = tokio::join!(flock.storm(STEADY_S, Arc::clone(&stop)), async {
            let measured = measure.await;
            stop.store(true, Ordering::Relaxed);
            measured
        });
        let (stalls, (touches, took, cpu)) = (stalls?, measured?);
        report.add("touch_seconds", tenths(took.as_secs_f64())).add("touches", touches);
        report.add("touches_per_second", (touches as f64 / took.as_secs_f64()).round());
        report.add("touch_stalls", stalls);
        if let Some(cpu) = cpu {
            let each = cpu.as_secs_f64() * 1e6 / touches.max(1) as f64;
            report.add("cpu_us_per_touch", (each * 100.0).round() / 100.0);
        }
        Ok(())
    }

    /// Everybody's last heartbeat, such that all deadlines fall together; then the ends are waited for and counted.
    async fn fall_silent(&self, flock: &Flock, others: u64, report: &mut Report) -> Result<(), String> {
        let ends = Ends::subscribe(&self.nats).await?;
        // A device that says `hb=n` may be silent for 1.5 n seconds.
        let span = |heartbeat: u32| Duration::from_millis(u64::from(heartbeat) * 1_500);
        let all_due = Instant::now() + span(self.bursts) + LOOK;
        let mut bursts = Vec::new();
        for heartbeat in (1..=self.bursts).rev() {
            let upto = |n: u32| u64::from(self.devices) * u64::from(n) / u64::from(self.bursts);
            let edge = |n: u32| u32::try_from(upto(n)).unwrap_or(u32::MAX);
            let devices = edge(self.bursts - heartbeat)..edge(self.bursts - heartbeat + 1);
            tokio::time::sleep_until((all_due - span(heartbeat)).into()).await;
            let from = unix_ms();
            let delivered = flock.deliver(devices.clone(), heartbeat, 1).await?;
            bursts.push(Burst { devices, heartbeat, heard: from..=unix_ms(), again: delivered.again });
        }
        let cpu_before = self.cpu()?;
        tokio::time::sleep_until(all_due.into()).await;
        self.settled(others).await?;
        let stored_at = unix_ms();
        let cpu = self.cpu()?.zip(cpu_before).map(|(after, before)| after - before);
        let messages = ends.close().await?;
        let tally = Tally::of(&messages, &bursts, self.devices)?;
        tally.report(stored_at, report);
        if let Some(cpu) = cpu {
            let each = cpu.as_secs_f64() * 1e6 / f64::from(self.devices);
            report.add("cpu_us_per_end", (each * 100.0).round() / 100.0);
        }
        Ok(())
    }
}

/// Heartbeats that were taken: received, less those that were dropped or turned away.
fn taken(metrics: &Metrics) -> u64 {
    let lost = metrics.sum("landfall_udp_dropped_total") + metrics.sum("landfall_refused_total");
    metrics.sum("landfall_udp_datagrams_total").saturating_sub(lost)
}

fn under_way(metrics: &Metrics) -> u64 {
    metrics.sum("landfall_publish_queued") + metrics.sum("landfall_publish_in_flight")
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// Holds the devices back while many events wait for the store. Ends with an error only.
async fn pace(admin: SocketAddr, pause: Arc<AtomicBool>) -> String {
    loop {
        match Metrics::fetch(admin).await {
            Ok(metrics) => pause.store(under_way(&metrics) > QUEUED, Ordering::Relaxed),
            Err(error) => return error,
        }
        tokio::time::sleep(LOOK).await;
    }
}
