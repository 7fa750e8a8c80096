//! The other encodings: Kaa's two Avro dialects for presence, and upstream payloads left as they came.

use landfall_testkit::packet::{Connect, Publish, kind, property};
use landfall_testkit::recorder::Seen;
use landfall_testkit::{RawClient, Version, World};

/// A reader of raw Avro, of the few types that the two records use (Avro 1.11, binary encoding).
struct Avro<'a>(&'a [u8]);

impl Avro<'_> {
    fn long(&mut self) -> i64 {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().expect("more bytes");
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    fn text(&mut self) -> String {
        let length = usize::try_from(self.long()).expect("a length");
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8(text.to_vec()).expect("UTF-8")
    }

    fn texts(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            match self.long() {
                0 => return all,
                n => all.extend((0..n).map(|_| self.text())),
            }
        }
    }

    fn map(&mut self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        loop {
            match self.long() {
                0 => return all,
                n => all.extend((0..n).map(|_| (self.text(), self.text()))),
            }
        }
    }

    fn end(&self) {
        assert!(self.0.is_empty(), "bytes are left over: {:?}", self.0);
    }
}

/// A connected and a disconnected event of one short session.
async fn short_session(format: &str) -> (World, std::sync::Arc<Seen>, std::sync::Arc<Seen>) {
    let world = World::with(|settings| {
        settings.set("events.format", format).devices(
            "[[device]]\nid = \"d\"\npassword = \"plain:p\"\napp_version = \"demo-v1\"\npublish = [\"#\"]\n",
        )
    })
    .await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "c").login("d", "p")).await;
    assert_eq!(client.publish_acked("t", "{}", 1).await, 0);
    drop(client);
    let of = |kind: &'static str| {
        let world = &world;
        async move { world.recorder.find(landfall_testkit::PATIENCE, kind, |event| event.kind() == kind).await }
    };
    let (connected, disconnected) = (of("connected").await, of("disconnected").await);
    let upstream = of("upstream").await;
    assert_eq!(upstream.text("payloadEncoding"), "json", "all else stays JSON");
    (world, connected, disconnected)
}

/// What the record has no place for stands in the headers.
fn assert_headers(event: &Seen, seq: &str) {
    assert!(!event.header("Landfall-Session-Id").is_empty());
    assert!(!event.header("Landfall-Epoch").is_empty());
    assert_eq!(event.header("Landfall-Seq"), seq);
    assert!(!event.header("Nats-Msg-Id").is_empty());
}

#[tokio::test]
async fn kaa_2017_on_the_wire() {
    let (world, connected, disconnected) = short_session("kaa-2017").await;
    assert_eq!(connected.subject, "kaa.v1.events.landfall.endpoint.connectivity.connected");
    let mut avro = Avro(&connected.body);
    let (correlation, timestamp, timeout) = (avro.text(), avro.long(), avro.long());
    assert!(!correlation.is_empty() && timestamp > 1_700_000_000_000);
    assert_eq!(timeout, -1, "never, in this dialect");
    assert_eq!((avro.text(), avro.text(), avro.text()), ("d".into(), "demo-v1".into(), "r1".into()));
    avro.end();
    assert_headers(&connected, "1");
    let mut avro = Avro(&disconnected.body);
    let (correlation, timestamp, timeout) = (avro.text(), avro.long(), avro.long());
    assert!(!correlation.is_empty() && timestamp > 1_700_000_000_000);
    assert_eq!(timeout, -1);
    assert_eq!((avro.texts(), avro.text()), (vec!["d".to_owned()], "r1".into()));
    avro.end();
    assert_headers(&disconnected, "2");
    assert_eq!(disconnected.header("Landfall-Reason"), "connection-lost");
    drop(world);
}

#[tokio::test]
async fn kaa_elce_on_the_wire() {
    let (world, connected, disconnected) = short_session("kaa-elce").await;
    for (event, seq) in [(&connected, "1"), (&disconnected, "2")] {
        let mut avro = Avro(&event.body);
        let (correlation, timestamp, timeout) = (avro.text(), avro.long(), avro.long());
        assert!(!correlation.is_empty() && timestamp > 1_700_000_000_000);
        assert_eq!(timeout, 0, "never, in this dialect");
        assert_eq!((avro.map(), avro.text()), (vec![("d".into(), "demo-v1".into())], "r1".into()));
        avro.end();
        assert_headers(event, seq);
    }
    assert_eq!(disconnected.header("Landfall-Reason"), "connection-lost");
    drop(world);
}

#[tokio::test]
async fn a_raw_upstream_body_is_the_payload_untouched() {
    let world = World::with(|settings| settings.set("events.upstream_body", "raw")).await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
    let payload = [0xff, 0x00, b'\r', b'\n', 0x80];
    // What a device says reaches header values only without a line's end (attack class C6).
    let publish = Publish::new(Version::V5, "größe/x\ty", payload, 1, 1)
        .property(&property::content_type("text/x\r\nEvil: 1"))
        .property(&property::user("k\r\nEvil", "v\r\nEvil: 2"));
    client.send(&publish.encode()).await;
    match client.next().await {
        Some(ack) if ack.kind() == kind::PUBACK && ack.ack_code() == 0 => {
            let event =
                world.recorder.find(landfall_testkit::PATIENCE, "upstream", |e| e.kind() == "upstream").await;
            assert_eq!(event.body.as_ref(), payload);
            assert_eq!(event.header("Evil"), "");
            assert!(event.headers.iter().all(|(name, _)| name.to_string() != "Evil"), "{:?}", event.headers);
        }
        // Control characters in a text of a packet may be refused as a whole ([MQTT-1.5.4-2] lets a server).
        _ => {
            client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
        }
    }
    client.send(&Publish::new(Version::V5, "größe/x", payload, 1, 1).encode()).await;
    client.expect(kind::PUBACK).await;
    let event = world
        .recorder
        .find(landfall_testkit::PATIENCE, "a raw upstream", |event| {
            event.kind() == "upstream" && event.header("Landfall-Topic").ends_with("e/x")
        })
        .await;
    assert_eq!(event.body.as_ref(), payload);
    assert_eq!(event.header("Landfall-Topic"), "gr%C3%B6%C3%9Fe/x");
    assert_eq!(event.header("Landfall-Endpoint-Id"), "d");
    assert_eq!(event.header("Landfall-Qos"), "1");
    assert!(!event.header("Landfall-Seq").is_empty());
    let session = event.header("Landfall-Session-Id");
    world.recorder.expect_that("connected", "d", session, |event| event.text("sessionId") == session).await;
    drop(client);
    world.gateway.assert_sound();
    world.wiretap.assert_clean("landfall").await;
}
