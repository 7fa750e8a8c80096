//! One connection against a hub and a store in memory: what reaches the client, when, and what is published.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_hub::memory::{MemoryBus, MemoryStore};
use landfall_hub::{CommandRequest, Hub, HubConfig};
use landfall_mqtt::{MqttConfig, MqttServer, OfflineLimits, Sessions};
use landfall_mqtt_core::Limits;
use landfall_net::{Accepted, Gate, Scope, Serve as _, StreamKind};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use common::{Anybody, origin};

struct World {
    bus: Arc<MemoryBus>,
    store: Arc<MemoryStore>,
    hub: Arc<Hub>,
    server: Arc<MqttServer>,
    sessions: Arc<Sessions>,
    scope: Scope,
    gate: Arc<Gate>,
}

async fn world_with(store: Arc<MemoryStore>, change: impl FnOnce(&mut HubConfig)) -> World {
    let mut config = HubConfig::new(origin());
    change(&mut config);
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::new(config, Arc::clone(&bus) as _, &mut Registry::default());
    let scope = Scope::new();
    hub.start(&scope);
    let limits = OfflineLimits::default();
    let sessions = Arc::new(Sessions::new(Arc::clone(&hub), Arc::clone(&store) as _, limits));
    sessions.restore().await.unwrap();
    sessions.start(&scope);
    hub.set_offline(Arc::clone(&sessions) as _);
    let config = MqttConfig {
        limits: Arc::new(Limits { receive_maximum: 4, unacknowledged_v311: 4, ..Limits::default() }),
        write_timeout: Duration::from_secs(5),
        packet_timeout: Duration::from_secs(30),
        ..MqttConfig::default()
    };
    let server = MqttServer::new(config, Arc::clone(&hub), Arc::new(Anybody), Arc::clone(&sessions));
    World { bus, store, hub, server, sessions, scope, gate: Gate::new(landfall_net::Limits::default()) }
}

/// A moment: nothing that a device waits for when it comes again.
const AT_ONCE: Duration = Duration::from_millis(600);

async fn world() -> World {
    world_with(Arc::default(), |_| {}).await
}

struct Client(DuplexStream);

/// A 3.1.1 CONNECT.
fn connect(id: &str, clean: bool, keep_alive: u8) -> Vec<u8> {
    let mut packet = vec![0x10, u8::try_from(12 + id.len()).unwrap(), 0, 4];
    packet.extend(b"MQTT");
    packet.extend([4, if clean { 2 } else { 0 }, 0, keep_alive, 0, u8::try_from(id.len()).unwrap()]);
    packet.extend(id.as_bytes());
    packet
}

fn publish(qos: u8, id: u8, payload: &[u8]) -> Vec<u8> {
    let id_len = if qos > 0 { 2 } else { 0 };
    let mut packet = vec![0x30 | (qos << 1), u8::try_from(3 + id_len + payload.len()).unwrap(), 0, 1, b't'];
    if qos > 0 {
        packet.extend([0, id]);
    }
    packet.extend(payload);
    packet
}

const PING: &[u8] = &[0xc0, 0];
const PONG: &[u8] = &[0xd0, 0];
/// SUBSCRIBE to `command/#` with QoS 1.
const SUBSCRIBE: &[u8] = b"\x82\x0e\x00\x01\x00\x09command/#\x01";

impl World {
    async fn dial(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(4096);
        let remote = ([127, 0, 0, 1], 4000).into();
        let permit = self.gate.enter(IpAddr::from([127, 0, 0, 1])).unwrap();
        let accepted = Accepted {
            stream: theirs,
            remote,
            local: remote,
            kind: StreamKind::Tcp,
            certificate: None,
            permit,
        };
        self.scope.spawn(Arc::clone(&self.server).serve(accepted));
        Client(ours)
    }

    /// Connects; returns whether a session was present.
    async fn connect(&self, id: &str, clean: bool) -> (Client, bool) {
        let mut client = self.dial().await;
        client.send(&connect(id, clean, 0)).await;
        let [0x20, 2, present, 0] = client.receive::<4>().await else { panic!("refused") };
        (client, present == 1)
    }

