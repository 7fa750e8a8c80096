//! A gateway with UDP only, devices on the loopback interface, and who they are.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use landfall_channel::{ChannelConfig, ChannelMetrics};
use landfall_dtls::{Limits, ServerConfig};
use landfall_event::{DeviceId, IdentifiedBy, Incarnation, Origin, RefusedCause, Stream, TenantId};
use landfall_hub::memory::MemoryBus;
use landfall_hub::{
    Acl, AuthError, Authenticator, BoxFuture, Bus, CommandRequest, Credentials, Hub, HubConfig, Principal,
    Publication, Secret,
};
use landfall_net::{DatagramSettings, Datagrams, Scope};
use landfall_udp::{UdpConfig, UdpServer};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rustls::sign::CertifiedKey;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// No wait of these tests takes so long on a machine that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Every device's key.
pub(crate) const KEY: &str = "s3cret";

/// Knows every device by the one key.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Asked so often.
    pub(crate) asked: AtomicUsize,
    /// While false, answers to keys wait.
    pub(crate) answers: watch::Sender<bool>,
    pub(crate) publish: Mutex<Vec<&'static str>>,
    pub(crate) holds: std::sync::atomic::AtomicBool,
    /// Defects: where it panics.
    pub(crate) breaks: Mutex<&'static str>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            asked: AtomicUsize::new(0),
            answers: watch::Sender::new(true),
            publish: Mutex::new(vec!["#"]),
            holds: true.into(),
            breaks: Mutex::default(),
        }
    }
}

impl Authenticator for Keys {
    fn authenticate<'a>(&'a self, c: &'a Credentials) -> BoxFuture<'a, Result<Principal, AuthError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let is_right = match (&c.password, &c.signature) {
                (Some(key), None) => {
                    self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
                    assert_ne!(*self.breaks.lock(), "authenticate");
                    key.expose() == KEY.as_bytes()
                }
                (None, Some(signature)) => mac(KEY, &signature.message) == signature.mac,
                _ => false,
            };
            if !is_right {
                return Err(AuthError::Refused(RefusedCause::BadCredentials));
            }
            let username = c.username.as_deref().unwrap();
            let tenant = username.strip_prefix(&*c.client_id).unwrap();
            let filters = |list: &[&str]| list.iter().map(|f| f.parse().unwrap()).collect();
            Ok(Principal {
                tenant: tenant.strip_prefix('@').unwrap_or("default").parse().unwrap(),
                device: c.client_id.parse().unwrap(),
                identified_by: IdentifiedBy::Password,
                app_version: "".into(),
                acl: Arc::new(Acl {
                    publish: filters(&self.publish.lock()),
                    subscribe: filters(&["command/#"]),
                }),
                keep_alive: Some(Duration::from_secs(77)),
            })
        })
    }

    /// The one key is every device's PSK too.
    fn psk<'a>(&'a self, c: &'a Credentials) -> BoxFuture<'a, Result<(Secret, Principal), AuthError>> {
        Box::pin(async move {
            let identity = c.username.as_deref().unwrap();
            let device = identity.split_once('@').map_or(identity, |(device, _)| device);
            let key = Secret::new(Bytes::from_static(KEY.as_bytes()));
            let shown = Credentials { client_id: device.into(), password: Some(key.clone()), ..c.clone() };
            let principal = self.authenticate(&shown).await?;
            Ok((key, Principal { identified_by: IdentifiedBy::Psk, ..principal }))
        })
    }

    fn still_holds(&self, _: &TenantId, _: &DeviceId, _: &Arc<Acl>) -> bool {
        assert_ne!(*self.breaks.lock(), "still_holds");
        self.holds.load(Ordering::SeqCst)
    }
}

