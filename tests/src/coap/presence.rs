//! Presence of devices that never connect: registrations, heartbeats, sleep, and another address.

use std::time::Duration;

use landfall_testkit::coap::{Message, code, method, option};
use landfall_testkit::{CoapClient, Faults, UdpProxy, World};
use serde_json::json;

use super::{DEVICES, client};

#[tokio::test]
async fn a_registration_opens_a_session_and_its_removal_ends_it() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let created = device.post("rd", &["ep=pump", "lt=60"], "</t>;rt=temperature").await;
    assert_eq!(created.code, code(2, 1));
    let place = created.joined(option::LOCATION_PATH, "/");
    assert!(place.starts_with("rd/"), "{place}");
    let connected = world.recorder.expect("connected", "pump").await;
    assert_eq!((connected.number("keepAliveMs"), &connected.json["inferred"]), (60_000, &json!(true)));
    assert_eq!(device.post(&place, &[], "").await.code, code(2, 4), "a refresh");
    assert_eq!(device.post(&place, &["lt=120"], "").await.code, code(2, 4), "with another lifetime");
    let again = device.post("rd", &["ep=pump", "lt=60"], "").await;
    assert_eq!((again.code, again.joined(option::LOCATION_PATH, "/")), (code(2, 1), place.clone()));
    assert_eq!(device.delete(&place, &[]).await.code, code(2, 2));
    let end = world.recorder.expect("disconnected", "pump").await;
    assert_eq!((end.text("reason"), end.text("initiator")), ("deregistered", "device"));
    assert_eq!(end.json["inferred"], false, "it said so");
    assert_eq!(device.delete(&place, &[]).await.code, code(4, 4));
    assert_eq!(device.post(&place, &[], "").await.code, code(4, 4));
    // The next is another session, with another name.
    let other = device.post("rd", &["ep=pump"], "").await;
    assert_ne!(other.joined(option::LOCATION_PATH, "/"), place);
    let sessions = world.recorder.expect_count("connected", "pump", 2).await;
    assert_eq!(sessions[1].number("keepAliveMs"), 90_000_000, "the default of RFC 9176, a day and an hour");
    assert!(sessions[1].number("epoch") > sessions[0].number("epoch"));
    assert!(world.recorder.of("upstream", "pump").is_empty(), "a registration is no message");
    world.close().await;
}

