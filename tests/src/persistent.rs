//! Sessions that outlive their connection, and the gateway: subscriptions, queued commands, half-done QoS 2.

use landfall_testkit::packet::{self, Connect, Publish, kind, property};
use landfall_testkit::raw::Delivered;
use landfall_testkit::{PATIENCE, RawClient, Version, World};
use serde_json::Value;

const BOTH: [Version; 2] = [Version::V4, Version::V5];

/// Connects without a clean start; returns the session present flag.
async fn resume(world: &World, version: Version, name: &str) -> (RawClient, bool) {
    let (client, connack) =
        RawClient::connect(world.mqtt(), &Connect::new(version, name).persistent(3600)).await;
    assert_eq!(connack.connack_code(), 0);
    (client, connack.session_present())
}

async fn gone(world: &World, name: &str, times: usize) {
    world.recorder.expect_count("disconnected", name, times).await;
}

async fn next_command(client: &mut RawClient) -> Delivered {
    let version = client.version();
    client.expect(kind::PUBLISH).await.delivered(version)
}

/// A command that may wait for its device.
async fn queued(world: &World, device: &str, n: u32) -> Value {
    let id = format!("q{n}");
    let headers = [("Command-Wait", "acknowledged"), ("Command-Ttl", "60000"), ("Command-Id", id.as_str())];
    world.command(device, &n.to_string(), &headers).await
}

#[tokio::test]
async fn session_present_tells_the_truth() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("flags-{}", version.level());
        let (client, present) = resume(&world, version, &name).await;
        assert!(!present, "the first time there is none");
        drop(client);
        gone(&world, &name, 1).await;
        let (client, present) = resume(&world, version, &name).await;
        assert!(present);
        drop(client);
        gone(&world, &name, 2).await;
        // A clean start forgets it.
        let (client, connack) = RawClient::connect(world.mqtt(), &Connect::new(version, &name)).await;
        assert!(!connack.session_present());
        drop(client);
        gone(&world, &name, 3).await;
        let (client, present) = resume(&world, version, &name).await;
        assert!(!present);
        drop(client);
        gone(&world, &name, 4).await;
    }
    world.close().await;
}

#[tokio::test]
async fn subscriptions_and_commands_wait_for_a_device() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("sleeper-{}", version.level());
        let (mut client, _) = resume(&world, version, &name).await;
        assert_eq!(client.subscribe("command///req/#", 1).await, 1);
        drop(client);
        gone(&world, &name, 1).await;
        // They are asked for one after the other, and wait.
        let requests = futures_util::future::join_all((0..5).map(|n| queued(&world, &name, n)));
        let receive = async {
            // The device comes back when all five wait: the queue's length is told by the metrics.
            wait_queued(&world, 5).await;
            let (mut client, present) = resume(&world, version, &name).await;
            assert!(present);
            let mut got = Vec::new();
            for _ in 0..5 {
                let command = next_command(&mut client).await;
                client.send(&packet::acknowledgement(kind::PUBACK, command.id.unwrap())).await;
                got.push(String::from_utf8(command.payload).unwrap());
            }
            got.sort();
            assert_eq!(got, ["0", "1", "2", "3", "4"]);
            client.ping().await;
            drop(client);
        };
        let (replies, ()) = tokio::join!(requests, receive);
        assert!(replies.iter().all(|reply| reply["outcome"] == "acknowledged"), "{replies:?}");
        gone(&world, &name, 2).await;
    }
    world.close().await;
}

