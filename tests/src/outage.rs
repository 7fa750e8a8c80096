//! NATS away, slow or gone while devices send: an acknowledgement means stored, and nothing is lost or stored twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use landfall_testkit::ledger::{self, Open};
use landfall_testkit::packet::{self, Connect, Publish, kind};
use landfall_testkit::raw::Packet;
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::{MESSAGES, stored, stored_when};
use landfall_testkit::{
    Gateway, Mode, NatsServer, PATIENCE, Proxy, RawClient, Recorder, Version, World, eventually,
};

const BOTH: [Version; 2] = [Version::V4, Version::V5];

/// Long enough to see that something does not happen, where nothing can say that it will not.
const A_WHILE: Duration = Duration::from_millis(700);

/// The payloads of a device's stored upstream messages, in the stream's order.
fn payloads(events: &[Seen], device: &str) -> Vec<u64> {
    let of_device = events.iter().filter(|event| event.kind() == "upstream" && event.is_about(device));
    of_device.map(|event| event.number("payload")).collect()
}

/// Reads acknowledgements of one kind until each of `ids` has come; any other packet but PINGRESP is a failure.
async fn expect_all(client: &mut RawClient, kind: u8, count: usize) -> Vec<u16> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let packet = client.next_within(PATIENCE * 2).await.expect("the connection stands");
        if packet.kind() == kind {
            ids.push(packet.id());
        } else {
            assert_eq!(packet.kind(), kind::PINGRESP, "{packet:?}");
        }
    }
    ids
}

#[tokio::test]
async fn no_puback_while_nats_is_stopped_and_all_of_them_when_it_is_back() {
    let mut world = World::start().await;
    let mut clients = Vec::new();
    for version in BOTH {
        for qos in [1, 2] {
            let name = format!("d{}-{qos}", version.level());
            let client = RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await;
            clients.push((name, version, qos, client));
        }
    }
    world.nats.kill();
    for (_, version, qos, client) in &mut clients {
        for n in 1..=20 {
            client.send(&Publish::new(*version, "t", n.to_string(), *qos, n).encode()).await;
        }
        // Keep-alives are answered meanwhile, and nothing else is.
        client.ping().await;
    }
    for (name, .., client) in &mut clients {
        assert!(client.is_quiet_for(A_WHILE).await, "{name} was told something while nothing is stored");
        client.ping().await;
    }
    assert_eq!(
        world.gateway.get("/readyz?store").await.status,
        503,
        "and the gateway says that it is not ready"
    );
    world.nats.restart().await;
    for (name, _, qos, client) in &mut clients {
        let due = if *qos == 1 { kind::PUBACK } else { kind::PUBREC };
        let ids = expect_all(client, due, 20).await;
        assert_eq!(ids, (1..=20).collect::<Vec<_>>(), "{name}: in the order of the PUBLISH packets");
    }
    let events = stored(&world.nats, MESSAGES).await;
    for (name, ..) in &clients {
        assert_eq!(payloads(&events, name), (1..=20).collect::<Vec<_>>(), "{name}");
    }
    drop(clients);
    world.close().await;
}

#[tokio::test]
async fn the_same_with_a_full_window() {
    let mut world = World::with(|settings| {
        settings
            .set("nats.publish_window", 8)
            .set("nats.publish_window_bytes", "1MiB")
            .set("mqtt.receive_maximum", 200)
    })
    .await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "flood")).await;
    let mut other =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "other").keep_alive(1)).await;
    world.nats.kill();
    for n in 1..=100 {
        client.send(&Publish::new(Version::V5, "t", n.to_string(), 1, n).encode()).await;
    }
    other.send(&Publish::new(Version::V4, "t", "1", 1, 1).encode()).await;
    // The window is far too small for these: reading stops, keep-alives are still answered, for longer than one.
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..5 {
        ticks.tick().await;
        client.ping().await;
        other.ping().await;
    }
    world.nats.restart().await;
    assert_eq!(expect_all(&mut client, kind::PUBACK, 100).await, (1..=100).collect::<Vec<_>>());
    assert_eq!(expect_all(&mut other, kind::PUBACK, 1).await, [1]);
    let events = stored(&world.nats, MESSAGES).await;
    assert_eq!(payloads(&events, "flood"), (1..=100).collect::<Vec<_>>());
    assert!(world.recorder.of("disconnected", "other").is_empty(), "back-pressure is no silence");
    drop((client, other));
    world.close().await;
}

