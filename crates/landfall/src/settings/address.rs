//! Addresses in the settings: what the gateway listens on, and where NATS is.
//!
//! Owns: their place in the settings, and keeping credentials in a NATS URL out of every text. Does not own: the grammar of
//! a listen address and the sockets (`landfall-net`), the connection to NATS (`landfall-nats`).

use std::fmt;
use std::str::FromStr;

use landfall_net::{DatagramEndpoint, Endpoint, StreamKind};

use super::kind::{Kind, text, toml_string};
use crate::document::Value;

/// The kind of `mqtt.listen`'s entries.
pub(crate) struct StreamListenKind;

impl Kind for StreamListenKind {
    type Value = Endpoint;

    fn read(&self, value: &Value) -> Option<Endpoint> {
        text(value)?.parse().ok()
    }

    fn allowed(&self) -> String {
        "addresses such as \"tcp://127.0.0.1:1883\" (tcp, tls, ws or wss; IPv4, IPv6 in brackets, or a name; port)".to_owned()
    }

    fn show(&self, value: &Endpoint) -> String {
        toml_string(&value.to_string())
    }
}

/// The kind of `coap.listen`'s and `udp.listen`'s entries.
pub(crate) struct DatagramListenKind;

impl Kind for DatagramListenKind {
    type Value = DatagramEndpoint;

    fn read(&self, value: &Value) -> Option<DatagramEndpoint> {
        text(value)?.parse().ok()
    }

    fn allowed(&self) -> String {
        "addresses such as \"udp://127.0.0.1:5683\" (udp or dtls; IPv4, IPv6 in brackets, or a name; port)"
            .to_owned()
    }

    fn show(&self, value: &DatagramEndpoint) -> String {
        toml_string(&value.to_string())
    }
}

/// The kind of `admin.listen`: plain TCP, so written without a scheme.
pub(crate) struct HostPortKind;

impl Kind for HostPortKind {
    type Value = Endpoint;

    fn read(&self, value: &Value) -> Option<Endpoint> {
        host_port(text(value)?)
    }

    fn allowed(&self) -> String {
        "a host and a port such as \"127.0.0.1:8080\"".to_owned()
    }

    fn show(&self, value: &Endpoint) -> String {
        toml_string(&without_scheme(value))
    }
}

/// `host:port` of an endpoint that has only one scheme.
pub(super) fn without_scheme(endpoint: &Endpoint) -> String {
    let text = endpoint.to_string();
    text.strip_prefix("tcp://").unwrap_or(&text).to_owned()
}

fn host_port(text: &str) -> Option<Endpoint> {
    let endpoint: Endpoint = format!("tcp://{text}").parse().ok()?;
    (endpoint.kind() == StreamKind::Tcp).then_some(endpoint)
}

/// The name of a host, without a port; in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if text.is_empty() || text.len() > 253 || !plain {
            Err(())
        } else {
            Ok(Self(text.to_ascii_lowercase()))
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no address of NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the address of a NATS server, such as nats://127.0.0.1:4222 or tls://nats.example")]
pub struct AddressError;

/// One NATS server: `nats://host[:port]` or `tls://host[:port]`, perhaps with `user:password@` or `token@`. Its `Debug` and
/// `Display` leave out the credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl {
    scheme: &'static str,
    userinfo: Option<String>,
    at: Endpoint,
}

const NATS_PORT: u16 = 4222;

impl NatsUrl {
    /// The whole URL with its credentials, for the connection only.
    pub fn expose(&self) -> String {
        match &self.userinfo {
            Some(userinfo) => format!("{}://{userinfo}@{}", self.scheme, self.host_port()),
            None => self.to_string(),
        }
    }

    /// The URL without credentials, and these as they are written: a user and a password, or a token alone.
    pub(crate) fn parts(&self) -> (String, Option<(&str, Option<&str>)>) {
        let user = self.userinfo.as_deref().map(|userinfo| match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        });
        (format!("{}://{}", self.scheme, self.host_port()), user)
    }

    /// Its host, without brackets, and its port.
    pub fn address(&self) -> (&str, u16) {
        (self.at.host(), self.at.port())
    }

    fn host_port(&self) -> String {
        without_scheme(&self.at)
    }
}

