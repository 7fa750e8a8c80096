//! Who the clients are: identities, keys, addresses, what they say.
//!
//! Owns: what a client's number leads to, and bringing it to a session. Does not own: the client's protocol
//! ([`super::client`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::crypto::{CryptoProvider, Dtls12CipherSuite, rust_crypto};
use dimpl::{Config, PskResolver};
use tokio::net::UdpSocket;

use super::Dtls;
use super::client::{Client, Scratch, Words};

/// More than any handshake needs that ends within its patience.
const FLIGHTS_AGAIN: usize = 100;
/// 127.0.1.1.
const FIRST_SOURCE: u32 = 0x7f00_0101;

/// Clients 0 and on.
pub(super) struct Fleet {
    server: SocketAddr,
    /// Of each identity.
    people: Vec<(Arc<Config>, Words)>,
    sources: u32,
    lose: u8,
    /// Datagrams are answered.
    pub(super) answered: bool,
}

/// What became of a handshake.
pub(super) enum Shaken {
    Open(Client),
    Lost { why: String, flights_again: u64 },
}

struct Key(Vec<u8>);

impl PskResolver for Key {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digit = |at: usize| hex.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let read: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digit).collect();
    read.filter(|key| !key.is_empty()).ok_or_else(|| "the key is not bytes in hex".to_owned())
}

/// PSK with AES-128-CCM-8 and nothing else: dimpl tries out whatever is there for each configuration, and each identity
/// needs one.
fn provider() -> CryptoProvider {
    let mut provider = rust_crypto::default_provider();
    let suites = provider.cipher_suites.iter().copied();
    let suites: Vec<_> = suites.filter(|one| one.suite() == Dtls12CipherSuite::PSK_AES128_CCM_8).collect();
    // Once in a process.
    provider.cipher_suites = suites.leak();
    provider.kx_groups = &[];
    provider
}

impl Fleet {
    pub(super) fn new(settings: &Dtls) -> Result<Self, String> {
        let key = Arc::new(Key(bytes(&settings.key)?));
        let provider = provider();
        let mut people = Vec::new();
        for n in 0..settings.identities {
            let identity = settings.identity.replace("{n}", &n.to_string());
            let config = Config::builder()
                .with_crypto_provider(provider.clone())
                .dtls13_cipher_suites(&[])
                .flight_start_rto(Duration::from_millis(settings.resend))
                .flight_retries(FLIGHTS_AGAIN)
                .handshake_timeout(Duration::from_secs(settings.patience))
                .with_psk_client(identity.clone().into_bytes(), Arc::<Key>::clone(&key))
                .build()
                .map_err(|error| format!("the settings of {identity}: {error}"))?;
            let words = match &settings.text {
                Some(text) => Words::of(&text.replace("{id}", &identity)),
                None => Words::of(&"x".repeat(usize::from(settings.size))),
            };
            people.push((Arc::new(config), words));
        }
        let (sources, lose, answered) = (settings.sources.into(), settings.lose, settings.answered);
        Ok(Self { server: settings.server, people, sources, lose, answered })
    }

    /// The address that client `n` comes from.
    fn source(&self, n: u32) -> IpAddr {
        match self.server.ip() {
            IpAddr::V4(server) if server.is_loopback() => {
                IpAddr::V4(Ipv4Addr::from(FIRST_SOURCE + n % self.sources))
            }
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Client `n` shakes hands, from a socket of its own.
    pub(super) async fn shake(&self, n: u32, scratch: &mut Scratch) -> Result<Shaken, String> {
        let failed = |error: std::io::Error| format!("client {n}: a socket towards {}: {error}", self.server);
        let socket = UdpSocket::bind((self.source(n), 0)).await.map_err(failed)?;
        socket.connect(self.server).await.map_err(failed)?;
        let place = usize::try_from(n).unwrap_or(0) % self.people.len().max(1);
        let Some((config, words)) = self.people.get(place) else { return Err("nobody to be".into()) };
        let mut client =
            Client::new(socket, Arc::clone(config), words.clone(), (self.lose, n), Instant::now());
        Ok(match client.shake(scratch).await {
            Ok(()) => Shaken::Open(client),
            Err(why) => {
                Shaken::Lost { why: format!("client {n}: {why}"), flights_again: client.flights_again() }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_hex() {
        assert_eq!(bytes("6c61FF"), Ok(vec![0x6c, 0x61, 0xff]));
        for wrong in ["", "6", "6c6", "0x6c", "é9"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
    }
}
