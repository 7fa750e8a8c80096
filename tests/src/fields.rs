//! Every field of every event, held against what the client did: a plain NATS client sees what is true.

use std::time::{SystemTime, UNIX_EPOCH};

use landfall_testkit::contract::is_uuid7;
use landfall_testkit::ledger::Open;
use landfall_testkit::packet::{self, Connect, Publish, kind, property};
use landfall_testkit::{PATIENCE, RawClient, Version, World};
use serde_json::json;

pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[tokio::test]
async fn connected_says_who_how_and_from_where() {
    let world = World::start().await;
    for (version, device) in [(Version::V4, "thermo-4"), (Version::V5, "thermo-5")] {
        let before = now();
        let client = RawClient::accepted(world.mqtt(), &Connect::new(version, device).keep_alive(20)).await;
        let event = world.recorder.expect("connected", device).await;
        assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.connectivity.connected");
        assert_eq!(event.text("type"), "connected");
        assert!((before..=now()).contains(&event.number("timestamp")));
        assert_eq!(event.number("timeout"), 0);
        assert_eq!(event.text("originatorReplicaId"), world.gateway.run_file().replica);
        assert_eq!(event.text("incarnation"), world.gateway.run_file().incarnation);
        assert_eq!(event.text("tenant"), "default");
        assert_eq!(event.text("endpointId"), device);
        assert_eq!(event.json["appVersionName"], "");
        assert!(is_uuid7(event.text("sessionId")), "{}", event.json);
        assert!(event.number("epoch") > 0);
        assert_eq!(event.number("seq"), 1);
        assert_eq!(event.text("transport"), "mqtt");
        assert_eq!(event.text("protocol"), version.protocol());
        assert_eq!(event.text("remoteId"), device);
        assert_eq!(event.text("remoteAddress"), client.local_address().to_string());
        assert_eq!(event.text("identifiedBy"), "anonymous");
        assert_eq!(event.number("keepAliveMs"), 30_000, "1.5 times the keep-alive");
        assert_eq!(event.json["inferred"], false);
        assert_eq!(event.json["cleanStart"], true);
        assert_eq!(event.header("Nats-Msg-Id"), event.text("id"));
    }
    world.close().await;
}

#[tokio::test]
async fn disconnected_says_why_and_what_passed() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "meter")).await;
    assert_eq!(client.subscribe("command///req/#", 0).await, 0);
    assert_eq!(client.publish_acked("a", "12345", 1).await, 0);
    assert_eq!(client.publish_acked("b", "678", 2).await, 0);
    let reply = world.command("meter", "ninebytes", &[]).await;
    assert_eq!(reply["outcome"], "delivered");
    client.expect(kind::PUBLISH).await;
    let last_words = now();
    client.send(&packet::disconnect(Version::V5, 0, &[])).await;
    let connected = world.recorder.expect("connected", "meter").await;
    let event = world.recorder.expect("disconnected", "meter").await;
    assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.connectivity.disconnected");
    assert_eq!(event.json["endpointIds"], json!(["meter"]));
    assert_eq!(event.text("reason"), "client-closed");
    assert_eq!(event.text("initiator"), "device");
    assert_eq!(event.json["inferred"], false);
    assert_eq!(event.number("connectedAt"), connected.number("timestamp"));
    assert!((last_words..=now()).contains(&event.number("lastSeenAt")), "{last_words}: {}", event.json);
    assert_eq!(event.number("durationMs"), event.number("timestamp") - event.number("connectedAt"));
    assert_eq!(event.number("messagesIn"), 2);
    assert_eq!(event.number("bytesIn"), 8);
    assert_eq!(event.number("messagesOut"), 1);
    assert_eq!(event.number("bytesOut"), 9);
    assert_eq!(event.number("seq"), 2);
    for same in
        ["sessionId", "epoch", "tenant", "endpointId", "transport", "incarnation", "originatorReplicaId"]
    {
        assert_eq!(event.json[same], connected.json[same], "{same}");
    }
    world.close().await;
}

