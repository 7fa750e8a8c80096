//! `connect`: how fast devices come, what a connect takes, and what each of them costs the server.
//!
//! Owns: the course of the measurement. Does not own: one connect ([`crate::fleet`]).

use std::time::Duration;

use clap::Args;

use crate::fleet::{Crowd, Fleet, Opened, Opening, open_all};
use crate::process::Memory;
use crate::progress::Progress;
use crate::report::Report;
use crate::says::Says;
use crate::target::Carrier;

/// Settings of the scenario.
#[derive(Args, Debug)]
pub(crate) struct Connect {
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    opening: Opening,
    /// Process id of the server: its resident memory is measured before and with the connections.
    #[arg(long)]
    pid: Option<u32>,
    /// Seconds to hold the connections before measuring.
    #[arg(long, default_value_t = 1)]
    hold: u64,
}

impl Connect {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        must_connect(&self.crowd)?;
        let says = Says::nothing();
        let count = self.opening.connections;
        let fleet = Fleet::new(&self.crowd, count, count, &says)?;
        let memory = Memory::before(self.pid)?;
        let opened = open_all(&fleet, &self.opening, &says, progress).await?;
        tokio::time::sleep(Duration::from_secs(self.hold)).await;
        let mut report = Report::default();
        report_opening(&opened, &mut report);
        if let Some(memory) = memory {
            memory.report(opened.devices.len(), "bytes_per_connection", &mut report)?;
        }
        Ok(report)
    }
}

/// An error for protocols without a connect.
pub(crate) fn must_connect(crowd: &Crowd) -> Result<(), String> {
    match crowd.server.carrier {
        Carrier::Coap | Carrier::Udp => {
            Err("nobody connects over CoAP or UDP: `publish`, `churn` and `sleepy` speak them".into())
        }
        _ => Ok(()),
    }
}

/// What coming took.
pub(crate) fn report_opening(opened: &Opened, report: &mut Report) {
    let (count, seconds) = (opened.devices.len(), opened.outcome.took.as_secs_f64());
    report.add("connections", count).add("connect_seconds", (seconds * 1e3).round() / 1e3);
    report.add("connects_per_second", (count as f64 / seconds).round());
    opened.outcome.report_failures(report);
    opened.outcome.counters.latencies.report("connect", report);
    opened.connack.report("connack", report);
}
