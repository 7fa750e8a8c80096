//! What a requester may believe of a command whose device, or whose gateway, goes away while it is under way: the cells of
//! the table in `docs/wire.md`, for MQTT.

use std::time::Duration;

use futures_util::StreamExt as _;
use landfall_testkit::packet::{self, Connect, kind};
use landfall_testkit::raw::Delivered;
use landfall_testkit::{PATIENCE, RawClient, Version, World, within};
use serde_json::Value;

const BOTH: [Version; 2] = [Version::V4, Version::V5];

/// A device with a persistent session, subscribed to its commands at this QoS.
async fn listener(world: &World, version: Version, name: &str, qos: u8) -> RawClient {
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, name).persistent(3600)).await;
    assert_eq!(client.subscribe("command///req/#", qos).await, qos);
    client
}

async fn resume(world: &World, version: Version, name: &str) -> RawClient {
    let connect = Connect::new(version, name).persistent(3600);
    let (client, connack) = RawClient::connect(world.mqtt(), &connect).await;
    assert!(connack.session_present());
    client
}

async fn gone(world: &World, name: &str, times: usize) {
    world.recorder.expect_count("disconnected", name, times).await;
}

async fn next_command(client: &mut RawClient) -> Delivered {
    let version = client.version();
    client.expect(kind::PUBLISH).await.delivered(version)
}

/// Takes a command to the end of its handshake.
async fn acknowledge(client: &mut RawClient, command: &Delivered) {
    let id = command.id.unwrap();
    if command.qos == 1 {
        return client.send(&packet::acknowledgement(kind::PUBACK, id)).await;
    }
    client.send(&packet::acknowledgement(kind::PUBREC, id)).await;
    assert_eq!(client.expect(kind::PUBREL).await.id(), id);
    client.send(&packet::acknowledgement(kind::PUBCOMP, id)).await;
}

/// A request that outlives the process that took it.
struct Asked(async_nats::Subscriber);

async fn ask(world: &World, device: &str, id: &str, wait: &str) -> Asked {
    let inbox = world.client.new_inbox();
    let replies = world.client.subscribe(inbox.clone()).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in [("Command-Id", id), ("Command-Wait", wait), ("Command-Ttl", "600000")] {
        headers.insert(name, value);
    }
    let subject = format!("kaa.v1.service.{}.command.default.{device}", world.instance());
    world.client.publish_with_reply_and_headers(subject, inbox, headers, "x".into()).await.unwrap();
    Asked(replies)
}

impl Asked {
    /// The one reply; it is the one event about the command, too.
    async fn outcome(mut self, world: &World, device: &str) -> Value {
        let reply = within(PATIENCE, "the outcome", self.0.next()).await.unwrap();
        let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
        let id = reply["commandId"].as_str().unwrap();
        let event = world.recorder.expect_that("downstream", device, id, |e| e.text("commandId") == id).await;
        assert_eq!(event.json, reply);
        let all = world.recorder.of("downstream", device);
        assert_eq!(all.iter().filter(|event| event.text("commandId") == id).count(), 1, "one outcome");
        reply
    }
}

#[tokio::test]
async fn a_command_outlives_its_devices_connection() {
    let world = World::start().await;
    for version in BOTH {
        for qos in [1, 2] {
            let name = format!("d{}-{qos}", version.level());
            let mut client = listener(&world, version, &name, qos).await;
            let asked = ask(&world, &name, "c1", "acknowledged").await;
            let first = next_command(&mut client).await;
            drop(client);
            gone(&world, &name, 1).await;
            let mut client = resume(&world, version, &name).await;
            let again = next_command(&mut client).await;
            assert_eq!((again.id, again.dup), (first.id, true));
            assert!(world.recorder.of("downstream", &name).is_empty(), "nothing was told that did not come");
            acknowledge(&mut client, &again).await;
            let outcome = asked.outcome(&world, &name).await;
            assert_eq!((&outcome["outcome"], &outcome["attempts"]), (&"acknowledged".into(), &2.into()));
        }
    }
    world.close().await;
}

