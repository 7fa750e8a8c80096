//! Clients that are slow on purpose, or by nature: each costs a bounded time and bounded memory, and nobody else waits.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use landfall_testkit::ledger::Open;
use landfall_testkit::packet::{self, Connect, Publish, kind};
use landfall_testkit::{Mode, PATIENCE, Pki, Proxy, RawClient, Version, World, websocket};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many at a time; a thousand sockets fit any limit on open files.
const MANY: usize = 400;

/// True when the peer has closed, reading whatever comes before.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut chunk = [0; 1024];
    let end = async { while matches!(stream.read(&mut chunk).await, Ok(n) if n > 0) {} };
    tokio::time::timeout(PATIENCE, end).await.is_ok()
}

async fn assert_served_at_once(world: &World, name: &str) {
    let began = Instant::now();
    let mut witness = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, name)).await;
    assert_eq!(witness.publish_acked("t", "1", 1).await, 0);
    assert!(began.elapsed() < Duration::from_secs(2), "another client waits {:?}", began.elapsed());
}

#[tokio::test]
async fn sockets_that_say_nothing_are_dropped() {
    let world = World::with(|settings| settings.set("mqtt.connect_timeout", "2s")).await;
    let opened = (0..MANY).map(|_| TcpStream::connect(world.mqtt()));
    let mut silent: Vec<TcpStream> = join_all(opened).await.into_iter().map(Result::unwrap).collect();
    assert_served_at_once(&world, "witness").await;
    let closed = join_all(silent.iter_mut().map(is_closed)).await;
    assert!(closed.iter().all(|closed| *closed));
    assert_served_at_once(&world, "witness-after").await;
    world.close().await;
}

#[tokio::test]
async fn a_connect_of_one_byte_a_time_is_dropped_at_the_deadline() {
    let world = World::with(|settings| settings.set("mqtt.connect_timeout", "2s")).await;
    let connect = Connect::new(Version::V5, "slowloris".repeat(20)).encode();
    let drips = (0..50).map(|_| async {
        let mut stream = TcpStream::connect(world.mqtt()).await.unwrap();
        let began = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for byte in &connect {
            ticks.tick().await;
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            if began.elapsed() > PATIENCE {
                return None;
            }
        }
        is_closed(&mut stream).await.then(|| began.elapsed())
    });
    let lasted = join_all(drips).await;
    assert!(
        lasted.iter().all(|lasted| lasted.is_some_and(|time| time < Duration::from_secs(5))),
        "{lasted:?}"
    );
    assert!(world.recorder.all().iter().all(|event| event.kind() != "connected"));
    assert_served_at_once(&world, "witness").await;
    world.close().await;
}

#[tokio::test]
async fn half_a_tls_handshake_keeps_nobody_out() {
    let pki = Pki::new();
    let world = World::with(|settings| {
        settings
            .tls(&pki)
            .listen(&["tcp://127.0.0.1:0", "tls://127.0.0.1:0", "wss://127.0.0.1:0"])
            .set("tls.handshake_timeout", "3s")
            .set("events.refusal_interval", "500ms")
    })
    .await;
    let address = world.gateway.mqtt("tls");
    // Silent ones, ones that stop within a ClientHello, and ones that talk nonsense.
    let hello_begins = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    let openings: [&[u8]; 3] = [b"", &hello_begins, b"\x16\x03\x01\x00\x05hello"];
    let opened = (0..MANY).map(|n| {
        let opening = openings[n % openings.len()];
        let address = if n % 2 == 0 { address } else { world.gateway.mqtt("wss") };
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(opening).await.unwrap();
            stream
        }
    });
    let mut stuck = join_all(opened).await;
    let began = Instant::now();
    let mut client = RawClient::open_tls(address, pki.client_config(None)).await.unwrap();
    assert_eq!(client.login(&Connect::new(Version::V5, "in-between")).await.connack_code(), 0);
    assert!(began.elapsed() < Duration::from_secs(2), "a good client waits {:?}", began.elapsed());
    assert_served_at_once(&world, "witness").await;
    let closed = join_all(stuck.iter_mut().map(is_closed)).await;
    assert!(closed.iter().all(|closed| *closed), "each at its deadline");
    world
        .recorder
        .find(PATIENCE, "tls-failed", |e| e.kind() == "refused" && e.text("cause") == "tls-failed")
        .await;
    client.ping().await;
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn half_a_websocket_handshake_keeps_nobody_out() {
    let world = World::with(|settings| {
        settings
            .listen(&["tcp://127.0.0.1:0", "ws://127.0.0.1:0"])
            .set("mqtt.connect_timeout", "2s")
            .set("tls.handshake_timeout", "2s")
    })
    .await;
    let address = world.gateway.mqtt("ws");
    let upgrade = websocket::upgrade(Some("mqtt"));
    let mut stuck = Vec::new();
    for n in 0..60 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&upgrade.as_bytes()[..n * 2 % upgrade.len()]).await.unwrap();
        stuck.push(stream);
    }
    // Upgraded, and silent ever after.
    stuck.push(websocket::open(address).await);
    let mut good = websocket::open(address).await;
    good.write_all(&websocket::frame(
        websocket::opcode::BINARY,
        true,
        &Connect::new(Version::V5, "ws").encode(),
    ))
    .await
    .unwrap();
    let (opcode, payload) = websocket::read(&mut good).await.unwrap();
    assert_eq!((opcode, payload[0]), (websocket::opcode::BINARY, kind::CONNACK << 4));
    assert_served_at_once(&world, "witness").await;
    let closed = join_all(stuck.iter_mut().map(is_closed)).await;
    assert!(closed.iter().all(|closed| *closed));
    drop(good);
    world.close().await;
}

