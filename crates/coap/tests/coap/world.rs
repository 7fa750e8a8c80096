//! What the tests share: a server on loopback sockets, a bus that can hold back, and two ways of knowing devices.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use landfall_channel::{ChannelConfig, ChannelMetrics};
use landfall_coap::{CoapConfig, CoapServer};
use landfall_coap_core::Limits;
use landfall_dtls::ServerConfig;
use landfall_event::{Family, IdentifiedBy, Incarnation, Origin, RefusedCause, TenantId};
use landfall_hub::memory::MemoryBus;
use landfall_hub::{
    Acl, AuthError, Authenticator, BoxFuture, Bus, CommandRequest, Credentials, Hub, HubConfig, PeerHandle,
    Principal, Publication, Secret,
};
use landfall_net::{DatagramSettings, Datagrams, Scope};
use landfall_testkit::coap::{CoapClient, Message};
use landfall_testkit::dtls::{DtlsClient, Secret as Shown};
use landfall_testkit::wait::{PATIENCE, eventually};
use prometheus_client::registry::Registry;
use rustls::sign::CertifiedKey;
use serde_json::Value;
use tokio::sync::{Notify, watch};

/// Stores in memory; may say that it is ready while it holds everything back.
#[derive(Debug, Default)]
pub(crate) struct TestBus {
    memory: MemoryBus,
    slow: AtomicBool,
}

impl TestBus {
    /// Takes everything and stores nothing.
    pub(crate) fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::SeqCst);
        self.memory.set_away(slow);
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.memory.set_away(away);
    }

    /// Stores the oldest of what waits, and no more.
    pub(crate) fn store_next(&self) -> bool {
        self.memory.store_next()
    }

    pub(crate) fn refuse_next(&self) {
        self.memory.refuse_next();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.memory.waiting()
    }
}

impl Bus for TestBus {
    fn submit(&self, publication: Publication) {
        self.memory.submit(publication);
    }

    fn reply(&self, to: &str, body: Bytes) {
        self.memory.reply(to, body);
    }

    fn is_ready(&self) -> bool {
        self.slow.load(Ordering::SeqCst) || self.memory.is_ready()
    }
}

/// Who devices are.
#[derive(Debug, Default)]
pub(crate) struct TestAuth {
    /// Their keys; `None` believes everybody.
    keys: Option<HashMap<String, String>>,
    publish: Option<String>,
    subscribe: Option<String>,
    /// Devices whose key takes until they are let go.
    slow: Option<(String, Arc<Notify>)>,
    pub(crate) asked: AtomicUsize,
    /// What was found out of anybody holds no longer.
    pub(crate) is_withdrawn: AtomicBool,
}

impl TestAuth {
    pub(crate) fn open() -> Self {
        Self::default()
    }

    /// These devices, with these keys.
    pub(crate) fn knowing(keys: &[(&str, &str)]) -> Self {
        let keys = keys.iter().map(|(device, key)| ((*device).to_owned(), (*key).to_owned())).collect();
        Self { keys: Some(keys), ..Self::default() }
    }

    pub(crate) fn publish(self, filter: &str) -> Self {
        Self { publish: Some(filter.to_owned()), ..self }
    }

    pub(crate) fn subscribe(self, filter: &str) -> Self {
        Self { subscribe: Some(filter.to_owned()), ..self }
    }

    /// The key of this device is verified when it is let go.
    pub(crate) fn slow(self, device: &str, go: &Arc<Notify>) -> Self {
        Self { slow: Some((device.to_owned(), Arc::clone(go))), ..self }
    }

    fn check(&self, shown: &Credentials) -> Result<Principal, AuthError> {
        let identified_by = match &self.keys {
            None => IdentifiedBy::Anonymous,
            Some(keys) => {
                let key =
                    keys.get(&*shown.client_id).ok_or(AuthError::Refused(RefusedCause::UnknownDevice))?;
                let right =
                    shown.password.as_ref().is_some_and(|password| password.expose() == key.as_bytes());
                if !right {
                    return Err(AuthError::Refused(RefusedCause::BadCredentials));
                }
                IdentifiedBy::Password
            }
        };
        let tenant = shown.username.as_ref().and_then(|name| name.rsplit_once('@').map(|(_, tenant)| tenant));
        let filters = |filter: &Option<String>| vec![filter.as_deref().unwrap_or("#").parse().unwrap()];
        Ok(Principal {
            tenant: tenant.unwrap_or("default").parse().unwrap(),
            device: shown.client_id.parse().unwrap(),
            identified_by,
            app_version: "".into(),
            acl: Arc::new(Acl { publish: filters(&self.publish), subscribe: filters(&self.subscribe) }),
            keep_alive: None,
        })
    }
}

