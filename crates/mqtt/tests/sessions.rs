//! What waits for a device that is away: what the store refuses, bounds, restarts, and connections that are just ending.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod common;
#[path = "sessions/flights.rs"]
mod flights;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_event::{DeviceId, TenantId};
use landfall_hub::memory::{MemoryBus, MemoryStore};
use landfall_hub::{
    BoxFuture, CommandRequest, Hub, HubConfig, SessionStore, StoreError, StoredQueue, StoredSession,
};
use landfall_mqtt::{MqttConfig, MqttServer, OfflineLimits, Sessions};
use landfall_net::{Accepted, Gate, Scope, Serve as _, StreamKind};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use common::{Anybody, origin};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a store does with one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Takes,
    TooLarge,
    /// It tries for half a minute and gives up, as a store does whose server is away.
    Away,
    Never,
}

impl Mood {
    async fn say(self) -> Result<(), StoreError> {
        match self {
            Self::Takes => Ok(()),
            Self::TooLarge => Err(StoreError::TooLarge { size: 2, limit: 1 }),
            Self::Away => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                Err(StoreError::Unavailable("no answer".to_owned()))
            }
            Self::Never => std::future::pending().await,
        }
    }
}

/// A store in memory that can be made to fail.
#[derive(Debug, Default)]
struct Moody {
    memory: MemoryStore,
    /// For sessions of this device.
    saving: Mutex<(String, Mood)>,
    queueing: Mutex<Mood>,
}

impl SessionStore for Moody {
    fn sessions(&self) -> BoxFuture<'_, Result<Vec<StoredSession>, StoreError>> {
        self.memory.sessions()
    }

    fn save(&self, session: StoredSession) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let (device, mood) = self.saving.lock().clone();
            if session.device.as_str() == device {
                mood.say().await?;
            }
            self.memory.save(session).await
        })
    }

    fn forget<'a>(
        &'a self,
        tenant: &'a TenantId,
        device: &'a DeviceId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.memory.forget(tenant, device)
    }

    fn queued(&self) -> BoxFuture<'_, Result<Vec<StoredQueue>, StoreError>> {
        self.memory.queued()
    }

    fn enqueue<'a>(
        &'a self,
        tenant: &'a TenantId,
        device: &'a DeviceId,
        entry: Bytes,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let mood = *self.queueing.lock();
            mood.say().await?;
            self.memory.enqueue(tenant, device, entry).await
        })
    }

    fn dequeue(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.memory.dequeue(number)
    }
}

struct World {
    bus: Arc<MemoryBus>,
    store: Arc<Moody>,
    hub: Arc<Hub>,
    sessions: Arc<Sessions>,
    server: Arc<MqttServer>,
    /// The listeners' part ends before the writer.
    doors: Scope,
    inside: Scope,
    gate: Arc<Gate>,
}

async fn world(store: Arc<Moody>, limits: OfflineLimits) -> World {
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::new(HubConfig::new(origin()), Arc::clone(&bus) as _, &mut Registry::default());
    let (doors, inside) = (Scope::new(), Scope::new());
    hub.start(&inside);
    let sessions = Arc::new(Sessions::new(Arc::clone(&hub), Arc::clone(&store) as _, limits));
    sessions.restore().await.unwrap();
    sessions.start(&inside);
    hub.set_offline(Arc::clone(&sessions) as _);
    let config = MqttConfig::default();
    let server = MqttServer::new(config, Arc::clone(&hub), Arc::new(Anybody), Arc::clone(&sessions));
    let gate = Gate::new(landfall_net::Limits::default());
    World { bus, store, hub, sessions, server, doors, inside, gate }
}

async fn new_world() -> World {
    world(Arc::default(), OfflineLimits::default()).await
}

/// SUBSCRIBE to `command/#` with QoS 1.
const SUBSCRIBE: &[u8] = b"\x82\x0e\x00\x01\x00\x09command/#\x01";
const GOODBYE: &[u8] = &[0xe0, 0];
/// PUBLISH with QoS 2, which the session must know to be stored before it is put down.
const PUBLISH: &[u8] = b"\x34\x06\x00\x01t\x00\x071";

