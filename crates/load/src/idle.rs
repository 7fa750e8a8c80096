//! `idle`: what a connection costs that does nothing.
//!
//! Owns: holding the connections. Does not own: opening them ([`crate::connect`]).

use std::time::{Duration, Instant};

use clap::Args;

use crate::connect::{must_connect, report_opening};
use crate::fleet::{Crowd, Device, Fleet, Opening, open_all};
use crate::process::Memory;
use crate::progress::Progress;
use crate::report::Report;
use crate::says::Says;

/// Settings of the scenario.
#[derive(Args, Debug)]
pub(crate) struct Idle {
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    opening: Opening,
    /// Process id of the server: its resident memory is measured before and with the connections.
    #[arg(long)]
    pid: Option<u32>,
    /// Seconds to hold the connections before measuring.
    #[arg(long, default_value_t = 2)]
    hold: u64,
}

impl Idle {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        must_connect(&self.crowd)?;
        let says = Says::nothing();
        let count = self.opening.connections;
        let fleet = Fleet::new(&self.crowd, count, count, &says)?;
        let memory = Memory::before(self.pid)?;
        let mut opened = open_all(&fleet, &self.opening, &says, progress).await?.complete()?;
        self.hold(&mut opened.devices).await;
        let mut report = Report::default();
        report_opening(&opened, &mut report);
        if let Some(memory) = memory {
            memory.report(opened.devices.len(), "bytes_per_connection", &mut report)?;
        }
        report.add(
            "lost",
            opened.devices.iter_mut().filter_map(|(_, device)| device.is_lost().then_some(())).count(),
        );
        Ok(report)
    }

    /// Nobody says anything but, twice in each keep-alive, that it is there.
    async fn hold(&self, devices: &mut [(u32, Device)]) {
        let until = Instant::now() + Duration::from_secs(self.hold);
        let every = Duration::from_millis(u64::from(self.crowd.keep_alive) * 500);
        let mut ping_at = Instant::now() + every;
        while self.crowd.keep_alive > 0 && ping_at < until {
            tokio::time::sleep_until(ping_at.into()).await;
            for (_, device) in devices.iter_mut() {
                if let Device::Mqtt(mqtt) = device {
                    // Who is gone is counted at the end.
                    let _ = mqtt.ping().await;
                }
            }
            ping_at += every;
        }
        tokio::time::sleep_until(until.into()).await;
    }
}
