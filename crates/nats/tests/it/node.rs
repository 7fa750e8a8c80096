//! A gateway without devices: what stands between the hub and NATS, and what its sessions say.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_event::{Format, IdentifiedBy, Incarnation, Memo, Origin, Reason, Transport};
use landfall_hub::{Acl, Hello, Hub, HubConfig, Principal, Protocol, SessionHandle, Uplink, unix_now};
use landfall_nats::streams::StreamSettings;
use landfall_nats::window::Bounds;
use landfall_nats::{Dismissed, Guardian, GuardianSettings, Publisher, PublisherSettings, SpoolPlace};
use landfall_net::Scope;
use landfall_testkit::NatsServer;
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::{CONNECTIVITY, stored};
use landfall_testkit::wait::{PATIENCE, within};
use prometheus_client::registry::Registry;

use crate::support::target;

/// The leases of these gateways.
pub(crate) const TTL: Duration = Duration::from_secs(1);

/// One gateway without devices: the hub, the bus, the guardian.
pub(crate) struct Node {
    pub(crate) hub: Arc<Hub>,
    pub(crate) bus: Arc<Publisher>,
    pub(crate) scope: Scope,
    /// What was kept beside the events that the start found on disk.
    pub(crate) memos: Vec<Memo>,
    watch: Scope,
}

impl Node {
    /// In office, the past not settled yet.
    pub(crate) async fn appointed(url: &str, replica: &str) -> (Self, Guardian) {
        Self::appointed_with((url, url), replica, None).await
    }

    /// The bus and the guardian each go their own way to NATS.
    async fn appointed_with(
        (bus_url, url): (&str, &str),
        replica: &str,
        place: Option<&SpoolPlace>,
    ) -> (Self, Guardian) {
        let origin = Origin {
            instance: "landfall".parse().expect("a name"),
            replica: replica.parse().expect("a name"),
            incarnation: Incarnation::new(unix_now(), rand::random()),
        };
        let scope = Scope::new();
        let client = target(url).client().await.expect("a client");
        let context = async_nats::jetstream::new(client.clone());
        // Those that a test has made keep the limits that it gave them.
        if context.get_stream(CONNECTIVITY).await.is_err() {
            landfall_nats::streams::establish(&context, &StreamSettings::default()).await.expect("streams");
        }
        let bounds = Bounds { ack_timeout_ms: 500, longest_pause_ms: 100, ..Bounds::default() };
        let kept = place.map(|place| place.open(&origin).expect("a directory"));
        let settings = PublisherSettings { bounds, fenced: true, kept };
        let bus = Arc::new(Publisher::start(&scope, target(bus_url), client.clone(), settings));
        let config = HubConfig { service_interval: Duration::from_secs(3600), ..HubConfig::new(origin) };
        let hub = Hub::new(config, Arc::clone(&bus) as _, &mut Registry::default());
        let settings = GuardianSettings { checkpoint_after: 150, ..GuardianSettings::new(TTL, Format::Json) };
        let guardian = Guardian::take_office(&hub, &bus, client, &scope, settings).await.expect("an office");
        (Self { hub, bus, scope, memos: Vec::new(), watch: Scope::new() }, guardian)
    }

    /// Serving.
    pub(crate) async fn start(url: &str, replica: &str) -> Self {
        let (node, mut guardian) = Self::appointed(url, replica).await;
        guardian.settle_the_past().await.expect("JetStream answers");
        node.keep_watch(guardian);
        node
    }

    /// Serving, with a place on disk.
    pub(crate) async fn keeping(url: &str, replica: &str, dir: &Path) -> Self {
        Self::keeping_at_most(url, replica, dir, 64 << 20).await
    }

    /// The same with a way to NATS for the bus, and one for the guardian.
    pub(crate) async fn keeping_by(urls: (&str, &str), replica: &str, dir: &Path) -> Self {
        Self::keeping_with(urls, replica, SpoolPlace { dir: dir.to_owned(), limit_bytes: 64 << 20 }).await
    }

    pub(crate) async fn keeping_at_most(url: &str, replica: &str, dir: &Path, limit_bytes: u64) -> Self {
        Self::keeping_with((url, url), replica, SpoolPlace { dir: dir.to_owned(), limit_bytes }).await
    }

