//! Listen addresses: `tcp://`, `tls://`, `ws://` and `wss://` for streams, `udp://` and `dtls://` for
//! datagrams.
//!
//! Owns: the grammar of one listen address and its error texts. Does not own: name lookup and binding (`accept`,
//! `datagram`).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// What a connection is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Plain TCP.
    Tcp,
    /// TLS 1.2 or 1.3 over TCP.
    Tls,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl StreamKind {
    /// The scheme of its address.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Does it need a certificate?
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Does it begin with an HTTP upgrade?
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// What a datagram is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramKind {
    /// Plain UDP.
    Udp,
    /// DTLS over UDP.
    Dtls,
}

impl DatagramKind {
    /// The scheme of its address.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Dtls => "dtls",
        }
    }

    /// Does it need a key or a certificate?
    pub fn is_dtls(self) -> bool {
        self == Self::Dtls
    }
}

/// A listen address that does not parse. Its text names the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no listen address: {problem}; allowed: {schemes}; {PARTS}")]
pub struct EndpointError {
    value: String,
    problem: &'static str,
    schemes: &'static str,
}

const STREAMS: &str = "tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT[/PATH], wss://HOST:PORT[/PATH]";
const DATAGRAMS: &str = "udp://HOST:PORT, dtls://HOST:PORT";
const PARTS: &str = "HOST is an IPv4 address, an IPv6 address in brackets or a name, PORT is 0 to 65535 (0: any free \
                     port)";

/// A parsed listen address.
///
/// WebSocket addresses may name a path; without one, upgrades are taken at `/mqtt` and at `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    kind: StreamKind,
    /// Without brackets.
    host: Arc<str>,
    port: u16,
    /// With its leading `/`; only on WebSocket addresses.
    path: Option<Arc<str>>,
}

impl Endpoint {
    /// What its connections are wrapped in.
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// The address or name to bind, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 asks for any free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The one path that upgrades are taken at, when the address names one.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Is it reachable from this machine only? A name counts as loopback only when it is `localhost`.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The same endpoint at the address that it was bound to.
    #[must_use]
    pub fn bound_to(&self, local: SocketAddr) -> Self {
        Self { host: local.ip().to_string().into(), port: local.port(), ..self.clone() }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(value: &str) -> Result<Self, EndpointError> {
        parse_stream(value).map_err(|problem| EndpointError {
            value: value.to_owned(),
            problem,
            schemes: STREAMS,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_address(f, self.kind.scheme(), &self.host, self.port)?;
        f.write_str(self.path.as_deref().unwrap_or_default())
    }
}

/// A parsed listen address of datagrams.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatagramEndpoint {
    kind: DatagramKind,
    /// Without brackets.
    host: Arc<str>,
    port: u16,
}

impl DatagramEndpoint {
    /// What its datagrams are wrapped in.
    pub fn kind(&self) -> DatagramKind {
        self.kind
    }

    /// The address or name to bind, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 asks for any free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Is it reachable from this machine only? A name counts as loopback only when it is `localhost`.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The same endpoint at the address that it was bound to.
    #[must_use]
    pub fn bound_to(&self, local: SocketAddr) -> Self {
        Self { host: local.ip().to_string().into(), port: local.port(), ..self.clone() }
    }
}

impl FromStr for DatagramEndpoint {
    type Err = EndpointError;

    fn from_str(value: &str) -> Result<Self, EndpointError> {
        parse_datagram(value).map_err(|problem| EndpointError {
            value: value.to_owned(),
            problem,
            schemes: DATAGRAMS,
        })
    }
}

impl fmt::Display for DatagramEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_address(f, self.kind.scheme(), &self.host, self.port)
    }
}

/// Why a listener is not there. Its text names the address and what the system said.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name has no address.
    #[error("cannot listen at {endpoint}: its host name has no address: {source}")]
    Lookup {
        /// The listen address.
        endpoint: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The address cannot be bound.
    #[error("cannot listen at {endpoint}: {source}")]
    Bind {
        /// The listen address.
        endpoint: String,
        /// What the system said.
        source: io::Error,
    },
    /// It needs a certificate and there is none.
    #[error("cannot listen at {endpoint}: {scheme}:// needs tls.cert and tls.key")]
    NoTls {
        /// The listen address.
        endpoint: String,
        /// Its scheme.
        scheme: &'static str,
    },
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn write_address(f: &mut fmt::Formatter<'_>, scheme: &str, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "{scheme}://[{host}]:{port}")
    } else {
        write!(f, "{scheme}://{host}:{port}")
    }
}

fn parse_datagram(value: &str) -> Result<DatagramEndpoint, &'static str> {
    let (scheme, rest) = value.split_once("://").ok_or("it has no scheme")?;
    let kind = match scheme {
        "udp" => DatagramKind::Udp,
        "dtls" => DatagramKind::Dtls,
        _ => return Err("its scheme is unknown"),
    };
    if rest.contains('/') {
        return Err("it has no path");
    }
    let (host, port) = parse_authority(rest)?;
    Ok(DatagramEndpoint { kind, host, port })
}

fn parse_stream(value: &str) -> Result<Endpoint, &'static str> {
    let (scheme, rest) = value.split_once("://").ok_or("it has no scheme")?;
    let kind = match scheme {
        "tcp" => StreamKind::Tcp,
        "tls" => StreamKind::Tls,
        "ws" => StreamKind::Ws,
        "wss" => StreamKind::Wss,
        _ => return Err("its scheme is unknown"),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let path = match path {
        "" => None,
        _ if !kind.is_websocket() => return Err("only ws:// and wss:// have a path"),
        _ if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#') => {
            return Err("its path has a character that a path cannot have");
        }
        _ => Some(Arc::from(path)),
    };
    let (host, port) = parse_authority(authority)?;
    Ok(Endpoint { kind, host, port, path })
}

