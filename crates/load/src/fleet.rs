//! The devices: who they are, how each of them comes, reports and goes, whatever it speaks.
//!
//! Owns: their settings, opening many of them. Does not own: what each protocol says ([`crate::mqtt`], [`crate::coap`],
//! [`crate::line`], [`crate::dtls`]), when ([`crate::pace`]).

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;

use crate::client::Version;
use crate::coap::Coap;
use crate::dtls::{Client, Clients, Fleet as Shaker, Scratch, Shaken};
use crate::histogram::Latencies;
use crate::lanes::{self, Outcome};
use crate::line::{self, Line};
use crate::link::Door;
use crate::mqtt::{Identity, Mqtt};
use crate::pace::{Job, Order, Schedule, Steady};
use crate::progress::Progress;
use crate::says::Says;
use crate::sources::Sources;
use crate::target::{Carrier, Target};

/// Settings of the devices.
#[derive(Args, Clone, Debug)]
pub(crate) struct Crowd {
    /// The server: `tcp`, `tls`, `ws`, `wss` (MQTT), `coap`, `udp` or `dtls` (the `LF1` line), `://`, an address.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub(crate) server: Target,
    /// The version of MQTT.
    #[arg(long, value_enum, default_value = "3.1.1")]
    mqtt: Version,
    /// A device's name: client id, `ep`, name in the line or PSK identity; an `n` in braces is its number, from 0.
    #[arg(long, default_value = "load-{n}")]
    client_id: String,
    /// MQTT user name; an `n` and `id` in braces as in other texts.
    #[arg(long)]
    username: Option<String>,
    /// MQTT password.
    #[arg(long, requires = "username")]
    password: Option<String>,
    /// MQTT keep-alive in seconds; 0 is none.
    #[arg(long, default_value_t = 0)]
    pub(crate) keep_alive: u16,
    /// Authorities that the server's certificate is held against (PEM); without it any certificate will do.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The pre-shared key of all devices over DTLS, in hex.
    #[arg(long, default_value = "6c616e6466616c6c2d6c6f61642d6b79")]
    key: String,
    /// Addresses of 127.0.1.1 and on that the devices come from, in turn, if the server's is a loopback address of IPv4; as
    /// many as the devices need, at 20,000 each, unless this says how many.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    source_addresses: Option<u32>,
    /// Seconds that a connect or a report may take.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    deadline: u64,
}

/// How many come, and how fast.
#[derive(Args, Clone, Debug)]
pub(crate) struct Opening {
    /// Connections to open.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Connections being opened at the same time.
    #[arg(long, default_value_t = 64)]
    pub(crate) at_once: usize,
    /// Connects per second; without it, as fast as they go.
    #[arg(long, value_parser = rate)]
    pub(crate) connect_rate: Option<f64>,
}

/// Reads a rate per second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let read = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    read.ok_or_else(|| "a rate is a number above 0".to_owned())
}

/// The order of things at a rate, or as fast as they go.
pub(crate) fn order(start: Instant, rate: Option<f64>) -> Order {
    rate.map_or(Order::AsFast, |rate| Order::At(Steady::new(start, rate)))
}

/// All devices.
pub(crate) struct Fleet {
    crowd: Crowd,
    pub(crate) door: Door,
    shaker: Option<Shaker>,
}

/// One that has come.
pub(crate) enum Device {
    Mqtt(Mqtt),
    Coap(Coap),
    Line(Line),
    Dtls(Box<Client>),
}

impl Fleet {
    /// For devices 0..`devices`, of which so many `sockets` are open at the same time or not forgotten yet. `says` is what
    /// devices over DTLS will say: it is part of their sessions.
    pub(crate) fn new(crowd: &Crowd, devices: u32, sockets: u32, says: &Says) -> Result<Arc<Self>, String> {
        let target = crowd.server.clone();
        let sources = Sources::for_sockets(target.address, crowd.source_addresses, sockets);
        let tls = target.carrier.is_tls().then(|| crate::tls::config(crowd.ca.as_deref())).transpose()?;
        let shaker = (target.carrier == Carrier::Dtls).then(|| {
            let text = says.in_a_record(&line::head("{id}", &says.words));
            Shaker::new(&Clients::plain(target.address, &crowd.client_id, devices, &crowd.key, text, sources))
        });
        let door = Door { target, sources, tls };
        Ok(Arc::new(Self { crowd: crowd.clone(), door, shaker: shaker.transpose()? }))
    }

