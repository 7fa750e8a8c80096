//! Wills: an upstream message that the gateway sends in the device's name, when the device did not say goodbye.

use std::time::{Duration, Instant};

use landfall_testkit::packet::{self, Connect, Will, property};
use landfall_testkit::{RawClient, Version, World};

const BOTH: [Version; 2] = [Version::V4, Version::V5];

fn will(payload: &str) -> Will {
    Will { topic: "status/gone".to_owned(), payload: payload.into(), qos: 1, ..Will::default() }
}

/// Who wants an answer to a will.
fn asks() -> Vec<u8> {
    [
        property::response_topic("ops/gone"),
        property::correlation_data(&[1, 2]),
        property::message_expiry(60),
        property::payload_format(true),
    ]
    .concat()
}

#[tokio::test]
async fn a_lost_connection_publishes_the_will() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("lost-{}", version.level());
        let mut connect = Connect::new(version, &name).will(Will { retain: true, ..will(r#"{"up":false}"#) });
        if version == Version::V5 {
            connect.will.as_mut().unwrap().properties =
                [property::content_type("application/json"), property::user("why", "will"), asks()].concat();
        }
        drop(RawClient::accepted(world.mqtt(), &connect).await);
        let event = world.recorder.expect("upstream", &name).await;
        assert_eq!(event.json["will"], true);
        assert_eq!(event.text("topic"), "status/gone");
        assert_eq!(event.json["payload"]["up"], false);
        assert_eq!(event.number("qos"), 1);
        assert_eq!(event.json["retain"], true);
        if version == Version::V5 {
            assert_eq!(event.text("contentType"), "application/json");
            assert!(event.json["userProperties"].to_string().contains("why"));
            assert_eq!((event.text("responseTopic"), event.text("correlationData")), ("ops/gone", "AQI="));
            assert_eq!((event.number("messageExpiryMs"), event.text("payloadFormat")), (60_000, "utf8"));
        }
        let end = world.recorder.expect("disconnected", &name).await;
        assert_eq!(end.text("reason"), "connection-lost");
        assert_eq!(event.text("sessionId"), end.text("sessionId"));
    }
    world.close().await;
}

#[tokio::test]
async fn a_goodbye_discards_the_will_and_0x04_does_not() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("polite-{}", version.level());
        let connect = Connect::new(version, &name).will(will("unsaid"));
        let mut client = RawClient::accepted(world.mqtt(), &connect).await;
        client.send(&packet::disconnect(version, 0, &[])).await;
        client.until_closed().await;
        world.recorder.expect("disconnected", &name).await;
    }
    let connect = Connect::new(Version::V5, "dramatic").will(will("said"));
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    client.send(&packet::disconnect(Version::V5, 0x04, &[])).await;
    client.until_closed().await;
    assert_eq!(world.recorder.expect("upstream", "dramatic").await.text("payload"), "said");
    assert_eq!(world.recorder.expect("disconnected", "dramatic").await.text("reason"), "client-closed");
    // Everything up to the third device's end has come, and no will of the first two was among it.
    for version in BOTH {
        assert!(world.recorder.of("upstream", &format!("polite-{}", version.level())).is_empty());
    }
    world.close().await;
}

#[tokio::test]
async fn a_will_waits_for_its_delay() {
    let world = World::start().await;
    let will = Will { properties: property::will_delay(2), ..will("late") };
    let connect = Connect::new(Version::V5, "d").will(will).persistent(60);
    drop(RawClient::accepted(world.mqtt(), &connect).await);
    world.recorder.expect("disconnected", "d").await;
    let left = Instant::now();
    let event = world.recorder.expect("upstream", "d").await;
    assert!(left.elapsed() > Duration::from_millis(1_500), "not at once: {:?}", left.elapsed());
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
    assert_eq!((event.text("payload"), &event.json["will"]), ("late", &true.into()));
    world.close().await;
}

#[tokio::test]
async fn a_return_within_the_delay_takes_the_will_back() {
    let world = World::start().await;
    let delayed = Will { properties: property::will_delay(2), ..will("never") };
    let connect = Connect::new(Version::V5, "d").will(delayed).persistent(60);
    drop(RawClient::accepted(world.mqtt(), &connect).await);
    world.recorder.expect("disconnected", "d").await;
    // It is back without a will, and something else with the same delay shows that the time has passed.
    let mut back = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d").persistent(60)).await;
    let delayed = Will { properties: property::will_delay(3), ..will("clock") };
    let other = Connect::new(Version::V5, "clock").will(delayed).persistent(60);
    drop(RawClient::accepted(world.mqtt(), &other).await);
    world.recorder.expect("upstream", "clock").await;
    back.ping().await;
    assert!(world.recorder.of("upstream", "d").is_empty(), "{}", world.recorder.story());
    drop(back);
    world.close().await;
}

#[tokio::test]
async fn the_end_of_the_session_ends_the_delay() {
    // 3.1.3.2.2: the will is published when the delay has passed or the session ends, whichever is first. The session
    // ends with the connection here, whatever the delay says (CVE-2019-11778's shape).
    let world = World::start().await;
    let delayed = Will { properties: property::will_delay(3600), ..will("now") };
    drop(RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d").will(delayed)).await);
    assert_eq!(world.recorder.expect("upstream", "d").await.text("payload"), "now");
    world.close().await;
}

#[tokio::test]
async fn a_takeover_publishes_the_will_of_the_first() {
    let world = World::start().await;
    let _first = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "d").will(will("first"))).await;
    let mut second =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "d").will(will("second"))).await;
    let event = world.recorder.expect("upstream", "d").await;
    assert_eq!((event.text("payload"), &event.json["will"]), ("first", &true.into()));
    second.ping().await;
    drop(second);
    world.recorder.expect_that("upstream", "d", "second", |event| event.text("payload") == "second").await;
    world.close().await;
}

