//! What the tests share: a gate, which is one socket with its channels and its loop, and an authenticator that can be slow.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use landfall_channel::{Channel, ChannelConfig, ChannelMetrics, Channels, Via, Word};
use landfall_dtls::{Limits, ServerConfig};
use landfall_event::{DeviceId, IdentifiedBy, Incarnation, Origin, RefusedCause, TenantId, Transport};
use landfall_hub::memory::MemoryBus;
use landfall_hub::{
    Acl, AuthError, Authenticator, BoxFuture, Credentials, Hub, HubConfig, Principal, Secret,
};
use landfall_net::{Batch, DatagramSettings, DatagramSocket, Datagrams};
use landfall_testkit::dtls::{DtlsClient, Secret as Shown};
use landfall_testkit::pki::Pki;
use landfall_testkit::wait::{PATIENCE, within};
use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde_json::Value;
use tokio::sync::{Notify, watch};

/// Every device's key.
pub(crate) const KEY: &[u8] = b"0123456789abcdef";

#[derive(Debug)]
pub(crate) struct Auth {
    devices: HashMap<&'static str, Principal>,
    /// `slow` is looked up when it is let go.
    pub(crate) go: Notify,
    pub(crate) under_way: AtomicUsize,
    pub(crate) is_away: AtomicBool,
}

/// One question that is under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn principal(device: &str, identified_by: IdentifiedBy) -> Principal {
    Principal {
        tenant: TenantId::default(),
        device: device.parse().unwrap(),
        identified_by,
        app_version: "".into(),
        acl: Arc::new(Acl::default()),
        keep_alive: None,
    }
}

impl Auth {
    fn new() -> Self {
        let known = ["a", "b", "slow", "broken"].map(|name| (name, principal(name, IdentifiedBy::Psk)));
        Self {
            devices: known.into(),
            go: Notify::new(),
            under_way: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
        }
    }
}

impl Authenticator for Auth {
    /// A certificate's name is the device's.
    fn authenticate<'a>(&'a self, shown: &'a Credentials) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let name = shown.certificate.as_ref().unwrap().common_name.as_deref();
            assert_eq!((Some(&*shown.client_id), shown.username.as_deref()), (name, None));
            if !self.devices.contains_key(&*shown.client_id) {
                return Err(AuthError::Refused(RefusedCause::NotAuthorized));
            }
            Ok(principal(&shown.client_id, IdentifiedBy::Certificate))
        })
    }

    fn psk<'a>(&'a self, shown: &'a Credentials) -> BoxFuture<'a, Result<(Secret, Principal), AuthError>> {
        Box::pin(async move {
            assert_eq!(shown.username.as_deref(), Some(&*shown.client_id));
            if self.is_away.load(Ordering::SeqCst) {
                return Err(AuthError::Unavailable);
            }
            if &*shown.client_id == "slow" {
                self.under_way.fetch_add(1, Ordering::SeqCst);
                let _under_way = UnderWay(&self.under_way);
                self.go.notified().await;
            }
            assert!(&*shown.client_id != "broken", "a defect");
            let known = self.devices.get(&*shown.client_id).cloned();
            let known = known.ok_or(AuthError::Refused(RefusedCause::UnknownDevice))?;
            Ok((Secret::new(Bytes::from_static(KEY)), known))
        })
    }

    fn still_holds(&self, _: &TenantId, _: &DeviceId, _: &Arc<Acl>) -> bool {
        true
    }
}

/// A word, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Opened(Channel, Option<String>, String),
    Data(Channel, Vec<u8>),
    /// And whether the device has said so.
    Closed(Channel, bool),
}

pub(crate) struct Gate {
    pub(crate) auth: Arc<Auth>,
    pub(crate) address: SocketAddr,
    pub(crate) channels: Channels<u32>,
    pub(crate) socket: DatagramSocket,
    pub(crate) server: watch::Sender<Arc<ServerConfig>>,
    /// What has come and was not looked at yet.
    pub(crate) said: Vec<Said>,
    bus: Arc<MemoryBus>,
    registry: Registry,
    batch: Batch,
}

fn offering_psk() -> ServerConfig {
    ServerConfig {
        psk: true,
        certificate: None,
        client_ca: None,
        require_client_certificate: false,
        mtu: 1_200,
        max_forged: 1_000,
    }
}

