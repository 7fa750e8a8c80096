//! How a session can end, each with its reason and its initiator, and what the device is told.

use std::time::{Duration, Instant};

use landfall_testkit::interop::{Over, Route, mosquitto};
use landfall_testkit::ledger::Open;
use landfall_testkit::packet::{self, Connect, Publish, kind, property};
use landfall_testkit::process::Signal;
use landfall_testkit::proxy::Seed;
use landfall_testkit::{Device, PATIENCE, Pki, RawClient, Version, World};

const BOTH: [Version; 2] = [Version::V4, Version::V5];

async fn assert_ended(world: &World, device: &str, reason: &str, initiator: &str) {
    let event = world.recorder.expect("disconnected", device).await;
    assert_eq!((event.text("reason"), event.text("initiator")), (reason, initiator), "{}", event.json);
    assert_eq!(event.json["inferred"], false);
}

#[tokio::test]
async fn kill_9_of_a_client_is_connection_lost() {
    let world = World::start().await;
    let pki = Pki::new();
    let route = Route { over: Over::Tcp, address: world.mqtt(), pki: &pki, identity: None };
    let Some(mut client) =
        mosquitto("mosquitto_sub", route, Version::V5, &["-i", "victim", "-t", "command///req/#"])
    else {
        return;
    };
    world.recorder.expect("connected", "victim").await;
    client.signal(Signal::KILL);
    client.kill();
    assert_ended(&world, "victim", "connection-lost", "network").await;
    world.close().await;
}

#[tokio::test]
async fn an_end_without_a_goodbye_is_connection_lost() {
    let world = World::start().await;
    for version in BOTH {
        // In order (FIN), and not (RST).
        let name = format!("fin-{}", version.level());
        drop(RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await);
        assert_ended(&world, &name, "connection-lost", "network").await;
        let name = format!("rst-{}", version.level());
        let mut client = RawClient::open_abrupt(world.mqtt()).await;
        assert_eq!(client.login(&Connect::new(version, &name)).await.connack_code(), 0);
        drop(client);
        assert_ended(&world, &name, "connection-lost", "network").await;
    }
    // In the middle of a packet it is no protocol error: the network tore it.
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "torn")).await;
    let packet = Publish::new(Version::V5, "t", "half", 0, 0).encode();
    client.send(&packet[..packet.len() - 2]).await;
    drop(client);
    assert_ended(&world, "torn", "connection-lost", "network").await;
    world.close().await;
}

