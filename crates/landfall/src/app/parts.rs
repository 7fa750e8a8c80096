//! From the settings to the settings of each part, and what stands between the parts.
//!
//! Owns: that translation, and [`Standing`]: what the operator's interface may ask. Does not own: order in time (`super`).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::Client;
use landfall_coap::CoapConfig;
use landfall_event::{DeviceId, Incarnation, Origin, ReplicaId, TenantId};
use landfall_hub::{Bus as _, Hub, HubConfig, SessionView, unix_now};
use landfall_mqtt::{MqttConfig, OfflineLimits, Sessions};
use landfall_nats::embedded::{Embedded, EmbeddedError, EmbeddedSettings};
use landfall_nats::streams::{Keep, StreamSettings};
use landfall_nats::window::Bounds;
use landfall_nats::{
    Cause, ConnectError, ConnectSettings, GuardianSettings, Health, Publisher, PublisherSettings, SpoolPlace,
    Target,
};
use landfall_net::ws::Origins;
use landfall_net::{Endpoint, Tls};
use landfall_udp::UdpConfig;
use prometheus_client::registry::Registry;

use crate::Failure;
use crate::admin::{NotReady, Overview, SessionQuery, StoreTrouble};
use crate::reloads::{Broken, Reloads};
use crate::runfile::RunFile;
use crate::settings::{AuthMode, NatsTarget, NatsUrl, Settings, WhenAway};

fn whole_seconds<T: TryFrom<u64>>(duration: Duration, most: T) -> T {
    T::try_from(duration.as_secs()).unwrap_or(most)
}

fn bytes_of(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX >> 1)
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn tls(settings: &Settings) -> Result<Option<Arc<Tls>>, Failure> {
    let loaded = settings.tls.settings().map(Tls::load).transpose();
    loaded.map_err(|error| Failure::Usage(error.to_string()))
}

pub(super) async fn embedded(settings: &Settings) -> Result<Option<Embedded>, Failure> {
    if !matches!(settings.nats.url, NatsTarget::Embedded) {
        return Ok(None);
    }
    let server = EmbeddedSettings {
        store_dir: settings.nats.store_dir.clone(),
        port: settings.nats.port,
        server: settings.nats.server.clone(),
        sync_always: settings.nats.sync_always,
        // The largest packet as an event: texts and properties may grow sixfold in JSON, and the event has a head.
        max_payload: (8 * largest_message(settings)).max(1 << 20),
        launcher: std::env::current_exe().ok(),
        ..EmbeddedSettings::default()
    };
    let embedded = Embedded::start(server).await.map_err(|error| match error {
        EmbeddedError::Missing { .. } | EmbeddedError::TooOld { .. } | EmbeddedError::Store { .. } => {
            Failure::Usage(error.to_string())
        }
        EmbeddedError::InUse(_) | EmbeddedError::Failed { .. } => Failure::runtime(error),
    })?;
    tracing::info!(url = embedded.place(), "nats-server started");
    Ok(Some(embedded))
}

/// The largest message that a device may send, whatever the protocol, in bytes.
fn largest_message(settings: &Settings) -> usize {
    let [mqtt, coap, udp] =
        [bytes_of(settings.mqtt.max_packet_size), settings.coap.max_body, settings.udp.max_datagram];
    mqtt.max(coap).max(udp)
}

pub(super) fn target(settings: &Settings, embedded: Option<&Embedded>) -> Result<Target, Failure> {
    let urls = match (&settings.nats.url, embedded) {
        (NatsTarget::Servers(urls), _) => urls.iter().map(NatsUrl::expose).collect(),
        (NatsTarget::Embedded, embedded) => embedded.map(Embedded::url).into_iter().collect(),
    };
    let nats = &settings.nats;
    let target = Target::new(ConnectSettings {
        urls,
        credentials: nats.creds.clone(),
        ca: nats.ca.clone(),
        certificate: nats.cert.clone().zip(nats.key.clone()),
        name: format!("landfall {}", settings.instance.name),
    });
    target.map_err(|error| Failure::Usage(format!("nats.url: {error}")))
}

/// A client for requests.
pub(super) async fn client(target: &Target) -> Result<Client, Failure> {
    target.client().await.map_err(|error| match error {
        ConnectError::File { .. } => Failure::Usage(error.to_string()),
        _ => Failure::runtime(error),
    })
}

pub(super) fn spool_place(settings: &Settings) -> SpoolPlace {
    SpoolPlace { dir: settings.nats.spool_dir.clone(), limit_bytes: settings.nats.spool_limit }
}

