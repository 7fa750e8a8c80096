//! Who the clients are: identities, keys, addresses, what they say.
//!
//! Owns: what a client's number leads to, and bringing it to a session. Does not own: the client's protocol
//! ([`super::client`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use dimpl::crypto::{CryptoProvider, Dtls12CipherSuite, rust_crypto};
use dimpl::{Config, PskResolver};

use super::client::{Client, Scratch, Words};
use crate::sources::Sources;

/// More than any handshake needs that ends within its patience.
const FLIGHTS_AGAIN: usize = 100;

/// Settings of the clients.
#[derive(Args, Clone, Debug)]
pub(crate) struct Clients {
    /// The server.
    #[arg(long, global = true, default_value = "127.0.0.1:7684")]
    pub(super) server: SocketAddr,
    /// The clients' PSK identity; an `n` in braces is a client's number, from 0.
    #[arg(long, global = true, default_value = "bench-{n}")]
    pub(super) identity: String,
    /// How many identities there are: client n shows the identity of n modulo this. More than clients at a time, where the
    /// server lets a device take over from itself.
    #[arg(long, global = true, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) identities: u32,
    /// The key of all identities, in hex.
    #[arg(long, global = true, default_value = "6c616e6466616c6c2d6c6f61642d6b79")]
    pub(super) key: String,
    /// Bytes of a datagram's content.
    #[arg(long, global = true, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_200))]
    pub(super) size: u16,
    /// What a datagram says instead of `size` bytes; `{id}` is the client's identity, an `n` in braces the datagram's number
    /// in its session, from 1.
    #[arg(long, global = true)]
    pub(super) text: Option<String>,
    /// The server answers every datagram with one: the clients wait for that, and say again what was not answered.
    #[arg(long, global = true)]
    pub(super) answered: bool,
    /// Addresses of 127.0.1.0/24 and on that the clients come from, in turn, when the server's is a loopback address of
    /// IPv4: an address has 28,000 ports, and a server may bound what one address can hold.
    #[arg(long, global = true, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(super) sources: u32,
    /// Of 100 datagrams, how many are lost on their way, each way.
    #[arg(long, global = true, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    pub(super) lose: u8,
    /// When a flight of the handshake is sent again for the first time, in ms (RFC 6347, section 4.2.4.1).
    #[arg(long, global = true, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) resend: u64,
    /// How long a handshake may take, in seconds.
    #[arg(long, global = true, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) patience: u64,
}

/// Clients 0 and on.
pub(crate) struct Fleet {
    server: SocketAddr,
    /// Of each identity.
    people: Vec<(Arc<Config>, Words)>,
    sources: Sources,
    lose: u8,
    /// Datagrams are answered.
    pub(super) answered: bool,
}

/// What became of a handshake.
pub(crate) enum Shaken {
    Open(Client),
    Lost { why: String, flights_again: u64 },
}

impl Clients {
    /// Clients of the other scenarios, each with an identity of its own; `text` is what they say, and is answered.
    pub(crate) fn plain(
        server: SocketAddr,
        identity: &str,
        identities: u32,
        key: &str,
        text: String,
        sources: Sources,
    ) -> Self {
        Self {
            server,
            identity: identity.to_owned(),
            identities,
            key: key.to_owned(),
            size: 0,
            text: Some(text),
            answered: true,
            sources: sources.count(),
            lose: 0,
            resend: 1_000,
            patience: 60,
        }
    }
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
    pub(crate) fn new(settings: &Clients) -> Result<Self, String> {
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
        let sources = Sources::new(settings.server, settings.sources);
        Ok(Self {
            server: settings.server,
            people,
            sources,
            lose: settings.lose,
            answered: settings.answered,
        })
    }

    /// Client `n` shakes hands, from a socket of its own.
    pub(crate) async fn shake(&self, n: u32, scratch: &mut Scratch) -> Result<Shaken, String> {
        let failed = |error: std::io::Error| format!("client {n}: a socket towards {}: {error}", self.server);
        let socket = self.sources.udp(n).await.map_err(failed)?;
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