#[tokio::test]
async fn a_device_that_stops_reading_costs_bounded_memory() {
    let world = World::start().await;
    let proxy = Proxy::start(world.mqtt(), 3).await;
    let mut deaf =
        RawClient::accepted(proxy.address(), &Connect::new(Version::V5, "deaf").keep_alive(0)).await;
    assert_eq!(deaf.subscribe("command///req/#", 0).await, 0);
    assert_served_at_once(&world, "witness").await;
    let before = world.gateway.resident_bytes();
    proxy.set(Mode::Stall);
    // 40 MB in commands, of QoS 0, each written or turned away; the requester is told what became of each.
    let payload = "x".repeat(200_000);
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..20 {
        let requests = (0..10).map(|_| world.command("deaf", &payload, &[("Command-Ttl", "500")]));
        for reply in join_all(requests).await {
            *outcomes.entry(reply["outcome"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
        }
    }
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes for one device that does not read; {outcomes:?}");
    let delivered = outcomes.get("delivered").copied().unwrap_or(0);
    assert!(delivered < 200, "what the device cannot take is not called delivered for ever: {outcomes:?}");
    assert_served_at_once(&world, "witness-after").await;
    proxy.set(Mode::Cut);
    world.recorder.expect("disconnected", "deaf").await;
    world.close().await;
}

#[tokio::test]
async fn a_radio_of_one_byte_at_a_time_works() {
    let world = World::start().await;
    let proxy = Proxy::start(world.mqtt(), 5).await;
    proxy.set(Mode::Drip(Duration::from_millis(1)));
    let mut client = RawClient::accepted(proxy.address(), &Connect::new(Version::V5, "drip")).await;
    assert_eq!(client.subscribe("command///req/#", 1).await, 1);
    for n in 1..=5 {
        client.send(&Publish::new(Version::V5, "t", n.to_string(), 2, n).encode()).await;
        client.expect(kind::PUBREC).await;
        client.send(&packet::acknowledgement(kind::PUBREL, n)).await;
        client.expect(kind::PUBCOMP).await;
    }
    assert_eq!(world.recorder.expect_count("upstream", "drip", 5).await.len(), 5);
    proxy.cut();
    assert_eq!(world.recorder.expect("disconnected", "drip").await.text("reason"), "connection-lost");
    world.close().await;
}

#[tokio::test]
async fn connecting_and_leaving_two_hundred_times_is_told_exactly() {
    let world = World::start().await;
    for n in 0..200 {
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "flapping")).await;
        if n % 2 == 0 {
            client.send(&packet::disconnect(Version::V4, 0, &[])).await;
            client.until_closed().await;
        }
    }
    let ends = world.recorder.expect_count("disconnected", "flapping", 200).await;
    assert_eq!(world.recorder.of("connected", "flapping").len(), 200);
    let good = ends.iter().filter(|event| event.text("reason") == "client-closed").count();
    assert_eq!(good, 100, "each with its own reason");
    world.assert_sound(Open::None).await;
}

#[tokio::test]
async fn a_limit_on_connections_is_a_limit() {
    let world = World::with(|settings| {
        settings.set("mqtt.max_connections", 5).set("events.refusal_interval", "200ms")
    })
    .await;
    let mut clients = Vec::new();
    for n in 0..5 {
        clients.push(RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, format!("d{n}"))).await);
    }
    // A sixth is told, or closed; it is never served.
    let mut sixth = RawClient::open(world.mqtt()).await;
    let _ = sixth.try_send(&Connect::new(Version::V5, "sixth").encode()).await;
    let told = sixth.until_closed_or(Duration::from_secs(2)).await;
    assert!(told.iter().all(|packet| packet.connack_code() != 0), "{told:?}");
    drop(sixth);
    for client in &mut clients {
        client.ping().await;
    }
    // One leaves, one comes.
    let gone = clients.pop();
    drop(gone);
    world.recorder.expect("disconnected", "d4").await;
    let mut again = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "again")).await;
    again.ping().await;
    assert!(world.recorder.of("connected", "sixth").is_empty());
    let sessions: Value = serde_json::from_str(&world.gateway.get("/v1/sessions").await.body).unwrap();
    assert!(!sessions.to_string().contains("sixth"));
    drop((clients, again));
    world.close().await;
}
