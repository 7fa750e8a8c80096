//! Other people's MQTT clients as processes: mosquitto's from Debian and paho from PyPI.
//!
//! Owns: their command lines. Does not own: what they should do to the gateway (the tests say).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::packet::Version;
use crate::paths;
use crate::pki::{Identity, Pki};
use crate::process::Process;

/// How a client reaches the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// TCP.
    Tcp,
    /// TLS, the server proven.
    Tls,
    /// TLS, both sides proven.
    MutualTls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Over {
    /// The listener's scheme.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls | Self::MutualTls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The event's `transport`.
    pub fn transport(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls | Self::MutualTls => "mqtts",
            Self::Ws => "mqtt-ws",
            Self::Wss => "mqtt-wss",
        }
    }

    /// True where TLS is spoken.
    pub fn is_secure(self) -> bool {
        !matches!(self, Self::Tcp | Self::Ws)
    }
}

/// What a client needs to reach the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The way.
    pub over: Over,
    /// The listener.
    pub address: SocketAddr,
    /// Who is trusted, where TLS is spoken.
    pub pki: &'a Pki,
    /// What the client shows, where both sides are proven.
    pub identity: Option<&'a Identity>,
}

/// `mosquitto_pub` or `mosquitto_sub` with further arguments; `None` when it is not installed and need not be.
pub fn mosquitto(program: &str, route: Route<'_>, version: Version, more: &[&str]) -> Option<Process> {
    let path = paths::interop(program, paths::program(program))?;
    let mut command = Command::new(path);
    let version = match version {
        Version::V4 => "mqttv311",
        Version::V5 => "mqttv5",
    };
    command.args(["-h", "localhost", "-p", &route.address.port().to_string(), "-V", version]);
    if route.over.is_secure() {
        command.arg("--cafile").arg(route.pki.authority());
    }
    if let Some(identity) = route.identity {
        command.arg("--cert").arg(&identity.certificate).arg("--key").arg(&identity.key);
    }
    command.args(more);
    // Its HOME may hold options of the machine's user.
    command.env("HOME", route.pki.authority().parent().unwrap_or(Path::new("/")));
    Some(Process::spawn(program, command))
}

/// The paho script `tests/data/paho_device.py` as device `device`; `None` when paho is not installed and need not be.
pub fn paho(route: Route<'_>, version: Version, device: &str, more: &[&str]) -> Option<Process> {
    let python = paths::interop("paho-mqtt", paths::python())?;
    let mut command = Command::new(python);
    command.arg(paths::repository().join("tests/data/paho_device.py"));
    command.args(["--port", &route.address.port().to_string(), "--id", device]);
    command.args(["--version", &version.level().to_string()]);
    if matches!(route.over, Over::Ws | Over::Wss) {
        command.arg("--websocket");
    }
    if route.over.is_secure() {
        command.arg("--ca").arg(route.pki.authority());
    }
    if let Some(identity) = route.identity {
        command.arg("--cert").arg(&identity.certificate).arg("--key").arg(&identity.key);
    }
    command.args(more);
    Some(Process::spawn("paho", command))
}
