//! When a device under DTLS is present: from its handshake to its close_notify, its silence, or another's turn.

use std::time::Duration;

use landfall_testkit::dtls::{DtlsClient, End, Secret};
use landfall_testkit::{Pki, World};
use serde_json::json;

use super::{
    VALVE, assert_refused, coap, delivered, metric, posted, pump, sessions, settings, udp, until_metric,
    valve, world,
};

const ESTABLISHED: &str = "landfall_dtls_handshakes_established_total";
const CHANNELS: &str = "landfall_dtls_sessions ";

#[tokio::test]
async fn a_handshake_begins_it_and_close_notify_ends_it() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = DtlsClient::connect(world.gateway.udps(), &pump()).await;
    let connected = world.recorder.expect("connected", "pump").await;
    for (field, value) in [
        ("transport", json!("dtls")),
        ("inferred", json!(false)),
        ("identifiedBy", json!("psk")),
        ("remoteAddress", json!(device.local_addr().to_string())),
        ("keepAliveMs", json!(300_000)),
    ] {
        assert_eq!(connected.json[field], value, "{field} in {}", connected.json);
    }
    // What is no line is a payload as a whole; an empty one is a heartbeat.
    for payload in [&b"{\"bar\": 1}"[..], b"", b"LF2 is no line", b"\xff\x00", b"lf1 pump"] {
        device.send(payload).await;
    }
    let upstream = world.recorder.expect_count("upstream", "pump", 4).await;
    let encodings: Vec<_> = upstream.iter().map(|event| event.text("payloadEncoding")).collect();
    assert_eq!(encodings, ["json", "utf8", "base64", "utf8"]);
    let listed = sessions(&world).await;
    assert_eq!((listed.len(), &listed[0]["transport"]), (1, &json!("dtls")), "{listed:?}");
    device.close().await;
    let ended = world.recorder.expect_end("pump", "dtls").await;
    assert_eq!((ended.text("reason"), ended.text("initiator")), ("secure-channel-closed", "device"));
    assert_eq!((ended.number("messagesIn"), &ended.json["inferred"]), (4, &json!(false)));
    // It is answered in kind.
    assert_eq!(device.ended().await, End::Closed);
    until_metric(&world, CHANNELS, 0.0).await;
    world.close().await;
}

#[tokio::test]
async fn silence_ends_presence_and_not_the_channel() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).set("presence.idle_timeout", "1s")).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=1", "1").await;
    let mut other = coap(world.gateway.coaps(), &valve()).await;
    posted(&mut other, "1").await;
    let (one, two) =
        tokio::join!(world.recorder.expect_end("pump", "dtls"), world.recorder.expect_end("valve", "coaps"));
    for ended in [one, two] {
        assert_eq!((ended.text("reason"), &ended.json["inferred"]), ("idle-timeout", &json!(true)));
    }
    assert_eq!(metric(&world, CHANNELS).await, 2.0);
    // The next word begins the next session, without a handshake.
    delivered(&mut device, "hb=60", "2").await;
    posted(&mut other, "2").await;
    for (name, transport) in [("pump", "dtls"), ("valve", "coaps")] {
        let both = world.recorder.expect_count("connected", name, 2).await;
        assert!(both[1].number("epoch") > both[0].number("epoch"));
        assert_eq!((both[1].text("transport"), both[1].text("identifiedBy")), (transport, "psk"));
        let inferred = both.iter().map(|event| event.json["inferred"] == true).collect::<Vec<_>>();
        assert_eq!(inferred, [false, true], "a handshake was seen, and then only a word");
    }
    assert_eq!(metric(&world, ESTABLISHED).await, 2.0, "no further handshake");
    // Which close_notify ends as it did the first.
    device.channel().close().await;
    let ends = world.recorder.expect_ends("pump", "dtls", 2).await;
    assert_eq!(ends[1].text("reason"), "secure-channel-closed");
    world.close().await;
}

#[tokio::test]
async fn a_goodbye_and_a_deregistration_end_presence_and_not_the_channel() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=60", "1").await;
    delivered(&mut device, "bye", "").await;
    assert_eq!(world.recorder.expect_end("pump", "dtls").await.text("reason"), "client-closed");
    delivered(&mut device, "hb=60", "2").await;
    world.recorder.expect_count("connected", "pump", 2).await;
    delivered(&mut device, "sleep=3600", "").await;
    world.recorder.expect("dormant", "pump").await;
    let mut other = coap(world.gateway.coaps(), &valve()).await;
    let place =
        other.post("rd", &["lt=60"], "").await.joined(landfall_testkit::coap::option::LOCATION_PATH, "/");
    assert_eq!(other.delete(&place, &[]).await.code_text(), "2.02");
    assert_eq!(world.recorder.expect_end("valve", "coaps").await.text("reason"), "deregistered");
    posted(&mut other, "after").await;
    assert_eq!(metric(&world, ESTABLISHED).await, 2.0);
    // A session that is over is not ended again by the channel's end.
    delivered(&mut device, "bye", "").await;
    device.channel().close().await;
    until_metric(&world, CHANNELS, 1.0).await;
    assert_eq!(world.recorder.ends("pump", "dtls").len(), 2);
    world.close().await;
}

