//! A DTLS 1.2 client over a UDP socket: the protocol is `dimpl`'s, a stack that others wrote, its timers run in real time.
//!
//! Owns: one socket and one association on it, or several one after the other. Does not own: the protocol, or what goes
//! through the channel ([`crate::coap`], [`crate::udp`]). Bytes by hand, for what no good client sends: [`wire`], and
//! [`recut`] for a way that cuts handshakes to pieces.

pub mod recut;
pub mod wire;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Error, Output, PskResolver, SecurityError};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::UdpSocket;

use crate::carrier::bind;
use crate::pki::Identity;
use crate::wait::{PATIENCE, within};

/// No datagram is larger.
const LARGEST: usize = 65_536;

/// What a client proves itself with.
#[derive(Clone)]
pub enum Secret {
    /// A pre-shared key: TLS_PSK_WITH_AES_128_CCM_8, with the extended master secret.
    Psk {
        /// The PSK identity.
        identity: String,
        /// The key.
        key: Vec<u8>,
    },
    /// A certificate: TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256. It is shown when the server asks for one.
    Certificate {
        /// The certificate's DER.
        certificate: Vec<u8>,
        /// The private key's DER (PKCS #8).
        key: Vec<u8>,
    },
}

impl Secret {
    /// A pre-shared key.
    pub fn psk(identity: &str, key: impl AsRef<[u8]>) -> Self {
        Self::Psk { identity: identity.to_owned(), key: key.as_ref().to_vec() }
    }

    /// A certificate and its key.
    ///
    /// # Panics
    /// When the key is no PEM.
    pub fn certificate(identity: &Identity) -> Self {
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("own PEM");
        Self::Certificate { certificate: identity.der.clone(), key: key.secret_der().to_vec() }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Psk { identity, .. } => write!(f, "Psk({identity:?})"),
            Self::Certificate { .. } => f.write_str("Certificate"),
        }
    }
}

/// How a handshake or a channel came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The server said close_notify.
    Closed,
    /// The server sent a fatal alert: its code.
    Alert(u8),
    /// The server stayed silent for as long as the client tries.
    Silent,
    /// The client would not go on.
    Other(String),
}

/// The patience of a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Before a flight is sent again for the first time; doubled each time.
    pub again: Duration,
    /// How often a flight is sent again.
    pub retransmits: usize,
    /// A handshake in all.
    pub deadline: Duration,
    /// Bytes of the largest datagram of a handshake; from 64.
    pub mtu: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { again: Duration::from_secs(1), retransmits: 4, deadline: PATIENCE, mtu: 1_150 }
    }
}

/// One client at one address. Dropped, it is silent: nobody is told.
pub struct DtlsClient {
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    pace: Pace,
    dtls: Dtls,
    due: Option<Instant>,
    /// Datagrams that are to be sent.
    outbox: VecDeque<Vec<u8>>,
    inbox: VecDeque<Vec<u8>>,
    is_open: bool,
    end: Option<End>,
    peer: Option<Vec<u8>>,
    last: Vec<u8>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for DtlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DtlsClient({:?}, {:?})", self.socket.local_addr(), self.dtls)
    }
}