fn mac(key: &str, message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// `line` and `payload` with a signature at the end of the line.
pub(crate) fn signed(key: &str, line: &str, payload: &str) -> Vec<u8> {
    let mac = mac(key, format!("{line}\n{payload}").as_bytes());
    let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{line} sig={hex}\n{payload}").into_bytes()
}

/// A bus that stores in memory, except for what it holds back of sessions' beginnings and ends.
#[derive(Debug, Default)]
pub(crate) struct Held {
    memory: Arc<MemoryBus>,
    held: Mutex<Option<Vec<Publication>>>,
    /// Messages are held back instead.
    messages: std::sync::atomic::AtomicBool,
}

impl Held {
    pub(crate) fn hold_connectivity(&self) {
        self.held.lock().get_or_insert_default();
    }

    /// The same with messages, and not with connectivity.
    pub(crate) fn hold_messages(&self) {
        self.messages.store(true, Ordering::SeqCst);
        self.hold_connectivity();
    }

    /// Stores what was held back, or refuses it for good.
    pub(crate) fn release(&self, is_stored: bool) {
        self.messages.store(false, Ordering::SeqCst);
        for held in self.held.lock().take().into_iter().flatten() {
            if !is_stored {
                self.memory.refuse_next();
            }
            self.memory.submit(held);
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.lock().as_ref().map_or(0, Vec::len)
    }
}

impl Deref for Held {
    type Target = MemoryBus;

    fn deref(&self) -> &MemoryBus {
        &self.memory
    }
}

impl Bus for Held {
    #[expect(clippy::disallowed_methods, reason = "a test, with nothing to drain")]
    fn submit(&self, publication: Publication) {
        match &mut *self.held.lock() {
            None => self.memory.submit(publication),
            Some(held)
                if (publication.stream == Stream::Connectivity) != self.messages.load(Ordering::SeqCst) =>
            {
                held.push(publication);
            }
            // Not at once: whoever submits to a real bus is not told before he has gone on.
            Some(_) => {
                let memory = Arc::clone(&self.memory);
                tokio::spawn(async move { memory.submit(publication) });
            }
        }
    }

    fn reply(&self, to: &str, body: Bytes) {
        self.memory.reply(to, body);
    }

    fn is_ready(&self) -> bool {
        self.memory.is_ready()
    }
}

pub(crate) struct World {
    pub(crate) bus: Arc<Held>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) auth: Arc<Keys>,
    pub(crate) server: Arc<UdpServer>,
    pub(crate) scope: Scope,
    pub(crate) address: SocketAddr,
    /// Of a socket with channels.
    pub(crate) secure: SocketAddr,
    registry: Registry,
}

pub(crate) async fn world() -> World {
    world_with(|_| {}, |_| {}).await
}

pub(crate) async fn world_with(
    of_hub: impl FnOnce(&mut HubConfig),
    of_udp: impl FnOnce(&mut UdpConfig),
) -> World {
    build(of_hub, of_udp, None).await
}

/// One with a `dtls://` socket too, which PSK devices come to.
pub(crate) async fn secure_world() -> World {
    secure_world_with(|_| {}, |_| {}, None).await
}

/// One with a `dtls://` socket too, and a certificate for it.
pub(crate) async fn secure_world_with(
    of_hub: impl FnOnce(&mut HubConfig),
    of_udp: impl FnOnce(&mut UdpConfig),
    certificate: Option<Arc<CertifiedKey>>,
) -> World {
    let server = ServerConfig {
        psk: true,
        certificate,
        client_ca: None,
        require_client_certificate: false,
        mtu: 1_200,
        max_forged: 1_000,
    };
    let config = ChannelConfig {
        server: watch::channel(Arc::new(server)).1,
        limits: Limits::default(),
        max_vouched_per_device: 4,
        auth_timeout: Duration::from_secs(5),
    };
    let mut world = build(of_hub, of_udp, Some(config)).await;
    world.secure = world.listen("dtls://127.0.0.1:0").await;
    world
}

async fn build(
    of_hub: impl FnOnce(&mut HubConfig),
    of_udp: impl FnOnce(&mut UdpConfig),
    channels: Option<ChannelConfig>,
) -> World {
    let mut config = HubConfig::new(Origin {
        instance: "landfall".parse().unwrap(),
        replica: "a1".parse().unwrap(),
        incarnation: Incarnation::new(1, [7; 10]),
    });
    config.tick = Duration::from_millis(20);
    config.refusal_interval = Duration::from_millis(20);
    of_hub(&mut config);
    let (bus, auth, mut registry) =
        (Arc::new(Held::default()), Arc::new(Keys::default()), Registry::default());
    let hub = Hub::new(config, Arc::clone(&bus) as _, &mut registry);
    let scope = Scope::new();
    hub.start(&scope);
    let mut config = UdpConfig::default();
    of_udp(&mut config);
    let channels = channels.map(|config| (Arc::new(config), ChannelMetrics::register(&mut registry)));
    let server = UdpServer::new(config, Arc::clone(&hub), Arc::clone(&auth) as _, channels, &mut registry);
    let nowhere = ([127, 0, 0, 1], 0).into();
    let mut world = World { bus, hub, auth, server, scope, address: nowhere, secure: nowhere, registry };
    world.address = world.listen("udp://127.0.0.1:0").await;
    world
}

impl World {
    /// One more socket.
    pub(crate) async fn listen(&self, endpoint: &str) -> SocketAddr {
        let sockets = Datagrams::bind(&endpoint.parse().unwrap(), DatagramSettings::default()).await.unwrap();
        let [socket] = <[_; 1]>::try_from(sockets).unwrap();
        let address = socket.local_addr();
        assert!(self.server.serve(socket, &self.scope));
        address
    }

    pub(crate) async fn device(&self) -> Device {
        Device::of(self.address).await
    }

    /// Waits until the condition holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            let mut looks = tokio::time::interval(Duration::from_millis(2));
            while !condition(self) {
                looks.tick().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{what}; {:#?}\n{}", self.story(), self.metrics());
    }

    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let all = self.bus.stored();
        let events = all.iter().map(|stored| serde_json::from_slice::<Value>(&stored.body).unwrap());
        events.filter(|event| event["type"] == kind).collect()
    }

    /// What was published, in the order of each stream: types, and what tells them apart.
    pub(crate) fn story(&self) -> Vec<String> {
        let word = |event: Value| {
            let more = ["reason", "outcome", "payload", "cause"].iter().find_map(|name| event.get(name));
            format!("{} {}", event["type"], more.unwrap_or(&Value::Null)).replace('"', "")
        };
        self.bus.stored().iter().map(|stored| word(serde_json::from_slice(&stored.body).unwrap())).collect()
    }

    pub(crate) fn payloads(&self) -> Vec<String> {
        self.events("upstream").iter().map(|event| event["payload"].to_string().replace('"', "")).collect()
    }

    /// Attempts turned away for this cause, as the events tell it.
    pub(crate) fn refused(&self, cause: &str) -> u64 {
        let of_cause = |event: &Value| event["cause"] == cause;
        self.events("refused").iter().filter(|e| of_cause(e)).map(|e| e["count"].as_u64().unwrap()).sum()
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().filter(|line| line.starts_with("landfall_udp")).map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) fn command(&self, device: &str, id: &str, wait: &str, payload: &'static [u8]) {
        self.hub.command(CommandRequest {
            tenant: "default".parse().unwrap(),
            device: device.parse().unwrap(),
            id: Some(id.into()),
            name: Some("re boot".into()),
            ttl: Some("20000".into()),
            wait: Some(wait.into()),
            topic: None,
            content_type: None,
            correlation_data: None,
            payload: Bytes::from_static(payload),
            reply: None,
        });
    }

    /// How long the device has been silent in the gateway's eyes, by its view of the session.
    pub(crate) fn last_seen(&self, device: &str) -> u64 {
        self.hub.sessions(1, |view| view.endpoint_id == device)[0].last_seen_at
    }
}

/// A device's socket.
pub(crate) struct Device(pub(crate) UdpSocket);

impl Device {
    pub(crate) async fn of(gateway: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // What comes from another address or port is not received.
        socket.connect(gateway).await.unwrap();
        Self(socket)
    }

    pub(crate) async fn send(&self, datagram: impl AsRef<[u8]>) {
        self.0.send(datagram.as_ref()).await.unwrap();
    }

    pub(crate) async fn receive(&self) -> String {
        let mut bytes = vec![0; 65_536];
        let length =
            tokio::time::timeout(PATIENCE, self.0.recv(&mut bytes)).await.expect("an answer").unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    pub(crate) async fn ask(&self, datagram: impl AsRef<[u8]>) -> String {
        self.send(datagram).await;
        self.receive().await
    }

    /// A good datagram of another device, from the same socket: once it is answered, everything before it was looked at,
    /// and nothing before it was answered.
    pub(crate) async fn fence(&self) {
        let fence = format!("LF1 fence@fence key={KEY} seq=9999 ack");
        assert_eq!(self.ask(fence).await, "LF1 ack seq=9999");
    }
}
