//! `sleepy`: devices that wake at their reporting intervals, say one thing and sleep again.
//!
//! Owns: what stays open while a device sleeps. Does not own: when it wakes ([`crate::pace`]).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;

use crate::fleet::{Crowd, Device, Fleet};
use crate::lanes;
use crate::pace::{Job, Order, Rota, Schedule};
use crate::progress::Progress;
use crate::report::Report;
use crate::says::Says;

/// Settings of the scenario.
#[derive(Args, Debug)]
pub(crate) struct Sleepy {
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    says: Says,
    /// Devices.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Seconds between two reports of a device.
    #[arg(long, default_value_t = 60.0, value_parser = crate::fleet::rate)]
    interval: f64,
    /// How much later than at its regular moment a device wakes at most, as a part of the interval, 0 to 1.
    #[arg(long, default_value_t = 0.1, value_parser = part)]
    jitter: f64,
    /// Seconds in which devices wake.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Devices that are awake at the same time, at most.
    #[arg(long, default_value_t = 1_000)]
    at_once: usize,
}

fn part(text: &str) -> Result<f64, String> {
    let read = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    read.ok_or_else(|| "a part is a number from 0 to 1".to_owned())
}

/// Sockets that are kept while their devices sleep: UDP's and DTLS's, so that a device speaks from where it spoke before.
type Kept = Arc<Vec<Mutex<Option<Device>>>>;

impl Sleepy {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        let per_minute = (f64::from(self.devices) * 60.0 / self.interval).min(1e9) as u32;
        let fleet = Fleet::new(&self.crowd, self.devices, self.devices.max(per_minute), &self.says)?;
        let kept: Kept = Arc::new((0..self.devices).map(|_| Mutex::new(None)).collect());
        let start = Instant::now();
        let rota = Rota::new(start, self.devices, Duration::from_secs_f64(self.interval), self.jitter);
        let schedule = Schedule::until(Order::Wake(rota), start + Duration::from_secs(self.seconds));
        let says = Arc::new(self.says.clone());
        let work = move |job: Job| {
            let (fleet, says, kept) = (Arc::clone(&fleet), Arc::clone(&says), Arc::clone(&kept));
            async move { wake(&fleet, u32::try_from(job.n).unwrap_or(0), &says, &kept).await }
        };
        let outcome = lanes::run(("reports", progress), self.at_once, schedule, work).await?;
        let mut report = Report::default();
        report.add("devices", self.devices).add("interval", self.interval).add("jitter", self.jitter);
        outcome.report("reports", "report", &mut report);
        Ok(report)
    }
}

/// Device `n` wakes, reports and sleeps: a connection ends meanwhile, a datagram's socket stays.
async fn wake(fleet: &Fleet, n: u32, says: &Says, kept: &Kept) -> Result<(), String> {
    if fleet.carrier().is_stream() {
        return crate::churn::round(fleet, n, says).await;
    }
    let place = kept.get(usize::try_from(n).unwrap_or(usize::MAX));
    let before = place.and_then(|place| place.lock().ok()?.take());
    let mut device = match before {
        Some(device) => device,
        None => fleet.open(n, says).await?.0,
    };
    fleet.report(&mut device, n, says).await?;
    if let Some(mut place) = place.and_then(|place| place.lock().ok()) {
        *place = Some(device);
    }
    Ok(())
}
