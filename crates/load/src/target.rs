//! What is loaded: a way of speaking and an address.
//!
//! Owns: reading it from the command line. Does not own: sockets.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// CoAP over UDP.
    Coap,
    /// The `LF1` line over UDP.
    Udp,
    /// The `LF1` line over DTLS.
    Dtls,
}

impl Carrier {
    const ALL: [(&'static str, Self, u16); 8] = [
        ("tcp", Self::Tcp, 1883),
        ("mqtt", Self::Tcp, 1883),
        ("tls", Self::Tls, 8883),
        ("ws", Self::Ws, 80),
        ("wss", Self::Wss, 443),
        ("coap", Self::Coap, 5683),
        ("udp", Self::Udp, 7683),
        ("dtls", Self::Dtls, 7684),
    ];

    /// A connection of TCP, which its end is seen of.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Ws | Self::Wss)
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// `tcp://127.0.0.1:1883`, `ws://host/mqtt`, `coap://host`; without a scheme it is MQTT over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) carrier: Carrier,
    pub(crate) address: SocketAddr,
    /// As it was written: TLS and HTTP want to know.
    pub(crate) host: String,
    /// Of a WebSocket.
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let found = Carrier::ALL.iter().find(|(name, ..)| *name == scheme);
        let (_, carrier, port) = found.ok_or_else(|| {
            let names: Vec<_> = Carrier::ALL.iter().map(|(name, ..)| *name).collect();
            format!("the scheme is one of {}", names.join(", "))
        })?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "mqtt"));
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let full = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        let resolved = full.to_socket_addrs().map_err(|error| format!("{full}: {error}"))?;
        // A name may lead to both families; a gateway's default is IPv4.
        let addresses: Vec<SocketAddr> = resolved.collect();
        let address = addresses.iter().find(|one| one.is_ipv4()).or(addresses.first());
        let host = full.rsplit_once(':').map_or(full.as_str(), |(host, _)| host);
        Ok(Self {
            carrier: *carrier,
            address: *address.ok_or_else(|| format!("{full} leads nowhere"))?,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            path: format!("/{path}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read() {
        let target: Target = "127.0.0.1:18".parse().unwrap();
        assert_eq!((target.carrier, target.address), (Carrier::Tcp, "127.0.0.1:18".parse().unwrap()));
        let target: Target = "ws://127.0.0.1:9001/a/b".parse().unwrap();
        assert_eq!((target.carrier, target.path.as_str()), (Carrier::Ws, "/a/b"));
        let target: Target = "coap://127.0.0.1".parse().unwrap();
        assert_eq!((target.carrier, target.address.port()), (Carrier::Coap, 5683));
        let target: Target = "tls://[::1]:8883".parse().unwrap();
        assert_eq!((target.host.as_str(), target.address), ("::1", "[::1]:8883".parse().unwrap()));
        assert!("http://127.0.0.1".parse::<Target>().unwrap_err().contains("tcp, mqtt, tls"));
    }
}
