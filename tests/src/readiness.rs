//! What an operator asks a gateway: does it take devices, does it store, is what was written in its files in force?

use std::time::Duration;

use async_nats::jetstream::{self, stream::DiscardPolicy};
use landfall_testkit::packet::{Connect, Publish};
use landfall_testkit::process::Signal;
use landfall_testkit::streams::MESSAGES;
use landfall_testkit::{Gateway, NatsServer, PATIENCE, RawClient, Version, World, eventually, http, paths};
use serde_json::Value;

async fn answer(gateway: &Gateway, path: &str) -> (u16, Value) {
    let answer = gateway.get(path).await;
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

/// Waits until `path` is answered with 503 for this reason.
async fn not_ready(gateway: &Gateway, path: &str, reason: &str) -> Value {
    eventually(PATIENCE * 2, &format!("{reason} at {path}"), async || {
        let (status, body) = answer(gateway, path).await;
        (status == 503 && body["reasons"][0] == *reason).then_some(body)
    })
    .await
}

async fn ready(gateway: &Gateway, path: &str) {
    eventually(PATIENCE * 2, &format!("200 at {path}"), async || {
        (gateway.get(path).await.status == 200).then_some(())
    })
    .await;
}

async fn logs(gateway: &Gateway, text: &str) {
    eventually(PATIENCE, &format!("{text:?} in the log"), async || {
        gateway.log().contains(text).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_nats_is_away_a_gateway_is_ready_to_admit_and_not_to_store() {
    let mut world = World::start().await;
    assert_eq!(answer(&world.gateway, "/readyz?store&config").await.0, 200);
    world.nats.kill();
    let body = not_ready(&world.gateway, "/readyz?store", "nats-not-reached").await;
    assert!(body["store"]["since"].as_u64().is_some_and(|since| since > 1_700_000_000_000), "{body}");
    assert!(body["store"]["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
    // The spool takes what happens as soon as the outage is one.
    ready(&world.gateway, "/readyz").await;
    let client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
    assert_eq!(answer(&world.gateway, "/readyz").await.1["store"]["cause"], "nats-not-reached");
    world.nats.restart().await;
    ready(&world.gateway, "/readyz?store").await;
    world.recorder.expect("connected", "d").await;
    logs(&world.gateway, "storing again after").await;
    logs(&world.gateway, "what waited is told").await;
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn who_refuses_devices_without_nats_is_not_ready_then() {
    let mut world = World::with(|builder| builder.set("nats.when_away", "refuse")).await;
    world.nats.kill();
    not_ready(&world.gateway, "/readyz", "nats-not-reached").await;
    world.nats.restart().await;
    ready(&world.gateway, "/readyz").await;
    world.close().await;
}

#[tokio::test]
async fn a_stream_that_is_full_is_named() {
    let world = World::start().await;
    let context = jetstream::new(world.nats.client().await);
    let stream = context.get_stream(MESSAGES).await.unwrap();
    let before = stream.cached_info().config.clone();
    let mut full = before.clone();
    (full.max_messages, full.discard) = (1, DiscardPolicy::New);
    context.update_stream(&full).await.unwrap();
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d")).await;
    client.send(&Publish::new(Version::V5, "t", "1", 1, 1).encode()).await;
    client.send(&Publish::new(Version::V5, "t", "2", 1, 2).encode()).await;
    let body = not_ready(&world.gateway, "/readyz?store", "stream-full").await;
    assert!(body["store"]["error"].as_str().unwrap().contains("maximum messages"), "{body}");
    context.update_stream(&before).await.unwrap();
    ready(&world.gateway, "/readyz?store").await;
    drop(client);
    world.close().await;
}

const DEVICES: &str = "[[device]]\nid = \"d\"\npassword = \"plain:secret\"\n";

#[tokio::test]
async fn a_file_that_is_broken_while_the_gateway_runs_is_seen() {
    let nats = NatsServer::start().await;
    let gateway = Gateway::builder().nats(&nats).devices(DEVICES).start().await;
    assert_eq!(answer(&gateway, "/readyz?config").await.0, 200);
    gateway.edit_devices("[[device]]\nid = 7\n");
    let body = not_ready(&gateway, "/readyz?config", "config-broken").await;
    assert_eq!(body["config"][0]["file"], "auth.devices");
    assert!(body["config"][0]["error"].as_str().unwrap().contains("devices.toml:2"), "{body}");
    assert_eq!(answer(&gateway, "/readyz").await.0, 200, "devices of before are let in");
    let broken = gateway.metrics("landfall_config_broken").await;
    assert!(
        broken.contains(&("landfall_config_broken{file=\"auth.devices\"}".to_owned(), 1.0)),
        "{broken:?}"
    );
    gateway.edit_devices(DEVICES);
    ready(&gateway, "/readyz?config").await;
    logs(&gateway, "a file that was broken is mended and in use").await;
}

#[tokio::test]
async fn a_hangup_reads_everything_again_and_ends_nothing() {
    let nats = NatsServer::start().await;
    let gateway = Gateway::builder().nats(&nats).devices(DEVICES).start().await;
    let before = gateway.metrics("landfall_config_reloads_total{file=\"auth.devices\"").await;
    let changed = gateway.settings().clone().set("log.level", "debug").set("drain_timeout", "7s");
    changed.write();
    gateway.process().signal(Signal::HUP);
    logs(&gateway, "the log's level has changed").await;
    logs(&gateway, "keys=\".drain_timeout\"").await;
    let after = gateway.metrics("landfall_config_reloads_total{file=\"auth.devices\"").await;
    assert!(before.iter().any(|(_, n)| *n == 0.0) && after.iter().any(|(_, n)| *n == 1.0), "{after:?}");
    changed.set("drain_timeout", "never").write();
    gateway.process().signal(Signal::HUP);
    let body = not_ready(&gateway, "/readyz?config", "config-broken").await;
    assert_eq!(body["config"][0]["file"], "settings");
    assert_eq!(answer(&gateway, "/readyz").await.0, 200);
    gateway.terminate();
    assert!(gateway.exited(PATIENCE).await.success(), "it ends in order all the same");
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let Some(promtool) = paths::interop("promtool", paths::program("promtool")) else { return };
    let nats = NatsServer::start().await;
    let gateway = Gateway::builder().nats(&nats).devices(DEVICES).start().await;
    let metrics = gateway.get("/metrics").await.body;
    let mut command = tokio::process::Command::new(promtool);
    command.args(["check", "metrics"]).kill_on_drop(true);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let mut checking = command.spawn().unwrap();
    let mut input = checking.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, metrics.as_bytes()).await.unwrap();
    drop(input);
    let checked = tokio::time::timeout(Duration::from_secs(60), checking.wait_with_output()).await;
    let checked = checked.expect("in time").unwrap();
    let said =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    // And the other format for those who ask for it.
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let request = format!("{head}Accept: application/openmetrics-text\r\n\r\n");
    let open = http::request(gateway.run_file().admin, &request).await.expect("an answer");
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
}
