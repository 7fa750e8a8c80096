//! The admin interface: alive, ready, counted, listed.

use std::collections::BTreeSet;

use landfall_testkit::ledger::Open;
use landfall_testkit::packet::{self, Connect};
use landfall_testkit::{PATIENCE, RawClient, Version, World, eventually, http};
use serde_json::Value;

#[tokio::test]
async fn ready_follows_nats_and_alive_does_not() {
    let mut world = World::start().await;
    assert_eq!(world.gateway.get("/livez").await.status, 200);
    assert_eq!(world.gateway.get("/readyz").await.status, 200);
    world.nats.kill();
    eventually(PATIENCE, "not ready", async || {
        (world.gateway.get("/readyz?store").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(world.gateway.get("/livez").await.status, 200, "it lives on");
    world.nats.restart().await;
    eventually(PATIENCE, "ready", async || {
        (world.gateway.get("/readyz?store").await.status == 200).then_some(())
    })
    .await;
    world.close().await;
}

#[tokio::test]
async fn metrics_have_units_and_bounded_labels() {
    let world = World::start().await;
    for n in 0..30 {
        let name = format!("device-{n}");
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, &name)).await;
        assert_eq!(client.publish_acked(&format!("topic/{n}"), "x", 1).await, 0);
        client.send(&packet::disconnect(Version::V5, 0, &[])).await;
        client.until_closed().await;
        world.recorder.expect("disconnected", &name).await;
    }
    let answer = world.gateway.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let samples: Vec<&str> = answer.body.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    assert!(samples.len() > 10, "{}", answer.body);
    for sample in &samples {
        // `process_*` is what Prometheus expects of every process.
        assert!(sample.starts_with("landfall_") || sample.starts_with("process_"), "{sample}");
        assert!(
            !sample.contains("device-") && !sample.contains("topic/"),
            "a label that devices choose: {sample}"
        );
        let value = sample.rsplit_once(' ').map(|(_, value)| value.parse::<f64>().is_ok());
        assert_eq!(value, Some(true), "{sample}");
    }
    for line in answer.body.lines().filter(|line| line.starts_with("# TYPE")) {
        let mut words = line.split(' ').skip(2);
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        let described = answer.body.contains(&format!("# HELP {name} "));
        assert!(described, "{name} is described");
        if kind == "histogram" {
            assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name} has a unit");
        }
    }
    let names: BTreeSet<&str> = samples.iter().filter_map(|sample| sample.split(['{', ' ']).next()).collect();
    let before = samples.len();
    // More devices, not more series.
    for n in 30..60 {
        drop(RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, format!("device-{n}"))).await);
        world.recorder.expect("disconnected", &format!("device-{n}")).await;
    }
    let after = world.gateway.get("/metrics").await.body;
    let after = after.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    assert!(after <= before + 20, "{before} samples became {after}: {names:?}");
    world.close().await;
}

#[tokio::test]
async fn sessions_are_listed_as_they_are() {
    let world = World::start().await;
    let ids = |body: &str| -> BTreeSet<String> {
        let all: Value = serde_json::from_str(body).unwrap();
        let list = all["sessions"].as_array().or(all.as_array()).cloned().unwrap_or_default();
        list.iter().map(|one| one["endpointId"].as_str().unwrap().to_owned()).collect()
    };
    assert!(ids(&world.gateway.get("/v1/sessions").await.body).is_empty());
    let one = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "one")).await;
    let two = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "two \"quoted\"")).await;
    let body = world.gateway.get("/v1/sessions").await.body;
    assert_eq!(ids(&body), BTreeSet::from(["one".to_owned(), "two \"quoted\"".to_owned()]), "{body}");
    let connected = world.recorder.expect("connected", "one").await;
    assert!(body.contains(connected.text("sessionId")), "{body}");
    drop(one);
    world.recorder.expect("disconnected", "one").await;
    assert_eq!(ids(&world.gateway.get("/v1/sessions").await.body).len(), 1);
    drop(two);
    world.recorder.expect("disconnected", "two \"quoted\"").await;
    world.assert_sound(Open::None).await;
}

#[tokio::test]
async fn strangers_at_the_admin_door_are_turned_away() {
    let world = World::start().await;
    let admin = world.gateway.run_file().admin;
    assert_eq!(world.gateway.get("/nowhere").await.status, 404);
    let post = http::request(
        admin,
        "POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(post.await.map(|answer| answer.status), Some(405));
    // Not HTTP at all, and a head without an end.
    let _ = http::request(admin, "\0\0\0\0\r\n\r\n").await;
    let flood = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = http::request(admin, &flood).await;
    assert_eq!(world.gateway.get("/livez").await.status, 200);
    world.close().await;
}