#[tokio::test]
async fn disconnect_is_client_closed() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("bye-{}", version.level());
        let device = Device::connect(version, &name, world.mqtt()).await;
        device.disconnect().await;
        assert_ended(&world, &name, "client-closed", "device").await;
    }
    // A client that says goodbye and lingers: the server closes (3.1.1: 3.14.4, 5.0: 3.14.4).
    for version in BOTH {
        let name = format!("linger-{}", version.level());
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await;
        client.send(&packet::disconnect(version, 0, &[])).await;
        assert!(client.until_closed().await.is_empty(), "a goodbye has no answer");
        assert_ended(&world, &name, "client-closed", "device").await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_goodbye_counts_though_an_answer_no_longer_reaches_its_client() {
    let world = World::start().await;
    // A client that closes its socket right behind its DISCONNECT (paho does) resets it when an answer is still on its way.
    // The gateway may find that out by writing, and must still read what was said. Many at once, for it is a race.
    let hasty = (0..8).map(|lane| {
        let world = &world;
        async move {
            let mut seed = Seed(lane);
            for n in 0..40 {
                let mut client = RawClient::open_abrupt(world.mqtt()).await;
                let name = format!("hasty-{lane}-{n}");
                assert_eq!(client.login(&Connect::new(Version::V5, &name)).await.connack_code(), 0);
                client.send(&Publish::new(Version::V5, "t", "x", 1, 1).encode()).await;
                // About as long as the store takes: sometimes before its answer, sometimes behind it.
                let pause = Duration::from_micros(seed.below(1_500));
                let began = Instant::now();
                while began.elapsed() < pause {
                    tokio::task::yield_now().await;
                }
                client.send(&packet::disconnect(Version::V5, 0, &[])).await;
                drop(client);
                assert_ended(world, &name, "client-closed", "device").await;
            }
        }
    });
    futures_util::future::join_all(hasty).await;
    world.close().await;
}

#[tokio::test]
async fn a_broken_rule_is_a_protocol_error() {
    let world = World::start().await;
    let wildcard = Publish::new(Version::V5, "a/#", "", 0, 0).encode();
    let breaches: [(&str, Version, Vec<u8>, u8, &str); 6] = [
        (
            "second-connect",
            Version::V5,
            Connect::new(Version::V5, "x").encode(),
            0x82,
            "CONNECT: a second CONNECT",
        ),
        ("reserved-type", Version::V5, vec![0x00, 0x00], 0x81, "packet type 0: packet type 0"),
        (
            "qos-3",
            Version::V5,
            vec![0x36, 0x05, 0x00, 0x01, b't', 0x00, 0x01],
            0x81,
            "PUBLISH: a PUBLISH of QoS 3",
        ),
        ("wildcard-topic", Version::V5, wildcard, 0x90, "PUBLISH: an invalid topic name"),
        (
            "second-connect-4",
            Version::V4,
            Connect::new(Version::V4, "x").encode(),
            0,
            "CONNECT: a second CONNECT",
        ),
        (
            "from-server",
            Version::V4,
            vec![0x20, 0x02, 0x00, 0x00],
            0,
            "CONNACK: a packet that only a server sends",
        ),
    ];
    for (name, version, bytes, code, detail) in breaches {
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, name)).await;
        client.send(&bytes).await;
        let said = client.until_closed().await;
        match version {
            Version::V4 => assert!(said.is_empty(), "{name}: {said:?}"),
            Version::V5 => {
                let last = said.last().unwrap_or_else(|| panic!("{name}: no DISCONNECT"));
                assert_eq!((last.kind(), last.disconnect_code()), (kind::DISCONNECT, code), "{name}");
            }
        }
        assert_ended(&world, name, "protocol-error", "gateway").await;
        // Which packet, which rule: in the event, and in the log.
        let ended = world.recorder.expect("disconnected", name).await;
        assert_eq!(ended.text("detail"), detail);
        let (packet, rule) = detail.split_once(": ").expect("packet and rule");
        let line = world.gateway.process().logged(&format!("device=\"{name}\""), PATIENCE).await;
        assert!(line.contains(packet) && line.contains(rule), "{line}");
    }
    let bye = Device::connect(Version::V5, "bye", world.mqtt()).await;
    bye.disconnect().await;
    assert!(world.recorder.expect("disconnected", "bye").await.json.get("detail").is_none());
    world.close().await;
}

#[tokio::test]
async fn strangers_who_break_the_protocol_are_few_lines_in_the_log() {
    let world = World::start().await;
    for _ in 0..60 {
        let mut client = RawClient::open(world.mqtt()).await;
        client.send(&[0xC0, 0x00]).await;
        client.until_closed().await;
    }
    world.gateway.process().logged("a first packet that is no CONNECT", PATIENCE).await;
    let log = world.gateway.log();
    let lines = log.lines().filter(|line| line.contains("a first packet that is no CONNECT")).count();
    assert!((1..60).contains(&lines), "{lines}");
    world.close().await;
}

#[tokio::test]
async fn a_receive_maximum_exceeded_is_told() {
    let world = World::with(|settings| settings.set("mqtt.receive_maximum", 2)).await;
    let (mut client, connack) = RawClient::connect(world.mqtt(), &Connect::new(Version::V5, "greedy")).await;
    assert_eq!(connack.connack_property(0x21), Some(vec![0, 2]), "the CONNACK says how many");
    // QoS 2 messages that are never released stay in the count.
    let publishes: Vec<u8> =
        (1..=3).flat_map(|id| Publish::new(Version::V5, "t", "x", 2, id).encode()).collect();
    client.send(&publishes).await;
    let last = client.until_closed().await.pop().expect("a DISCONNECT");
    assert_eq!((last.kind(), last.disconnect_code()), (kind::DISCONNECT, 0x93));
    assert_ended(&world, "greedy", "protocol-error", "gateway").await;
    world.close().await;
}