#[tokio::test]
async fn memory_is_bounded_while_nothing_can_be_stored() {
    let mut world = World::with(|settings| {
        settings
            .set("nats.publish_window", 256)
            .set("nats.publish_window_bytes", "2MiB")
            .set("nats.spool_limit", "1MiB")
    })
    .await;
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, format!("d{n}"))).await);
    }
    world.nats.kill();
    let before = world.gateway.resident_bytes();
    // 20 devices try to send 20 MiB each; the gateway stops reading long before.
    let packet = Publish::new(Version::V4, "t", vec![b'x'; 100_000], 0, 0).encode();
    let floods = clients.iter_mut().map(|client| async {
        for _ in 0..200 {
            if tokio::time::timeout(A_WHILE, client.try_send(&packet)).await.is_err() {
                return true;
            }
        }
        false
    });
    let stopped = futures_util::future::join_all(floods).await;
    assert!(stopped.iter().all(|stopped| *stopped), "every device feels it: {stopped:?}");
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for a window of 2 MiB and 20 connections");
    drop(clients);
    world.nats.restart().await;
    world.close().await;
}

#[tokio::test]
async fn with_refuse_nobody_new_comes_in_while_nothing_is_stored() {
    let mut world = World::with(|settings| settings.set("nats.when_away", "refuse")).await;
    let mut there = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "there")).await;
    world.nats.kill();
    eventually(PATIENCE, "the outage", async || {
        (world.gateway.get("/readyz?store").await.status == 503).then_some(())
    })
    .await;
    for (version, code) in [(Version::V4, 3), (Version::V5, 0x88)] {
        let name = format!("early-{}", version.level());
        let (_, connack) = RawClient::connect(world.mqtt(), &Connect::new(version, &name)).await;
        assert_eq!(connack.connack_code(), code, "server unavailable");
    }
    // Who is there stays.
    there.ping().await;
    world.nats.restart().await;
    eventually(PATIENCE, "readiness", async || {
        (world.gateway.get("/readyz?store").await.status == 200).then_some(())
    })
    .await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "late")).await;
    client.ping().await;
    there.ping().await;
    drop((client, there));
    world.close().await;
}

#[tokio::test]
async fn with_admit_a_connack_means_stored_or_on_disk() {
    let mut world = World::start().await;
    world.nats.kill();
    let mut clients = Vec::new();
    for version in BOTH {
        let name = format!("early-{}", version.level());
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await;
        assert_eq!(world.recorder.of("connected", &name).len(), 0, "nothing is stored");
        let kept = world.gateway.metrics("landfall_spool_events").await;
        assert!(kept.first().is_some_and(|(_, count)| *count > 0.0), "it is on disk: {kept:?}");
        // A message with an acknowledgement waits for the store all the same.
        client.send(&Publish::new(version, "t", "1", 1, 1).encode()).await;
        client.ping().await;
        clients.push((name, client));
    }
    world.nats.restart().await;
    for (name, client) in &mut clients {
        assert_eq!(client.expect(kind::PUBACK).await.id(), 1);
        assert_eq!(payloads(&stored(&world.nats, MESSAGES).await, name), [1]);
    }
    drop(clients);
    world.close().await;
}

#[tokio::test]
async fn a_connack_that_waited_comes_when_nats_is_back() {
    let mut world = World::start().await;
    let mut warm = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "warm")).await;
    world.nats.kill();
    let mut client = RawClient::open(world.mqtt()).await;
    client.send(&Connect::new(Version::V5, "patient").encode()).await;
    warm.ping().await;
    world.nats.restart().await;
    // Accepted then, or refused and welcome to try again: never left without an answer.
    match client.next_within(PATIENCE * 2).await {
        Some(packet) if packet.connack_code() == 0 => client.ping().await,
        Some(packet) => assert_eq!(packet.connack_code(), 0x88, "server unavailable"),
        None => panic!("closed without a word"),
    }
    drop((warm, client));
    world.close().await;
}