impl FromStr for NatsUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (word, rest) = text.split_once("://").ok_or(AddressError)?;
        let scheme = ["nats", "tls"].into_iter().find(|s| *s == word).ok_or(AddressError)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (userinfo, at) = match rest.rsplit_once('@') {
            Some((userinfo, at)) => (Some(userinfo.to_owned()), at.to_owned()),
            None => (None, rest.to_owned()),
        };
        let at = host_port(&at).or_else(|| host_port(&format!("{at}:{NATS_PORT}")));
        let broken = userinfo.as_deref().is_some_and(|u| u.is_empty() || u.contains(char::is_whitespace));
        match at {
            Some(at) if !broken => Ok(Self { scheme, userinfo, at }),
            _ => Err(AddressError),
        }
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let userinfo = if self.userinfo.is_some() { "***@" } else { "" };
        write!(f, "{}://{userinfo}{}", self.scheme, self.host_port())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where NATS is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsTarget {
    /// The gateway starts and supervises a server of its own.
    Embedded,
    /// These servers of one cluster; never empty.
    Servers(Vec<NatsUrl>),
}

impl FromStr for NatsTarget {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        text.split(',').map(|url| url.trim().parse()).collect::<Result<_, _>>().map(Self::Servers)
    }
}

impl fmt::Display for NatsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Servers(urls) => {
                let urls: Vec<_> = urls.iter().map(NatsUrl::to_string).collect();
                f.write_str(&urls.join(","))
            }
        }
    }
}

/// The kind of `nats.url`. An error never repeats what was written: it may hold a password.
pub(crate) struct NatsTargetKind;

impl Kind for NatsTargetKind {
    type Value = NatsTarget;

    fn read(&self, value: &Value) -> Option<NatsTarget> {
        text(value)?.parse().ok()
    }

    fn allowed(&self) -> String {
        "\"embedded\", or one or more of nats://[user:password@]host[:port] and tls://… between commas"
            .to_owned()
    }

    fn show(&self, value: &NatsTarget) -> String {
        toml_string(&value.to_string())
    }

    fn is_secret(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_has_no_scheme_and_no_path() {
        let read = |text: &str| HostPortKind.read(&Value::Text(text.to_owned()));
        for text in ["127.0.0.1:8080", "[::1]:0", "localhost:80"] {
            assert_eq!(HostPortKind.show(&read(text).unwrap()), format!("\"{text}\""));
        }
        for text in ["", "8080", "127.0.0.1", "tcp://127.0.0.1:1", "127.0.0.1:1/x"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_nats_url_hides_its_credentials() {
        let target: NatsTarget = "nats://app:hunter2@n1:4222, tls://s3cr3t@n2".parse().unwrap();
        let shown = format!("{target} {target:?} {}", NatsTargetKind.show(&target));
        assert!(!shown.contains("hunter2") && !shown.contains("s3cr3t") && !shown.contains("app"), "{shown}");
        let NatsTarget::Servers(urls) = target else { panic!("not embedded") };
        assert_eq!(urls[0].expose(), "nats://app:hunter2@n1:4222");
        assert_eq!(urls[1].expose(), "tls://s3cr3t@n2:4222");
    }

    #[test]
    fn nats_urls_need_a_scheme_and_a_host() {
        for text in [
            "",
            "127.0.0.1:4222",
            "http://h",
            "nats://",
            "nats://a,",
            "nats://@h",
            "nats://h:0x1",
            "nats://h/x",
        ] {
            assert_eq!(text.parse::<NatsTarget>(), Err(AddressError), "{text}");
        }
        assert_eq!("embedded".parse(), Ok(NatsTarget::Embedded));
        assert_eq!("nats://h/".parse::<NatsTarget>().unwrap().to_string(), "nats://h:4222");
        assert_eq!("nats://[::1]".parse::<NatsTarget>().unwrap().to_string(), "nats://[::1]:4222");
    }
}
