//! `commands`: a request on NATS to a device, and back: the round trip.
//!
//! Owns: the requests. Does not own: the devices that answer ([`answer`]).

mod answer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Request};
use clap::{Args, ValueEnum};
use landfall_event::wire::{self, Body};
use landfall_event::{DeviceId, InstanceName, Outcome, TenantId, subject};
use tokio::task::JoinSet;

use crate::fleet::{Crowd, Fleet, Opening, open_all, order, rate};
use crate::lanes;
use crate::nats;
use crate::pace::{Job, Schedule};
use crate::progress::Progress;
use crate::report::Report;
use crate::says::Says;

/// When a command is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// When it was sent.
    Delivered,
    /// When the device has acknowledged it.
    Acknowledged,
    /// When the device has answered it.
    Answered,
}

impl Wait {
    fn outcome(self) -> Outcome {
        match self {
            Self::Delivered => Outcome::Delivered,
            Self::Acknowledged => Outcome::Acknowledged,
            Self::Answered => Outcome::Answered,
        }
    }
}

/// Settings of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Commands {
    #[command(flatten)]
    crowd: Crowd,
    /// The gateway's NATS.
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// The gateway's instance.
    #[arg(long, default_value = "landfall")]
    instance: InstanceName,
    /// The devices' tenant.
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    /// Devices.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// When a command is done.
    #[arg(long, value_enum, default_value = "answered")]
    wait: Wait,
    /// MQTT quality of service of commands and answers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Bytes of a command, and of its answer.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Commands under way. No device has more than one while there are enough devices.
    #[arg(long, default_value_t = 16)]
    at_once: usize,
    /// Commands per second; without it, as fast as they go.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Seconds in which commands begin.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

impl Commands {
    pub(crate) async fn run(&self, progress: Progress) -> Result<Report, String> {
        let says = Says::nothing();
        let fleet = Fleet::new(&self.crowd, self.connections, self.connections, &says)?;
        let opening = Opening { connections: self.connections, at_once: 64, connect_rate: None };
        let opened = open_all(&fleet, &opening, &says, progress).await?.complete()?;
        let mut answering = JoinSet::new();
        for (n, device) in opened.devices {
            let ready = answer::ready(&fleet, n, device, self.qos, self.size).await?;
            answering.spawn(ready.run());
        }
        let client = nats::connect(&self.nats).await?;
        let start = Instant::now();
        let schedule = Schedule::until(order(start, self.rate), start + Duration::from_secs(self.seconds));
        let asker = Arc::new(Asker { client, fleet, settings: self.clone() });
        let work = move |job: Job| {
            let asker = Arc::clone(&asker);
            async move { asker.ask(job.n).await }
        };
        let outcome = lanes::run(("commands", progress), self.at_once, schedule, work).await?;
        let mut report = Report::default();
        report.add("connections", self.connections).add("at_once", self.at_once);
        report.add("wait", self.wait.outcome().as_str()).add("payload_bytes", self.size);
        outcome.report("commands", "round_trip", &mut report);
        if let Some(ended) = answering.try_join_next() {
            report.add("device_ended", ended.unwrap_or_else(|error| error.to_string()));
        }
        Ok(report)
    }
}

/// Who sends the requests.
struct Asker {
    client: Client,
    fleet: Arc<Fleet>,
    settings: Commands,
}

impl Asker {
    /// Command `n`, from the request to the reply.
    async fn ask(&self, n: u64) -> Result<(), String> {
        let device = u32::try_from(n % u64::from(self.settings.connections)).unwrap_or(0);
        let name = self.fleet.name(device);
        let id: DeviceId = name.parse().map_err(|_| format!("{name} is no device's name"))?;
        let subject = subject::command_subject(&self.settings.instance, &self.settings.tenant, &id);
        let mut headers = HeaderMap::new();
        let wanted = self.settings.wait.outcome();
        headers.insert("Command-Wait", wanted.as_str());
        let request = Request::new()
            .payload(vec![b'x'; self.settings.size].into())
            .headers(headers)
            .timeout(Some(self.fleet.deadline()));
        let reply = self.client.send_request(subject, request).await.map_err(|error| error.to_string())?;
        let header = |name: &str| reply.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str);
        let event = wire::read(header, &reply.payload).map_err(|error| format!("the reply {error}"))?;
        let Body::Downstream(downstream) = event.body else { return Err("the reply is no outcome".into()) };
        let details = downstream.details;
        if details.outcome == wanted {
            return Ok(());
        }
        let status = details.status.unwrap_or_default();
        Err(format!("{name}: {} ({status}) instead of {}", details.outcome.as_str(), wanted.as_str()))
    }
}
