//! Device to cloud: every QoS, what counts as JSON, and that an id of the protocol never swallows a message.

use landfall_testkit::packet::{self, Connect, Publish, kind, property};
use landfall_testkit::{Device, RawClient, Version, World};
use serde_json::{Value, json};

const BOTH: [Version; 2] = [Version::V4, Version::V5];

#[tokio::test]
async fn each_qos_arrives_once_and_in_order() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("all-{}", version.level());
        let device = Device::connect(version, &name, world.mqtt()).await;
        for n in 0..30_u8 {
            device.publish("t", format!("{n}"), n % 3).await;
        }
        // Ten each of QoS 1 and QoS 2 are acknowledged; QoS 0 is not.
        device.expect_acknowledged(20).await;
        let events = world.recorder.expect_count("upstream", &name, 30).await;
        for (n, event) in (0_u64..).zip(&events) {
            assert_eq!(event.number("payload"), n);
            assert_eq!(event.number("qos"), n % 3);
            assert_eq!(event.number("seq"), n + 1);
        }
        device.disconnect().await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_payload_is_json_only_when_it_strictly_is() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "d")).await;
    let deep = "[".repeat(200_000);
    let nested = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let base64 = |bytes: &[u8]| {
        use base64::Engine;
        Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    let cases: Vec<(&[u8], &str, Value)> = vec![
        (br#"{"a":1}"#, "json", json!({"a": 1})),
        (b"17", "json", json!(17)),
        (b"null", "json", Value::Null),
        (b" [1 , 2] ", "json", json!([1, 2])),
        (b"\"\\u00e9\"", "json", json!("é")),
        (b"", "utf8", json!("")),
        (b"hello", "utf8", json!("hello")),
        (b"01", "utf8", json!("01")),
        (b"NaN", "utf8", json!("NaN")),
        (b"{} {}", "utf8", json!("{} {}")),
        (b"{\"a\":1,}", "utf8", json!("{\"a\":1,}")),
        (b"\"\\ud800\"", "utf8", json!("\"\\ud800\"")),
        ("\u{feff}{}".as_bytes(), "utf8", json!("\u{feff}{}")),
        ("q\"\\\n\u{1}\u{2028}".as_bytes(), "utf8", json!("q\"\\\n\u{1}\u{2028}")),
        (deep.as_bytes(), "utf8", json!(deep)),
        (nested.as_bytes(), "utf8", json!(nested)),
        (&[0xff, 0x00, 0x80], "base64", base64(&[0xff, 0x00, 0x80])),
        (b"\xed\xa0\x80", "base64", base64(b"\xed\xa0\x80")),
    ];
    for (n, (payload, encoding, value)) in (1_u16..).zip(&cases) {
        assert_eq!(client.publish_acked("t", payload, n).await, 0);
        let event = world.recorder.expect_count("upstream", "d", n.into()).await.pop().unwrap();
        assert_eq!(
            event.text("payloadEncoding"),
            *encoding,
            "{:?}",
            payload.escape_ascii().to_string().get(..80)
        );
        assert_eq!(&event.json["payload"], value);
    }
    world.close().await;
}

#[tokio::test]
async fn a_payload_cannot_forge_fields() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "honest")).await;
    let forged = r#"1,"endpointId":"victim","reason":"kicked""#;
    assert_eq!(client.publish_acked(r#"t","endpointId":"victim"#, forged, 1).await, 0);
    assert_eq!(client.publish_acked("t", r#"{"endpointId":"victim"}"#, 2).await, 0);
    let events = world.recorder.expect_count("upstream", "honest", 2).await;
    assert_eq!(events[0].text("payload"), forged);
    assert_eq!(events[0].text("topic"), r#"t","endpointId":"victim"#);
    assert_eq!(events[1].json["payload"]["endpointId"], "victim");
    assert!(world.recorder.of("upstream", "victim").is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_packet_id_used_again_is_a_new_message() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
    for n in 0..10 {
        assert_eq!(client.publish_acked("t", format!("{n}"), 7).await, 0);
    }
    // The same after a new connection, well inside the duplicate window of the stream.
    drop(client);
    world.recorder.expect("disconnected", "d").await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
    for n in 10..20 {
        assert_eq!(client.publish_acked("t", format!("{n}"), 7).await, 0);
    }
    let events = world.recorder.expect_count("upstream", "d", 20).await;
    let payloads: Vec<u64> = events.iter().map(|event| event.number("payload")).collect();
    assert_eq!(payloads, (0..20).collect::<Vec<_>>());
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn qos_2_is_one_message_however_often_it_is_sent() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("exactly-{}", version.level());
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await;
        let publish = Publish::new(version, "t", "1", 2, 5);
        client.send(&publish.encode()).await;
        assert_eq!(client.expect(kind::PUBREC).await.id(), 5);
        for _ in 0..3 {
            client.send(&Publish { dup: true, ..publish.clone() }.encode()).await;
            assert_eq!(client.expect(kind::PUBREC).await.id(), 5, "received already");
        }
        client.send(&packet::acknowledgement(kind::PUBREL, 5)).await;
        assert_eq!(client.expect(kind::PUBCOMP).await.id(), 5);
        // A PUBREL of an id that is not in use is answered: the client forgets it then.
        client.send(&packet::acknowledgement(kind::PUBREL, 5)).await;
        let again = client.expect(kind::PUBCOMP).await;
        assert_eq!(
            again.ack_code(),
            if version == Version::V5 { 0x92 } else { 0 },
            "packet identifier not found"
        );
        // Released, the id stands for a new message.
        client.send(&Publish::new(version, "t", "2", 2, 5).encode()).await;
        assert_eq!(client.expect(kind::PUBREC).await.id(), 5);
        client.send(&packet::acknowledgement(kind::PUBREL, 5)).await;
        client.expect(kind::PUBCOMP).await;
        let events = world.recorder.expect_count("upstream", &name, 2).await;
        assert_eq!(events.iter().map(|event| event.number("payload")).collect::<Vec<_>>(), [1, 2]);
        client.ping().await;
        assert_eq!(world.recorder.of("upstream", &name).len(), 2);
    }
    world.close().await;
}

#[tokio::test]
async fn topic_aliases_stand_for_topics() {
    let world = World::start().await;
    let (mut client, connack) = RawClient::connect(world.mqtt(), &Connect::new(Version::V5, "d")).await;
    let most = connack.connack_property(0x22).map_or(0, |value| u16::from_be_bytes([value[0], value[1]]));
    assert!(most >= 2, "the gateway takes topic aliases");
    let with = |topic: &str, alias: u16, n: u16| {
        Publish::new(Version::V5, topic, format!("{n}"), 1, n)
            .property(&property::topic_alias(alias))
            .encode()
    };
    for packet in [
        with("long/topic", 1, 1),
        with("", 1, 2),
        with("other", most, 3),
        with("", most, 4),
        with("new", 1, 5),
    ] {
        client.send(&packet).await;
        assert_eq!(client.expect(kind::PUBACK).await.ack_code(), 0);
    }
    client.send(&with("", 1, 6)).await;
    client.expect(kind::PUBACK).await;
    let events = world.recorder.expect_count("upstream", "d", 6).await;
    let topics: Vec<&str> = events.iter().map(|event| event.text("topic")).collect();
    assert_eq!(topics, ["long/topic", "long/topic", "other", "other", "new", "new"]);
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_publish_pipelined_behind_connect_is_taken() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("eager-{}", version.level());
        let mut client = RawClient::open(world.mqtt()).await;
        let mut bytes = Connect::new(version, &name).encode();
        bytes.extend(Publish::new(version, "t", "1", 1, 1).encode());
        bytes.extend(packet::subscribe(version, 2, &[("command///req/#", 0)]));
        bytes.extend(packet::ping());
        client.send(&bytes).await;
        assert_eq!(client.expect(kind::CONNACK).await.connack_code(), 0);
        let mut kinds = Vec::new();
        for _ in 0..3 {
            kinds.push(client.next().await.expect("the connection stands").kind());
        }
        kinds.sort_unstable();
        assert_eq!(kinds, [kind::PUBACK, kind::SUBACK, kind::PINGRESP]);
        client.send(&packet::disconnect(version, 0, &[])).await;
        assert!(client.until_closed().await.is_empty());
        world.recorder.expect("upstream", &name).await;
        let end = world.recorder.expect("disconnected", &name).await;
        assert_eq!(end.text("reason"), "client-closed");
    }
    world.close().await;
}

#[tokio::test]
async fn bytes_one_at_a_time_mean_the_same() {
    let world = World::start().await;
    let mut client = RawClient::open(world.mqtt()).await;
    let mut bytes = Connect::new(Version::V5, "slow").encode();
    bytes.extend(Publish::new(Version::V5, "t", "whole", 1, 1).encode());
    for byte in bytes {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.expect(kind::CONNACK).await.connack_code(), 0);
    assert_eq!(client.expect(kind::PUBACK).await.id(), 1);
    assert_eq!(world.recorder.expect("upstream", "slow").await.text("payload"), "whole");
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn an_empty_client_id_is_given_one() {
    let world = World::start().await;
    let (mut client, connack) = RawClient::connect(world.mqtt(), &Connect::new(Version::V5, "")).await;
    assert_eq!(connack.connack_code(), 0);
    let assigned =
        String::from_utf8(connack.connack_property(0x12).expect("an assigned client identifier")).unwrap();
    assert!(!assigned.is_empty());
    world.recorder.expect("connected", &assigned).await;
    client.ping().await;
    // Version 3.1.1 has no word for it, and takes it too; without a clean session it is refused (3.1.3-8).
    let (_v4, connack) = RawClient::connect(world.mqtt(), &Connect::new(Version::V4, "")).await;
    assert_eq!(connack.connack_code(), 0);
    let (mut refused, connack) =
        RawClient::connect(world.mqtt(), &Connect::new(Version::V4, "").persistent(0)).await;
    assert_eq!(connack.connack_code(), 2, "identifier rejected");
    refused.until_closed().await;
    drop(client);
    world.close().await;
}
