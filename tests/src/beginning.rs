//! A gateway that cannot begin, for want of NATS or of room in its store: every device is answered at once, nothing is told of who
//! was turned away, and devices are let in as soon as it can.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use landfall_testkit::coap::{code, option};
use landfall_testkit::packet::{Connect, Version};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, stored, stored_at};
use landfall_testkit::udp::UdpDevice;
use landfall_testkit::{CoapClient, Gateway, NatsServer, PATIENCE, RawClient, eventually, paths};
use serde_json::Value;

/// Half of `mqtt.connect_timeout` here: who is answered later was kept waiting.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Settings under which waiting for anything shows.
fn settings() -> landfall_testkit::GatewayBuilder {
    Gateway::builder().set("mqtt.connect_timeout", "30s").set("coap.request_timeout", "30s")
}

/// A device of each protocol comes, is turned away at once in its protocol's words, and is gone.
async fn turns_everybody_away(gateway: &Gateway) {
    let began = Instant::now();
    for (version, unavailable) in [(Version::V4, 3), (Version::V5, 0x88)] {
        let (mut client, answer) =
            RawClient::connect(gateway.mqtt("tcp"), &Connect::new(version, "early").login("early", "wrong"))
                .await;
        assert_eq!(answer.connack_code(), unavailable, "{version:?}");
        assert!(client.until_closed().await.is_empty(), "{version:?}: and the connection is closed");
    }
    let mut client = CoapClient::new(gateway.coap(), 1).await;
    for path in ["t", "rd"] {
        let answer = client.post(path, &["ep=early"], "1").await;
        assert_eq!(answer.code, code(5, 3), "{path}: {answer:?}");
        assert!(answer.uint(option::MAX_AGE).is_some_and(|seconds| seconds > 0), "{answer:?}");
    }
    let away = "landfall_udp_dropped_total{reason=\"away\"}";
    let before = gateway.metrics(away).await.first().map_or(0.0, |(_, count)| *count);
    let mut device = UdpDevice::new(gateway.udp(), "early").await;
    device.send("", "1").await;
    eventually(PATIENCE, "a datagram that is counted", async || {
        gateway.metrics(away).await.first().is_some_and(|(_, count)| *count > before).then_some(())
    })
    .await;
    assert!(began.elapsed() < AT_ONCE, "they were kept waiting for {:?}", began.elapsed());
}

/// A device of each protocol comes, and what it says is stored.
async fn lets_everybody_in(gateway: &Gateway) {
    for (version, name) in [(Version::V4, "m4"), (Version::V5, "m5")] {
        let mut client = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(version, name)).await;
        assert_eq!(client.publish_acked("t", "2", 1).await, 0);
    }
    let mut client = CoapClient::new(gateway.coap(), 2).await;
    assert_eq!(client.post("t", &["ep=c"], "2").await.code, code(2, 4));
    let mut device = UdpDevice::new(gateway.udp(), "u").await;
    assert!(device.deliver("", "2").await, "an ack");
}

async fn readiness(gateway: &Gateway) -> Value {
    let answer = gateway.get("/readyz").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

#[tokio::test]
async fn who_comes_before_nats_is_there_is_answered_at_once() {
    let mut nats = NatsServer::start().await;
    nats.kill();
    let gateway = settings().nats(&nats).start_unready().await;
    turns_everybody_away(&gateway).await;
    let mut garbage = RawClient::open(gateway.mqtt("tcp")).await;
    garbage.send(b"\x10\x02\x00\x00").await;
    garbage.until_closed().await;
    assert_eq!(readiness(&gateway).await["reasons"][0], "starting");
    nats.restart().await;
    gateway.becomes_ready().await;
    lets_everybody_in(&gateway).await;
    let events = stored(&nats, CONNECTIVITY).await;
    assert!(!events.iter().any(|event| event.is_about("early")), "nothing is told of who was not let in");
    let upstream = stored(&nats, MESSAGES).await;
    assert_eq!(upstream.iter().map(|event| event.number("payload")).collect::<Vec<_>>(), [2; 4]);
    gateway.terminate();
    assert!(gateway.exited(PATIENCE).await.success());
    gateway.assert_sound();
}

#[tokio::test]
async fn a_gateway_that_is_told_to_stop_before_it_could_begin_stops() {
    let mut nats = NatsServer::start().await;
    nats.kill();
    let gateway = settings().nats(&nats).start_unready().await;
    turns_everybody_away(&gateway).await;
    let run_file = gateway.folder().join("nats/landfall.run.json");
    assert!(run_file.exists());
    gateway.terminate();
    assert!(gateway.exited(PATIENCE * 2).await.success());
    assert!(!run_file.exists(), "the run file is gone");
}

/// A nats-server that has no more room than 100 KB from the moment on at which the file is there.
fn bounded_by(folder: &Path, full: &Path) -> String {
    let program = folder.join("nats-server");
    let script = format!(
        "#!/bin/sh\nif [ -e '{full}' ]; then\n  n=$#\n  for a; do\n    case $a in *nats-server.conf)\n      \
         sed 's/^jetstream {{/jetstream {{ max_file_store: 100KB/' \"$a\" >\"$a.full\"; a=$a.full;;\n    esac\n    \
         set -- \"$@\" \"$a\"\n  done\n  shift $n\nfi\nexec '{real}' \"$@\"\n",
        full = full.display(),
        real = paths::nats_server().display(),
    );
    std::fs::write(&program, script).unwrap();
    let mut mode = std::fs::metadata(&program).unwrap().permissions();
    mode.set_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    program.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_restart_with_a_full_store_answers_devices_names_it_and_can_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full");
    // A stream with a bound reserves it.
    let settings = settings()
        .set("nats.server", bounded_by(folder.path(), &full))
        .set("nats.connectivity_max_bytes", "0B")
        .set("nats.messages_max_bytes", "0B");
    let gateway = settings.start().await;
    let mut client = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "d")).await;
    for id in 1..=30 {
        assert_eq!(client.publish_acked("t", vec![b'1'; 10_000], id).await, 0);
    }
    client.send(&[0xe0, 0]).await;
    client.until_closed().await;
    gateway.terminate();
    assert!(gateway.exited(PATIENCE).await.success());
    std::fs::write(&full, "").unwrap();
    let settings = gateway.settings().clone();
    drop(gateway);
    let gateway = settings.start_unready().await;
    turns_everybody_away(&gateway).await;
    let body = eventually(PATIENCE * 2, "the full store by its name", async || {
        let body = readiness(&gateway).await;
        (body["store"]["cause"] == "store-full").then_some(body)
    })
    .await;
    assert_eq!(body["reasons"][0], "starting", "{body}");
    assert!(gateway.log().contains("store-full"), "and the log names it:\n{}", gateway.log());
    let verified = gateway.cli(&["verify"]).await;
    assert!(
        verified.status.success(),
        "verify finds the gateway: {}{}",
        String::from_utf8_lossy(&verified.stdout),
        String::from_utf8_lossy(&verified.stderr)
    );
    // What makes room.
    let url = gateway.run_file().nats.clone();
    let context = jetstream::new(landfall_testkit::nats::client(&url).await);
    context.get_stream(MESSAGES).await.unwrap().purge().await.unwrap();
    gateway.becomes_ready().await;
    lets_everybody_in(&gateway).await;
    let events = stored_at(&url, CONNECTIVITY).await;
    assert!(!events.iter().any(|event| event.is_about("early")), "nothing is told of who was not let in");
    gateway.assert_sound();
}
