//! Other people's clients as processes: mosquitto's and libcoap's from Debian, paho and aiocoap from PyPI.
//!
//! Owns: their command lines. Does not own: what they should do to the gateway (the tests say).

pub mod dtls;

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

/// A mosquitto as a bridge to `gateway`: `more` are the further lines of its configuration's `connection`. Its files and its local
/// socket are in `folder`; `None` when it is not installed and need not be.
///
/// # Panics
/// When the configuration cannot be written.
pub fn mosquitto_bridge(folder: &Path, gateway: SocketAddr, more: &str) -> Option<Process> {
    let path = paths::interop("mosquitto", paths::program("mosquitto"))?;
    let (file, socket) = (folder.join("mosquitto.conf"), folder.join("socket"));
    // As root it would become a user that may not write here; `user` says nothing to anybody else.
    let settings = format!(
        "user root\nlistener 0 {}\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type all\n\
         connection up\naddress {gateway}\nrestart_timeout 1\n{more}",
        socket.display()
    );
    std::fs::write(&file, settings).expect("the configuration of a bridge");
    let mut command = Command::new(path);
    command.arg("-c").arg(file);
    Some(Process::spawn("mosquitto", command))
}

/// `mosquitto_pub` to the local socket of a [`mosquitto_bridge`] in `folder`.
pub fn mosquitto_pub_local(folder: &Path, more: &[&str]) -> Option<Process> {
    let path = paths::interop("mosquitto_pub", paths::program("mosquitto_pub"))?;
    let mut command = Command::new(path);
    command.arg("--unix").arg(folder.join("socket")).args(more).env("HOME", folder);
    Some(Process::spawn("mosquitto_pub", command))
}

/// The paho script `tests/data/paho_device.py` as device `device`; `None` when paho is not installed and need not be.
pub fn paho(route: Route<'_>, version: Version, device: &str, more: &[&str]) -> Option<Process> {
    let python = paths::interop("paho-mqtt", paths::python("paho"))?;
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

/// libcoap's `coap-client` with these arguments, the last of which is usually the URI; `None` when it is not installed and
/// need not be. It ends by itself after its answer, or `-s` or `-B` seconds.
pub fn coap_client(arguments: &[&str]) -> Option<Process> {
    let mut command = Command::new(paths::interop("coap-client", paths::libcoap("coap-client"))?);
    command.args(arguments);
    Some(Process::spawn("coap-client", command))
}

/// libcoap's `coap-server` on a port of 127.0.0.1, which shows that a client of ours is right about CoAP before it judges
/// the gateway; `None` when it is not installed and need not be.
pub fn coap_server(port: u16, more: &[&str]) -> Option<Process> {
    let mut command = Command::new(paths::interop("coap-server", paths::libcoap("coap-server"))?);
    command.args(["-A", "127.0.0.1", "-p", &port.to_string()]).args(more);
    Some(Process::spawn("coap-server", command))
}

/// The aiocoap script `tests/data/aiocoap_device.py` as device `device`; `None` when aiocoap is not installed and need not
/// be.
pub fn aiocoap(address: SocketAddr, device: &str, more: &[&str]) -> Option<Process> {
    let mut command = Command::new(paths::interop("aiocoap", paths::python("aiocoap"))?);
    command.arg(paths::repository().join("tests/data/aiocoap_device.py"));
    command.args([
        "--host",
        &address.ip().to_string(),
        "--port",
        &address.port().to_string(),
        "--id",
        device,
    ]);
    command.args(more);
    Some(Process::spawn("aiocoap", command))
}
