//! `idle`: what a connection costs that does nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client;
use crate::process::resident;
use crate::report::Report;

/// Settings of the scenario.
#[derive(Args, Debug)]
pub(crate) struct Idle {
    /// The server.
    #[arg(long, default_value = "127.0.0.1:1883")]
    server: SocketAddr,
    /// Connections to open.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Connections being opened at the same time.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Process id of the server: its resident memory is measured before and with the connections.
    #[arg(long)]
    pid: Option<u32>,
    /// Seconds to hold the connections before measuring.
    #[arg(long, default_value_t = 2)]
    hold: u64,
}

impl Idle {
    pub(crate) async fn run(&self) -> Result<Report, String> {
        let before = self.pid.map(resident).transpose()?;
        let started = Instant::now();
        let mut open = Vec::with_capacity(self.connections);
        let mut opening: JoinSet<std::io::Result<TcpStream>> = JoinSet::new();
        let server = self.server;
        for n in 0..self.connections {
            if opening.len() >= self.at_once
                && let Some(done) = opening.join_next().await
            {
                open.push(
                    done.map_err(|e| e.to_string())?
                        .map_err(|e| format!("connection {}: {e}", open.len()))?,
                );
            }
            opening.spawn(async move { client::connect(server, &format!("idle-{n}"), 0).await });
        }
        while let Some(done) = opening.join_next().await {
            open.push(
                done.map_err(|e| e.to_string())?.map_err(|e| format!("connection {}: {e}", open.len()))?,
            );
        }
        let took = started.elapsed();
        tokio::time::sleep(Duration::from_secs(self.hold)).await;
        let with = self.pid.map(resident).transpose()?;
        let mut report = Report::default();
        report.add("connections", open.len()).add("connect_seconds", took.as_secs_f64());
        report.add("connects_per_second", (open.len() as f64 / took.as_secs_f64()).round());
        if let (Some(before), Some(with)) = (before, with) {
            let each = with.saturating_sub(before) / u64::try_from(open.len().max(1)).unwrap_or(1);
            report.add("resident_bytes_before", before).add("resident_bytes_with", with);
            report.add("bytes_per_connection", each);
        }
        Ok(report)
    }
}
