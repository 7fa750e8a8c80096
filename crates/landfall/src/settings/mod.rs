//! The settings: a TOML file and the environment, parsed once into types that need no further check.
//!
//! Owns: keys, defaults, ranges, precedence, errors, `config print`, the documentation's table. Does not own: what the parts
//! do with them.

mod address;
mod exposed;
mod keys;
mod kind;
mod log;
mod print;
mod rules;
mod source;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use landfall_event::ReplicaId;

pub use address::{AddressError, NatsTarget, NatsUrl};
pub use keys::{
    Admin, Auth, AuthMode, Coap, Commands, Dtls, Events, Instance, Log, LogForm, Mqtt, Nats, Presence, Row,
    Tls, Top, Udp, WhenAway,
};
pub(crate) use kind::parse_duration;
pub use log::{LogFilter, LogFilterError};
pub use source::{Environment, File, Origin, Problem, Problems, Source};

use source::Reader;

/// The settings file that is read when none is named and it is there.
pub const DEFAULT_FILE: &str = "landfall.toml";

/// Every setting, valid.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is no fault and probably not meant, in sentences.
    pub warnings: Vec<String>,
    /// How long an orderly stop may take.
    pub drain_timeout: Duration,
    /// `[instance]`
    pub instance: Instance,
    /// `[nats]`
    pub nats: Nats,
    /// `[events]`
    pub events: Events,
    /// `[mqtt]`
    pub mqtt: Mqtt,
    /// `[coap]`
    pub coap: Coap,
    /// `[udp]`
    pub udp: Udp,
    /// `[tls]`
    pub tls: Tls,
    /// `[dtls]`
    pub dtls: Dtls,
    /// `[auth]`
    pub auth: Auth,
    /// `[presence]`
    pub presence: Presence,
    /// `[commands]`
    pub commands: Commands,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
}

impl Settings {
    /// Reads the file that is named, else [`DEFAULT_FILE`] if it is there, and the environment.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn find(named: Option<&Path>, environment: &Environment) -> Result<Self, Problems> {
        let default = Path::new(DEFAULT_FILE);
        let path = named.or_else(|| default.exists().then_some(default));
        let file = path.map(source::read_file).transpose().map_err(|problem| Problems(vec![problem]))?;
        Self::load(file.as_ref(), environment)
    }

    /// Reads a file's text and the environment, which goes before it.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(file: Option<&File>, environment: &Environment) -> Result<Self, Problems> {
        let mut reader = Reader::new(file, environment);
        let settings = Self::read(&mut reader);
        if let Some(settings) = &settings {
            rules::check(settings, &mut reader);
        }
        match (settings, reader.finish()) {
            (Some(settings), problems) if problems.is_empty() => Ok(settings),
            (_, problems) => Err(Problems(problems)),
        }
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        let top = Top::read(reader);
        let instance = Instance::read(reader);
        let nats = Nats::read(reader);
        let events = Events::read(reader);
        let mqtt = Mqtt::read(reader);
        let coap = Coap::read(reader);
        let udp = Udp::read(reader);
        let tls = Tls::read(reader);
        let dtls = Dtls::read(reader);
        let auth = Auth::read(reader);
        let presence = Presence::read(reader);
        let commands = Commands::read(reader);
        let admin = Admin::read(reader);
        let log = Log::read(reader);
        Some(Self {
            warnings: reader.warnings(),
            drain_timeout: top?.drain_timeout,
            instance: instance?,
            nats: nats?,
            events: events?,
            mqtt: mqtt?,
            coap: coap?,
            udp: udp?,
            tls: tls?,
            dtls: dtls?,
            auth: auth?,
            presence: presence?,
            commands: commands?,
            admin: admin?,
            log: log?,
        })
    }

    /// Every key in the order of the sections, with its value in force.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Top { drain_timeout: self.drain_timeout }.rows();
        rows.extend(self.instance.rows());
        rows.extend(self.nats.rows());
        rows.extend(self.events.rows());
        rows.extend(self.mqtt.rows());
        rows.extend(self.coap.rows());
        rows.extend(self.udp.rows());
        rows.extend(self.tls.rows());
        rows.extend(self.dtls.rows());
        rows.extend(self.auth.rows());
        rows.extend(self.presence.rows());
        rows.extend(self.commands.rows());
        rows.extend(self.admin.rows());
        rows.extend(self.log.rows());
        rows
    }
}

/// What each section is about, in their order.
pub(crate) const SECTIONS: [(&str, &[&str]); 14] = [
    ("", Top::ABOUT),
    ("instance", Instance::ABOUT),
    ("nats", Nats::ABOUT),
    ("events", Events::ABOUT),
    ("mqtt", Mqtt::ABOUT),
    ("coap", Coap::ABOUT),
    ("udp", Udp::ABOUT),
    ("tls", Tls::ABOUT),
    ("dtls", Dtls::ABOUT),
    ("auth", Auth::ABOUT),
    ("presence", Presence::ABOUT),
    ("commands", Commands::ABOUT),
    ("admin", Admin::ABOUT),
    ("log", Log::ABOUT),
];

impl Instance {
    /// The name of this process: the configured one, else the host's name and a random part, new at every call.
    pub fn replica(&self) -> ReplicaId {
        self.replica.clone().unwrap_or_else(|| generated_replica(&host_name(), rand::random()))
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Characters that a subject token cannot hold become `-`.
fn generated_replica(host: &str, random: u32) -> ReplicaId {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let host: String = host.chars().take(100).map(plain).collect();
    let host = if host.is_empty() { "gateway" } else { &host };
    let name = format!("{host}-{random:08x}");
    #[expect(clippy::expect_used, reason = "at most 109 characters, each of them of the alphabet")]
    name.parse().expect("a generated name is a subject token")
}