    fn story(&self) -> Vec<String> {
        let word = |event: Value| {
            let more = event.get("reason").or(event.get("outcome")).or(event.get("payload"));
            format!("{} {}", event.get("type").unwrap(), more.unwrap_or(&Value::Null)).replace('"', "")
        };
        self.bus.stored().iter().map(|stored| word(serde_json::from_slice(&stored.body).unwrap())).collect()
    }

    fn command(&self, device: &str, id: &str, wait: &str) {
        self.hub.command(CommandRequest {
            tenant: "default".parse().unwrap(),
            device: device.parse().unwrap(),
            id: Some(id.into()),
            name: Some("reboot".into()),
            ttl: None,
            wait: Some(wait.into()),
            topic: None,
            content_type: None,
            correlation_data: None,
            payload: Bytes::from_static(b"now"),
            reply: None,
        });
    }
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn receive<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        tokio::time::timeout(Duration::from_secs(60), self.0.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Nothing comes in a second.
    async fn silence(&mut self) {
        let mut byte = [0];
        assert!(tokio::time::timeout(Duration::from_secs(1), self.0.read_exact(&mut byte)).await.is_err());
    }

    async fn closed(&mut self) {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(60), self.0.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_puback_leaves_after_the_store_and_pings_are_answered_meanwhile() {
    let w = world().await;
    let (mut client, _) = w.connect("pump", true).await;
    w.bus.set_away(true);
    client.send(&publish(1, 7, b"1")).await;
    client.send(&publish(1, 8, b"2")).await;
    client.send(PING).await;
    assert_eq!(client.receive::<2>().await, PONG);
    client.silence().await;
    w.bus.set_away(false);
    assert_eq!(client.receive::<8>().await, [0x40, 2, 0, 7, 0x40, 2, 0, 8]);
    client.send(&[0xe0, 0]).await;
    client.closed().await;
    assert_eq!(w.story(), ["connected null", "upstream 1", "upstream 2", "disconnected client-closed"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_window_stops_reading_and_answers_pings_of_a_client_that_keeps_to_its_window() {
    let w = world_with(Arc::default(), |config| config.window_bytes = 600).await;
    let (mut client, _) = w.connect("pump", true).await;
    w.bus.set_away(true);
    for id in 1..=3 {
        client.send(&publish(1, id, b"1")).await;
    }
    client.send(PING).await;
    assert_eq!(client.receive::<2>().await, PONG);
    for id in 4..=6 {
        client.send(&publish(1, id, b"1")).await;
    }
    client.send(PING).await;
    client.silence().await;
    w.bus.set_away(false);
    let mut acks = 0;
    let mut pongs = 0;
    while (acks, pongs) != (6, 1) {
        match client.receive::<2>().await {
            [0x40, 2] => {
                acks += 1;
                assert_eq!(client.receive::<2>().await, [0, acks]);
            }
            [0xd0, 0] => pongs += 1,
            other => panic!("{other:02x?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_behind_back_pressure_is_not_silent() {
    let w = world_with(Arc::default(), |config| config.window_bytes = 600).await;
    let mut client = w.dial().await;
    client.send(&connect("pump", true, 10)).await;
    assert_eq!(client.receive::<4>().await, [0x20, 2, 0, 0]);
    w.bus.set_away(true);
    for _ in 0..10 {
        client.send(&publish(0, 0, b"1")).await;
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(w.hub.session_count(), 1);
    w.bus.set_away(false);
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(w.hub.session_count(), 1, "the silence counts from when reading went on");
    client.closed().await;
    assert_eq!(w.story().last().unwrap(), "disconnected keep-alive-timeout");
    assert_eq!(w.story().iter().filter(|word| *word == "upstream 1").count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_behind_parked_messages_comes_after_them() {
    let w = world_with(Arc::default(), |config| config.window_bytes = 600).await;
    let (mut client, _) = w.connect("pump", true).await;
    w.bus.set_away(true);
    for _ in 0..9 {
        client.send(&publish(0, 0, b"1")).await;
    }
    client.send(&[0xe0, 0]).await;
    drop(client.0.shutdown().await);
    tokio::task::yield_now().await;
    w.bus.set_away(false);
    client.closed().await;
    assert_eq!(w.story().iter().filter(|word| *word == "upstream 1").count(), 9);
    assert_eq!(w.story().last().unwrap(), "disconnected client-closed");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_hands_the_session_over() {
    let w = world().await;
    let (mut first, present) = w.connect("pump", false).await;
    assert!(!present);
    first.send(SUBSCRIBE).await;
    assert_eq!(first.receive::<5>().await, [0x90, 3, 0, 1, 1]);
    let (mut second, present) = w.connect("pump", false).await;
    assert!(present);
    first.closed().await;
    assert_eq!(w.story()[1..], ["disconnected taken-over", "connected null"]);
    w.command("pump", "c1", "acknowledged");
    let packet = second.receive::<32>().await;
    assert_eq!(&packet[..2], [0x32, 30]);
    second.send(&[0x40, 2, packet[27], packet[28]]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(w.story().last().unwrap(), "downstream acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_command_waits_for_a_persistent_session_over_a_restart() {
    let store = Arc::default();
    let w = world_with(Arc::clone(&store), |_| {}).await;
    let (mut client, _) = w.connect("pump", false).await;
    client.send(SUBSCRIBE).await;
    client.receive::<5>().await;
    client.send(&[0xe0, 0]).await;
    client.closed().await;
    w.command("pump", "c1", "delivered");
    w.command("other", "c2", "delivered");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(w.story().last().unwrap(), "downstream not-connected");
    w.scope.drain(Duration::from_secs(1)).await;

    let w = world_with(Arc::clone(&w.store), |_| {}).await;
    let (mut client, present) = w.connect("pump", false).await;
    assert!(present);
    assert_eq!(&client.receive::<32>().await[4..27], b"command///req/c1/reboot");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(w.story(), ["connected null", "downstream delivered"]);
    assert!(landfall_hub::SessionStore::queued(&*w.store).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_command_expires() {
    let w = world().await;
    let (mut client, _) = w.connect("pump", false).await;
    client.send(SUBSCRIBE).await;
    client.receive::<5>().await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let before = w.story().len();
    w.hub.command(CommandRequest {
        tenant: "default".parse().unwrap(),
        device: "pump".parse().unwrap(),
        id: None,
        name: None,
        ttl: Some("0".into()),
        wait: None,
        topic: None,
        content_type: None,
        correlation_data: None,
        payload: Bytes::new(),
        reply: None,
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(w.story()[before..], ["downstream expired"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_a_slow_consumer() {
    let w = world().await;
    let (mut client, _) = w.connect("pump", true).await;
    client.send(SUBSCRIBE).await;
    client.receive::<5>().await;
    for n in 0..30 {
        w.hub.command(CommandRequest {
            tenant: "default".parse().unwrap(),
            device: "pump".parse().unwrap(),
            id: Some(format!("c{n}")),
            name: None,
            ttl: Some("60000".into()),
            wait: None,
            topic: None,
            content_type: None,
            correlation_data: None,
            payload: Bytes::from(vec![b'x'; 1000]),
            reply: None,
        });
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(w.story().last().unwrap(), "disconnected slow-consumer");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stranger_is_closed_at_the_deadline_without_an_event() {
    let w = world().await;
    let mut client = w.dial().await;
    client.send(&[0x10]).await;
    client.closed().await;
    assert!(w.story().is_empty());
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_and_counted() {
    let w = world().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x20, 1, 0], &[0xff; 32]] {
        let mut client = w.dial().await;
        client.send(bytes).await;
        client.closed().await;
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(w.story(), ["refused null", "refused null"]);
}

/// PUBREC and PUBCOMP for the packet id 7.
const RECEIVED: [u8; 4] = [0x50, 2, 0, 7];
const COMPLETE: [u8; 4] = [0x70, 2, 0, 7];

/// The same message again.
fn again(mut publish: Vec<u8>) -> Vec<u8> {
    *publish.first_mut().unwrap() |= 0b1000;
    publish
}

#[tokio::test(start_paused = true)]
async fn a_message_against_the_rights_closes_at_once_and_the_device_comes_again() {
    let w = world().await;
    for round in 1..=3 {
        let from = tokio::time::Instant::now();
        let (mut client, present) = w.connect("picky", false).await;
        assert_eq!(present, round > 1);
        client.send(b"\x34\x0b\x00\x06$SYS/x\x00\x01f").await;
        client.closed().await;
        assert!(from.elapsed() < AT_ONCE, "{:?}", from.elapsed());
    }
    let mut story = w.story();
    story.retain(|word| word != "refused null");
    assert_eq!(story, ["connected null", "disconnected not-authorized"].repeat(3));
}

#[tokio::test(start_paused = true)]
async fn who_comes_again_while_its_messages_are_unstored_is_let_in() {
    let w = world().await;
    let (mut client, _) = w.connect("pump", false).await;
    w.bus.set_keeping(true);
    client.send(&publish(2, 7, b"1")).await;
    client.send(PING).await;
    client.receive::<2>().await;
    drop(client);
    for _ in 0..3 {
        let from = tokio::time::Instant::now();
        let (mut client, present) = w.connect("pump", false).await;
        assert!(present && from.elapsed() < AT_ONCE, "{:?}", from.elapsed());
        client.send(&again(publish(2, 7, b"1"))).await;
        client.silence().await;
        // Longer than anybody waits for.
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    let (mut client, _) = w.connect("pump", false).await;
    // One that leaves DUP out.
    client.send(&publish(2, 7, b"1")).await;
    w.bus.set_keeping(false);
    assert_eq!(client.receive().await, RECEIVED);
    client.send(&[0x62, 2, 0, 7]).await;
    assert_eq!(client.receive().await, COMPLETE);
    let story = w.story();
    assert_eq!(story.iter().filter(|word| *word == "upstream 1").count(), 1, "{story:?}");
    // And a clean start is not locked out either.
    let (_, present) = w.connect("pump", true).await;
    assert!(!present);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_while_the_device_is_away_is_known_to_the_next_process() {
    let w = world().await;
    let (mut client, _) = w.connect("pump", false).await;
    w.bus.set_keeping(true);
    client.send(&publish(2, 7, b"1")).await;
    client.send(PING).await;
    client.receive::<2>().await;
    drop(client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    w.bus.set_keeping(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    w.scope.drain(Duration::from_secs(1)).await;

    let w = world_with(Arc::clone(&w.store), |_| {}).await;
    let (mut client, present) = w.connect("pump", false).await;
    assert!(present);
    client.send(&again(publish(2, 7, b"1"))).await;
    assert_eq!(client.receive().await, RECEIVED);
    assert_eq!(w.story(), ["connected null"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_by_the_next_process_is_known_to_it() {
    let w = world().await;
    let (mut client, _) = w.connect("pump", false).await;
    let (mut passing, _) = w.connect("passing", true).await;
    client.send(&publish(2, 6, b"0")).await;
    assert_eq!(client.receive().await, [0x50, 2, 0, 6]);
    client.send(&[0x62, 2, 0, 6]).await;
    assert_eq!(client.receive().await, [0x70, 2, 0, 6]);
    w.bus.set_keeping(true);
    for packet in [publish(1, 9, b"8"), publish(2, 7, b"1"), publish(2, 8, b"2")] {
        client.send(&packet).await;
        passing.send(&packet).await;
    }
    for client in [&mut client, &mut passing] {
        client.send(PING).await;
        client.receive::<2>().await;
    }
    let memos = w.bus.memos();
    assert_eq!(
        memos.iter().map(|memo| memo.packet_id).collect::<Vec<_>>(),
        [7, 8],
        "of a session that lasts"
    );

    // The process is gone, and the next one has stored what it found on disk.
    let w = world_with(Arc::clone(&w.store), |_| {}).await;
    w.sessions.recall(memos.clone());
    w.sessions.flushed().await;
    // The one behind that knows it too, and that the second message was released; also if the disk says so again.
    for round in 0..2 {
        let w = world_with(Arc::clone(&w.store), |_| {}).await;
        w.sessions.recall(if round == 0 { Vec::new() } else { memos.clone() });
        let (mut client, present) = w.connect("pump", false).await;
        assert!(present);
        client.send(&again(publish(2, 7, b"1"))).await;
        assert_eq!(client.receive().await, RECEIVED);
        if round == 0 {
            client.send(&publish(2, 8, b"2")).await;
            assert_eq!(client.receive().await, [0x50, 2, 0, 8]);
            client.send(&[0x62, 2, 0, 8]).await;
            assert_eq!(client.receive().await, [0x70, 2, 0, 8]);
            assert_eq!(w.story(), ["connected null"]);
        } else {
            client.send(&publish(2, 8, b"2")).await;
            assert_eq!(client.receive().await, [0x50, 2, 0, 8]);
            assert_eq!(w.story(), ["connected null", "upstream 2"], "it was released: a new message");
        }
        w.sessions.flushed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_submitted_is_not_waited_for() {
    let w = world_with(Arc::default(), |config| config.window_bytes = 600).await;
    let (mut client, _) = w.connect("pump", false).await;
    // The window is full: the second message waits at its connection when that ends.
    w.bus.set_stalled(true);
    for (id, payload) in [(7, b"1"), (8, b"2")] {
        client.send(&publish(2, id, payload)).await;
    }
    client.send(PING).await;
    client.receive::<2>().await;
    drop(client);
    w.bus.set_keeping(true);
    let (mut client, present) = w.connect("pump", false).await;
    assert!(present);
    client.send(&again(publish(2, 8, b"2"))).await;
    w.bus.set_keeping(false);
    w.bus.set_stalled(false);
    assert_eq!(client.receive().await, [0x50, 2, 0, 8]);
    let story = w.story();
    assert_eq!(story.iter().filter(|word| word.starts_with("upstream")).count(), 2, "{story:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_told_to_the_client_and_not_blamed_on_the_network() {
    let w = world().await;
    w.bus.set_stalled(true);
    let mut client = w.dial().await;
    client.send(&connect("pump", false, 0)).await;
    assert_eq!(client.receive().await, [0x20, 2, 0, 3]);
    client.closed().await;
    w.bus.set_stalled(false);
    assert_eq!(w.story(), ["connected null", "disconnected not-admitted"]);
    let (_, present) = w.connect("pump", false).await;
    assert!(!present, "nothing of the refused one stays");
}

#[tokio::test(start_paused = true)]
async fn before_the_gateway_serves_a_client_is_told_at_once_to_come_back() {
    let w = world().await;
    w.hub.keep_out();
    for clean in [true, false] {
        let began = tokio::time::Instant::now();
        let mut client = w.dial().await;
        client.send(&connect("pump", clean, 0)).await;
        assert_eq!(client.receive().await, [0x20, 2, 0, 3]);
        client.closed().await;
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
    assert_eq!(w.story(), [] as [&str; 0]);
    w.hub.let_in();
    w.connect("pump", false).await;
    assert_eq!(w.story(), ["connected null"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_sends_a_packet_slowly_is_there() {
    let w = world().await;
    let mut client = w.dial().await;
    client.send(&connect("pump", true, 1)).await;
    client.receive::<4>().await;
    for byte in publish(1, 7, b"a payload of some bytes") {
        client.send(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(client.receive().await, [0x40, 2, 0, 7]);
    assert_eq!(w.hub.session_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_packet_has_its_time_whatever_the_keep_alive() {
    for keep_alive in [0, 20] {
        let w = world().await;
        let mut client = w.dial().await;
        client.send(&connect("pump", true, keep_alive)).await;
        client.receive::<4>().await;
        let from = tokio::time::Instant::now();
        for byte in publish(1, 7, &[b'x'; 100]) {
            if client.0.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        client.closed().await;
        let took = from.elapsed().as_secs();
        assert!((30..33).contains(&took), "{took} s");
        assert_eq!(w.story(), ["connected null", "disconnected protocol-error"]);
        // One that stops in the middle of a packet is closed too.
        let mut client = w.dial().await;
        client.send(&connect("pump", true, 0)).await;
        client.receive::<4>().await;
        client.send(&[0x32]).await;
        client.closed().await;
    }
}