    pub(crate) fn carrier(&self) -> Carrier {
        self.door.target.carrier
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.crowd.deadline)
    }

    /// The name of device `n`.
    pub(crate) fn name(&self, n: u32) -> String {
        self.crowd.client_id.replace("{n}", &n.to_string())
    }

    /// `text` with the device's number and name in it.
    pub(crate) fn fill(&self, text: &str, n: u32) -> String {
        text.replace("{id}", &self.name(n)).replace("{n}", &n.to_string())
    }

    /// Device `n` comes, within the deadline. Tells how long the protocol's own handshake took: from CONNECT to CONNACK.
    pub(crate) async fn open(&self, n: u32, says: &Says) -> Result<(Device, Duration), String> {
        match tokio::time::timeout(self.deadline(), self.arrive(n, says)).await {
            Ok(done) => done.map_err(|error| format!("{}: {error}", self.name(n))),
            Err(_) => Err(format!("{}: not connected within {} s", self.name(n), self.crowd.deadline)),
        }
    }

    async fn arrive(&self, n: u32, says: &Says) -> Result<(Device, Duration), String> {
        let failed = |error: std::io::Error| error.to_string();
        match self.carrier() {
            Carrier::Tcp | Carrier::Tls | Carrier::Ws | Carrier::Wss => {
                let (mqtt, waited) = self.connect(n).await?;
                Ok((Device::Mqtt(mqtt), waited))
            }
            Carrier::Coap => {
                let coap = Coap::open(self.door.sources, n).await.map_err(failed)?;
                Ok((Device::Coap(coap), Duration::ZERO))
            }
            Carrier::Udp => {
                let socket = self.door.sources.udp(n).await.map_err(failed)?;
                let line = Line::new(socket, line::head(&self.name(n), &says.words));
                Ok((Device::Line(line), Duration::ZERO))
            }
            Carrier::Dtls => {
                let Some(shaker) = &self.shaker else { return Err("no DTLS".into()) };
                let started = Instant::now();
                match shaker.shake(n, &mut Scratch::default()).await? {
                    Shaken::Open(client) => Ok((Device::Dtls(Box::new(client)), started.elapsed())),
                    Shaken::Lost { why, .. } => Err(why),
                }
            }
        }
    }

    /// Device `n` connects over MQTT. Tells what it waited for CONNACK.
    pub(crate) async fn connect(&self, n: u32) -> Result<(Mqtt, Duration), String> {
        let fill = |text: &Option<String>| text.as_ref().map(|text| self.fill(text, n));
        let (name, username, password) =
            (self.name(n), fill(&self.crowd.username), fill(&self.crowd.password));
        let who = Identity {
            version: self.crowd.mqtt,
            client_id: &name,
            keep_alive_s: self.crowd.keep_alive,
            username: username.as_deref(),
            password: password.as_deref(),
        };
        Mqtt::open(&self.door, n, who).await.map_err(|error| error.to_string())
    }

    /// Device `n` says one thing, within the deadline, and waits until it is taken.
    pub(crate) async fn report(&self, device: &mut Device, n: u32, says: &Says) -> Result<(), String> {
        let reporting = device.report(self, n, says);
        match tokio::time::timeout(self.deadline(), reporting).await {
            Ok(done) => done.map_err(|error| format!("{}: {error}", self.name(n))),
            Err(_) => Err(format!("{}: not taken within {} s", self.name(n), self.crowd.deadline)),
        }
    }
}

impl Device {
    async fn report(&mut self, fleet: &Fleet, n: u32, says: &Says) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        match self {
            Self::Mqtt(mqtt) => {
                mqtt.publish(&says.topic(fleet, n), says.qos, &says.payload()).await.map_err(failed)
            }
            Self::Coap(coap) => {
                let code = coap.ask(&mut says.request(fleet, n)).await.map_err(failed)?;
                says.judge(code)
            }
            Self::Line(line) => line.say(&says.payload()).await.map_err(failed),
            Self::Dtls(client) => client.say(true, &mut Scratch::default()).await.map(drop),
        }
    }

    /// It goes as its protocol has it; a CoAP client has no goodbye.
    pub(crate) async fn leave(self) -> Result<(), String> {
        let done = match self {
            Self::Mqtt(mqtt) => mqtt.leave().await,
            Self::Coap(_) => Ok(()),
            Self::Line(line) => line.leave().await,
            Self::Dtls(mut client) => {
                client.leave(&mut Scratch::default());
                Ok(())
            }
        };
        done.map_err(|error| error.to_string())
    }

    /// Whether the server has ended it, as far as is known.
    pub(crate) fn is_lost(&mut self) -> bool {
        match self {
            Self::Mqtt(mqtt) => mqtt.link.is_closed(),
            _ => false,
        }
    }
}

/// What came of an opening.
pub(crate) struct Opened {
    /// Those that came, by number.
    pub(crate) devices: Vec<(u32, Device)>,
    /// How long each took: from the first SYN, or from when it was meant to begin, to the CONNACK.
    pub(crate) outcome: Outcome,
    /// From the CONNECT to the CONNACK.
    pub(crate) connack: Arc<Latencies>,
}

impl Opened {
    /// An error unless all have come.
    pub(crate) fn complete(self) -> Result<Self, String> {
        match self.outcome.first_failure {
            Some(why) => Err(why),
            None => Ok(self),
        }
    }
}

/// All devices come. Those that fail are counted.
pub(crate) async fn open_all(
    fleet: &Arc<Fleet>,
    opening: &Opening,
    says: &Says,
    progress: Progress,
) -> Result<Opened, String> {
    let (arrived, connack) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Latencies::new()?));
    let says = Arc::new(says.clone());
    let work = {
        let (fleet, arrived, connack) = (Arc::clone(fleet), Arc::clone(&arrived), Arc::clone(&connack));
        move |job: Job| {
            let (fleet, says) = (Arc::clone(&fleet), Arc::clone(&says));
            let (arrived, connack) = (Arc::clone(&arrived), Arc::clone(&connack));
            async move {
                let n = u32::try_from(job.n).unwrap_or(u32::MAX);
                let (device, waited) = fleet.open(n, &says).await?;
                connack.record(waited);
                arrived.lock().map_err(|error| error.to_string())?.push((n, device));
                Ok(())
            }
        }
    };
    let schedule = Schedule::count(order(Instant::now(), opening.connect_rate), opening.connections.into());
    let outcome = lanes::run(("connects", progress), opening.at_once, schedule, work).await?;
    let mut devices = std::mem::take(&mut *arrived.lock().map_err(|error| error.to_string())?);
    if devices.is_empty() {
        return Err(outcome.first_failure.unwrap_or_else(|| "nobody came".into()));
    }
    devices.sort_by_key(|(n, _)| *n);
    Ok(Opened { devices, outcome, connack })
}