pub(super) fn publisher_settings(settings: &Settings, origin: &Origin) -> Result<PublisherSettings, Failure> {
    let bounds = Bounds {
        in_flight: settings.nats.publish_window,
        ack_timeout_ms: milliseconds(settings.nats.ack_timeout),
        ..Bounds::default()
    };
    let place = spool_place(settings);
    let kept = place.open(origin).map_err(|error| {
        Failure::Usage(format!("nats.spool_dir = {:?}: it cannot be used: {error}", place.dir))
    })?;
    Ok(PublisherSettings { bounds, fenced: true, kept: Some(kept) })
}

pub(super) fn guardian_settings(settings: &Settings) -> GuardianSettings {
    GuardianSettings::new(settings.nats.lease_ttl, settings.events.format)
}

pub(super) fn stream_settings(settings: &Settings) -> StreamSettings {
    let nats = &settings.nats;
    StreamSettings {
        connectivity: Keep { max_age: nats.connectivity_max_age, max_bytes: nats.connectivity_max_bytes },
        messages: Keep { max_age: nats.messages_max_age, max_bytes: nats.messages_max_bytes },
        access: Keep { max_age: nats.access_max_age, max_bytes: nats.access_max_bytes },
        replicas: nats.replicas,
        duplicate_window: nats.duplicate_window,
        ..StreamSettings::default()
    }
}

pub(super) fn offline_limits(settings: &Settings) -> OfflineLimits {
    let (max_sessions, queue_per_device) = (settings.mqtt.max_sessions, settings.mqtt.offline_queue);
    OfflineLimits { max_sessions, queue_per_device, ..OfflineLimits::default() }
}

pub(super) fn mqtt_config(settings: &Settings) -> MqttConfig {
    let mqtt = &settings.mqtt;
    let limits = landfall_mqtt_core::Limits {
        max_packet_size: mqtt.max_packet_size,
        receive_maximum: mqtt.receive_maximum,
        topic_alias_maximum: mqtt.topic_alias_maximum,
        max_subscriptions: mqtt.max_subscriptions,
        max_keep_alive: whole_seconds(mqtt.max_keep_alive, u16::MAX),
        max_session_expiry: whole_seconds(mqtt.max_session_expiry, u32::MAX),
        ..landfall_mqtt_core::Limits::default()
    };
    MqttConfig {
        limits: Arc::new(limits),
        connect_timeout: mqtt.connect_timeout,
        write_timeout: mqtt.write_timeout,
        packet_timeout: mqtt.packet_timeout,
    }
}

/// Which web pages may open a WebSocket.
pub(super) fn origins(settings: &Settings) -> Arc<Origins> {
    let local_only = settings.auth.mode == AuthMode::Open;
    Arc::new(Origins { allowed: settings.mqtt.allowed_origins.clone(), local_only })
}

/// The names that the operator's interface answers to.
pub(super) fn admin_hosts(settings: &Settings, listen: &Endpoint) -> Vec<String> {
    let named = settings.admin.allowed_hosts.iter().map(|host| host.as_str().to_owned());
    named.chain([listen.host().to_ascii_lowercase()]).collect()
}

pub(super) fn coap_config(settings: &Settings) -> CoapConfig {
    let coap = &settings.coap;
    // The settings bound what there is in all, the protocol machine what one socket has.
    let share = |in_all: usize, least: usize| coap.share(in_all, least);
    let limits = landfall_coap_core::Limits {
        max_peers: share(coap.max_peers, 1),
        max_exchanges: share(coap.max_exchanges, 1),
        max_remembered: share(coap.max_remembered, 1),
        max_replay_bytes: share(coap.replay_memory, 1),
        max_observations: share(coap.max_observations, 1),
        max_body: coap.max_body,
        max_uploads: share(coap.max_uploads, 1),
        max_upload_bytes: share(coap.upload_memory, coap.max_body),
        ..landfall_coap_core::Limits::default()
    };
    CoapConfig {
        limits: Arc::new(limits),
        request_timeout: coap.request_timeout,
        max_ttd: coap.max_ttd,
        max_paths: share(settings.presence.max_sessions, 1),
        max_registrations: settings.presence.max_sessions,
        ..CoapConfig::default()
    }
}

pub(super) fn udp_config(settings: &Settings) -> UdpConfig {
    let udp = &settings.udp;
    UdpConfig {
        max_datagram: udp.max_datagram,
        reach: udp.reach,
        max_unstored: udp.max_unstored,
        max_signed_devices: udp.max_signed_devices,
        ..UdpConfig::default()
    }
}

/// Who this process is.
pub(super) fn origin(settings: &Settings) -> Origin {
    Origin {
        instance: settings.instance.name.clone(),
        replica: replica(settings),
        incarnation: Incarnation::new(unix_now(), rand::random()),
    }
}