impl Authenticator for TestAuth {
    fn authenticate<'a>(&'a self, shown: &'a Credentials) -> BoxFuture<'a, Result<Principal, AuthError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let slow = self.slow.as_ref().filter(|(device, _)| **device == *shown.client_id);
        let go = slow.map(|(_, go)| Arc::clone(go));
        Box::pin(async move {
            if let Some(go) = go {
                go.notified().await;
            }
            self.check(shown)
        })
    }

    /// A device's key is its PSK too.
    fn psk<'a>(&'a self, shown: &'a Credentials) -> BoxFuture<'a, Result<(Secret, Principal), AuthError>> {
        Box::pin(async move {
            let identity = shown.username.as_deref().unwrap();
            let device = identity.split_once('@').map_or(identity, |(device, _)| device);
            let key = self.keys.as_ref().and_then(|keys| keys.get(device));
            let key = key.ok_or(AuthError::Refused(RefusedCause::UnknownDevice))?;
            let key = Secret::new(Bytes::copy_from_slice(key.as_bytes()));
            let shown =
                Credentials { client_id: device.into(), password: Some(key.clone()), ..shown.clone() };
            let principal = self.authenticate(&shown).await?;
            Ok((key, Principal { identified_by: IdentifiedBy::Psk, ..principal }))
        })
    }

    fn still_holds(&self, _: &TenantId, _: &landfall_event::DeviceId, _: &Arc<Acl>) -> bool {
        !self.is_withdrawn.load(Ordering::SeqCst)
    }
}

pub(crate) struct World {
    pub(crate) bus: Arc<TestBus>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) auth: Arc<TestAuth>,
    pub(crate) server: SocketAddr,
    /// The same under DTLS.
    pub(crate) secure: SocketAddr,
    coap: Arc<CoapServer>,
    registry: Registry,
    scope: Scope,
    seed: u64,
}

/// Times that a test need not wait for.
pub(crate) fn quick() -> Limits {
    Limits {
        piggyback_ms: 50,
        ack_timeout_ms: 200,
        max_retransmit: 2,
        max_latency_ms: 20_000,
        ..Limits::default()
    }
}

fn channel_config(certificate: Option<Arc<CertifiedKey>>) -> ChannelConfig {
    let server = ServerConfig {
        psk: true,
        certificate,
        client_ca: None,
        require_client_certificate: false,
        mtu: 1_200,
        max_forged: 1_000,
    };
    ChannelConfig {
        server: watch::channel(Arc::new(server)).1,
        limits: landfall_dtls::Limits::default(),
        max_vouched_per_device: 4,
        auth_timeout: PATIENCE,
    }
}

impl World {
    pub(crate) async fn with(auth: TestAuth, change: impl FnOnce(&mut CoapConfig, &mut HubConfig)) -> Self {
        Self::offering(auth, change, None).await
    }

    /// With a certificate for secure channels, or with the devices' keys alone.
    pub(crate) async fn offering(
        auth: TestAuth,
        change: impl FnOnce(&mut CoapConfig, &mut HubConfig),
        certificate: Option<Arc<CertifiedKey>>,
    ) -> Self {
        let origin = Origin {
            instance: "landfall".parse().unwrap(),
            replica: "a1".parse().unwrap(),
            incarnation: Incarnation::new(1, [7; 10]),
        };
        let mut hub_config = HubConfig::new(origin);
        hub_config.tick = Duration::from_millis(20);
        let mut config = CoapConfig { limits: Arc::new(quick()), ..CoapConfig::default() };
        change(&mut config, &mut hub_config);
        let mut registry = Registry::default();
        let (bus, auth) = (Arc::new(TestBus::default()), Arc::new(auth));
        let hub = Hub::new(hub_config, Arc::clone(&bus) as _, &mut registry);
        let scope = Scope::new();
        hub.start(&scope);
        let channels = Some((Arc::new(channel_config(certificate)), ChannelMetrics::register(&mut registry)));
        let coap = CoapServer::new(config, Arc::clone(&hub), Arc::clone(&auth) as _, channels, &mut registry);
        let (server, secure) = (([0, 0, 0, 0], 0).into(), ([0, 0, 0, 0], 0).into());
        let mut world = Self { bus, hub, auth, server, secure, coap, registry, scope, seed: 1 };
        world.server = world.listen("udp://127.0.0.1:0", 1).await;
        world.secure = world.listen("dtls://127.0.0.1:0", 1).await;
        world
    }