#[tokio::test]
async fn a_new_handshake_from_elsewhere_takes_over() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut old = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut old, "hb=60", "1").await;
    let last = old.channel().sealed(b"LF1 pump seq=9\nlate");
    let late = old.channel().sealed(b"bye");
    let mut new = udp(world.gateway.udps(), &pump(), "pump").await;
    let ended = world.recorder.expect_end("pump", "dtls").await;
    assert_eq!(ended.text("reason"), "taken-over", "{}", ended.json);
    assert_eq!(old.channel().ended().await, End::Closed, "the old channel is closed");
    // Whatever comes late on the old one, also its own close_notify, is nobody's.
    old.channel().send_datagram(&last).await;
    old.channel().send_datagram(&late).await;
    old.channel().close().await;
    delivered(&mut new, "hb=60", "2").await;
    let upstream = world.recorder.expect_count("upstream", "pump", 2).await;
    let payloads: Vec<_> = upstream.iter().map(|event| event.json["payload"].to_string()).collect();
    assert_eq!(payloads, ["1", "2"]);
    assert_eq!(world.recorder.ends("pump", "dtls").len(), 1);
    assert_eq!(sessions(&world).await[0]["remoteAddress"], new.local_addr().to_string());
    world.close().await;
}

#[tokio::test]
async fn a_handshake_from_the_same_address_replaces_only_when_it_succeeds() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut first = DtlsClient::connect(world.gateway.udps(), &pump()).await;
    first.send(b"1").await;
    world.recorder.expect_count("upstream", "pump", 1).await;
    // Wrong keys, and one that is never finished.
    for secret in [Secret::psk("pump", "wrong"), Secret::psk("valve", "wrong"), Secret::psk("nobody", VALVE)]
    {
        assert!(matches!(first.beside(&secret).handshake().await, Err(End::Alert(_))));
        first.send(b"2").await;
    }
    first.beside(&valve()).half_a_handshake().await;
    first.send(b"2").await;
    world.recorder.expect_count("upstream", "pump", 5).await;
    assert_eq!(world.recorder.of("connected", "pump").len(), 1);
    assert!(world.recorder.of("disconnected", "pump").is_empty());
    assert_refused(&world, "bad-credentials", "dtls", 2).await;
    // The same device again: one takes over from the other.
    let old = first.sealed(b"of the old channel");
    let mut second = first.beside(&pump());
    second.handshake().await.unwrap();
    assert_eq!(world.recorder.expect_end("pump", "dtls").await.text("reason"), "taken-over");
    second.send_datagram(&old).await;
    second.send(b"3").await;
    assert_eq!(world.recorder.expect_count("upstream", "pump", 6).await.len(), 6);
    // Another device at this address: the channel of the first is gone with its keys. The device has not said that it
    // leaves, so its session is left to its silence.
    let late = second.sealed(b"late");
    let mut third = second.beside(&valve());
    third.handshake().await.unwrap();
    third.send_datagram(&late).await;
    third.send(b"4").await;
    world.recorder.expect("upstream", "valve").await;
    assert_eq!(world.recorder.of("upstream", "pump").len(), 6);
    assert_eq!(world.recorder.ends("pump", "dtls").len(), 1);
    assert_eq!(sessions(&world).await.len(), 2);
    assert_eq!(metric(&world, CHANNELS).await, 1.0);
    world.close().await;
}

#[tokio::test]
async fn an_operator_ends_a_session_and_its_channel_with_it() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    let mut other = coap(world.gateway.coaps(), &pump()).await;
    delivered(&mut device, "hb=60", "1").await;
    posted(&mut other, "1").await;
    assert!(world.gateway.cli(&["kick", "pump"]).await.status.success());
    for transport in ["dtls", "coaps"] {
        let ended = world.recorder.expect_end("pump", transport).await;
        assert_eq!((ended.text("reason"), ended.text("initiator")), ("kicked", "operator"), "{}", ended.json);
    }
    assert_eq!(device.channel().ended().await, End::Closed);
    assert_eq!(other.channel().ended().await, End::Closed);
    until_metric(&world, CHANNELS, 0.0).await;
    // A kick is no ban.
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=60", "2").await;
    // Struck off the file, and another key.
    let mut valve = udp(world.gateway.udps(), &valve(), "valve").await;
    delivered(&mut valve, "hb=60", "1").await;
    world.gateway.edit_devices("[[device]]\nid = \"valve\"\npsk = \"00112233445566778899aabbccddeeff\"\n");
    for (name, channel) in [("pump", device.channel()), ("valve", valve.channel())] {
        let ended = world.recorder.expect_that("disconnected", name, "revoked", |event| {
            event.text("reason") == "credentials-revoked"
        });
        assert_eq!(ended.await.text("initiator"), "operator");
        assert_eq!(channel.ended().await, End::Closed);
    }
    let wrong = DtlsClient::new(world.gateway.udps(), &super::valve()).await.handshake().await;
    assert!(matches!(wrong, Err(End::Alert(_))), "{wrong:?}");
    let unknown = DtlsClient::new(world.gateway.udps(), &pump()).await.handshake().await;
    assert!(matches!(unknown, Err(End::Alert(_))), "{unknown:?}");
    until_metric(&world, CHANNELS, 0.0).await;
    world.close().await;
}

#[tokio::test]
async fn a_gateway_that_drains_says_close_notify() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=60", "1").await;
    let mut other = coap(world.gateway.coaps(), &valve()).await;
    posted(&mut other, "1").await;
    world.gateway.terminate();
    let both = async { tokio::join!(device.channel().ended(), other.channel().ended()) };
    let (status, ends) = tokio::join!(world.gateway.exited(Duration::from_secs(20)), both);
    assert!(status.success(), "{status}");
    assert_eq!(ends, (End::Closed, End::Closed));
    for (name, transport) in [("pump", "dtls"), ("valve", "coaps")] {
        let ended = world.recorder.expect_end(name, transport).await;
        assert_eq!((ended.text("reason"), ended.text("initiator")), ("gateway-draining", "gateway"));
    }
    world.assert_sound(landfall_testkit::ledger::Open::None).await;
}