/// The configured name. Without one, whoever starts on the store of an embedded server goes on under the name of the one
/// before, which is gone: so its sessions are closed at once.
fn replica(settings: &Settings) -> ReplicaId {
    let is_embedded =
        matches!(settings.nats.url, NatsTarget::Embedded) && settings.instance.replica.is_none();
    let before = is_embedded.then(|| RunFile::read(&settings.nats.store_dir).ok()).flatten();
    before.and_then(|run| run.replica.parse().ok()).unwrap_or_else(|| settings.instance.replica())
}

fn hub_config(settings: &Settings, origin: Origin) -> HubConfig {
    HubConfig {
        format: settings.events.format,
        upstream_body: settings.events.upstream_body,
        service_interval: settings.events.keep_alive,
        refusal_interval: settings.events.refusal_interval,
        admit_while_away: settings.nats.when_away == WhenAway::Admit,
        tick: settings.presence.tick,
        max_sessions: settings.presence.max_sessions,
        window_bytes: settings.nats.publish_window_bytes,
        commands_per_session: settings.commands.max_per_device,
        max_commands: settings.commands.max_under_way,
        max_command_ttl: settings.commands.max_ttl,
        max_quiet_devices: settings.commands.max_quiet_devices,
        // Only a session that outlives its connection has a will that waits.
        max_waiting_wills: settings.mqtt.max_sessions,
        idle_timeout: settings.presence.idle_timeout,
        adaptive: settings.presence.learning(),
        ..HubConfig::new(origin)
    }
}

/// How the gateway stands: what an operator may ask at any time, from the first moment on.
#[derive(Debug)]
pub(super) struct Standing {
    replica: ReplicaId,
    hub: Arc<Hub>,
    bus: Arc<Publisher>,
    health: Health,
    reloads: Arc<Reloads>,
    sessions: OnceLock<Arc<Sessions>>,
    admin: OnceLock<SocketAddr>,
    serving: AtomicBool,
    draining: AtomicBool,
}

impl Standing {
    pub(super) fn new(
        (settings, origin): (&Settings, Origin),
        (bus, client): (Arc<Publisher>, Client),
        reloads: Arc<Reloads>,
        registry: &mut Registry,
    ) -> Self {
        let config = hub_config(settings, origin);
        let replica = config.origin.replica.clone();
        let hub = Hub::new(config, Arc::clone(&bus) as _, registry);
        hub.keep_out();
        Self {
            replica,
            hub,
            bus,
            health: Health::new(client),
            reloads,
            sessions: OnceLock::new(),
            admin: OnceLock::new(),
            serving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(super) fn bus(&self) -> &Publisher {
        &self.bus
    }

    pub(super) fn origin(&self) -> Arc<Origin> {
        self.hub.origin()
    }

    pub(super) fn replica(&self) -> &ReplicaId {
        &self.replica
    }

    pub(super) fn set_sessions(&self, sessions: Arc<Sessions>) {
        let _ = self.sessions.set(sessions);
    }

    pub(super) fn sessions(&self) -> Option<&Arc<Sessions>> {
        self.sessions.get()
    }

    pub(super) fn set_admin(&self, address: SocketAddr) {
        let _ = self.admin.set(address);
    }

    pub(super) fn admin(&self) -> Option<String> {
        self.admin.get().map(ToString::to_string)
    }

    /// Devices are let in.
    pub(super) fn set_serving(&self) {
        self.hub.let_in();
        self.serving.store(true, Ordering::Release);
    }

    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

impl Overview for Standing {
    fn phase(&self) -> Option<NotReady> {
        if self.draining.load(Ordering::Acquire) {
            return Some(NotReady::Draining);
        }
        (!self.serving.load(Ordering::Acquire)).then_some(NotReady::Starting)
    }

    fn admits(&self) -> bool {
        self.hub.takes_sessions()
    }

    fn store(&self) -> Option<StoreTrouble> {
        if self.bus.is_ready() && self.health.is_connected() {
            return None;
        }
        let trouble = self.bus.trouble().map(|trouble| StoreTrouble {
            cause: trouble.cause,
            error: trouble.error,
            since: Some(unix_now().saturating_sub(milliseconds(trouble.lasts))),
        });
        // Nothing has come of it yet, or only the connection for requests is away.
        Some(trouble.unwrap_or(StoreTrouble {
            cause: Cause::ServerNotReached,
            error: String::new(),
            since: None,
        }))
    }

    fn broken(&self) -> Vec<Broken> {
        self.reloads.broken()
    }

    fn session_count(&self, query: &SessionQuery) -> u64 {
        if query.wants_all() {
            return self.hub.session_count();
        }
        self.hub.count_sessions(|session| query.wants(session))
    }

    fn sessions(&self, query: &SessionQuery) -> Vec<SessionView> {
        self.hub.sessions(query.limit, |session| query.wants(session))
    }

    fn kick(&self, tenant: &TenantId, device: &DeviceId) -> usize {
        self.hub.kick(tenant, device)
    }
}
