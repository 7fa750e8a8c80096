//! What a device calls itself and its topics never becomes a subject, a header, a log line or another's name (C4, C6, C12).

use landfall_testkit::packet::{Connect, Publish, kind, property};
use landfall_testkit::{RawClient, Version, World};

/// Names that mean something to NATS, to a shell, to a log or to JSON.
const NAMES: &[&str] = &[
    ".",
    "..",
    "a.b",
    ".a",
    "a.",
    "*",
    ">",
    "a.>",
    "*.*",
    "a b",
    " ",
    "$JS.API.STREAM.DELETE.LANDFALL_MESSAGES",
    "$SYS.REQ.SERVER.PING",
    "$MQTT",
    "_INBOX.x",
    "kaa.v1.events.landfall.endpoint.message.upstream",
    "%",
    "%2E",
    "%2e",
    "#",
    "+",
    "a/b",
    "\"",
    "\\",
    "{\"a\":1}",
    "größe",
    "日本",
    "\u{202e}evil",
    "'; drop table devices; --",
    "..%2f..%2fetc",
    "FORGED",
];

#[tokio::test]
async fn no_device_chooses_a_subject() {
    let world = super::world().await;
    let mut witness = super::Witness::connect(&world).await;
    for (n, name) in NAMES.iter().enumerate() {
        let version = if n % 2 == 0 { Version::V5 } else { Version::V4 };
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, name)).await;
        let event = world.recorder.expect("connected", name).await;
        assert_eq!(event.text("endpointId"), *name, "the name stands in the body as it is");
        assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.connectivity.connected");
        // The same as a topic, where MQTT lets it be one.
        // (4.7.2: names that begin with `$` are the server's, and the ACL `#` does not cover them.)
        if !name.contains(['#', '+']) && !name.starts_with('$') {
            assert_eq!(client.publish_acked(name, *name, 1).await, 0);
            let event = world.recorder.expect("upstream", name).await;
            assert_eq!(event.text("topic"), *name);
            assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.message.upstream");
        }
        // A persistent one is kept under its name as well.
        drop(client);
        world.recorder.expect("disconnected", name).await;
        let mut kept = RawClient::accepted(world.mqtt(), &Connect::new(version, name).persistent(60)).await;
        kept.subscribe("command///req/#", 1).await;
        drop(kept);
        world.recorder.expect_count("disconnected", name, 2).await;
        witness.speak().await;
    }
    super::assert_log_is_clean(&world);
    drop(witness);
    world.close().await;
}

#[tokio::test]
async fn a_name_of_300_characters_or_with_control_characters_is_refused() {
    let world = super::world().await;
    for name in
        ["x".repeat(300), "ü".repeat(65), "a\nb".into(), "a\rb".into(), "\u{7f}".into(), "\u{85}".into()]
    {
        for (version, code) in [(Version::V4, 2), (Version::V5, 0x85)] {
            let (mut client, connack) = RawClient::connect(world.mqtt(), &Connect::new(version, &name)).await;
            assert_eq!(connack.connack_code(), code, "{name:?}: client identifier not valid");
            client.until_closed().await;
        }
    }
    super::assert_log_is_clean(&world);
    world.close().await;
}

#[tokio::test]
async fn texts_of_a_device_stay_texts() {
    let world = World::with(|settings| settings.set("log.level", "trace").set("log.format", "json")).await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "teller")).await;
    let evil = "x\"}\u{2028}\u{202e}</script>'";
    let publish = Publish::new(Version::V5, format!("t/{evil}"), evil, 1, 1)
        .property(&property::content_type(evil))
        .property(&property::response_topic(evil))
        .property(&property::correlation_data(b"\r\n\0"))
        .property(&property::user(evil, evil));
    client.send(&publish.encode()).await;
    assert_eq!(client.expect(kind::PUBACK).await.ack_code(), 0);
    let event = world.recorder.expect("upstream", "teller").await;
    assert_eq!(event.text("topic"), format!("t/{evil}"));
    assert_eq!(event.text("payload"), evil);
    assert_eq!(event.text("contentType"), evil);
    assert!(event.json["userProperties"].to_string().contains("script"));
    // One event of the log is one line of JSON, whatever a device says (RUSTSEC-2025-0055's shape).
    drop(client);
    world.recorder.expect("disconnected", "teller").await;
    for line in world.gateway.log().lines().filter(|line| !line.is_empty()) {
        let entry: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry.is_object(), "{line}");
    }
    world.close().await;
}

#[tokio::test]
async fn secrets_stay_secret() {
    let world = World::with(|settings| {
        settings
            .set("log.level", "trace")
            .devices("[[device]]\nid = \"d\"\npassword = \"plain:open-sesame\"\npublish = [\"#\"]\n")
    })
    .await;
    let good = Connect::new(Version::V5, "c").login("d", "open-sesame");
    let mut client = RawClient::accepted(world.mqtt(), &good).await;
    assert_eq!(client.publish_acked("t", "x", 1).await, 0);
    let (_, connack) =
        RawClient::connect(world.mqtt(), &Connect::new(Version::V5, "c").login("d", "hunter2")).await;
    assert_eq!(connack.connack_code(), 0x86);
    world.gateway.edit_devices("[[device]]\nid = \"d\"\npassword = \"plain:changed-word\"\n");
    world.recorder.expect("disconnected", "d").await;
    let everything = [
        world.gateway.log(),
        world.gateway.get("/metrics").await.body,
        world.gateway.get("/v1/sessions").await.body,
        world.recorder.all().iter().map(|event| event.json.to_string()).collect(),
    ];
    for text in &everything {
        for secret in ["open-sesame", "hunter2", "changed-word"] {
            assert!(!text.contains(secret), "{secret} is told");
        }
    }
    world.gateway.assert_sound();
}