#[tokio::test]
async fn upstream_says_what_on_which_topic() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "pump")).await;
    let publish =
        Publish { retain: true, ..Publish::new(Version::V5, "site/7/flow", r#"{"l": 4.50}"#, 1, 9) };
    let publish = publish
        .property(&property::content_type("application/json"))
        .property(&property::user("unit", "l/min"))
        .property(&property::user("unit", "gal"));
    client.send(&publish.encode()).await;
    assert_eq!(client.expect(kind::PUBACK).await.id(), 9);
    let connected = world.recorder.expect("connected", "pump").await;
    let event = world.recorder.expect("upstream", "pump").await;
    assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.message.upstream");
    for same in ["sessionId", "epoch", "tenant", "endpointId", "transport", "incarnation", "appVersionName"] {
        assert_eq!(event.json[same], connected.json[same], "{same}");
    }
    assert_eq!(event.number("seq"), 1, "messages have a numbering of their own");
    assert_eq!(event.text("topic"), "site/7/flow");
    assert_eq!(event.number("qos"), 1);
    assert_eq!(event.json["retain"], true);
    assert_eq!(event.text("contentType"), "application/json");
    assert_eq!(event.text("payloadEncoding"), "json");
    assert_eq!(event.json["payload"], json!({"l": 4.5}));
    let body = std::str::from_utf8(&event.body).unwrap();
    assert!(body.contains(r#""payload":{"l": 4.50}"#), "the payload stands as it came: {body}");
    assert!(!event.text("messageId").is_empty());
    let units = event.json["userProperties"].to_string();
    assert!(units.contains("l/min") && units.contains("gal"), "both values of one name: {units}");
    world.close().await;
}

#[tokio::test]
async fn upstream_says_where_a_device_expects_an_answer_and_a_command_may_be_it() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "asker")).await;
    assert_eq!(client.subscribe("asker/reply/#", 1).await, 1);
    let publish = Publish::new(Version::V5, "asker/get", "interval", 1, 9)
        .property(&property::response_topic("asker/reply/config"))
        .property(&property::correlation_data(&[0, 0xFF, 7]))
        .property(&property::message_expiry(30))
        .property(&property::payload_format(true));
    client.send(&publish.encode()).await;
    assert_eq!(client.expect(kind::PUBACK).await.id(), 9);
    let event = world.recorder.expect("upstream", "asker").await;
    assert_eq!((event.text("responseTopic"), event.text("correlationData")), ("asker/reply/config", "AP8H"));
    assert_eq!((event.number("messageExpiryMs"), event.text("payloadFormat")), (30_000, "utf8"));
    let headers =
        [("Topic", event.text("responseTopic")), ("Correlation-Data", event.text("correlationData"))];
    assert_eq!(world.command("asker", "30s", &headers).await["outcome"], "delivered");
    let answer = client.expect(kind::PUBLISH).await.delivered(Version::V5);
    assert_eq!((answer.topic.as_str(), answer.payload.as_slice()), ("asker/reply/config", b"30s".as_slice()));
    assert_eq!(answer.property(0x09).as_deref(), Some([0, 0xFF, 7].as_slice()));
    // A topic that the device has not subscribed to is no way in, whoever names it.
    let reply = world.command("asker", "x", &[("Topic", "other/reply"), ("Correlation-Data", "AP8H")]).await;
    assert_eq!((&reply["outcome"], &reply["status"]), (&json!("rejected"), &json!("not-subscribed")));
    let reply = world.command("asker", "x", &[("Correlation-Data", "no base64!")]).await;
    assert_eq!((&reply["outcome"], &reply["status"]), (&json!("rejected"), &json!("bad-correlation-data")));
    world.close().await;
}