/// The value of one metric.
async fn gauge(world: &World, name: &str) -> f64 {
    let all = world.gateway.metrics(name).await;
    all.into_iter().find(|(found, _)| found == name).map_or(f64::NAN, |(_, value)| value)
}

/// Ends the gateway, by `kill -9` or in order, and starts it again.
async fn again(mut world: World, kill: bool) -> World {
    if kill {
        world.gateway.kill();
    } else {
        world.gateway.terminate();
        assert!(world.gateway.exited(landfall_testkit::PATIENCE).await.success());
    }
    world.gateway = world.gateway.restart().await;
    world
}

#[tokio::test]
async fn a_will_outlives_kill_9_of_the_gateway() {
    let mut world = World::start().await;
    let mut clients = Vec::new();
    for version in BOTH {
        let name = format!("d{}", version.level());
        let mut client =
            RawClient::accepted(world.mqtt(), &Connect::new(version, &name).will(will("gone"))).await;
        for id in 1..=3 {
            client.publish_acked("t", "said", id).await;
        }
        clients.push((client, name));
    }
    for _ in 0..2 {
        world = again(world, true).await;
    }
    for (client, name) in clients {
        drop(client);
        let end = world.recorder.expect("disconnected", &name).await;
        assert_eq!(end.text("reason"), "gateway-lost");
        let said = world.recorder.of("upstream", &name);
        let numbers: Vec<_> = said.iter().map(|event| event.number("seq")).collect();
        assert_eq!(numbers, [1, 2, 3, 4], "once, and without a gap");
        assert_eq!((said[3].text("payload"), &said[3].json["will"]), ("gone", &true.into()));
        assert_eq!(said[3].text("sessionId"), end.text("sessionId"));
    }
    landfall_testkit::verify::assert_verified(&world.nats.url(), &[]).await;
    world.close().await;
}

fn delayed(seconds: u32, payload: &str) -> Connect {
    let will = Will { properties: property::will_delay(seconds), ..will(payload) };
    Connect::new(Version::V5, "d").will(will).persistent(3600)
}

/// A will that is owed when the gateway goes, with so much delay; kept over the restart.
async fn owed(seconds: u32, kill: bool) -> World {
    let world = World::start().await;
    drop(RawClient::accepted(world.mqtt(), &delayed(seconds, "late")).await);
    world.recorder.expect("disconnected", "d").await;
    again(world, kill).await
}

#[tokio::test]
async fn a_will_that_waits_outlives_the_gateway_until_it_is_due() {
    for kill in [true, false] {
        let world = owed(3, kill).await;
        let event = world.recorder.expect("upstream", "d").await;
        let end = world.recorder.expect("disconnected", "d").await;
        assert_eq!((event.text("payload"), &event.json["will"]), ("late", &true.into()));
        assert_eq!((event.number("seq"), event.text("sessionId")), (1, end.text("sessionId")));
        let waited = event.number("timestamp") - end.number("timestamp");
        assert!(waited >= 3_000, "counted from the disconnect: {waited} ms");
        let world = again(world, kill).await;
        assert_eq!(world.recorder.of("upstream", "d").len(), 1, "kill: {kill}");
        landfall_testkit::verify::assert_verified(&world.nats.url(), &[]).await;
        world.close().await;
    }
}

#[tokio::test]
async fn a_device_that_resumes_takes_its_will_back_also_over_a_restart() {
    for kill in [true, false] {
        let world = owed(1800, kill).await;
        assert!((gauge(&world, "landfall_waiting_wills").await - 1.0).abs() < 0.5);
        let mut back =
            RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d").persistent(60)).await;
        back.ping().await;
        assert!(gauge(&world, "landfall_waiting_wills").await < 0.5, "taken back");
        let world = again(world, kill).await;
        assert!(gauge(&world, "landfall_waiting_wills").await < 0.5, "for good");
        assert!(world.recorder.of("upstream", "d").is_empty(), "{}", world.recorder.story());
        world.close().await;
    }
}

#[tokio::test]
async fn a_clean_start_after_the_restart_makes_the_will_due() {
    for kill in [true, false] {
        let world = owed(1800, kill).await;
        let mut clean = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
        assert_eq!(world.recorder.expect("upstream", "d").await.text("payload"), "late");
        clean.ping().await;
        world.close().await;
    }
}

#[tokio::test]
async fn an_orderly_stop_does_not_cut_a_delay_short() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &delayed(1800, "early")).await;
    client.ping().await;
    let world = again(world, false).await;
    drop(client);
    let end = world.recorder.expect("disconnected", "d").await;
    assert_eq!(end.text("reason"), "gateway-draining");
    assert!(world.recorder.of("upstream", "d").is_empty(), "{}", world.recorder.story());
    let mut back = RawClient::accepted(world.mqtt(), &delayed(1800, "unsaid")).await;
    back.ping().await;
    assert!(world.recorder.of("upstream", "d").is_empty(), "{}", world.recorder.story());
    world.close().await;
}
