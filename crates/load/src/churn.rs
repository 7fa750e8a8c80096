//! `churn`: devices come, say one thing, go, and come again.
//!
//! Owns: the round of a device. Does not own: its parts ([`crate::fleet`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use crate::fleet::{Crowd, Fleet, order, rate};
use crate::lanes;
use crate::pace::{Job, Schedule};
use crate::progress::Progress;
use crate::report::Report;
use crate::says::Says;

/// A port is remembered for a minute after its connection: that many sockets need addresses, at the rates that are seen.
const REMEMBERED: u32 = 320_000;

/// Settings of the scenario.
#[derive(Args, Debug)]
pub(crate) struct Churn {
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    says: Says,
    /// Devices, which take turns. More than are there at the same time, or one would take over from itself.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Devices that are there at the same time.
    #[arg(long, default_value_t = 16)]
    at_once: usize,
    /// Rounds per second; without it, as fast as they go.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Seconds in which rounds begin.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

impl Churn {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        let fleet = Fleet::new(&self.crowd, self.devices, REMEMBERED, &self.says)?;
        let start = Instant::now();
        let schedule = Schedule::until(order(start, self.rate), start + Duration::from_secs(self.seconds));
        let (says, devices) = (Arc::new(self.says.clone()), u64::from(self.devices));
        let work = move |job: Job| {
            let (fleet, says) = (Arc::clone(&fleet), Arc::clone(&says));
            async move { round(&fleet, u32::try_from(job.n % devices).unwrap_or(0), &says).await }
        };
        let outcome = lanes::run(("rounds", progress), self.at_once, schedule, work).await?;
        let mut report = Report::default();
        report.add("devices", self.devices).add("at_once", self.at_once);
        outcome.report("rounds", "round", &mut report);
        Ok(report)
    }
}

/// Comes, says one thing and goes.
pub(crate) async fn round(fleet: &Fleet, n: u32, says: &Says) -> Result<(), String> {
    let (mut device, _) = fleet.open(n, says).await?;
    fleet.report(&mut device, n, says).await?;
    device.leave().await
}