    async fn keeping_with(urls: (&str, &str), replica: &str, place: SpoolPlace) -> Self {
        let (mut node, mut guardian) = Self::appointed_with(urls, replica, Some(&place)).await;
        node.memos = guardian.adopt(&place, &target(urls.0)).await;
        guardian.settle_the_past().await.expect("JetStream answers");
        node.keep_watch(guardian);
        node
    }

    pub(crate) fn keep_watch(&self, mut guardian: Guardian) -> tokio::sync::oneshot::Receiver<Dismissed> {
        let (tell, dismissed) = tokio::sync::oneshot::channel();
        let watch = self.watch.clone();
        self.scope.spawn(async move {
            let _ = tell.send(guardian.keep_watch(&watch).await);
        });
        dismissed
    }

    pub(crate) async fn open(&self, device: &str) -> SessionHandle {
        within(PATIENCE, "a session", self.hub.open(hello(device))).await.expect("it begins")
    }

    pub(crate) async fn open_many(&self, count: usize) -> Vec<SessionHandle> {
        let names: Vec<String> = (0..count).map(|n| format!("d{n}")).collect();
        futures_util::future::join_all(names.iter().map(|name| self.open(name))).await
    }

    /// Gone from one moment to the next: nothing that it still has is published.
    pub(crate) async fn die(self) {
        self.watch.cancel();
        self.scope.drain(Duration::ZERO).await;
    }

    /// Ends in order.
    pub(crate) async fn leave(self) {
        self.hub.drain().await.expect("everything is stored");
        self.watch.cancel();
        self.bus.close(PATIENCE).await;
        self.scope.drain(Duration::from_secs(1)).await;
    }
}

pub(crate) fn hello(device: &str) -> Hello {
    Hello {
        principal: Principal {
            tenant: "default".parse().expect("a tenant"),
            device: device.parse().expect("a device"),
            identified_by: IdentifiedBy::Anonymous,
            app_version: "".into(),
            acl: Arc::new(Acl::default()),
            keep_alive: None,
        },
        transport: Transport::Mqtt,
        protocol: Protocol::Mqtt5,
        remote_id: device.into(),
        remote_address: ([127, 0, 0, 1], 4000).into(),
        keep_alive_ms: None,
        on_silence: Reason::KeepAliveTimeout,
        inferred: false,
        clean_start: Some(true),
        will: None,
    }
}

pub(crate) fn uplink(n: u64) -> Uplink {
    Uplink {
        topic: "t".into(),
        qos: Some(1),
        retain: false,
        content_type: None,
        properties: Vec::new(),
        publish: None,
        payload: Bytes::from(n.to_string()),
    }
}

/// Submits a message that somebody waits for.
pub(crate) fn send(session: &SessionHandle, n: u64) {
    let permit = session.try_admit(8).expect("room");
    session.upstream(uplink(n), Some(n), permit).expect("an open session");
}

/// Waits until the session's mailbox has told that these are stored.
pub(crate) async fn hear(session: &SessionHandle, tokens: &[u64]) {
    let mut heard = Vec::new();
    while heard.len() < tokens.len() {
        let news = std::future::poll_fn(|cx| session.poll_settled(cx));
        for (token, result) in within(PATIENCE, "news of stored messages", news).await {
            result.expect("it is stored");
            heard.push(token);
        }
    }
    heard.sort_unstable();
    assert_eq!(heard, tokens);
}

/// Sessions that come and go.
pub(crate) async fn churn(node: &Node, count: usize) {
    for n in 0..count {
        node.open(&format!("passing-{n}")).await.close(Reason::ClientClosed);
    }
}

/// What is said of presence in the stream, without the gateways' own life.
pub(crate) async fn presence(nats: &NatsServer) -> Vec<Seen> {
    let all = stored(nats, CONNECTIVITY).await;
    all.into_iter().filter(|event| matches!(event.kind(), "connected" | "disconnected")).collect()
}

/// How often each device's end for this reason is stored.
pub(crate) fn ends(events: &[Seen], reason: &str) -> usize {
    let each = |event: &Seen| match event.json["sessions"].as_array() {
        Some(many) => many.iter().filter(|one| one["reason"] == reason).count(),
        None => usize::from(event.json["reason"] == reason),
    };
    events.iter().filter(|event| event.kind() == "disconnected").map(each).sum()
}