#[tokio::test]
async fn an_expired_command_is_not_sent_to_a_device_that_comes_back() {
    let world = World::start().await;
    for version in BOTH {
        for qos in [1, 2] {
            let name = format!("d{}-{qos}", version.level());
            let mut client = listener(&world, version, &name, qos).await;
            let headers = [("Command-Wait", "acknowledged"), ("Command-Ttl", "1000")];
            let request = world.command(&name, "x", &headers);
            let lose = async {
                let id = next_command(&mut client).await.id.unwrap();
                drop(client);
                id
            };
            let (reply, id) = tokio::join!(request, lose);
            assert_eq!(reply["outcome"], "expired", "{reply}");
            gone(&world, &name, 1).await;
            let mut client = resume(&world, version, &name).await;
            if qos == 2 {
                // The message is not sent; its handshake comes to its end, so that the id is free on both sides.
                assert_eq!(client.expect(kind::PUBREL).await.id(), id);
                client.send(&packet::acknowledgement(kind::PUBCOMP, id)).await;
            }
            client.ping().await;
            // Fresh commands go on.
            let reply = world.command(&name, "y", &[]).await;
            assert_eq!(reply["outcome"], "delivered");
            assert_eq!(next_command(&mut client).await.payload, b"y");
        }
    }
    world.close().await;
}

#[tokio::test]
async fn the_next_process_settles_what_was_under_way_when_its_gateway_was_killed() {
    let mut world = World::start().await;
    let mut client = listener(&world, Version::V5, "d", 1).await;
    let (acked, answered) =
        (ask(&world, "d", "c1", "acknowledged").await, ask(&world, "d", "c2", "answered").await);
    let first = next_command(&mut client).await;
    let second = next_command(&mut client).await;
    acknowledge(&mut client, &second).await;
    // A round trip: the state without that message is kept by now.
    client.ping().await;
    world.gateway.kill();
    world.gateway = world.gateway.restart().await;
    let mut client = resume(&world, Version::V5, "d").await;
    let again = next_command(&mut client).await;
    assert_eq!((again.id, again.dup, again.topic.as_str()), (first.id, true, "command///req/c1/command"));
    acknowledge(&mut client, &again).await;
    assert_eq!(acked.outcome(&world, "d").await["outcome"], "acknowledged");
    assert_eq!(client.publish_acked("command///res/c2/200", "1", 7).await, 0);
    assert_eq!(answered.outcome(&world, "d").await["outcome"], "answered");
    client.ping().await;
    world.gateway.assert_sound();
}

#[tokio::test]
async fn a_gateway_that_stops_in_order_leaves_its_commands_to_the_next() {
    let mut world = World::start().await;
    let mut client = listener(&world, Version::V5, "d", 2).await;
    let asked = ask(&world, "d", "c1", "acknowledged").await;
    let first = next_command(&mut client).await;
    world.gateway.terminate();
    assert!(world.gateway.exited(Duration::from_secs(20)).await.success());
    world.gateway = world.gateway.restart().await;
    let mut client = resume(&world, Version::V5, "d").await;
    let again = next_command(&mut client).await;
    assert_eq!((again.id, again.dup), (first.id, true));
    acknowledge(&mut client, &again).await;
    assert_eq!(asked.outcome(&world, "d").await["outcome"], "acknowledged");
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_command_fails_with_a_session_that_does_not_go_on() {
    let world = World::start().await;
    for (n, clean) in [(0, true), (1, false)] {
        let name = format!("d{n}");
        let mut client = if clean {
            let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, &name)).await;
            assert_eq!(client.subscribe("command///req/#", 1).await, 1);
            client
        } else {
            listener(&world, Version::V5, &name, 1).await
        };
        let asked = ask(&world, &name, "c1", "acknowledged").await;
        next_command(&mut client).await;
        drop(client);
        gone(&world, &name, 1).await;
        if !clean {
            // Whoever begins anew gives up what the session had.
            let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, &name)).await;
            client.ping().await;
        }
        let outcome = asked.outcome(&world, &name).await;
        let status = if clean { "connection-lost" } else { "session-discarded" };
        assert_eq!((&outcome["outcome"], &outcome["status"]), (&"failed".into(), &status.into()));
    }
    world.close().await;
}