    pub(crate) async fn open() -> Self {
        Self::with(TestAuth::open(), |_, _| {}).await
    }

    /// One more address.
    pub(crate) async fn listen(&self, endpoint: &str, sockets: usize) -> SocketAddr {
        let settings = DatagramSettings { sockets, ..DatagramSettings::default() };
        let sockets = Datagrams::bind(&endpoint.parse().unwrap(), settings).await.unwrap();
        let address = sockets[0].local_addr();
        for socket in sockets {
            assert!(self.coap.serve(socket, &self.scope));
        }
        address
    }

    pub(crate) async fn client(&mut self) -> CoapClient {
        self.seed += 1;
        CoapClient::new(self.server, self.seed).await
    }

    /// A device that has shaken hands, with this PSK identity and key.
    pub(crate) async fn on_channel(&mut self, identity: &str, key: &str) -> CoapClient {
        let channel = DtlsClient::connect(self.secure, &Shown::psk(identity, key)).await;
        self.over(channel)
    }

    pub(crate) fn over(&mut self, channel: DtlsClient) -> CoapClient {
        self.seed += 1;
        CoapClient::secure(channel, self.seed)
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.bus.memory.stored().iter().map(|stored| serde_json::from_slice(&stored.body).unwrap()).collect()
    }

    /// The events of these types, each in a few words.
    pub(crate) fn story(&self) -> Vec<String> {
        self.events().iter().map(words).collect()
    }

    /// Waits until an event says this.
    pub(crate) async fn told(&self, wanted: &str) -> Value {
        eventually(PATIENCE, wanted, async || self.events().into_iter().find(|event| words(event) == wanted))
            .await
    }

    pub(crate) fn count(&self, wanted: &str) -> usize {
        self.story().iter().filter(|words| *words == wanted).count()
    }

    pub(crate) fn peer(&self, device: &str) -> Option<PeerHandle> {
        self.hub.peer(&"default".parse().unwrap(), &device.parse().unwrap(), Family::Coap)
    }

    pub(crate) fn command(&self, device: &str, id: &str, wait: &str) {
        self.hub.command(request(device, id, wait));
    }

    /// The value of a metric without labels, or with these.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// Tells the server to end.
    pub(crate) fn stop(&self) {
        self.scope.cancel();
    }

    pub(crate) async fn close(self) {
        assert_eq!(self.scope.panics(), 0);
        assert!(self.scope.drain(PATIENCE).await.is_clean());
    }
}

pub(crate) fn request(device: &str, id: &str, wait: &str) -> CommandRequest {
    CommandRequest {
        tenant: "default".parse().unwrap(),
        device: device.parse().unwrap(),
        id: Some(id.into()),
        name: Some("reboot".into()),
        ttl: None,
        wait: Some(wait.into()),
        topic: None,
        content_type: Some("application/json".into()),
        correlation_data: None,
        payload: Bytes::from_static(b"{\"now\":1}"),
        reply: None,
    }
}

/// An event in a few words: its type, whose, and what matters most of it.
fn words(event: &Value) -> String {
    let device = event.get("endpointId").or_else(|| event.get("endpointIds")?.get(0));
    let more = ["reason", "outcome", "cause", "topic"].iter().find_map(|field| event.get(field));
    let parts = [event.get("type"), device, more];
    let parts: Vec<&str> = parts.into_iter().flatten().filter_map(Value::as_str).collect();
    parts.join(" ")
}

/// A confirmable POST with an id and a token of its own, as bytes that can be sent twice.
pub(crate) fn post(client: &mut CoapClient, path: &str, queries: &[&str]) -> Message {
    let message = Message::request(landfall_testkit::coap::method::POST).path(path).queries(queries);
    Message { id: client.id(), token: client.token(), ..message }
}