struct Client(DuplexStream);

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn receive<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// The id of the command in the next PUBLISH.
    async fn command(&mut self) -> String {
        let [_, length] = self.receive::<2>().await;
        let mut packet = vec![0; usize::from(length)];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut packet)).await.unwrap().unwrap();
        String::from_utf8(packet).unwrap().split('/').nth(4).unwrap().to_owned()
    }

    async fn closed(mut self) {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}

/// A 3.1.1 CONNECT.
fn connect(id: &str, clean: bool) -> Vec<u8> {
    let mut packet = vec![0x10, u8::try_from(12 + id.len()).unwrap(), 0, 4];
    packet.extend(b"MQTT");
    packet.extend([4, if clean { 2 } else { 0 }, 0, 0, 0, u8::try_from(id.len()).unwrap()]);
    packet.extend(id.as_bytes());
    packet
}

impl World {
    fn dial(&self, buffer: usize) -> Client {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let remote = ([127, 0, 0, 1], 4000).into();
        let permit = self.gate.enter(IpAddr::from([127, 0, 0, 1])).unwrap();
        let (kind, certificate) = (StreamKind::Tcp, None);
        let accepted = Accepted { stream: theirs, remote, local: remote, kind, certificate, permit };
        self.doors.spawn(Arc::clone(&self.server).serve(accepted));
        Client(ours)
    }

    /// Connects; returns whether a session was present.
    async fn connect(&self, id: &str, clean: bool) -> (Client, bool) {
        let mut client = self.dial(4096);
        client.send(&connect(id, clean)).await;
        let [0x20, 2, present, 0] = client.receive::<4>().await else { panic!("refused") };
        (client, present == 1)
    }

    async fn subscriber(&self, id: &str) -> Client {
        let (mut client, _) = self.connect(id, false).await;
        client.send(SUBSCRIBE).await;
        client.receive::<5>().await;
        client
    }

    /// The device has a persistent session, and is away.
    async fn away(&self, id: &str) {
        let mut client = self.subscriber(id).await;
        client.send(GOODBYE).await;
        client.closed().await;
    }

    /// A connection whose session has ended, and which holds its place until the bus is back.
    async fn ending(&self, id: &str) -> Client {
        let mut client = self.subscriber(id).await;
        self.bus.set_away(true);
        client.send(PUBLISH).await;
        client.send(GOODBYE).await;
        self.until(|| self.hub.session_count() == 0).await;
        client
    }

    fn command(&self, device: &str, id: &str, payload: usize) {
        self.command_for(device, id, payload, (None, "60000"));
    }

    fn command_for(&self, device: &str, id: &str, payload: usize, (topic, ttl): (Option<&str>, &str)) {
        self.hub.command(CommandRequest {
            tenant: "default".parse().unwrap(),
            device: device.parse().unwrap(),
            id: Some(id.into()),
            name: Some("go".into()),
            ttl: Some(ttl.into()),
            wait: None,
            topic: topic.map(Into::into),
            content_type: None,
            correlation_data: None,
            payload: vec![b'x'; payload].into(),
            reply: None,
        });
    }

    /// The outcomes of commands, in order.
    fn outcomes(&self) -> Vec<String> {
        let events = self.bus.stored();
        let events = events.iter().map(|event| serde_json::from_slice::<Value>(&event.body).unwrap());
        let word = |event: Value| {
            let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
            event.get("outcome")?;
            Some(format!("{} {} {}", text("commandId"), text("outcome"), text("status")))
        };
        events.filter_map(word).collect()
    }

    async fn until(&self, done: impl Fn() -> bool) {
        let wait = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }

    async fn until_outcomes(&self, count: usize) -> Vec<String> {
        self.until(|| self.outcomes().len() >= count).await;
        self.outcomes()
    }

    async fn flushed(&self) {
        tokio::time::timeout(2 * PATIENCE, self.sessions.flushed()).await.unwrap();
    }

    async fn stored_queue(&self) -> usize {
        self.store.queued().await.unwrap().len()
    }

