//! CoAP end to end: what is stored and answered, presence without a connection, commands, and a network that loses, delays
//! and forges.

mod addresses;
mod amplification;
mod clients;
mod commands;
mod lossy;
mod outage;
mod presence;
mod resources;
mod timing;

use std::net::SocketAddr;
use std::time::Duration;

use landfall_testkit::{CoapClient, PATIENCE, World, within};
use tokio::net::UdpSocket;

/// Two devices with keys, and one that may publish below its own name only.
const DEVICES: &str = r#"
[[device]]
id = "pump"
password = "plain:p-key"
[[device]]
id = "valve"
tenant = "acme"
password = "plain:v-key"
[[device]]
id = "meter"
password = "plain:m-key"
publish = ["%d/#"]
"#;

/// Long enough to see that something does not happen, where nothing can say that it will not.
const A_WHILE: Duration = Duration::from_millis(700);

/// A client of the world's first CoAP listener.
async fn client(world: &World, seed: u64) -> CoapClient {
    CoapClient::new(world.gateway.coap(), seed).await
}

/// A socket at an address of its own that sends and gets datagrams as they are, and never answers any.
pub(crate) struct Wire {
    socket: UdpSocket,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        Self { socket }
    }

    pub(crate) async fn send(&self, datagram: &[u8]) {
        // A refusal told by ICMP belongs to an earlier datagram.
        while self.socket.send(datagram).await.is_err() {}
    }

    pub(crate) async fn receive(&self) -> Vec<u8> {
        within(PATIENCE, "a datagram", self.next()).await
    }

    /// Everything that comes within this time.
    pub(crate) async fn all_for(&self, time: Duration) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let collect = async {
            loop {
                all.push(self.next().await);
            }
        };
        let _: Result<(), _> = tokio::time::timeout(time, collect).await;
        all
    }

    async fn next(&self) -> Vec<u8> {
        let mut datagram = vec![0; 65_536];
        loop {
            let Ok(len) = self.socket.recv(&mut datagram).await else { continue };
            datagram.truncate(len);
            return datagram;
        }
    }
}

/// Bytes that repeat late enough to tell blocks apart.
fn body(len: u32) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
