//! An operator finds the device that is not let in: by the name that it claims, the topic that it was denied, and what was wrong with
//! its handshake. No secret is told on the way.

use std::sync::Arc;

use landfall_testkit::packet::{Connect, Publish, Will, kind, subscribe};
use landfall_testkit::pki::Pki;
use landfall_testkit::recorder::Seen;
use landfall_testkit::{CoapClient, PATIENCE, RawClient, Version, World};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::coap::Wire;

const DEVICES: &str = r#"
[[device]]
id = "pump-17"
password = "plain:s3cret-of-pump"
publish = ["up/%d/#"]
subscribe = ["command/#"]
[[device]]
id = "valve"
tenant = "acme"
password = "plain:s3cret-of-valve"
"#;

/// Nothing of what was told holds a secret, and nothing of the log does.
fn assert_no_secret(world: &World) {
    for event in world.recorder.all() {
        assert!(!event.json.to_string().contains("s3cret"), "{}", event.json);
    }
    assert!(!world.gateway.log().contains("s3cret"), "no secret in the log");
}

async fn refused(world: &World, what: &str, is_it: impl Fn(&Seen) -> bool) -> Arc<Seen> {
    world.recorder.find(PATIENCE, what, |event| event.kind() == "refused" && is_it(event)).await
}

async fn turned_away(world: &World, connect: &Connect) {
    let (mut client, connack) = RawClient::connect(world.mqtt(), connect).await;
    assert_ne!(connack.connack_code(), 0);
    client.until_closed().await;
}

#[tokio::test]
async fn a_device_with_a_wrong_secret_is_found_by_the_name_that_it_claims() {
    let world = World::with(|settings| {
        settings
            .devices(DEVICES)
            .set("events.refusal_interval", "100ms")
            .set("coap.listen", vec!["udp://127.0.0.1:0"])
            .set("udp.listen", vec!["udp://127.0.0.1:0"])
    })
    .await;
    let claimed = async |transport: &str, name: &str, cause: &str| {
        let event = refused(&world, name, |event| {
            event.text("transport") == transport && event.json["claimedId"] == name
        });
        let event = event.await;
        assert_eq!(event.text("cause"), cause);
        assert!(
            event.json.get("endpointId").is_none() && event.json.get("tenant").is_none(),
            "nothing is proven"
        );
    };
    // The user name is the name of a device; the client id is not.
    turned_away(&world, &Connect::new(Version::V5, "c-1").login("pump-17", "wrong")).await;
    claimed("mqtt", "pump-17", "bad-credentials").await;
    // A secret in the wrong field is no device's name.
    turned_away(&world, &Connect::new(Version::V5, "pump-18").login("s3cret-of-pump", "pump-17")).await;
    claimed("mqtt", "pump-18", "unknown-device").await;
    turned_away(
        &world,
        &Connect::new(Version::V4, "s3cret-of-pump").login("s3cret-of-pump", "s3cret-of-pump"),
    )
    .await;
    turned_away(&world, &Connect::new(Version::V5, "x\u{1b}[2J").login("pump-17", "wrong")).await;
    claimed("mqtt", "x\u{1b}[2J", "malformed").await;
    let mut coap = CoapClient::new(world.gateway.coap(), 1).await;
    coap.post("t", &["ep=valve", "t=acme", "key=s3cret-of-pump"], "x").await;
    claimed("coap", "valve@acme", "bad-credentials").await;
    coap.post("t", &["ep=s3cret-of-pump", "key=s3cret-of-pump"], "x").await;
    let udp = Wire::to(world.gateway.udp()).await;
    udp.send(b"LF1 nobody@acme key=s3cret-of-valve\nx").await;
    claimed("udp", "nobody@acme", "unknown-device").await;
    udp.send(b"LF1 s3cret-of-pump key=s3cret-of-pump\nx").await;
    udp.send(b"LF1 pump-17  key=s3cret-of-pump\nx").await;
    let event = refused(&world, "a broken line", |event| {
        event.text("transport") == "udp" && event.text("cause") == "malformed"
    });
    assert_eq!(event.await.text("detail"), "a word is missing between spaces");
    assert_no_secret(&world);
    world.close().await;
}

