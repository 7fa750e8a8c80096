//! Several instances on one NATS: nothing of one is found by the other.

use landfall_testkit::packet::{self, Connect, kind};
use landfall_testkit::{Gateway, RawClient, Version, World};

/// Sends a command that may wait, without waiting for its outcome.
async fn leave_command(world: &World, instance: &str, id: &str) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Command-Ttl", "600000");
    headers.insert("Command-Id", id);
    let subject = format!("kaa.v1.service.{instance}.command.default.d");
    world.client.publish_with_headers(subject, headers, id.to_owned().into()).await.unwrap();
}

#[tokio::test]
async fn two_instances_share_neither_sessions_nor_queued_commands() {
    let world = World::start().await;
    let other = Gateway::builder().nats(&world.nats).set("instance.name", "other").start().await;
    let connect = Connect::new(Version::V5, "d").persistent(3600);
    let (mut client, _) = RawClient::connect(world.mqtt(), &connect).await;
    assert_eq!(client.subscribe("command///req/#", 1).await, 1);
    drop(client);
    world.recorder.expect("disconnected", "d").await;
    leave_command(&world, "landfall", "q1").await;
    let queue = "LANDFALL_QUEUE";
    landfall_testkit::streams::stored_when(&world.nats, queue, "a queued command", |all| all.len() == 1)
        .await;
    // Also one that starts only now, and so reads what is stored.
    let other = other.restart().await;
    let (mut stranger, connack) = RawClient::connect(other.mqtt("tcp"), &connect).await;
    assert!(!connack.session_present(), "the session is the other instance's");
    stranger.ping().await;
    drop(stranger);
    let (mut client, connack) = RawClient::connect(world.mqtt(), &connect).await;
    assert!(connack.session_present());
    let command = client.expect(kind::PUBLISH).await.delivered(Version::V5);
    assert_eq!(command.payload, b"q1");
    client.send(&packet::acknowledgement(kind::PUBACK, command.id.unwrap())).await;
    let outcome = world.recorder.expect("downstream", "d").await;
    assert_eq!((outcome.text("outcome"), outcome.text("commandId")), ("delivered", "q1"));
    client.ping().await;
    drop(client);
    other.terminate();
    assert!(other.exited(landfall_testkit::PATIENCE).await.success());
    assert_eq!(world.recorder.of("downstream", "d").len(), 1, "{}", world.recorder.story());
}