impl DtlsClient {
    /// A client at an address of its own; nothing is sent yet.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn new(server: SocketAddr, secret: &Secret) -> Self {
        Self::paced(server, secret, Pace::default()).await
    }

    /// The same with other times.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn paced(server: SocketAddr, secret: &Secret, pace: Pace) -> Self {
        Self::on(Arc::new(connected(server).await), server, secret, pace)
    }

    /// A client that speaks DTLS 1.3 and no other version, with a certificate.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn of_1_3(server: SocketAddr, identity: &Identity) -> Self {
        let Secret::Certificate { certificate, key } = Secret::certificate(identity) else { unreachable!() };
        let certificate = DtlsCertificate { certificate, private_key: key };
        let config = Config::builder().build().expect("a configuration");
        let dtls = Dtls::new_13(Arc::new(config), certificate, Instant::now());
        Self::with(Arc::new(connected(server).await), server, dtls, Pace::default())
    }

    /// A client whose handshake has succeeded.
    ///
    /// # Panics
    /// When it does not.
    pub async fn connect(server: SocketAddr, secret: &Secret) -> Self {
        let mut client = Self::new(server, secret).await;
        client.handshake().await.unwrap_or_else(|end| panic!("no handshake as {secret:?}: {end:?}"));
        client
    }

    /// Another client at the same address: whoever of the two reads gets what comes.
    pub fn beside(&self, secret: &Secret) -> Self {
        Self::on(Arc::clone(&self.socket), self.server, secret, self.pace)
    }

    fn on(socket: Arc<UdpSocket>, server: SocketAddr, secret: &Secret, pace: Pace) -> Self {
        Self::with(socket, server, engine(secret, pace), pace)
    }

    fn with(socket: Arc<UdpSocket>, server: SocketAddr, dtls: Dtls, pace: Pace) -> Self {
        let mut client = Self {
            socket,
            server,
            pace,
            dtls,
            due: None,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            is_open: false,
            end: None,
            peer: None,
            last: Vec::new(),
            buffer: vec![0; LARGEST],
        };
        client.dtls.set_active(true);
        client
    }

    /// Its address.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }

    /// Whom it talks to.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Takes another address, with the association that it has.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn rebind(&mut self) {
        self.socket = Arc::new(connected(self.server).await);
    }

    /// Talks to another address of the server from now on, on the same association.
    ///
    /// # Panics
    /// When it is no address of this machine.
    pub async fn redirect(&mut self, server: SocketAddr) {
        self.socket.connect(server).await.expect("an address of this machine");
        self.server = server;
    }

    /// The server's certificate, DER; `None` in a PSK suite.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.peer.as_deref()
    }

    /// How the association ended, as far as that was read.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// What came instead.
    pub async fn handshake(&mut self) -> Result<(), End> {
        let deadline = self.pace.deadline;
        let shaking = async {
            self.time();
            while !self.is_open && self.end.is_none() {
                self.step().await;
            }
            // What completed it may still have to be sent.
            self.flush().await;
        };
        if tokio::time::timeout(deadline, shaking).await.is_err() {
            return Err(End::Silent);
        }
        if self.is_open { Ok(()) } else { Err(self.end.clone().unwrap_or(End::Silent)) }
    }

    /// Shakes hands until the server's flight is there, which it leaves unanswered.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn half_a_handshake(&mut self) {
        self.time();
        self.flush().await;
        let mut datagram = vec![0; LARGEST];
        loop {
            let received = within(PATIENCE, "a flight", self.socket.recv(&mut datagram)).await;
            let Ok(len) = received else { continue };
            if wire::cookie(&datagram[..len]).is_none() {
                return;
            }
            self.take(&datagram[..len]);
            self.flush().await;
        }
    }

    /// Sends one record of data in one datagram.
    ///
    /// # Panics
    /// When there is no channel.
    pub async fn send(&mut self, bytes: &[u8]) {
        let datagram = self.sealed(bytes);
        self.send_datagram(&datagram).await;
    }

    /// The next record of data as a datagram, which is not sent.
    ///
    /// # Panics
    /// When there is no channel.
    pub fn sealed(&mut self, bytes: &[u8]) -> Vec<u8> {
        assert!(self.is_open, "no channel: {:?}", self.end);
        let accepted = self.dtls.send_application_data(bytes);
        assert!(accepted.is_ok(), "not sent: {accepted:?}; the end: {:?}", self.end);
        self.poll();
        self.last = self.outbox.pop_back().expect("a record for the data");
        self.last.clone()
    }

    /// The newest datagram with data.
    pub fn last(&self) -> &[u8] {
        &self.last
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When they cannot be sent.
    pub async fn send_datagram(&self, bytes: &[u8]) {
        // A refusal told by ICMP belongs to an earlier datagram.
        while self.socket.send(bytes).await.is_err() {}
    }

    /// The data of the next record; `None` at the end of the channel.
    ///
    /// # Panics
    /// When neither comes in time.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        within(PATIENCE, "data over DTLS", self.next()).await
    }

    /// The same without a deadline. Nothing is lost when it is dropped while it waits.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(data) = self.inbox.pop_front() {
                return Some(data);
            }
            if self.end.is_some() {
                return None;
            }
            self.step().await;
        }
    }

    /// Data that has come, without waiting.
    pub fn try_next(&mut self) -> Option<Vec<u8>> {
        let mut datagram = vec![0; LARGEST];
        while let Ok(len) = self.socket.try_recv(&mut datagram) {
            self.take(&datagram[..len]);
        }
        self.inbox.pop_front()
    }

    /// Waits for the end of the channel; data on the way to it is dropped.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn ended(&mut self) -> End {
        while self.receive().await.is_some() {}
        self.end.clone().expect("the end was read")
    }

    /// Says close_notify.
    pub async fn close(&mut self) {
        let _ = self.dtls.close();
        self.poll();
        self.flush().await;
    }

    /// One datagram or one timer.
    async fn step(&mut self) {
        self.flush().await;
        let mut datagram = std::mem::take(&mut self.buffer);
        datagram.resize(LARGEST, 0);
        let socket = Arc::clone(&self.socket);
        // Without a channel the engine's timers run; with one it has none that matter.
        let due = self.due.filter(|_| !self.is_open);
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = socket.recv(&mut datagram) => match received {
                Ok(len) => self.take(&datagram[..len]),
                // The news of a server that is gone; it may come back.
                Err(_) => tokio::task::yield_now().await,
            },
            () = timer => self.time(),
        }
        self.buffer = datagram;
    }

    fn take(&mut self, datagram: &[u8]) {
        let _ = self.dtls.handle_timeout(Instant::now());
        let taken = self.dtls.handle_packet(datagram);
        self.poll();
        self.judge(taken);
    }

    fn time(&mut self) {
        let taken = self.dtls.handle_timeout(Instant::now());
        self.poll();
        self.judge(taken);
    }

    fn judge(&mut self, taken: Result<(), Error>) {
        let end = match taken {
            Ok(()) => return,
            Err(Error::SecurityError(SecurityError::FatalAlert { description })) => End::Alert(description),
            Err(Error::Timeout(_)) => End::Silent,
            Err(Error::ConnectionClosed) => End::Closed,
            Err(error) => End::Other(format!("{error:?}")),
        };
        self.end.get_or_insert(end);
    }

    fn poll(&mut self) {
        let mut place = vec![0; LARGEST];
        loop {
            match self.dtls.poll_output(&mut place) {
                Output::Packet(bytes) => self.outbox.push_back(bytes.to_vec()),
                Output::Timeout(due) => {
                    self.due = Some(due);
                    return;
                }
                Output::Connected => self.is_open = true,
                Output::PeerCert(der) => self.peer = Some(der.to_vec()),
                Output::ApplicationData(bytes) => self.inbox.push_back(bytes.to_vec()),
                Output::CloseNotify => {
                    self.end.get_or_insert(End::Closed);
                }
                _ => {}
            }
        }
    }

    /// Sends what is to be sent. What is dropped halfway goes on where it was.
    async fn flush(&mut self) {
        while let Some(datagram) = self.outbox.front() {
            let _ = self.socket.send(datagram).await;
            self.outbox.pop_front();
        }
    }
}

/// A key that is there whatever it is asked for.
struct OneKey(Vec<u8>);

impl PskResolver for OneKey {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

fn engine(secret: &Secret, pace: Pace) -> Dtls {
    let builder = Config::builder()
        .mtu(pace.mtu)
        .flight_start_rto(pace.again)
        .flight_retries(pace.retransmits)
        .handshake_timeout(pace.deadline);
    let now = Instant::now();
    match secret {
        Secret::Psk { identity, key } => {
            let builder =
                builder.with_psk_client(identity.as_bytes().to_vec(), Arc::new(OneKey(key.clone())));
            Dtls::new_12_psk(Arc::new(builder.build().expect("a sound configuration")), now)
        }
        Secret::Certificate { certificate, key } => {
            let shown = DtlsCertificate { certificate: certificate.clone(), private_key: key.clone() };
            Dtls::new_12(Arc::new(builder.build().expect("a sound configuration")), shown, now)
        }
    }
}

/// A socket that hears this server only: what a server of another test still repeats to whoever had the port before is not
/// for this one.
async fn connected(server: SocketAddr) -> UdpSocket {
    let socket = bind(server).await;
    socket.connect(server).await.expect("an address of this machine");
    socket
}