/// Waits until so many commands wait in offline queues.
async fn wait_queued(world: &World, count: usize) {
    landfall_testkit::eventually(PATIENCE, "commands in the offline queues", async || {
        let stream = landfall_testkit::streams::stored(&world.nats, "LANDFALL_QUEUE").await;
        (stream.len() >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_offline_queue_survives_kill_9_of_the_gateway() {
    let mut world = World::start().await;
    let (mut client, _) = resume(&world, Version::V5, "d").await;
    assert_eq!(client.subscribe("command///req/#", 1).await, 1);
    drop(client);
    gone(&world, "d", 1).await;
    let subject = "kaa.v1.service.landfall.command.default.d";
    for n in 0..4 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Command-Ttl", "600000");
        headers.insert("Command-Id", format!("q{n}"));
        world.client.publish_with_headers(subject, headers, n.to_string().into()).await.unwrap();
    }
    wait_queued(&world, 4).await;
    world.gateway.kill();
    world.gateway = world.gateway.restart().await;
    let (mut client, present) = resume(&world, Version::V5, "d").await;
    assert!(present, "the session is known to the next process");
    for n in 0..4 {
        let command = next_command(&mut client).await;
        assert_eq!(command.payload, n.to_string().into_bytes(), "in order");
        assert_eq!(command.topic, format!("command///req/q{n}/command"));
        client.send(&packet::acknowledgement(kind::PUBACK, command.id.unwrap())).await;
    }
    for n in 0..4 {
        let id = format!("q{n}");
        let event =
            world.recorder.expect_that("downstream", "d", &id, |event| event.text("commandId") == id).await;
        assert!(["delivered", "acknowledged"].contains(&event.text("outcome")), "{}", event.json);
    }
    client.ping().await;
    drop(client);
    // Delivered is delivered: they do not come again.
    gone(&world, "d", 2).await;
    let (mut client, _) = resume(&world, Version::V5, "d").await;
    client.ping().await;
    world.gateway.assert_sound();
}

#[tokio::test]
async fn the_queue_is_bounded_and_time_runs_in_it() {
    let world = World::with(|settings| settings.set("mqtt.offline_queue", 2)).await;
    let (mut client, _) = resume(&world, Version::V5, "d").await;
    assert_eq!(client.subscribe("command///req/#", 1).await, 1);
    drop(client);
    gone(&world, "d", 1).await;
    let headers = [("Command-Wait", "acknowledged"), ("Command-Ttl", "1500")];
    let replies = futures_util::future::join_all((0..4).map(|_| world.command("d", "x", &headers))).await;
    let count = |outcome: &str| replies.iter().filter(|reply| reply["outcome"] == outcome).count();
    assert_eq!((count("busy"), count("expired")), (2, 2), "{replies:?}");
    // What has expired does not come.
    let (mut client, present) = resume(&world, Version::V5, "d").await;
    assert!(present);
    client.ping().await;
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_session_expires() {
    let world = World::start().await;
    let connect = Connect { clean: false, ..Connect::new(Version::V5, "d") };
    let client =
        RawClient::accepted(world.mqtt(), &connect.clone().property(&property::session_expiry(1))).await;
    drop(client);
    gone(&world, "d", 1).await;
    let connect = connect.property(&property::session_expiry(1));
    let (client, connack) = RawClient::connect(world.mqtt(), &connect).await;
    assert!(connack.session_present(), "within its second it is there");
    drop(client);
    gone(&world, "d", 2).await;
    // Time itself is what is tested here.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let (client, connack) = RawClient::connect(world.mqtt(), &connect).await;
    assert!(!connack.session_present(), "after it, it is not");
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn an_outbound_message_in_flight_is_sent_again() {
    let world = World::start().await;
    for version in BOTH {
        for qos in [1, 2] {
            let name = format!("again-{}-{qos}", version.level());
            let (mut client, _) = resume(&world, version, &name).await;
            assert_eq!(client.subscribe("command///req/#", qos).await, qos);
            let reply = world.command(&name, "x", &[("Command-Wait", "delivered")]).await;
            assert_eq!(reply["outcome"], "delivered");
            let first = next_command(&mut client).await;
            assert!(!first.dup);
            drop(client);
            gone(&world, &name, 1).await;
            let (mut client, present) = resume(&world, version, &name).await;
            assert!(present);
            let again = next_command(&mut client).await;
            assert_eq!(
                Delivered { dup: false, properties: first.properties.clone(), ..again.clone() },
                first
            );
            assert!(again.dup, "4.4.0: sent again, with the same packet id and DUP");
            drop(client);
            gone(&world, &name, 2).await;
        }
    }
    world.close().await;
}

#[tokio::test]
async fn qos_2_is_resumed_where_it_was() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("resume-{}", version.level());
        // Inbound: the PUBREC was sent, the PUBREL not yet.
        let (mut client, _) = resume(&world, version, &name).await;
        let publish = Publish::new(version, "t", "once", 2, 11);
        client.send(&publish.encode()).await;
        client.expect(kind::PUBREC).await;
        drop(client);
        gone(&world, &name, 1).await;
        let (mut client, present) = resume(&world, version, &name).await;
        assert!(present);
        client.send(&Publish { dup: true, ..publish }.encode()).await;
        assert_eq!(client.expect(kind::PUBREC).await.id(), 11);
        client.send(&packet::acknowledgement(kind::PUBREL, 11)).await;
        assert_eq!(client.expect(kind::PUBCOMP).await.id(), 11);
        assert_eq!(world.recorder.of("upstream", &name).len(), 1, "one message");
        // Outbound: the PUBREC was received, the PUBCOMP not yet: PUBREL comes again, the message does not.
        assert_eq!(client.subscribe("command///req/#", 2).await, 2);
        world.command(&name, "x", &[]).await;
        let id = next_command(&mut client).await.id.unwrap();
        client.send(&packet::acknowledgement(kind::PUBREC, id)).await;
        assert_eq!(client.expect(kind::PUBREL).await.id(), id);
        client.ping().await;
        drop(client);
        gone(&world, &name, 2).await;
        let (mut client, _) = resume(&world, version, &name).await;
        assert_eq!(client.expect(kind::PUBREL).await.id(), id);
        client.send(&packet::acknowledgement(kind::PUBCOMP, id)).await;
        client.ping().await;
        drop(client);
        gone(&world, &name, 3).await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_message_of_qos_2_is_one_message_across_kill_9_of_the_gateway() {
    let mut world = World::start().await;
    let (mut client, _) = resume(&world, Version::V5, "d").await;
    let publish = Publish::new(Version::V5, "t", "once", 2, 11);
    client.send(&publish.encode()).await;
    client.expect(kind::PUBREC).await;
    // A round trip: what the PUBREC promised is kept by now.
    client.ping().await;
    world.gateway.kill();
    world.gateway = world.gateway.restart().await;
    let (mut client, present) = resume(&world, Version::V5, "d").await;
    assert!(present);
    client.send(&Publish { dup: true, ..publish }.encode()).await;
    assert_eq!(client.expect(kind::PUBREC).await.id(), 11);
    client.send(&packet::acknowledgement(kind::PUBREL, 11)).await;
    assert_eq!(client.expect(kind::PUBCOMP).await.id(), 11);
    client.ping().await;
    assert_eq!(world.recorder.of("upstream", "d").len(), 1, "{}", world.recorder.story());
    world.gateway.assert_sound();
}

#[tokio::test]
async fn a_message_of_qos_2_is_one_message_across_kill_9_while_nats_is_away() {
    let mut world = World::start().await;
    let mut clients = Vec::new();
    for version in BOTH {
        for dup in [true, false] {
            let name = format!("d{}-{dup}", version.level());
            clients.push((resume(&world, version, &name).await.0, version, dup, name));
        }
    }
    world.nats.kill();
    for (client, version, ..) in &mut clients {
        client.send(&Publish::new(*version, "t", "once", 2, 11).encode()).await;
        client.ping().await;
    }
    // Whoever is let in now is on disk, and so is what came before.
    let (last, _) = resume(&world, Version::V5, "last").await;
    world.gateway.kill();
    drop(last);
    world.nats.restart().await;
    world.gateway = world.gateway.restart().await;
    for (client, version, dup, name) in clients {
        drop(client);
        let (mut client, present) = resume(&world, version, &name).await;
        assert!(present, "{name}");
        client.send(&Publish { dup, ..Publish::new(version, "t", "once", 2, 11) }.encode()).await;
        assert_eq!(client.expect(kind::PUBREC).await.id(), 11, "{name}");
        client.send(&packet::acknowledgement(kind::PUBREL, 11)).await;
        assert_eq!(client.expect(kind::PUBCOMP).await.id(), 11, "{name}");
        // It is released: the same again is another one.
        client.send(&Publish::new(version, "t", "once", 2, 11).encode()).await;
        client.expect(kind::PUBREC).await;
        world.recorder.expect_count("upstream", &name, 2).await;
        client.ping().await;
        assert_eq!(world.recorder.of("upstream", &name).len(), 2, "{}", world.recorder.story());
    }
    world.gateway.assert_sound();
}

/// Answered without waiting for anything that takes its time.
const SOON: std::time::Duration = std::time::Duration::from_secs(5);

#[tokio::test]
async fn a_message_against_the_rights_locks_nobody_out() {
    let world = World::start().await;
    for round in 1..=3 {
        let from = std::time::Instant::now();
        let (mut client, present) = resume(&world, Version::V4, "d").await;
        assert_eq!(present, round > 1);
        client.send(&Publish::new(Version::V4, "$SYS/x", "f", 2, 1).encode()).await;
        client.until_closed().await;
        assert!(from.elapsed() < SOON, "{:?}", from.elapsed());
        gone(&world, "d", round).await;
    }
    let ends = world.recorder.of("disconnected", "d");
    assert!(ends.iter().all(|end| end.text("reason") == "not-authorized"), "{}", world.recorder.story());
    world.close().await;
}

#[tokio::test]
async fn who_comes_again_while_nats_is_away_is_let_in_and_its_message_is_one() {
    let mut world = World::start().await;
    let mut clients = Vec::new();
    for version in BOTH {
        let name = format!("d{}", version.level());
        clients.push((version, resume(&world, version, &name).await.0, name));
    }
    world.nats.kill();
    let mut back = Vec::new();
    for (version, mut client, name) in clients {
        let publish = Publish::new(version, "t", "once", 2, 5);
        client.send(&publish.encode()).await;
        client.ping().await;
        drop(client);
        for round in 0..3 {
            let from = std::time::Instant::now();
            let (mut client, present) = resume(&world, version, &name).await;
            assert!(present && from.elapsed() < SOON, "{name}: {:?}", from.elapsed());
            client.send(&Publish { dup: true, ..publish.clone() }.encode()).await;
            client.ping().await;
            if round == 2 {
                back.push((client, name.clone()));
            }
        }
    }
    world.nats.restart().await;
    for (client, name) in &mut back {
        assert_eq!(client.expect(kind::PUBREC).await.id(), 5, "{name}");
        client.send(&packet::acknowledgement(kind::PUBREL, 5)).await;
        assert_eq!(client.expect(kind::PUBCOMP).await.id(), 5);
        client.ping().await;
        world.recorder.expect_count("upstream", name, 1).await;
    }
    drop(back);
    for version in BOTH {
        let name = format!("d{}", version.level());
        gone(&world, &name, 4).await;
        assert_eq!(world.recorder.of("upstream", &name).len(), 1, "{}", world.recorder.story());
        assert_eq!(world.recorder.of("connected", &name).len(), 4, "{}", world.recorder.story());
    }
    world.close().await;
}