#[tokio::test]
async fn a_packet_too_large_is_told() {
    let world = World::with(|settings| settings.set("mqtt.max_packet_size", 1024)).await;
    let (mut client, connack) = RawClient::connect(world.mqtt(), &Connect::new(Version::V5, "heavy")).await;
    assert_eq!(connack.connack_property(0x27), Some(1024_u32.to_be_bytes().to_vec()));
    client.send(&Publish::new(Version::V5, "t", [b'x'; 2000], 1, 1).encode()).await;
    let last = client.until_closed().await.pop().expect("a DISCONNECT");
    assert_eq!((last.kind(), last.disconnect_code()), (kind::DISCONNECT, 0x95));
    assert_ended(&world, "heavy", "protocol-error", "gateway").await;
    assert!(world.recorder.of("upstream", "heavy").is_empty());
    world.close().await;
}

#[tokio::test]
async fn kick_ends_a_session() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "kicked one")).await;
    let output = world.gateway.cli(&["kick", "kicked one"]).await;
    assert!(output.status.success(), "{output:?}");
    let last = client.until_closed().await.pop().expect("a DISCONNECT");
    assert_eq!((last.kind(), last.disconnect_code()), (kind::DISCONNECT, 0x98), "administrative action");
    assert_ended(&world, "kicked one", "kicked", "operator").await;
    let output = world.gateway.cli(&["kick", "kicked one"]).await;
    assert!(!output.status.success(), "nobody is there to kick: {output:?}");
    // It may come back.
    RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "kicked one")).await;
    world.close().await;
}

#[tokio::test]
async fn sigterm_drains() {
    let world = World::with(|settings| settings.set("drain_timeout", "5s")).await;
    let mut v5 = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "five")).await;
    let mut v4 = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "four")).await;
    let mut waiting = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "waiting")).await;
    assert_eq!(waiting.subscribe("command///req/#", 1).await, 1);
    let headers = [("Command-Wait", "answered"), ("Command-Ttl", "60000")];
    let request = world.command("waiting", "x", &headers);
    let address = world.mqtt();
    let end = async {
        waiting.expect(kind::PUBLISH).await;
        let asked = Instant::now();
        world.gateway.terminate();
        let last = v5.until_closed().await.pop().expect("a DISCONNECT");
        assert_eq!((last.kind(), last.disconnect_code()), (kind::DISCONNECT, 0x8b), "server shutting down");
        assert!(v4.until_closed().await.is_empty());
        let status = world.gateway.exited(Duration::from_secs(10)).await;
        assert!(status.success(), "{status}");
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "well within the drain timeout: {:?}",
            asked.elapsed()
        );
    };
    let (reply, ()) = tokio::join!(request, end);
    assert_eq!(reply["outcome"], "failed", "every command has an outcome: {reply}");
    // One event may name them all; each is named once.
    for name in ["five", "four", "waiting"] {
        world.recorder.expect("disconnected", name).await;
    }
    for event in world.recorder.all().iter().filter(|event| event.kind() == "disconnected") {
        match event.json["sessions"].as_array() {
            Some(many) => {
                assert!(many.iter().all(|one| one["reason"] == "gateway-draining"), "{}", event.json);
            }
            None => assert_eq!(event.text("reason"), "gateway-draining"),
        }
    }
    world.recorder.find(PATIENCE, "leave", |event| event.kind() == "leave").await;
    assert_eq!(world.recorder.all().last().unwrap().kind(), "leave", "the last word");
    world.assert_sound(Open::None).await;
    // Everything is released: the same port can be bound at once.
    std::net::TcpListener::bind(address).expect("the listener's port is free");
    assert!(!world.gateway.folder().join("nats/landfall.run.json").exists(), "the run file is gone");
}

#[tokio::test]
async fn sigterm_keeps_its_deadline_while_nats_is_away() {
    let mut world = World::with(|settings| settings.set("drain_timeout", "2s")).await;
    let _client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
    world.nats.kill();
    let asked = Instant::now();
    world.gateway.terminate();
    world.gateway.exited(Duration::from_secs(10)).await;
    assert!(asked.elapsed() < Duration::from_secs(6), "it does not wait for ever: {:?}", asked.elapsed());
    world.gateway.assert_sound();
}

#[tokio::test]
async fn a_disconnect_may_change_the_session_expiry_only_upwards_from_something() {
    let world = World::start().await;
    // 3.14.2.2.2: 0 in the CONNECT cannot become non-zero in the DISCONNECT.
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "changer")).await;
    client.send(&packet::disconnect(Version::V5, 0, &property::session_expiry(60))).await;
    client.until_closed().await;
    assert_ended(&world, "changer", "protocol-error", "gateway").await;
    world.close().await;
}