    /// Ends as the gateway does, and starts again on the same store.
    async fn restart(self, limits: OfflineLimits) -> World {
        self.doors.drain(Duration::ZERO).await;
        self.flushed().await;
        self.inside.drain(Duration::from_secs(1)).await;
        world(self.store, limits).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_for_good_holds_nothing_up() {
    let w = new_world().await;
    *w.store.saving.lock() = ("big".to_owned(), Mood::TooLarge);
    w.away("big").await;
    w.away("pump").await;
    w.flushed().await;
    let stored = w.store.sessions().await.unwrap();
    assert_eq!(stored.iter().map(|s| s.device.as_str()).collect::<Vec<_>>(), ["pump"]);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_cannot_be_stored_waits_in_memory() {
    let w = new_world().await;
    w.away("pump").await;
    *w.store.queueing.lock() = Mood::TooLarge;
    w.command("pump", "c1", 1);
    w.flushed().await;
    *w.store.queueing.lock() = Mood::Takes;
    w.command("pump", "c2", 1);
    w.flushed().await;
    assert_eq!(w.stored_queue().await, 1);
    let (mut client, _) = w.connect("pump", false).await;
    assert_eq!((client.command().await, client.command().await), ("c1".to_owned(), "c2".to_owned()));
    assert_eq!(w.until_outcomes(2).await, ["c1 delivered -", "c2 delivered -"]);
    w.flushed().await;
    assert_eq!(w.stored_queue().await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_store_gives_up_while_it_is_away_is_tried_again() {
    let w = new_world().await;
    *w.store.saving.lock() = ("pump".to_owned(), Mood::Away);
    *w.store.queueing.lock() = Mood::Away;
    w.away("pump").await;
    w.command("pump", "c1", 1);
    tokio::time::sleep(Duration::from_secs(50)).await;
    *w.store.saving.lock() = Default::default();
    *w.store.queueing.lock() = Mood::Takes;
    w.flushed().await;
    assert_eq!((w.store.sessions().await.unwrap().len(), w.stored_queue().await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_stuck_does_not_hold_up_the_sessions() {
    let w = new_world().await;
    w.away("pump").await;
    *w.store.queueing.lock() = Mood::Never;
    w.command("pump", "c1", 1);
    w.away("other").await;
    let wait = async {
        while w.store.sessions().await.unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, w.sessions.flushed()).await.is_err(), "the command is not stored");
}

#[tokio::test(start_paused = true)]
async fn waiting_commands_have_a_budget_of_bytes() {
    // Room for two of 1000 bytes.
    let limits = OfflineLimits { queue_bytes: 2 * (1000 + 512), ..OfflineLimits::default() };
    let w = world(Arc::default(), limits).await;
    w.away("pump").await;
    w.away("fan").await;
    w.command("pump", "c1", 1000);
    w.command("fan", "c2", 1000);
    w.command("fan", "c3", 0);
    assert_eq!(w.outcomes(), ["c3 busy queue"]);
    let (mut client, _) = w.connect("fan", false).await;
    let [_, _, _] = client.receive::<3>().await;
    w.until_outcomes(2).await;
    w.command("pump", "c4", 1000);
    assert_eq!(w.outcomes(), ["c3 busy queue", "c2 delivered -"]);
    // What was taken before a restart stays, and counts.
    let w = w.restart(OfflineLimits { queue_bytes: 1000, ..limits }).await;
    w.command("pump", "c5", 0);
    assert_eq!(w.outcomes(), ["c5 busy queue"]);
    let (client, _) = w.connect("pump", true).await;
    drop(client);
    let failed = ["c1 failed session-discarded", "c4 failed session-discarded"];
    assert_eq!(w.until_outcomes(3).await[1..], failed);
    w.away("fan").await;
    w.command("fan", "c6", 400);
    assert_eq!(w.outcomes().len(), 3, "all of the budget is back");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_no_store_would_take_does_not_wait() {
    let w = new_world().await;
    w.away("pump").await;
    w.command("pump", "c1", 512 * 1024);
    w.command("pump", "c2", 512 * 1024 + 1);
    assert_eq!(w.outcomes(), ["c2 busy queue"]);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_stored_twice_is_sent_once() {
    let w = new_world().await;
    w.away("pump").await;
    w.command("pump", "c1", 1);
    w.flushed().await;
    let StoredQueue { tenant, device, entry, .. } = w.store.queued().await.unwrap().remove(0);
    w.store.enqueue(&tenant, &device, entry.clone()).await.unwrap();
    // One of a device without a session has an outcome, and one only.
    let stranger: DeviceId = "stranger".parse().unwrap();
    w.store.enqueue(&tenant, &stranger, entry.clone()).await.unwrap();
    w.store.enqueue(&tenant, &stranger, entry).await.unwrap();
    let w = w.restart(OfflineLimits::default()).await;
    w.flushed().await;
    assert_eq!(w.stored_queue().await, 1);
    let (mut client, _) = w.connect("pump", false).await;
    assert_eq!(client.command().await, "c1");
    w.command("pump", "c2", 1);
    assert_eq!(client.command().await, "c2");
    assert_eq!(
        w.until_outcomes(3).await,
        ["c1 failed session-discarded", "c1 delivered -", "c2 delivered -"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_that_comes_while_its_connection_ends_waits_for_the_next() {
    let w = new_world().await;
    let client = w.ending("pump").await;
    w.command("pump", "c1", 1);
    w.command_for("pump", "c2", 1, (Some("elsewhere"), "60000"));
    w.command_for("pump", "c3", 1, (None, "0"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    w.bus.set_away(false);
    client.closed().await;
    // The connection has left its session at once, so whoever asks is told at once.
    assert_eq!(w.until_outcomes(2).await, ["c2 rejected not-subscribed", "c3 expired not-connected"]);
    w.flushed().await;
    assert_eq!(w.stored_queue().await, 1);
    let (mut client, present) = w.connect("pump", false).await;
    assert!(present);
    assert_eq!(client.command().await, "c1");
    assert_eq!(w.until_outcomes(3).await.last().unwrap(), "c1 delivered -");
    w.flushed().await;
    assert_eq!(w.stored_queue().await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_commands_that_come_while_a_connection_ends_are_bounded() {
    let limits = OfflineLimits { queue_per_device: 2, ..OfflineLimits::default() };
    let w = world(Arc::default(), limits).await;
    let client = w.ending("pump").await;
    for id in ["c1", "c2", "c3"] {
        w.command("pump", id, 1);
    }
    w.bus.set_away(false);
    client.closed().await;
    assert_eq!(w.outcomes(), ["c3 busy queue"]);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_comes_while_a_revoked_session_ends_fails() {
    let w = new_world().await;
    let mut client = w.dial(16);
    client.send(&connect("pump", false)).await;
    client.receive::<4>().await;
    client.send(SUBSCRIBE).await;
    client.receive::<5>().await;
    // More than the client's buffer takes: the farewell waits until the client has not read for long enough.
    w.command("pump", "c0", 100);
    tokio::time::sleep(Duration::from_millis(10)).await;
    w.hub.revoke(|_, _, _| false);
    tokio::time::sleep(Duration::from_millis(10)).await;
    w.command("pump", "c1", 1);
    assert_eq!(w.outcomes(), ["c0 failed credentials-revoked", "c1 not-connected -"]);
    w.flushed().await;
    assert_eq!((w.stored_queue().await, w.store.sessions().await.unwrap().len()), (0, 0));
    w.command("pump", "c2", 1);
    assert_eq!(w.outcomes().last().unwrap(), "c2 not-connected -");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_leaves_its_session_and_what_came_for_it() {
    let w = new_world().await;
    let _client = w.ending("pump").await;
    w.command("pump", "c1", 1);
    w.command_for("pump", "c2", 1, (Some("elsewhere"), "60000"));
    w.doors.drain(Duration::ZERO).await;
    w.bus.set_away(false);
    assert_eq!(w.until_outcomes(1).await, ["c2 rejected not-subscribed"]);
    assert_eq!(w.sessions.fill().0, 1);
    w.command("pump", "c3", 1);
    let w = w.restart(OfflineLimits::default()).await;
    let (mut client, present) = w.connect("pump", false).await;
    assert!(present);
    assert_eq!((client.command().await, client.command().await), ("c1".to_owned(), "c3".to_owned()));
}
