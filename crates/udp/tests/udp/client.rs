//! A DTLS device: somebody else's implementation of the protocol, on a socket of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dimpl::{Config, Dtls, DtlsCertificate, Output, PskResolver};
use tokio::net::UdpSocket;

use crate::world::{KEY, PATIENCE};

/// Knows its own key.
struct OwnKey;

impl PskResolver for OwnKey {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(KEY.into())
    }
}

/// A device on a channel of its own.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    dtls: Dtls,
    is_connected: bool,
    /// The gateway has ended the channel.
    is_closed: bool,
    received: VecDeque<Vec<u8>>,
    /// When the protocol wants to be looked at.
    due: Instant,
}

impl Client {
    /// Shakes hands as `identity`, with every device's key.
    pub(crate) async fn psk(gateway: SocketAddr, identity: &str) -> Self {
        let config = Config::builder().with_psk_client(identity.into(), Arc::new(OwnKey)).build().unwrap();
        Self::of(gateway, Dtls::new_12_psk(Arc::new(config), Instant::now())).await
    }

    /// Shakes hands without a proof of its own: by the gateway's certificate.
    pub(crate) async fn nobody(gateway: SocketAddr) -> Self {
        let own = rcgen::generate_simple_self_signed(["nobody".to_owned()]).unwrap();
        let certificate = DtlsCertificate {
            certificate: own.cert.der().to_vec(),
            private_key: own.signing_key.serialize_der(),
        };
        let config = Config::builder().build().unwrap();
        Self::of(gateway, Dtls::new_12(Arc::new(config), certificate, Instant::now())).await
    }

    async fn of(gateway: SocketAddr, mut dtls: Dtls) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(gateway).await.unwrap();
        dtls.set_active(true);
        let mut client = Self {
            socket,
            dtls,
            is_connected: false,
            is_closed: false,
            received: VecDeque::new(),
            due: Instant::now(),
        };
        client.dtls.handle_timeout(Instant::now()).unwrap();
        client.drive("the handshake", |client| client.is_connected).await;
        client
    }

    /// Sends what the protocol has to send, and takes what it has brought.
    async fn flush(&mut self) {
        let mut buffer = vec![0; 32_768];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => {
                    self.socket.send(packet).await.unwrap();
                }
                Output::Timeout(due) => {
                    self.due = due;
                    return;
                }
                Output::Connected => self.is_connected = true,
                Output::ApplicationData(bytes) => self.received.push_back(bytes.to_vec()),
                Output::CloseNotify => self.is_closed = true,
                _ => {}
            }
        }
    }

    async fn drive(&mut self, what: &str, until: impl Fn(&Self) -> bool) {
        let driving = async {
            let mut bytes = vec![0; 65_536];
            loop {
                self.flush().await;
                if until(self) {
                    return;
                }
                tokio::select! {
                    length = self.socket.recv(&mut bytes) => {
                        self.dtls.handle_packet(&bytes[..length.unwrap()]).unwrap();
                    }
                    () = tokio::time::sleep_until(self.due.into()) => {
                        self.dtls.handle_timeout(Instant::now()).unwrap();
                    }
                }
            }
        };
        assert!(tokio::time::timeout(PATIENCE, driving).await.is_ok(), "{what}");
    }

    pub(crate) async fn send(&mut self, datagram: impl AsRef<[u8]>) {
        self.dtls.send_application_data(datagram.as_ref()).unwrap();
        self.flush().await;
    }

    pub(crate) async fn receive(&mut self) -> String {
        self.drive("an answer", |client| !client.received.is_empty()).await;
        String::from_utf8(self.received.pop_front().unwrap()).unwrap()
    }

    pub(crate) async fn ask(&mut self, datagram: impl AsRef<[u8]>) -> String {
        self.send(datagram).await;
        self.receive().await
    }

    /// A heartbeat that is answered: everything before it was looked at, and nothing before it was answered.
    pub(crate) async fn fence(&mut self, device: &str) {
        assert_eq!(self.ask(format!("LF1 {device} seq=9999 ack")).await, "LF1 ack seq=9999");
    }

    /// Says that it leaves.
    pub(crate) async fn close(&mut self) {
        self.dtls.close().unwrap();
        self.flush().await;
    }

    /// Waits until the gateway has ended the channel, and has said nothing else before.
    pub(crate) async fn closed(&mut self) {
        self.drive("close_notify", |client| client.is_closed).await;
        assert!(self.received.is_empty());
    }
}