#[tokio::test]
async fn downstream_says_what_became_of_a_command() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "valve")).await;
    assert_eq!(client.subscribe("command///req/#", 1).await, 1);
    let request = world.command(
        "valve",
        r#"{"to":"open"}"#,
        &[
            ("Command-Id", "c-77"),
            ("Command-Name", "turn"),
            ("Command-Wait", "answered"),
            ("Content-Type", "application/json"),
        ],
    );
    let answer = async {
        let command = client.expect(kind::PUBLISH).await.delivered(Version::V5);
        assert_eq!(command.topic, "command///req/c-77/turn");
        assert_eq!(command.payload, br#"{"to":"open"}"#);
        assert_eq!(command.qos, 1);
        assert!(!command.retain && !command.dup);
        assert_eq!(command.property(0x03).as_deref(), Some(b"application/json".as_slice()));
        client.send(&packet::acknowledgement(kind::PUBACK, command.id.unwrap())).await;
        assert_eq!(client.publish_acked("command///res/c-77/200", r#"{"is":"open"}"#, 3).await, 0);
    };
    let (reply, ()) = tokio::join!(request, answer);
    let event = world.recorder.expect("downstream", "valve").await;
    assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.message.downstream");
    assert_eq!(event.json, reply, "the reply is the event");
    assert_eq!(event.text("commandId"), "c-77");
    assert_eq!(event.text("name"), "turn");
    assert_eq!(event.text("outcome"), "answered");
    assert_eq!(event.text("status"), "200");
    assert_eq!(event.json["response"], json!({"is": "open"}));
    assert_eq!(event.text("responseEncoding"), "json");
    assert_eq!(event.number("attempts"), 1);
    assert!(event.number("latencyMs") < 10_000);
    assert_eq!(event.number("seq"), 1);
    let connected = world.recorder.expect("connected", "valve").await;
    assert_eq!(event.json["sessionId"], connected.json["sessionId"]);
    world.close().await;
}

#[tokio::test]
async fn refused_says_the_cause_and_counts() {
    let world = World::with(|settings| {
        settings
            .devices("[[device]]\nid = \"d\"\npassword = \"plain:right\"\n")
            .set("events.refusal_interval", "500ms")
    })
    .await;
    let before = now();
    for _ in 0..5 {
        let connect = Connect::new(Version::V5, "d").login("d", "wrong");
        let (mut client, connack) = RawClient::connect(world.mqtt(), &connect).await;
        assert_eq!(connack.connack_code(), 0x86, "bad user name or password");
        client.until_closed().await;
    }
    let count = || {
        world.recorder.all().iter().filter(|e| e.kind() == "refused").map(|e| e.number("count")).sum::<u64>()
    };
    world.recorder.find(PATIENCE, "five refusals", |_| count() >= 5).await;
    let events: Vec<_> = world.recorder.all().into_iter().filter(|event| event.kind() == "refused").collect();
    assert!(events.len() < 5, "they are coalesced: {}", world.recorder.story());
    for event in &events {
        assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.access.refused");
        assert_eq!(event.text("cause"), "bad-credentials");
        assert!(event.text("remoteAddress").starts_with("127.0.0.1:"));
        assert!(before <= event.number("firstAt") && event.number("firstAt") <= event.number("lastAt"));
        assert!(event.number("lastAt") <= now());
    }
    assert_eq!(count(), 5, "each attempt is counted once");
    assert!(world.recorder.of("connected", "d").is_empty());
    world.close().await;
}

#[tokio::test]
async fn an_instance_speaks_for_itself() {
    let world = World::with(|settings| {
        settings.set("events.keep_alive", "1s").set("instance.name", "edge_7").set("instance.replica", "blue")
    })
    .await;
    let alive = world.recorder.find(PATIENCE, "a second keep-alive", |event| {
        event.kind() == "keep-alive"
            && world.recorder.all().iter().filter(|other| other.kind() == "keep-alive").count() >= 2
    });
    let alive = alive.await;
    assert_eq!(alive.subject, "kaa.v1.events.edge_7.service.lifecycle.keep-alive");
    let join = world.recorder.find(PATIENCE, "join", |event| event.kind() == "join").await;
    assert_eq!(join.subject, "kaa.v1.events.edge_7.service.lifecycle.join");
    for event in [&join, &alive] {
        assert_eq!(event.text("originatorReplicaId"), "blue");
        assert_eq!(event.text("incarnation"), world.gateway.run_file().incarnation);
    }
    world.gateway.terminate();
    let leave = world.recorder.find(PATIENCE, "leave", |event| event.kind() == "leave").await;
    assert_eq!(leave.subject, "kaa.v1.events.edge_7.service.lifecycle.leave");
    world.gateway.exited(PATIENCE).await;
    world.assert_sound(Open::None).await;
}
