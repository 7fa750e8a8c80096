//! `publish`: messages as fast as the server takes them, each connection with a window of unacknowledged ones.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::Args;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client;
use crate::report::Report;

/// Settings of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Publish {
    /// The server.
    #[arg(long, default_value = "127.0.0.1:1883")]
    server: SocketAddr,
    /// Connections.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Unacknowledged QoS 1 messages per connection, 1..=65,535.
    #[arg(long, default_value_t = 20)]
    window: u16,
    /// Payload bytes.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Seconds of load that are counted.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds of load before, not counted.
    #[arg(long, default_value_t = 2)]
    warmup: u64,
    /// The topic's first level; the second is the connection's number.
    #[arg(long, default_value = "load")]
    topic: String,
}

/// From PUBLISH to PUBACK in microseconds, up to a minute.
type Latencies = Histogram<u64>;

fn histogram() -> Result<Latencies, String> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|error| error.to_string())
}

impl Publish {
    pub(crate) async fn run(&self) -> Result<Report, String> {
        let mut streams = Vec::with_capacity(self.connections);
        for n in 0..self.connections {
            let id = format!("load-{n}");
            let stream = client::connect(self.server, &id, 60).await.map_err(|e| format!("{id}: {e}"))?;
            streams.push(stream);
        }
        let from = Instant::now() + Duration::from_secs(self.warmup);
        let until = from + Duration::from_secs(self.seconds);
        let mut running = JoinSet::new();
        for (n, stream) in streams.into_iter().enumerate() {
            let topic = format!("{}/{n}", self.topic);
            running.spawn(drive(self.clone(), stream, topic, from, until));
        }
        let mut all = histogram()?;
        while let Some(done) = running.join_next().await {
            let latencies = done.map_err(|error| error.to_string())??;
            all.add(latencies).map_err(|error| error.to_string())?;
        }
        let mut report = Report::default();
        report
            .add("connections", self.connections)
            .add("window", self.window)
            .add("payload_bytes", self.size);
        report.add("seconds", self.seconds).add("acknowledged", all.len());
        report.add("acknowledged_per_second", (all.len() as f64 / self.seconds.max(1) as f64).round());
        for (name, at) in [("latency_p50_us", 0.5), ("latency_p99_us", 0.99), ("latency_p999_us", 0.999)] {
            report.add(name, all.value_at_quantile(at));
        }
        Ok(report)
    }
}

async fn drive(
    settings: Publish,
    mut stream: TcpStream,
    topic: String,
    from: Instant,
    until: Instant,
) -> Result<Latencies, String> {
    let mut latencies = histogram()?;
    let payload = vec![b'x'; settings.size];
    let window = settings.window.max(1);
    let (mut input, mut out) = (BytesMut::with_capacity(4096), BytesMut::with_capacity(64 * 1024));
    // Packet ids 1..=window are used round and round: an id is free when its PUBACK has come.
    let mut sent_at = vec![Instant::now(); usize::from(window) + 1];
    let mut free: Vec<u16> = (1..=window).collect();
    while Instant::now() < until {
        let now = Instant::now();
        for id in free.drain(..) {
            client::put_publish(&mut out, &topic, Some(id), &payload);
            if let Some(at) = sent_at.get_mut(usize::from(id)) {
                *at = now;
            }
        }
        stream.write_all_buf(&mut out).await.map_err(|error| error.to_string())?;
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_buf(&mut input)).await;
        match read
            .map_err(|_| "no acknowledgement for 30 s".to_owned())?
            .map_err(|error| error.to_string())?
        {
            0 => return Err("the server closed the connection".into()),
            _ => {
                let now = Instant::now();
                let counted = now >= from && now < until;
                client::take_pubacks(&mut input, |id| {
                    free.push(id);
                    if let (true, Some(at)) = (counted, sent_at.get(usize::from(id))) {
                        let waited = u64::try_from(now.duration_since(*at).as_micros()).unwrap_or(u64::MAX);
                        latencies.saturating_record(waited.max(1));
                    }
                })
                .map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(latencies)
}
