//! The load generator against the gateway: what `make figures` measures can be measured, and an idle connection stays
//! small.

use std::process::Stdio;

use landfall_testkit::{World, paths};
use serde_json::Value;
use tokio::process::Command;

async fn load(arguments: &[&str]) -> Value {
    let run = Command::new(paths::binary("landfall-load"))
        .arg("--json")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("landfall-load runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).expect("one JSON object")
}

/// The mark is 2,048 bytes at 10,000 connections in a release build (docs/performance.md). What this holds is the same
/// code in a test build, with fewer connections to share the fixed costs: room for those, and none for a buffer.
#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let world = World::start().await;
    let (server, pid) = (world.mqtt().to_string(), world.gateway.pid().to_string());
    let report =
        load(&["idle", "--server", &server, "--pid", &pid, "--connections", "3000", "--hold", "1"]).await;
    let each = report["bytes_per_connection"].as_u64().expect("a number");
    assert!(each < 4096, "{report}");
    world.close().await;
}

#[tokio::test]
async fn published_messages_are_acknowledged_and_timed() {
    let world = World::start().await;
    let server = world.mqtt().to_string();
    let report =
        load(&["publish", "--server", &server, "--connections", "4", "--seconds", "1", "--warmup", "0"])
            .await;
    let number = |name: &str| report[name].as_u64().expect("a number");
    assert!(number("acknowledged") > 100, "{report}");
    assert!(number("latency_p50_us") > 0 && number("latency_p50_us") <= number("latency_p99_us"), "{report}");
    world.close().await;
}

/// The marks are for a million devices in a release build (docs/performance.md). What this holds is that the measurement
/// measures: everybody arrives, is heard, and is told of exactly once after the own deadline.
#[tokio::test]
async fn a_thousand_datagram_devices_come_speak_and_fall_silent_at_once() {
    let world = World::start().await;
    let run = world.gateway.run_file();
    let (server, admin) = (run.listeners["udp"][0].replace("udp://", ""), run.admin.to_string());
    let (nats, pid) = (world.nats.url(), world.gateway.pid().to_string());
    let place = ["--server", &server, "--admin", &admin, "--nats", &nats, "--pid", &pid];
    let size = ["--devices", "1000", "--hold", "0", "--seconds", "1", "--bursts", "2"];
    let report = load(&[&["udp"], &place[..], &size[..]].concat()).await;
    let number = |name: &str| report[name].as_i64().unwrap_or_else(|| panic!("{name} in {report}"));
    assert_eq!(number("ended"), 1000, "{report}");
    assert!(number("end_events") < 200, "ends at once share events: {report}");
    assert!(number("touches") > 1000, "{report}");
    assert!((1..65_536).contains(&number("bytes_per_device")), "{report}");
    for (detected, published) in
        [("detected_p50_ms", "published_p50_ms"), ("detected_max_ms", "published_max_ms")]
    {
        assert!(number(detected) <= number(published) + 5 && number(published) < 10_000, "{report}");
    }
    world.close().await;
}

/// The marks are docs/performance.md's: less CPU per handshake than OpenSSL's server, 12 KiB per idle session. What this
/// holds is that the measurement measures, and that a session is far from the mark in a test build too.
#[tokio::test]
async fn dtls_clients_shake_hands_are_idle_and_speak() {
    let key = "6c616e6466616c6c";
    let devices: String =
        (0..600).map(|n| format!("[[device]]\nid = \"bench-{n}\"\npsk = \"{key}\"\n")).collect();
    let world = World::with(|builder| builder.udp(&["dtls://127.0.0.1:0"]).devices(&devices)).await;
    let (server, pid) = (world.gateway.udps().to_string(), world.gateway.pid().to_string());
    let common = ["--server", &server, "--pid", &pid, "--key", key, "--identities", "600"];
    let line = ["--answered", "--text", "LF1 {id} seq={n} ack"];
    let dtls = async |own: &[&str]| load(&[&["dtls"], &common[..], own].concat()).await;

    let report = dtls(&["idle", "--sessions", "600", "--hold", "0"]).await;
    assert_eq!((&report["lost"], &report["sessions"]), (&0.into(), &600.into()), "{report}");
    let each = report["bytes_per_session"].as_u64().expect("a number");
    assert!((1..12 * 1024).contains(&each), "{report}");

    let report = dtls(&[&line[..], &["handshakes", "--count", "300"]].concat()).await;
    assert_eq!((&report["lost"], &report["handshakes"]), (&0.into(), &300.into()), "{report}");
    assert!(report["cpu_us_per_handshake"].as_f64() > Some(0.0), "{report}");

    let records = ["records", "--sessions", "5", "--seconds", "1", "--warmup", "0"];
    let report = dtls(&[&line[..], &records].concat()).await;
    assert!(report["records"].as_u64() > Some(100), "{report}");
    world.close().await;
}