#[tokio::test]
async fn the_name_of_a_registration_is_worth_nothing_to_others() {
    let world = World::with(|settings| settings.devices(DEVICES)).await;
    let mut device = client(&world, 1).await;
    let created = device.post("rd", &["ep=pump", "key=p-key", "lt=60"], "").await;
    let place = created.joined(option::LOCATION_PATH, "/");
    assert!(place.len() >= 3 + 22, "nobody guesses {place}");
    let mut other = client(&world, 2).await;
    for name in ["pump", "1", "0", ""] {
        assert_eq!(other.delete(&format!("rd/{name}"), &[]).await.code, code(4, 4), "{name:?}");
    }
    assert_eq!(device.post(&place, &[], "").await.code, code(2, 4));
    assert!(world.recorder.of("disconnected", "pump").is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_device_with_a_new_address_moves_within_its_session() {
    let world = World::start().await;
    let proxy = UdpProxy::start(world.gateway.coap(), 1, Faults::NONE).await;
    let mut device = CoapClient::new(proxy.address(), 1).await;
    let mut seen = Vec::new();
    for n in 0..3 {
        assert_eq!(device.post("t", &["ep=rover"], n.to_string()).await.code, code(2, 4));
        seen.push(proxy.seen_as(device.local_addr()).unwrap().to_string());
        proxy.rebind();
    }
    let moves = world.recorder.expect_count("moved", "rover", 2).await;
    for (n, event) in moves.iter().enumerate() {
        assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.connectivity.moved");
        assert_eq!((event.text("previousAddress"), event.text("remoteAddress")), (&*seen[n], &*seen[n + 1]));
        assert_eq!(event.number("seq"), n as u64 + 2);
    }
    // A command goes to where it was heard last.
    let (observation, _) = device.observe("command", &["ep=rover"]).await;
    let headers = [("Command-Wait", "acknowledged")];
    let (reply, command) =
        tokio::join!(world.command("rover", "here", &headers), device.notification(&observation));
    assert_eq!((&reply["outcome"], command.text().as_str()), (&json!("acknowledged"), "here"));
    assert_eq!(world.recorder.of("connected", "rover").len(), 1, "one session");
    assert!(world.recorder.of("disconnected", "rover").is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_stranger_with_a_wrong_key_moves_nobody() {
    let world = World::with(|settings| settings.devices(DEVICES)).await;
    let mut device = client(&world, 1).await;
    assert_eq!(device.post("t", &["ep=pump", "key=p-key"], "1").await.code, code(2, 4));
    let mut stranger = client(&world, 2).await;
    assert_eq!(stranger.post("t", &["ep=pump", "key=guess"], "2").await.code, code(4, 1));
    assert!(stranger.ping().await);
    assert_eq!(device.post("t", &["ep=pump", "key=p-key"], "3").await.code, code(2, 4));
    world.recorder.expect_count("upstream", "pump", 2).await;
    assert!(world.recorder.of("moved", "pump").is_empty());
    world.close().await;
}

#[tokio::test]
async fn an_announced_sleep_is_dormant_and_the_next_word_awake() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    assert_eq!(device.post("t", &["ep=mole", "lt=1", "sleep=3"], "1").await.code, code(2, 4));
    let dormant = world.recorder.expect("dormant", "mole").await;
    assert_eq!((dormant.number("sleepMs"), dormant.number("seq")), (3_000, 2));
    assert_eq!(dormant.number("wakeBy"), dormant.number("timestamp") + 4_000, "its sleep and its silence");
    // A command waits as long as it sleeps; its lifetime passes, and ends nothing.
    let headers = [("Command-Ttl", "60000"), ("Command-Id", "c1")];
    let command = world.command("mole", "good morning", &headers);
    let sleep = async {
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        assert!(world.recorder.of("disconnected", "mole").is_empty());
        device.post("t", &["ep=mole", "ttd=5"], "2").await
    };
    let (reply, answer) = tokio::join!(command, sleep);
    assert_eq!((&reply["outcome"], answer.text().as_str()), (&json!("delivered"), "good morning"));
    let awake = world.recorder.expect("awake", "mole").await;
    assert!((1_500..10_000).contains(&awake.number("dormantMs")), "{}", awake.json);
    // Asleep again, and never back.
    assert_eq!(device.post("t", &["ep=mole", "sleep=1"], "3").await.code, code(2, 4));
    let again = world.recorder.expect_count("dormant", "mole", 2).await;
    let end = world.recorder.expect("disconnected", "mole").await;
    assert_eq!((end.text("reason"), &end.json["inferred"]), ("lifetime-expired", &json!(true)));
    let silent = end.number("timestamp") - again[1].number("timestamp");
    assert!((2_000..3_500).contains(&silent), "{silent} ms");
    assert_eq!(world.recorder.of("connected", "mole").len(), 1);
    world.close().await;
}

#[tokio::test]
async fn families_live_side_by_side_and_tenants_apart() {
    let world =
        World::with(|settings| settings.devices(&DEVICES.replace("id = \"valve\"", "id = \"pump\""))).await;
    let mut device = client(&world, 1).await;
    assert_eq!(device.post("t", &["ep=pump", "key=p-key"], "1").await.code, code(2, 4));
    // From the same address, a device of the same name of another tenant.
    assert_eq!(device.post("t", &["ep=pump", "t=acme", "key=v-key"], "2").await.code, code(2, 4));
    let sessions = world.recorder.expect_count("connected", "pump", 2).await;
    assert_eq!((sessions[0].text("tenant"), sessions[1].text("tenant")), ("default", "acme"));
    let events = world.recorder.expect_count("upstream", "pump", 2).await;
    assert_eq!(events[1].json["sessionId"], sessions[1].json["sessionId"]);
    let connect =
        landfall_testkit::packet::Connect::new(landfall_testkit::Version::V5, "c").login("pump", "p-key");
    let mqtt = landfall_testkit::RawClient::accepted(world.mqtt(), &connect).await;
    world.recorder.expect_count("connected", "pump", 3).await;
    assert!(world.recorder.of("disconnected", "pump").is_empty(), "MQTT takes nothing over from CoAP");
    drop(mqtt);
    world.close().await;
}

#[tokio::test]
async fn an_operator_ends_a_session_and_a_revoked_key_does() {
    let world = World::with(|settings| settings.devices(DEVICES)).await;
    let mut device = client(&world, 1).await;
    let pump = ["ep=pump", "key=p-key"];
    assert_eq!(device.post("t", &pump, "1").await.code, code(2, 4));
    assert!(world.gateway.cli(&["kick", "pump"]).await.status.success());
    let end = world.recorder.expect("disconnected", "pump").await;
    assert_eq!((end.text("reason"), end.text("initiator")), ("kicked", "operator"));
    assert_eq!(device.post("t", &pump, "2").await.code, code(2, 4), "its next word is another session");
    world.gateway.edit_devices(&DEVICES.replace("p-key", "new-key"));
    let ended = |event: &landfall_testkit::Seen| event.text("reason") == "credentials-revoked";
    world.recorder.expect_that("disconnected", "pump", "revoked", ended).await;
    let post = Message::request(method::POST).path("t").queries(&pump).payload("3");
    assert_eq!(device.request(post).await.code, code(4, 1));
    assert_eq!(device.post("t", &["ep=pump", "key=new-key"], "4").await.code, code(2, 4));
    world.close().await;
}
