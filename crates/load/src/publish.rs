//! `publish`: messages over MQTT, CoAP or UDP, each device with a window of unanswered ones, as fast as the server takes them or
//! at a fixed rate.
//!
//! Owns: the settings, and the summary. Does not own: sending ([`drive`]), the events ([`crate::events`]).

mod datagrams;
mod drive;
mod packets;
mod payload;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::clock::{Clock, unix_us};
use crate::coap::Mouth;
use crate::events::upstream::Heard;
use crate::fleet::{Crowd, Device, Fleet, Opening, open_all, rate};
use crate::line;
use crate::pace::Steady;
use crate::process::{add_cpu, cpu};
use crate::progress::Progress;
use crate::report::Report;
use crate::says::{Says, Stamp};
use crate::target::Carrier;
use datagrams::{Datagrams, Speech};
use drive::{Drive, Tally};
use packets::Packets;
use payload::Payload;

/// Of MQTT at QoS 0, where a whole window is answered at once.
const UNACKNOWLEDGED_WINDOW: u16 = 256;
/// Of MQTT; a CoAP client has one request at a time (NSTART, RFC 7252 section 4.7), and so has a UDP device.
const WINDOW: u16 = 20;

/// Settings of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Publish {
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    says: Says,
    /// Devices.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Unanswered messages per device; 20 for MQTT (less if the server's Receive Maximum is), 256 at QoS 0, 1 for others.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    window: Option<u16>,
    /// Messages per second, of all devices together; without it, as many as the windows let.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Seconds of load that are counted.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds of load before, not counted.
    #[arg(long, default_value_t = 2)]
    warmup: u64,
    /// Process id of the server: its CPU time is measured.
    #[arg(long)]
    pid: Option<u32>,
    /// The gateway's NATS: the messages' events are read there, and measured from when each was meant to be sent.
    #[arg(long)]
    nats: Option<String>,
}

impl Publish {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        if self.crowd.server.carrier == Carrier::Dtls {
            return Err("over DTLS it is `dtls records` that measures messages".into());
        }
        if self.nats.is_some() && self.says.size < Stamp::LENGTH {
            return Err(format!("with --nats a payload holds a stamp: --size is at least {}", Stamp::LENGTH));
        }
        let fleet = Fleet::new(&self.crowd, self.connections, self.connections, &self.says)?;
        let opening = Opening { connections: self.connections, at_once: 64, connect_rate: None };
        let opened = open_all(&fleet, &opening, &self.says, progress).await?.complete()?;
        let run = u32::try_from(unix_us() & 0xffff_ffff).unwrap_or_default();
        let heard = match &self.nats {
            Some(nats) => Some(Heard::start(nats, run, self.connections).await?),
            None => None,
        };
        let tally = Tally::new()?;
        let showing = progress.show("messages", &tally.counters);
        let clock = Clock::now();
        let from = Instant::now() + Duration::from_secs(self.warmup);
        let until = from + Duration::from_secs(self.seconds);
        let pace = self.rate.map(|rate| Steady::new(Instant::now(), rate));
        let mut running = JoinSet::new();
        for (n, device) in opened.devices {
            let payload = match heard {
                Some(_) => Payload::stamped(self.says.size, clock, run, n),
                None => Payload::plain(self.says.size),
            };
            let pace = pace.map(|pace| pace.share(n, self.connections));
            let drive = Drive { pace, window: self.window(&device), from, until, tally: Arc::clone(&tally) };
            running.spawn(start(Arc::clone(&fleet), (n, device), payload, self.says.clone(), drive));
        }
        let used = self.cpu_between(from, until).await?;
        while let Some(done) = running.join_next().await {
            done.map_err(|error| error.to_string())??;
        }
        drop(showing);
        let mut report = Report::default();
        self.report(&tally, &mut report);
        if let Some(used) = used {
            add_cpu(&mut report, "message", used, tally.counted.load(Ordering::Relaxed));
        }
        if let Some(heard) = heard {
            let window = clock.unix_us(from)..clock.unix_us(until);
            heard.finish(tally.sent.load(Ordering::Relaxed), window, &mut report).await?;
        }
        Ok(report)
    }

    fn window(&self, device: &Device) -> u16 {
        match device {
            Device::Mqtt(mqtt) if self.says.qos > 0 => self.asked_window().min(mqtt.receive_maximum),
            _ => self.asked_window(),
        }
    }

    fn asked_window(&self) -> u16 {
        self.window.unwrap_or_else(|| match (self.crowd.server.carrier.is_stream(), self.says.qos) {
            (true, 0) => UNACKNOWLEDGED_WINDOW,
            (true, _) => WINDOW,
            (false, _) => 1,
        })
    }

    /// CPU time of the server while it counts.
    async fn cpu_between(&self, from: Instant, until: Instant) -> Result<Option<Duration>, String> {
        let Some(pid) = self.pid else { return Ok(None) };
        tokio::time::sleep_until(from.into()).await;
        let before = cpu(pid)?;
        tokio::time::sleep_until(until.into()).await;
        Ok(Some(cpu(pid)?.saturating_sub(before)))
    }

    fn report(&self, tally: &Tally, report: &mut Report) {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let carrier = self.crowd.server.carrier;
        report.add("connections", self.connections).add("window", self.asked_window());
        report.add("payload_bytes", self.says.bytes_over(carrier)).add("seconds", self.seconds);
        if carrier != Carrier::Coap {
            report.add("qos", self.says.qos);
        }
        if let Some(rate) = self.rate {
            report.add("rate", rate);
        }
        report.add("sent", read(&tally.sent)).add("acknowledged", read(&tally.counted));
        let per_second = read(&tally.counted) as f64 / self.seconds as f64;
        report.add("acknowledged_per_second", per_second.round());
        report.add("refused", read(&tally.refused));
        if !carrier.is_stream() {
            report.add("lost", read(&tally.lost)).add("sent_again", read(&tally.again));
        }
        if self.rate.is_some() {
            report.add("unanswered", read(&tally.unanswered));
        }
        tally.counters.latencies.report("latency", report);
        tally.lateness.report("sent_late", report);
    }
}

/// One device's part.
async fn start(
    fleet: Arc<Fleet>,
    (n, device): (u32, Device),
    payload: Payload,
    says: Says,
    drive: Drive,
) -> Result<(), String> {
    let name = fleet.name(n);
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let window = drive.window;
    let sent = match device {
        Device::Mqtt(mqtt) => drive.run(Packets::new(mqtt, says.topic(&fleet, n), says.qos, payload)).await,
        Device::Coap(coap) => {
            let speech = Speech::Coap { request: says.request(&fleet, n), says };
            drive.run(Datagrams::new(speech, coap.mouth, payload, window)).await
        }
        Device::Line(_) => {
            let mouth = Mouth::open(fleet.door.sources, n).await.map_err(failed)?;
            let speech = Speech::Line { head: line::head(&name, &says.words), is_acked: says.qos > 0 };
            drive.run(Datagrams::new(speech, mouth, payload, window)).await
        }
        Device::Dtls(_) => return Err("not over DTLS".into()),
    };
    sent.map_err(failed)
}