/// Sends `count` QoS 1 messages with a window of 10, while `disturb` runs; every one is acknowledged in the end.
async fn send_steadily(address: SocketAddr, name: &str, count: u16) {
    let mut client = RawClient::accepted(address, &Connect::new(Version::V5, name)).await;
    let mut acknowledged = 0;
    for n in 1..=count {
        client.send(&Publish::new(Version::V5, "t", n.to_string(), 1, n).encode()).await;
        while n - acknowledged >= 10 {
            acknowledged = next_ack(&mut client, acknowledged).await;
        }
    }
    while acknowledged < count {
        acknowledged = next_ack(&mut client, acknowledged).await;
    }
    client.send(&packet::disconnect(Version::V5, 0, &[])).await;
    client.until_closed().await;
}

async fn next_ack(client: &mut RawClient, before: u16) -> u16 {
    let packet: Packet = client.next_within(PATIENCE * 2).await.expect("the connection stands");
    assert_eq!((packet.kind(), packet.id(), packet.ack_code()), (kind::PUBACK, before + 1, 0), "{packet:?}");
    packet.id()
}

#[tokio::test]
async fn a_nats_server_killed_again_and_again_loses_nothing() {
    let mut world = World::start().await;
    let address = world.mqtt();
    let names: Vec<String> = (0..4).map(|n| format!("steady-{n}")).collect();
    let sending =
        futures_util::future::join_all(names.iter().map(|name| send_steadily(address, name, 1_000)));
    let killing = async {
        for round in 1..=3 {
            // Somewhere in the middle of what is stored so far.
            stored_when(&world.nats, MESSAGES, "progress", |events| events.len() >= round * 800).await;
            world.nats.kill();
            world.nats.restart().await;
        }
    };
    tokio::join!(sending, killing);
    let events = stored(&world.nats, MESSAGES).await;
    for name in &names {
        assert_eq!(payloads(&events, name), (1..=1_000).collect::<Vec<_>>(), "{name}: each once, in order");
    }
    world.close().await;
}

#[tokio::test]
async fn a_bad_network_to_nats_loses_nothing() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], nats.port())), 7).await;
    let recorder = Recorder::start(&nats).await;
    let gateway = Gateway::builder()
        .set("nats.url", format!("nats://{}", proxy.address()))
        .set("nats.ack_timeout", "500ms")
        .start()
        .await;
    let address = gateway.mqtt("tcp");
    let names: Vec<String> = (0..3).map(|n| format!("far-{n}")).collect();
    let sending = futures_util::future::join_all(names.iter().map(|name| send_steadily(address, name, 400)));
    let trouble = async {
        let faults = [
            Mode::Delay(Duration::from_millis(20)),
            Mode::Cut,
            Mode::Pass,
            // Longer than the time for an acknowledgement: everything under way is sent again.
            Mode::Stall,
            Mode::Pass,
            Mode::Cut,
            Mode::Delay(Duration::from_millis(5)),
        ];
        for (round, fault) in (1..).zip(faults) {
            let enough = round * 100;
            stored_when(&nats, MESSAGES, "progress", |events| events.len() >= enough).await;
            proxy.set(fault);
            if matches!(fault, Mode::Cut | Mode::Stall) {
                tokio::time::sleep(A_WHILE).await;
                proxy.set(Mode::Pass);
            }
        }
    };
    tokio::join!(sending, trouble);
    proxy.set(Mode::Pass);
    let events = stored(&nats, MESSAGES).await;
    for name in &names {
        assert_eq!(payloads(&events, name), (1..=400).collect::<Vec<_>>(), "{name}: each once, in order");
    }
    gateway.terminate();
    gateway.exited(PATIENCE).await;
    ledger::assert_kept(&nats, Open::None).await;
    drop(recorder);
}

#[tokio::test]
async fn a_frozen_nats_server_is_no_reason_to_acknowledge() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
    world.nats.freeze();
    client.send(&Publish::new(Version::V5, "t", "1", 1, 1).encode()).await;
    client.ping().await;
    assert!(client.is_quiet_for(A_WHILE).await);
    world.nats.thaw();
    assert_eq!(client.expect(kind::PUBACK).await.id(), 1);
    let counts: BTreeMap<u64, usize> = payloads(&stored(&world.nats, MESSAGES).await, "d").into_iter().fold(
        BTreeMap::new(),
        |mut counts, n| {
            *counts.entry(n).or_default() += 1;
            counts
        },
    );
    assert_eq!(counts, BTreeMap::from([(1, 1)]));
    drop(client);
    world.close().await;
}