fn parse_authority(authority: &str) -> Result<(Arc<str>, u16), &'static str> {
    let (host, port) = authority.rsplit_once(':').ok_or("it has no port")?;
    let host = parse_host(host)?;
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err("its port is not a number");
    }
    let port = port.parse().map_err(|_| "its port is above 65535")?;
    Ok((host, port))
}

fn parse_host(host: &str) -> Result<Arc<str>, &'static str> {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let ip: Ipv6Addr = inner.parse().map_err(|_| "what stands in brackets is no IPv6 address")?;
        return Ok(ip.to_string().into());
    }
    if host.is_empty() {
        return Err("it has no host");
    }
    if host.contains(':') {
        return Err("an IPv6 address stands in brackets");
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        host.parse::<Ipv4Addr>().map_err(|_| "its host is no IPv4 address")?;
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err("its host is no name");
    }
    Ok(host.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Endpoint {
        text.parse().expect(text)
    }

    #[test]
    fn every_scheme_parses_and_prints_back() {
        for text in [
            "tcp://127.0.0.1:1883",
            "tls://[::1]:8883",
            "ws://localhost:0",
            "wss://gateway.example:443/devices/mqtt",
            "tcp://0.0.0.0:65535",
        ] {
            assert_eq!(parsed(text).to_string(), text);
        }
        assert_eq!(parsed("wss://a:1/x").path(), Some("/x"));
        assert_eq!(parsed("ws://a:1").path(), None);
        assert_eq!(parsed("tls://[0:0::1]:1").host(), "::1");
    }

    #[test]
    fn what_is_not_an_address_is_told_with_the_value_and_what_is_allowed() {
        for (text, problem) in [
            ("127.0.0.1:1883", "no scheme"),
            ("udp://127.0.0.1:1883", "scheme is unknown"),
            ("TCP://127.0.0.1:1883", "scheme is unknown"),
            ("tcp://127.0.0.1", "no port"),
            ("tcp://127.0.0.1:", "port is not a number"),
            ("tcp://127.0.0.1:+1", "port is not a number"),
            ("tcp://127.0.0.1:65536", "above 65535"),
            ("tcp://:1883", "no host"),
            ("tcp://::1:1883", "brackets"),
            ("tcp://[::g]:1883", "no IPv6 address"),
            ("tcp://1.2.3.256:1", "no IPv4 address"),
            ("tcp://a b:1", "no name"),
            ("tcp://a..b:1", "no name"),
            ("tcp://a:1/mqtt", "have a path"),
            ("ws://a:1/a b", "path has a character"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(problem), "{error}");
            assert!(error.contains(&format!("{text:?}")) && error.contains("wss://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn loopback_is_an_address_or_localhost() {
        for text in ["tcp://127.0.0.1:1", "tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://localhost:1"] {
            assert!(parsed(text).is_loopback(), "{text}");
        }
        for text in ["tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://gateway:1", "tcp://10.0.0.1:1"] {
            assert!(!parsed(text).is_loopback(), "{text}");
        }
        assert!(parsed("tcp://[::ffff:127.0.0.1]:1").is_loopback());
    }

    #[test]
    fn a_datagram_address_has_the_same_grammar_without_a_path() {
        for text in
            ["udp://127.0.0.1:5683", "udp://[::1]:0", "udp://gateway.example:65535", "dtls://[::]:5684"]
        {
            assert_eq!(text.parse::<DatagramEndpoint>().expect(text).to_string(), text);
        }
        for (text, problem) in [
            ("tcp://127.0.0.1:1", "scheme is unknown"),
            ("coap://127.0.0.1:1", "scheme is unknown"),
            ("coaps://127.0.0.1:1", "scheme is unknown"),
            ("DTLS://127.0.0.1:1", "scheme is unknown"),
            ("dtls://127.0.0.1:1/x", "no path"),
            ("dtls://:1", "no host"),
            ("127.0.0.1:5683", "no scheme"),
            ("udp://127.0.0.1:1/x", "no path"),
            ("udp://127.0.0.1", "no port"),
            ("udp://::1:1", "brackets"),
            ("udp://1.2.3.256:1", "no IPv4 address"),
        ] {
            let error = text.parse::<DatagramEndpoint>().expect_err(text).to_string();
            assert!(error.contains(problem), "{error}");
            assert!(
                error.contains(&format!("{text:?}")) && error.contains("udp://HOST:PORT, dtls://HOST:PORT;"),
                "{error}"
            );
            assert!(!error.contains("tcp://HOST"), "{error}");
        }
        let endpoint: DatagramEndpoint = "udp://localhost:0".parse().expect("an address");
        assert!(endpoint.is_loopback());
        let bound = endpoint.bound_to("127.0.0.1:77".parse().expect("an address"));
        assert_eq!((bound.to_string().as_str(), bound.kind()), ("udp://127.0.0.1:77", DatagramKind::Udp));
        let secure: DatagramEndpoint = "dtls://localhost:5684".parse().expect("an address");
        assert!(secure.kind().is_dtls() && !bound.kind().is_dtls() && secure.is_loopback());
        let bound = secure.bound_to("[::1]:77".parse().expect("an address"));
        assert_eq!(bound.to_string(), "dtls://[::1]:77");
    }
}