impl Gate {
    pub(crate) async fn open() -> Self {
        Self::with(|_, _| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ServerConfig, &mut ChannelConfig)) -> Self {
        let origin = Origin {
            instance: "landfall".parse().unwrap(),
            replica: "a1".parse().unwrap(),
            incarnation: Incarnation::new(1, [7; 10]),
        };
        let mut offer = offering_psk();
        let (server, current) = watch::channel(Arc::new(offering_psk()));
        let limits = Limits::default();
        let mut config =
            ChannelConfig { server: current, limits, max_vouched_per_device: 2, auth_timeout: PATIENCE };
        change(&mut offer, &mut config);
        server.send_replace(Arc::new(offer));
        let (auth, bus) = (Arc::new(Auth::new()), Arc::new(MemoryBus::default()));
        let mut registry = Registry::default();
        let metrics = ChannelMetrics::register(&mut registry);
        let hub = Hub::new(HubConfig::new(origin), Arc::clone(&bus) as _, &mut registry);
        let endpoint = "dtls://127.0.0.1:0".parse().unwrap();
        let socket = Datagrams::bind(&endpoint, DatagramSettings::default()).await.unwrap().remove(0);
        let channels =
            Channels::new(Arc::new(config), (hub, Arc::clone(&auth) as _), Transport::Coaps, metrics);
        let (address, batch) = (socket.local_addr(), Batch::new());
        Self { auth, address, channels, socket, server, said: Vec::new(), bus, registry, batch }
    }

    /// Serves the socket while a device does something.
    pub(crate) async fn serve<R>(&mut self, device: impl Future<Output = R>) -> R {
        let mut device = pin!(device);
        let served = poll_fn(|cx| {
            let done = device.as_mut().poll(cx);
            self.turn(cx);
            done
        });
        within(PATIENCE, "what the device does", served).await
    }

    /// Serves the socket until this holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl FnMut(&mut Self) -> bool) {
        self.serve_until(std::future::pending::<()>(), what, holds).await;
    }

    /// The same while a device does something.
    pub(crate) async fn serve_until<R>(
        &mut self,
        device: impl Future<Output = R>,
        what: &str,
        mut holds: impl FnMut(&mut Self) -> bool,
    ) {
        let mut device = pin!(device);
        let mut is_done = false;
        let served = poll_fn(|cx| {
            is_done = is_done || device.as_mut().poll(cx).is_ready();
            self.turn(cx);
            if holds(self) { Poll::Ready(()) } else { Poll::Pending }
        });
        within(PATIENCE, what, served).await;
    }

    /// All that can be done now.
    fn turn(&mut self, cx: &mut Context<'_>) {
        loop {
            let mut done = self.channels.poll(cx, &self.socket).is_ready();
            self.listen();
            if let Poll::Ready(received) = self.socket.poll_recv(cx, &mut self.batch) {
                received.unwrap();
                done = true;
                let batch = std::mem::take(&mut self.batch);
                for (path, datagram) in batch.iter() {
                    self.channels.receive(&self.socket, path, datagram);
                    self.listen();
                }
                self.batch = batch;
            }
            if !done {
                return;
            }
        }
    }

    fn listen(&mut self) {
        let channel = |via: Via| via.channel.unwrap();
        let mut words = self.channels.take();
        while let Some(word) = words.next() {
            self.said.push(match word {
                Word::Opened { via, principal, remote_id } => {
                    assert_eq!(*self.channels.get_mut(channel(via)).unwrap(), 0);
                    *self.channels.get_mut(channel(via)).unwrap() = 7;
                    let device = principal.map(|principal| principal.device.to_string());
                    let of_channel = self.channels.principal(channel(via)).map(|p| p.device.to_string());
                    assert_eq!(device, of_channel);
                    Said::Opened(channel(via), device, remote_id.to_string())
                }
                Word::Data { via, bytes } => Said::Data(channel(via), words.bytes(bytes).to_vec()),
                Word::Closed { via, by_device } => {
                    assert_eq!(self.channels.get_mut(channel(via)), Some(&mut 7), "it is still there");
                    Said::Closed(channel(via), by_device)
                }
            });
        }
        self.channels.give_back(words);
    }

    pub(crate) fn take_said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// A client whose handshake has succeeded, and its channel.
    pub(crate) async fn device(&mut self, name: &str) -> (DtlsClient, Channel) {
        let secret = Shown::psk(name, KEY);
        let client = DtlsClient::connect(self.address, &secret);
        let client = self.serve(client).await;
        self.until("the last message of the handshake", |gate| !gate.said.is_empty()).await;
        match self.take_said().as_slice() {
            [Said::Opened(channel, Some(device), identity)] if device == name && identity == name => {
                (client, *channel)
            }
            said => panic!("{said:?}"),
        }
    }

    /// The refusals so far: cause and transport.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let events =
            self.bus.stored().into_iter().map(|stored| serde_json::from_slice(&stored.body).unwrap());
        let of = |event: &Value, field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
        events
            .map(|event: Value| {
                format!("{} {}", of(&event, "cause").unwrap(), of(&event, "transport").unwrap())
            })
            .collect()
    }

    /// The value of a metric, with its labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("landfall_dtls_")?.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) fn drop_channels(self) -> Registry {
        self.registry
    }
}

pub(crate) fn short(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What the gateway shows.
pub(crate) fn certified(certificate: &str, key: &str) -> CertifiedKey {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key).unwrap())
}

/// Who may sign devices' certificates.
pub(crate) fn roots(pki: &Pki) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(pki.authority()).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}
