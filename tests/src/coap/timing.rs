//! When silence ends a CoAP session: never early, and at most so late. These have the machine to themselves.

use std::time::{Duration, Instant};

use landfall_testkit::coap::code;
use landfall_testkit::{Seen, World};
use serde_json::json;

use super::client;

/// How late silence may be noticed, by the contract.
const LATE: u64 = 200;

fn assert_expired(event: &Seen, reason: &str, silence: u64) {
    assert_eq!((event.text("reason"), event.text("initiator")), (reason, "gateway"));
    assert_eq!(event.json["inferred"], true);
    let silent = event.number("timestamp") - event.number("lastSeenAt");
    assert!((silence..=silence + LATE).contains(&silent), "{silent} ms where {silence} are due");
}

#[tokio::test]
async fn what_the_device_announced_is_how_long_it_may_be_silent() {
    let world = World::with(|settings| settings.set("presence.idle_timeout", "3s")).await;
    let mut device = client(&world, 1).await;
    // One announces nothing, one a lifetime, one registers, one announces another later.
    let began = Instant::now();
    assert_eq!(device.post("t", &["ep=default"], "x").await.code, code(2, 4));
    assert_eq!(device.post("t", &["ep=short", "lt=1"], "x").await.code, code(2, 4));
    assert_eq!(device.post("rd", &["ep=listed", "lt=2"], "").await.code, code(2, 1));
    assert_eq!(device.post("t", &["ep=changed", "lt=60"], "x").await.code, code(2, 4));
    assert_eq!(device.post("t", &["ep=changed", "lt=2"], "x").await.code, code(2, 4));
    for (name, reason, silence) in [
        ("short", "lifetime-expired", 1_000),
        ("listed", "lifetime-expired", 2_000),
        ("changed", "lifetime-expired", 2_000),
        ("default", "idle-timeout", 3_000),
    ] {
        let event = world.recorder.expect("disconnected", name).await;
        assert_expired(&event, reason, silence);
        assert!(event.at - began >= Duration::from_millis(silence), "{name} is early by the client's clock");
        assert!(event.json.get("evidence").is_none(), "nothing was learned");
    }
    // It speaks again: another session.
    assert_eq!(device.post("t", &["ep=short"], "x").await.code, code(2, 4));
    let sessions = world.recorder.expect_count("connected", "short", 2).await;
    assert_eq!(sessions[1].number("keepAliveMs"), 3_000, "a lifetime ends with its session");
    world.close().await;
}

#[tokio::test]
async fn a_ping_and_a_refresh_are_heartbeats() {
    let world = World::start().await;
    let (mut pinger, mut silent, mut listed) =
        (client(&world, 1).await, client(&world, 2).await, client(&world, 3).await);
    assert_eq!(pinger.post("t", &["ep=pinger", "lt=2"], "x").await.code, code(2, 4));
    assert_eq!(silent.post("t", &["ep=silent", "lt=2"], "x").await.code, code(2, 4));
    let place = listed.post("rd", &["ep=listed", "lt=2"], "").await.joined(8, "/");
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..5 {
        ticks.tick().await;
        assert!(pinger.ping().await);
        assert_eq!(listed.post(&place, &[], "").await.code, code(2, 4));
    }
    // From an address that belongs to nobody, it is nobody's.
    assert!(client(&world, 4).await.ping().await);
    let end = world.recorder.expect("disconnected", "silent").await;
    assert_expired(&end, "lifetime-expired", 2_000);
    let living = world.recorder.all();
    assert!(!living.iter().any(|event| event.kind() == "disconnected" && !event.is_about("silent")));
    for name in ["pinger", "listed"] {
        let end = world.recorder.expect("disconnected", name).await;
        assert_expired(&end, "lifetime-expired", 2_000);
        assert!(end.number("durationMs") >= 6_000, "{}", end.json);
    }
    world.close().await;
}

#[tokio::test]
async fn the_operator_says_how_long_a_device_may_be_silent_that_does_not() {
    let devices = r#"
[[device]]
id = "own"
password = "plain:k"
keep_alive = "1s"
[[device]]
id = "of-tenant"
tenant = "acme"
password = "plain:k"
[[tenant]]
id = "acme"
keep_alive = "2s"
"#;
    let world = World::with(|settings| settings.devices(devices)).await;
    let mut device = client(&world, 1).await;
    assert_eq!(device.post("t", &["ep=own", "key=k"], "x").await.code, code(2, 4));
    assert_eq!(device.post("t", &["ep=of-tenant", "t=acme", "key=k"], "x").await.code, code(2, 4));
    for (name, silence) in [("own", 1_000), ("of-tenant", 2_000)] {
        assert_eq!(world.recorder.expect("connected", name).await.number("keepAliveMs"), silence);
        assert_expired(&*world.recorder.expect("disconnected", name).await, "idle-timeout", silence);
    }
    // What a device announces itself goes before.
    assert_eq!(device.post("t", &["ep=own", "key=k", "lt=60"], "x").await.code, code(2, 4));
    let sessions = world.recorder.expect_count("connected", "own", 2).await;
    assert_eq!(sessions[1].json["keepAliveMs"], json!(60_000));
    world.close().await;
}

#[tokio::test]
async fn a_learned_cadence_ends_a_session_sooner_and_shows_its_evidence() {
    let world = World::with(|settings| {
        settings
            .set("presence.idle_timeout", "2s")
            .set("presence.adaptive", true)
            .set("presence.adaptive_min", "300ms")
    })
    .await;
    let mut device = client(&world, 1).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(150));
    // Longer than twice the timeout: only then anything is judged.
    for n in 0..40 {
        ticks.tick().await;
        assert_eq!(device.post("t", &["ep=steady"], n.to_string()).await.code, code(2, 4));
    }
    let end = world.recorder.expect("disconnected", "steady").await;
    let silent = end.number("timestamp") - end.number("lastSeenAt");
    assert_eq!((end.text("reason"), &end.json["inferred"]), ("idle-timeout", &json!(true)));
    assert!((300..1_500).contains(&silent), "{silent} ms: sooner than the timeout");
    let evidence = &end.json["evidence"];
    let interval = evidence["intervalMs"].as_u64().unwrap();
    assert!((120..250).contains(&interval), "{evidence}");
    // It is judged a moment before it is told, and two clocks are rounded apart.
    let judged = evidence["silentMs"].as_u64().unwrap();
    assert!((silent.saturating_sub(50)..=silent + 1).contains(&judged), "{}", end.json);
    assert!(evidence["phi"].as_f64().is_some_and(|phi| phi >= 7.9), "{evidence}");
    assert_eq!(world.recorder.of("connected", "steady").len(), 1, "it was not given up before");
    world.close().await;
}
