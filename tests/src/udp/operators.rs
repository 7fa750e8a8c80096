//! What an operator sees of UDP devices, and does to them; and that one device's families live side by side.

use std::time::Duration;

use landfall_testkit::ledger::Open;
use landfall_testkit::packet::Connect;
use landfall_testkit::udp::UdpDevice;
use landfall_testkit::{CoapClient, RawClient, Version, World};

use super::{assert_refused, delivered, proven, sessions, story};

/// The transports over which a device is present, as the admin interface lists them.
async fn transports(world: &World, device: &str) -> Vec<String> {
    let listed = sessions(world).await.into_iter().filter(|one| one["endpointId"] == device);
    let mut found: Vec<String> = listed.map(|one| one["transport"].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

/// One device over MQTT, CoAP and UDP.
async fn everywhere(world: &World, device: &str) -> (RawClient, CoapClient, UdpDevice) {
    let mqtt = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, device)).await;
    let mut coap = CoapClient::new(world.gateway.coap(), 1).await;
    let stored = coap.post("a/b", &[&format!("ep={device}")], "by coap").await;
    assert_eq!(stored.code_text(), "2.04");
    let mut udp = UdpDevice::new(world.gateway.udp(), device).await;
    delivered(&mut udp, "hb=60", "by udp").await;
    world.recorder.expect_count("connected", device, 3).await;
    (mqtt, coap, udp)
}

#[tokio::test]
async fn one_device_lives_in_three_families_side_by_side() {
    let world = World::start().await;
    let (mut mqtt, mut coap, mut udp) = everywhere(&world, "d").await;
    assert_eq!(mqtt.publish_acked("a/b", "by mqtt", 1).await, 0);
    let upstream = world.recorder.expect_count("upstream", "d", 3).await;
    assert_eq!(super::session_ids(upstream.iter().map(|event| &**event)).len(), 3, "each its own session");
    assert_eq!(transports(&world, "d").await, ["coap", "mqtt", "udp"]);
    // Each ends by itself.
    delivered(&mut udp, "bye", "").await;
    assert_eq!(world.recorder.expect_end("d", "udp").await.text("reason"), "client-closed");
    mqtt.ping().await;
    assert_eq!(coap.post("a/b", &["ep=d"], "still").await.code_text(), "2.04");
    assert_eq!(transports(&world, "d").await, ["coap", "mqtt"]);
    // And comes back beside the others.
    delivered(&mut udp, "", "again").await;
    assert_eq!(transports(&world, "d").await, ["coap", "mqtt", "udp"]);
    drop(mqtt);
    assert_eq!(world.recorder.expect_end("d", "mqtt").await.text("reason"), "connection-lost");
    assert_eq!(transports(&world, "d").await, ["coap", "udp"]);
    world.close().await;
}

#[tokio::test]
async fn an_operator_lists_and_kicks_them() {
    let world = World::start().await;
    let (_mqtt, _coap, mut udp) = everywhere(&world, "pump-17").await;
    delivered(&mut udp, "sleep=3600", "").await;
    world.recorder.expect("dormant", "pump-17").await;
    let listed = sessions(&world).await;
    let one = listed.iter().find(|one| one["transport"] == "udp").unwrap();
    assert_eq!((one["dormant"].as_bool(), one["messagesIn"].as_u64()), (Some(true), Some(1)), "{one}");
    assert_eq!(one["remoteAddress"], udp.local_addr().to_string());
    assert_eq!(one["keepAliveMs"], 3_690_000, "its sleep, and its usual silence: {one}");
    let output = world.gateway.cli(&["sessions"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("pump-17") && text.contains("udp") && text.contains("coap"), "{text}");
    let output = world.gateway.cli(&["kick", "pump-17"]).await;
    assert!(output.status.success(), "{output:?}");
    for transport in ["mqtt", "coap", "udp"] {
        let ended = world.recorder.expect_end("pump-17", transport).await;
        assert_eq!((ended.text("reason"), ended.text("initiator")), ("kicked", "operator"), "{}", ended.json);
        assert_eq!(ended.json["inferred"], false);
    }
    assert!(sessions(&world).await.is_empty());
    // A kick is no ban: its next word begins anew.
    delivered(&mut udp, "", "back").await;
    assert_eq!(transports(&world, "pump-17").await, ["udp"]);
    world.close().await;
}

#[tokio::test]
async fn a_gateway_that_drains_ends_inferred_sessions_in_order() {
    let world = World::start().await;
    let mut devices = Vec::new();
    for n in 0..20 {
        let mut device = UdpDevice::new(world.gateway.udp(), &format!("d{n}")).await;
        delivered(&mut device, "hb=60", "x").await;
        devices.push(device);
    }
    world.gateway.terminate();
    let status = world.gateway.exited(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}");
    for n in 0..20 {
        let name = format!("d{n}");
        let ended = world.recorder.expect_end(&name, "udp").await;
        let told = (ended.text("reason"), ended.text("initiator"));
        assert_eq!(told, ("gateway-draining", "gateway"), "{}", ended.json);
        assert_eq!(ended.json["inferred"], false);
        assert_eq!(world.recorder.of("connected", &name).len(), 1);
    }
    world.assert_sound(Open::None).await;
}

#[tokio::test]
async fn a_device_that_is_struck_off_the_file_is_gone() {
    let world = proven().await;
    let mut pump = UdpDevice::new(world.gateway.udp(), "pump").await.signing("of-pump");
    let mut valve = UdpDevice::new(world.gateway.udp(), "valve").await.key("of-valve");
    delivered(&mut pump, "hb=60", "1").await;
    delivered(&mut valve, "hb=60", "1").await;
    world.gateway.edit_devices("[[device]]\nid = \"valve\"\npassword = \"plain:changed\"\n");
    for name in ["pump", "valve"] {
        let ended = world.recorder.expect_end(name, "udp").await;
        let told = (ended.text("reason"), ended.text("initiator"));
        assert_eq!(told, ("credentials-revoked", "operator"), "{}", ended.json);
    }
    pump.send("ack", "2").await;
    valve.send("ack", "2").await;
    assert_refused(&world, "unknown-device", 1).await;
    assert_refused(&world, "bad-credentials", 1).await;
    let mut valve = valve.key("changed");
    delivered(&mut valve, "", "3").await;
    assert_eq!(story(&world, "valve").await, ["connected", "disconnected", "connected"]);
    assert!(pump.waiting().is_empty());
    world.close().await;
}