#[tokio::test]
async fn a_denied_topic_is_told() {
    let world = World::with(|settings| {
        settings
            .devices(DEVICES)
            .set("events.refusal_interval", "100ms")
            .set("coap.listen", vec!["udp://127.0.0.1:0"])
            .set("udp.listen", vec!["udp://127.0.0.1:0"])
    })
    .await;
    let denied = async |transport: &str, topic: &str| {
        let event = refused(&world, topic, |event| {
            event.text("transport") == transport && event.json["topic"] == topic
        });
        let event = event.await;
        assert_eq!((event.text("cause"), event.text("endpointId")), ("not-authorized", "pump-17"));
        assert!(event.json.get("claimedId").is_none());
    };
    let connect = Connect::new(Version::V5, "c").login("pump-17", "s3cret-of-pump");
    let will = Will { topic: "up/pump-18/dead".to_owned(), payload: b"x".to_vec(), ..Will::default() };
    turned_away(&world, &connect.clone().will(will)).await;
    denied("mqtt", "up/pump-18/dead").await;
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    client.send(&Publish::new(Version::V5, "up/pump-18/flow", "1", 1, 1).encode()).await;
    assert_eq!(client.expect(kind::PUBACK).await.ack_code(), 0x87);
    denied("mqtt", "up/pump-18/flow").await;
    client.send(&subscribe(Version::V5, 2, &[("command/#", 0), ("up/+/flow", 0), ("#", 0)])).await;
    client.expect(kind::SUBACK).await;
    denied("mqtt", "up/+/flow").await;
    let mut coap = CoapClient::new(world.gateway.coap(), 1).await;
    coap.post("up/pump-18/heat", &["ep=pump-17", "key=s3cret-of-pump"], "x").await;
    denied("coap", "up/pump-18/heat").await;
    let udp = Wire::to(world.gateway.udp()).await;
    udp.send(b"LF1 pump-17 key=s3cret-of-pump res=c-1\nx").await;
    denied("udp", "command/res/c-1").await;
    assert_no_secret(&world);
    drop(client);
    world.close().await;
}

/// Each is mended in another place: the firmware's port, its certificate, its list of authorities, the page.
#[tokio::test]
async fn what_was_wrong_with_a_handshake_is_told_in_words() {
    let (pki, foreign) = (Pki::new(), Pki::named("another fleet"));
    let world = World::with(|settings| {
        settings
            .devices(DEVICES)
            .tls(&pki)
            .client_ca(&pki)
            .set("tls.client_auth", "optional")
            .set("events.refusal_interval", "100ms")
            .listen(&["tcp://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0"])
    })
    .await;
    let told = async |detail: &str, cause: &str| {
        let event = refused(&world, detail, |event| event.text("detail") == detail).await;
        assert_eq!(event.text("cause"), cause, "{detail}");
    };
    let spoken = async |scheme: &str, bytes: &[u8]| {
        let mut stream = TcpStream::connect(world.gateway.mqtt(scheme)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    };
    let plain = Connect::new(Version::V5, "c").login("pump-17", "s3cret-of-pump").encode();
    let _plain = spoken("tls", &plain).await;
    told("no TLS: plain bytes", "tls-failed").await;
    let imposter = foreign.client("pump-17");
    if let Ok(mut client) =
        RawClient::open_tls(world.gateway.mqtt("tls"), pki.client_config(Some(&imposter))).await
    {
        client.until_closed().await;
    }
    told("unknown certificate authority", "tls-failed").await;
    assert!(RawClient::open_tls(world.gateway.mqtt("tls"), foreign.client_config(None)).await.is_err());
    told("alert of the device: unknown certificate authority", "tls-failed").await;
    let _secure = spoken("tcp", &[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3, 7, 7, 7]).await;
    told("TLS on a port without TLS", "malformed").await;
    let upgrade = landfall_testkit::websocket::upgrade(Some("mqtt"));
    let _lost = spoken("ws", upgrade.replacen("GET /mqtt", "GET /elsewhere", 1).as_bytes()).await;
    told("path not served", "malformed").await;
    let page = upgrade.replace("Host:", "Origin: https://evil.example\r\nHost:");
    let _page = spoken("ws", page.as_bytes()).await;
    told("origin not admitted", "not-authorized").await;
    assert_no_secret(&world);
    world.close().await;
}
